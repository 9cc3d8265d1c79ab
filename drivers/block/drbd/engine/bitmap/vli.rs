// SPDX-License-Identifier: GPL-2.0

//! The variable-length integers of the compressed bitmap (Spec §1.22), and the bit stream that they
//! are written to.
//!
//! A code is a prefix in its low bits, which tells how long it is, and the distance to the smallest
//! number of that length above it. Short runs take two bits, the longest 64.

/// A length of code.
struct Level {
    prefix_bits: u32,
    prefix: u64,
    data_bits: u32,
    smallest: u64,
}

const fn level(prefix_bits: u32, prefix: u64, data_bits: u32, smallest: u64) -> Level {
    Level {
        prefix_bits,
        prefix,
        data_bits,
        smallest,
    }
}

const LEVELS: [Level; 10] = [
    level(1, 0b0, 1, 1),
    level(2, 0b01, 1, 3),
    level(3, 0b011, 2, 5),
    level(4, 0b0111, 3, 9),
    level(5, 0b01111, 5, 17),
    level(6, 0b011111, 8, 49),
    level(8, 0b0011_1111, 13, 305),
    level(8, 0b0111_1111, 21, 8497),
    level(8, 0b1011_1111, 34, 2_105_649),
    level(8, 0b1111_1111, 56, 17_181_974_833),
];

/// The largest number that has a code.
pub const MAX: u64 = 72_057_611_219_902_768;

/// A number's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The bits, the first one lowest.
    pub bits: u64,
    /// How many of them, 2 to 64.
    pub len: u32,
}

/// Why the next number cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VliError {
    /// The stream ends within a code.
    Truncated,
    /// No code begins like this.
    Unknown,
}

/// The code of a number; none for 0 and for numbers above [`MAX`].
pub fn encode(number: u64) -> Option<Code> {
    LEVELS.iter().rev().find_map(|level| {
        let data = number.checked_sub(level.smallest)?;
        if data.checked_shr(level.data_bits)? != 0 {
            return None;
        }
        Some(Code {
            bits: data.checked_shl(level.prefix_bits)? | level.prefix,
            len: level.prefix_bits.saturating_add(level.data_bits),
        })
    })
}

/// The number that the stream's next bits stand for, and how many bits those are.
///
/// # Errors
///
/// [`VliError`] where `available` bits hold no whole code.
pub fn decode(bits: u64, available: u32) -> Result<(u64, u32), VliError> {
    let matches = |level: &&Level| bits & mask(level.prefix_bits) == level.prefix;
    let level = LEVELS.iter().find(matches).ok_or(VliError::Unknown)?;
    let len = level.prefix_bits.saturating_add(level.data_bits);
    if len > available {
        return Err(VliError::Truncated);
    }
    let data = bits.checked_shr(level.prefix_bits).unwrap_or(0) & mask(level.data_bits);
    Ok((level.smallest.saturating_add(data), len))
}

fn mask(bits: u32) -> u64 {
    1u64.checked_shl(bits)
        .map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

/// Writes codes one after the other, from the lowest bit of the first byte on.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    /// Bits written.
    position: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        Self { bytes, position: 0 }
    }

    /// Bytes written, the last one perhaps in part.
    pub(super) fn len(&self) -> usize {
        self.position.div_ceil(8)
    }

    /// Unused bits of the last byte.
    pub(super) fn pad_bits(&self) -> u8 {
        let used = u8::try_from(self.position % 8).unwrap_or(0);
        8u8.wrapping_sub(used) % 8
    }

    /// Appends a code unless there is too little room.
    pub(super) fn push(&mut self, code: Code) -> bool {
        let len = usize::try_from(code.len).unwrap_or(usize::MAX);
        let end = self.position.saturating_add(len);
        if end > self.bytes.len().saturating_mul(8) {
            return false;
        }
        // At most 64 bits from within a byte: nine bytes.
        let shift = bit_in_byte(self.position);
        let low = code.bits.wrapping_shl(shift).to_le_bytes();
        let [ninth, ..] = code
            .bits
            .checked_shr(64u32.wrapping_sub(shift))
            .unwrap_or(0)
            .to_le_bytes();
        let rest = self.bytes.get_mut(self.position / 8..).unwrap_or_default();
        for (byte, value) in rest.iter_mut().zip(low.into_iter().chain([ninth])) {
            *byte |= value;
        }
        self.position = end;
        true
    }
}

/// Reads codes one after the other.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bits read.
    position: usize,
    /// Bits there are.
    end: usize,
}

impl<'a> Reader<'a> {
    /// A stream whose last byte has `pad_bits` bits that do not count.
    pub(super) fn new(bytes: &'a [u8], pad_bits: u8) -> Self {
        let bits = bytes.len().saturating_mul(8);
        Self {
            bytes,
            position: 0,
            end: bits.saturating_sub(usize::from(pad_bits)),
        }
    }

    /// The next number; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> Option<Result<u64, VliError>> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return None;
        }
        let available = u32::try_from(left).unwrap_or(u32::MAX);
        Some(decode(self.peek(), available).map(|(number, len)| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.position = self.position.saturating_add(len);
            number
        }))
    }

    /// The next 64 bits, zeros after the end.
    fn peek(&self) -> u64 {
        let mut bytes = self.bytes.iter().skip(self.position / 8).copied();
        let low = core::array::from_fn(|_| bytes.next().unwrap_or(0));
        let ninth = u64::from(bytes.next().unwrap_or(0));
        let shift = bit_in_byte(self.position);
        u64::from_le_bytes(low).wrapping_shr(shift)
            | ninth.checked_shl(64u32.wrapping_sub(shift)).unwrap_or(0)
    }
}

fn bit_in_byte(position: usize) -> u32 {
    u32::try_from(position % 8).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_specs_examples_have_the_specs_codes() {
        for (number, bits, len) in [
            (1, 0b00, 2),
            (2, 0b10, 2),
            (3, 0b001, 3),
            (4, 0b101, 3),
            (5, 0b00011, 5),
            (17, 0b00_0000_1111, 10),
            (MAX, u64::MAX, 64),
        ] {
            assert_eq!(encode(number), Some(Code { bits, len }));
        }
    }

    #[test]
    fn every_level_begins_and_ends_where_the_spec_has_it() {
        let mut smallest = 1;
        for (len, largest) in [
            (2, 2),
            (3, 4),
            (5, 8),
            (7, 16),
            (10, 48),
            (14, 304),
            (21, 8496),
            (29, 2_105_648),
            (42, 17_181_974_832),
            (64, MAX),
        ] {
            assert_eq!(encode(smallest).unwrap().len, len);
            assert_eq!(encode(largest).unwrap().len, len);
            smallest = largest + 1;
        }
    }

    #[test]
    fn zero_and_numbers_that_are_too_large_have_no_code() {
        assert_eq!(encode(0), None);
        assert_eq!(encode(MAX + 1), None);
        assert_eq!(encode(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn numbers_survive_a_stream(
            numbers in prop::collection::vec((0..57u32, any::<u64>()), 1..200)
        ) {
            let numbers: Vec<u64> =
                numbers.iter().map(|(shift, n)| 1 + (n & ((1 << shift) - 1))).collect();
            let mut bytes = [0xff; 2000];
            let mut writer = Writer::new(&mut bytes);
            for &number in &numbers {
                prop_assert!(writer.push(encode(number).unwrap()));
            }
            let (len, pad_bits) = (writer.len(), writer.pad_bits());
            let mut reader = Reader::new(&bytes[..len], pad_bits);
            for &number in &numbers {
                prop_assert_eq!(reader.next(), Some(Ok(number)));
            }
            prop_assert_eq!(reader.next(), None);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bits(bits: u64, available in 0..65u32) {
            match decode(bits, available) {
                Ok((number, len)) => {
                    prop_assert!(len <= available);
                    let code = Code { bits: bits & mask(len), len };
                    prop_assert_eq!(encode(number), Some(code));
                }
                Err(error) => prop_assert_eq!(error, VliError::Truncated),
            }
        }
    }
}
