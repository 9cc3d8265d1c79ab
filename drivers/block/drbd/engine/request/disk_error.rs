// SPDX-License-Identifier: GPL-2.0

//! What an error of the backing device does to the disk (spec §5.7).

use crate::config::OnIoError;
use crate::state::DiskState;

/// Where the error happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskError {
    /// Reading data.
    Read,
    /// Writing or discarding data.
    Write,
    /// Reading or writing metadata.
    Metadata,
    /// No error: the admin, or `disk-timeout`, gives the disk up by force.
    ForcedDetach,
}

/// What follows from the error. In every case the range of a failed read or write is marked out of
/// sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskErrorActions {
    /// The state the disk goes to, if it changes.
    pub new_disk: Option<DiskState>,
    /// Call the helper `local-io-error`.
    pub call_helper: bool,
    /// Remember that an I/O error is the reason for the detach.
    pub was_io_error: bool,
    /// Remember that data could not be read: a bitmap that cannot be written then means a full
    /// sync.
    pub was_read_error: bool,
    /// Abort the local I/O in flight.
    pub abort_local_io: bool,
}

/// Decides what an error of the backing device does while the disk is in state `disk` and the
/// peer's in state `peer_disk`.
///
/// With `pass-on` the disk becomes Inconsistent where the peer has the data as well. Where it does
/// not, this disk is the best there is: the C driver makes it Inconsistent all the same, and the
/// next peer that connects, with whatever old data, is the source of a resync of it.
pub fn on_disk_error(
    policy: OnIoError,
    error: DiskError,
    disk: DiskState,
    peer_disk: DiskState,
) -> DiskErrorActions {
    let is_data = matches!(error, DiskError::Read | DiskError::Write);
    if policy == OnIoError::PassOn && is_data {
        let falls = disk > DiskState::Inconsistent && peer_disk == DiskState::UpToDate;
        let new_disk = falls.then_some(DiskState::Inconsistent);
        return DiskErrorActions {
            new_disk,
            ..DiskErrorActions::default()
        };
    }
    let forced = error == DiskError::ForcedDetach;
    let falls = disk > DiskState::Failed;
    DiskErrorActions {
        new_disk: falls.then_some(DiskState::Failed),
        call_helper: falls && !forced && policy == OnIoError::CallLocalIoError,
        was_io_error: true,
        was_read_error: error == DiskError::Read,
        abort_local_io: forced,
    }
}

/// What a disk is good for between an error and the decision about it, which takes the worker a
/// while.
///
/// The bitmap says which blocks it lacks: where the peer has them they are not read here. What
/// ought to be noted in the metadata and cannot be must not be written where no other copy is
/// current.
pub fn unjudged(
    disk: DiskState,
    peer_disk: DiskState,
    data_failed: bool,
    metadata_failed: bool,
) -> DiskState {
    let is_lacking = data_failed && peer_disk == DiskState::UpToDate;
    if is_lacking || metadata_failed {
        disk.min(DiskState::Inconsistent)
    } else {
        disk
    }
}
