// SPDX-License-Identifier: GPL-2.0

//! What the tools ask the host about itself.

use crate::failure::{Failure, Outcome};
use rustix::fs::{fcntl_lock, FlockOperation};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// The major number of DRBD's devices.
const MAJOR: u32 = 147;

/// The host's name.
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Seconds since 1970.
pub fn seconds() -> u32 {
    u32::try_from(crate::clock::Moment::now().seconds).unwrap_or(0)
}

/// What an error says, without the number that Rust adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// The minor that a number or the path of a device names: `2`, `minor-2`, `drbd2`, `/dev/drbd2`,
/// `/dev/drbd/2`, or a link to such a device.
pub fn minor(device: &str) -> Option<u32> {
    let number = |text: &str| text.parse().ok();
    let prefixes = ["", "minor-", "drbd", "/dev/drbd", "/dev/drbd/"];
    let mut by_name = prefixes
        .iter()
        .filter_map(|prefix| device.strip_prefix(prefix));
    by_name.find_map(number).or_else(|| minor_of_node(device))
}

fn minor_of_node(device: &str) -> Option<u32> {
    let status = rustix::fs::stat(device).ok()?;
    let is_block = rustix::fs::FileType::from_raw_mode(status.st_mode).is_block_device();
    let number = status.st_rdev;
    (is_block && rustix::fs::major(number) == MAJOR).then(|| rustix::fs::minor(number))
}

/// Holds off other tools that change the same minor, as long as it lives.
#[derive(Debug)]
pub struct MinorLock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl MinorLock {
    /// Takes the lock of a minor; fails at once where another tool has it.
    pub fn take(minor: u32) -> Outcome<Self> {
        let path = format!("/var/lock/drbd-{MAJOR}-{minor}");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Failure::new(20, format!("open({path}): {error}")))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::ACCESS | Errno::AGAIN) => Err(Failure::new(
                20,
                format!("lock on {path} is held by another process, try again later"),
            )),
            Err(error) => Err(Failure::new(20, format!("lock on {path}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_has_many_names() {
        for name in ["7", "minor-7", "drbd7", "/dev/drbd7", "/dev/drbd/7"] {
            assert_eq!(minor(name), Some(7));
        }
        for name in ["", "x", "-1", "drbd", "/dev/null", "4294967296"] {
            assert_eq!(minor(name), None);
        }
    }
}
