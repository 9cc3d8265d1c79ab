// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition.
//!
//! The kernel crate's `CondVar` cannot wait idle with a timeout and ties the condition to a lock.
//! A [`WaitQueue`] waits for any condition, as C's `wait_event` family does.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use core::marker::PhantomPinned;
use kernel::{
    bindings,
    ffi::{
        c_int,
        c_long, //
    },
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

use crate::time::{
    timeout_jiffies,
    FOREVER_JIFFIES, //
};

/// Initialises a [`WaitQueue`](crate::wait::WaitQueue) with a lock class of the call site.
#[macro_export]
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::wait::WaitQueue::new(::kernel::c_str!($name), ::kernel::static_lock_class!())
    };
}

/// Threads that wait for conditions, and the means to make them look again.
///
/// The waiter checks its condition, sleeps, and checks again after every wake-up; no wake-up that
/// follows a change of the condition is lost. Waiters neither count as load nor alarm the
/// hung-task detector, and ignore signals: whoever waits includes the end of waiting (a stop
/// flag, a dead connection) in the condition.
///
/// # Examples
///
/// ```ignore
/// queue.wait_until(|| context.should_stop() || work.is_ready());
/// ```
#[pin_data]
pub struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A wait queue head may be used from any thread; C protects it by its own lock.
unsafe impl Send for WaitQueue {}
// SAFETY: See `Send`.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Initialises a wait queue; use [`new_wait_queue!`](crate::new_wait_queue).
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid, `name` and `key` are static.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
            _pin: PhantomPinned,
        })
    }

    /// Waits until `condition` holds. May sleep.
    ///
    /// `condition` may take spinlocks, but must not sleep.
    pub fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        if !condition() {
            self.wait(&mut condition, FOREVER_JIFFIES);
        }
    }

    /// Waits until `condition` holds or `timeout_ms` have passed; returns whether it held. May
    /// sleep.
    ///
    /// `condition` may take spinlocks, but must not sleep. It is checked at least once, and once
    /// more after the time is up.
    pub fn wait_until_timeout(&self, mut condition: impl FnMut() -> bool, timeout_ms: u32) -> bool {
        condition() || self.wait(&mut condition, timeout_jiffies(timeout_ms))
    }

    fn wait(&self, condition: &mut dyn FnMut() -> bool, timeout: c_long) -> bool {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `entry` is valid for writing, and taken off the queue below before it dies.
        unsafe { bindings::init_wait_entry(entry.get(), 0) };

        let mut left = timeout;
        let held = loop {
            // CAST: The task states are small positive numbers.
            const STATE: c_int = bindings::TASK_IDLE as c_int;
            // SAFETY: Both are initialised. The state is set before the condition is read, so
            // that a wake-up in between makes `schedule_timeout` return at once.
            unsafe { bindings::prepare_to_wait_event(self.head.get(), entry.get(), STATE) };
            if condition() {
                break true;
            }
            if left <= 0 {
                break false;
            }
            left = if timeout == FOREVER_JIFFIES {
                // SAFETY: The caller may sleep.
                unsafe { bindings::schedule() };
                timeout
            } else {
                // SAFETY: The caller may sleep.
                unsafe { bindings::schedule_timeout(left) }
            };
        };
        // SAFETY: Both are initialised; this ends the use of `entry`.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
        held
    }

    /// Makes every waiter look at its condition again. Any context.
    pub fn wake_all(&self) {
        // SAFETY: The head is initialised. C orders the change of the condition before its look at
        // the queue, which needs no lock where nobody waits.
        unsafe { drbd_bindings::drbd_shim_wake_all(self.head.get()) };
    }
}
