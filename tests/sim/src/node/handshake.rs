// SPDX-License-Identifier: GPL-2.0

//! What the nodes make of each other's generations and states.

use std::rc::Rc;

use drbd_engine::handshake::peer_state::{
    self, assess, conclude, handshake_failed, Assessment, Conclusion, Failure, PeerFacts, Proposal,
    UuidsDecision, UUID_CRASHED_PRIMARY, UUID_DISCARD_MY_DATA, UUID_INCONSISTENT,
};
use drbd_engine::handshake::split_brain::{Policies, Policy};
use drbd_engine::handshake::sync_decision::{sync_decision, Facts, Helper, LogLine, Outcome, Step};
use drbd_engine::handshake::uuid_compare::{self, uuid_compare, UuidSet};
use drbd_engine::state::{Change as Request, ConnState, DiskState, Flags, State};

use super::disk::{uuid_set, uuids_of};
use super::receiver::Dropped;
use super::{resync, Node, PeerUuids};
use crate::canary::Canary;
use crate::packet::Packet;

/// The agreed protocol version.
const APV: u32 = 101;

impl Node {
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
    node: &Rc<Node>,
    set: UuidSet,
    bits: u64,
    flags: u64,
) -> Result<(), Dropped> {
    node.peer.set(Some(PeerUuids { set, bits, flags }));
    let own = node.local().map_or(0, |local| local.uuids().current);
    let exposed = node.exposed_uuid.get();
    let state = node.state();
    match peer_state::receive_uuids(state, own, exposed, set.current, flags, APV) {
        UuidsDecision::Refuse { exposed_uuid } => {
            node.tell(|| format!("Can only connect to data with current UUID={exposed_uuid:016X}"));
            let _ = node.change_connection(Request::conn(ConnState::Disconnecting), Node::HARD);
            return Err(Dropped);
        }
        UuidsDecision::ExposePeerCurrent => node.exposed_uuid.set(set.current),
        UuidsDecision::SkipInitialSync | UuidsDecision::Accept => {}
    }
    if peer_state::exposes_peer_after_wait(node.state()) {
        node.exposed_uuid.set(set.current);
    }
    Ok(())
}

/// P_STATE arrived.
pub(crate) async fn receive_state(node: &Rc<Node>, word: u32) -> Result<(), Dropped> {
    let peer = State::from_word(word).map_err(|_| Dropped)?;
    loop {
        let own = node.state();
        let facts = PeerFacts {
            peer_uuid_flags: node.peer.get().map(|peer| peer.flags),
            consider_resync: node.flags.consider_resync.get(),
            set_bits: node.local().map_or(0, |local| local.set_bits(node)),
            failed_bits: node.resync.borrow().failed_bits(),
        };
        let mut proposal = match assess(own, peer, &facts) {
            Assessment::Abort | Assessment::ProtocolError => return Err(Dropped),
            Assessment::FinishResync => {
                resync::finish(node).await;
                return Ok(());
            }
            Assessment::FinishVerify => return Ok(()),
            Assessment::BitsLeft => return Err(Dropped),
            Assessment::Continue(proposal) => proposal,
        };
        if proposal.needs_handshake {
            proposal = match shake_hands(node, proposal).await {
                Ok(conn) => Proposal { conn, ..proposal },
                Err(()) => fail_handshake(node, proposal)?,
            };
        }
        if node.state() != own {
            continue;
        }
        let verdict = conclude(
            &proposal,
            node.negotiated.get().0,
            node.flags.new_current_uuid.get(),
        );
        let peer_state::Verdict::Apply(conclusion) = verdict else {
            return Err(Dropped);
        };
        return apply(node, conclusion).await;
    }
}

async fn apply(node: &Rc<Node>, conclusion: Conclusion) -> Result<(), Dropped> {
    let flags = if conclusion.hard {
        Flags::HARD
    } else {
        Flags::SOFT
    };
    let changed = node.make_change(conclusion.change, flags, conclusion.resend);
    if changed.is_err() {
        let _ = node.change_connection(Request::conn(ConnState::Disconnecting), Node::HARD);
        return Err(Dropped);
    }
    node.flags.consider_resync.set(false);
    node.flags.discard_my_data.set(false);
    if let Some(local) = node.local() {
        local.sync(node).await;
    }
    Ok(())
}

fn fail_handshake(node: &Rc<Node>, proposal: Proposal) -> Result<Proposal, Dropped> {
    match handshake_failed(proposal, false) {
        Failure::FailOwnDisk(proposal) => {
            let _ = node.change_state(Request::disk(DiskState::Failed), Node::HARD);
            Ok(proposal)
        }
        Failure::PeerIsDiskless(proposal) => Ok(proposal),
        Failure::CloseDryRun | Failure::Disconnect => {
            let _ = node.change_connection(Request::conn(ConnState::Disconnecting), Node::HARD);
            Err(Dropped)
        }
    }
}

/// Compares the generations; the volume's next connection state.
async fn shake_hands(node: &Rc<Node>, proposal: Proposal) -> Result<ConnState, ()> {
    let local = node.local().ok_or(())?;
    let mut peer = node.peer.get().ok_or(())?;
    let resolves = node
        .session
        .borrow()
        .as_ref()
        .is_some_and(|session| session.resolver == node.id);
    let mut own = uuid_set(&local.uuids());
    let state = node.state();
    let compared = uuid_compare(&uuid_compare::Facts {
        own,
        peer: peer.set,
        apv: APV,
        crashed_primary: node.flags.crashed_primary.get()
            && !node.config.has(Canary::CrashForgotten),
        peer_crashed_primary: peer.flags & UUID_CRASHED_PRIMARY != 0,
        is_primary: state.role.is_primary(),
        peer_is_primary: proposal.peer.role.is_primary(),
        has_write_same: true,
        resolves_conflicts: resolves,
        own_bits: node.sent_bits.get().max(local.set_bits(node)),
        peer_bits: peer.bits,
    });
    node.tell(|| format!("self {own} bits:{}", local.set_bits(node)));
    node.tell(|| format!("peer {} bits:{} flags:{}", peer.set, peer.bits, peer.flags));
    node.tell(|| compared.to_string());
    let before = own;
    compared.correction.apply(&mut own, &mut peer.set);
    node.peer.set(Some(peer));
    if own != before {
        local.change(|superblock| superblock.uuids = uuids_of(&own));
        local.sync(node).await;
    }
    let decision = sync_decision(&compared, &facts(node, &proposal, &own, &peer, resolves));
    for step in decision.steps.iter() {
        match step {
            Step::Log(line) => {
                node.tell(|| line.to_string());
                if line == LogLine::Unrelated {
                    node.flags.unrelated.set(true);
                }
            }
            Step::Helper(Helper::SplitBrain) => node.flags.split_brain.set(true),
            Step::Helper(helper) => node.tell(|| format!("helper {}", helper.name())),
        }
    }
    let Outcome::Proceed { conn, set_all_bits } = decision.outcome else {
        return Err(());
    };
    let verdict = compared.verdict.code();
    node.oracle.borrow_mut().decided(node.id, conn, verdict);
    if set_all_bits && !resync::set_all_and_write(node).await {
        return Err(());
    }
    Ok(conn)
}

fn facts(
    node: &Rc<Node>,
    proposal: &Proposal,
    own: &UuidSet,
    peer: &PeerUuids,
    resolves_conflicts: bool,
) -> Facts {
    let state = node.state();
    Facts {
        role: state.role,
        peer_role: proposal.peer.role,
        disk: state.disk,
        negotiated_disk: node.negotiated.get().0,
        peer_disk: proposal.peer_disk,
        policies: Policies::default(),
        always_asbp: false,
        rr_conflict: Policy::Disconnect,
        discard_my_data: node.flags.discard_my_data.get(),
        peer_discards_data: peer.flags & UUID_DISCARD_MY_DATA != 0,
        began_primary: own.bitmap & 1 != 0,
        peer_began_primary: peer.set.bitmap & 1 != 0,
        sent_bits: node.sent_bits.get(),
        peer_bits: peer.bits,
        set_bits: node.local().map_or(0, |local| local.set_bits(node)),
        resolves_conflicts,
        dry_run: false,
        demotion: None,
    }
}
