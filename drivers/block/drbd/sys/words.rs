// SPDX-License-Identifier: GPL-2.0

//! A large array of 64-bit words that are changed atomically, for bitmaps shared with interrupts.

use kernel::{
    alloc::flags::__GFP_ZERO,
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    },
};

/// Words in virtually contiguous memory, zero at first.
///
/// Every operation is one atomic access to one word and may be used in any context; an index past
/// the end answers `None`.
pub struct AtomicWords(KVVec<Atomic<u64>>);

impl AtomicWords {
    /// Allocates `words` zero words.
    ///
    /// Errors: `ENOMEM`. Context: may sleep.
    pub fn new(words: usize) -> Result<Self> {
        let mut storage = KVVec::with_capacity(words, GFP_KERNEL | __GFP_ZERO)?;
        // SAFETY: The capacity is at least `words`, and the allocator zeroed it, which is a valid
        // `Atomic<u64>`.
        unsafe { storage.inc_len(words) };
        Ok(Self(storage))
    }

    /// The number of words.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no word at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a word, unordered.
    #[inline]
    pub fn load(&self, index: usize) -> Option<u64> {
        let word = self.0.get(index)?;
        // SAFETY: The word is valid and aligned, and changed by single atomic accesses only. This
        // is C's `READ_ONCE`; the kernel crate calls a function for it, and whole bitmaps are read
        // here.
        Some(unsafe { word.as_ptr().read_volatile() })
    }

    /// Overwrites a word, unordered.
    pub fn store(&self, index: usize, value: u64) -> Option<()> {
        self.0.get(index)?.store(value, Relaxed);
        Some(())
    }

    /// Sets the bits of `mask` and returns the word from before, fully ordered.
    #[inline]
    pub fn fetch_or(&self, index: usize, mask: u64) -> Option<u64> {
        if mask == u64::MAX {
            return Some(self.0.get(index)?.xchg(mask, Full));
        }
        self.fetch_update(index, |word| word | mask)
    }

    /// Clears the bits of `mask` and returns the word from before, fully ordered.
    #[inline]
    pub fn fetch_andnot(&self, index: usize, mask: u64) -> Option<u64> {
        if mask == u64::MAX {
            return Some(self.0.get(index)?.xchg(0, Full));
        }
        self.fetch_update(index, |word| word & !mask)
    }

    /// Replaces a word by `change` of it and returns the word from before, fully ordered.
    ///
    /// `change` may run several times. A word that stays as it was is not written.
    pub fn fetch_update(&self, index: usize, change: impl Fn(u64) -> u64) -> Option<u64> {
        let word = self.0.get(index)?;
        let mut old = word.load(Relaxed);
        loop {
            let new = change(old);
            if new == old {
                return Some(old);
            }
            match word.cmpxchg(old, new, Full) {
                Ok(_) => return Some(old),
                Err(current) => old = current,
            }
        }
    }
}
