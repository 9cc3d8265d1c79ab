// SPDX-License-Identifier: GPL-2.0

//! Which blocks the target of a resync asks for next (spec §6.3).

use core::ops::DerefMut;

use crate::types::{BitNr, Sector, BIT_SIZE, MAX_REQUEST_SIZE, SECTOR_SHIFT};

/// Sectors of one bit.
const BIT_SECTORS: u64 = (BIT_SIZE >> SECTOR_SHIFT) as u64;

/// The bitmap, as the planner sees it.
pub trait DirtyBits {
    /// The first run of set bits at or after `from`: its first bit and its length, of which no more
    /// than `max_bits` need be counted.
    fn next_run(&self, from: BitNr, max_bits: u32) -> Option<(BitNr, u32)>;
}

/// What requests may look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    capacity: Sector,
    max_bits: u32,
    /// The granularity of thin requests in bits, 0 if there are none.
    thin_bits: u32,
}

impl Shape {
    /// `capacity` is the size of the device. `max_bytes` is the largest request that the peer
    /// takes; `thin_bytes` is the `rs-discard-granularity`, 0 unless thin resync was agreed. Both
    /// are rounded down to a power of two and at least one bit.
    pub fn new(capacity: Sector, max_bytes: u32, thin_bytes: u32) -> Self {
        let max_bits = power_of_two_bits(max_bytes.min(MAX_REQUEST_SIZE)).max(1);
        Self {
            capacity,
            max_bits,
            thin_bits: power_of_two_bits(thin_bytes).min(max_bits),
        }
    }

    fn total_bits(&self) -> u64 {
        self.capacity.0.div_ceil(BIT_SECTORS)
    }

    /// The request for the beginning of a run of set bits.
    ///
    /// It has no more than `most_bits`, and does not cross a multiple of the largest request: so it
    /// never crosses one of 16 MiB, which the C driver locks by its first sector alone, and what
    /// follows is aligned. With thin resync it does not cross a multiple of the granularity either.
    fn cut(&self, first: BitNr, run_bits: u32, most_bits: u32) -> Option<Request> {
        let total = self.total_bits();
        let mut end = first.0.checked_add(u64::from(run_bits))?.min(total);
        let largest = self.max_bits.min(most_bits.max(self.thin_bits));
        for grid in [largest, self.thin_bits] {
            if let Some(line) = next_multiple(first.0, grid) {
                end = end.min(line);
            }
        }
        let bits = u32::try_from(end.checked_sub(first.0)?)
            .ok()
            .filter(|&bits| bits > 0)?;
        let start = first.first_sector();
        let end_sector = end.saturating_mul(BIT_SECTORS).min(self.capacity.0);
        let sectors = u32::try_from(end_sector.checked_sub(start.0)?).ok()?;
        let is_whole = u64::from(sectors) == u64::from(bits).saturating_mul(BIT_SECTORS);
        let is_thin = bits == self.thin_bits && is_whole;
        Some(Request {
            first,
            bits,
            sector: start,
            size: sectors << SECTOR_SHIFT,
            is_thin,
        })
    }
}

/// Blocks to ask the source for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The first bit.
    pub first: BitNr,
    /// The number of bits.
    pub bits: u32,
    /// The first sector.
    pub sector: Sector,
    /// The size in bytes; short of the bits at the end of the device.
    pub size: u32,
    /// It may be sent as P_RS_THIN_REQ.
    pub is_thin: bool,
}

impl Request {
    /// The size in sectors.
    pub const fn sectors(&self) -> u32 {
        self.size >> SECTOR_SHIFT
    }
}

/// What the planner has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for these blocks, or [`Planner::defer`] them.
    Request(Request),
    /// Only deferred blocks are left, or too many are: nothing more in this turn.
    Blocked,
    /// Every block was asked for.
    Done,
}

/// Blocks that were in use when their turn came; the default is fit to be lent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deferred {
    first: u64,
    bits: u32,
}

/// Goes once over the bitmap of the target, from the beginning. Blocks in use are put off, in lent
/// storage, and tried again.
///
/// A block that failed is not asked for again: its bit stays set, and the resync ends with it
/// counted as failed.
#[derive(Debug)]
pub struct Planner<S> {
    shape: Shape,
    /// The largest request at present, in bits.
    most_bits: u32,
    next: u64,
    deferred: S,
    oldest: usize,
    len: usize,
    retries_left: usize,
    /// The newest deferred blocks are those behind the request that was yielded last, which was
    /// split off them.
    newest_is_rest: bool,
}

impl<S: DerefMut<Target = [Deferred]>> Planner<S> {
    /// A planner at the beginning of the device. Without storage in `deferred` blocks in use cannot
    /// be put off.
    pub fn new(shape: Shape, deferred: S) -> Self {
        Self {
            shape,
            most_bits: u32::MAX,
            next: 0,
            deferred,
            oldest: 0,
            len: 0,
            retries_left: 0,
            newest_is_rest: false,
        }
    }

    /// No request is to be larger than `max_bytes` from now on, rounded down to a power of two, but
    /// for thin ones.
    pub fn limit_requests(&mut self, max_bytes: u32) {
        self.most_bits = power_of_two_bits(max_bytes).max(1);
    }

    /// Starts again at the beginning: bits were set behind the planner, and nothing else is left to
    /// do.
    pub fn restart(&mut self) {
        self.next = 0;
        self.len = 0;
        self.retries_left = 0;
        self.newest_is_rest = false;
    }

    /// A turn begins: deferred blocks may be tried again, once each.
    pub fn begin_turn(&mut self) {
        self.retries_left = self.len;
    }

    /// What to ask for next.
    pub fn next<B: DirtyBits + ?Sized>(&mut self, dirty: &B) -> Next {
        self.newest_is_rest = false;
        while let Some(deferred) = self.take_deferred() {
            if let Some(request) = self.plan_deferred(dirty, deferred) {
                return Next::Request(request);
            }
        }
        if self.len > 0 && self.len >= self.deferred.len() {
            return Next::Blocked;
        }
        match self.plan(dirty, self.next) {
            Some(request) => {
                self.next = request.first.0.saturating_add(u64::from(request.bits));
                Next::Request(request)
            }
            None => {
                self.next = self.shape.total_bits();
                if self.len > 0 {
                    Next::Blocked
                } else {
                    Next::Done
                }
            }
        }
    }

    /// The blocks that [`Self::next`] just named cannot be asked for now.
    ///
    /// `false` if nothing was lent to remember them: wait for what is in the way, then ask.
    pub fn defer(&mut self, request: &Request) -> bool {
        if self.newest_is_rest && self.rejoin(request) {
            return true;
        }
        self.push(Deferred {
            first: request.first.0,
            bits: request.bits,
        })
    }

    /// How far the planner got, for `/proc/drbd` and debugfs.
    pub fn position(&self) -> BitNr {
        BitNr(self.next)
    }

    fn plan<B: DirtyBits + ?Sized>(&self, dirty: &B, from: u64) -> Option<Request> {
        let (first, bits) = dirty.next_run(BitNr(from), self.shape.max_bits)?;
        self.shape.cut(first, bits, self.most_bits)
    }

    /// What of deferred blocks is still dirty; the rest of them behind a gap is deferred again.
    fn plan_deferred<B: DirtyBits + ?Sized>(
        &mut self,
        dirty: &B,
        blocks: Deferred,
    ) -> Option<Request> {
        let end = blocks.first.saturating_add(u64::from(blocks.bits));
        let (first, bits) = dirty.next_run(BitNr(blocks.first), blocks.bits)?;
        let left = u32::try_from(end.checked_sub(first.0)?)
            .ok()
            .filter(|&left| left > 0)?;
        let request = self.shape.cut(first, bits.min(left), self.most_bits)?;
        let done = request.first.0.saturating_add(u64::from(request.bits));
        let rest = u32::try_from(end.saturating_sub(done)).unwrap_or(0);
        if rest > 0 {
            self.newest_is_rest = self.push(Deferred {
                first: done,
                bits: rest,
            });
        }
        Some(request)
    }

    /// Puts a request back before the blocks it was split off; those between them are clean.
    fn rejoin(&mut self, request: &Request) -> bool {
        self.newest_is_rest = false;
        let place = self.place(self.len.wrapping_sub(1));
        let Some(rest) = self.deferred.get_mut(place) else {
            return false;
        };
        let end = rest.first.saturating_add(u64::from(rest.bits));
        let first = request.first.0;
        let Some(bits) = end
            .checked_sub(first)
            .and_then(|bits| u32::try_from(bits).ok())
        else {
            return false;
        };
        *rest = Deferred { first, bits };
        true
    }

    fn push(&mut self, blocks: Deferred) -> bool {
        let place = self.place(self.len);
        let has_room = self.len < self.deferred.len();
        match self.deferred.get_mut(place) {
            Some(slot) if has_room => {
                *slot = blocks;
                self.len = self.len.saturating_add(1);
                true
            }
            _ => false,
        }
    }

    /// The place of the n-th deferred blocks in the ring.
    fn place(&self, n: usize) -> usize {
        let place = self.oldest.wrapping_add(n).checked_rem(self.deferred.len());
        place.unwrap_or(0)
    }

    fn take_deferred(&mut self) -> Option<Deferred> {
        if self.retries_left == 0 || self.len == 0 {
            return None;
        }
        let blocks = *self.deferred.get(self.oldest)?;
        self.oldest = self
            .oldest
            .wrapping_add(1)
            .checked_rem(self.deferred.len())?;
        self.len = self.len.saturating_sub(1);
        self.retries_left = self.retries_left.saturating_sub(1);
        Some(blocks)
    }
}

/// The number of whole bits in a size, rounded down to a power of two; 0 for less than one bit.
fn power_of_two_bits(bytes: u32) -> u32 {
    match (bytes / BIT_SIZE).checked_ilog2() {
        Some(log) => 1_u32.checked_shl(log).unwrap_or(0),
        None => 0,
    }
}

/// The smallest multiple of `grid` above `bit`.
fn next_multiple(bit: u64, grid: u32) -> Option<u64> {
    let grid = u64::from(grid);
    bit.checked_div(grid)?.checked_add(1)?.checked_mul(grid)
}
