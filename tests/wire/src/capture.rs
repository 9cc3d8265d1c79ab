// SPDX-License-Identifier: GPL-2.0

//! Pcap frames, put together to TCP streams.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// One end of a TCP connection: IPv4 address and port.
pub type Endpoint = ([u8; 4], u16);

/// A TCP connection, with what each side sent.
pub struct TcpConnection {
    /// Who called.
    pub caller: Endpoint,
    /// Who was called.
    pub called: Endpoint,
    /// What the caller sent.
    pub from_caller: Vec<u8>,
    /// What the called one sent.
    pub from_called: Vec<u8>,
}

struct Segment<'a> {
    from: Endpoint,
    to: Endpoint,
    sequence: u32,
    is_syn: bool,
    is_ack: bool,
    payload: &'a [u8],
}

/// The bytes of one direction, by their distance from its first.
#[derive(Default)]
struct Direction {
    first: Option<u32>,
    pieces: BTreeMap<u32, Vec<u8>>,
}

/// The TCP connections of a recording, in the order of their calls.
pub fn read(path: &Path) -> Vec<TcpConnection> {
    let mut pcap = Vec::new();
    let file = std::fs::File::open(path).expect("the recording is there");
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut pcap)
        .expect("the recording is whole");
    assert_eq!(
        pcap[..4],
        0xa1b2_c3d4u32.to_le_bytes(),
        "little endian, microseconds"
    );

    let mut connections: Vec<(Endpoint, Endpoint, [Direction; 2])> = Vec::new();
    for segment in frames(&pcap[24..]).filter_map(segment) {
        if segment.is_syn && !segment.is_ack {
            let directions = [Direction::default(), Direction::default()];
            let again = connections.iter().any(|(caller, _, directions)| {
                *caller == segment.from && directions[0].first == Some(segment.sequence + 1)
            });
            if !again {
                connections.push((segment.from, segment.to, directions));
            }
        }
        let newest = connections
            .iter_mut()
            .rev()
            .find_map(|(caller, called, directions)| {
                if (*caller, *called) == (segment.from, segment.to) {
                    Some(&mut directions[0])
                } else if (*called, *caller) == (segment.from, segment.to) {
                    Some(&mut directions[1])
                } else {
                    None
                }
            });
        if let Some(direction) = newest {
            direction.add(&segment);
        }
    }
    connections
        .into_iter()
        .map(
            |(caller, called, [from_caller, from_called])| TcpConnection {
                caller,
                called,
                from_caller: from_caller.bytes(),
                from_called: from_called.bytes(),
            },
        )
        .collect()
}

impl Direction {
    fn add(&mut self, segment: &Segment<'_>) {
        if segment.is_syn {
            self.first = Some(segment.sequence.wrapping_add(1));
        } else if let Some(first) = self.first {
            let offset = segment.sequence.wrapping_sub(first);
            // A keepalive repeats the byte before.
            if offset < 1 << 31 && !segment.payload.is_empty() {
                let piece = self.pieces.entry(offset).or_default();
                if piece.len() < segment.payload.len() {
                    *piece = segment.payload.to_vec();
                }
            }
        }
    }

    /// The stream up to its end or to the first byte that was not recorded.
    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, piece) in self.pieces {
            let offset = usize::try_from(offset).unwrap();
            if offset > bytes.len() {
                break;
            }
            if let Some(fresh) = piece.get(bytes.len() - offset..) {
                bytes.extend_from_slice(fresh);
            }
        }
        bytes
    }
}

fn frames(mut records: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_le_bytes(records.get(8..12)?.try_into().ok()?);
        let (frame, rest) = records.get(16..)?.split_at_checked(length as usize)?;
        records = rest;
        Some(frame)
    })
}

/// The TCP segment of an Ethernet frame, if it is one over IPv4.
fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let ip = frame
        .strip_prefix(frame.get(..12)?)?
        .strip_prefix(&[8, 0])?;
    let half = |bytes: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    };
    if *ip.get(9)? != 6 {
        return None;
    }
    let tcp = ip.get(usize::from(ip[0] & 15) * 4..usize::from(half(ip, 2)?))?;
    let flags = *tcp.get(13)?;
    Some(Segment {
        from: (ip.get(12..16)?.try_into().ok()?, half(tcp, 0)?),
        to: (ip.get(16..20)?.try_into().ok()?, half(tcp, 2)?),
        sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
        is_syn: flags & 2 != 0,
        is_ack: flags & 16 != 0,
        payload: tcp.get(usize::from(tcp[12] >> 4) * 4..)?,
    })
}
