// SPDX-License-Identifier: GPL-2.0

//! Options and end of an attached disk (spec §15.2).

use drbd_engine::{
    config::{
        DiskConf,
        RetCode, //
    },
    epoch::WriteOrdering,
    state::{
        Change,
        ConnState,
        DiskState,
        StateError, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    has_disk,
    log_size::{
        self,
        Needs, //
    },
    Outcome, //
};
use crate::{
    control::backend::InfoText,
    io::{
        attach,
        device::{
            flag,
            Device,
            LocalRef, //
        },
        held_io::HeldIo,
        limits::COMMAND_WAIT_MS,
        resync::order,
        size,
        state::How, //
    },
};

/// How long a graceful detach waits for requests at the backing device.
const DETACH_MS: u32 = 60_000;

/// CHG_DISK_OPTS.
pub(super) fn change_options(
    device: &Arc<Device>,
    conf: &DiskConf,
    info: &mut InfoText,
) -> Outcome {
    let local = device.local().ok_or(RetCode::NO_DISK)?;
    let old = local.conf();
    order::check(device, conf)?;
    let mut conf = conf.clone();
    conf.al_extents = local.layout.ring().clamp_extents(conf.al_extents);
    conf.rs_discard_granularity = attach::discard_granularity(device, &local.backing, &conf);
    let conf = Arc::new(conf, GFP_KERNEL).map_err(|_| RetCode::NO_MEMORY)?;
    let note_log = |is_kept| {
        let noted = local.note_log(device, is_kept);
        // That it is noted need not mean that it could be written.
        let noted = noted.and_then(|()| local.sync(device));
        noted.map_err(|_| RetCode::IO_META_DISK)
    };
    // The metadata never promise a log that is not kept: on disk it knows nothing of what became
    // hot without it.
    if !conf.al_updates {
        note_log(false)?;
    }
    if conf.al_extents != old.al_extents || (conf.al_updates && !old.al_updates) {
        change_log(device, &local, &old, &conf, info)?;
    }
    local.set_conf(conf.clone());
    if conf.al_updates {
        note_log(true)?;
    }
    if conf.md_flushes && !old.md_flushes {
        // What was written without counts as stable from now on.
        let flushed = flush_all(&local);
        let flushed = local.judge_metadata(device, flushed);
        flushed.map_err(|_| RetCode::IO_META_DISK)?;
    }
    if (conf.disk_flushes, conf.disk_drain) != (old.disk_flushes, old.disk_drain) {
        attach::update_write_ordering(&device.resource, WriteOrdering::Flush);
    }
    drop(local);
    size::update_limits(device);
    order::reconsider(&device.resource);
    if device.state().conn >= ConnState::Connected {
        // What cannot be sent has cost the connection.
        let _ = device.send_sync_param();
    }
    Ok(RetCode::NO_ERROR)
}

fn flush_all(local: &LocalRef) -> Result {
    let meta = local.meta.lock().page.device().clone();
    local.flush(&meta)?;
    match local.backing.has_write_cache() {
        true => local.flush(&local.backing),
        false => Ok(()),
    }
}

/// Puts an empty log in the place of the old one; from the first write on it is kept as `conf` has
/// it.
fn change_log(
    device: &Arc<Device>,
    local: &LocalRef,
    old: &Arc<DiskConf>,
    conf: &Arc<DiskConf>,
    info: &mut InfoText,
) -> Result<(), RetCode> {
    let changed = HeldIo::new(device).and_then(|held| {
        local.set_conf(conf.clone());
        let needs = match conf.al_extents == old.al_extents {
            true => Needs::Idle,
            false => Needs::Still,
        };
        let changed = log_size::change(device, local, conf.al_extents, needs);
        if changed.is_err() {
            local.set_conf(old.clone());
        }
        drop(held);
        changed
    });
    changed.map_err(|error| match error {
        error if error == EIO => RetCode::IO_META_DISK,
        _ if conf.al_extents == old.al_extents => {
            let text = format_args!("Try again with al-updates off: the log could not be emptied");
            info.say(RetCode::NO_MEMORY, text)
        }
        _ => {
            let text = format_args!("Try again without changing current al-extents setting");
            info.say(RetCode::NO_MEMORY, text)
        }
    })
}

/// DETACH.
pub(super) fn detach(device: &Arc<Device>, force: bool, info: &mut InfoText) -> Outcome {
    let resource = &device.resource;
    if !has_disk(device) {
        return Err(RetCode::IS_DISKLESS);
    }
    let change = Change::disk(DiskState::Failed);
    if force {
        give_up(device);
        let success = resource.change_state(device, change, How::HARD)?;
        // Where it failed before, nobody else does that for what is there still.
        for request in resource.requests.iter() {
            request.abort_local(device);
        }
        return Ok(success.into());
    }
    let held = HeldIo::new(device).map_err(|_| still_in_use(info))?;
    let answer = resource.request_state(device, change, How::VERBOSE);
    drop(held);
    let code = match answer {
        Ok(success) => RetCode::from(success),
        Err(StateError::IsDiskless) => return Err(RetCode::IS_DISKLESS),
        Err(error) => return Err(error.into()),
    };
    let is_gone = || device.state().disk != DiskState::Failed && !device.is_attached();
    if !resource.waiters.wait_until_timeout(is_gone, DETACH_MS) {
        return Err(still_in_use(info));
    }
    // The devices are closed by then, and free for others.
    resource.flush_worker_within(COMMAND_WAIT_MS);
    Ok(code)
}

/// What a forced detach does before its turn: who waits for the disk's metadata, as a command that
/// has its turn now may, is not kept by it any more.
pub(super) fn give_up(device: &Arc<Device>) {
    if device.is_attached() || device.is_parting() {
        device.flags.set(flag::FORCE_DETACH);
        device.abandon_disk();
    }
}

fn still_in_use(info: &mut InfoText) -> RetCode {
    let text = format_args!("requests at the backing device do not end; detach with --force");
    info.say(RetCode::INTERRUPTED, text)
}

/// OUTDATE.
pub(super) fn outdate(device: &Arc<Device>) -> Outcome {
    let change = Change::disk(DiskState::Outdated);
    let success = device
        .resource
        .request_state(device, change, How::VERBOSE)?;
    device.resource.flush_worker_within(COMMAND_WAIT_MS);
    Ok(success.into())
}
