// SPDX-License-Identifier: GPL-2.0

//! The module's commands, dumps and events, compiled for the host's tests.

// The module itself uses what its data path and the netlink family need.
#![cfg_attr(not(test), allow(dead_code))]

/// The module's sources.
#[path = "../../../drivers/block/drbd"]
mod drbd {
    mod control;
}
