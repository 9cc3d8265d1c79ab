// SPDX-License-Identifier: GPL-2.0

//! Payloads that announce or describe written blocks: p_data and p_trim (Spec §1.8, §1.16).

use super::{Features, Version};
use crate::types::{BlockId, Sector};
use zerocopy::big_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// How a write is to be done and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataFlags(pub u32);

impl DataFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Somebody waits for this write.
    pub const RW_SYNC: Self = Self(0x2);
    /// The receiver may mark the blocks in sync when they are written.
    pub const MAY_SET_IN_SYNC: Self = Self(0x4);
    /// Write through the disk's cache.
    pub const FUA: Self = Self(0x10);
    /// Flush the disk's cache before the write.
    pub const FLUSH: Self = Self(0x20);
    /// With write-zeroes: the blocks may be unmapped.
    pub const DISCARD: Self = Self(0x40);
    /// Acknowledge on receipt (protocol B).
    pub const SEND_RECEIVE_ACK: Self = Self(0x80);
    /// Acknowledge when written (protocol C, and whenever blocks may be set in sync).
    pub const SEND_WRITE_ACK: Self = Self(0x100);
    /// Write-same.
    pub const WRITE_SAME: Self = Self(0x200);
    /// Write-zeroes.
    pub const ZEROES: Self = Self(0x400);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// Those of these flags that a peer of this version and with these features knows.
    pub const fn for_peer(self, version: Version, features: Features) -> Self {
        let mut known = Self::RW_SYNC.with(Self::MAY_SET_IN_SYNC);
        if version.is_at_least(95) {
            known = known.with(Self::FUA).with(Self::FLUSH).with(Self::DISCARD);
        }
        if version.is_at_least(100) {
            known = known
                .with(Self::SEND_RECEIVE_ACK)
                .with(Self::SEND_WRITE_ACK);
        }
        if features.contains(Features::WRITE_ZEROES) {
            known = known.with(Self::ZEROES);
        }
        Self(self.0 & known.0)
    }
}

/// p_data, in front of the digest (where data integrity is on) and the data of P_DATA,
/// P_DATA_REPLY and P_RS_DATA_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Where the data belongs.
    pub sector: Sector,
    /// The requester's cookie, [`BlockId::SYNCER`] for resync.
    pub block_id: BlockId,
    /// Orders packets between the two sockets; 0 in replies.
    pub seq_num: u32,
    /// How to write and acknowledge; none in replies.
    pub flags: DataFlags,
}

impl Data {
    /// Bytes of data of a packet of `length` bytes of payload with a digest of `digest_size`, or
    /// `None` where not even the digest fits.
    pub fn body_size(length: u32, digest_size: u32) -> Option<u32> {
        length.checked_sub(24)?.checked_sub(digest_size)
    }

    /// Whether this is an empty flush, which 8.3 sends without data and outside of the device.
    pub const fn is_empty_flush(&self, body_size: u32) -> bool {
        body_size == 0 && self.flags.contains(DataFlags::FLUSH)
    }
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DataLayout {
    sector: U64,
    block_id: U64,
    seq_num: U32,
    flags: U32,
}

impl From<DataLayout> for Data {
    fn from(layout: DataLayout) -> Self {
        Self {
            sector: Sector(layout.sector.get()),
            block_id: BlockId(layout.block_id.get()),
            seq_num: layout.seq_num.get(),
            flags: DataFlags(layout.flags.get()),
        }
    }
}

impl From<Data> for DataLayout {
    fn from(data: Data) -> Self {
        Self {
            sector: data.sector.0.into(),
            block_id: data.block_id.0.into(),
            seq_num: data.seq_num.into(),
            flags: data.flags.0.into(),
        }
    }
}

fixed_payload!(Data, DataLayout, 24);

/// p_trim: P_TRIM and P_ZEROES. Neither digest nor data follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// As for a write.
    pub data: Data,
    /// Bytes that are discarded or zeroed.
    pub size: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct TrimLayout {
    data: DataLayout,
    size: U32,
}

impl From<TrimLayout> for Trim {
    fn from(layout: TrimLayout) -> Self {
        Self {
            data: layout.data.into(),
            size: layout.size.get(),
        }
    }
}

impl From<Trim> for TrimLayout {
    fn from(trim: Trim) -> Self {
        Self {
            data: trim.data.into(),
            size: trim.size.into(),
        }
    }
}

fixed_payload!(Trim, TrimLayout, 28);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_peers_get_only_the_flags_they_know() {
        let all = DataFlags(u32::MAX);
        let known = |number, features| all.for_peer(Version::new(number).unwrap(), features).0;
        assert_eq!(known(94, Features::NONE), 0x6);
        assert_eq!(known(95, Features::NONE), 0x76);
        assert_eq!(known(100, Features::NONE), 0x1f6);
        assert_eq!(known(101, Features::OURS), 0x5f6);
    }

    #[test]
    fn the_body_is_what_header_and_digest_leave() {
        assert_eq!(Data::body_size(24 + 32 + 4096, 32), Some(4096));
        assert_eq!(Data::body_size(24 + 31, 32), None);
        assert_eq!(Data::body_size(23, 0), None);
    }
}
