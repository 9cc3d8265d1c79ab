// SPDX-License-Identifier: GPL-2.0

//! An attached backing device and its metadata in core.

use core::fmt;

use drbd_engine::{
    activity_log::{
        ActivityLog,
        Slot,
        Span,
        Transaction,
        MAX_UPDATES, //
    },
    cache::Cache,
    config::{
        DiskConf,
        Fencing as ConfiguredFencing, //
    },
    meta::{
        flags::FlagInputs,
        Layout,
        MdFlags,
        Superblock,
        Uuids, //
    },
    request::never_prefers_remote,
    state::{
        ConnState,
        DiskState,
        Fencing,
        State, //
    },
    types::{
        Minor,
        Sector, //
    },
};
use drbd_sys::{
    bdev::BlockDevice,
    bits::{
        AtomicBits32,
        AtomicBits64, //
    },
    faults::{
        self,
        Fault, //
    },
    hash::crc32c,
    idle_mutex::{
        IdleGuard,
        IdleMutex, //
    },
    log,
    new_idle_mutex,
    sync_io::{
        Durability,
        SyncIo, //
    },
    time::monotonic_ns, //
};
use kernel::{
    new_mutex, new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};

use super::{
    bitmap::{
        Bitmap,
        Which, //
    },
    device::{
        flag,
        Device, //
    },
    worker::chore,
};

/// How long a metadata I/O may take where the admin set no `disk-timeout`, and with a disk that was
/// given up.
const META_TIMEOUT_MS: u32 = 600_000;
const ABANDONED_TIMEOUT_MS: u32 = 1000;

/// How often any disk was attached.
static ATTACHMENTS: Atomic<u64> = Atomic::new(1);

/// The activity log over its own slots.
pub(crate) type Extents = ActivityLog<KVVec<Slot>>;

/// Pages for metadata I/O.
pub(crate) struct MetaIo {
    /// For transactions of the activity log, which are prepared before what they depend on is
    /// written.
    pub(crate) activity_log: SyncIo,
    /// For everything else.
    pub(crate) page: SyncIo,
    /// For flushes of the data.
    data: SyncIo,
}

impl MetaIo {
    /// Makes the pages. May sleep.
    pub(crate) fn new(meta: &BlockDevice, backing: &BlockDevice) -> Result<Self> {
        Ok(Self {
            activity_log: SyncIo::new(meta)?,
            page: SyncIo::new(meta)?,
            data: SyncIo::new(backing)?,
        })
    }
}

/// What of the super block is in core, and since when it differs from the disk.
pub(crate) struct Facts {
    /// The super block as it will be written next.
    pub(crate) superblock: Superblock,
    /// When the first change since the last write was made; `None` if there was none.
    dirty_since_ns: Option<u64>,
    /// The flags on disk.
    written_flags: MdFlags,
}

/// An attached disk. Owned by its [`Device`], lent out as [`super::device::LocalRef`].
#[pin_data]
pub(crate) struct LocalDisk {
    /// Tells this attachment from others of the device.
    pub(crate) id: u64,
    minor: Minor,
    /// Holds the data.
    pub(crate) backing: BlockDevice,
    /// Where the parts of the metadata lie.
    pub(crate) layout: Layout,
    #[pin]
    conf: SpinLockIrq<Arc<DiskConf>>,
    /// Held by whoever replaces them, from the look at those before.
    #[pin]
    conf_change: Mutex<()>,
    /// 1 where its `read-balancing` leaves no read to the peer.
    keeps_reads: AtomicBits32,
    #[pin]
    facts: SpinLockIrq<Facts>,
    /// The metadata device, one I/O at a time.
    #[pin]
    pub(crate) meta: IdleMutex<MetaIo>,
    /// Held by whoever writes pages of the bitmap, until they are on stable storage.
    #[pin]
    pub(crate) bitmap_writer: IdleMutex<()>,
    /// Held by whoever gives the volume a new size.
    #[pin]
    pub(crate) resizing: IdleMutex<()>,
    /// Which blocks differ from the peer's.
    pub(crate) bitmap: Bitmap,
    /// Which extents may differ after a crash.
    #[pin]
    pub(crate) activity_log: SpinLockIrq<Extents>,
    /// What may be in the volatile cache of the data's device.
    #[pin]
    pub(crate) cache: SpinLockIrq<Cache>,
    /// When the disk became usable; `disk-timeout` counts from here.
    attached_ns: AtomicBits64,
    /// 1 once the metadata could not be written: nothing is written any more.
    meta_failed: AtomicBits32,
    /// 1 once the disk is given up without waiting for it.
    abandoned: AtomicBits32,
}

/// What [`LocalDisk::new`] is made of.
pub(crate) struct Parts {
    pub(crate) minor: Minor,
    pub(crate) backing: BlockDevice,
    pub(crate) layout: Layout,
    pub(crate) conf: Arc<DiskConf>,
    pub(crate) superblock: Superblock,
    pub(crate) meta: MetaIo,
    pub(crate) bitmap: Bitmap,
    pub(crate) activity_log: Extents,
}

impl LocalDisk {
    /// Puts the parts together. May sleep.
    pub(crate) fn new(parts: Parts) -> Result<Arc<Self>> {
        let facts = Facts {
            superblock: parts.superblock,
            dirty_since_ns: None,
            written_flags: parts.superblock.flags,
        };
        let keeps_reads = keeps_reads(&parts.conf);
        Arc::pin_init(
            try_pin_init!(Self {
                id: ATTACHMENTS.fetch_add(1u64, Relaxed),
                minor: parts.minor,
                backing: parts.backing,
                layout: parts.layout,
                conf <- new_spinlock_irq!(parts.conf, "drbd_disk_conf"),
                conf_change <- new_mutex!((), "drbd_disk_conf_change"),
                keeps_reads: AtomicBits32::new(keeps_reads),
                facts <- new_spinlock_irq!(facts, "drbd_facts"),
                meta <- new_idle_mutex!(parts.meta, "drbd_meta"),
                bitmap_writer <- new_idle_mutex!((), "drbd_bitmap_writer"),
                resizing <- new_idle_mutex!((), "drbd_resizing"),
                bitmap: parts.bitmap,
                activity_log <- new_spinlock_irq!(parts.activity_log, "drbd_activity_log"),
                cache <- new_spinlock_irq!(Cache::unknown(), "drbd_cache"),
                attached_ns: AtomicBits64::new(monotonic_ns()),
                meta_failed: AtomicBits32::new(0),
                abandoned: AtomicBits32::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// The options. Any context.
    pub(crate) fn conf(&self) -> Arc<DiskConf> {
        self.conf.lock().clone()
    }

    /// Replaces the options. May sleep.
    pub(crate) fn set_conf(&self, conf: Arc<DiskConf>) {
        let _one_change = self.conf_change.lock();
        self.store_conf(conf);
    }

    /// Changes some of the options. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; nothing has changed then.
    #[inline(never)] // All disk options are on its stack.
    pub(crate) fn edit_conf(&self, edit: impl FnOnce(&mut DiskConf)) -> Result {
        let _one_change = self.conf_change.lock();
        let mut conf = (*self.conf()).clone();
        edit(&mut conf);
        self.store_conf(Arc::new(conf, GFP_KERNEL)?);
        Ok(())
    }

    fn store_conf(&self, conf: Arc<DiskConf>) {
        self.keeps_reads.store(keeps_reads(&conf));
        let old = core::mem::replace(&mut *self.conf.lock(), conf);
        drop(old);
    }

    /// Whether its `read-balancing` leaves no read to the peer. Any context.
    pub(crate) fn keeps_reads(&self) -> bool {
        self.keeps_reads.any(1)
    }

    /// The fencing policy. Any context.
    pub(crate) fn fencing(&self) -> Fencing {
        match self.conf().fencing {
            ConfiguredFencing::DontCare => Fencing::DontCare,
            ConfiguredFencing::ResourceOnly => Fencing::ResourceOnly,
            ConfiguredFencing::ResourceAndStonith => Fencing::ResourceAndStonith,
        }
    }

    /// The UUIDs. Any context.
    pub(crate) fn uuids(&self) -> Uuids {
        self.facts.lock().superblock.uuids
    }

    /// The current UUID. Any context.
    pub(crate) fn current_uuid(&self) -> u64 {
        self.uuids().current
    }

    /// The metadata flags. Any context.
    pub(crate) fn flags(&self) -> MdFlags {
        self.facts.lock().superblock.flags
    }

    /// The size that both nodes agreed upon last. Any context.
    pub(crate) fn last_agreed_size(&self) -> Sector {
        self.facts.lock().superblock.last_agreed_size
    }

    /// The largest request of ours that a peer was found to take, in bytes; 0 where there was no
    /// peer. Any context.
    pub(crate) fn peer_max_bio_bytes(&self) -> u32 {
        self.facts.lock().superblock.peer_max_bio_bytes
    }

    /// The UUIDs as the log shows them.
    pub(crate) fn uuids_text(&self) -> UuidsText {
        UuidsText(self.uuids())
    }

    /// Changes the super block in core; what changed is written by [`Self::sync`], at the latest
    /// after 5 s. Any context.
    pub(crate) fn change<R>(&self, device: &Device, edit: impl FnOnce(&mut Superblock) -> R) -> R {
        let mut facts = self.facts.lock();
        let result = edit(&mut facts.superblock);
        if facts.dirty_since_ns.is_none() {
            facts.dirty_since_ns = Some(monotonic_ns());
        }
        drop(facts);
        device.chore(chore::SYNC_METADATA);
        result
    }

    /// Recomputes the flags for a new state (spec §2.1). Any context.
    pub(crate) fn update_flags(&self, device: &Device, state: State) {
        let inputs = FlagInputs {
            crashed_primary: device.flags.any(flag::CRASHED_PRIMARY),
            primary: state.role.is_primary(),
            peer_primary: state.peer.is_primary(),
            connected: state.conn > ConnState::WFReportParams,
            disk_above_inconsistent: state.disk > DiskState::Inconsistent,
            disk_above_outdated: state.disk > DiskState::Outdated,
            peer_disk_below_inconsistent: state.pdsk < DiskState::Inconsistent,
            peer_disk_inconsistent_or_outdated: state.pdsk >= DiskState::Inconsistent
                && state.pdsk <= DiskState::Outdated,
        };
        let mut facts = self.facts.lock();
        let flags = facts.superblock.flags.recompute(inputs);
        if flags == facts.superblock.flags {
            return;
        }
        facts.superblock.flags = flags;
        if facts.dirty_since_ns.is_none() {
            facts.dirty_since_ns = Some(monotonic_ns());
        }
        drop(facts);
        device.chore(chore::SYNC_METADATA);
    }

    /// When the disk became usable. Any context.
    pub(crate) fn attached_ns(&self) -> u64 {
        self.attached_ns.load()
    }

    /// Since when the super block in core differs from the disk. Any context.
    pub(crate) fn dirty_since_ns(&self) -> Option<u64> {
        self.facts.lock().dirty_since_ns
    }

    /// Lets the metadata know whether there will be an activity log to go by after a crash. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// As of [`Self::sync`].
    pub(crate) fn note_log(&self, device: &Device, is_kept: bool) -> Result {
        if self.flags().contains(MdFlags::AL_DISABLED) != is_kept {
            return Ok(());
        }
        self.change(device, |superblock| {
            superblock.flags = superblock.flags.with_if(MdFlags::AL_DISABLED, !is_kept);
        });
        self.sync(device)
    }

    /// Writes the super block if it changed. May sleep.
    ///
    /// Where it says no more that this node is Primary the activity log does not count after a
    /// crash: what its extents stand for is brought into the bitmap on disk first.
    ///
    /// # Errors
    ///
    /// Of the metadata device; the worker is told to give up the disk.
    pub(crate) fn sync(&self, device: &Device) -> Result {
        self.sync_after(device, false)
    }

    /// The same by who has seen to the bitmap, as far as that can be.
    pub(crate) fn sync_with_bitmap(&self, device: &Device) -> Result {
        self.sync_after(device, true)
    }

    fn sync_after(&self, device: &Device, mut has_bitmap: bool) -> Result {
        loop {
            let meta = self.meta.lock();
            let mut facts = self.facts.lock();
            let superblock = facts.superblock;
            if facts.dirty_since_ns.is_none() {
                return Ok(());
            }
            if has_bitmap || !superblock.flags.ends_log_of(facts.written_flags) {
                facts.dirty_since_ns = None;
                drop(facts);
                return self.write_superblock(device, meta, &superblock);
            }
            drop(facts);
            drop(meta);
            if self.has_failed_metadata() {
                // A disk that hangs is not waited for again.
                return Err(EIO);
            }
            self.bitmap.write(device, self, Which::Dirty)?;
            has_bitmap = true;
        }
    }

    fn write_superblock(
        &self,
        device: &Device,
        mut meta: IdleGuard<'_, MetaIo>,
        superblock: &Superblock,
    ) -> Result {
        let sector = self.layout.superblock();
        let written = meta
            .page
            .page()
            .map(|page| superblock.encode(page))
            .and_then(|()| self.write_page(&mut meta.page, sector, self.durability()));
        let mut facts = self.facts.lock();
        match written {
            Ok(()) => facts.written_flags = superblock.flags,
            // What the others changed is not on disk for them either.
            Err(_) => {
                facts.dirty_since_ns.get_or_insert_with(monotonic_ns);
            }
        }
        drop(facts);
        drop(meta);
        self.judge_metadata(device, written)
    }

    /// Whether metadata writes are flushed to stable storage.
    pub(crate) fn flushes_metadata(&self) -> bool {
        self.conf().md_flushes
    }

    /// How metadata are written that what was written before depends on.
    pub(crate) fn durability(&self) -> Durability {
        match self.flushes_metadata() {
            true => Durability::AllStable,
            false => Durability::Cached,
        }
    }

    /// How long one metadata I/O may take before the disk is given up.
    pub(crate) fn timeout_ms(&self) -> Option<u32> {
        let timeout_ms = match self.conf().disk_timeout {
            0 => META_TIMEOUT_MS,
            deciseconds => deciseconds.saturating_mul(100),
        };
        Some(match self.abandoned.any(1) {
            true => timeout_ms.min(ABANDONED_TIMEOUT_MS),
            false => timeout_ms,
        })
    }

    /// Gives the disk up without waiting for it: what it has not done soon counts as failed. Any
    /// context.
    pub(crate) fn abandon(&self) {
        self.abandoned.set(1);
    }

    /// Writes a page of metadata. May sleep.
    ///
    /// The wait ends when the disk is abandoned, also where it began before.
    pub(crate) fn write_page(
        &self,
        io: &mut SyncIo,
        sector: Sector,
        durability: Durability,
    ) -> Result {
        if faults::strikes(self.minor.0, Fault::MetaWrite) {
            return Err(EIO);
        }
        io.start_write(sector.0, durability)?;
        self.finish(io)
    }

    /// Waits for what was started, but neither beyond the deadline nor for an abandoned disk.
    fn finish(&self, io: &mut SyncIo) -> Result {
        io.finish_while(&|waited_ms| self.has_patience(waited_ms))
    }

    /// Whether an I/O that took that long may take longer.
    pub(crate) fn has_patience(&self, waited_ms: u64) -> bool {
        self.timeout_ms()
            .is_none_or(|most| waited_ms < u64::from(most))
    }

    /// Flushes the write cache of one of the disk's devices, waiting as for metadata. May sleep.
    pub(crate) fn flush(&self, device: &BlockDevice) -> Result {
        let mut io = SyncIo::new(device)?;
        io.start_flush()?;
        self.finish(&mut io)
    }

    /// Flushes the write cache of the data device, for a command that waits no longer than
    /// `most_ms`. May sleep.
    pub(crate) fn flush_backing(&self, most_ms: u32) -> Result {
        let mut io = SyncIo::new(&self.backing)?;
        io.start_flush()?;
        io.finish_while(&|waited_ms| waited_ms < u64::from(most_ms) && self.has_patience(waited_ms))
    }

    /// An error of the metadata device costs the disk: tells the worker, once.
    pub(crate) fn judge_metadata(&self, device: &Device, result: Result) -> Result {
        if let Err(error) = result {
            if self.meta_failed.set(1) == 0 {
                log!(Error, device, "metadata I/O error {}", error.to_errno());
                // Nothing more may be written that the metadata ought to tell of.
                device.flags.set(flag::METADATA_UNJUDGED);
                device.chore(chore::METADATA_FAILED);
            }
        }
        result
    }

    /// Whether the metadata could not be written, at any time. Any context.
    pub(crate) fn has_failed_metadata(&self) -> bool {
        self.meta_failed.any(1)
    }

    /// Notes that the disk is in use from now on.
    pub(crate) fn stamp_attached(&self) {
        self.attached_ns.store(monotonic_ns());
    }

    /// Writes the transaction that waiting requests need: bitmap pages of the extents that lose
    /// their slots, then the block.
    ///
    /// Returns whether there was one to write; afterwards whoever waits is to be tried again. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// Of the metadata device; no extent became hot, and the disk is being given up.
    pub(crate) fn write_transaction(&self, device: &Device) -> Result<bool> {
        let mut meta = self.meta.lock();
        let block = meta.activity_log.page()?;
        // From here on the set of changes is fixed: what is evicted is known.
        let Some(transaction) = self.activity_log.lock().begin(block, raw_crc32c) else {
            return Ok(false);
        };
        let evicts = self.activity_log.lock().evicted().next().is_some();
        let _one_writer = evicts.then(|| self.bitmap_writer.lock());
        let written = if self.conf().al_updates {
            self.flush_evicted_data(&mut meta.data, transaction)
                .and_then(|()| self.write_evicted(device, &mut meta.page))
                .and_then(|wrote_pages| {
                    let block = &mut meta.activity_log;
                    self.write_block(device, block, transaction, wrote_pages)
                })
        } else {
            Ok(())
        };
        let mut activity_log = self.activity_log.lock();
        match written {
            Ok(()) => activity_log.commit(),
            Err(_) => {
                // What was written of the bitmap may be in a cache only, and no other flush need
                // follow: it is written again by who writes the transaction again.
                activity_log
                    .evicted_pages()
                    .for_each(|page| self.bitmap.mark_dirty(page));
                activity_log.abort();
            }
        }
        drop(activity_log);
        drop(meta);
        self.judge_metadata(device, written).map(|()| true)
    }

    /// The data of extents that leave the log must not be in a cache any more: after a power cut
    /// nothing would tell that it is missing. The flush in front of the block does that where both
    /// are on one device.
    fn flush_evicted_data(&self, io: &mut SyncIo, transaction: Transaction) -> Result {
        let is_internal = self.layout.placement().is_internal();
        if is_internal || !transaction.flushes_data || !self.backing.has_write_cache() {
            return Ok(());
        }
        io.start_flush()?;
        self.finish(io)
    }

    /// What the bitmap says of extents that leave the log must be on disk before the log forgets
    /// them. Whether anything had to be written, which the next flush makes stable.
    fn write_evicted(&self, device: &Device, page_io: &mut SyncIo) -> Result<bool> {
        let mut pages = [u64::MAX; MAX_UPDATES];
        for (place, page) in pages
            .iter_mut()
            .zip(self.activity_log.lock().evicted_pages())
        {
            *place = page;
        }
        let mut wrote_pages = false;
        for &page in pages.iter().take_while(|&&page| page != u64::MAX) {
            wrote_pages |= self
                .bitmap
                .write_page_if_dirty(device, self, page_io, page)?;
        }
        Ok(wrote_pages)
    }

    fn write_block(
        &self,
        device: &Device,
        block_io: &mut SyncIo,
        transaction: Transaction,
        wrote_pages: bool,
    ) -> Result {
        let is_internal = self.layout.placement().is_internal();
        let durability = if !self.flushes_metadata() {
            Durability::Cached
        } else if wrote_pages || (transaction.flushes_data && is_internal) {
            Durability::AllStable
        } else {
            Durability::Stable
        };
        let Some(sector) = self.layout.activity_log_block(transaction.ring_block) else {
            return Err(EINVAL);
        };
        self.write_page(block_io, sector, durability)?;
        device.counters.activity_log_writes.add(1);
        Ok(())
    }

    /// Gives back the references that a request holds. Any context.
    pub(crate) fn put_extents(&self, device: &Arc<Device>, span: Span) {
        if self.activity_log.lock().put(span) {
            device.retry_delayed();
        }
    }
}

fn keeps_reads(conf: &DiskConf) -> u32 {
    never_prefers_remote(conf.read_balancing).into()
}

/// CRC-32C as the activity log has it: seed 0, no inversion (spec §2.4).
fn raw_crc32c(bytes: &[u8]) -> u32 {
    crc32c(0, bytes)
}

/// UUIDs as log lines show them: current, bitmap and two of history.
pub(crate) struct UuidsText(pub(crate) Uuids);

impl fmt::Display for UuidsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Uuids {
            current,
            bitmap,
            history,
        } = self.0;
        let [first, second] = history;
        write!(f, "{current:016X}:{bitmap:016X}:{first:016X}:{second:016X}")
    }
}
