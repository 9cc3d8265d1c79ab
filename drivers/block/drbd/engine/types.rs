// SPDX-License-Identifier: GPL-2.0

//! Newtypes for the numbers that must not be swapped, and the units they are counted in.

/// Bytes in a sector, the unit of every offset on the wire and on disk.
pub const SECTOR_SIZE: u32 = 512;
/// log2 of [`SECTOR_SIZE`].
pub const SECTOR_SHIFT: u32 = 9;
/// Bytes of storage that one bitmap bit stands for.
pub const BIT_SIZE: u32 = 4096;
/// log2 of the number of sectors that one bitmap bit stands for.
pub const SECTORS_PER_BIT_SHIFT: u32 = 3;
/// log2 of the number of sectors in an activity log extent (4 MiB).
pub const SECTORS_PER_EXTENT_SHIFT: u32 = 13;
/// Largest application request and largest resync request in bytes.
pub const MAX_REQUEST_SIZE: u32 = 1 << 20;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// An offset or a length on a volume, in sectors of 512 bytes.
    Sector(u64)
}
number! {
    /// A node-local device number: `/dev/drbdN` is minor N.
    Minor(u32)
}
number! {
    /// A volume of a resource: its identity across nodes (0..=65534).
    VolumeNr(u16)
}
number! {
    /// The number of a bitmap bit: 4 KiB of storage.
    BitNr(u64)
}
number! {
    /// The number of an activity log extent: 4 MiB of storage.
    ExtentNr(u32)
}
number! {
    /// A cookie chosen by the requester and echoed verbatim by the responder (spec §1.1).
    ///
    /// Kept as the raw big-endian value of its eight bytes; only its creator gives it a meaning.
    BlockId(u64)
}

impl BlockId {
    /// The id of resync traffic: all ones, so endian neutral (spec §1.1).
    pub const SYNCER: Self = Self(u64::MAX);
}

impl Sector {
    /// The bitmap bit that covers this sector.
    pub const fn bit(self) -> BitNr {
        BitNr(self.0 >> SECTORS_PER_BIT_SHIFT)
    }

    /// This offset in bytes, or `None` where it does not fit.
    pub const fn bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_SIZE as u64)
    }

    /// The sector `bytes` further on; `None` on overflow. Partial sectors are rounded down.
    pub const fn checked_add_bytes(self, bytes: u32) -> Option<Self> {
        match self.0.checked_add((bytes >> SECTOR_SHIFT) as u64) {
            Some(sector) => Some(Self(sector)),
            None => None,
        }
    }
}

impl BitNr {
    /// The first sector that this bit covers, saturating at the largest sector number.
    pub const fn first_sector(self) -> Sector {
        Sector(self.0.saturating_mul(1 << SECTORS_PER_BIT_SHIFT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_covers_eight_sectors() {
        assert_eq!(Sector(7).bit(), BitNr(0));
        assert_eq!(Sector(8).bit(), BitNr(1));
        assert_eq!(BitNr(3).first_sector(), Sector(24));
    }

    #[test]
    fn byte_offsets_that_do_not_fit_are_refused() {
        assert_eq!(Sector(2).bytes(), Some(1024));
        assert_eq!(Sector(u64::MAX).bytes(), None);
        assert_eq!(Sector(u64::MAX).checked_add_bytes(512), None);
    }
}
