// SPDX-License-Identifier: GPL-2.0

//! Planning, pacing, throttling and progress of resync and verify.

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::timer::SECOND_NS;
use crate::types::{BitNr, Sector};
use crate::wire::VerifyResult;

#[derive(Clone, Debug, Default)]
struct Bits(BTreeSet<u64>);

impl DirtyBits for Bits {
    fn next_run(&self, from: BitNr, max_bits: u32) -> Option<(BitNr, u32)> {
        let first = *self.0.range(from.0..).next()?;
        let run = (first..)
            .take(max_bits as usize)
            .take_while(|bit| self.0.contains(bit));
        Some((BitNr(first), run.count() as u32))
    }
}

fn planner(shape: Shape, deferred: usize) -> Planner<Vec<Deferred>> {
    Planner::new(shape, vec![Deferred::default(); deferred])
}

fn all(planner: &mut Planner<Vec<Deferred>>, bits: &Bits) -> Vec<(u64, u32)> {
    let mut requests = vec![];
    while let Next::Request(request) = planner.next(bits) {
        requests.push((request.first.0, request.bits));
    }
    requests
}

#[test]
fn runs_are_merged_up_to_aligned_boundaries() {
    let bits = Bits((3..600).collect());
    let mut planner = planner(Shape::new(Sector(8 * 1000), 1 << 20, 0), 4);
    assert_eq!(all(&mut planner, &bits), [(3, 253), (256, 256), (512, 88)]);
    assert_eq!(planner.next(&bits), Next::Done);
}

#[test]
fn smaller_requests_can_be_asked_for_at_any_time() {
    let bits = Bits((3..600).collect());
    let mut planner = planner(Shape::new(Sector(8 * 1000), 1 << 20, 0), 4);
    planner.limit_requests(64 << 10);
    assert!(matches!(planner.next(&bits), Next::Request(request) if request.bits == 13));
    assert!(matches!(planner.next(&bits), Next::Request(request) if request.bits == 16));
    planner.limit_requests(1 << 20);
    assert_eq!(all(&mut planner, &bits), [(32, 224), (256, 256), (512, 88)]);
}

#[test]
fn the_last_request_ends_with_the_device() {
    let bits = Bits((0..4).collect());
    let mut planner = planner(Shape::new(Sector(8 * 3 + 5), 1 << 20, 0), 4);
    let Next::Request(request) = planner.next(&bits) else {
        panic!("there is work")
    };
    assert_eq!((request.bits, request.size), (4, (8 * 3 + 5) * 512));
}

#[test]
fn thin_requests_are_exactly_one_aligned_granule() {
    let bits = Bits((2..21).collect());
    let mut planner = planner(Shape::new(Sector(8 * 20 + 4), 1 << 20, 32 << 10), 4);
    let mut thin = vec![];
    while let Next::Request(request) = planner.next(&bits) {
        thin.push((request.first.0, request.bits, request.is_thin));
    }
    assert_eq!(thin, [(2, 6, false), (8, 8, true), (16, 5, false)]);
}

#[test]
fn blocks_in_use_are_tried_again_in_the_next_turn() {
    let mut bits = Bits((0..512).collect());
    let mut planner = planner(Shape::new(Sector(8 * 512), 1 << 20, 0), 1);
    let Next::Request(first) = planner.next(&bits) else {
        panic!("there is work")
    };
    assert!(planner.defer(&first));
    assert_eq!(
        planner.next(&bits),
        Next::Blocked,
        "the storage for one is used up"
    );
    // A hole appears in what was put off.
    bits.0.retain(|bit| !(10..20).contains(bit));
    planner.begin_turn();
    let Next::Request(again) = planner.next(&bits) else {
        panic!("it is tried again")
    };
    assert_eq!((again.first.0, again.bits), (0, 10));
    assert!(planner.defer(&again), "it goes back to the rest of it");
    planner.begin_turn();
    assert_eq!(planner.next(&bits), Next::Request(again));
    planner.begin_turn();
    assert_eq!(all(&mut planner, &bits), [(20, 236), (256, 256)]);
    assert_eq!(planner.next(&bits), Next::Done);
}

#[test]
fn nothing_is_put_off_without_storage_for_it() {
    let bits = Bits((0..4).collect());
    let mut planner = planner(Shape::new(Sector(32), 4096, 0), 0);
    let Next::Request(request) = planner.next(&bits) else {
        panic!("there is work")
    };
    assert!(!planner.defer(&request));
    assert_eq!(all(&mut planner, &bits).len(), 3);
}

proptest! {
    #[test]
    fn every_set_bit_is_asked_for_once(
        dirty in prop::collection::btree_set(0_u64..3000, 0..800),
        max_log in 12_u32..21,
        thin_log in 11_u32..21,
        busy in prop::collection::vec(any::<bool>(), 1..50),
    ) {
        let mut bits = Bits(dirty.clone());
        let mut planner = planner(Shape::new(Sector(8 * 3000), 1 << max_log, 1 << thin_log), 3);
        let mut asked = BTreeSet::new();
        let mut busy = busy.into_iter().chain(std::iter::repeat(false));
        for _turn in 0..4000 {
            planner.begin_turn();
            loop {
                match planner.next(&bits) {
                    Next::Request(request) => {
                        prop_assert!(request.size <= 1 << max_log);
                        let last = request.first.0 + u64::from(request.bits) - 1;
                        prop_assert_eq!(request.first.0 >> (max_log - 12), last >> (max_log - 12));
                        if busy.next() == Some(true) {
                            prop_assert!(planner.defer(&request));
                            continue;
                        }
                        for bit in request.first.0..=last {
                            prop_assert!(bits.0.remove(&bit) && asked.insert(bit));
                        }
                    }
                    Next::Blocked => break,
                    Next::Done => {
                        prop_assert_eq!(&asked, &dirty);
                        return Ok(());
                    }
                }
            }
        }
        prop_assert!(false, "it does not end");
    }
}

#[test]
fn verify_goes_block_by_block_from_start_to_stop() {
    let mut verify = VerifyPlanner::new(Sector(9), Sector(30), Sector(27));
    let blocks: Vec<_> = verify
        .by_ref()
        .map(|request| (request.sector.0, request.size))
        .collect();
    assert_eq!(blocks, [(8, 4096), (16, 4096), (24, 1536)]);
    assert_eq!(verify.position(), Sector(32));
}

const WHOLE: Extent = Extent {
    start: Sector(0),
    stop: Sector(u64::MAX),
};

/// Asks for everything that is left; the sectors.
fn ask_all(verify: &mut Verify) -> Vec<u64> {
    let mut asked = vec![];
    while let Some(request) = verify.peek() {
        verify.asked();
        asked.push(request.sector.0);
    }
    asked
}

#[test]
fn a_verify_ends_with_the_last_answer() {
    let mut verify = Verify::drive(WHOLE, Sector(20), 101);
    assert_eq!((verify.total_bits(), verify.left_bits()), (3, 3));
    assert_eq!(ask_all(&mut verify), [0, 8, 16]);
    assert!(!verify.is_over());
    for sector in [8, 0] {
        let settled = verify.answered(Sector(sector), 4096, Some(VerifyResult::InSync));
        assert_eq!(settled, Settled::default());
    }
    let last = verify.answered(Sector(16), 2048, Some(VerifyResult::InSync));
    assert!(last.is_done && verify.is_over());
    assert_eq!(verify.resume_at(Sector(20)), Sector(0));
}

#[test]
fn neighbours_that_differ_are_reported_together() {
    let mut verify = Verify::drive(WHOLE, Sector(80), 101);
    ask_all(&mut verify);
    let mut reports = vec![];
    for bit in 0..10 {
        let result = match bit {
            1 | 2 | 4 | 9 => VerifyResult::OutOfSync,
            _ => VerifyResult::InSync,
        };
        let settled = verify.answered(Sector(bit * 8), 4096, Some(result));
        assert_eq!(settled.is_done, bit == 9);
        reports.extend(settled.report);
    }
    reports.extend(verify.take_report());
    let found: Vec<_> = reports
        .iter()
        .map(|run| (run.start.0, run.sectors))
        .collect();
    assert_eq!(found, [(8, 16), (32, 8), (72, 8)]);
    assert_eq!(verify.take_report(), None);
}

#[test]
fn neighbours_are_reported_together_in_whatever_order_they_come() {
    let mut verify = Verify::drive(WHOLE, Sector(80_000), 101);
    ask_all(&mut verify);
    let mut answer = |bit: u64, result| {
        let settled = verify.answered(Sector(bit * 8), 4096, Some(result));
        settled.report.map(|run| (run.start.0, run.sectors))
    };
    for (bit, result) in [
        (102, VerifyResult::OutOfSync),
        (103, VerifyResult::InSync),
        (101, VerifyResult::OutOfSync),
        (99, VerifyResult::InSync),
        (100, VerifyResult::OutOfSync),
        (104, VerifyResult::InSync),
    ] {
        assert_eq!(answer(bit, result), None);
    }
    assert_eq!(answer(2000, VerifyResult::InSync), Some((800, 24)));
    assert_eq!(answer(2001, VerifyResult::InSync), None);
}

#[test]
fn a_verify_stops_early_only_if_the_peer_understands() {
    let part = Extent {
        start: Sector(17),
        stop: Sector(30),
    };
    for (apv, first, last, total) in [
        (101, 16, 24, 6),
        (97, 16, 24, 6),
        (100, 16, 56, 6),
        (96, 16, 56, 6),
        (90, 16, 56, 6),
        (89, 0, 56, 8),
    ] {
        let mut verify = Verify::drive(part, Sector(64), apv);
        assert_eq!(verify.total_bits(), total, "{apv}");
        let asked = ask_all(&mut verify);
        assert_eq!((asked[0], asked[asked.len() - 1]), (first, last), "{apv}");
    }
}

#[test]
fn a_stopped_verify_goes_on_where_it_was() {
    let part = Extent {
        start: Sector(0),
        stop: Sector(32),
    };
    let mut verify = Verify::drive(part, Sector(64), 101);
    for sector in ask_all(&mut verify) {
        verify.answered(Sector(sector), 4096, Some(VerifyResult::InSync));
    }
    assert!(verify.is_over());
    assert_eq!(verify.resume_at(Sector(64)), Sector(32));
    assert_eq!(verify.stop_sector(Sector(64)), Some(Sector(32)));
    let beyond = Extent {
        start: Sector(1 << 40),
        ..WHOLE
    };
    let verify = Verify::drive(beyond, Sector(64), 101);
    assert_eq!(verify.peek().unwrap().sector, Sector(56));
    assert_eq!(verify.stop_sector(Sector(64)), None);
}

#[test]
fn the_other_side_learns_the_start_from_the_first_request() {
    let mut verify = Verify::follow(Sector(64));
    assert!(verify.requested(Sector(40), 101));
    assert!(!verify.requested(Sector(48), 101));
    assert_eq!((verify.total_bits(), verify.left_bits()), (3, 3));
    for (sector, done) in [(48, false), (40, false), (56, true), (56, false)] {
        let settled = verify.answered(Sector(sector), 4096, Some(VerifyResult::InSync));
        assert_eq!(settled.is_done, done);
    }
    let mut old = Verify::follow(Sector(64));
    assert!(old.requested(Sector(0), 89));
    assert_eq!(old.total_bits(), 8);
    // A result without a request ends nothing.
    let mut none = Verify::follow(Sector(8));
    assert!(!none.answered(Sector(0), 4096, None).is_done);
}

#[test]
fn answers_to_an_earlier_verify_do_not_count() {
    let mut verify = Verify::drive(WHOLE, Sector(64), 101);
    verify.asked();
    let late = verify.answered(Sector(24), 4096, Some(VerifyResult::OutOfSync));
    assert_eq!((late, verify.left_bits()), (Settled::default(), 8));
    verify.answered(Sector(0), 4096, None);
    assert_eq!(verify.left_bits(), 7);
}

/// A source that answers after `latency_ns`, at most `link_rate` sectors per second.
#[derive(Debug)]
struct Link {
    controller: Controller,
    latency_ns: u64,
    link_rate: u64,
    max_buffers: u32,
    beside_application: bool,
    min_rate_kib: u32,
    on_the_way: std::collections::VecDeque<(u64, u64, u32)>,
    next: u64,
    in_flight: u64,
    arrived: u64,
    now: u64,
    link_free: u64,
    /// How long what comes next waited for the link, at most.
    longest_wait: u64,
}

impl Link {
    fn new(pace: Pace, latency_ns: u64, link_rate: u64, max_buffers: u32) -> Self {
        Self {
            controller: Controller::new(pace, 0),
            latency_ns,
            link_rate,
            max_buffers,
            beside_application: false,
            min_rate_kib: 250,
            on_the_way: Default::default(),
            next: 0,
            in_flight: 0,
            arrived: 0,
            now: 0,
            link_free: 0,
            longest_wait: 0,
        }
    }

    /// One that nobody tuned, for so long beside an application that it has settled.
    fn beside_application(link_rate: u64, latency_ns: u64, min_rate_kib: u32) -> Self {
        let pace = Pace::Auto { max_rate_kib: None };
        let mut link = Self::new(pace, latency_ns, link_rate, 256_000);
        link.min_rate_kib = min_rate_kib;
        link.run(5, SECOND_NS / 10_000);
        link.beside_application = true;
        link.run(10, SECOND_NS / 10_000);
        link
    }

    fn turn(&mut self, turn_ns: u64) {
        self.now += turn_ns;
        while let Some(&(due, first, sectors)) = self.on_the_way.front() {
            if due > self.now {
                break;
            }
            self.on_the_way.pop_front();
            self.in_flight -= u64::from(sectors);
            self.arrived += u64::from(sectors);
            self.controller.arrived(Sector(first), sectors, due);
        }
        loop {
            let limits = Limits {
                in_flight_sectors: self.in_flight,
                max_buffers: self.max_buffers,
                beside_application: self.beside_application,
                min_rate_kib: self.min_rate_kib,
            };
            if self.controller.turn(&limits, self.now) == 0 {
                break;
            }
            self.ask(self.controller.largest_request(&limits) >> 9);
        }
        let wait = self.link_free.saturating_sub(self.now + self.latency_ns);
        self.longest_wait = self.longest_wait.max(wait);
    }

    fn ask(&mut self, sectors: u32) {
        self.controller.asked(Sector(self.next), sectors, self.now);
        let transfer_ns = u64::from(sectors) * SECOND_NS / self.link_rate;
        self.link_free = self.link_free.max(self.now + self.latency_ns) + transfer_ns;
        self.on_the_way
            .push_back((self.link_free, self.next, sectors));
        self.in_flight += u64::from(sectors);
        self.next += u64::from(sectors);
    }

    /// Sectors that arrive in the next seconds.
    fn run(&mut self, seconds: u64, turn_ns: u64) -> u64 {
        let (end, before) = (self.now + seconds * SECOND_NS, self.arrived);
        self.longest_wait = 0;
        while self.now < end {
            self.turn(turn_ns);
        }
        self.arrived - before
    }
}

fn simulate(pace: Pace, turn_ns: u64, latency_ns: u64, link_rate: u64, max_buffers: u32) -> u64 {
    Link::new(pace, latency_ns, link_rate, max_buffers).run(20, turn_ns)
}

const FAST_LINK: u64 = 2 << 20;

#[test]
fn a_fixed_rate_is_obeyed_over_time_however_large_the_requests() {
    for rate_kib in [250, 5000, 102_400] {
        for turn_ns in [TURN_NS / 10, TURN_NS] {
            let pace = Pace::Fixed { rate_kib };
            let arrived = simulate(pace, turn_ns, SECOND_NS / 1000, FAST_LINK, 80_000);
            let expected = 20 * 2 * u64::from(rate_kib);
            let slack = 2 * 2048 + expected / 50;
            assert!(
                arrived.abs_diff(expected) <= slack,
                "{rate_kib} {turn_ns}: {arrived}"
            );
        }
    }
}

#[test]
fn another_rate_holds_from_the_next_turn_on() {
    let limits = |in_flight_sectors| Limits {
        in_flight_sectors,
        max_buffers: 100_000,
        beside_application: false,
        min_rate_kib: 250,
    };
    let mut controller = Controller::new(Pace::Fixed { rate_kib: 250 }, 0);
    let slow = controller.turn(&limits(0), TURN_NS);
    controller.asked(Sector(0), 100 * slow, TURN_NS);
    assert_eq!(controller.turn(&limits(0), 2 * TURN_NS), 0);
    controller.set_pace(Pace::Fixed { rate_kib: 250 });
    assert_eq!(controller.turn(&limits(0), 3 * TURN_NS), 0);
    controller.set_pace(Pace::Fixed { rate_kib: 102_400 });
    assert!(controller.turn(&limits(0), 4 * TURN_NS) > 100 * slow);
}

#[test]
fn the_dynamic_pace_fills_the_link_up_to_its_ceiling() {
    for window in [Window::Fill(20_000), Window::Delay { ns: SECOND_NS / 10 }] {
        let pace = |max_rate_kib| Pace::Dynamic {
            plan_ahead_ns: 2 * SECOND_NS,
            window,
            start_rate_kib: 10_000,
            max_rate_kib,
        };
        let capped = simulate(pace(20_000), TURN_NS, SECOND_NS / 1000, FAST_LINK, 80_000);
        assert!(
            capped <= 20 * 2 * 20_000 + 3 * 2048 + 20_000,
            "{window:?} {capped}"
        );
    }
    let pace = Pace::Dynamic {
        plan_ahead_ns: 2 * SECOND_NS,
        window: Window::Fill(20_000),
        start_rate_kib: 10_000,
        max_rate_kib: 4_000_000,
    };
    let link = 100_000;
    let arrived = simulate(pace, TURN_NS / 10, SECOND_NS / 1000, link, 80_000);
    assert!(arrived > 20 * link * 8 / 10, "{arrived}");
}

#[test]
fn left_to_itself_it_fills_a_short_and_a_long_link() {
    let pace = Pace::Auto { max_rate_kib: None };
    for latency_ns in [SECOND_NS / 10_000, SECOND_NS / 20] {
        let arrived = simulate(pace, SECOND_NS / 1000, latency_ns, FAST_LINK, 256_000);
        assert!(arrived > 20 * FAST_LINK * 8 / 10, "{latency_ns}: {arrived}");
    }
    let capped = Pace::Auto {
        max_rate_kib: Some(1000),
    };
    assert!(simulate(capped, TURN_NS, SECOND_NS / 1000, FAST_LINK, 80_000) <= 20 * 2000 + 4096);
}

#[test]
fn half_of_the_buffers_bound_what_is_in_flight() {
    let mut controller = Controller::new(Pace::Fixed { rate_kib: 1 << 30 }, 0);
    let limits = |in_flight_sectors| Limits {
        in_flight_sectors,
        max_buffers: 128,
        beside_application: false,
        min_rate_kib: 250,
    };
    assert_eq!(controller.turn(&limits(0), TURN_NS), 512);
    assert_eq!(controller.turn(&limits(500), 2 * TURN_NS), 12);
    assert_eq!(controller.turn(&limits(600), 3 * TURN_NS), 0);
}

#[test]
fn left_to_itself_it_keeps_the_path_short_for_an_application() {
    // 10 MB/s, 100 MB/s and 1 GB/s, nearby and far away.
    for link_rate in [20_000, 200_000, FAST_LINK] {
        for latency_ns in [SECOND_NS / 2000, SECOND_NS / 50] {
            let mut link = Link::beside_application(link_rate, latency_ns, 250);
            for _ in 0..6 {
                let arrived = link.run(10, SECOND_NS / 10_000);
                // Two requests of 64 KiB, or once what fills the way there and back.
                let requests = 256 * SECOND_NS / link_rate;
                assert!(arrived > 10 * link_rate / 4, "{link:?}");
                assert!(link.longest_wait < 2 * latency_ns + requests, "{link:?}");
            }
        }
    }
}

#[test]
fn left_to_itself_it_rests_two_thirds_of_the_time_beside_an_application() {
    let arrived = |latency_ns, min_rate_kib| {
        let mut link = Link::beside_application(200_000, latency_ns, min_rate_kib);
        link.run(10, SECOND_NS / 10_000)
    };
    let near = SECOND_NS / 2000;
    let rested = arrived(near, 250);
    assert!((600_000..700_000).contains(&rested), "{rested}");
    // Not where that would be less than `c-min-rate`, nor where it is 0.
    for min_rate_kib in [0, 40_000] {
        assert!(arrived(near, min_rate_kib) > 1_600_000);
    }
    // Nor where the path is so long that a turn would not fill it.
    assert!(arrived(SECOND_NS / 20, 250) > 1_600_000);
}

#[test]
fn requests_are_small_beside_an_application_where_the_path_is_short() {
    let mut controller = Controller::new(Pace::Auto { max_rate_kib: None }, 0);
    let limits = |beside_application| Limits {
        in_flight_sectors: 0,
        max_buffers: 8192,
        beside_application,
        min_rate_kib: 250,
    };
    assert_eq!(controller.turn(&limits(true), TURN_NS), 1);
    assert_eq!(controller.largest_request(&limits(true)), 32 << 10);
    assert_eq!(controller.largest_request(&limits(false)), 256 << 10);
    controller.set_pace(Pace::Fixed { rate_kib: 250 });
    assert_eq!(controller.largest_request(&limits(true)), 1 << 20);
}

#[test]
fn a_request_that_nobody_answers_is_not_timed_for_ever() {
    let pace = Pace::Auto { max_rate_kib: None };
    let mut link = Link::new(pace, SECOND_NS / 10, FAST_LINK, 256_000);
    link.controller.asked(Sector(u64::MAX), 8, 0);
    link.run(8, SECOND_NS / 1000);
    let slow = link.run(1, SECOND_NS / 1000);
    link.run(3, SECOND_NS / 1000);
    let fast = link.run(1, SECOND_NS / 1000);
    assert!(fast > 2 * slow, "{slow} {fast}");
}

#[test]
fn resync_makes_way_for_the_application_but_keeps_its_minimum() {
    let quiet = Activity {
        disk_sectors: 1000,
        resync_sectors: 900,
        ..Activity::default()
    };
    let mut throttle = Throttle::new(&quiet);
    let fast = Activity {
        recent_rate_kib: 5000,
        ..quiet
    };
    assert!(
        !throttle.must_wait(&fast, 250),
        "the disk is idle but for resync"
    );
    let busy = Activity {
        disk_sectors: 1065,
        ..fast
    };
    assert!(!throttle.clone().must_wait(&busy, 0));
    assert!(
        !throttle.clone().must_wait(&busy, 5000),
        "no faster than the minimum"
    );
    let wanted = Activity {
        range_is_wanted: true,
        ..busy
    };
    assert!(!throttle.clone().must_wait(&wanted, 250));
    let primary = Activity {
        peer_is_primary: true,
        ..busy
    };
    assert!(!throttle.clone().must_wait(&primary, 250));
    assert!(throttle.must_wait(&busy, 250));
    assert!(!throttle.must_wait(&busy, 250), "nothing moved since");
    assert!(!busy.lets_pass(250), "no request is under way");
    let waiting = Activity {
        application_requests: 1,
        ..busy
    };
    assert!(waiting.lets_pass(250) && !waiting.lets_pass(5000) && !waiting.lets_pass(0));
    let waiters = Activity {
        activity_log_waiters: true,
        ..busy
    };
    assert!(throttle.must_wait(&waiters, 250));
}

#[test]
fn rates_come_from_marks_three_seconds_apart() {
    let mut progress = Progress::start(0, 100_000);
    // 1000 bits a second for a minute, then ten times slower.
    for second in 1..=60 {
        progress.advance(second * SECOND_NS, 100_000 - second * 1000);
    }
    for second in 61..=66 {
        progress.advance(second * SECOND_NS, 40_000 - (second - 60) * 100);
    }
    let (now, left) = (66 * SECOND_NS, 39_400);
    assert_eq!(progress.recent_rate_kib(now, left), 400);
    assert!((400..4000).contains(&progress.rolling_rate_kib(now, left)));
    assert_eq!(progress.average_rate_kib(now, left), 60_600 * 4 / 66);
    assert_eq!(progress.done_permille(left), 606);
    assert!(progress.seconds_left(now, left).unwrap() > 39_400 * 4 / 4000);
}

#[test]
fn a_pause_does_not_count() {
    let mut progress = Progress::start(0, 10_000);
    progress.advance(4 * SECOND_NS, 6000);
    progress.pause(4 * SECOND_NS);
    assert_eq!(progress.average_rate_kib(100 * SECOND_NS, 6000), 4000);
    progress.resume(104 * SECOND_NS);
    assert_eq!(progress.average_rate_kib(104 * SECOND_NS, 6000), 4000);
    assert_eq!(progress.rolling_rate_kib(104 * SECOND_NS, 6000), 4000);
}

#[test]
fn it_is_finished_when_only_failed_blocks_are_left() {
    let mut progress = Progress::start(0, 100);
    assert!(!progress.is_finished(1));
    progress.fail(3);
    assert!(progress.is_finished(3) && !progress.is_finished(4));
    assert_eq!(
        (progress.failed_bits(), progress.done_permille(3)),
        (3, 1000)
    );
    assert_eq!(Progress::start(0, 0).done_permille(0), 1000);
}

#[test]
fn what_was_put_aside_is_answered_as_long_as_there_is_a_connection() {
    use crate::state::ConnState;
    let of = |conn, serves_reads, is_lost| PutAside::of(conn, serves_reads, 101, is_lost);
    for conn in [
        ConnState::SyncSource,
        ConnState::PausedSyncS,
        ConnState::VerifyT,
    ] {
        assert_eq!(of(conn, true, false), PutAside::Retry);
        assert_eq!(of(conn, false, false), PutAside::Refuse);
        assert_eq!(of(conn, true, true), PutAside::Forget);
    }
    for conn in [
        ConnState::Connected,
        ConnState::WFBitMapT,
        ConnState::SyncTarget,
        ConnState::VerifyS,
        ConnState::Ahead,
    ] {
        for serves_reads in [true, false] {
            assert_eq!(of(conn, serves_reads, false), PutAside::Cancel);
            let before = PutAside::of(conn, serves_reads, 95, false);
            assert_eq!(before, PutAside::Refuse, "95 knows no P_RS_CANCEL");
        }
        assert_eq!(of(conn, true, true), PutAside::Forget);
    }
}
