// SPDX-License-Identifier: GPL-2.0

//! The oracles are checked: each deliberate bug is found within a stated number of seeds.
//!
//! Where the first such seed is far off the search starts near it, to be done in time.

use drbd_sim::canary::Canary;
use drbd_sim::run::{run, Aim, Disks, Options, Reads, Settings, Sockets, Volumes};

/// The first seed that fails with the bug and passes without it.
fn found_at(
    canary: Canary,
    without_bug: Options,
    mut seeds: std::ops::RangeInclusive<u64>,
) -> Option<u64> {
    let with_bug = Options {
        canary: Some(canary),
        ..without_bug
    };
    seeds.find(|&seed| {
        !run(seed, with_bug).violations.is_empty() && run(seed, without_bug).violations.is_empty()
    })
}

/// One volume, and options that stay as they are.
fn plain() -> Options {
    Options {
        volumes: Volumes::One,
        settings: Settings::Kept,
        sockets: Sockets::Alike,
        reads: Reads::Own,
        aim: Aim::Off,
        ..Options::default()
    }
}

/// The same, and disks fail.
fn failing() -> Options {
    Options {
        disks: Disks::Failing,
        ..plain()
    }
}

/// Two volumes.
fn paired() -> Options {
    Options {
        volumes: Volumes::Two,
        ..plain()
    }
}

/// What the seed decides.
fn drawn() -> Options {
    Options::default()
}

/// Deliberate bugs that were not found within the seeds that were tried, see
/// Documentation/simulation.md.
const NOT_FOUND: [Canary; 23] = [
    Canary::EndedWithBitsLeft,  // Forced by `resync_end.rs`.
    Canary::AloneForgotten,     // Forced by `written_alone.rs`.
    Canary::StabilityForgotten, // Forced by `unflushed.rs`.
    Canary::LogEndedBeforeBitmap,
    Canary::FailedPageBelieved, // Seed 85694 found it in the tree that had it.
    Canary::RefusalForgotten,   // Forced by `refused.rs`.
    Canary::UsersForgotten,     // Forced by `missed_end.rs`.
    Canary::ClearedBeforeFlush,
    Canary::FailedFlushVouchedFor,
    Canary::LogEmptiedUnflushed,
    Canary::PeerWritesBeforeGeneration,
    Canary::AckBeforeWrite,
    Canary::LogEmptiedBesideWriter,
    Canary::FinishedWithoutFlush,
    Canary::WritesBeforeGeneration,
    Canary::TwoBitmapWriters,
    Canary::DetachedWithoutFlush,
    Canary::FailedDiskBelieved,
    Canary::UnloggedWrite,
    Canary::DemotedWithoutFlush,
    Canary::LackForgotten,
    Canary::PromotedTooEarly,
    Canary::DisklessBelieved,
];

macro_rules! canaries {
    ($($name:ident: $canary:ident, $options:ident in $seeds:expr,)*) => {
        $(#[test]
        fn $name() {
            assert_ne!(found_at(Canary::$canary, $options(), $seeds), None);
        })*

        #[test]
        fn every_canary_is_looked_for() {
            let found = [$(Canary::$canary),*];
            assert_eq!(found.len() + NOT_FOUND.len(), Canary::ALL.len());
        }
    };
}

canaries! {
    a_bitmap_that_is_written_unread_is_found: BitmapWrittenUnread, drawn in 95..=95,
    an_ack_before_the_flush_is_found: AckBeforeFlush, plain in 283..=283,
    a_write_that_the_cache_forgets_is_found: WriteNotCounted, plain in 81..=81,
    a_bit_cleared_too_early_is_found: BitClearedTooEarly, plain in 16..=16,
    an_activity_log_written_after_the_data_is_found: ActivityLogAfterData, plain in 1..=50,
    an_activity_log_that_is_not_applied_is_found: ActivityLogIgnored, plain in 1..=50,
    a_bitmap_written_after_the_activity_log_is_found: BitmapAfterActivityLog, plain in 1..=20,
    a_lost_connection_that_is_forgotten_is_found: LostConnectionForgotten, plain in 10..=15,
    reads_of_blocks_out_of_sync_are_found: ReadsOutOfSync, plain in 65..=65,
    a_crash_that_is_forgotten_is_found: CrashForgotten, plain in 34..=34,
    a_block_that_is_marked_too_late_is_found: MarkedTooLate, plain in 659..=659,
    a_write_that_only_a_target_has_is_found: TargetBelieved, plain in 398..=398,
    a_generation_that_is_not_begun_is_found: UuidNotRotated, plain in 1..=50,
    a_resync_that_overtakes_writes_is_found: ResyncOvertakesWrite, plain in 76..=78,
    a_negative_ack_that_is_believed_is_found: NegativeAckBelieved, plain in 792..=792,
    a_flush_that_is_believed_is_found: FlushBelieved, failing in 22..=22,
    an_extent_that_leaves_the_log_unflushed_is_found: EvictedUnflushed, plain in 393..=393,
    a_volume_that_is_not_flushed_is_found: OneVolumeFlushed, paired in 77..=77,
}
