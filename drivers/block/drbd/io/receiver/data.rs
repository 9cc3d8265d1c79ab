// SPDX-License-Identifier: GPL-2.0

//! The peer's writes (Spec §1.16).

use drbd_engine::{
    activity_log::{
        Reserve,
        Span, //
    },
    config::Protocol,
    range::{
        Handle,
        Kind as RangeKind,
        Refusal, //
    },
    state::ConnState,
    types::{
        Sector,
        SECTOR_SHIFT, //
    },
    wire::{
        Command,
        Data,
        DataFlags,
        Features,
        RequestKind,
        Trim, //
    },
};
use drbd_sys::{
    bio::Flags,
    log,
    time::monotonic_ns, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    ConnectionError,
    Receiver, //
};
use crate::io::{
    acks::ack_epochs,
    connection::flag,
    device::{
        Device,
        LocalRef, //
    },
    disk::LocalDisk,
    erase::Way,
    peer_request::{
        Kind,
        PeerIo,
        PeerRequest, //
    },
};

/// Pause before extents of the activity log are asked for again.
const EXTENTS_PAUSE_MS: u32 = 20;
/// Pause before the receiver looks again whether a new generation is on disk.
const GENERATION_PAUSE_MS: u32 = 2;

/// How a range in conflict with a write of this node's application is resolved.
enum Claim {
    /// The range is ours.
    Granted(Handle),
    /// The peer's write lost against ours (two Primaries).
    Lost(Command),
}

impl Receiver {
    /// P_DATA.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn data(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
        rest: u32,
    ) -> Result<(), ConnectionError> {
        let data = self.decoded(Data::decode(payload))?;
        let Some(size) = rest.checked_sub(self.digest_bytes()) else {
            return Err(self.refuse("Data packet without its digest"));
        };
        let Some(local) = usable_disk(device) else {
            self.drain(rest)?;
            return self.refuse_write(device, &data, size);
        };
        if data.is_empty_flush(size) {
            self.drain(rest)?;
            return self.empty_flush(device, local, &data);
        }
        self.check(device, data.sector, size, RequestKind::Data)?;
        let buffer = self.read_data(device, data.sector, size)?;
        let Some(request) = self.admit(device, local, Kind::Write, &data, size)? else {
            return Ok(());
        };
        let flags = bio_flags(request.flags);
        PeerIo(request).submit(device, flags, buffer);
        Ok(())
    }

    /// P_TRIM and P_ZEROES.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn discard(
        &mut self,
        device: &Arc<Device>,
        command: Command,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let Trim { data, size } = self.decoded(Trim::decode(payload))?;
        let Some(local) = usable_disk(device) else {
            return self.refuse_write(device, &data, size);
        };
        self.check(
            device,
            data.sector,
            size,
            RequestKind::Discard(self.features),
        )?;
        let Some(request) = self.admit(device, local, Kind::Discard, &data, size)? else {
            return Ok(());
        };
        let is_trim = command == Command::Trim;
        let way = if is_trim && self.features.contains(Features::WRITE_ZEROES) {
            Way::Discard
        } else {
            let unmap = is_trim || data.flags.contains(DataFlags::DISCARD);
            Way::Zero { unmap }
        };
        PeerIo(request).erase(device, way);
        Ok(())
    }

    /// A flush of an 8.3 peer, without data.
    fn empty_flush(
        &mut self,
        device: &Arc<Device>,
        local: LocalRef,
        data: &Data,
    ) -> Result<(), ConnectionError> {
        let taken = self
            .resource
            .connection
            .take_request(device, Kind::Write, data.sector, 0);
        let mut request = taken.ok_or(ConnectionError)?;
        let backing = local.backing.clone();
        request.local = Some(local);
        request.flags = data.flags;
        self.join(device, &mut request, data);
        backing.submit_flush(PeerIo(request));
        Ok(())
    }

    /// A write without a disk: says so, and counts it in its epoch. Where a disk is about to come
    /// into use its bitmap remembers it.
    fn refuse_write(
        &mut self,
        device: &Arc<Device>,
        data: &Data,
        size: u32,
    ) -> Result<(), ConnectionError> {
        note_sequence(device, data.seq_num);
        // What cannot be sent has cost the connection.
        let _ = self
            .resource
            .send_ack(device, Command::NegAck, data.sector, size, data.block_id);
        self.resource.connection.epochs.lock().write_refused();
        // After it was counted: an attach asks that when its bitmap is in core.
        if let Some(local) = device.local() {
            local.bitmap.set_out_of_sync(data.sector, size);
        }
        ack_epochs(&self.resource);
        Ok(())
    }

    /// Acks a write that never gets to the disk.
    fn answer_at_once(&self, device: &Arc<Device>, data: &Data, size: u32, command: Command) {
        // What cannot be sent has cost the connection.
        let _ = self
            .resource
            .send_ack(device, command, data.sector, size, data.block_id);
        let connection = &self.resource.connection;
        let mut epochs = connection.epochs.lock();
        let epoch = epochs.write_received();
        epochs.write_done(epoch);
        drop(epochs);
        ack_epochs(&self.resource);
    }

    /// Takes everything a write needs but its data; `None` where it was answered without being
    /// written.
    fn admit(
        &mut self,
        device: &Arc<Device>,
        local: LocalRef,
        kind: Kind,
        data: &Data,
        size: u32,
    ) -> Result<Option<KBox<PeerRequest>>, ConnectionError> {
        self.await_sequence(device, data.seq_num)?;
        note_sequence(device, data.seq_num);
        let connection = &self.resource.connection;
        let taken = connection.take_request(device, kind, data.sector, size);
        let mut request = taken.ok_or(ConnectionError)?;
        request.local = Some(local);
        request.flags = data.flags;
        match self.claim(device, data.sector, size) {
            Ok(Claim::Granted(range)) => request.range = Some(range),
            Ok(Claim::Lost(command)) => {
                connection.free_request(request);
                self.answer_at_once(device, data, size, command);
                return Ok(None);
            }
            Err(error) => {
                connection.free_request(request);
                return Err(error);
            }
        }
        device.note_write(monotonic_ns());
        let state = device.glance();
        if state.conn() < ConnState::Connected {
            // It may have been a write of a peer without a disk, of which the state tells no more.
            connection.free_request(request);
            return Err(match state.conn() {
                ConnState::WFReportParams => self.refuse("Data packet before ReportState"),
                _ => ConnectionError,
            });
        }
        if state.has_peer_writes_alone() {
            if let Err(error) = self.keep_only_copy(device, &mut request) {
                connection.free_request(request);
                return Err(error);
            }
        }
        // Nothing fails from here on: what was counted ends with the request.
        self.join(device, &mut request, data);
        let sectors = u64::from(sectors_of(size));
        if kind == Kind::Write {
            device.counters.received.add(sectors);
        }
        device.counters.written.add(sectors);
        Ok(Some(request))
    }

    /// Enters the write into the epoch, and finds out which acks the peer wants.
    fn join(&self, device: &Arc<Device>, request: &mut PeerRequest, data: &Data) {
        let connection = &self.resource.connection;
        request.epoch = Some(connection.epochs.lock().write_received());
        request.block_id = data.block_id;
        let (wants_receive_ack, wants_write_ack) = if self.version.has_volumes() {
            (
                data.flags.contains(DataFlags::SEND_RECEIVE_ACK),
                data.flags.contains(DataFlags::SEND_WRITE_ACK),
            )
        } else {
            let protocol = connection.protocol();
            (protocol == Protocol::B, protocol == Protocol::C)
        };
        request.wants_ack = wants_write_ack;
        if wants_write_ack {
            device.counters.unacked.up();
        }
        if wants_receive_ack {
            // What cannot be sent has cost the connection.
            let _ = self.resource.send_ack(
                device,
                Command::RecvAck,
                request.sector,
                request.size_bytes,
                data.block_id,
            );
        }
    }

    /// Waits until nothing else works on the range. With two Primaries one node's writes win.
    fn claim(
        &self,
        device: &Arc<Device>,
        sector: Sector,
        size: u32,
    ) -> Result<Claim, ConnectionError> {
        let connection = &self.resource.connection;
        let decides = self.has_two_primaries() && connection.flags.any(flag::RESOLVE_CONFLICTS);
        let end = sector.0.saturating_add(u64::from(sectors_of(size)));
        let mut claim = None;
        connection.receiver_wait.wait_until(|| {
            claim = match device
                .ranges
                .lock()
                .try_insert(RangeKind::PeerWrite, sector, size)
            {
                Ok(range) => Some(Claim::Granted(range)),
                Err(Refusal::Conflict(conflict))
                    if decides && conflict.kind == RangeKind::LocalWrite =>
                {
                    let inside = conflict.sector <= sector && end <= conflict.end.0;
                    let superseded = inside || !self.version.has_volumes();
                    Some(Claim::Lost(if superseded {
                        Command::Superseded
                    } else {
                        Command::RetryWrite
                    }))
                }
                Err(_) => None,
            };
            claim.is_some() || connection.is_interrupted()
        });
        claim.ok_or(ConnectionError)
    }

    fn has_two_primaries(&self) -> bool {
        let config = self.resource.connection.config();
        config.is_some_and(|config| config.net.two_primaries)
    }

    /// The node that decides conflicts must have seen the acks that the peer sent before this
    /// write.
    fn await_sequence(&self, device: &Arc<Device>, seq: u32) -> Result<(), ConnectionError> {
        let connection = &self.resource.connection;
        if !self.has_two_primaries() || !connection.flags.any(flag::RESOLVE_CONFLICTS) {
            return Ok(());
        }
        let timeout = connection
            .config()
            .map_or(5, |config| config.net.ping_timeo);
        let before = seq.wrapping_sub(1);
        let came = || !is_after(before, device.peer_seq.load()) || connection.is_interrupted();
        if connection
            .receiver_wait
            .wait_until_timeout(came, timeout.saturating_mul(100))
        {
            return Ok(());
        }
        log!(
            Error,
            device,
            "Timed out waiting for missing ack packets; disconnecting"
        );
        Err(ConnectionError)
    }

    /// The peer has no data of its own: this node remembers what it will have to be told.
    ///
    /// Where it cannot it does without the disk, and the write fails: what neither log nor bitmap
    /// tells of must not be told done.
    fn keep_only_copy(
        &self,
        device: &Arc<Device>,
        request: &mut PeerRequest,
    ) -> Result<(), ConnectionError> {
        self.await_generation(device)?;
        request.local = request.local.take().filter(|_| device.vouches());
        let Some(local) = &request.local else {
            return Ok(());
        };
        // Before the log may end with the connection.
        local
            .bitmap
            .set_out_of_sync(request.sector, request.size_bytes);
        let span = self.hold_extents(device, local, request.sector, request.size_bytes)?;
        request.span = span.map(|span| (local.id, span));
        if device.glance().conn() < ConnState::Connected {
            return Err(ConnectionError);
        }
        request.flags = DataFlags(request.flags.0 & !DataFlags::MAY_SET_IN_SYNC.0);
        if span.is_none() {
            request.local = None;
        }
        Ok(())
    }

    /// Waits until the generation that this node's data are of from here on is on disk.
    fn await_generation(&self, device: &Device) -> Result<(), ConnectionError> {
        let connection = &self.resource.connection;
        let is_over = || connection.is_interrupted();
        while device.holds_writes() {
            if connection
                .receiver_wait
                .wait_until_timeout(is_over, GENERATION_PAUSE_MS)
            {
                return Err(ConnectionError);
            }
        }
        Ok(())
    }

    /// References the extents of a write in the activity log; `None` where that cannot be written.
    fn hold_extents(
        &self,
        device: &Arc<Device>,
        local: &LocalDisk,
        sector: Sector,
        size: u32,
    ) -> Result<Option<Span>, ConnectionError> {
        let connection = &self.resource.connection;
        let Some(span) = Span::of(sector, size) else {
            return Ok(None);
        };
        loop {
            let answer = local.activity_log.lock().reserve(span);
            match answer {
                Reserve::Hot => return Ok(Some(span)),
                Reserve::TooLarge => return Ok(None),
                Reserve::AfterCommit => {
                    // An error costs the disk.
                    let written = local.write_transaction(device);
                    device.retry_delayed();
                    return Ok(written.is_ok().then_some(span));
                }
                Reserve::Wait(_) => {
                    let written = local.write_transaction(device);
                    device.retry_delayed();
                    // A disk that is let go gets no extents back.
                    if written.is_err() || !device.vouches() {
                        return Ok(None);
                    }
                    let ends = || connection.is_interrupted();
                    if connection
                        .receiver_wait
                        .wait_until_timeout(ends, EXTENTS_PAUSE_MS)
                    {
                        return Err(ConnectionError);
                    }
                }
            }
        }
    }
}

/// The disk, where writes may go to it: not one whose metadata fail, which need not say yet what is
/// written there.
pub(in crate::io) fn usable_disk(device: &Arc<Device>) -> Option<LocalRef> {
    device.local().filter(|_| device.vouches())
}

/// Sectors of a range in bytes.
fn sectors_of(size: u32) -> u32 {
    size >> SECTOR_SHIFT
}

/// Whether `a` comes after `b`, in numbers that wrap around.
fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// Remembers the highest number that came from the peer.
pub(in crate::io) fn note_sequence(device: &Device, seq: u32) {
    let (old, new) = device
        .peer_seq
        .update(|old| if is_after(seq, old) { seq } else { old });
    if old != new {
        device.resource.connection.receiver_wait.wake_all();
    }
}

/// What the peer asks of a write, as the block layer calls it.
fn bio_flags(flags: DataFlags) -> Flags {
    let known = [
        (DataFlags::RW_SYNC, Flags::SYNC),
        (DataFlags::FUA, Flags::FUA),
        (DataFlags::FLUSH, Flags::PREFLUSH),
    ];
    known.into_iter().fold(Flags::NONE, |bio, (wire, flag)| {
        if flags.contains(wire) {
            bio | flag
        } else {
            bio
        }
    })
}
