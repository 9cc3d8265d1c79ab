// SPDX-License-Identifier: GPL-2.0

//! Runs in which I/O is suspended that once lost writes, or called different disks equal.

use drbd_sim::run::{run, Options};

#[test]
fn what_is_written_around_frozen_io_is_known_to_differ() {
    let options = Options {
        freezes: true,
        ..Options::default()
    };
    for seed in SEEDS {
        let report = run(seed, options);
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
}

/// In the first three writes that waited for the log were let through when I/O had been suspended,
/// in the next three `resume-io` was quicker than the worker, in the last the peer wrote without a
/// generation where this node was suspended.
const SEEDS: [u64; 7] = [1835, 3221, 3418, 2397, 3595, 4510, 2407];
