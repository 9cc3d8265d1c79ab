// SPDX-License-Identifier: GPL-2.0

//! The payload of one request in pages, and the pool it comes from.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use super::{
    account::Charge,
    spare::Spares,
    Segments,
    SegmentsMut, //
};
use crate::pool::Mempool;
use core::{
    mem::size_of,
    ptr::{
        self,
        NonNull, //
    },
};
use drbd_bindings as raw;
use kernel::{
    bindings, new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        lock::mutex::MutexGuard,
        Arc,
        Mutex, //
    },
};

/// The largest buffer, in bytes.
pub const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The largest number of segments of a buffer: one a page.
const SEGMENTS_MAX: usize = BUFFER_BYTES_MAX / PAGE_SIZE;

/// Segments that a buffer's header has room for; more need a page of their own.
const SEGMENTS_INLINE: usize = 16;

/// Largest order that is asked for: 128 KiB. Above, the allocator rarely has one at hand.
const ORDER_MAX: u32 = 5;

/// Where buffers come from: single pages and headers with a reserve.
///
/// Cheap to clone. The memory of the reserve goes with the last clone and buffer.
#[derive(Clone)]
pub struct Pool(Arc<PoolInner>);

#[pin_data]
struct PoolInner {
    #[pin]
    headers: Mempool,
    #[pin]
    pages: Mempool,
    #[pin]
    spares: Spares,
    /// Held while a buffer is completed out of the reserve: two halves of buffers must not wait
    /// for each other's pages.
    #[pin]
    reserve: Mutex<()>,
}

impl Pool {
    /// Creates a pool whose reserve holds `buffers` headers and pages for one largest buffer.
    ///
    /// Errors: `ENOMEM`. Context: may sleep.
    pub fn new(buffers: u32) -> Result<Self> {
        // One page more for the table of segments.
        let pages: u32 = (SEGMENTS_MAX + 1).try_into()?;
        Ok(Self(Arc::pin_init(
            try_pin_init!(PoolInner {
                headers <- Mempool::bytes(buffers, size_of::<Header>()),
                pages <- Mempool::pages(pages),
                spares <- Spares::new(),
                reserve <- new_mutex!(()),
            }),
            GFP_KERNEL,
        )?))
    }

    /// Allocates a buffer of `len_bytes` bytes (1 to [`BUFFER_BYTES_MAX`]) with arbitrary content.
    ///
    /// Uses pages of former buffers, large pages where the allocator has them at hand, single pages
    /// otherwise, and waits for the reserve when memory is short; all buffers in use must be on
    /// their way back then, so a caller must not hold an idle one. Errors: `EINVAL` for the length.
    /// Context: may sleep, does not start I/O to reclaim memory.
    pub fn alloc(&self, len_bytes: usize) -> Result<Buffer> {
        if len_bytes == 0 || len_bytes > BUFFER_BYTES_MAX {
            return Err(EINVAL);
        }
        let header = self.0.headers.take().cast::<Header>();
        // SAFETY: The element is `size_of::<Header>()` bytes, aligned by kmalloc, and ours.
        unsafe {
            header.write(Header {
                pool: self.clone(),
                charge: None,
                len_bytes: 0,
                count: 0,
                table_page: ptr::null_mut(),
                inline: [EMPTY; SEGMENTS_INLINE],
            });
        }
        // INVARIANT: A valid header without segments.
        let mut buffer = Buffer(header);
        buffer.fill(len_bytes);
        Ok(buffer)
    }

    /// Gives pages that are kept for later buffers back to the kernel. Context: any.
    pub fn trim(&self) {
        self.0.spares.clear();
    }

    fn page_eager(&self) -> *mut bindings::page {
        if let Some(page) = self.0.spares.take(0) {
            return page;
        }
        // SAFETY: The function has no requirements.
        unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_PAGE_EAGER, 0) }
    }

    /// # Safety
    ///
    /// The caller has a reference to the page, and gives it up. It is the pool's.
    unsafe fn release(&self, page: *mut bindings::page) {
        // The reserve comes first: buffers that wait for it must find what comes back.
        // SAFETY: By the requirement.
        unsafe {
            if self.0.pages.is_full() && self.0.spares.keep(page) {
                return;
            }
            raw::drbd_shim_page_release(page, self.0.pages.as_ptr());
        }
    }

    fn page_from_reserve(&self) -> *mut bindings::page {
        self.0.pages.take().as_ptr().cast()
    }
}

const EMPTY: bindings::bio_vec = bindings::bio_vec {
    bv_page: ptr::null_mut(),
    bv_len: 0,
    bv_offset: 0,
};

/// What a [`Buffer`] points to.
#[repr(C)]
struct Header {
    pool: Pool,
    charge: Option<Charge>,
    len_bytes: u32,
    count: u32,
    /// The page that holds the segments when they are too many for `inline`, else null.
    table_page: *mut bindings::page,
    inline: [bindings::bio_vec; SEGMENTS_INLINE],
}

/// The payload of one request in pages; the owner may fill and read it.
///
/// It can be dropped in any context. Pages that were lent to a socket live until the socket is
/// done with them, but whoever overwrites the buffer meanwhile changes what is sent.
///
/// # Invariants
///
/// The pointer is to a header of ours alone, whose first `count` segments hold `len_bytes` bytes in
/// pages that we have a reference to.
pub struct Buffer(NonNull<Header>);

// SAFETY: A buffer owns its pages and has no ties to a thread.
unsafe impl Send for Buffer {}
// SAFETY: `&Buffer` only allows reading.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn header(&self) -> &Header {
        // SAFETY: Ours alone by the type invariant.
        unsafe { self.0.as_ref() }
    }

    /// Keeps `charge` for as long as the buffer lives.
    pub(super) fn set_charge(&mut self, charge: Charge) {
        // SAFETY: Ours alone by the type invariant.
        unsafe { self.0.as_mut() }.charge = Some(charge);
    }

    /// The size in bytes.
    pub fn len_bytes(&self) -> u32 {
        self.header().len_bytes
    }

    /// The segments and their number.
    pub(crate) fn table(&self) -> (*const bindings::bio_vec, usize) {
        let header = self.header();
        let table = if header.table_page.is_null() {
            header.inline.as_ptr()
        } else {
            // SAFETY: The page is ours.
            unsafe { raw::drbd_shim_page_address(header.table_page) }
                .cast::<bindings::bio_vec>()
                .cast_const()
        };
        (table, header.count as usize)
    }

    /// All bytes, to send, hash or look at.
    pub fn segments(&self) -> Segments<'_> {
        let (table, _) = self.table();
        // SAFETY: By the type invariant; the borrow keeps table and pages.
        unsafe { Segments::from_raw(table, 0, self.len_bytes() as usize) }
    }

    /// All bytes, to be filled by a socket. Exclusive, unlike [`Buffer::segments`].
    pub fn segments_mut(&mut self) -> SegmentsMut<'_> {
        // SAFETY: The borrow is exclusive.
        unsafe { SegmentsMut::new(self.segments()) }
    }

    /// Copies from `source` to `offset`; what does not fit is left out. Returns the bytes copied.
    pub fn copy_from_slice(&mut self, offset: usize, source: &[u8]) -> usize {
        let mut target = self.segments_mut();
        target.advance(offset);
        target.fill_from(source)
    }

    /// Zeroes the whole buffer.
    pub fn zero(&mut self) {
        let mut rest = self.segments_mut();
        while let Some(chunk) = rest.next_chunk() {
            chunk.fill(0);
        }
    }

    fn fill(&mut self, len_bytes: usize) {
        let pool = self.header().pool.clone();
        let mut reserve = None;
        if len_bytes.div_ceil(PAGE_SIZE) > SEGMENTS_INLINE {
            let page = single_page(&pool, &mut reserve);
            // SAFETY: The header is ours alone.
            unsafe { (*self.0.as_ptr()).table_page = page };
        }
        let mut rest = len_bytes;
        let mut order = ORDER_MAX;
        while rest > 0 {
            let (page, size_bytes) = match large_page(&pool, &mut order, rest) {
                Some(page) => (page, bytes_of(order)),
                None => (single_page(&pool, &mut reserve), PAGE_SIZE),
            };
            let len = rest.min(size_bytes);
            self.push(page, len);
            rest = rest.saturating_sub(len);
        }
    }

    fn push(&mut self, page: *mut bindings::page, len: usize) {
        let (table, count) = self.table();
        // SAFETY: `fill` chose the table so that there is room for a segment a page, and never
        // pushes more. The header is ours alone. CAST: `len` is at most `BUFFER_BYTES_MAX`.
        unsafe {
            table.cast_mut().add(count).write(bindings::bio_vec {
                bv_page: page,
                bv_len: len as u32,
                bv_offset: 0,
            });
            let header = self.0.as_mut();
            header.count = header.count.wrapping_add(1);
            header.len_bytes = header.len_bytes.wrapping_add(len as u32);
        }
    }
}

/// The size of a page of this order.
fn bytes_of(order: u32) -> usize {
    PAGE_SIZE.wrapping_shl(order)
}

/// A page of more than the smallest size for `len_bytes` bytes, if the allocator has one at hand.
///
/// `order` is the largest to try, and is lowered to what was found or to 0.
fn large_page(pool: &Pool, order: &mut u32, len_bytes: usize) -> Option<*mut bindings::page> {
    while *order > 0 {
        // A larger one would leave whole pages unused.
        if bytes_of(*order) < len_bytes.saturating_add(PAGE_SIZE) {
            if let Some(page) = pool.0.spares.take(*order) {
                return Some(page);
            }
            // SAFETY: The function has no requirements.
            let page = unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_PAGE_CHEAP, *order) };
            if !page.is_null() {
                return Some(page);
            }
        }
        *order = order.saturating_sub(1);
    }
    None
}

/// A page of the smallest size, out of the reserve if it must be. `reserve` keeps the lock of the
/// reserve until the buffer is complete.
fn single_page<'a>(
    pool: &'a Pool,
    reserve: &mut Option<MutexGuard<'a, ()>>,
) -> *mut bindings::page {
    if reserve.is_none() {
        let page = pool.page_eager();
        if !page.is_null() {
            return page;
        }
        *reserve = Some(pool.0.reserve.lock());
    }
    pool.page_from_reserve()
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (table, count) = self.table();
        let pool = self.header().pool.clone();
        // SAFETY: By the type invariant we have a reference to each page, and give each up once.
        // The pool was cloned, so it outlives giving the header back.
        unsafe {
            for index in 0..count {
                pool.release((*table.add(index)).bv_page);
            }
            if !self.header().table_page.is_null() {
                pool.release(self.header().table_page);
            }
            ptr::drop_in_place(self.0.as_ptr());
            pool.0.headers.give_back(self.0.cast());
        }
    }
}
