// SPDX-License-Identifier: GPL-2.0

//! The super block's flags (`MDF_*`, Spec §2.1): what the next attach must know about this moment.

/// A set of metadata flags. Bits without a name are preserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MdFlags(pub u32);

impl MdFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The data are of one point in time.
    pub const CONSISTENT: Self = Self(1);
    /// This node, or a peer that wrote through this disk, was Primary.
    pub const PRIMARY_IND: Self = Self(2);
    /// The peer was connected.
    pub const CONNECTED_IND: Self = Self(4);
    /// Every bit of the bitmap is to be taken as set.
    pub const FULL_SYNC: Self = Self(8);
    /// The data were not known to be outdated.
    pub const WAS_UP_TO_DATE: Self = Self(16);
    /// The peer's data were known to be older than ours.
    pub const PEER_OUT_DATED: Self = Self(32);
    /// This node died as a Primary, and no resync has made up for it yet.
    pub const CRASHED_PRIMARY: Self = Self(64);
    /// The activity log was applied and holds nothing.
    pub const AL_CLEAN: Self = Self(128);
    /// The activity log was not written (`al-updates no`).
    pub const AL_DISABLED: Self = Self(256);

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the activity log counted after a crash with `before` on disk, and with these neither
    /// it nor all of the disk does: the bitmap on disk has to stand for its extents by then.
    pub const fn ends_log_of(self, before: Self) -> bool {
        before.contains(Self::PRIMARY_IND)
            && !self.contains(Self::PRIMARY_IND)
            && !self.contains(Self::FULL_SYNC)
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags but those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// These flags with `other` set or cleared as `on` says.
    #[must_use]
    pub const fn with_if(self, other: Self, on: bool) -> Self {
        if on {
            self.with(other)
        } else {
            self.without(other)
        }
    }

    /// The flags of a disk that is given up and lacks what another one has.
    ///
    /// It is Inconsistent, so that it is the target wherever it meets the other, also where that
    /// could not write down its new generation, and is not taken for UpToDate where it meets a node
    /// without a disk. With `counts` the bitmap counts against another generation: what was written
    /// alone since then must not be thrown away by a peer that is older. Then it is Outdated.
    #[must_use]
    pub const fn lacking(self, counts: bool) -> Self {
        if counts {
            self.without(Self::WAS_UP_TO_DATE)
        } else {
            self.without(Self::CONSISTENT)
        }
    }

    /// The flags after a change of the state of an attached volume. The super block is dirty when
    /// the result differs.
    ///
    /// FULL_SYNC and AL_DISABLED are kept: only their own operations change them.
    #[must_use]
    pub const fn recompute(self, state: FlagInputs) -> Self {
        self.without(Self::AL_CLEAN)
            .with_if(Self::CRASHED_PRIMARY, state.crashed_primary)
            .with_if(
                Self::PRIMARY_IND,
                state.primary || (state.peer_disk_below_inconsistent && state.peer_primary),
            )
            .with_if(Self::CONNECTED_IND, state.connected)
            .with_if(Self::CONSISTENT, state.disk_above_inconsistent)
            .with_if(Self::WAS_UP_TO_DATE, state.disk_above_outdated)
            .with_if(
                Self::PEER_OUT_DATED,
                state.peer_disk_inconsistent_or_outdated,
            )
    }
}

/// What of the state word decides the metadata flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagInputs {
    /// The in-core flag CRASHED_PRIMARY.
    pub crashed_primary: bool,
    /// This node is Primary.
    pub primary: bool,
    /// The peer is Primary.
    pub peer_primary: bool,
    /// The connection is above WFReportParams.
    pub connected: bool,
    /// The disk is above Inconsistent.
    pub disk_above_inconsistent: bool,
    /// The disk is above Outdated.
    pub disk_above_outdated: bool,
    /// The peer's disk is below Inconsistent.
    pub peer_disk_below_inconsistent: bool,
    /// The peer's disk is Inconsistent or Outdated.
    pub peer_disk_inconsistent_or_outdated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_connected_secondary_says_so_and_nothing_else() {
        let state = FlagInputs {
            connected: true,
            disk_above_inconsistent: true,
            disk_above_outdated: true,
            peer_primary: true,
            ..FlagInputs::default()
        };
        let before = MdFlags::AL_CLEAN.with(MdFlags::PRIMARY_IND);
        assert_eq!(before.recompute(state), MdFlags(1 | 4 | 16));
    }

    // Seed 106768 of the simulator: a Primary whose disk lacked a write lost its power before its
    // peer had a new generation on disk.
    #[test]
    fn a_disk_that_lacks_data_is_inconsistent_unless_it_counts_what_was_written_alone() {
        let good = MdFlags::CONSISTENT.with(MdFlags::WAS_UP_TO_DATE);
        assert_eq!(good.lacking(false), MdFlags::WAS_UP_TO_DATE);
        assert_eq!(good.lacking(true), MdFlags::CONSISTENT);
    }

    #[test]
    fn a_diskless_primary_peer_makes_this_disk_a_primarys_disk() {
        let state = FlagInputs {
            peer_primary: true,
            peer_disk_below_inconsistent: true,
            ..FlagInputs::default()
        };
        assert_eq!(MdFlags::NONE.recompute(state), MdFlags::PRIMARY_IND);
    }

    #[test]
    fn full_sync_and_al_disabled_survive_and_the_crash_mark_follows_the_core() {
        let kept = MdFlags::FULL_SYNC.with(MdFlags::AL_DISABLED);
        let before = kept
            .with(MdFlags::CRASHED_PRIMARY)
            .with(MdFlags::PEER_OUT_DATED);
        assert_eq!(before.recompute(FlagInputs::default()), kept);
        let crashed = FlagInputs {
            crashed_primary: true,
            ..FlagInputs::default()
        };
        assert_eq!(kept.recompute(crashed), kept.with(MdFlags::CRASHED_PRIMARY));
    }

    #[test]
    fn the_log_of_a_primary_ends_with_its_mark() {
        let primary = MdFlags::PRIMARY_IND.with(MdFlags::CONSISTENT);
        assert!(MdFlags::CONSISTENT.ends_log_of(primary));
        assert!(!MdFlags::FULL_SYNC.ends_log_of(primary));
        assert!(!primary.ends_log_of(primary));
        assert!(!MdFlags::CONSISTENT.ends_log_of(MdFlags::CONSISTENT));
    }
}
