// SPDX-License-Identifier: GPL-2.0

//! Queue limits: what a disk promises to the block layer above it.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bdev::BlockDevice;
use drbd_bindings as raw;
use kernel::{
    bindings,
    prelude::*,
    types::Opaque, //
};

/// What a disk can take and how large its requests may be (`struct queue_limits`).
///
/// A value lives inside the block layer or inside [`Limits::with_stacking_defaults`]'s closure; it
/// is a few hundred bytes and never moved around. Setters take bytes or 512-byte sectors as their
/// names say; the block layer validates the whole when it is committed.
///
/// Context: setters and getters may be called in any context.
#[repr(transparent)]
pub struct Limits(Opaque<bindings::queue_limits>);

impl Limits {
    /// # Safety
    ///
    /// `limits` must be initialised and not accessed by anyone else during `'a`.
    pub(crate) unsafe fn from_raw<'a>(limits: *mut bindings::queue_limits) -> &'a mut Self {
        // SAFETY: `Self` is transparent over `queue_limits`; validity and exclusiveness are the
        // caller's promise.
        unsafe { &mut *limits.cast::<Self>() }
    }

    fn get(&self) -> &bindings::queue_limits {
        // SAFETY: Initialised by the requirement of `from_raw`; `&self` excludes writers.
        unsafe { &*self.0.get() }
    }

    fn edit(&mut self) -> &mut bindings::queue_limits {
        // SAFETY: Initialised by the requirement of `from_raw`; `&mut self` is exclusive.
        unsafe { &mut *self.0.get() }
    }

    /// Resets everything to the widest limits, to be narrowed by [`Limits::stack`] and the setters.
    pub fn reset_to_stacking_defaults(&mut self) {
        // SAFETY: `self` is a valid `queue_limits`, exclusively borrowed.
        unsafe { bindings::blk_set_stacking_limits(self.0.get()) }
    }

    /// Narrows these limits to what `device` supports as well, data starting at its sector 0.
    ///
    /// `name` is the upper disk's name, for the kernel's warning about misaligned devices.
    /// Context: may sleep.
    pub fn stack(&mut self, device: &BlockDevice, name: &CStr) {
        // SAFETY: `self` is valid and exclusively borrowed, `device` holds its block device open,
        // `name` is a C string.
        unsafe {
            bindings::queue_limits_stack_bdev(self.0.get(), device.as_ptr(), 0, name.as_char_ptr())
        }
    }

    /// Logical block size in bytes: the smallest unit of I/O.
    pub fn logical_block_size_bytes(&self) -> u32 {
        self.get().logical_block_size
    }

    /// Sets the logical block size in bytes, a power of two of at least 512.
    pub fn set_logical_block_size_bytes(&mut self, size_bytes: u32) {
        self.edit().logical_block_size = size_bytes;
    }

    /// Physical block size in bytes.
    pub fn physical_block_size_bytes(&self) -> u32 {
        self.get().physical_block_size
    }

    /// Sets the physical block size in bytes, a power of two.
    pub fn set_physical_block_size_bytes(&mut self, size_bytes: u32) {
        self.edit().physical_block_size = size_bytes;
    }

    /// Sets the preferred smallest request in bytes.
    pub fn set_io_min_bytes(&mut self, size_bytes: u32) {
        self.edit().io_min = size_bytes;
    }

    /// Sets the optimal request size in bytes, 0 for none.
    pub fn set_io_opt_bytes(&mut self, size_bytes: u32) {
        self.edit().io_opt = size_bytes;
    }

    /// Largest request in sectors that the disk takes.
    pub fn max_hw_sectors(&self) -> u32 {
        self.get().max_hw_sectors
    }

    /// Sets the largest request in sectors, at least a page.
    pub fn set_max_hw_sectors(&mut self, sectors: u32) {
        self.edit().max_hw_sectors = sectors;
    }

    /// Sets how many segments a request may have and the mask a segment may not cross.
    pub fn set_segments(&mut self, max_segments: u16, boundary_mask: usize) {
        let limits = self.edit();
        limits.max_segments = max_segments;
        limits.seg_boundary_mask = boundary_mask;
    }

    /// Largest discard in sectors, 0 when discard is not supported.
    pub fn max_hw_discard_sectors(&self) -> u32 {
        self.get().max_hw_discard_sectors
    }

    /// Enables discard of up to `sectors` in units of `granularity_bytes`; 0 sectors disable it.
    pub fn set_discard(&mut self, sectors: u32, granularity_bytes: u32) {
        let limits = self.edit();
        limits.max_hw_discard_sectors = sectors;
        limits.discard_granularity = granularity_bytes;
    }

    /// Largest write-zeroes request in sectors, 0 when not supported.
    pub fn max_write_zeroes_sectors(&self) -> u32 {
        self.get().max_write_zeroes_sectors
    }

    /// Enables write-zeroes of up to `sectors`, with unmap allowed if the issuer permits it.
    pub fn set_write_zeroes(&mut self, sectors: u32) {
        let limits = self.edit();
        limits.max_write_zeroes_sectors = sectors;
        limits.max_hw_wzeroes_unmap_sectors = sectors;
    }

    /// Switches secure erase off.
    pub fn disable_secure_erase(&mut self) {
        self.edit().max_secure_erase_sectors = 0;
    }

    /// Sets whether the disk has a volatile write cache, so that flush and FUA reach the driver.
    pub fn set_write_cache(&mut self, enabled: bool) {
        self.feature(
            raw::DRBD_CONST_BLK_FEAT_WRITE_CACHE | raw::DRBD_CONST_BLK_FEAT_FUA,
            enabled,
        );
    }

    /// Sets whether the disk is reported as rotational.
    pub fn set_rotational(&mut self, enabled: bool) {
        self.feature(raw::DRBD_CONST_BLK_FEAT_ROTATIONAL, enabled);
    }

    /// Sets whether pages under write-back must not change (needed when their bytes are hashed or
    /// lent to a socket).
    pub fn set_stable_writes(&mut self, enabled: bool) {
        self.feature(raw::DRBD_CONST_BLK_FEAT_STABLE_WRITES, enabled);
    }

    /// Sets whether the block layer keeps I/O statistics for the disk.
    pub fn set_io_statistics(&mut self, enabled: bool) {
        self.feature(raw::DRBD_CONST_BLK_FEAT_IO_STAT, enabled);
    }

    fn feature(&mut self, bits: bindings::blk_features_t, enabled: bool) {
        let features = &mut self.edit().features;
        if enabled {
            *features |= bits;
        } else {
            *features &= !bits;
        }
    }
}
