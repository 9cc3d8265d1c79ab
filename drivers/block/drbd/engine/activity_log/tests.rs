// SPDX-License-Identifier: GPL-2.0

//! The activity log against a naive model, and its life on a simulated disk.

use super::recovery::{self, Found, Replayed, TABLE_SIZE};
use super::*;
use block::tests::crc32c;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

type Log = ActivityLog<Vec<Slot>>;

fn log(slots: usize) -> Log {
    ActivityLog::new(vec![Slot::default(); slots], Ring::DEFAULT)
}

fn span(first: u32, count: u32) -> Span {
    Span::of(crate::types::Sector(u64::from(first) << 13), count << 22).unwrap()
}

/// The ring on a disk, and what the tools read from it.
struct Disk {
    ring: Ring,
    blocks: Vec<[u8; BLOCK_SIZE]>,
}

impl Disk {
    fn new(ring: Ring) -> Self {
        let mut block = [0; BLOCK_SIZE];
        block::initialize(&mut block, crc32c);
        let blocks = vec![block; ring.blocks() as usize];
        Self { ring, blocks }
    }

    fn write(&mut self, transaction: Transaction, block: &[u8; BLOCK_SIZE], bytes: usize) {
        let place = &mut self.blocks[transaction.ring_block as usize];
        place[..bytes].copy_from_slice(&block[..bytes]);
    }

    fn replay(&self) -> (Replayed, BTreeSet<u32>) {
        let read = |n, buffer: &mut [u8; BLOCK_SIZE]| {
            *buffer = self.blocks[n as usize];
            Ok::<_, ()>(())
        };
        let mut order = vec![Found::default(); self.blocks.len()];
        let mut table = vec![0; TABLE_SIZE];
        let mut buffer = [0; BLOCK_SIZE];
        let replayed =
            recovery::replay_84(self.ring, read, crc32c, &mut buffer, &mut order, &mut table);
        let hot = recovery::hot(&table).map(|extent| extent.0).collect();
        (replayed.unwrap(), hot)
    }
}

fn commit(log: &mut Log, disk: &mut Disk) {
    let mut block = [0; BLOCK_SIZE];
    let transaction = log.begin(&mut block, crc32c).unwrap();
    disk.write(transaction, &block, BLOCK_SIZE);
    log.commit();
}

#[test]
fn a_cold_extent_is_hot_after_its_transaction_and_not_before() {
    let mut log = log(67);
    let mut disk = Disk::new(Ring::DEFAULT);
    assert_eq!(disk.replay(), (Replayed::Empty, BTreeSet::new()));
    assert_eq!(log.try_get(span(5, 1)), Got::NeedsTransaction);
    assert!(!log.wants_transaction());
    assert_eq!(log.reserve(span(5, 1)), Reserve::AfterCommit);
    assert_eq!(log.try_get(span(5, 1)), Got::Pending);
    assert_eq!(log.reserve(span(5, 1)), Reserve::AfterCommit);
    commit(&mut log, &mut disk);
    assert_eq!(log.try_get(span(5, 1)), Got::Hot);
    assert_eq!(
        disk.replay(),
        (Replayed::Transactions(1), BTreeSet::from([5]))
    );
}

#[test]
fn one_transaction_admits_sixty_four_extents_and_the_next_the_rest() {
    let mut log = log(200);
    let mut disk = Disk::new(Ring::DEFAULT);
    for extent in 0..64 {
        assert_eq!(log.reserve(span(extent, 1)), Reserve::AfterCommit);
    }
    assert_eq!(log.reserve(span(64, 1)), Reserve::Wait(WaitFor::Commit));
    commit(&mut log, &mut disk);
    assert_eq!(log.reserve(span(64, 1)), Reserve::AfterCommit);
    commit(&mut log, &mut disk);
    assert_eq!(
        disk.replay(),
        (Replayed::Transactions(2), (0..65).collect())
    );
    assert_eq!(log.statistics().changed, 65);
}

#[test]
fn while_a_transaction_is_written_hot_extents_can_be_had_and_others_wait() {
    let mut log = log(67);
    let mut disk = Disk::new(Ring::DEFAULT);
    log.reserve(span(1, 1));
    commit(&mut log, &mut disk);
    log.reserve(span(2, 1));
    let mut block = [0; BLOCK_SIZE];
    assert!(log.begin(&mut block, crc32c).is_some());
    assert!(log.begin(&mut block, crc32c).is_none());
    assert_eq!(log.try_get(span(1, 1)), Got::Hot);
    assert_eq!(log.try_get(span(2, 1)), Got::Pending);
    assert_eq!(log.reserve(span(1, 2)), Reserve::AfterCommit);
    assert_eq!(log.reserve(span(3, 1)), Reserve::Wait(WaitFor::Commit));
    log.commit();
    assert_eq!(log.try_get(span(1, 2)), Got::Hot);
}

#[test]
fn the_extent_unused_for_longest_is_evicted_and_its_bitmap_page_named() {
    let mut log = log(2);
    let mut disk = Disk::new(Ring::DEFAULT);
    for extent in [32, 64] {
        log.reserve(span(extent, 1));
    }
    commit(&mut log, &mut disk);
    log.put(span(64, 1));
    log.put(span(32, 1));
    assert_eq!(log.reserve(span(96, 1)), Reserve::AfterCommit);
    assert_eq!(log.evicted().collect::<Vec<_>>(), [ExtentNr(64)]);
    assert_eq!(log.evicted_pages().collect::<Vec<_>>(), [2]);
    commit(&mut log, &mut disk);
    assert_eq!(disk.replay().1, BTreeSet::from([32, 96]));
}

#[test]
fn a_request_that_starves_gets_its_slots_before_any_other() {
    let mut log = log(4);
    let mut disk = Disk::new(Ring::DEFAULT);
    for extent in 0..4 {
        log.reserve(span(extent, 1));
    }
    commit(&mut log, &mut disk);
    assert!(!log.put(span(0, 1)));
    assert_eq!(log.reserve(span(10, 2)), Reserve::Wait(WaitFor::Put));
    assert_eq!(log.try_get(span(1, 1)), Got::Starving);
    assert_eq!(log.reserve(span(20, 1)), Reserve::Wait(WaitFor::Put));
    assert!(log.put(span(1, 1)));
    assert_eq!(log.reserve(span(10, 2)), Reserve::AfterCommit);
    assert_eq!(log.try_get(span(2, 1)), Got::Hot);
    assert_eq!(log.statistics().starving, 3);
}

#[test]
fn a_span_takes_all_its_extents_or_none_and_never_evicts_its_own() {
    let mut log = log(3);
    let mut disk = Disk::new(Ring::DEFAULT);
    log.reserve(span(0, 3));
    commit(&mut log, &mut disk);
    log.put(span(0, 3));
    log.try_get(span(1, 1));
    assert_eq!(log.reserve(span(2, 3)), Reserve::Wait(WaitFor::Put));
    assert_eq!(log.statistics().used, 1);
    log.put(span(1, 1));
    assert_eq!(log.reserve(span(2, 3)), Reserve::AfterCommit);
    assert_eq!(
        log.evicted().collect::<Vec<_>>(),
        [ExtentNr(0), ExtentNr(1)]
    );
    assert_eq!(log.reserve(span(0, 4)), Reserve::TooLarge);
    assert_eq!(log.reserve(span(2, 1)), Reserve::Hot);
}

#[test]
fn a_transaction_that_failed_is_written_again_with_the_same_number() {
    let mut log = log(67);
    let mut disk = Disk::new(Ring::DEFAULT);
    log.reserve(span(7, 1));
    let mut block = [0; BLOCK_SIZE];
    let first = log.begin(&mut block, crc32c).unwrap();
    disk.write(first, &block, 512);
    log.abort();
    assert_eq!(disk.replay(), (Replayed::Empty, BTreeSet::new()));
    assert_eq!(log.try_get(span(7, 1)), Got::Pending);
    log.put(span(7, 1));
    let second = log.begin(&mut block, crc32c).unwrap();
    assert_eq!(second, first);
    disk.write(second, &block, BLOCK_SIZE);
    log.commit();
    assert_eq!(disk.replay().1, BTreeSet::from([7]));
    assert!(!log.is_active(span(0, 64)));
    assert_eq!(log.try_get(span(7, 1)), Got::Hot);
    assert!(log.is_active(span(0, 64)));
}

#[test]
fn the_context_goes_round_so_that_old_transactions_may_be_overwritten() {
    let mut log = log(2000);
    let mut disk = Disk::new(Ring::DEFAULT);
    for first in (0..1920).step_by(64) {
        assert_eq!(log.reserve(span(first, 64)), Reserve::AfterCommit);
        commit(&mut log, &mut disk);
    }
    assert_eq!(
        disk.replay(),
        (Replayed::Transactions(8), (0..1920).collect())
    );
    let starts: Vec<_> = disk
        .blocks
        .iter()
        .map(|b| u16::from_be_bytes([b[18], b[19]]))
        .collect();
    assert_eq!(starts, [0, 919, 1838, 0, 919, 1838, 919, 1838]);
}

#[test]
fn rewriting_a_ring_that_moved_leaves_all_that_is_hot_and_nothing_else() {
    let mut log = log(2000);
    let mut old = Disk::new(Ring::DEFAULT);
    log.reserve(span(100, 64));
    commit(&mut log, &mut old);
    let ring = Ring::new(2, 8).unwrap();
    let mut disk = Disk::new(ring);
    disk.blocks.fill([0xaa; BLOCK_SIZE]);
    assert_eq!(disk.replay().0, Replayed::NoValidBlock);
    log.set_ring(ring);
    log.reserve(span(500, 1));
    let mut block = [0; BLOCK_SIZE];
    for _ in 0..ring.blocks() {
        let transaction = log.rewrite(&mut block, crc32c).unwrap();
        disk.write(transaction, &block, BLOCK_SIZE);
    }
    assert_eq!(
        disk.replay(),
        (Replayed::Transactions(16), (100..164).collect())
    );
    commit(&mut log, &mut disk);
    assert!(disk.replay().1.contains(&500));
}

#[test]
fn a_reset_forgets_extents_and_references() {
    let mut log = log(3);
    let mut disk = Disk::new(Ring::DEFAULT);
    log.reserve(span(0, 3));
    commit(&mut log, &mut disk);
    log.reset();
    assert_eq!(log.hot().count(), 0);
    assert_eq!(log.reserve(span(10, 3)), Reserve::AfterCommit);
    assert_eq!(log.evicted().count(), 0);
}

/// The same rules without lists and hashes.
struct Model {
    slots: Vec<ModelSlot>,
    pending: Vec<usize>,
    writing: bool,
    starving: Option<u32>,
    clock: u64,
}

#[derive(Clone, Default)]
struct ModelSlot {
    extent: Option<u32>,
    label: Option<u32>,
    references: u32,
    idle_since: u64,
}

impl Model {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![ModelSlot::default(); slots],
            pending: Vec::new(),
            writing: false,
            starving: None,
            clock: 0,
        }
    }

    fn find(&self, extent: u32) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.label == Some(extent))
    }

    fn available(&self) -> Vec<usize> {
        let idle = |n: &usize| self.slots[*n].references == 0 && !self.pending.contains(n);
        let mut slots: Vec<_> = (0..self.slots.len()).filter(idle).collect();
        slots.sort_by_key(|&n| (self.slots[n].label.is_some(), self.slots[n].idle_since, n));
        slots
    }

    fn try_get(&mut self, span: Span) -> Got {
        let found: Vec<_> = span.extents().map(|extent| self.find(extent.0)).collect();
        if self.starving.is_some() {
            Got::Starving
        } else if found.contains(&None) {
            Got::NeedsTransaction
        } else if found.iter().flatten().any(|n| self.pending.contains(n)) {
            Got::Pending
        } else {
            found
                .iter()
                .flatten()
                .for_each(|&n| self.slots[n].references += 1);
            Got::Hot
        }
    }

    fn reserve(&mut self, span: Span) -> Reserve {
        let found: Vec<_> = span
            .extents()
            .filter_map(|extent| self.find(extent.0))
            .collect();
        let missing = span.count() as usize - found.len();
        if span.count() > 64.min(self.slots.len() as u32) {
            return Reserve::TooLarge;
        }
        if missing != 0 && (self.writing || self.pending.len() + missing > 64) {
            return Reserve::Wait(WaitFor::Commit);
        }
        let available = self.available();
        let idle = found.iter().filter(|n| available.contains(n)).count();
        let need = self.starving.unwrap_or(0).max((missing + idle) as u32);
        if (available.len() as u32) < need {
            self.starving = Some(need);
            return Reserve::Wait(WaitFor::Put);
        }
        self.starving = None;
        let waits = missing != 0 || found.iter().any(|n| self.pending.contains(n));
        found.iter().for_each(|&n| self.slots[n].references += 1);
        for extent in span.extents() {
            if self.find(extent.0).is_none() {
                let slot = self.available()[0];
                self.slots[slot].label = Some(extent.0);
                self.slots[slot].references = 1;
                self.pending.push(slot);
            }
        }
        if waits {
            Reserve::AfterCommit
        } else {
            Reserve::Hot
        }
    }

    fn put(&mut self, span: Span) -> bool {
        for extent in span.extents() {
            let slot = self.find(extent.0).unwrap();
            self.slots[slot].references -= 1;
            self.clock += 1;
            self.slots[slot].idle_since = self.clock;
        }
        self.starving
            .is_some_and(|need| self.available().len() as u32 >= need)
    }

    fn commit(&mut self) {
        self.writing = false;
        for slot in self.pending.split_off(0) {
            self.slots[slot].extent = self.slots[slot].label;
            self.clock += 1;
            self.slots[slot].idle_since = self.clock;
        }
    }

    fn hot(&self) -> BTreeSet<u32> {
        self.slots.iter().filter_map(|slot| slot.extent).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    TryGet(u32, u32),
    Reserve(u32, u32),
    Put(prop::sample::Index),
    /// Write the transaction, torn after so many bytes first.
    Begin(usize),
    Commit,
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    let extents = (
        0..40u32,
        prop_oneof![8 => Just(1), 2 => 1..5u32, 1 => 1..15u32],
    );
    prop_oneof![
        3 => extents.clone().prop_map(|(first, count)| Step::TryGet(first, count)),
        6 => extents.prop_map(|(first, count)| Step::Reserve(first, count)),
        6 => any::<prop::sample::Index>().prop_map(Step::Put),
        3 => (0..8usize).prop_map(|sectors| Step::Begin(512 * sectors)),
        3 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_log_does_what_the_model_does_and_a_crash_finds_all_that_may_be_written(
        slots in 1..13usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (mut log, mut model) = (log(slots), Model::new(slots));
        let mut disk = Disk::new(Ring::DEFAULT);
        let mut block = [0; BLOCK_SIZE];
        let mut in_flight = None;
        let mut writing: Vec<Span> = Vec::new();
        let mut waiting: Vec<Span> = Vec::new();
        // What was written and may be in a volatile cache, and what of it a flush is about.
        let mut cached = BTreeSet::new();
        let mut flushing = BTreeSet::new();
        for step in steps {
            match step {
                Step::TryGet(first, count) => {
                    let got = log.try_get(span(first, count));
                    prop_assert_eq!(got, model.try_get(span(first, count)));
                    if got == Got::Hot {
                        writing.push(span(first, count));
                    }
                }
                Step::Reserve(first, count) => {
                    let reserve = log.reserve(span(first, count));
                    prop_assert_eq!(reserve, model.reserve(span(first, count)));
                    match reserve {
                        Reserve::Hot => writing.push(span(first, count)),
                        Reserve::AfterCommit => waiting.push(span(first, count)),
                        Reserve::Wait(_) | Reserve::TooLarge => {}
                    }
                }
                Step::Put(index) if !writing.is_empty() => {
                    let span = writing.swap_remove(index.index(writing.len()));
                    prop_assert_eq!(log.put(span), model.put(span));
                    for extent in span.extents() {
                        cached.insert(extent);
                        flushing.remove(&extent);
                    }
                }
                Step::Put(_) => {}
                Step::Begin(torn_after) => {
                    if let Some(transaction) = log.begin(&mut block, crc32c) {
                        model.writing = true;
                        let ready: Vec<_> = writing.iter().flat_map(|s| s.extents()).collect();
                        prop_assert!(log.evicted().all(|extent| !ready.contains(&extent)));
                        let is_cached = log.evicted().any(|extent| cached.contains(&extent));
                        prop_assert_eq!(transaction.flushes_data, is_cached);
                        flushing = match transaction.flushes_data {
                            true => cached.clone(),
                            false => BTreeSet::new(),
                        };
                        disk.write(transaction, &block, torn_after);
                        in_flight = Some(transaction);
                    }
                }
                Step::Commit => {
                    if let Some(transaction) = in_flight.take() {
                        disk.write(transaction, &block, BLOCK_SIZE);
                        log.commit();
                        model.commit();
                        cached.retain(|extent| !flushing.contains(extent));
                        flushing.clear();
                        writing.append(&mut waiting);
                    }
                }
                Step::Abort => {
                    in_flight = None;
                    flushing.clear();
                    log.abort();
                    model.writing = false;
                }
            }
            let hot: BTreeSet<_> = log.hot().map(|extent| extent.0).collect();
            prop_assert_eq!(&hot, &model.hot());
            let used = slots - model.available().len();
            prop_assert_eq!(log.statistics().used as usize, used);
        }
        let (_, found) = disk.replay();
        for extent in writing.iter().flat_map(|span| span.extents()) {
            prop_assert!(found.contains(&extent.0), "{} was being written", extent);
        }
    }

    #[test]
    fn a_replay_of_anything_ends(seed: u64, blocks in prop::collection::vec(any::<u8>(), 0..4)) {
        let mut disk = Disk::new(Ring::DEFAULT);
        let mut noise = seed | 1;
        for (block, &kind) in disk.blocks.iter_mut().zip(&blocks) {
            for byte in block.iter_mut().skip(usize::from(kind)) {
                noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                *byte = (noise >> 56) as u8;
            }
            if kind % 2 == 0 {
                let head = [0x69, 0xcb, 0x65, 0xa2, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 9];
                block[..16].copy_from_slice(&head);
                block::seal(block, crc32c);
            }
        }
        let (replayed, hot) = disk.replay();
        prop_assert!(hot.is_empty() || matches!(replayed, Replayed::Transactions(_)));
    }
}

fn sector_83(tr_number: u32, updates: &[(u32, u32)]) -> [u8; recovery::SECTOR_83_SIZE] {
    let mut sector = [0; recovery::SECTOR_83_SIZE];
    sector[..4].copy_from_slice(&0x8374_0267u32.to_be_bytes());
    sector[4..8].copy_from_slice(&tr_number.to_be_bytes());
    sector[8..504].fill(0xff);
    for (place, (slot, extent)) in sector[8..504].chunks_mut(8).zip(updates) {
        place[..4].copy_from_slice(&slot.to_be_bytes());
        place[4..].copy_from_slice(&extent.to_be_bytes());
    }
    let sum = sector[8..504].chunks(8).fold(0, |sum, update| {
        sum ^ u32::from_be_bytes(update[4..].try_into().unwrap())
    });
    sector[504..508].copy_from_slice(&sum.to_be_bytes());
    sector
}

fn replay_83(sectors: &[[u8; recovery::SECTOR_83_SIZE]]) -> (Replayed, BTreeSet<u32>) {
    let read = |n, buffer: &mut [u8; recovery::SECTOR_83_SIZE]| {
        *buffer = sectors
            .get(n as usize)
            .copied()
            .unwrap_or([0; recovery::SECTOR_83_SIZE]);
        Ok::<_, ()>(())
    };
    let mut buffer = [0; recovery::SECTOR_83_SIZE];
    let mut table = vec![0; TABLE_SIZE];
    let mut order = vec![Found::default(); 4];
    let replayed = recovery::replay_83(127, read, &mut buffer, &mut order, &mut table);
    (
        replayed.unwrap(),
        recovery::hot(&table).map(|extent| extent.0).collect(),
    )
}

#[test]
fn an_8_3_log_is_replayed_from_the_oldest_sector_to_the_newest() {
    assert_eq!(recovery::sectors_83(127), 4);
    assert_eq!(replay_83(&[]), (Replayed::NoValidBlock, BTreeSet::new()));
    let newest = sector_83(0, &[(3, 30), (3, 99), (4, 40)]);
    let older = sector_83(u32::MAX, &[(3, 31), (5, 50)]);
    let mut torn = sector_83(u32::MAX - 1, &[(6, 60)]);
    torn[20] ^= 1;
    let mut foreign = sector_83(u32::MAX - 1, &[(6, 60)]);
    foreign[3] ^= 1;
    let sectors = [newest, torn, foreign, older];
    assert_eq!(
        replay_83(&sectors),
        (Replayed::Transactions(2), BTreeSet::from([30, 40, 50]))
    );
}

#[test]
fn the_format_is_told_from_the_magics_and_the_ring() {
    use crate::meta::superblock::Magic;
    use recovery::Format;
    let mut whole = [0; BLOCK_SIZE];
    block::initialize(&mut whole, crc32c);
    let zeros = [0; BLOCK_SIZE];
    let detect = |magic, ring, first, second| Format::detect(magic, ring, first, second);
    assert_eq!(
        detect(Magic::Clean, Ring::DEFAULT, &zeros, &zeros),
        Format::V83
    );
    assert_eq!(
        detect(Magic::Unclean, Ring::DEFAULT, &zeros, &zeros),
        Format::V84
    );
    assert_eq!(
        detect(Magic::Clean, Ring::DEFAULT, &zeros, &whole),
        Format::V84
    );
    assert_eq!(
        detect(Magic::Clean, Ring::new(2, 8).unwrap(), &zeros, &zeros),
        Format::V84
    );
}

#[test]
fn a_replay_without_enough_storage_says_so() {
    use recovery::{replay_84, ReplayError};
    let disk = Disk::new(Ring::DEFAULT);
    let mut log = log(67);
    log.reserve(span(0, 1));
    let mut block = [0; BLOCK_SIZE];
    log.begin(&mut block, crc32c);
    let read = |n: u32, buffer: &mut [u8; BLOCK_SIZE]| {
        *buffer = if n == 0 {
            block
        } else {
            disk.blocks[n as usize]
        };
        Ok(())
    };
    let fail = |_, _: &mut [u8; BLOCK_SIZE]| Err("unreadable");
    let mut buffer = [0; BLOCK_SIZE];
    let mut table = vec![0; TABLE_SIZE];
    let (ring, order) = (Ring::DEFAULT, &mut [Found::default(); 8]);
    assert_eq!(
        replay_84(ring, read, crc32c, &mut buffer, &mut [], &mut table),
        Err(ReplayError::<()>::Storage)
    );
    assert_eq!(
        replay_84(ring, read, crc32c, &mut buffer, order, &mut table[1..]),
        Err(ReplayError::<()>::Storage)
    );
    assert_eq!(
        replay_84(ring, fail, crc32c, &mut buffer, order, &mut table),
        Err(ReplayError::Read("unreadable"))
    );
}
