// SPDX-License-Identifier: GPL-2.0

//! The quick-sync bitmap: one bit for every 4 KiB that may differ between the nodes (Spec §2.3).
//!
//! The bits live in words that the caller owns and that many threads may change at once, so all
//! operations take `&self`, change whole words atomically through [`Words`] and return how many
//! bits they changed; the caller adds that to its atomic count of set bits. Bits beyond the end of
//! the volume are never set, whatever a disk or a peer says. Nothing here sleeps.

pub mod page;
pub mod rle;
pub mod transfer;
pub mod vli;

#[cfg(test)]
mod tests;

pub use page::{Page, PAGE_SIZE};

use crate::types::{BitNr, Sector, SECTORS_PER_BIT_SHIFT, SECTOR_SHIFT};
use core::cell::Cell;

/// Bits in a word.
pub const WORD_BITS: u64 = 64;

/// Where the words of a bitmap are. Bit n of the volume is bit n mod 64 of word n / 64.
///
/// Each operation is atomic by itself; no order between words is assumed. An index beyond the end
/// reads as 0 and changes nothing.
pub trait Words {
    /// Number of words.
    fn len(&self) -> usize;

    /// A word.
    fn load(&self, index: usize) -> u64;

    /// Sets the bits of `mask` in a word and returns it as it was before.
    fn or(&self, index: usize, mask: u64) -> u64;

    /// Clears the bits of `mask` in a word and returns it as it was before.
    fn and_not(&self, index: usize, mask: u64) -> u64;

    /// Whether there are no words.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Words of a single thread: the tools' and the tests'.
impl Words for [Cell<u64>] {
    fn len(&self) -> usize {
        <[Cell<u64>]>::len(self)
    }

    #[inline]
    fn load(&self, index: usize) -> u64 {
        self.get(index).map_or(0, Cell::get)
    }

    fn or(&self, index: usize, mask: u64) -> u64 {
        let Some(word) = self.get(index) else {
            return 0;
        };
        word.replace(word.get() | mask)
    }

    fn and_not(&self, index: usize, mask: u64) -> u64 {
        let Some(word) = self.get(index) else {
            return 0;
        };
        word.replace(word.get() & !mask)
    }
}

impl<W: Words + ?Sized> Words for &W {
    fn len(&self) -> usize {
        W::len(self)
    }

    #[inline]
    fn load(&self, index: usize) -> u64 {
        W::load(self, index)
    }

    fn or(&self, index: usize, mask: u64) -> u64 {
        W::or(self, index, mask)
    }

    fn and_not(&self, index: usize, mask: u64) -> u64 {
        W::and_not(self, index, mask)
    }
}

/// Bits of a volume of this size.
pub const fn bits_for(capacity: Sector) -> u64 {
    capacity.0.div_ceil(1 << SECTORS_PER_BIT_SHIFT)
}

/// Words that hold this many bits.
pub const fn words_for(bits: u64) -> u64 {
    bits.div_ceil(WORD_BITS)
}

/// Consecutive bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first bit.
    pub first: BitNr,
    /// How many, at least one.
    pub bits: u64,
}

/// Whole words in a range from which on they are done by themselves.
const LONG_WORDS: u64 = 8;

/// The bitmap of a volume over the caller's words.
#[derive(Clone, Copy, Debug)]
pub struct Bitmap<W> {
    words: W,
    capacity: Sector,
    bits: u64,
}

impl<W: Words> Bitmap<W> {
    /// The bitmap of a volume of `capacity` sectors; `None` where the words do not hold its bits.
    ///
    /// The words should be zero, or have no bits set beyond the volume's end; see
    /// [`Self::clear_tail`].
    pub fn new(words: W, capacity: Sector) -> Option<Self> {
        let bits = bits_for(capacity);
        let enough = usize::try_from(words_for(bits)).is_ok_and(|need| words.len() >= need);
        enough.then_some(Self {
            words,
            capacity,
            bits,
        })
    }

    /// Bits of the volume.
    pub const fn bits(&self) -> u64 {
        self.bits
    }

    /// Whether a bit is set. Beyond the end none is.
    pub fn test(&self, bit: BitNr) -> bool {
        bit.0 < self.bits && self.word(bit.0 / WORD_BITS) & (1 << (bit.0 % WORD_BITS)) != 0
    }

    /// Sets the bits of every block that `size` bytes from `sector` on touch (out of sync). Returns
    /// how many were not set before.
    pub fn set_range(&self, sector: Sector, size: u32) -> u64 {
        let end = self.end_of(sector, size);
        if sector.0 >= end {
            return 0;
        }
        self.set_bits(sector.bit(), BitNr(bits_for(Sector(end))))
    }

    /// Clears the bits of the blocks that `size` bytes from `sector` on cover in full (in sync).
    /// Returns how many were set before.
    ///
    /// The last block of the volume counts as covered when the range reaches the volume's end.
    pub fn clear_range(&self, sector: Sector, size: u32) -> u64 {
        let end = self.end_of(sector, size);
        let end_bit = if end == self.capacity.0 {
            self.bits
        } else {
            Sector(end).bit().0
        };
        self.clear_bits(BitNr(bits_for(sector)), BitNr(end_bit))
    }

    /// Sets the bits from `first` to before `end`, as far as there are. Returns how many were not
    /// set before.
    pub fn set_bits(&self, first: BitNr, end: BitNr) -> u64 {
        sum_of_words(first.0, end.0.min(self.bits), |word, mask| {
            ones(mask & !self.words.or(word, mask))
        })
    }

    /// Clears the bits from `first` to before `end`, as far as there are. Returns how many were set
    /// before.
    pub fn clear_bits(&self, first: BitNr, end: BitNr) -> u64 {
        sum_of_words(first.0, end.0.min(self.bits), |word, mask| {
            ones(mask & self.words.and_not(word, mask))
        })
    }

    /// Sets all bits. Returns how many were not set before.
    pub fn set_all(&self) -> u64 {
        self.set_bits(BitNr(0), BitNr(self.bits))
    }

    /// Clears all bits. Returns how many were set before.
    pub fn clear_all(&self) -> u64 {
        self.clear_bits(BitNr(0), BitNr(self.bits))
    }

    /// Clears what the words hold beyond the volume's end, as after a shrink or a careless copy.
    pub fn clear_tail(&self) {
        let all = u64::try_from(self.words.len()).unwrap_or(u64::MAX);
        for (word, mask) in masks(self.bits, all.saturating_mul(WORD_BITS)) {
            self.words.and_not(word, mask);
        }
    }

    /// Sets the bits of consecutive words from `first_word` on, but none beyond the end. Returns
    /// how many were not set before.
    pub fn or_words(&self, first_word: u64, words: impl Iterator<Item = u64>) -> u64 {
        let places = first_word..words_for(self.bits);
        let set = places.zip(words).filter(|&(_, value)| value != 0);
        set.fold(0, |sum, (word, value)| {
            let mask = value & self.mask_of(word);
            let Ok(index) = usize::try_from(word) else {
                return sum;
            };
            let set = mask & !self.words.or(index, mask);
            sum.saturating_add(ones(set))
        })
    }

    /// The first set bit from `from` on.
    pub fn next_set(&self, from: BitNr) -> Option<BitNr> {
        self.search(from.0, self.bits, 0).map(BitNr)
    }

    /// The first clear bit from `from` on.
    pub fn next_clear(&self, from: BitNr) -> Option<BitNr> {
        self.search(from.0, self.bits, u64::MAX).map(BitNr)
    }

    /// The first run of set bits from `from` on, cut off at `max_bits`.
    pub fn next_run(&self, from: BitNr, max_bits: u64) -> Option<Run> {
        let first = self.next_set(from)?;
        let end = first.0.saturating_add(max_bits).min(self.bits);
        let bits = self
            .run_end(first, true, end)
            .min(end)
            .saturating_sub(first.0);
        (bits != 0).then_some(Run { first, bits })
    }

    /// Whether any bit from `first` to before `end` is set. Takes time by their number, not by that
    /// of the bits behind them.
    pub fn any_set(&self, first: BitNr, end: BitNr) -> bool {
        self.search(first.0, end.0.min(self.bits), 0).is_some()
    }

    /// How many bits are set.
    pub fn count(&self) -> u64 {
        self.count_bits(BitNr(0), BitNr(self.bits))
    }

    /// How many bits are set from `first` to before `end`.
    pub fn count_bits(&self, first: BitNr, end: BitNr) -> u64 {
        let (first, end) = (first.0, end.0.min(self.bits));
        sum_of_words(first, end, |word, mask| ones(self.words.load(word) & mask))
    }

    /// The end of the run of bits like `value` that begins at `first`, looked for before `end`
    /// only.
    ///
    /// At least one bit after `first`: a bit that changes meanwhile is taken as it was.
    fn run_end(&self, first: BitNr, value: bool, end: u64) -> u64 {
        let from = first.0.saturating_add(1);
        let flip = if value { u64::MAX } else { 0 };
        let end = end.min(self.bits);
        self.search(from, end, flip).unwrap_or(end).max(from)
    }

    /// The first bit from `from` to before `end` that is not as in `flip`.
    ///
    /// Passes over whole words: a resync of little on a large device does hardly anything else.
    fn search(&self, from: u64, end: u64, flip: u64) -> Option<u64> {
        if from >= end {
            return None;
        }
        let mut word = usize::try_from(from / WORD_BITS).ok()?;
        let end_word = usize::try_from(words_for(end)).ok()?;
        let mut found = (self.words.load(word) ^ flip) & !low_bits(from % WORD_BITS);
        while found == 0 {
            word = word.saturating_add(1);
            if word >= end_word {
                return None;
            }
            found = self.words.load(word) ^ flip;
        }
        Some(bit_in(word, found)).filter(|&bit| bit < end)
    }

    /// The end of a range of sectors, cut off at the volume's.
    fn end_of(&self, sector: Sector, size: u32) -> u64 {
        let end = sector.0.saturating_add(u64::from(size >> SECTOR_SHIFT));
        end.min(self.capacity.0)
    }

    fn word(&self, word: u64) -> u64 {
        usize::try_from(word).map_or(0, |index| self.words.load(index)) & self.mask_of(word)
    }

    /// The bits of a word that the volume has.
    fn mask_of(&self, word: u64) -> u64 {
        mask_between(0, self.bits, word)
    }
}

/// How many bits of a word are set. In most words of a bitmap it is none or all.
#[inline]
fn ones(word: u64) -> u64 {
    match word {
        0 => 0,
        u64::MAX => WORD_BITS,
        _ => u64::from(word.count_ones()),
    }
}

/// The number of the lowest bit set in a word.
fn bit_in(word: usize, value: u64) -> u64 {
    let first = u64::try_from(word)
        .unwrap_or(u64::MAX)
        .saturating_mul(WORD_BITS);
    first.saturating_add(u64::from(value.trailing_zeros()))
}

/// A word with the lowest `count` bits set.
fn low_bits(count: u64) -> u64 {
    u32::try_from(count)
        .ok()
        .and_then(|count| 1u64.checked_shl(count))
        .map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

/// The sum of `part` over the words that the bits from `first` to before `end` lie in, with those
/// bits. The bits of a write mostly lie in one word. A whole word needs no mask worked out, and in
/// a long range they all are whole but two.
fn sum_of_words(first: u64, end: u64, mut part: impl FnMut(usize, u64) -> u64) -> u64 {
    let word = first / WORD_BITS;
    let start = word.saturating_mul(WORD_BITS);
    if first < end && end.saturating_sub(start) <= WORD_BITS {
        let mask = mask_at_the_edge(first, end, start);
        return usize::try_from(word).map_or(0, |word| part(word, mask));
    }
    let (whole_from, whole_end) = (words_for(first), end / WORD_BITS);
    let mut sum = |from, end| {
        let parts = masks(from, end).map(|(word, mask)| part(word, mask));
        parts.fold(0u64, u64::saturating_add)
    };
    if whole_end.saturating_sub(whole_from) < LONG_WORDS {
        return sum(first, end);
    }
    let edges = sum(first, whole_from.saturating_mul(WORD_BITS))
        .saturating_add(sum(whole_end.saturating_mul(WORD_BITS), end));
    let whole = (whole_from..whole_end).filter_map(|word| usize::try_from(word).ok());
    whole.fold(edges, |sum, word| sum.saturating_add(part(word, u64::MAX)))
}

/// The words that the bits from `first` to before `end` lie in, with those bits.
fn masks(first: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    words_between(first, end).map(move |(index, word)| (index, mask_between(first, end, word)))
}

/// The words that the bits from `first` to before `end` lie in, as index and number.
fn words_between(first: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    let (first_word, end_word) = if first < end {
        (first / WORD_BITS, words_for(end))
    } else {
        (0, 0)
    };
    (first_word..end_word).filter_map(|word| usize::try_from(word).ok().map(|index| (index, word)))
}

/// The bits of a word from `first` to before `end`.
#[inline]
fn mask_between(first: u64, end: u64, word: u64) -> u64 {
    let start = word.saturating_mul(WORD_BITS);
    if first <= start && end.saturating_sub(start) >= WORD_BITS {
        return u64::MAX;
    }
    mask_at_the_edge(first, end, start)
}

/// The bits of the word that begins at `start`, from `first` to before `end`.
fn mask_at_the_edge(first: u64, end: u64, start: u64) -> u64 {
    let above = low_bits(end.saturating_sub(start));
    let below = low_bits(first.saturating_sub(start));
    above & !below
}
