// SPDX-License-Identifier: GPL-2.0

//! All blocks are to be synced, or those that were added.

use drbd_engine::{
    handshake::sizes::is_source_of_new_storage,
    meta::MdFlags,
    state::{
        resync::Side,
        Change,
        ConnState, //
    },
};
use drbd_sys::log;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::start::start;
use crate::io::{
    bitmap::Which,
    connection::flag,
    device::Device,
    state::How, //
};

/// All blocks are to be synced, in a direction that the admin chose. On the worker.
pub(crate) fn start_full_sync(device: &Arc<Device>, as_target: bool) {
    let resource = &device.resource;
    let written = set_all_and_write(device, "set_n_write from StartingSync");
    if written.is_err() {
        let _ = resource.change_state(device, Change::conn(ConnState::Connected), How::HARD);
    } else if as_target {
        let _ = resource.change_state(device, Change::conn(ConnState::WFSyncUUID), How::HARD);
    } else {
        start(device, Side::Source);
    }
}

/// Marks everything out of sync, on disk too. A crash in the middle is remembered as a full sync to
/// be done. May sleep.
pub(crate) fn set_all_and_write(device: &Arc<Device>, why: &str) -> Result {
    let Some(local) = device.local() else {
        return Err(ENODEV);
    };
    local.change(device, |superblock| {
        superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC);
    });
    local.sync(device)?;
    log!(Info, device, "Writing the whole bitmap, {}", why);
    local.bitmap.set_all();
    local.bitmap.write(device, &local, Which::All)?;
    local.change(device, |superblock| {
        superblock.flags = superblock.flags.without(MdFlags::FULL_SYNC);
    });
    local.sync(device)
}

/// Storage that was added while both disks were there: the Primary has it right.
pub(crate) fn resync_new_storage(device: &Arc<Device>) {
    let resource = &device.resource;
    let state = device.state();
    let resolves = resource.connection.flags.any(flag::RESOLVE_CONFLICTS);
    if is_source_of_new_storage(state.role, state.peer, resolves) {
        start(device, Side::Source);
    } else {
        let _ = resource.change_state(device, Change::conn(ConnState::WFSyncUUID), How::VERBOSE);
    }
}
