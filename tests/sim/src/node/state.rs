// SPDX-License-Identifier: GPL-2.0

//! Changes of state, as `io/state.rs` makes them.

use std::rc::Rc;

use drbd_engine::config;
use drbd_engine::state::{
    self, change_all, effects_now, holds_writes, AfterContext, Aggregate, Change as Request,
    ConnState, Context, Fencing, Flags, Immediate, OnNoData, State, StateError, Success,
    VolumeChange,
};

use super::device::Device;
use super::{After, AfterConnection, Node};
use crate::canary::Canary;

impl Device {
    pub(crate) fn context(&self) -> Context {
        let current = self
            .local
            .borrow()
            .as_ref()
            .map(|local| local.uuids().current);
        let (negotiated_disk, negotiated_pdsk) = self.negotiated.get();
        Context {
            fencing: match current {
                Some(_) => self.config.fencing,
                None => Fencing::DontCare,
            },
            on_no_data: match self.config.on_no_data {
                config::OnNoData::IoError => OnNoData::IoError,
                config::OnNoData::SuspendIo => OnNoData::SuspendIo,
            },
            two_primaries: false,
            highest_peer_role: self.node().aggregate().highest_peer,
            open_count: self.application_bios.get(),
            has_verify_alg: false,
            apv: 101,
            state_sent: self.node().state_sent.get(),
            users_saw_disk: current.is_some_and(|current| self.seen().is_on_disk(current)),
            negotiated_disk,
            negotiated_pdsk,
        }
    }

    /// Changes the state of the volume.
    pub(crate) fn change_state(
        self: &Rc<Self>,
        request: Request,
        flags: Flags,
    ) -> Result<Success, StateError> {
        self.change_state_if(request, flags, |_| true)
    }

    /// Changes the state of the volume if a condition holds for the present one.
    pub(crate) fn change_state_if(
        self: &Rc<Self>,
        request: Request,
        flags: Flags,
        condition: impl FnOnce(State) -> bool,
    ) -> Result<Success, StateError> {
        if !condition(self.state()) {
            return Err(StateError::InTransientState);
        }
        self.make_change(request, flags, false)
    }

    /// Changes the state of the volume; with `resends` the peer is sent UUIDs and state before
    /// anything else that follows from it, and after what followed from the changes before.
    pub(crate) fn make_change(
        self: &Rc<Self>,
        request: Request,
        flags: Flags,
        resends: bool,
    ) -> Result<Success, StateError> {
        let old = self.state();
        let changed = state::change(old, request, flags, &self.context());
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                self.tell(|| format!("State change failed: {error}"));
                return Err(error);
            }
        };
        if changed.success == Success::Done {
            self.store(old, changed.new, resends);
        } else if resends {
            self.defer(old, old, true);
        }
        Ok(changed.success)
    }

    fn store(self: &Rc<Self>, old: State, new: State, resends: bool) {
        self.tell(|| format!("state {}", state::Difference::of_volume(old, new)));
        self.state.set(new);
        self.spread_suspension(new);
        self.retry_delayed();
        let another_reports = self.node().devices.iter().any(|device| {
            device.state().conn == ConnState::WFReportParams && device.volume != self.volume
        });
        for effect in effects_now(old, new, another_reports).iter() {
            self.carry_out_now(effect, old, new, resends);
        }
        self.oracle
            .borrow_mut()
            .state_changed(self.node_id, old, new);
    }

    /// Suspension is a matter of the whole resource: the other volumes' words mirror it.
    fn spread_suspension(&self, new: State) {
        for device in &self.node().devices {
            let old = device.state();
            let mirrored = State {
                susp: new.susp,
                susp_nod: new.susp_nod,
                susp_fen: new.susp_fen,
                ..old
            };
            if device.volume != self.volume && mirrored != old {
                device.state.set(mirrored);
                device.retry_delayed();
            }
        }
    }

    fn carry_out_now(self: &Rc<Self>, effect: Immediate, old: State, new: State, resends: bool) {
        match effect {
            Immediate::ClearResyncDone => self.resync.borrow_mut().clear_done(),
            Immediate::CloseEpoch => {
                self.mirror_generation
                    .set(self.mirror_generation.get().wrapping_add(1));
                self.node().log.borrow_mut().close_epoch();
            }
            Immediate::CountConnect => {
                let connects = &self.node().fencer.connects;
                connects.set(connects.get().wrapping_add(1));
            }
            Immediate::ClearStateSent => self.node().state_sent.set(false),
            Immediate::UpdateMetadataFlags => {
                if let Some(local) = self.local() {
                    local.update_flags(self, new);
                }
            }
            Immediate::ExposeCurrentUuid => {
                if let Some(local) = self.local() {
                    self.exposed_uuid.set(local.uuids().current);
                }
            }
            Immediate::DistrustBitmap => self.flags.bitmap_distrusted.set(true),
            Immediate::TrustBitmap => self.flags.bitmap_distrusted.set(false),
            Immediate::UsersSeePeer => {
                let careless = self.config.has(Canary::UsersForgotten);
                self.flags.users_saw_peer.set(!careless);
            }
            Immediate::UsersSeeDisk => self.flags.users_saw_peer.set(false),
            Immediate::NoUsers => {
                self.flags.stability_lost.set(false);
                self.flags.peer_unflushed.set(false);
                self.flags.told_alone.set(false);
            }
            Immediate::DoubtUnflushed => {
                if self.flags.peer_unflushed.replace(false) {
                    self.flags.stability_lost.set(true);
                }
            }
            Immediate::PeerSynced => self.flags.peer_unflushed.set(false),
            Immediate::ConsiderResync => self.flags.consider_resync.set(true),
            Immediate::StopReceiver | Immediate::RestartReceiver => self.node().interrupt(),
            Immediate::QueueDeferred => self.defer(old, new, resends),
            // Waiters look whenever anything changes; the rest is about pauses, verify and the log.
            _ => {}
        }
    }

    /// Leaves the rest to the worker. What is written alone must belong to a generation of its own,
    /// so writes wait for that.
    fn defer(self: &Rc<Self>, old: State, new: State, resends: bool) {
        let holds_writes = holds_writes(old, new);
        if holds_writes {
            self.flags
                .generations_due
                .set(self.flags.generations_due.get() + 1);
        }
        self.node().deferred.volumes.borrow_mut().push_back(After {
            device: self.clone(),
            old,
            new,
            holds_writes,
            resends,
        });
    }

    /// What the deferred effects depend on.
    pub(crate) fn after_context(&self, present: State) -> AfterContext {
        let local = self.local();
        AfterContext {
            apv: 101,
            present,
            volumes: self.node().aggregate(),
            is_attached: local.is_some(),
            bitmap_uuid_is_zero: local.is_some_and(|local| local.uuids().bitmap == 0),
            was_io_error: false,
            calls_local_io_error: false,
            resync_after_negotiation: false,
        }
    }

    /// A new generation is on disk: writes go on.
    pub(crate) fn generation_begun(&self) {
        self.flags
            .generations_due
            .set(self.flags.generations_due.get() - 1);
        self.retry_delayed();
    }
}

/// How far a connection is, as in `io/state.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Away,
    Meeting,
    Connected,
}

impl Node {
    pub(crate) fn phase(&self) -> Phase {
        match (
            self.conn() >= ConnState::WFReportParams,
            self.state_sent.get(),
        ) {
            (_, true) => Phase::Meeting,
            (true, false) => Phase::Connected,
            (false, false) => Phase::Away,
        }
    }

    /// Whether I/O is suspended, for all volumes.
    pub fn is_suspended(&self) -> bool {
        let is_suspended = |device: &Rc<Device>| device.state().is_suspended();
        self.devices.iter().any(is_suspended)
    }

    /// The extremes over all volumes.
    pub(crate) fn aggregate(&self) -> Aggregate {
        Aggregate::of(self.devices.iter().map(|device| device.state()))
    }

    /// Changes the state of the connection and of all volumes together, all or none.
    pub(crate) fn change_connection(
        &self,
        request: Request,
        flags: Flags,
    ) -> Result<Success, StateError> {
        let change_of = |device: &Rc<Device>| VolumeChange::new(device.state(), device.context());
        let mut volumes: Vec<_> = self.devices.iter().map(change_of).collect();
        let changed =
            change_all(self.conn(), &mut volumes, request, flags).inspect_err(|error| {
                self.tell(|| format!("Connection change failed: {error}"));
            })?;
        if changed.success != Success::Done {
            return Ok(changed.success);
        }
        let old = self.conn.replace(changed.cstate);
        for (device, volume) in self.devices.iter().zip(&volumes) {
            if volume.old != volume.new {
                device.store(volume.old, volume.new, false);
            }
        }
        let new = changed.cstate;
        // What is known of a peer that is away may change while the connection does not.
        let changes = volumes.iter().any(|volume| volume.old != volume.new);
        if old != new || (self.config.freezes && changes) {
            if matches!(new, ConnState::Disconnecting | ConnState::StandAlone)
                || (old > ConnState::WFConnection && new.is_failure())
            {
                self.interrupt();
            }
            self.tell(|| format!("connection {old} -> {new}"));
            let after = AfterConnection { old, new };
            self.deferred.connection.borrow_mut().push_back(after);
        }
        self.sim.touch();
        Ok(changed.success)
    }

    /// Wakes whoever waits for the peer: the sockets are shut down.
    pub(crate) fn interrupt(&self) {
        self.flags.interrupted.set(true);
        let session = self.session.borrow().clone();
        if let Some(session) = session {
            session.shut_down(self.id);
        }
        self.sim.touch();
    }

    /// Whether nobody may wait for the peer any more.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.flags.interrupted.get()
    }
}
