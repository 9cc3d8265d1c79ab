// SPDX-License-Identifier: GPL-2.0

//! P_UUIDS and P_SYNC_UUID: generation UUIDs (Spec §1.8).

use zerocopy::big_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// What a node says about its data besides the UUIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UuidFlags(pub u64);

impl UuidFlags {
    /// My data loses a split brain.
    pub const DISCARD_MY_DATA: Self = Self(1);
    /// I crashed while I was primary.
    pub const CRASHED_PRIMARY: Self = Self(2);
    /// My disk, although not yet attached, is Inconsistent.
    pub const INCONSISTENT: Self = Self(4);
    /// Both sides are fresh: skip the initial sync.
    pub const SKIP_INITIAL_SYNC: Self = Self(8);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// The flags that 8.4 knows, without those of DRBD 9.
    pub const fn known(self) -> Self {
        Self(self.0 & 0xf)
    }
}

/// p_uuids: the generations a node has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uuids {
    /// The current generation; bit 0 says that it was written by a primary.
    pub current: u64,
    /// The generation the bitmap counts from; 0 while in sync.
    pub bitmap: u64,
    /// Older generations, newest first.
    pub history: [u64; 2],
    /// Number of bits set in the bitmap.
    pub bits_set: u64,
    /// What else there is to say.
    pub flags: UuidFlags,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct UuidsLayout {
    current: U64,
    bitmap: U64,
    history: [U64; 2],
    bits_set: U64,
    flags: U64,
}

impl From<UuidsLayout> for Uuids {
    fn from(layout: UuidsLayout) -> Self {
        Self {
            current: layout.current.get(),
            bitmap: layout.bitmap.get(),
            history: layout.history.map(U64::get),
            bits_set: layout.bits_set.get(),
            flags: UuidFlags(layout.flags.get()),
        }
    }
}

impl From<Uuids> for UuidsLayout {
    fn from(uuids: Uuids) -> Self {
        Self {
            current: uuids.current.into(),
            bitmap: uuids.bitmap.into(),
            history: uuids.history.map(U64::new),
            bits_set: uuids.bits_set.into(),
            flags: uuids.flags.0.into(),
        }
    }
}

fixed_payload!(Uuids, UuidsLayout, 48);

/// p_rs_uuid: the generation that a sync target takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncUuid(pub u64);

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SyncUuidLayout {
    uuid: U64,
}

impl From<SyncUuidLayout> for SyncUuid {
    fn from(layout: SyncUuidLayout) -> Self {
        Self(layout.uuid.get())
    }
}

impl From<SyncUuid> for SyncUuidLayout {
    fn from(uuid: SyncUuid) -> Self {
        Self {
            uuid: uuid.0.into(),
        }
    }
}

fixed_payload!(SyncUuid, SyncUuidLayout, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_stand_in_the_order_of_the_specification() {
        let uuids = Uuids {
            current: 1,
            bitmap: 2,
            history: [3, 4],
            bits_set: 5,
            flags: UuidFlags(0x16),
        };
        let bytes = uuids.encode();
        let words: std::vec::Vec<u8> = bytes.chunks(8).map(|word| word[7]).collect();
        assert_eq!(words, [1, 2, 3, 4, 5, 0x16]);
        assert_eq!(Uuids::decode(&bytes), Ok(uuids));
        assert_eq!(uuids.flags.known(), UuidFlags(6));
    }
}
