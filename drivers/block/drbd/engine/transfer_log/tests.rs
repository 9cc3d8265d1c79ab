// SPDX-License-Identifier: GPL-2.0

//! The transfer log against a naive model, and the cases that matter one by one.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Barrier, BarrierError, Entry, Index, LookupError, Part, Stability, TransferLog};
use crate::types::{BlockId, Sector};

type Log = TransferLog<Vec<Entry>>;

fn log(slots: usize, max_epoch_size: u32) -> Log {
    TransferLog::new(vec![Entry::default(); slots], 0xffff_fff0, max_epoch_size)
}

fn admit(log: &mut Log, part: Part, sector: u64) -> Index {
    log.admit(part, Sector(sector), 4096).unwrap().0
}

fn send(log: &mut Log) -> Option<Barrier> {
    let index = log.next_to_send().unwrap();
    log.begin_send(index, 7)
}

#[test]
fn an_ack_must_name_a_sent_request_and_its_range() {
    let mut log = log(4, 8);
    let (index, id) = log.admit(Part::Write, Sector(8), 4096).unwrap();
    assert_eq!(log.lookup(id, Sector(8), 4096), Err(LookupError::NotSent));
    assert_eq!(send(&mut log), None);
    assert_eq!(log.lookup(id, Sector(8), 4096), Ok(index));
    assert_eq!(
        log.lookup(id, Sector(16), 4096),
        Err(LookupError::OtherRange)
    );
    assert_eq!(log.lookup(id, Sector(8), 512), Err(LookupError::OtherRange));
    for forged in [
        BlockId(id.0 ^ 1 << 40),
        BlockId(id.0 ^ 2),
        BlockId::SYNCER,
        BlockId(0),
    ] {
        assert_eq!(
            log.lookup(forged, Sector(8), 4096),
            Err(LookupError::Unknown)
        );
    }
    log.release(index);
    assert_eq!(log.lookup(id, Sector(8), 4096), Err(LookupError::Unknown));
    let (again, other) = log.admit(Part::Write, Sector(8), 4096).unwrap();
    assert_eq!(again, index);
    assert_ne!(other, id);
}

#[test]
fn a_full_log_makes_the_submitter_wait() {
    let mut log = log(2, 8);
    let first = admit(&mut log, Part::Write, 0);
    admit(&mut log, Part::Read, 8);
    assert_eq!(log.admit(Part::Write, Sector(16), 4096), None);
    log.release(first);
    assert!(log.admit(Part::Write, Sector(16), 4096).is_some());
}

#[test]
fn a_barrier_goes_before_the_first_request_of_another_epoch() {
    let mut log = log(8, 8);
    let first = admit(&mut log, Part::Write, 0);
    admit(&mut log, Part::Write, 8);
    assert!(log.close_epoch_of(first));
    assert!(!log.close_epoch_of(first), "the epoch is closed already");
    admit(&mut log, Part::Read, 16);
    assert_eq!(send(&mut log), None);
    assert_eq!(log.barrier_ack(1, 1, 9), Err(BarrierError::NotExpected));
    assert_eq!(send(&mut log), None);
    assert_eq!(log.barrier_since_ns(), None);
    assert_eq!(
        send(&mut log),
        Some(Barrier { number: 1 }),
        "a read may close an epoch"
    );
    assert_eq!(log.barrier_since_ns(), Some(7));
    assert_eq!(
        log.barrier_ack(2, 2, 9),
        Err(BarrierError::WrongEpoch { expected: 1 })
    );
    assert_eq!(
        log.barrier_ack(1, 1, 9),
        Err(BarrierError::WrongSize { expected: 2 })
    );
    assert_eq!(
        log.barrier_ack(1, 3, 9),
        Err(BarrierError::WrongSize { expected: 2 })
    );
    assert_eq!(log.next_acked(), None);
    assert_eq!(log.barrier_ack(1, 2, 9), Ok(()));
    assert_eq!(log.next_acked(), Some(first));
    assert!(log.next_acked().is_some());
    assert_eq!(log.next_acked(), None);
    assert_eq!(log.barrier_ack(1, 2, 9), Err(BarrierError::NotExpected));
}

#[test]
fn an_idle_sender_ends_an_epoch_that_is_closed() {
    let mut log = log(8, 8);
    admit(&mut log, Part::Write, 0);
    send(&mut log);
    assert_eq!(log.idle_barrier(1), None);
    assert!(log.is_sent());
    assert!(log.close_epoch());
    assert!(!log.is_sent(), "the barrier is to be sent");
    assert_eq!(log.idle_barrier(1), Some(Barrier { number: 1 }));
    assert_eq!(log.idle_barrier(1), None);
    assert!(!log.close_epoch(), "an empty epoch is not closed");
    admit(&mut log, Part::Write, 8);
    send(&mut log);
    admit(&mut log, Part::Write, 16);
    log.close_epoch();
    assert_eq!(
        log.idle_barrier(1),
        None,
        "a write of the epoch waits to be sent"
    );
    send(&mut log);
    assert_eq!(log.idle_barrier(1), Some(Barrier { number: 2 }));
}

#[test]
fn a_mark_is_reached_with_the_barrier_acks_of_what_came_before() {
    let mut log = log(8, 100);
    let nothing = log.mark();
    assert_eq!(log.stability(nothing), Stability::Reached);
    let first = admit(&mut log, Part::Write, 0);
    let read = admit(&mut log, Part::Read, 0);
    let mark = log.mark();
    admit(&mut log, Part::Write, 8);
    assert_eq!(log.stability(mark), Stability::Pending, "not sent");
    send(&mut log);
    send(&mut log);
    let barrier = send(&mut log).unwrap();
    log.answered(first);
    assert_eq!(log.stability(mark), Stability::Pending, "not flushed");
    log.barrier_ack(barrier.number, 1, 0).unwrap();
    assert_eq!(log.stability(mark), Stability::Reached);
    log.release(read);
    let later = log.mark();
    assert_eq!(log.stability(later), Stability::Pending);
    log.connection_lost();
    assert_eq!(log.stability(later), Stability::Lost);
    assert_eq!(log.stability(mark), Stability::Lost);
}

#[test]
fn an_epoch_holds_no_more_than_its_limit() {
    let mut log = log(8, 2);
    let epochs: Vec<_> = (0..5)
        .map(|n| {
            let index = admit(&mut log, Part::Write, n * 8);
            log.get(index).unwrap().epoch()
        })
        .collect();
    assert_eq!(epochs, [1, 1, 2, 2, 3]);
}

#[test]
fn after_the_connection_is_lost_requests_are_sent_again_in_order() {
    let mut log = log(8, 8);
    let all: Vec<_> = (0..4)
        .map(|n| admit(&mut log, Part::Write, n * 8))
        .collect();
    for _ in 0..3 {
        send(&mut log);
    }
    log.answered(all[0]);
    let id = log.cookie(all[1]).unwrap();
    log.connection_lost();
    assert_eq!(log.lookup(id, Sector(8), 4096), Err(LookupError::NotSent));
    assert_eq!(log.next_to_send(), Some(all[3]));
    log.begin_walk();
    let walked: Vec<_> = core::iter::from_fn(|| log.next_of_walk()).collect();
    assert_eq!(walked, all);
    log.release(all[0]);
    log.requeue(all[2]);
    log.requeue(all[1]);
    let sent: Vec<_> = core::iter::from_fn(|| {
        let index = log.next_to_send()?;
        log.begin_send(index, 20);
        Some(index)
    })
    .collect();
    assert_eq!(sent, all[1..]);
    assert_eq!(log.oldest_unanswered(), Some(all[1]));
}

#[test]
fn a_walk_survives_the_release_of_what_it_is_about_to_visit() {
    let mut log = log(4, 8);
    let all: Vec<_> = (0..4).map(|n| admit(&mut log, Part::None, n * 8)).collect();
    log.begin_walk();
    assert_eq!(log.next_of_walk(), Some(all[0]));
    log.release(all[1]);
    assert_eq!(log.next_of_walk(), Some(all[2]));
    log.release(all[2]);
    assert_eq!(log.next_of_walk(), Some(all[3]));
    assert_eq!(log.next_of_walk(), None);
}

/// One request as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    index: Index,
    id: BlockId,
    part: Part,
    sector: u64,
    epoch: u32,
    sent: bool,
    answered: bool,
    acked: bool,
}

#[derive(Default)]
struct Model {
    known: Vec<Known>,
    stale: Vec<(BlockId, u64)>,
    epoch: u32,
    epoch_writes: u32,
    sending: Option<u32>,
    sent_writes: u32,
    barriers: Vec<(u32, u32)>,
}

impl Model {
    fn barrier_before(&mut self, epoch: u32) -> Option<Barrier> {
        let number = self.sending.filter(|&sending| sending != epoch)?;
        let writes = core::mem::take(&mut self.sent_writes);
        self.sending = Some(epoch);
        (writes > 0).then(|| {
            self.barriers.push((number, writes));
            Barrier { number }
        })
    }

    fn oldest_unanswered(&self) -> Option<Index> {
        let mut sent = self
            .known
            .iter()
            .take_while(|it| it.sent || it.part == Part::None);
        let waits = |it: &&Known| it.sent && !it.answered && it.part != Part::OutOfSync;
        sent.find(waits).map(|it| it.index)
    }
}

fn step(log: &mut Log, model: &mut Model, (choice, argument): (u8, u8)) {
    match choice {
        0..=3 => {
            let part = [
                Part::None,
                Part::Read,
                Part::Write,
                Part::Write,
                Part::OutOfSync,
            ][usize::from(argument) % 5];
            let sector = u64::from(argument) * 8;
            let Some((index, id)) = log.admit(part, Sector(sector), 4096) else {
                assert_eq!(model.known.len(), 12);
                return;
            };
            if part == Part::Write {
                if model.epoch_writes >= 3 {
                    (model.epoch, model.epoch_writes) = (model.epoch + 1, 0);
                }
                model.epoch_writes += 1;
            }
            let epoch = model.epoch;
            let (sent, answered, acked) = (false, false, false);
            model.known.push(Known {
                index,
                id,
                part,
                sector,
                epoch,
                sent,
                answered,
                acked,
            });
        }
        4..=6 => {
            let next = model
                .known
                .iter()
                .position(|it| !it.sent && it.part != Part::None);
            assert_eq!(log.next_to_send(), next.map(|at| model.known[at].index));
            let Some(at) = next else { return };
            let (index, epoch, part) = {
                let it = &mut model.known[at];
                it.sent = true;
                (it.index, it.epoch, it.part)
            };
            assert_eq!(log.begin_send(index, 0), model.barrier_before(epoch));
            if part == Part::Write {
                model.sending = Some(model.sending.unwrap_or(epoch));
                model.sent_writes += 1;
            }
        }
        7 => {
            let closes = model.epoch_writes > 0;
            assert_eq!(log.close_epoch(), closes);
            if closes {
                (model.epoch, model.epoch_writes) = (model.epoch + 1, 0);
            }
            let is_idle = model
                .known
                .iter()
                .all(|it| it.sent || it.part == Part::None);
            let barrier = if is_idle {
                model.barrier_before(model.epoch)
            } else {
                None
            };
            assert_eq!(log.is_sent(), is_idle && barrier.is_none());
            assert_eq!(log.idle_barrier(0), barrier);
        }
        8 => {
            let Some(&(number, writes)) = model.barriers.first() else {
                assert!(log.barrier_ack(model.epoch, 1, 0).is_err());
                return;
            };
            assert!(log.barrier_ack(number, writes + 1, 0).is_err());
            assert!(log.barrier_ack(number.wrapping_add(1), writes, 0).is_err());
            assert_eq!(log.barrier_ack(number, writes, 0), Ok(()));
            model.barriers.remove(0);
            for it in &mut model.known {
                if it.part == Part::Write && it.sent && it.epoch == number && !it.acked {
                    it.acked = true;
                    it.answered = true;
                    assert_eq!(log.next_acked(), Some(it.index));
                }
            }
            assert_eq!(log.next_acked(), None);
        }
        9 => {
            // Writes on the wire stay until their epoch is acknowledged.
            let is_free = |it: &Known| it.part != Part::Write || it.acked;
            let free: Vec<_> = (0..model.known.len())
                .filter(|&at| is_free(&model.known[at]))
                .collect();
            if free.is_empty() {
                return;
            }
            let it = model.known.remove(free[usize::from(argument) % free.len()]);
            log.release(it.index);
            model.stale.push((it.id, it.sector));
        }
        _ => {
            let sent = model
                .known
                .iter_mut()
                .filter(|it| it.sent)
                .nth(usize::from(argument % 4));
            if let Some(it) = sent {
                it.answered = true;
                log.answered(it.index);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_log_does_what_a_list_would(
        steps in prop::collection::vec((0_u8..11, any::<u8>()), 1..400),
    ) {
        let mut log = log(12, 3);
        let mut model = Model { epoch: 1, ..Model::default() };
        for it in steps {
            step(&mut log, &mut model, it);
            prop_assert_eq!(log.len() as usize, model.known.len());
            prop_assert_eq!(log.epoch(), model.epoch);
            prop_assert_eq!(log.oldest_unanswered(), model.oldest_unanswered());
            log.begin_walk();
            for it in &model.known {
                prop_assert_eq!(log.next_of_walk(), Some(it.index));
                let expected = if it.sent { Ok(it.index) } else { Err(LookupError::NotSent) };
                prop_assert_eq!(log.lookup(it.id, Sector(it.sector), 4096), expected);
            }
            prop_assert_eq!(log.next_of_walk(), None);
            for &(id, sector) in &model.stale {
                let found = log.lookup(id, Sector(sector), 4096);
                prop_assert_eq!(found, Err(LookupError::Unknown));
            }
        }
    }
}
