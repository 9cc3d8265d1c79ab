// SPDX-License-Identifier: GPL-2.0

//! Application requests, as `io/request.rs` moves them along.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use drbd_engine::activity_log::Span;
use drbd_engine::range::Handle;
use drbd_engine::request::{apply, settle, Consequences, Context, Event, RequestState};
use drbd_engine::state::DiskState;
use drbd_engine::transfer_log::Index;

use super::device::Device;
use super::disk::LocalRef;
use super::submit::Bio;
use super::Node;
use crate::canary::Canary;
use crate::drive::Sectors;
use crate::packet::Blocks;

/// What an application asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Read,
    /// Writes; every sector gets this number.
    Write(u64),
    /// Flushes.
    Flush,
}

/// An application's bio.
pub struct Master {
    /// A number for the story.
    pub number: u64,
    /// What it does.
    pub operation: Operation,
    /// Where; no sectors for a flush.
    pub blocks: Blocks,
    /// A write has a flush made first.
    pub flushes_first: bool,
    /// What a read got.
    pub read: RefCell<Sectors>,
    /// How it ended.
    pub ended: Cell<Option<bool>>,
}

/// What a request consists of while its slot is in use.
pub(crate) struct Parts {
    pub(crate) device: Rc<Device>,
    pub(crate) master: Rc<Master>,
    /// The disk, while its bio is there.
    pub(crate) local: Option<LocalRef>,
    /// The extents it holds in the activity log, and the attachment that they are of.
    pub(crate) extents: Option<(u64, Span)>,
    pub(crate) range: Option<Handle>,
    pub(crate) mirror_generation: u32,
    /// Whether the application's bio was ended or given back.
    pub(crate) is_over: bool,
    /// Whether the peer took part.
    pub(crate) remote: bool,
    /// A deliberate bug: the blocks are marked out of sync when the disk is through.
    pub(crate) marks_later: bool,
}

/// A request.
pub(crate) struct Request {
    pub(crate) index: Index,
    state: Cell<RequestState>,
    parts: RefCell<Option<Parts>>,
}

impl Request {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index: Index(u32::try_from(index).unwrap_or(u32::MAX)),
            state: Cell::new(RequestState::RELEASED),
            parts: RefCell::new(None),
        }
    }

    /// Begins a life.
    pub(crate) fn begin(&self, parts: Parts, state: RequestState) {
        self.parts.replace(Some(parts));
        self.state.set(state);
    }

    pub(crate) fn state(&self) -> RequestState {
        self.state.get()
    }

    fn blocks(&self) -> Option<Blocks> {
        self.with(|parts| parts.master.blocks)
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(&mut Parts) -> R) -> Option<R> {
        self.parts.borrow_mut().as_mut().map(read)
    }
}

impl Node {
    pub(crate) fn request(&self, index: Index) -> &Request {
        &self.requests[usize::try_from(index.0).unwrap_or(0)]
    }

    /// Moves a request along and carries out what follows; whether the peer may say so.
    pub(crate) fn happens(&self, index: Index, event: Event) -> bool {
        let request = self.request(index);
        let known = request.with(|parts| (parts.device.clone(), parts.mirror_generation));
        let Some((device, generation)) = known else {
            return true;
        };
        let state = device.state();
        let believes_target = self.config.has(Canary::TargetBelieved);
        let context = Context {
            suspended: state.is_suspended(),
            local_is_current: state.disk == DiskState::UpToDate,
            peer_is_current: state.pdsk == DiskState::UpToDate || believes_target,
            peer_is_stale: state.pdsk < DiskState::DUnknown && !believes_target,
            mirrored_since_sent: device.mirror_generation.get() == generation,
        };
        let (new, todo) = apply(request.state(), event, context);
        request.state.set(new);
        self.sim.touch();
        device.carry_out(self, request, new, todo);
        if todo.has(Consequences::SETTLE) {
            let (new, is_last) = settle(request.state());
            request.state.set(new);
            if is_last {
                device.release(self, request);
            }
        }
        !todo.has(Consequences::PROTOCOL_ERROR)
    }

    /// Whether a request of this volume is in the log.
    pub(crate) fn has_requests(&self, device: &Rc<Device>) -> bool {
        let is_of = |request: &Request| {
            request.with(|parts| Rc::ptr_eq(&parts.device, device)) == Some(true)
        };
        self.requests.iter().any(is_of)
    }

    /// Moves along every request of the log.
    pub(crate) fn walk_log(&self, event: Event) {
        self.walk(event, |_| true);
    }

    /// Moves along every request of the log that is of this volume.
    pub(crate) fn walk_log_of(&self, device: &Rc<Device>, event: Event) {
        self.walk(event, |own| Rc::ptr_eq(own, device));
    }

    fn walk(&self, event: Event, is_meant: impl Fn(&Rc<Device>) -> bool) {
        self.log.borrow_mut().begin_walk();
        loop {
            let next = self.log.borrow_mut().next_of_walk();
            let Some(index) = next else { break };
            if self.request(index).with(|parts| is_meant(&parts.device)) == Some(true) {
                self.happens(index, event);
            }
        }
    }
}

impl Node {
    /// I/O goes on, unless it is suspended for another reason: what was done meanwhile ends.
    pub(crate) fn end_held_back(&self) {
        if !self.is_suspended() {
            self.walk_log(Event::Resumed);
        }
    }

    /// Requests that wait for the peer end without it.
    pub(crate) fn fail_for_lost_connection(&self) {
        self.log.borrow_mut().connection_lost();
        self.walk_log(Event::ConnectionLost);
    }
}

impl Device {
    fn carry_out(&self, node: &Node, request: &Request, new: RequestState, todo: Consequences) {
        let index = request.index;
        let forgets = self.config.has(Canary::LostConnectionForgotten);
        let is_late =
            self.config.has(Canary::MarkedTooLate) && new.has(RequestState::LOCAL_PENDING);
        let marks = todo.has(Consequences::SET_OUT_OF_SYNC);
        if marks && is_late {
            request.with(|parts| parts.marks_later = true);
        }
        let was_late = todo.has(Consequences::LOCAL_ENDED)
            && request.with(|parts| parts.marks_later) == Some(true);
        if (marks && !forgets && !is_late) || was_late {
            if let (Some(local), Some(blocks)) = (self.local(), request.blocks()) {
                local.set_out_of_sync(self, blocks.sector, blocks.size_bytes);
            }
        }
        if todo.has(Consequences::SET_IN_SYNC) {
            let local = self.local().filter(|_| !self.flags.resync_doubted.get());
            if let (Some(local), Some(blocks)) = (local, request.blocks()) {
                local.set_in_sync(self, blocks.sector, blocks.size_bytes);
            }
        }
        if todo.has(Consequences::CLOSE_EPOCH) {
            node.log.borrow_mut().close_epoch_of(index);
        }
        if todo.has(Consequences::LOCAL_ENDED) {
            let taken = request.with(|parts| Some((parts.local.take()?, parts.master.operation)));
            if let Some((local, Operation::Write(_))) = taken.flatten() {
                local.cache.borrow_mut().write_ended();
            }
        }
        if todo.has(Consequences::ANSWERED) {
            node.log.borrow_mut().answered(index);
            self.application_pending
                .set(self.application_pending.get() - 1);
        }
        if todo.has(Consequences::UNANSWERED) {
            self.application_pending
                .set(self.application_pending.get() + 1);
        }
        let careless = self.config.has(Canary::StabilityForgotten);
        if todo.has(Consequences::STABILITY_LOST) {
            self.flags.stability_lost.set(!careless);
        }
        if todo.has(Consequences::FLUSHED) {
            self.flags.peer_unflushed.set(false);
        }
        if todo.has(Consequences::PEER_UNFLUSHED) {
            self.flags.peer_unflushed.set(!careless);
        }
        if todo.has(Consequences::TOLD_ALONE) {
            let careless = self.config.has(Canary::AloneForgotten);
            self.flags.told_alone.set(!careless);
        }
        if todo.has(Consequences::DISK_LACKS) {
            self.judge_lacking();
        }
        if todo.has(Consequences::QUEUE) {
            node.log.borrow_mut().requeue(index);
        }
        if todo.has(Consequences::COMPLETE) {
            self.complete(request, new);
        }
        if todo.has(Consequences::RETRY) {
            self.retry(request);
        }
        if todo.has(Consequences::RELEASE) {
            self.release(node, request);
        }
    }

    /// Tells the application, after those who wait for the range were let go.
    fn complete(&self, request: &Request, new: RequestState) {
        let Some((master, range, remote)) = request.with(|parts| {
            parts.is_over = true;
            (parts.master.clone(), parts.range, parts.remote)
        }) else {
            return;
        };
        if let Some(range) = range {
            self.ranges.borrow_mut().mark_completed(range);
            self.retry_delayed();
        }
        let ended = super::submit::Ended {
            ok: new.is_ok(),
            local: new.has(RequestState::LOCAL_OK),
            remote,
            acknowledged: new.has(RequestState::NET_OK),
        };
        self.end(&master, ended);
    }

    /// Lets the application's bio be admitted again.
    fn retry(&self, request: &Request) {
        let again = request.with(|parts| {
            parts.is_over = true;
            let (locally, remotely) = request.state().refused_by();
            Bio::again(parts.master.clone(), locally, remotely)
        });
        if let Some(bio) = again {
            self.delayed.borrow_mut().push_back(bio);
            self.retry_delayed();
        }
    }

    /// Ends the life: what the request held is given back, then its slot.
    fn release(&self, node: &Node, request: &Request) {
        let parts = request.parts.take();
        if let Some(parts) = parts {
            if let Some(range) = parts.range {
                self.ranges.borrow_mut().remove(range);
            }
            if let (Some((id, span)), Some(local)) = (parts.extents, self.local()) {
                if local.id == id {
                    local.put_extents(self, span);
                }
            }
        }
        node.log.borrow_mut().release(request.index);
        for device in &node.devices {
            device.retry_delayed();
        }
    }
}
