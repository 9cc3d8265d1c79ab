// SPDX-License-Identifier: GPL-2.0

//! What the nodes make of each other's generations and states.

use std::rc::Rc;

use drbd_engine::handshake::peer_state::{
    self, assess, awaits_own_change, conclude, handshake_failed, Assessment, Conclusion, Failure,
    PeerFacts, PeerGeneration, Proposal, UuidsDecision, UUID_CRASHED_PRIMARY, UUID_DISCARD_MY_DATA,
    UUID_INCONSISTENT,
};
use drbd_engine::handshake::split_brain::{Policies, Policy};
use drbd_engine::handshake::sync_decision::{sync_decision, Facts, Helper, LogLine, Outcome, Step};
use drbd_engine::handshake::uuid_compare::{self, uuid_compare, UuidSet};
use drbd_engine::request::Event;
use drbd_engine::state::{Change as Request, ConnState, DiskState, Flags, State};

use super::device::{Device, PeerUuids};
use super::disk::{uuid_set, uuids_of};
use super::receiver::Dropped;
use super::{after, resync, Node};
use crate::canary::Canary;
use crate::packet::Packet;

/// The agreed protocol version.
const APV: u32 = 101;

impl Device {
    /// Sends the generations; without a disk there are none.
    pub(crate) async fn send_uuids(self: &Rc<Self>, extra: u64) {
        let Some(local) = self.local() else { return };
        let state = self.state();
        if state.disk < DiskState::Negotiating {
            return;
        }
        let bits = local.set_bits(self);
        self.sent_bits.set(bits);
        let crashed = self.flags.crashed_primary.get() && !self.config.has(Canary::CrashForgotten);
        let disk = if state.disk == DiskState::Negotiating {
            self.negotiated.get().0
        } else {
            state.disk
        };
        let flags = [
            (self.flags.discard_my_data.get(), UUID_DISCARD_MY_DATA),
            (crashed, UUID_CRASHED_PRIMARY),
            (disk == DiskState::Inconsistent, UUID_INCONSISTENT),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set);
        let flags = flags.fold(extra, |sum, (_, flag)| sum | flag);
        let set = uuid_set(&local.uuids());
        drop(local);
        self.send_data(Packet::Uuids(set, bits, flags)).await.ok();
    }
}

/// P_UUIDS arrived.
pub(crate) async fn receive_uuids(
    device: &Rc<Device>,
    set: UuidSet,
    bits: u64,
    flags: u64,
) -> Result<(), Dropped> {
    device.peer.set(Some(PeerUuids { set, bits, flags }));
    let own = device.local().map_or(0, |local| local.uuids().current);
    let state = device.state();
    match peer_state::receive_uuids(state, own, device.seen(), set.current, flags, APV) {
        UuidsDecision::Refuse => return Err(refuse_data(device)),
        UuidsDecision::ExposePeerCurrent => device.exposed_uuid.set(set.current),
        UuidsDecision::SkipInitialSync | UuidsDecision::Accept => {}
    }
    if peer_state::exposes_peer_after_wait(device.state()) {
        device.exposed_uuid.set(set.current);
    }
    Ok(())
}

/// The peer does not have what the users of this node have seen.
fn refuse_data(device: &Device) -> Dropped {
    let exposed_uuid = device.seen().exposed_uuid;
    device.tell(|| format!("Can only connect to data with current UUID={exposed_uuid:016X}"));
    let _ = device
        .node()
        .change_connection(Request::conn(ConnState::Disconnecting), Node::HARD);
    Dropped
}

/// P_STATE arrived.
pub(crate) async fn receive_state(device: &Rc<Device>, word: u32) -> Result<(), Dropped> {
    let peer = State::from_word(word).map_err(|_| Dropped)?;
    let node = device.node();
    device
        .sim
        .until(|| {
            let changes = node.flags.agreement.get();
            !awaits_own_change(device.state(), peer, changes) || node.is_interrupted()
        })
        .await;
    loop {
        let own = device.state();
        let facts = PeerFacts {
            peer_generation: device.peer.get().map(|peer| PeerGeneration {
                current: peer.set.current,
                flags: peer.flags,
            }),
            seen: device.seen(),
            consider_resync: device.flags.consider_resync.get(),
            set_bits: device.local().map_or(0, |local| local.set_bits(device)),
            failed_bits: device.resync.borrow().failed_bits(),
        };
        let mut proposal = match assess(own, peer, &facts) {
            Assessment::Abort | Assessment::ProtocolError => return Err(Dropped),
            Assessment::Refuse => return Err(refuse_data(device)),
            Assessment::FinishResync => {
                resync::finish(device).await;
                return Ok(());
            }
            Assessment::FinishVerify => return Ok(()),
            Assessment::BitsLeft => return Err(Dropped),
            Assessment::Continue(proposal) => proposal,
        };
        if proposal.needs_handshake {
            proposal = match shake_hands(device, proposal).await {
                Ok(conn) => Proposal { conn, ..proposal },
                Err(()) => fail_handshake(device, proposal)?,
            };
        }
        if device.state() != own {
            continue;
        }
        let verdict = conclude(
            &proposal,
            device.negotiated.get().0,
            device.flags.new_current_uuid.get(),
        );
        return match verdict {
            peer_state::Verdict::Apply(conclusion) => apply(device, conclusion).await,
            peer_state::Verdict::AbortFrozen => {
                abort_frozen(device).await;
                Err(Dropped)
            }
        };
    }
}

/// A peer that was restarted lost what it had been sent: it must not be taken for the one before.
async fn abort_frozen(device: &Rc<Device>) {
    let node = device.node();
    node.tell(|| "can not thaw IO with an only Consistent peer".into());
    node.walk_log(Event::PeerRestarted);
    after::new_current_uuid(device).await;
    for other in &node.devices {
        if other.flags.new_current_uuid.replace(false) && other.volume != device.volume {
            after::begin_generation_once(other).await;
        }
    }
    let _ = node.change_connection(Request::conn(ConnState::ProtocolError), Node::HARD);
}

async fn apply(device: &Rc<Device>, conclusion: Conclusion) -> Result<(), Dropped> {
    if conclusion.peer_restarted {
        device.node().walk_log_of(device, Event::PeerRestarted);
    }
    let flags = if conclusion.hard {
        Flags::HARD
    } else {
        Flags::SOFT
    };
    let changed = device.make_change(conclusion.change, flags, conclusion.resend);
    if changed.is_err() {
        let _ = device
            .node()
            .change_connection(Request::conn(ConnState::Disconnecting), Node::HARD);
        return Err(Dropped);
    }
    device.flags.consider_resync.set(false);
    device.flags.discard_my_data.set(false);
    if let Some(local) = device.local() {
        local.sync(device).await;
    }
    Ok(())
}

fn fail_handshake(device: &Rc<Device>, proposal: Proposal) -> Result<Proposal, Dropped> {
    match handshake_failed(proposal, false) {
        Failure::FailOwnDisk(proposal) => {
            let _ = device.change_state(Request::disk(DiskState::Failed), Node::HARD);
            Ok(proposal)
        }
        Failure::PeerIsDiskless(proposal) => Ok(proposal),
        Failure::CloseDryRun | Failure::Disconnect => {
            let _ = device
                .node()
                .change_connection(Request::conn(ConnState::Disconnecting), Node::HARD);
            Err(Dropped)
        }
    }
}

/// Compares the generations; the volume's next connection state.
async fn shake_hands(device: &Rc<Device>, proposal: Proposal) -> Result<ConnState, ()> {
    let local = device.local().ok_or(())?;
    let mut peer = device.peer.get().ok_or(())?;
    let resolves = device
        .node()
        .session
        .borrow()
        .as_ref()
        .is_some_and(|session| session.resolver == device.node_id);
    let mut own = uuid_set(&local.uuids());
    let state = device.state();
    let compared = uuid_compare(&uuid_compare::Facts {
        own,
        peer: peer.set,
        apv: APV,
        crashed_primary: device.flags.crashed_primary.get()
            && !device.config.has(Canary::CrashForgotten),
        peer_crashed_primary: peer.flags & UUID_CRASHED_PRIMARY != 0,
        is_primary: state.role.is_primary(),
        peer_is_primary: proposal.peer.role.is_primary(),
        has_write_same: true,
        resolves_conflicts: resolves,
        own_bits: device.sent_bits.get().max(local.set_bits(device)),
        peer_bits: peer.bits,
    });
    device.tell(|| format!("self {own} bits:{}", local.set_bits(device)));
    device.tell(|| format!("peer {} bits:{} flags:{}", peer.set, peer.bits, peer.flags));
    device.tell(|| compared.to_string());
    let before = own;
    compared.correction.apply(&mut own, &mut peer.set);
    device.peer.set(Some(peer));
    if own != before {
        local.change(|superblock| superblock.uuids = uuids_of(&own));
        local.sync(device).await;
    }
    let decision = sync_decision(&compared, &facts(device, &proposal, &own, &peer, resolves));
    for step in decision.steps.iter() {
        match step {
            Step::Log(line) => {
                device.tell(|| line.to_string());
                if line == LogLine::Unrelated {
                    device.flags.unrelated.set(true);
                }
            }
            Step::Helper(Helper::SplitBrain) => device.node().flags.split_brain.set(true),
            Step::Helper(helper) => device.tell(|| format!("helper {}", helper.name())),
        }
    }
    let Outcome::Proceed { conn, set_all_bits } = decision.outcome else {
        return Err(());
    };
    let verdict = compared.verdict.code();
    device
        .oracle
        .borrow_mut()
        .decided(device.node_id, conn, verdict);
    if set_all_bits && !resync::set_all_and_write(device).await {
        return Err(());
    }
    Ok(conn)
}

fn facts(
    device: &Rc<Device>,
    proposal: &Proposal,
    own: &UuidSet,
    peer: &PeerUuids,
    resolves_conflicts: bool,
) -> Facts {
    let state = device.state();
    Facts {
        role: state.role,
        peer_role: proposal.peer.role,
        disk: state.disk,
        negotiated_disk: device.negotiated.get().0,
        peer_disk: proposal.peer_disk,
        told_alone: device.seen().alone,
        policies: Policies::default(),
        always_asbp: false,
        rr_conflict: Policy::Disconnect,
        discard_my_data: device.flags.discard_my_data.get(),
        peer_discards_data: peer.flags & UUID_DISCARD_MY_DATA != 0,
        began_primary: own.bitmap & 1 != 0,
        peer_began_primary: peer.set.bitmap & 1 != 0,
        sent_bits: device.sent_bits.get(),
        peer_bits: peer.bits,
        set_bits: device.local().map_or(0, |local| local.set_bits(device)),
        resolves_conflicts,
        dry_run: false,
        demotion: None,
    }
}
