// SPDX-License-Identifier: GPL-2.0

//! The `drbd` kernel module: wiring, load and unload order.

use kernel::prelude::*;

module! {
    type: Drbd,
    name: "drbd",
    authors: ["The drbd-rs authors"],
    description: "drbd - Distributed Replicated Block Device v8.4.11",
    license: "GPL",
    alias: ["block-major-147-*"],
}

/// The DRBD release whose behaviour, formats and version line this module keeps.
const RELEASE: &str = "8.4.11";

/// The loaded module. Fields drop in declaration order, which is the unload order.
struct Drbd;

impl kernel::Module for Drbd {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("initialized. Version: {RELEASE}\n");
        Ok(Self)
    }
}

impl Drop for Drbd {
    fn drop(&mut self) {
        pr_info!("module cleanup done.\n");
    }
}
