// SPDX-License-Identifier: GPL-2.0

//! Packets that are wrong in one way or another, or right but out of place.

use super::rng::Rng;
use drbd_engine::types::{BlockId, Sector};
use drbd_engine::wire::{
    Barrier, BarrierAck, BarrierCookie, BlockAck, BlockDescriptor, BlockRequest, Command, Data,
    DataFlags, Features, Socket, StateReply, Trim, Version,
};

/// What is known of the module, so that lies come close to the truth.
#[derive(Default)]
pub(crate) struct Seen {
    /// Sectors of its device.
    pub(crate) capacity: u64,
    /// Its writes and reads: cookie, sector, size.
    pub(crate) requests: Vec<(u64, u64, u32)>,
    /// Blocks that it asked for.
    pub(crate) asked: Vec<(u64, u32)>,
    /// Barriers that it sent: the cookie, and how many writes came before.
    pub(crate) barriers: Vec<([u8; 4], u32)>,
    /// Its writes since the last barrier.
    pub(crate) writes: u32,
    /// Its generations.
    pub(crate) uuids: Option<drbd_engine::wire::Uuids>,
    /// Its state.
    pub(crate) state: u32,
    /// The barrier ack of the module that was due is here, and the like: packets by command.
    pub(crate) counts: std::collections::BTreeMap<u16, u32>,
}

/// A packet to be sent.
pub(crate) struct Crafted {
    pub(crate) socket: Socket,
    pub(crate) bytes: Vec<u8>,
    /// What it is, for whoever looks for the reason.
    pub(crate) name: String,
}

/// What the two sides agreed on.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    pub(crate) features: Features,
    /// Bytes of digest in front of data.
    pub(crate) digest: usize,
}

/// One number in so many is chosen to be refused, or nearly so: else no connection would live long
/// enough to see what comes after.
const FAIR: u64 = 60;

fn sector(rng: &mut Rng, seen: &Seen) -> Sector {
    let capacity = seen.capacity.max(8);
    Sector(match rng.below(FAIR) {
        0 => capacity,
        1 => capacity - 1,
        2 => u64::MAX,
        3 => u64::MAX / 512,
        4 => 1 << 63,
        5 => rng.next(),
        _ => rng.below(capacity / 8) * 8,
    })
}

fn size(rng: &mut Rng) -> u32 {
    match rng.below(FAIR) {
        0 => 0,
        1 => 511,
        2 => 1 << 20,
        3 => (1 << 20) + 512,
        4 => 128 << 20,
        5 => u32::MAX,
        6 => rng.next() as u32,
        7 => 512,
        8 => 32768,
        _ => 4096,
    }
}

fn block_id(rng: &mut Rng, seen: &Seen) -> BlockId {
    BlockId(match (rng.below(6), seen.requests.last()) {
        (0, _) => u64::MAX,
        (1, _) => rng.next(),
        (2, _) => rng.below(64),
        (3, Some((id, ..))) => id.wrapping_add(1),
        (4, Some((id, ..))) => id ^ 1 << rng.below(64),
        (_, Some((id, ..))) => *id,
        (_, None) => 0,
    })
}

/// Blocks that the module knows of, or that it does not.
fn known_blocks(rng: &mut Rng, seen: &Seen) -> (BlockId, Sector, u32) {
    if rng.one_in(2) && !seen.requests.is_empty() {
        let (id, sector, size) = rng.pick(&seen.requests);
        return (BlockId(id), Sector(sector), size);
    }
    if rng.one_in(2) && !seen.asked.is_empty() {
        let (sector, size) = rng.pick(&seen.asked);
        return (BlockId::SYNCER, Sector(sector), size);
    }
    (block_id(rng, seen), sector(rng, seen), size(rng))
}

/// A word of state, mostly one of all meanings.
pub(crate) fn state_word(rng: &mut Rng) -> u32 {
    let role = rng.below(4);
    let conn = if rng.one_in(4) {
        rng.below(32)
    } else {
        10 + rng.below(14)
    };
    let (disk, pdsk) = (rng.below(16), rng.below(16));
    let word = role | rng.below(4) << 2 | conn << 4 | disk << 9 | pdsk << 13;
    let flags = if rng.one_in(3) {
        rng.below(64) << 17
    } else {
        0
    };
    let rest = if rng.one_in(20) { rng.next() << 23 } else { 0 };
    (word | flags | rest) as u32
}

/// The fixed part of a command's payload, full of lies.
fn payload(rng: &mut Rng, seen: &Seen, terms: Terms, command: Command) -> Vec<u8> {
    let seq_num = rng.below(8) as u32;
    match command {
        Command::Data | Command::DataReply | Command::RsDataReply => {
            let (id, at, size) = known_blocks(rng, seen);
            let flags = DataFlags(rng.next() as u32 & 0x7ff);
            let data = Data {
                sector: at,
                block_id: id,
                seq_num,
                flags,
            };
            let body = match rng.below(4) {
                0 => 4096,
                1 => rng.below(8192) as usize,
                _ => (size as usize).min(64 * 1024),
            };
            let digest = rng.bytes(terms.digest);
            [&data.encode()[..], &digest, &vec![0x5a; body]].concat()
        }
        Command::Trim | Command::Zeroes | Command::WriteSame => {
            let data = Data {
                sector: sector(rng, seen),
                block_id: block_id(rng, seen),
                seq_num,
                flags: DataFlags(rng.next() as u32 & 0x7ff),
            };
            let size = size(rng);
            Trim { data, size }.encode().to_vec()
        }
        Command::Barrier => Barrier {
            cookie: BarrierCookie((rng.next() as u32).to_ne_bytes()),
        }
        .encode()
        .to_vec(),
        Command::BarrierAck => {
            let (cookie, count) = match seen.barriers.last() {
                Some(last) if rng.one_in(2) => *last,
                _ => ((rng.next() as u32).to_ne_bytes(), rng.next() as u32),
            };
            let set_size = if rng.one_in(2) {
                count
            } else {
                rng.next() as u32
            };
            let cookie = BarrierCookie(cookie);
            BarrierAck { cookie, set_size }.encode().to_vec()
        }
        Command::OutOfSync | Command::RsDeallocated => {
            let (_, sector, size) = known_blocks(rng, seen);
            BlockDescriptor { sector, size }.encode().to_vec()
        }
        Command::DataRequest
        | Command::RsDataRequest
        | Command::RsThinRequest
        | Command::OvRequest
        | Command::OvReply
        | Command::CsumRsRequest => {
            let block_id = if rng.one_in(2) {
                BlockId::SYNCER
            } else {
                block_id(rng, seen)
            };
            let (_, sector, size) = known_blocks(rng, seen);
            let request = BlockRequest {
                sector,
                block_id,
                size,
            };
            let digest = match command {
                Command::OvReply | Command::CsumRsRequest => rng.below(65) as usize,
                _ => 0,
            };
            [&request.encode()[..], &rng.bytes(digest)].concat()
        }
        Command::State => state_word(rng).to_be_bytes().to_vec(),
        Command::StateChangeRequest | Command::ConnStateChangeRequest => {
            let mask = match rng.below(4) {
                0 => u32::MAX,
                1 => rng.next() as u32,
                2 => 3,
                _ => 0x1f << 4,
            };
            [mask.to_be_bytes(), state_word(rng).to_be_bytes()].concat()
        }
        Command::StateChangeReply | Command::ConnStateChangeReply => StateReply {
            code: if rng.one_in(2) {
                rng.next() as i32
            } else {
                rng.below(30) as i32 - 25
            },
        }
        .encode()
        .to_vec(),
        Command::Uuids => {
            let own = seen.uuids.unwrap_or_default();
            let known = [
                own.current,
                own.bitmap,
                own.history[0],
                own.history[1],
                4,
                0,
            ];
            let mut bytes = Vec::new();
            for _ in 0..4 {
                let uuid = if rng.one_in(3) {
                    rng.next()
                } else {
                    rng.pick(&known)
                };
                bytes.extend(uuid.to_be_bytes());
            }
            bytes.extend(rng.next().to_be_bytes());
            bytes.extend(rng.below(16).to_be_bytes());
            bytes
        }
        Command::Sizes => sizes(rng, seen, terms),
        Command::SyncUuid => rng.next().to_be_bytes().to_vec(),
        Command::SyncParam | Command::SyncParam89 => sync_param(rng, terms.version),
        Command::Protocol | Command::ProtocolUpdate => protocol(rng),
        Command::Bitmap => {
            let words = seen.capacity.div_ceil(8).div_ceil(64) as usize * 8;
            let length = match rng.below(4) {
                0 => 0,
                1 => rng.below(4100) as usize,
                _ => words.min(4080),
            };
            rng.bytes(length)
        }
        Command::CompressedBitmap => {
            let head = match rng.below(3) {
                0 => rng.next() as u8,
                _ => 2 | (rng.below(2) as u8) << 7 | (rng.below(8) as u8) << 4,
            };
            let length = match rng.below(4) {
                0 => 0,
                1 => rng.below(4090) as usize,
                _ => rng.below(12) as usize,
            };
            [&[head], &rng.bytes(length)[..]].concat()
        }
        Command::AuthChallenge | Command::AuthResponse => {
            let length = rng.below(140) as usize;
            rng.bytes(length)
        }
        Command::ConnectionFeatures => rng.bytes(72),
        Command::DelayProbe => rng.bytes(8),
        Command::Ping
        | Command::PingAck
        | Command::UnplugRemote
        | Command::InitialData
        | Command::InitialMeta
        | Command::BecomeSyncSource
        | Command::BecomeSyncTarget => Vec::new(),
        _ => {
            let (block_id, sector, size) = known_blocks(rng, seen);
            let ack = BlockAck {
                sector,
                block_id,
                size,
                seq_num,
            };
            ack.encode().to_vec()
        }
    }
}

fn sizes(rng: &mut Rng, seen: &Seen, terms: Terms) -> Vec<u8> {
    let sectors = |rng: &mut Rng| match rng.below(6) {
        0 => 0,
        1 => rng.next(),
        2 => u64::MAX,
        3 => seen.capacity.wrapping_sub(8),
        _ => seen.capacity,
    };
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend(sectors(rng).to_be_bytes());
    }
    let bio = if rng.one_in(2) {
        1 << 20
    } else {
        rng.next() as u32
    };
    bytes.extend(bio.to_be_bytes());
    bytes.extend((rng.below(3) as u16).to_be_bytes());
    bytes.extend((rng.below(4) as u16).to_be_bytes());
    if terms.features.contains(Features::WRITE_SAME) {
        bytes.extend(rng.bytes(24));
    }
    bytes
}

fn sync_param(rng: &mut Rng, version: Version) -> Vec<u8> {
    let mut bytes = match version.number() {
        95.. => vec![0; 148],
        89..=94 => vec![0; 132],
        88 => {
            let length = 5 + rng.below(70) as usize;
            vec![0; length]
        }
        _ => vec![0; 4],
    };
    bytes[..4].copy_from_slice(&(rng.next() as u32).to_be_bytes());
    let name: &[u8] = rng.pick(&[&b"sha1"[..], b"no-such-hash", b"crc32c", b""]);
    if bytes.len() > 4 + name.len() {
        bytes[4..4 + name.len()].copy_from_slice(name);
    }
    if bytes.len() >= 148 {
        let numbers = rng.bytes(16);
        bytes[132..148].copy_from_slice(&numbers);
    }
    if rng.one_in(4) && bytes.len() > 4 {
        bytes[4..].fill(b'x');
    }
    bytes
}

fn protocol(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, usual) in [3u32, 0, 0, 0, 0, 0].into_iter().enumerate() {
        let odd = rng.one_in(8) || at == 0 && rng.one_in(4);
        let number = if odd {
            rng.next() as u32 >> rng.below(32)
        } else {
            usual
        };
        bytes.extend(number.to_be_bytes());
    }
    let name: &[u8] = rng.pick(&[
        &b"\0"[..],
        b"sha1\0",
        b"no-such-hash\0",
        b"unterminated",
        b"",
        &[b'x'; 80],
    ]);
    bytes.extend(name);
    bytes
}

/// Commands that an established connection may see; those that most often end it, and the others,
/// now and then.
fn command(rng: &mut Rng) -> Command {
    const LIKELY: [Command; 18] = [
        Command::Data,
        Command::Data,
        Command::Trim,
        Command::Zeroes,
        Command::Barrier,
        Command::DataRequest,
        Command::RsDataRequest,
        Command::RsThinRequest,
        Command::CsumRsRequest,
        Command::OutOfSync,
        Command::Sizes,
        Command::Uuids,
        Command::State,
        Command::SyncParam89,
        Command::StateChangeRequest,
        Command::StateChangeReply,
        Command::ProtocolUpdate,
        Command::Ping,
    ];
    const ENDING: [Command; 12] = [
        Command::DataReply,
        Command::RsDataReply,
        Command::RsDeallocated,
        Command::SyncUuid,
        Command::Bitmap,
        Command::CompressedBitmap,
        Command::RecvAck,
        Command::WriteAck,
        Command::RsWriteAck,
        Command::NegAck,
        Command::NegRsDReply,
        Command::BarrierAck,
    ];
    match rng.below(40) {
        0 => rng.pick(Command::ALL),
        1..=4 => rng.pick(&ENDING),
        _ => rng.pick(&LIKELY),
    }
}

/// A packet for an established connection, or a part of one.
pub(crate) fn packet(rng: &mut Rng, seen: &Seen, terms: Terms) -> Crafted {
    let command = command(rng);
    let payload = payload(rng, seen, terms, command);
    let right_socket = if command.travels_on(Socket::Data) {
        Socket::Data
    } else {
        Socket::Meta
    };
    let socket = match (rng.one_in(200), right_socket) {
        (false, socket) => socket,
        (true, Socket::Data) => Socket::Meta,
        (true, Socket::Meta) => Socket::Data,
    };
    let mut name = format!("{} of {} bytes", command.name(), payload.len());
    let mut length = payload.len() as u32;
    let mut number = command.number();
    let mut volume = 0;
    let mut pad = 0;
    let mut payload = payload;
    // Half of the packets are well formed, and wrong in what they say.
    match rng.below(200) {
        0 => length = length.wrapping_add(1),
        1 => length = length.wrapping_sub(1),
        2 => length = u32::MAX,
        3 => length = 1 << 20,
        4 => length = rng.next() as u32,
        5 => number = rng.next() as u16,
        6 => number = 0x24 + rng.below(0x40) as u16,
        7 => volume = rng.pick(&[1, 2, 0x7fff, 0xfffe, 0xffff]),
        8 => pad = rng.next() as u32,
        9 => {
            let cut = rng.below(payload.len() as u64 + 1) as usize;
            payload.truncate(cut);
            length = cut as u32;
        }
        10 => {
            let more = rng.below(64) as usize;
            payload.extend(rng.bytes(more));
            length = payload.len() as u32;
        }
        11 if !payload.is_empty() => {
            let at = rng.below(payload.len() as u64) as usize;
            payload[at] ^= 1 << rng.below(8);
        }
        _ => {}
    }
    if length as usize != payload.len() || number != command.number() || volume != 0 || pad != 0 {
        name += &format!(" (header: {number:#x}, {length} bytes, volume {volume}, pad {pad:#x})");
    }
    let bytes = [header(terms.version, volume, number, length, pad), payload].concat();
    Crafted {
        socket,
        bytes,
        name,
    }
}

/// A header with any content.
fn header(version: Version, volume: u16, command: u16, length: u32, pad: u32) -> Vec<u8> {
    if version.has_volumes() {
        let front = 0x8620_ec20u32.to_be_bytes();
        return [
            &front[..],
            &volume.to_be_bytes(),
            &command.to_be_bytes(),
            &length.to_be_bytes(),
            &pad.to_be_bytes(),
        ]
        .concat();
    }
    match u16::try_from(length) {
        Ok(short) if length <= 32768 && pad == 0 => [
            &0x8374_0267u32.to_be_bytes()[..],
            &command.to_be_bytes(),
            &short.to_be_bytes(),
        ]
        .concat(),
        _ => [
            &0x835au16.to_be_bytes()[..],
            &command.to_be_bytes(),
            &length.to_be_bytes(),
        ]
        .concat(),
    }
}
