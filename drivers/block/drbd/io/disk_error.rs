// SPDX-License-Identifier: GPL-2.0

//! Errors of the backing device: noted where they happen, acted upon by the worker.

use drbd_engine::{
    config::OnIoError,
    request::{
        on_disk_error,
        DiskError, //
    },
    state::Change,
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
    // A device that cannot discard is not broken.
    if error == EOPNOTSUPP && operation != Operation::Read {
        return;
    }
    note(&device, operation == Operation::Read, sector, size_bytes);
}

/// An I/O on data failed: its blocks are out of sync, and the worker decides about the disk. Any
/// context.
pub(crate) fn note(device: &Arc<Device>, is_read: bool, sector: Sector, size_bytes: u32) {
    if let Some(local) = device.local() {
        local.bitmap.set_out_of_sync(sector, size_bytes);
    }
    if is_read {
        device.flags.set(flag::WAS_READ_ERROR);
    }
    device.flags.set(flag::DISK_UNJUDGED | flag::RESYNC_DOUBTED);
    device.chore(chore::DISK_FAILED);
}

/// Decides about a disk that failed. On the worker.
pub(crate) fn judge(device: &Arc<Device>, error: DiskError) {
    if let Some(local) = device.local() {
        let policy = local.conf().on_io_error;
        drop(local);
        carry_out(device, policy, error);
    }
    // Data and metadata fail apart: the other one may wait for its own judgement still.
    device.flags.clear(match error {
        DiskError::Read | DiskError::Write => flag::DISK_UNJUDGED,
        DiskError::Metadata => flag::METADATA_UNJUDGED,
        DiskError::ForcedDetach => flag::DISK_UNJUDGED | flag::METADATA_UNJUDGED,
    });
}

fn carry_out(device: &Arc<Device>, policy: OnIoError, error: DiskError) {
    let state = device.state();
    let actions = on_disk_error(policy, error, state.disk, state.pdsk);
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
}
