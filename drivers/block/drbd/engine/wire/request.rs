// SPDX-License-Identifier: GPL-2.0

//! Whether the range of a peer's request is one that a device can serve (Spec §1.16, §1.19).

use super::Features;
use crate::types::{Sector, MAX_REQUEST_SIZE, SECTOR_SIZE};

/// What a range is for, which decides how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Blocks that travel: reads, writes, resync and verify.
    Data,
    /// Blocks that are only named: discards, write-zeroes, holes, out-of-sync notes.
    Discard(Features),
}

/// Why a range cannot be served. The connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Nothing at all, no whole sectors, or more than is allowed at once.
    Size {
        /// The first sector.
        sector: Sector,
        /// Bytes.
        size: u32,
    },
    /// The range leaves the device.
    BeyondEnd {
        /// Size of the device.
        capacity: Sector,
        /// The first sector.
        sector: Sector,
        /// Bytes.
        size: u32,
    },
}

impl core::fmt::Display for RequestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size { sector, size } => write!(f, "sector: {sector}s, size: {size}"),
            Self::BeyondEnd {
                capacity,
                sector,
                size,
            } => write!(
                f,
                "request from peer beyond end of local disk: \
                 capacity: {capacity}s < sector: {sector}s + size: {size}"
            ),
        }
    }
}

/// Checks a peer's range of `size` bytes against the device and the protocol's limits.
///
/// # Errors
///
/// [`RequestError`]: the range must not be used for anything.
pub const fn check_request(
    sector: Sector,
    size: u32,
    capacity: Sector,
    kind: RequestKind,
) -> Result<(), RequestError> {
    let max = match kind {
        RequestKind::Data => MAX_REQUEST_SIZE,
        RequestKind::Discard(features) => features.max_discard_size(),
    };
    if size == 0 || size % SECTOR_SIZE != 0 || size > max {
        return Err(RequestError::Size { sector, size });
    }
    match sector.checked_add_bytes(size) {
        Some(end) if end.0 <= capacity.0 => Ok(()),
        _ => Err(RequestError::BeyondEnd {
            capacity,
            sector,
            size,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Sector = Sector(32688);

    fn accepts(sector: u64, size: u32, kind: RequestKind) -> bool {
        check_request(Sector(sector), size, CAPACITY, kind).is_ok()
    }

    #[test]
    fn only_whole_sectors_inside_the_device_pass() {
        assert!(accepts(0, 512, RequestKind::Data));
        assert!(accepts(32687, 512, RequestKind::Data));
        assert!(!accepts(32688, 512, RequestKind::Data));
        assert!(!accepts(32687, 1024, RequestKind::Data));
        assert!(!accepts(0, 0, RequestKind::Data));
        assert!(!accepts(0, 513, RequestKind::Data));
    }

    #[test]
    fn a_range_that_wraps_around_is_beyond_the_end() {
        let range = check_request(Sector(u64::MAX), 512, Sector(u64::MAX), RequestKind::Data);
        assert!(matches!(range, Err(RequestError::BeyondEnd { .. })));
    }

    #[test]
    fn data_ends_at_1_mib_and_discards_at_what_the_features_say() {
        let huge = Sector(1 << 40);
        let accepts = |size, kind| check_request(Sector(0), size, huge, kind).is_ok();
        assert!(accepts(1 << 20, RequestKind::Data));
        assert!(!accepts((1 << 20) + 512, RequestKind::Data));
        let old = RequestKind::Discard(Features::TRIM);
        assert!(accepts(4 << 20, old) && !accepts((4 << 20) + 512, old));
        let new = RequestKind::Discard(Features::OURS);
        assert!(accepts(128 << 20, new) && !accepts((128 << 20) + 512, new));
    }
}
