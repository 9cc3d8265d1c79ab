// SPDX-License-Identifier: GPL-2.0

//! Remembers which configuration file a resource was brought up with.
//!
//! The kernel calls `drbdadm HANDLER minor-N` without a file; links in the run directory lead from
//! the minor to the file. They are hints: without one the usual file is read.

use crate::selection::Site;
use std::path::{Path, PathBuf};

const DIR: &str = "/run/drbd";

/// Notes the file for a resource and its minors. What cannot be noted is left out.
pub(crate) fn register(file: &Path, site: &Site<'_>) {
    let Ok(file) = file.canonicalize() else {
        return;
    };
    let _ = std::fs::create_dir_all(DIR);
    let minors = site
        .local
        .volumes
        .iter()
        .map(|volume| format!("minor-{}", volume.minor()));
    for name in minors.chain([format!("resource-{}", site.resource.name)]) {
        let link = link(&name);
        if std::fs::read_link(&link).ok().as_ref() != Some(&file) {
            let _ = std::fs::remove_file(&link);
            let _ = std::os::unix::fs::symlink(&file, &link);
        }
    }
}

/// The file that was noted for `minor-N`, a resource, or `RES/VOL`.
pub(crate) fn lookup(name: &str) -> Option<PathBuf> {
    let resource = name.split('/').next()?;
    let name = match name.strip_prefix("minor-") {
        Some(_) => name.to_owned(),
        None => format!("resource-{resource}"),
    };
    std::fs::read_link(link(&name)).ok()
}

fn link(name: &str) -> PathBuf {
    Path::new(DIR).join(format!("drbd-{name}.conf"))
}
