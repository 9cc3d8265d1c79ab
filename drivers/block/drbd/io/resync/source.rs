// SPDX-License-Identifier: GPL-2.0

//! The source of a resync: reads what the target asks for.

use drbd_engine::{
    range::{
        Kind as RangeKind,
        Refusal, //
    },
    resync::{
        Activity,
        COURTESY_MS, //
    },
    types::SECTOR_SHIFT,
    wire::{
        BlockRequest,
        Command, //
    },
};
use drbd_sys::{
    bio::Flags as BioFlags,
    log,
    time::{
        monotonic_ns,
        sleep_ms, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::THROTTLE_MS;
use crate::io::{
    checksums::Digest,
    device::Device,
    peer_request::{
        Kind,
        PeerIo, //
    },
    receiver::ConnectionError, //
};

/// The target asks for blocks, or a verify for their digest: reads them. On the receiver, which
/// waits while the range is in use.
pub(crate) fn receive_request(
    device: &Arc<Device>,
    kind: Kind,
    packet: BlockRequest,
    digest: Option<KBox<Digest>>,
) -> Result<(), ConnectionError> {
    let resource = &device.resource;
    let connection = &resource.connection;
    if !device.serves_reads() {
        log!(
            Error,
            device,
            "Can not satisfy peer's read request, no local data."
        );
        let _ = resource.send_ack(
            device,
            Command::NegRsDReply,
            packet.sector,
            packet.size,
            packet.block_id,
        );
        return Ok(());
    }
    throttle(device);
    let mut claimed = None;
    connection.receiver_wait.wait_until(|| {
        let mut ranges = device.ranges.lock();
        claimed = Some(ranges.try_insert(RangeKind::ResyncRead, packet.sector, packet.size));
        matches!(claimed, Some(Ok(_) | Err(Refusal::Malformed))) || connection.is_interrupted()
    });
    let Some(Ok(range)) = claimed else {
        return Err(ConnectionError);
    };
    let taken = connection.take_request(device, kind, packet.sector, packet.size);
    let Some(mut request) = taken else {
        device.ranges.lock().remove(range);
        return Err(ConnectionError);
    };
    request.block_id = packet.block_id;
    request.range = Some(range);
    if digest.is_some() {
        device.resync.lock().uses_checksums = true;
    }
    request.digest = digest;
    let size = usize::try_from(packet.size).unwrap_or(0);
    let Ok(buffer) = connection.account.alloc(&connection.pages, size) else {
        connection.free_request(request);
        return Err(ConnectionError);
    };
    let Some(local) = device.local() else {
        // It went while the range was in use.
        connection.free_request(request);
        let _ = resource.send_ack(
            device,
            Command::NegRsDReply,
            packet.sector,
            packet.size,
            packet.block_id,
        );
        return Ok(());
    };
    device.counters.unacked.up();
    device
        .counters
        .read
        .add(u64::from(packet.size >> SECTOR_SHIFT));
    device.resync.lock().moved(packet.size);
    request.local = Some(local);
    PeerIo(request).submit(device, BioFlags::NONE, buffer);
    Ok(())
}

/// Lets the application go first, if it uses the disk and the resync is fast enough.
pub(super) fn throttle(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let now_ns = monotonic_ns();
    let min_rate_kib = local.conf().c_min_rate;
    let left = local.bitmap.set_bits();
    let disk_sectors = local.backing.sectors_done();
    drop(local);
    let mut resync = device.resync.lock();
    let activity = Activity {
        disk_sectors,
        resync_sectors: resync.moved_sectors,
        activity_log_waiters: false,
        range_is_wanted: false,
        peer_is_primary: device.state().peer.is_primary(),
        application_requests: device.application_requests(),
        recent_rate_kib: resync.progress.recent_rate_kib(now_ns, left),
    };
    let wait = resync.throttle.must_wait(&activity, min_rate_kib);
    drop(resync);
    if wait {
        sleep_ms(THROTTLE_MS);
    }
    if activity.lets_pass(min_rate_kib) {
        let has_passed = || device.application_requests() == 0;
        device.waiters.wait_until_timeout(has_passed, COURTESY_MS);
    }
}
