// SPDX-License-Identifier: GPL-2.0

//! Clocks and plain sleeping.
//!
//! C headers: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h),
//! [`include/linux/delay.h`](srctree/include/linux/delay.h)

use kernel::{
    bindings,
    ffi::c_long,
    time::msecs_to_jiffies, //
};

/// Wait without an end, where C takes a number of jiffies.
pub(crate) const FOREVER_JIFFIES: c_long = c_long::MAX;

/// Nanoseconds of the monotonic clock, which stands still in suspend. Any context.
pub fn monotonic_ns() -> u64 {
    // SAFETY: `ktime_get` may be called from any context.
    let now = unsafe { bindings::ktime_get() };
    // The clock starts near zero at boot and never is negative.
    u64::try_from(now).unwrap_or(0)
}

/// Seconds since 1970 of the wall clock. Any context.
pub fn realtime_seconds() -> u64 {
    // SAFETY: `ktime_get_real_seconds` may be called from any context.
    let now = unsafe { bindings::ktime_get_real_seconds() };
    u64::try_from(now).unwrap_or(0)
}

/// Sleeps at least `ms` milliseconds without counting as load. Nothing ends it early.
///
/// For short pauses only: a wait that teardown must be able to end belongs on a
/// [`WaitQueue`](crate::wait::WaitQueue).
pub fn sleep_ms(ms: u32) {
    let mut left = timeout_jiffies(ms);
    while left > 0 {
        // SAFETY: The caller may sleep.
        left = unsafe { bindings::schedule_timeout_idle(left) };
    }
}

/// Milliseconds as the signed jiffies that C's timeouts take; at least 1, so that it can expire.
pub(crate) fn timeout_jiffies(ms: u32) -> c_long {
    // Rounded up by C, and one more because the current jiffy has begun.
    let jiffies = msecs_to_jiffies(ms).saturating_add(1);
    c_long::try_from(jiffies).unwrap_or(FOREVER_JIFFIES)
}
