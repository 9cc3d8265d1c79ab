// SPDX-License-Identifier: GPL-2.0

//! Numbers with units, as the tools and `drbd.conf` take them.

use crate::failure::{Failure, Outcome};

/// Reads a number whose unit without a suffix is `default_unit`, and returns it in units of 1.
///
/// The suffixes are `s` (sectors of 512) and K, M, G, T, P, E (powers of 1024), in either case.
pub fn parse(text: &str, default_unit: u64) -> Outcome<u64> {
    let invalid = || Failure::new(20, format!("{text} is not a valid number"));
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    let suffix = text.get(digits.len()..).unwrap_or_default();
    let unit = match suffix.to_ascii_lowercase().as_str() {
        "" => default_unit,
        "s" => 512,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        "e" => 1 << 60,
        _ => return Err(invalid()),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| Failure::new(20, format!("{text}: out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_powers_of_1024_and_sectors() {
        assert_eq!(parse("50M", 1024), Ok(50 << 20));
        assert_eq!(parse("50", 1024), Ok(50 << 10));
        assert_eq!(parse("3s", 1), Ok(1536));
        assert_eq!(parse("1g", 1), Ok(1 << 30));
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        for text in [
            "",
            "M",
            "1x",
            "1 M",
            "-1",
            "99999999999999999999",
            "99999999E",
        ] {
            assert_eq!(parse(text, 1).unwrap_err().exit(), 20, "{text}");
        }
    }
}
