// SPDX-License-Identifier: GPL-2.0

//! Changes from beginning to end.

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

#[test]
fn a_change_of_nothing_is_nothing_to_do() {
    let changed = change(
        PAIR,
        Change::role(Role::Secondary),
        Flags::SOFT,
        &Context::NEW,
    );
    assert_eq!(
        changed.map(|changed| changed.success),
        Ok(Success::NothingToDo)
    );
}

#[test]
fn a_word_that_is_no_state_is_refused() {
    let request = Change {
        mask: 0x1f0,
        val: 0x1f0,
    };
    let refused = change(PAIR, request, Flags::HARD, &Context::NEW);
    assert_eq!(refused, Err(StateError::Unknown));
}

#[test]
fn a_hard_change_is_not_judged_by_its_consequences() {
    let primary = State {
        role: Role::Primary,
        ..PAIR
    };
    let request = Change::disk(D::Failed).with_pdsk(D::Diskless);
    let soft = change(primary, request, Flags::SOFT, &Context::NEW);
    assert_eq!(soft, Err(StateError::NoUpToDateDisk));
    let hard = change(primary, request, Flags::HARD, &Context::NEW);
    assert_eq!(hard.map(|changed| changed.new.disk), Ok(D::Failed));
    let impossible = change(
        State::NEW,
        Change::conn(C::Connected),
        Flags::HARD,
        &Context::NEW,
    );
    assert_eq!(impossible, Err(StateError::NeedConnection));
}

#[test]
fn an_old_defect_does_not_stand_in_the_way() {
    let open = Context {
        open_count: 1,
        ..Context::NEW
    };
    let pause = change(PAIR, Change::user_isp(true), Flags::SOFT, &open);
    assert_eq!(pause.map(|changed| changed.success), Ok(Success::Done));
    let demotion = change(
        State {
            role: Role::Primary,
            ..PAIR
        },
        Change::role(Role::Secondary),
        Flags::SOFT,
        &open,
    );
    assert_eq!(demotion, Err(StateError::DeviceInUse));
}

#[test]
fn a_disk_below_outdated_may_stay_so() {
    let old = State {
        conn: C::WFConnection,
        disk: D::Inconsistent,
        pdsk: D::DUnknown,
        ..State::NEW
    };
    let request = Change::disk(D::Outdated);
    let refused = change(old, request, Flags::SOFT, &Context::NEW);
    assert_eq!(refused, Err(StateError::LowerThanOutdated));
    let lenient = Flags {
        ignore_outdate_failure: true,
        ..Flags::SOFT
    };
    let changed = change(old, request, lenient, &Context::NEW);
    assert_eq!(
        changed.map(|changed| changed.success),
        Ok(Success::NothingToDo)
    );
}

#[test]
fn the_peer_is_asked_for_what_concerns_it() {
    let to = |conn| State { conn, ..PAIR };
    let table = [
        (
            PAIR,
            State {
                role: Role::Primary,
                ..PAIR
            },
            true,
        ),
        (PAIR, to(C::StartingSyncT), true),
        (PAIR, to(C::StartingSyncS), true),
        (
            PAIR,
            State {
                disk: D::Failed,
                ..PAIR
            },
            true,
        ),
        (PAIR, to(C::Disconnecting), true),
        (PAIR, to(C::VerifyS), true),
        (PAIR, to(C::WFReportParams), true),
        (PAIR, to(C::VerifyT), false),
        (PAIR, to(C::WFBitMapS), false),
        (
            PAIR,
            State {
                user_isp: true,
                ..PAIR
            },
            false,
        ),
        (
            State {
                role: Role::Primary,
                ..PAIR
            },
            PAIR,
            false,
        ),
        (
            to(C::WFConnection),
            State {
                role: Role::Primary,
                ..to(C::WFConnection)
            },
            false,
        ),
        (to(C::WFConnection), to(C::Disconnecting), false),
    ];
    for (old, new, asked) in table {
        assert_eq!(needs_peer(old, new), asked, "{old:?} {new:?}");
    }
}
