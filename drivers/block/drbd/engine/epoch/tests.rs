// SPDX-License-Identifier: GPL-2.0

//! The receiver's epochs against a naive model, and the steps of each method.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::{BarrierAck, BarrierStep, Epoch, EpochRef, Epochs, OutOfTurn, WriteOrdering};

fn epochs(slots: usize) -> Epochs<Vec<Epoch>> {
    Epochs::new(vec![Epoch::default(); slots])
}

const COOKIE: [u8; 4] = [1, 2, 3, 4];

#[test]
fn without_ordering_epochs_overlap_and_are_acknowledged_in_order() {
    let mut it = epochs(4);
    let first = it.write_received();
    let step = it.barrier(COOKIE, WriteOrdering::None);
    assert_eq!(step, Ok(BarrierStep::GoOn));
    let second = it.write_received();
    assert_ne!(first, second);
    it.barrier([9; 4], WriteOrdering::None).unwrap();
    assert_eq!(it.open(), 3);
    it.write_done(second);
    assert_eq!(it.next_ack(), None, "the first epoch comes first");
    it.write_done(first);
    assert_eq!(
        it.next_ack(),
        Some(BarrierAck {
            cookie: COOKIE,
            set_size: 1
        })
    );
    assert_eq!(
        it.next_ack(),
        Some(BarrierAck {
            cookie: [9; 4],
            set_size: 1
        })
    );
    assert_eq!((it.next_ack(), it.open()), (None, 1));
}

#[test]
fn the_peer_has_heard_of_refusals_when_their_epoch_is_acked() {
    let mut it = epochs(4);
    let written = it.write_received();
    it.write_done(written);
    assert_eq!(it.last_refused(), None);
    it.write_refused();
    let refused = it.last_refused().unwrap();
    assert!(!it.is_acked(refused));
    it.barrier(COOKIE, WriteOrdering::None).unwrap();
    assert!(!it.is_acked(refused), "the ack is due, but not told");
    let set_size = it.next_ack().map(|ack| ack.set_size);
    assert_eq!((set_size, it.is_acked(refused)), (Some(2), true));
    it.write_refused();
    let later = it.last_refused().unwrap();
    assert!(it.is_acked(refused) && !it.is_acked(later));
    it.reset();
    assert!(it.is_acked(later), "a lost connection tells as much");
    assert_eq!(it.last_refused(), None);
}

#[test]
fn an_epoch_is_flushed_early_once_with_as_many_writes_as_the_one_before() {
    let mut it = epochs(4);
    assert!(!it.may_flush_early(), "there is nothing in it");
    for (before, writes) in [(0, 2), (2, 1), (1, 3)] {
        for written in 1..=writes {
            let write = it.write_received();
            assert!(!it.may_flush_early(), "one is not done");
            it.write_done(write);
            assert_eq!(it.may_flush_early(), written == before.max(1));
            assert!(!it.may_flush_early(), "it was, or is not complete");
        }
        it.barrier(COOKIE, WriteOrdering::Flush).unwrap();
        assert!(!it.may_flush_early(), "its barrier is here");
        assert!(it.settled());
    }
}

#[test]
fn draining_waits_for_the_writes_before_it_goes_on() {
    let mut it = epochs(2);
    let write = it.write_received();
    assert_eq!(
        it.barrier(COOKIE, WriteOrdering::Drain),
        Ok(BarrierStep::Drain)
    );
    assert_eq!((it.next_ack(), it.active()), (None, 1));
    it.write_done(write);
    assert_eq!(
        it.next_ack(),
        Some(BarrierAck {
            cookie: COOKIE,
            set_size: 1
        })
    );
    assert!(it.settled());
    assert_ne!(it.write_received(), write);
}

#[test]
fn the_ack_waits_for_the_flush() {
    let mut it = epochs(2);
    let write = it.write_received();
    assert_eq!(
        it.barrier(COOKIE, WriteOrdering::Flush),
        Ok(BarrierStep::DrainAndFlush)
    );
    it.write_done(write);
    assert_eq!(it.next_ack(), None);
    assert!(it.settled());
    assert_eq!(
        it.next_ack(),
        Some(BarrierAck {
            cookie: COOKIE,
            set_size: 1
        })
    );
}

#[test]
fn a_barrier_after_nothing_is_ignored_and_one_out_of_turn_is_not() {
    let mut it = epochs(2);
    assert_eq!(
        it.barrier(COOKIE, WriteOrdering::Flush),
        Ok(BarrierStep::GoOn)
    );
    assert_eq!((it.next_ack(), it.open()), (None, 1));
    it.write_received();
    it.barrier(COOKIE, WriteOrdering::Drain).unwrap();
    assert_eq!(it.barrier(COOKIE, WriteOrdering::Drain), Err(OutOfTurn));
}

#[test]
fn without_room_for_another_epoch_the_receiver_drains() {
    let mut it = epochs(1);
    let write = it.write_received();
    assert_eq!(
        it.barrier(COOKIE, WriteOrdering::None),
        Ok(BarrierStep::Drain)
    );
    it.write_done(write);
    assert!(!it.settled(), "only the ack makes room");
    assert!(it.next_ack().is_some());
    it.write_received();
    assert_eq!(it.next_ack(), None);
}

#[test]
fn writes_of_a_connection_that_is_gone_report_to_nobody() {
    let mut it = epochs(2);
    let stale = it.write_received();
    it.reset();
    it.write_received();
    it.write_done(stale);
    assert_eq!(it.active(), 1);
}

#[test]
fn the_method_is_narrowed_by_what_the_disks_permit() {
    use WriteOrdering::{Drain, Flush, None};
    let table = [
        (Flush, true, true, Flush),
        (Flush, true, false, Flush),
        (Flush, false, true, Drain),
        (Flush, false, false, None),
        (Drain, true, true, Drain),
        (Drain, true, false, None),
        (None, true, true, None),
    ];
    for (wanted, flushes, drain, expected) in table {
        assert_eq!(wanted.permitted(flushes, drain), expected);
    }
    assert_eq!((Flush.without_flush(), None.without_flush()), (Drain, None));
    assert_eq!((Flush.name(), Drain.letter()), ("flush", 'd'));
}

/// An epoch as the model knows it: cookie if closed, writes, writes in progress.
type Known = (Option<[u8; 4]>, u32, Vec<EpochRef>);

proptest! {
    #[test]
    fn every_closed_epoch_is_acknowledged_once_in_order_with_its_count(
        slots in 1_usize..5,
        steps in prop::collection::vec((0_u8..8, any::<u8>()), 1..300),
    ) {
        let mut it = epochs(slots);
        let mut known: Vec<Known> = vec![(None, 0, vec![])];
        for (choice, argument) in steps {
            let open = known.iter().filter(|epoch| !epoch.2.is_empty()).count();
            let mut next_is_open = true;
            match choice {
                0..=3 => {
                    let last = known.last_mut().unwrap();
                    last.1 += 1;
                    last.2.push(it.write_received());
                }
                4..=5 if open > 0 => {
                    let at = usize::from(argument) % open;
                    let epoch = known.iter_mut().filter(|epoch| !epoch.2.is_empty()).nth(at);
                    it.write_done(epoch.unwrap().2.pop().unwrap());
                }
                _ => {
                    let ordering = [WriteOrdering::None, WriteOrdering::Drain, WriteOrdering::Flush]
                        [usize::from(argument) % 3];
                    let cookie = [argument; 4];
                    let step = it.barrier(cookie, ordering).unwrap();
                    if known.last().unwrap().1 > 0 {
                        known.last_mut().unwrap().0 = Some(cookie);
                        if step != BarrierStep::GoOn {
                            for write in known.iter_mut().flat_map(|epoch| epoch.2.drain(..)) {
                                it.write_done(write);
                            }
                            prop_assert_eq!(it.active(), 0);
                            next_is_open = it.settled();
                        }
                        known.push((None, 0, vec![]));
                    }
                }
            }
            if next_is_open && argument % 4 == 3 {
                // The acks may wait, but not for ever.
                continue;
            }
            while let Some(ack) = it.next_ack() {
                let (cookie, writes, active) = known.remove(0);
                prop_assert_eq!((Some(ack.cookie), ack.set_size), (cookie, writes));
                prop_assert!(active.is_empty());
            }
            let may_be_acked = known[0].0.is_some() && known[0].2.is_empty();
            prop_assert!(!may_be_acked, "an ack is missing");
            let active: usize = known.iter().map(|epoch| epoch.2.len()).sum();
            prop_assert_eq!(it.active() as usize, active);
        }
    }
}
