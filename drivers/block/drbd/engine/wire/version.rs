// SPDX-License-Identifier: GPL-2.0

//! The agreed protocol version and what depends on nothing but it (Spec §1.10).

/// The protocol version both ends of a connection speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

impl Version {
    /// What is spoken until the features are exchanged.
    pub const ASSUMED: Self = Self(80);
    /// The oldest version we agree to.
    pub const MIN: Self = Self(86);
    /// The newest version we agree to.
    pub const MAX: Self = Self(101);

    /// The version `number`, or `None` where it is not one we speak.
    pub const fn new(number: u32) -> Option<Self> {
        if Self::MIN.0 <= number && number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number of this version.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether this version is at least the version `number`.
    pub const fn is_at_least(self, number: u32) -> bool {
        self.0 >= number
    }

    /// Whether headers carry a volume number; without it everything is volume 0.
    pub const fn has_volumes(self) -> bool {
        self.is_at_least(100)
    }

    /// Whether P_PROTOCOL names the data-integrity algorithm.
    pub const fn names_integrity_algorithm(self) -> bool {
        self.is_at_least(87)
    }

    /// Whether bitmaps may be run-length encoded, and verify may start anywhere.
    pub const fn has_compressed_bitmap(self) -> bool {
        self.is_at_least(90)
    }

    /// Whether a verify may end before the end of the device. Version 100 lost this.
    pub const fn has_verify_stop_sector(self) -> bool {
        self.is_at_least(97) && self.0 != 100
    }

    /// The largest request this version knows, in bytes.
    pub const fn max_request_size(self) -> u32 {
        match self.0 {
            100.. => 1 << 20,
            95..=99 => 128 << 10,
            _ => 32 << 10,
        }
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_86_to_101_are_spoken() {
        assert_eq!(Version::new(85), None);
        assert_eq!(Version::new(86), Some(Version::MIN));
        assert_eq!(Version::new(101), Some(Version::MAX));
        assert_eq!(Version::new(102), None);
    }

    #[test]
    fn version_100_lost_the_verify_stop_sector() {
        let has = |number| Version::new(number).is_some_and(Version::has_verify_stop_sector);
        assert!(!has(96) && has(97) && has(99) && !has(100) && has(101));
    }
}
