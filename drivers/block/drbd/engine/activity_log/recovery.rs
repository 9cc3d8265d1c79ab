// SPDX-License-Identifier: GPL-2.0

//! What a crashed node's activity log says: the extents that were hot (Spec §2.5).
//!
//! The tools do this before every attach. The log is a ring whose newest block may be torn, so
//! nothing in it is believed but what its check sum covers, and transactions are applied from the
//! oldest to the newest.

use super::block::{self, Block, Crc32c, BLOCK_SIZE, FREE};
use super::ring::Ring;
use crate::meta::superblock::Magic;
use crate::types::ExtentNr;
use zerocopy::big_endian::U32;
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Bytes of a sector of an 8.3 activity log.
pub const SECTOR_83_SIZE: usize = 512;
/// Numbers to lend to a replay for its slots: one for each of [`super::ring::MAX_EXTENTS`].
pub const TABLE_SIZE: usize = 65534;

const MAGIC_83: u32 = 0x8374_0267;
const MAX_EXTENTS_83: u32 = 3833;
const CONTEXT_SIZE_83: u32 = 61;

const HALF_CIRCLE: u32 = 1 << 31;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 4 KiB blocks with a CRC.
    V84,
    /// 512-byte sectors with an exclusive or; the log is to be initialised even when it holds
    /// nothing.
    V83,
}

impl Format {
    /// The format to expect, from the super block and from the first two 4 KiB blocks of the log.
    pub fn detect(magic: Magic, ring: Ring, first: &[u8], second: &[u8]) -> Self {
        let written_by_84 = magic == Magic::Unclean
            || ring != Ring::DEFAULT
            || block::has_magic(first)
            || block::has_magic(second);
        if written_by_84 {
            Self::V84
        } else {
            Self::V83
        }
    }
}

/// A whole transaction that was found, for the replay to put in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    tr_number: u32,
    position: u32,
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// This many transactions were applied; [`hot`] reads the table.
    Transactions(usize),
    /// The log was initialised and never written: no extent is hot.
    Empty,
    /// Nothing in the log can be believed. If the node was Primary, everything must be taken as out
    /// of sync.
    NoValidBlock,
}

/// Why a replay stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError<E> {
    /// A block could not be read.
    Read(E),
    /// Less than [`TABLE_SIZE`] numbers or one [`Found`] a block was lent.
    Storage,
}

/// Replays a log of 4 KiB blocks into `table`, slot by slot.
///
/// `read` fills the buffer with a block of the ring, counted on disk; each is read twice at most.
/// `table` needs [`TABLE_SIZE`] numbers, `order` one entry a block; what they held before does not
/// matter.
///
/// # Errors
///
/// [`ReplayError`]; the table is then worthless.
pub fn replay_84<E>(
    ring: Ring,
    mut read: impl FnMut(u32, &mut [u8; BLOCK_SIZE]) -> Result<(), E>,
    crc32c: impl Crc32c,
    buffer: &mut [u8; BLOCK_SIZE],
    order: &mut [Found],
    table: &mut [u32],
) -> Result<Replayed, ReplayError<E>> {
    let table = clear(table)?;
    let mut transactions = Transactions::new(order);
    let mut initialized = false;
    for position in 0..ring.blocks() {
        read(position, buffer).map_err(ReplayError::Read)?;
        match block::decode(buffer, &crc32c) {
            Ok(Block::Update(disk)) => transactions.add(disk.tr_number.get(), position)?,
            Ok(Block::Initialized) => initialized = true,
            Err(_) => {}
        }
    }
    let in_order = transactions.sort();
    for found in in_order {
        read(found.position, buffer).map_err(ReplayError::Read)?;
        if let Ok(Block::Update(disk)) = block::decode(buffer, &crc32c) {
            disk.context()
                .chain(disk.updates())
                .for_each(|change| apply(table, change));
        }
    }
    Ok(match in_order.len() {
        0 if initialized => Replayed::Empty,
        0 => Replayed::NoValidBlock,
        count => Replayed::Transactions(count),
    })
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Sector83 {
    magic: U32,
    tr_number: U32,
    /// The change, then the context: slot and extent.
    updates: [[U32; 2]; 62],
    xor_sum: U32,
    pad: U32,
}

/// Replays a log of 512-byte sectors, as 8.3 drivers wrote it with `al_extents` slots, into
/// `table`.
///
/// As [`replay_84`]; `order` needs one entry for each of [`sectors_83`].
///
/// # Errors
///
/// [`ReplayError`]; the table is then worthless.
pub fn replay_83<E>(
    al_extents: u32,
    mut read: impl FnMut(u32, &mut [u8; SECTOR_83_SIZE]) -> Result<(), E>,
    buffer: &mut [u8; SECTOR_83_SIZE],
    order: &mut [Found],
    table: &mut [u32],
) -> Result<Replayed, ReplayError<E>> {
    let table = clear(table)?;
    let mut transactions = Transactions::new(order);
    for position in 0..sectors_83(al_extents) {
        read(position, buffer).map_err(ReplayError::Read)?;
        if let Some(sector) = decode_83(buffer) {
            transactions.add(sector.tr_number.get(), position)?;
        }
    }
    let in_order = transactions.sort();
    for found in in_order {
        read(found.position, buffer).map_err(ReplayError::Read)?;
        let Some(sector) = decode_83(buffer) else {
            continue;
        };
        // The change comes first in the sector and must win.
        for [slot, extent] in sector.updates.iter().rev() {
            if let Ok(slot) = u16::try_from(slot.get()) {
                apply(table, (slot, extent.get()));
            }
        }
    }
    Ok(match in_order.len() {
        0 => Replayed::NoValidBlock,
        count => Replayed::Transactions(count),
    })
}

/// Sectors that an 8.3 log with this many slots goes round in.
pub fn sectors_83(al_extents: u32) -> u32 {
    al_extents
        .min(MAX_EXTENTS_83)
        .div_ceil(CONTEXT_SIZE_83)
        .saturating_add(1)
}

/// The hot extents of a replayed table, slot by slot; an extent may come twice.
pub fn hot(table: &[u32]) -> impl Iterator<Item = ExtentNr> + '_ {
    let slots = table.iter().take(TABLE_SIZE);
    slots
        .filter(|&&extent| extent != FREE)
        .map(|&extent| ExtentNr(extent))
}

fn clear<E>(table: &mut [u32]) -> Result<&mut [u32], ReplayError<E>> {
    let table = table.get_mut(..TABLE_SIZE).ok_or(ReplayError::Storage)?;
    table.fill(FREE);
    Ok(table)
}

fn apply(table: &mut [u32], (slot, extent): (u16, u32)) {
    if let Some(place) = table.get_mut(usize::from(slot)) {
        *place = extent;
    }
}

fn decode_83(buffer: &[u8; SECTOR_83_SIZE]) -> Option<&Sector83> {
    let sector = Sector83::ref_from_bytes(buffer.as_slice()).ok()?;
    let sum = sector
        .updates
        .iter()
        .fold(0, |sum, [_, extent]| sum ^ extent.get());
    (sector.magic.get() == MAGIC_83 && sum == sector.xor_sum.get()).then_some(sector)
}

/// The transactions found so far.
struct Transactions<'a> {
    found: &'a mut [Found],
    count: usize,
    newest: u32,
}

impl<'a> Transactions<'a> {
    fn new(found: &'a mut [Found]) -> Self {
        Self {
            found,
            count: 0,
            newest: 0,
        }
    }

    fn add<E>(&mut self, tr_number: u32, position: u32) -> Result<(), ReplayError<E>> {
        let place = self.found.get_mut(self.count).ok_or(ReplayError::Storage)?;
        *place = Found {
            tr_number,
            position,
        };
        // Numbers wrap: the newer of two is the one that is less than half the circle ahead.
        let ahead = tr_number.wrapping_sub(self.newest);
        if self.count == 0 || ahead < HALF_CIRCLE {
            self.newest = tr_number;
        }
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// All transactions, the oldest first.
    fn sort(self) -> &'a [Found] {
        let found = self.found.get_mut(..self.count).unwrap_or_default();
        // What follows the newest number comes last when the numbers go round: it is the oldest
        // there can be.
        let after_newest = self.newest.wrapping_add(1);
        heap_sort(found, |found| found.tr_number.wrapping_sub(after_newest));
        found
    }
}

/// Sorts in place by ascending keys. `core`'s sort can panic, which nothing in a kernel may.
fn heap_sort(items: &mut [Found], key: impl Fn(&Found) -> u32) {
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &key);
    }
    for end in (1..items.len()).rev() {
        swap(items, 0, end);
        sift_down(items.get_mut(..end).unwrap_or_default(), 0, &key);
    }
}

/// Moves the item at `root` down until no child of it has a larger key.
fn sift_down(heap: &mut [Found], mut root: usize, key: impl Fn(&Found) -> u32) {
    let key_at = |heap: &[Found], place: usize| heap.get(place).map(&key);
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let child = if key_at(heap, right) > key_at(heap, left) {
            right
        } else {
            left
        };
        if key_at(heap, child) <= key_at(heap, root) {
            return;
        }
        swap(heap, root, child);
        root = child;
    }
}

fn swap(items: &mut [Found], a: usize, b: usize) {
    if let (Some(&at_a), Some(&at_b)) = (items.get(a), items.get(b)) {
        for (place, item) in [(a, at_b), (b, at_a)] {
            if let Some(old) = items.get_mut(place) {
                *old = item;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn transactions_come_in_the_order_they_were_written(
            oldest: u32,
            written in prop::collection::vec((1..100u32, any::<u32>()), 0..200),
        ) {
            let numbers = written.iter().scan(oldest, |number, (step, _)| {
                *number = number.wrapping_add(*step);
                Some(*number)
            });
            let numbers: Vec<u32> = numbers.collect();
            let mut shuffled: Vec<_> = numbers.iter().zip(&written).collect();
            shuffled.sort_by_key(|(_, (_, place))| *place);
            let mut storage = vec![Found::default(); numbers.len()];
            let mut transactions = Transactions::new(&mut storage);
            for (&number, _) in shuffled {
                transactions.add::<()>(number, number ^ 1).unwrap();
            }
            let sorted: Vec<_> = transactions.sort().iter().map(|found| found.tr_number).collect();
            prop_assert_eq!(sorted, numbers);
            prop_assert!(storage.iter().all(|found| found.position == found.tr_number ^ 1));
        }
    }
}
