// SPDX-License-Identifier: GPL-2.0

//! A peer's bitmap: packets, plain and compressed, for a volume of any size.

use crate::input::Input;
use drbd_engine::bitmap::transfer::{Packet, Receiver, Sender, MAX_PACKET};
use drbd_engine::bitmap::{words_for, Bitmap};
use drbd_engine::types::Sector;
use std::cell::Cell;

const BITS_MAX: u64 = 1 << 17;

fn words(bits: u64) -> Vec<Cell<u64>> {
    vec![Cell::new(0); words_for(bits) as usize]
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let bits = 1 + input.number() % BITS_MAX;
    let header_size = input.pick(&[8, 16]);
    let memory = words(bits);
    let bitmap = Bitmap::new(&memory[..], Sector(bits * 8)).expect("there are words for it");
    let mut receiver = Receiver::new(bits, header_size);
    loop {
        let compressed = input.bool();
        let length = usize::from(input.u16()) % (MAX_PACKET + 1);
        let payload = input.bytes(length);
        let before = bitmap.count();
        let received = if compressed {
            receiver.compressed(&bitmap, payload)
        } else {
            receiver.plain(&bitmap, payload)
        };
        let Ok(received) = received else { break };
        assert_eq!(bitmap.count(), before + received.set);
        if received.complete || input.0.is_empty() {
            break;
        }
    }
    assert!(bitmap.count() <= bits);
    let _ = receiver.saved_permille();
    send_again(&bitmap, bits, header_size, input.bool());
}

/// What was received arrives when it is sent on.
fn send_again(bitmap: &Bitmap<&[Cell<u64>]>, bits: u64, header_size: usize, compress: bool) {
    let memory = words(bits);
    let copy = Bitmap::new(&memory[..], Sector(bits * 8)).expect("there are words for it");
    let mut sender = Sender::new(bits, header_size, compress);
    let mut receiver = Receiver::new(bits, header_size);
    let mut payload = [0; MAX_PACKET];
    let mut is_complete = false;
    while let Some(packet) = sender.next(bitmap, &mut payload) {
        assert!(!is_complete);
        let received = match packet {
            Packet::Plain(length) => receiver.plain(&copy, &payload[..length]),
            Packet::Compressed(length) => receiver.compressed(&copy, &payload[..length]),
        };
        is_complete = received.expect("our own packet").complete;
    }
    assert!(is_complete);
    assert_eq!(copy.count(), bitmap.count());
}
