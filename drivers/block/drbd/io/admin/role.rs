// SPDX-License-Identifier: GPL-2.0

//! Becoming Primary and Secondary (spec §4.6).

use drbd_engine::{
    config::RetCode,
    state::{
        promote::{
            self,
            Attempt,
            PromoteStep, //
        },
        Change,
        ConnState,
        Role,
        State,
        StateError,
        Success, //
    },
    wire::UuidFlags,
};
use drbd_sys::{
    log,
    time::sleep_ms, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    wait_for_answers,
    Outcome, //
};
use crate::io::{
    after,
    connection::flag as connection_flag,
    device::{
        flag,
        Device, //
    },
    fence,
    limits::COMMAND_WAIT_MS,
    resource::Resource,
    state::How,
    worker::chore, //
};

/// How long a demotion waits for the peer to flush, and how often it looks.
const SETTLE_MS: u32 = 2000;
const SETTLE_NAP_MS: u32 = 10;
/// What the ping timeout is without a connection, in tenths of a second.
const PING_TIMEOUT_DS: u32 = 5;

/// PRIMARY.
pub(super) fn promote(device: &Arc<Device>, force: bool) -> Outcome {
    // Whoever opens the device the moment it is Primary must not write before the new generation
    // is on disk.
    device.close_gate();
    let outcome = promote_held(device, force);
    device.open_gate();
    outcome
}

fn promote_held(device: &Arc<Device>, force: bool) -> Outcome {
    let resource = &device.resource;
    ping(resource);
    let forced = match request_primary(device, force)? {
        Some(forced) => forced,
        None => return Ok(RetCode::NOTHING_TO_DO),
    };
    // Whoever becomes Primary wants its own data from now on.
    let connection = &resource.connection;
    let discards = connection
        .config()
        .is_some_and(|config| config.net.discard_my_data);
    let forgotten = match discards {
        true => connection.edit_net(|net| net.discard_my_data = false),
        false => Ok(true),
    };
    if forced {
        log!(
            Warning,
            device,
            "Forced to consider local data as UpToDate!"
        );
    }
    wait_for_answers(device);
    wait_for_peer_writes(device);
    let state = device.state();
    let mut has_new_uuids = forced;
    if let Some(local) = device.local() {
        if promote::starts_new_generation(state, local.uuids().bitmap == 0, forced) {
            if forced {
                after::new_current_uuid(device);
            } else {
                // The worker may have found it due as well.
                after::begin_generation_once(device);
            }
            // A peer that attaches its disk just now compares with what it was told last.
            has_new_uuids = true;
        }
        local.change(device, |superblock| superblock.uuids.enter_primary());
    }
    finish(device, has_new_uuids);
    forgotten.map_err(|_| RetCode::NO_MEMORY)?;
    Ok(RetCode::SUCCESS)
}

/// What the peer wrote may be on its way to this disk still, told done at the peer by protocol A or
/// B: who opens the device must not read what it overwrites. May sleep, until the connection that
/// brought it is cleaned up; a disk that hangs is not waited for.
fn wait_for_peer_writes(device: &Arc<Device>) {
    let resource = &device.resource;
    let is_idle = || resource.connection.peer_requests.get() == 0;
    let naps = COMMAND_WAIT_MS / SETTLE_NAP_MS;
    // Requests that end wake the asender, and nobody else. To look at the connection takes a mutex.
    let _ = (0..naps).any(|_| {
        resource.cstate() >= ConnState::WFReportParams
            || device.waiters.wait_until_timeout(is_idle, SETTLE_NAP_MS)
    });
}

/// SECONDARY.
pub(super) fn demote(device: &Arc<Device>) -> Outcome {
    device.close_gate();
    let outcome = demote_held(device);
    device.open_gate();
    outcome
}

fn demote_held(device: &Arc<Device>) -> Outcome {
    let mut answer = request_secondary(device);
    if matches!(answer, Err(StateError::DeviceInUse)) && device.open_count() == 0 {
        // Closed since; nobody can open it.
        answer = request_secondary(device);
    }
    let code = RetCode::from(answer?);
    if code == RetCode::NOTHING_TO_DO {
        return Ok(code);
    }
    wait_for_answers(device);
    // What was not acked in time.
    after::begin_generation_for_demotion(device);
    if let Some(local) = device.local() {
        local.change(device, |superblock| superblock.uuids.enter_secondary());
    }
    finish(device, false);
    Ok(RetCode::SUCCESS)
}

fn request_secondary(device: &Arc<Device>) -> Result<Success, StateError> {
    if device.state().role.is_primary() {
        if device.open_count() == 0 {
            put_on_stable_storage(device);
            after::begin_generation_for_demotion(device);
        } else {
            // What is open stays Primary, which the state change says; nothing is to be waited for.
            device.flags.set(flag::UNFLUSHED);
        }
    }
    let change = Change::role(Role::Secondary);
    let answer = device.resource.request_state(device, change, How::VERBOSE);
    device.flags.clear(flag::UNFLUSHED);
    answer
}

/// Has both nodes flush what was written here, as far as that can be had in time.
///
/// A Primary that loses its power says so afterwards, and its last writes are synced. A Secondary
/// does not: were both to lose their power now, the disks would differ in what either had not
/// flushed, and both nodes call them equal. The C driver has it so.
fn put_on_stable_storage(device: &Arc<Device>) {
    let resource = &device.resource;
    if resource.connection.close_epoch() {
        resource.chore(chore::SEND);
    }
    // Bios that wait for a cold extent or a busy range come before the flush too.
    let is_through = || {
        device.counters.application_bios.get() == 0
            && !resource
                .requests
                .iter()
                .any(|request| request.is_of(device))
    };
    let naps = SETTLE_MS / SETTLE_NAP_MS;
    // The acks of the peer's flushes wake nobody.
    let settled = (0..naps).any(|_| device.waiters.wait_until_timeout(is_through, SETTLE_NAP_MS));
    let flushes = || {
        device
            .local()
            .is_none_or(|local| local.flush_backing(COMMAND_WAIT_MS).is_ok())
    };
    if !settled || !flushes() {
        log!(
            Warning,
            device,
            "demoted with writes that are not on stable storage of both nodes"
        );
    }
}

/// What both have in common: the peer, the metadata and the system learn of the new role.
fn finish(device: &Arc<Device>, has_new_uuids: bool) {
    let State { conn, role, .. } = device.state();
    if conn >= ConnState::WFReportParams {
        // What cannot be sent has cost the connection.
        if has_new_uuids {
            let _ = device.send_uuids(UuidFlags::default());
        }
        let _ = device.send_present_state();
    }
    if let Some(local) = device.local() {
        // An error costs the disk by itself.
        let _ = local.sync(device);
    }
    if let Some(disk) = device.disk.lock().as_ref() {
        disk.set_read_only(!role.is_primary());
        disk.notify_change();
    }
    // What is left of it happens by itself.
    device.resource.flush_worker_within(COMMAND_WAIT_MS);
}

/// Asks until the node is Primary, `Some` whether by force; `None` if it was so before.
fn request_primary(device: &Arc<Device>, force: bool) -> Result<Option<bool>, RetCode> {
    let resource = &device.resource;
    let mut attempt = Attempt::FIRST;
    loop {
        let answer = resource.request_state(device, attempt.change, How::QUIET);
        attempt = match promote::next(answer, attempt, force, device.state()) {
            PromoteStep::Promoted { forced } => return Ok(Some(forced)),
            PromoteStep::NothingToDo => return Ok(None),
            PromoteStep::Refused(error) => {
                log!(Error, device, "State change failed: {}", error.text());
                return Err(error.into());
            }
            PromoteStep::Retry(next) => next,
            PromoteStep::FencePeer(next) => fence_peer(device, answer.err(), next, force),
            PromoteStep::WaitForPing(next) => {
                let config = resource.connection.config();
                let timeout_ds = config.map_or(PING_TIMEOUT_DS, |config| config.net.ping_timeo);
                sleep_ms(timeout_ds.saturating_add(1).saturating_mul(100));
                next
            }
            PromoteStep::LastRequest(next) => {
                resource.request_state(device, next.change, How::VERBOSE)?;
                return Ok(Some(next.forced));
            }
        };
    }
}

fn fence_peer(
    device: &Arc<Device>,
    error: Option<StateError>,
    attempt: Attempt,
    force: bool,
) -> Attempt {
    let fenced = fence::fence_peer(&device.resource);
    let error = error.unwrap_or(StateError::Unknown);
    let (attempt, splits_brain) = promote::after_fencing(error, attempt, fenced, force);
    if splits_brain {
        log!(Warning, device, "Forced into split brain situation!");
    }
    attempt
}

/// Asks the peer for a sign of life, so that a dead one is noticed soon.
fn ping(resource: &Resource) {
    let connection = &resource.connection;
    connection.flags.set(connection_flag::SEND_PING);
    connection.asender_wait.wake_all();
}
