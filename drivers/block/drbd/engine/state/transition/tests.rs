// SPDX-License-Identifier: GPL-2.0

//! Every transition rule: a step that breaks it, and the nearest one that does not.

use super::super::values::Role;
use super::*;
use ConnState as C;
use DiskState as D;
use StateError as E;

const PAIR: State = State {
    role: Role::Secondary,
    peer: Role::Secondary,
    conn: C::Connected,
    disk: D::UpToDate,
    pdsk: D::UpToDate,
    ..State::NEW
};

fn at(conn: C) -> State {
    State { conn, ..PAIR }
}

fn soft(old: State, new: State) -> Result<(), StateError> {
    soft_transition(old, new, &Context::NEW)
}

#[test]
fn soft_steps_of_the_connection_follow_the_table() {
    let table = [
        (C::SyncSource, C::StartingSyncS, Err(E::ResyncRunning)),
        (C::VerifyS, C::StartingSyncT, Err(E::ResyncRunning)),
        (C::Connected, C::StartingSyncT, Ok(())),
        (C::StandAlone, C::Disconnecting, Err(E::AlreadyStandAlone)),
        (C::Connected, C::Disconnecting, Ok(())),
        (C::StandAlone, C::WFConnection, Err(E::NoNetConfig)),
        (C::Disconnecting, C::WFConnection, Err(E::NoNetConfig)),
        (C::Unconnected, C::WFConnection, Ok(())),
        (C::Unconnected, C::Disconnecting, Err(E::InTransientState)),
        (C::WFConnection, C::VerifyS, Err(E::NeedConnection)),
        (C::SyncSource, C::VerifyS, Err(E::ResyncRunning)),
        (C::VerifyS, C::VerifyS, Ok(())),
        (C::Connected, C::VerifyT, Ok(())),
        (C::WFReportParams, C::StartingSyncS, Err(E::NeedConnection)),
        (C::WFConnection, C::SyncTarget, Err(E::NeedConnection)),
        (C::WFConnection, C::SyncSource, Err(E::NeedConnection)),
        (C::WFReportParams, C::SyncSource, Ok(())),
    ];
    for (old, new, expected) in table {
        assert_eq!(soft(at(old), at(new)), expected, "{old} -> {new}");
    }
}

#[test]
fn soft_steps_of_the_disk_follow_the_table() {
    let table = [
        (D::Diskless, D::Inconsistent, Err(E::IsDiskless)),
        (D::Diskless, D::Attaching, Ok(())),
        (D::Inconsistent, D::Outdated, Err(E::LowerThanOutdated)),
        (D::Failed, D::Outdated, Err(E::LowerThanOutdated)),
        (D::Diskless, D::Outdated, Err(E::LowerThanOutdated)),
        (D::Attaching, D::Outdated, Ok(())),
        (D::UpToDate, D::Outdated, Ok(())),
    ];
    for (old, new, expected) in table {
        let step = soft(State { disk: old, ..PAIR }, State { disk: new, ..PAIR });
        assert_eq!(step, expected, "{old} -> {new}");
    }
}

#[test]
fn nothing_else_happens_while_the_states_are_exchanged() {
    let context = Context {
        state_sent: true,
        ..Context::NEW
    };
    let step = |old, new| soft_transition(at(old), at(new), &context);
    assert_eq!(
        step(C::WFReportParams, C::WFReportParams),
        Err(E::InTransientState)
    );
    assert_eq!(
        step(C::WFReportParams, C::NetworkFailure),
        Err(E::InTransientState)
    );
    assert_eq!(step(C::WFConnection, C::WFReportParams), Ok(()));
    assert_eq!(step(C::WFReportParams, C::Connected), Ok(()));
    assert_eq!(step(C::WFReportParams, C::WFBitMapS), Ok(()));
    // Of this volume they are; another may be unknown to the peer.
    let promoted = State {
        role: Role::Primary,
        ..at(C::Connected)
    };
    assert_eq!(
        soft_transition(at(C::Connected), promoted, &context),
        Ok(())
    );
}

#[test]
fn nobody_is_promoted_into_a_handshake() {
    let old = State {
        conn: C::WFBitMapT,
        disk: D::Outdated,
        ..PAIR
    };
    let promoted = State {
        role: Role::Primary,
        ..old
    };
    assert_eq!(soft(old, promoted), Err(E::InTransientState));
    let syncing = State {
        conn: C::SyncTarget,
        disk: D::Inconsistent,
        ..PAIR
    };
    assert_eq!(
        soft(
            syncing,
            State {
                role: Role::Primary,
                ..syncing
            }
        ),
        Ok(())
    );
    let diskless = State {
        disk: D::Diskless,
        ..PAIR
    };
    assert_eq!(
        soft(
            diskless,
            State {
                role: Role::Primary,
                ..diskless
            }
        ),
        Ok(())
    );
}

#[test]
fn an_absent_peer_cannot_be_outdated() {
    let old = State {
        conn: C::WFConnection,
        pdsk: D::DUnknown,
        ..PAIR
    };
    let new = State {
        conn: C::Disconnecting,
        pdsk: D::Outdated,
        ..PAIR
    };
    assert_eq!(soft(old, new), Err(E::OutdateWithoutConnection));
    assert_eq!(soft(PAIR, new), Ok(()));
    assert_eq!(
        soft(
            State {
                pdsk: D::Outdated,
                ..old
            },
            new
        ),
        Ok(())
    );
}

#[test]
fn the_last_broken_soft_rule_answers() {
    let old = State {
        conn: C::StandAlone,
        disk: D::Diskless,
        ..PAIR
    };
    assert_eq!(soft(old, at(C::Disconnecting)), Err(E::IsDiskless));
}

#[test]
fn hard_steps_of_the_connection_follow_the_rules() {
    for &old in C::ALL {
        for &new in C::ALL {
            let expected = if old == new {
                Ok(())
            } else if old == C::StandAlone && new == C::Disconnecting {
                Err(E::AlreadyStandAlone)
            } else if (old == C::StandAlone && new != C::Unconnected)
                || (old < C::WFReportParams && new >= C::Connected)
            {
                Err(E::NeedConnection)
            } else if (old.is_failure() && !matches!(new, C::Unconnected | C::Disconnecting))
                || (old == C::Disconnecting && new != C::StandAlone)
            {
                Err(E::InTransientState)
            } else {
                Ok(())
            };
            assert_eq!(
                hard_transition(at(old), at(new)),
                expected,
                "{old} -> {new}"
            );
        }
    }
}

#[test]
fn a_disk_that_is_not_there_cannot_fail() {
    let diskless = State {
        disk: D::Diskless,
        ..PAIR
    };
    let failed = State {
        disk: D::Failed,
        ..PAIR
    };
    assert_eq!(hard_transition(diskless, failed), Err(E::IsDiskless));
    assert_eq!(hard_transition(PAIR, failed), Ok(()));
}

#[test]
fn a_primary_peer_keeps_the_disk_that_alone_has_the_data() {
    let old = State {
        conn: C::StartingSyncT,
        peer: Role::Primary,
        disk: D::Inconsistent,
        ..PAIR
    };
    let detached = State {
        conn: C::Connected,
        pdsk: D::Failed,
        ..old
    };
    assert_eq!(soft(old, detached), Err(E::NoUpToDateDisk));
    let good = State {
        disk: D::UpToDate,
        ..detached
    };
    assert_eq!(soft(PAIR, good), Ok(()));
}

#[test]
fn no_full_sync_overwrites_the_only_good_disk() {
    let start = |conn, disk, pdsk| {
        let old = State { disk, pdsk, ..PAIR };
        let new = State {
            conn,
            disk: D::UpToDate,
            pdsk: D::Consistent,
            ..old
        };
        soft(old, new)
    };
    let source = |disk, pdsk| start(C::StartingSyncS, disk, pdsk);
    assert_eq!(source(D::Inconsistent, D::UpToDate), Err(E::NoUpToDateDisk));
    assert_eq!(source(D::Inconsistent, D::Inconsistent), Ok(()));
    assert_eq!(source(D::UpToDate, D::UpToDate), Ok(()));
    assert_eq!(
        start(C::StartingSyncT, D::UpToDate, D::Inconsistent),
        Err(E::NoUpToDateDisk)
    );
}

#[test]
fn a_full_sync_waits_until_it_is_decided_whether_the_disk_is_used() {
    let start = |disk| {
        let old = State { disk, ..PAIR };
        let new = State {
            conn: C::StartingSyncT,
            disk: D::Inconsistent,
            ..old
        };
        soft(old, new)
    };
    assert_eq!(start(D::Negotiating), Err(E::InTransientState));
    assert_eq!(start(D::UpToDate), Ok(()));
}
