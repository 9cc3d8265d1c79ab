// SPDX-License-Identifier: GPL-2.0

//! Application I/O held back for as long as a value lives.

use drbd_sys::log;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    device::Device,
    limits::HOLD_IO_MS, //
};

/// No application I/O is admitted, and none is under way unless I/O is suspended.
pub(crate) struct HeldIo<'a>(&'a Arc<Device>);

impl<'a> HeldIo<'a> {
    /// Holds back new I/O and waits until what was admitted has ended. May sleep; not from a thread
    /// that I/O needs to end.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` where it does not end in time; nothing is held back then.
    pub(crate) fn new(device: &'a Arc<Device>) -> Result<Self> {
        device.close_gate();
        let held = Self(device);
        // What is suspended is held back already, and would not end.
        let is_quiet =
            || device.counters.application_bios.get() == 0 || device.state().is_suspended();
        if device.waiters.wait_until_timeout(is_quiet, HOLD_IO_MS) {
            return Ok(held);
        }
        log!(
            Warning,
            device,
            "application I/O did not end within {} s",
            HOLD_IO_MS / 1000
        );
        Err(ETIMEDOUT)
    }
}

impl Drop for HeldIo<'_> {
    fn drop(&mut self) {
        self.0.open_gate();
    }
}
