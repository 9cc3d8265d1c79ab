// SPDX-License-Identifier: GPL-2.0

//! Bio-based disks of ours, and the major number they live under.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::{
    bdev::BlockDevice,
    bio::MasterBio,
    limits::Limits, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    module::{
        this_module,
        ModuleMetadata, //
    },
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic, //
        },
        Arc,
        Completion as Event, //
    },
    types::{
        ForeignOwnable,
        ScopeGuard, //
    },
};

/// What a kind of disk does.
pub trait DiskOps: Sized + 'static {
    /// The module whose code this is; an open disk keeps it loaded.
    type Module: ModuleMetadata;

    /// Private data of a disk, usually an `Arc`. Dropped in process context when the last user of
    /// the disk is gone, possibly long after the [`Disk`].
    type Data: ForeignOwnable + Send + Sync;

    /// Takes over a bio, already split to the disk's limits.
    ///
    /// Context: may sleep, but must not wait for I/O that it submits itself: that starts only
    /// after it returned. See [`crate::bio::inside_submit`].
    fn submit(data: <Self::Data as ForeignOwnable>::Borrowed<'_>, bio: MasterBio);

    /// Somebody opens the disk, to write as well if `write`; an error refuses.
    ///
    /// Context: may sleep; opens and closes of one disk are serialised.
    fn open(data: <Self::Data as ForeignOwnable>::Borrowed<'_>, write: bool) -> Result;

    /// Somebody who had opened the disk closes it. Context: as for [`DiskOps::open`].
    fn release(data: <Self::Data as ForeignOwnable>::Borrowed<'_>);
}

/// A registered major number; registration of disks under it goes through it.
///
/// Dropping it waits until the last of its disks has been freed.
pub struct Major(Arc<MajorInner>);

#[pin_data]
struct MajorInner {
    number: u32,
    name: &'static CStr,
    /// Disks that exist, and one for the [`Major`] itself.
    users: Atomic<usize>,
    #[pin]
    unused: Event,
}

impl MajorInner {
    fn unregister_user(&self) {
        if self.users.fetch_sub(1usize, Full) == 1 {
            self.unused.complete_all();
        }
    }
}

impl Major {
    /// Registers `number` under `name`.
    ///
    /// Errors: `EBUSY` when another driver has it (for DRBD's number: the C module is loaded).
    /// Context: may sleep.
    pub fn register(number: u32, name: &'static CStr) -> Result<Self> {
        let inner = Arc::pin_init(
            pin_init!(MajorInner {
                number,
                name,
                users: Atomic::new(1),
                unused <- Event::new(),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: `name` is a C string; there is no probe function.
        to_result(unsafe { bindings::__register_blkdev(number, name.as_char_ptr(), None) })?;
        Ok(Self(inner))
    }
}

impl Drop for Major {
    fn drop(&mut self) {
        self.0.unregister_user();
        self.0.unused.wait_for_completion();
        // SAFETY: Registered in `register`.
        unsafe { bindings::unregister_blkdev(self.0.number, self.0.name.as_char_ptr()) };
    }
}

/// What the block layer keeps for a disk.
struct Private<D> {
    major: Arc<MajorInner>,
    data: D,
}

/// A disk. Dropping it takes it away from the system: users that still have it open get errors.
///
/// It is not visible before [`Disk::add`].
///
/// # Invariants
///
/// `disk` is a live gendisk to which we hold a reference, whose `private_data` is a leaked
/// `KBox<PrivateForeign<T>>` and whose operations are `Operations::<T>::TABLE`.
pub struct Disk<T: DiskOps> {
    disk: NonNull<bindings::gendisk>,
    added: Atomic<bool>,
    _ops: PhantomData<fn() -> T>,
}

/// Private data with the shell's part as the foreign pointer that borrowing needs.
type PrivateForeign = Private<*mut c_void>;

// SAFETY: The gendisk is made for concurrent use, its data are `Send` and `Sync` by `DiskOps`.
unsafe impl<T: DiskOps> Send for Disk<T> {}
// SAFETY: As above.
unsafe impl<T: DiskOps> Sync for Disk<T> {}

impl<T: DiskOps> Disk<T> {
    /// Creates a disk of one minor, without partitions, of size 0.
    ///
    /// `name` has at most 31 bytes; `limits` starts from the block layer's stacking defaults.
    /// Errors: `EINVAL` for the name, `ENOMEM`. Context: may sleep.
    pub fn new(
        major: &Major,
        minor: u32,
        name: kernel::fmt::Arguments<'_>,
        limits: impl FnOnce(&mut Limits),
        data: T::Data,
    ) -> Result<Self> {
        let private = KBox::new(
            PrivateForeign {
                major: major.0.clone(),
                data: ptr::null_mut(),
            },
            GFP_KERNEL,
        )?;
        let disk = alloc_gendisk(limits)?;
        let disk = ScopeGuard::new_with_data(disk, |disk| {
            // SAFETY: Ours, and never added.
            unsafe { bindings::put_disk(disk.as_ptr()) }
        });
        // SAFETY: The disk is ours alone until it is added.
        let fields = unsafe { &mut *disk.as_ptr() };
        fields.major = major.0.number.try_into()?;
        fields.first_minor = minor.try_into()?;
        fields.minors = 1;
        fields.flags |= i32::try_from(bindings::GENHD_FL_NO_PART)?;
        write_name(&mut fields.disk_name, name)?;
        fields.fops = &Operations::<T>::TABLE;

        major.0.users.add(1usize, Relaxed);
        let mut private = private;
        private.data = data.into_foreign();
        fields.private_data = KBox::into_raw(private).cast();
        // INVARIANT: Established above.
        Ok(Self {
            disk: disk.dismiss(),
            added: Atomic::new(false),
            _ops: PhantomData,
        })
    }

    /// Makes the disk visible. To be called once. Context: may sleep.
    pub fn add(&self) -> Result {
        if self.added.xchg(true, Full) {
            return Err(EEXIST);
        }
        // SAFETY: The disk is completely initialised and was not added before.
        let result = to_result(unsafe {
            bindings::device_add_disk(ptr::null_mut(), self.disk.as_ptr(), ptr::null_mut())
        });
        if result.is_err() {
            self.added.store(false, Relaxed);
        }
        result
    }

    /// The private data. Context: any.
    pub fn data(&self) -> <T::Data as ForeignOwnable>::Borrowed<'_> {
        // SAFETY: By the type invariant; our reference keeps the disk and with it the data.
        unsafe { borrow_data::<T>(self.disk.as_ptr()) }
    }

    /// Sets the size. Users are told when the disk was visible and not empty before. Context: may
    /// sleep.
    pub fn set_capacity_and_notify(&self, sectors: u64) {
        // SAFETY: The disk is alive.
        unsafe { bindings::set_capacity_and_notify(self.disk.as_ptr(), sectors) };
    }

    /// The size in sectors. Context: any.
    pub fn capacity_sectors(&self) -> u64 {
        // SAFETY: The disk is alive and so is its whole-disk device; the size may change meanwhile,
        // hence volatile.
        unsafe { ptr::read_volatile(&raw const (*(*self.disk.as_ptr()).part0).bd_nr_sectors) }
    }

    /// Marks the disk read-only or writable, for those who open it from now on. Context: may
    /// sleep.
    pub fn set_read_only(&self, read_only: bool) {
        // SAFETY: The disk is alive.
        unsafe { bindings::set_disk_ro(self.disk.as_ptr(), read_only) };
    }

    /// Tells user space (udev) that something about the disk changed. Context: may sleep.
    pub fn notify_change(&self) {
        if self.added.load(Relaxed) {
            let action = bindings::kobject_action_KOBJ_CHANGE;
            // SAFETY: The disk is alive and was added.
            unsafe { bindings::disk_uevent(self.disk.as_ptr(), action) };
        }
    }

    /// Changes the limits in one step, `change` starting from the present ones.
    ///
    /// With `frozen` no bio is inside [`DiskOps::submit`] meanwhile; that waits for those that are,
    /// so it must not be called where they wait for the caller. Errors: `EINVAL` for impossible
    /// limits, which are not applied. Context: may sleep.
    pub fn update_limits<F: FnOnce(&mut Limits)>(&self, frozen: bool, change: F) -> Result {
        let mut change = Some(change);
        // SAFETY: The disk is alive. `call_change::<F>` takes a pointer to an `Option<F>`, which
        // lives longer than the call.
        to_result(unsafe {
            raw::drbd_shim_update_limits(
                self.disk.as_ptr(),
                frozen,
                Some(call_change::<F>),
                (&raw mut change).cast(),
            )
        })
    }

    /// Shows in sysfs that `device` is below this disk (`slaves`, `holders`). The disk must have
    /// been added and the device claimed. Context: may sleep.
    pub fn link_backing(&self, device: &BlockDevice) -> Result {
        if !self.added.load(Relaxed) {
            return Err(ENODEV);
        }
        // SAFETY: Both are alive, the device is claimed as every `BlockDevice`.
        to_result(unsafe { bindings::bd_link_disk_holder(device.as_ptr(), self.disk.as_ptr()) })
    }

    /// Undoes [`Disk::link_backing`]; to be called before either is dropped. Context: may sleep.
    pub fn unlink_backing(&self, device: &BlockDevice) {
        // SAFETY: Both are alive; without a link it only warns.
        unsafe { bindings::bd_unlink_disk_holder(device.as_ptr(), self.disk.as_ptr()) };
    }
}

impl<T: DiskOps> Drop for Disk<T> {
    fn drop(&mut self) {
        let disk = self.disk.as_ptr();
        if self.added.load(Relaxed) {
            // SAFETY: Added and not deleted before; the block layer calls `free_disk` when the last
            // reference is gone.
            unsafe {
                bindings::del_gendisk(disk);
                bindings::put_disk(disk);
            }
        } else {
            // SAFETY: Never visible, so nobody else has the data, and `free_disk` is not called.
            unsafe {
                let private = (*disk).private_data;
                bindings::put_disk(disk);
                drop_private::<T>(private);
            }
        }
    }
}

fn alloc_gendisk(change: impl FnOnce(&mut Limits)) -> Result<NonNull<bindings::gendisk>> {
    let mut limits = KBox::<bindings::queue_limits>::new_uninit(GFP_KERNEL)?;
    // SAFETY: The memory is ours; the call initialises all of it.
    let view = unsafe {
        bindings::blk_set_stacking_limits(limits.as_mut_ptr());
        Limits::from_raw(limits.as_mut_ptr())
    };
    view.set_io_statistics(true);
    change(view);
    // SAFETY: The limits are valid; the lock class is static.
    let disk = from_err_ptr(unsafe {
        bindings::__blk_alloc_disk(
            limits.as_mut_ptr(),
            bindings::NUMA_NO_NODE,
            static_lock_class!().as_ptr(),
        )
    })?;
    NonNull::new(disk).ok_or(ENOMEM)
}

/// Writes a name into a C array, with its NUL. `EINVAL` when it is too long.
fn write_name(target: &mut [c_char], name: kernel::fmt::Arguments<'_>) -> Result {
    let text = kernel::str::CString::try_from_fmt(name)?;
    let bytes = text.to_bytes_with_nul();
    let target = target.get_mut(..bytes.len()).ok_or(EINVAL)?;
    for (to, from) in target.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(())
}

/// Borrows the data of a disk.
///
/// # Safety
///
/// `disk` must be a live gendisk made by [`Disk<T>`], and stay so for `'a`.
unsafe fn borrow_data<'a, T: DiskOps>(
    disk: *mut bindings::gendisk,
) -> <T::Data as ForeignOwnable>::Borrowed<'a>
where
    T::Data: 'a,
{
    // SAFETY: By the invariant of `Disk`, `private_data` is a `PrivateForeign` that lives as long
    // as the gendisk; its data came from `into_foreign`.
    unsafe { T::Data::borrow((*(*disk).private_data.cast::<PrivateForeign>()).data) }
}

/// Drops what [`Disk::new`] leaked.
///
/// # Safety
///
/// `private` must come from a disk of `T` that nobody uses any more.
unsafe fn drop_private<T: DiskOps>(private: *mut c_void) {
    // SAFETY: By the requirement of this function both were leaked by `Disk::new` and are taken
    // back once.
    unsafe {
        let private = KBox::from_raw(private.cast::<PrivateForeign>());
        drop(T::Data::from_foreign(private.data));
        private.major.unregister_user();
    }
}

/// The block layer's table of functions for disks of `T`.
struct Operations<T>(PhantomData<T>);

impl<T: DiskOps> Operations<T> {
    const TABLE: bindings::block_device_operations = bindings::block_device_operations {
        submit_bio: Some(Self::submit_bio),
        open: Some(Self::open),
        release: Some(Self::release),
        free_disk: Some(Self::free_disk),
        owner: this_module::<T::Module>().as_ptr(),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the block layer with a bio for a disk of `T`, which stays alive during the call.
    unsafe extern "C" fn submit_bio(bio: *mut bindings::bio) {
        // SAFETY: By the requirement of this function. What is split off is resubmitted.
        let Some(bio) = NonNull::new(unsafe { bindings::bio_split_to_limits(bio) }) else {
            return;
        };
        // SAFETY: As above; the bio is handed over to us.
        unsafe {
            let disk = (*(*bio.as_ptr()).bi_bdev).bd_disk;
            T::submit(borrow_data::<T>(disk), MasterBio::from_raw(bio));
        }
    }

    /// # Safety
    ///
    /// Called by the block layer with a disk of `T`, which stays alive during the call.
    unsafe extern "C" fn open(disk: *mut bindings::gendisk, mode: bindings::blk_mode_t) -> c_int {
        from_result(|| {
            // SAFETY: By the requirement of this function.
            let data = unsafe { borrow_data::<T>(disk) };
            T::open(data, mode & raw::DRBD_CONST_BLK_OPEN_WRITE != 0)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for `open`.
    unsafe extern "C" fn release(disk: *mut bindings::gendisk) {
        // SAFETY: By the requirement of this function.
        T::release(unsafe { borrow_data::<T>(disk) });
    }

    /// # Safety
    ///
    /// Called by the block layer once, for a disk of `T` that was added and has no user any more.
    unsafe extern "C" fn free_disk(disk: *mut bindings::gendisk) {
        // SAFETY: By the requirement of this function.
        unsafe { drop_private::<T>((*disk).private_data) };
    }
}

/// # Safety
///
/// `context` must point to an `Option<F>`, `limits` to valid limits; both exclusively the callee's.
unsafe extern "C" fn call_change<F: FnOnce(&mut Limits)>(
    limits: *mut bindings::queue_limits,
    context: *mut c_void,
) {
    // SAFETY: By the requirement of this function.
    let (limits, change) = unsafe { (Limits::from_raw(limits), &mut *context.cast::<Option<F>>()) };
    if let Some(change) = change.take() {
        change(limits);
    }
}
