// SPDX-License-Identifier: GPL-2.0

//! How far a resync or a verify is: the bar, the percentage, the speeds and the time to go.

use core::fmt;

use super::grouped::Grouped;

/// KiB that a bit stands for.
const KIB_PER_BIT: u64 = 4;
/// Sectors that a bit stands for.
const SECTORS_PER_BIT: u64 = 8;
/// Above this many bits (4 GiB) the amounts are told in MiB.
const MIB_ABOVE_BITS: u64 = 1 << 20;
/// Without a new mark for so long the resync is stalled.
const STALLED_ABOVE_S: u64 = 180;
/// The bar's length in characters, each standing for fifty per mille.
const BAR_LENGTH: u64 = 20;

/// How much was done over a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Whole seconds that it took.
    pub seconds: u64,
    /// Bits that were left when it began.
    pub bits_left_then: u64,
}

impl Rate {
    fn done(self, bits_left: u64) -> u64 {
        self.bits_left_then.saturating_sub(bits_left)
    }

    fn kib_per_second(self, bits_left: u64) -> Grouped {
        let bits_per_second = self.done(bits_left) / self.seconds.max(1);
        Grouped(bits_per_second.saturating_mul(KIB_PER_BIT))
    }

    /// Seconds to go at this rate. Hundredths are divided first: a rate of zero counts as one bit
    /// in a hundred.
    fn seconds_to_go(self, bits_left: u64) -> u64 {
        let hundredth = (self.done(bits_left) / 100).saturating_add(1);
        self.seconds.max(1).saturating_mul(bits_left / hundredth) / 100
    }
}

/// Where a resync or verify stands on the device; told with `proc_details` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The bit that is next.
    pub bit: u64,
    /// The bits of the device.
    pub device_bits: u64,
    /// Where a verify is to stop, if it is.
    pub stop_sector: Option<u64>,
}

/// The progress of a resync or a verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressText {
    /// Whether it is a verify.
    pub is_verify: bool,
    /// Bits to do in all.
    pub bits_total: u64,
    /// Bits to do still: set bits less failed ones, or what a verify has left.
    pub bits_left: u64,
    /// Since the mark from which the speed is told (the third youngest of eight).
    pub recent: Rate,
    /// Since the youngest but one mark; told with `proc_details` only.
    pub latest: Rate,
    /// Seconds since the start, pauses not counted.
    pub running_seconds: u64,
    /// The rate that the controller aims at, in KiB/s; told by the side that drives only.
    pub wanted_kib_per_second: Option<u64>,
    /// Where it stands.
    pub position: Position,
    /// Whether `proc_details` is 1 or more.
    pub is_detailed: bool,
}

impl ProgressText {
    fn left(&self) -> u64 {
        self.bits_left.min(self.bits_total)
    }

    /// How far it is in per mille.
    pub fn per_mille(&self) -> u64 {
        let shift = if self.bits_total > u64::from(u32::MAX) {
            16
        } else {
            10
        };
        let total = self.bits_total.wrapping_shr(shift).saturating_add(1);
        let left = self.left().wrapping_shr(shift).saturating_mul(1000) / total;
        1000u64.saturating_sub(left)
    }

    fn bar(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.per_mille() / 50;
        f.write_str("\t[")?;
        for _ in 1..done {
            f.write_str("=")?;
        }
        f.write_str(">")?;
        for _ in done..BAR_LENGTH {
            f.write_str(".")?;
        }
        f.write_str("] ")
    }

    fn amounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_mib = self.bits_total > MIB_ABOVE_BITS;
        let (shift, unit) = if in_mib { (10, 'M') } else { (0, 'K') };
        let amount = |bits: u64| bits.wrapping_shr(shift).saturating_mul(KIB_PER_BIT);
        write!(
            f,
            "({}/{}){unit}",
            amount(self.left()),
            amount(self.bits_total)
        )
    }

    fn speeds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.left();
        write!(f, " speed: {} (", self.recent.kib_per_second(left))?;
        if self.is_detailed {
            write!(f, "{} -- ", self.latest.kib_per_second(left))?;
        }
        let overall = Rate {
            seconds: self.running_seconds,
            bits_left_then: self.bits_total,
        };
        write!(f, "{})", overall.kib_per_second(left))?;
        if let Some(wanted) = self.wanted_kib_per_second {
            write!(f, " want: {}", Grouped(wanted))?;
        }
        f.write_str(" K/sec")
    }

    fn position(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position {
            bit,
            device_bits,
            stop_sector,
        } = self.position;
        let percent = bit / (device_bits / 100).saturating_add(1);
        let sectors = |bits: u64| bits.saturating_mul(SECTORS_PER_BIT);
        write!(
            f,
            "\t{percent:3}% sector pos: {}/{}",
            sectors(bit),
            sectors(device_bits)
        )?;
        if let Some(sector) = stop_sector {
            write!(f, " stop sector: {sector}")?;
        }
        f.write_str("\n")
    }
}

impl fmt::Display for ProgressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bar(f)?;
        let per_mille = self.per_mille();
        f.write_str(if self.is_verify {
            "verified:"
        } else {
            "sync'ed:"
        })?;
        write!(f, "{:3}.{}% ", per_mille / 10, per_mille % 10)?;
        self.amounts(f)?;
        let to_go = self.recent.seconds_to_go(self.left());
        let (hours, minutes, seconds) = (to_go / 3600, to_go / 60 % 60, to_go % 60);
        write!(f, "\n\tfinish: {hours}:{minutes:02}:{seconds:02}")?;
        self.speeds(f)?;
        if self.recent.seconds > STALLED_ABOVE_S {
            f.write_str(" (stalled)")?;
        }
        f.write_str("\n")?;
        if self.is_detailed {
            self.position(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    /// The resync of the user's manual: 372384 of 3140544 KiB in nine seconds.
    const MANUAL: ProgressText = ProgressText {
        is_verify: false,
        bits_total: 3_140_544 / 4,
        bits_left: 2_768_160 / 4,
        recent: Rate {
            seconds: 9,
            bits_left_then: 3_140_544 / 4,
        },
        latest: Rate {
            seconds: 3,
            bits_left_then: 2_768_160 / 4 + 31_032,
        },
        running_seconds: 9,
        wanted_kib_per_second: None,
        position: Position {
            bit: 93_096,
            device_bits: 785_136,
            stop_sector: None,
        },
        is_detailed: false,
    };

    #[test]
    fn the_manuals_resync_reads_as_in_the_manual() {
        assert_eq!(
            MANUAL.to_string(),
            "\t[=>..................] sync'ed: 12.0% (2768160/3140544)K\n\
             \tfinish: 0:01:06 speed: 41,376 (41,376) K/sec\n"
        );
    }

    #[test]
    fn the_side_that_drives_tells_what_it_wants() {
        let text = ProgressText {
            wanted_kib_per_second: Some(51_200),
            ..MANUAL
        }
        .to_string();
        assert!(
            text.ends_with(" speed: 41,376 (41,376) want: 51,200 K/sec\n"),
            "{text}"
        );
    }

    #[test]
    fn details_add_an_average_and_the_position() {
        let position = Position {
            stop_sector: Some(4096),
            ..MANUAL.position
        };
        let text = ProgressText {
            is_detailed: true,
            position,
            ..MANUAL
        }
        .to_string();
        assert!(
            text.contains(" speed: 41,376 (41,376 -- 41,376) K/sec\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n\t 11% sector pos: 744768/6281088 stop sector: 4096\n"),
            "{text}"
        );
    }

    #[test]
    fn without_a_mark_for_three_minutes_it_is_stalled() {
        let recent = |seconds| Rate {
            seconds,
            ..MANUAL.recent
        };
        let text = |seconds| {
            ProgressText {
                recent: recent(seconds),
                ..MANUAL
            }
            .to_string()
        };
        assert!(!text(180).contains("stalled"));
        assert!(text(181).ends_with(" K/sec (stalled)\n"));
    }

    #[test]
    fn more_than_four_gib_are_told_in_mib() {
        let at = |bits_total| {
            ProgressText {
                bits_total,
                ..MANUAL
            }
            .to_string()
        };
        assert!(at(1 << 20).contains("(2768160/4194304)K"));
        assert!(at((1 << 20) + 1024).contains("(2700/4100)M"));
    }

    #[test]
    fn a_verify_says_verified() {
        let text = ProgressText {
            is_verify: true,
            ..MANUAL
        }
        .to_string();
        assert!(text.contains("] verified: 12.0% "), "{text}");
    }

    #[test]
    fn the_bar_is_full_at_the_end_and_empty_at_the_beginning() {
        let at = |bits_left| {
            ProgressText {
                bits_left,
                ..MANUAL
            }
            .to_string()
        };
        assert!(at(0).starts_with("\t[===================>] sync'ed:100.0% "));
        assert!(at(785_136).starts_with("\t[>....................] sync'ed:  0.2% "));
    }

    proptest! {
        #[test]
        fn any_numbers_give_a_bar_of_the_same_length(
            bits_total: u64, bits_left: u64, seconds: u64, bits_left_then: u64, bit: u64,
        ) {
            let rate = Rate { seconds, bits_left_then };
            let text = ProgressText {
                bits_total,
                bits_left,
                recent: rate,
                latest: rate,
                running_seconds: seconds,
                position: Position { bit, ..MANUAL.position },
                is_detailed: true,
                ..MANUAL
            };
            let printed = text.to_string();
            let bar: String = printed.chars().take_while(|&c| c != ']').collect();
            let expected = if text.per_mille() < 50 { 23 } else { 22 };
            prop_assert_eq!(bar.len(), expected);
        }
    }
}
