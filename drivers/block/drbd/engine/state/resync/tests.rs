// SPDX-License-Identifier: GPL-2.0

//! The beginning and the end of a resync on either side.

use super::super::values::Role;
use super::*;
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
const MODERN: Context = Context {
    apv: 101,
    ..Context::NEW
};

#[test]
fn each_side_starts_with_the_right_disk_inconsistent() {
    let from = State {
        conn: C::WFBitMapS,
        pdsk: D::Consistent,
        ..PAIR
    };
    let source = start(from, Side::Source, false, 3, &MODERN).map(|start| start.changed.new);
    let expected = State {
        conn: C::SyncSource,
        pdsk: D::Inconsistent,
        ..PAIR
    };
    assert_eq!(source, Ok(expected));
    let from = State {
        conn: C::WFSyncUUID,
        disk: D::Outdated,
        ..PAIR
    };
    let target = start(from, Side::Target, true, 3, &MODERN).map(|start| start.changed.new);
    let expected = State {
        conn: C::PausedSyncT,
        disk: D::Inconsistent,
        aftr_isp: true,
        ..PAIR
    };
    assert_eq!(target, Ok(expected));
}

#[test]
fn one_resync_at_a_time() {
    for conn in [C::SyncSource, C::SyncTarget, C::VerifyS, C::PausedSyncT] {
        let refused = start(State { conn, ..PAIR }, Side::Source, false, 3, &MODERN);
        assert_eq!(refused, Err(StateError::ResyncRunning));
    }
}

#[test]
fn older_protocols_send_the_uuid_at_the_start_and_wait_out_an_empty_resync() {
    let from = State {
        conn: C::WFBitMapS,
        pdsk: D::Consistent,
        ..PAIR
    };
    let flags = |apv, bits| {
        let context = Context {
            apv,
            ..Context::NEW
        };
        start(from, Side::Source, false, bits, &context).map(|start| {
            (
                start.send_sync_uuid,
                start.finish_at_once,
                start.wait_before_finish,
            )
        })
    };
    assert_eq!(flags(94, 0), Ok((true, true, true)));
    assert_eq!(flags(94, 1), Ok((true, false, false)));
    assert_eq!(flags(95, 0), Ok((true, false, false)));
    assert_eq!(flags(96, 0), Ok((false, false, false)));
}

#[test]
fn the_helper_before_a_resync_may_stop_it() {
    let table = [
        (Side::Source, 0, HelperVerdict::GoOn),
        (Side::Source, -2, HelperVerdict::GoOn),
        (Side::Source, 3 << 8, HelperVerdict::GoOnWarned),
        (Side::Target, 3 << 8, HelperVerdict::Disconnect),
        (Side::Source, 1 << 8, HelperVerdict::Disconnect),
        (Side::Target, 1 << 8, HelperVerdict::Disconnect),
    ];
    for (side, status, verdict) in table {
        assert_eq!(helper_verdict(side, status), verdict, "{side:?} {status}");
    }
}

#[test]
fn the_source_of_later_protocols_waits_for_the_target() {
    assert!(finishes_by_itself(Side::Target, 101, 2, 2));
    assert!(!finishes_by_itself(Side::Target, 101, 3, 2));
    assert!(finishes_by_itself(Side::Source, 95, 0, 0));
    assert!(!finishes_by_itself(Side::Source, 96, 0, 0));
}

#[test]
fn a_resync_does_not_end_while_bits_are_left_that_did_not_fail() {
    for conn in [C::SyncSource, C::PausedSyncS, C::SyncTarget, C::PausedSyncT] {
        assert!(has_bits_left(conn, 1, 0), "{conn}");
        assert!(has_bits_left(conn, 3, 2), "{conn}");
        assert!(!has_bits_left(conn, 2, 2), "{conn}");
    }
    // A verify leaves the bits that it has found.
    for conn in [C::Connected, C::VerifyS, C::VerifyT] {
        assert!(!has_bits_left(conn, 1, 0), "{conn}");
    }
}

#[test]
fn disks_are_equal_after_a_resync_in_which_nothing_failed() {
    for conn in [C::SyncSource, C::PausedSyncS, C::SyncTarget, C::PausedSyncT] {
        assert!(ends_equal(conn, 0), "{conn}");
        assert!(!ends_equal(conn, 1), "{conn}");
    }
    for conn in [C::Connected, C::VerifyS, C::VerifyT] {
        assert!(!ends_equal(conn, 0), "{conn}");
    }
}

#[test]
fn a_complete_resync_leaves_both_disks_up_to_date() {
    for (conn, uuids, helper) in [
        (C::SyncSource, FinishUuids::RetireBitmap, None),
        (C::PausedSyncS, FinishUuids::RetireBitmap, None),
        (
            C::SyncTarget,
            FinishUuids::AdoptPeer,
            Some("after-resync-target"),
        ),
        (
            C::PausedSyncT,
            FinishUuids::AdoptPeer,
            Some("after-resync-target"),
        ),
    ] {
        let change = Change::conn(C::Connected)
            .with_disk(D::UpToDate)
            .with_pdsk(D::UpToDate);
        assert_eq!(
            finish(State { conn, ..PAIR }, 0, 0),
            Some(Finish {
                change,
                uuids,
                helper
            })
        );
    }
}

#[test]
fn failed_blocks_leave_the_target_inconsistent() {
    let disks = |conn| {
        let finish = finish(State { conn, ..PAIR }, 1, 0)?;
        let new = finish.change.apply(PAIR).ok()?;
        Some((new.disk, new.pdsk, finish.uuids))
    };
    let keep = FinishUuids::Keep;
    assert_eq!(
        disks(C::SyncTarget),
        Some((D::Inconsistent, D::UpToDate, keep))
    );
    assert_eq!(
        disks(C::SyncSource),
        Some((D::UpToDate, D::Inconsistent, keep))
    );
}

#[test]
fn a_verify_leaves_disks_and_uuids_alone() {
    let end = |bits| {
        finish(
            State {
                conn: C::VerifyS,
                ..PAIR
            },
            0,
            bits,
        )
    };
    let change = Change::conn(C::Connected);
    let uuids = FinishUuids::Keep;
    assert_eq!(
        end(0),
        Some(Finish {
            change,
            uuids,
            helper: None
        })
    );
    assert_eq!(
        end(1),
        Some(Finish {
            change,
            uuids,
            helper: Some("out-of-sync")
        })
    );
}

#[test]
fn what_has_ended_already_does_not_end_again() {
    for conn in [C::Connected, C::NetworkFailure, C::StandAlone, C::WFBitMapS] {
        assert_eq!(finish(State { conn, ..PAIR }, 0, 0), None, "{conn}");
    }
}

#[test]
fn a_target_does_not_end_while_it_asks_for_a_change() {
    for conn in [C::SyncTarget, C::PausedSyncT] {
        assert!(end_waits(conn, true), "{conn}");
        assert!(!end_waits(conn, false), "{conn}");
    }
    // The source hears of the end from its target, and must not miss it.
    for conn in [C::SyncSource, C::PausedSyncS, C::VerifyS, C::Connected] {
        assert!(!end_waits(conn, true), "{conn}");
    }
}

#[test]
fn a_peer_is_unfenced_when_everything_is_well_again() {
    use super::super::{Aggregate, Fencing};
    let old = State {
        conn: C::SyncSource,
        pdsk: D::Inconsistent,
        ..PAIR
    };
    let fencing = Context {
        fencing: Fencing::ResourceOnly,
        ..MODERN
    };
    let well = Aggregate::of([PAIR]);
    assert!(unfences_peer(old, &fencing, &well));
    assert!(!unfences_peer(old, &MODERN, &well));
    assert!(!unfences_peer(
        State {
            conn: C::SyncTarget,
            ..PAIR
        },
        &fencing,
        &well
    ));
    assert!(!unfences_peer(old, &fencing, &Aggregate::of([PAIR, old])));
}
