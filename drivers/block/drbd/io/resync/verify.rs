// SPDX-License-Identifier: GPL-2.0

//! Online verify: one side asks for digests of blocks and compares, the other reads and answers
//! (Spec §1.21). Nothing is repaired; blocks that differ are marked out of sync on both sides.
//!
//! The range of a block is claimed on both sides from before it is read until it is compared, so
//! that what differs differs on disk, and not because a write is under way.

use drbd_engine::{
    range::{
        Kind as RangeKind,
        Refusal, //
    },
    resync::{
        Activity,
        Controller,
        Differing,
        Progress,
        Request,
        Throttle,
        Verify, //
    },
    state::ConnState,
    types::{
        Sector,
        SECTOR_SHIFT, //
    },
    wire::{
        BlockAck,
        BlockRequest,
        Command,
        VerifyResult, //
    },
};
use drbd_sys::{
    bio::{
        Flags as BioFlags,
        Operation, //
    },
    log,
    time::monotonic_ns, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    pace::pace_of,
    target::{
        claim_reply,
        forget_asked,
        grant,
        note_asked,
        TURN_MS, //
    },
    THROTTLE_MS,
};
use crate::io::{
    checksums::{
        Digest,
        Purpose,
        DIGEST_BYTES, //
    },
    device::Device,
    peer_request::{
        Kind,
        PeerIo,
        PeerRequest, //
    },
    receiver::ConnectionError,
    resource::Resource,
    sender,
    worker::chore, //
};

/// The state became VerifyS or VerifyT. Does not sleep.
pub(crate) fn begin(device: &Arc<Device>, conn: ConnState) {
    let Some(local) = device.local() else { return };
    let pace = pace_of(&local.conf());
    let disk_sectors = local.backing.sectors_done();
    let capacity = Sector(device.capacity());
    let apv = device.resource.connection.version().number();
    let now_ns = monotonic_ns();
    let mut resync = device.resync.lock();
    let verify = if conn == ConnState::VerifyS {
        Verify::drive(resync.verify_wanted, capacity, apv)
    } else {
        Verify::follow(capacity)
    };
    let start = verify.position(capacity).first_sector();
    resync.progress = Progress::start(now_ns, verify.total_bits());
    resync.verify = Some(verify);
    resync.controller = Some(Controller::new(pace, now_ns));
    resync.in_flight_sectors = 0;
    resync.last_lazy_write_ns = now_ns;
    resync.done = false;
    resync.throttle = Throttle::new(&Activity {
        disk_sectors,
        resync_sectors: resync.moved_sectors,
        ..Activity::default()
    });
    drop(resync);
    if conn == ConnState::VerifyS {
        log!(Info, device, "Starting Online Verify from sector {}", start);
        device.chore(chore::RESYNC_TURN);
    }
}

/// The state is neither VerifyS nor VerifyT any more: remembers how far it got. Does not sleep.
pub(crate) fn remember_end(device: &Device) {
    let capacity = Sector(device.capacity());
    let mut resync = device.resync.lock();
    let Some(verify) = resync.verify.take() else {
        return;
    };
    let reached = verify.resume_at(capacity);
    resync.verify_start = reached;
    drop(resync);
    if verify.left_bits() > 0 {
        log!(Info, device, "Online Verify reached sector {}", reached);
    }
}

/// Asks for as many digests as the controller grants; returns when to come again, in milliseconds.
/// On the worker.
pub(super) fn ask(device: &Arc<Device>) -> u32 {
    loop {
        if grant(device).0 == 0 || device.state().conn != ConnState::VerifyS {
            return TURN_MS;
        }
        let next = {
            let resync = device.resync.lock();
            resync
                .verify
                .map(|verify| (verify.peek(), verify.is_over()))
        };
        match next {
            Some((Some(request), _)) => {
                if !ask_for(device, &request) {
                    return TURN_MS;
                }
            }
            Some((None, true)) => {
                device.chore(chore::RESYNC_DONE);
                return THROTTLE_MS;
            }
            _ => return THROTTLE_MS,
        }
    }
}

/// Claims a block and asks for its digest; whether to go on. A block in use is waited for.
fn ask_for(device: &Arc<Device>, request: &Request) -> bool {
    let (sector, size) = (request.sector, request.size);
    let claimed = device
        .ranges
        .lock()
        .try_insert(RangeKind::ResyncRequest, sector, size);
    let range = match claimed {
        Ok(range) => range,
        Err(Refusal::Conflict(_) | Refusal::Full | Refusal::Malformed) => return false,
    };
    if let Some(verify) = &mut device.resync.lock().verify {
        verify.asked();
    }
    note_asked(device, sector, size);
    let sent = sender::ask_for_blocks(&device.resource, device, Command::OvRequest, sector, size);
    if sent.is_err() {
        device.ranges.lock().remove(range);
        device.counters.resync_pending.take();
    }
    sent.is_ok()
}

/// P_OV_REQUEST was accepted: where it starts is news to the side that answers.
pub(crate) fn note_request(device: &Device, sector: Sector) {
    let apv = device.resource.connection.version().number();
    let now_ns = monotonic_ns();
    let mut resync = device.resync.lock();
    let Some(verify) = &mut resync.verify else {
        return;
    };
    if !verify.requested(sector, apv) {
        return;
    }
    let total_bits = verify.total_bits();
    resync.progress = Progress::start(now_ns, total_bits);
    drop(resync);
    log!(Info, device, "Online Verify start sector: {}", sector);
}

/// A block was read for the peer: sends its digest, one of zeroes where it could not be read. On
/// the worker.
pub(crate) fn answer(resource: &Resource, device: &Arc<Device>, request: &PeerRequest) {
    let connection = &resource.connection;
    let packet = BlockRequest {
        sector: request.sector,
        block_id: request.block_id,
        size: request.size_bytes,
    };
    let digest = match (&request.buffer, request.result) {
        (Some(buffer), Ok(())) => connection
            .digest_of(Purpose::Verify, buffer.segments())
            .ok(),
        _ => None,
    };
    let zeroes = [0; DIGEST_BYTES];
    let digest = match &digest {
        Some(digest) => Ok(digest.as_bytes()),
        None => connection
            .digest_bytes(Purpose::Verify)
            .map(|len| zeroes.get(..len).unwrap_or(&zeroes)),
    };
    // What cannot be sent has cost the connection.
    let _ = match digest {
        Ok(digest) => {
            device.counters.resync_pending.up();
            sender::send_digest(resource, device, Command::OvReply, &packet, digest)
        }
        Err(_) => resource.send_ack(
            device,
            Command::NegRsDReply,
            request.sector,
            request.size_bytes,
            request.block_id,
        ),
    };
}

/// P_OV_REPLY: reads the block here. On the receiver, which waits for writes that came before.
pub(crate) fn receive_reply(
    device: &Arc<Device>,
    packet: BlockRequest,
    digest: Digest,
) -> Result<(), ConnectionError> {
    let connection = &device.resource.connection;
    let (sector, size_bytes) = (packet.sector, packet.size);
    let mut request = claim_reply(device, Kind::VerifyCompare, sector, size_bytes)?;
    request.block_id = packet.block_id;
    let Some(local) = device.local() else {
        connection.free_request(request);
        tell(device, sector, size_bytes, VerifyResult::InSync);
        settle(device, sector, size_bytes, None);
        return Ok(());
    };
    let size = usize::try_from(size_bytes).unwrap_or(0);
    let buffer = connection.account.alloc(&connection.pages, size);
    let (Ok(buffer), Ok(digest)) = (buffer, digest.boxed()) else {
        connection.free_request(request);
        return Err(ConnectionError);
    };
    let sectors = u64::from(size_bytes >> SECTOR_SHIFT);
    device.counters.unacked.up();
    device.counters.read.add(sectors);
    device.resync.lock().moved(size_bytes);
    let backing = local.backing.clone();
    request.digest = Some(digest);
    request.local = Some(local);
    let io = PeerIo(request);
    backing.submit_buffer(Operation::Read, BioFlags::NONE, sector.0, buffer, io);
    Ok(())
}

/// The block was read here: compares, and tells the peer. On the worker.
pub(crate) fn compare(resource: &Resource, device: &Arc<Device>, request: KBox<PeerRequest>) {
    let (sector, size_bytes) = (request.sector, request.size_bytes);
    let computed = match (&request.buffer, request.result) {
        (Some(buffer), Ok(())) => resource
            .connection
            .digest_of(Purpose::Verify, buffer.segments()),
        _ => Err(EIO),
    };
    let is_equal = match (&computed, &request.digest) {
        (Ok(computed), Some(digest)) => digest.is(computed),
        // What cannot be read is not known to be the same.
        _ => false,
    };
    let result = if is_equal {
        VerifyResult::InSync
    } else {
        if let Some(local) = device.local() {
            local.bitmap.set_out_of_sync(sector, size_bytes);
        }
        VerifyResult::OutOfSync
    };
    sender::finish_answer(resource, request);
    tell(device, sector, size_bytes, result);
    settle(device, sector, size_bytes, Some(result));
}

fn tell(device: &Device, sector: Sector, size_bytes: u32, result: VerifyResult) {
    let id = result.block_id();
    // What cannot be sent has cost the connection.
    let _ = device
        .resource
        .send_ack(device, Command::OvResult, sector, size_bytes, id);
}

/// The peer cannot read the block, which nobody claims any more. On the asender.
pub(super) fn refused(device: &Arc<Device>, ack: &BlockAck) {
    count(device, ack.sector, ack.size, None);
}

/// P_OV_RESULT: how the peer's comparison ended; whether one was awaited. On the asender.
pub(crate) fn receive_result(device: &Arc<Device>, ack: &BlockAck) -> bool {
    if !device.counters.resync_pending.take() {
        return false;
    }
    let result = VerifyResult::from_block_id(ack.block_id);
    if result == VerifyResult::OutOfSync {
        if let Some(local) = device.local() {
            local.bitmap.set_out_of_sync(ack.sector, ack.size);
        }
    }
    count(device, ack.sector, ack.size, Some(result));
    true
}

fn settle(device: &Arc<Device>, sector: Sector, size_bytes: u32, result: Option<VerifyResult>) {
    forget_asked(device, sector, size_bytes);
    count(device, sector, size_bytes, result);
}

fn count(device: &Arc<Device>, sector: Sector, size_bytes: u32, result: Option<VerifyResult>) {
    let mut resync = device.resync.lock();
    let Some(verify) = &mut resync.verify else {
        return;
    };
    let settled = verify.answered(sector, size_bytes, result);
    drop(resync);
    if let Some(differing) = settled.report {
        report(device, differing);
    }
    if settled.is_done {
        device.chore(chore::RESYNC_DONE);
    }
}

/// Tells of blocks that differ and were not told of yet.
pub(super) fn report_rest(device: &Device) {
    let rest = {
        let mut resync = device.resync.lock();
        resync.verify.as_mut().and_then(Verify::take_report)
    };
    if let Some(differing) = rest {
        report(device, differing);
    }
}

fn report(device: &Device, differing: Differing) {
    log!(
        Error,
        device,
        "Out of sync: start={}, size={} (sectors)",
        differing.start,
        differing.sectors
    );
}
