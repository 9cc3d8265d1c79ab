// SPDX-License-Identifier: GPL-2.0

//! The data generation of a volume as the tools show it and take it: UUIDs and flags (Spec §9.1).

use crate::failure::{Failure, Outcome};
use drbd_engine::meta::{MdFlags, Uuids};
use std::fmt;

/// The flags in the order they are shown in.
const FLAGS: [MdFlags; 7] = [
    MdFlags::CONSISTENT,
    MdFlags::WAS_UP_TO_DATE,
    MdFlags::PRIMARY_IND,
    MdFlags::CONNECTED_IND,
    MdFlags::FULL_SYNC,
    MdFlags::PEER_OUT_DATED,
    MdFlags::CRASHED_PRIMARY,
];

const ABOVE: &str = "
       +--<  Current data generation UUID  >-
       |               +--<  Bitmap's base data generation UUID  >-
       |               |                 +--<  younger history UUID  >-
       |               |                 |         +-<  older history  >-
       V               V                 V         V
";
const BELOW: &str = concat!(
    "                                                                    ^ ^ ^ ^ ^ ^ ^\n",
    "                                      -<  Data consistency flag  >--+ | | | | | |\n",
    "                             -<  Data was/is currently up-to-date  >--+ | | | | |\n",
    "                                  -<  Node was/is currently primary  >--+ | | | |\n",
    "                                  -<  Node was/is currently connected  >--+ | | |\n",
    "         -<  Node was in the progress of setting all bits in the bitmap  >--+ | |\n",
    "                        -<  The peer's disk was out-dated or inconsistent  >--+ |\n",
    "      -<  This node was a crashed primary, and has not seen its peer since   >--+\n",
);

/// What a volume's metadata say about its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The generation UUIDs.
    pub uuids: Uuids,
    /// The flags, those included that are not shown.
    pub flags: MdFlags,
}

impl fmt::Display for Generation {
    /// `CURRENT:BITMAP:HISTORY:HISTORY` and the flags, as `get-gi` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [younger, older] = self.uuids.history;
        write!(f, "{:016X}:{:016X}", self.uuids.current, self.uuids.bitmap)?;
        write!(f, ":{younger:016X}:{older:016X}")?;
        for flag in FLAGS {
            write!(f, ":{}", u8::from(self.flags.contains(flag)))?;
        }
        Ok(())
    }
}

impl Generation {
    /// Changes what `text` mentions: the fields of [`fmt::Display`], each of which may be empty.
    pub fn change(&mut self, text: &str) -> Outcome {
        let [younger, older] = &mut self.uuids.history;
        let uuids = [
            &mut self.uuids.current,
            &mut self.uuids.bitmap,
            younger,
            older,
        ];
        let mut parts = text.split(':');
        for uuid in uuids {
            match parts.next() {
                None => return Ok(()),
                Some("") => {}
                Some(part) => *uuid = parse_hex(part)?,
            }
        }
        for (flag, part) in FLAGS.into_iter().zip(parts) {
            let on = match part {
                "" => continue,
                "0" => false,
                "1" => true,
                other => return Err(Failure::new(10, format!("'{other}' is not 0 or 1."))),
            };
            self.flags = self.flags.with_if(flag, on);
        }
        Ok(())
    }

    /// The picture that explains [`fmt::Display`], and what the flags mean in words.
    pub fn explain(&self) -> String {
        let has = |flag| self.flags.contains(flag);
        let role = if has(MdFlags::PRIMARY_IND) {
            "Primary"
        } else {
            "Secondary"
        };
        let connection = if has(MdFlags::CONNECTED_IND) {
            "Connected"
        } else {
            "StandAlone"
        };
        let disk = match (has(MdFlags::CONSISTENT), has(MdFlags::WAS_UP_TO_DATE)) {
            (false, _) => "Inconsistent",
            (true, false) => "Outdated",
            (true, true) => "UpToDate",
        };
        let more = [
            (MdFlags::FULL_SYNC, ", need full sync"),
            (MdFlags::PEER_OUT_DATED, ", peer Outdated"),
        ];
        let crashed = if has(MdFlags::CRASHED_PRIMARY) {
            " crashed"
        } else {
            ""
        };
        let more: String = more
            .iter()
            .filter(|(flag, _)| has(*flag))
            .map(|(_, text)| *text)
            .collect();
        format!("{ABOVE}{self}\n{BELOW}\nflags:{crashed} {role}, {connection}, {disk}{more}\n")
    }
}

/// A hexadecimal number with or without `0x`.
pub fn parse_hex(text: &str) -> Outcome<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| Failure::new(10, format!("'{text}' is not a number.")))
}

/// A size in KiB, in the largest unit that shows at least four digits of it.
pub fn size_text(kib: u64) -> String {
    let mut size = kib;
    let mut units = "KMGTPE".chars().peekable();
    while size >= 10_000 && units.clone().nth(1).is_some() {
        size = (size >> 10).saturating_add((size >> 9) & 1);
        units.next();
    }
    format!("{size} {}B", units.next().unwrap_or('K'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Generation {
        Generation {
            uuids: Uuids::JUST_CREATED,
            flags: MdFlags::AL_CLEAN,
        }
    }

    #[test]
    fn a_generation_is_shown_as_sixteen_digits_and_seven_flags() {
        let shown = "0000000000000004:0000000000000000:0000000000000000:0000000000000000";
        assert_eq!(fresh().to_string(), format!("{shown}:0:0:0:0:0:0:0"));
    }

    #[test]
    fn empty_and_missing_fields_stay_as_they_are() {
        let mut generation = fresh();
        generation.change("A:B:C:D:1:1:0").unwrap();
        generation.change("::1:").unwrap();
        generation.change(":::::0").unwrap();
        assert_eq!(generation.uuids.current, 10);
        assert_eq!(generation.uuids.history, [1, 13]);
        assert_eq!(
            generation.flags,
            MdFlags::AL_CLEAN.with(MdFlags::CONSISTENT)
        );
    }

    #[test]
    fn what_is_no_number_and_no_flag_is_refused() {
        assert_eq!(fresh().change("xyz").unwrap_err().exit(), 10);
        assert_eq!(fresh().change("1:2:3:4:2").unwrap_err().exit(), 10);
    }

    #[test]
    fn sizes_keep_four_digits() {
        assert_eq!(size_text(9999), "9999 KB");
        assert_eq!(size_text(65496), "64 MB");
        assert_eq!(size_text(0), "0 KB");
        assert_eq!(size_text(10 << 30), "10 TB");
    }
}
