// SPDX-License-Identifier: GPL-2.0

//! What the receive loop decides by what a peer says: protocol, parameters, sizes, generations,
//! states and changes of state, in any state of this node.

use crate::input::Input;
use drbd_engine::handshake::peer_state::{
    assess, conclude, handshake_failed, receive_uuids, Assessment, PeerFacts, PeerGeneration,
};
use drbd_engine::handshake::protocol;
use drbd_engine::handshake::sizes;
use drbd_engine::handshake::split_brain::{Policies, Policy};
use drbd_engine::handshake::sync_decision::{self, sync_decision};
use drbd_engine::handshake::sync_param::{self, Hashes};
use drbd_engine::handshake::uuid_compare::{self, uuid_compare, Comparison, UuidSet};
use drbd_engine::state::{change, Change, Context, DiskState, Flags, Seen, State};
use drbd_engine::types::Sector;
use drbd_engine::wire::{Protocol, Sizes, StateRequest, SyncParam, Uuids, Version};

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let version = Version::new(86 + u32::from(input.u8()) % 16).expect("a version that is spoken");
    let own = State::from_word(input.u32()).unwrap_or(State::NEW);
    match input.u8() % 5 {
        0 => protocol_of(&mut input, version),
        1 => parameters(&mut input, version),
        2 => sizes_of(&mut input, own),
        3 => state(&mut input, own, version),
        _ => change_of(&mut input, own, version),
    }
}

fn protocol_of(input: &mut Input<'_>, version: Version) {
    let front = input.bytes(Protocol::MAX_SIZE);
    let (Ok(ours), Ok(theirs)) = (
        Protocol::decode(version, front),
        Protocol::decode(version, input.0),
    ) else {
        return;
    };
    if protocol::check(&ours, &theirs).is_ok() {
        assert_eq!(ours.protocol, theirs.protocol);
    }
    if let Ok(adopted) = protocol::adopt(&theirs) {
        assert!((1..=3).contains(&adopted.protocol));
    }
}

fn parameters(input: &mut Input<'_>, version: Version) {
    let shakes_hands = input.bool();
    if let Ok(theirs) = SyncParam::decode(version, input.0) {
        let hashes = Hashes {
            verify: Default::default(),
            csums: Default::default(),
        };
        // Numbers that size tables and divide are in range, or there is an error.
        if let Ok(adoption) = sync_param::adopt(&hashes, &theirs, version, shakes_hands) {
            assert!(adoption.resync_rate_kib > 0);
            assert!(adoption
                .controller
                .is_none_or(|rates| rates.plan_ahead_ds <= 300));
        }
    }
}

fn sizes_of(input: &mut Input<'_>, own: State) {
    let sectors = |input: &mut Input<'_>| Sector(input.number() & ((1 << 51) - 1));
    let local = sizes::Local {
        disk: (own.disk > DiskState::Attaching).then_some(sizes::LocalDisk {
            state: own.disk,
            // A disk without room for data is not attached; here 0 would mean that there is none.
            max_capacity: sectors(input).max(Sector(8)),
            last_agreed: sectors(input),
            user: sectors(input),
        }),
        device: sectors(input),
        conn: own.conn,
        role: own.role,
        peer_disk: own.pdsk,
    };
    let Ok(theirs) = Sizes::decode(input.bytes(32)) else {
        return;
    };
    if [theirs.disk, theirs.user, theirs.current]
        .iter()
        .any(|size| size.0 > 1 << 51)
    {
        return;
    }
    if let Ok(reception) = sizes::receive(&local, &theirs) {
        if let (sizes::Device::Resize(size), Some(disk)) = (reception.device, local.disk) {
            assert!(size <= disk.max_capacity, "{size} is more than there is");
        }
    }
    let resized = sizes::Resized {
        conn: own.conn,
        disk: own.disk,
        peer_disk: own.pdsk,
        device: local.device,
        has_grown: input.bool(),
        backing_changed: input.bool(),
        was_pending: input.bool(),
    };
    let _ = sizes::follow_up(&resized, &theirs);
}

fn set(uuids: &Uuids) -> UuidSet {
    UuidSet {
        current: uuids.current,
        bitmap: uuids.bitmap,
        history: uuids.history,
    }
}

fn state(input: &mut Input<'_>, own: State, version: Version) {
    let (Ok(ours), Ok(theirs)) = (
        Uuids::decode(input.bytes(Uuids::SIZE)),
        Uuids::decode(input.bytes(Uuids::SIZE)),
    ) else {
        return;
    };
    let apv = version.number();
    let seen = Seen {
        exposed_uuid: ours.bitmap,
        peer: false,
        alone: input.bool(),
    };
    let _ = receive_uuids(own, ours.current, seen, theirs.current, theirs.flags.0, apv);
    let Ok(peer) = State::from_word(input.u32()) else {
        return;
    };
    let facts = PeerFacts {
        peer_generation: input.bool().then_some(PeerGeneration {
            current: theirs.current,
            flags: theirs.flags.0,
        }),
        seen,
        consider_resync: input.bool(),
        set_bits: ours.bits_set,
        failed_bits: input.number(),
    };
    let (resolves, wsame) = (input.bool(), input.bool());
    let compared = |own: &Uuids, other: &Uuids, primary: bool, peer_primary: bool, resolves| {
        uuid_compare(&uuid_compare::Facts {
            own: set(own),
            peer: set(other),
            apv,
            crashed_primary: own.flags.0 & 2 != 0,
            peer_crashed_primary: other.flags.0 & 2 != 0,
            is_primary: primary,
            peer_is_primary: peer_primary,
            has_write_same: wsame,
            resolves_conflicts: resolves,
            own_bits: own.bits_set,
            peer_bits: other.bits_set,
        })
    };
    let (primary, peer_primary) = (own.role.is_primary(), peer.role.is_primary());
    let comparison = compared(&ours, &theirs, primary, peer_primary, resolves);
    decide(input, own, peer, comparison, [&ours, &theirs], resolves);
    if let Assessment::Continue(proposal) = assess(own, peer, &facts) {
        let _ = conclude(&proposal, own.disk, input.bool());
        let _ = handshake_failed(proposal, input.bool());
    }
}

fn decide(
    input: &mut Input<'_>,
    own: State,
    peer: State,
    comparison: Comparison,
    [ours, theirs]: [&Uuids; 2],
    resolves_conflicts: bool,
) {
    let mut policy = || Policy::from_number(u32::from(input.u8())).unwrap_or_default();
    let policies = Policies {
        none: policy(),
        one: policy(),
        two: policy(),
    };
    let rr_conflict = policy();
    let mut facts = sync_decision::Facts {
        role: own.role,
        peer_role: peer.role,
        disk: own.disk,
        negotiated_disk: own.disk,
        peer_disk: peer.disk,
        policies,
        always_asbp: input.bool(),
        rr_conflict,
        discard_my_data: input.bool(),
        peer_discards_data: theirs.flags.0 & 1 != 0,
        began_primary: ours.bitmap & 1 != 0,
        peer_began_primary: theirs.bitmap & 1 != 0,
        sent_bits: ours.bits_set,
        peer_bits: theirs.bits_set,
        set_bits: ours.bits_set,
        resolves_conflicts,
        dry_run: input.bool(),
        told_alone: input.bool(),
        demotion: None,
    };
    let decision = sync_decision(&comparison, &facts);
    if decision.outcome == sync_decision::Outcome::TryDemotion {
        facts.demotion = Some(input.bool());
        let decision = sync_decision(&comparison, &facts);
        assert_ne!(decision.outcome, sync_decision::Outcome::TryDemotion);
    }
}

fn change_of(input: &mut Input<'_>, own: State, version: Version) {
    let Ok(request) = StateRequest::decode(input.bytes(8)) else {
        return;
    };
    let wanted = Change {
        mask: request.mask.0,
        val: request.value.0,
    }
    .convert_peer();
    let context = Context {
        apv: version.number(),
        two_primaries: input.bool(),
        state_sent: input.bool(),
        has_verify_alg: input.bool(),
        open_count: u32::from(input.u8()),
        highest_peer_role: own.peer,
        ..Context::NEW
    };
    if let Ok(changed) = change(own, wanted, Flags::SOFT, &context) {
        assert_eq!(State::from_word(changed.new.to_word()), Ok(changed.new));
    }
}
