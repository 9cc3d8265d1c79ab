// SPDX-License-Identifier: GPL-2.0

//! Commands about data generations, resyncs and suspended I/O.

use drbd_engine::{
    config::RetCode,
    meta::uuid::JUST_CREATED,
    resync::Extent,
    state::{
        begins_when_io_goes_on,
        Change,
        ConnState,
        DiskState,
        StateError,
        Success, //
    },
    types::Sector,
    wire::UuidFlags,
};
use drbd_sys::{
    log,
    random,
    time::sleep_ms, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::Outcome;
use crate::io::{
    after,
    bitmap::Which,
    device::{
        flag,
        Device,
        LocalRef, //
    },
    held_io::HeldIo,
    limits::COMMAND_WAIT_MS,
    resource::Resource,
    resync,
    state::{
        How,
        Phase, //
    },
};

/// From this protocol version on a peer knows how to skip the initial resync.
const SKIP_INITIAL_SYNC: u32 = 90;

/// How often a command looks that may not fall into a meeting of the nodes.
const MEETING_NAP_MS: u32 = 50;

/// INVALIDATE: all of this side's data is to be replaced.
pub(super) fn invalidate(device: &Arc<Device>) -> Outcome {
    require_disk(device)?;
    let resource = &device.resource;
    let state = device.state();
    quiet_worker(resource)?;
    let _held = HeldIo::new(device).map_err(|_| RetCode::INTERRUPTED)?;
    if state.conn != ConnState::StandAlone || state.role.is_primary() {
        let change = Change::conn(ConnState::StartingSyncT);
        return Ok(resource.request_state(device, change, How::VERBOSE)?.into());
    }
    let change = Change::disk(DiskState::Inconsistent);
    let success = resource.request_state(device, change, How::VERBOSE)?;
    resync::set_all_and_write(device, "set_n_write from invalidate")
        .map_err(|_| RetCode::IO_META_DISK)?;
    Ok(success.into())
}

/// INVAL_PEER: all of the peer's data is to be replaced.
pub(super) fn invalidate_peer(device: &Arc<Device>) -> Outcome {
    require_disk(device)?;
    let resource = &device.resource;
    let state = device.state();
    quiet_worker(resource)?;
    let _held = HeldIo::new(device).map_err(|_| RetCode::INTERRUPTED)?;
    if state.conn != ConnState::StandAlone || !state.role.is_primary() {
        let change = Change::conn(ConnState::StartingSyncS);
        return Ok(resource.request_state(device, change, How::VERBOSE)?.into());
    }
    let change = Change::pdsk(DiskState::Inconsistent);
    let success = resource.request_state(device, change, How::VERBOSE)?;
    device.flags.set(flag::ACTIVITY_LOG_SUSPENDED);
    log!(Info, device, "Suspended AL updates");
    resync::set_all_and_write(device, "set_n_write from invalidate_peer")
        .map_err(|_| RetCode::IO_META_DISK)?;
    Ok(success.into())
}

/// PAUSE_SYNC and RESUME_SYNC.
pub(super) fn pause(device: &Arc<Device>, paused: bool) -> Outcome {
    let change = Change::user_isp(paused);
    Ok(device
        .resource
        .request_state(device, change, How::VERBOSE)?
        .into())
}

/// START_OV: compares from `start`, or from where the last verify stopped, up to `stop`.
pub(super) fn verify(device: &Arc<Device>, start: Option<u64>, stop: u64) -> Outcome {
    if !device.state().conn.is_verify() {
        let mut resync = device.resync.lock();
        resync.verify_wanted = Extent {
            start: start.map_or(resync.verify_start, Sector),
            stop: Sector(stop),
        };
    }
    let change = Change::conn(ConnState::VerifyS);
    let success = device
        .resource
        .request_state(device, change, How::VERBOSE)?;
    Ok(success.into())
}

/// SUSPEND_IO.
pub(super) fn suspend_io(device: &Arc<Device>) -> Outcome {
    let change = Change::susp(true);
    Ok(device
        .resource
        .request_state(device, change, How::VERBOSE)?
        .into())
}

/// RESUME_IO.
pub(super) fn resume_io(device: &Arc<Device>) -> Outcome {
    let resource = &device.resource;
    // A peer that is being met was told generations in which nothing was held back: either it gets
    // that now, or the attempt fails.
    for _ in 0..COMMAND_WAIT_MS / MEETING_NAP_MS {
        {
            // Nobody is told the state from here on, see `handshake::introduce`.
            let _agreement = resource.connection.agreement.lock();
            match resource.phase() {
                Phase::Away => return go_on_alone(device),
                Phase::Connected => return go_on(device),
                Phase::Meeting => {}
            }
        }
        sleep_ms(MEETING_NAP_MS);
    }
    Err(RetCode::INTERRUPTED)
}

/// I/O goes on with the peer; what it has to be sent again the worker sends.
fn go_on(device: &Arc<Device>) -> Outcome {
    after::settle_generations(&device.resource);
    let success = resume(device)?;
    device.resource.end_held_back();
    Ok(success.into())
}

/// I/O goes on without the peer.
fn go_on_alone(device: &Arc<Device>) -> Outcome {
    let resource = &device.resource;
    // For all volumes.
    for volume in resource.volumes() {
        let is_due = after::take_generation_due(&volume);
        if begins_when_io_goes_on(volume.state(), is_due) {
            begin_generation(&volume);
        }
    }
    let success = resume(device)?;
    resource.fail_for_lost_connection();
    resource.end_held_back();
    Ok(success.into())
}

fn resume(device: &Arc<Device>) -> Result<Success, StateError> {
    let change = Change::susp(false)
        .with_susp_nod(false)
        .with_susp_fen(false);
    // The peer is not asked, and the lock for that is held.
    device.resource.change_state(device, change, How::VERBOSE)
}

/// I/O goes on without the peer, which is to be known when it comes back.
fn begin_generation(device: &Arc<Device>) {
    if device.is_attached() {
        return after::begin_generation_once(device);
    }
    // What is written from now on is nowhere: whatever data turn up later are others.
    device.exposed_uuid.store(random::u64());
    log!(
        Warning,
        device,
        "Resumed without access to data; please tear down before attempting to re-configure."
    );
}

/// NEW_C_UUID.
pub(super) fn new_current_uuid(device: &Arc<Device>, clear_bitmap: bool) -> Outcome {
    let local = require_disk(device)?;
    let state = device.state();
    let version = device.resource.connection.version();
    let skips_sync = state.conn == ConnState::Connected
        && version.is_at_least(SKIP_INITIAL_SYNC)
        && local.current_uuid() == JUST_CREATED
        && clear_bitmap;
    if skips_sync {
        log!(Info, device, "Preparing to skip initial sync");
    } else if state.conn != ConnState::StandAlone {
        return Err(RetCode::CONNECTED);
    }
    let _held = HeldIo::new(device).map_err(|_| RetCode::INTERRUPTED)?;
    local.change(device, |superblock| superblock.uuids.set_bitmap(0));
    after::new_current_uuid(device);
    if clear_bitmap {
        // What is written from now on is known by the bitmap alone, which a crash does not spare
        // without the log.
        device.resume_activity_log();
        local.bitmap.clear_all();
        local
            .bitmap
            .write(device, &local, Which::All)
            .map_err(|_| RetCode::IO_META_DISK)?;
    }
    if skips_sync {
        skip_initial_sync(device, &local)?;
    }
    local.sync(device).map_err(|_| RetCode::IO_META_DISK)?;
    Ok(RetCode::NO_ERROR)
}

/// Both sides' data are declared the same.
fn skip_initial_sync(device: &Arc<Device>, local: &LocalRef) -> Result<(), RetCode> {
    // What cannot be sent has cost the connection.
    let _ = device.send_uuids(UuidFlags::SKIP_INITIAL_SYNC);
    local.change(device, |superblock| superblock.uuids.bitmap = 0);
    log!(Info, device, "cleared bitmap UUID {}", local.uuids_text());
    let change = Change::disk(DiskState::UpToDate).with_pdsk(DiskState::UpToDate);
    device.resource.change_state(device, change, How::VERBOSE)?;
    Ok(())
}

/// Waits until the worker is through with what came before, unless a disk keeps it.
fn quiet_worker(resource: &Resource) -> Result<(), RetCode> {
    match resource.flush_worker_within(COMMAND_WAIT_MS) {
        true => Ok(()),
        false => Err(RetCode::INTERRUPTED),
    }
}

fn require_disk(device: &Arc<Device>) -> Result<LocalRef, RetCode> {
    device.local().ok_or(RetCode::NO_DISK)
}
