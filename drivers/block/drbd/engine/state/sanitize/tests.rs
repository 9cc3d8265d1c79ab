// SPDX-License-Identifier: GPL-2.0

//! Every sanitize rule as a table, by its number in the spec.

use proptest::prelude::*;
use std::vec::Vec;

use super::super::policy::{Fencing, OnNoData};
use super::*;
use ConnState as C;
use DiskState as D;

const HEALTHY: State = State {
    role: Role::Secondary,
    peer: Role::Secondary,
    conn: C::Connected,
    disk: D::UpToDate,
    pdsk: D::UpToDate,
    ..State::NEW
};

fn sanitized(wanted: State) -> (State, Vec<Warning>) {
    let (state, warnings) = sanitize(HEALTHY, wanted, &Context::NEW);
    (state, warnings.iter().collect())
}

fn with(conn: C, disk: D, pdsk: D) -> State {
    State {
        conn,
        disk,
        pdsk,
        ..HEALTHY
    }
}

#[test]
fn rule_1_a_lost_peer_is_unknown_in_every_respect() {
    for &conn in C::ALL.iter().filter(|&&conn| conn < C::Connected) {
        let (state, _) = sanitized(State {
            conn,
            peer_isp: true,
            ..HEALTHY
        });
        assert_eq!(
            (state.peer, state.pdsk, state.peer_isp),
            (Role::Unknown, D::DUnknown, false)
        );
        for pdsk in [D::Inconsistent, D::Outdated] {
            assert_eq!(
                sanitized(State {
                    conn,
                    pdsk,
                    ..HEALTHY
                })
                .0
                .pdsk,
                pdsk
            );
        }
        for pdsk in [D::Diskless, D::Failed, D::Consistent] {
            assert_eq!(
                sanitized(State {
                    conn,
                    pdsk,
                    ..HEALTHY
                })
                .0
                .pdsk,
                D::DUnknown
            );
        }
    }
}

#[test]
fn rule_2_an_unconfigured_volume_waits_for_nobody() {
    let waiting = State {
        aftr_isp: true,
        ..State::NEW
    };
    assert!(!sanitized(waiting).0.aftr_isp);
    assert!(
        sanitized(State {
            role: Role::Primary,
            ..waiting
        })
        .0
        .aftr_isp
    );
}

#[test]
fn rule_3_nothing_syncs_without_both_disks() {
    for (conn, warning) in [
        (C::SyncSource, Warning::ResyncAborted),
        (C::WFBitMapS, Warning::ResyncAborted),
        (C::VerifyS, Warning::VerifyAborted),
        (C::VerifyT, Warning::VerifyAborted),
    ] {
        for disk in [D::Diskless, D::Attaching, D::Failed] {
            let (state, warnings) = sanitized(with(conn, disk, D::UpToDate));
            assert_eq!(
                (state.conn, state.disk, warnings),
                (C::Connected, disk, [warning].into())
            );
            let (state, warnings) = sanitized(with(conn, D::UpToDate, disk));
            assert_eq!(
                (state.conn, state.pdsk, warnings),
                (C::Connected, disk, [warning].into())
            );
        }
    }
}

#[test]
fn rule_4_a_lost_negotiation_falls_back_to_what_the_users_saw() {
    let wanted = with(C::NetworkFailure, D::Negotiating, D::DUnknown);
    let context = Context {
        users_saw_disk: true,
        negotiated_disk: D::UpToDate,
        negotiated_pdsk: D::Outdated,
        ..Context::NEW
    };
    let (state, warnings) = sanitize(HEALTHY, wanted, &context);
    assert_eq!((state.disk, state.pdsk), (D::UpToDate, D::Outdated));
    assert!(warnings.is_empty());
    let context = Context {
        users_saw_disk: false,
        ..context
    };
    let (state, warnings) = sanitize(HEALTHY, wanted, &context);
    assert_eq!((state.disk, state.pdsk), (D::Diskless, D::DUnknown));
    assert!(warnings.contains(Warning::ConnectionLostNegotiating));
}

// Seed 145570 of the simulator: a diskless Primary attaches an older disk, and its peer's fails.
#[test]
fn a_primary_gets_no_older_disk_when_its_peer_loses_the_one_it_ran_on() {
    let old = State {
        role: Role::Primary,
        ..with(C::Connected, D::Negotiating, D::Failed)
    };
    let settled = State {
        disk: D::UpToDate,
        ..old
    };
    let (state, warnings) = sanitize(old, settled, &Context::NEW);
    assert_eq!(state.disk, D::Diskless);
    assert!(warnings.contains(Warning::PeerDiskLostNegotiating));
    let current = Context {
        users_saw_disk: true,
        ..Context::NEW
    };
    assert_eq!(sanitize(old, settled, &current).0.disk, D::UpToDate);
    let secondary = |state| State {
        role: Role::Secondary,
        ..state
    };
    let (state, _) = sanitize(secondary(old), secondary(settled), &Context::NEW);
    assert_eq!(state.disk, D::UpToDate);
    let compared = |state| State {
        pdsk: D::UpToDate,
        ..state
    };
    let (state, _) = sanitize(compared(old), compared(settled), &Context::NEW);
    assert_eq!(state.disk, D::UpToDate);
}

#[test]
fn rule_5_disks_that_meet_are_up_to_date() {
    let alone = with(C::WFReportParams, D::Outdated, D::DUnknown);
    let attaching = with(C::Connected, D::Negotiating, D::Diskless);
    for old in [alone, attaching] {
        for disk in [D::Consistent, D::Outdated] {
            let wanted = with(C::Connected, disk, disk);
            let (state, warnings) = sanitize(old, wanted, &Context::NEW);
            assert_eq!((state.disk, state.pdsk), (D::UpToDate, D::UpToDate));
            assert!(warnings.is_empty());
        }
    }
    assert_eq!(
        sanitize(
            alone,
            with(C::Behind, D::Outdated, D::UpToDate),
            &Context::NEW
        )
        .0
        .disk,
        D::Outdated
    );
}

// Seeds 2847 and 4903 of the simulator: the writes of a source were lost that gave up its disk.
#[test]
fn rule_5_an_aborted_resync_makes_old_data_no_younger() {
    for conn in [C::WFBitMapT, C::WFSyncUUID] {
        let old = with(conn, D::Outdated, D::UpToDate);
        for pdsk in [D::Failed, D::Diskless] {
            let (aborted, _) = sanitize(old, State { pdsk, ..old }, &Context::NEW);
            assert_eq!((aborted.conn, aborted.disk), (C::Connected, D::Outdated));
            let (later, _) = sanitize(aborted, aborted, &Context::NEW);
            assert_eq!(later, aborted);
        }
    }
    for conn in [C::WFBitMapS, C::StartingSyncS] {
        let old = with(conn, D::UpToDate, D::Consistent);
        let failed = State {
            disk: D::Failed,
            ..old
        };
        let (aborted, _) = sanitize(old, failed, &Context::NEW);
        assert_eq!((aborted.conn, aborted.pdsk), (C::Connected, D::Consistent));
    }
}

// Seed 742 of the simulator: the peer's detach was consented to, and then its state told of it.
#[test]
fn rule_5_a_disk_that_was_not_given_up_is_no_younger() {
    let old = with(C::Connected, D::Diskless, D::Failed);
    let (told, _) = sanitize(old, with(old.conn, old.disk, D::Outdated), &Context::NEW);
    assert_eq!(told.pdsk, D::Outdated);
}

#[test]
fn rule_6_every_connection_state_has_its_range_of_disks() {
    use Warning::{DiskUpgraded, PeerDiskUpgraded};
    let given_up = sanitized(with(C::StartingSyncT, D::UpToDate, D::UpToDate)).0;
    assert_eq!(given_up.disk, D::Inconsistent);
    for conn in [C::WFBitMapT, C::WFSyncUUID, C::Behind] {
        let (state, warnings) = sanitized(with(conn, D::UpToDate, D::Inconsistent));
        assert_eq!(
            (state.disk, state.pdsk),
            (D::Outdated, D::UpToDate),
            "{conn}"
        );
        assert_eq!(warnings, [PeerDiskUpgraded]);
        assert_eq!(
            sanitized(with(conn, D::Inconsistent, D::UpToDate)).0.disk,
            D::Inconsistent
        );
    }
    for conn in [C::VerifyS, C::VerifyT] {
        let (state, warnings) = sanitized(with(conn, D::Inconsistent, D::Inconsistent));
        assert_eq!(
            (state.disk, state.pdsk),
            (D::UpToDate, D::UpToDate),
            "{conn}"
        );
        assert_eq!(warnings, [DiskUpgraded, PeerDiskUpgraded]);
    }
    for conn in [C::WFBitMapS, C::StartingSyncS, C::Ahead] {
        let (state, warnings) = sanitized(with(conn, D::Inconsistent, D::UpToDate));
        assert_eq!(
            (state.disk, state.pdsk),
            (D::UpToDate, D::Consistent),
            "{conn}"
        );
        assert_eq!(warnings, [DiskUpgraded]);
    }
    let (state, _) = sanitized(with(C::SyncTarget, D::UpToDate, D::UpToDate));
    assert_eq!((state.disk, state.pdsk), (D::Inconsistent, D::UpToDate));
    let (state, _) = sanitized(with(C::SyncSource, D::UpToDate, D::UpToDate));
    assert_eq!((state.disk, state.pdsk), (D::UpToDate, D::Inconsistent));
    for &disk in D::ALL
        .iter()
        .filter(|&&disk| !matches!(disk, D::Consistent | D::Outdated))
    {
        assert_eq!(
            sanitized(with(C::Connected, disk, disk)).0,
            with(C::Connected, disk, disk)
        );
    }
}

#[test]
fn rule_7_stonith_freezes_when_the_peer_is_lost_and_only_then() {
    let primary = State {
        role: Role::Primary,
        ..HEALTHY
    };
    let lost = State {
        conn: C::NetworkFailure,
        pdsk: D::DUnknown,
        ..primary
    };
    let stonith = Context {
        fencing: Fencing::ResourceAndStonith,
        ..Context::NEW
    };
    assert!(sanitize(primary, lost, &stonith).0.susp_fen);
    assert!(!sanitize(lost, lost, &stonith).0.susp_fen);
    assert!(
        !sanitize(
            primary,
            State {
                pdsk: D::Outdated,
                ..lost
            },
            &stonith
        )
        .0
        .susp_fen
    );
    assert!(
        !sanitize(
            primary,
            State {
                role: Role::Secondary,
                ..lost
            },
            &stonith
        )
        .0
        .susp_fen
    );
    let resource_only = Context {
        fencing: Fencing::ResourceOnly,
        ..Context::NEW
    };
    assert!(!sanitize(primary, lost, &resource_only).0.susp_fen);
}

#[test]
fn rule_8_suspend_io_freezes_when_the_data_is_lost_and_only_then() {
    let primary = State {
        role: Role::Primary,
        ..HEALTHY
    };
    let lost = State {
        disk: D::Failed,
        pdsk: D::Inconsistent,
        ..primary
    };
    let suspend = Context {
        on_no_data: OnNoData::SuspendIo,
        ..Context::NEW
    };
    assert!(sanitize(primary, lost, &suspend).0.susp_nod);
    assert!(!sanitize(lost, lost, &suspend).0.susp_nod);
    assert!(
        !sanitize(
            primary,
            State {
                role: Role::Secondary,
                ..lost
            },
            &suspend
        )
        .0
        .susp_nod
    );
    assert!(!sanitize(primary, lost, &Context::NEW).0.susp_nod);
}

#[test]
fn rule_9_a_pause_flag_pauses_and_its_end_continues() {
    let source = with(C::SyncSource, D::UpToDate, D::Inconsistent);
    let target = with(C::SyncTarget, D::Inconsistent, D::UpToDate);
    for (running, paused) in [(source, C::PausedSyncS), (target, C::PausedSyncT)] {
        for flagged in [
            State {
                aftr_isp: true,
                ..running
            },
            State {
                peer_isp: true,
                ..running
            },
            State {
                user_isp: true,
                ..running
            },
        ] {
            assert_eq!(sanitized(flagged).0.conn, paused);
        }
        assert_eq!(
            sanitized(State {
                conn: paused,
                ..running
            })
            .0
            .conn,
            running.conn
        );
    }
}

prop_compose! {
    fn any_state()(word in 0u32..1 << 23) -> Option<State> {
        State::from_word(word).ok()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_global_rejects: 100_000,
        ..ProptestConfig::with_cases(4000)
    })]

    // Not after the first: a resync that continues, or a negotiation that is lost, shows earlier
    // rules a new state.
    #[test]
    fn a_state_is_in_shape_after_the_second_time_at_the_latest(
        wanted in any_state().prop_filter_map("a number that stands for nothing", |state| state),
        suspends: bool,
    ) {
        let context = Context {
            fencing: if suspends { Fencing::ResourceAndStonith } else { Fencing::DontCare },
            on_no_data: if suspends { OnNoData::SuspendIo } else { OnNoData::IoError },
            ..Context::NEW
        };
        let (once, _) = sanitize(HEALTHY, wanted, &context);
        let (twice, _) = sanitize(once, once, &context);
        let (thrice, warnings) = sanitize(twice, twice, &context);
        prop_assert_eq!(twice, thrice);
        prop_assert!(warnings.is_empty());
    }
}
