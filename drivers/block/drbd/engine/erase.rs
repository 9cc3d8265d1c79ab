// SPDX-License-Identifier: GPL-2.0

//! Which of the blocks to be erased a disk discards by itself, and in what portions the others are
//! written (spec §1.16).

use core::{iter, ops::Range};

/// The units a disk discards in: each as a whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardUnits {
    /// Size of a unit in sectors; 0 where every sector is one.
    pub sectors: u32,
    /// The first sector that a unit begins at, or any other.
    pub offset_sectors: u32,
}

impl DiscardUnits {
    /// The units that lie in a range of sectors as a whole; an empty range where there are none.
    ///
    /// ```text
    ///        offset
    /// |------|--------|--------|--------|     units
    ///    ^                 ^                  range: the unit in the middle
    ///    start             end
    /// ```
    pub fn inside(self, range: Range<u64>) -> Range<u64> {
        let none = range.start..range.start;
        let first = match self.past(range.start) {
            0 => Some(range.start),
            past => range.start.checked_add(self.size().saturating_sub(past)),
        };
        let last = range.end.checked_sub(self.past(range.end));
        match first.zip(last) {
            Some((first, last)) if first < last => first..last,
            _ => none,
        }
    }

    fn size(self) -> u64 {
        u64::from(self.sectors.max(1))
    }

    /// How many sectors before `sector` its unit begins.
    fn past(self, sector: u64) -> u64 {
        let size = self.size();
        let rest = |value: u64| value.checked_rem(size).unwrap_or(0);
        // Both are less than a `u32`.
        let since = rest(sector).saturating_add(size);
        rest(since.saturating_sub(rest(u64::from(self.offset_sectors))))
    }
}

/// A range of sectors in portions of at most `sectors_max`: each one's first sector, and how many.
pub fn portions(range: Range<u64>, sectors_max: u32) -> impl Iterator<Item = (u64, u32)> {
    let mut at = range.start;
    iter::from_fn(move || {
        let left = range.end.saturating_sub(at);
        let sectors = u32::try_from(left).unwrap_or(u32::MAX).min(sectors_max);
        let portion = (at, sectors);
        at = at.saturating_add(u64::from(sectors));
        (sectors != 0).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn units(sectors: u32, offset_sectors: u32) -> DiscardUnits {
        DiscardUnits {
            sectors,
            offset_sectors,
        }
    }

    /// What is right by the meaning of the words, the slow way.
    fn by_hand(units: DiscardUnits, range: Range<u64>) -> Range<u64> {
        let size = u64::from(units.sectors.max(1));
        let begins = |at: &u64| at % size == u64::from(units.offset_sectors) % size;
        let first = (range.start..=range.end).find(begins);
        let last = (range.start..=range.end).rev().find(begins);
        match first.zip(last) {
            Some((first, last)) if first < last => first..last,
            _ => range.start..range.start,
        }
    }

    #[test]
    fn only_whole_units_are_discarded_wherever_the_first_one_begins() {
        for sectors in 0..9 {
            for offset in 0..20 {
                let units = units(sectors, offset);
                for start in 0..40 {
                    for end in start..40 {
                        let wanted = by_hand(units, start..end);
                        let inside = units.inside(start..end);
                        assert_eq!(inside, wanted, "{units:?} in {start}..{end}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_in_front_of_the_first_unit_is_not_discarded() {
        // As on a partition that begins in the middle of a unit.
        assert_eq!(units(8, 3).inside(0..3), 0..0);
        assert_eq!(units(8, 3).inside(1..11), 3..11);
    }

    #[test]
    fn the_end_of_all_numbers_is_no_unit() {
        let end = u64::MAX;
        assert!(units(8, 0).inside(end - 3..end).is_empty());
        assert!(units(u32::MAX, u32::MAX).inside(end - 3..end).is_empty());
        let before = |at: u64| at - 1;
        assert!(units(8, 0).inside(end..before(end)).is_empty());
    }

    #[test]
    fn portions_cover_a_range_once_and_in_order() {
        let all: Vec<_> = portions(5..26, 8).collect();
        assert_eq!(all, [(5, 8), (13, 8), (21, 5)]);
        assert_eq!(portions(5..13, 8).count(), 1);
        assert_eq!(portions(5..5, 8).count(), 0);
        let before = |at: u64| at - 1;
        assert_eq!(portions(6..before(6), 8).count(), 0);
        assert_eq!(portions(5..26, 0).count(), 0);
        let last: Vec<_> = portions(u64::MAX - 1..u64::MAX, 8).collect();
        assert_eq!(last, [(u64::MAX - 1, 1)]);
    }
}
