// SPDX-License-Identifier: GPL-2.0

//! The time of day as the tools write it.

use rustix::time::{clock_gettime, ClockId};

/// A moment in the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Microseconds of the second.
    pub micros: u32,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self {
            seconds: u64::try_from(now.tv_sec).unwrap_or(0),
            micros: u32::try_from(now.tv_nsec / 1000).unwrap_or(0),
        }
    }

    /// Year, month and day.
    fn date(self) -> (u64, u64, u64) {
        // Counts days from 1 March of year 0, in eras of 400 years, so that leap days come last.
        let days = self.seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        (year, month, day)
    }

    /// Date and time with a separator between them, to the second.
    fn text(self, separator: char) -> String {
        let (year, month, day) = self.date();
        let second = self.seconds % 86_400;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let second = second % 60;
        format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}")
    }

    /// As `events2 --timestamps` shows it.
    pub fn event_stamp(self) -> String {
        format!("{}.{:06}+00:00", self.text('T'), self.micros)
    }
}

/// As `dump-md` shows it: `2026-11-23 02:01:23 +0000 [1795399283]`.
pub fn stamp() -> String {
    let now = Moment::now();
    format!("{} +0000 [{}]", now.text(' '), now.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64) -> String {
        let micros = 5;
        Moment { seconds, micros }.event_stamp()
    }

    #[test]
    fn days_and_leap_days_are_counted() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000005+00:00");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00.000005+00:00");
        assert_eq!(text(951_868_800), "2000-03-01T00:00:00.000005+00:00");
        assert_eq!(text(1_795_399_283), "2026-11-23T02:01:23.000005+00:00");
        assert_eq!(text(4_107_542_399), "2100-02-28T23:59:59.000005+00:00");
    }
}
