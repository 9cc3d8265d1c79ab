// SPDX-License-Identifier: GPL-2.0

//! Checksum-based resync: the target sends the digest of what it has, and gets the data only where
//! the source has others (Spec §1.20).

use drbd_engine::{
    range::Handle,
    resync::{
        ChecksumFacts,
        EqualChecksums,
        Progress,
        Request, //
    },
    types::{
        BlockId,
        BIT_SIZE,
        SECTOR_SHIFT, //
    },
    wire::{
        BlockRequest,
        Command, //
    },
};
use drbd_sys::{
    bio::{
        Flags as BioFlags,
        Operation, //
    },
    log, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::Resync;
use crate::io::{
    checksums::Purpose,
    device::{
        flag,
        Device, //
    },
    peer_request::{
        Kind,
        PeerIo,
        PeerRequest, //
    },
    resource::Resource,
    sender, //
};

/// Whether a resync with this node as its target asks by checksum.
pub(super) fn is_wanted(device: &Device) -> bool {
    let connection = &device.resource.connection;
    let Some(config) = connection.config() else {
        return false;
    };
    let facts = ChecksumFacts {
        apv: connection.version().number(),
        has_algorithm: !config.net.csums_alg.is_empty(),
        after_crash_only: config.net.csums_after_crash_only,
        crashed_primary: device.flags.any(flag::CRASHED_PRIMARY),
    };
    facts.uses_checksums()
}

/// Reads what this node has of blocks that it has claimed and is to ask for. Gives the range back
/// where memory is short now: then they are asked for as they are. On the worker, which must not
/// wait for memory that it frees itself.
pub(super) fn read(device: &Arc<Device>, asked: &Request, range: Handle) -> Result<(), Handle> {
    let connection = &device.resource.connection;
    let Some(local) = device.local() else {
        return Err(range);
    };
    let kind = Kind::ChecksumRead;
    let Some(mut request) = connection.try_take_request(device, kind, asked.sector, asked.size)
    else {
        return Err(range);
    };
    let size = usize::try_from(asked.size).unwrap_or(0);
    let Ok(buffer) = connection.account.try_alloc(&connection.pages, size) else {
        connection.free_request(request);
        return Err(range);
    };
    let sectors = u64::from(asked.size >> SECTOR_SHIFT);
    device.counters.unacked.up();
    device.counters.read.add(sectors);
    device.resync.lock().moved(asked.size);
    request.block_id = BlockId::SYNCER;
    request.range = Some(range);
    let backing = local.backing.clone();
    request.local = Some(local);
    let io = PeerIo(request);
    backing.submit_buffer(Operation::Read, BioFlags::NONE, asked.sector.0, buffer, io);
    Ok(())
}

/// The blocks were read: asks for them, by their digest if there is one. On the worker.
pub(crate) fn ask(resource: &Resource, device: &Arc<Device>, mut request: KBox<PeerRequest>) {
    let digest = match (&request.buffer, request.result) {
        (Some(buffer), Ok(())) => resource
            .connection
            .digest_of(Purpose::Resync, buffer.segments()),
        _ => Err(EIO),
    };
    // The range stays claimed until the answer is there.
    let range = request.range.take();
    let packet = BlockRequest {
        sector: request.sector,
        block_id: request.block_id,
        size: request.size_bytes,
    };
    sender::finish_answer(resource, request);
    let sent = match &digest {
        Ok(digest) => {
            let command = Command::CsumRsRequest;
            sender::send_digest(resource, device, command, &packet, digest.as_bytes())
        }
        Err(_) => {
            let command = Command::RsDataRequest;
            let asked =
                sender::ask_for_blocks(resource, device, command, packet.sector, packet.size);
            resource.push_data();
            asked
        }
    };
    if sent.is_err() {
        if let Some(range) = range {
            device.ranges.lock().remove(range);
        }
        device.counters.resync_pending.take();
    }
}

/// Whether blocks that were read here are those of which the target sent the digest; then they are
/// in sync. On the worker of the source.
pub(crate) fn is_equal(resource: &Resource, device: &Arc<Device>, request: &PeerRequest) -> bool {
    let (Some(buffer), Ok(()), Some(digest)) = (&request.buffer, request.result, &request.digest)
    else {
        return false;
    };
    let computed = resource
        .connection
        .digest_of(Purpose::Resync, buffer.segments());
    if !computed.is_ok_and(|computed| digest.is(&computed)) {
        return false;
    }
    // A write that failed here may have come there since the digest was made.
    if device.flags.any(flag::RESYNC_DOUBTED) || !device.state().conn.is_resync_source() {
        return false;
    }
    if let Some(local) = request.disk(device) {
        local.bitmap.set_in_sync(request.sector, request.size_bytes);
    }
    device.resync.lock().is_same(request.size_bytes);
    true
}

/// Tells what checksums saved.
pub(super) fn log_saved(device: &Device, progress: &Progress) {
    let saved = EqualChecksums {
        total_bits: progress.total_bits(),
        equal_bits: progress.same_checksum_bits(),
    };
    log!(Info, device, "{}", saved);
}

impl Resync {
    /// Blocks were equal by their checksum.
    pub(super) fn is_same(&mut self, size_bytes: u32) {
        self.progress.same_checksum(size_bytes / BIT_SIZE);
    }
}
