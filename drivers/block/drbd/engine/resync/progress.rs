// SPDX-License-Identifier: GPL-2.0

//! How far a resync or verify got and how fast it is (spec §6.5).

use crate::timer::SECOND_NS;
use crate::types::BIT_SIZE;

/// The number of marks.
pub const MARKS: usize = 8;
/// The time between two marks.
pub const MARK_STEP_NS: u64 = 3 * SECOND_NS;
/// KiB of one bit.
const BIT_KIB: u64 = (BIT_SIZE / 1024) as u64;

/// What was left to do at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub time_ns: u64,
    /// Bits that were left.
    pub left_bits: u64,
}

/// The progress of one resync or verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    start_ns: u64,
    total_bits: u64,
    failed_bits: u64,
    same_checksum_bits: u64,
    paused_since_ns: Option<u64>,
    paused_ns: u64,
    marks: [Mark; MARKS],
    last: usize,
}

impl Progress {
    /// A resync of `total_bits` starts.
    pub const fn start(now_ns: u64, total_bits: u64) -> Self {
        let mark = Mark {
            time_ns: now_ns,
            left_bits: total_bits,
        };
        Self {
            start_ns: now_ns,
            total_bits,
            failed_bits: 0,
            same_checksum_bits: 0,
            paused_since_ns: None,
            paused_ns: 0,
            marks: [mark; MARKS],
            last: 0,
        }
    }

    /// Bits were cleared: `left_bits` are left. Sets a mark if it is time for one.
    pub fn advance(&mut self, now_ns: u64, left_bits: u64) {
        let last = self.mark(self.last);
        let is_due = now_ns >= last.time_ns.saturating_add(MARK_STEP_NS);
        if !is_due || last.left_bits == left_bits || self.paused_since_ns.is_some() {
            return;
        }
        self.last = self.step(1);
        if let Some(mark) = self.marks.get_mut(self.last) {
            *mark = Mark {
                time_ns: now_ns,
                left_bits,
            };
        }
    }

    /// Blocks could not be read or written; their bits stay set.
    pub fn fail(&mut self, bits: u32) {
        self.failed_bits = self.failed_bits.saturating_add(u64::from(bits));
    }

    /// Blocks were found equal by their checksum.
    pub fn same_checksum(&mut self, bits: u32) {
        self.same_checksum_bits = self.same_checksum_bits.saturating_add(u64::from(bits));
    }

    /// The resync is paused.
    pub fn pause(&mut self, now_ns: u64) {
        if self.paused_since_ns.is_none() {
            self.paused_since_ns = Some(now_ns);
        }
    }

    /// The resync goes on; the time of the pause does not count.
    pub fn resume(&mut self, now_ns: u64) {
        let Some(since_ns) = self.paused_since_ns.take() else {
            return;
        };
        let pause_ns = now_ns.saturating_sub(since_ns);
        self.paused_ns = self.paused_ns.saturating_add(pause_ns);
        for mark in &mut self.marks {
            mark.time_ns = mark.time_ns.saturating_add(pause_ns);
        }
    }

    /// Bits at the start (`rs_total`).
    pub const fn total_bits(&self) -> u64 {
        self.total_bits
    }

    /// Bits that failed (`rs_failed`).
    pub const fn failed_bits(&self) -> u64 {
        self.failed_bits
    }

    /// Bits whose blocks were equal already.
    pub const fn same_checksum_bits(&self) -> u64 {
        self.same_checksum_bits
    }

    /// Whether nothing more can be done: only failed blocks are left (spec §6.5).
    pub const fn is_finished(&self, set_bits: u64) -> bool {
        set_bits <= self.failed_bits
    }

    /// The part that is done, in thousandths.
    pub fn done_permille(&self, left_bits: u64) -> u32 {
        let done = self
            .total_bits
            .saturating_sub(left_bits.saturating_sub(self.failed_bits));
        let permille = done
            .saturating_mul(1000)
            .checked_div(self.total_bits)
            .unwrap_or(1000);
        u32::try_from(permille).unwrap_or(1000).min(1000)
    }

    /// The rate over the last two marks in KiB/s, for the throttle.
    pub fn recent_rate_kib(&self, now_ns: u64, left_bits: u64) -> u64 {
        self.rate_since(self.step(MARKS.wrapping_sub(1)), now_ns, left_bits)
    }

    /// The rate over the marks that are still kept in KiB/s, for `/proc/drbd`.
    pub fn rolling_rate_kib(&self, now_ns: u64, left_bits: u64) -> u64 {
        self.rate_since(self.step(2), now_ns, left_bits)
    }

    /// The rate since the start in KiB/s, without pauses.
    pub fn average_rate_kib(&self, now_ns: u64, left_bits: u64) -> u64 {
        let elapsed_ns = now_ns
            .saturating_sub(self.start_ns)
            .saturating_sub(self.paused(now_ns));
        rate_kib(self.total_bits.saturating_sub(left_bits), elapsed_ns)
    }

    /// Seconds until it is done at the rolling rate; `None` while nothing moves.
    pub fn seconds_left(&self, now_ns: u64, left_bits: u64) -> Option<u64> {
        let rate = self.rolling_rate_kib(now_ns, left_bits);
        left_bits
            .saturating_sub(self.failed_bits)
            .saturating_mul(BIT_KIB)
            .checked_div(rate)
    }

    /// The oldest mark that is sure to be kept whole: two after the last.
    pub fn rolling_mark(&self) -> Mark {
        self.mark(self.step(2))
    }

    /// When it started.
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// How long it has been paused altogether.
    pub fn paused(&self, now_ns: u64) -> u64 {
        let running = self
            .paused_since_ns
            .map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        self.paused_ns.saturating_add(running)
    }

    fn rate_since(&self, index: usize, now_ns: u64, left_bits: u64) -> u64 {
        let mark = self.mark(index);
        let now_ns = self.paused_since_ns.unwrap_or(now_ns);
        rate_kib(
            mark.left_bits.saturating_sub(left_bits),
            now_ns.saturating_sub(mark.time_ns),
        )
    }

    fn mark(&self, index: usize) -> Mark {
        self.marks.get(index).copied().unwrap_or_default()
    }

    /// The index `steps` after the last mark.
    const fn step(&self, steps: usize) -> usize {
        self.last.wrapping_add(steps) % MARKS
    }
}

/// Bits in a time as KiB/s; a time below a millisecond counts as one.
fn rate_kib(bits: u64, elapsed_ns: u64) -> u64 {
    let kib = bits.saturating_mul(BIT_KIB);
    let elapsed_ms = (elapsed_ns / 1_000_000).max(1);
    kib.saturating_mul(1000)
        .checked_div(elapsed_ms)
        .unwrap_or(0)
}
