// SPDX-License-Identifier: GPL-2.0

//! Receiving from the data socket: a header, what the engine says may follow it, and a handler
//! (Spec §1.7).
//!
//! Whatever is wrong with a packet is told in one line and costs the connection; so does a peer
//! that stops in the middle of one.

use core::fmt::Display;

use drbd_engine::{
    state::ConnState,
    types::{
        Sector,
        VolumeNr, //
    },
    wire::{
        check_request,
        header,
        Command,
        Consequence,
        Features,
        Header,
        PayloadError,
        RequestKind,
        Scope,
        Socket,
        Version, //
    },
};
use drbd_sys::{
    bio::plugged,
    hash::Hash,
    log,
    page::{
        Buffer,
        Segments, //
    },
    socket::{
        Reader,
        RecvError, //
    },
    time::monotonic_ns, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    acks::ack_epochs,
    checksums::Digest,
    connection::flag,
    device::Device,
    resource::Resource, //
};

mod barrier;
mod checks;
mod data;
mod params;
mod reads;
mod state;
mod sync;

pub(super) use barrier::flush_early;
pub(super) use data::{note_sequence, usable_disk};

/// The connection must be dropped. Why was told in one line, or is known: it is going down already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionError;

/// Bytes of the longest payload that is read as a whole: a bitmap packet.
const SCRATCH_BYTES: usize = drbd_engine::wire::SCRATCH_SIZE as usize;

/// The receiving end of the data socket, on its thread.
pub(crate) struct Receiver {
    resource: Arc<Resource>,
    reader: Reader,
    version: Version,
    features: Features,
    /// Checks the digests that the peer sends with its data, if it does.
    integrity: Option<Hash>,
    /// The payload of the packet at hand, but for data.
    scratch: KVec<u8>,
    /// An epoch ended whose ack may be due.
    epoch_ended: bool,
}

/// Writes that are given to the disk before the ack of an epoch that ended in front of them.
const WRITES_BEFORE_ACK_MAX: u32 = 32;

/// Packets of which all payload is read before they are looked at.
fn is_read_whole(command: Command) -> bool {
    matches!(
        command,
        Command::Bitmap
            | Command::CompressedBitmap
            | Command::SyncParam
            | Command::SyncParam89
            | Command::Protocol
            | Command::ProtocolUpdate
    )
}

impl Receiver {
    /// Makes the receiving end. May sleep.
    pub(super) fn new(
        resource: &Arc<Resource>,
        reader: Reader,
        version: Version,
        features: Features,
    ) -> Result<Self> {
        Ok(Self {
            resource: resource.clone(),
            reader,
            version,
            features,
            integrity: None,
            scratch: KVec::from_elem(0, SCRATCH_BYTES, GFP_KERNEL)?,
            epoch_ended: false,
        })
    }

    /// Receives until the connection is to be dropped.
    pub(super) fn run(&mut self) {
        while self.receive_arrived().is_ok() {}
        self.resource.lose_connection(ConnState::ProtocolError);
    }

    /// Receives a packet, and all that have arrived by then: what they write goes to the disk
    /// together, and then the epochs that ended are acked.
    #[inline(never)] // Keeps its frame off the stack of the handshake.
    fn receive_arrived(&mut self) -> Result<(), ConnectionError> {
        self.await_header()?;
        let mut left = WRITES_BEFORE_ACK_MAX;
        loop {
            plugged(|| self.receive_whole(&mut left))?;
            if left == 0 || !self.reader.has_more() {
                break;
            }
        }
        self.ack_ended();
        Ok(())
    }

    /// Receives a packet, and those behind it that have arrived to their ends: who waits with a
    /// plug has what is in it started by another thread.
    fn receive_whole(&mut self, left: &mut u32) -> Result<(), ConnectionError> {
        loop {
            self.receive_packet()?;
            if self.epoch_ended {
                *left = left.saturating_sub(1);
            }
            if *left == 0 || !self.has_packet() {
                return Ok(());
            }
        }
    }

    fn has_packet(&mut self) -> bool {
        let (version, size) = (self.version, header::size(self.version));
        self.reader.has_packet(size, |bytes| {
            let header = header::decode(version, bytes).ok()?;
            usize::try_from(header.length).ok()?.checked_add(size)
        })
    }

    /// Acks what ended, where the disk has the writes that came behind it.
    fn ack_ended(&mut self) {
        if core::mem::take(&mut self.epoch_ended) {
            ack_epochs(&self.resource);
        }
    }

    fn receive_packet(&mut self) -> Result<(), ConnectionError> {
        let header = self.receive_header()?;
        let admitted = header.admit(Socket::Data, self.version, self.features);
        let (command, rule) = admitted.map_err(|error| {
            log!(Error, self.resource, "{}", error);
            if error.consequence() == Consequence::Disconnecting {
                self.resource.lose_connection(ConnState::Disconnecting);
            }
            ConnectionError
        })?;
        if command != Command::Data {
            // Whatever it is it may take long.
            self.ack_ended();
        }
        let wanted = if is_read_whole(command) {
            header.length
        } else {
            rule.fixed
        };
        let size = usize::try_from(wanted).map_err(|_| ConnectionError)?;
        let rest = header.length.saturating_sub(wanted);
        let mut scratch = core::mem::take(&mut self.scratch);
        let result = self.receive_payload(&mut scratch, size, command, header.volume, rest);
        self.scratch = scratch;
        result
    }

    /// Waits for a header.
    fn await_header(&mut self) -> Result<(), ConnectionError> {
        let arrived = self.reader.peek(header::size(self.version)).map(|_| ());
        arrived.map_err(|error| self.lost(error))
    }

    fn receive_header(&mut self) -> Result<Header, ConnectionError> {
        let size = header::size(self.version);
        let header = match self.reader.peek(size) {
            Ok(bytes) => header::decode(self.version, bytes),
            Err(error) => return Err(self.lost(error)),
        };
        self.reader.consume(size);
        self.resource
            .connection
            .last_received_ns
            .store(monotonic_ns());
        header.map_err(|error| self.refuse(error))
    }

    fn receive_payload(
        &mut self,
        scratch: &mut [u8],
        size: usize,
        command: Command,
        volume: VolumeNr,
        rest: u32,
    ) -> Result<(), ConnectionError> {
        let payload = scratch.get_mut(..size).ok_or(ConnectionError)?;
        self.read(payload)?;
        match (command.scope(), self.resource.volume(volume)) {
            (Scope::Connection, _) => self.connection_packet(command, payload),
            (_, Some(device)) => self.volume_packet(command, &device, payload, rest),
            (Scope::Configuration, None) => {
                if self.resource.connection.refusals.allows() {
                    log!(
                        Warning,
                        self.resource,
                        "{} packet received for volume {}, which is not configured locally",
                        command.name(),
                        volume
                    );
                }
                Ok(())
            }
            (Scope::Volume, None) => {
                let name = command.name();
                Err(self.refuse(format_args!("{name} packet for unknown volume {volume}")))
            }
        }
    }

    fn connection_packet(
        &mut self,
        command: Command,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        match command {
            Command::Barrier => self.barrier(payload),
            Command::Protocol => self.protocol(payload),
            Command::ProtocolUpdate => self.protocol_update(payload),
            Command::ConnStateChangeRequest => self.connection_state_request(payload),
            Command::DelayProbe => Ok(()),
            _ => Err(self.unbuilt(command)),
        }
    }

    fn volume_packet(
        &mut self,
        command: Command,
        device: &Arc<Device>,
        payload: &[u8],
        rest: u32,
    ) -> Result<(), ConnectionError> {
        match command {
            Command::Data => self.data(device, payload, rest),
            Command::Trim | Command::Zeroes => self.discard(device, command, payload),
            Command::DataReply => self.data_reply(device, payload, rest),
            Command::RsDataReply => self.resync_data_reply(device, payload, rest),
            Command::DataRequest => self.data_request(device, payload),
            Command::RsDataRequest | Command::RsThinRequest => {
                self.resync_request(device, command, payload)
            }
            Command::CsumRsRequest => self.checksum_request(device, payload, rest),
            Command::OvRequest => self.verify_request(device, payload),
            Command::OvReply => self.verify_reply(device, payload, rest),
            Command::RsDeallocated => self.deallocated(device, payload),
            Command::OutOfSync => self.out_of_sync(device, payload),
            Command::UnplugRemote => {
                self.reader.socket().quick_ack();
                Ok(())
            }
            Command::Bitmap => super::bitmap_exchange::receive_plain(device, payload),
            Command::CompressedBitmap => {
                super::bitmap_exchange::receive_compressed(device, payload)
            }
            Command::SyncParam | Command::SyncParam89 => self.sync_param(device, payload),
            Command::Sizes => self.sizes(device, payload),
            Command::Uuids => self.uuids(device, payload),
            Command::State => self.state(device, payload),
            Command::SyncUuid => self.sync_uuid(device, payload),
            Command::StateChangeRequest => self.state_request(device, payload),
            _ => Err(self.unbuilt(command)),
        }
    }

    /// A packet that nothing this node said can be the reason for.
    fn unbuilt(&self, command: Command) -> ConnectionError {
        self.refuse(format_args!("{} packet is not expected", command.name()))
    }

    /// Says in a line about the connection why it is dropped.
    fn refuse(&self, why: impl Display) -> ConnectionError {
        log!(Error, self.resource, "{}", why);
        ConnectionError
    }

    /// The same about a payload that is not what its command says.
    fn decoded<T>(&self, decoded: Result<T, PayloadError>) -> Result<T, ConnectionError> {
        decoded.map_err(|error| self.refuse(error))
    }

    /// Refuses a range that is not on the device, or too long.
    fn check(
        &self,
        device: &Device,
        sector: Sector,
        size: u32,
        kind: RequestKind,
    ) -> Result<(), ConnectionError> {
        check_request(sector, size, Sector(device.capacity()), kind).map_err(|error| {
            log!(Error, device, "{}", error);
            ConnectionError
        })
    }

    /// Receives exactly as many bytes as fit.
    fn read(&mut self, to: &mut [u8]) -> Result<(), ConnectionError> {
        let received = self.reader.read_exact(to);
        received.map_err(|error| self.lost(error))
    }

    /// Receives bytes that nobody wants.
    fn drain(&mut self, bytes: u32) -> Result<(), ConnectionError> {
        let len = usize::try_from(bytes).map_err(|_| ConnectionError)?;
        let received = self.reader.discard(len);
        received.map_err(|error| self.lost(error))
    }

    /// How many bytes of digest come with data.
    fn digest_bytes(&self) -> u32 {
        let bytes = self.integrity.as_ref().map_or(0, Hash::digest_bytes);
        u32::try_from(bytes).unwrap_or(0)
    }

    /// Receives the digest in front of data, if there is one.
    fn read_digest(&mut self) -> Result<Digest, ConnectionError> {
        let len = usize::try_from(self.digest_bytes()).map_err(|_| ConnectionError)?;
        Digest::read(len, ConnectionError, |to| self.read(to))
    }

    /// Compares data with the digest that came with it.
    fn verify(
        &mut self,
        device: &Device,
        sector: Sector,
        digest: &Digest,
        data: Segments<'_>,
    ) -> Result<(), ConnectionError> {
        let size = data.len_bytes();
        let Some(hash) = &mut self.integrity else {
            return Ok(());
        };
        let found = hash.digest_segments(data);
        if found.is_ok_and(|found| digest.is(&found)) {
            return Ok(());
        }
        log!(
            Error,
            device,
            "Digest integrity check FAILED: {}s +{}",
            sector,
            size
        );
        Err(ConnectionError)
    }

    /// Receives data, with its digest in front, into pages of its own.
    fn read_data(
        &mut self,
        device: &Device,
        sector: Sector,
        size: u32,
    ) -> Result<Buffer, ConnectionError> {
        let digest = self.read_digest()?;
        let connection = &self.resource.connection;
        let len = usize::try_from(size).map_err(|_| ConnectionError)?;
        let mut buffer = connection
            .account
            .alloc(&connection.pages, len)
            .map_err(|error| {
                if !self.resource.connection.is_interrupted() {
                    log!(
                        Error,
                        device,
                        "no memory for {} bytes: {}",
                        size,
                        error.to_errno()
                    );
                }
                ConnectionError
            })?;
        if let Err(error) = self.reader.read_segments(buffer.segments_mut()) {
            return Err(self.lost(error));
        }
        self.verify(device, sector, &digest, buffer.segments())?;
        Ok(buffer)
    }

    /// The socket gave less than was asked for: says so, where it is news.
    fn lost(&self, error: RecvError) -> ConnectionError {
        let connection = &self.resource.connection;
        if connection.is_interrupted() {
            return ConnectionError;
        }
        match error {
            RecvError::Closed if connection.flags.any(flag::DISCONNECT_SENT) => {
                // The peer closes after it agreed to disconnect; our own state follows in a moment.
                let timeout = connection
                    .config()
                    .map_or(5, |config| config.net.ping_timeo);
                let ends = || connection.is_interrupted();
                if connection
                    .receiver_wait
                    .wait_until_timeout(ends, timeout.saturating_mul(100))
                {
                    return ConnectionError;
                }
                log!(Info, self.resource, "sock was shut down by peer");
            }
            RecvError::Closed => log!(Info, self.resource, "sock was shut down by peer"),
            RecvError::Failed(ECONNRESET) => log!(Info, self.resource, "sock was reset by peer"),
            RecvError::TimedOut { .. } => {
                log!(
                    Error,
                    self.resource,
                    "sock_recvmsg returned {}",
                    EAGAIN.to_errno()
                );
            }
            RecvError::Failed(error) => {
                log!(
                    Error,
                    self.resource,
                    "sock_recvmsg returned {}",
                    error.to_errno()
                );
            }
        }
        self.resource.lose_connection(ConnState::BrokenPipe);
        ConnectionError
    }
}
