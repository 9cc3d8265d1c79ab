// SPDX-License-Identifier: GPL-2.0

//! Injected faults, and what the log says of them.

use drbd_sys::{
    faults,
    log, //
};

pub(crate) use drbd_sys::faults::Fault;

use super::device::Device;

/// Whether what is about to be done is to fail instead. Any context.
pub(crate) fn strikes(device: &Device, fault: Fault) -> bool {
    if !faults::strikes(device.minor.0, fault) {
        return false;
    }
    log!(Warning, device, "***Simulating {} failure", fault.name());
    true
}
