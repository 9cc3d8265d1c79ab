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

/// Seeds that once found a bug, of the shell or of the engine; the commits of this directory and
/// Documentation/simulation.md tell of each.
const SEEDS: [u64; 30] = [
    2, 53, 86, 88, 166, 176, 283, 298, 384, 518, // The shell.
    10280, 25116, 48860, 39738, 27598, 28386, 47439, // The judge, the simulated disk.
    23682, 32664, 48759, 22594, 25088, 25340, 30654, 43280, 48353, 29315, 39253, 1288, 2847,
];

#[test]
fn seeds_that_found_a_bug_find_it_no_more() {
    for seed in SEEDS {
        let report = run(seed, Options::default());
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
}
