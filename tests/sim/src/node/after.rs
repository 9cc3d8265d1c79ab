// SPDX-License-Identifier: GPL-2.0

//! What follows from changes of state, on the worker, as `io/after.rs` does it.

use std::rc::Rc;

use drbd_engine::handshake::peer_state::exposes_peer_after_detach;
use drbd_engine::meta::MdFlags;
use drbd_engine::request::Writer;
use drbd_engine::state::connection::connection_work;
use drbd_engine::state::{effects_after, Change as Request, ConnState, Deferred, DiskState, State};

use super::disk::Which;
use super::{bitmap_exchange, resync, Node};
use crate::canary::Canary;
use crate::packet::Packet;

/// Carries out what state changes left for the worker.
pub(crate) async fn carry_out(node: &Rc<Node>) {
    loop {
        let volumes = node.deferred.volume.take();
        let connections = node.deferred.connection.take();
        if volumes.is_empty() && connections.is_empty() {
            return;
        }
        for change in volumes {
            if change.resends {
                node.send_uuids(0).await;
                node.send_state(change.new).await;
            }
            after_volume(node, change.old, change.new).await;
            if change.holds_writes {
                node.generation_begun();
            }
        }
        for change in connections {
            after_connection(node, change.old, change.new).await;
        }
    }
}

async fn after_volume(node: &Rc<Node>, old: State, new: State) {
    let context = node.after_context(node.state());
    for effect in effects_after(old, new, &context).iter() {
        node.sim.pause().await;
        carry_out_deferred(node, effect, old, new).await;
    }
}

async fn carry_out_deferred(node: &Rc<Node>, effect: Deferred, old: State, new: State) {
    match effect {
        Deferred::SendStateForPause
        | Deferred::SendStateForHandshake
        | Deferred::SendStateForAhead
        | Deferred::SendStateForInconsistent
        | Deferred::SendStateForResyncEnd => node.send_state(new).await,
        Deferred::ReleaseDisk => {
            if old.disk == DiskState::Negotiating {
                node.flags.go_diskless.set(true);
            }
            node.send_state(new).await;
        }
        Deferred::GreetPeerDisk | Deferred::SendDisk => {
            node.send_uuids(0).await;
            node.send_state(new).await;
        }
        Deferred::SendSyncUuid => send_sync_uuid(node).await,
        Deferred::NewCurrentUuid => {
            if !node.config.has(Canary::UuidNotRotated) {
                new_current_uuid(node).await;
            }
            node.send_uuids(0).await;
        }
        Deferred::ClearCrashedPrimary => clear_crashed_primary(node),
        Deferred::SendBitmap => bitmap_exchange::send_as_source(node).await,
        Deferred::RememberNewCurrentUuid => node.flags.new_current_uuid.set(true),
        Deferred::WriteBitmapForPeerDemotion
        | Deferred::WriteBitmapForDemotion
        | Deferred::WriteChangedBitmap => {
            if let Some(local) = node.local() {
                local.write_bitmap(node, Which::Dirty).await;
            }
        }
        Deferred::StartFullSyncAsTarget => resync::start_full_sync(node, true).await,
        Deferred::StartFullSyncAsSource => resync::start_full_sync(node, false).await,
        Deferred::ReleaseFailedDisk => {
            node.send_state(new).await;
            let peer = node.peer.get();
            if let Some(peer) = peer.filter(|_| exposes_peer_after_detach(node.state())) {
                node.exposed_uuid.set(peer.set.current);
            }
            node.resync.borrow_mut().cancel();
            sync_metadata(node).await;
            node.flags.go_diskless.set(true);
        }
        Deferred::SyncMetadata => sync_metadata(node).await,
        _ => {}
    }
}

fn clear_crashed_primary(node: &Rc<Node>) {
    node.flags.crashed_primary.set(false);
    if let Some(local) = node.local() {
        local.update_flags(node, node.state());
    }
    if let Some(mut peer) = node.peer.get() {
        peer.flags &= !drbd_engine::handshake::peer_state::UUID_CRASHED_PRIMARY;
        node.peer.set(Some(peer));
    }
}

async fn send_sync_uuid(node: &Rc<Node>) {
    let Some(local) = node.local() else { return };
    let random = node.sim.random();
    let uuid = local.change(|superblock| superblock.uuids.start_as_sync_source(random));
    if local.sync(node).await {
        node.send_data(Packet::SyncUuid(uuid)).await.ok();
    }
}

/// Begins a new data generation.
pub(crate) async fn new_current_uuid(node: &Rc<Node>) {
    let Some(local) = node.local() else { return };
    let primary = node.is_primary();
    let random = node.sim.random();
    local.change(|superblock| superblock.uuids.begin_generation(random, primary));
    node.exposed_uuid.set(local.uuids().current);
    node.tell(|| format!("new current UUID {}", local.uuids_text()));
    local.sync(node).await;
}

async fn sync_metadata(node: &Rc<Node>) {
    if let Some(local) = node.local() {
        local.sync(node).await;
    }
}

async fn after_connection(node: &Rc<Node>, old: ConnState, new: ConnState) {
    let work = connection_work(old, new, node.state().susp_fen, &node.aggregate());
    if work.start_receiver {
        node.start_receiver();
    }
    if work.discard_configuration {
        node.configured.set(false);
    }
    node.sim.touch();
}

/// Lets a disk go, once nothing refers to it: to wait for that here would hold up what ends the
/// requests that do.
pub(crate) async fn go_diskless(node: &Rc<Node>) {
    node.flags.go_diskless.set(false);
    if !matches!(node.state().disk, DiskState::Failed | DiskState::Diskless) {
        return;
    }
    let Some(disk) = node.retire_local() else {
        return;
    };
    if disk.references.get() != 0 {
        node.flags.go_diskless.set(true);
        return;
    }
    if node.state().disk == DiskState::Failed {
        // The peer is told that what it wrote here before is on stable storage.
        let careless = node.config.has(Canary::DetachedWithoutFlush);
        if !careless && !disk.flush_data(node).await {
            node.flags.flush_failed.set(true);
            node.note_lack(Writer::Own { acked: false });
        }
        // What the bitmap says is needed at the next attach; if it cannot be written, everything is
        // out of sync.
        if node.flags.was_read_error.get() || !disk.write_bitmap(node, Which::Dirty).await {
            disk.change(|superblock| superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC));
        }
        node.record_lack(&disk);
        disk.sync(node).await;
        let _ = node.change_state(Request::disk(DiskState::Diskless), Node::HARD);
    }
    node.retired.replace(None);
    node.tell(|| "detached".into());
}
