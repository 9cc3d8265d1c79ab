// SPDX-License-Identifier: GPL-2.0

//! Which blocks an online verify compares next (spec §1.21, §6.3).

use super::planner::Request;
use crate::types::{BitNr, Sector, BIT_SIZE, SECTOR_SHIFT};

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
