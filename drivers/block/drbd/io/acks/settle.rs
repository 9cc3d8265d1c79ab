// SPDX-License-Identifier: GPL-2.0

//! The peer's writes that ended: their acks, and those of their epochs.

use drbd_engine::{
    state::ConnState,
    wire::{
        BarrierAck,
        BarrierCookie,
        Command,
        DataFlags, //
    },
};
use kernel::{
    alloc::KBox,
    sync::Arc, //
};

use crate::io::{
    device::Device,
    peer_request::{
        Kind,
        PeerRequest, //
    },
    receiver::flush_early,
    resource::Resource,
    resync, //
};

/// Acks and frees every request of the peer that ended, then acks the epochs that are complete. May
/// sleep.
///
/// On the asender while the connection lasts, on the receiver when it cleans up; then nothing is
/// sent.
pub(in crate::io) fn settle_done(resource: &Arc<Resource>) {
    while let Some(request) = resource.connection.done.pop() {
        settle(resource, request);
    }
    ack_epochs(resource);
    // What cannot be sent has cost the connection.
    let _ = resource.send_queued();
    flush_early(resource);
}

fn settle(resource: &Resource, mut request: KBox<PeerRequest>) {
    let Some(device) = request.device.clone() else {
        return;
    };
    match request.kind {
        Kind::ResyncWrite | Kind::ResyncDiscard => return resync::finish_write(&device, request),
        Kind::Write | Kind::Discard => ack_write(resource, &device, &request),
        // The worker answers reads.
        Kind::Read
        | Kind::ResyncRead { .. }
        | Kind::ChecksumRead
        | Kind::VerifyRead
        | Kind::VerifyCompare => {}
    }
    if request.wants_ack {
        device.counters.unacked.down();
    }
    if let Some(epoch) = request.epoch.take() {
        let connection = &resource.connection;
        let was_last = connection.epochs.lock().write_done(epoch);
        if was_last {
            connection.receiver_wait.wake_all();
        }
    }
    resource.connection.free_request(request);
}

/// A failure is told whatever the protocol; success where the peer wants to hear of it.
fn ack_write(resource: &Resource, device: &Arc<Device>, request: &PeerRequest) {
    let command = match request.result {
        Err(_) => Command::NegAck,
        Ok(()) if !request.wants_ack => return,
        Ok(()) if sets_in_sync(device, request) => {
            if let Some(local) = request.disk(device) {
                local.bitmap.set_in_sync(request.sector, request.size_bytes);
            }
            Command::RsWriteAck
        }
        Ok(()) => Command::WriteAck,
    };
    // What cannot be sent has cost the connection.
    let _ = resource.queue_ack(
        device,
        command,
        request.sector,
        request.size_bytes,
        request.block_id,
    );
}

/// During a resync a write leaves its blocks in sync.
fn sets_in_sync(device: &Device, request: &PeerRequest) -> bool {
    let conn = device.glance().conn();
    conn >= ConnState::SyncSource
        && conn <= ConnState::PausedSyncT
        && request.flags.contains(DataFlags::MAY_SET_IN_SYNC)
}

/// Acks the epochs that are complete, in their order. May sleep; on the asender and the receiver.
pub(in crate::io) fn ack_epochs(resource: &Resource) {
    let connection = &resource.connection;
    if !connection.epochs.lock().is_ack_due() {
        return;
    }
    // What cannot be sent has cost the connection.
    let _ = resource.send_each_meta(Default::default(), Command::BarrierAck, || {
        let ack = connection.epochs.lock().next_ack()?;
        let packet = BarrierAck {
            cookie: BarrierCookie(ack.cookie),
            set_size: ack.set_size,
        };
        Some(packet.encode())
    });
}
