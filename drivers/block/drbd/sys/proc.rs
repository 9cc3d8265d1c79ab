// SPDX-License-Identifier: GPL-2.0

//! A read-only file in `/proc`.
//!
//! C header: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h)

use core::{
    fmt,
    ptr::NonNull, //
};
use drbd_bindings as shim;
use kernel::{
    bindings,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};

/// The content of a file. Called in process context, may sleep, concurrently.
pub trait Show: Send + Sync + 'static {
    /// Writes the whole content. Called again if it did not fit into the reader's buffer.
    fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// A file in `/proc`. Dropping it removes it, after the reads that run have ended.
pub struct File<T: Show> {
    entry: NonNull<c_void>,
    _content: Arc<T>,
}

// SAFETY: The entry is only used to remove the file, once, from any thread; `T` is `Send + Sync`.
unsafe impl<T: Show> Send for File<T> {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl<T: Show> Sync for File<T> {}

impl<T: Show> File<T> {
    /// Creates `/proc/<name>`, readable by everyone.
    pub fn new(name: &CStr, content: Arc<T>) -> Result<Self> {
        let data = &raw const *content;
        // SAFETY: The name is copied. The content lives until the file is removed, and reads do not
        // outlive the removal.
        let entry = unsafe {
            shim::drbd_shim_proc_create(
                name.as_char_ptr(),
                0o444,
                Some(show::<T>),
                data.cast_mut().cast(),
            )
        };
        let entry = NonNull::new(entry).ok_or(ENOMEM)?;
        Ok(Self {
            entry,
            _content: content,
        })
    }
}

impl<T: Show> Drop for File<T> {
    fn drop(&mut self) {
        // SAFETY: The entry is ours and is removed once.
        unsafe { shim::drbd_shim_proc_remove(self.entry.as_ptr()) };
    }
}

/// Writes into the reader's buffer.
struct Out(NonNull<bindings::seq_file>);

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: The buffer is valid for the call of `show` that made this. An overflow is noticed
        // by the caller of `show`, which then calls again with a larger buffer.
        unsafe { bindings::seq_write(self.0.as_ptr(), text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}

/// # Safety
///
/// Called by C for a file that [`File::new`] has made.
unsafe extern "C" fn show<T: Show>(file: *mut bindings::seq_file, _data: *mut c_void) -> c_int {
    let Some(out) = NonNull::new(file) else {
        return EINVAL.to_errno();
    };
    // SAFETY: `private` is the pointer that `File::new` gave, valid until the file is removed.
    let content = unsafe { &*(*file).private.cast::<T>() };
    match content.show(&mut Out(out)) {
        Ok(()) => 0,
        Err(fmt::Error) => EIO.to_errno(),
    }
}
