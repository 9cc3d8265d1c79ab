// SPDX-License-Identifier: GPL-2.0

//! Metadata as the C driver 8.4.11 and drbd-utils 9.22 left them on a disk of 16 MiB, against what
//! `drbdmeta dump-md` says of them.
//!
//! `data/metadata-fresh.bin` are the disk's last 64 KiB right after `create-md`,
//! `data/metadata-after-down.bin` the same after two resyncs, some writes as Primary and `down`.

use drbd_engine::activity_log::recovery::{self, Format, Found, Replayed};
use drbd_engine::activity_log::{block, ActivityLog, Ring, Slot, Span, BLOCK_SIZE};
use drbd_engine::bitmap::{bits_for, words_for, Bitmap, PAGE_SIZE};
use drbd_engine::meta::crash::{AttachInputs, AttachedDisk, BitmapSource};
use drbd_engine::meta::superblock::{Magic, Superblock, SUPERBLOCK_SIZE};
use drbd_engine::meta::{Layout, MdFlags, MetaError, Placement, Uuids};
use drbd_engine::types::{ExtentNr, Sector};
use std::cell::Cell;

const DISK_SECTORS: u64 = 32768;
const FRESH: &[u8] = include_bytes!("../data/metadata-fresh.bin");
const AFTER_DOWN: &[u8] = include_bytes!("../data/metadata-after-down.bin");

/// A 4 KiB block of a recording by its sector on the disk.
fn block_at(recording: &[u8], sector: Sector) -> &[u8] {
    let start = DISK_SECTORS - recording.len() as u64 / 512;
    let offset = (sector.0 - start) as usize * 512;
    &recording[offset..offset + BLOCK_SIZE]
}

fn superblock(recording: &[u8]) -> Superblock {
    let sector = Placement::Internal.superblock_sector(DISK_SECTORS).unwrap();
    Superblock::decode(block_at(recording, sector)).unwrap()
}

fn layout(recording: &[u8]) -> Layout {
    let stored = superblock(recording);
    Layout::of(Placement::Internal, DISK_SECTORS, DISK_SECTORS, &stored).unwrap()
}

/// Raw CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, &byte| {
        let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        (0..8).fold(crc ^ u32::from(byte), step)
    })
}

fn replay(recording: &[u8]) -> (Replayed, Vec<ExtentNr>) {
    let layout = layout(recording);
    let read = |n, buffer: &mut [u8; BLOCK_SIZE]| {
        buffer.copy_from_slice(block_at(recording, layout.activity_log_block(n).unwrap()));
        Ok::<_, ()>(())
    };
    let mut table = vec![0; recovery::TABLE_SIZE];
    let (mut order, mut buffer) = ([Found::default(); 8], [0; BLOCK_SIZE]);
    let replayed = recovery::replay_84(
        layout.ring(),
        read,
        crc32c,
        &mut buffer,
        &mut order,
        &mut table,
    );
    let mut hot: Vec<_> = recovery::hot(&table).collect();
    hot.sort_unstable();
    (replayed.unwrap(), hot)
}

#[test]
fn the_used_super_block_reads_as_drbdmeta_dumps_it() {
    let expected = Superblock {
        last_agreed_size: Sector(32688),
        uuids: Uuids {
            current: 0x2FF1_5624_2827_9162,
            bitmap: 0,
            history: [0x9D68_70C3_EA42_F557, 0x9D67_70C3_EA42_F557],
        },
        device_uuid: 0x7229_5739_66DC_93AA,
        flags: MdFlags::CONSISTENT.with(MdFlags::WAS_UP_TO_DATE),
        magic: Magic::Unclean,
        md_size_sectors: 80,
        al_offset_sectors: -64,
        al_extents: 1237,
        bitmap_offset_sectors: -72,
        peer_max_bio_bytes: 1_048_576,
        ring: Ring::DEFAULT,
    };
    assert_eq!(superblock(AFTER_DOWN), expected);
    assert_eq!(expected.check_clean(), Err(MetaError::Unclean));
}

#[test]
fn the_parts_lie_where_drbdmeta_says() {
    for recording in [FRESH, AFTER_DOWN] {
        let layout = layout(recording);
        assert_eq!(layout.superblock().bytes(), Some(16_773_120));
        assert_eq!(layout.activity_log().bytes(), Some(16_740_352));
        assert_eq!(layout.bitmap().bytes(), Some(16_736_256));
        assert_eq!(layout.usable(), Sector(32688));
    }
}

#[test]
fn both_super_blocks_encode_to_the_recorded_bytes() {
    for recording in [FRESH, AFTER_DOWN] {
        let mut encoded = [0xaa; SUPERBLOCK_SIZE];
        superblock(recording).encode(&mut encoded);
        assert_eq!(encoded, block_at(recording, layout(recording).superblock()));
    }
}

#[test]
fn fresh_metadata_are_ours_but_for_the_device_uuid() {
    let layout = Layout::fresh(
        Placement::Internal,
        DISK_SECTORS,
        DISK_SECTORS,
        Ring::DEFAULT,
    )
    .unwrap();
    let mut ours = Superblock::fresh(&layout);
    ours.device_uuid = 0x7229_5739_66DC_93AA;
    assert_eq!(superblock(FRESH), ours);
    assert_eq!(superblock(FRESH).check_clean(), Ok(()));
    let mut initialized = [0; BLOCK_SIZE];
    block::initialize(&mut initialized, crc32c);
    for n in 0..8 {
        assert_eq!(
            block_at(FRESH, layout.activity_log_block(n).unwrap()),
            initialized
        );
    }
    assert_eq!(replay(FRESH), (Replayed::Empty, vec![]));
}

#[test]
fn the_recorded_activity_log_replays_to_the_extents_written() {
    let layout = layout(AFTER_DOWN);
    let first = block_at(AFTER_DOWN, layout.activity_log_block(0).unwrap());
    assert_eq!(
        Format::detect(Magic::Clean, Ring::DEFAULT, first, first),
        Format::V84
    );
    let hot = vec![ExtentNr(0), ExtentNr(1), ExtentNr(2)];
    assert_eq!(replay(AFTER_DOWN), (Replayed::Transactions(8), hot));
}

#[test]
fn after_apply_al_the_disk_is_up_to_date_and_nothing_is_marked() {
    let attach = AttachInputs {
        flags: superblock(AFTER_DOWN).flags.with(MdFlags::AL_CLEAN),
        primary: false,
        suspended_no_data: false,
        fencing_dont_care: true,
    };
    let attach = attach.decide();
    assert!(!attach.crashed_primary);
    assert_eq!(attach.bitmap, BitmapSource::Disk);
    assert_eq!(attach.disk, AttachedDisk::UpToDate);
}

#[test]
fn the_recorded_bitmap_is_clear_and_exports_as_it_was_read() {
    let capacity = superblock(AFTER_DOWN).last_agreed_size;
    let words = vec![Cell::new(0); words_for(bits_for(capacity)) as usize];
    let bitmap = Bitmap::new(words.as_slice(), capacity).unwrap();
    let layout = layout(AFTER_DOWN);
    let page: &[u8; PAGE_SIZE] = block_at(AFTER_DOWN, layout.bitmap_page(0).unwrap())
        .try_into()
        .unwrap();
    assert_eq!(bitmap.merge_page(0, page), 0);
    assert_eq!(layout.bitmap_page(1), None);
    let mut exported = [0xaa; PAGE_SIZE];
    bitmap.export_page(0, &mut exported);
    assert_eq!(&exported, page);
}

#[test]
fn our_log_writes_the_blocks_that_the_recorded_one_would_for_its_slots() {
    // The C driver rewrote the ring when it attached (transactions 0 to 7), then made extents 0, 1
    // and 2 hot, each in a transaction of its own. It takes free slots from the last one down, ours
    // from the first one up, so only those numbers differ.
    let mut log = ActivityLog::new(vec![Slot::default(); 1237], Ring::DEFAULT);
    let layout = layout(AFTER_DOWN);
    let mut ours = [0; BLOCK_SIZE];
    for n in 0..8 {
        log.rewrite(&mut ours, crc32c).unwrap();
        if n >= 3 {
            assert_eq!(
                ours,
                block_at(AFTER_DOWN, layout.activity_log_block(n).unwrap())
            );
        }
    }
    for extent in 0..3 {
        log.reserve(Span::one(ExtentNr(extent)).unwrap());
        let transaction = log.begin(&mut ours, crc32c).unwrap();
        assert_eq!(transaction.ring_block, extent);
        let theirs = block_at(AFTER_DOWN, layout.activity_log_block(extent).unwrap());
        assert_eq!(ours[..8], theirs[..8]);
        assert_eq!(ours[12..36], theirs[12..36]);
        assert_eq!(ours[164..420], theirs[164..420]);
        log.commit();
    }
}
