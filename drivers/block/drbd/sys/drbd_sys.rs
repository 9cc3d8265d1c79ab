// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the kernel's C facilities, one file a facility.
//!
//! All `unsafe` of the module lives here (and in the generated bindings). Nothing in this crate
//! knows what DRBD is.

pub mod bdev;
pub mod bio;
pub mod disk;
pub mod genl;
pub mod limits;
pub mod page;
pub mod params;
pub mod pool;
pub mod proc;
pub mod sync_io;
pub mod umh;
pub mod words;
