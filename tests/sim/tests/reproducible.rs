// SPDX-License-Identifier: GPL-2.0

//! A seed is a run, and seeds that once showed a bug show it no more.

use drbd_sim::run::{run, Options};

#[test]
fn a_seed_tells_the_same_story_again() {
    let options = Options {
        kept: true,
        ..Options::default()
    };
    for seed in 1..=5 {
        let (one, other) = (run(seed, options), run(seed, options));
        assert_eq!(one.story, other.story);
        assert_eq!(one.time_ns, other.time_ns);
    }
}

/// Seeds that found what the shell must do; the commits of this directory tell of each.
#[test]
fn seeds_that_found_a_bug_find_it_no_more() {
    for seed in [2, 53, 86, 88, 166, 176, 283, 298, 384, 518] {
        let report = run(seed, Options::default());
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
}
