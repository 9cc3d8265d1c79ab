// SPDX-License-Identifier: GPL-2.0

//! Runs in which I/O is suspended that once lost writes, or called different disks equal.

use drbd_sim::run::{run, Options};

#[test]
fn what_is_written_around_frozen_io_is_known_to_differ() {
    let options = Options {
        freezes: true,
        ..Options::default()
    };
    // Writes that waited for the log were let through when I/O had been suspended; resume-io was
    // quicker than the worker; the peer wrote without a generation where this node was suspended.
    for seed in SEEDS {
        let report = run(seed, options);
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
}

const SEEDS: [u64; 1] = [2407];
