// SPDX-License-Identifier: GPL-2.0

//! The oracles are checked: each deliberate bug is found within a stated number of seeds.

use drbd_sim::canary::Canary;
use drbd_sim::run::{run, Options};

/// The first seed that fails with the bug and passes without it.
fn found_at(canary: Canary, seeds: u64) -> Option<u64> {
    let with_bug = Options {
        canary: Some(canary),
        ..Options::default()
    };
    (1..=seeds).find(|&seed| {
        !run(seed, with_bug).violations.is_empty()
            && run(seed, Options::default()).violations.is_empty()
    })
}

macro_rules! canaries {
    ($($name:ident: $canary:ident within $seeds:literal,)*) => {
        $(#[test]
        fn $name() {
            assert_ne!(found_at(Canary::$canary, $seeds), None);
        })*

        #[test]
        fn every_canary_is_looked_for() {
            assert_eq!([$(Canary::$canary),*].len(), Canary::ALL.len());
        }
    };
}

canaries! {
    an_ack_before_the_flush_is_found: AckBeforeFlush within 300,
    a_bit_cleared_too_early_is_found: BitClearedTooEarly within 300,
    an_activity_log_written_after_the_data_is_found: ActivityLogAfterData within 300,
    a_bitmap_written_after_the_activity_log_is_found: BitmapAfterActivityLog within 20,
    a_generation_that_is_not_begun_is_found: UuidNotRotated within 150,
    a_resync_that_overtakes_writes_is_found: ResyncOvertakesWrite within 150,
    an_ack_before_the_write_is_found: AckBeforeWrite within 600,
    a_lost_connection_that_is_forgotten_is_found: LostConnectionForgotten within 20,
    reads_of_blocks_out_of_sync_are_found: ReadsOutOfSync within 300,
    a_crash_that_is_forgotten_is_found: CrashForgotten within 300,
}
