// SPDX-License-Identifier: GPL-2.0

//! A large array of 64-bit words that are changed atomically, for bitmaps shared with interrupts.

use core::ptr::NonNull;
use drbd_bindings as raw;
use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    },
};

const CHUNK_WORDS: usize = bindings::PAGE_SIZE / size_of::<Atomic<u64>>();

/// Words that lie next to each other, in a page of their own.
///
/// # Invariants
///
/// The page is allocated, ours alone and was zeroed, which are valid words.
struct Chunk(NonNull<[Atomic<u64>; CHUNK_WORDS]>);

// SAFETY: The words are changed by single atomic accesses only, and a page has no ties to a thread.
unsafe impl Send for Chunk {}
// SAFETY: As above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Fails sooner than that other programs are killed for it.
    fn new() -> Result<Self> {
        // SAFETY: The function has no requirements.
        let page = unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_MANY_ZERO, 0) };
        if page.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: The page is allocated, and is not in high memory.
        let address = unsafe { raw::drbd_shim_page_address(page) };
        // INVARIANT: As requested of the allocator.
        Ok(Self(NonNull::new(address.cast()).ok_or(ENOMEM)?))
    }

    #[inline]
    fn words(&self) -> &[Atomic<u64>; CHUNK_WORDS] {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and nobody uses it from here on.
        unsafe { bindings::free_pages(self.0.as_ptr() as usize, 0) };
    }
}

/// Words, zero at first, in memory that is contiguous by the page only: a large bitmap needs no
/// large piece of memory, and no page of it a mapping of its own.
///
/// Every operation is one atomic access to one word and may be used in any context; an index past
/// the end answers `None`.
pub struct AtomicWords {
    chunks: KVVec<Chunk>,
    len: usize,
}

impl AtomicWords {
    /// Allocates `words` zero words.
    ///
    /// Errors: `ENOMEM`, at once where the machine has not that much. Context: may sleep.
    pub fn new(words: usize) -> Result<Self> {
        let count = words.div_ceil(CHUNK_WORDS);
        // SAFETY: The function has no requirements.
        if count > unsafe { raw::drbd_shim_ram_pages() } {
            return Err(ENOMEM);
        }
        let mut chunks = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            chunks
                .push_within_capacity(Chunk::new()?)
                .map_err(|_| ENOMEM)?;
        }
        Ok(Self { chunks, len: words })
    }

    /// The number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no word at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&Atomic<u64>> {
        if index >= self.len {
            return None;
        }
        let chunk = self.chunks.get(index / CHUNK_WORDS)?;
        chunk.words().get(index % CHUNK_WORDS)
    }

    /// Reads a word, unordered.
    #[inline]
    pub fn load(&self, index: usize) -> Option<u64> {
        let word = self.get(index)?;
        // SAFETY: The word is valid and aligned, and changed by single atomic accesses only. This
        // is C's `READ_ONCE`; the kernel crate calls a function for it, and whole bitmaps are read
        // here.
        Some(unsafe { word.as_ptr().read_volatile() })
    }

    /// Overwrites a word, unordered.
    pub fn store(&self, index: usize, value: u64) -> Option<()> {
        self.get(index)?.store(value, Relaxed);
        Some(())
    }

    /// Sets the bits of `mask` and returns the word from before, fully ordered.
    #[inline]
    pub fn fetch_or(&self, index: usize, mask: u64) -> Option<u64> {
        if mask == u64::MAX {
            return Some(self.get(index)?.xchg(mask, Full));
        }
        self.fetch_update(index, |word| word | mask)
    }

    /// Clears the bits of `mask` and returns the word from before, fully ordered.
    #[inline]
    pub fn fetch_andnot(&self, index: usize, mask: u64) -> Option<u64> {
        if mask == u64::MAX {
            return Some(self.get(index)?.xchg(0, Full));
        }
        self.fetch_update(index, |word| word & !mask)
    }

    /// Replaces a word by `change` of it and returns the word from before, fully ordered.
    ///
    /// `change` may run several times. A word that stays as it was is not written.
    pub fn fetch_update(&self, index: usize, change: impl Fn(u64) -> u64) -> Option<u64> {
        let word = self.get(index)?;
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
