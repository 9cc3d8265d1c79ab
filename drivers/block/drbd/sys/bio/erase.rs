// SPDX-License-Identifier: GPL-2.0

//! Discarding and zeroing blocks of a backing device, and waiting for it.
//!
//! `blkdev_issue_discard` says that what is not supported is done, and its bios and those of
//! `blkdev_issue_zeroout` come from the reserve of the applications' bios, which may wait for these
//! ones. So the bios are our own.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::{
    inside_submit,
    Flags, //
};
use crate::bdev::BlockDevice;
use core::ptr::NonNull;
use drbd_bindings as raw;
use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// The memory with zeroes is of this order in pages.
const ZEROES_ORDER: u32 = 2;
const ZEROES_BYTES: usize = kernel::page::PAGE_SIZE << ZEROES_ORDER;
/// As often it is in one bio; drivers count on no more segments.
const SEGMENTS: usize = 256;
/// Most sectors that [`BlockDevice::write_zero_pages`] writes.
// CAST: A few thousand.
pub const ZERO_PAGES_SECTORS_MAX: u32 = ((ZEROES_BYTES * SEGMENTS) >> 9) as u32;

/// Memory with zeroes, for all who write them.
///
/// # Invariants
///
/// `page` is the first of `1 << ZEROES_ORDER` pages, compound and ours, that are zero and that
/// nobody changes. `table` refers to all of them `SEGMENTS` times.
pub(super) struct Zeroes {
    page: NonNull<bindings::page>,
    table: KVec<bindings::bio_vec>,
}

// SAFETY: The pages are only read.
unsafe impl Send for Zeroes {}
// SAFETY: As above.
unsafe impl Sync for Zeroes {}

impl Zeroes {
    /// Allocates them. Errors: `ENOMEM`. Context: may sleep.
    pub(super) fn new() -> Result<Self> {
        let table = KVec::with_capacity(SEGMENTS, GFP_KERNEL)?;
        // SAFETY: The function has no requirements.
        let page = unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_ZEROES, ZEROES_ORDER) };
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // INVARIANT: The pages are as just allocated; nobody sees the table before it is full.
        let mut zeroes = Self { page, table };
        for _ in 0..SEGMENTS {
            let segment = bindings::bio_vec {
                bv_page: page.as_ptr(),
                // CAST: A few pages.
                bv_len: ZEROES_BYTES as u32,
                bv_offset: 0,
            };
            zeroes.table.push(segment, GFP_KERNEL)?;
        }
        Ok(zeroes)
    }
}

impl Drop for Zeroes {
    fn drop(&mut self) {
        // SAFETY: Ours by the type invariant, and used no more.
        unsafe { bindings::__free_pages(self.page.as_ptr(), ZEROES_ORDER) };
    }
}

/// Erasing. All of these wait for the device, and fail with `EDEADLK` inside a disk's `submit`; all
/// use the reserve and never fail for lack of memory. Context: may sleep.
impl BlockDevice {
    /// Discards `sectors` sectors.
    ///
    /// Errors: of the device, `EOPNOTSUPP` when it cannot.
    pub fn discard(&self, sector: u64, sectors: u32) -> Result {
        let op = bindings::req_op_REQ_OP_DISCARD;
        self.erase(op, Flags::NONE, sector, sectors)
    }

    /// Has the device zero `sectors` sectors; with [`Flags::NOUNMAP`] the blocks stay allocated.
    ///
    /// Errors: of the device, `EOPNOTSUPP` when it cannot.
    pub fn write_zeroes(&self, flags: Flags, sector: u64, sectors: u32) -> Result {
        let op = bindings::req_op_REQ_OP_WRITE_ZEROES;
        self.erase(op, flags, sector, sectors)
    }

    /// Writes zeroes, `sectors` sectors of them and at most [`ZERO_PAGES_SECTORS_MAX`].
    ///
    /// Errors: of the device, `EINVAL` for more sectors.
    pub fn write_zero_pages(&self, sector: u64, sectors: u32) -> Result {
        if sectors > ZERO_PAGES_SECTORS_MAX {
            return Err(EINVAL);
        }
        self.erase(bindings::req_op_REQ_OP_WRITE, Flags::NONE, sector, sectors)
    }

    fn erase(&self, op: bindings::req_op, flags: Flags, sector: u64, sectors: u32) -> Result {
        if inside_submit() {
            return Err(EDEADLK);
        }
        let size_bytes = sectors.checked_mul(kernel::block::SECTOR_SIZE);
        let bio = self.alloc(op, flags, sector, size_bytes.ok_or(EINVAL)?);
        // SAFETY: `bio` is fresh from our set. A write covers no more than the table, which lives
        // as long as the set, and so longer than the bio, which is waited for here. `BIO_CLONED`
        // says that the bio does not own it. Nobody but us has a reference to the bio.
        unsafe {
            if op == bindings::req_op_REQ_OP_WRITE {
                let table = self.bio_set().zeroes.table.as_ptr();
                (*bio.as_ptr()).bi_io_vec = table.cast_mut();
                (*bio.as_ptr()).bi_flags |= 1 << bindings::BIO_CLONED;
            }
            let result = to_result(bindings::submit_bio_wait(bio.as_ptr()));
            bindings::bio_put(bio.as_ptr());
            result
        }
    }
}
