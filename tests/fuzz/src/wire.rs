// SPDX-License-Identifier: GPL-2.0

//! What a peer sends, as the two receive loops take it: header, rule, fixed part.
//!
//! Two bytes choose version and features, then comes the stream of a socket that a third chooses.

use crate::input::Input;
use drbd_engine::handshake::features;
use drbd_engine::types::Sector;
use drbd_engine::wire::{
    check_request, header, Barrier, BarrierAck, BlockAck, BlockDescriptor, BlockRequest, Command,
    CompressedBitmapHeader, ConnectionFeatures, Data, DelayProbe, Features, Header, PayloadError,
    Protocol, RequestKind, Sizes, Socket, StateReply, StateRequest, StateWord, SyncParam, SyncUuid,
    Trim, Uuids, Version, MAX_FIXED_SIZE,
};

const CAPACITY: Sector = Sector(32688);

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let number = 86 + u32::from(input.u8()) % 16;
    let version = Version::new(number).expect("a version that is spoken");
    let features = Features::from_bits(u32::from(input.u8()));
    let socket = input.pick(&[Socket::Data, Socket::Meta]);
    while let Some(header) = next_header(&mut input, version) {
        let Ok((command, rule)) = header.admit(socket, version, features) else {
            if features::check_header(&header).is_ok() {
                handshake(input.bytes(ConnectionFeatures::SIZE));
            }
            return;
        };
        assert!(rule.fixed <= header.length && header.length <= rule.max);
        assert!(rule.fixed as usize <= MAX_FIXED_SIZE);
        let payload = input.bytes(header.length as usize);
        if payload.len() < header.length as usize {
            return;
        }
        decode(version, features, command, payload, rule.fixed as usize);
    }
}

fn next_header(input: &mut Input<'_>, version: Version) -> Option<Header> {
    let front = input.bytes(header::size(version));
    let header = header::decode(version, front).ok()?;
    if let Some(command) = Command::from_u16(header.command) {
        // What is sent back the same way is the same header.
        let mut again = [0; header::MAX_SIZE];
        let size = header::encode(version, header.volume, command, header.length, &mut again);
        assert_eq!(header::decode(version, &again[..size]), Ok(header));
    }
    Some(header)
}

fn handshake(payload: &[u8]) {
    if let Ok(offer) = ConnectionFeatures::decode(payload) {
        if let Ok(agreement) = features::negotiate(&offer) {
            assert!((86..=101).contains(&agreement.version.number()));
        }
    }
}

/// Decodes a payload, as far as its command has one. What is well formed is the same once it was
/// encoded again.
fn decode(version: Version, features: Features, command: Command, payload: &[u8], fixed: usize) {
    let front = &payload[..fixed];
    match command {
        Command::Data | Command::DataReply | Command::RsDataReply => {
            let data = Data::decode(front).expect("its size was checked");
            assert_eq!(Data::decode(&data.encode()), Ok(data));
            let size = (payload.len() - fixed) as u32;
            in_range(data.sector, size, RequestKind::Data);
        }
        Command::Trim | Command::Zeroes => {
            let trim = Trim::decode(front).expect("its size was checked");
            assert_eq!(Trim::decode(&trim.encode()), Ok(trim));
            in_range(trim.data.sector, trim.size, RequestKind::Discard(features));
        }
        Command::OutOfSync | Command::RsDeallocated => {
            let blocks = BlockDescriptor::decode(front).expect("its size was checked");
            in_range(blocks.sector, blocks.size, RequestKind::Discard(features));
        }
        Command::DataRequest
        | Command::RsDataRequest
        | Command::RsThinRequest
        | Command::OvRequest
        | Command::OvReply
        | Command::CsumRsRequest => {
            let request = BlockRequest::decode(front).expect("its size was checked");
            assert_eq!(BlockRequest::decode(&request.encode()), Ok(request));
            in_range(request.sector, request.size, RequestKind::Data);
        }
        Command::Protocol | Command::ProtocolUpdate => {
            if let Ok(protocol) = Protocol::decode(version, payload) {
                let mut again = [0; Protocol::MAX_SIZE];
                let length = protocol.encode(version, &mut again);
                assert_eq!(Protocol::decode(version, &again[..length]), Ok(protocol));
            }
        }
        Command::SyncParam | Command::SyncParam89 => {
            if let Ok(parameters) = SyncParam::decode(version, payload) {
                let mut again = [0; SyncParam::MAX_SIZE];
                let length = parameters.encode(version, &mut again);
                assert_eq!(SyncParam::decode(version, &again[..length]), Ok(parameters));
            }
        }
        Command::Sizes => {
            let sizes = Sizes::decode(payload).expect("its size was checked");
            let mut again = [0; Sizes::MAX_SIZE];
            let length = sizes.encode(&mut again);
            assert_eq!(Sizes::decode(&again[..length]), Ok(sizes));
        }
        Command::CompressedBitmap => {
            if let Ok(header) = CompressedBitmapHeader::decode(payload[0]) {
                assert_eq!(CompressedBitmapHeader::decode(header.encode()), Ok(header));
            }
        }
        Command::Uuids => is_decoded(Uuids::decode(front)),
        Command::State => is_decoded(StateWord::decode(front)),
        Command::StateChangeRequest | Command::ConnStateChangeRequest => {
            is_decoded(StateRequest::decode(front));
        }
        Command::StateChangeReply | Command::ConnStateChangeReply => {
            is_decoded(StateReply::decode(front));
        }
        Command::SyncUuid => is_decoded(SyncUuid::decode(front)),
        Command::Barrier => is_decoded(Barrier::decode(front)),
        Command::BarrierAck => is_decoded(BarrierAck::decode(front)),
        Command::DelayProbe => is_decoded(DelayProbe::decode(front)),
        Command::Bitmap | Command::UnplugRemote | Command::Ping | Command::PingAck => {}
        _ => is_decoded(BlockAck::decode(front)),
    }
}

fn is_decoded<T>(decoded: Result<T, PayloadError>) {
    assert!(decoded.is_ok(), "its size was checked");
}

fn in_range(sector: Sector, size: u32, kind: RequestKind) {
    if check_request(sector, size, CAPACITY, kind).is_ok() {
        assert!(size > 0 && size % 512 == 0);
        assert!(sector.0 + u64::from(size / 512) <= CAPACITY.0);
    }
}
