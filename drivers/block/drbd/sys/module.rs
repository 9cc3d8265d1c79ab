// SPDX-License-Identifier: GPL-2.0

//! What the kernel knows of a loaded module.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use kernel::prelude::*;

/// The check sum of the module's sources, where the build recorded one. Any context.
pub fn srcversion(module: &'static ThisModule) -> Option<&'static str> {
    // SAFETY: The module is the one whose code is running; the field does not change after load.
    let text = unsafe { (*module.as_ptr()).srcversion };
    if text.is_null() {
        return None;
    }
    // SAFETY: A C string that lives as long as the module.
    unsafe { CStr::from_char_ptr(text) }.to_str().ok()
}
