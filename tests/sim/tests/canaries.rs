// SPDX-License-Identifier: GPL-2.0

//! The oracles are checked: each deliberate bug is found within a stated number of seeds.
//!
//! Where the first such seed is far off the search starts near it, to be done in time.

use drbd_sim::canary::Canary;
use drbd_sim::run::{run, Disks, Options};

/// The first seed that fails with the bug and passes without it.
fn found_at(canary: Canary, disks: Disks, mut seeds: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let without_bug = Options {
        disks,
        ..Options::default()
    };
    let with_bug = Options {
        canary: Some(canary),
        ..without_bug
    };
    seeds.find(|&seed| {
        !run(seed, with_bug).violations.is_empty() && run(seed, without_bug).violations.is_empty()
    })
}

/// Deliberate bugs that were not found within the seeds that were tried, see
/// Documentation/simulation.md.
const NOT_FOUND: [Canary; 11] = [
    Canary::FinishedWithoutFlush,
    Canary::WritesBeforeGeneration,
    Canary::TwoBitmapWriters,
    Canary::ClearedBeforeFlush,
    Canary::DetachedWithoutFlush,
    Canary::FailedDiskBelieved,
    Canary::UnloggedWrite,
    Canary::DemotedWithoutFlush,
    Canary::LackForgotten,
    Canary::PromotedTooEarly,
    Canary::DisklessBelieved,
];

macro_rules! canaries {
    ($($name:ident: $canary:ident, $disks:ident in $seeds:expr,)*) => {
        $(#[test]
        fn $name() {
            assert_ne!(found_at(Canary::$canary, Disks::$disks, $seeds), None);
        })*

        #[test]
        fn every_canary_is_looked_for() {
            let found = [$(Canary::$canary),*];
            assert_eq!(found.len() + NOT_FOUND.len(), Canary::ALL.len());
        }
    };
}

canaries! {
    an_ack_before_the_flush_is_found: AckBeforeFlush, BySeed in 500..=520,
    a_write_that_the_cache_forgets_is_found: WriteNotCounted, BySeed in 500..=520,
    a_bit_cleared_too_early_is_found: BitClearedTooEarly, BySeed in 200..=230,
    an_activity_log_written_after_the_data_is_found: ActivityLogAfterData, BySeed in 1..=50,
    an_activity_log_that_is_not_applied_is_found: ActivityLogIgnored, BySeed in 1..=50,
    a_bitmap_written_after_the_activity_log_is_found: BitmapAfterActivityLog, BySeed in 1..=20,
    a_lost_connection_that_is_forgotten_is_found: LostConnectionForgotten, BySeed in 1..=20,
    reads_of_blocks_out_of_sync_are_found: ReadsOutOfSync, BySeed in 160..=170,
    a_crash_that_is_forgotten_is_found: CrashForgotten, BySeed in 95..=105,
    a_block_that_is_marked_too_late_is_found: MarkedTooLate, BySeed in 230..=245,
    a_write_that_only_a_target_has_is_found: TargetBelieved, BySeed in 2290..=2300,
    a_generation_that_is_not_begun_is_found: UuidNotRotated, BySeed in 1..=50,
    a_resync_that_overtakes_writes_is_found: ResyncOvertakesWrite, BySeed in 1..=100,
    an_ack_before_the_write_is_found: AckBeforeWrite, BySeed in 16940..=16950,
    a_generation_begun_after_a_diskless_peer_wrote_is_found:
        PeerWritesBeforeGeneration, BySeed in 25660..=25670,
    a_negative_ack_that_is_believed_is_found: NegativeAckBelieved, BySeed in 250..=260,
    a_failed_flush_that_is_vouched_for_is_found: FailedFlushVouchedFor, Failing in 320..=330,
}
