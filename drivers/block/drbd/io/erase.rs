// SPDX-License-Identifier: GPL-2.0

//! Discards and zeroes at this node's disk (Spec §1.16).
//!
//! Both nodes read the same afterwards, whatever their disks can do by themselves and say that they
//! can: what a disk does not discard or zero is written.

use drbd_engine::types::{
    Sector,
    SECTOR_SHIFT, //
};
use drbd_sys::{
    bdev::BlockDevice,
    bio::{
        Flags,
        Operation, //
    },
};
use kernel::prelude::*;

use super::disk::LocalDisk;

/// What blocks are erased by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Discarded, so that they read as zeroes.
    Discard,
    /// Written with zeroes.
    Zero {
        /// Whether the disk may release them.
        unmap: bool,
    },
}

impl Way {
    /// What an application's bio asks for, if it erases.
    pub(crate) fn of(operation: Operation, flags: Flags) -> Option<Self> {
        match operation {
            Operation::Discard => Some(Self::Discard),
            Operation::WriteZeroes => Some(Self::Zero {
                unmap: !flags.contains(Flags::NOUNMAP),
            }),
            _ => None,
        }
    }
}

/// Blocks of a disk are to be erased.
pub(crate) struct Erasure {
    backing: BlockDevice,
    way: Way,
}

impl Erasure {
    /// On `local`, as its options allow. Any context.
    pub(crate) fn new(local: &LocalDisk, way: Way) -> Self {
        let can_discard = || local.backing.max_discard_sectors() != 0;
        let may_discard = || local.conf().discard_zeroes_if_aligned;
        let way = match way {
            Way::Discard if !can_discard() || !may_discard() => Way::Zero { unmap: true },
            way => way,
        };
        Self {
            backing: local.backing.clone(),
            way,
        }
    }

    /// Erases, and waits for the disk. May sleep; not inside the submission of a bio.
    ///
    /// # Errors
    ///
    /// Of the disk.
    pub(crate) fn carry_out(&self, sector: Sector, size_bytes: u32) -> Result {
        let end = sector
            .0
            .saturating_add(u64::from(size_bytes >> SECTOR_SHIFT));
        match self.way {
            Way::Zero { unmap } => self.zero(sector.0, end, unmap),
            Way::Discard => self.discard(sector.0, end),
        }
    }

    /// Discards what the disk discards as a whole. What it would leave as it is at the edges is
    /// written.
    fn discard(&self, start: u64, end: u64) -> Result {
        let backing = &self.backing;
        let granularity = u64::from(backing.discard_granularity_bytes() >> SECTOR_SHIFT).max(1);
        let offset = u64::from(backing.discard_alignment_bytes() >> SECTOR_SHIFT);
        let past = |at: u64| {
            at.saturating_sub(offset)
                .checked_rem(granularity)
                .unwrap_or(0)
        };
        let first = match past(start) {
            0 => start,
            over => start.saturating_sub(over).saturating_add(granularity),
        };
        let last = end.saturating_sub(past(end));
        if first >= last {
            return self.zero(start, end, true);
        }
        self.zero(start, first, true)?;
        match backing.discard_sync(first, last.saturating_sub(first)) {
            Err(EOPNOTSUPP) => self.zero(first, last, true)?,
            other => other?,
        }
        self.zero(last, end, true)
    }

    fn zero(&self, start: u64, end: u64, unmap: bool) -> Result {
        match end.saturating_sub(start) {
            0 => Ok(()),
            sectors => self.backing.zero_sync(start, sectors, unmap),
        }
    }
}
