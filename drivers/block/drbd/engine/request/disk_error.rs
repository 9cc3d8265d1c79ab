// SPDX-License-Identifier: GPL-2.0

//! What an error of the backing device does to the disk (spec §5.7).

use crate::config::{OnIoError, OnNoData};
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
/// `lacks_data` says that this disk did not take what another did, see [`lacks_data`].
///
/// With `pass-on` the disk becomes Inconsistent where the peer has the data as well. Where it does
/// not, this disk is the best there is: the C driver makes it Inconsistent all the same, and the
/// next peer that connects, with whatever old data, is the source of a resync of it. Where the peer
/// is out of reach and has what this disk lacks (see [`lacks_data`]), the disk becomes Outdated.
pub fn on_disk_error(
    policy: OnIoError,
    error: DiskError,
    disk: DiskState,
    peer_disk: DiskState,
    lacks_data: bool,
) -> DiskErrorActions {
    let is_data = matches!(error, DiskError::Read | DiskError::Write);
    if policy == OnIoError::PassOn && is_data {
        let new_disk = match peer_disk {
            DiskState::UpToDate => Some(DiskState::Inconsistent),
            _ if lacks_data => Some(DiskState::Outdated),
            _ => None,
        };
        let new_disk = new_disk.filter(|&new_disk| disk > new_disk);
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

/// Who asked for a write, or a flush, that failed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// An application here; `acked` by the peer already.
    Own {
        /// The peer has it.
        acked: bool,
    },
    /// An application of the peer, which has it on its own disk unless it has none.
    Peer,
}

/// Whether a disk that could not take a write lacks from then on what the peer has.
///
/// Then it is no good disk when it is attached again (see [`MdFlags::lacking`]): who is promoted
/// with it alone would read what was overwritten. The C driver calls it UpToDate where the
/// connection is lost before the peer hears of the error.
///
/// [`MdFlags::lacking`]: crate::meta::MdFlags::lacking
pub fn lacks_data(writer: Writer, peer_disk: DiskState) -> bool {
    let may_have = matches!(writer, Writer::Own { acked: true } | Writer::Peer);
    peer_disk == DiskState::UpToDate || (may_have && peer_disk == DiskState::DUnknown)
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
    lacks_data: bool,
    metadata_failed: bool,
) -> DiskState {
    let is_lacking = data_failed && (lacks_data || peer_disk == DiskState::UpToDate);
    if is_lacking || metadata_failed {
        disk.min(DiskState::Inconsistent)
    } else {
        disk
    }
}

/// Whether the application is not told yet that a request is done.
///
/// Where requests wait for data, an error of a disk (`data_failed`, not judged yet) may be the one
/// that the last data are lost by: nobody hears of it until that is known.
pub const fn holds_completions(
    is_suspended: bool,
    on_no_data: OnNoData,
    data_failed: bool,
) -> bool {
    is_suspended || (data_failed && matches!(on_no_data, OnNoData::SuspendIo))
}

/// What becomes of a request that no copy of the data can serve: it waits where completions are
/// held (see [`holds_completions`]), and fails after `resume-io` whatever the policy.
pub const fn without_data(holds_completions: bool) -> OnNoData {
    if holds_completions {
        OnNoData::SuspendIo
    } else {
        OnNoData::IoError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_kept_back_only_where_it_could_be_waited_out() {
        for (suspended, policy, failed, held) in [
            (false, OnNoData::IoError, false, false),
            (false, OnNoData::IoError, true, false),
            (false, OnNoData::SuspendIo, false, false),
            (false, OnNoData::SuspendIo, true, true),
            (true, OnNoData::IoError, false, true),
        ] {
            assert_eq!(holds_completions(suspended, policy, failed), held);
        }
        assert_eq!(without_data(true), OnNoData::SuspendIo);
        assert_eq!(without_data(false), OnNoData::IoError);
    }
}
