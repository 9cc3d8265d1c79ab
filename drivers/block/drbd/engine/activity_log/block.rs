// SPDX-License-Identifier: GPL-2.0

//! A block of the activity log: one transaction, 4096 bytes, all numbers big-endian (Spec §2.4).

use zerocopy::big_endian::{U16, U32};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block.
pub const BLOCK_SIZE: usize = 4096;
/// Slots that one transaction can change.
pub const MAX_UPDATES: usize = 64;
/// Slots whose extents every transaction repeats.
pub const CONTEXT_SIZE: usize = 919;

/// The extent number of a slot that holds none.
pub(super) const FREE: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;

const MAGIC: u32 = 0x69cb_65a2;
const TYPE_UPDATE: u16 = 0;
const TYPE_INITIALIZED: u16 = 0xffff;

/// Raw CRC-32C over a block: reflected polynomial 0x82F63B78, seed 0, no final inversion.
pub trait Crc32c: Fn(&[u8]) -> u32 {}
impl<F: Fn(&[u8]) -> u32> Crc32c for F {}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Disk {
    magic: U32,
    pub(super) tr_number: U32,
    crc: U32,
    kind: U16,
    n_updates: U16,
    pub(super) context_size: U16,
    pub(super) context_start: U16,
    reserved: [U32; 4],
    update_slot: [U16; MAX_UPDATES],
    update_extent: [U32; MAX_UPDATES],
    context: [U32; CONTEXT_SIZE],
}

/// Why a block says nothing about hot extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// Not a block of an activity log.
    Magic,
    /// Torn or damaged.
    Crc,
    /// Whole, but no driver writes such a thing.
    Invalid,
}

/// What a whole block is.
pub(super) enum Block<'a> {
    /// Written by the tools to a log that holds nothing.
    Initialized,
    /// A transaction.
    Update(&'a Disk),
}

impl Disk {
    /// Starts a transaction that changes nothing and repeats nothing, to be filled and then sealed.
    pub(super) fn start(
        block: &mut [u8; BLOCK_SIZE],
        tr_number: u32,
        slots: u16,
        context_start: u16,
    ) -> Option<&mut Self> {
        block.fill(0);
        let disk = Self::mut_from_bytes(block.as_mut_slice()).ok()?;
        disk.magic = MAGIC.into();
        disk.tr_number = tr_number.into();
        disk.kind = TYPE_UPDATE.into();
        disk.context_size = slots.into();
        disk.context_start = context_start.into();
        disk.update_slot.fill(NO_SLOT.into());
        disk.update_extent.fill(FREE.into());
        disk.context.fill(FREE.into());
        Some(disk)
    }

    pub(super) fn set_updates(&mut self, updates: impl Iterator<Item = (u16, u32)>) {
        let places = self
            .update_slot
            .iter_mut()
            .zip(self.update_extent.iter_mut());
        let mut count: u16 = 0;
        for ((slot, extent), (new_slot, new_extent)) in places.zip(updates) {
            *slot = new_slot.into();
            *extent = new_extent.into();
            count = count.saturating_add(1);
        }
        self.n_updates = count.into();
    }

    pub(super) fn set_context(&mut self, extents: impl Iterator<Item = u32>) {
        for (place, extent) in self.context.iter_mut().zip(extents) {
            *place = extent.into();
        }
    }

    /// The changes: slot and new extent.
    pub(super) fn updates(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        let updates = self.update_slot.iter().zip(self.update_extent.iter());
        updates
            .take(usize::from(self.n_updates.get()))
            .map(|(slot, extent)| (slot.get(), extent.get()))
    }

    /// The repeated slots: slot and extent before the changes.
    pub(super) fn context(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        (self.context_start.get()..self.context_size.get())
            .zip(self.context.iter().map(|extent| extent.get()))
    }
}

/// Writes the check sum of a filled block.
pub(super) fn seal(block: &mut [u8; BLOCK_SIZE], crc32c: impl Crc32c) {
    let crc = crc32c(block.as_slice());
    if let Ok(disk) = Disk::mut_from_bytes(block.as_mut_slice()) {
        disk.crc = crc.into();
    }
}

/// Fills a block with what a log holds that was just initialised.
pub fn initialize(block: &mut [u8; BLOCK_SIZE], crc32c: impl Crc32c) {
    block.fill(0);
    if let Ok(disk) = Disk::mut_from_bytes(block.as_mut_slice()) {
        disk.magic = MAGIC.into();
        disk.kind = TYPE_INITIALIZED.into();
    }
    seal(block, crc32c);
}

/// Whether a block begins with the activity log's magic, damaged or not.
pub(super) fn has_magic(block: &[u8]) -> bool {
    U32::read_from_prefix(block).is_ok_and(|(magic, _)| magic.get() == MAGIC)
}

/// Checks and reads a block. The check sum's field is zeroed in place, because the sum is taken
/// over the block without it.
pub(super) fn decode(
    block: &mut [u8; BLOCK_SIZE],
    crc32c: impl Crc32c,
) -> Result<Block<'_>, BlockError> {
    let disk = Disk::mut_from_bytes(block.as_mut_slice()).map_err(|_| BlockError::Magic)?;
    if disk.magic.get() != MAGIC {
        return Err(BlockError::Magic);
    }
    let crc = core::mem::replace(&mut disk.crc, U32::ZERO).get();
    if crc32c(block.as_slice()) != crc {
        return Err(BlockError::Crc);
    }
    let disk = Disk::ref_from_bytes(block.as_slice()).map_err(|_| BlockError::Magic)?;
    match disk.kind.get() {
        TYPE_INITIALIZED => Ok(Block::Initialized),
        TYPE_UPDATE if usize::from(disk.n_updates.get()) <= MAX_UPDATES => Ok(Block::Update(disk)),
        _ => Err(BlockError::Invalid),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::vec::Vec;

    /// The check sum as the spec describes it, bit by bit.
    pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
            })
        })
    }

    #[test]
    fn an_initialised_block_has_the_known_check_sum() {
        let mut block = [0xaa; BLOCK_SIZE];
        initialize(&mut block, crc32c);
        assert_eq!(
            block[..16],
            [0x69, 0xcb, 0x65, 0xa2, 0, 0, 0, 0, 0x70, 0x9c, 0xc6, 0x51, 0xff, 0xff, 0, 0]
        );
        assert!(block[16..].iter().all(|&byte| byte == 0));
        assert!(matches!(decode(&mut block, crc32c), Ok(Block::Initialized)));
    }

    #[test]
    fn fields_lie_where_the_spec_has_them() {
        let mut block = [0; BLOCK_SIZE];
        let disk = Disk::start(&mut block, 0x0102_0304, 1237, 919).unwrap();
        disk.set_updates([(7, 0x11), (9, 0x22)].into_iter());
        disk.set_context([0x33, 0x44].into_iter());
        seal(&mut block, crc32c);
        assert_eq!(block[4..8], [1, 2, 3, 4]);
        assert_eq!(block[12..20], [0, 0, 0, 2, 4, 0xd5, 3, 0x97]);
        assert_eq!(block[36..42], [0, 7, 0, 9, 0xff, 0xff]);
        assert_eq!(
            block[164..176],
            [0, 0, 0, 0x11, 0, 0, 0, 0x22, 0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(
            block[420..432],
            [0, 0, 0, 0x33, 0, 0, 0, 0x44, 0xff, 0xff, 0xff, 0xff]
        );
        let Ok(Block::Update(disk)) = decode(&mut block, crc32c) else {
            panic!("a sealed block decodes");
        };
        assert_eq!(disk.updates().collect::<Vec<_>>(), [(7, 0x11), (9, 0x22)]);
        let context: Vec<_> = disk.context().collect();
        assert_eq!(context.len(), 1237 - 919);
        assert_eq!(context[..3], [(919, 0x33), (920, 0x44), (921, FREE)]);
    }

    #[test]
    fn a_block_with_one_bit_changed_is_not_believed() {
        let mut block = [0; BLOCK_SIZE];
        initialize(&mut block, crc32c);
        for bit in (0..8 * BLOCK_SIZE).step_by(97) {
            let mut torn = block;
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&mut torn, crc32c).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn more_updates_than_fit_are_refused_even_with_a_good_check_sum() {
        let mut block = [0; BLOCK_SIZE];
        Disk::start(&mut block, 1, 67, 0).unwrap().n_updates = 65.into();
        seal(&mut block, crc32c);
        assert!(matches!(
            decode(&mut block, crc32c),
            Err(BlockError::Invalid)
        ));
    }
}
