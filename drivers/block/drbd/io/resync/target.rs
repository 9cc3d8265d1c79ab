// SPDX-License-Identifier: GPL-2.0

//! The target of a resync: asks for blocks and writes them.

use drbd_engine::{
    bitmap::Run,
    range::{
        Kind as RangeKind,
        Refusal, //
    },
    resync::{
        Deferred,
        DirtyBits,
        Limits,
        Next,
        Planner,
        Request,
        APPLICATION_MEMORY_NS, //
    },
    state::ConnState,
    types::{
        BitNr,
        BlockId,
        Sector,
        SECTOR_SHIFT, //
    },
    wire::{
        BlockDescriptor,
        Command,
        Data,
        Features, //
    },
};
use drbd_sys::{
    bio::Flags as BioFlags,
    log,
    page::Buffer,
    time::monotonic_ns, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    checksum,
    finish::end_waits,
    pace::pace_of,
    THROTTLE_MS, //
};
use crate::io::{
    bitmap::Bitmap,
    device::Device,
    erase::Way,
    peer_request::{
        Kind,
        PeerIo,
        PeerRequest, //
    },
    receiver::{
        usable_disk,
        ConnectionError, //
    },
    sender,
    worker::chore, //
};

/// When to look again for something to ask for.
pub(super) const TURN_MS: u32 = 10;

/// The target's plan, the worker's alone.
pub(crate) type Plan = Planner<KVVec<Deferred>>;

/// The bitmap as the planner sees it.
struct Dirty<'a>(&'a Bitmap);

impl DirtyBits for Dirty<'_> {
    fn next_run(&self, from: BitNr, max_bits: u32) -> Option<(BitNr, u32)> {
        let Run { first, bits } = self.0.view()?.next_run(from, u64::from(max_bits))?;
        Some((first, u32::try_from(bits).unwrap_or(max_bits)))
    }
}

/// Asks for as much as the controller grants.
pub(super) fn ask(device: &Arc<Device>) -> u32 {
    let Some(local) = device.local() else {
        return u32::MAX;
    };
    let mut plan = device.plan.lock();
    let Some(planner) = (*plan).as_mut() else {
        return u32::MAX;
    };
    planner.begin_turn();
    loop {
        let (granted, largest) = grant(device);
        if granted == 0 || device.state().conn != ConnState::SyncTarget {
            break;
        }
        planner.limit_requests(largest);
        match planner.next(&Dirty(&local.bitmap)) {
            Next::Request(request) => {
                if !ask_for(device, planner, &request) {
                    break;
                }
            }
            Next::Blocked => break,
            Next::Done => {
                drop(plan);
                check_end(device);
                return THROTTLE_MS;
            }
        }
    }
    TURN_MS
}

/// How many sectors may be asked for now, and bytes in one request.
pub(super) fn grant(device: &Arc<Device>) -> (u32, u32) {
    let max_buffers = device
        .resource
        .connection
        .config()
        .map_or(0, |config| config.net.max_buffers);
    let (pace, min_rate_kib) = device.local().map_or((None, 0), |local| {
        let conf = local.conf();
        (Some(pace_of(&conf)), conf.c_min_rate)
    });
    let now_ns = monotonic_ns();
    let mut resync = device.resync.lock();
    let limits = Limits {
        in_flight_sectors: resync.in_flight_sectors,
        max_buffers,
        beside_application: device.wrote_within(APPLICATION_MEMORY_NS, now_ns),
        min_rate_kib,
    };
    let Some(controller) = &mut resync.controller else {
        return (0, 0);
    };
    // The admin's or the peer's options may change at any time.
    if let Some(pace) = pace {
        controller.set_pace(pace);
    }
    let granted = controller.turn(&limits, now_ns);
    let largest = controller.largest_request(&limits);
    resync.wanted_kib = controller.aim_kib();
    (granted, largest)
}

/// Claims a range and asks for it, or puts it off; whether to go on.
fn ask_for(device: &Arc<Device>, planner: &mut Plan, request: &Request) -> bool {
    let claimed =
        device
            .ranges
            .lock()
            .try_insert(RangeKind::ResyncRequest, request.sector, request.size);
    let range = match claimed {
        Ok(range) => range,
        Err(Refusal::Conflict(_) | Refusal::Full) => return planner.defer(request),
        Err(Refusal::Malformed) => return false,
    };
    note_asked(device, request.sector, request.size);
    let range = if device.resync.lock().uses_checksums {
        match checksum::read(device, request, range) {
            Ok(()) => return true,
            Err(range) => range,
        }
    } else {
        range
    };
    let thin = request.is_thin
        && device
            .resource
            .connection
            .features()
            .contains(Features::THIN_RESYNC);
    let command = if thin {
        Command::RsThinRequest
    } else {
        Command::RsDataRequest
    };
    let sent = sender::ask_for_blocks(
        &device.resource,
        device,
        command,
        request.sector,
        request.size,
    );
    if sent.is_err() {
        device.ranges.lock().remove(range);
        device.counters.resync_pending.take();
    }
    sent.is_ok()
}

/// Blocks are about to be asked for.
pub(super) fn note_asked(device: &Device, sector: Sector, size_bytes: u32) {
    let sectors = size_bytes >> SECTOR_SHIFT;
    let now_ns = monotonic_ns();
    let mut resync = device.resync.lock();
    resync.in_flight_sectors = resync.in_flight_sectors.saturating_add(u64::from(sectors));
    if let Some(controller) = &mut resync.controller {
        controller.asked(sector, sectors, now_ns);
    }
    drop(resync);
    device.counters.resync_pending.up();
}

/// Every block was asked for: looks whether that was all.
fn check_end(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let set_bits = local.bitmap.set_bits();
    let resync = device.resync.lock();
    let idle = resync.in_flight_sectors == 0;
    let finished = resync.progress.is_finished(set_bits);
    drop(resync);
    if idle && finished {
        if !end_waits(device) {
            device.chore(chore::RESYNC_DONE);
        }
    } else if idle {
        // Bits were set behind the planner.
        if let Some(planner) = (*device.plan.lock()).as_mut() {
            planner.restart();
        }
    }
}

/// The source's answer: writes it. On the receiver.
pub(crate) fn receive_reply(
    device: &Arc<Device>,
    packet: Data,
    buffer: Buffer,
) -> Result<(), ConnectionError> {
    let size_bytes = buffer.len_bytes();
    let mut request = claim_reply(device, Kind::ResyncWrite, packet.sector, size_bytes)?;
    let Some(local) = usable_disk(device) else {
        let _ = device.resource.send_ack(
            device,
            Command::NegAck,
            packet.sector,
            size_bytes,
            packet.block_id,
        );
        forget_asked(device, packet.sector, size_bytes);
        device.resource.connection.free_request(request);
        return Ok(());
    };
    device.counters.unacked.up();
    device
        .counters
        .received
        .add(u64::from(size_bytes >> SECTOR_SHIFT));
    device
        .counters
        .written
        .add(u64::from(size_bytes >> SECTOR_SHIFT));
    device.resync.lock().moved(size_bytes);
    request.local = Some(local);
    PeerIo(request).submit(device, BioFlags::NONE, buffer);
    Ok(())
}

/// The source has only zeroes there: zeroes the range. On the receiver.
pub(crate) fn receive_deallocated(
    device: &Arc<Device>,
    packet: BlockDescriptor,
) -> Result<(), ConnectionError> {
    let mut request = claim_reply(device, Kind::ResyncDiscard, packet.sector, packet.size)?;
    let Some(local) = usable_disk(device) else {
        // What cannot be sent has cost the connection.
        let _ = device.resource.send_ack(
            device,
            Command::NegAck,
            packet.sector,
            packet.size,
            BlockId::SYNCER,
        );
        forget_asked(device, packet.sector, packet.size);
        device.resource.connection.free_request(request);
        return Ok(());
    };
    device.counters.unacked.up();
    device.resync.lock().moved(packet.size);
    request.local = Some(local);
    // Zeroes must be read back: a plain discard does not promise that.
    PeerIo(request).erase(device, Way::Zero { unmap: true });
    Ok(())
}

/// Finds the range that was asked for, and makes it a write, waiting for writes that came before.
pub(super) fn claim_reply(
    device: &Arc<Device>,
    kind: Kind,
    sector: Sector,
    size_bytes: u32,
) -> Result<KBox<PeerRequest>, ConnectionError> {
    let connection = &device.resource.connection;
    let found = device
        .ranges
        .lock()
        .find(RangeKind::ResyncRequest, sector, size_bytes);
    let Some(range) = found else {
        log!(
            Error,
            device,
            "unexpected resync data at sector {}+{}",
            sector,
            size_bytes >> SECTOR_SHIFT
        );
        return Err(ConnectionError);
    };
    device.counters.resync_pending.take();
    let mut promoted = Err(None);
    connection.receiver_wait.wait_until(|| {
        promoted = device.ranges.lock().promote(range);
        // It is void where the peer took it back on the other socket.
        matches!(promoted, Ok(()) | Err(None)) || connection.is_interrupted()
    });
    if promoted.is_err() {
        return Err(ConnectionError);
    }
    let Some(mut request) = connection.take_request(device, kind, sector, size_bytes) else {
        // It is no request any more, and so nobody else would let go of it.
        if device.ranges.lock().remove(range) {
            device.ranges_changed();
        }
        return Err(ConnectionError);
    };
    request.block_id = BlockId::SYNCER;
    request.range = Some(range);
    Ok(request)
}

/// A resync write is on disk: settles the bitmap and queues its ack. On the asender.
pub(crate) fn finish_write(device: &Arc<Device>, request: KBox<PeerRequest>) {
    let resource = &device.resource;
    let (sector, size_bytes) = (request.sector, request.size_bytes);
    let command = if request.result.is_ok() {
        if let Some(local) = request.disk(device) {
            local.bitmap.set_in_sync(sector, size_bytes);
        }
        Command::RsWriteAck
    } else {
        device.resync.lock().fail(size_bytes);
        Command::NegAck
    };
    let _ = resource.queue_ack(device, command, sector, size_bytes, BlockId::SYNCER);
    device.counters.unacked.down();
    resource.connection.free_request(request);
    forget_asked(device, sector, size_bytes);
}

/// The source has the same: the blocks are in sync, unless a write came in between, about which the
/// source's answer says nothing. Whether it was asked. On the asender.
pub(super) fn is_in_sync(device: &Arc<Device>, sector: Sector, size_bytes: u32) -> bool {
    let is_believed = {
        let ranges = device.ranges.lock();
        let found = ranges.find(RangeKind::ResyncRequest, sector, size_bytes);
        found.is_some_and(|range| !ranges.is_overtaken(range))
    };
    if is_believed {
        if let Some(local) = usable_disk(device) {
            local.bitmap.set_in_sync(sector, size_bytes);
        }
        device.resync.lock().is_same(size_bytes);
    }
    release_asked(device, sector, size_bytes)
}

/// The answer to what was asked for is that there is no data to come. Whether it was asked for.
pub(super) fn release_asked(device: &Arc<Device>, sector: Sector, size_bytes: u32) -> bool {
    let mut ranges = device.ranges.lock();
    let found = ranges.find(RangeKind::ResyncRequest, sector, size_bytes);
    let awaited = found.is_some_and(|range| ranges.remove(range));
    drop(ranges);
    if found.is_some() {
        forget_asked(device, sector, size_bytes);
    }
    if awaited {
        device.ranges_changed();
    }
    found.is_some()
}

/// What was asked for is on disk, or not to come.
pub(super) fn forget_asked(device: &Arc<Device>, sector: Sector, size_bytes: u32) {
    let sectors = size_bytes >> SECTOR_SHIFT;
    let now_ns = monotonic_ns();
    let mut resync = device.resync.lock();
    resync.in_flight_sectors = resync.in_flight_sectors.saturating_sub(u64::from(sectors));
    if let Some(controller) = &mut resync.controller {
        controller.arrived(sector, sectors, now_ns);
    }
    drop(resync);
    device.chore(chore::RESYNC_TURN);
}
