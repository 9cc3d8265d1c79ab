// SPDX-License-Identifier: GPL-2.0

//! What stands around the bits of P_BITMAP and P_COMPRESSED_BITMAP (Spec §1.22).

use super::{header, PayloadError, Version, SCRATCH_SIZE};

/// The one encoding there is: run lengths in variable-length integers.
const RLE_VLI_BITS: u8 = 2;

/// Bytes of bitmap that fit into one packet, always a whole number of words.
pub const fn max_payload(version: Version) -> u32 {
    // Lossless and never below zero: a header has 8 or 16 bytes.
    SCRATCH_SIZE.saturating_sub(header::size(version) as u32)
}

/// The byte in front of a run-length encoded part of the bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressedBitmapHeader {
    /// Whether the first run is of set bits.
    pub first_run_set: bool,
    /// Unused bits in the last byte, 0..=7.
    pub pad_bits: u8,
}

impl CompressedBitmapHeader {
    /// Bytes of it on the wire.
    pub const SIZE: usize = 1;

    /// Reads the byte.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Encoding`] for an encoding we do not know.
    pub const fn decode(byte: u8) -> Result<Self, PayloadError> {
        if byte & 0xf != RLE_VLI_BITS {
            return Err(PayloadError::Encoding(byte));
        }
        Ok(Self {
            first_run_set: byte & 0x80 != 0,
            pad_bits: byte >> 4 & 7,
        })
    }

    /// The byte.
    pub const fn encode(self) -> u8 {
        let first_run = if self.first_run_set { 0x80 } else { 0 };
        first_run | (self.pad_bits & 7) << 4 | RLE_VLI_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_refused_or_comes_back() {
        for byte in 0..=u8::MAX {
            match CompressedBitmapHeader::decode(byte) {
                Ok(header) => assert_eq!(header.encode(), byte),
                Err(error) => {
                    assert_eq!(error, PayloadError::Encoding(byte));
                    assert_ne!(byte & 0xf, 2);
                }
            }
        }
    }

    #[test]
    fn a_packet_holds_511_or_510_words() {
        assert_eq!(max_payload(Version::MIN) / 8, 511);
        assert_eq!(max_payload(Version::MAX) / 8, 510);
    }
}
