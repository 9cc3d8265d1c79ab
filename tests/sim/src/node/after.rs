// SPDX-License-Identifier: GPL-2.0

//! What follows from changes of state, on the worker, as `io/after.rs` does it.

use std::rc::Rc;

use drbd_engine::handshake::peer_state::exposes_peer_after_detach;
use drbd_engine::meta::MdFlags;
use drbd_engine::request::{Event, Writer};
use drbd_engine::state::connection::connection_work;
use drbd_engine::state::promote;
use drbd_engine::state::{
    begins_when_io_goes_on, begins_while_suspended, effects_after, restart_is_seen,
    Change as Request, ConnState, Deferred, DiskState, State,
};

use super::device::Device;
use super::disk::{LocalDisk, Which};
use super::state::Phase;
use super::{bitmap_exchange, resync, sender, Config, Node};
use crate::canary::Canary;
use crate::packet::Packet;

/// Carries out what state changes left for the worker.
pub(crate) async fn carry_out(node: &Rc<Node>) {
    loop {
        let volumes = node.deferred.volumes.take();
        let connections = node.deferred.connection.take();
        if volumes.is_empty() && connections.is_empty() {
            return;
        }
        for change in volumes {
            let device = &change.device;
            if change.resends {
                device.send_uuids(0).await;
                device.send_state(change.new).await;
            }
            after_volume(device, change.old, change.new).await;
            if change.holds_writes {
                device.generation_begun();
            }
        }
        for change in connections {
            after_connection(node, change.old, change.new).await;
        }
    }
}

async fn after_volume(device: &Rc<Device>, old: State, new: State) {
    let context = device.after_context(device.state());
    for effect in effects_after(old, new, &context).iter() {
        device.sim.pause().await;
        carry_out_deferred(device, effect, old, new).await;
    }
}

async fn carry_out_deferred(device: &Rc<Device>, effect: Deferred, old: State, new: State) {
    match effect {
        Deferred::SendStateForPause
        | Deferred::SendStateForHandshake
        | Deferred::SendStateForAhead
        | Deferred::SendStateForInconsistent => device.send_state(new).await,
        Deferred::SendStateForResyncEnd => {
            device.send_state(new).await;
            device.flags.end_untold.set(false);
            device.sim.touch();
        }
        Deferred::ReleaseDisk => {
            if old.disk == DiskState::Negotiating {
                device.flags.go_diskless.set(true);
            }
            device.send_state(new).await;
        }
        Deferred::GreetPeerDisk | Deferred::SendDisk => {
            device.send_uuids(0).await;
            device.send_state(new).await;
        }
        Deferred::SendSyncUuid => send_sync_uuid(device).await,
        Deferred::RememberNewCurrentUuid if device.state().is_suspended() => {
            device.flags.new_current_uuid.set(true);
        }
        // Or I/O has gone on since.
        Deferred::NewCurrentUuid | Deferred::RememberNewCurrentUuid => {
            if !device.config.has(Canary::UuidNotRotated) {
                begin_generation_once(device).await;
            }
            device.send_uuids(0).await;
        }
        Deferred::ClearCrashedPrimary => clear_crashed_primary(device),
        Deferred::SendBitmap => bitmap_exchange::send_as_source(device).await,
        Deferred::WriteBitmapForPeerDemotion
        | Deferred::WriteBitmapForDemotion
        | Deferred::WriteChangedBitmap => {
            if let Some(local) = device.local() {
                local.write_bitmap(device, Which::Dirty).await;
            }
        }
        Deferred::StartFullSyncAsTarget => resync::start_full_sync(device, true).await,
        Deferred::StartFullSyncAsSource => resync::start_full_sync(device, false).await,
        Deferred::ReleaseFailedDisk => {
            device.send_state(new).await;
            let peer = device.peer.get();
            if let Some(peer) = peer.filter(|_| exposes_peer_after_detach(device.state())) {
                device.exposed_uuid.set(peer.set.current);
            }
            device.resync.borrow_mut().cancel();
            sync_metadata(device).await;
            device.flags.go_diskless.set(true);
        }
        Deferred::SyncMetadata => sync_metadata(device).await,
        Deferred::ResendForNoData => {
            thaw(device, Request::NONE.with_susp_nod(false), Event::Resend).await;
        }
        Deferred::RestartDiskIoForNoData => {
            let event = match device.node().phase() {
                Phase::Away => Event::DiskReturnedAlone,
                Phase::Meeting => Event::Resend,
                Phase::Connected => Event::DiskReturned,
            };
            thaw(device, Request::NONE.with_susp_nod(false), event).await;
        }
        Deferred::ResendForFencing => {
            thaw(device, Request::NONE.with_susp_fen(false), Event::Resend).await;
        }
        Deferred::ResendForAdmin => {
            let node = device.node();
            settle_generations(&node).await;
            node.walk_log(Event::Resend);
        }
        _ => {}
    }
}

/// I/O goes on: what was held back ends or is sent again.
async fn thaw(device: &Rc<Device>, change: Request, event: Event) {
    let node = device.node();
    settle_generations(&node).await;
    node.walk_log(event);
    let _ = device.change_state(change, Node::SOFT);
    node.end_held_back();
}

/// The volumes whose writes are of a generation of their own from here on begin it.
pub(crate) async fn settle_generations(node: &Rc<Node>) {
    for device in &node.devices {
        let is_due = device.flags.new_current_uuid.replace(false);
        if !begins_when_io_goes_on(device.state(), is_due) {
            continue;
        }
        begin_generation_once(device).await;
        if device.state().conn >= ConnState::Connected {
            device.send_uuids(0).await;
        }
    }
}

/// The connection was lost while I/O is suspended: begins a generation where blocks differ already.
async fn begin_generation_while_suspended(device: &Rc<Device>) {
    let Some(local) = device.local() else { return };
    let is_zero = local.uuids().bitmap == 0;
    let set_bits = local.set_bits(device);
    drop(local);
    let Config {
        protocol, fencing, ..
    } = *device.config;
    if begins_while_suspended(device.state(), protocol, fencing, is_zero, set_bits) {
        begin_generation_once(device).await;
    }
}

/// Whether a peer that is restarted while I/O is suspended is known as such when it is back.
fn sees_restart(device: &Device) -> bool {
    device
        .local()
        .is_some_and(|local| restart_is_seen(device.config.fencing, local.uuids().bitmap == 0))
}

/// The connection was lost while I/O is suspended.
pub(crate) async fn freeze_requests(node: &Rc<Node>) {
    node.log.borrow_mut().connection_lost();
    for device in &node.devices {
        let restart_is_seen = sees_restart(device);
        node.walk_log_of(device, Event::ConnectionFrozen { restart_is_seen });
        begin_generation_while_suspended(device).await;
    }
}

fn clear_crashed_primary(device: &Rc<Device>) {
    device.flags.crashed_primary.set(false);
    if let Some(local) = device.local() {
        local.update_flags(device, device.state());
    }
    if let Some(mut peer) = device.peer.get() {
        peer.flags &= !drbd_engine::handshake::peer_state::UUID_CRASHED_PRIMARY;
        device.peer.set(Some(peer));
    }
}

async fn send_sync_uuid(device: &Rc<Device>) {
    let Some(local) = device.local() else { return };
    // What was only announced as out of sync belongs before the resync begins.
    sender::drain(&device.node()).await;
    let random = device.sim.random();
    let uuid = local.change(|superblock| superblock.uuids.start_as_sync_source(random));
    if local.sync(device).await {
        device.send_data(Packet::SyncUuid(uuid)).await.ok();
    }
}

/// Begins a new data generation.
pub(crate) async fn new_current_uuid(device: &Rc<Device>) {
    let Some(local) = device.local() else { return };
    let primary = device.is_primary();
    let random = device.sim.random();
    local.change(|superblock| superblock.uuids.begin_generation(random, primary));
    generation_begun(device, &local).await;
}

/// The same, unless the bitmap counts from a generation already.
pub(crate) async fn begin_generation_once(device: &Rc<Device>) {
    let Some(local) = device.local() else { return };
    let primary = device.is_primary();
    let random = device.sim.random();
    if local.change(|superblock| superblock.uuids.begin_generation_once(random, primary)) {
        generation_begun(device, &local).await;
    }
}

/// Begins a generation for a Primary that is being demoted, if one is due.
pub(crate) async fn begin_generation_for_demotion(device: &Rc<Device>) {
    let Some(local) = device.local() else { return };
    let is_due = promote::demotes_with_new_generation(
        device.state().disk,
        local.uuids().bitmap == 0,
        device.flags.peer_refused.get(),
        local.set_bits(device),
    );
    drop(local);
    if is_due && !device.config.has(Canary::RefusalForgotten) {
        begin_generation_once(device).await;
        device.send_uuids(0).await;
    }
}

async fn generation_begun(device: &Rc<Device>, local: &LocalDisk) {
    device.flags.peer_refused.set(false);
    device.exposed_uuid.set(local.uuids().current);
    device.tell(|| format!("new current UUID {}", local.uuids_text()));
    local.sync(device).await;
}

async fn sync_metadata(device: &Rc<Device>) {
    if let Some(local) = device.local() {
        local.sync(device).await;
    }
}

async fn after_connection(node: &Rc<Node>, old: ConnState, new: ConnState) {
    let is_suspended = node.devices.iter().any(|device| device.state().susp_fen);
    let work = connection_work(old, new, is_suspended, &node.aggregate());
    if work.start_receiver {
        node.start_receiver();
    }
    if work.discard_configuration {
        node.configured.set(false);
    }
    if work.finish_fencing {
        for device in &node.devices {
            if device.flags.new_current_uuid.replace(false) {
                begin_generation_once(device).await;
            }
        }
        thaw_without_peer(node);
    }
    node.sim.touch();
}

/// Fencing holds nothing back any more: what waits for the peer ends without it.
fn thaw_without_peer(node: &Rc<Node>) {
    let waits_on = |state: State| state.susp || state.susp_nod;
    if !node.devices.iter().any(|device| waits_on(device.state())) {
        node.fail_for_lost_connection();
    }
    let _ = node.change_connection(Request::NONE.with_susp_fen(false), Node::SOFT);
    node.end_held_back();
}

/// Nobody is asked about the peer: what fencing held back goes on, unless the peer is on its way
/// back, which decides then.
pub(crate) fn give_up_fencing(node: &Rc<Node>) {
    let is_frozen = node.devices.iter().any(|device| device.state().susp_fen);
    if node.phase() == Phase::Away && is_frozen {
        thaw_without_peer(node);
    }
}

/// Lets a disk go, once nothing refers to it: to wait for that here would hold up what ends the
/// requests that do.
pub(crate) async fn go_diskless(device: &Rc<Device>) {
    device.flags.go_diskless.set(false);
    if !matches!(device.state().disk, DiskState::Failed | DiskState::Diskless) {
        return;
    }
    let Some(disk) = device.retire_local() else {
        return;
    };
    if disk.references.get() != 0 {
        device.flags.go_diskless.set(true);
        return;
    }
    if device.state().disk == DiskState::Failed {
        // The peer is told that what it wrote here before is on stable storage.
        let careless = device.config.has(Canary::DetachedWithoutFlush);
        if !careless && !disk.flush_data(device).await {
            device.node().flags.flush_failed.set(true);
            device.note_lack(Writer::Own { acked: false });
        }
        // What the bitmap says is needed at the next attach; if it cannot be written, everything is
        // out of sync.
        if device.flags.was_read_error.get() || !disk.write_bitmap(device, Which::Dirty).await {
            disk.change(|superblock| superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC));
        }
        device.record_lack(&disk);
        disk.sync_with_bitmap(device).await;
        let _ = device.change_state(Request::disk(DiskState::Diskless), Node::HARD);
    }
    device.retired.replace(None);
    device.tell(|| "detached".into());
}
