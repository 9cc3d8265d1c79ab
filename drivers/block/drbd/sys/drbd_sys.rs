// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the kernel's C facilities, one file a facility.
//!
//! All `unsafe` of the module lives here (and in the generated bindings). Nothing in this crate
//! knows what DRBD is.

/// What `pr_*!` puts before each line.
const __LOG_PREFIX: &[u8] = b"drbd\0";

pub mod bdev;
pub mod bio;
pub mod bits;
pub mod disk;
pub mod faults;
pub mod genl;
pub mod hash;
pub mod idle_mutex;
pub mod kthread;
pub mod limits;
pub mod log;
pub mod module;
pub mod page;
pub mod params;
pub mod pool;
pub mod proc;
pub mod random;
pub mod reclaim;
pub mod segment;
pub mod socket;
pub mod sync_io;
pub mod time;
pub mod timer;
pub mod umh;
pub mod wait;
pub mod words;
pub mod workqueue;
