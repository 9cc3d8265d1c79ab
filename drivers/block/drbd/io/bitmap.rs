// SPDX-License-Identifier: GPL-2.0

//! The bitmap of an attached disk: atomic words in core, pages on the metadata device.
//!
//! Bits change in any context. A page that changed is dirty until it was written; a page that is
//! being written is marked clean first, so a change that the write may have missed makes it dirty
//! again.

use core::cell::Cell;

use drbd_engine::{
    bitmap::{
        self,
        bits_for,
        page::{
            pages_for,
            PAGE_BITS, //
        },
        words_for,
        Words, //
    },
    types::{
        BitNr,
        Sector,
        SECTOR_SHIFT, //
    },
};
use drbd_sys::{
    bits::{
        AtomicBits32,
        AtomicBits64, //
    },
    sync_io::{
        BulkIo,
        Durability,
        MetaPage,
        SyncIo, //
    },
    words::AtomicWords, //
};
use kernel::prelude::*;

use super::{
    device::Device,
    disk::LocalDisk, //
};

/// How many pages are in flight in bulk I/O.
const BULK_DEPTH: usize = 128;

/// Words in core, as the engine sees them.
pub(crate) struct CoreWords(AtomicWords);

impl Words for CoreWords {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> u64 {
        self.0.load(index).unwrap_or(0)
    }

    fn or(&self, index: usize, mask: u64) -> u64 {
        self.0.fetch_or(index, mask).unwrap_or(0)
    }

    fn and_not(&self, index: usize, mask: u64) -> u64 {
        self.0.fetch_andnot(index, mask).unwrap_or(0)
    }
}

/// The bitmap of an attached disk.
pub(crate) struct Bitmap {
    words: CoreWords,
    /// One bit for each page that differs from the disk.
    dirty: AtomicWords,
    capacity_sectors: AtomicBits64,
    set: AtomicBits64,
    /// Bits were cleared for data that may be in the disk's cache only.
    cleared: AtomicBits32,
    /// 1 once the words say at least what the disk says: before that they are not written.
    in_core: AtomicBits32,
}

/// Which pages to write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All.
    All,
    /// Those that changed.
    Dirty,
}

impl Bitmap {
    /// An all-clear bitmap for `capacity` sectors, which may become `largest`. May sleep.
    pub(crate) fn new(largest: Sector, capacity: Sector) -> Result<Self> {
        let bits = bits_for(largest);
        let words = usize::try_from(words_for(bits))?;
        let pages = usize::try_from(words_for(pages_for(bits)))?;
        Ok(Self {
            words: CoreWords(AtomicWords::new(words)?),
            dirty: AtomicWords::new(pages)?,
            capacity_sectors: AtomicBits64::new(capacity.min(largest).0),
            set: AtomicBits64::new(0),
            cleared: AtomicBits32::new(0),
            in_core: AtomicBits32::new(0),
        })
    }

    /// The engine's view, for the present capacity. Any context.
    pub(crate) fn view(&self) -> Option<bitmap::Bitmap<&CoreWords>> {
        bitmap::Bitmap::new(&self.words, Sector(self.capacity_sectors.load()))
    }

    /// Changes the capacity, which must not exceed the largest; new storage is out of sync if
    /// `set_new`.
    ///
    /// Returns whether anything changed. The caller holds off application I/O.
    pub(crate) fn resize(&self, capacity: Sector, set_new: bool) -> bool {
        let before = Sector(self.capacity_sectors.load());
        if before == capacity {
            return false;
        }
        let old = bits_for(before);
        let new = bits_for(capacity);
        if let (true, Some(view)) = (new < old, self.view()) {
            let gone = view.clear_bits(BitNr(new), BitNr(old));
            self.set.update(|count| count.saturating_sub(gone));
        }
        self.capacity_sectors.store(capacity.0);
        if let Some(view) = self.view() {
            view.clear_tail();
            if set_new && new > old {
                let set = view.set_bits(BitNr(old), BitNr(new));
                self.set.update(|count| count.saturating_add(set));
            }
        }
        if new != old {
            self.mark_all_dirty();
            // What lies beyond the end is never written.
            for page in pages_for(new)..pages_for(old) {
                self.take_dirty(page);
            }
        }
        new != old
    }

    /// Number of bits. Any context.
    pub(crate) fn bits(&self) -> u64 {
        bits_for(Sector(self.capacity_sectors.load()))
    }

    /// Numbers of bits, of the words they take, and of the pages on disk. Any context.
    pub(crate) fn dimensions(&self) -> (u64, u64, u64) {
        let bits = self.bits();
        (bits, words_for(bits), pages_for(bits))
    }

    /// Number of set bits. Any context.
    pub(crate) fn set_bits(&self) -> u64 {
        self.set.load()
    }

    /// Marks what `size_bytes` from `sector` on touch as out of sync; returns how many bits were
    /// clear. Any context.
    pub(crate) fn set_out_of_sync(&self, sector: Sector, size_bytes: u32) -> u64 {
        let Some(view) = self.view() else { return 0 };
        let changed = view.set_range(sector, size_bytes);
        self.account(changed, 0, sector, size_bytes);
        changed
    }

    /// Marks the blocks that `size_bytes` from `sector` on cover as in sync; returns how many bits
    /// were set. Any context.
    pub(crate) fn set_in_sync(&self, sector: Sector, size_bytes: u32) -> u64 {
        let Some(view) = self.view() else { return 0 };
        // Before any page can be without these bits, see `fill`.
        if !self.cleared.any(1) {
            self.cleared.set(1);
        }
        let changed = view.clear_range(sector, size_bytes);
        self.account(0, changed, sector, size_bytes);
        changed
    }

    fn account(&self, set: u64, cleared: u64, sector: Sector, size_bytes: u32) {
        if set == 0 && cleared == 0 {
            return;
        }
        self.set
            .update(|count| count.saturating_add(set).saturating_sub(cleared));
        let sectors = u64::from(size_bytes >> SECTOR_SHIFT);
        let last = Sector(sector.0.saturating_add(sectors.saturating_sub(1)));
        for page in sector.bit().0 / PAGE_BITS..=last.bit().0 / PAGE_BITS {
            self.mark_dirty(page);
        }
    }

    /// Whether any block in the range is out of sync. Any context.
    pub(crate) fn any_out_of_sync(&self, sector: Sector, size_bytes: u32) -> bool {
        let Some(view) = self.view() else { return true };
        let sectors = u64::from(size_bytes >> SECTOR_SHIFT);
        let end = bits_for(Sector(sector.0.saturating_add(sectors)));
        view.any_set(sector.bit(), BitNr(end))
    }

    /// Marks everything out of sync. Any context.
    pub(crate) fn set_all(&self) {
        if let Some(view) = self.view() {
            self.merged(view.set_all());
            self.mark_all_dirty();
            self.in_core.set(1);
        }
    }

    /// Marks everything in sync. Any context.
    pub(crate) fn clear_all(&self) {
        if let Some(view) = self.view() {
            let cleared = view.clear_all();
            self.set.update(|count| count.saturating_sub(cleared));
            self.mark_all_dirty();
        }
    }

    /// Accounts for bits that the engine set in bulk through [`Self::view`], as when the peer's
    /// bitmap is merged, and which were clear before; [`Self::mark_all_dirty`] is the caller's.
    pub(crate) fn merged(&self, set: u64) {
        self.set.update(|count| count.saturating_add(set));
    }

    /// Has a page written the next time. Any context.
    pub(crate) fn mark_dirty(&self, page: u64) {
        if let Ok(index) = usize::try_from(page / 64) {
            self.dirty.fetch_or(index, 1 << (page % 64));
        }
    }

    /// Has all pages written the next time. Any context.
    pub(crate) fn mark_all_dirty(&self) {
        for page in 0..pages_for(self.bits()) {
            self.mark_dirty(page);
        }
    }

    /// Whether any page differs from the disk. Any context.
    pub(crate) fn is_dirty(&self) -> bool {
        (0..self.dirty.len()).any(|index| self.dirty.load(index).is_some_and(|word| word != 0))
    }

    /// Marks a page clean, and says whether it was dirty.
    fn take_dirty(&self, page: u64) -> bool {
        let mask = 1u64 << (page % 64);
        usize::try_from(page / 64)
            .ok()
            .and_then(|index| self.dirty.fetch_andnot(index, mask))
            .is_some_and(|old| old & mask != 0)
    }

    /// Makes the content of a page that is about to be written. May sleep.
    ///
    /// What it no longer says must be on stable storage: after a power cut nothing would tell that
    /// it is missing. What is cleared from now on is not in it.
    fn fill(&self, disk: &LocalDisk, page: u64, content: &mut MetaPage) -> Result {
        let view = self.view().ok_or(EINVAL)?;
        view.export_page(page, content);
        let cleared = self.cleared.clear(1) != 0;
        if cleared && disk.backing.has_write_cache() {
            if let Err(error) = disk.flush(&disk.backing) {
                self.cleared.set(1);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes one page where it changed; it is on stable storage only after the next flush. Whether
    /// it had to be written. The caller holds `LocalDisk::bitmap_writer`. May sleep.
    pub(crate) fn write_page_if_dirty(
        &self,
        device: &Device,
        disk: &LocalDisk,
        page_io: &mut SyncIo,
        page: u64,
    ) -> Result<bool> {
        if !self.in_core.any(1) || !self.take_dirty(page) {
            return Ok(false);
        }
        let sector = disk.layout.bitmap_page(page).ok_or(EINVAL)?;
        device.counters.bitmap_writes.add(1);
        let filled = self.fill(disk, page, page_io.page()?);
        let written = filled.and_then(|()| disk.write_page(page_io, sector, Durability::Cached));
        if written.is_err() {
            self.mark_dirty(page);
        }
        written.map(|()| true)
    }

    /// Reads the bitmap from disk; to be done once, before the disk is in use. May sleep.
    pub(crate) fn read(&self, disk: &LocalDisk) -> Result {
        if self.bits() == 0 {
            self.in_core.set(1);
            return Ok(());
        }
        let view = self.view().ok_or(EINVAL)?;
        let pages = view.pages();
        let mut bulk = BulkIo::new(disk.meta.lock().page.device(), BULK_DEPTH)?;
        // A page that is not in core yet may not be written from there.
        let _one_writer = disk.bitmap_writer.lock();
        let first = disk.layout.bitmap().0;
        let mut set = 0u64;
        bulk.read(
            first,
            usize::try_from(pages)?,
            &|waited_ms| disk.has_patience(waited_ms),
            |index, content| {
                set = set.saturating_add(view.merge_page(u64::try_from(index)?, content));
                Ok(())
            },
        )?;
        // What was set meanwhile, as for a refused write of the peer's, is counted already.
        self.set.update(|count| count.saturating_add(set));
        self.in_core.set(1);
        Ok(())
    }

    /// Writes the bitmap and flushes it; one that is not in core yet stays as it is on disk. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// Of the metadata device; the disk is being given up.
    pub(crate) fn write(&self, device: &Device, disk: &LocalDisk, which: Which) -> Result {
        let written = self.write_pages(device, disk, which);
        disk.judge_metadata(device, written)
    }

    fn write_pages(&self, device: &Device, disk: &LocalDisk, which: Which) -> Result {
        if !self.in_core.any(1) {
            return Ok(());
        }
        let view = self.view().ok_or(EINVAL)?;
        let meta_device = disk.meta.lock().page.device().clone();
        let mut bulk = BulkIo::new(&meta_device, BULK_DEPTH)?;
        // A page is marked clean before it is on disk. Nobody may take it for written until then,
        // nor write it a second time at the same time.
        let _one_writer = disk.bitmap_writer.lock();
        // The content of a page is made right after its sector was asked for.
        let current = Cell::new(0u64);
        let sectors = (0..view.pages()).filter_map(|page| {
            let dirty = self.take_dirty(page);
            current.set(page);
            let wanted = dirty || which == Which::All;
            wanted
                .then(|| disk.layout.bitmap_page(page).map(|sector| sector.0))
                .flatten()
        });
        let goes_on = |waited_ms| disk.has_patience(waited_ms);
        let written = bulk.write(sectors, &goes_on, |_, content| {
            device.counters.bitmap_writes.add(1);
            self.fill(disk, current.get(), content)
        });
        let written = written.and_then(|()| match disk.flushes_metadata() {
            true => disk.flush(&meta_device),
            false => Ok(()),
        });
        if written.is_err() {
            self.mark_all_dirty();
        }
        written
    }
}
