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
