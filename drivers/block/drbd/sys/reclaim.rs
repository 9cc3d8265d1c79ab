// SPDX-License-Identifier: GPL-2.0

//! What the current thread has left of its stack and of memory, and scopes in which its allocations
//! are restricted.
//!
//! The kernel crate's containers know `GFP_KERNEL` but not `GFP_NOIO`. A thread that block I/O
//! waits for must not wait for block I/O itself: it lives in a [`NoIoScope`], where `GFP_KERNEL`
//! means `GFP_NOIO`.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use kernel::{
    ffi::c_uint,
    types::NotThreadSafe, //
};

/// Whether the current task is freeing memory for others, out of the reserves: what it submits must
/// not take more of them than it has to. Task context.
pub fn is_reclaiming() -> bool {
    // SAFETY: Reads flags of the current task only.
    unsafe { drbd_bindings::drbd_shim_is_reclaiming() }
}

/// Whether the current task has used half of its stack: a file system, devices that are stacked and
/// an interrupt may come together on it, and what need not be done here is better done elsewhere.
/// Task context.
pub fn is_stack_deep() -> bool {
    // SAFETY: Looks at the bounds of the current task's stack only.
    unsafe { drbd_bindings::drbd_shim_stack_is_deep() }
}

/// While it lives, no allocation of this thread starts block I/O to reclaim memory.
///
/// Scopes nest; drop them in reverse order.
#[must_use = "the scope ends where this is dropped"]
pub struct NoIoScope {
    outer: c_uint,
    _thread: NotThreadSafe,
}

impl NoIoScope {
    /// Enters the scope. Task context.
    pub fn enter() -> Self {
        Self {
            // SAFETY: Changes the current task only; the value goes back in `drop`.
            outer: unsafe { drbd_bindings::drbd_shim_noio_save() },
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for NoIoScope {
    fn drop(&mut self) {
        // SAFETY: `outer` was saved by this task, as the scope cannot leave its thread.
        unsafe { drbd_bindings::drbd_shim_noio_restore(self.outer) };
    }
}

/// While it lives, this thread may use the memory reserves and does not reclaim.
///
/// For threads whose progress frees memory. They must allocate little, or the reserves run dry.
/// Scopes nest; drop them in reverse order.
#[must_use = "the scope ends where this is dropped"]
pub struct NoReclaimScope {
    outer: c_uint,
    _thread: NotThreadSafe,
}

impl NoReclaimScope {
    /// Enters the scope. Task context.
    pub fn enter() -> Self {
        Self {
            // SAFETY: Changes the current task only; the value goes back in `drop`.
            outer: unsafe { drbd_bindings::drbd_shim_noreclaim_save() },
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for NoReclaimScope {
    fn drop(&mut self) {
        // SAFETY: `outer` was saved by this task, as the scope cannot leave its thread.
        unsafe { drbd_bindings::drbd_shim_noreclaim_restore(self.outer) };
    }
}
