// SPDX-License-Identifier: GPL-2.0

//! Application requests: the objects behind the slots of the transfer log.
//!
//! A request's progress is one atomic word that the engine's `apply` changes; everything else it
//! consists of is behind its own short lock. Whoever moves it along carries out the consequences,
//! in the order the engine gives.

use drbd_engine::{
    activity_log::Span,
    range::Handle,
    request::{
        Consequences,
        Context,
        Event,
        RequestState, //
    },
    transfer_log::Index,
    types::Sector, //
};
use drbd_sys::{
    bio::{
        Completion,
        MasterBio,
        Operation, //
    },
    time::monotonic_ns, //
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    },
};

use super::{
    device::{
        flag,
        Device,
        LocalRef, //
    },
    disk_error,
    limits::REQUESTS_MAX,
    resource::Resource,
    submit::Bio,
    worker::chore, //
};

mod word;

use word::{
    Life,
    Word, //
};

/// What a request consists of while its slot is in use.
pub(crate) struct Parts {
    /// The device it was submitted to.
    pub(crate) device: Arc<Device>,
    /// The application's bio, until it ends. The sender takes it out while it sends and puts it
    /// back.
    pub(crate) master: Option<MasterBio>,
    /// What it does.
    pub(crate) operation: Operation,
    /// Its first sector.
    pub(crate) sector: Sector,
    /// Its size; 0 for a flush.
    pub(crate) size_bytes: u32,
    /// The disk, while its bio is there. Nothing that lasts until the peer has answered may keep a
    /// disk from being let go.
    pub(crate) local: Option<LocalRef>,
    /// The extents it holds in the activity log, and the attachment (`LocalDisk::id`) that they are
    /// of.
    pub(crate) extents: Option<(u64, Span)>,
    /// The range it has claimed.
    pub(crate) range: Option<Handle>,
    /// What the local disk answered, if it was an error.
    pub(crate) error: Option<Error>,
    /// `Device::mirror_generation` at admission.
    pub(crate) mirror_generation: u32,
    /// When it was admitted; the local disk gets it right after.
    pub(crate) admitted_ns: u64,
    /// Which copies a read was refused by.
    pub(crate) failed: Failed,
}

/// What does not change while a request lives.
struct Facts {
    device: Arc<Device>,
    erases: bool,
    sector: Sector,
    size_bytes: u32,
    mirror_generation: u32,
}

impl Parts {
    /// Whether it is a discard or zeroes, which take as long as they are large.
    fn erases(&self) -> bool {
        matches!(self.operation, Operation::Discard | Operation::WriteZeroes)
    }

    fn facts(&self) -> Facts {
        Facts {
            device: self.device.clone(),
            erases: self.erases(),
            sector: self.sector,
            size_bytes: self.size_bytes,
            mirror_generation: self.mirror_generation,
        }
    }
}

/// Somebody who moves a request along.
struct Acting<'a> {
    request: &'a Request,
    facts: Facts,
}

impl Life for Acting<'_> {
    fn context(&self) -> Context {
        let device = &self.facts.device;
        let state = device.glance();
        Context {
            suspended: device.holds_completions(),
            local_is_current: state.has_current_disk(),
            peer_is_current: state.has_current_peer(),
            peer_is_stale: state.has_stale_peer(),
            mirrored_since_sent: device.mirror_generation.load() == self.facts.mirror_generation,
        }
    }

    fn carry_out(&self, new: RequestState, todo: Consequences) {
        self.request.carry_out(&self.facts, new, todo);
    }

    fn release(&self) {
        self.request.release(&self.facts.device);
    }
}

/// Which copies could not serve a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    /// This node's disk.
    pub(crate) locally: bool,
    /// The peer.
    pub(crate) remotely: bool,
}

/// A request.
#[pin_data]
pub(crate) struct Request {
    index: Index,
    word: Word,
    #[pin]
    parts: SpinLockIrq<Option<Parts>>,
}

/// All requests of a resource, one for each slot of the transfer log.
pub(crate) struct RequestTable(KVVec<Arc<Request>>);

impl RequestTable {
    /// Allocates all of them. May sleep.
    pub(crate) fn new() -> Result<Self> {
        let mut table = KVVec::with_capacity(REQUESTS_MAX, GFP_KERNEL)?;
        for index in 0..u32::try_from(REQUESTS_MAX)? {
            let request = Arc::pin_init(
                try_pin_init!(Request {
                    index: Index(index),
                    word: Word::new(),
                    parts <- new_spinlock_irq!(None, "drbd_request"),
                }),
                GFP_KERNEL,
            )?;
            table.push(request, GFP_KERNEL)?;
        }
        Ok(Self(table))
    }

    /// All slots. Any context.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.0.iter()
    }

    /// The request in a slot. Any context.
    pub(crate) fn get(&self, index: Index) -> Option<&Arc<Request>> {
        self.0.get(usize::try_from(index.0).ok()?)
    }
}

impl Request {
    /// Begins a life: stores the parts, then the first word. The caller holds the log's lock and
    /// has just admitted the request.
    pub(crate) fn begin(&self, parts: Parts, state: RequestState) {
        *self.parts.lock() = Some(parts);
        self.word.begin(state);
    }

    /// Where it is. Any context.
    pub(crate) fn state(&self) -> RequestState {
        self.word.state()
    }

    /// Reads the parts under their lock; `None` once released. Any context; `read` must be short.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&mut Parts) -> R) -> Option<R> {
        let mut parts = self.parts.lock();
        (*parts).as_mut().map(read)
    }

    /// Moves the request along, by who has a part of it or its answer, and carries out what
    /// follows. Any context, without the log's lock.
    ///
    /// Returns whether the peer may say so: `false` costs the connection.
    pub(crate) fn happens(&self, event: Event) -> bool {
        let Some(facts) = self.with(|parts| parts.facts()) else {
            return true;
        };
        let acting = Acting {
            request: self,
            facts,
        };
        self.word.happens(&acting, event)
    }

    /// Moves the request in this slot along, if there is one and it is meant, by who has no part of
    /// it. Any context, without the log's lock.
    pub(crate) fn visit(&self, event: Event, is_meant: impl FnOnce(&Arc<Device>) -> bool) {
        let facts = {
            let parts = self.parts.lock();
            let facts = (*parts).as_ref().map(Parts::facts);
            facts.filter(|_| self.word.enter())
        };
        let Some(facts) = facts else { return };
        let acting = Acting {
            request: self,
            facts,
        };
        if is_meant(&acting.facts.device) {
            self.word.happens(&acting, event);
        }
        self.word.settle(&acting);
    }

    /// Gives up the local part if this is a request of `device`: its disk does not answer, and the
    /// application is not to wait for it any more. Any context.
    pub(crate) fn abort_local(&self, device: &Arc<Device>) {
        self.visit(Event::LocalAborted, |own| Arc::ptr_eq(own, device));
    }

    /// Whether this is a request of `device`, as long as it is any. Any context.
    pub(crate) fn is_of(&self, device: &Arc<Device>) -> bool {
        self.with(|parts| Arc::ptr_eq(&parts.device, device))
            .unwrap_or(false)
    }

    /// Since when this request of `device` is at the local disk, if it is. Any context.
    ///
    /// Blocks are erased one range after another and each in parts, which may have to be written:
    /// what counts is how long the disk takes for a part.
    pub(crate) fn at_disk_since(&self, device: &Arc<Device>) -> Option<u64> {
        if !self.state().has(RequestState::LOCAL_PENDING) {
            return None;
        }
        let mine = |parts: &mut Parts| {
            let since_ns = match parts.erases() {
                true => parts.admitted_ns.max(device.erasing.advanced_ns()),
                false => parts.admitted_ns,
            };
            Arc::ptr_eq(&parts.device, device).then_some(since_ns)
        };
        self.with(mine).flatten()
    }

    /// Whether it is a discard or zeroes. Any context.
    pub(crate) fn erases(&self) -> bool {
        self.with(|parts| parts.erases()).unwrap_or(false)
    }

    fn carry_out(&self, facts: &Facts, new: RequestState, todo: Consequences) {
        let device = &facts.device;
        let connection = &device.resource.connection;
        if todo.has(Consequences::SET_OUT_OF_SYNC) {
            if let Some(local) = device.local() {
                local.bitmap.set_out_of_sync(facts.sector, facts.size_bytes);
            }
        }
        if todo.has(Consequences::SET_IN_SYNC) {
            super::resync::believe_in_sync(device, facts.sector, facts.size_bytes);
        }
        if todo.has(Consequences::CLOSE_EPOCH) {
            self.close_epoch(&device.resource);
        }
        if todo.has(Consequences::LOCAL_ENDED) {
            device.counters.local.down();
            self.leave_disk();
        }
        if todo.has(Consequences::ANSWERED) {
            connection.log.lock().answered(self.index);
            if facts.erases {
                connection.erasure_answered_ns.store(monotonic_ns());
            }
            if device.counters.application_pending.down() {
                device.wake();
            }
        }
        if todo.has(Consequences::UNANSWERED) {
            device.counters.application_pending.up();
        }
        account_in_flight(facts, todo);
        if todo.has(Consequences::STABILITY_LOST) {
            device.flags.set(flag::STABILITY_LOST);
        }
        if todo.has(Consequences::FLUSHED) && device.flags.any(flag::PEER_UNFLUSHED) {
            device.flags.clear(flag::PEER_UNFLUSHED);
        }
        if todo.has(Consequences::PEER_UNFLUSHED) {
            device.flags.set(flag::PEER_UNFLUSHED);
        }
        if todo.has(Consequences::TOLD_ALONE) && !device.flags.any(flag::TOLD_ALONE) {
            device.flags.set(flag::TOLD_ALONE);
        }
        if todo.has(Consequences::DISK_LACKS) {
            disk_error::judge_lacking(device);
        }
        if todo.has(Consequences::QUEUE) {
            connection.log.lock().requeue(self.index);
            device.resource.chore(chore::SEND);
        }
        if todo.has(Consequences::COMPLETE) {
            self.complete(device, new);
        }
        if todo.has(Consequences::RETRY) {
            self.retry(device);
        }
    }

    /// Nothing of it is at the disk any more, but what it wrote may be in the disk's cache only.
    fn leave_disk(&self) {
        let taken = self.with(|parts| Some((parts.local.take()?, parts.operation)));
        let Some((local, operation)) = taken.flatten() else {
            return;
        };
        if !matches!(operation, Operation::Read | Operation::Flush) {
            local.cache.lock().write_ended();
        }
    }

    /// Ends the epoch the request is of, unless it ended before.
    fn close_epoch(&self, resource: &Resource) {
        let mut log = resource.connection.log.lock();
        let ended = log.close_epoch_of(self.index);
        if ended {
            resource.bell.note_barrier(monotonic_ns());
        }
        drop(log);
        if ended {
            resource.await_barrier();
        }
    }

    /// Tells the application, after those who wait for the range were let go.
    fn complete(&self, device: &Arc<Device>, new: RequestState) {
        let Some((master, range, error)) =
            self.with(|parts| (parts.master.take(), parts.range, parts.error))
        else {
            return;
        };
        if let Some(range) = range {
            if device.ranges.lock().mark_completed(range) {
                device.ranges_changed();
            }
        }
        let result = if new.is_ok() {
            Ok(())
        } else {
            Err(error.unwrap_or(EIO))
        };
        if let Some(master) = master {
            master.end(result);
        }
        device.leave();
    }

    /// Lets the application's bio be admitted again, as a new request.
    fn retry(&self, device: &Arc<Device>) {
        let Some((master, mut failed)) = self.with(|parts| (parts.master.take(), parts.failed))
        else {
            return;
        };
        let Some(master) = master else { return };
        let (locally, remotely) = self.state().refused_by();
        failed.locally |= locally;
        failed.remotely |= remotely;
        device.delay(Bio::again(master, failed));
    }

    /// Ends the life: what the request held is given back, and then its slot.
    fn release(&self, device: &Arc<Device>) {
        let parts = self.parts.lock().take();
        if let Some(parts) = parts {
            if let Some(range) = parts.range {
                if device.ranges.lock().remove(range) {
                    device.ranges_changed();
                }
            }
            if let (Some((id, span)), Some(local)) = (parts.extents, device.local()) {
                if local.id == id {
                    local.put_extents(device, span);
                }
            }
            drop(parts);
        }
        device.resource.connection.log.lock().release(self.index);
        device.resource.retry_delayed();
    }
}

/// Counts what is on its way to the peer.
fn account_in_flight(facts: &Facts, todo: Consequences) {
    let in_flight = &facts.device.resource.connection.in_flight_sectors;
    let sectors = u64::from(facts.size_bytes >> 9);
    if todo.has(Consequences::ADD_IN_FLIGHT) {
        in_flight.update(|sum| sum.saturating_add(sectors));
    }
    if todo.has(Consequences::SUB_IN_FLIGHT) {
        in_flight.update(|sum| sum.saturating_sub(sectors));
    }
}

/// The token of a request's bio at the local disk.
pub(crate) struct AtDisk(pub(crate) Arc<Request>);

impl Completion for AtDisk {
    fn complete(self, result: Result) {
        let event = match result {
            Ok(()) => Event::LocalOk,
            Err(error) => {
                disk_error::request_failed(&self.0, error);
                Event::LocalFailed
            }
        };
        // Only what the peer says can be an error.
        self.0.happens(event);
    }
}
