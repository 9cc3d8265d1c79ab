// SPDX-License-Identifier: GPL-2.0

//! The extents that one request touches.

use crate::types::{ExtentNr, Sector, SECTORS_PER_EXTENT_SHIFT, SECTOR_SHIFT};

/// One extent or several in a row; never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: u32,
    last: u32,
}

impl Span {
    /// The extents that `size` bytes from `sector` on touch; none for an empty request or one
    /// beyond the last extent's number.
    pub fn of(sector: Sector, size: u32) -> Option<Self> {
        let last_sector = sector
            .0
            .checked_add(u64::from(size >> SECTOR_SHIFT).checked_sub(1)?)?;
        Some(Self {
            first: extent(sector.0)?,
            last: extent(last_sector)?,
        })
    }

    /// One extent.
    ///
    /// Number 0xffffffff means "none" on disk and is not an extent.
    pub fn one(extent: ExtentNr) -> Option<Self> {
        (extent.0 != u32::MAX).then_some(Self {
            first: extent.0,
            last: extent.0,
        })
    }

    /// The first extent.
    pub const fn first(self) -> ExtentNr {
        ExtentNr(self.first)
    }

    /// The last extent.
    pub const fn last(self) -> ExtentNr {
        ExtentNr(self.last)
    }

    /// How many extents.
    pub const fn count(self) -> u32 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// The extents in ascending order.
    pub fn extents(self) -> impl Iterator<Item = ExtentNr> {
        (self.first..=self.last).map(ExtentNr)
    }
}

fn extent(sector: u64) -> Option<u32> {
    let extent = u32::try_from(sector >> SECTORS_PER_EXTENT_SHIFT).ok()?;
    (extent != u32::MAX).then_some(extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(sector: u64, size: u32) -> Option<(u32, u32)> {
        Span::of(Sector(sector), size).map(|span| (span.first().0, span.last().0))
    }

    #[test]
    fn a_request_touches_the_extents_of_its_first_and_last_sector() {
        assert_eq!(bounds(0, 512), Some((0, 0)));
        assert_eq!(bounds(8191, 512), Some((0, 0)));
        assert_eq!(bounds(8191, 1024), Some((0, 1)));
        assert_eq!(bounds(8192, 4 << 20), Some((1, 1)));
        assert_eq!(Span::of(Sector(8), 128 << 20).unwrap().count(), 33);
    }

    #[test]
    fn an_empty_request_and_one_out_of_range_touch_none() {
        assert_eq!(bounds(8, 0), None);
        assert_eq!(bounds(u64::MAX, 512), None);
        assert_eq!(bounds(u64::from(u32::MAX) << 13, 512), None);
        assert_eq!(bounds((u64::from(u32::MAX) << 13) - 1, 1024), None);
        assert_eq!(Span::one(ExtentNr(u32::MAX)), None);
    }
}
