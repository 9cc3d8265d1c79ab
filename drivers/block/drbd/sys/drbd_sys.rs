// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the kernel's C facilities, one file a facility.
//!
//! All `unsafe` of the module lives here (and in the generated bindings). Nothing in this crate
//! knows what DRBD is.

pub mod genl;
pub mod params;
pub mod proc;
pub mod umh;
