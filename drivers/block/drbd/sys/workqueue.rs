// SPDX-License-Identifier: GPL-2.0

//! Work queues of our own.
//!
//! The kernel crate has work items, but only the system's queues, and neither flush nor cancel: a
//! module cannot know when its code has left them. An [`OwnQueue`] ends all that before it is gone.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    ffi::c_int,
    prelude::*,
    sync::Arc,
    time::msecs_to_jiffies,
    workqueue::{
        HasDelayedWork,
        HasWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

/// How the items of a queue run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One at a time, in the order in which they were queued.
    Ordered,
    /// Concurrently, on any processor.
    Concurrent,
}

/// A work queue that makes progress also when memory is short, owned.
///
/// Items are those of `kernel::workqueue` in an [`Arc`]; enqueue them by [`Queue::enqueue`], which
/// this dereferences to. Dropping the queue runs what is queued and waits for its end: it may
/// sleep, must not happen in one of its own items, and comes after the last enqueue. Delayed items
/// must be cancelled before.
pub struct OwnQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues may be used from any thread.
unsafe impl Send for OwnQueue {}
// SAFETY: See `Send`.
unsafe impl Sync for OwnQueue {}

impl OwnQueue {
    /// Makes a queue. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &CStr, order: Order) -> Result<Self> {
        const BASE: u32 = bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM;
        let (flags, max_active): (u32, c_int) = match order {
            Order::Ordered => (BASE | bindings::wq_flags___WQ_ORDERED, 1),
            Order::Concurrent => (BASE, 0),
        };
        // SAFETY: The format takes one string, which C copies.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags,
                max_active,
                name.as_char_ptr(),
            )
        };
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Waits until all that is queued now has run. May sleep.
    pub fn flush(&self) {
        // SAFETY: The queue is valid.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }

    /// Lets `item` run `delay_ms` from now, whether or not it was waiting already. Any context.
    ///
    /// An item that is running now runs once more.
    pub fn restart_delayed<T, const ID: u64>(&self, item: Arc<T>, delay_ms: u32)
    where
        T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID> + Send + Sync + 'static,
    {
        let item = Arc::into_raw(item).cast_mut();
        // SAFETY: `item` is a valid `T`, whose `HasDelayedWork` says that its work is the `work`
        // of a `delayed_work`. If C says that the item was not waiting, the queue now owns the
        // count of `item`.
        let was_waiting = unsafe {
            bindings::mod_delayed_work_on(
                WORK_CPU_UNBOUND,
                self.0.as_ptr(),
                raw_delayed::<T, ID>(item),
                msecs_to_jiffies(delay_ms),
            )
        };
        if was_waiting {
            // SAFETY: The queue owned a count already and did not take ours.
            drop(unsafe { Arc::from_raw(item) });
        }
    }
}

impl Deref for OwnQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: The queue is valid as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnQueue {
    fn drop(&mut self) {
        // SAFETY: Owned, and used no more.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

// CAST: A small positive number, which C takes as an `int`.
const WORK_CPU_UNBOUND: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

/// Takes `item` off its queue and waits until it does not run; returns whether it was waiting. May
/// sleep. Not from within the item.
pub fn cancel_sync<T, const ID: u64>(item: &Arc<T>) -> bool
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
{
    let raw = Arc::as_ptr(item).cast_mut();
    // SAFETY: `raw` is a valid `T`; its work was initialised by `Work::new`.
    let was_waiting = unsafe { bindings::cancel_work_sync(Work::raw_get(T::raw_get_work(raw))) };
    if was_waiting {
        // SAFETY: The queue owned a count of the item, and has given the item up.
        drop(unsafe { Arc::from_raw(raw) });
    }
    was_waiting
}

/// [`cancel_sync`] for a delayed item, whether it waits for its time or in its queue.
pub fn cancel_delayed_sync<T, const ID: u64>(item: &Arc<T>) -> bool
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    let raw = Arc::as_ptr(item).cast_mut();
    // SAFETY: `raw` is a valid `T`, whose work is the `work` of a `delayed_work`.
    let was_waiting = unsafe { bindings::cancel_delayed_work_sync(raw_delayed::<T, ID>(raw)) };
    if was_waiting {
        // SAFETY: The queue or timer owned a count of the item, and has given the item up.
        drop(unsafe { Arc::from_raw(raw) });
    }
    was_waiting
}

/// The `delayed_work` of an item.
///
/// # Safety
///
/// `item` points to a valid `T`.
unsafe fn raw_delayed<T, const ID: u64>(item: *mut T) -> *mut bindings::delayed_work
where
    T: HasDelayedWork<T, ID>,
{
    // SAFETY: By the requirement on `item`.
    let work = unsafe { Work::raw_get(T::raw_get_work(item)) };
    // SAFETY: `HasDelayedWork` promises that this is the `work` field of a `delayed_work`.
    unsafe { kernel::container_of!(work, bindings::delayed_work, work) }
}
