// SPDX-License-Identifier: GPL-2.0

//! A resync begins: the helper, the state, the plan.

use drbd_engine::{
    resync::{
        Activity,
        Controller,
        Deferred,
        Planner,
        Progress,
        Shape,
        Throttle, //
    },
    state::{
        resync::{
            awaits_sync_uuid,
            helper_verdict,
            start as decide_start,
            takes_sync_uuid,
            HelperVerdict,
            Side, //
        },
        Change,
        ConnState,
        Flags,
        State, //
    },
    types::Sector,
    wire::{
        Features,
        SyncUuid, //
    },
};
use drbd_sys::{
    log,
    time::monotonic_ns, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    checksum,
    order,
    pace::pace_of, //
};
use crate::io::{
    after,
    bitmap::Which,
    device::{
        flag,
        Device, //
    },
    helper,
    receiver::ConnectionError,
    state::How,
    worker::chore, //
};

/// Blocks in use that the target remembers to ask for later.
const DEFERRED_MAX: usize = 256;

/// Starts a resync. May sleep.
pub(crate) fn start(device: &Arc<Device>, side: Side) {
    let resource = &device.resource;
    let conn = device.state().conn;
    if Side::of(conn).is_some() || conn < ConnState::Connected {
        return;
    }
    if !run_before_helper(device, side) {
        let _ = resource.change_connection(Change::conn(ConnState::Disconnecting), How::HARD);
        return;
    }
    // The helper takes its time, and the peer tells its state whenever it changes. As long as this
    // is the way to the resync, what was decided by an older state is decided anew.
    loop {
        let state = device.state();
        if state.conn != conn || start_from(device, side, state) || device.state() == state {
            return;
        }
    }
}

/// Starts a resync if the state is still `state`. Returns whether that is settled; otherwise it may
/// have changed.
fn start_from(device: &Arc<Device>, side: Side, state: State) -> bool {
    let resource = &device.resource;
    let Some(local) = device.local() else {
        return true;
    };
    let set_bits = local.bitmap.set_bits();
    let context = resource.context_of(device);
    let must_wait = order::must_wait(device);
    let start = match decide_start(state, side, must_wait, set_bits, &context) {
        Ok(start) => start,
        Err(error) => {
            log!(Error, device, "the resync does not start: {}", error.text());
            return true;
        }
    };
    prepare(device, side, set_bits);
    let wanted = Change::all(start.changed.new);
    let changed = resource.change_state_if(
        device,
        wanted,
        How {
            flags: Flags::SOFT,
            verbose: true,
            resends: false,
        },
        |now| now == state,
    );
    if changed.is_err() {
        *device.plan.lock() = None;
        device.resync.lock().cancel();
        return false;
    }
    log!(
        Info,
        device,
        "Began resync as {} (will sync {} KB [{} bits set]).",
        device.state().conn.name(),
        set_bits.saturating_mul(4),
        set_bits
    );
    if start.send_sync_uuid && after::send_sync_uuid(device).is_err() {
        // What cannot be sent has cost the connection.
        return true;
    }
    order::reconsider(resource);
    device.chore(chore::RESYNC_TURN);
    if start.wait_before_finish {
        leave_time_to_follow(device);
    }
    if start.finish_at_once || set_bits == 0 && side == Side::Target {
        device.chore(chore::RESYNC_DONE);
    }
    true
}

/// Before version 95 neither side hears of the other's end of a resync without blocks: a connection
/// that is lost too soon would make the next one a full sync. The wait ends with the connection.
fn leave_time_to_follow(device: &Device) {
    let connection = &device.resource.connection;
    let Some(config) = connection.config() else {
        return;
    };
    let ping_int_ms = config.net.ping_int.saturating_mul(1000);
    let pause_ms = ping_int_ms.saturating_add(config.net.ping_timeo.saturating_mul(100) / 9);
    let ends = || connection.is_interrupted();
    connection.receiver_wait.wait_until_timeout(ends, pause_ms);
}

fn run_before_helper(device: &Arc<Device>, side: Side) -> bool {
    if device.flags.set(flag::BEFORE_RESYNC_DONE) & flag::BEFORE_RESYNC_DONE != 0 {
        return true;
    }
    let status = helper::run(device, side.before_helper());
    match helper_verdict(side, status) {
        HelperVerdict::GoOn => true,
        HelperVerdict::GoOnWarned => {
            log!(
                Warning,
                device,
                "{} handler returned 3, ignored. Old userland tools?",
                side.before_helper()
            );
            true
        }
        HelperVerdict::Disconnect => {
            log!(
                Info,
                device,
                "{} handler returned {}, dropping connection.",
                side.before_helper(),
                (status >> 8) & 0xff
            );
            false
        }
    }
}

fn prepare(device: &Arc<Device>, side: Side, set_bits: u64) {
    let now_ns = monotonic_ns();
    let Some(local) = device.local() else { return };
    let conf = local.conf();
    let pace = pace_of(&conf);
    if side == Side::Target {
        let version = device.resource.connection.version();
        let thin = if device
            .resource
            .connection
            .features()
            .contains(Features::THIN_RESYNC)
        {
            conf.rs_discard_granularity
        } else {
            0
        };
        let shape = Shape::new(Sector(device.capacity()), version.max_request_size(), thin);
        let mut deferred = KVVec::new();
        // Without room to remember blocks in use they are waited for.
        let _ = deferred.resize(DEFERRED_MAX, Deferred::default(), GFP_KERNEL);
        *device.plan.lock() = Some(Planner::new(shape, deferred));
    }
    // The source learns it from the first request.
    let uses_checksums = side == Side::Target && checksum::is_wanted(device);
    let disk_sectors = local.backing.sectors_done();
    device
        .flags
        .clear(flag::RESYNC_DOUBTED | flag::MARKED_UNTOLD);
    let mut resync = device.resync.lock();
    resync.progress = Progress::start(now_ns, set_bits);
    resync.controller = Some(Controller::new(pace, now_ns));
    resync.uses_checksums = uses_checksums;
    resync.in_flight_sectors = 0;
    resync.last_lazy_write_ns = now_ns;
    resync.throttle = Throttle::new(&Activity {
        disk_sectors,
        resync_sectors: resync.moved_sectors,
        ..Activity::default()
    });
}

/// The source told which generation the target gets: takes it over and starts. On the receiver.
pub(crate) fn receive_sync_uuid(
    device: &Arc<Device>,
    packet: SyncUuid,
) -> Result<(), ConnectionError> {
    let resource = &device.resource;
    // Our own bitmap, or a change that the peer has agreed to, may still be on its way.
    resource.waiters.wait_until(|| {
        let changes = resource.connection.is_changing();
        !awaits_sync_uuid(device.state().conn, changes) || resource.connection.is_interrupted()
    });
    let local = device
        .local()
        .filter(|_| takes_sync_uuid(device.state().conn));
    let Some(local) = local else {
        log!(Error, device, "Ignoring SyncUUID packet!");
        return Ok(());
    };
    let primary = device.state().role.is_primary();
    local.change(device, |superblock| {
        superblock.uuids.adopt_current(packet.0, primary)
    });
    log!(Info, device, "updated sync uuid {}", local.uuids_text());
    let _ = local.sync(device);
    // The source forgets a block as soon as it is written here. What a power cut takes back again
    // must be known here, and now all that the source called out of sync has arrived.
    local
        .bitmap
        .write(device, &local, Which::Dirty)
        .map_err(|_| ConnectionError)?;
    drop(local);
    start(device, Side::Target);
    // That the disk is Inconsistent, before anything of the source's is written there. An error
    // costs the disk, not the peer that the users may need.
    if let Some(local) = device.local() {
        let _ = local.sync(device);
    }
    Ok(())
}
