// SPDX-License-Identifier: GPL-2.0

//! Backing block devices, opened exclusively.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bio::{
    BioSet,
    BioSetInner, //
};
use core::ptr;
use drbd_bindings as raw;
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    sync::Arc, //
};

/// Who claims a device when it is opened.
pub enum Holder {
    /// This handle (and its clones) alone.
    Exclusive,
    /// Everybody who opens it with the same number, which must be unique among the shared holders
    /// of the module; for metadata devices with room for several disks.
    Shared(&'static SharedHolder),
}

/// Identity of a shared claim; make it a `static`.
pub struct SharedHolder {
    /// Gives each identity an address of its own.
    _address: u8,
}

impl SharedHolder {
    /// A new identity.
    pub const fn new() -> Self {
        Self { _address: 0 }
    }
}

impl Default for SharedHolder {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a device could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// There is no such path.
    NotFound,
    /// The path is not a block device.
    NotBlockDevice,
    /// Somebody else has claimed it: a mount, another disk, a program.
    Busy,
    /// It can only be read.
    ReadOnly,
    /// Anything else, as an errno.
    Other(c_int),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        match error {
            e if e == ENOENT || e == ENODEV || e == ENXIO => Self::NotFound,
            e if e == ENOTBLK => Self::NotBlockDevice,
            e if e == EBUSY => Self::Busy,
            e if e == EACCES || e == EROFS => Self::ReadOnly,
            e => Self::Other(e.to_errno()),
        }
    }
}

/// An open block device. Clones share it.
///
/// Every bio in flight keeps it open as well, so it may be let go at any time and in any context;
/// the kernel closes it some time after the last clone and bio are gone. Use
/// [`BlockDevice::close`] where somebody else wants to open it right after.
#[derive(Clone)]
pub struct BlockDevice(Arc<Inner>);

/// # Invariants
///
/// `file` is an open block device file, `device` its block device.
struct Inner {
    file: *mut bindings::file,
    device: *mut bindings::block_device,
    set: Arc<BioSetInner>,
}

// SAFETY: Block devices are made for concurrent use.
unsafe impl Send for Inner {}
// SAFETY: As above.
unsafe impl Sync for Inner {}

impl BlockDevice {
    /// Opens the device at `path` for reading and writing and claims it.
    ///
    /// Context: may sleep, in the mount namespace of the caller.
    pub fn open(set: &BioSet, path: &CStr, holder: Holder) -> Result<Self, OpenError> {
        // The reservation is made first: its address is the exclusive claim.
        let reserved = kernel::sync::UniqueArc::<Inner>::new_uninit(GFP_KERNEL)
            .map_err(|_| OpenError::Other(ENOMEM.to_errno()))?;
        let holder: *const c_void = match holder {
            Holder::Exclusive => kernel::sync::UniqueArc::as_ptr(&reserved).cast(),
            Holder::Shared(identity) => ptr::from_ref(identity).cast(),
        };
        // SAFETY: `path` is a C string. The holder is only compared, and its address is not used
        // by anybody else while the device is open.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_path(
                path.as_char_ptr(),
                raw::DRBD_CONST_BLK_OPEN_READ | raw::DRBD_CONST_BLK_OPEN_WRITE,
                holder.cast_mut(),
                ptr::null(),
            )
        })?;
        let inner = Inner {
            file,
            // SAFETY: `file` is an open block device file.
            device: unsafe { bindings::file_bdev(file) },
            set: set.register_user(),
        };
        // INVARIANT: Just opened.
        Ok(Self(reserved.write(inner).into()))
    }

    /// Gives up the claim at once if this is the last handle and no bio is in flight; otherwise
    /// that happens some time after both is true. Context: may sleep.
    pub fn close(self) {
        if let Some(inner) = Arc::into_unique_or_drop(self.0) {
            // SAFETY: The file is open; the final `fput` in `drop` follows, as it must.
            unsafe { bindings::bdev_yield_claim(inner.file) };
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.0.device
    }

    pub(crate) fn bio_set(&self) -> &BioSetInner {
        &self.0.set
    }

    fn limits(&self) -> &bindings::queue_limits {
        // SAFETY: An open device has a queue, which lives as long. Limits may change while they
        // are read; each field is a word by itself.
        unsafe { &(*(*self.0.device).bd_queue).limits }
    }

    /// Size in sectors; it can change at any time.
    pub fn size_sectors(&self) -> u64 {
        // SAFETY: The device is open. The size may change meanwhile, hence volatile.
        unsafe { ptr::read_volatile(&raw const (*self.0.device).bd_nr_sectors) }
    }

    /// Smallest unit of I/O in bytes.
    pub fn logical_block_size_bytes(&self) -> u32 {
        self.limits().logical_block_size
    }

    /// Smallest unit in bytes that is written without reading.
    pub fn physical_block_size_bytes(&self) -> u32 {
        self.limits().physical_block_size
    }

    /// Largest request in sectors.
    pub fn max_hw_sectors(&self) -> u32 {
        self.limits().max_hw_sectors
    }

    /// Largest discard in sectors; 0 when it cannot discard.
    pub fn max_discard_sectors(&self) -> u32 {
        self.limits().max_discard_sectors
    }

    /// Unit of discard in bytes.
    pub fn discard_granularity_bytes(&self) -> u32 {
        self.limits().discard_granularity
    }

    /// Offset in bytes of the first discard unit.
    pub fn discard_alignment_bytes(&self) -> u32 {
        // SAFETY: The device is open.
        unsafe { bindings::bdev_discard_alignment(self.0.device) }
    }

    /// Largest write-zeroes request in sectors; 0 when it has none.
    pub fn max_write_zeroes_sectors(&self) -> u32 {
        self.limits().max_write_zeroes_sectors
    }

    /// Whether it has a volatile write cache that is in use.
    pub fn has_write_cache(&self) -> bool {
        let limits = self.limits();
        limits.features & raw::DRBD_CONST_BLK_FEAT_WRITE_CACHE != 0
            && limits.flags & raw::DRBD_CONST_BLK_FLAG_WRITE_CACHE_DISABLED == 0
    }

    /// Whether it executes FUA by itself.
    pub fn has_fua(&self) -> bool {
        self.limits().features & raw::DRBD_CONST_BLK_FEAT_FUA != 0
    }

    /// Whether it is a rotating disk.
    pub fn is_rotational(&self) -> bool {
        self.limits().features & raw::DRBD_CONST_BLK_FEAT_ROTATIONAL != 0
    }

    /// Whether it was set read-only.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: The device is open.
        unsafe { raw::drbd_shim_bdev_read_only(self.0.device) }
    }

    /// Device number, to tell whether two handles are the same device.
    pub fn number(&self) -> u32 {
        // SAFETY: The device is open.
        unsafe { (*self.0.device).bd_dev }
    }

    /// Sectors that were ever read from and written to the whole disk, by anybody.
    pub fn sectors_done(&self) -> u64 {
        // SAFETY: The device is open.
        unsafe { raw::drbd_shim_bdev_sectors_done(self.0.device) }
    }

    /// Writes the kernel's name for the device (`sda1`) into `name` and returns it.
    pub fn name<'a>(&self, name: &'a mut [u8; 32]) -> &'a CStr {
        // SAFETY: The device is open, `name` is valid for writes of its length.
        unsafe {
            raw::drbd_shim_bdev_name(self.0.device, name.as_mut_ptr().cast(), name.len());
        }
        CStr::from_bytes_until_nul(name).unwrap_or(c"")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: Opened by us; `fput` may be called in any context.
        unsafe { bindings::fput(self.file) };
        self.set.unregister_user();
    }
}
