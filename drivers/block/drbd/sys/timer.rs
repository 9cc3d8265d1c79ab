// SPDX-License-Identifier: GPL-2.0

//! Timers of jiffy precision that run a function in interrupt context.
//!
//! C header: [`include/linux/timer.h`](srctree/include/linux/timer.h)

use kernel::{
    bindings,
    ffi::c_ulong,
    prelude::*,
    sync::{
        Arc,
        LockClassKey, //
    },
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// Initialises a [`Timer`](crate::timer::Timer) with a lock class of the call site.
#[macro_export]
macro_rules! new_timer {
    ($context:expr, $name:literal) => {
        $crate::timer::Timer::new(
            $context,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}

/// What a timer does when its time has come.
pub trait Expire: Send + Sync {
    /// The time has come. Runs in soft interrupt context: must not sleep, and must not
    /// drop the timer.
    ///
    /// Returns in how many milliseconds it is to expire again, if it is.
    fn expire(&self) -> Option<u32>;
}

impl<T: Expire> Expire for Arc<T> {
    fn expire(&self) -> Option<u32> {
        T::expire(self)
    }
}

/// A timer that owns its context.
///
/// Dropping it waits for a running function and must happen where sleeping is allowed, but not
/// under a lock that the function takes. A context that owns the timer itself (an `Arc` cycle)
/// never is freed: let the timer own something smaller, such as the wait queue of the thread that
/// does the work.
#[pin_data(PinnedDrop)]
pub struct Timer<T: Expire> {
    #[pin]
    timer: Opaque<bindings::timer_list>,
    context: T,
}

// SAFETY: C protects a timer by the lock of its wheel; `T` is `Send`.
unsafe impl<T: Expire> Send for Timer<T> {}
// SAFETY: See `Send`; the context is shared with the function, `T` is `Sync`.
unsafe impl<T: Expire> Sync for Timer<T> {}

impl<T: Expire> Timer<T> {
    /// Initialises a timer that is not running; use [`new_timer!`](crate::new_timer).
    pub fn new(
        context: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid, `name` and `key` are static.
            timer <- Opaque::ffi_init(|slot| unsafe {
                bindings::timer_init_key(
                    slot,
                    Some(expired::<T>),
                    0,
                    name.as_char_ptr(),
                    key.as_ptr(),
                )
            }),
            context,
        })
    }

    /// What the timer owns.
    pub fn context(&self) -> &T {
        &self.context
    }

    /// Lets the timer expire `ms` milliseconds from now, whether or not it was running. Any
    /// context.
    pub fn start_ms(&self, ms: u32) {
        // SAFETY: The timer is initialised. Reading the clock may race with its tick, harmlessly.
        unsafe {
            let now: c_ulong = (&raw const bindings::jiffies).read_volatile();
            let expires = now.wrapping_add(msecs_to_jiffies(ms));
            bindings::mod_timer(self.timer.get(), expires);
        }
    }

    /// Lets the timer expire `ms` milliseconds from now unless it is running: then it expires when
    /// it would have. Any context.
    ///
    /// What was stored before this, the function sees if it begins with a fully ordered operation.
    pub fn ensure_started_ms(&self, ms: u32) {
        // SAFETY: The timer is initialised. C orders what was stored before its look at the timer.
        if !unsafe { drbd_bindings::drbd_shim_timer_pending(self.timer.get()) } {
            self.start_ms(ms);
        }
    }

    /// Stops the timer; a function that runs already goes on. Any context.
    pub fn stop(&self) {
        // SAFETY: The timer is initialised.
        unsafe { bindings::timer_delete(self.timer.get()) };
    }

    /// Stops the timer and waits for a function that runs already. May sleep.
    pub fn stop_sync(&self) {
        // SAFETY: The timer is initialised.
        unsafe { bindings::timer_delete_sync(self.timer.get()) };
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for Timer<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The timer is initialised. After this its function neither runs nor will run.
        unsafe { bindings::timer_shutdown_sync(self.timer.get()) };
    }
}

/// C's way into a context.
///
/// # Safety
///
/// `timer` is the field of a `Timer<T>`.
unsafe extern "C" fn expired<T: Expire>(timer: *mut bindings::timer_list) {
    // SAFETY: By the requirement; the timer outlives the call, as its drop waits for it.
    let this = unsafe { &*kernel::container_of!(Opaque::cast_from(timer), Timer<T>, timer) };
    if let Some(ms) = this.context.expire() {
        this.start_ms(ms);
    }
}
