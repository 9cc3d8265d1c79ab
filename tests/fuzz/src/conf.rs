// SPDX-License-Identifier: GPL-2.0

//! `drbd.conf`.

use std::path::Path;

pub(crate) fn run(bytes: &[u8]) {
    // Other files are not read: includes name files that are not there.
    if let Ok(text) = std::str::from_utf8(bytes) {
        if !text.contains("include") {
            let told = drbd_adm::check(Path::new("/nonexistent/drbd.conf"), text.to_owned());
            assert!(told.is_ok() || told.is_err_and(|text| !text.is_empty()));
        }
    }
}
