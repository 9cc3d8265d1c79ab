// SPDX-License-Identifier: GPL-2.0

//! Sending: one packet at a time on each socket, and the transfer log in its order.

use drbd_engine::{
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
    reclaim::{
        self,
        NoIoScope, //
    },
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
    limits::REQUESTS_MAX,
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
    worker::chore, //
};

mod meta;

pub(crate) use meta::MetaChannel;

/// The largest fixed part of a packet that is sent from a buffer: a bitmap packet.
const PACKET_BYTES: usize = 4096;
/// The most requests that a submitting task sends before it leaves the rest to the worker.
const SUBMITTER_REQUESTS_MAX: u32 = 8;
/// The most requests that the worker sends before it looks after its chores.
const WORKER_REQUESTS_MAX: usize = 64;
/// What the socket accounts for a packet beside its pages, at most.
const PACKET_OVERHEAD_BYTES: usize = 4096;

/// The sending end of the data socket.
pub(crate) struct DataChannel {
    sender: Sender,
    /// Digests of what is sent, if data integrity is on.
    pub(crate) integrity: Option<Hash>,
    /// Where a packet's header and fixed part are put together.
    scratch: KBox<[u8; PACKET_BYTES]>,
    /// The end of the last packet waits in the socket for the next one.
    holds_back: bool,
}

impl DataChannel {
    /// Makes the sending end. May sleep.
    pub(crate) fn new(sender: Sender) -> Result<Self> {
        Ok(Self {
            sender,
            integrity: None,
            scratch: KBox::new([0; PACKET_BYTES], GFP_KERNEL)?,
            holds_back: false,
        })
    }

    /// Whether the socket takes a packet with so many bytes of pages without waiting for the peer.
    fn has_room(&self, size_bytes: u32) -> bool {
        let socket = self.sender.socket();
        let wanted = usize::try_from(size_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(PACKET_OVERHEAD_BYTES);
        socket.queued_bytes().saturating_add(wanted) <= socket.send_buffer_bytes()
    }

    /// Sends what waits for a packet that does not come.
    fn push(&mut self) {
        if core::mem::take(&mut self.holds_back) {
            self.sender.socket().push();
        }
    }
}

/// A packet could not be sent: there is no connection (any more). What follows from that has been
/// set in motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSent;

/// How a packet joins what is sent before and after it.
#[derive(Clone, Copy, Default)]
struct Company {
    /// The end of an epoch, sent in front of it in the same call.
    barrier: Option<LogBarrier>,
    /// Another packet follows at once.
    more: bool,
}

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
        self.send_data_with(Company::default(), volume, command, payload)
    }

    fn send_data_with(
        &self,
        company: Company,
        volume: VolumeNr,
        command: Command,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        let mut data = self.connection.data.lock();
        let channel = (*data).as_mut().ok_or(NotSent)?;
        let sent = self.send_fixed(channel, company, volume, command, payload);
        drop(data);
        self.judge_send(sent, "data")
    }

    /// Sends what waits in the data socket for a packet that does not come. May sleep.
    pub(crate) fn push_data(&self) {
        if let Some(channel) = (*self.connection.data.lock()).as_mut() {
            channel.push();
        }
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
        company: Company,
        volume: VolumeNr,
        command: Command,
        body: Body<'_>,
        fill: impl FnOnce(&mut Hashes<'_>, &mut [u8]) -> Option<usize>,
    ) -> Result<(), NotSent> {
        let mut data = self.connection.data.lock();
        let channel = (*data).as_mut().ok_or(NotSent)?;
        let sent = self.send_locked(channel, company, volume, command, body, fill);
        drop(data);
        self.judge_send(sent, "data")
    }

    /// Sends a packet that consists of a fixed part only.
    fn send_fixed(
        &self,
        channel: &mut DataChannel,
        company: Company,
        volume: VolumeNr,
        command: Command,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let body = Body::Nothing;
        let fill = |_: &mut Hashes<'_>, out: &mut [u8]| copy(out, payload);
        self.send_locked(channel, company, volume, command, body, fill)
    }

    /// Puts a barrier at the start of `out`; returns its size.
    fn put_barrier(&self, barrier: LogBarrier, out: &mut [u8]) -> Option<usize> {
        let packet = Barrier {
            cookie: BarrierCookie(barrier.number.to_ne_bytes()),
        };
        let payload = packet.encode();
        let front = self.put_header(VolumeNr(0), Command::Barrier, payload.len(), out)?;
        let fixed = copy(out.get_mut(front..)?, &payload)?;
        front.checked_add(fixed)
    }

    fn send_locked(
        &self,
        channel: &mut DataChannel,
        company: Company,
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
        let in_front = match company.barrier {
            Some(barrier) => self
                .put_barrier(barrier, channel.scratch.as_mut_slice())
                .ok_or(malformed)?,
            None => 0,
        };
        let (front, rest) = channel
            .scratch
            .get_mut(in_front..)
            .and_then(|scratch| scratch.split_at_mut_checked(header_size))
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
        let total = in_front
            .checked_add(header_size)
            .and_then(|size| size.checked_add(fixed))
            .ok_or(malformed)?;
        let packet = channel.scratch.get(..total).ok_or(malformed)?;
        channel.holds_back = company.more;
        let options = SendOptions {
            more: company.more,
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

    /// A failed send costs the connection. May sleep.
    fn judge_send(&self, sent: Result<(), SendError>, socket: &str) -> Result<(), NotSent> {
        let Err(error) = sent else { return Ok(()) };
        self.log_failed_send(error, socket);
        self.lose_connection(match error {
            SendError::Stalled { .. } => ConnState::Timeout,
            _ => ConnState::BrokenPipe,
        });
        Err(NotSent)
    }

    fn log_failed_send(&self, error: SendError, socket: &str) {
        if !self.connection.is_interrupted() {
            log!(
                Error,
                self,
                "sending on the {} socket failed: {:?}",
                socket,
                error
            );
        }
    }

    /// Sends what the transfer log has queued: at once, by the task that queued it, or by the
    /// worker. May sleep, though not for the peer.
    pub(crate) fn send_soon(self: &Arc<Self>) {
        if !send_at_once(self) {
            self.chore(chore::SEND);
        }
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

/// Sends what the transfer log has queued and may be sent now, a number of requests at most: an
/// application may queue them for ever as fast as the peer takes them. Returns whether there may be
/// more. On the worker.
pub(crate) fn send_some(resource: &Arc<Resource>) -> bool {
    // What was admitted after a change of state is sent after its effects, which come next.
    drain(resource, WORKER_REQUESTS_MAX, || {
        !resource.has_unsent_changes()
    })
}

/// Sends what the transfer log has queued by now. On the worker, for the effects of a change.
pub(crate) fn send_queued(resource: &Arc<Resource>) {
    // As many as the log has places, so that all that was queued before is among them.
    drain(resource, REQUESTS_MAX, || true);
}

/// The connection is gone: no request waits to be sent on the next one. On the receiver.
pub(crate) fn drop_queued(resource: &Resource) {
    while matches!(drop_next(resource), Next::Sent) {}
}

/// Sends what the transfer log has queued while it `may_send`, `most` requests at most; whether
/// that was the reason to end. On the worker.
fn drain(resource: &Arc<Resource>, most: usize, may_send: impl Fn() -> bool) -> bool {
    for _ in 0..most {
        let mut data = resource.connection.data.lock();
        let next = send_next(resource, (*data).as_mut(), |_, _| may_send());
        drop(data);
        match next {
            Next::Idle | Next::NoRoom => return false,
            // The worker looks after barriers, too.
            Next::Sent | Next::SentLast => {}
            Next::Failed(error) => {
                let _ = resource.judge_send(Err(error), "data");
            }
        }
    }
    true
}

/// Sends what the transfer log has queued, if nobody else sends and the socket takes it. Returns
/// whether there is nothing left for the worker.
///
/// The task that submits a request may hold bios that others wait for. So it neither waits for the
/// peer here nor changes states, and what it would announce too early it leaves to the worker: the
/// effects of a change of state are sent before the requests that were admitted after it. And the
/// network needs a stack as well: where a file system has used half of it already the worker sends.
fn send_at_once(resource: &Arc<Resource>) -> bool {
    if reclaim::is_reclaiming() || reclaim::is_stack_deep() {
        return false;
    }
    let _scope = NoIoScope::enter();
    for _ in 0..SUBMITTER_REQUESTS_MAX {
        let Some(mut data) = resource.connection.data.try_lock() else {
            return false;
        };
        let Some(channel) = (*data).as_mut() else {
            return false;
        };
        let next = send_next(resource, Some(channel), |channel, size_bytes| {
            channel.has_room(size_bytes) && !resource.has_unsent_changes()
        });
        drop(data);
        match next {
            // Who queues another one from here on finds the channel free, or asks the worker.
            Next::Idle | Next::SentLast => return true,
            Next::NoRoom => return false,
            Next::Sent => {}
            Next::Failed(error) => {
                resource.log_failed_send(error, "data");
                resource.chore(chore::SEND_FAILED);
                return false;
            }
        }
    }
    false
}

/// What became of the next request in the transfer log.
enum Next {
    /// Nothing waits to be sent.
    Idle,
    /// It was sent, and was the last one.
    SentLast,
    /// The caller does not want to send it now.
    NoRoom,
    /// It was sent, or there is no connection to send it on.
    Sent,
    /// It could not be sent, which costs the connection.
    Failed(SendError),
}

/// Sends the oldest request that waits for it, or the barrier of the last ones, where `may_send`
/// says so of its size. The channel is the caller's, so that packets go in the order of the log.
fn send_next(
    resource: &Arc<Resource>,
    channel: Option<&mut DataChannel>,
    may_send: impl FnOnce(&DataChannel, u32) -> bool,
) -> Next {
    let Some(channel) = channel else {
        return drop_next(resource);
    };
    let connection = &resource.connection;
    let mut log = connection.log.lock();
    let next = log.next_to_send();
    let entry = next.and_then(|index| log.get(index));
    let (part, size_bytes) = entry.map_or((Part::None, 0), |entry| (entry.part(), entry.size()));
    if !may_send(channel, size_bytes) {
        return Next::NoRoom;
    }
    let now_ns = monotonic_ns();
    let Some(index) = next else {
        let barrier = log.idle_barrier(now_ns);
        resource.bell.forget_barrier();
        drop(log);
        return send_idle_barrier(resource, channel, barrier);
    };
    let cookie = log.cookie(index);
    let barrier = log.begin_send(index, now_ns);
    if barrier.is_some() {
        resource.bell.forget_barrier();
    }
    let more = log.next_to_send().is_some() && connection.corks();
    let is_last = log.is_sent();
    drop(log);
    let company = Company { barrier, more };
    let Some(request) = resource.requests.get(index) else {
        return Next::Idle;
    };
    let sent = match cookie {
        Some(cookie) => send_request(resource, channel, company, request, part, cookie),
        None => Err(SendError::Failed(ENOENT)),
    };
    match sent {
        Ok(()) => {
            request.happens(Event::HandedOver);
            if is_last {
                Next::SentLast
            } else {
                Next::Sent
            }
        }
        Err(error) => {
            request.happens(Event::NotSent);
            Next::Failed(error)
        }
    }
}

/// There is no connection to send the oldest request on: it is told so. The log may have forgotten
/// the connection already, and counts nothing for it any more.
fn drop_next(resource: &Resource) -> Next {
    let mut log = resource.connection.log.lock();
    let Some(index) = log.next_to_send() else {
        resource.bell.forget_barrier();
        return Next::Idle;
    };
    log.cancel_send(index);
    drop(log);
    if let Some(request) = resource.requests.get(index) {
        request.happens(Event::NotSent);
    }
    Next::Sent
}

fn send_idle_barrier(
    resource: &Resource,
    channel: &mut DataChannel,
    barrier: Option<LogBarrier>,
) -> Next {
    let Some(barrier) = barrier else {
        channel.push();
        return Next::Idle;
    };
    let packet = Barrier {
        cookie: BarrierCookie(barrier.number.to_ne_bytes()),
    };
    let company = Company::default();
    let command = Command::Barrier;
    match resource.send_fixed(channel, company, VolumeNr(0), command, &packet.encode()) {
        Ok(()) => Next::Sent,
        Err(error) => Next::Failed(error),
    }
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
    channel: &mut DataChannel,
    company: Company,
    request: &Request,
    part: Part,
    cookie: BlockId,
) -> Result<(), SendError> {
    let gone = SendError::Failed(ENOENT);
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
        .ok_or(gone)?;
    let volume = outgoing.device.volume;
    match part {
        Part::None => Err(gone),
        Part::Read => {
            let packet = BlockRequest {
                sector: outgoing.sector,
                block_id: cookie,
                size: outgoing.size_bytes,
            };
            let command = Command::DataRequest;
            resource.send_fixed(channel, company, volume, command, &packet.encode())
        }
        Part::OutOfSync => {
            let packet = BlockDescriptor {
                sector: outgoing.sector,
                size: outgoing.size_bytes,
            };
            let command = Command::OutOfSync;
            resource.send_fixed(channel, company, volume, command, &packet.encode())
        }
        Part::Write => {
            let state = request.state();
            send_write(resource, channel, company, &outgoing, cookie, state)
        }
    }
}

fn send_write(
    resource: &Resource,
    channel: &mut DataChannel,
    company: Company,
    outgoing: &Outgoing,
    cookie: BlockId,
    state: RequestState,
) -> Result<(), SendError> {
    let device = &outgoing.device;
    let hold = outgoing.hold.as_ref().ok_or(SendError::Failed(ENOENT))?;
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
        return send_trim(resource, channel, company, outgoing, data);
    }
    let has_integrity = resource.connection.has_integrity();
    // Digests need the bytes as they are now. So does a write that is told done before the peer has
    // answered, whatever protocol others have by now: the application may change them later.
    let answers = RequestState::EXPECT_RECEIVE_ACK | RequestState::EXPECT_WRITE_ACK;
    let copies = has_integrity || !state.has_any(answers);
    let body = if copies {
        Body::Copied(hold.segments())
    } else {
        Body::Lent(hold.segments())
    };
    let fill = |hashes: &mut Hashes<'_>, out: &mut [u8]| {
        let used = copy(out, &data.encode())?;
        append_digest(&mut hashes.integrity, hold.segments(), out, used)
    };
    resource.send_locked(channel, company, device.volume, Command::Data, body, fill)
}

fn send_trim(
    resource: &Resource,
    channel: &mut DataChannel,
    company: Company,
    outgoing: &Outgoing,
    data: Data,
) -> Result<(), SendError> {
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
    let volume = outgoing.device.volume;
    resource.send_fixed(channel, company, volume, command, &packet.encode())
}

/// The flags of a write's packet (spec §1.16).
fn write_flags(resource: &Resource, outgoing: &Outgoing, state: RequestState) -> DataFlags {
    let connection = &resource.connection;
    let conn = outgoing.device.glance().conn();
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

/// A read for the peer, for a resync or for a verify ended: answers it. On the worker, which calls
/// [`Resource::push_data`] after the last of those at hand.
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
    let company = Company {
        // The next answer is at hand; who sends the last pushes it.
        more: !resource.work.is_empty() && resource.connection.corks(),
        ..Company::default()
    };
    resource.send_on_data(company, device.volume, command, body, |hashes, out| {
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
    let company = Company::default();
    resource.send_on_data(company, device.volume, command, Body::Nothing, |_, out| {
        let used = copy(out, &packet.encode())?;
        let added = copy(out.get_mut(used..)?, digest)?;
        used.checked_add(added)
    })
}

/// Asks for blocks of a resync. The caller has claimed the range, and calls
/// [`Resource::push_data`] when it has asked for all. May sleep.
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
    let company = Company {
        barrier: None,
        more: resource.connection.corks(),
    };
    resource.send_data_with(company, device.volume, command, &packet.encode())
}
