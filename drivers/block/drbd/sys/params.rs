// SPDX-License-Identifier: GPL-2.0

//! The module's parameters, which the C shim declares because `module!` cannot.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use drbd_bindings as shim;

/// Longest path of the helper program, with its NUL.
pub const HELPER_PATH_SIZE: usize = 80;

/// How many devices the admin expects; a hint. Any context.
pub fn minor_count() -> u32 {
    // SAFETY: It reads a number that is set at load.
    unsafe { shim::drbd_shim_param_minor_count() }
}

/// Whether data is copied into the socket instead of lending its pages. Any context.
pub fn disable_sendpage() -> bool {
    // SAFETY: It reads a flag atomically.
    unsafe { shim::drbd_shim_param_disable_sendpage() }
}

/// How much the status file tells. Any context.
pub fn proc_details() -> i32 {
    // SAFETY: It reads a number atomically.
    unsafe { shim::drbd_shim_param_proc_details() }
}

/// The program that is called for handlers, without NUL, in a lent buffer. May sleep.
pub fn usermode_helper(buffer: &mut [u8; HELPER_PATH_SIZE]) -> &[u8] {
    // SAFETY: C writes at most the buffer's size, with a NUL at the end.
    let length = unsafe { shim::drbd_shim_copy_usermode_helper(buffer.as_mut_ptr(), buffer.len()) };
    buffer.get(..length).unwrap_or_default()
}
