// SPDX-License-Identifier: GPL-2.0

//! Metadata I/O in pages of 4 KiB that the caller waits for, with a deadline.
//!
//! A page in flight belongs to its bio. When the deadline passes it stays there, nothing leaks,
//! and the object can be used again once the device has answered.

use crate::{
    bdev::BlockDevice,
    bio::{
        self,
        Completion,
        Flags, //
    },
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// Bytes of one unit of metadata.
pub const META_PAGE_BYTES: usize = 4096;

/// One unit of metadata.
pub type MetaPage = [u8; META_PAGE_BYTES];

/// What a write leaves in a volatile cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything, until the next flush.
    Cached,
    /// Not the page itself: it is on stable storage at the end.
    Stable,
    /// Neither the page nor what ended before: that is flushed first.
    AllStable,
}

/// Longest single sleep, below the kernel's hung-task limit of 120 s.
const NAP_MS: u32 = 60_000;

/// How often [`SyncIo::finish_while`] asks whether to go on.
const LOOK_MS: u32 = 1000;

/// Room for one I/O of one page (or a flush) at a time, usable without allocating anything.
///
/// All operations fail with `EDEADLK` inside a disk's `submit`, with `ETIMEDOUT` when the deadline
/// passes, and with `EBUSY` while an I/O that missed its deadline is still out. Context: may
/// sleep.
pub struct SyncIo {
    device: BlockDevice,
    slot: Arc<Slot>,
    /// Whether the page belongs to a bio.
    outstanding: bool,
}

/// What a bio in flight and its waiter share.
#[pin_data(PinnedDrop)]
struct Slot {
    page: *mut bindings::page,
    segment: bindings::bio_vec,
    errno: Atomic<i32>,
    #[pin]
    done: Opaque<bindings::completion>,
}

// SAFETY: The page is accessed by its owner or by a bio, never by both: see `SyncIo::outstanding`.
unsafe impl Send for Slot {}
// SAFETY: As above.
unsafe impl Sync for Slot {}

/// The token of the bio: keeps the page.
pub(crate) struct SlotToken(Arc<Slot>);

impl SlotToken {
    /// The one segment of the page.
    pub(crate) fn table(&self) -> *const bindings::bio_vec {
        &self.0.segment
    }
}

impl Completion for SlotToken {
    fn complete(self, result: Result) {
        let errno = match result {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        };
        self.0.errno.store(errno, Relaxed);
        // SAFETY: Initialised in `SyncIo::new`. The lock inside orders the store before the wake.
        unsafe { bindings::complete(self.0.done.get()) };
    }
}

impl SyncIo {
    /// Allocates the page. Errors: `ENOMEM`.
    pub fn new(device: &BlockDevice) -> Result<Self> {
        // SAFETY: The function has no requirements.
        let page = unsafe { bindings::alloc_pages(raw::DRBD_CONST_GFP_NOIO_ZERO, 0) };
        if page.is_null() {
            return Err(ENOMEM);
        }
        let segment = bindings::bio_vec {
            bv_page: page,
            bv_len: META_PAGE_BYTES as u32,
            bv_offset: 0,
        };
        let slot = Arc::pin_init(
            try_pin_init!(Slot {
                page,
                segment,
                errno: Atomic::new(0),
                done <- Opaque::ffi_init(|done| {
                    // SAFETY: `done` is valid for writes and stays in place, being pinned.
                    unsafe { bindings::init_completion(done) }
                }),
            }),
            GFP_KERNEL,
        );
        match slot {
            Ok(slot) => Ok(Self {
                device: device.clone(),
                slot,
                outstanding: false,
            }),
            Err(error) => {
                // SAFETY: Allocated above, with no other user.
                unsafe { bindings::__free_pages(page, 0) };
                Err(error)
            }
        }
    }

    /// The device that the I/O goes to.
    pub fn device(&self) -> &BlockDevice {
        &self.device
    }

    /// The page: what was read last, or what to write next. `EBUSY` while it is in flight.
    pub fn page(&mut self) -> Result<&mut MetaPage> {
        self.reclaim()?;
        // SAFETY: The page is ours, mapped, 4096 bytes large and no bio has it.
        Ok(unsafe { &mut *raw::drbd_shim_page_address(self.slot.page).cast::<MetaPage>() })
    }

    /// Reads the page at `sector`.
    pub fn read(&mut self, sector: u64, timeout_ms: u32) -> Result<&MetaPage> {
        self.start_read(sector)?;
        self.finish(timeout_ms)?;
        Ok(self.page()?)
    }

    /// Starts to flush the device's volatile write cache.
    pub fn start_flush(&mut self) -> Result {
        let token = self.token()?;
        self.device.submit_flush(token);
        Ok(())
    }

    /// Starts reading; [`SyncIo::finish`] waits for the end.
    pub fn start_read(&mut self, sector: u64) -> Result {
        let token = self.token()?;
        let flags = Flags::SYNC | Flags::META | Flags::PRIO;
        self.device
            .submit_slot(bindings::req_op_REQ_OP_READ, flags, sector, token);
        Ok(())
    }

    /// Starts writing [`SyncIo::page`] to `sector`; [`SyncIo::finish`] waits for the end.
    pub fn start_write(&mut self, sector: u64, durability: Durability) -> Result {
        let token = self.token()?;
        let flags = Flags::SYNC | Flags::META | Flags::PRIO;
        let flags = match durability {
            Durability::Cached => flags,
            Durability::Stable => flags | Flags::FUA,
            Durability::AllStable => flags | Flags::FUA | Flags::PREFLUSH,
        };
        self.device
            .submit_slot(bindings::req_op_REQ_OP_WRITE, flags, sector, token);
        Ok(())
    }

    /// Waits for what was started and returns its result; `Ok` when nothing was.
    pub fn finish(&mut self, timeout_ms: u32) -> Result {
        if !self.outstanding {
            return Ok(());
        }
        if !self.slot.wait(timeout_ms) {
            return Err(ETIMEDOUT);
        }
        self.outstanding = false;
        match self.slot.errno.load(Relaxed) {
            0 => Ok(()),
            errno => Err(Error::from_errno(errno)),
        }
    }

    /// Waits for what was started as long as `goes_on`, which is asked once a second with the
    /// milliseconds waited so far; errors as of [`SyncIo::finish`].
    pub fn finish_while(&mut self, goes_on: &dyn Fn(u64) -> bool) -> Result {
        let mut waited_ms = 0u64;
        loop {
            match self.finish(LOOK_MS) {
                // Not the device's own time-out, which is an answer.
                Err(_) if self.outstanding => {}
                result => return result,
            }
            waited_ms = waited_ms.saturating_add(u64::from(LOOK_MS));
            if !goes_on(waited_ms) {
                return Err(ETIMEDOUT);
            }
        }
    }

    /// Whether an I/O that was started has not been finished.
    pub fn is_outstanding(&self) -> bool {
        self.outstanding
    }

    /// Takes the page back of an I/O that nobody waited for to its end. `EBUSY` while that is in
    /// flight.
    fn reclaim(&mut self) -> Result {
        if self.outstanding && !self.slot.wait(0) {
            return Err(EBUSY);
        }
        self.outstanding = false;
        Ok(())
    }

    fn token(&mut self) -> Result<SlotToken> {
        if bio::inside_submit() {
            return Err(EDEADLK);
        }
        self.reclaim()?;
        self.outstanding = true;
        Ok(SlotToken(self.slot.clone()))
    }
}

impl Slot {
    /// Waits for the completion; whether it came in time.
    fn wait(&self, timeout_ms: u32) -> bool {
        let mut rest_ms = timeout_ms;
        loop {
            let nap_ms = rest_ms.min(NAP_MS);
            if self.wait_ms(nap_ms) {
                return true;
            }
            rest_ms = rest_ms.saturating_sub(nap_ms);
            if rest_ms == 0 {
                return false;
            }
        }
    }

    fn wait_ms(&self, ms: u32) -> bool {
        // SAFETY: The completion is initialised.
        unsafe {
            if bindings::try_wait_for_completion(self.done.get()) {
                return true;
            }
            let jiffies = bindings::__msecs_to_jiffies(ms);
            bindings::wait_for_completion_io_timeout(self.done.get(), jiffies) != 0
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Slot {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Allocated in `SyncIo::new`; neither waiter nor bio is left.
        unsafe { bindings::__free_pages(self.page, 0) };
    }
}

/// Several [`SyncIo`]s in flight at once, for many pages.
///
/// Pages are handed to the device in runs of a part of the lanes: those of a run can be merged into
/// one request, and while the pages of one are looked at the device has others to work at. (Where
/// the caller holds a plug it is that plug that counts, until the first wait.)
pub struct BulkIo {
    lanes: KVec<SyncIo>,
    /// The lane whose turn it is.
    turn: usize,
}

/// Into how many runs the lanes of a [`BulkIo`] are parted.
const RUNS: usize = 4;

impl BulkIo {
    /// Creates up to `depth` lanes, each with a page, as memory permits; at least one. Errors:
    /// `ENOMEM`.
    pub fn new(device: &BlockDevice, depth: usize) -> Result<Self> {
        let depth = depth.max(1);
        let mut lanes = KVec::with_capacity(depth, GFP_KERNEL)?;
        for _ in 0..depth {
            let lane = match SyncIo::new(device) {
                Ok(lane) => lane,
                Err(_) if !lanes.is_empty() => break,
                Err(error) => return Err(error),
            };
            lanes.push_within_capacity(lane).map_err(|_| ENOMEM)?;
        }
        Ok(Self { lanes, turn: 0 })
    }

    /// Reads `pages` pages from `sector` on and hands them to `each` in order.
    ///
    /// Each I/O is waited for as long as `goes_on` (see [`SyncIo::finish_while`]). Stops at the
    /// first error of the device or of `each`.
    pub fn read(
        &mut self,
        sector: u64,
        pages: usize,
        goes_on: &dyn Fn(u64) -> bool,
        mut each: impl FnMut(usize, &MetaPage) -> Result,
    ) -> Result {
        let depth = self.lanes.len();
        let mut steps = 0..pages.saturating_add(depth);
        let result = self.in_runs(|bulk| {
            let Some(step) = steps.next() else {
                return Ok(false);
            };
            let lane = bulk.lane()?;
            if let Some(index) = step.checked_sub(depth) {
                lane.finish_while(goes_on)?;
                each(index, lane.page()?)?;
            }
            if step < pages {
                lane.start_read(sector_of(sector, step)?)?;
            }
            Ok(true)
        });
        self.settle(result, goes_on)
    }

    /// Writes one page to each of `sectors`; `fill` makes the content, given the position in
    /// `sectors`.
    ///
    /// Not flushed: follow with [`SyncIo::start_flush`] or a flushed write. `goes_on` and
    /// errors as for [`BulkIo::read`].
    pub fn write(
        &mut self,
        sectors: impl Iterator<Item = u64>,
        goes_on: &dyn Fn(u64) -> bool,
        mut fill: impl FnMut(usize, &mut MetaPage) -> Result,
    ) -> Result {
        let mut sectors = sectors.enumerate();
        let result = self.in_runs(|bulk| {
            let Some((index, sector)) = sectors.next() else {
                return Ok(false);
            };
            let lane = bulk.lane()?;
            lane.finish_while(goes_on)?;
            fill(index, lane.page()?)?;
            lane.start_write(sector, Durability::Cached)?;
            Ok(true)
        });
        self.settle(result, goes_on)
    }

    /// Calls `step` until it says that it was the last or fails; what a run of them starts is
    /// handed to the device together.
    fn in_runs(&mut self, mut step: impl FnMut(&mut Self) -> Result<bool>) -> Result {
        let run = self.lanes.len().div_ceil(RUNS).max(1);
        let mut goes_on = true;
        while goes_on {
            goes_on = bio::plugged(|| -> Result<bool> {
                for _ in 0..run {
                    if !step(self)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// The lane whose turn it is; the next call gives the next one.
    fn lane(&mut self) -> Result<&mut SyncIo> {
        if self.turn >= self.lanes.len() {
            self.turn = 0;
        }
        let lane = self.lanes.get_mut(self.turn).ok_or(EINVAL)?;
        self.turn = self.turn.wrapping_add(1);
        Ok(lane)
    }

    /// Waits for everything that is out and returns the first error, or that of before.
    fn settle(&mut self, mut result: Result, goes_on: &dyn Fn(u64) -> bool) -> Result {
        for lane in &mut self.lanes {
            if result == Err(ETIMEDOUT) {
                // The device hangs: the others' pages stay with their bios.
                break;
            }
            result = result.and(lane.finish_while(goes_on));
        }
        result
    }
}

/// The sector of the page with this index.
fn sector_of(first: u64, index: usize) -> Result<u64> {
    let offset = u64::try_from(index)?.checked_mul(8).ok_or(EOVERFLOW)?;
    first.checked_add(offset).ok_or(EOVERFLOW)
}
