// SPDX-License-Identifier: GPL-2.0

//! Kernel log lines without the module's prefix.
//!
//! The `pr_*!` macros put the module's name in front of every line. Users of this crate name the
//! object that a line is about instead.
//!
//! C header: [`include/linux/printk.h`](srctree/include/linux/printk.h)

use core::fmt;
use kernel::{
    bindings,
    ffi::c_void,
    prelude::*, //
};

use crate::{
    bits::AtomicBits64,
    time::monotonic_ns, //
};

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something that an admin must act upon at once.
    Alert,
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warning,
    /// Something that admins want to find in the log.
    Notice,
    /// What happens.
    Info,
}

impl Level {
    const fn format(self) -> &'static CStr {
        match self {
            Self::Alert => c"\x011%pA",
            Self::Error => c"\x013%pA",
            Self::Warning => c"\x014%pA",
            Self::Notice => c"\x015%pA",
            Self::Info => c"\x016%pA",
        }
    }
}

/// Keeps lines that somebody else can cause from filling the log.
pub struct Limit(AtomicBits64);

impl Limit {
    /// So many lines are told in a row.
    const BURST: u64 = 10;
    /// The next ones when so much time has begun.
    const WINDOW_NS: u64 = 5_000_000_000;

    /// A limit that nothing counts against yet.
    pub const fn new() -> Self {
        Self(AtomicBits64::new(0))
    }

    /// Whether one more line may be told now. Any context.
    pub fn allows(&self) -> bool {
        // The window in the upper half, the lines told in it in the lower one.
        let window = (monotonic_ns() / Self::WINDOW_NS) << 32;
        let told = |old: u64| match old.checked_sub(window) {
            Some(told) if told >= Self::BURST => None,
            Some(_) => Some(old.wrapping_add(1)),
            None => Some(window | 1),
        };
        self.0.try_update(told).is_ok()
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::new()
    }
}

/// Logs one line; `line` ends in a newline. Any context.
pub fn print(level: Level, line: fmt::Arguments<'_>) {
    // SAFETY: `%pA` takes a pointer to `fmt::Arguments`, which lives during the call; the format
    // strings are NUL terminated.
    unsafe {
        bindings::_printk(
            level.format().as_char_ptr(),
            core::ptr::from_ref(&line).cast::<c_void>(),
        );
    }
}

/// Logs one line about an object: `log!(Info, device, "size = {}", size)`.
///
/// The object says what stands in front of the line by a method `log_name`, whose answer can be
/// displayed.
#[macro_export]
macro_rules! log {
    ($level:ident, $object:expr, $format:literal $(, $($argument:tt)*)?) => {
        $crate::log::print(
            $crate::log::Level::$level,
            ::core::format_args!(
                "{}: {}\n",
                $object.log_name(),
                ::core::format_args!($format $(, $($argument)*)?),
            ),
        )
    };
}
