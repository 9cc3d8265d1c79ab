// SPDX-License-Identifier: GPL-2.0

//! Numbers with a comma between the thousands, as the speeds in `/proc/drbd` have them.

use core::fmt;

/// The groups of three digits in the largest number.
const GROUPS: usize = 7;

/// A number that prints as `N,NNN,NNN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups = [0u64; GROUPS];
        let mut rest = self.0;
        for group in &mut groups {
            *group = rest % 1000;
            rest /= 1000;
        }
        let mut is_first = true;
        for (place, group) in groups.iter().enumerate().rev() {
            if !is_first {
                write!(f, ",{group:03}")?;
            } else if *group != 0 || place == 0 {
                write!(f, "{group}")?;
                is_first = false;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn thousands_are_set_apart() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (41376, "41,376"),
            (1_002_003, "1,002,003"),
            (1_000_000_000_000, "1,000,000,000,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (number, text) in table {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}
