// SPDX-License-Identifier: GPL-2.0

//! What the engine does for each write, over and over, for a counter of instructions
//! (`make bench LANE=engine`). Each function is one row of that table.

use std::cell::Cell;
use std::hint::black_box;

use drbd_engine::activity_log::{ActivityLog, Got, Ring, Slot, Span};
use drbd_engine::bitmap::Bitmap;
use drbd_engine::config::Protocol;
use drbd_engine::epoch::{Epoch, Epochs, WriteOrdering};
use drbd_engine::range::{Kind as RangeKind, Node, RangeTable};
use drbd_engine::request::{apply, settle, Consequences, Context, Event, Kind, Start};
use drbd_engine::transfer_log::{Entry, Part, TransferLog};
use drbd_engine::types::{BitNr, BlockId, Sector, VolumeNr};
use drbd_engine::wire::{header, Command, Data, DataFlags, Version};

/// How often each is called; the counts are divided by it.
const ROUNDS: u32 = 1000;
const SIZE: u32 = 4096;
const SECTORS: u64 = 8;
/// Writes in flight beside the one that is measured.
const OTHERS: u64 = 256;

type Log = TransferLog<Vec<Entry>>;
type Ranges = RangeTable<Vec<Node>>;

/// From submission to the barrier ack.
#[inline(never)]
fn hot_write_on_the_primary(log: &mut Log, ranges: &mut Ranges, sector: Sector) {
    let range = ranges
        .try_insert(RangeKind::LocalWrite, sector, SIZE)
        .expect("nothing in the way");
    let (index, cookie) = log
        .admit(Part::Write, sector, SIZE)
        .expect("slots are free");
    let start = Start {
        kind: Kind::Write,
        local: true,
        remote: true,
        out_of_sync: false,
        protocol: Protocol::C,
        local_is_current: true,
        chooses_ack: true,
    };
    let mut state = start.state();
    let context = Context {
        suspended: false,
        mirrored_since_sent: true,
        local_is_current: true,
        peer_is_current: true,
        peer_is_stale: false,
    };
    let mut happens = |event| {
        let (new, todo) = apply(state, event, context);
        state = match todo.has(Consequences::SETTLE) {
            true => settle(new).0,
            false => new,
        };
    };
    assert_eq!(log.next_to_send(), Some(index));
    log.begin_send(index, 1);
    for event in [Event::HandedOver, Event::SubmitterDone, Event::LocalOk] {
        happens(event);
    }
    assert_eq!(log.lookup(cookie, sector, SIZE), Ok(index));
    happens(Event::WriteAcked { in_sync: false });
    log.close_epoch_of(index);
    log.answered(index);
    ranges.mark_completed(range);
    let barrier = log.idle_barrier(2).expect("the epoch is closed");
    log.barrier_ack(barrier.number, 1, 3)
        .expect("it is its turn");
    assert_eq!(log.next_acked(), Some(index));
    happens(Event::BarrierAcked);
    ranges.remove(range);
    log.release(index);
}

/// From the packet to the ack of its epoch.
#[inline(never)]
fn hot_write_on_the_secondary(epochs: &mut Epochs<Vec<Epoch>>, ranges: &mut Ranges, bytes: &[u8]) {
    let (front, rest) = bytes.split_at(header::size(Version::MAX));
    header::decode(Version::MAX, front).expect("it is well-formed");
    let data = Data::decode(rest).expect("it is well-formed");
    let range = ranges
        .try_insert(RangeKind::PeerWrite, data.sector, SIZE)
        .expect("no conflict");
    let epoch = epochs.write_received();
    epochs.write_done(epoch);
    ranges.remove(range);
    epochs
        .barrier([0; 4], WriteOrdering::None)
        .expect("it is its turn");
    epochs.next_ack().expect("its only write is done");
}

#[inline(never)]
fn hot_extent(log: &mut ActivityLog<Vec<Slot>>, span: Span) {
    assert_eq!(log.try_get(span), Got::Hot);
    log.put(span);
}

#[inline(never)]
fn hot_bit_set_and_cleared(bitmap: &Bitmap<&[Cell<u64>]>, sector: Sector) {
    bitmap.set_range(sector, SIZE);
    bitmap.clear_range(sector, SIZE);
}

/// 32768 clear bits before the next that is set: what a sparse bitmap costs a resync.
#[inline(never)]
fn hot_search_over_128_mib(bitmap: &Bitmap<&[Cell<u64>]>) {
    black_box(bitmap.next_run(BitNr(0), 256));
}

fn ranges_in_use() -> Ranges {
    let mut ranges = RangeTable::new(vec![Node::default(); 1024]);
    for number in 0..OTHERS {
        let sector = Sector(number * 7919 * SECTORS);
        ranges
            .try_insert(RangeKind::LocalWrite, sector, SIZE)
            .expect("they do not overlap");
    }
    ranges
}

fn packet() -> Vec<u8> {
    let data = Data {
        sector: Sector(SECTORS),
        block_id: BlockId(1),
        seq_num: 1,
        flags: DataFlags::NONE,
    };
    let mut front = [0; header::MAX_SIZE];
    let used = header::encode(
        Version::MAX,
        VolumeNr(0),
        Command::Data,
        24 + SIZE,
        &mut front,
    );
    [&front[..used], &data.encode()[..]].concat()
}

fn main() {
    let mut log = TransferLog::new(vec![Entry::default(); 1024], 1, 2048);
    let mut epochs = Epochs::new(vec![Epoch::default(); 64]);
    let mut extents = ActivityLog::new(vec![Slot::default(); 1237], Ring::DEFAULT);
    let span = Span::of(Sector(0), SIZE).expect("it is not empty");
    extents.reserve(span);
    let mut block = [0; drbd_engine::activity_log::BLOCK_SIZE];
    extents
        .begin(&mut block, |_| 0)
        .expect("an extent is pending");
    extents.commit();
    let words = vec![Cell::new(0u64); 1024];
    let bitmap = Bitmap::new(&words[..], Sector(65536 * SECTORS)).expect("the words are enough");
    let far = Sector(32768 * SECTORS);
    let (mut local, mut remote, bytes) = (ranges_in_use(), ranges_in_use(), packet());
    for round in 0..u64::from(ROUNDS) {
        hot_write_on_the_primary(
            &mut log,
            &mut local,
            Sector((round * 31 + 1) * SECTORS * 7919 + 8),
        );
        hot_write_on_the_secondary(&mut epochs, &mut remote, &bytes);
        hot_extent(&mut extents, span);
        hot_bit_set_and_cleared(&bitmap, far);
        bitmap.set_range(far, SIZE);
        hot_search_over_128_mib(&bitmap);
    }
}
