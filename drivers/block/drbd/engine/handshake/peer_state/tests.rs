// SPDX-License-Identifier: GPL-2.0

//! What each P_UUIDS and P_STATE asks for.

use super::*;
use crate::state::Role;
use ConnState as C;
use DiskState as D;

const PAIR: State = State {
    role: Role::Secondary,
    peer: Role::Secondary,
    conn: C::Connected,
    disk: D::UpToDate,
    pdsk: D::UpToDate,
    ..State::NEW
};
const REPORTS: State = State {
    peer: Role::Unknown,
    conn: C::WFReportParams,
    pdsk: D::DUnknown,
    ..PAIR
};
const SEEN: Seen = Seen {
    exposed_uuid: 0xa1,
    peer: false,
    alone: false,
};
const FACTS: PeerFacts = PeerFacts {
    peer_generation: Some(PeerGeneration {
        current: 0xa0,
        flags: 0,
    }),
    seen: SEEN,
    consider_resync: false,
    set_bits: 0,
    failed_bits: 0,
};
const UNTOLD: PeerFacts = PeerFacts {
    peer_generation: None,
    ..FACTS
};

fn told(current: u64, flags: u64) -> PeerFacts {
    PeerFacts {
        peer_generation: Some(PeerGeneration { current, flags }),
        ..FACTS
    }
}

fn proposal(own: State, peer: State, facts: &PeerFacts) -> Proposal {
    match assess(own, peer, facts) {
        Assessment::Continue(proposal) => proposal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_diskless_primary_accepts_only_the_data_its_users_saw() {
    let alone = State {
        role: Role::Primary,
        disk: D::Diskless,
        ..REPORTS
    };
    let seen = SEEN;
    let received = |state, peer_current| receive_uuids(state, 0, seen, peer_current, 0, 101);
    let seen_alone = Seen {
        alone: true,
        ..seen
    };
    assert_eq!(
        receive_uuids(alone, 0, seen_alone, 0xa0, 0, 101),
        UuidsDecision::Refuse
    );
    // The disk that comes into use may have what was written alone.
    let attaches = State {
        disk: D::Negotiating,
        ..alone
    };
    assert_eq!(
        receive_uuids(attaches, 0xa0, seen_alone, 0xa0, 0, 101),
        receive_uuids(attaches, 0xa0, seen, 0xa0, 0, 101)
    );
    assert_eq!(received(alone, 0xb0), UuidsDecision::Refuse);
    assert_eq!(received(alone, 0xa0), UuidsDecision::ExposePeerCurrent);
    let connected = State {
        conn: C::Connected,
        pdsk: D::UpToDate,
        ..alone
    };
    assert_eq!(received(connected, 0xb0), UuidsDecision::ExposePeerCurrent);
    // Seed 742 of the simulator: a target that was Outdated yet sent its generation again,
    // detached, and came back as if the users had seen that one.
    for pdsk in [D::Inconsistent, D::Outdated, D::Consistent] {
        let source_without_disk = State { pdsk, ..connected };
        assert_eq!(received(source_without_disk, 0xb0), UuidsDecision::Accept);
        assert!(!exposes_peer_after_wait(source_without_disk));
    }
    let peer_was_diskless = State {
        pdsk: D::Diskless,
        ..connected
    };
    assert_eq!(received(peer_was_diskless, 0xb0), UuidsDecision::Refuse);
    let secondary = State {
        role: Role::Secondary,
        ..alone
    };
    // Seed 604 of the simulator: promoted later, it must not go back to what its own disk had.
    assert_eq!(received(secondary, 0xb0), UuidsDecision::ExposePeerCurrent);
}

/// The own disk was given up after the peer's UUIDs had been accepted for what that had.
#[test]
fn who_loses_its_disk_amid_the_handshake_follows_no_other_data() {
    let lost = State {
        role: Role::Primary,
        disk: D::Failed,
        ..REPORTS
    };
    let older = told(0xb0, 0);
    let alone = PeerFacts {
        seen: Seen {
            alone: true,
            ..SEEN
        },
        ..FACTS
    };
    let assessed = |own, facts: &PeerFacts| assess(own, PAIR, facts);
    for refused in [&older, &alone] {
        assert_eq!(assessed(lost, refused), Assessment::Refuse);
    }
    assert_eq!(assessed(lost, &UNTOLD), Assessment::ProtocolError);
    assert!(matches!(assessed(lost, &FACTS), Assessment::Continue(_)));
    // The peer's disk is attached; it may have begun to be when the nodes met.
    let attaches = State {
        disk: D::Negotiating,
        ..PAIR
    };
    for pdsk in [D::Diskless, D::Attaching, D::Failed] {
        let conn = C::Connected;
        let connected = State { conn, pdsk, ..lost };
        let received = |current| receive_uuids(connected, 0, SEEN, current, 0, 101);
        assert_eq!(received(0xb0), UuidsDecision::Refuse);
        assert_eq!(received(0xa0), UuidsDecision::ExposePeerCurrent);
        assert_eq!(assess(connected, attaches, &older), Assessment::Refuse);
        assert!(matches!(
            assess(connected, attaches, &FACTS),
            Assessment::Continue(_)
        ));
    }
    // Nobody reads from it.
    let other_disk = |own: State, disk| assess(own, State { disk, ..PAIR }, &older);
    for disk in [D::Diskless, D::Attaching, D::Failed] {
        let followed = other_disk(lost, disk);
        assert!(matches!(followed, Assessment::Continue(_)), "{followed:?}");
    }
    // There are no users, they read this disk, or were told of the peer's before.
    let role = Role::Secondary;
    let disk = D::UpToDate;
    let (conn, pdsk) = (C::Connected, D::UpToDate);
    for own in [
        State { role, ..lost },
        State { disk, ..lost },
        State { conn, pdsk, ..lost },
    ] {
        let followed = other_disk(own, D::UpToDate);
        assert!(matches!(followed, Assessment::Continue(_)), "{followed:?}");
    }
}

#[test]
fn the_initial_sync_is_skipped_only_on_a_new_disk_and_on_request() {
    let skips = |state, own, flags, apv| {
        let seen = Seen {
            exposed_uuid: own,
            peer: false,
            alone: false,
        };
        receive_uuids(state, own, seen, 0xa0, flags, apv)
    };
    assert_eq!(skips(PAIR, 4, 8, 90), UuidsDecision::SkipInitialSync);
    assert_eq!(skips(PAIR, 4, 8, 89), UuidsDecision::Accept);
    assert_eq!(skips(PAIR, 4, 7, 101), UuidsDecision::Accept);
    assert_eq!(skips(PAIR, 0xb0, 8, 101), UuidsDecision::Accept);
    assert_eq!(skips(REPORTS, 4, 8, 101), UuidsDecision::Accept);
}

#[test]
fn a_connected_diskless_node_exposes_what_the_peer_has() {
    assert!(exposes_peer_after_wait(State {
        disk: D::Diskless,
        ..PAIR
    }));
    assert!(!exposes_peer_after_wait(PAIR));
    assert!(!exposes_peer_after_wait(State {
        disk: D::Diskless,
        ..REPORTS
    }));
}

#[test]
fn a_state_that_comes_too_late_is_dropped() {
    for &conn in C::ALL.iter().filter(|&&conn| conn <= C::TearDown) {
        assert_eq!(
            assess(State { conn, ..PAIR }, PAIR, &FACTS),
            Assessment::Abort
        );
    }
}

#[test]
fn a_negotiating_peer_is_what_its_uuid_flags_say() {
    let peer = State {
        disk: D::Negotiating,
        ..PAIR
    };
    let inconsistent = told(0xa0, UUID_INCONSISTENT);
    assert_eq!(proposal(PAIR, peer, &FACTS).peer_disk, D::Consistent);
    assert_eq!(
        proposal(PAIR, peer, &inconsistent).peer_disk,
        D::Inconsistent
    );
    assert_eq!(assess(PAIR, peer, &UNTOLD), Assessment::ProtocolError);
}

#[test]
fn a_target_that_is_done_ends_the_resync() {
    let source = State {
        conn: C::SyncSource,
        pdsk: D::Inconsistent,
        ..PAIR
    };
    assert_eq!(assess(source, PAIR, &FACTS), Assessment::FinishResync);
    let bits_left = PeerFacts {
        set_bits: 1,
        ..FACTS
    };
    assert_eq!(assess(source, PAIR, &bits_left), Assessment::BitsLeft);
    let failed = PeerFacts {
        set_bits: 1,
        failed_bits: 1,
        ..FACTS
    };
    assert_eq!(assess(source, PAIR, &failed), Assessment::FinishResync);
    let gave_up = State {
        disk: D::Inconsistent,
        ..PAIR
    };
    assert_eq!(assess(source, gave_up, &failed), Assessment::FinishResync);
    // Blocks of which nothing is known here failed there: the next handshake finds out.
    assert_eq!(assess(source, gave_up, &FACTS), Assessment::BitsLeft);
}

#[test]
fn a_target_that_has_not_begun_is_inconsistent_already() {
    let source = State {
        conn: C::SyncSource,
        pdsk: D::Inconsistent,
        ..PAIR
    };
    let peer = State {
        conn: C::WFSyncUUID,
        ..PAIR
    };
    assert_eq!(proposal(source, peer, &FACTS).peer_disk, D::Inconsistent);
}

#[test]
fn a_verify_that_the_peer_ended_is_over() {
    let verifies = State {
        conn: C::VerifyT,
        ..PAIR
    };
    assert_eq!(assess(verifies, PAIR, &FACTS), Assessment::FinishVerify);
    let still = State {
        conn: C::VerifyS,
        ..PAIR
    };
    assert!(matches!(
        assess(verifies, still, &FACTS),
        Assessment::Continue(_)
    ));
}

#[test]
fn a_peer_that_tells_of_a_resync_that_is_over_does_not_flap() {
    let peer = State {
        conn: C::SyncTarget,
        disk: D::Inconsistent,
        ..PAIR
    };
    assert_eq!(proposal(PAIR, peer, &FACTS).peer_disk, D::UpToDate);
    let peer = State {
        conn: C::Connected,
        ..peer
    };
    assert_eq!(proposal(PAIR, peer, &FACTS).peer_disk, D::Inconsistent);
}

#[test]
fn the_connection_goes_where_the_peer_is() {
    let ahead = State {
        conn: C::Ahead,
        ..PAIR
    };
    assert_eq!(proposal(REPORTS, PAIR, &FACTS).conn, C::Connected);
    assert_eq!(proposal(PAIR, ahead, &FACTS).conn, C::Behind);
    assert_eq!(
        proposal(
            State {
                conn: C::WFBitMapS,
                ..PAIR
            },
            PAIR,
            &FACTS
        )
        .conn,
        C::WFBitMapS
    );
}

#[test]
fn the_handshake_runs_when_the_data_is_in_question() {
    let needs = |own, peer, facts: &PeerFacts| proposal(own, peer, facts).needs_handshake;
    let negotiating = State {
        disk: D::Negotiating,
        ..PAIR
    };
    assert!(needs(REPORTS, PAIR, &FACTS));
    assert!(needs(PAIR, negotiating, &FACTS));
    assert!(needs(negotiating, PAIR, &FACTS));
    assert!(needs(
        PAIR,
        PAIR,
        &PeerFacts {
            consider_resync: true,
            ..FACTS
        }
    ));
    for conn in [
        C::StartingSyncS,
        C::StartingSyncT,
        C::WFBitMapS,
        C::WFBitMapT,
    ] {
        assert!(needs(PAIR, State { conn, ..PAIR }, &FACTS), "{conn}");
    }
    assert!(!needs(PAIR, PAIR, &FACTS));
    assert!(!needs(
        PAIR,
        State {
            conn: C::WFSyncUUID,
            ..PAIR
        },
        &FACTS
    ));
    assert!(!needs(
        REPORTS,
        State {
            disk: D::Diskless,
            ..PAIR
        },
        &FACTS
    ));
    assert!(!needs(
        State {
            disk: D::Diskless,
            ..REPORTS
        },
        PAIR,
        &FACTS
    ));
    // What cannot be compared is not taken for equal.
    assert_eq!(assess(REPORTS, PAIR, &UNTOLD), Assessment::ProtocolError);
}

#[test]
fn a_resync_that_was_asked_for_waits_for_the_consent_to_it() {
    for conn in [C::StartingSyncS, C::StartingSyncT] {
        let begins = State { conn, ..PAIR };
        assert!(awaits_own_change(PAIR, begins, true), "{conn}");
        assert!(!awaits_own_change(PAIR, begins, false), "{conn}");
        let asked = State {
            conn: C::StartingSyncS,
            ..PAIR
        };
        assert!(!awaits_own_change(asked, begins, true), "{conn}");
    }
    assert!(!awaits_own_change(PAIR, PAIR, true));
}

#[test]
fn a_failed_handshake_costs_the_one_who_attaches_or_the_connection() {
    let negotiating = State {
        disk: D::Negotiating,
        ..PAIR
    };
    let own = handshake_failed(proposal(negotiating, PAIR, &FACTS), false);
    assert!(matches!(
        own,
        Failure::FailOwnDisk(Proposal {
            conn: C::Connected,
            ..
        })
    ));
    let peer = handshake_failed(proposal(PAIR, negotiating, &FACTS), false);
    let Failure::PeerIsDiskless(left) = peer else {
        panic!("{peer:?}")
    };
    assert_eq!(
        (left.conn, left.peer_disk, left.peer.disk),
        (C::Connected, D::Diskless, D::Diskless)
    );
    // Seed 4505 of the simulator: the peer hears of it, or it would stay Negotiating.
    let Verdict::Apply(conclusion) = conclude(&left, D::Diskless, false) else {
        panic!()
    };
    assert!(conclusion.resend);
    let both = proposal(REPORTS, PAIR, &FACTS);
    assert_eq!(handshake_failed(both, true), Failure::CloseDryRun);
    assert_eq!(handshake_failed(both, false), Failure::Disconnect);
}

#[test]
fn establishing_the_connection_may_be_refused_and_nothing_else() {
    let peer = State {
        role: Role::Primary,
        user_isp: true,
        ..PAIR
    };
    let first = proposal(REPORTS, peer, &FACTS);
    let Verdict::Apply(conclusion) = conclude(&first, D::Diskless, false) else {
        panic!()
    };
    let expected = State {
        peer: Role::Primary,
        conn: C::Connected,
        pdsk: D::UpToDate,
        peer_isp: true,
        ..REPORTS
    };
    assert_eq!(conclusion.change.apply(REPORTS), Ok(expected));
    assert_eq!((conclusion.hard, conclusion.resend), (false, false));
    let later = proposal(PAIR, peer, &FACTS);
    let Verdict::Apply(conclusion) = conclude(&later, D::Diskless, false) else {
        panic!()
    };
    assert!(conclusion.hard);
}

#[test]
fn a_negotiating_disk_settles_when_it_is_not_the_target() {
    let own = State {
        disk: D::Negotiating,
        ..PAIR
    };
    let disk_after = |conn| {
        let settled = Proposal {
            conn,
            ..proposal(own, PAIR, &FACTS)
        };
        match conclude(&settled, D::UpToDate, false) {
            Verdict::Apply(conclusion) => conclusion.change.apply(own).map(|new| new.disk),
            Verdict::AbortFrozen => panic!(),
        }
    };
    assert_eq!(disk_after(C::Connected), Ok(D::UpToDate));
    assert_eq!(disk_after(C::WFBitMapS), Ok(D::UpToDate));
    assert_eq!(disk_after(C::WFBitMapT), Ok(D::Negotiating));
}

#[test]
fn frozen_requests_are_not_sent_to_a_peer_that_rebooted() {
    let frozen = State {
        role: Role::Primary,
        susp_fen: true,
        ..REPORTS
    };
    let rebooted = proposal(
        frozen,
        State {
            disk: D::Consistent,
            ..PAIR
        },
        &FACTS,
    );
    assert_eq!(conclude(&rebooted, D::Diskless, true), Verdict::AbortFrozen);
    let doubts = |proposal, is_due| match conclude(&proposal, D::Diskless, is_due) {
        Verdict::Apply(conclusion) => conclusion.peer_restarted,
        Verdict::AbortFrozen => panic!(),
    };
    // This node has no disk that could begin a generation.
    assert!(doubts(rebooted, false));
    let without_disk = State {
        disk: D::Diskless,
        ..PAIR
    };
    assert!(doubts(proposal(frozen, without_disk, &FACTS), true));
    assert!(!doubts(proposal(frozen, PAIR, &FACTS), true));
    assert!(!doubts(proposal(REPORTS, without_disk, &FACTS), false));
}

#[test]
fn a_peer_that_has_not_decided_is_told_again() {
    let resend = |peer: State| {
        let source = Proposal {
            conn: C::WFBitMapS,
            ..proposal(PAIR, peer, &FACTS)
        };
        match conclude(&source, D::Diskless, false) {
            Verdict::Apply(conclusion) => conclusion.resend,
            Verdict::AbortFrozen => panic!(),
        }
    };
    assert!(resend(PAIR));
    assert!(!resend(State {
        conn: C::WFBitMapT,
        ..PAIR
    }));
    assert!(!resend(State {
        disk: D::Negotiating,
        ..PAIR
    }));
}

#[test]
fn a_source_that_lost_its_disk_is_not_told_the_generation_of_its_target() {
    let target = State {
        conn: C::SyncTarget,
        disk: D::Inconsistent,
        ..PAIR
    };
    for disk in [D::Failed, D::Diskless] {
        let peer = State {
            role: Role::Primary,
            disk,
            pdsk: D::Inconsistent,
            ..PAIR
        };
        let Verdict::Apply(conclusion) =
            conclude(&proposal(target, peer, &FACTS), D::Diskless, false)
        else {
            panic!()
        };
        assert!(!conclusion.resend, "{disk:?}");
    }
}
