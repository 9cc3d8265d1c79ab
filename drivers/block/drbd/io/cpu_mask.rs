// SPDX-License-Identifier: GPL-2.0

//! The option `cpu-mask`: which processors the threads of a resource run on.

use drbd_engine::config::{
    ResourceOptions,
    RetCode, //
};
use drbd_sys::{
    kthread::{
        Context,
        CpuMask, //
    },
    log, //
};
use kernel::{
    prelude::*,
    str::CString, //
};

use super::resource::Resource;

/// Refuses digits that name no processors. May sleep.
pub(super) fn check(options: &ResourceOptions) -> Result<(), RetCode> {
    match parse(options) {
        Ok(_) => Ok(()),
        Err(error) if error == ENOMEM => Err(RetCode::NO_MEMORY),
        Err(_) => Err(RetCode::CPU_MASK_PARSE),
    }
}

/// The processors; all where nothing is set.
fn parse(options: &ResourceOptions) -> Result<CpuMask> {
    let digits = options.cpu_mask.as_str().unwrap_or("");
    if digits.is_empty() {
        return CpuMask::all();
    }
    let mask = CpuMask::parse(&CString::try_from_fmt(format_args!("{digits}"))?)?;
    if mask.is_empty() {
        return CpuMask::all();
    }
    Ok(mask)
}

impl Resource {
    /// Lets the threads that run move to other processors. May sleep.
    pub(super) fn apply_cpu_mask(&self) {
        // The asender sees to it by itself.
        self.cpu_mask_changes
            .update(|changes| changes.wrapping_add(1));
        let Ok(mask) = parse(&self.options()) else {
            return;
        };
        let threads = self.threads.lock();
        for thread in [&threads.worker, &threads.receiver].into_iter().flatten() {
            if !thread.is_finished() {
                self.note_cpu_mask(thread.set_cpus(&mask));
            }
        }
    }

    /// Moves the calling thread of this resource to the processors that are set. May sleep.
    pub(super) fn enter_cpu_mask(&self, context: &Context) {
        if let Ok(mask) = parse(&self.options()) {
            self.note_cpu_mask(context.set_cpus(&mask));
        }
    }

    fn note_cpu_mask(&self, set: Result) {
        if set.is_err() {
            log!(Warning, self, "cpu-mask names no processor that is online");
        }
    }
}
