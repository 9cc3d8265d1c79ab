// SPDX-License-Identifier: GPL-2.0

//! A device: one volume of a resource, `/dev/drbdN`.

use core::fmt;

use drbd_engine::{
    config::{
        text::Lossy,
        ReadBalancing, //
    },
    range::RangeTable,
    request::{
        unjudged,
        Copies, //
    },
    state::{
        DiskState,
        Glance,
        Seen,
        State, //
    },
    types::{
        Minor,
        Sector,
        VolumeNr, //
    },
};
use drbd_sys::{
    bits::{
        AtomicBits32,
        AtomicBits64, //
    },
    disk::Disk,
    log,
    new_wait_queue,
    wait::WaitQueue, //
};
use kernel::{
    new_mutex, new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic, //
        },
        Arc,
        Mutex,
        SpinLockIrq, //
    },
    workqueue::{
        new_work,
        Work, //
    },
};

use super::{
    disk::LocalDisk,
    erase::Erasing,
    limits::RANGES_MAX,
    peer::PeerVolume,
    read::ReadWatch,
    resource::Resource,
    resync::{
        Plan,
        Resync, //
    },
    submit::Delayed,
    worker::chore, //
};

/// Facts about a device that are one bit each; see [`Device::flags`].
pub(crate) mod flag {
    /// The node was Primary when it went down; its last writes may be on one side only.
    pub(crate) const CRASHED_PRIMARY: u32 = 1 << 0;
    /// The node was Primary without its peer when it went down: wait with degr-wfc-timeout.
    pub(crate) const USE_DEGR_WFC_TIMEOUT: u32 = 1 << 1;
    /// The peer was forced Primary on inconsistent data: run the handshake at its next state.
    pub(crate) const CONSIDER_RESYNC: u32 = 1 << 2;
    /// The backing device failed.
    pub(crate) const WAS_IO_ERROR: u32 = 1 << 3;
    /// The backing device failed to read.
    pub(crate) const WAS_READ_ERROR: u32 = 1 << 4;
    /// The disk is given up without waiting for it.
    pub(crate) const FORCE_DETACH: u32 = 1 << 5;
    /// The device grew while connecting: resync the new storage after the handshake.
    pub(crate) const RESYNC_AFTER_NEGOTIATION: u32 = 1 << 6;
    /// A new current UUID is due when I/O goes on.
    pub(crate) const NEW_CURRENT_UUID: u32 = 1 << 7;
    /// The activity log is not written: everything is out of sync anyway.
    pub(crate) const ACTIVITY_LOG_SUSPENDED: u32 = 1 << 8;
    /// The admin wants this side's data to be discarded in a split brain.
    pub(crate) const DISCARD_MY_DATA: u32 = 1 << 9;
    /// The helper before a resync has run.
    pub(crate) const BEFORE_RESYNC_DONE: u32 = 1 << 10;
    /// A resize waits for the peer's answer.
    pub(crate) const RESIZE_PENDING: u32 = 1 << 11;
    /// The peer may know of blocks out of sync that the bitmap does not tell of.
    pub(crate) const BITMAP_DISTRUSTED: u32 = 1 << 12;
    /// The backing device failed, and the worker has not judged it yet.
    pub(crate) const DISK_UNJUDGED: u32 = 1 << 13;
    /// The metadata could not be written, and the worker has not judged that yet.
    pub(crate) const METADATA_UNJUDGED: u32 = 1 << 14;
    /// The backing device did not take a write since the last resync began: what the target acks
    /// is not in sync for sure.
    pub(crate) const RESYNC_DOUBTED: u32 = 1 << 15;
    /// The backing device did not take what another disk has.
    pub(crate) const LACKS_DATA: u32 = 1 << 16;
    /// The peer has yet to be told that the resync ended here.
    pub(crate) const END_UNTOLD: u32 = 1 << 17;
    /// The users have seen the peer's data since this node's disk was in use.
    pub(crate) const USERS_SAW_PEER: u32 = 1 << 18;
    /// The peer was lost with writes that it need not have flushed, and that only it has: the next
    /// flush fails.
    pub(crate) const STABILITY_LOST: u32 = 1 << 19;
    /// The peer was lost with writes that it need not have flushed, and that this node's disk has:
    /// the next flush that only the peer can make fails.
    pub(crate) const PEER_UNFLUSHED: u32 = 1 << 20;
    /// The peer has refused a write of which no generation tells.
    pub(crate) const PEER_REFUSED: u32 = 1 << 21;
    /// An error of the data was noted since a judgement of the disk began.
    pub(crate) const DISK_NOTED: u32 = 1 << 22;
    /// The users were told done what the peer need not have.
    pub(crate) const TOLD_ALONE: u32 = 1 << 23;
    /// A read or a write of data failed since the last resync began: bits may be set of which the
    /// peer does not know.
    pub(crate) const MARKED_UNTOLD: u32 = 1 << 24;
    /// It is being demoted, and was open when it was to be flushed for that: it counts as open
    /// whoever closes it meanwhile.
    pub(crate) const UNFLUSHED: u32 = 1 << 25;
}

/// Numbers of /proc/drbd and netlink. Sectors where not said otherwise.
#[derive(Default)]
pub(crate) struct Counters {
    /// Sent to the peer.
    pub(crate) sent: Counter,
    /// Received from the peer.
    pub(crate) received: Counter,
    /// Read from the backing device.
    pub(crate) read: Counter,
    /// Written to the backing device.
    pub(crate) written: Counter,
    /// Transactions of the activity log.
    pub(crate) activity_log_writes: Counter,
    /// Writes of bitmap blocks.
    pub(crate) bitmap_writes: Counter,
    /// Application bios that were admitted and did not end.
    pub(crate) application_bios: Gauge,
    /// Application requests that the peer owes an answer.
    pub(crate) application_pending: Gauge,
    /// Resync requests that the peer owes an answer.
    pub(crate) resync_pending: Gauge,
    /// Requests of the peer that we owe an answer.
    pub(crate) unacked: Gauge,
    /// Requests of the transfer log at the backing device.
    pub(crate) local: Gauge,
}

/// A number that only grows. Any context.
pub(crate) struct Counter(Atomic<u64>);

impl Default for Counter {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Counter {
    /// Adds, wrapping around.
    pub(crate) fn add(&self, amount: u64) {
        self.0.add(amount, Relaxed);
    }

    /// The number now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts over.
    pub(crate) fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// A number of things under way. Any context.
pub(crate) struct Gauge(Atomic<i32>);

impl Default for Gauge {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Gauge {
    /// One more; how many there are with it. Fully ordered.
    pub(crate) fn up(&self) -> i32 {
        self.0.fetch_add(1i32, Full).saturating_add(1)
    }

    /// One less; whether it was the last. Fully ordered.
    pub(crate) fn down(&self) -> bool {
        self.0.fetch_sub(1i32, Full) == 1
    }

    /// One less, where there is any; whether there was. Fully ordered.
    pub(crate) fn take(&self) -> bool {
        let mut seen = self.0.load(Relaxed);
        loop {
            if seen <= 0 {
                return false;
            }
            match self.0.cmpxchg(seen, seen.saturating_sub(1), Full) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// The number now.
    pub(crate) fn get(&self) -> i32 {
        self.0.load(Relaxed)
    }

    /// Starts over; what is still under way is nobody's concern any more.
    pub(crate) fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// The table of claimed ranges, over its own storage.
pub(crate) type Ranges = RangeTable<KVVec<drbd_engine::range::Node>>;

/// A device. Shared by the registry, its resource, its gendisk and every request.
#[pin_data]
pub(crate) struct Device {
    /// Which `/dev/drbdN` it is.
    pub(crate) minor: Minor,
    /// Which volume of the resource it is, the same on both nodes.
    pub(crate) volume: VolumeNr,
    /// The resource it belongs to.
    pub(crate) resource: Arc<Resource>,
    /// The state word. Changed by `io::state` only.
    state: AtomicBits32,
    /// A set of [`flag`].
    pub(crate) flags: AtomicBits32,
    /// What the worker is to look after: a set of [`super::worker::chore`].
    pub(crate) chores: AtomicBits32,
    /// Numbers for the admin.
    pub(crate) counters: Counters,
    /// Reads at the backing device that are in no transfer log.
    pub(crate) reads: ReadWatch,
    /// The current UUID that users of the device have seen.
    pub(crate) exposed_uuid: AtomicBits64,
    /// When an application wrote last, on this node or the other; 0 before the first.
    wrote_ns: AtomicBits64,
    /// Capacity in sectors, as users of the device see it.
    capacity_sectors: AtomicBits64,
    /// How many reasons there are to hold back application I/O, beside the state.
    pub(crate) gate: Gauge,
    /// When `disk-timeout` is to be looked at next; the worker's.
    pub(super) disk_watch_ns: AtomicBits64,
    /// Reasons why writes wait that the gate let in: a generation is about to begin.
    pub(crate) held_writes: Gauge,
    /// Stepped when mirroring ends; see `drbd_engine::request::Context::mirrored_since_sent`.
    pub(crate) mirror_generation: AtomicBits32,
    /// The number of the last packet that is ordered with others on both sockets.
    packet_seq: AtomicBits32,
    /// The highest number that came from the peer.
    pub(crate) peer_seq: AtomicBits32,
    /// The attached disk.
    #[pin]
    local: SpinLockIrq<Option<Arc<LocalDisk>>>,
    /// The disk that is being let go: nobody gets a reference any more.
    #[pin]
    retired: SpinLockIrq<Option<Arc<LocalDisk>>>,
    /// References to either that are out.
    local_references: Gauge,
    /// Ranges that requests have claimed.
    #[pin]
    pub(crate) ranges: SpinLockIrq<Ranges>,
    /// What is known of the peer's side of this volume.
    #[pin]
    pub(crate) peer: Mutex<PeerVolume>,
    /// What the target asks for next; the worker's.
    #[pin]
    pub(crate) plan: Mutex<Option<Plan>>,
    /// A resync or verify under way.
    #[pin]
    pub(crate) resync: SpinLockIrq<Resync>,
    /// Application bios that have to wait.
    #[pin]
    pub(crate) delayed: Delayed,
    /// Serves them.
    #[pin]
    pub(super) delayed_work: Work<Device>,
    /// Blocks of the disk that are to be erased.
    #[pin]
    pub(crate) erasing: Erasing,
    /// Erases them.
    #[pin]
    pub(super) erase_work: Work<Device, 1>,
    /// Whoever waits for room, a range, a reference or the gate waits here.
    #[pin]
    pub(crate) waiters: WaitQueue,
    /// How often the device is held open.
    open_count: AtomicBits32,
    /// `/dev/drbdN`, from `new-minor` until `del-minor`.
    #[pin]
    pub(crate) disk: Mutex<Option<Disk<Device>>>,
}

impl Device {
    /// Makes a device without a gendisk. May sleep.
    pub(crate) fn new(
        minor: Minor,
        volume: VolumeNr,
        resource: Arc<Resource>,
        state: State,
    ) -> Result<Arc<Self>> {
        let mut nodes = KVVec::with_capacity(RANGES_MAX, GFP_KERNEL)?;
        nodes.resize(RANGES_MAX, drbd_engine::range::Node::default(), GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                minor,
                volume,
                resource,
                state: AtomicBits32::new(state.to_word()),
                flags: AtomicBits32::new(0),
                chores: AtomicBits32::new(0),
                counters: Counters::default(),
                reads: ReadWatch::new(),
                exposed_uuid: AtomicBits64::new(0),
                wrote_ns: AtomicBits64::new(0),
                capacity_sectors: AtomicBits64::new(0),
                gate: Gauge::default(),
                disk_watch_ns: AtomicBits64::new(0),
                held_writes: Gauge::default(),
                mirror_generation: AtomicBits32::new(0),
                packet_seq: AtomicBits32::new(0),
                peer_seq: AtomicBits32::new(0),
                local <- new_spinlock_irq!(None, "drbd_local"),
                retired <- new_spinlock_irq!(None, "drbd_retired"),
                local_references: Gauge::default(),
                ranges <- new_spinlock_irq!(RangeTable::new(nodes), "drbd_ranges"),
                peer <- new_mutex!(PeerVolume::default(), "drbd_peer"),
                plan <- new_mutex!(None, "drbd_plan"),
                resync <- new_spinlock_irq!(Resync::default(), "drbd_resync"),
                delayed <- Delayed::new(),
                delayed_work <- new_work!("drbd_delayed"),
                erasing <- Erasing::new(),
                erase_work <- new_work!("drbd_erase"),
                waiters <- new_wait_queue!("drbd_device"),
                open_count: AtomicBits32::new(0),
                disk <- new_mutex!(None, "drbd_disk"),
            }),
            GFP_KERNEL,
        )
    }

    /// The state. Any context.
    pub(crate) fn state(&self) -> State {
        // Only words of valid states are stored.
        State::from_word(self.state.load()).unwrap_or(State::NEW)
    }

    /// What of the state the progress of a request depends on. Any context.
    pub(crate) fn glance(&self) -> Glance {
        Glance::new(self.state.load())
    }

    /// Stores the state. For `io::state` alone, which holds the locks that order it.
    pub(super) fn publish(&self, state: State) {
        self.state.store(state.to_word());
    }

    /// An application writes. Any context.
    pub(crate) fn note_write(&self, now_ns: u64) {
        self.wrote_ns.store(now_ns);
    }

    /// Whether an application wrote in the last `time_ns`. Any context.
    pub(crate) fn wrote_within(&self, time_ns: u64, now_ns: u64) -> bool {
        let wrote_ns = self.wrote_ns.load();
        wrote_ns != 0 && now_ns.saturating_sub(wrote_ns) < time_ns
    }

    /// Capacity in sectors. Any context.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity_sectors.load()
    }

    /// Changes the capacity, and tells the block layer. May sleep.
    pub(crate) fn set_capacity(&self, sectors: u64) {
        self.capacity_sectors.store(sectors);
        if let Some(disk) = self.disk.lock().as_ref() {
            disk.set_capacity_and_notify(sectors);
        }
    }

    /// The next number for a packet of this volume. Any context.
    pub(crate) fn next_packet_seq(&self) -> u32 {
        self.packet_seq.update(|seq| seq.wrapping_add(1)).1
    }

    /// Starts numbering packets over, for a new connection.
    pub(crate) fn reset_packet_seq(&self) {
        self.packet_seq.store(0);
        self.peer_seq.store(0);
    }

    /// Attaches `disk`. Any context.
    pub(crate) fn set_local(&self, disk: Arc<LocalDisk>) {
        *self.local.lock() = Some(disk);
    }

    /// The attached disk, for as long as the reference lives. Any context.
    pub(crate) fn local(self: &Arc<Self>) -> Option<LocalRef> {
        let local = self.local.lock();
        let disk = local.as_ref()?.clone();
        self.local_references.up();
        drop(local);
        Some(LocalRef {
            disk,
            count: LocalCount(self.clone()),
        })
    }

    /// Has the activity log kept again, if it was suspended. Any context.
    pub(crate) fn resume_activity_log(&self) {
        let before = self.flags.clear(flag::ACTIVITY_LOG_SUSPENDED);
        if before & flag::ACTIVITY_LOG_SUSPENDED != 0 {
            log!(Info, self, "Resumed AL updates");
        }
    }

    /// Whether a disk is attached. Any context.
    pub(crate) fn is_attached(&self) -> bool {
        self.local.lock().is_some()
    }

    /// Begins to let the disk go: no new references from here on. Returns it, also when called
    /// again. Any context.
    pub(crate) fn retire_local(self: &Arc<Self>) -> Option<Arc<LocalDisk>> {
        // Who finds neither the one nor the other takes it for gone.
        let mut retired = self.retired.lock();
        let taken = self.local.lock().take();
        if taken.is_some() {
            *retired = taken;
        }
        let disk = (*retired).clone();
        drop(retired);
        // Bios that wait hold references.
        self.retry_delayed();
        disk
    }

    /// Gives up the disk without waiting for it, also where it is being let go already. Any
    /// context.
    pub(crate) fn abandon_disk(&self) {
        for place in [&self.local, &self.retired] {
            if let Some(disk) = place.lock().as_ref() {
                disk.abandon();
            }
        }
    }

    /// Whether a disk is being let go. Any context.
    pub(crate) fn is_parting(&self) -> bool {
        self.retired.lock().is_some()
    }

    /// Whether references to the disk are out. The last one that is given back while the disk is
    /// being let go tells the worker.
    pub(crate) fn has_local_references(&self) -> bool {
        self.local_references.get() != 0
    }

    /// The disk that was let go, to be closed; `None` while references are out. May sleep.
    pub(crate) fn take_retired(&self) -> Option<Arc<LocalDisk>> {
        if self.has_local_references() {
            return None;
        }
        self.retired.lock().take()
    }

    /// How often the device is held open. May not be exact while that changes. Any context.
    pub(crate) fn open_count(&self) -> u32 {
        self.open_count.load()
    }

    /// Somebody opens the device. May sleep.
    ///
    /// # Errors
    ///
    /// A Secondary cannot be opened (spec §4.6): `EROFS` for writing, `EMEDIUMTYPE` for reading.
    pub(crate) fn open(&self, write: bool) -> Result {
        // Under the lock that promotion and demotion take, so that none of them happens in between.
        let _control = self.resource.control.lock();
        if !self.state().role.is_primary() {
            return Err(if write {
                EROFS
            } else {
                Error::from_errno(-124)
            });
        }
        self.open_count.update(|count| count.saturating_add(1));
        Ok(())
    }

    /// Somebody who had opened the device closes it. May sleep.
    pub(crate) fn close(&self) {
        self.open_count.update(|count| count.saturating_sub(1));
        self.wake();
    }

    /// What the users have seen. Any context.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            exposed_uuid: self.exposed_uuid.load(),
            peer: self.flags.any(flag::USERS_SAW_PEER),
            alone: self.flags.any(flag::TOLD_ALONE),
        }
    }

    /// Whether no block that a read wants is out of sync. Any context.
    pub(crate) fn is_in_sync(self: &Arc<Self>, sector: Sector, size_bytes: u32) -> bool {
        !self.flags.any(flag::BITMAP_DISTRUSTED)
            && self
                .local()
                .is_some_and(|local| !local.bitmap.any_out_of_sync(sector, size_bytes))
    }

    /// The copies of the data in a state. A disk that failed is not believed from then on, although
    /// its state changes later: it lacks what could not be written. Any context.
    pub(crate) fn copies(&self, state: Glance) -> Copies {
        let (disk, peer_disk) = (state.disk(), state.pdsk());
        let flags = self.flags.load();
        let data_failed = flags & flag::DISK_UNJUDGED != 0;
        let lacks_data = flags & flag::LACKS_DATA != 0;
        let metadata_failed = flags & flag::METADATA_UNJUDGED != 0;
        Copies {
            disk: unjudged(disk, peer_disk, data_failed, lacks_data, metadata_failed),
            peer_disk,
            conn: state.conn(),
        }
    }

    /// Whether a write may count on the disk, its metadata included. Any context.
    pub(crate) fn vouches(&self) -> bool {
        self.glance().disk() >= DiskState::Inconsistent && !self.flags.any(flag::METADATA_UNJUDGED)
    }

    /// Whether the peer may read from the disk. Any context.
    pub(crate) fn serves_reads(&self) -> bool {
        self.copies(self.glance()).disk == DiskState::UpToDate
    }

    /// Bios of the application at the backing device. Any context.
    pub(crate) fn local_bios(&self) -> i32 {
        self.counters.local.get().saturating_add(self.reads.count())
    }

    /// Which node is to serve reads. Any context.
    pub(crate) fn read_balancing(self: &Arc<Self>) -> ReadBalancing {
        self.local().map_or(ReadBalancing::PreferLocal, |local| {
            local.conf().read_balancing
        })
    }

    /// Tells the worker to look after something on this device. Any context.
    pub(crate) fn chore(&self, chore: u32) {
        self.chores.set(chore);
        self.resource.bell.wake();
    }

    /// Wakes whoever waits for this device or its resource. Any context.
    pub(crate) fn wake(&self) {
        self.waiters.wake_all();
        self.resource.waiters.wake_all();
    }
}

impl Device {
    /// What stands in front of log lines.
    pub(crate) fn log_name(&self) -> &Self {
        self
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Lossy(self.resource.name().as_bytes());
        write!(f, "drbd {}/{} drbd{}", name, self.volume, self.minor)
    }
}

/// A reference to an attached disk; the disk cannot be let go while it lives.
///
/// May be dropped in any context: the last owner of the disk is whoever detaches it.
pub(crate) struct LocalRef {
    // Drops before the count: once the device's count is zero, its detacher has the last reference.
    disk: Arc<LocalDisk>,
    count: LocalCount,
}

impl LocalRef {
    /// The device whose disk it is.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.count.0
    }
}

impl core::ops::Deref for LocalRef {
    type Target = LocalDisk;

    fn deref(&self) -> &LocalDisk {
        &self.disk
    }
}

/// One of the references that [`Device::take_local`] waits for.
struct LocalCount(Arc<Device>);

impl Drop for LocalCount {
    fn drop(&mut self) {
        if self.0.local_references.down() {
            self.0.waiters.wake_all();
            // One that is being attached is not the worker's yet.
            if matches!(
                self.0.glance().disk(),
                DiskState::Failed | DiskState::Diskless
            ) {
                self.0.chore(chore::GO_DISKLESS);
            }
        }
    }
}
