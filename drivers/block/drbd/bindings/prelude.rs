// SPDX-License-Identifier: GPL-2.0

//! Raw bindings to what `kernel::bindings` lacks: functions, constants and the C shim.
//!
//! The build appends bindgen's output for `bindings_helper.h` to this file. Types come from
//! `kernel::bindings`, so that pointers flow freely between both; a type that is missing there is
//! declared here as opaque. Only `drbd_sys` may use this crate.

#![allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

use kernel::bindings::*;
use kernel::ffi;

/// C's `struct shash_desc`.
#[repr(C)]
pub struct shash_desc {
    _opaque: [u8; 0],
}

/// The C shim's `struct drbd_shim_sock_hook`.
#[repr(C)]
pub struct drbd_shim_sock_hook {
    _opaque: [u8; 0],
}
