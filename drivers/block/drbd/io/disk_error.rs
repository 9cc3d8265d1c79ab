// SPDX-License-Identifier: GPL-2.0

//! Errors of the backing device: noted where they happen, acted upon by the worker.

use drbd_engine::{
    config::{
        OnIoError,
        OnNoData, //
    },
    meta::Superblock,
    request::{
        holds_completions,
        lacks_data,
        on_disk_error,
        without_data,
        DiskError,
        RequestState,
        Writer, //
    },
    state::{
        Change,
        DiskState, //
    },
    types::Sector, //
};
use drbd_sys::{
    bio::Operation,
    log, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    device::{
        flag,
        Device, //
    },
    disk::LocalDisk,
    request::Request,
    state::How,
    worker::chore, //
};

/// An application request failed at the local disk. Any context.
pub(crate) fn request_failed(request: &Arc<Request>, error: Error) {
    let failed = request.with(|parts| {
        parts.error = Some(error);
        let what = (parts.operation, parts.sector, parts.size_bytes);
        (parts.device.clone(), what)
    });
    let Some((device, (operation, sector, size_bytes))) = failed else {
        return;
    };
    // A device that cannot flush is not broken, and the peer may flush. Anything else that is not
    // supported is data that this disk does not have.
    if error == EOPNOTSUPP && operation == Operation::Flush {
        return;
    }
    // Read-ahead a device may refuse at will, as one that is suspended does.
    if operation == Operation::Read && !request.state().has(RequestState::RETRYABLE) {
        return;
    }
    if operation != Operation::Read {
        let acked = request.state().has(RequestState::NET_OK);
        note_lack(&device, Writer::Own { acked });
    }
    note(&device, operation == Operation::Read, sector, size_bytes);
}

/// What somebody wrote, or flushed, is not on this disk; [`note`] comes next. Any context.
pub(crate) fn note_lack(device: &Device, writer: Writer) {
    if lacks_data(writer, device.state().pdsk) {
        device.flags.set(flag::LACKS_DATA | flag::DISK_NOTED);
    }
}

/// The application is told that a write is done which this disk did not take: the worker decides
/// about the disk by that, whatever it has decided before. Any context.
pub(crate) fn judge_lacking(device: &Arc<Device>) {
    // Whatever the peer's disk is worth by now: it has it, and was good.
    device
        .flags
        .set(flag::LACKS_DATA | flag::DISK_UNJUDGED | flag::DISK_NOTED);
    device.chore(chore::DISK_FAILED);
}

/// A disk that is given up remembers that another has what it lacks.
pub(crate) fn record_lack(device: &Device, local: &LocalDisk) {
    if device.flags.any(flag::LACKS_DATA) {
        local.change(device, Superblock::note_lack);
    }
}

/// An I/O on data failed: its blocks are out of sync, and the worker decides about the disk. Any
/// context.
pub(crate) fn note(device: &Arc<Device>, is_read: bool, sector: Sector, size_bytes: u32) {
    // Before the bits, which the peer need not know of. A read that fails changes nothing on the
    // disk: what the target of a resync has acked is equal still.
    let doubted = if is_read { 0 } else { flag::RESYNC_DOUBTED };
    device.flags.set(flag::MARKED_UNTOLD | doubted);
    if let Some(local) = device.local() {
        local.bitmap.set_out_of_sync(sector, size_bytes);
    }
    if is_read {
        device.flags.set(flag::WAS_READ_ERROR);
    }
    device.flags.set(flag::DISK_UNJUDGED | flag::DISK_NOTED);
    device.chore(chore::DISK_FAILED);
}

impl Device {
    /// Whether the application is not told yet that a request is done. Any context.
    pub(crate) fn holds_completions(&self) -> bool {
        holds_completions(
            self.glance().is_suspended(),
            self.resource.on_no_data(),
            self.flags.any(flag::DISK_UNJUDGED),
        )
    }

    /// What becomes of a request that no copy of the data can serve. Any context.
    pub(crate) fn on_no_data(&self) -> OnNoData {
        without_data(self.holds_completions())
    }
}

/// Decides about a disk that failed. On the worker.
pub(crate) fn judge(device: &Arc<Device>, error: DiskError) {
    // What is noted from here on may not be known to this judgement, and is judged by another one.
    device.flags.clear(flag::DISK_NOTED);
    if let Some(local) = device.local() {
        let policy = local.conf().on_io_error;
        drop(local);
        carry_out(device, policy, error);
    }
    // Where the disk is there still its state tells what it lacks, or the error was passed on.
    let lack = match device.state().disk > DiskState::Failed {
        true => flag::LACKS_DATA,
        false => 0,
    };
    // Data and metadata fail apart: the other one may wait for its own judgement still.
    let (of_data, of_metadata) = match error {
        DiskError::Read | DiskError::Write => (flag::DISK_UNJUDGED | lack, 0),
        DiskError::Metadata => (lack, flag::METADATA_UNJUDGED),
        DiskError::ForcedDetach => (flag::DISK_UNJUDGED | lack, flag::METADATA_UNJUDGED),
    };
    device.flags.update(|flags| {
        let is_judged = flags & flag::DISK_NOTED == 0;
        flags & !of_metadata & !if is_judged { of_data } else { 0 }
    });
    device.resource.end_held_back();
    device.retry_delayed();
}

fn carry_out(device: &Arc<Device>, policy: OnIoError, error: DiskError) {
    let state = device.state();
    let lacks_data = device.flags.any(flag::LACKS_DATA);
    let actions = on_disk_error(policy, error, state.disk, state.pdsk, lacks_data);
    if actions.was_io_error {
        device.flags.set(flag::WAS_IO_ERROR);
    }
    if actions.abort_local_io {
        device.flags.set(flag::FORCE_DETACH);
    }
    if let Some(disk) = actions.new_disk {
        log!(Error, device, "Local IO failed, disk goes {}", disk.name());
        // A hard change is refused only where the disk is gone already.
        let _ = device
            .resource
            .change_state(device, Change::disk(disk), How::HARD);
    }
    if device.state().disk <= DiskState::Failed {
        if let Some(local) = device.local() {
            record_lack(device, &local);
        }
    }
}
