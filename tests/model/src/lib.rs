// SPDX-License-Identifier: GPL-2.0

//! What the module changes without a lock, in every order in which several processors may take
//! their steps.
//!
//! The module's own files are compiled here with [loom]'s atomics under the kernel's names.

#![cfg(test)]

extern crate self as drbd_sys;
extern crate self as kernel;

pub mod sync;

#[path = "../../../drivers/block/drbd/sys/bits.rs"]
pub mod bits;

#[path = "../../../drivers/block/drbd/io/request/word.rs"]
mod word;

mod tests;
