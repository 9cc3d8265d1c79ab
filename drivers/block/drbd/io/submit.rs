// SPDX-License-Identifier: GPL-2.0

//! The way of an application's bio into the driver: gate, activity log, range, transfer log, and
//! then to the disk and the sender.
//!
//! The submitting task does all of it when nothing is in the way. Whatever must wait for a
//! transaction, a range or a slot goes to the device's work item instead: the block layer holds
//! back what a task submits until its `submit_bio` returns, so a task that waited in there could
//! wait for itself.

use drbd_engine::{
    activity_log::{
        Got,
        Reserve,
        Span, //
    },
    range::{
        Handle,
        Kind as RangeKind,
        Refusal, //
    },
    request::{
        may_admit,
        route_flush,
        route_read,
        route_write,
        tells_out_of_sync,
        Admission,
        Copies,
        Destination,
        Event,
        Kind,
        ReadInputs,
        Route,
        Start,
        WriteRoute, //
    },
    state::{
        ConnState,
        DiskState,
        Glance, //
    },
    transfer_log::{
        Mark,
        Part,
        Stability, //
    },
    types::Sector,
    wire::{
        Command,
        Version, //
    },
};
use drbd_sys::{
    bio::{
        plugged,
        ClonedBio,
        Completion,
        Flags,
        MasterBio,
        Operation, //
    },
    disk::DiskOps,
    log,
    time::monotonic_ns, //
};
use kernel::{
    impl_has_work, new_mutex,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    workqueue::WorkItem,
};

use super::{
    device::{
        flag,
        Device,
        Gauge,
        LocalRef, //
    },
    disk::LocalDisk,
    erase::{
        Erasure,
        Owner,
        Way, //
    },
    fault::{
        self,
        Fault, //
    },
    fifo::Fifo,
    limits::DELAYED_BIOS_MAX,
    request::{
        AtDisk,
        Failed,
        Parts, //
    },
    resource::Resource,
    worker::chore, //
};

/// An application's bio on its way in, with what it holds so far.
pub(crate) struct Bio {
    master: MasterBio,
    /// The disk and the extents it has in the activity log.
    extents: Option<(LocalRef, Span)>,
    /// Its extents become hot with the next transaction.
    after_commit: bool,
    range: Option<Handle>,
    failed: Failed,
    /// What was written before a flush that the peer is to make.
    mark: Option<Mark>,
    /// A read that has its data and ends when I/O goes on.
    is_served: bool,
    /// It had to wait.
    was_delayed: bool,
    /// It has set bits that the peer is to be told of.
    is_untold: bool,
}

impl Bio {
    fn new(master: MasterBio) -> Self {
        Self {
            master,
            extents: None,
            after_commit: false,
            range: None,
            failed: Failed::default(),
            mark: None,
            is_served: false,
            was_delayed: false,
            is_untold: false,
        }
    }

    /// A read that has its data while I/O is suspended.
    pub(crate) fn served(master: MasterBio) -> Self {
        Self {
            is_served: true,
            ..Self::new(master)
        }
    }

    /// A bio that some copy could not serve.
    pub(crate) fn again(master: MasterBio, failed: Failed) -> Self {
        Self {
            failed,
            ..Self::new(master)
        }
    }

    fn changes_data(&self) -> bool {
        matches!(
            self.master.operation(),
            Operation::Write | Operation::Discard | Operation::WriteZeroes
        )
    }

    /// Whether the application counts on what was told done before as on stable storage when this
    /// is done.
    fn flushes(&self) -> bool {
        match self.master.operation() {
            Operation::Flush => true,
            Operation::Write => self.master.flags().contains(Flags::PREFLUSH),
            _ => false,
        }
    }

    fn sector(&self) -> Sector {
        Sector(self.master.sector())
    }
}

/// What a bio has this node's disk do.
enum Deed {
    /// What a clone of it does, without anybody waiting.
    Clone(ClonedBio),
    /// What may take several bios of other kinds, one after the other.
    Erase(Erasure),
}

impl Deed {
    fn of(local: &LocalDisk, master: &MasterBio) -> Result<Self> {
        Ok(match Way::of(master.operation(), master.flags()) {
            Some(way) => {
                let (sector, size_bytes) = (Sector(master.sector()), master.size_bytes());
                Self::Erase(Erasure::new(local, way, sector, size_bytes))
            }
            None => Self::Clone(local.backing.clone_bio(master)?),
        })
    }

    /// Has it done for a request. Does not sleep for I/O.
    fn begin(self, device: &Arc<Device>, token: AtDisk) {
        match self {
            Self::Clone(clone) => clone.submit(token),
            Self::Erase(erasure) => device.erase(erasure, Owner::Application(token)),
        }
    }
}

/// What a bio that could not go on waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// A transaction of the activity log, or idle slots in it.
    ActivityLog,
    /// A range that is in use.
    Range,
    /// A slot in the transfer log.
    Slot,
    /// Data to become accessible again.
    Data,
    /// A new generation, to be on disk before anything is written in it.
    Generation,
    /// The peer's flush.
    PeerFlush,
}

/// Bios of a device that wait.
#[pin_data]
pub(crate) struct Delayed {
    /// Handed over by submitting tasks and completions.
    #[pin]
    arrivals: Fifo<Bio>,
    /// In the hands of the work item, oldest first.
    #[pin]
    waiting: Mutex<KVVec<Bio>>,
    /// Both together.
    count: Gauge,
}

impl Delayed {
    /// No bio waits. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let waiting = KVVec::with_capacity(DELAYED_BIOS_MAX, GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                arrivals <- Fifo::new(DELAYED_BIOS_MAX),
                waiting <- new_mutex!(waiting, "drbd_delayed"),
                count: Gauge::default(),
            }))
        })
    }
}

impl DiskOps for Device {
    type Module = crate::Drbd;
    type Data = Arc<Device>;

    fn submit(device: ArcBorrow<'_, Device>, master: MasterBio) {
        let device: Arc<Device> = device.into();
        if master.operation() == Operation::Other {
            return master.end(Err(EOPNOTSUPP));
        }
        if master.operation() == Operation::Read && master.size_bytes() == 0 {
            return master.end(Ok(()));
        }
        if !device.enter(master.flags().contains(Flags::NOWAIT)) {
            return master.end(Err(EAGAIN));
        }
        let master = match master.operation() {
            Operation::Read => device.read_here(master, Failed::default()),
            _ => Some(master),
        };
        let Some(master) = master else { return };
        let bio = Bio::new(master);
        if let Err((bio, _)) = device.attempt(bio) {
            device.delay(bio);
        }
    }

    fn open(device: ArcBorrow<'_, Device>, write: bool) -> Result {
        device.open(write)
    }

    fn release(device: ArcBorrow<'_, Device>) {
        device.close();
    }
}

impl_has_work! {
    impl HasWork<Self> for Device { self.delayed_work }
}

impl WorkItem for Device {
    type Pointer = Arc<Self>;

    fn run(device: Arc<Self>) {
        device.serve_delayed();
    }
}

impl Device {
    /// Counts a bio in, once the device may take it. May sleep unless `nowait`, in which case it
    /// answers whether it could.
    fn enter(&self, nowait: bool) -> bool {
        loop {
            // Of those that come together to the last place the first one has it.
            if self.may_enter(self.counters.application_bios.up()) {
                return true;
            }
            self.leave();
            if nowait {
                return false;
            }
            // It is not counted now, and asks as if it were: or it would not wait where it is the
            // first that is too many, but come back at once, for ever where nothing preempts it.
            self.waiters.wait_until(|| {
                let others = self.counters.application_bios.get();
                self.may_enter(others.saturating_add(1))
            });
        }
    }

    /// Whether a bio may enter that makes it so many.
    fn may_enter(&self, bios: i32) -> bool {
        let state = self.glance();
        let connection = &self.resource.connection;
        let limit = u32::try_from(DELAYED_BIOS_MAX).unwrap_or(u32::MAX);
        may_admit(&Admission {
            copies: self.copies(state),
            suspended: state.is_suspended(),
            held_back: self.gate.get() != 0,
            bitmap_io: false,
            protocol_version: connection.version().number(),
            bios: u32::try_from(bios).unwrap_or(0),
            max_bios: connection.max_bios().min(limit),
        })
    }

    /// Counts a bio out. Any context.
    pub(crate) fn leave(&self) {
        self.counters.application_bios.down();
        self.waiters.wake_all();
    }

    /// How many bios were counted in and not out. Any context.
    pub(crate) fn application_requests(&self) -> u32 {
        pending(&self.counters.application_bios)
    }

    /// Holds back new application I/O, without waiting for what was admitted. Any context.
    pub(crate) fn close_gate(&self) {
        self.gate.up();
    }

    /// Lets application I/O in again. Any context.
    pub(crate) fn open_gate(&self) {
        self.gate.down();
        self.waiters.wake_all();
    }

    /// Keeps writes out of the transfer log. Any context.
    pub(crate) fn hold_writes(&self) {
        self.held_writes.up();
    }

    /// Whether writes are kept out. Any context.
    pub(crate) fn holds_writes(&self) -> bool {
        self.held_writes.get() != 0
    }

    /// Lets writes into the transfer log again. Any context.
    pub(crate) fn release_writes(self: &Arc<Self>) {
        self.held_writes.down();
        self.retry_delayed();
    }

    /// Gives a bio to the work item. Any context.
    pub(crate) fn delay(self: &Arc<Self>, mut bio: Bio) {
        bio.was_delayed = true;
        self.delayed.count.up();
        self.resource.delayed.up();
        if let Err(bio) = self.delayed.arrivals.push(bio) {
            // No more bios are admitted than fit, so this is a defect of this module.
            log!(Error, self, "too many delayed requests");
            self.delayed.count.down();
            self.resource.delayed.down();
            self.fail(bio);
        }
        self.enqueue_delayed();
    }

    fn enqueue_delayed(self: &Arc<Self>) {
        let queue = &self.resource.environment.submit_queue;
        // An item that is queued already will see what there is.
        let _ = queue.enqueue::<Arc<Self>, 0>(self.clone());
    }

    /// Lets bios that wait try again. Any context.
    pub(crate) fn retry_delayed(self: &Arc<Self>) {
        if self.delayed.count.get() != 0 {
            self.enqueue_delayed();
        }
    }

    /// A range was given back for which somebody waits. Any context.
    pub(crate) fn ranges_changed(self: &Arc<Self>) {
        self.retry_delayed();
        self.resource.connection.receiver_wait.wake_all();
        self.chore(chore::RESYNC_TURN);
    }

    /// Takes a bio as far as it goes; hands it back with what is in the way. Does not sleep for
    /// I/O.
    fn attempt(self: &Arc<Self>, mut bio: Bio) -> Result<(), (Bio, Obstacle)> {
        if bio.is_served {
            return self.end_served(bio);
        }
        if bio.changes_data() {
            if let Err(obstacle) = self.get_extents(&mut bio) {
                return Err((bio, obstacle));
            }
            if let Err(obstacle) = self.claim_range(&mut bio) {
                return Err((bio, obstacle));
            }
        }
        self.admit(bio)
    }

    /// Ends a read that has its data, unless I/O is suspended still.
    fn end_served(&self, bio: Bio) -> Result<(), (Bio, Obstacle)> {
        if self.glance().is_suspended() {
            return Err((bio, Obstacle::Data));
        }
        bio.master.end(Ok(()));
        self.leave();
        Ok(())
    }

    /// References the extents if all are hot, or if nothing needs to be remembered.
    fn get_extents(self: &Arc<Self>, bio: &mut Bio) -> Result<(), Obstacle> {
        if bio.extents.is_some() {
            return if bio.after_commit {
                Err(Obstacle::ActivityLog)
            } else {
                Ok(())
            };
        }
        let Some((local, span)) = self.extents_of(bio) else {
            return Ok(());
        };
        if self.flags.any(flag::ACTIVITY_LOG_SUSPENDED) {
            return Ok(());
        }
        let got = local.activity_log.lock().try_get(span);
        if got != Got::Hot {
            return Err(Obstacle::ActivityLog);
        }
        bio.extents = Some((local, span));
        Ok(())
    }

    /// The disk and the extents a write concerns; `None` where no log is kept.
    fn extents_of(self: &Arc<Self>, bio: &Bio) -> Option<(LocalRef, Span)> {
        let local = self.logged_disk()?;
        let span = Span::of(bio.sector(), bio.master.size_bytes())?;
        Some((local, span))
    }

    /// The disk, where its activity log is in use: not before it is attached, nor where that
    /// failed.
    fn logged_disk(self: &Arc<Self>) -> Option<LocalRef> {
        self.local()
            .filter(|_| self.glance().disk() > DiskState::Attaching)
    }

    /// Whether a write that is to go to the disk, or to be marked in its bitmap, lacks the extents
    /// that it needs: when it asked for them no log was kept.
    fn lacks_extents(&self, bio: &Bio) -> bool {
        bio.extents.is_none()
            && bio.changes_data()
            && !self.flags.any(flag::ACTIVITY_LOG_SUSPENDED)
            && Span::of(bio.sector(), bio.master.size_bytes()).is_some()
    }

    fn claim_range(&self, bio: &mut Bio) -> Result<(), Obstacle> {
        if bio.range.is_some() {
            return Ok(());
        }
        let mut ranges = self.ranges.lock();
        match ranges.try_insert(RangeKind::LocalWrite, bio.sector(), bio.master.size_bytes()) {
            Ok(handle) => {
                bio.range = Some(handle);
                Ok(())
            }
            Err(Refusal::Conflict(_)) => Err(Obstacle::Range),
            Err(Refusal::Full) => Err(Obstacle::Slot),
            // Nothing to keep apart.
            Err(Refusal::Malformed) => Ok(()),
        }
    }

    /// Routes the request, in the state it enters the transfer log in, and starts its parts.
    fn admit(self: &Arc<Self>, mut bio: Bio) -> Result<(), (Bio, Obstacle)> {
        let connection = &self.resource.connection;
        let local = match &bio.extents {
            Some(_) => None,
            None => self.local(),
        };
        // A clone needs memory and the master, so it is made before the lock and before the master
        // moves.
        let disk = match &bio.extents {
            Some((reference, _)) => Some(reference),
            None => local.as_ref(),
        };
        let deed = match disk.map(|local| Deed::of(local, &bio.master)).transpose() {
            Ok(deed) => deed,
            Err(error) => {
                self.give_back(bio.extents, bio.range);
                bio.master.end(Err(error));
                self.leave();
                return Ok(());
            }
        };
        let now_ns = monotonic_ns();
        if bio.changes_data() {
            self.note_write(now_ns);
        }
        let mut log = connection.log.lock();
        if bio.changes_data() && self.holds_writes() {
            drop(log);
            return Err((bio, Obstacle::Generation));
        }
        let state = self.glance();
        // What is written while I/O is suspended would be here alone, in a generation that both
        // nodes know.
        if bio.changes_data() && (state.is_suspended() || !self.may_tell(state)) {
            drop(log);
            return Err((bio, Obstacle::Data));
        }
        let here = deed.is_some() && state.has_current_disk() && !bio.failed.locally;
        let may_go = here || state.has_current_peer();
        if bio.flushes() && may_go && bio.mark.is_none() && self.takes_lost_stability(here) {
            drop(log);
            log!(
                Error,
                self,
                "the peer was lost with writes that it need not have flushed: a flush fails"
            );
            self.fail(bio);
            return Ok(());
        }
        let plan = match self.route(&bio, state, deed.is_some()) {
            Route::Go(plan) => plan,
            Route::Suspend => {
                drop(log);
                // What it waits for is another copy than the one that failed.
                bio.failed.locally &= state.has_current_disk();
                bio.failed.remotely &= state.has_current_peer();
                return Err((bio, Obstacle::Data));
            }
            Route::Fail => {
                drop(log);
                self.fail(bio);
                return Ok(());
            }
        };
        // If it has to wait now its bits are not new the next time.
        bio.is_untold |= plan.out_of_sync;
        let plan = Plan {
            local: plan.local && deed.is_some(),
            ..plan
        };
        if !plan.local && !plan.remote {
            drop(log);
            self.fail(bio);
            return Ok(());
        }
        let concerns_disk = plan.local || state.disk() == DiskState::Negotiating;
        if concerns_disk && self.lacks_extents(&bio) {
            drop(log);
            // Extents come before the range.
            let range = bio.range.take();
            self.give_back(None, range);
            self.retry_delayed();
            return Err((bio, Obstacle::ActivityLog));
        }
        let operation = bio.master.operation();
        if operation == Operation::Flush && !plan.local {
            let mark = *bio.mark.get_or_insert_with(|| log.mark());
            let stability = log.stability(mark);
            drop(log);
            return self.flush_by_peer(bio, stability);
        }
        let (sector, size_bytes) = (bio.sector(), bio.master.size_bytes());
        let Some((index, _)) = log.admit(plan.part(operation), sector, size_bytes) else {
            drop(log);
            return Err((bio, Obstacle::Slot));
        };
        if operation == Operation::Flush && plan.remote {
            log.close_epoch();
        }
        let Some(request) = self.resource.requests.get(index).cloned() else {
            log.release(index);
            drop(log);
            return Err((bio, Obstacle::Slot));
        };
        let kind = kind_of(&bio.master);
        let start = Start {
            kind,
            local: plan.local,
            local_is_current: state.has_current_disk(),
            remote: plan.remote,
            out_of_sync: plan.out_of_sync,
            protocol: connection.protocol(),
            chooses_ack: connection.version().number() >= 100,
        };
        let was_delayed = bio.was_delayed;
        let (reference, extents) = match bio.extents {
            Some((reference, span)) => {
                let id = reference.id;
                (Some(reference), Some((id, span)))
            }
            None => (local, None),
        };
        if plan.remote && kind != Kind::Flush {
            self.counters.application_pending.up();
        }
        if plan.local {
            self.counters.local.up();
        }
        request.begin(
            Parts {
                device: self.clone(),
                master: Some(bio.master),
                operation,
                sector,
                size_bytes,
                // Without a local part there is nothing to wait for.
                local: reference.filter(|_| plan.local),
                extents,
                range: bio.range,
                error: None,
                mirror_generation: self.mirror_generation.load(),
                admitted_ns: now_ns,
                failed: bio.failed,
            },
            start.state(),
        );
        drop(log);
        if plan.remote || plan.out_of_sync {
            if was_delayed {
                // The work item has others to serve, and the next transaction to write, while
                // these are sent.
                self.resource.chore(chore::SEND);
            } else {
                // Before the local part: the way to the peer and back is the longer one.
                self.resource.send_soon();
            }
        }
        if let (true, Some(deed)) = (plan.local, deed) {
            let sectors = u64::from(size_bytes >> 9);
            if operation == Operation::Read {
                self.counters.read.add(sectors);
            } else {
                self.counters.written.add(sectors);
            }
            let fault = match operation {
                Operation::Read => Fault::DataRead,
                _ => Fault::DataWrite,
            };
            if fault::strikes(self, fault) {
                drop(deed);
                Completion::complete(AtDisk(request.clone()), Err(EIO));
            } else {
                deed.begin(self, AtDisk(request.clone()));
            }
        }
        request.happens(Event::SubmitterDone);
        Ok(())
    }

    /// Whether a peer that is only told of writes understands that. Those before 8.4 do not: what
    /// is written waits until they have the bitmap.
    fn may_tell(&self, state: Glance) -> bool {
        let understands = |version: Version| version.is_at_least(Command::OutOfSync.since());
        state.conn() != ConnState::WFBitMapS || understands(self.resource.connection.version())
    }

    /// Whether a flush says nothing of what the peer acked before it was lost, because it need not
    /// have flushed that: `here` is whether this node's disk is to make it. One flush tells so.
    fn takes_lost_stability(&self, here: bool) -> bool {
        let doubts = if here {
            flag::STABILITY_LOST
        } else {
            flag::STABILITY_LOST | flag::PEER_UNFLUSHED
        };
        self.flags.any(doubts) && self.flags.clear(doubts) & doubts != 0
    }

    /// Ends a flush that only the peer can make, once it has.
    fn flush_by_peer(
        self: &Arc<Self>,
        bio: Bio,
        stability: Stability,
    ) -> Result<(), (Bio, Obstacle)> {
        match stability {
            Stability::Pending => {
                // The barrier may wait to be sent.
                self.resource.send_soon();
                return Err((bio, Obstacle::PeerFlush));
            }
            Stability::Reached => {
                bio.master.end(Ok(()));
                self.leave();
            }
            Stability::Lost => self.fail(bio),
        }
        Ok(())
    }

    fn route(self: &Arc<Self>, bio: &Bio, state: Glance, has_disk: bool) -> Route<Plan> {
        let copies = self.copies(state);
        let on_no_data = self.on_no_data();
        let written = match bio.master.operation() {
            Operation::Flush => {
                let disk_flushes = has_disk && !bio.failed.locally;
                route_flush(copies, disk_flushes, on_no_data)
            }
            Operation::Read => return self.route_read(bio, copies),
            _ => route_write(copies, on_no_data),
        };
        match written {
            Route::Go(route) => Route::Go(self.plan_write(bio, route)),
            Route::Suspend => Route::Suspend,
            Route::Fail => Route::Fail,
        }
    }

    fn plan_write(&self, bio: &Bio, route: WriteRoute) -> Plan {
        let mut plan = Plan {
            local: route.local,
            remote: route.remote,
            out_of_sync: false,
        };
        if route.out_of_sync {
            let newly_set = self.local_bitmap_set(bio);
            let is_marked_untold = bio.is_untold || self.flags.any(flag::MARKED_UNTOLD);
            plan.out_of_sync = tells_out_of_sync(newly_set, is_marked_untold);
        } else if route.marks {
            self.local_bitmap_set(bio);
        }
        plan
    }

    fn local_bitmap_set(&self, bio: &Bio) -> u64 {
        let size_bytes = bio.master.size_bytes();
        bio.extents.as_ref().map_or(0, |(local, _)| {
            local.bitmap.set_out_of_sync(bio.sector(), size_bytes)
        })
    }

    fn route_read(self: &Arc<Self>, bio: &Bio, copies: Copies) -> Route<Plan> {
        let connection = &self.resource.connection;
        let inputs = ReadInputs {
            sector: bio.sector(),
            // Of interest only there.
            is_clean: copies.disk == DiskState::Inconsistent
                && self.is_in_sync(bio.sector(), bio.master.size_bytes()),
            balancing: self.read_balancing(),
            local_pending: u32::try_from(self.local_bios()).unwrap_or(0),
            remote_pending: pending(&self.counters.application_pending)
                .saturating_add(pending(&self.counters.resync_pending)),
            last_was_remote: connection.last_read_was_remote(),
            failed_locally: bio.failed.locally,
            failed_remotely: bio.failed.remotely,
        };
        match route_read(copies, &inputs, self.on_no_data()) {
            Route::Go(destination) => {
                let remote = destination == Destination::Remote;
                connection.note_read(remote);
                Route::Go(Plan {
                    local: !remote,
                    remote,
                    out_of_sync: false,
                })
            }
            Route::Suspend => Route::Suspend,
            Route::Fail => Route::Fail,
        }
    }

    fn fail(self: &Arc<Self>, bio: Bio) {
        log!(
            Error,
            self,
            "IO ERROR: neither local nor remote data, sector {}+{}",
            bio.master.sector(),
            bio.master.size_sectors()
        );
        self.give_back(bio.extents, bio.range);
        bio.master.end(Err(EIO));
        self.leave();
    }

    fn give_back(self: &Arc<Self>, extents: Option<(LocalRef, Span)>, range: Option<Handle>) {
        if let Some(range) = range {
            if self.ranges.lock().remove(range) {
                self.ranges_changed();
            }
        }
        if let Some((local, span)) = extents {
            local.put_extents(self, span);
        }
    }

    /// Serves the bios that wait, as far as they go: the device's work item. May sleep.
    fn serve_delayed(self: &Arc<Self>) {
        let mut waiting = self.delayed.waiting.lock();
        loop {
            while waiting.len() < waiting.capacity() {
                let Some(bio) = self.delayed.arrivals.pop() else {
                    break;
                };
                if let Err(error) = waiting.push_within_capacity(bio) {
                    drop(error);
                    break;
                }
            }
            let committed = self.commit_extents(&mut waiting);
            // What waited for one transaction goes to the disk together.
            let served = plugged(|| self.serve_once(&mut waiting));
            if !committed && !served {
                break;
            }
        }
    }

    /// Reserves extents for the waiting writes and writes the transaction they need; whether there
    /// was one.
    fn commit_extents(self: &Arc<Self>, waiting: &mut KVVec<Bio>) -> bool {
        let Some(local) = self.logged_disk() else {
            for bio in waiting.iter_mut() {
                // The disk is gone, and its activity log with it.
                bio.extents = None;
                bio.after_commit = false;
            }
            return false;
        };
        for bio in waiting.iter_mut() {
            if bio.extents.is_some() || !bio.changes_data() {
                continue;
            }
            let Some((reference, span)) = self.extents_of(bio) else {
                continue;
            };
            let answer = local.activity_log.lock().reserve(span);
            match answer {
                Reserve::Hot | Reserve::AfterCommit => {
                    bio.after_commit = answer == Reserve::AfterCommit;
                    bio.extents = Some((reference, span));
                }
                Reserve::Wait(_) => break,
                // More extents than a transaction changes: queue limits keep such bios away.
                Reserve::TooLarge => break,
            }
        }
        let written = local.write_transaction(self);
        // Where there was nothing left to write somebody else has written it.
        if written.is_ok() {
            for bio in waiting.iter_mut() {
                bio.after_commit = false;
            }
        }
        written.unwrap_or(false)
    }

    /// Takes each waiting bio as far as it goes; whether any left.
    fn serve_once(self: &Arc<Self>, waiting: &mut KVVec<Bio>) -> bool {
        let mut served = false;
        let mut index = 0usize;
        while index < waiting.len() {
            let Ok(bio) = waiting.remove(index) else {
                break;
            };
            match self.attempt(bio) {
                Ok(()) => {
                    served = true;
                    self.delayed.count.down();
                    self.resource.delayed.down();
                }
                Err((bio, obstacle)) => {
                    if waiting.insert_within_capacity(index, bio).is_err() {
                        break;
                    }
                    index = index.saturating_add(1);
                    if obstacle == Obstacle::Slot {
                        break;
                    }
                }
            }
        }
        served
    }
}

impl Resource {
    /// A slot of the transfer log was given back: lets bios of all volumes try again. Any context.
    pub(crate) fn retry_delayed(&self) {
        if self.delayed.get() != 0 {
            for device in self.volumes() {
                device.retry_delayed();
            }
        }
    }
}

/// The parts of a request.
#[derive(Clone, Copy, Debug)]
struct Plan {
    local: bool,
    remote: bool,
    out_of_sync: bool,
}

impl Plan {
    fn part(self, operation: Operation) -> Part {
        match operation {
            Operation::Flush => Part::None,
            _ if self.out_of_sync => Part::OutOfSync,
            _ if !self.remote => Part::None,
            Operation::Read => Part::Read,
            _ => Part::Write,
        }
    }
}

fn pending(gauge: &Gauge) -> u32 {
    u32::try_from(gauge.get()).unwrap_or(0)
}

fn kind_of(master: &MasterBio) -> Kind {
    match master.operation() {
        Operation::Read => Kind::Read {
            read_ahead: master.flags().contains(Flags::RAHEAD),
        },
        Operation::Flush => Kind::Flush,
        Operation::Write if master.flags().contains(Flags::PREFLUSH) => Kind::FlushAndWrite,
        _ => Kind::Write,
    }
}
