// SPDX-License-Identifier: GPL-2.0

//! The two sockets of each DRBD connection in a recording.

use crate::capture::{self, TcpConnection};
use crate::packet::Packet;
use drbd_engine::handshake::features::{self, Agreement};
use drbd_engine::wire::{Command, ConnectionFeatures, Features, Socket, Version};
use std::path::Path;

/// The node `t`.
pub const T: [u8; 4] = [192, 0, 2, 1];
/// The node `Shentar`.
pub const SHENTAR: [u8; 4] = [192, 0, 2, 2];

/// What went over the two sockets of one DRBD connection, first packets and all.
#[derive(Default)]
pub struct Conversation {
    /// The data socket, as `t` and as `Shentar` sent.
    pub data: [Vec<Packet>; 2],
    /// The meta socket, as `t` and as `Shentar` sent.
    pub meta: [Vec<Packet>; 2],
}

/// The conversations of a recording.
///
/// # Panics
///
/// For anything the engine refuses.
pub fn read(name: &str) -> Vec<Conversation> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("captures/{name}.pcap.gz"));
    let mut conversations: Vec<Conversation> = Vec::new();
    for connection in capture::read(&file) {
        let Some(first) = first_command(&connection) else {
            continue;
        };
        let socket = if first == Command::InitialData {
            Socket::Data
        } else {
            Socket::Meta
        };
        let packets = match socket {
            Socket::Data => data_packets(&connection),
            Socket::Meta => meta_packets(&connection),
        };
        let by_node = if connection.caller.0 == T {
            packets
        } else {
            let [from_caller, from_called] = packets;
            [from_called, from_caller]
        };
        let is_taken = |conversation: &Conversation| match socket {
            Socket::Data => conversation.data.iter().any(|packets| !packets.is_empty()),
            Socket::Meta => conversation.meta.iter().any(|packets| !packets.is_empty()),
        };
        if conversations.last().is_none_or(is_taken) {
            conversations.push(Conversation::default());
        }
        let conversation = conversations.last_mut().expect("there is one");
        match socket {
            Socket::Data => conversation.data = by_node,
            Socket::Meta => conversation.meta = by_node,
        }
    }
    conversations
}

fn first_command(connection: &TcpConnection) -> Option<Command> {
    let mut stream = &connection.from_caller[..];
    Packet::take(&mut stream, Socket::Data, Version::ASSUMED, Features::NONE)
        .map(|packet| packet.command)
}

fn data_packets(connection: &TcpConnection) -> [Vec<Packet>; 2] {
    let mut streams = [&connection.from_caller[..], &connection.from_called[..]];
    let mut packets = [Vec::new(), Vec::new()];
    let early =
        |stream: &mut &[u8]| Packet::take(stream, Socket::Data, Version::ASSUMED, Features::NONE);
    packets[0].extend(early(&mut streams[0]));
    for side in [0, 1] {
        let Some(offer) = early(&mut streams[side]) else {
            return packets;
        };
        let Agreement { version, features } = agreement(&offer);
        packets[side].push(offer);
        while let Some(packet) = Packet::take(&mut streams[side], Socket::Data, version, features) {
            packets[side].push(packet);
        }
        assert_eq!(streams[side], [], "the stream ends with a packet");
    }
    packets
}

/// What a peer that gets this offer agrees to; equal on both sides, as all our nodes are alike.
fn agreement(offer: &Packet) -> Agreement {
    features::check_header(&offer.header).expect("the features come first");
    let offer = ConnectionFeatures::decode(&offer.payload).expect("an offer");
    features::negotiate(&offer).expect("a common version")
}

fn meta_packets(connection: &TcpConnection) -> [Vec<Packet>; 2] {
    let mut streams = [&connection.from_caller[..], &connection.from_called[..]];
    let mut packets = [Vec::new(), Vec::new()];
    packets[0].extend(Packet::take(
        &mut streams[0],
        Socket::Meta,
        Version::ASSUMED,
        Features::NONE,
    ));
    for side in [0, 1] {
        while let Some(packet) = Packet::take(
            &mut streams[side],
            Socket::Meta,
            Version::MAX,
            Features::OURS,
        ) {
            packets[side].push(packet);
        }
        assert_eq!(streams[side], [], "the stream ends with a packet");
    }
    packets
}
