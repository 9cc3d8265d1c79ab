// SPDX-License-Identifier: GPL-2.0

//! Bios that applications submitted to our disks.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::{
    Flags,
    Operation, //
};
use crate::page::{
    Segments,
    SegmentsMut, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    prelude::*, //
};

/// log2 of the sector size that the block layer counts in.
const SECTOR_SHIFT: u32 = kernel::block::SECTOR_SHIFT;

/// The bits of `bi_opf` that are the operation; the others are flags.
const OPERATION_MASK: u32 = (1 << bindings::REQ_OP_BITS) - 1;

/// An application's bio that was submitted to one of our disks.
///
/// Owning it is the duty to end it; one that is dropped ends with an I/O error. It counts in the
/// disk's I/O statistics while it lives.
///
/// # Invariants
///
/// `bio` is a bio that was passed to `submit_bio` of our disk and was not yet ended by us.
pub struct MasterBio {
    bio: NonNull<bindings::bio>,
    start_jiffies: c_ulong,
}

// SAFETY: A bio has no ties to the thread that submitted it.
unsafe impl Send for MasterBio {}
// SAFETY: `&self` only reads fields that are constant while the bio is ours, and changes the
// remaining count, which is atomic.
unsafe impl Sync for MasterBio {}

impl MasterBio {
    /// # Safety
    ///
    /// `bio` must be a bio passed to `submit_bio` of a live disk, and the caller must not use it
    /// any more.
    pub(crate) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the requirement of this function.
        Self {
            bio,
            // SAFETY: As above.
            start_jiffies: unsafe { bindings::bio_start_io_acct(bio.as_ptr()) },
        }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::bio {
        self.bio.as_ptr()
    }

    fn get(&self) -> &bindings::bio {
        // SAFETY: By the type invariant the bio is alive, and nobody changes what we read.
        unsafe { self.bio.as_ref() }
    }

    /// What the bio asks for.
    pub fn operation(&self) -> Operation {
        match self.get().bi_opf & OPERATION_MASK {
            bindings::req_op_REQ_OP_READ => Operation::Read,
            bindings::req_op_REQ_OP_WRITE if self.size_bytes() == 0 => Operation::Flush,
            bindings::req_op_REQ_OP_WRITE => Operation::Write,
            bindings::req_op_REQ_OP_DISCARD => Operation::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Operation::WriteZeroes,
            _ => Operation::Other,
        }
    }

    /// Its modifiers.
    pub fn flags(&self) -> Flags {
        Flags(self.get().bi_opf & !OPERATION_MASK)
    }

    /// First sector on our disk.
    pub fn sector(&self) -> u64 {
        self.get().bi_iter.bi_sector
    }

    /// Size in bytes, 0 for a flush.
    pub fn size_bytes(&self) -> u32 {
        self.get().bi_iter.bi_size
    }

    /// Size in sectors, 0 for a flush.
    pub fn size_sectors(&self) -> u32 {
        self.size_bytes() >> SECTOR_SHIFT
    }

    /// The data of a read or write; empty for the other operations.
    ///
    /// The application can still change the bytes (direct I/O), so nothing may rely on reading the
    /// same value twice.
    pub fn segments(&self) -> Segments<'_> {
        // SAFETY: By the type invariant the bio has not ended; the borrow outlives that.
        unsafe { data_of(self.bio) }
    }

    /// Keeps the application's memory, independently of who owns the bio. Context: any.
    pub fn hold(&self) -> MasterHold {
        // SAFETY: By the type invariant the bio is alive and not ended.
        unsafe { raw::drbd_shim_bio_inc_remaining(self.bio.as_ptr()) };
        // INVARIANT: The count was just taken.
        MasterHold(self.bio)
    }

    /// Ends the bio towards the application.
    ///
    /// The application sees the end once every clone in flight has ended and every hold is gone as
    /// well, because those borrow its pages. Context: any.
    pub fn end(self, result: Result) {
        let mut bio = ManuallyDrop::new(self);
        bio.finish(result);
    }

    fn finish(&mut self, result: Result) {
        let bio = self.bio.as_ptr();
        // SAFETY: By the type invariant the bio is ours to end; this runs once, from `end` or
        // `drop`.
        unsafe {
            (*bio).bi_status = match result {
                Ok(()) => 0,
                Err(error) => bindings::errno_to_blk_status(error.to_errno()),
            };
            bindings::bio_end_io_acct_remapped(bio, self.start_jiffies, (*bio).bi_bdev);
            bindings::bio_endio(bio);
        }
    }
}

impl Drop for MasterBio {
    fn drop(&mut self) {
        self.finish(Err(EIO));
    }
}

/// A claim on an application bio's memory: while it lives, pages and vector stay, even where the
/// [`MasterBio`] was ended meanwhile. Whoever sends the data takes one.
///
/// # Invariants
///
/// We hold one of the bio's remaining counts.
pub struct MasterHold(NonNull<bindings::bio>);

// SAFETY: A count on a bio has no ties to a thread.
unsafe impl Send for MasterHold {}
// SAFETY: `&self` only reads what is constant while the count is held.
unsafe impl Sync for MasterHold {}

impl MasterHold {
    /// As [`MasterBio::segments`].
    pub fn segments(&self) -> Segments<'_> {
        // SAFETY: By the type invariant the bio has not ended; the borrow outlives that.
        unsafe { data_of(self.0) }
    }

    /// The memory that a read is to fill; empty unless the bio reads.
    ///
    /// Whoever calls this is the one who serves the read: nothing else may fill it meanwhile.
    pub fn segments_mut(&mut self) -> SegmentsMut<'_> {
        // SAFETY: The bio is alive while we hold its count.
        let op = unsafe { self.0.as_ref() }.bi_opf & OPERATION_MASK;
        let segments = match op {
            bindings::req_op_REQ_OP_READ => self.segments(),
            _ => Segments::empty(),
        };
        // SAFETY: A read lends its pages to the driver for writing until it ends; the driver serves
        // it once, and what C or another hold sees of the bytes meanwhile are plain bytes.
        unsafe { SegmentsMut::new(segments) }
    }
}

impl Drop for MasterHold {
    fn drop(&mut self) {
        // SAFETY: Gives our count back; the last one ends the bio.
        unsafe { bindings::bio_endio(self.0.as_ptr()) };
    }
}

/// The data of a bio, none unless it reads or writes.
///
/// # Safety
///
/// The bio must not end during `'a`.
unsafe fn data_of<'a>(bio: NonNull<bindings::bio>) -> Segments<'a> {
    // SAFETY: By the requirement the bio is alive, and these fields are constant until it ends.
    let (op, vector, position) = unsafe {
        let bio = bio.as_ref();
        (bio.bi_opf & OPERATION_MASK, bio.bi_io_vec, bio.bi_iter)
    };
    if !matches!(
        op,
        bindings::req_op_REQ_OP_READ | bindings::req_op_REQ_OP_WRITE
    ) {
        return Segments::empty();
    }
    // SAFETY: The vector of a bio covers `bi_size` bytes from `bi_offset` of entry `bi_idx` on; it
    // and its pages stay until the bio ends.
    unsafe {
        Segments::from_raw(
            vector.add(position.bi_idx as usize),
            position.bi_offset as usize,
            position.bi_size as usize,
        )
    }
}
