// SPDX-License-Identifier: GPL-2.0

//! Every decision of DRBD 8.4, free of memory allocation, clocks and I/O.
//!
//! Whatever could lose or fork data if it were wrong is decided here; the shell around it (`io/`,
//! `control/`) moves bytes, memory and time. Inputs are events that carry the time in them, outputs
//! are small `Copy` actions, and storage is lent by the caller. The very same files run in the
//! kernel, in the admin tools and in the simulator.

#![cfg_attr(not(CONFIG_RUST), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// zerocopy-derive names the fields of its hidden items with letters beyond ASCII.
#![allow(non_ascii_idents)]

#[cfg(test)]
extern crate std;

pub mod activity_log;
pub mod bitmap;
pub mod cache;
pub mod config;
pub mod epoch;
pub mod erase;
pub mod fencing;
pub mod handshake;
pub mod meta;
pub mod range;
pub mod report;
pub mod request;
pub mod resync;
pub mod state;
pub mod timer;
pub mod transfer_log;
pub mod types;
pub mod wire;
