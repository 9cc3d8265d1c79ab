// SPDX-License-Identifier: GPL-2.0

//! Online verify: which blocks are compared next, what the answers add up to, and when it is over
//! (spec §1.21, §6.3).

use super::planner::Request;
use crate::types::{BitNr, Sector, BIT_SIZE, SECTORS_PER_BIT_SHIFT, SECTOR_SHIFT};
use crate::wire::VerifyResult;

/// The first protocol in which a verify may start at any sector.
const ANY_START_APV: u32 = 90;
/// Answers about blocks that are further apart than this come in the order of the blocks.
const REORDERED_SECTORS: u64 = 2048;

/// Goes from a start sector to a stop sector, one bit's worth of storage at a time.
#[derive(Clone, Copy, Debug)]
pub struct VerifyPlanner {
    next: BitNr,
    stop: Sector,
}

impl VerifyPlanner {
    /// Begins with the block that contains `start` and ends before `stop` or the end of the device,
    /// whichever comes first.
    pub fn new(start: Sector, stop: Sector, capacity: Sector) -> Self {
        Self {
            next: start.bit(),
            stop: Sector(stop.0.min(capacity.0)),
        }
    }

    /// The block that comes next, to see whether it is in use.
    pub fn peek(&self) -> Option<Request> {
        let first = self.next;
        let sector = first.first_sector();
        let left = self.stop.0.checked_sub(sector.0).filter(|&left| left > 0)?;
        let sectors = left.min(u64::from(BIT_SIZE >> SECTOR_SHIFT));
        // Lossless: no more than the sectors of one bit.
        let size = (sectors as u32) << SECTOR_SHIFT;
        Some(Request {
            first,
            bits: 1,
            sector,
            size,
            is_thin: false,
        })
    }

    /// Where it would go on, if it were stopped now.
    pub fn position(&self) -> Sector {
        self.next.first_sector()
    }
}

impl Iterator for VerifyPlanner {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let request = self.peek()?;
        self.next = BitNr(self.next.0.saturating_add(1));
        Some(request)
    }
}

/// What the admin wants to be compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// The sector to start at.
    pub start: Sector,
    /// The sector to stop before.
    pub stop: Sector,
}

/// Whether a verify may stop before the end of the device: the other side has to be told.
pub const fn can_stop_early(apv: u32) -> bool {
    apv >= 97 && apv != 100
}

/// Neighbouring blocks that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The first sector.
    pub start: Sector,
    /// How many sectors.
    pub sectors: u64,
}

impl Differing {
    const fn end(&self) -> u64 {
        self.start.0.saturating_add(self.sectors)
    }
}

/// What an answer led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Blocks that differ and are to be reported now: what follows them is no neighbour.
    pub report: Option<Differing>,
    /// That was the last answer: finish.
    pub is_done: bool,
}

/// A verify under way, on either side.
///
/// The side that drives it asks for blocks ([`Self::peek`], [`Self::asked`]); both count answers
/// ([`Self::answered`]). The other side learns where it starts from the first request.
#[derive(Clone, Copy, Debug)]
pub struct Verify {
    /// On the side that drives it.
    planner: Option<VerifyPlanner>,
    first: BitNr,
    is_positioned: bool,
    total_bits: u64,
    left_bits: u64,
    in_flight: u64,
    differing: Option<Differing>,
}

impl Verify {
    /// The side that drives it. A start beyond the end means the last block.
    pub fn drive(wanted: Extent, capacity: Sector, apv: u32) -> Self {
        let bits = bits_of(capacity);
        let start = match apv {
            ANY_START_APV.. => wanted.start.bit().0.min(bits.saturating_sub(1)),
            _ => 0,
        };
        let stop = if can_stop_early(apv) {
            wanted.stop
        } else {
            capacity
        };
        let total_bits = bits.saturating_sub(start);
        let first = BitNr(start);
        Self {
            planner: Some(VerifyPlanner::new(first.first_sector(), stop, capacity)),
            first,
            is_positioned: true,
            total_bits,
            left_bits: total_bits,
            in_flight: 0,
            differing: None,
        }
    }

    /// The side that answers.
    pub fn follow(capacity: Sector) -> Self {
        let total_bits = bits_of(capacity);
        Self {
            planner: None,
            first: BitNr(0),
            is_positioned: false,
            total_bits,
            left_bits: total_bits,
            in_flight: 0,
            differing: None,
        }
    }

    /// The other side asks for a block. Whether this is where the verify starts.
    pub fn requested(&mut self, sector: Sector, apv: u32) -> bool {
        if self.is_positioned || self.planner.is_some() {
            return false;
        }
        self.is_positioned = true;
        if apv >= ANY_START_APV {
            self.total_bits = self.total_bits.saturating_sub(sector.bit().0);
            self.left_bits = self.total_bits;
        }
        true
    }

    /// The block to ask for next; `None` when all were asked for.
    pub fn peek(&self) -> Option<Request> {
        self.planner?.peek()
    }

    /// The block that [`Self::peek`] named was asked for.
    pub fn asked(&mut self) {
        if let Some(planner) = &mut self.planner {
            if planner.next().is_some() {
                self.in_flight = self.in_flight.saturating_add(1);
            }
        }
    }

    /// A block was compared, or cannot be (`None`).
    ///
    /// What an earlier verify asked for does not count: its blocks were in use, so this one has not
    /// come past them.
    pub fn answered(&mut self, sector: Sector, size: u32, result: Option<VerifyResult>) -> Settled {
        if !self.has_asked(sector.bit()) {
            return Settled::default();
        }
        let had_left = self.left_bits > 0;
        self.left_bits = self.left_bits.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        let report = match result {
            Some(VerifyResult::OutOfSync) => self.differs(sector, u64::from(size >> SECTOR_SHIFT)),
            _ if self.is_past(sector) => self.take_report(),
            _ => None,
        };
        Settled {
            report,
            is_done: had_left && self.is_over(),
        }
    }

    /// The blocks that were found to differ last and were not reported yet.
    pub fn take_report(&mut self) -> Option<Differing> {
        self.differing.take()
    }

    /// Whether all blocks were compared.
    pub fn is_over(&self) -> bool {
        match &self.planner {
            Some(planner) => self.in_flight == 0 && planner.peek().is_none(),
            None => self.is_positioned && self.left_bits == 0,
        }
    }

    /// Bits from the start to the end of the device.
    pub const fn total_bits(&self) -> u64 {
        self.total_bits
    }

    /// Bits that were not compared yet.
    pub const fn left_bits(&self) -> u64 {
        self.left_bits
    }

    /// Where a later verify goes on: at the beginning after one that reached the end.
    pub fn resume_at(&self, capacity: Sector) -> Sector {
        match self.left_bits {
            0 => Sector(0),
            left => BitNr(bits_of(capacity).saturating_sub(left)).first_sector(),
        }
    }

    /// The bit that is asked for next.
    pub fn position(&self, capacity: Sector) -> BitNr {
        match &self.planner {
            Some(planner) => planner.position().bit(),
            None => BitNr(bits_of(capacity).saturating_sub(self.left_bits)),
        }
    }

    /// Where it stops, if that is before the end of the device.
    pub fn stop_sector(&self, capacity: Sector) -> Option<Sector> {
        let stop = self.planner?.stop;
        (stop < capacity).then_some(stop)
    }

    fn has_asked(&self, bit: BitNr) -> bool {
        match &self.planner {
            Some(planner) => bit >= self.first && bit < planner.position().bit(),
            None => true,
        }
    }

    /// Whether an answer is about a block so far behind those that differ that no neighbour of them
    /// is still to come.
    fn is_past(&self, sector: Sector) -> bool {
        let near = |last: &Differing| last.end().saturating_add(REORDERED_SECTORS);
        self.differing.is_some_and(|last| sector.0 > near(&last))
    }

    fn differs(&mut self, sector: Sector, sectors: u64) -> Option<Differing> {
        match &mut self.differing {
            Some(last) if last.end() == sector.0 => {
                last.sectors = last.sectors.saturating_add(sectors);
                None
            }
            Some(last) if sector.0.saturating_add(sectors) == last.start.0 => {
                last.start = sector;
                last.sectors = last.sectors.saturating_add(sectors);
                None
            }
            other => other.replace(Differing {
                start: sector,
                sectors,
            }),
        }
    }
}

const fn bits_of(capacity: Sector) -> u64 {
    capacity.0.div_ceil(1 << SECTORS_PER_BIT_SHIFT)
}
