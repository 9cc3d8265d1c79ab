// SPDX-License-Identifier: GPL-2.0

//! P_PROTOCOL and P_PROTOCOL_UPDATE: the parameters that both ends must share (Spec §1.8).

use super::{AlgorithmName, PayloadError, Version};
use zerocopy::big_endian::U32;
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// What a node wants of this one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFlags(pub u32);

impl ConnectionFlags {
    /// My data loses a split brain.
    pub const DISCARD_MY_DATA: Self = Self(1);
    /// Compare the data generations and disconnect again.
    pub const DRY_RUN: Self = Self(2);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// The parameters that both ends must share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// 1 is A, 2 is B, 3 is C.
    pub protocol: u32,
    /// What to do about a split brain without a primary.
    pub after_sb_0p: u32,
    /// What to do about a split brain with one primary.
    pub after_sb_1p: u32,
    /// What to do about a split brain with two primaries.
    pub after_sb_2p: u32,
    /// What the sender wants of this one connection.
    pub flags: ConnectionFlags,
    /// Whether both nodes may be primary; any value but 0.
    pub two_primaries: u32,
    /// The hash that protects the sender's data, from version 87 on.
    pub integrity_algorithm: AlgorithmName,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    protocol: U32,
    after_sb_0p: U32,
    after_sb_1p: U32,
    after_sb_2p: U32,
    flags: U32,
    two_primaries: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Encoded {
    fixed: Layout,
    integrity_algorithm: [u8; 64],
}

impl Protocol {
    /// Bytes in front of the algorithm name.
    pub const FIXED_SIZE: usize = 24;
    /// Bytes of the longest payload.
    pub const MAX_SIZE: usize = 88;

    /// Reads the payload; `bytes` is all of it.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] where the length does not fit the version or the name does not end.
    pub fn decode(version: Version, bytes: &[u8]) -> Result<Self, PayloadError> {
        let wrong = PayloadError::Length {
            expected: Self::FIXED_SIZE,
            found: bytes.len(),
        };
        let (fixed, name) = Layout::read_from_prefix(bytes).map_err(|_| wrong)?;
        let integrity_algorithm = if version.names_integrity_algorithm() {
            AlgorithmName::from_field(name)?
        } else if name.is_empty() {
            AlgorithmName::NONE
        } else {
            return Err(wrong);
        };
        Ok(Self {
            protocol: fixed.protocol.get(),
            after_sb_0p: fixed.after_sb_0p.get(),
            after_sb_1p: fixed.after_sb_1p.get(),
            after_sb_2p: fixed.after_sb_2p.get(),
            flags: ConnectionFlags(fixed.flags.get()),
            two_primaries: fixed.two_primaries.get(),
            integrity_algorithm,
        })
    }

    /// Writes the payload to the front of `out`; returns its length in bytes.
    pub fn encode(&self, version: Version, out: &mut [u8; Self::MAX_SIZE]) -> usize {
        *out = zerocopy::transmute!(Encoded {
            fixed: Layout {
                protocol: self.protocol.into(),
                after_sb_0p: self.after_sb_0p.into(),
                after_sb_1p: self.after_sb_1p.into(),
                after_sb_2p: self.after_sb_2p.into(),
                flags: self.flags.0.into(),
                two_primaries: self.two_primaries.into(),
            },
            integrity_algorithm: *self.integrity_algorithm.field(),
        });
        if version.names_integrity_algorithm() {
            // At most 24 + 63 + 1.
            self.integrity_algorithm
                .len()
                .saturating_add(Self::FIXED_SIZE + 1)
        } else {
            Self::FIXED_SIZE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(protocol: &Protocol, number: u32) -> std::vec::Vec<u8> {
        let mut out = [0xaa; Protocol::MAX_SIZE];
        let length = protocol.encode(Version::new(number).unwrap(), &mut out);
        out[..length].to_vec()
    }

    #[test]
    fn a_name_is_sent_from_version_87_on_even_if_it_is_empty() {
        let protocol = Protocol {
            protocol: 3,
            ..Protocol::default()
        };
        assert_eq!(encoded(&protocol, 86).len(), 24);
        assert_eq!(encoded(&protocol, 87).len(), 25);
        let named = Protocol {
            integrity_algorithm: AlgorithmName::new(b"sha256").unwrap(),
            ..protocol
        };
        assert_eq!(encoded(&named, 101).get(24..), Some(&b"sha256\0"[..]));
        assert_eq!(
            Protocol::decode(Version::MAX, &encoded(&named, 101)),
            Ok(named)
        );
    }

    #[test]
    fn a_name_is_demanded_from_version_87_on_and_refused_before() {
        let short = [0; 24];
        assert!(Protocol::decode(Version::MIN, &short).is_ok());
        assert_eq!(
            Protocol::decode(Version::MAX, &short),
            Err(PayloadError::Name)
        );
        assert!(Protocol::decode(Version::MIN, &[0; 25]).is_err());
        assert!(Protocol::decode(Version::MAX, &[0; 25]).is_ok());
    }
}
