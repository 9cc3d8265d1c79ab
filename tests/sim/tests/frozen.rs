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
/// in the next two the peer wrote without a generation where this node was suspended, in the next
/// three a Primary that refused a peer that was restarted told its writes done, in the next two one
/// without a good disk, or that met a peer without one, took the peer for not restarted, and in the
/// last three so did one without fencing.
const SEEDS: [u64; 13] = [
    1835, 3221, 3418, 1464, 2170, 951, 2515, 4669, 14_847, 17_952, 14_563, 22_507, 43_450,
];
