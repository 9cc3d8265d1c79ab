// SPDX-License-Identifier: GPL-2.0

//! Runs of bytes in pages, as bios and sockets exchange them.
//!
//! The bytes may change while a segment lives (a writer may scribble on pages in flight), so no
//! Rust slice is ever made of them: segments go to C, or are copied byte-wise.
//!
//! C header: [`include/linux/bvec.h`](srctree/include/linux/bvec.h)

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    bindings,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// A readable run of bytes in physically contiguous pages, borrowed for `'a`.
///
/// # Invariants
///
/// The pages exist for `'a`, and the run lies within them.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    vec: bindings::bio_vec,
    _pages: PhantomData<&'a Page>,
}

impl<'a> Segment<'a> {
    /// Borrows a run of bytes in the page and those that follow it.
    ///
    /// # Safety
    ///
    /// The pages exist for `'a`; `offset + len` bytes from the start of `page` are within them.
    pub unsafe fn from_raw(page: *mut bindings::page, offset: u32, len: u32) -> Self {
        // INVARIANT: By the requirements.
        Self {
            vec: bindings::bio_vec {
                bv_page: page,
                bv_len: len,
                bv_offset: offset,
            },
            _pages: PhantomData,
        }
    }

    /// Borrows a run of bytes in one page; `None` where it does not lie within the page.
    pub fn of_page(page: &'a Page, offset: u32, len: u32) -> Option<Self> {
        fits_page(offset, len).then(|| {
            // SAFETY: The page exists for `'a`; the run was just checked.
            unsafe { Self::from_raw(page.as_ptr(), offset, len) }
        })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        // CAST: 32 bits fit on all architectures with this driver.
        self.vec.bv_len as usize
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.vec.bv_len == 0
    }

    /// The C form.
    pub(crate) fn as_vec(&self) -> bindings::bio_vec {
        self.vec
    }

    /// Whether the network may take references to the pages instead of copying the bytes; not to
    /// those of the slab allocator, for example. Any context.
    pub fn is_lendable(&self) -> bool {
        let vec = &self.vec;
        // SAFETY: The pages exist.
        unsafe {
            // CAST: As in `len`.
            drbd_bindings::drbd_shim_sendpages_ok(vec.bv_page, self.len(), vec.bv_offset as usize)
        }
    }

    /// Calls `visit` with the address and length of each piece of the run that lies in one page,
    /// until it fails. Any context; `visit` must not sleep.
    ///
    /// The address is valid for reading during the call only.
    pub(crate) fn each_piece<E>(
        &self,
        mut visit: impl FnMut(*const u8, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        each_piece(&self.vec, |at, len| visit(at.cast_const(), len))
    }
}

/// A writable run of bytes in physically contiguous pages, borrowed for `'a`.
///
/// # Invariants
///
/// The pages exist for `'a`, the run lies within them, and its owner lets us write it for `'a`.
pub struct SegmentMut<'a> {
    vec: bindings::bio_vec,
    _pages: PhantomData<&'a mut Page>,
}

impl<'a> SegmentMut<'a> {
    /// Borrows a run of bytes in the page and those that follow it, for writing.
    ///
    /// # Safety
    ///
    /// The pages exist for `'a`; `offset + len` bytes from the start of `page` are within them,
    /// and nothing else relies on their contents for `'a`.
    pub unsafe fn from_raw(page: *mut bindings::page, offset: u32, len: u32) -> Self {
        // INVARIANT: By the requirements.
        Self {
            vec: bindings::bio_vec {
                bv_page: page,
                bv_len: len,
                bv_offset: offset,
            },
            _pages: PhantomData,
        }
    }

    /// Borrows a run of bytes in one page; `None` where it does not lie within the page.
    pub fn of_page(page: &'a mut Page, offset: u32, len: u32) -> Option<Self> {
        fits_page(offset, len).then(|| {
            // SAFETY: The page is ours for `'a`; the run was just checked.
            unsafe { Self::from_raw(page.as_ptr(), offset, len) }
        })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        // CAST: 32 bits fit on all architectures with this driver.
        self.vec.bv_len as usize
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.vec.bv_len == 0
    }

    /// The C form.
    pub(crate) fn as_vec(&self) -> bindings::bio_vec {
        self.vec
    }

    /// Copies the start of `bytes` to the start of the run, as much as both hold, and returns how
    /// much that was; the run begins behind it afterwards. Any context.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let mut copied: usize = 0;
        // Ends early once `bytes` is used up.
        let _: Result<(), ()> = each_piece(&self.vec, |at, len| {
            let rest = bytes.get(copied..).ok_or(())?;
            let len = len.min(rest.len());
            if len == 0 {
                return Err(());
            }
            // SAFETY: `each_piece` gives at least `len` bytes that we may write.
            unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), at, len) };
            copied = copied.wrapping_add(len);
            Ok(())
        });
        // CAST: At most `bv_len`, which has 32 bits.
        let moved = copied as u32;
        // INVARIANT: The run shrinks by what it moves on.
        self.vec.bv_offset = self.vec.bv_offset.saturating_add(moved);
        self.vec.bv_len = self.vec.bv_len.saturating_sub(moved);
        copied
    }
}

fn fits_page(offset: u32, len: u32) -> bool {
    // CAST: 32 bits fit on all architectures with this driver.
    matches!(offset.checked_add(len), Some(end) if end as usize <= PAGE_SIZE)
}

/// Maps the run page by page.
fn each_piece<E>(
    vec: &bindings::bio_vec,
    mut visit: impl FnMut(*mut u8, usize) -> Result<(), E>,
) -> Result<(), E> {
    // CAST: 32 bits fit on all architectures with this driver.
    let mut offset = vec.bv_offset as usize;
    let mut left = vec.bv_len as usize;
    while left > 0 {
        let start = offset % PAGE_SIZE;
        let len = left.min(PAGE_SIZE.wrapping_sub(start));
        // SAFETY: The run lies within existing contiguous pages, of which this is one; the piece
        // lies within the mapped page, which is unmapped after use.
        let result = unsafe {
            let mapped = bindings::kmap_local_page(vec.bv_page.add(offset / PAGE_SIZE));
            let result = visit(mapped.cast::<u8>().add(start), len);
            bindings::kunmap_local(mapped);
            result
        };
        result?;
        offset = offset.wrapping_add(len);
        left = left.wrapping_sub(len);
    }
    Ok(())
}
