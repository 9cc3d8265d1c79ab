// SPDX-License-Identifier: GPL-2.0

//! Page buffers: the payload of one request, and segments of pages lent to sockets and bios.
//!
//! C header: [`include/linux/bvec.h`](srctree/include/linux/bvec.h)

use crate::segment::{
    Segment,
    SegmentMut, //
};
use core::{
    marker::PhantomData,
    ptr,
    slice, //
};
use drbd_bindings as raw;
use kernel::bindings;

mod account;
mod buffer;
mod spare;

pub use account::Account;
pub use buffer::{
    Buffer,
    Pool,
    BUFFER_BYTES_MAX, //
};

// Buffers and tables are addressed directly.
#[cfg(CONFIG_HIGHMEM)]
compile_error!("pages must be mapped");

/// Bytes in pages, lent for `'a`: a position in a table of segments, and a length.
///
/// A run of bytes in one entry is physically contiguous and may span pages.
///
/// # Invariants
///
/// The table covers at least `skip_bytes + len_bytes` bytes and, as its pages, lives for `'a`.
/// Unless there are no bytes, `skip_bytes` lies within the table's first entry.
#[derive(Clone, Copy)]
pub struct Segments<'a> {
    table: *const bindings::bio_vec,
    skip_bytes: usize,
    len_bytes: usize,
    _table: PhantomData<&'a bindings::bio_vec>,
}

// SAFETY: A shared borrow of plain memory.
unsafe impl Send for Segments<'_> {}
// SAFETY: As above.
unsafe impl Sync for Segments<'_> {}

impl<'a> Segments<'a> {
    /// No bytes at all.
    pub fn empty() -> Self {
        Self {
            table: ptr::null(),
            skip_bytes: 0,
            len_bytes: 0,
            _table: PhantomData,
        }
    }

    /// # Safety
    ///
    /// The table must cover `skip_bytes + len_bytes` bytes, `skip_bytes` lie within its first
    /// entry, and table and pages live for `'a`.
    pub(crate) unsafe fn from_raw(
        table: *const bindings::bio_vec,
        skip_bytes: usize,
        len_bytes: usize,
    ) -> Self {
        // INVARIANT: By the requirement of this function.
        Self {
            table,
            skip_bytes,
            len_bytes,
            _table: PhantomData,
        }
    }

    /// The number of bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether there are no bytes (left).
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Leaves out the first `bytes` bytes, or all.
    pub fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len_bytes);
        self.len_bytes = self.len_bytes.wrapping_sub(bytes);
        self.skip_bytes = self.skip_bytes.wrapping_add(bytes);
        if self.len_bytes == 0 {
            return;
        }
        loop {
            // SAFETY: By the type invariant there is an entry here, as bytes are left.
            let len = unsafe { (*self.table).bv_len } as usize;
            if self.skip_bytes < len {
                return;
            }
            self.skip_bytes = self.skip_bytes.wrapping_sub(len);
            // SAFETY: The entry was skipped and bytes are left, so there is another.
            self.table = unsafe { self.table.add(1) };
        }
    }

    /// Keeps the first `bytes` bytes only.
    pub fn truncate(&mut self, bytes: usize) {
        self.len_bytes = self.len_bytes.min(bytes);
    }

    /// What of the bytes lies in the table's first entry, if there are any.
    fn first_run(&self) -> Option<bindings::bio_vec> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: By the type invariant there is an entry here.
        let entry = unsafe { *self.table };
        // CAST: By the type invariant less than the entry's length, and no longer than it.
        let skip_bytes = self.skip_bytes as u32;
        let len_bytes = (entry.bv_len.wrapping_sub(skip_bytes) as usize).min(self.len_bytes) as u32;
        Some(bindings::bio_vec {
            bv_page: entry.bv_page,
            bv_len: len_bytes,
            bv_offset: entry.bv_offset.wrapping_add(skip_bytes),
        })
    }

    /// The contiguous runs of bytes, in order.
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks(*self)
    }

    /// Copies the first bytes into `target` and returns how many there were.
    pub fn copy_to_slice(&self, target: &mut [u8]) -> usize {
        let mut copied: usize = 0;
        for chunk in self.chunks() {
            let rest = target.get_mut(copied..).unwrap_or_default();
            copied = copied.saturating_add(copy(rest, chunk));
        }
        copied
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.chunks().all(is_zero)
    }
}

/// The contiguous runs, in order, as sockets and hashes take them.
impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let run = self.first_run()?;
        // CAST: A run has at most the length of an entry.
        self.advance(run.bv_len as usize);
        // SAFETY: By the type invariant the run's pages live for `'a`.
        Some(unsafe { Segment::from_raw(run.bv_page, run.bv_offset, run.bv_len) })
    }
}

/// Iterates over the contiguous runs of bytes of [`Segments`].
pub struct Chunks<'a>(Segments<'a>);

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let run = self.0.first_run()?;
        self.0.advance(run.bv_len as usize);
        // SAFETY: The run's pages are mapped (no highmem), contiguous and borrowed for `'a`.
        // Somebody else (a device, the application) may write to them meanwhile; then the bytes
        // read are arbitrary, which is all that payload promises.
        Some(unsafe {
            let start = raw::drbd_shim_page_address(run.bv_page).cast::<u8>();
            slice::from_raw_parts(start.add(run.bv_offset as usize), run.bv_len as usize)
        })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: The slice is valid for reads of its length.
    unsafe { bindings::memchr_inv(bytes.as_ptr().cast(), 0, bytes.len()) }.is_null()
}

/// Copies as much as fits and returns how much that was.
fn copy(target: &mut [u8], source: &[u8]) -> usize {
    let len = target.len().min(source.len());
    if let (Some(target), Some(source)) = (target.get_mut(..len), source.get(..len)) {
        target.copy_from_slice(source);
    }
    len
}

/// The exclusive form of [`Segments`].
///
/// # Invariants
///
/// The bytes are borrowed exclusively for `'a`; none was given out before.
pub struct SegmentsMut<'a>(Segments<'a>);

/// The contiguous runs, in order, as sockets fill them.
impl<'a> Iterator for SegmentsMut<'a> {
    type Item = SegmentMut<'a>;

    fn next(&mut self) -> Option<SegmentMut<'a>> {
        let run = self.0.first_run()?;
        self.0.advance(run.bv_len as usize);
        // SAFETY: By the type invariant.
        Some(unsafe { SegmentMut::from_raw(run.bv_page, run.bv_offset, run.bv_len) })
    }
}

impl<'a> SegmentsMut<'a> {
    /// # Safety
    ///
    /// The bytes must be borrowed exclusively for `'a`.
    pub(crate) unsafe fn new(segments: Segments<'a>) -> Self {
        // INVARIANT: By the requirement of this function.
        Self(segments)
    }

    /// The number of bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes()
    }

    /// Whether there are no bytes (left).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves out the first `bytes` bytes, or all.
    pub fn advance(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }

    /// Keeps the first `bytes` bytes only.
    pub fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    /// The same bytes for reading.
    pub fn as_segments(&self) -> Segments<'_> {
        self.0
    }

    /// Takes the next contiguous run of bytes.
    pub fn next_chunk(&mut self) -> Option<&'a mut [u8]> {
        self.take_chunk(usize::MAX)
    }

    /// Copies the start of `source` to the next bytes, as much as both hold; those are taken.
    /// Returns how many there were.
    pub fn fill_from(&mut self, source: &[u8]) -> usize {
        let mut copied: usize = 0;
        while let Some(rest) = source.get(copied..).filter(|rest| !rest.is_empty()) {
            let Some(chunk) = self.take_chunk(rest.len()) else {
                break;
            };
            copied = copied.saturating_add(copy(chunk, rest));
        }
        copied
    }

    /// Takes at most `len_bytes` of the next contiguous run of bytes.
    fn take_chunk(&mut self, len_bytes: usize) -> Option<&'a mut [u8]> {
        let chunk = self.0.chunks().next()?;
        let chunk = chunk.get(..len_bytes.min(chunk.len()))?;
        self.0.advance(chunk.len());
        // SAFETY: By the type invariant; these bytes were just left out.
        Some(unsafe { slice::from_raw_parts_mut(chunk.as_ptr().cast_mut(), chunk.len()) })
    }
}
