// SPDX-License-Identifier: GPL-2.0

//! One packet, decoded by the engine and encoded again.

use drbd_engine::wire::{
    header, Barrier, BarrierAck, BlockAck, BlockDescriptor, BlockRequest, Command,
    CompressedBitmapHeader, ConnectionFeatures, Data, DelayProbe, Features, Header, Protocol,
    Sizes, Socket, StateReply, StateRequest, StateWord, SyncParam, SyncUuid, Trim, Uuids, Version,
};

/// A packet as it was received.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The version its header is of.
    pub version: Version,
    /// Its header.
    pub header: Header,
    /// Its command.
    pub command: Command,
    /// Its payload.
    pub payload: Vec<u8>,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

impl Packet {
    /// Takes the next packet off the front of `stream`; `None` where the stream ends within.
    ///
    /// # Panics
    ///
    /// For anything the engine refuses.
    pub fn take(
        stream: &mut &[u8],
        socket: Socket,
        version: Version,
        features: Features,
    ) -> Option<Self> {
        let (head, rest) = stream.split_at_checked(header::size(version))?;
        let header = header::decode(version, head).unwrap_or_else(|error| panic!("{error}"));
        let command = Command::from_u16(header.command).expect("a known command");
        if !is_of_handshake(command) {
            header
                .admit(socket, version, features)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        let length = usize::try_from(header.length).unwrap();
        let (payload, rest) = rest.split_at_checked(length)?;
        let bytes = stream[..head.len() + length].to_vec();
        *stream = rest;
        Some(Self {
            version,
            header,
            command,
            payload: payload.to_vec(),
            bytes,
        })
    }

    /// The packet as the engine would send it.
    pub fn encoded_again(&self) -> Vec<u8> {
        let mut head = [0; header::MAX_SIZE];
        let size = header::encode(
            self.version,
            self.header.volume,
            self.command,
            self.header.length,
            &mut head,
        );
        let mut bytes = head[..size].to_vec();
        bytes.extend(payload_again(self.version, self.command, &self.payload).expect("decodes"));
        bytes
    }

    /// The packet as it was received, with zeroes where the C driver leaves stale bytes.
    pub fn without_stale_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let pad = match self.command {
            Command::Barrier => 4..8,
            Command::OutOfSync | Command::RsDeallocated => 12..16,
            command if is_block_request(command) => 20..24,
            _ => return bytes,
        };
        let size = header::size(self.version);
        bytes[size + pad.start..size + pad.end].fill(0);
        bytes
    }
}

const fn is_of_handshake(command: Command) -> bool {
    matches!(
        command,
        Command::InitialData
            | Command::InitialMeta
            | Command::ConnectionFeatures
            | Command::AuthChallenge
            | Command::AuthResponse
    )
}

const fn is_block_request(command: Command) -> bool {
    matches!(
        command,
        Command::DataRequest
            | Command::RsDataRequest
            | Command::RsThinRequest
            | Command::OvRequest
            | Command::OvReply
            | Command::CsumRsRequest
    )
}

/// The payload decoded and encoded again, `None` where it is refused. What follows the fixed part
/// (digests, data, bits) passes as it is.
pub fn payload_again(version: Version, command: Command, payload: &[u8]) -> Option<Vec<u8>> {
    let fixed = |size: usize| payload.split_at_checked(size);
    let with_rest = |head: &[u8], rest: &[u8]| Some([head, rest].concat());
    match command {
        Command::Data | Command::DataReply | Command::RsDataReply => {
            let (head, rest) = fixed(Data::SIZE)?;
            with_rest(&Data::decode(head).ok()?.encode(), rest)
        }
        command if is_block_request(command) => {
            let (head, rest) = fixed(BlockRequest::SIZE)?;
            with_rest(&BlockRequest::decode(head).ok()?.encode(), rest)
        }
        Command::CompressedBitmap => {
            let (first, rest) = payload.split_first()?;
            with_rest(
                &[CompressedBitmapHeader::decode(*first).ok()?.encode()],
                rest,
            )
        }
        Command::SyncParam | Command::SyncParam89 => {
            let mut out = [0; SyncParam::MAX_SIZE];
            let length = SyncParam::decode(version, payload)
                .ok()?
                .encode(version, &mut out);
            Some(out[..length].to_vec())
        }
        Command::Protocol | Command::ProtocolUpdate => {
            let mut out = [0; Protocol::MAX_SIZE];
            let length = Protocol::decode(version, payload)
                .ok()?
                .encode(version, &mut out);
            Some(out[..length].to_vec())
        }
        Command::Sizes => {
            let mut out = [0; Sizes::MAX_SIZE];
            let length = Sizes::decode(payload).ok()?.encode(&mut out);
            Some(out[..length].to_vec())
        }
        _ => unchanging_again(command, payload),
    }
}

/// The same for payloads whose length never changes, and for those without a layout.
fn unchanging_again(command: Command, payload: &[u8]) -> Option<Vec<u8>> {
    Some(match command {
        Command::Trim | Command::Zeroes => Trim::decode(payload).ok()?.encode().to_vec(),
        Command::OutOfSync | Command::RsDeallocated => {
            BlockDescriptor::decode(payload).ok()?.encode().to_vec()
        }
        Command::Barrier => Barrier::decode(payload).ok()?.encode().to_vec(),
        Command::BarrierAck => BarrierAck::decode(payload).ok()?.encode().to_vec(),
        Command::DelayProbe => DelayProbe::decode(payload).ok()?.encode().to_vec(),
        Command::SyncUuid => SyncUuid::decode(payload).ok()?.encode().to_vec(),
        Command::Uuids => Uuids::decode(payload).ok()?.encode().to_vec(),
        Command::State => StateWord::decode(payload).ok()?.encode().to_vec(),
        Command::StateChangeRequest | Command::ConnStateChangeRequest => {
            StateRequest::decode(payload).ok()?.encode().to_vec()
        }
        Command::StateChangeReply | Command::ConnStateChangeReply => {
            StateReply::decode(payload).ok()?.encode().to_vec()
        }
        Command::ConnectionFeatures => ConnectionFeatures::decode(payload).ok()?.encode().to_vec(),
        command if command.travels_on(Socket::Meta) && payload.len() == BlockAck::SIZE => {
            BlockAck::decode(payload).ok()?.encode().to_vec()
        }
        Command::Bitmap | Command::AuthChallenge | Command::AuthResponse => payload.to_vec(),
        _ if payload.is_empty() => Vec::new(),
        _ => return None,
    })
}
