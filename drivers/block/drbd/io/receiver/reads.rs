// SPDX-License-Identifier: GPL-2.0

//! The peer's reads and its answers to ours; what belongs to a resync is handed on (Spec §1.19,
//! §1.20).

use drbd_engine::{
    range::{
        Kind as RangeKind,
        Refusal, //
    },
    request::Event,
    state::{
        ConnState, //
    },
    types::{
        Sector,
        SECTOR_SHIFT, //
    },
    wire::{
        BlockDescriptor,
        BlockRequest,
        Command,
        Data,
        RequestKind,
        SyncUuid, //
    },
};
use drbd_sys::{
    bio::{
        Flags,
        MasterHold,
        Operation, //
    },
    log, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    ConnectionError,
    Receiver, //
};
use crate::io::{
    device::Device,
    peer_request::{
        Kind,
        PeerIo, //
    },
    request::Request,
    resync, //
};

impl Receiver {
    /// P_DATA_REQUEST: reads for the peer's application. The worker answers.
    pub(super) fn data_request(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = self.decoded(BlockRequest::decode(payload))?;
        self.check(device, packet.sector, packet.size, RequestKind::Data)?;
        let Some(local) = device.local().filter(|_| device.serves_reads()) else {
            if self.resource.connection.refusals.allows() {
                log!(
                    Error,
                    device,
                    "Can not satisfy peer's read request, no local data."
                );
            }
            return self.refuse_read(device, Command::NegDReply, &packet);
        };
        let connection = &self.resource.connection;
        let taken = connection.take_request(device, Kind::Read, packet.sector, packet.size);
        let mut request = taken.ok_or(ConnectionError)?;
        request.block_id = packet.block_id;
        let size = usize::try_from(packet.size).map_err(|_| ConnectionError)?;
        let Ok(buffer) = connection.account.alloc(&connection.pages, size) else {
            connection.free_request(request);
            return Err(ConnectionError);
        };
        device.counters.unacked.up();
        device
            .counters
            .read
            .add(u64::from(packet.size >> SECTOR_SHIFT));
        request.local = Some(local);
        PeerIo(request).submit(device, Flags::NONE, buffer);
        Ok(())
    }

    /// Tells the peer that it has to do without.
    fn refuse_read(
        &self,
        device: &Device,
        command: Command,
        packet: &BlockRequest,
    ) -> Result<(), ConnectionError> {
        let BlockRequest {
            sector,
            block_id,
            size,
        } = *packet;
        let sent = self
            .resource
            .send_ack(device, command, sector, size, block_id);
        sent.map_err(|_| ConnectionError)
    }

    /// P_RS_DATA_REQUEST and P_RS_THIN_REQ.
    pub(super) fn resync_request(
        &mut self,
        device: &Arc<Device>,
        command: Command,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = self.decoded(BlockRequest::decode(payload))?;
        self.check(device, packet.sector, packet.size, RequestKind::Data)?;
        let thin = command == Command::RsThinRequest;
        resync::receive_request(device, Kind::ResyncRead { thin }, packet, None)
    }

    /// P_DATA_REPLY: the data of one of our reads, which goes straight to the application.
    pub(super) fn data_reply(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
        rest: u32,
    ) -> Result<(), ConnectionError> {
        let data = self.decoded(Data::decode(payload))?;
        let Some(size) = rest.checked_sub(self.digest_bytes()) else {
            return Err(self.refuse("DataReply packet without its digest"));
        };
        let found = self
            .resource
            .connection
            .log
            .lock()
            .lookup(data.block_id, data.sector, size);
        let request = found
            .ok()
            .and_then(|index| self.resource.requests.get(index))
            .cloned();
        let Some(request) = request.filter(|request| is_read_of(request, device)) else {
            log!(
                Error,
                device,
                "DataReply: failed to find request 0x{:x}, sector {}s",
                data.block_id.0,
                data.sector
            );
            return Err(ConnectionError);
        };
        let digest = self.read_digest()?;
        let hold = request.with(|parts| parts.master.as_ref().map(|master| master.hold()));
        let Some(mut hold) = hold.flatten() else {
            log!(
                Error,
                device,
                "DataReply: request 0x{:x} has its answer",
                data.block_id.0
            );
            return Err(ConnectionError);
        };
        if let Err(error) = self.reader.read_segments(hold.segments_mut()) {
            return Err(self.lost(error));
        }
        self.verify(device, data.sector, &digest, hold.segments())?;
        drop::<MasterHold>(hold);
        device
            .counters
            .received
            .add(u64::from(size >> SECTOR_SHIFT));
        self.answered(device, &request, data.sector)
    }

    fn answered(
        &self,
        device: &Device,
        request: &Request,
        sector: Sector,
    ) -> Result<(), ConnectionError> {
        if request.happens(Event::DataReceived) {
            return Ok(());
        }
        log!(
            Error,
            device,
            "DataReply for sector {}s is out of place",
            sector
        );
        Err(ConnectionError)
    }

    /// P_RS_DATA_REPLY.
    pub(super) fn resync_data_reply(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
        rest: u32,
    ) -> Result<(), ConnectionError> {
        let data = self.decoded(Data::decode(payload))?;
        let Some(size) = rest.checked_sub(self.digest_bytes()) else {
            return Err(self.refuse("RSDataReply packet without its digest"));
        };
        self.check(device, data.sector, size, RequestKind::Data)?;
        let buffer = self.read_data(device, data.sector, size)?;
        resync::receive_reply(device, data, buffer)
    }

    /// P_RS_DEALLOCATED.
    pub(super) fn deallocated(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = self.decoded(BlockDescriptor::decode(payload))?;
        self.check(device, packet.sector, packet.size, RequestKind::Data)?;
        resync::receive_deallocated(device, packet)
    }

    /// P_OUT_OF_SYNC: blocks that the peer wrote and did not send.
    pub(super) fn out_of_sync(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = self.decoded(BlockDescriptor::decode(payload))?;
        self.check(
            device,
            packet.sector,
            packet.size,
            RequestKind::Discard(self.features),
        )?;
        let conn = device.state().conn;
        let expected = [
            ConnState::WFSyncUUID,
            ConnState::WFBitMapT,
            ConnState::Behind,
        ];
        if !expected.contains(&conn) && self.resource.connection.refusals.allows() {
            log!(
                Error,
                device,
                "ASSERT FAILED cstate = {}, expected: WFSyncUUID|WFBitMapT|Behind",
                conn.name()
            );
        }
        // What the peer replied before, when a resync was given up since, lacks this write and is
        // in sync when it is on disk; what is still asked for may have it or not.
        let ranges = || device.ranges.lock();
        let mut claimed = Err(Refusal::Full);
        let connection = &self.resource.connection;
        connection.receiver_wait.wait_until(|| {
            claimed = ranges().try_insert(RangeKind::PeerWrite, packet.sector, packet.size);
            matches!(claimed, Ok(_) | Err(Refusal::Malformed)) || connection.is_interrupted()
        });
        if let Some(local) = device.local() {
            local.bitmap.set_out_of_sync(packet.sector, packet.size);
        }
        let waited_for = claimed.is_ok_and(|range| ranges().remove(range));
        if waited_for {
            device.ranges_changed();
        }
        Ok(())
    }

    /// P_SYNC_UUID.
    pub(super) fn sync_uuid(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = self.decoded(SyncUuid::decode(payload))?;
        resync::receive_sync_uuid(device, packet)
    }
}

/// Whether a request is a read of this device, whose pages an answer may fill.
fn is_read_of(request: &Request, device: &Arc<Device>) -> bool {
    let is_read = request
        .with(|parts| parts.operation == Operation::Read && Arc::ptr_eq(&parts.device, device));
    is_read.unwrap_or(false)
}
