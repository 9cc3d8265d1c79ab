// SPDX-License-Identifier: GPL-2.0

//! Every packet that the C driver sent in the recordings means to the engine what it meant to it.

use drbd_engine::handshake::{auth, protocol};
use drbd_engine::types::{BlockId, Sector};
use drbd_engine::wire::{
    check_request, BarrierAck, BlockRequest, Command, Data, Features, Protocol, RequestKind, Sizes,
    StateReply, Trim, Uuids, VerifyResult, Version,
};
use std::collections::BTreeSet;
use wire_tests::conversation::{self, Conversation};
use wire_tests::packet::Packet;

const RECORDINGS: [&str; 5] = ["c-plain", "c-auth-integrity", "a", "b", "split-brain"];

fn all() -> impl Iterator<Item = (&'static str, Conversation)> {
    RECORDINGS.into_iter().flat_map(|name| {
        conversation::read(name)
            .into_iter()
            .map(move |talk| (name, talk))
    })
}

fn packets(talk: &Conversation) -> impl Iterator<Item = &Packet> {
    talk.data.iter().chain(&talk.meta).flatten()
}

fn first(packets: &[Packet], command: Command) -> &Packet {
    packets
        .iter()
        .find(|packet| packet.command == command)
        .expect("the packet is there")
}

#[test]
fn every_packet_comes_back_as_the_same_bytes() {
    let mut commands = BTreeSet::new();
    let mut count = 0;
    for (name, talk) in all() {
        for packet in packets(&talk) {
            let (again, sent) = (packet.encoded_again(), packet.without_stale_bytes());
            assert!(again == sent, "{name}: {packet:?} became {again:?}");
            commands.insert(packet.command.number());
            count += 1;
        }
    }
    println!("{count} packets of {} kinds", commands.len());
    for command in [
        Command::Data,
        Command::RsDataReply,
        Command::Barrier,
        Command::Bitmap,
        Command::CompressedBitmap,
        Command::Protocol,
        Command::SyncParam89,
        Command::SyncUuid,
        Command::CsumRsRequest,
        Command::OvReply,
        Command::RecvAck,
        Command::WriteAck,
        Command::RsWriteAck,
        Command::OvResult,
        Command::Trim,
        Command::ConnStateChangeRequest,
        Command::ConnStateChangeReply,
        Command::StateChangeReply,
        Command::AuthResponse,
    ] {
        assert!(
            commands.contains(&command.number()),
            "{} is in no recording",
            command.name()
        );
    }
}

#[test]
fn a_conversation_begins_with_features_protocol_and_the_volumes_parameters() {
    let mut complete = 0;
    for (name, talk) in all() {
        for packets in &talk.data {
            let order: Vec<Command> = packets
                .iter()
                .map(|packet| packet.command)
                .filter(|command| {
                    let is_auth = matches!(command, Command::AuthChallenge | Command::AuthResponse);
                    *command != Command::InitialData && !is_auth
                })
                .take(6)
                .collect();
            if order.len() < 6 {
                continue;
            }
            let expected = [
                Command::ConnectionFeatures,
                Command::Protocol,
                Command::SyncParam89,
                Command::Sizes,
                Command::Uuids,
                Command::State,
            ];
            assert_eq!(order, expected, "{name}");
            complete += 1;
        }
    }
    // Every recording connects at least twice, and both sides speak.
    assert!(complete >= 4 * RECORDINGS.len(), "only {complete}");
}

#[test]
fn nodes_that_connected_pass_the_check_of_the_protocol() {
    for (name, talk) in all() {
        let [ours, theirs] = talk.data.each_ref().map(|packets| {
            let payload = &first(packets, Command::Protocol).payload;
            Protocol::decode(Version::MAX, payload).expect("a protocol")
        });
        assert_eq!(protocol::check(&ours, &theirs), Ok(()), "{name}");
        let letter = match name {
            "a" => 1,
            "b" => 2,
            _ => 3,
        };
        assert_eq!(ours.protocol, letter, "{name}");
        let integrity = if name == "c-auth-integrity" {
            Some("sha256")
        } else {
            Some("")
        };
        assert_eq!(ours.integrity_algorithm.as_str(), integrity, "{name}");
    }
}

#[test]
fn the_c_drivers_challenges_and_responses_have_the_lengths_we_take() {
    let talks = conversation::read("c-auth-integrity");
    for talk in &talks {
        for (ours, theirs) in [(0, 1), (1, 0)] {
            let challenge = |side: usize| first(&talk.data[side], Command::AuthChallenge);
            let own = challenge(ours)
                .payload
                .as_slice()
                .try_into()
                .expect("64 bytes");
            let begun = auth::AwaitChallenge::new(own);
            let peers = challenge(theirs);
            assert_eq!(begun.check_header(&peers.header), Ok(64));
            let challenged = begun.receive(&peers.payload).expect("not our own");
            let response = first(&talk.data[theirs], Command::AuthResponse);
            assert_eq!(challenged.check_header(&response.header, 32), Ok(()));
        }
    }
    assert!(!talks.is_empty());
}

#[test]
fn every_range_lies_within_the_device_and_the_limits() {
    for (name, talk) in all() {
        let sizes = Sizes::decode(&first(&talk.data[0], Command::Sizes).payload).expect("sizes");
        let capacity = sizes.disk;
        assert_ne!(capacity, Sector(0), "{name}");
        let digest = if name == "c-auth-integrity" { 32 } else { 0 };
        for packet in talk.data.iter().flatten() {
            let head = packet.payload.get(..24).unwrap_or_default();
            let checked = match packet.command {
                Command::Data | Command::RsDataReply => {
                    let data = Data::decode(head).expect("data");
                    let size = Data::body_size(packet.header.length, digest).expect("a body");
                    check_request(data.sector, size, capacity, RequestKind::Data)
                }
                Command::Trim | Command::Zeroes => {
                    let trim = Trim::decode(&packet.payload).expect("a discard");
                    let kind = RequestKind::Discard(Features::OURS);
                    check_request(trim.data.sector, trim.size, capacity, kind)
                }
                Command::RsDataRequest | Command::OvRequest | Command::CsumRsRequest => {
                    let request = BlockRequest::decode(head).expect("a request");
                    assert_eq!(request.block_id, BlockId::SYNCER, "{name}");
                    check_request(request.sector, request.size, capacity, RequestKind::Data)
                }
                _ => Ok(()),
            };
            assert_eq!(checked, Ok(()), "{name}: {}", packet.command.name());
        }
    }
}

/// The writes of each epoch that one side sent, each with the epoch's cookie.
fn epochs(sent: &[Packet]) -> Vec<([u8; 4], u32)> {
    let mut writes = 0;
    let mut epochs = Vec::new();
    for packet in sent {
        match packet.command {
            Command::Data | Command::Trim | Command::Zeroes => writes += 1,
            Command::Barrier => {
                epochs.push((packet.payload[..4].try_into().unwrap(), writes));
                writes = 0;
            }
            _ => {}
        }
    }
    epochs
}

#[test]
fn every_barrier_ack_echoes_its_epoch_and_counts_its_writes() {
    let mut acked = 0;
    for (name, talk) in all() {
        for (writer, replica) in [(0, 1), (1, 0)] {
            let acks: Vec<_> = talk.meta[replica]
                .iter()
                .filter(|packet| packet.command == Command::BarrierAck)
                .map(|packet| BarrierAck::decode(&packet.payload).expect("an ack"))
                .map(|ack| (ack.cookie.0, ack.set_size))
                .collect();
            let epochs = epochs(&talk.data[writer]);
            assert_eq!(epochs.get(..acks.len()), Some(&acks[..]), "{name}");
            acked += acks.len();
        }
    }
    assert!(acked > 100, "only {acked}");
}

#[test]
fn the_verify_finds_the_block_that_was_changed_behind_its_back() {
    let talks = conversation::read("c-auth-integrity");
    let results: Vec<_> = talks
        .iter()
        .flat_map(|talk| talk.meta.iter().flatten())
        .filter(|packet| packet.command == Command::OvResult)
        .map(|packet| u64::from_be_bytes(packet.payload[8..16].try_into().unwrap()))
        .map(|id| VerifyResult::from_block_id(BlockId(id)))
        .collect();
    let different = results
        .iter()
        .filter(|result| **result == VerifyResult::OutOfSync)
        .count();
    assert_eq!(different, 1);
    assert!(results.len() > different);
}

#[test]
fn split_brain_shows_in_the_uuids_and_a_flag_solves_it() {
    let talks = conversation::read("split-brain");
    let uuids: Vec<[Uuids; 2]> = talks
        .iter()
        .map(|talk| {
            talk.data.each_ref().map(|packets| {
                Uuids::decode(&first(packets, Command::Uuids).payload).expect("UUIDs")
            })
        })
        .collect();
    let is_split = |[t, shentar]: &[Uuids; 2]| {
        t.current != shentar.current && t.bitmap != 0 && t.bitmap & !1 == shentar.bitmap & !1
    };
    assert!(uuids.iter().any(is_split));
    let solved = uuids
        .iter()
        .find(|uuids| is_split(uuids) && uuids[1].flags.0 & 1 != 0);
    assert!(solved.is_some(), "Shentar gives up its data");
}

#[test]
fn agreed_state_changes_are_answered_with_a_positive_code() {
    let replies: Vec<i32> = all()
        .flat_map(|(_, talk)| talk.meta.into_iter().flatten())
        .filter(|packet| {
            matches!(
                packet.command,
                Command::ConnStateChangeReply | Command::StateChangeReply
            )
        })
        .map(|packet| StateReply::decode(&packet.payload).expect("a reply").code)
        .collect();
    assert!(!replies.is_empty());
    assert!(replies.iter().filter(|code| **code >= 1).count() * 2 > replies.len());
}
