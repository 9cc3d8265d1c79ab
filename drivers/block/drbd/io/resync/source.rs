// SPDX-License-Identifier: GPL-2.0

//! The source of a resync: reads what the target asks for.

use drbd_engine::{
    range::Refusal,
    resync::{
        Activity,
        PutAside,
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
    page::Buffer,
    time::{
        monotonic_ns,
        sleep_ms, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    target::TURN_MS,
    THROTTLE_MS, //
};
use crate::io::{
    checksums::Digest,
    device::Device,
    limits::ASIDE_MAX,
    peer_request::{
        Kind,
        PeerIo,
        PeerRequest, //
    },
    receiver::{
        usable_disk,
        ConnectionError, //
    },
    resource::Resource,
    sender,
    worker::chore, //
};

/// The target asks for blocks, or a verify for their digest: reads them, or puts the request aside
/// while they are in use. On the receiver, which must not wait for writes of this node: they end
/// with the peer's acks, and its receiver may wait for ours.
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
    let has_room = || connection.aside.len() < ASIDE_MAX;
    connection
        .receiver_wait
        .wait_until(|| has_room() || connection.is_interrupted());
    let taken = connection.take_request(device, kind, packet.sector, packet.size);
    let mut request = taken.ok_or(ConnectionError)?;
    request.block_id = packet.block_id;
    if digest.is_some() {
        device.resync.lock().uses_checksums = true;
    }
    request.digest = digest;
    device.counters.unacked.up();
    match claim(device, &mut request) {
        Ok(true) => {}
        Ok(false) => {
            put_aside(resource, request);
            // What was in the way may be gone by now.
            device.chore(chore::RESYNC_TURN);
            return Ok(());
        }
        Err(_) => {
            sender::finish_answer(resource, request);
            return Err(ConnectionError);
        }
    }
    let size = usize::try_from(packet.size).unwrap_or(0);
    let Ok(buffer) = connection.account.alloc(&connection.pages, size) else {
        sender::finish_answer(resource, request);
        return Err(ConnectionError);
    };
    read(device, request, buffer);
    Ok(())
}

/// Claims the range of what was asked for; whether nothing is in the way.
fn claim(device: &Device, request: &mut PeerRequest) -> Result<bool, Refusal> {
    let (sector, size_bytes) = (request.sector, request.size_bytes);
    let mut ranges = device.ranges.lock();
    ranges.claim_read(&mut request.range, sector, size_bytes)
}

fn put_aside(resource: &Resource, request: KBox<PeerRequest>) {
    if let Err(request) = resource.connection.aside.push(request) {
        pr_err!("drbd: more peer requests are put aside than there are\n");
        sender::finish_answer(resource, request);
    }
}

/// Reads what was asked for, and is claimed.
fn read(device: &Arc<Device>, mut request: KBox<PeerRequest>, buffer: Buffer) {
    let Some(local) = usable_disk(device) else {
        // It went while the range was in use.
        return answer_without(device, request, Command::NegRsDReply);
    };
    let size_bytes = request.size_bytes;
    device
        .counters
        .read
        .add(u64::from(size_bytes >> SECTOR_SHIFT));
    device.resync.lock().moved(size_bytes);
    request.local = Some(local);
    PeerIo(request).submit(device, BioFlags::NONE, buffer);
}

/// Says that no data are to come.
fn answer_without(device: &Device, request: KBox<PeerRequest>, command: Command) {
    let resource = &device.resource;
    // What cannot be sent has cost the connection.
    let _ = resource.send_ack(
        device,
        command,
        request.sector,
        request.size_bytes,
        request.block_id,
    );
    sender::finish_answer(resource, request);
}

/// Tries what was put aside again; returns when to look again, in milliseconds. On the worker.
pub(crate) fn retry_aside(resource: &Resource) -> u32 {
    let connection = &resource.connection;
    let count = connection.aside.len();
    if count == 0 {
        return u32::MAX;
    }
    for _ in 0..count {
        let Some(request) = connection.aside.pop() else {
            break;
        };
        retry(resource, request);
    }
    // The receiver may wait for room.
    connection.receiver_wait.wake_all();
    if connection.aside.is_empty() {
        u32::MAX
    } else {
        TURN_MS
    }
}

fn retry(resource: &Resource, mut request: KBox<PeerRequest>) {
    let Some(device) = request.device.clone() else {
        return sender::finish_answer(resource, request);
    };
    let connection = &resource.connection;
    let (conn, apv) = (device.state().conn, connection.version().number());
    match PutAside::of(
        conn,
        device.serves_reads(),
        apv,
        connection.is_interrupted(),
    ) {
        PutAside::Retry => {}
        PutAside::Cancel => return answer_without(&device, request, Command::RsCancel),
        PutAside::Refuse => return answer_without(&device, request, Command::NegRsDReply),
        PutAside::Forget => return sender::finish_answer(resource, request),
    }
    if claim(&device, &mut request) != Ok(true) {
        return put_aside(resource, request);
    }
    let size = usize::try_from(request.size_bytes).unwrap_or(0);
    // The worker must not wait for memory that it frees itself.
    match connection.account.try_alloc(&connection.pages, size) {
        Ok(buffer) => read(&device, request, buffer),
        Err(_) => put_aside(resource, request),
    }
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
