// SPDX-License-Identifier: GPL-2.0

//! Every order in which the parties of a request can report, and carry out what they are told,
//! leads to one completion and one release, which nothing comes after.

use std::vec;
use std::vec::Vec;

use crate::config::Protocol;
use crate::request::{apply, settle, Consequences, Context, Event, Kind, RequestState, Start};

/// What happened so far, kept apart from the word under test.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    local_ended: bool,
    local_ok: bool,
    handed_over: bool,
    acked: bool,
    failed: bool,
    lost: bool,
    barrier: bool,
    submitter_done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    complete: u32,
    retry: u32,
    release: u32,
    out_of_sync: u32,
    in_sync: u32,
    in_flight: i32,
    unanswered: i32,
}

#[derive(Clone)]
struct Run {
    start: Start,
    state: RequestState,
    seen: Seen,
    told: Told,
    /// What each party has yet to report, in its order.
    parties: Vec<Vec<Event>>,
    /// What each party was told and has not carried out yet.
    to_do: Vec<Option<Consequences>>,
    history: Vec<Event>,
}

impl Run {
    fn new(start: Start, parties: Vec<Vec<Event>>) -> Self {
        let told = Told {
            unanswered: i32::from(start.remote),
            ..Told::default()
        };
        let state = start.state();
        Self {
            start,
            state,
            seen: Seen::default(),
            told,
            to_do: vec![None; parties.len()],
            parties,
            history: vec![],
        }
    }

    fn explore(&self, runs: &mut u64) {
        let mut is_over = true;
        for party in 0..self.parties.len() {
            if self.to_do[party].is_none() && self.parties[party].is_empty() {
                continue;
            }
            is_over = false;
            let mut next = self.clone();
            match next.to_do[party].take() {
                Some(todo) => next.carry_out(todo),
                None => {
                    let event = next.parties[party].remove(0);
                    next.report(party, event);
                }
            }
            next.explore(runs);
        }
        if is_over {
            *runs += 1;
            self.check_end();
        }
    }

    fn report(&mut self, party: usize, event: Event) {
        self.history.push(event);
        self.note(event);
        let context = Context {
            suspended: false,
            mirrored_since_sent: true,
            local_is_current: true,
            peer_is_current: true,
            peer_is_stale: false,
        };
        let (state, todo) = apply(self.state, event, context);
        assert!(
            !todo.has(Consequences::PROTOCOL_ERROR),
            "{:?}",
            self.history
        );
        self.state = state;
        if !todo.is_none() {
            self.to_do[party] = Some(todo);
        }
    }

    fn carry_out(&mut self, todo: Consequences) {
        assert_eq!(self.told.release, 0, "{:?}", self.history);
        self.tally(todo);
        if todo.has(Consequences::SETTLE) {
            let (state, is_last) = settle(self.state);
            self.state = state;
            if is_last {
                self.tally(Consequences::RELEASE);
            }
        }
    }

    fn note(&mut self, event: Event) {
        let seen = &mut self.seen;
        match event {
            Event::SubmitterDone => seen.submitter_done = true,
            Event::LocalOk => (seen.local_ended, seen.local_ok) = (true, true),
            Event::LocalFailed => seen.local_ended = true,
            Event::HandedOver | Event::NotSent => seen.handed_over = true,
            // What comes after the connection was cleaned up is void.
            _ if seen.lost => {}
            Event::ReceiveAcked | Event::WriteAcked { .. } | Event::DataReceived => {
                seen.acked = true;
            }
            Event::NegAcked => (seen.acked, seen.failed) = (true, true),
            Event::BarrierAcked => seen.barrier = true,
            Event::ConnectionLost => seen.lost = true,
            other => panic!("no scenario has {other:?}"),
        }
    }

    fn tally(&mut self, todo: Consequences) {
        let has = |consequence| u32::from(todo.has(consequence));
        let told = &mut self.told;
        told.complete += has(Consequences::COMPLETE);
        told.retry += has(Consequences::RETRY);
        told.release += has(Consequences::RELEASE);
        told.out_of_sync += has(Consequences::SET_OUT_OF_SYNC);
        told.in_sync += has(Consequences::SET_IN_SYNC);
        told.in_flight += has(Consequences::ADD_IN_FLIGHT) as i32;
        told.in_flight -= has(Consequences::SUB_IN_FLIGHT) as i32;
        told.unanswered -= has(Consequences::ANSWERED) as i32;
        if todo.has(Consequences::COMPLETE) {
            assert!(
                self.promise_is_kept(),
                "{:?} {:?}",
                self.start,
                self.history
            );
        }
        if todo.has(Consequences::RELEASE) {
            assert!(self.is_through(), "{:?} {:?}", self.start, self.history);
        }
    }

    fn promise_is_kept(&self) -> bool {
        let seen = &self.seen;
        let local = !self.start.local || seen.local_ended;
        let sent_or_lost = seen.handed_over;
        let answered = match (self.start.kind, self.start.protocol) {
            (Kind::Write, Protocol::A) => true,
            _ => seen.acked || seen.lost,
        };
        local && seen.submitter_done && (!self.start.remote || (sent_or_lost && answered))
    }

    fn is_through(&self) -> bool {
        let told = self.told.complete + self.told.retry == 1;
        let needs_barrier = self.start.remote && self.start.kind == Kind::Write;
        told && self.promise_is_kept() && (!needs_barrier || self.seen.barrier || self.seen.lost)
    }

    fn check_end(&self) {
        let story = (&self.start, &self.history, &self.told);
        assert_eq!(self.told.complete + self.told.retry, 1, "{story:?}");
        assert_eq!(self.told.release, 1, "{story:?}");
        assert_eq!(self.told.in_flight, 0, "{story:?}");
        assert_eq!(self.told.unanswered, 0, "{story:?}");
        let is_write = self.start.kind == Kind::Write;
        let peer_ok = self.start.remote && self.seen.barrier && !self.seen.failed;
        let differs = is_write && !(peer_ok && self.seen.local_ok);
        if self.seen.barrier || !self.start.remote {
            assert_eq!(self.told.out_of_sync, u32::from(differs), "{story:?}");
        } else {
            // Whether the ack or the end of the connection came first, nothing vouches for the
            // peer's disk.
            assert_eq!(self.told.out_of_sync, u32::from(is_write), "{story:?}");
        }
        assert!(self.told.in_sync <= 1, "{story:?}");
    }
}

fn write(protocol: Protocol, local: bool, remote: bool) -> Start {
    Start {
        kind: Kind::Write,
        local,
        remote,
        out_of_sync: false,
        protocol,
        local_is_current: true,
        chooses_ack: true,
    }
}

fn acks(protocol: Protocol) -> Vec<Vec<Event>> {
    let synced = Event::WriteAcked { in_sync: true };
    let done = Event::WriteAcked { in_sync: false };
    let lists: Vec<Vec<Event>> = match protocol {
        Protocol::A => vec![vec![]],
        Protocol::B => vec![vec![Event::ReceiveAcked], vec![Event::ReceiveAcked, synced]],
        Protocol::C => vec![vec![done], vec![synced], vec![Event::NegAcked]],
    };
    lists
        .into_iter()
        .map(|mut list| {
            list.push(Event::BarrierAcked);
            list
        })
        .collect()
}

const PROTOCOLS: [Protocol; 3] = [Protocol::A, Protocol::B, Protocol::C];
const DISKS: [Event; 2] = [Event::LocalOk, Event::LocalFailed];

#[test]
fn a_mirrored_write_completes_and_leaves_once_in_every_order() {
    let mut runs = 0;
    for protocol in PROTOCOLS {
        for acks in acks(protocol) {
            for disk in DISKS {
                let parties = vec![
                    vec![disk],
                    vec![Event::SubmitterDone],
                    vec![Event::HandedOver],
                    acks.clone(),
                ];
                Run::new(write(protocol, true, true), parties).explore(&mut runs);
            }
        }
    }
    assert!(runs > 500, "{runs}");
}

#[test]
fn a_connection_that_is_lost_at_any_moment_still_ends_every_write() {
    let mut runs = 0;
    for protocol in PROTOCOLS {
        for acks in acks(protocol) {
            for disk in DISKS {
                for sender in [Event::HandedOver, Event::NotSent] {
                    // The peer acknowledges some, then the connection is gone.
                    for count in 0..acks.len() {
                        let is_sent = sender == Event::HandedOver;
                        let mut peer: Vec<_> = acks.iter().copied().take(count).collect();
                        if !is_sent {
                            peer.clear();
                        }
                        peer.push(Event::ConnectionLost);
                        let parties =
                            vec![vec![disk], vec![Event::SubmitterDone], vec![sender], peer];
                        Run::new(write(protocol, true, true), parties).explore(&mut runs);
                    }
                }
            }
        }
    }
    assert!(runs > 500, "{runs}");
}

#[test]
fn an_ack_that_crosses_the_end_of_the_connection_changes_nothing() {
    let mut runs = 0;
    for protocol in PROTOCOLS {
        for mut acks in acks(protocol) {
            acks.pop();
            let parties = vec![
                vec![Event::LocalOk],
                vec![Event::SubmitterDone],
                vec![Event::HandedOver],
                acks,
                vec![Event::ConnectionLost],
            ];
            Run::new(write(protocol, true, true), parties).explore(&mut runs);
        }
    }
    assert!(runs > 100, "{runs}");
}

#[test]
fn requests_with_one_part_end_in_every_order() {
    let mut runs = 0;
    for disk in DISKS {
        let parties = vec![vec![disk], vec![Event::SubmitterDone]];
        Run::new(write(Protocol::C, true, false), parties).explore(&mut runs);
    }
    let remote = write(Protocol::C, false, true);
    let peer = vec![Event::WriteAcked { in_sync: false }, Event::BarrierAcked];
    let parties = vec![vec![Event::SubmitterDone], vec![Event::HandedOver], peer];
    Run::new(remote, parties).explore(&mut runs);
    for read_ahead in [false, true] {
        let kind = Kind::Read { read_ahead };
        for answer in [Event::DataReceived, Event::NegAcked, Event::ConnectionLost] {
            let start = Start { kind, ..remote };
            let parties = vec![
                vec![Event::SubmitterDone],
                vec![Event::HandedOver],
                vec![answer],
            ];
            Run::new(start, parties).explore(&mut runs);
        }
        for disk in DISKS {
            let start = Start {
                kind,
                local: true,
                remote: false,
                ..remote
            };
            let parties = vec![vec![Event::SubmitterDone], vec![disk]];
            Run::new(start, parties).explore(&mut runs);
        }
    }
    assert!(runs > 40, "{runs}");
}
