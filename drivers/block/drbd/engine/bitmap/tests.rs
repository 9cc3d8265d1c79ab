// SPDX-License-Identifier: GPL-2.0

//! The bitmap against a vector of booleans, and its transfer between two nodes.

use super::page::{page_of, pages_for, sectors_for};
use super::transfer::{Packet, Receiver, Sender, TransferError, MAX_PACKET};
use super::*;
use crate::types::ExtentNr;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// The header of protocol 100 and later.
const HEADER: usize = 16;
/// The volume of the recorded conversations: 4086 bits.
const RECORDED: Sector = Sector(32688);

type Map<'a> = Bitmap<&'a [Cell<u64>]>;

fn words(capacity: Sector) -> Vec<Cell<u64>> {
    vec![Cell::new(0); words_for(bits_for(capacity)) as usize]
}

fn bitmap(words: &[Cell<u64>], capacity: Sector) -> Map<'_> {
    Bitmap::new(words, capacity).unwrap()
}

fn set_bits_of<W: Words>(bitmap: &Bitmap<W>) -> Vec<u64> {
    (0..bitmap.bits())
        .filter(|&bit| bitmap.test(BitNr(bit)))
        .collect()
}

#[test]
fn a_volume_has_a_bit_for_every_block_begun() {
    assert_eq!(bits_for(Sector(0)), 0);
    assert_eq!(bits_for(Sector(1)), 1);
    assert_eq!(bits_for(Sector(8)), 1);
    assert_eq!(bits_for(RECORDED), 4086);
    assert_eq!(words_for(4086), 64);
    assert_eq!(pages_for(32768), 1);
    assert_eq!(pages_for(32769), 2);
    assert_eq!(page_of(BitNr(32768)), 1);
    assert_eq!(sectors_for(Sector(262_144 + 1)), 16);
    let words = words(RECORDED);
    assert!(Bitmap::new(&words[..], Sector(64 * 64 * 8)).is_some());
    assert!(Bitmap::new(&words[..], Sector(64 * 64 * 8 + 1)).is_none());
}

#[test]
fn a_range_is_clean_whatever_lies_behind_it() {
    let words = words(RECORDED);
    let bitmap = bitmap(&words, RECORDED);
    bitmap.set_bits(BitNr(70), BitNr(71));
    for (first, end, any) in [
        (0, 70, false),
        (0, 71, true),
        (70, 70, false),
        (70, 71, true),
        (71, 4086, false),
        (71, 9999, false),
    ] {
        assert_eq!(
            bitmap.any_set(BitNr(first), BitNr(end)),
            any,
            "{first}..{end}"
        );
    }
}

#[test]
fn setting_takes_every_block_touched_and_clearing_only_those_covered() {
    let words = words(Sector(84));
    let bitmap = bitmap(&words, Sector(84));
    assert_eq!(bitmap.set_range(Sector(7), 1024), 2);
    assert_eq!(set_bits_of(&bitmap), [0, 1]);
    assert_eq!(bitmap.clear_range(Sector(1), 15 * 512), 1);
    assert_eq!(set_bits_of(&bitmap), [0]);
    assert_eq!(bitmap.clear_range(Sector(0), 7 * 512), 0);
    assert_eq!(bitmap.clear_range(Sector(0), 8 * 512), 1);
    assert_eq!(bitmap.set_range(Sector(3), 0), 0);
}

#[test]
fn the_last_block_is_covered_by_what_there_is_of_it() {
    let words = words(Sector(84));
    let bitmap = bitmap(&words, Sector(84));
    assert_eq!(bitmap.set_range(Sector(83), 1 << 20), 1);
    assert_eq!(set_bits_of(&bitmap), [10]);
    assert_eq!(bitmap.clear_range(Sector(80), 3 * 512), 0);
    assert_eq!(bitmap.clear_range(Sector(81), 3 * 512), 0);
    assert_eq!(bitmap.clear_range(Sector(80), 4 * 512), 1);
    assert_eq!(bitmap.set_range(Sector(84), 512), 0);
    assert_eq!(bitmap.set_range(Sector(u64::MAX), u32::MAX), 0);
    assert_eq!(bitmap.clear_range(Sector(u64::MAX), u32::MAX), 0);
}

#[test]
fn nothing_sets_a_bit_beyond_the_end() {
    let words = words(Sector(84));
    let bitmap = bitmap(&words, Sector(84));
    assert_eq!(bitmap.set_all(), 11);
    assert_eq!(words[0].get(), 0x7ff);
    assert_eq!(bitmap.set_bits(BitNr(11), BitNr(u64::MAX)), 0);
    assert_eq!(bitmap.clear_all(), 11);
    assert_eq!(bitmap.merge_page(0, &[0xff; PAGE_SIZE]), 11);
    assert_eq!(bitmap.merge_page(1, &[0xff; PAGE_SIZE]), 0);
    assert_eq!(bitmap.merge_page(u64::MAX, &[0xff; PAGE_SIZE]), 0);
    assert_eq!(bitmap.or_words(0, [u64::MAX; 3].into_iter()), 0);
    words[0].set(u64::MAX);
    assert!(!bitmap.test(BitNr(11)));
    assert_eq!(bitmap.count(), 11);
    assert_eq!(bitmap.next_set(BitNr(11)), None);
    bitmap.clear_tail();
    assert_eq!(words[0].get(), 0x7ff);
}

#[test]
fn a_page_on_disk_is_little_endian() {
    let capacity = Sector(2 * 32768 * 8);
    let (from, to) = (words(capacity), words(capacity));
    let (from, to) = (bitmap(&from, capacity), bitmap(&to, capacity));
    from.set_bits(BitNr(32768 + 8), BitNr(32768 + 10));
    let mut page = [0xaa; PAGE_SIZE];
    from.export_page(1, &mut page);
    assert_eq!(page[..3], [0, 3, 0]);
    assert!(page[3..].iter().all(|&byte| byte == 0));
    assert_eq!(to.merge_page(1, &page), 2);
    assert_eq!(set_bits_of(&to), [32776, 32777]);
    assert_eq!((to.count_page(0), to.count_page(1)), (0, 2));
    assert_eq!(to.set_extent(ExtentNr(32)), 1022);
    assert_eq!(to.set_extent(ExtentNr(u32::MAX)), 0);
}

#[test]
fn long_ranges_are_whole_words_and_two_edges() {
    let capacity = Sector(8 * 64 * 40);
    for (first, end) in [
        (0, 64 * 40),
        (1, 64 * 40),
        (64, 64 * 40 - 1),
        (63, 64 * 9),
        (65, 64 * 9 + 1),
    ] {
        let words = words(capacity);
        let bitmap = bitmap(&words, capacity);
        assert_eq!(bitmap.set_bits(BitNr(first), BitNr(end)), end - first);
        assert_eq!(set_bits_of(&bitmap), (first..end).collect::<Vec<_>>());
        assert_eq!(bitmap.count(), end - first);
        assert_eq!(
            bitmap.count_bits(BitNr(first + 1), BitNr(end - 1)),
            end - first - 2
        );
        assert_eq!(
            bitmap.clear_bits(BitNr(first + 1), BitNr(end)),
            end - first - 1
        );
        assert_eq!(set_bits_of(&bitmap), [first]);
    }
}

#[test]
fn runs_are_found_and_cut_off() {
    let words = words(Sector(8 * 300));
    let bitmap = bitmap(&words, Sector(8 * 300));
    bitmap.set_bits(BitNr(60), BitNr(200));
    let run = |first, bits| {
        Some(Run {
            first: BitNr(first),
            bits,
        })
    };
    assert_eq!(bitmap.next_run(BitNr(0), u64::MAX), run(60, 140));
    assert_eq!(bitmap.next_run(BitNr(100), 50), run(100, 50));
    assert_eq!(bitmap.next_run(BitNr(200), 50), None);
    assert_eq!(bitmap.next_run(BitNr(0), 0), None);
    bitmap.set_bits(BitNr(290), BitNr(300));
    assert_eq!(bitmap.next_run(BitNr(200), u64::MAX), run(290, 10));
}

#[test]
fn the_recorded_compressed_packets_are_read_and_written_alike() {
    // Whole bitmaps of 4086 bits as the C driver sent them: all set, none set, 18 and 3 set after
    // some writes.
    for (payload, set) in [
        (&[0xb2, 0x3f, 0xc5, 0x0e][..], 4086),
        (&[0x32, 0x3f, 0xc5, 0x0e], 0),
        (
            &[
                0x52, 0x3f, 0xc3, 0xe0, 0x81, 0x1f, 0x4d, 0xc2, 0x0f, 0xbd, 0x01,
            ],
            18,
        ),
        (&[0x12, 0x87, 0xfc, 0xe4, 0x3a], 3),
    ] {
        let words = words(RECORDED);
        let bitmap = bitmap(&words, RECORDED);
        let mut receiver = Receiver::new(4086, HEADER);
        let received = receiver.compressed(&bitmap, payload).unwrap();
        assert_eq!((received.set, received.complete), (set, true));
        let mut sender = Sender::new(4086, HEADER, true);
        let mut buffer = [0xaa; MAX_PACKET];
        let packet = sender.next(&bitmap, &mut buffer);
        assert_eq!(packet, Some(Packet::Compressed(payload.len())));
        assert_eq!(&buffer[..payload.len()], payload);
        assert_eq!(sender.next(&bitmap, &mut buffer), None);
        assert_eq!(sender.statistics(), receiver.statistics());
    }
}

#[test]
fn the_log_line_has_the_recorded_numbers() {
    for (payload, total, saved) in [
        (&[0xb2, 0x3f, 0xc5, 0x0e][..], 20, 964),
        (&[0x12, 0x87, 0xfc, 0xe4, 0x3a], 21, 962),
        (
            &[
                0x52, 0x3f, 0xc3, 0xe0, 0x81, 0x1f, 0x4d, 0xc2, 0x0f, 0xbd, 0x01,
            ],
            27,
            951,
        ),
    ] {
        let words = words(RECORDED);
        let mut receiver = Receiver::new(4086, HEADER);
        receiver
            .compressed(&bitmap(&words, RECORDED), payload)
            .unwrap();
        assert_eq!(receiver.statistics().total_bytes(), total);
        assert_eq!(receiver.saved_permille(), Some(saved));
    }
}

#[test]
fn a_plain_transfer_has_full_packets_and_an_empty_one_last() {
    let capacity = Sector(8 * 64 * 600);
    let words = words(capacity);
    let bitmap = bitmap(&words, capacity);
    for (header, first) in [(8, 511 * 8), (16, 510 * 8)] {
        let mut sender = Sender::new(bitmap.bits(), header, false);
        let mut buffer = [0; MAX_PACKET];
        let mut next = || sender.next(&bitmap, &mut buffer);
        assert_eq!(next(), Some(Packet::Plain(first)));
        assert_eq!(next(), Some(Packet::Plain(600 * 8 - first)));
        assert_eq!(next(), Some(Packet::Plain(0)));
        assert_eq!(next(), None);
        assert_eq!(sender.statistics().plain_packets, 3);
        assert_eq!(sender.saved_permille(), None);
    }
}

#[test]
fn a_plain_packet_of_any_other_length_is_refused() {
    let words = words(RECORDED);
    let bitmap = bitmap(&words, RECORDED);
    let mut receiver = Receiver::new(4086, HEADER);
    for got in [0, 8, 504, 511, 513, 520, 4080] {
        let error = receiver.plain(&bitmap, &vec![0xff; got]).unwrap_err();
        assert_eq!(
            error,
            TransferError::Length {
                want: 512,
                got: got as u64
            }
        );
    }
    assert_eq!(bitmap.count(), 0);
    assert!(!receiver.plain(&bitmap, &[0xff; 512]).unwrap().complete);
    assert_eq!(bitmap.count(), 4086);
    assert_eq!(
        receiver.compressed(&bitmap, &[2, 0]),
        Err(TransferError::Complete)
    );
    assert!(receiver.plain(&bitmap, &[0; 8]).is_err());
    assert!(receiver.plain(&bitmap, &[]).unwrap().complete);
    assert_eq!(receiver.plain(&bitmap, &[]), Err(TransferError::Complete));
}

#[test]
fn bad_compressed_packets_are_refused_for_what_is_wrong_with_them() {
    let words = words(RECORDED);
    let bitmap = bitmap(&words, RECORDED);
    for (payload, error) in [
        (&[][..], TransferError::Truncated),
        (&[0x02], TransferError::Truncated),
        (&[0x01, 0], TransferError::Encoding(1)),
        (&[0x83, 0], TransferError::Encoding(3)),
        // A long run's prefix and nothing after it; then the same with a bit cut off.
        (&[0x82, 0x3f], TransferError::Truncated),
        (&[0xc2, 0x3f, 0xc5, 0x0e], TransferError::Truncated),
        // 4087 bits; then one more run after the last bit; then the longest run there is.
        (&[0xb2, 0x3f, 0xc6, 0x0e], TransferError::BeyondEnd),
        (&[0x92, 0x3f, 0xc5, 0x0e], TransferError::BeyondEnd),
        (
            &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            TransferError::BeyondEnd,
        ),
    ] {
        let mut receiver = Receiver::new(4086, HEADER);
        assert_eq!(
            receiver.compressed(&bitmap, payload),
            Err(error),
            "{payload:02x?}"
        );
    }
}

#[test]
fn bits_that_do_not_compress_are_sent_plain() {
    let capacity = Sector(8 * 64 * 700);
    let (from, to) = (words(capacity), words(capacity));
    from.iter().for_each(|word| word.set(0x5555_5555_5555_5555));
    let (from, to) = (bitmap(&from, capacity), bitmap(&to, capacity));
    let mut sender = Sender::new(from.bits(), HEADER, true);
    let mut buffer = [0; MAX_PACKET];
    assert_eq!(sender.next(&from, &mut buffer), Some(Packet::Plain(4080)));
    let mut receiver = Receiver::new(to.bits(), HEADER);
    receiver.plain(&to, &buffer[..4080]).unwrap();
    assert_eq!(to.count(), 510 * 32);
}

/// Sends one bitmap into another and returns the numbers of plain and of compressed packets.
fn transfer(from: &Map<'_>, to: &Map<'_>, header: usize, compress: bool) -> (u32, u32) {
    let mut sender = Sender::new(from.bits(), header, compress);
    let mut receiver = Receiver::new(to.bits(), header);
    let mut buffer = [0; MAX_PACKET];
    let (mut set, mut complete) = (to.count(), false);
    while let Some(packet) = sender.next(from, &mut buffer) {
        let received = match packet {
            Packet::Plain(len) => receiver.plain(to, &buffer[..len]),
            Packet::Compressed(len) => receiver.compressed(to, &buffer[..len]),
        };
        let received = received.unwrap();
        assert!(!complete);
        (set, complete) = (set + received.set, received.complete);
    }
    assert!(complete);
    assert_eq!(set, to.count());
    assert_eq!(sender.statistics(), receiver.statistics());
    let statistics = sender.statistics();
    (statistics.plain_packets, statistics.compressed_packets)
}

/// Bits set in runs of very different lengths.
fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let length = || prop_oneof![5 => 1..3u64, 3 => 1..100u64, 1 => 1..40_000u64];
    prop::collection::vec((length(), length()), 0..600)
}

fn fill(bitmap: &Map<'_>, runs: &[(u64, u64)]) {
    let mut position = 0;
    for (clear, set) in runs {
        position += clear;
        bitmap.set_bits(BitNr(position), BitNr(position + set));
        position += set;
    }
}

#[test]
fn a_transfer_may_change_between_plain_and_compressed() {
    let capacity = Sector(8 * 300_001);
    let (from, to) = (words(capacity), words(capacity));
    let (from, to) = (bitmap(&from, capacity), bitmap(&to, capacity));
    let (even, noise) = (vec![(10, 10); 6000], vec![(1, 1); 40_000]);
    fill(
        &from,
        &[&[(33, 7)], &even[..], &noise[..], &[(3, 3), (50_000, 31)]].concat(),
    );
    let (plain, compressed) = transfer(&from, &to, HEADER, true);
    assert!(
        plain > 1 && compressed > 1,
        "{plain} plain, {compressed} compressed"
    );
    assert_eq!(set_bits_of(&from), set_bits_of(&to));
}

#[derive(Clone, Debug)]
enum Step {
    Set(u64, u32),
    Clear(u64, u32),
    NextSet(u64),
    NextClear(u64),
    NextRun(u64, u64),
    Or(u64, Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..20u32, 0..3000u32].prop_map(|sectors| sectors * 512);
    prop_oneof![
        (0..2500u64, size()).prop_map(|(sector, size)| Step::Set(sector, size)),
        (0..2500u64, size()).prop_map(|(sector, size)| Step::Clear(sector, size)),
        (0..300u64).prop_map(Step::NextSet),
        (0..300u64).prop_map(Step::NextClear),
        (0..300u64, 0..100u64).prop_map(|(from, max)| Step::NextRun(from, max)),
        (0..6u64, prop::collection::vec(any::<u64>(), 0..3)).prop_map(|(at, w)| Step::Or(at, w)),
    ]
}

proptest! {
    #[test]
    fn the_bitmap_does_what_a_vector_does(
        capacity in 1..2400u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let words = words(Sector(capacity));
        let bitmap = bitmap(&words, Sector(capacity));
        let mut model = vec![false; capacity.div_ceil(8) as usize];
        for step in steps {
            let before = model.clone();
            let mut changed = 0;
            match step {
                Step::Set(sector, size) => {
                    let range = sector..sector + u64::from(size / 512);
                    for (bit, value) in model.iter_mut().enumerate() {
                        let block = 8 * bit as u64..(8 * bit as u64 + 8).min(capacity);
                        *value |= block.into_iter().any(|sector| range.contains(&sector));
                    }
                    changed = bitmap.set_range(Sector(sector), size);
                }
                Step::Clear(sector, size) => {
                    let range = sector..sector + u64::from(size / 512);
                    for (bit, value) in model.iter_mut().enumerate() {
                        let block = 8 * bit as u64..(8 * bit as u64 + 8).min(capacity);
                        *value &= !block.into_iter().all(|sector| range.contains(&sector));
                    }
                    changed = bitmap.clear_range(Sector(sector), size);
                }
                Step::Or(at, values) => {
                    for (bit, value) in model.iter_mut().enumerate().skip(64 * at as usize) {
                        let word = values.get(bit / 64 - at as usize).copied().unwrap_or(0);
                        *value |= word & (1 << (bit % 64)) != 0;
                    }
                    changed = bitmap.or_words(at, values.into_iter());
                }
                Step::NextSet(from) => {
                    let found = (from as usize..model.len()).find(|&bit| model[bit]);
                    prop_assert_eq!(bitmap.next_set(BitNr(from)), found.map(|n| BitNr(n as u64)));
                }
                Step::NextClear(from) => {
                    let found = (from as usize..model.len()).find(|&bit| !model[bit]);
                    prop_assert_eq!(bitmap.next_clear(BitNr(from)), found.map(|n| BitNr(n as u64)));
                }
                Step::NextRun(from, max) => {
                    let first = (from as usize..model.len()).find(|&bit| model[bit]);
                    let run = first.filter(|_| max != 0).map(|first| Run {
                        first: BitNr(first as u64),
                        bits: max
                            .min(model[first..].iter().take_while(|&&set| set).count() as u64),
                    });
                    prop_assert_eq!(bitmap.next_run(BitNr(from), max), run);
                }
            }
            let differ = model.iter().zip(&before).filter(|(now, then)| now != then).count();
            prop_assert_eq!(changed, differ as u64);
            let set: Vec<u64> = (0..).zip(&model).filter(|(_, &set)| set).map(|(n, _)| n).collect();
            prop_assert_eq!(bitmap.count(), set.len() as u64);
            prop_assert_eq!(set_bits_of(&bitmap), set);
        }
    }

    #[test]
    fn any_bitmap_arrives_whole_and_is_merged(
        capacity in 1..2_000_000u64,
        sent in runs(),
        there in runs(),
        header in prop_oneof![Just(8), Just(16)],
        compress: bool,
    ) {
        let capacity = Sector(capacity);
        let (from, to, both) = (words(capacity), words(capacity), words(capacity));
        fill(&bitmap(&from, capacity), &sent);
        fill(&bitmap(&to, capacity), &there);
        fill(&bitmap(&both, capacity), &sent);
        fill(&bitmap(&both, capacity), &there);
        transfer(&bitmap(&from, capacity), &bitmap(&to, capacity), header, compress);
        prop_assert_eq!(to, both);
    }

    #[test]
    fn arbitrary_packets_are_refused_or_stay_within_the_volume(
        capacity in 1..40_000u64,
        packets in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
            1..20,
        ),
    ) {
        let capacity = Sector(capacity);
        let words = words(capacity);
        let bitmap = bitmap(&words, capacity);
        let mut receiver = Receiver::new(bitmap.bits(), HEADER);
        let mut set = 0;
        for (compressed, mut payload) in packets {
            let received = if compressed {
                if let Some(head) = payload.first_mut() {
                    *head = (*head & 0xf0) | 2;
                }
                receiver.compressed(&bitmap, &payload)
            } else {
                receiver.plain(&bitmap, &payload)
            };
            match received {
                Ok(received) => set += received.set,
                Err(_) => break,
            }
            prop_assert_eq!(set, bitmap.count());
        }
        bitmap.clear_all();
        prop_assert!(words.iter().all(|word| word.get() == 0), "a bit beyond the end was set");
    }
}
