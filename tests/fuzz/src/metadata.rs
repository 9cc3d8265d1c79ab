// SPDX-License-Identifier: GPL-2.0

//! Metadata as they lie on a disk: super block, where everything is, activity log of both kinds.

use crate::input::Input;
use drbd_engine::activity_log::recovery::{self, Format, Found};
use drbd_engine::activity_log::{Ring, BLOCK_SIZE};
use drbd_engine::meta::superblock::{Superblock, SUPERBLOCK_SIZE};
use drbd_engine::meta::{Layout, Placement};

/// The replay of larger rings is the same in more steps.
const BLOCKS_MAX: u32 = 256;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let index = i32::from(input.u8()) - 4;
    let backing = input.number();
    let device = if input.bool() {
        input.number()
    } else {
        backing
    };
    let has_checksum = input.bool();
    let block = input.bytes(SUPERBLOCK_SIZE);
    let Ok(superblock) = Superblock::decode(block) else {
        return;
    };
    let mut again = [0; SUPERBLOCK_SIZE];
    superblock.encode(&mut again);
    assert_eq!(Superblock::decode(&again).as_ref(), Ok(&superblock));
    let _ = superblock.check_clean();
    if let Some(placement) = Placement::from_index(index) {
        place(placement, backing, device, &superblock);
    }
    replay(&superblock, superblock.ring, input.0, has_checksum);
}

fn place(placement: Placement, backing: u64, device: u64, superblock: &Superblock) {
    let _ = placement.superblock_sector(device);
    let Ok(layout) = Layout::of(placement, backing, device, superblock) else {
        return;
    };
    // Nothing of it is where the data are, or beyond the end.
    let last = *layout.sectors().end();
    assert!(
        last < device,
        "metadata up to {last} on a device of {device} sectors"
    );
    for block in [0, layout.ring().blocks() - 1] {
        let sector = layout
            .activity_log_block(block)
            .expect("a block of the ring");
        assert!(layout.sectors().contains(&sector.0));
    }
    if let Some(sector) = layout.bitmap_page(0) {
        assert!(layout.sectors().contains(&sector.0));
    }
    if placement.is_internal() {
        assert!(layout.usable().0 <= *layout.sectors().start());
    }
    assert!(layout.usable().0 <= backing);
}

fn replay(superblock: &Superblock, ring: Ring, log: &[u8], has_checksum: bool) {
    // A checksum that always fits lets the fuzzer behind it.
    let crc32c = |bytes: &[u8]| {
        if has_checksum {
            0
        } else {
            bytes
                .iter()
                .fold(0, |sum: u32, byte| sum.rotate_left(5) ^ u32::from(*byte))
        }
    };
    let first = log.get(..BLOCK_SIZE).unwrap_or_default();
    let format = Format::detect(superblock.magic, ring, first, &[]);
    let mut table = vec![0; recovery::TABLE_SIZE];
    let blocks = ring.blocks();
    if blocks > BLOCKS_MAX {
        return;
    }
    let read = |number: u32, buffer: &mut [u8]| {
        let at = number as usize * buffer.len();
        buffer.fill(0);
        if let Some(found) = log.get(at..) {
            let length = found.len().min(buffer.len());
            buffer[..length].copy_from_slice(&found[..length]);
        }
        Ok::<_, ()>(())
    };
    let mut order = vec![Found::default(); 512];
    let replayed = match format {
        Format::V84 => recovery::replay_84(
            ring,
            |number, buffer| read(number, buffer),
            crc32c,
            &mut [0; BLOCK_SIZE],
            &mut order,
            &mut table,
        ),
        Format::V83 => recovery::replay_83(
            superblock.al_extents,
            |number, buffer| read(number, buffer),
            &mut [0; recovery::SECTOR_83_SIZE],
            &mut order,
            &mut table,
        ),
    };
    if replayed.is_ok() {
        assert!(recovery::hot(&table).count() <= recovery::TABLE_SIZE);
    }
}
