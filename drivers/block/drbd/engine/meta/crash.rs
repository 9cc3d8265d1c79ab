// SPDX-License-Identifier: GPL-2.0

//! What an attach concludes from the flags of the last use (Spec §2.5 end, §15.1 steps 17 and 21 to
//! 23).

use super::MdFlags;
use crate::state::{ConnState, DiskState};

/// What is known when a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachInputs {
    /// The flags as read from the super block, before any state change recomputes them.
    pub flags: MdFlags,
    /// This node is Primary (without a disk of its own until now).
    pub primary: bool,
    /// I/O is suspended because there was no data (susp_nod).
    pub suspended_no_data: bool,
    /// The disk's fencing policy is dont-care.
    pub fencing_dont_care: bool,
}

/// Where the bitmap comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitmapSource {
    /// The bitmap on disk is right.
    Disk,
    /// A full resync was ordered and not completed: set all bits and write them.
    FullSyncPending,
    /// A Primary crashed that kept no activity log: set all bits and write them.
    CrashedWithoutActivityLog,
}

/// A disk state that an attach can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedDisk {
    /// The data are of no point in time.
    Inconsistent,
    /// The data are known to be old.
    Outdated,
    /// The data may be old.
    Consistent,
    /// The data are good.
    UpToDate,
}

impl AttachedDisk {
    /// The same among all states of disks.
    pub const fn state(self) -> DiskState {
        match self {
            Self::Inconsistent => DiskState::Inconsistent,
            Self::Outdated => DiskState::Outdated,
            Self::Consistent => DiskState::Consistent,
            Self::UpToDate => DiskState::UpToDate,
        }
    }
}

/// What an attach concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Set or clear the in-core flag CRASHED_PRIMARY.
    pub crashed_primary: bool,
    /// Wait for the connection with degr-wfc-timeout: this was a degraded cluster's Primary.
    pub use_degr_wfc_timeout: bool,
    /// Where the bitmap comes from.
    pub bitmap: BitmapSource,
    /// The disk's state after the attach, unless a handshake decides: see [`Self::enters`].
    pub disk: AttachedDisk,
    /// The peer's disk is known to be Outdated.
    pub peer_outdated: bool,
}

impl Attach {
    /// The state that the disk enters where the connection is in this one when the attach ends. A
    /// disk goes Negotiating while there is a peer to ask, and what it would have entered is
    /// remembered for the sync handshake.
    pub fn enters(&self, conn: ConnState) -> DiskState {
        if conn >= ConnState::Connected {
            DiskState::Negotiating
        } else {
            self.disk.state()
        }
    }
}

impl AttachInputs {
    /// Draws the conclusions. Pure; any context.
    pub const fn decide(self) -> Attach {
        let crashed_primary = self.crashed_primary();
        let peer_outdated = self.flags.contains(MdFlags::PEER_OUT_DATED);
        Attach {
            crashed_primary,
            use_degr_wfc_timeout: !self.primary
                && self.flags.contains(MdFlags::PRIMARY_IND)
                && !self.flags.contains(MdFlags::CONNECTED_IND),
            bitmap: if self.flags.contains(MdFlags::FULL_SYNC) {
                BitmapSource::FullSyncPending
            } else if crashed_primary && self.flags.contains(MdFlags::AL_DISABLED) {
                BitmapSource::CrashedWithoutActivityLog
            } else {
                BitmapSource::Disk
            },
            disk: self.disk(peer_outdated),
            peer_outdated,
        }
    }

    const fn crashed_primary(self) -> bool {
        let survived_without_disk = self.primary && self.suspended_no_data;
        self.flags.contains(MdFlags::CRASHED_PRIMARY)
            || (self.flags.contains(MdFlags::PRIMARY_IND) && !survived_without_disk)
    }

    const fn disk(self, peer_outdated: bool) -> AttachedDisk {
        if !self.flags.contains(MdFlags::CONSISTENT) {
            AttachedDisk::Inconsistent
        } else if !self.flags.contains(MdFlags::WAS_UP_TO_DATE) {
            AttachedDisk::Outdated
        } else if peer_outdated || self.fencing_dont_care {
            AttachedDisk::UpToDate
        } else {
            AttachedDisk::Consistent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: MdFlags = MdFlags::CONSISTENT.with(MdFlags::WAS_UP_TO_DATE);

    fn attach(flags: MdFlags) -> AttachInputs {
        AttachInputs {
            flags,
            primary: false,
            suspended_no_data: false,
            fencing_dont_care: true,
        }
    }

    #[test]
    fn the_disk_state_follows_the_flags_of_the_last_use() {
        assert_eq!(attach(GOOD).decide().disk, AttachedDisk::UpToDate);
        assert_eq!(
            attach(MdFlags::CONSISTENT).decide().disk,
            AttachedDisk::Outdated
        );
        assert_eq!(
            attach(MdFlags::WAS_UP_TO_DATE).decide().disk,
            AttachedDisk::Inconsistent
        );
        assert_eq!(
            attach(MdFlags::AL_CLEAN).decide().disk,
            AttachedDisk::Inconsistent
        );
    }

    #[test]
    fn with_fencing_only_an_outdated_peer_makes_the_disk_up_to_date() {
        let fencing = |flags| AttachInputs {
            fencing_dont_care: false,
            ..attach(flags)
        };
        assert_eq!(fencing(GOOD).decide().disk, AttachedDisk::Consistent);
        let alone = fencing(GOOD.with(MdFlags::PEER_OUT_DATED)).decide();
        assert_eq!(alone.disk, AttachedDisk::UpToDate);
        assert!(alone.peer_outdated);
    }

    #[test]
    fn a_connected_node_lets_the_handshake_decide() {
        let attach = attach(GOOD).decide();
        assert_eq!(attach.enters(ConnState::Connected), DiskState::Negotiating);
        assert_eq!(
            attach.enters(ConnState::WFReportParams),
            DiskState::UpToDate
        );
    }

    #[test]
    fn a_primary_that_did_not_step_down_has_crashed() {
        let was_primary = attach(GOOD.with(MdFlags::PRIMARY_IND));
        assert!(was_primary.decide().crashed_primary);
        assert!(was_primary.decide().use_degr_wfc_timeout);
        let lost_its_disk = AttachInputs {
            primary: true,
            suspended_no_data: true,
            ..was_primary
        };
        assert!(!lost_its_disk.decide().crashed_primary);
        assert!(!lost_its_disk.decide().use_degr_wfc_timeout);
        let crashed_before = AttachInputs {
            flags: GOOD.with(MdFlags::CRASHED_PRIMARY),
            ..lost_its_disk
        };
        assert!(crashed_before.decide().crashed_primary);
        let connected = attach(GOOD.with(MdFlags::PRIMARY_IND).with(MdFlags::CONNECTED_IND));
        assert!(!connected.decide().use_degr_wfc_timeout);
    }

    #[test]
    fn all_bits_are_set_after_an_unfinished_full_sync_or_a_crash_without_activity_log() {
        let bitmap = |flags| attach(flags).decide().bitmap;
        assert_eq!(bitmap(GOOD), BitmapSource::Disk);
        assert_eq!(bitmap(MdFlags::FULL_SYNC), BitmapSource::FullSyncPending);
        assert_eq!(bitmap(MdFlags::AL_DISABLED), BitmapSource::Disk);
        assert_eq!(
            bitmap(MdFlags::AL_DISABLED.with(MdFlags::PRIMARY_IND)),
            BitmapSource::CrashedWithoutActivityLog
        );
    }
}
