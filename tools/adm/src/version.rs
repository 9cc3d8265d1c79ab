// SPDX-License-Identifier: GPL-2.0

//! `drbdadm --version`: this program and the driver that is loaded, as shell variables.

use crate::run::escaped;

/// The generation of DRBD whose commands and files these are.
const VERSION: [u32; 3] = [8, 4, 11];
/// The same as it is printed.
pub(crate) const NUMBER: &str = "8.4.11";

/// The lines to print.
pub(crate) fn text() -> String {
    let proc = std::fs::read_to_string("/proc/drbd").unwrap_or_default();
    let driver = Driver::parse(&proc);
    let (tag, [major, minor, patch]) = (env!("CARGO_PKG_VERSION"), VERSION);
    let driver_line = match &driver {
        Some(driver) => format!("{} ({})", driver.line, driver.kind(uses_lru_cache())),
        None => "none".to_owned(),
    };
    format!(
        "DRBDADM_BUILDTAG={}\n\
         DRBDADM_API_VERSION=1\n\
         DRBD_KERNEL_VERSION_CODE={:#08x}\n\
         DRBD_KERNEL_DRIVER={}\n\
         DRBDADM_VERSION_CODE={:#08x}\n\
         DRBDADM_VERSION={major}.{minor}.{patch}\n",
        escaped(&format!("drbd-rs {tag}")),
        driver.as_ref().map_or(0, |driver| code(driver.version)),
        escaped(&driver_line),
        code(VERSION),
    )
}

/// One line that says which driver is loaded.
pub(crate) fn driver() -> String {
    let proc = std::fs::read_to_string("/proc/drbd").unwrap_or_default();
    match Driver::parse(&proc) {
        Some(driver) => format!("DRBD {}: {}", driver.line, driver.kind(uses_lru_cache())),
        None => "no DRBD driver is loaded".to_owned(),
    }
}

/// Only the kernel's own driver needs that module.
fn uses_lru_cache() -> bool {
    std::path::Path::new("/sys/module/lru_cache/holders/drbd").exists()
}

fn code([major, minor, patch]: [u32; 3]) -> u32 {
    (major << 16) | (minor << 8) | patch
}

/// What `/proc/drbd` says about the module.
#[derive(Debug)]
struct Driver {
    version: [u32; 3],
    line: String,
}

impl Driver {
    /// Who made it. All of generation 8.4 show the same version, so that tools take them for the
    /// same.
    fn kind(&self, uses_lru_cache: bool) -> &'static str {
        if self.line.contains("GIT-hash:") || self.version[..2] != VERSION[..2] {
            "LINBIT's driver"
        } else if uses_lru_cache {
            "the kernel's own driver"
        } else {
            "drbd-rs"
        }
    }

    fn parse(proc: &str) -> Option<Self> {
        let mut lines = proc.lines();
        let version = lines.next()?.strip_prefix("version: ")?;
        let mut numbers = version
            .split([' ', '.', '-'])
            .map(|number| number.parse::<u8>());
        let mut number = || Some(u32::from(numbers.next()?.ok()?));
        let numbers = [number()?, number()?, number()?];
        let build = lines.next().unwrap_or_default().trim();
        Some(Self {
            version: numbers,
            line: format!("{version} {build}").trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_told_by_its_first_two_lines() {
        let proc = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: ABC\n 0: cs:Connected\n";
        let driver = Driver::parse(proc).unwrap();
        assert_eq!(code(driver.version), 0x08_040b);
        assert_eq!(driver.line, "8.4.11 (api:1/proto:86-101) srcversion: ABC");
        assert_eq!(driver.kind(false), "drbd-rs");
        assert_eq!(driver.kind(true), "the kernel's own driver");
        let theirs = Driver::parse("version: 9.2.10 (api:2/proto:86-122)\nGIT-hash: 1\n").unwrap();
        assert_eq!(theirs.kind(false), "LINBIT's driver");
        assert!(Driver::parse("").is_none());
        assert!(Driver::parse("version: x").is_none());
    }
}
