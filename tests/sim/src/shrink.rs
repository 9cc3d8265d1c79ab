// SPDX-License-Identifier: GPL-2.0

//! Makes the story of a seed that fails shorter: fewer faults and commands, the same complaint.

use crate::run::{run, Options, Report};

/// Events that can be left out, as many as there are bits.
const EVENTS_MAX: u32 = u128::BITS;

/// A complaint without its numbers: what is told of two runs is alike if this is.
fn kind(report: &Report) -> Option<String> {
    let first = report.violations.first()?;
    Some(first.chars().filter(|one| !one.is_ascii_digit()).collect())
}

/// The first words of a complaint: those that end with the states of both nodes are never alike.
fn is_alike(one: &str, other: &str) -> bool {
    let head = |text: &str| text.chars().take(24).collect::<String>();
    head(one) == head(other)
}

/// How many events happened in a run.
pub fn happened(report: &Report, options: Options) -> u32 {
    let drawn = 1u128
        .checked_shl(report.events)
        .map_or(u128::MAX, |bit| bit - 1);
    report.events - (options.without & drawn).count_ones()
}

/// What can be left out of a failing run so that it fails with the same complaint after fewer
/// events, found by leaving out halves first and single events at last.
pub fn shrink(seed: u64, options: Options) -> Options {
    let failed = run(seed, options);
    let Some(complaint) = kind(&failed) else {
        return options;
    };
    let mut shrunk = options;
    let mut best = happened(&failed, options);
    let events = failed.events.min(EVENTS_MAX);
    let mut size = events.div_ceil(2);
    while size > 0 {
        for first in (0..events).step_by(usize::try_from(size).unwrap_or(1)) {
            let end = (first + size).min(events);
            let chunk = (first..end).fold(0, |sum, event| sum | 1u128 << event);
            let shorter = Options {
                without: shrunk.without | chunk,
                ..shrunk
            };
            let report = run(seed, shorter);
            let fails = kind(&report).is_some_and(|now| is_alike(&now, &complaint));
            let left = happened(&report, shorter);
            if fails && left < best {
                (shrunk, best) = (shorter, left);
            }
        }
        size /= 2;
    }
    shrunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::Canary;

    #[test]
    fn a_shorter_run_fails_with_the_same_complaint() {
        let options = Options {
            canary: Some(Canary::BitmapAfterActivityLog),
            ..Options::default()
        };
        let seed = (1..=20).find(|&seed| {
            let report = run(seed, options);
            !report.violations.is_empty() && report.events > 10
        });
        let seed = seed.unwrap();
        let shrunk = shrink(seed, options);
        let (whole, short) = (run(seed, options), run(seed, shrunk));
        assert!(happened(&short, shrunk) < happened(&whole, options));
        assert!(is_alike(&kind(&whole).unwrap(), &kind(&short).unwrap()));
    }
}
