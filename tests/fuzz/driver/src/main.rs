// SPDX-License-Identifier: GPL-2.0

//! One program for all targets; `DRBD_FUZZ_TARGET` says which.

#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<String> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = TARGET.get_or_init(|| std::env::var("DRBD_FUZZ_TARGET").unwrap_or_default());
    drbd_fuzz::run(name, bytes);
});
