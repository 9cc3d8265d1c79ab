// SPDX-License-Identifier: GPL-2.0

//! Checksum-based resync: when the target sends digests instead of asking for data, and what came
//! of it (spec §1.20).

use core::fmt;

use crate::types::BIT_SIZE;

/// The first protocol with P_CSUM_RS_REQUEST.
const CHECKSUM_APV: u32 = 89;
/// KiB of one bit.
const BIT_KIB: u64 = (BIT_SIZE / 1024) as u64;

/// What the target looks at before it begins.
#[derive(Clone, Copy, Debug)]
pub struct ChecksumFacts {
    /// The agreed protocol version.
    pub apv: u32,
    /// `csums-alg` is set.
    pub has_algorithm: bool,
    /// `csums-after-crash-only`.
    pub after_crash_only: bool,
    /// This node was Primary when it went down.
    pub crashed_primary: bool,
}

impl ChecksumFacts {
    /// Whether the target asks by checksum.
    pub const fn uses_checksums(&self) -> bool {
        self.has_algorithm
            && self.apv >= CHECKSUM_APV
            && (self.crashed_primary || !self.after_crash_only)
    }
}

/// What checksums saved, as the log tells it at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualChecksums {
    /// Bits that the resync began with.
    pub total_bits: u64,
    /// Those of them that were equal.
    pub equal_bits: u64,
}

impl fmt::Display for EqualChecksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            total_bits: total,
            equal_bits: equal,
        } = *self;
        let percent = equal.saturating_mul(100).checked_div(total).unwrap_or(0);
        write!(
            f,
            "{percent} % had equal checksums, eliminated: {}K; transferred {}K total {}K",
            equal.saturating_mul(BIT_KIB),
            total.saturating_sub(equal).saturating_mul(BIT_KIB),
            total.saturating_mul(BIT_KIB)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const FACTS: ChecksumFacts = ChecksumFacts {
        apv: 101,
        has_algorithm: true,
        after_crash_only: false,
        crashed_primary: false,
    };

    #[test]
    fn checksums_are_used_where_they_are_configured_and_understood() {
        assert!(FACTS.uses_checksums());
        for refused in [
            ChecksumFacts { apv: 88, ..FACTS },
            ChecksumFacts {
                has_algorithm: false,
                ..FACTS
            },
            ChecksumFacts {
                after_crash_only: true,
                ..FACTS
            },
        ] {
            assert!(!refused.uses_checksums());
        }
        let crashed = ChecksumFacts {
            after_crash_only: true,
            crashed_primary: true,
            ..FACTS
        };
        assert!(crashed.uses_checksums());
    }

    #[test]
    fn what_was_saved_is_told_as_the_c_driver_does() {
        let none = EqualChecksums {
            total_bits: 4,
            equal_bits: 0,
        };
        assert_eq!(
            none.to_string(),
            "0 % had equal checksums, eliminated: 0K; transferred 16K total 16K"
        );
        let all = EqualChecksums {
            total_bits: 8182,
            equal_bits: 8182,
        };
        assert_eq!(
            all.to_string(),
            "100 % had equal checksums, eliminated: 32728K; transferred 0K total 32728K"
        );
    }
}
