// SPDX-License-Identifier: GPL-2.0

//! Feature flags and P_CONNECTION_FEATURES (Spec §1.4).

use zerocopy::big_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// Optional parts of the protocol, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// P_TRIM: discards are replicated as such.
    pub const TRIM: Self = Self(0x1);
    /// P_RS_THIN_REQ and P_RS_DEALLOCATED: resync leaves holes as holes.
    pub const THIN_RESYNC: Self = Self(0x2);
    /// The peer is 8.4.7 or newer: P_SIZES carries queue limits, discards may be 128 MiB long, and
    /// UUID rule 41 may be used. Named after write-same, which nobody sends any more.
    pub const WRITE_SAME: Self = Self(0x4);
    /// P_ZEROES: write-zeroes are replicated as such.
    pub const WRITE_ZEROES: Self = Self(0x8);
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Everything we offer; also the mask that takes away the bits of DRBD 9.
    pub const OURS: Self = Self(0xf);

    /// The known bits of a peer's feature word.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::OURS.0)
    }

    /// The feature word.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `features` are in here.
    pub const fn contains(self, features: Self) -> bool {
        self.0 & features.0 == features.0
    }

    /// What both sets have.
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether P_ZEROES may be sent.
    ///
    /// The C driver reads a digest in front of it where data integrity is on, yet nobody sends
    /// one, so that the packet would kill the connection (Spec §11, 6).
    pub const fn may_send_zeroes(self, has_integrity: bool) -> bool {
        self.contains(Self::WRITE_ZEROES) && !has_integrity
    }

    /// The longest discard or write-zeroes, in bytes.
    pub const fn max_discard_size(self) -> u32 {
        if self.contains(Self::WRITE_SAME) {
            128 << 20
        } else {
            4 << 20
        }
    }
}

/// P_CONNECTION_FEATURES: what a node can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionFeatures {
    /// The oldest protocol version.
    pub protocol_min: u32,
    /// The newest protocol version; 0 means the same as the oldest.
    pub protocol_max: u32,
    /// The feature word, with bits that we may not know.
    pub feature_flags: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    protocol_min: U32,
    feature_flags: U32,
    protocol_max: U32,
    /// DRBD 9: the sender's node id.
    pad: U32,
    /// DRBD 9: the receiver's node id comes first.
    reserved: [u8; 56],
}

impl From<Layout> for ConnectionFeatures {
    fn from(layout: Layout) -> Self {
        Self {
            protocol_min: layout.protocol_min.get(),
            protocol_max: layout.protocol_max.get(),
            feature_flags: layout.feature_flags.get(),
        }
    }
}

impl From<ConnectionFeatures> for Layout {
    fn from(features: ConnectionFeatures) -> Self {
        Self {
            protocol_min: features.protocol_min.into(),
            feature_flags: features.feature_flags.into(),
            protocol_max: features.protocol_max.into(),
            pad: U32::ZERO,
            reserved: [0; 56],
        }
    }
}

fixed_payload!(ConnectionFeatures, Layout, 72);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_of_the_c_driver_is_the_interop_vector() {
        let ours = ConnectionFeatures {
            protocol_min: 86,
            protocol_max: 101,
            feature_flags: Features::OURS.bits(),
        };
        let bytes = ours.encode();
        assert_eq!(
            bytes.get(..12),
            Some(&[0, 0, 0, 0x56, 0, 0, 0, 0x0f, 0, 0, 0, 0x65][..])
        );
        assert!(bytes.iter().skip(12).all(|byte| *byte == 0));
        assert_eq!(ConnectionFeatures::decode(&bytes), Ok(ours));
    }

    #[test]
    fn bits_of_drbd_9_are_masked_out() {
        assert_eq!(Features::from_bits(0x3ff), Features::OURS);
    }
}
