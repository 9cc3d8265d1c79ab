// SPDX-License-Identifier: GPL-2.0

//! A seed is a run, and seeds that once showed a bug show it no more.

use drbd_sim::run::{run, Aim, Disks, Options, Reads, Settings, Sockets, Volumes};

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

/// Seeds that once found a bug, of the shell or of the engine, with one volume and options that are
/// kept; the commits of this directory and Documentation/simulation.md tell of each.
const SEEDS: &[u64] = &[
    2, 53, 86, 88, 166, 176, 283, 298, 384, 518, // The shell.
    10280, 25116, 48860, 39738, 27598, 28386, 47439, // The judge, and the simulated disk.
    354, 1200, 1948, 999, 604, 1059, 1288, 1983, 1280, 1287, 2847, 4903, 449, 4838, 184, 4505,
    5363, 6839, 5512, 6260, 8320, 14, 258, 47, 122, 152, 434, 65, 407, 2564, 2178, 2685, 15986,
    10963, 13423, 7466, 23682, 32664, 48759, 22594, 25088, 25340, 30654, 43280, 48353, 29315,
    39253, 25212, 17013, 27544, 44701, 61811, 20242, 21152, 21567, 22341, 25666, 103099, 105477,
    105726, 106768, 108648,
];

/// The same, where the seed decides about the disks.
const SEEDS_AND_DISKS: &[u64] = &[
    145570, 147372, 23665, 45616, 79947, 110382, 131554, 137215, 146207, 169877, 193771, 50071,
    35746, 57354, 57806, 144988,
];

/// The same, with failing disks, two volumes and options that change.
const SEEDS_OF_PAIRS: &[u64] = &[742, 1309];

/// The same, where the seed decides about everything.
const SEEDS_AS_DRAWN: &[u64] = &[2860, 7347, 21012, 32436, 85694, 172663];

/// One volume, and options that stay as they are.
const PLAIN: Options = Options {
    canary: None,
    disks: Disks::BySeed,
    volumes: Volumes::One,
    settings: Settings::Kept,
    sockets: Sockets::Alike,
    reads: Reads::Own,
    freezes: false,
    aim: Aim::Off,
    without: 0,
    aloud: false,
    kept: false,
};

fn expect_no_violation(seeds: &[u64], options: Options) {
    for &seed in seeds {
        let report = run(seed, options);
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn seeds_that_found_a_bug_find_it_no_more() {
    let failing = Options {
        disks: Disks::Failing,
        ..PLAIN
    };
    expect_no_violation(SEEDS, failing);
    expect_no_violation(SEEDS_AND_DISKS, PLAIN);
    let pairs = Options {
        volumes: Volumes::Two,
        settings: Settings::Changed,
        ..failing
    };
    expect_no_violation(SEEDS_OF_PAIRS, pairs);
    expect_no_violation(SEEDS_AS_DRAWN, Options::default());
}
