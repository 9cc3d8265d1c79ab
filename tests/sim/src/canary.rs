// SPDX-License-Identifier: GPL-2.0

//! Deliberate bugs of the simulated shell: each must be found, or the oracles prove nothing.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The peer acknowledges an epoch before its disk has flushed it.
    AckBeforeFlush,
    /// Blocks are called in sync when they are sent, and when they arrive.
    BitClearedTooEarly,
    /// Data is written before the activity log says that it will be.
    ActivityLogAfterData,
    /// Extents leave the activity log before their bitmap is on disk.
    BitmapAfterActivityLog,
    /// Losing the peer begins no new generation.
    UuidNotRotated,
    /// Resync and writes take no notice of each other.
    ResyncOvertakesWrite,
    /// A C peer acknowledges a write before it has written it.
    AckBeforeWrite,
    /// What was not acknowledged when the connection broke is not marked out of sync.
    LostConnectionForgotten,
    /// A target serves reads from blocks that are out of sync.
    ReadsOutOfSync,
    /// A node that crashed as Primary does not say so.
    CrashForgotten,
    /// What a Primary without a peer writes is marked out of sync when the disk is through.
    MarkedTooLate,
    /// A Primary that lost its peer writes on before its new generation is on disk.
    WritesBeforeGeneration,
    /// Pages of the bitmap count as written while another is still writing them.
    TwoBitmapWriters,
    /// Extents leave the activity log before what was written to them is flushed.
    EvictedUnflushed,
    /// Pages of the bitmap that say less are written before the data is flushed.
    ClearedBeforeFlush,
    /// A disk that is detached is let go without a flush.
    DetachedWithoutFlush,
    /// A disk that failed serves reads until the worker comes to it.
    FailedDiskBelieved,
    /// A flush that failed counts as one that the disk cannot do.
    FailedFlushVouchedFor,
    /// What a diskless peer writes goes to the disk though the activity log could not be written.
    UnloggedWrite,
    /// A write that only the target of a resync has is told done.
    TargetBelieved,
    /// A Primary is demoted while what it wrote is in the caches of the disks.
    DemotedWithoutFlush,
    /// A disk that did not take what the peer has is attached again as if it had.
    LackForgotten,
    /// A node is promoted while writes of its lost peer are on their way to its disk.
    PromotedTooEarly,
    /// A write that no disk of this node takes is told done by the protocol alone.
    DisklessBelieved,
    /// What a diskless peer writes is acked before this node's new generation is on disk.
    PeerWritesBeforeGeneration,
    /// A target calls itself UpToDate before what it got is on stable storage.
    FinishedWithoutFlush,
    /// After a crash the activity log is not applied.
    ActivityLogIgnored,
    /// A write that the peer could not make counts as made.
    NegativeAckBelieved,
    /// What the peer wrote counts as flushed, whatever became of it since.
    WriteNotCounted,
    /// A barrier flushes the disk of the first volume alone.
    OneVolumeFlushed,
    /// An activity log is replaced while what its extents stand for is in the disk's cache.
    LogEmptiedUnflushed,
    /// A flush that only the peer can make is told done before it has.
    FlushBelieved,
    /// An activity log is replaced while a page of the bitmap is on its way to the disk.
    LogEmptiedBesideWriter,
    /// A Primary that has run on its peer's disk takes its own for what its users have seen.
    UsersForgotten,
    /// A peer that is lost before it has flushed is believed by the next flush.
    StabilityForgotten,
    /// A resync ends though a write has failed since its end was decided.
    EndedWithBitsLeft,
    /// A Primary is demoted in the generation of a peer that has refused a write.
    RefusalForgotten,
    /// A Primary that has lost its disk follows a peer without what was written on that alone.
    AloneForgotten,
    /// The bitmap of a disk that is being attached is written before it was read.
    BitmapWrittenUnread,
    /// The super block says that no activity log counts before the bitmap that stands for it is on
    /// disk.
    LogEndedBeforeBitmap,
    /// A page of the bitmap counts as stable though the transaction that was to flush it failed.
    FailedPageBelieved,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 41] = [
        Self::AckBeforeFlush,
        Self::BitClearedTooEarly,
        Self::ActivityLogAfterData,
        Self::BitmapAfterActivityLog,
        Self::UuidNotRotated,
        Self::ResyncOvertakesWrite,
        Self::AckBeforeWrite,
        Self::LostConnectionForgotten,
        Self::ReadsOutOfSync,
        Self::CrashForgotten,
        Self::MarkedTooLate,
        Self::WritesBeforeGeneration,
        Self::TwoBitmapWriters,
        Self::EvictedUnflushed,
        Self::ClearedBeforeFlush,
        Self::DetachedWithoutFlush,
        Self::FailedDiskBelieved,
        Self::FailedFlushVouchedFor,
        Self::UnloggedWrite,
        Self::TargetBelieved,
        Self::DemotedWithoutFlush,
        Self::LackForgotten,
        Self::PromotedTooEarly,
        Self::DisklessBelieved,
        Self::PeerWritesBeforeGeneration,
        Self::FinishedWithoutFlush,
        Self::ActivityLogIgnored,
        Self::NegativeAckBelieved,
        Self::WriteNotCounted,
        Self::OneVolumeFlushed,
        Self::LogEmptiedUnflushed,
        Self::LogEmptiedBesideWriter,
        Self::FlushBelieved,
        Self::UsersForgotten,
        Self::StabilityForgotten,
        Self::EndedWithBitsLeft,
        Self::RefusalForgotten,
        Self::AloneForgotten,
        Self::BitmapWrittenUnread,
        Self::LogEndedBeforeBitmap,
        Self::FailedPageBelieved,
    ];

    /// The canary with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|canary| format!("{canary:?}") == name)
    }
}
