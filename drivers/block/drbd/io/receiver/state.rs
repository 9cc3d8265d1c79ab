// SPDX-License-Identifier: GPL-2.0

//! The peer's state, its generations, and the changes that it asks us to agree to (Spec §1.13,
//! §1.23).

use drbd_engine::{
    handshake::peer_state::{
        assess,
        awaits_own_change,
        conclude,
        exposes_peer_after_wait,
        handshake_failed,
        receive_uuids,
        Assessment,
        Conclusion,
        Failure,
        PeerFacts,
        Proposal,
        UuidsDecision,
        Verdict, //
    },
    state::{
        Change,
        ConnState,
        DiskState,
        Flags,
        State,
        StateError,
        Success, //
    },
    wire::{
        Command,
        StateReply,
        StateRequest,
        StateWord,
        Uuids, //
    },
};
use drbd_sys::log;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    sync::Handshake,
    ConnectionError,
    Receiver, //
};
use crate::io::{
    after,
    bitmap::Which,
    connection::flag as connection_flag,
    device::{
        flag,
        Device, //
    },
    resync,
    state::How, //
};

/// How long a change that the peer asks for waits for the end of an own one.
const CROSSING_WAIT_MS: u32 = 1000;

/// What came of half a P_STATE.
enum Step {
    /// The own state changed meanwhile: start over.
    Again,
    /// The packet is dealt with.
    Done,
}

impl Receiver {
    /// P_UUIDS.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn uuids(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let uuids = self.decoded(Uuids::decode(payload))?;
        device.peer.lock().uuids = Some(uuids);
        let state = device.state();
        let own_current = device.local().map_or(0, |local| local.current_uuid());
        let decision = receive_uuids(
            state,
            own_current,
            device.seen(),
            uuids.current,
            uuids.flags.0,
            self.version.number(),
        );
        match decision {
            UuidsDecision::Refuse => return Err(self.refuse_data(device)),
            UuidsDecision::SkipInitialSync => self.skip_initial_sync(device, uuids.current)?,
            UuidsDecision::ExposePeerCurrent => device.exposed_uuid.store(uuids.current),
            UuidsDecision::Accept => {}
        }
        if exposes_peer_after_wait(device.state()) {
            device.exposed_uuid.store(uuids.current);
        }
        Ok(())
    }

    /// The peer does not have what the users of this node have seen.
    fn refuse_data(&self, device: &Device) -> ConnectionError {
        let seen = device.seen();
        log!(
            Error,
            device,
            "Can only connect to data with current UUID={:016X}",
            seen.exposed_uuid
        );
        if seen.alone {
            log!(
                Error,
                device,
                "the peer need not have all that applications were told is written: \
                 attach the disk that has it, or demote this node"
            );
        }
        self.disconnect()
    }

    /// Both disks are new, and the admin of the peer says that they are equal.
    fn skip_initial_sync(&self, device: &Arc<Device>, uuid: u64) -> Result<(), ConnectionError> {
        log!(
            Info,
            device,
            "Accepted new current UUID, preparing to skip initial sync"
        );
        let Some(local) = device.local() else {
            return Ok(());
        };
        local.bitmap.clear_all();
        // An error costs the disk, not the connection.
        if local.bitmap.write(device, &local, Which::All).is_err() {
            return Ok(());
        }
        let primary = device.state().role.is_primary();
        local.change(device, |superblock| {
            superblock.uuids.adopt_current(uuid, primary)
        });
        let both = Change::disk(DiskState::UpToDate).with_pdsk(DiskState::UpToDate);
        let mut is_given_up = false;
        let changed = self
            .resource
            .change_state_if(device, both, How::HARD, |now| {
                is_given_up = now.disk < DiskState::Inconsistent;
                !is_given_up
            });
        if is_given_up {
            // That an error cost the disk is told by who saw it.
            let peers = Change::pdsk(DiskState::UpToDate);
            let changed = self.resource.change_state(device, peers, How::HARD);
            return changed.map(|_| ()).map_err(|_| ConnectionError);
        }
        // What was told before it got here says that this disk is Inconsistent, and may reach the
        // peer only now.
        let _ = device.send_present_state();
        log!(
            Info,
            device,
            "receiver updated UUIDs to {}",
            local.uuids_text()
        );
        let _ = local.sync(device);
        changed.map(|_| ()).map_err(|_| ConnectionError)
    }

    /// P_STATE.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn state(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let StateWord(word) = self.decoded(StateWord::decode(payload))?;
        let peer = State::from_word(word);
        let peer = peer.map_err(|_| {
            self.refuse(format_args!(
                "ReportState packet with no state: 0x{word:08x}"
            ))
        })?;
        // It ends as whoever asks the peer does: by the answer, in time, or with the connection.
        let connection = &self.resource.connection;
        self.resource.waiters.wait_until(|| {
            !awaits_own_change(device.state(), peer, connection.is_changing())
                || connection.is_interrupted()
        });
        loop {
            let assessment = assess(device.state(), peer, &peer_facts(device));
            let step = match assessment {
                // The connection is going down.
                Assessment::Abort => return Err(ConnectionError),
                Assessment::ProtocolError => {
                    return Err(self.refuse("ReportState of a peer that has told no UUIDs"));
                }
                Assessment::Refuse => return Err(self.refuse_data(device)),
                Assessment::FinishResync | Assessment::FinishVerify => {
                    resync::finish(device);
                    Step::Done
                }
                Assessment::BitsLeft => {
                    return Err(self.refuse("the peer ends a resync that is not complete"));
                }
                Assessment::Continue(proposal) => self.follow(device, proposal)?,
            };
            if let Step::Done = step {
                return Ok(());
            }
        }
    }

    /// Runs the sync handshake where it is due, and takes the resulting state.
    fn follow(
        &self,
        device: &Arc<Device>,
        mut proposal: Proposal,
    ) -> Result<Step, ConnectionError> {
        if proposal.peer.disk == DiskState::Negotiating {
            log!(
                Info,
                device,
                "real peer disk state = {}",
                proposal.peer_disk.name()
            );
        }
        if proposal.needs_handshake {
            let handshake = Handshake::new(device, &proposal);
            match handshake.run() {
                Some(conn) => proposal.conn = conn,
                None => match self.after_refusal(device, proposal)? {
                    Some(changed) => proposal = changed,
                    None => return Ok(Step::Again),
                },
            }
        }
        let (negotiated, _) = self.resource.control.lock().negotiated(device);
        let new_current_uuid = device.flags.any(flag::NEW_CURRENT_UUID);
        match conclude(&proposal, negotiated, new_current_uuid) {
            Verdict::Apply(conclusion) => self.apply(device, &proposal, conclusion),
            Verdict::AbortFrozen => {
                self.abort_frozen(device);
                Err(ConnectionError)
            }
        }
    }

    /// The handshake refused: who has to give in. `None`: the own disk did, look again.
    fn after_refusal(
        &self,
        device: &Arc<Device>,
        proposal: Proposal,
    ) -> Result<Option<Proposal>, ConnectionError> {
        let dry_run = connection_flag::DRY_RUN;
        let was_asked = self.resource.connection.flags.clear(dry_run) & dry_run != 0;
        match handshake_failed(proposal, was_asked) {
            Failure::FailOwnDisk(_) => {
                let failed = Change::disk(DiskState::Failed);
                // Refused where it failed already.
                let _ = self.resource.change_state(device, failed, How::HARD);
                Ok(None)
            }
            Failure::PeerIsDiskless(changed) => {
                log!(
                    Error,
                    device,
                    "Disk attach process on the peer node was aborted."
                );
                Ok(Some(changed))
            }
            Failure::CloseDryRun => Err(ConnectionError),
            Failure::Disconnect => Err(self.disconnect()),
        }
    }

    fn apply(
        &self,
        device: &Arc<Device>,
        proposal: &Proposal,
        conclusion: Conclusion,
    ) -> Result<Step, ConnectionError> {
        if conclusion.peer_restarted {
            self.resource.peer_restarted(|own| Arc::ptr_eq(own, device));
        }
        let how = How {
            flags: if conclusion.hard {
                Flags::HARD
            } else {
                Flags::SOFT
            },
            verbose: true,
            resends: conclusion.resend,
        };
        let mut is_same = true;
        let changed = self
            .resource
            .change_state_if(device, conclusion.change, how, |state| {
                is_same = state == proposal.old;
                is_same
            });
        if !is_same {
            return Ok(Step::Again);
        }
        if changed.is_err() {
            return Err(self.disconnect());
        }
        device
            .flags
            .clear(flag::DISCARD_MY_DATA | flag::CONSIDER_RESYNC);
        if let Some(local) = device.local() {
            // An error costs the disk.
            let _ = local.sync(device);
        }
        Ok(Step::Done)
    }

    /// A peer that was restarted lost what it had been sent: it must not be taken for the one
    /// before, and nothing is told done until it is being synced, or fenced.
    fn abort_frozen(&self, device: &Arc<Device>) {
        log!(
            Error,
            device,
            "Aborting Connect, can not thaw IO with an only Consistent peer"
        );
        self.resource.peer_restarted(|_| true);
        after::new_current_uuid(device);
        // It lost what all volumes had sent.
        for volume in self.resource.volumes() {
            if after::take_generation_due(&volume) && volume.volume != device.volume {
                after::begin_generation_once(&volume);
            }
        }
        let aborted = Change::conn(ConnState::ProtocolError);
        // Refused where the connection is going down already.
        let _ = self.resource.change_connection(aborted, How::HARD);
    }

    /// The nodes do not go together: the connection ends StandAlone.
    pub(super) fn disconnect(&self) -> ConnectionError {
        self.resource.lose_connection(ConnState::Disconnecting);
        ConnectionError
    }

    /// P_STATE_CHG_REQ.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn state_request(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        // Without changes of connections a volume's is one: there is only that volume.
        let is_of_connection =
            |change: &Change| !self.version.has_volumes() && change.wanted_conn().is_some();
        self.let_own_change_end();
        let result = match self.requested_change(payload)? {
            Err(error) => Err(error),
            Ok(_) if self.is_concurrent() => Err(StateError::ConcurrentStateChange),
            Ok(change) if is_of_connection(&change) => self.change_connection(change),
            Ok(change) => {
                let how = How {
                    verbose: self.resource.connection.refusals.allows(),
                    ..How::VERBOSE
                };
                self.resource.change_state(device, change, how)
            }
        };
        self.reply(device, Command::StateChangeReply, result)?;
        if let Some(local) = device.local() {
            // An error costs the disk.
            let _ = local.sync(device);
        }
        Ok(())
    }

    /// P_CONN_ST_CHG_REQ.
    pub(super) fn connection_state_request(
        &mut self,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        self.let_own_change_end();
        let result = match self.requested_change(payload)? {
            Err(error) => Err(error),
            Ok(_) if self.is_concurrent() => Err(StateError::ConcurrentStateChange),
            Ok(change) => self.change_connection(change),
        };
        let reply = StateReply {
            code: code_of(result),
        };
        let command = Command::ConnStateChangeReply;
        let sent = self
            .resource
            .send_meta(Default::default(), command, &reply.encode());
        sent.map_err(|_| ConnectionError)?;
        self.leave_if_torn_down()
    }

    /// What the peer asks for, or why it is refused whatever the state is.
    fn requested_change(
        &self,
        payload: &[u8],
    ) -> Result<Result<Change, StateError>, ConnectionError> {
        let request = self.decoded(StateRequest::decode(payload))?;
        let change = Change {
            mask: request.mask.0,
            val: request.value.0,
        };
        let wanted = change.of_peer();
        if wanted.is_err() && self.resource.connection.refusals.allows() {
            log!(
                Warning,
                self.resource,
                "the peer asks for what is not its business: mask 0x{:08x}, value 0x{:08x}",
                change.mask,
                change.val
            );
        }
        Ok(wanted)
    }

    /// Where this node is not the one whose changes have precedence, and one of its own is under
    /// way, the peer has consented to that or is about to refuse it, and what it asks for now
    /// counts on the outcome: the answer comes on the other socket.
    ///
    /// Not for long: a peer that waits for us meanwhile would not answer.
    fn let_own_change_end(&self) {
        let connection = &self.resource.connection;
        if connection.flags.any(connection_flag::RESOLVE_CONFLICTS) {
            return;
        }
        self.resource.waiters.wait_until_timeout(
            || !connection.is_changing() || connection.is_interrupted(),
            CROSSING_WAIT_MS,
        );
    }

    /// Whether a change of ours is under way that has precedence.
    fn is_concurrent(&self) -> bool {
        let connection = &self.resource.connection;
        connection.flags.any(connection_flag::RESOLVE_CONFLICTS) && connection.is_changing()
    }

    fn change_connection(&self, change: Change) -> Result<Success, StateError> {
        let how = How {
            flags: Flags {
                ignore_outdate_failure: true,
                ..Flags::SOFT
            },
            verbose: self.resource.connection.refusals.allows(),
            resends: false,
        };
        self.resource.change_connection(change, how)
    }

    fn reply(
        &self,
        device: &Device,
        command: Command,
        result: Result<Success, StateError>,
    ) -> Result<(), ConnectionError> {
        let reply = StateReply {
            code: code_of(result),
        };
        let sent = self
            .resource
            .send_meta(device.volume, command, &reply.encode());
        sent.map_err(|_| ConnectionError)?;
        self.leave_if_torn_down()
    }

    /// The peer has our consent to disconnect: nothing more is to come.
    fn leave_if_torn_down(&self) -> Result<(), ConnectionError> {
        if self.resource.cstate() == ConnState::TearDown {
            return Err(ConnectionError);
        }
        Ok(())
    }
}

fn code_of(result: Result<Success, StateError>) -> i32 {
    match result {
        Ok(success) => success.code(),
        Err(error) => error.code(),
    }
}

fn peer_facts(device: &Arc<Device>) -> PeerFacts {
    PeerFacts {
        peer_generation: device.peer.lock().generation(),
        seen: device.seen(),
        consider_resync: device.flags.any(flag::CONSIDER_RESYNC),
        set_bits: device.local().map_or(0, |local| local.bitmap.set_bits()),
        failed_bits: device.resync.lock().progress.failed_bits(),
    }
}
