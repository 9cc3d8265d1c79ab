// SPDX-License-Identifier: GPL-2.0

//! The table of each protocol, and the cases that are no matter of order.

use super::apply;
use crate::config::Protocol;
use crate::request::{enter, settle, Consequences, Context, Event, Kind, RequestState, Start};

const USUAL: Context = Context {
    suspended: false,
    mirrored_since_sent: true,
    local_is_current: true,
    peer_is_current: true,
    peer_is_stale: false,
};
const SUSPENDED: Context = Context {
    suspended: true,
    mirrored_since_sent: true,
    local_is_current: true,
    peer_is_current: true,
    peer_is_stale: false,
};
/// With fencing.
const FROZEN: Event = Event::ConnectionFrozen {
    restart_is_seen: true,
};
/// This node's disk is the target of a resync, or none.
const NOT_CURRENT: Context = Context {
    suspended: false,
    mirrored_since_sent: true,
    local_is_current: false,
    peer_is_current: true,
    peer_is_stale: false,
};
const ACKED: Event = Event::WriteAcked { in_sync: false };
const SYNCED: Event = Event::WriteAcked { in_sync: true };

const fn mirrored_start(protocol: Protocol) -> Start {
    Start {
        kind: Kind::Write,
        local: true,
        remote: true,
        out_of_sync: false,
        protocol,
        local_is_current: true,
        chooses_ack: true,
    }
}

fn mirrored(protocol: Protocol) -> RequestState {
    mirrored_start(protocol).state()
}

/// Applies all events; what all of them together asked for.
fn run(state: RequestState, events: &[Event]) -> (RequestState, Consequences) {
    events
        .iter()
        .fold((state, Consequences::NONE), |(state, todo), &event| {
            let (state, more) = apply(state, event, USUAL);
            (state, todo | more)
        })
}

#[test]
fn each_protocol_completes_at_its_own_event() {
    use Event::{BarrierAcked, HandedOver, LocalOk, ReceiveAcked, SubmitterDone};
    let table: [(Protocol, &[Event]); 3] = [
        (Protocol::A, &[SubmitterDone, LocalOk, HandedOver]),
        (
            Protocol::B,
            &[SubmitterDone, LocalOk, HandedOver, ReceiveAcked],
        ),
        (Protocol::C, &[SubmitterDone, LocalOk, HandedOver, ACKED]),
    ];
    for (protocol, events) in table {
        let (last, before) = events.split_last().unwrap();
        let (state, early) = run(mirrored(protocol), before);
        assert!(!early.has(Consequences::COMPLETE), "{protocol:?}");
        let (state, todo) = run(state, &[*last]);
        assert!(
            todo.has(Consequences::COMPLETE | Consequences::CLOSE_EPOCH),
            "{protocol:?}"
        );
        assert!(state.is_ok());
        assert!(
            !todo.has(Consequences::RELEASE),
            "the barrier ack is yet to come"
        );
        let (_, todo) = run(state, &[BarrierAcked]);
        assert!(todo.has(Consequences::RELEASE | Consequences::SUB_IN_FLIGHT));
        assert!(!todo.has(Consequences::SET_OUT_OF_SYNC));
    }
}

#[test]
fn an_ack_of_another_protocol_is_an_error_of_the_peer() {
    use Event::{BarrierAcked, ConflictResolved, DataReceived, NegAcked, Postponed, ReceiveAcked};
    let sent = [Event::SubmitterDone, Event::LocalOk, Event::HandedOver];
    let table: [(Protocol, &[Event]); 3] = [
        (
            Protocol::A,
            &[ReceiveAcked, ConflictResolved, Postponed, DataReceived],
        ),
        (
            Protocol::B,
            &[BarrierAcked, ConflictResolved, Postponed, DataReceived],
        ),
        (Protocol::C, &[ReceiveAcked, BarrierAcked, DataReceived]),
    ];
    for (protocol, wrong) in table {
        let (state, _) = run(mirrored(protocol), &sent);
        for &event in wrong {
            let (same, todo) = apply(state, event, USUAL);
            assert_eq!(todo, Consequences::PROTOCOL_ERROR, "{protocol:?} {event:?}");
            assert_eq!(same, state);
        }
    }
    let (acked, _) = run(mirrored(Protocol::C), &[Event::HandedOver, ACKED]);
    for again in [ACKED, NegAcked] {
        assert_eq!(apply(acked, again, USUAL).1, Consequences::PROTOCOL_ERROR);
    }
}

#[test]
fn a_block_is_in_sync_only_while_everything_is_mirrored() {
    let early = [
        Event::SubmitterDone,
        Event::HandedOver,
        Event::ReceiveAcked,
        Event::LocalOk,
    ];
    let (state, todo) = run(mirrored(Protocol::B), &early);
    assert!(todo.has(Consequences::COMPLETE) && !todo.has(Consequences::SET_IN_SYNC));
    assert!(apply(state, SYNCED, USUAL).1.has(Consequences::SET_IN_SYNC));
    let broken = Context {
        mirrored_since_sent: false,
        ..USUAL
    };
    assert!(apply(state, SYNCED, broken).1.is_none());
}

#[test]
fn an_error_of_the_peers_disk_that_comes_late_marks_the_blocks_at_once() {
    let (state, _) = run(
        mirrored(Protocol::A),
        &[Event::SubmitterDone, Event::LocalOk, Event::HandedOver],
    );
    let (state, todo) = apply(state, Event::NegAcked, USUAL);
    assert!(todo.has(Consequences::SET_OUT_OF_SYNC) && !todo.has(Consequences::RELEASE));
    let (_, todo) = apply(state, Event::BarrierAcked, USUAL);
    assert!(todo.has(Consequences::RELEASE) && !todo.has(Consequences::SET_OUT_OF_SYNC));
}

#[test]
fn a_read_that_fails_is_tried_again_unless_it_is_read_ahead() {
    for (read_ahead, expected) in [(false, Consequences::RETRY), (true, Consequences::COMPLETE)] {
        let kind = Kind::Read { read_ahead };
        let start = Start {
            kind,
            local: true,
            remote: false,
            out_of_sync: false,
            protocol: Protocol::C,
            local_is_current: true,
            chooses_ack: true,
        };
        let (state, todo) = run(start.state(), &[Event::SubmitterDone, Event::LocalFailed]);
        assert!(todo.has(expected | Consequences::RELEASE));
        assert!(!state.is_ok());
    }
}

#[test]
fn an_aborted_bio_completes_the_request_but_keeps_it_until_the_bio_returns() {
    let (state, todo) = run(
        mirrored(Protocol::C),
        &[
            Event::SubmitterDone,
            Event::HandedOver,
            ACKED,
            Event::BarrierAcked,
            Event::LocalAborted,
        ],
    );
    assert!(todo.has(Consequences::COMPLETE | Consequences::SET_OUT_OF_SYNC));
    assert!(!todo.has(Consequences::RELEASE));
    let (state, todo) = apply(state, Event::LocalOk, USUAL);
    assert!(todo.has(Consequences::RELEASE | Consequences::LOCAL_ENDED));
    assert!(!state.has(RequestState::LOCAL_OK));
}

#[test]
fn the_note_that_blocks_are_out_of_sync_does_not_hold_up_the_application() {
    let start = Start {
        kind: Kind::Write,
        local: true,
        remote: false,
        out_of_sync: true,
        protocol: Protocol::A,
        local_is_current: true,
        chooses_ack: true,
    };
    let (state, todo) = run(start.state(), &[Event::SubmitterDone, Event::LocalOk]);
    assert!(todo.has(Consequences::COMPLETE | Consequences::SET_OUT_OF_SYNC));
    assert!(!todo.has(Consequences::RELEASE));
    assert!(apply(state, Event::HandedOver, USUAL)
        .1
        .has(Consequences::RELEASE));
    assert!(apply(state, Event::NotSent, USUAL)
        .1
        .has(Consequences::RELEASE));
}

#[test]
fn a_flush_is_never_sent_and_survives_the_connection() {
    for (local, outcome) in [
        (Event::LocalOk, Consequences::COMPLETE),
        (Event::LocalFailed, Consequences::RETRY),
    ] {
        let start = Start {
            kind: Kind::Flush,
            local: true,
            remote: true,
            out_of_sync: false,
            protocol: Protocol::C,
            local_is_current: true,
            chooses_ack: true,
        };
        assert!(!start.state().has(RequestState::NET_QUEUED));
        let (state, _) = run(start.state(), &[Event::ConnectionLost, local]);
        let (state, todo) = apply(state, Event::SubmitterDone, USUAL);
        assert!(todo.has(outcome | Consequences::RELEASE), "{local:?}");
        assert_eq!(state.is_ok(), local == Event::LocalOk);
        assert!(!todo.has(Consequences::SET_OUT_OF_SYNC));
    }
    let alone = Start {
        kind: Kind::Flush,
        local: true,
        remote: false,
        out_of_sync: false,
        protocol: Protocol::C,
        local_is_current: true,
        chooses_ack: true,
    };
    let (state, todo) = apply(
        run(alone.state(), &[Event::SubmitterDone]).0,
        Event::LocalFailed,
        USUAL,
    );
    assert!(todo.has(Consequences::COMPLETE) && !state.is_ok());
}

#[test]
fn a_postponed_write_is_admitted_again_after_the_conflicting_one() {
    let (state, todo) = run(
        mirrored(Protocol::C),
        &[
            Event::SubmitterDone,
            Event::HandedOver,
            Event::LocalOk,
            Event::Postponed,
        ],
    );
    assert!(!todo.has(Consequences::COMPLETE) && !todo.has(Consequences::RETRY));
    let (state, todo) = apply(state, Event::ConflictResolved, USUAL);
    assert!(todo.has(Consequences::RETRY) && !todo.has(Consequences::COMPLETE));
    assert!(apply(state, Event::BarrierAcked, USUAL)
        .1
        .has(Consequences::RELEASE));
}

#[test]
fn a_superseded_write_is_done_but_still_counted_in_its_epoch() {
    let (state, todo) = run(
        mirrored(Protocol::C),
        &[
            Event::SubmitterDone,
            Event::HandedOver,
            Event::LocalOk,
            Event::ConflictResolved,
        ],
    );
    assert!(todo.has(Consequences::COMPLETE) && state.is_ok());
    assert!(!todo.has(Consequences::RELEASE));
    assert!(apply(state, Event::BarrierAcked, USUAL)
        .1
        .has(Consequences::RELEASE));
}

#[test]
fn completion_is_held_back_while_io_is_suspended() {
    let (state, _) = run(
        mirrored(Protocol::C),
        &[Event::SubmitterDone, Event::HandedOver, ACKED],
    );
    let (frozen, todo) = apply(state, Event::LocalOk, SUSPENDED);
    assert!(!todo.has(Consequences::COMPLETE));
    assert!(frozen.has(RequestState::COMPLETION_SUSPENDED));
    let (_, todo) = apply(frozen, Event::Resumed, USUAL);
    assert!(todo.has(Consequences::COMPLETE));
    let (_, todo) = apply(frozen, Event::Resumed, SUSPENDED);
    assert!(
        !todo.has(Consequences::COMPLETE),
        "suspended again meanwhile"
    );
    let (_, todo) = apply(frozen, Event::ConnectionLost, SUSPENDED);
    assert!(todo.has(Consequences::COMPLETE | Consequences::SET_OUT_OF_SYNC));
    assert!(todo.has(Consequences::RELEASE));
}

#[test]
fn a_frozen_request_is_sent_again_if_the_peer_did_not_acknowledge_it() {
    let (state, _) = run(
        mirrored(Protocol::C),
        &[Event::SubmitterDone, Event::HandedOver],
    );
    let (state, _) = apply(state, Event::LocalOk, SUSPENDED);
    let (state, todo) = apply(state, FROZEN, SUSPENDED);
    assert_eq!(todo, Consequences::SETTLE);
    let (state, todo) = apply(state, Event::Resend, USUAL);
    assert!(todo.has(Consequences::QUEUE | Consequences::SUB_IN_FLIGHT));
    let (_, todo) = run(state, &[Event::HandedOver, ACKED, Event::BarrierAcked]);
    assert!(todo.has(Consequences::COMPLETE | Consequences::RELEASE));
    assert!(!todo.has(Consequences::SET_OUT_OF_SYNC));
}

#[test]
fn a_frozen_request_that_the_peer_acknowledged_is_done_when_it_is_back() {
    let done = [
        Event::SubmitterDone,
        Event::LocalOk,
        Event::HandedOver,
        ACKED,
    ];
    let (state, _) = run(mirrored(Protocol::C), &done);
    let (state, todo) = run(state, &[FROZEN, Event::Resend]);
    assert!(todo.has(Consequences::RELEASE) && state.is_ok());
    assert!(!todo.has(Consequences::QUEUE) && !todo.has(Consequences::SET_OUT_OF_SYNC));
}

/// What the peer acknowledged before it was restarted it may have lost: this node alone has it, and
/// the application is not told before the peer is synced, or fenced.
#[test]
fn a_frozen_request_that_a_restarted_peer_acknowledged_stays_frozen() {
    for acked in [&[][..], &[ACKED]] {
        let (sent, _) = run(
            mirrored(Protocol::C),
            &[Event::SubmitterDone, Event::HandedOver],
        );
        let (sent, _) = run(sent, acked);
        let (written, _) = apply(sent, Event::LocalOk, SUSPENDED);
        let (frozen, _) = apply(written, FROZEN, SUSPENDED);
        let (state, todo) = apply(frozen, Event::PeerRestarted, SUSPENDED);
        assert!(todo.has(Consequences::SET_OUT_OF_SYNC) && !todo.has(Consequences::COMPLETE));
        for goes_on in [Event::Resend, Event::Resumed, Event::ConnectionLost] {
            let (done, todo) = apply(state, goes_on, USUAL);
            assert!(todo.has(Consequences::COMPLETE | Consequences::TOLD_ALONE));
            assert!(done.is_ok() && !todo.has(Consequences::QUEUE));
        }
    }
}

/// Nobody would notice that the peer was restarted: what it acked is marked, or sent again.
#[test]
fn without_fencing_a_frozen_request_trusts_no_ack() {
    let unseen = Event::ConnectionFrozen {
        restart_is_seen: false,
    };
    let acked = [Event::SubmitterDone, Event::HandedOver, ACKED];
    for protocol in [Protocol::B, Protocol::C] {
        let (open, _) = run(mirrored(protocol), &acked);
        let (told, _) = run(open, &[Event::LocalOk]);
        let (_, todo) = apply(told, unseen, SUSPENDED);
        assert!(todo.has(Consequences::SET_OUT_OF_SYNC | Consequences::RELEASE));
        let (held, _) = apply(open, Event::LocalOk, SUSPENDED);
        let (again, todo) = run(held, &[unseen, Event::Resend]);
        assert!(again.has(RequestState::NET_QUEUED | RequestState::NET_PENDING));
        assert!(!todo.has(Consequences::SET_OUT_OF_SYNC));
        // What only the peer has cannot be marked for it.
        let (failed, _) = run(open, &[Event::LocalFailed]);
        assert!(failed.has(RequestState::COMPLETED));
        let (kept, todo) = apply(failed, unseen, SUSPENDED);
        assert!(kept.has(RequestState::NET_OK) && !todo.has(Consequences::SET_OUT_OF_SYNC));
    }
}

#[test]
fn what_was_told_done_and_a_restarted_peer_may_have_lost_is_flushed_here() {
    let done = [
        Event::SubmitterDone,
        Event::LocalOk,
        Event::HandedOver,
        ACKED,
    ];
    let (told, _) = run(mirrored(Protocol::C), &done);
    let (frozen, _) = apply(told, FROZEN, SUSPENDED);
    let (_, todo) = apply(frozen, Event::PeerRestarted, SUSPENDED);
    assert!(todo.has(Consequences::SET_OUT_OF_SYNC | Consequences::PEER_UNFLUSHED));
    assert!(!todo.has(Consequences::STABILITY_LOST));
}

#[test]
fn protocol_a_trusts_nothing_that_only_the_socket_took() {
    let (open, _) = run(
        mirrored(Protocol::A),
        &[Event::SubmitterDone, Event::HandedOver],
    );
    let (again, _) = run(open, &[FROZEN, Event::Resend]);
    assert!(again.has(RequestState::NET_QUEUED | RequestState::NET_PENDING));
    let (told, _) = run(open, &[Event::LocalOk]);
    let (_, todo) = apply(told, FROZEN, SUSPENDED);
    assert!(todo.has(Consequences::SET_OUT_OF_SYNC | Consequences::RELEASE));
}

#[test]
fn a_request_that_failed_while_frozen_can_be_admitted_again() {
    let start = Start {
        kind: Kind::Write,
        local: true,
        remote: false,
        out_of_sync: false,
        protocol: Protocol::C,
        local_is_current: true,
        chooses_ack: true,
    };
    let (state, _) = run(start.state(), &[Event::SubmitterDone]);
    let (frozen, _) = apply(state, Event::LocalFailed, SUSPENDED);
    assert!(apply(frozen, Event::Resend, USUAL)
        .1
        .has(Consequences::RETRY));
    let (failed, todo) = apply(frozen, Event::Resumed, USUAL);
    assert!(todo.has(Consequences::COMPLETE) && !failed.is_ok());
}

/// A Primary whose disk failed while the peer's is not good, and I/O waits for data.
const NO_DATA: Context = Context {
    suspended: true,
    mirrored_since_sent: true,
    local_is_current: false,
    peer_is_current: false,
    peer_is_stale: true,
};

#[test]
fn what_neither_copy_has_is_admitted_again_when_the_disk_is_back() {
    let sent = [Event::SubmitterDone, Event::HandedOver];
    let (sent, _) = run(mirrored(Protocol::C), &sent);
    let (failed, _) = apply(sent, Event::LocalFailed, NO_DATA);
    // The peer that is synced has it, which counts for nothing.
    let (acked, todo) = apply(failed, ACKED, NO_DATA);
    assert!(!todo.has(Consequences::COMPLETE) && !todo.has(Consequences::RETRY));
    let (_, todo) = apply(acked, Event::DiskReturned, USUAL);
    assert!(todo.has(Consequences::RETRY) && !todo.has(Consequences::QUEUE));
    // Or it has not answered yet: the answer is waited for, and not asked for again.
    let (open, todo) = apply(failed, Event::DiskReturned, USUAL);
    assert!(!todo.has(Consequences::RETRY) && !todo.has(Consequences::QUEUE));
    let (again, todo) = apply(open, ACKED, USUAL);
    assert!(todo.has(Consequences::RETRY) && !todo.has(Consequences::COMPLETE));
    let (_, todo) = apply(again, Event::BarrierAcked, USUAL);
    assert!(todo.has(Consequences::RELEASE));
}

#[test]
fn what_was_held_back_alone_is_done_or_admitted_again_when_the_disk_is_back() {
    let sent = [Event::SubmitterDone, Event::HandedOver];
    let (sent, _) = run(mirrored(Protocol::C), &sent);
    let (failed, _) = apply(sent, Event::LocalFailed, NO_DATA);
    let (frozen, _) = apply(failed, FROZEN, NO_DATA);
    let (_, todo) = apply(frozen, Event::DiskReturnedAlone, USUAL);
    assert!(todo.has(Consequences::RETRY | Consequences::RELEASE));
    assert!(!todo.has(Consequences::QUEUE));
    // This disk has it: the application is told, and the peer gets it by the bitmap.
    let (written, _) = apply(sent, Event::LocalOk, SUSPENDED);
    let (frozen, _) = apply(written, FROZEN, SUSPENDED);
    let (done, todo) = apply(frozen, Event::DiskReturnedAlone, USUAL);
    assert!(todo.has(Consequences::COMPLETE | Consequences::SET_OUT_OF_SYNC));
    assert!(done.is_ok() && todo.has(Consequences::RELEASE));
}

#[test]
fn a_read_that_the_peer_is_to_answer_waits_for_it_when_the_disk_is_back() {
    let start = Start {
        kind: Kind::Read { read_ahead: false },
        local: false,
        ..mirrored_start(Protocol::C)
    };
    let (sent, _) = run(start.state(), &[Event::SubmitterDone, Event::HandedOver]);
    let (open, todo) = apply(sent, Event::DiskReturned, USUAL);
    assert!(!todo.has(Consequences::RETRY));
    let (_, todo) = apply(open, Event::DataReceived, USUAL);
    assert!(todo.has(Consequences::COMPLETE));
}

/// What only the lost peer had was told done: the disk that came back alone does not have it.
#[test]
fn a_disk_that_is_back_alone_vouches_for_nothing_it_did_not_take() {
    let sent = [Event::SubmitterDone, Event::HandedOver];
    let (sent, _) = run(mirrored(Protocol::B), &sent);
    let (failed, _) = run(sent, &[Event::LocalFailed]);
    let (told, todo) = run(failed, &[Event::ReceiveAcked]);
    assert!(todo.has(Consequences::COMPLETE));
    let (_, todo) = apply(told, Event::DiskReturnedAlone, USUAL);
    assert!(todo.has(Consequences::STABILITY_LOST | Consequences::RELEASE));
}

/// Seeds 1200 and 1948 of the simulator.
#[test]
fn what_the_peer_does_not_get_is_marked_before_the_local_disk_is_through() {
    let start = Start {
        kind: Kind::Write,
        local: true,
        remote: false,
        out_of_sync: false,
        protocol: Protocol::C,
        local_is_current: true,
        chooses_ack: true,
    };
    let (_, todo) = apply(start.state(), Event::SubmitterDone, USUAL);
    assert!(todo.has(Consequences::SET_OUT_OF_SYNC) && !todo.has(Consequences::COMPLETE));

    let (sent, _) = run(
        mirrored(Protocol::C),
        &[Event::SubmitterDone, Event::HandedOver],
    );
    let (lost, todo) = apply(sent, Event::ConnectionLost, USUAL);
    assert!(todo.has(Consequences::SET_OUT_OF_SYNC) && !todo.has(Consequences::COMPLETE));
    let (_, todo) = apply(lost, Event::LocalOk, USUAL);
    assert!(todo.has(Consequences::COMPLETE) && !todo.has(Consequences::SET_OUT_OF_SYNC));
}

/// Seed 999 of the simulator.
#[test]
fn a_write_that_only_a_disk_which_is_not_up_to_date_has_fails() {
    let target = Context {
        local_is_current: false,
        ..USUAL
    };
    let (state, _) = run(
        mirrored(Protocol::C),
        &[Event::SubmitterDone, Event::HandedOver],
    );
    let (state, _) = apply(state, Event::LocalOk, target);
    let (acked, todo) = apply(state, ACKED, target);
    assert!(todo.has(Consequences::COMPLETE) && acked.is_ok());
    let (lost, todo) = apply(state, Event::ConnectionLost, target);
    assert!(todo.has(Consequences::COMPLETE) && !lost.is_ok());
    let (synced, todo) = apply(state, Event::ConnectionLost, USUAL);
    assert!(todo.has(Consequences::COMPLETE) && synced.is_ok());
}

/// Seeds 14 and 258 of the simulator with failing disks.
#[test]
fn a_write_that_only_the_target_of_a_resync_has_fails() {
    let source = Context {
        peer_is_current: false,
        ..USUAL
    };
    for (local, is_ok) in [(Event::LocalFailed, false), (Event::LocalOk, true)] {
        let (state, _) = run(
            mirrored(Protocol::C),
            &[Event::SubmitterDone, Event::HandedOver],
        );
        let (state, _) = apply(state, ACKED, source);
        let (ended, todo) = apply(state, local, source);
        assert!(todo.has(Consequences::COMPLETE) && ended.is_ok() == is_ok);
    }
}

#[test]
fn what_no_good_disk_here_takes_waits_for_the_peers_disk() {
    let write = |local, local_is_current, chooses_ack| {
        let start = Start {
            kind: Kind::Write,
            local,
            local_is_current,
            remote: true,
            out_of_sync: false,
            protocol: Protocol::A,
            chooses_ack,
        };
        start.state().has(RequestState::EXPECT_WRITE_ACK)
    };
    assert!(write(false, false, true) && write(true, false, true));
    assert!(!write(true, true, true));
    // An older peer acks by the protocol, so there is nothing to wait for.
    assert!(!write(false, false, false));
}

#[test]
fn a_request_stays_until_its_application_was_told() {
    // The disk's interrupt is about to tell the application when the ack of the epoch comes.
    let (state, _) = run(
        mirrored(Protocol::C),
        &[Event::SubmitterDone, Event::HandedOver, ACKED],
    );
    let (state, todo) = crate::request::apply(state, Event::LocalOk, USUAL);
    assert!(todo.has(Consequences::COMPLETE | Consequences::SETTLE));
    let (state, other) = crate::request::apply(state, Event::BarrierAcked, USUAL);
    assert!(other.has(Consequences::SUB_IN_FLIGHT | Consequences::SETTLE));
    assert!(!other.has(Consequences::RELEASE));
    let (state, is_last) = settle(state);
    assert!(!is_last);
    let (state, is_last) = settle(state);
    assert!(is_last && state.has(RequestState::RELEASED));
    assert_eq!(enter(state), None);
}

#[test]
fn who_walks_over_the_requests_keeps_the_one_it_looks_at() {
    let (state, _) = run(
        mirrored(Protocol::C),
        &[
            Event::SubmitterDone,
            Event::HandedOver,
            ACKED,
            Event::LocalOk,
        ],
    );
    let state = enter(state).unwrap();
    let (state, todo) = apply(state, Event::Resumed, USUAL);
    assert!(todo.is_none());
    let (state, todo) = crate::request::apply(state, Event::BarrierAcked, USUAL);
    assert!(!todo.has(Consequences::RELEASE));
    let (state, is_last) = settle(state);
    assert!(!is_last);
    assert!(settle(state).1);
}

/// More than can be is no reason to let go of a request that is in use.
#[test]
fn a_count_that_is_full_is_never_empty_again() {
    let (state, _) = run(
        mirrored(Protocol::C),
        &[
            Event::SubmitterDone,
            Event::HandedOver,
            ACKED,
            Event::LocalOk,
        ],
    );
    let mut state = (0..20).fold(state, |state, _| enter(state).unwrap());
    let (full, todo) = crate::request::apply(state, Event::BarrierAcked, USUAL);
    assert!(todo.has(Consequences::SETTLE));
    state = full;
    for _ in 0..30 {
        let (next, is_last) = settle(state);
        assert!(!is_last);
        state = next;
    }
}

/// What follows from the loss of the connection: whether what was written is only there, and
/// whether it is here too.
fn doubts(state: RequestState, context: Context) -> (bool, bool) {
    let (_, todo) = apply(state, Event::ConnectionLost, context);
    let [lost, unflushed] =
        [Consequences::STABILITY_LOST, Consequences::PEER_UNFLUSHED].map(|one| todo.has(one));
    (lost, unflushed)
}

/// What the peer alone has, and need not have flushed when it is lost.
#[test]
fn a_write_that_only_a_lost_peer_has_is_not_taken_for_flushed() {
    let elsewhere = Start {
        local: false,
        ..mirrored_start(Protocol::C)
    };
    let told = [Event::SubmitterDone, Event::HandedOver, ACKED];
    let (acked, _) = run(elsewhere.state(), &told);
    assert_eq!(doubts(acked, NOT_CURRENT), (true, false));
    // Its disk was attached since, and synced.
    assert_eq!(doubts(acked, USUAL), (false, true));
    let (flushed, todo) = run(acked, &[Event::BarrierAcked]);
    assert_eq!(doubts(flushed, NOT_CURRENT), (false, false));
    assert!(!todo.has(Consequences::STABILITY_LOST));
    // The application is told that it failed.
    let (untold, _) = run(elsewhere.state(), &told[..2]);
    assert_eq!(doubts(untold, NOT_CURRENT), (false, false));
}

#[test]
fn a_write_that_a_lost_peer_need_not_have_flushed_is_as_good_as_this_nodes_disk() {
    let told = [Event::SubmitterDone, Event::HandedOver, ACKED];
    let after = |local, context| {
        let (mut state, _) = apply(mirrored(Protocol::C), local, context);
        for event in told {
            (state, _) = apply(state, event, context);
        }
        state
    };
    let here = after(Event::LocalOk, USUAL);
    assert_eq!(doubts(here, USUAL), (false, true));
    // The disk has failed since.
    assert_eq!(doubts(here, NOT_CURRENT), (true, false));
    // A target's disk is overwritten by the next resync.
    let target = after(Event::LocalOk, NOT_CURRENT);
    assert_eq!(doubts(target, NOT_CURRENT), (true, false));
    // This resync has ended.
    assert_eq!(doubts(target, USUAL), (false, true));
    // The worker has not judged the disk yet.
    for failed in [Event::LocalFailed, Event::LocalAborted] {
        assert_eq!(doubts(after(failed, USUAL), USUAL), (true, false));
    }
    let (flushed, _) = run(here, &[Event::BarrierAcked]);
    assert_eq!(doubts(flushed, USUAL), (false, false));
}

#[test]
fn a_good_disk_that_flushes_has_all_that_was_told_done() {
    for (kind, flushes) in [
        (Kind::Flush, true),
        (Kind::FlushAndWrite, true),
        (Kind::Write, false),
    ] {
        let flush = Start {
            kind,
            remote: false,
            ..mirrored_start(Protocol::C)
        };
        let (state, _) = run(flush.state(), &[Event::SubmitterDone]);
        let has_flushed = |event, context| {
            let (_, todo) = apply(state, event, context);
            assert!(todo.has(Consequences::COMPLETE));
            todo.has(Consequences::FLUSHED)
        };
        assert_eq!(has_flushed(Event::LocalOk, USUAL), flushes);
        assert!(!has_flushed(Event::LocalFailed, USUAL));
        assert!(!has_flushed(Event::LocalOk, NOT_CURRENT));
        // The peer was lost since the flush began.
        let parted = Context {
            mirrored_since_sent: false,
            ..USUAL
        };
        assert!(!has_flushed(Event::LocalOk, parted));
    }
}

#[test]
fn a_write_that_the_peer_need_not_have_is_told_alone() {
    let told = [Event::SubmitterDone, Event::LocalOk, Event::HandedOver];
    let alone = Start {
        remote: false,
        ..mirrored_start(Protocol::C)
    };
    let (_, todo) = run(alone.state(), &told[..2]);
    assert!(todo.has(Consequences::COMPLETE | Consequences::TOLD_ALONE));
    let is_alone = |state, event| {
        let (state, todo) = run(state, &[event]);
        assert!(state.has(RequestState::COMPLETED));
        todo.has(Consequences::TOLD_ALONE)
    };
    for (protocol, ack) in [
        (Protocol::A, None),
        (Protocol::B, Some(Event::ReceiveAcked)),
        (Protocol::C, Some(ACKED)),
    ] {
        let (sent, _) = run(mirrored(protocol), &told);
        if ack.is_some() {
            assert!(is_alone(sent, Event::NegAcked), "{protocol:?}");
            assert!(is_alone(sent, Event::ConnectionLost), "{protocol:?}");
        }
        let (acked, todo) = ack.map_or((sent, Consequences::NONE), |ack| run(sent, &[ack]));
        assert!(!todo.has(Consequences::TOLD_ALONE), "{protocol:?}");
        let is_lost = is_alone(acked, Event::ConnectionLost);
        assert_eq!(is_lost, protocol == Protocol::A);
        if protocol != Protocol::C {
            assert!(is_alone(acked, Event::NegAcked), "{protocol:?}");
        }
        // This node's disk has it.
        assert!(!is_alone(acked, FROZEN), "{protocol:?}");
        let (flushed, _) = run(acked, &[Event::BarrierAcked]);
        assert!(!is_alone(flushed, Event::ConnectionLost), "{protocol:?}");
    }
}

#[test]
fn a_frozen_write_that_no_disk_of_this_node_has_is_told_alone() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let start = Start {
            local: false,
            // Else the peer would be asked for an ack.
            chooses_ack: false,
            ..mirrored_start(protocol)
        };
        let (sent, _) = run(start.state(), &[Event::SubmitterDone, Event::HandedOver]);
        let acked = match protocol {
            Protocol::A => sent,
            Protocol::B => run(sent, &[Event::ReceiveAcked]).0,
            Protocol::C => run(sent, &[ACKED]).0,
        };
        assert!(acked.has(RequestState::COMPLETED));
        let (_, todo) = apply(acked, FROZEN, SUSPENDED);
        let lost = Consequences::TOLD_ALONE | Consequences::STABILITY_LOST;
        assert_eq!(todo.has(lost), protocol == Protocol::A, "{protocol:?}");
    }
}

/// An error is judged when it happens. What the peer's disk was worth then may have changed when it
/// has the write.
#[test]
fn a_disk_that_did_not_take_what_is_told_done_is_judged_by_that() {
    let told = |local, context, answer| {
        let (state, _) = apply(mirrored(Protocol::C), local, context);
        let (state, _) = run(state, &[Event::SubmitterDone, Event::HandedOver]);
        let (state, todo) = apply(state, answer, context);
        assert!(todo.has(Consequences::COMPLETE));
        (state.is_ok(), todo.has(Consequences::DISK_LACKS))
    };
    assert_eq!(told(Event::LocalFailed, USUAL, ACKED), (true, true));
    assert_eq!(told(Event::LocalOk, USUAL, ACKED), (true, false));
    // The application is told that it failed.
    assert_eq!(
        told(Event::LocalFailed, USUAL, Event::NegAcked),
        (false, false)
    );
    let target = Context {
        peer_is_current: false,
        ..USUAL
    };
    assert_eq!(told(Event::LocalFailed, target, ACKED), (false, false));
    // The disk is given up already.
    assert_eq!(told(Event::LocalFailed, NOT_CURRENT, ACKED), (true, false));
}

/// The peer has written it, and was declared outdated before this node's disk answered.
#[test]
fn a_write_that_only_an_outdated_disk_has_is_not_told_done() {
    let told = |local, context| {
        let (state, _) = run(
            mirrored(Protocol::C),
            &[Event::SubmitterDone, Event::HandedOver, ACKED],
        );
        let (state, todo) = apply(state, local, context);
        assert!(todo.has(Consequences::COMPLETE));
        (state.is_ok(), todo.has(Consequences::DISK_LACKS))
    };
    let outdated = Context {
        peer_is_current: false,
        peer_is_stale: true,
        ..USUAL
    };
    let lost = Context {
        peer_is_current: false,
        ..USUAL
    };
    assert_eq!(told(Event::LocalFailed, outdated), (false, false));
    assert_eq!(told(Event::LocalOk, outdated), (true, false));
    // The peer may go on with it.
    assert_eq!(told(Event::LocalFailed, lost), (true, true));
    // This disk does not count either.
    let nowhere = Context {
        local_is_current: false,
        ..outdated
    };
    assert_eq!(told(Event::LocalFailed, nowhere), (false, false));
}
