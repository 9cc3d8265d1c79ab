// SPDX-License-Identifier: GPL-2.0

//! Page buffers: the payload of one request, and segments of pages lent to sockets and bios.
//!
//! C header: [`include/linux/bvec.h`](srctree/include/linux/bvec.h)

use crate::pool::Mempool;
use core::{
    marker::PhantomData,
    mem::size_of,
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};
use drbd_bindings as raw;
use kernel::{
    bindings, new_condvar, new_mutex, new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex,
        SpinLockIrq, //
    },
};

// Buffers and tables are addressed directly.
#[cfg(CONFIG_HIGHMEM)]
compile_error!("pages must be mapped");

/// The largest buffer, in bytes.
pub const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The largest number of segments of a buffer: one a page.
const SEGMENTS_MAX: usize = BUFFER_BYTES_MAX / PAGE_SIZE;

/// Segments that a buffer's header has room for; more need a page of their own.
const SEGMENTS_INLINE: usize = 16;

/// Largest order that is asked for: 128 KiB. Above, the allocator rarely has one at hand.
const ORDER_MAX: u32 = 5;

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
    /// The table must cover `skip_bytes + len_bytes` bytes, `skip_bytes` lie within its first entry,
    /// and table and pages live for `'a`.
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
        self.len_bytes -= bytes;
        self.skip_bytes += bytes;
        if self.len_bytes == 0 {
            return;
        }
        loop {
            // SAFETY: By the type invariant there is an entry here, as bytes are left.
            let len = unsafe { (*self.table).bv_len } as usize;
            if self.skip_bytes < len {
                return;
            }
            self.skip_bytes -= len;
            // SAFETY: The entry was skipped and bytes are left, so there is another.
            self.table = unsafe { self.table.add(1) };
        }
    }

    /// Keeps the first `bytes` bytes only.
    pub fn truncate(&mut self, bytes: usize) {
        self.len_bytes = self.len_bytes.min(bytes);
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

/// Iterates over the contiguous runs of bytes of [`Segments`].
pub struct Chunks<'a>(Segments<'a>);

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let skip_bytes = self.0.skip_bytes;
        // SAFETY: By the invariant of `Segments` there is an entry here.
        let entry = unsafe { *self.0.table };
        let len_bytes = (entry.bv_len as usize)
            .saturating_sub(skip_bytes)
            .min(self.0.len_bytes);
        self.0.advance(len_bytes);
        // SAFETY: The entry's pages are mapped (no highmem), contiguous and borrowed for `'a`; the
        // run is within them. Somebody else (a device, the application) may write to them
        // meanwhile; then the bytes read are arbitrary, which is all that payload promises.
        Some(unsafe {
            let start = raw::drbd_shim_page_address(entry.bv_page).cast::<u8>();
            slice::from_raw_parts(
                start.add(entry.bv_offset as usize).add(skip_bytes),
                len_bytes,
            )
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
                reserve <- new_mutex!(()),
            }),
            GFP_KERNEL,
        )?))
    }

    /// Allocates a buffer of `len_bytes` bytes (1 to [`BUFFER_BYTES_MAX`]) with arbitrary content.
    ///
    /// Uses large pages where the allocator has them at hand, single pages otherwise, and waits
    /// for the reserve when memory is short; all buffers in use must be on their way back then,
    /// so a caller must not hold an idle one. Errors: `EINVAL` for the length. Context: may sleep,
    /// does not start I/O to reclaim memory.
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

    fn page_eager(&self) -> *mut bindings::page {
        // SAFETY: The function has no requirements.
        unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_PAGE_EAGER, 0) }
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
        SegmentsMut(self.segments())
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
            while order > 0 && (PAGE_SIZE << order) > rest.next_multiple_of(PAGE_SIZE) {
                order -= 1;
            }
            let mut page = ptr::null_mut();
            if order > 0 {
                // SAFETY: The function has no requirements.
                page = unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_PAGE_CHEAP, order) };
                if page.is_null() {
                    order -= 1;
                    continue;
                }
            }
            if page.is_null() {
                page = single_page(&pool, &mut reserve);
            }
            let len = rest.min(PAGE_SIZE << order);
            self.push(page, len);
            rest -= len;
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
            (*self.0.as_ptr()).count += 1;
            (*self.0.as_ptr()).len_bytes += len as u32;
        }
    }
}

/// A page without a large one, out of the reserve if it must be. `reserve` keeps the lock of the
/// reserve until the buffer is complete.
fn single_page<'a>(
    pool: &'a Pool,
    reserve: &mut Option<kernel::sync::lock::mutex::MutexGuard<'a, ()>>,
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
        let pages = pool.0.pages.as_ptr();
        // SAFETY: By the type invariant we have a reference to each page. The pool was cloned, so
        // it outlives giving the header back.
        unsafe {
            for index in 0..count {
                raw::drbd_shim_page_release((*table.add(index)).bv_page, pages);
            }
            if !self.header().table_page.is_null() {
                raw::drbd_shim_page_release(self.header().table_page, pages);
            }
            ptr::drop_in_place(self.0.as_ptr());
            pool.0.headers.give_back(self.0.cast());
        }
    }
}

/// The exclusive form of [`Segments`].
pub struct SegmentsMut<'a>(Segments<'a>);

impl<'a> SegmentsMut<'a> {
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
        // SAFETY: A `SegmentsMut` is only made from an exclusively borrowed buffer, and each byte
        // is given out once.
        Some(unsafe { slice::from_raw_parts_mut(chunk.as_ptr().cast_mut(), chunk.len()) })
    }
}

/// A limit on the pages that the buffers of one user (a connection) may hold.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct Account(Arc<AccountInner>);

#[pin_data]
struct AccountInner {
    #[pin]
    ledger: SpinLockIrq<Ledger>,
    #[pin]
    room: CondVar,
}

struct Ledger {
    used_pages: usize,
    limit_pages: usize,
    closed: bool,
}

/// Pages on an account, for as long as a buffer lives.
struct Charge {
    account: Arc<AccountInner>,
    pages: usize,
}

impl Account {
    /// Creates an account of at most `limit_pages` pages.
    ///
    /// Errors: `ENOMEM`. Context: may sleep.
    pub fn new(limit_pages: usize) -> Result<Self> {
        Ok(Self(Arc::pin_init(
            try_pin_init!(AccountInner {
                ledger <- new_spinlock_irq!(Ledger {
                    used_pages: 0,
                    limit_pages,
                    closed: false,
                }),
                room <- new_condvar!(),
            }),
            GFP_KERNEL,
        )?))
    }

    /// Allocates a buffer on this account as [`Pool::alloc`] does, and waits for room first.
    ///
    /// An empty account takes any buffer, so one that exceeds the limit by itself does not wait
    /// forever. Errors: `EINVAL` for the length, `ESHUTDOWN` once closed, `EINTR` on a signal.
    pub fn alloc(&self, pool: &Pool, len_bytes: usize) -> Result<Buffer> {
        let charge = self.charge(len_bytes.div_ceil(PAGE_SIZE), true)?;
        self.alloc_charged(pool, len_bytes, charge)
    }

    /// As [`Account::alloc`], but answers `EAGAIN` instead of waiting for room.
    pub fn try_alloc(&self, pool: &Pool, len_bytes: usize) -> Result<Buffer> {
        let charge = self.charge(len_bytes.div_ceil(PAGE_SIZE), false)?;
        self.alloc_charged(pool, len_bytes, charge)
    }

    fn alloc_charged(&self, pool: &Pool, len_bytes: usize, charge: Charge) -> Result<Buffer> {
        let buffer = pool.alloc(len_bytes)?;
        // SAFETY: The header is ours alone.
        unsafe { (*buffer.0.as_ptr()).charge = Some(charge) };
        Ok(buffer)
    }

    fn charge(&self, pages: usize, wait: bool) -> Result<Charge> {
        let mut ledger = self.0.ledger.lock();
        loop {
            if ledger.closed {
                return Err(ESHUTDOWN);
            }
            let used_pages = ledger.used_pages.saturating_add(pages);
            if ledger.used_pages == 0 || used_pages <= ledger.limit_pages {
                ledger.used_pages = used_pages;
                return Ok(Charge {
                    account: self.0.clone(),
                    pages,
                });
            }
            if !wait {
                return Err(EAGAIN);
            }
            if self.0.room.wait_interruptible(&mut ledger) {
                return Err(EINTR);
            }
        }
    }

    /// Changes the limit. Context: any.
    pub fn set_limit(&self, limit_pages: usize) {
        self.0.ledger.lock().limit_pages = limit_pages;
        self.0.room.notify_all();
    }

    /// The pages in use. Context: any.
    pub fn used_pages(&self) -> usize {
        self.0.ledger.lock().used_pages
    }

    /// Makes allocations on the account fail and those that wait return. Context: any.
    pub fn close(&self) {
        self.0.ledger.lock().closed = true;
        self.0.room.notify_all();
    }

    /// Allows allocations again. Context: any.
    pub fn reopen(&self) {
        self.0.ledger.lock().closed = false;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut ledger = self.account.ledger.lock();
        ledger.used_pages = ledger.used_pages.saturating_sub(self.pages);
        drop(ledger);
        self.account.room.notify_all();
    }
}
