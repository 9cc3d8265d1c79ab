// SPDX-License-Identifier: GPL-2.0

//! A lock for what is held while a disk works.
//!
//! Whoever waits for the kernel crate's `Mutex` alarms the hung-task detector after two minutes. A
//! disk that hangs may be waited for longer than that, by the deadline that the admin set, and then
//! neither the holder nor those behind it are a fault of this module.

use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    },
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    prelude::*,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

use crate::{
    bits::AtomicBits32,
    wait::WaitQueue, //
};

/// Initialises an [`IdleMutex`](crate::idle_mutex::IdleMutex) with a lock class of the call site.
#[macro_export]
macro_rules! new_idle_mutex {
    ($value:expr, $name:literal) => {
        $crate::idle_mutex::IdleMutex::new(
            $value,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
            ::kernel::static_lock_class!(),
        )
    };
}

/// A sleeping lock whose waiters sleep as those of a [`WaitQueue`] do: idle, whatever signals come.
///
/// The holder must come to an end by a deadline of its own. Lockdep knows the lock.
#[pin_data]
pub struct IdleMutex<T> {
    #[pin]
    map: Opaque<bindings::lockdep_map>,
    #[pin]
    waiters: WaitQueue,
    /// 1 while the lock is held.
    held: AtomicBits32,
    value: UnsafeCell<T>,
}

// SAFETY: The value moves with the lock, and is used by the holder only.
unsafe impl<T: Send> Send for IdleMutex<T> {}
// SAFETY: As above: one thread at a time has the value.
unsafe impl<T: Send> Sync for IdleMutex<T> {}

impl<T> IdleMutex<T> {
    /// Initialises a lock; use [`new_idle_mutex!`](crate::new_idle_mutex).
    pub fn new(
        value: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
        queue_key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `map` is valid, `name` and `key` are static.
            map <- Opaque::ffi_init(|map| unsafe {
                raw::drbd_shim_lockdep_init(map, name.as_char_ptr(), key.as_ptr())
            }),
            waiters <- WaitQueue::new(name, queue_key),
            held: AtomicBits32::new(0),
            value: UnsafeCell::new(value),
        })
    }

    /// Waits until nobody holds the lock, and holds it. May sleep.
    pub fn lock(&self) -> IdleGuard<'_, T> {
        // SAFETY: The map is initialised.
        unsafe { raw::drbd_shim_lockdep_acquire(self.map.get()) };
        self.waiters.wait_until(|| {
            self.held
                .try_update(|held| (held == 0).then_some(1))
                .is_ok()
        });
        IdleGuard {
            lock: self,
            _thread: NotThreadSafe,
        }
    }
}

/// The lock, held. Given back when dropped, by the thread that took it.
#[must_use = "the lock is given back when this is dropped"]
pub struct IdleGuard<'a, T> {
    lock: &'a IdleMutex<T>,
    _thread: NotThreadSafe,
}

impl<T> Deref for IdleGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Only the holder has a guard, and one at most.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for IdleGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As above, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for IdleGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The map is initialised, and this thread holds the lock.
        unsafe { raw::drbd_shim_lockdep_release(self.lock.map.get()) };
        self.lock.held.store(0);
        self.lock.waiters.wake_all();
    }
}
