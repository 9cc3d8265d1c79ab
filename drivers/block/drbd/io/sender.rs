// SPDX-License-Identifier: GPL-2.0

//! Sending: one packet at a time on each socket, and the transfer log in its order.

use drbd_engine::{
    config::Protocol,
    request::{
        Event,
        RequestState, //
    },
    state::ConnState,
    timer::{
        KoCount,
        SendVerdict, //
    },
    transfer_log::{
        Barrier as LogBarrier,
        Index,
        Part, //
    },
    types::{
        BlockId,
        Sector,
        VolumeNr, //
    },
    wire::{
        header,
        Barrier,
        BarrierCookie,
        BlockAck,
        BlockDescriptor,
        BlockRequest,
        Command,
        Data,
        DataFlags,
        Trim, //
    },
};
use drbd_sys::{
    bio::{
        Flags,
        MasterHold,
        Operation, //
    },
    hash::Hash,
    log,
    page::Segments,
    socket::{
        SendError,
        SendOptions,
        Sender,
        Stall, //
    },
    time::monotonic_ns, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    connection::flag,
    device::Device,
    peer_request::{
        Kind,
        PeerRequest, //
    },
    request::Request,
    resource::Resource,
    resync::{
        checksum,
        verify, //
    },
};

/// The largest fixed part of a packet that is sent from a buffer: a bitmap packet.
const PACKET_BYTES: usize = 4096;

/// The sending end of the data socket.
pub(crate) struct DataChannel {
    sender: Sender,
    /// Digests of what is sent, if data integrity is on.
    pub(crate) integrity: Option<Hash>,
    /// Where a packet's header and fixed part are put together.
    scratch: KBox<[u8; PACKET_BYTES]>,
}

impl DataChannel {
    /// Makes the sending end. May sleep.
    pub(crate) fn new(sender: Sender) -> Result<Self> {
        Ok(Self {
            sender,
            integrity: None,
            scratch: KBox::new([0; PACKET_BYTES], GFP_KERNEL)?,
        })
    }
}

/// The sending end of the meta socket.
pub(crate) struct MetaChannel {
    sender: Sender,
}

impl MetaChannel {
    /// Makes the sending end.
    pub(crate) fn new(sender: Sender) -> Self {
        Self { sender }
    }
}

/// A packet could not be sent: there is no connection (any more). What follows from that has been
/// set in motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSent;

/// What follows the fixed part of a packet.
enum Body<'a> {
    Nothing,
    /// Pages that may be reused as soon as this returns.
    Copied(Segments<'a>),
    /// Pages that stay as they are until the peer has answered.
    Lent(Segments<'a>),
}

impl Resource {
    /// Sends a packet that consists of a fixed part only, on the data socket. May sleep.
    pub(crate) fn send_data(
        &self,
        volume: VolumeNr,
        command: Command,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        self.send_on_data(volume, command, Body::Nothing, |_, out| copy(out, payload))
    }

    /// Sends a packet on the meta socket. May sleep.
    pub(crate) fn send_meta(
        &self,
        volume: VolumeNr,
        command: Command,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        let mut packet = [0u8; 64];
        let used = self
            .put_header(volume, command, payload.len(), &mut packet)
            .ok_or(NotSent)?;
        let rest = packet.get_mut(used..).ok_or(NotSent)?;
        let total = copy(rest, payload)
            .and_then(|len| used.checked_add(len))
            .ok_or(NotSent)?;
        let packet = packet.get(..total).ok_or(NotSent)?;
        let mut meta = self.connection.meta.lock();
        let channel = (*meta).as_mut().ok_or(NotSent)?;
        let sent = channel
            .sender
            .send(packet, SendOptions::default(), &mut |_| Stall::GiveUp);
        drop(meta);
        self.judge_send(sent, "meta")
    }

    /// Sends an ack about blocks. May sleep.
    pub(crate) fn send_ack(
        &self,
        device: &Device,
        command: Command,
        sector: Sector,
        size_bytes: u32,
        block_id: BlockId,
    ) -> Result<(), NotSent> {
        let ack = BlockAck {
            sector,
            block_id,
            size: size_bytes,
            seq_num: device.next_packet_seq(),
        };
        self.send_meta(device.volume, command, &ack.encode())
    }

    fn put_header(
        &self,
        volume: VolumeNr,
        command: Command,
        length: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let mut bytes = [0u8; header::MAX_SIZE];
        let version = self.connection.version();
        let length = u32::try_from(length).ok()?;
        let size = header::encode(version, volume, command, length, &mut bytes);
        copy(out, bytes.get(..size)?)
    }

    /// Sends a packet: `fill` writes the fixed part, with the channel's hashes at hand; `body`
    /// follows.
    fn send_on_data(
        &self,
        volume: VolumeNr,
        command: Command,
        body: Body<'_>,
        fill: impl FnOnce(&mut Hashes<'_>, &mut [u8]) -> Option<usize>,
    ) -> Result<(), NotSent> {
        let mut data = self.connection.data.lock();
        let channel = (*data).as_mut().ok_or(NotSent)?;
        let sent = self.send_locked(channel, volume, command, body, fill);
        drop(data);
        self.judge_send(sent, "data")
    }

    fn send_locked(
        &self,
        channel: &mut DataChannel,
        volume: VolumeNr,
        command: Command,
        body: Body<'_>,
        fill: impl FnOnce(&mut Hashes<'_>, &mut [u8]) -> Option<usize>,
    ) -> Result<(), SendError> {
        let header_size = header::size(self.connection.version());
        let malformed = SendError::Failed(EMSGSIZE);
        let mut hashes = Hashes {
            integrity: channel.integrity.as_mut(),
        };
        let (front, rest) = channel
            .scratch
            .split_at_mut_checked(header_size)
            .ok_or(malformed)?;
        let fixed = fill(&mut hashes, rest).ok_or(malformed)?;
        let (segments, lend) = match body {
            Body::Nothing => (Segments::empty(), false),
            Body::Copied(segments) => (segments, false),
            Body::Lent(segments) => (segments, true),
        };
        let length = fixed.checked_add(segments.len_bytes()).ok_or(malformed)?;
        self.put_header(volume, command, length, front)
            .ok_or(malformed)?;
        let total = header_size.checked_add(fixed).ok_or(malformed)?;
        let packet = channel.scratch.get(..total).ok_or(malformed)?;
        let options = SendOptions {
            lend: lend && !self.environment.copies_pages(),
            ..SendOptions::default()
        };
        let mut ko_count = KoCount::new(self.ko_count());
        let socket = channel.sender.socket();
        let congested = socket.queued_bytes() > socket.send_buffer_bytes() / 5 * 4;
        self.connection.set_congested(congested);
        let sent = channel
            .sender
            .send_vectored(packet, segments, options, &mut |_| {
                self.stalled(&mut ko_count)
            });
        // The link is congested while a send meets a full buffer, not for as long as nothing is
        // sent.
        self.connection.set_congested(false);
        sent
    }

    /// The data socket took nothing for `timeout`.
    fn stalled(&self, ko_count: &mut KoCount) -> Stall {
        let may_go_on = self.connection.flags.any(flag::ASENDER_RUNS);
        match ko_count.timed_out(may_go_on) {
            SendVerdict::GoOn => {
                log!(Warning, self, "the peer takes no data, pinging it");
                self.connection.request_ping();
                Stall::KeepTrying
            }
            SendVerdict::GiveUp => Stall::GiveUp,
        }
    }

    fn ko_count(&self) -> u32 {
        self.connection
            .config()
            .map_or(0, |config| config.net.ko_count)
    }

    /// A failed send costs the connection.
    fn judge_send(&self, sent: Result<(), SendError>, socket: &str) -> Result<(), NotSent> {
        let Err(error) = sent else { return Ok(()) };
        let conn = match error {
            SendError::Stalled { .. } => ConnState::Timeout,
            _ => ConnState::BrokenPipe,
        };
        if !self.connection.is_interrupted() {
            log!(
                Error,
                self,
                "sending on the {} socket failed: {:?}",
                socket,
                error
            );
        }
        self.lose_connection(conn);
        Err(NotSent)
    }
}

/// The hashes of the data channel.
pub(crate) struct Hashes<'a> {
    integrity: Option<&'a mut Hash>,
}

fn copy(out: &mut [u8], from: &[u8]) -> Option<usize> {
    out.get_mut(..from.len())?.copy_from_slice(from);
    Some(from.len())
}

/// Appends a digest of `segments` after the first `used` bytes; returns how many are used then.
fn append_digest(
    integrity: &mut Option<&mut Hash>,
    segments: Segments<'_>,
    out: &mut [u8],
    used: usize,
) -> Option<usize> {
    let Some(hash) = integrity else {
        return Some(used);
    };
    let digest = hash.digest_segments(segments).ok()?;
    let added = copy(out.get_mut(used..)?, digest.as_bytes())?;
    used.checked_add(added)
}

/// Sends what the transfer log has queued. On the worker.
pub(crate) fn drain(resource: &Arc<Resource>) {
    loop {
        let connection = &resource.connection;
        let mut log = connection.log.lock();
        let now_ns = monotonic_ns();
        let Some(index) = log.next_to_send() else {
            let barrier = log.idle_barrier(now_ns);
            drop(log);
            if let Some(barrier) = barrier {
                let _ = send_barrier(resource, barrier);
            }
            return;
        };
        let part = log.get(index).map_or(Part::None, |entry| entry.part());
        let cookie = log.cookie(index);
        let barrier = log.begin_send(index, now_ns);
        drop(log);
        let Some(request) = resource.requests.get(index).cloned() else {
            return;
        };
        let sent = send_barrier_before(resource, barrier)
            .and_then(|()| send_request(resource, &request, part, cookie));
        let event = if sent.is_ok() {
            Event::HandedOver
        } else {
            Event::NotSent
        };
        request.happens(event);
        if sent.is_err() {
            cancel(resource, index);
        }
    }
}

fn cancel(resource: &Resource, index: Index) {
    resource.connection.log.lock().cancel_send(index);
}

fn send_barrier_before(resource: &Resource, barrier: Option<LogBarrier>) -> Result<(), NotSent> {
    barrier.map_or(Ok(()), |barrier| send_barrier(resource, barrier))
}

fn send_barrier(resource: &Resource, barrier: LogBarrier) -> Result<(), NotSent> {
    let packet = Barrier {
        cookie: BarrierCookie(barrier.number.to_ne_bytes()),
    };
    resource.send_data(VolumeNr(0), Command::Barrier, &packet.encode())
}

/// What a request's packet needs of it.
struct Outgoing {
    device: Arc<Device>,
    hold: Option<MasterHold>,
    flags: Flags,
    operation: Operation,
    sector: Sector,
    size_bytes: u32,
}

fn send_request(
    resource: &Resource,
    request: &Request,
    part: Part,
    cookie: Option<BlockId>,
) -> Result<(), NotSent> {
    let outgoing = request
        .with(|parts| Outgoing {
            device: parts.device.clone(),
            hold: parts.master.as_ref().map(|master| master.hold()),
            flags: parts
                .master
                .as_ref()
                .map_or(Flags::NONE, |master| master.flags()),
            operation: parts.operation,
            sector: parts.sector,
            size_bytes: parts.size_bytes,
        })
        .ok_or(NotSent)?;
    let cookie = cookie.ok_or(NotSent)?;
    match part {
        Part::None => Err(NotSent),
        Part::Read => send_read(resource, &outgoing, cookie),
        Part::OutOfSync => send_out_of_sync(resource, &outgoing),
        Part::Write => send_write(resource, &outgoing, cookie, request.state()),
    }
}

fn send_read(resource: &Resource, outgoing: &Outgoing, cookie: BlockId) -> Result<(), NotSent> {
    let packet = BlockRequest {
        sector: outgoing.sector,
        block_id: cookie,
        size: outgoing.size_bytes,
    };
    resource.send_data(
        outgoing.device.volume,
        Command::DataRequest,
        &packet.encode(),
    )
}

fn send_out_of_sync(resource: &Resource, outgoing: &Outgoing) -> Result<(), NotSent> {
    let packet = BlockDescriptor {
        sector: outgoing.sector,
        size: outgoing.size_bytes,
    };
    resource.send_data(outgoing.device.volume, Command::OutOfSync, &packet.encode())
}

fn send_write(
    resource: &Resource,
    outgoing: &Outgoing,
    cookie: BlockId,
    state: RequestState,
) -> Result<(), NotSent> {
    let device = &outgoing.device;
    let hold = outgoing.hold.as_ref().ok_or(NotSent)?;
    let data = Data {
        sector: outgoing.sector,
        block_id: cookie,
        seq_num: device.next_packet_seq(),
        flags: write_flags(resource, outgoing, state),
    };
    device
        .counters
        .sent
        .add(u64::from(outgoing.size_bytes >> 9));
    if outgoing.operation != Operation::Write {
        return send_trim(resource, outgoing, data);
    }
    let has_integrity = resource.connection.has_integrity();
    // Protocol A and digests need the bytes as they are now; the application may change them later.
    let copies = has_integrity || resource.connection.protocol() == Protocol::A;
    let body = if copies {
        Body::Copied(hold.segments())
    } else {
        Body::Lent(hold.segments())
    };
    resource.send_on_data(device.volume, Command::Data, body, |hashes, out| {
        let used = copy(out, &data.encode())?;
        append_digest(&mut hashes.integrity, hold.segments(), out, used)
    })
}

fn send_trim(resource: &Resource, outgoing: &Outgoing, data: Data) -> Result<(), NotSent> {
    let zeroes = data.flags.contains(DataFlags::ZEROES);
    let command = if zeroes {
        Command::Zeroes
    } else {
        Command::Trim
    };
    let packet = Trim {
        data,
        size: outgoing.size_bytes,
    };
    resource.send_data(outgoing.device.volume, command, &packet.encode())
}

/// The flags of a write's packet (spec §1.16).
fn write_flags(resource: &Resource, outgoing: &Outgoing, state: RequestState) -> DataFlags {
    let connection = &resource.connection;
    let conn = outgoing.device.state().conn;
    let resyncs = conn >= ConnState::SyncSource && conn <= ConnState::PausedSyncT;
    let mut flags = DataFlags::NONE;
    let from_bio = [
        (Flags::SYNC, DataFlags::RW_SYNC),
        (Flags::FUA, DataFlags::FUA),
        (Flags::PREFLUSH, DataFlags::FLUSH),
    ];
    for (bio, wire) in from_bio {
        if outgoing.flags.contains(bio) {
            flags = flags.with(wire);
        }
    }
    match outgoing.operation {
        Operation::Discard => flags = flags.with(DataFlags::DISCARD),
        Operation::WriteZeroes => {
            flags = flags.with(DataFlags::ZEROES);
            if !outgoing.flags.contains(Flags::NOUNMAP) {
                flags = flags.with(DataFlags::DISCARD);
            }
        }
        _ => {}
    }
    if resyncs {
        flags = flags.with(DataFlags::MAY_SET_IN_SYNC);
    }
    if state.has(RequestState::EXPECT_RECEIVE_ACK) {
        flags = flags.with(DataFlags::SEND_RECEIVE_ACK);
    }
    if state.has(RequestState::EXPECT_WRITE_ACK) || resyncs {
        flags = flags.with(DataFlags::SEND_WRITE_ACK);
    }
    flags.for_peer(connection.version(), connection.features())
}

/// A read for the peer, for a resync or for a verify ended: answers it. On the worker.
pub(crate) fn answer(resource: &Arc<Resource>, request: KBox<PeerRequest>) {
    let Some(device) = request.device.clone() else {
        return finish_answer(resource, request);
    };
    match request.kind {
        Kind::Read => answer_read(resource, &request),
        Kind::ResyncRead { thin } => answer_resync(resource, &device, &request, thin),
        Kind::VerifyRead => verify::answer(resource, &device, &request),
        Kind::VerifyCompare => return verify::compare(resource, &device, request),
        Kind::ChecksumRead => return checksum::ask(resource, &device, request),
        // Writes are the asender's.
        Kind::Write | Kind::Discard | Kind::ResyncWrite | Kind::ResyncDiscard => {}
    }
    finish_answer(resource, request);
}

/// The peer has its answer: the request is over.
pub(crate) fn finish_answer(resource: &Resource, request: KBox<PeerRequest>) {
    if let Some(device) = &request.device {
        device.counters.unacked.down();
    }
    resource.connection.free_request(request);
}

fn answer_read(resource: &Resource, request: &PeerRequest) {
    let Some(device) = &request.device else {
        return;
    };
    let sent = match (&request.buffer, request.result) {
        (Some(_), Ok(())) => send_reply(resource, device, request, Command::DataReply),
        _ => resource.send_ack(
            device,
            Command::NegDReply,
            request.sector,
            request.size_bytes,
            request.block_id,
        ),
    };
    // A failed send has been dealt with.
    let _ = sent;
}

fn answer_resync(resource: &Resource, device: &Arc<Device>, request: &PeerRequest, thin: bool) {
    let sent = match (&request.buffer, request.result) {
        _ if checksum::is_equal(resource, device, request) => resource.send_ack(
            device,
            Command::RsIsInSync,
            request.sector,
            request.size_bytes,
            request.block_id,
        ),
        (Some(buffer), Ok(())) if thin && buffer.segments().is_zero() => {
            let packet = BlockDescriptor {
                sector: request.sector,
                size: request.size_bytes,
            };
            // The target acks zeroes like data.
            device.counters.resync_pending.up();
            resource.send_data(device.volume, Command::RsDeallocated, &packet.encode())
        }
        (Some(_), Ok(())) => {
            device.counters.resync_pending.up();
            send_reply(resource, device, request, Command::RsDataReply)
        }
        _ => {
            device.resync.lock().fail(request.size_bytes);
            resource.send_ack(
                device,
                Command::NegRsDReply,
                request.sector,
                request.size_bytes,
                request.block_id,
            )
        }
    };
    // A failed send has been dealt with.
    let _ = sent;
}

/// Sends the data of a request back. Replies carry no sequence number and no flags.
fn send_reply(
    resource: &Resource,
    device: &Device,
    request: &PeerRequest,
    command: Command,
) -> Result<(), NotSent> {
    let buffer = request.buffer.as_ref().ok_or(NotSent)?;
    let data = Data {
        sector: request.sector,
        block_id: request.block_id,
        seq_num: 0,
        flags: DataFlags::NONE,
    };
    device.counters.sent.add(u64::from(request.size_bytes >> 9));
    // The buffer is freed, not reused, after this: its pages may be lent.
    let body = Body::Lent(buffer.segments());
    resource.send_on_data(device.volume, command, body, |hashes, out| {
        let used = copy(out, &data.encode())?;
        append_digest(&mut hashes.integrity, buffer.segments(), out, used)
    })
}

/// Sends a digest of blocks with what they are. May sleep.
pub(crate) fn send_digest(
    resource: &Resource,
    device: &Device,
    command: Command,
    packet: &BlockRequest,
    digest: &[u8],
) -> Result<(), NotSent> {
    resource.send_on_data(device.volume, command, Body::Nothing, |_, out| {
        let used = copy(out, &packet.encode())?;
        let added = copy(out.get_mut(used..)?, digest)?;
        used.checked_add(added)
    })
}

/// Asks for blocks of a resync. The caller has claimed the range. May sleep.
pub(crate) fn ask_for_blocks(
    resource: &Resource,
    device: &Device,
    command: Command,
    sector: Sector,
    size_bytes: u32,
) -> Result<(), NotSent> {
    let packet = BlockRequest {
        sector,
        block_id: BlockId::SYNCER,
        size: size_bytes,
    };
    resource.send_data(device.volume, command, &packet.encode())
}
