// SPDX-License-Identifier: GPL-2.0

//! `drbdadm`: reads `drbd.conf` and drives `drbdsetup` and `drbdmeta` by it (spec §9.2, §9.4).

use std::ffi::OsString;

/// Runs `drbdadm` with these arguments, the program's name first, and returns its exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    drop(args);
    eprintln!("drbdadm: in work");
    20
}
