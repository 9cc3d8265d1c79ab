// SPDX-License-Identifier: GPL-2.0

//! The promotion loop, answer by answer.

use super::*;
use PromoteStep as Step;
use StateError as E;

const SECONDARY: State = State {
    conn: ConnState::WFConnection,
    disk: DiskState::UpToDate,
    ..State::NEW
};

fn refused(error: StateError, attempt: Attempt, force: bool, disk: DiskState) -> PromoteStep {
    next(Err(error), attempt, force, State { disk, ..SECONDARY })
}

fn made(made: u8, change: Change) -> Attempt {
    Attempt {
        change,
        made,
        forced: false,
    }
}

const PROMOTE: Change = Change::role(Role::Primary);

#[test]
fn success_is_the_end() {
    let done = next(Ok(Success::Done), Attempt::FIRST, false, SECONDARY);
    assert_eq!(done, Step::Promoted { forced: false });
    let forced = Attempt {
        forced: true,
        ..Attempt::FIRST
    };
    let done = next(Ok(Success::PeerAgreed), forced, true, SECONDARY);
    assert_eq!(done, Step::Promoted { forced: true });
    let same = next(Ok(Success::NothingToDo), Attempt::FIRST, false, SECONDARY);
    assert_eq!(same, Step::NothingToDo);
}

#[test]
fn a_peer_that_came_back_is_not_declared_outdated() {
    let change = PROMOTE.with_pdsk(DiskState::Outdated);
    let step = refused(
        E::RefusedByPeer,
        made(1, change),
        false,
        DiskState::UpToDate,
    );
    assert_eq!(step, Step::Retry(made(2, PROMOTE)));
    let step = refused(E::RefusedByPeer, Attempt::FIRST, false, DiskState::UpToDate);
    assert_eq!(step, Step::LastRequest(made(1, PROMOTE)));
}

#[test]
fn force_declares_the_data_up_to_date() {
    for disk in [
        DiskState::Inconsistent,
        DiskState::Outdated,
        DiskState::Consistent,
    ] {
        let step = refused(E::NoUpToDateDisk, Attempt::FIRST, true, disk);
        let change = PROMOTE.with_disk(DiskState::UpToDate);
        assert_eq!(
            step,
            Step::Retry(Attempt {
                change,
                made: 1,
                forced: true
            })
        );
    }
    let step = refused(E::NoUpToDateDisk, Attempt::FIRST, true, DiskState::Failed);
    assert_eq!(step, Step::LastRequest(made(1, PROMOTE)));
}

#[test]
fn a_consistent_disk_may_be_proven_by_fencing() {
    let step = refused(
        E::NoUpToDateDisk,
        Attempt::FIRST,
        false,
        DiskState::Consistent,
    );
    assert_eq!(step, Step::FencePeer(made(1, PROMOTE)));
    let (attempt, warns) = after_fencing(E::NoUpToDateDisk, made(1, PROMOTE), true, false);
    assert_eq!(
        (attempt.change, warns),
        (PROMOTE.with_disk(DiskState::UpToDate), false)
    );
    let (attempt, _) = after_fencing(E::NoUpToDateDisk, made(1, PROMOTE), false, true);
    assert_eq!(attempt.change, PROMOTE);
}

#[test]
fn a_peer_that_cannot_be_fenced_is_overruled_by_force_only() {
    let step = refused(E::PrimaryNop, Attempt::FIRST, false, DiskState::UpToDate);
    assert_eq!(step, Step::FencePeer(made(1, PROMOTE)));
    let (attempt, warns) = after_fencing(E::PrimaryNop, made(1, PROMOTE), false, true);
    assert_eq!(
        (attempt.change, warns),
        (PROMOTE.with_pdsk(DiskState::Outdated), true)
    );
    let (attempt, warns) = after_fencing(E::PrimaryNop, made(1, PROMOTE), false, false);
    assert_eq!((attempt.change, warns), (PROMOTE, false));
}

#[test]
fn another_primary_gets_one_more_chance_to_be_dead() {
    let step = refused(E::TwoPrimaries, Attempt::FIRST, false, DiskState::UpToDate);
    let Step::WaitForPing(attempt) = step else {
        panic!("{step:?}")
    };
    let step = refused(E::TwoPrimaries, attempt, false, DiskState::UpToDate);
    assert_eq!(step, Step::Refused(E::TwoPrimaries));
}

#[test]
fn four_requests_are_enough() {
    let mut attempt = Attempt::FIRST;
    for _ in 1..MAX_ATTEMPTS {
        let step = refused(E::PrimaryNop, attempt, false, DiskState::UpToDate);
        let Step::FencePeer(next) = step else {
            panic!("{step:?}")
        };
        attempt = next;
    }
    let step = refused(E::PrimaryNop, attempt, false, DiskState::UpToDate);
    assert_eq!(step, Step::Refused(E::PrimaryNop));
}

#[test]
fn a_new_generation_starts_where_the_peer_misses_it() {
    let alone = SECONDARY;
    let pair = State {
        conn: ConnState::Connected,
        pdsk: DiskState::UpToDate,
        ..SECONDARY
    };
    let diskless_peer = State {
        pdsk: DiskState::Diskless,
        ..pair
    };
    assert!(starts_new_generation(alone, true, false));
    assert!(!starts_new_generation(alone, false, false));
    assert!(!starts_new_generation(pair, true, false));
    assert!(starts_new_generation(diskless_peer, true, false));
    assert!(starts_new_generation(pair, false, true));
    assert!(!starts_new_generation(
        State {
            disk: DiskState::Diskless,
            ..alone
        },
        true,
        true
    ));
}

#[test]
fn a_primary_whose_peer_has_refused_a_write_is_demoted_in_a_generation_of_its_own() {
    let begins = demotes_with_new_generation;
    assert!(begins(DiskState::UpToDate, true, true, 1));
    assert!(!begins(DiskState::UpToDate, true, false, 1));
    // It was synced since.
    assert!(!begins(DiskState::UpToDate, true, true, 0));
    // The bitmap tells of it already.
    assert!(!begins(DiskState::UpToDate, false, true, 1));
    // Other data are newer.
    assert!(!begins(DiskState::Inconsistent, true, true, 1));
    assert!(!begins(DiskState::Diskless, true, true, 1));
}
