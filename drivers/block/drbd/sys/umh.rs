// SPDX-License-Identifier: GPL-2.0

//! Programs in user space, called by the kernel.
//!
//! C header: [`include/linux/umh.h`](srctree/include/linux/umh.h)

use core::ptr;
use kernel::{
    bindings,
    ffi::{
        c_char,
        c_int, //
    },
    prelude::*,
};

/// Most arguments, and most environment variables, of a call.
pub const STRINGS_MAX: usize = 15;

/// Runs a program and waits for its end. Sleeps, for as long as the program takes.
///
/// Returns its wait status as `wait(2)` gives it (exit code times 256), or the error that kept it
/// from running. `arguments` start with the program's name. The program does not inherit any
/// environment.
pub fn call(path: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> Result<u32> {
    let mut argv = [ptr::null_mut(); STRINGS_MAX + 1];
    let mut envp = [ptr::null_mut(); STRINGS_MAX + 1];
    point(&mut argv, arguments)?;
    point(&mut envp, environment)?;
    let wait = c_int::try_from(bindings::UMH_WAIT_PROC)?;
    // SAFETY: The strings end in NUL and the arrays in a null pointer; with `UMH_WAIT_PROC` C does
    // not use them after its return.
    let status = unsafe {
        bindings::call_usermodehelper(
            path.as_char_ptr().cast_mut(),
            argv.as_mut_ptr(),
            envp.as_mut_ptr(),
            wait,
        )
    };
    u32::try_from(status).map_err(|_| Error::from_errno(status))
}

/// Points at the strings; a null pointer stays behind the last. C does not write through the
/// pointers.
fn point(pointers: &mut [*mut c_char; STRINGS_MAX + 1], strings: &[&CStr]) -> Result {
    if strings.len() > STRINGS_MAX {
        return Err(E2BIG);
    }
    for (to, string) in pointers.iter_mut().zip(strings) {
        *to = string.as_char_ptr().cast_mut();
    }
    Ok(())
}
