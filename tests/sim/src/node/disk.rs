// SPDX-License-Identifier: GPL-2.0

//! An attached disk with its metadata, as `io/disk.rs` and `io/bitmap.rs` have it.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use drbd_engine::activity_log::block::initialize;
use drbd_engine::activity_log::{ActivityLog, Slot, Span, Transaction, BLOCK_SIZE};
use drbd_engine::bitmap::page::{pages_for, Page};
use drbd_engine::bitmap::{bits_for, words_for, Bitmap};
use drbd_engine::cache::Cache;
use drbd_engine::handshake::uuid_compare::UuidSet;
use drbd_engine::meta::flags::FlagInputs;
use drbd_engine::meta::{Layout, MdFlags, Superblock, Uuids, SUPERBLOCK_SIZE};
use drbd_engine::state::{ConnState, DiskState, State, StateError};
use drbd_engine::types::{BitNr, Sector};

use super::device::Device;
use crate::canary::Canary;
use crate::drive::{Content, Drive, Durability, Sectors};
use crate::tools::{block_of, crc32c};

/// How often the bitmap is written before the activity log counts as busy.
const ATTEMPTS: u32 = 5;

/// Which pages to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All.
    All,
    /// Those that changed.
    Dirty,
}

/// The metadata could not be written, and the disk is about to be given up.
#[derive(Debug)]
pub(crate) struct MetaFailed;

/// An attached disk.
pub(crate) struct LocalDisk {
    /// Tells attachments apart.
    pub(crate) id: u64,
    pub(crate) data: Rc<Drive>,
    pub(crate) meta: Rc<Drive>,
    pub(crate) layout: Layout,
    pub(crate) superblock: RefCell<Superblock>,
    dirty: Cell<bool>,
    /// The flags on disk.
    written_flags: Cell<MdFlags>,
    words: Vec<Cell<u64>>,
    dirty_pages: Vec<Cell<bool>>,
    /// The words say at least what the disk says: before that they are not written.
    pub(crate) in_core: Cell<bool>,
    pub(crate) activity_log: RefCell<ActivityLog<Vec<Slot>>>,
    /// Bits were cleared for data that may not be on stable storage yet.
    cleared: Cell<bool>,
    /// Pages of the bitmap are on their way to stable storage.
    bitmap_busy: Cell<bool>,
    /// The metadata buffer is in use.
    meta_busy: Cell<bool>,
    /// The metadata could not be written.
    pub(crate) meta_failed: Cell<bool>,
    /// What may be in the cache of the data's drive.
    pub(crate) cache: RefCell<Cache>,
    /// References that are out.
    pub(crate) references: Cell<u32>,
}

/// A reference to the attached disk; it is not let go while one is out.
pub(crate) struct LocalRef(Rc<LocalDisk>);

impl Deref for LocalRef {
    type Target = LocalDisk;

    fn deref(&self) -> &LocalDisk {
        &self.0
    }
}

impl Drop for LocalRef {
    fn drop(&mut self) {
        self.0.references.set(self.0.references.get() - 1);
    }
}

impl Device {
    /// The attached disk.
    pub(crate) fn local(&self) -> Option<LocalRef> {
        let disk = self.local.borrow().clone()?;
        disk.references.set(disk.references.get() + 1);
        Some(LocalRef(disk))
    }

    /// Begins to let the disk go: no new references from here on. Returns it, also when called
    /// again.
    pub(crate) fn retire_local(&self) -> Option<Rc<LocalDisk>> {
        if let Some(disk) = self.local.take() {
            self.retired.replace(Some(disk));
        }
        // Bios that wait hold references.
        self.retry_delayed();
        self.retired.borrow().clone()
    }

    /// Whether a disk is attached, or about to be let go.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached_disk().is_some()
    }

    /// The disk that is attached, or about to be let go.
    pub(crate) fn attached_disk(&self) -> Option<Rc<LocalDisk>> {
        let attached = self.local.borrow().clone();
        attached.or_else(|| self.retired.borrow().clone())
    }
}

/// The two types of the engine for the same four numbers.
pub(crate) fn uuid_set(uuids: &Uuids) -> UuidSet {
    UuidSet {
        current: uuids.current,
        bitmap: uuids.bitmap,
        history: uuids.history,
    }
}

/// The way back.
pub(crate) fn uuids_of(set: &UuidSet) -> Uuids {
    Uuids {
        current: set.current,
        bitmap: set.bitmap,
        history: set.history,
    }
}

/// The sectors of a block of metadata.
pub(crate) fn meta_sectors(sector: Sector, bytes: &[u8]) -> Sectors {
    let pieces = bytes.chunks_exact(512).zip(sector.0..);
    pieces
        .map(|(piece, at)| {
            let mut content = [0; 512];
            content.copy_from_slice(piece);
            (at, Some(Content::Meta(Rc::new(content))))
        })
        .collect()
}

impl LocalDisk {
    /// Puts the parts together; the bitmap is clear.
    pub(crate) fn new(device: &Device, layout: Layout, superblock: Superblock) -> Rc<Self> {
        let capacity = Sector(device.config.capacity_sectors);
        let bits = bits_for(capacity);
        let slots = vec![Slot::default(); device.al_slots.get()];
        Rc::new(Self {
            id: device.sim.random(),
            data: device.hardware.data.clone(),
            meta: device.hardware.meta.clone(),
            layout,
            superblock: RefCell::new(superblock),
            dirty: Cell::new(false),
            written_flags: Cell::new(superblock.flags),
            words: (0..words_for(bits)).map(|_| Cell::new(0)).collect(),
            dirty_pages: (0..pages_for(bits)).map(|_| Cell::new(false)).collect(),
            in_core: Cell::new(device.config.has(Canary::BitmapWrittenUnread)),
            activity_log: RefCell::new(ActivityLog::new(slots, superblock.ring)),
            cleared: Cell::new(false),
            bitmap_busy: Cell::new(false),
            meta_busy: Cell::new(false),
            meta_failed: Cell::new(false),
            cache: RefCell::new(Cache::unknown()),
            references: Cell::new(0),
        })
    }

    pub(crate) fn uuids(&self) -> Uuids {
        self.superblock.borrow().uuids
    }

    pub(crate) fn uuids_text(&self) -> String {
        uuid_set(&self.uuids()).to_string()
    }

    /// Changes the super block in core.
    pub(crate) fn change<R>(&self, edit: impl FnOnce(&mut Superblock) -> R) -> R {
        self.dirty.set(true);
        edit(&mut self.superblock.borrow_mut())
    }

    /// Recomputes the flags for a new state.
    pub(crate) fn update_flags(&self, device: &Device, state: State) {
        let inputs = FlagInputs {
            crashed_primary: device.flags.crashed_primary.get(),
            primary: state.role.is_primary(),
            peer_primary: state.peer.is_primary(),
            connected: state.conn > ConnState::WFReportParams,
            disk_above_inconsistent: state.disk > DiskState::Inconsistent,
            disk_above_outdated: state.disk > DiskState::Outdated,
            peer_disk_below_inconsistent: state.pdsk < DiskState::Inconsistent,
            peer_disk_inconsistent_or_outdated: state.pdsk >= DiskState::Inconsistent
                && state.pdsk <= DiskState::Outdated,
        };
        let flags = self.superblock.borrow().flags.recompute(inputs);
        if flags != self.superblock.borrow().flags {
            self.change(|superblock| superblock.flags = flags);
        }
    }

    /// One writer of pages at a time, until they are on stable storage.
    async fn lock_bitmap(&self, device: &Device) {
        if device.config.has(Canary::TwoBitmapWriters) {
            return;
        }
        device.sim.until(|| !self.bitmap_busy.get()).await;
        self.bitmap_busy.set(true);
    }

    async fn lock_metadata(&self, device: &Device) {
        device.sim.until(|| !self.meta_busy.get()).await;
        self.meta_busy.set(true);
    }

    fn unlock_metadata(&self) {
        self.meta_busy.set(false);
    }

    async fn write_meta(&self, device: &Device, sectors: Sectors, durability: Durability) -> bool {
        let done = Rc::new(Cell::new(None));
        let told = done.clone();
        self.meta
            .write(device.owner, sectors, durability, move |ok| {
                told.set(Some(ok));
            });
        device.sim.until(|| done.get().is_some()).await;
        done.get() == Some(true)
    }

    async fn flush(&self, device: &Device, drive: &Rc<Drive>) -> bool {
        let done = Rc::new(Cell::new(None));
        let told = done.clone();
        drive.flush(device.owner, move |ok| told.set(Some(ok)));
        device.sim.until(|| done.get().is_some()).await;
        done.get() == Some(true)
    }

    /// An error of the metadata costs the disk: tells the worker, once.
    fn judge_metadata(&self, device: &Device, written: bool) -> bool {
        if !written && !self.meta_failed.replace(true) {
            device.tell(|| "metadata I/O error".into());
            device.flags.metadata_unjudged.set(true);
            device.flags.metadata_failed.set(true);
            device.sim.touch();
        }
        written
    }

    /// Writes the super block if it changed; whether that worked.
    ///
    /// Where it says no more that this node is Primary the activity log does not count after a
    /// crash: what its extents stand for is brought into the bitmap on disk first.
    pub(crate) async fn sync(&self, device: &Device) -> bool {
        let careless = device.config.has(Canary::LogEndedBeforeBitmap);
        self.sync_after(device, careless).await
    }

    /// The same by who has seen to the bitmap, as far as that can be.
    pub(crate) async fn sync_with_bitmap(&self, device: &Device) -> bool {
        self.sync_after(device, true).await
    }

    async fn sync_after(&self, device: &Device, mut has_bitmap: bool) -> bool {
        loop {
            self.lock_metadata(device).await;
            if !self.dirty.get() {
                self.unlock_metadata();
                return true;
            }
            let superblock = *self.superblock.borrow();
            if has_bitmap || !superblock.flags.ends_log_of(self.written_flags.get()) {
                self.dirty.set(false);
                let written = self.write_superblock(device, &superblock).await;
                self.unlock_metadata();
                return self.judge_metadata(device, written);
            }
            self.unlock_metadata();
            if self.meta_failed.get() || !self.write_bitmap(device, Which::Dirty).await {
                return false;
            }
            has_bitmap = true;
        }
    }

    async fn write_superblock(&self, device: &Device, superblock: &Superblock) -> bool {
        let mut block = [0; SUPERBLOCK_SIZE];
        superblock.encode(&mut block);
        let sectors = meta_sectors(self.layout.superblock(), &block);
        let written = self
            .write_meta(device, sectors, Durability::AllStable)
            .await;
        if written {
            self.written_flags.set(superblock.flags);
        } else {
            self.dirty.set(true);
        }
        written
    }

    /// Flushes the disk that holds the data; whether that worked.
    pub(crate) async fn flush_data(&self, device: &Device) -> bool {
        let since = self.cache.borrow().flush_begins();
        let flushed = self.flush(device, &self.data).await;
        if flushed {
            self.cache.borrow_mut().flushed(since);
        }
        flushed
    }

    /// Writes the transaction that waiting requests need; whether there was one.
    pub(crate) async fn write_transaction(&self, device: &Rc<Device>) -> Result<bool, MetaFailed> {
        self.lock_metadata(device).await;
        let mut block = [0; BLOCK_SIZE];
        let transaction = self.activity_log.borrow_mut().begin(&mut block, crc32c);
        let Some(transaction) = transaction else {
            self.unlock_metadata();
            return Ok(false);
        };
        let evicts = self.activity_log.borrow().evicted().next().is_some();
        if evicts {
            self.lock_bitmap(device).await;
        }
        let written = self.write_prepared(device, &block, transaction).await;
        {
            let mut activity_log = self.activity_log.borrow_mut();
            if written {
                activity_log.commit();
            } else {
                // What was written of the bitmap may be in the cache only.
                if !device.config.has(Canary::FailedPageBelieved) {
                    self.mark_dirty();
                }
                activity_log.abort();
            }
        }
        if evicts {
            self.bitmap_busy.set(false);
        }
        device.retry_delayed();
        self.unlock_metadata();
        if self.judge_metadata(device, written) {
            Ok(true)
        } else {
            Err(MetaFailed)
        }
    }

    async fn write_prepared(
        &self,
        device: &Rc<Device>,
        block: &[u8; BLOCK_SIZE],
        transaction: Transaction,
    ) -> bool {
        let pages: Vec<u64> = self.activity_log.borrow().evicted_pages().collect();
        let is_internal = Rc::ptr_eq(&self.data, &self.meta);
        // What the log is about to forget must be on stable storage; a flush of the metadata does
        // not reach it.
        let flushes_data = transaction.flushes_data && !device.config.has(Canary::EvictedUnflushed);
        if flushes_data && !is_internal && !self.flush_data(device).await {
            return false;
        }
        let mut wrote_pages = false;
        if !device.config.has(Canary::BitmapAfterActivityLog) {
            for &page in &pages {
                match self.write_page_if_dirty(device, page).await {
                    Ok(wrote) => wrote_pages |= wrote,
                    Err(MetaFailed) => return false,
                }
            }
        }
        let durability = if wrote_pages || (flushes_data && is_internal) {
            Durability::AllStable
        } else {
            Durability::Stable
        };
        let Some(sector) = self.layout.activity_log_block(transaction.ring_block) else {
            return false;
        };
        self.write_meta(device, meta_sectors(sector, block), durability)
            .await
    }

    /// Replaces the log by an empty one. The caller holds back application I/O.
    ///
    /// What the log stands for is in the bitmap on disk by then, and no extent is in use.
    pub(crate) async fn change_log(&self, device: &Device, slots: usize) -> Result<(), StateError> {
        let careless = device.config.has(Canary::LogEmptiedBesideWriter);
        self.lock_metadata(device).await;
        if !careless {
            self.lock_bitmap(device).await;
        }
        let emptied = self.empty_log(device, slots).await;
        let written = match emptied {
            Ok(true) => self.initialize_log(device).await,
            Ok(false) => true,
            Err(MetaFailed) => false,
        };
        if !written {
            self.mark_dirty();
        }
        if !careless {
            self.bitmap_busy.set(false);
        }
        self.unlock_metadata();
        device.retry_delayed();
        let is_well = self.judge_metadata(device, written) && matches!(emptied, Ok(true));
        is_well.then_some(()).ok_or(StateError::Unknown)
    }

    /// Puts an empty log in the place of the one that is there, if it is idle.
    async fn empty_log(&self, device: &Device, slots: usize) -> Result<bool, MetaFailed> {
        let ring = self.superblock.borrow().ring;
        let is_internal = Rc::ptr_eq(&self.data, &self.meta);
        let careless = device.config.has(Canary::LogEmptiedUnflushed);
        for _ in 0..ATTEMPTS {
            // The flush of the metadata does it where both are on one disk.
            if !is_internal && !careless && !self.flush_data(device).await {
                return Err(MetaFailed);
            }
            for page in (0..).take(self.dirty_pages.len()) {
                if self.write_page_if_dirty(device, page).await.is_err() {
                    return Err(MetaFailed);
                }
            }
            if !self.flush(device, &self.meta).await {
                return Err(MetaFailed);
            }
            let mut present = self.activity_log.borrow_mut();
            // A bit that was set meanwhile is of an extent that was in use.
            if present.statistics().used == 0 && !self.dirty_pages.iter().any(Cell::get) {
                *present = ActivityLog::new(vec![Slot::default(); slots], ring);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes every block of the ring anew; whether that worked.
    async fn initialize_log(&self, device: &Device) -> bool {
        let blocks = self.layout.ring().blocks();
        let mut block = [0; BLOCK_SIZE];
        initialize(&mut block, crc32c);
        for position in 0..blocks {
            let Some(sector) = self.layout.activity_log_block(position) else {
                return false;
            };
            let is_last = position + 1 == blocks;
            let sectors = meta_sectors(sector, &block);
            let durability = match is_last {
                true => Durability::AllStable,
                false => Durability::Cached,
            };
            if !self.write_meta(device, sectors, durability).await {
                return false;
            }
        }
        true
    }

    /// Gives back the references that a request holds.
    pub(crate) fn put_extents(&self, device: &Device, span: Span) {
        if self.activity_log.borrow_mut().put(span) {
            device.retry_delayed();
        }
    }

    /// The engine's view of the bitmap.
    pub(crate) fn view(&self, device: &Device) -> Bitmap<&[Cell<u64>]> {
        let capacity = Sector(device.config.capacity_sectors);
        Bitmap::new(self.words.as_slice(), capacity).expect("the words are made for the capacity")
    }

    pub(crate) fn set_bits(&self, device: &Device) -> u64 {
        self.view(device).count()
    }

    pub(crate) fn set_out_of_sync(&self, device: &Device, sector: Sector, size_bytes: u32) -> u64 {
        let changed = self.view(device).set_range(sector, size_bytes);
        if changed != 0 {
            self.mark_dirty();
        }
        changed
    }

    pub(crate) fn set_in_sync(&self, device: &Device, sector: Sector, size_bytes: u32) -> u64 {
        let changed = self.view(device).clear_range(sector, size_bytes);
        if changed != 0 {
            self.cleared.set(true);
            self.mark_dirty();
        }
        changed
    }

    pub(crate) fn any_out_of_sync(&self, device: &Device, sector: Sector, size_bytes: u32) -> bool {
        let end = bits_for(Sector(sector.0 + u64::from(size_bytes >> 9)));
        self.view(device).any_set(sector.bit(), BitNr(end))
    }

    /// All pages: which one changed is not worth knowing for a volume this small.
    pub(crate) fn mark_dirty(&self) {
        for page in &self.dirty_pages {
            page.set(true);
        }
    }

    /// Reads the bitmap; to be done once, before the disk is in use. Whether that worked.
    pub(crate) async fn read_bitmap(&self, device: &Device) -> bool {
        self.lock_bitmap(device).await;
        let mut all_read = true;
        for page in (0..).take(self.dirty_pages.len()) {
            let content = self.read_page(device, page).await;
            if let Some(content) = &content {
                self.view(device).merge_page(page, content);
            }
            all_read &= content.is_some();
        }
        if all_read {
            self.in_core.set(true);
        }
        self.bitmap_busy.set(false);
        all_read
    }

    async fn read_page(&self, device: &Device, page: u64) -> Option<Page> {
        let sector = self.layout.bitmap_page(page)?;
        let done = Rc::new(RefCell::new(None));
        let told = done.clone();
        self.meta.read(device.owner, sector.0, 8, move |sectors| {
            told.replace(Some(sectors));
        });
        device.sim.until(|| done.borrow().is_some()).await;
        let sectors = done.take().flatten()?;
        Some(block_of(sector, &sectors))
    }

    /// Whether it had to be written.
    async fn write_page_if_dirty(&self, device: &Device, page: u64) -> Result<bool, MetaFailed> {
        if !self.in_core.get() {
            return Ok(false);
        }
        let dirty = usize::try_from(page)
            .ok()
            .and_then(|page| self.dirty_pages.get(page));
        let Some(dirty) = dirty.filter(|dirty| dirty.replace(false)) else {
            return Ok(false);
        };
        let written = self.write_page(device, page).await;
        if !written {
            dirty.set(true);
            return Err(MetaFailed);
        }
        Ok(true)
    }

    async fn write_page(&self, device: &Device, page: u64) -> bool {
        let cleared = self.cleared.replace(false);
        let mut content = [0; 4096];
        self.view(device).export_page(page, &mut content);
        if cleared && !device.config.has(Canary::ClearedBeforeFlush) {
            // What the page no longer says must be on stable storage; what is cleared from now on
            // is not in it.
            if !self.flush_data(device).await {
                self.cleared.set(true);
                return false;
            }
        }
        let Some(sector) = self.layout.bitmap_page(page) else {
            return false;
        };
        self.write_meta(device, meta_sectors(sector, &content), Durability::Cached)
            .await
    }

    /// Writes the bitmap and flushes it; whether that worked.
    pub(crate) async fn write_bitmap(&self, device: &Device, which: Which) -> bool {
        if !self.in_core.get() {
            return true;
        }
        self.lock_bitmap(device).await;
        let mut written = true;
        for (page, dirty) in (0..).zip(&self.dirty_pages) {
            if dirty.replace(false) || which == Which::All {
                written = written && self.write_page(device, page).await;
            }
        }
        let written = written && self.flush(device, &self.meta).await;
        if !written {
            self.mark_dirty();
        }
        self.bitmap_busy.set(false);
        self.judge_metadata(device, written)
    }
}
