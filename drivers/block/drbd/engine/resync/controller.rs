// SPDX-License-Identifier: GPL-2.0

//! How much the driving node may ask for (spec §6.3).
//!
//! The C driver runs turns of 100 ms and plans corrections in a queue of that many slots. Here the
//! same rules are put by time, so a turn may come whenever something arrived: what arrived is asked
//! for again, plus the part of the missing (or surplus) in-flight data that falls on the time since
//! the last turn when it is to be made up within `c-plan-ahead`. Blocks are asked for in large
//! requests, so what is granted is an account: a request may overdraw it and is paid off by later
//! turns. That keeps a fixed rate exact over time.

use crate::timer::SECOND_NS;
use crate::types::{Sector, BIT_SIZE, MAX_REQUEST_SIZE, SECTOR_SHIFT};

/// The C driver's turn. Shorter ones are fine; rates are measured over this time.
pub const TURN_NS: u64 = SECOND_NS / 10;
/// No turn stands for more time than this, however late it comes.
const LONGEST_TURN_NS: u64 = SECOND_NS;
/// Sectors of the largest request.
const REQUEST_SECTORS: u64 = (MAX_REQUEST_SIZE >> SECTOR_SHIFT) as u64;
/// Sectors of a buffer page, the unit of `max-buffers`.
const BUFFER_SECTORS: u64 = (BIT_SIZE >> SECTOR_SHIFT) as u64;
/// What is kept in flight at least when nobody said how much, and no application writes.
const LEAST_WINDOW: u64 = REQUEST_SECTORS;
/// The largest request where the path is short; and while the application writes.
const SHORT_PATH_SECTORS: u64 = REQUEST_SECTORS / 4;
const BESIDE_SECTORS: u64 = REQUEST_SECTORS / 32;
/// A turn of work beside an application is followed by this rest, so that most of its writes find
/// the path free. Only where a turn is long enough to fill the path.
const REST_NS: u64 = 2 * TURN_NS;
/// How long after a write the application is taken to go on.
pub const APPLICATION_MEMORY_NS: u64 = SECOND_NS;
/// How long the shortest observed latency is believed. Then a single request is in flight until
/// another is known: that is the latency of the path and not of what waits on it.
const LATENCY_MEMORY_NS: u64 = 10 * SECOND_NS;

/// How much data a dynamic pace keeps in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// This many sectors: `c-fill-target`.
    Fill(u32),
    /// What arrives in this time: `c-delay-target`.
    Delay {
        /// The time in nanoseconds.
        ns: u64,
    },
}

/// How the pace is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// `c-plan-ahead` 0: `resync-rate`, exactly.
    Fixed {
        /// KiB/s.
        rate_kib: u32,
    },
    /// The C driver's controller.
    Dynamic {
        /// `c-plan-ahead` in nanoseconds: how long making up for a deviation takes.
        plan_ahead_ns: u64,
        /// How much to keep in flight.
        window: Window,
        /// `resync-rate` in KiB/s, for the start.
        start_rate_kib: u32,
        /// `c-max-rate` in KiB/s.
        max_rate_kib: u32,
    },
    /// Nobody said anything: what keeps the path busy, by the rate and the latency observed, and no
    /// less than 1 MiB unless the application writes, which waits behind what is too much. A single
    /// request while the latency is not known. Beside an application two thirds of the time are
    /// rest.
    Auto {
        /// `c-max-rate` in KiB/s if it was set.
        max_rate_kib: Option<u32>,
    },
}

impl Pace {
    const fn max_rate_kib(&self) -> Option<u32> {
        match *self {
            Self::Fixed { rate_kib } => Some(rate_kib),
            Self::Dynamic { max_rate_kib, .. } => Some(max_rate_kib),
            Self::Auto { max_rate_kib } => max_rate_kib,
        }
    }
}

/// What bounds a turn, whatever the pace.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sectors asked for and not yet arrived.
    pub in_flight_sectors: u64,
    /// `max-buffers`, in pages.
    pub max_buffers: u32,
    /// The application wrote within [`APPLICATION_MEMORY_NS`].
    pub beside_application: bool,
    /// `c-min-rate` in KiB/s: no rest makes it slower than that, and 0 means to make no way.
    pub min_rate_kib: u32,
}

/// Grants sectors, turn by turn.
#[derive(Clone, Copy, Debug)]
pub struct Controller {
    pace: Pace,
    last_turn_ns: u64,
    /// Sectors that arrived since the last turn.
    arrived: u64,
    /// What the plan grants, in billionths of a sector.
    planned: Account,
    /// What the rate limit grants.
    limited: Account,
    observed: Path,
    /// What was observed was so beside an application.
    beside_application: bool,
}

impl Controller {
    /// A resync starts.
    pub const fn new(pace: Pace, now_ns: u64) -> Self {
        Self {
            pace,
            last_turn_ns: now_ns,
            arrived: 0,
            planned: Account::EMPTY,
            limited: Account::EMPTY,
            observed: Path::new(now_ns),
            beside_application: false,
        }
    }

    /// Takes another pace if the options changed: what was granted at the old one is forgotten.
    pub fn set_pace(&mut self, pace: Pace) {
        if self.pace != pace {
            self.pace = pace;
            self.planned = Account::EMPTY;
            self.limited = Account::EMPTY;
        }
    }

    /// Blocks that were asked for are on disk, or the source said that they are equal.
    pub fn arrived(&mut self, first: Sector, sectors: u32, now_ns: u64) {
        self.arrived = self.arrived.saturating_add(u64::from(sectors));
        self.observed.arrived(first, sectors, now_ns);
    }

    /// The rate it aims at, in KiB/s: the one that was set, else the best that was observed of
    /// late.
    pub fn aim_kib(&self) -> u64 {
        match self.pace {
            Pace::Fixed { rate_kib } => u64::from(rate_kib),
            Pace::Dynamic { max_rate_kib, .. } => {
                (self.observed.rate / 2).min(u64::from(max_rate_kib))
            }
            Pace::Auto { .. } => self.observed.rate / 2,
        }
    }

    /// Blocks are asked for.
    pub fn asked(&mut self, first: Sector, sectors: u32, now_ns: u64) {
        self.observed.asked(first, now_ns);
        self.planned.take(sectors);
        self.limited.take(sectors);
    }

    /// How many sectors may be asked for now. The last request may be larger than what is left of
    /// it, if it is not 0.
    pub fn turn(&mut self, limits: &Limits, now_ns: u64) -> u32 {
        let elapsed_ns = now_ns
            .saturating_sub(self.last_turn_ns)
            .min(LONGEST_TURN_NS);
        self.last_turn_ns = now_ns;
        let arrived = core::mem::take(&mut self.arrived);
        if self.observed.measure(now_ns) && self.makes_way(limits) {
            self.observed.pause(now_ns.saturating_add(REST_NS));
        }
        if self.beside_application != limits.beside_application {
            self.beside_application = limits.beside_application;
            self.observed.forget_latency();
        }
        let room = room(limits);
        let planned = match self.pace {
            Pace::Fixed { .. } => u64::MAX,
            Pace::Auto { .. } if self.observed.is_paused(now_ns) => 0,
            Pace::Auto { .. } => self
                .auto_window(limits)
                .saturating_sub(limits.in_flight_sectors),
            Pace::Dynamic {
                plan_ahead_ns,
                window,
                start_rate_kib,
                ..
            } => {
                let is_start = limits.in_flight_sectors == 0 && arrived == 0;
                let want = if is_start {
                    sectors_in(start_rate_kib, plan_ahead_ns)
                } else {
                    self.wanted(window)
                };
                let plan = Plan {
                    want,
                    arrived,
                    plan_ahead_ns,
                    elapsed_ns,
                };
                self.follow(&plan, limits.in_flight_sectors)
            }
        };
        let limited = match self.pace.max_rate_kib() {
            Some(rate_kib) => self.limited.earn(rate_kib, elapsed_ns),
            None => u64::MAX,
        };
        u32::try_from(planned.min(limited).min(room)).unwrap_or(u32::MAX)
    }

    /// The size of the largest request to be sent, in bytes: a part of what may be in flight, so
    /// that all on the path have something to do, and a write waits for no more than that.
    pub fn largest_request(&self, limits: &Limits) -> u32 {
        if !matches!(self.pace, Pace::Auto { .. }) {
            return MAX_REQUEST_SIZE;
        }
        let least = if limits.beside_application {
            BESIDE_SECTORS
        } else {
            SHORT_PATH_SECTORS
        };
        let part = self.auto_window(limits) / 4;
        let sectors = part.clamp(least, REQUEST_SECTORS);
        u32::try_from(sectors << SECTOR_SHIFT).unwrap_or(MAX_REQUEST_SIZE)
    }

    /// Grants what arrived, and a part of what is missing in flight.
    fn follow(&mut self, plan: &Plan, in_flight: u64) -> u64 {
        let share = plan.elapsed_ns.saturating_mul(SECOND_NS) / plan.plan_ahead_ns.max(1);
        let share = share.min(SECOND_NS);
        let part = |sectors: u64| i64::try_from(sectors.saturating_mul(share)).unwrap_or(i64::MAX);
        let missing = part(plan.want.saturating_sub(in_flight));
        let surplus = part(in_flight.saturating_sub(plan.want));
        let renewed = billionths(plan.arrived);
        let grant = renewed
            .saturating_add(missing)
            .saturating_sub(surplus)
            .max(0);
        // What is not used up, because nothing was left to ask for, must not pile up.
        self.planned
            .add(grant, plan.want.saturating_add(REQUEST_SECTORS))
    }

    fn wanted(&self, window: Window) -> u64 {
        match window {
            Window::Fill(sectors) => u64::from(sectors),
            Window::Delay { ns } => self.observed.sectors_in(ns),
        }
    }

    /// Whether to rest, a turn being over.
    fn makes_way(&self, limits: &Limits) -> bool {
        let is_short = (self.observed.latency_ns).is_some_and(|ns| ns < TURN_NS / 4);
        let rested_kib = self.aim_kib().saturating_mul(TURN_NS) / (TURN_NS + REST_NS);
        matches!(self.pace, Pace::Auto { .. })
            && limits.beside_application
            && is_short
            && limits.min_rate_kib != 0
            && rested_kib > u64::from(limits.min_rate_kib)
    }

    fn auto_window(&self, limits: &Limits) -> u64 {
        // One request is under way until it is known how long one takes.
        let Some(latency_ns) = self.observed.latency_ns else {
            return 1;
        };
        let least = if limits.beside_application {
            1
        } else {
            LEAST_WINDOW
        };
        // More than the path holds shows whether it can do more.
        let path = self
            .observed
            .sectors_in(latency_ns.saturating_add(latency_ns / 4));
        path.max(least).min(buffer_sectors(limits))
    }
}

/// One turn of the dynamic pace.
struct Plan {
    want: u64,
    arrived: u64,
    plan_ahead_ns: u64,
    elapsed_ns: u64,
}

/// Sectors granted and not asked for, in billionths; below zero after a request that was larger
/// than the grant.
#[derive(Clone, Copy, Debug)]
struct Account(i64);

impl Account {
    const EMPTY: Self = Self(0);

    fn take(&mut self, sectors: u32) {
        self.0 = self.0.saturating_sub(billionths(u64::from(sectors)));
    }

    /// Adds a grant, keeping no more than `most` sectors; the whole sectors there are.
    fn add(&mut self, grant: i64, most: u64) -> u64 {
        self.0 = self.0.saturating_add(grant).min(billionths(most));
        u64::try_from(self.0).unwrap_or(0) / SECOND_NS
    }

    /// Adds what a rate yields. Two turns' worth may pile up: a turn may come late.
    fn earn(&mut self, rate_kib: u32, elapsed_ns: u64) -> u64 {
        let per_second = u64::from(rate_kib).saturating_mul(2);
        let grant = i64::try_from(per_second.saturating_mul(elapsed_ns)).unwrap_or(i64::MAX);
        let most = sectors_in(rate_kib, TURN_NS.max(elapsed_ns).saturating_mul(2));
        self.add(grant, most.max(BUFFER_SECTORS))
    }
}

/// What was observed of the way to the source and back.
#[derive(Clone, Copy, Debug)]
struct Path {
    /// The shortest time of late from asking for blocks until they were on disk.
    latency_ns: Option<u64>,
    latency_seen_ns: u64,
    /// The request that is timed, and since when; one at a time.
    timed: Option<(Sector, u64)>,
    /// The best rate of late, sectors per second.
    rate: u64,
    /// What arrived since the measurement began, or will begin: until then nothing is asked for.
    sample: u64,
    sample_start_ns: u64,
}

impl Path {
    const fn new(now_ns: u64) -> Self {
        Self {
            latency_ns: None,
            latency_seen_ns: now_ns,
            timed: None,
            rate: 0,
            sample: 0,
            sample_start_ns: now_ns,
        }
    }

    fn asked(&mut self, first: Sector, now_ns: u64) {
        let is_awaited = self
            .timed
            .is_some_and(|(_, since_ns)| now_ns.saturating_sub(since_ns) < LATENCY_MEMORY_NS);
        if !is_awaited {
            self.timed = Some((first, now_ns));
        }
    }

    fn arrived(&mut self, first: Sector, sectors: u32, now_ns: u64) {
        if !self.is_paused(now_ns) {
            self.sample = self.sample.saturating_add(u64::from(sectors));
        }
        let Some((_, since_ns)) = self.timed.take_if(|(timed, _)| *timed == first) else {
            return;
        };
        let latency_ns = now_ns.saturating_sub(since_ns);
        if self
            .latency_ns
            .is_none_or(|least_ns| latency_ns <= least_ns)
        {
            self.latency_ns = Some(latency_ns);
            self.latency_seen_ns = now_ns;
        }
    }

    /// The next request that is asked for is timed anew.
    fn forget_latency(&mut self) {
        self.latency_ns = None;
        self.timed = None;
    }

    /// Nothing is measured until then.
    fn pause(&mut self, until_ns: u64) {
        self.sample = 0;
        self.sample_start_ns = until_ns;
    }

    const fn is_paused(&self, now_ns: u64) -> bool {
        now_ns < self.sample_start_ns
    }

    /// Measures the rate; whether a turn is over.
    fn measure(&mut self, now_ns: u64) -> bool {
        let is_known = self.latency_ns.is_some();
        if is_known && now_ns.saturating_sub(self.latency_seen_ns) > LATENCY_MEMORY_NS {
            self.forget_latency();
        }
        let elapsed_ns = now_ns.saturating_sub(self.sample_start_ns);
        if elapsed_ns < TURN_NS {
            return false;
        }
        let rate = self
            .sample
            .saturating_mul(SECOND_NS)
            .checked_div(elapsed_ns)
            .unwrap_or(0);
        let fading = self.rate.saturating_sub(self.rate / 8);
        self.rate = rate.max(fading);
        self.pause(now_ns);
        true
    }

    fn sectors_in(&self, ns: u64) -> u64 {
        self.rate.saturating_mul(ns) / SECOND_NS
    }
}

fn billionths(sectors: u64) -> i64 {
    i64::try_from(sectors.saturating_mul(SECOND_NS)).unwrap_or(i64::MAX)
}

/// Sectors that a rate in KiB/s yields in a time.
fn sectors_in(rate_kib: u32, ns: u64) -> u64 {
    u64::from(rate_kib).saturating_mul(2).saturating_mul(ns) / SECOND_NS
}

/// Half of the buffers are for resync.
fn buffer_sectors(limits: &Limits) -> u64 {
    u64::from(limits.max_buffers / 2).saturating_mul(BUFFER_SECTORS)
}

fn room(limits: &Limits) -> u64 {
    buffer_sectors(limits).saturating_sub(limits.in_flight_sectors)
}
