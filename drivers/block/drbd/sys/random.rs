// SPDX-License-Identifier: GPL-2.0

//! Random numbers fit for keys.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use kernel::bindings;

/// Fills `buffer` with random bytes. Any context.
pub fn bytes(buffer: &mut [u8]) {
    // SAFETY: `buffer` is writable for its length.
    unsafe { bindings::get_random_bytes(buffer.as_mut_ptr().cast(), buffer.len()) };
}

/// A random word. Any context.
pub fn u64() -> u64 {
    // SAFETY: `get_random_u64` may be called from any context.
    unsafe { bindings::get_random_u64() }
}

/// A random half word. Any context.
pub fn u32() -> u32 {
    // SAFETY: `get_random_u32` may be called from any context.
    unsafe { bindings::get_random_u32() }
}
