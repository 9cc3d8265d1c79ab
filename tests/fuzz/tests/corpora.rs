// SPDX-License-Identifier: GPL-2.0

//! Every input of the corpora, by the targets they are for; and where the seeds came from.

use drbd_engine::wire::{Features, Socket};
use std::fs;
use std::path::{Path, PathBuf};
use wire_tests::conversation;
use wire_tests::packet::Packet;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

#[test]
fn every_input_of_the_corpora_is_taken() {
    for (name, run) in drbd_fuzz::TARGETS {
        let inputs = fs::read_dir(corpus(name)).expect("a corpus for each target");
        let mut count = 0;
        for input in inputs {
            let path = input.expect("a readable corpus").path();
            run(&fs::read(&path).expect("a readable input"));
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}

/// Writes the seeds anew out of the recordings of other tests.
#[test]
#[ignore = "changes the checkout"]
fn write_the_seeds() {
    for name in ["c-plain", "c-auth-integrity", "a", "b", "split-brain"] {
        for (number, talk) in conversation::read(name).iter().enumerate().take(2) {
            for (socket, sides) in [(Socket::Data, &talk.data), (Socket::Meta, &talk.meta)] {
                for (side, packets) in sides.iter().enumerate() {
                    let file = format!("{name}-{number}-{socket:?}-{side}").to_lowercase();
                    seed_wire(&file, socket, packets);
                    seed_bitmap(&file, packets);
                    seed_peer(&file, packets);
                }
            }
        }
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/data");
    for name in ["metadata-fresh.bin", "metadata-after-down.bin"] {
        let recording = fs::read(data.join(name)).expect("the recording is there");
        // The super block of a disk of 16 MiB is its last 4 KiB; the log is in front of it.
        let (rest, superblock) = recording.split_at(recording.len() - 4096);
        let log = &rest[rest.len() - 8 * 4096..];
        let front = [&[3][..], &32768u64.to_le_bytes(), &[0, 1]].concat();
        write("metadata", name, &[&front, superblock, log].concat());
    }
    let status = fs::read(data.join("netlink-status.bin")).expect("the recording is there");
    write("netlink", "status", &status);
    let states = fs::read(data.join("netlink-initial-state.bin")).expect("the recording is there");
    for (number, message) in messages(&states).enumerate() {
        write("netlink", &format!("initial-state-{number}"), message);
    }
    let good =
        "resource r0 {\n  protocol C;\n  net { cram-hmac-alg sha1; shared-secret \"x\"; }\n  \
                on t { device /dev/drbd0; disk /dev/vda; address 192.0.2.1:7788; meta-disk \
                internal; }\n  on u { volume 0 { device minor 0; disk /dev/vdb; meta-disk /dev/vdc \
                [0]; }\n  address ipv6 [fe80::1]:7788; }\n}\n";
    write("conf", "good", good.as_bytes());
    let broken = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/adm/tests/broken");
    for entry in fs::read_dir(broken).expect("broken files") {
        let path = entry.expect("a readable folder").path();
        if let Some((name, "conf")) = path
            .file_name()
            .and_then(|name| name.to_str()?.rsplit_once('.'))
        {
            write("conf", name, &fs::read(&path).expect("a readable file"));
        }
    }
}

/// The messages of a recording, from the user header on: its format is told where it lies.
fn messages(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = stream.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        stream = rest;
        message.get(4..)
    })
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = corpus(target);
    fs::create_dir_all(&folder).expect("a folder");
    let mut known = fs::read_dir(&folder).expect("a folder").flatten();
    if known.any(|entry| fs::read(entry.path()).is_ok_and(|content| content == bytes)) {
        return;
    }
    fs::write(folder.join(name), bytes).expect("a file");
}

fn front(socket: Socket) -> [u8; 3] {
    let features = Features::OURS.bits() as u8;
    [101 - 86, features, u8::from(socket == Socket::Meta)]
}

fn seed_wire(file: &str, socket: Socket, packets: &[Packet]) {
    let mut bytes = front(socket).to_vec();
    let mut seen = Vec::new();
    for packet in packets
        .iter()
        .filter(|packet| packet.version.number() == 101)
    {
        // One packet of each command, and none that is long.
        let is_new = !seen.contains(&packet.command);
        if is_new && packet.bytes.len() < 1024 && packet.header.command < 0xff00 {
            seen.push(packet.command);
            bytes.extend(&packet.bytes);
        }
    }
    if bytes.len() > 3 {
        write("wire", file, &bytes);
    }
}

fn seed_bitmap(file: &str, packets: &[Packet]) {
    let mut bytes = (4085u64 - 1).to_le_bytes().to_vec();
    bytes.push(1);
    let before = bytes.len();
    for packet in packets {
        let compressed = match packet.command {
            drbd_engine::wire::Command::Bitmap => 0,
            drbd_engine::wire::Command::CompressedBitmap => 1,
            _ => continue,
        };
        bytes.push(compressed);
        bytes.extend((packet.payload.len() as u64).to_le_bytes());
        bytes.extend(&packet.payload);
    }
    if bytes.len() > before {
        write("bitmap", file, &bytes);
    }
}

fn seed_peer(file: &str, packets: &[Packet]) {
    use drbd_engine::wire::Command;
    for (index, packet) in packets.iter().enumerate() {
        let kind = match packet.command {
            Command::Protocol => 0,
            Command::SyncParam89 => 1,
            Command::Sizes => 2,
            Command::Uuids => 3,
            Command::StateChangeRequest => 4,
            _ => continue,
        };
        if index > 12 {
            break;
        }
        let own_state = 0x8000u64 | 10 << 4 | 8 << 9 | 2;
        let mut bytes = vec![101 - 86];
        bytes.extend(own_state.to_le_bytes());
        bytes.push(kind);
        match kind {
            0 | 3 => {
                bytes.extend(&packet.payload);
                bytes.resize(10 + if kind == 0 { 88 } else { 48 }, 0);
                bytes.extend(&packet.payload);
            }
            1 => {
                bytes.push(1);
                bytes.extend(&packet.payload);
            }
            2 => {
                bytes.extend([0x60, 0x7f, 0, 0, 0, 0, 0, 0].repeat(4));
                bytes.extend(&packet.payload);
            }
            _ => bytes.extend(&packet.payload),
        }
        write("peer", &format!("{file}-{index}"), &bytes);
    }
}
