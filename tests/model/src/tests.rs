// SPDX-License-Identifier: GPL-2.0

//! The end of a request on several processors.

use drbd_engine::config::Protocol;
use drbd_engine::request::{Consequences, Context, Event, Kind, RequestState, Start};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::bits::AtomicBits32;
use crate::word::{Life, Word};

const ACKED: Event = Event::WriteAcked { in_sync: false };

/// One slot of the request table, and what the module keeps beside it.
struct Slot {
    word: Word,
    /// Which of the lives that are tried one after the other has the slot.
    life: Mutex<Option<u32>>,
    /// 1 while I/O is suspended.
    suspended: AtomicBits32,
    /// Lives whose application was told, and that were released: a bit each.
    told: AtomicBits32,
    released: AtomicBits32,
}

/// Somebody who acts for a life.
struct Acting<'a> {
    slot: &'a Slot,
    life: u32,
}

impl Life for Acting<'_> {
    fn context(&self) -> Context {
        Context {
            suspended: self.slot.suspended.any(1),
            mirrored_since_sent: true,
            local_is_current: true,
            peer_is_current: true,
            peer_is_stale: false,
        }
    }

    fn carry_out(&self, _: RequestState, todo: Consequences) {
        assert_eq!(
            *self.slot.life.lock().unwrap(),
            Some(self.life),
            "the slot is another's"
        );
        if todo.has(Consequences::COMPLETE) {
            let before = self.slot.told.set(1 << self.life);
            assert_eq!(before & (1 << self.life), 0, "told twice");
        }
    }

    fn release(&self) {
        let life = self.slot.life.lock().unwrap().take();
        assert_eq!(life, Some(self.life));
        assert!(self.slot.told.any(1 << self.life), "nobody was told");
        let before = self.slot.released.set(1 << self.life);
        assert_eq!(before & (1 << self.life), 0, "released twice");
    }
}

impl Slot {
    fn new() -> Self {
        let slot = Self {
            word: Word::new(),
            life: Mutex::new(None),
            suspended: AtomicBits32::new(0),
            told: AtomicBits32::new(0),
            released: AtomicBits32::new(0),
        };
        // Loom knows them from here on.
        assert!(!slot.suspended.any(1) && !slot.told.any(1) && !slot.released.any(1));
        assert!(slot.word.state().has(RequestState::RELEASED));
        slot
    }

    fn begin(&self, life: u32, remote: bool) {
        *self.life.lock().unwrap() = Some(life);
        let start = Start {
            kind: Kind::Write,
            local: true,
            remote,
            out_of_sync: false,
            protocol: Protocol::C,
            local_is_current: true,
            chooses_ack: true,
        };
        self.word.begin(start.state());
    }

    /// As `Request::happens`.
    fn happens(&self, life: u32, event: Event) {
        assert!(self.word.happens(&Acting { slot: self, life }, event));
    }

    /// As `Request::visit`.
    fn visit(&self, event: Event) {
        let life = {
            let life = self.life.lock().unwrap();
            life.filter(|_| self.word.enter())
        };
        let Some(life) = life else { return };
        let acting = Acting { slot: self, life };
        self.word.happens(&acting, event);
        self.word.settle(&acting);
    }
}

/// Runs each of `parties` on a processor of its own, in every order; then `check`s.
fn in_every_order(
    make: impl Fn() -> Slot + Send + Sync + 'static,
    parties: &'static [fn(&Slot)],
    check: impl Fn(&Slot) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let slot = Arc::new(make());
        let others: Vec<_> = parties[1..]
            .iter()
            .map(|party| {
                let slot = slot.clone();
                thread::spawn(move || party(&slot))
            })
            .collect();
        parties[0](&slot);
        for other in others {
            other.join().unwrap();
        }
        check(&slot);
    });
}

/// A write that was sent, and that the peer has.
fn acked() -> Slot {
    let slot = Slot::new();
    slot.begin(0, true);
    for event in [Event::SubmitterDone, Event::HandedOver, ACKED] {
        slot.happens(0, event);
    }
    slot
}

fn ended(slot: &Slot) {
    assert!(slot.told.any(1) && slot.released.any(1));
}

#[test]
fn the_disk_and_the_ack_of_the_epoch_end_a_write_once() {
    in_every_order(
        acked,
        &[
            |slot| slot.happens(0, Event::LocalOk),
            |slot| slot.happens(0, Event::BarrierAcked),
        ],
        ended,
    );
}

#[test]
fn the_submitter_the_disk_and_the_peer_end_a_write_once() {
    in_every_order(
        || {
            let slot = Slot::new();
            slot.begin(0, true);
            slot.happens(0, Event::HandedOver);
            slot
        },
        &[
            |slot| slot.happens(0, Event::SubmitterDone),
            |slot| slot.happens(0, Event::LocalOk),
            |slot| {
                slot.happens(0, ACKED);
                slot.happens(0, Event::BarrierAcked);
            },
        ],
        ended,
    );
}

#[test]
fn a_connection_that_is_lost_meanwhile_ends_it_too() {
    in_every_order(
        acked,
        &[
            |slot| slot.happens(0, Event::LocalOk),
            |slot| slot.visit(Event::ConnectionLost),
            |slot| slot.visit(Event::LocalAborted),
        ],
        |slot| {
            ended(slot);
            assert!(slot.life.lock().unwrap().is_none());
        },
    );
}

#[test]
fn what_was_held_back_is_told_whoever_resumes() {
    in_every_order(
        || {
            let slot = Slot::new();
            slot.begin(0, false);
            slot.happens(0, Event::SubmitterDone);
            // The word does not say so yet.
            slot.suspended.set(1);
            slot
        },
        &[
            |slot| slot.happens(0, Event::LocalOk),
            |slot| {
                slot.suspended.clear(1);
                slot.visit(Event::Resumed);
            },
        ],
        ended,
    );
}

#[test]
fn who_walks_over_the_requests_does_not_act_for_the_next_one() {
    in_every_order(
        || {
            let slot = Slot::new();
            slot.begin(0, false);
            slot.happens(0, Event::SubmitterDone);
            slot
        },
        &[
            |slot| {
                slot.happens(0, Event::LocalOk);
                if slot.released.any(1) {
                    slot.begin(1, false);
                    slot.happens(1, Event::SubmitterDone);
                    slot.happens(1, Event::LocalOk);
                }
            },
            |slot| slot.visit(Event::Resumed),
        ],
        ended,
    );
}
