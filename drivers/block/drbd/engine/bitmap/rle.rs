// SPDX-License-Identifier: GPL-2.0

//! The payload of P_COMPRESSED_BITMAP: runs of equal bits in turn, each as long as a number of
//! [`super::vli`] says (Spec §1.22).
//!
//! Byte 0 says how: the encoding in the low nibble, the unused bits of the last byte above it, the
//! value of the first run in bit 7.

use super::transfer::TransferError;
use super::vli::{self, Reader, VliError, Writer};
use super::{Bitmap, Words};
use crate::types::BitNr;

const ENCODING: u8 = 2;
const ENCODING_MASK: u8 = 0x0f;
const PAD_SHIFT: u32 = 4;
const PAD_MASK: u8 = 7;
const FIRST_IS_SET: u8 = 0x80;

/// A payload that was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    /// Bytes of payload.
    pub(super) len: usize,
    /// The bit after the last one it describes.
    pub(super) end: u64,
}

/// Describes as many bits from `first` on as the payload has room for. `None` where that would not
/// be shorter than the bits themselves.
pub(super) fn fill<W: Words>(bitmap: &Bitmap<W>, first: u64, payload: &mut [u8]) -> Option<Filled> {
    let (head, codes) = payload.split_first_mut()?;
    let mut writer = Writer::new(codes);
    let first_value = bitmap.test(BitNr(first));
    let mut position = first;
    let mut value = first_value;
    while position < bitmap.bits() {
        let end = bitmap.run_end(BitNr(position), value, bitmap.bits());
        // No volume has as many bits as the largest code can count.
        let code = vli::encode(end.saturating_sub(position))?;
        if !writer.push(code) {
            break;
        }
        position = end;
        value = !value;
    }
    let described = position.saturating_sub(first);
    let encoded = u64::try_from(writer.len()).ok()?.checked_mul(8)?;
    if position == first || described < encoded {
        return None;
    }
    let pad = writer.pad_bits().wrapping_shl(PAD_SHIFT);
    let first_run = if first_value { FIRST_IS_SET } else { 0 };
    *head = ENCODING | pad | first_run;
    Some(Filled {
        len: writer.len().saturating_add(1),
        end: position,
    })
}

/// Sets what a payload says is set from `first` on, adds to `set` the bits that were not set
/// before, and returns the bit after the last one it describes. What went before an error stays
/// set: it can only cost a needless resync.
pub(super) fn merge<W: Words>(
    bitmap: &Bitmap<W>,
    first: u64,
    payload: &[u8],
    set: &mut u64,
) -> Result<u64, TransferError> {
    let (&head, codes) = payload.split_first().ok_or(TransferError::Truncated)?;
    if head & ENCODING_MASK != ENCODING {
        return Err(TransferError::Encoding(head & ENCODING_MASK));
    }
    if codes.is_empty() {
        return Err(TransferError::Truncated);
    }
    let mut reader = Reader::new(codes, head.wrapping_shr(PAD_SHIFT) & PAD_MASK);
    let mut position = first;
    let mut value = head & FIRST_IS_SET != 0;
    while let Some(run) = reader.next() {
        let run = run.map_err(|error| match error {
            VliError::Truncated => TransferError::Truncated,
            VliError::Unknown => TransferError::UnknownCode,
        })?;
        let end = position
            .checked_add(run)
            .filter(|&end| end <= bitmap.bits());
        let end = end.ok_or(TransferError::BeyondEnd)?;
        if value {
            let added = bitmap.set_bits(BitNr(position), BitNr(end));
            *set = set.saturating_add(added);
        }
        position = end;
        value = !value;
    }
    Ok(position)
}
