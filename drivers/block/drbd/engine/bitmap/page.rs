// SPDX-License-Identifier: GPL-2.0

//! The bitmap on disk: little-endian words in pages of 4 KiB, the unit of bitmap I/O (Spec §2.3).

use super::{Bitmap, Words, WORD_BITS};
use crate::types::{BitNr, ExtentNr, Sector};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
/// Bits of a page: 128 MiB of storage.
pub const PAGE_BITS: u64 = 32768;

const PAGE_WORDS: u64 = PAGE_BITS / WORD_BITS;
/// What of a page is looked at in one go.
const LINE_BYTES: usize = 64;
const LINE_WORDS: u64 = 8;
/// Bits of an activity log extent.
const EXTENT_BITS: u64 = 1024;

/// A page on disk.
pub type Page = [u8; PAGE_SIZE];

/// Pages that hold this many bits.
pub const fn pages_for(bits: u64) -> u64 {
    bits.div_ceil(PAGE_BITS)
}

/// Sectors that the bitmap of a volume takes on disk at least.
pub const fn sectors_for(capacity: Sector) -> u64 {
    pages_for(super::bits_for(capacity)).saturating_mul(8)
}

/// The page that a bit lies in.
pub const fn page_of(bit: BitNr) -> u64 {
    bit.0 / PAGE_BITS
}

impl<W: Words> Bitmap<W> {
    /// Pages of this bitmap.
    pub const fn pages(&self) -> u64 {
        pages_for(self.bits)
    }

    /// Sets what is set in a page read from disk, but nothing beyond the volume's end. Returns how
    /// many bits were not set before.
    ///
    /// Right after the words were zeroed this is reading; any other time it is merging, and loses
    /// nothing that was set meanwhile.
    pub fn merge_page(&self, page: u64, content: &Page) -> u64 {
        let first = page.saturating_mul(PAGE_WORDS);
        let lines = content.chunks_exact(LINE_BYTES).zip(0u64..);
        // Most of a bitmap is clear.
        let set = lines.filter(|(line, _)| words_of(line).fold(0, |all, word| all | word) != 0);
        set.fold(0u64, |sum, (line, number)| {
            let word = first.saturating_add(number.saturating_mul(LINE_WORDS));
            sum.saturating_add(self.or_words(word, words_of(line)))
        })
    }

    /// Writes a page as it is to be on disk; what lies beyond the volume's end is zero.
    pub fn export_page(&self, page: u64, content: &mut Page) {
        let first = page.saturating_mul(PAGE_WORDS);
        let words = first..first.saturating_add(PAGE_WORDS);
        for (word, bytes) in words.zip(content.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&self.word(word).to_le_bytes());
        }
    }

    /// How many bits are set in a page.
    pub fn count_page(&self, page: u64) -> u64 {
        let first = page.saturating_mul(PAGE_BITS);
        self.count_bits(BitNr(first), BitNr(first.saturating_add(PAGE_BITS)))
    }

    /// Sets the bits of an activity log extent, as recovery does for one that was hot. Returns how
    /// many were not set before.
    pub fn set_extent(&self, extent: ExtentNr) -> u64 {
        let first = u64::from(extent.0).saturating_mul(EXTENT_BITS);
        self.set_bits(BitNr(first), BitNr(first.saturating_add(EXTENT_BITS)))
    }
}

/// The words of little-endian bytes; what is left over by a number that eight does not divide is
/// dropped.
pub(super) fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .filter_map(|word| word.try_into().ok().map(u64::from_le_bytes))
}
