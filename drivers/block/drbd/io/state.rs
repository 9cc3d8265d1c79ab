// SPDX-License-Identifier: GPL-2.0

//! Changes of state: the one place where a state word is stored.
//!
//! Lock order: `Resource::control`, then the transfer log. The engine judges a change and says what
//! follows from it; this file stores it, carries out what must happen at once, and leaves the rest
//! to the worker (`after.rs`), in order.

use drbd_engine::{
    config::{
        self,
        ResourceOptions, //
    },
    state::{
        self,
        change_all,
        connection::common_fields,
        effects_now,
        holds_writes,
        Aggregate,
        Change,
        ConnState,
        Context,
        Difference,
        DiskState,
        Fencing,
        Flags,
        Immediate,
        OnNoData,
        State,
        StateError,
        Success,
        VolumeChange, //
    },
};
use drbd_sys::log;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    device::{
        flag,
        Device, //
    },
    disk::LocalDisk,
    resource::Resource,
    resync::verify,
    worker::{
        chore,
        After,
        AfterConnection, //
    },
};

/// One volume, as the state rules see it.
struct Volume {
    device: Arc<Device>,
    /// The disk states that attaching would have given without a peer; used while Negotiating.
    negotiated: (DiskState, DiskState),
}

/// The state of a resource's connection and what else the rules read. Behind `Resource::control`.
pub(crate) struct Control {
    conn: ConnState,
    /// The connection has sent its state and waits for the peer's.
    state_sent: bool,
    /// How often the connection was established; answers of helpers that were started before are
    /// void.
    pub(crate) connect_count: u32,
    /// The resource's options.
    pub(crate) options: ResourceOptions,
    volumes: KVec<Volume>,
    scratch: KVec<VolumeChange>,
    after: KVec<After>,
    after_connection: KVec<AfterConnection>,
}

impl Control {
    /// A StandAlone connection without volumes.
    pub(crate) fn new(options: ResourceOptions) -> Self {
        Self {
            conn: ConnState::StandAlone,
            state_sent: false,
            connect_count: 0,
            options,
            volumes: KVec::new(),
            scratch: KVec::new(),
            after: KVec::new(),
            after_connection: KVec::new(),
        }
    }

    /// The connection's own state.
    pub(crate) fn conn(&self) -> ConnState {
        self.conn
    }

    /// Adds a volume. May sleep.
    pub(crate) fn add_volume(&mut self, device: Arc<Device>) -> Result {
        let wanted = self.volumes.len().saturating_add(1);
        self.scratch.clear();
        self.scratch.reserve(wanted, GFP_KERNEL)?;
        // Since the volume was made the connection may have become another.
        let state = State {
            conn: self.conn,
            ..device.state()
        };
        let volume = Volume {
            device: device.clone(),
            negotiated: (DiskState::Diskless, DiskState::DUnknown),
        };
        self.volumes.push(volume, GFP_KERNEL)?;
        device.resource.connection.publish(&device, state);
        Ok(())
    }

    /// Forgets a volume.
    pub(crate) fn remove_volume(&mut self, device: &Device) {
        self.volumes
            .retain(|volume| !core::ptr::eq(&*volume.device, device));
        let reports = |volume: &Volume| volume.device.state().conn == ConnState::WFReportParams;
        // The peer may not have had it, and would never have told its state.
        if self.conn == ConnState::WFReportParams && !self.volumes.iter().any(reports) {
            self.state_sent = false;
        }
    }

    /// Remembers what attaching would have given without a peer.
    pub(crate) fn set_negotiated(&mut self, device: &Device, disk: DiskState, pdsk: DiskState) {
        for volume in self.volumes.iter_mut() {
            if core::ptr::eq(&*volume.device, device) {
                volume.negotiated = (disk, pdsk);
            }
        }
    }

    /// What was remembered by [`Self::set_negotiated`].
    pub(crate) fn negotiated(&self, device: &Device) -> (DiskState, DiskState) {
        let found = self
            .volumes
            .iter()
            .find(|volume| core::ptr::eq(&*volume.device, device));
        found.map_or((DiskState::Diskless, DiskState::DUnknown), |volume| {
            volume.negotiated
        })
    }

    /// Says that the own state was sent and the peer's is awaited.
    pub(crate) fn set_state_sent(&mut self) {
        self.state_sent = true;
    }

    /// The own state was sent in vain.
    pub(crate) fn clear_state_sent(&mut self) {
        self.state_sent = false;
    }

    /// How far the connection is.
    pub(crate) fn phase(&self) -> Phase {
        match (self.conn >= ConnState::WFReportParams, self.state_sent) {
            (_, true) => Phase::Meeting,
            // Volumes are in higher states; the connection itself stays there.
            (true, false) => Phase::Connected,
            (false, false) => Phase::Away,
        }
    }

    /// The extremes over all volumes.
    pub(crate) fn aggregate(&self) -> Aggregate {
        Aggregate::of(self.volumes.iter().map(|volume| volume.device.state()))
    }

    /// What the worker has to do after changes, in the order of the changes.
    pub(crate) fn take_after(&mut self) -> (KVec<After>, KVec<AfterConnection>) {
        (
            core::mem::take(&mut self.after),
            core::mem::take(&mut self.after_connection),
        )
    }

    fn context(&self, resource: &Resource, volume: &Volume) -> Context {
        let device = &volume.device;
        let config = resource.connection.config();
        let local = device.local();
        let fencing = local
            .as_deref()
            .map_or(Fencing::DontCare, LocalDisk::fencing);
        let current = local.as_deref().map(LocalDisk::current_uuid);
        Context {
            fencing,
            on_no_data: match self.options.on_no_data {
                config::OnNoData::IoError => OnNoData::IoError,
                config::OnNoData::SuspendIo => OnNoData::SuspendIo,
            },
            two_primaries: config
                .as_ref()
                .is_some_and(|config| config.net.two_primaries),
            highest_peer_role: self.aggregate().highest_peer,
            open_count: device
                .open_count()
                .max(device.flags.any(flag::UNFLUSHED).into()),
            has_verify_alg: config
                .as_ref()
                .is_some_and(|config| !config.net.verify_alg.is_empty()),
            apv: resource.connection.version().number(),
            state_sent: self.state_sent,
            users_saw_disk: current.is_some_and(|current| device.seen().is_on_disk(current)),
            negotiated_disk: volume.negotiated.0,
            negotiated_pdsk: volume.negotiated.1,
        }
    }
}

/// How far a connection is, for what happens to requests that it does not carry now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is no peer, and this node has not told one its state.
    Away,
    /// The nodes tell each other their states: what they find decides.
    Meeting,
    /// The peer is there.
    Connected,
}

/// How a change is made.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// How strictly the engine judges it.
    pub(crate) flags: Flags,
    /// Whether a refusal is logged.
    pub(crate) verbose: bool,
    /// Whether the peer is sent UUIDs and state, before anything else that follows from the change
    /// and after what followed from those before it. A volume's change only.
    pub(crate) resends: bool,
}

impl How {
    /// May be refused, which the log says.
    pub(crate) const VERBOSE: Self = Self {
        flags: Flags::SOFT,
        verbose: true,
        resends: false,
    };
    /// May be refused; the caller says what that means.
    pub(crate) const QUIET: Self = Self {
        flags: Flags::SOFT,
        verbose: false,
        resends: false,
    };
    /// Tells what has happened.
    pub(crate) const HARD: Self = Self {
        flags: Flags::HARD,
        verbose: true,
        resends: false,
    };

    /// Whether a refusal is worth a line: a transition passes by itself.
    pub(crate) fn tells(self, error: StateError) -> bool {
        self.verbose && error != StateError::InTransientState
    }
}

impl Resource {
    /// The facts the rules read about a volume.
    pub(crate) fn context_of(&self, device: &Device) -> Context {
        let control = self.control.lock();
        let volume = control
            .volumes
            .iter()
            .find(|volume| core::ptr::eq(&*volume.device, device));
        volume.map_or(Context::NEW, |volume| control.context(self, volume))
    }

    /// Changes the state of one volume. May sleep.
    ///
    /// # Errors
    ///
    /// The rule that refuses it.
    pub(crate) fn change_state(
        &self,
        device: &Arc<Device>,
        request: Change,
        how: How,
    ) -> Result<Success, StateError> {
        self.change_state_if(device, request, how, |_| true)
    }

    /// Like [`Self::change_state`], where `condition` holds for the present state; otherwise the
    /// state is in transition.
    pub(crate) fn change_state_if(
        &self,
        device: &Arc<Device>,
        request: Change,
        how: How,
        condition: impl FnOnce(State) -> bool,
    ) -> Result<Success, StateError> {
        let mut control = self.control.lock();
        let Some(volume) = control
            .volumes
            .iter()
            .find(|volume| Arc::ptr_eq(&volume.device, device))
        else {
            return Err(StateError::Unknown);
        };
        let old = device.state();
        if !condition(old) {
            return Err(StateError::InTransientState);
        }
        let context = control.context(self, volume);
        match state::change(old, request, how.flags, &context) {
            Ok(changed) => {
                for warning in changed.warnings.iter() {
                    log!(Warning, device, "{}", warning.text());
                }
                if changed.success == Success::Done {
                    log_difference(device, Difference::of_volume(old, changed.new));
                    self.store(&mut control, device, old, changed.new, how.resends);
                } else if how.resends {
                    self.defer(&mut control, device, old, old, true);
                }
                Ok(changed.success)
            }
            Err(error) => {
                if how.tells(error) {
                    log!(Error, device, "State change failed: {}", error.text());
                }
                Err(error)
            }
        }
    }

    /// Changes the state of the connection and of all volumes together, all or none. May sleep.
    ///
    /// # Errors
    ///
    /// The rule that refuses it.
    pub(crate) fn change_connection(
        &self,
        request: Change,
        how: How,
    ) -> Result<Success, StateError> {
        self.change_connection_if(request, how, |_| true)
    }

    /// Like [`Self::change_connection`], where `condition` holds for the connection's present
    /// state; otherwise it is in transition.
    pub(crate) fn change_connection_if(
        &self,
        request: Change,
        how: How,
        condition: impl FnOnce(ConnState) -> bool,
    ) -> Result<Success, StateError> {
        let mut control = self.control.lock();
        if !condition(control.conn) {
            return Err(StateError::InTransientState);
        }
        let mut changes = core::mem::take(&mut control.scratch);
        changes.clear();
        // Room was made when the volumes were added.
        let fits = control.volumes.iter().all(|volume| {
            let old = volume.device.state();
            let change = VolumeChange::new(old, control.context(self, volume));
            changes.push_within_capacity(change).is_ok()
        });
        if !fits {
            control.scratch = changes;
            return Err(StateError::Unknown);
        }
        let answer = change_all(control.conn, &mut changes, request, how.flags);
        match answer {
            Ok(changed) if changed.success == Success::Done => {
                self.log_connection(&control, &changes, changed.cstate);
                self.store_all(&mut control, &changes, changed.cstate);
            }
            Ok(_) => {}
            Err(error) if how.tells(error) => {
                log!(Error, self, "State change failed: {}", error.text());
            }
            Err(_) => {}
        }
        control.scratch = changes;
        answer.map(|changed| changed.success)
    }

    fn log_connection(&self, control: &Control, changes: &[VolumeChange], cstate: ConnState) {
        let fields = common_fields(changes);
        let (old, new) = match changes.first() {
            Some(first) => (first.old, first.new),
            None => (
                State {
                    conn: control.conn,
                    ..State::NEW
                },
                State {
                    conn: cstate,
                    ..State::NEW
                },
            ),
        };
        let common = Difference::in_fields(old, new, fields);
        if !common.is_empty() {
            log!(Info, self, "{}", common);
        }
        for (volume, change) in control.volumes.iter().zip(changes) {
            for warning in change.warnings.iter() {
                log!(Warning, volume.device, "{}", warning.text());
            }
            let own = Difference::in_fields(change.old, change.new, fields.remaining());
            log_difference(&volume.device, own);
        }
    }

    /// The sockets are of no use any more, for the reason that `why` names. May sleep.
    ///
    /// Nothing happens where the connection is going down already, or is not established yet:
    /// then the receiver deals with it. That the nodes do not go together counts also on the way
    /// down: whichever node sees it first closes the sockets on the other.
    pub(crate) fn lose_connection(&self, why: ConnState) {
        let how = How {
            flags: Flags::HARD,
            verbose: false,
            resends: false,
        };
        let is_final = why == ConnState::Disconnecting;
        let counts =
            |conn: ConnState| conn >= ConnState::WFReportParams || (is_final && conn.is_failure());
        // Refused where another was quicker.
        let _ = self.change_connection_if(Change::conn(why), how, counts);
    }

    fn store_all(&self, control: &mut Control, changes: &[VolumeChange], cstate: ConnState) {
        let old = core::mem::replace(&mut control.conn, cstate);
        let mut index = 0usize;
        while let (Some(volume), Some(change)) = (control.volumes.get(index), changes.get(index)) {
            if change.old != change.new {
                let device = volume.device.clone();
                self.store(control, &device, change.old, change.new, false);
            }
            index = index.saturating_add(1);
        }
        let ends = matches!(cstate, ConnState::Disconnecting | ConnState::StandAlone)
            || (old > ConnState::WFConnection && breaks(cstate));
        if old != cstate && ends {
            self.connection.interrupt();
        }
        // What is known of a peer that is away may change while the connection does not.
        if old != cstate || changes.iter().any(|change| change.old != change.new) {
            let after = AfterConnection { old, new: cstate };
            if control.after_connection.push(after, GFP_KERNEL).is_err() {
                log!(
                    Error,
                    self,
                    "out of memory: a change of the connection has no effects"
                );
            }
            self.chore(chore::AFTER_STATE);
            self.waiters.wake_all();
        }
    }

    /// Stores one volume's new state and does what cannot wait.
    fn store(
        &self,
        control: &mut Control,
        device: &Arc<Device>,
        old: State,
        new: State,
        resends: bool,
    ) {
        if holds_writes(old, new) {
            // Before the first of them can be routed by the new state.
            device.hold_writes();
        }
        self.set_unsent_changes(true);
        self.connection.publish(device, new);
        self.spread_suspension(control, device, new);
        let another_reports = control.volumes.iter().any(|volume| {
            volume.device.state().conn == ConnState::WFReportParams
                && !Arc::ptr_eq(&volume.device, device)
        });
        for effect in effects_now(old, new, another_reports).iter() {
            self.carry_out(control, device, effect, old, new, resends);
        }
        // It says so when there is nothing left to tell the peer.
        self.chore(chore::AFTER_STATE);
    }

    /// Suspension is a matter of the whole resource: the other volumes' words mirror it.
    fn spread_suspension(&self, control: &Control, device: &Arc<Device>, new: State) {
        for volume in control.volumes.iter() {
            let old = volume.device.state();
            let mirrored = State {
                susp: new.susp,
                susp_nod: new.susp_nod,
                susp_fen: new.susp_fen,
                ..old
            };
            if !Arc::ptr_eq(&volume.device, device) && mirrored != old {
                self.connection.publish(&volume.device, mirrored);
                volume.device.wake();
                volume.device.retry_delayed();
            }
        }
    }

    fn carry_out(
        &self,
        control: &mut Control,
        device: &Arc<Device>,
        effect: Immediate,
        old: State,
        new: State,
        resends: bool,
    ) {
        match effect {
            Immediate::ClearResyncDone => device.resync.lock().clear_done(),
            Immediate::CloseEpoch => {
                device
                    .mirror_generation
                    .update(|generation| generation.wrapping_add(1));
                self.connection.close_epoch();
            }
            Immediate::LogAttachedUuids => {
                if let Some(local) = device.local() {
                    log!(Info, device, "attached to UUIDs {}", local.uuids_text());
                }
            }
            Immediate::ClearStateSent => control.state_sent = false,
            Immediate::WakeWaiters => {
                device.wake();
                device.retry_delayed();
            }
            Immediate::AccountPause => device.resync.lock().resume(),
            Immediate::StampPause => device.resync.lock().pause(),
            Immediate::KickResyncTimer => device.chore(chore::RESYNC_TURN),
            Immediate::RememberVerifyStart => verify::remember_end(device),
            Immediate::BeginVerify => verify::begin(device, new.conn),
            Immediate::StartVerifyTimer => device.chore(chore::RESYNC_TURN),
            Immediate::UpdateMetadataFlags => {
                if let Some(local) = device.local() {
                    local.update_flags(device, new);
                }
            }
            Immediate::ExposeCurrentUuid => {
                if let Some(local) = device.local() {
                    device.exposed_uuid.store(local.current_uuid());
                }
            }
            Immediate::DistrustBitmap => {
                device.flags.set(flag::BITMAP_DISTRUSTED);
            }
            Immediate::TrustBitmap => {
                device.flags.clear(flag::BITMAP_DISTRUSTED);
            }
            Immediate::UsersSeePeer => {
                device.flags.set(flag::USERS_SAW_PEER);
            }
            Immediate::UsersSeeDisk => {
                device.flags.clear(flag::USERS_SAW_PEER);
            }
            Immediate::NoUsers => {
                device
                    .flags
                    .clear(flag::STABILITY_LOST | flag::PEER_UNFLUSHED | flag::TOLD_ALONE);
            }
            Immediate::DoubtUnflushed => {
                if device.flags.any(flag::PEER_UNFLUSHED) {
                    device.flags.set(flag::STABILITY_LOST);
                    device.flags.clear(flag::PEER_UNFLUSHED);
                }
            }
            Immediate::PeerSynced => {
                device.flags.clear(flag::PEER_UNFLUSHED);
            }
            Immediate::ConsiderResync => {
                device.flags.set(flag::CONSIDER_RESYNC);
            }
            Immediate::StopReceiver | Immediate::RestartReceiver => {
                if breaks(new.conn) || new.conn <= ConnState::Disconnecting {
                    self.connection.interrupt();
                }
            }
            Immediate::ResumeActivityLog => {
                device.resume_activity_log();
            }
            Immediate::CountConnect => {
                control.connect_count = control.connect_count.wrapping_add(1);
            }
            Immediate::RecordReattach => {
                if let Some(local) = device.local() {
                    local.stamp_attached();
                }
            }
            Immediate::QueueDeferred => self.defer(control, device, old, new, resends),
        }
    }

    fn defer(
        &self,
        control: &mut Control,
        device: &Arc<Device>,
        old: State,
        new: State,
        resends: bool,
    ) {
        let holds_writes = holds_writes(old, new);
        let after = After {
            device: device.clone(),
            old,
            new,
            holds_writes,
            resends,
        };
        if control.after.push(after, GFP_KERNEL).is_err() {
            if holds_writes {
                device.release_writes();
            }
            log!(
                Error,
                device,
                "out of memory: a state change has no deferred effects"
            );
        }
        self.chore(chore::AFTER_STATE);
    }
}

/// Whether the sockets are of no use in this state.
///
/// TearDown is what the peer asked for: the receiver, which made the change, answers first.
fn breaks(conn: ConnState) -> bool {
    conn.is_failure() && conn != ConnState::TearDown
}

fn log_difference(device: &Device, difference: Difference) {
    if !difference.is_empty() {
        log!(Info, device, "{}", difference);
    }
}
