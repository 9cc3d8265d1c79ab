// SPDX-License-Identifier: GPL-2.0

//! The module's commands, dumps and events, compiled for the host.

/// The module's sources.
#[path = "../../../drivers/block/drbd"]
pub mod drbd {
    pub mod control;
}

pub use drbd::control;
