// SPDX-License-Identifier: GPL-2.0

//! Whole commands on files that stand for devices: fresh ones, and one that a C driver used.

use super::area::Area;
use super::store::{Page, Store};
use super::{create, dump, recover, relocate, Given, Options};
use crate::failure::Outcome;
use crate::note::Note;
use drbd_engine::activity_log::block::{self, BLOCK_SIZE};
use drbd_engine::meta::superblock::Magic;
use drbd_engine::meta::{MdFlags, Placement};
use drbd_engine::types::Sector;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const MIB: u64 = 1 << 20;

/// The last 64 KiB of a backing device of 16 MiB after the C driver let go of it.
const AFTER_DOWN: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/engine/data/metadata-after-down.bin"
));
/// What stock drbdmeta dumps of it once the activity log was applied, from the third line on.
const AFTER_DOWN_DUMP: &str = include_str!("../../tests/data/after-down.dump");

/// A file in the place of a device.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn new(size: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("drbdmeta-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        Self { path }
    }

    fn with_end(size: u64, end: &[u8]) -> Self {
        let disk = Self::new(size);
        disk.write(size - end.len() as u64, end);
        disk
    }

    fn file(&self) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(&self.path).unwrap()
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut file = self.file();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn store(&self) -> Store {
        Store::of(self.file(), "/dev/test", false).unwrap()
    }

    fn load(&self) -> Outcome<Area> {
        Area::load(self.store(), Placement::Internal).map_err(|(_, failure)| failure)
    }

    fn create(&self, placement: Placement, options: &Options) -> Outcome<Area> {
        create::create(self.store(), placement, options)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}

fn options(force: bool) -> Options {
    Options {
        force,
        verbose: false,
        dry_run: false,
        ignore_sanity_checks: false,
        peer_max_bio_bytes: 0,
        al_stripes: 1,
        al_stripe_kib: 32,
        initialize_bitmap: create::InitializeBitmap::Write,
        command_line: String::new(),
        given: Given::default(),
    }
}

/// A dump without the lines that depend on time and place.
fn dumped(area: &Area, force: bool) -> Outcome<String> {
    let mut out = Vec::new();
    dump::dump(area, &options(force), &mut out)?;
    let text = String::from_utf8(out).unwrap();
    let body = text.splitn(4, '\n').nth(3);
    Ok(body.unwrap_or_default().to_owned())
}

#[test]
fn new_metadata_are_clean_empty_and_found_again() {
    let disk = Disk::new(64 * MIB);
    disk.create(Placement::Internal, &options(false)).unwrap();
    let area = disk.load().unwrap();
    assert_eq!(area.superblock.check_clean(), Ok(()));
    assert_eq!(area.superblock.uuids.current, 4);
    assert_eq!(area.layout().superblock(), Sector(67_104_768 / 512));
}

#[test]
fn striped_and_external_metadata_are_found_again() {
    let disk = Disk::new(300 * MIB);
    let striped = Options {
        al_stripes: 4,
        al_stripe_kib: 64,
        ..options(false)
    };
    disk.create(Placement::Internal, &striped).unwrap();
    assert_eq!(disk.load().unwrap().superblock.ring.stripes(), 4);
    let placement = Placement::Indexed(1);
    disk.create(placement, &options(false)).unwrap();
    let area = Area::load(disk.store(), placement).map_err(|_| ()).unwrap();
    assert_eq!(area.layout().superblock(), Sector(262_144));
}

#[test]
fn metadata_in_place_are_not_overwritten_without_a_yes() {
    let disk = Disk::new(4 * MIB);
    disk.create(Placement::Internal, &options(false)).unwrap();
    let mut area = disk.load().unwrap();
    area.superblock.uuids.current = 77;
    area.save().unwrap();
    let before = disk.bytes();
    let refused = disk.create(Placement::Internal, &options(false));
    assert_eq!(refused.unwrap_err().exit(), 1);
    assert_eq!(disk.bytes(), before);
    disk.create(Placement::Internal, &options(true)).unwrap();
    assert_eq!(disk.load().unwrap().superblock.uuids.current, 4);
}

#[test]
fn a_filesystem_that_would_lose_its_end_is_not_touched_even_with_force() {
    let disk = Disk::new(4 * MIB);
    // An ext2 super block: 1024 blocks of 4 KiB.
    disk.write(1024 + 4, &1024u32.to_le_bytes());
    disk.write(1024 + 24, &2u32.to_le_bytes());
    disk.write(1024 + 56, &[0x53, 0xef]);
    let before = disk.bytes();
    let refused = disk.create(Placement::Internal, &options(true));
    assert_eq!(refused.unwrap_err().exit(), 40);
    let refused = disk.create(Placement::FlexibleExternal, &options(true));
    assert_eq!(refused.unwrap_err().exit(), 40);
    assert_eq!(disk.bytes(), before);
}

#[test]
fn a_filesystem_that_leaves_room_is_kept_with_force() {
    let disk = Disk::new(4 * MIB);
    disk.write(1024 + 4, &256u32.to_le_bytes());
    disk.write(1024 + 24, &2u32.to_le_bytes());
    disk.write(1024 + 56, &[0x53, 0xef]);
    let refused = disk.create(Placement::Internal, &options(false));
    assert_eq!(refused.unwrap_err().exit(), 1);
    disk.create(Placement::Internal, &options(true)).unwrap();
    assert_eq!(disk.bytes()[1024 + 56..][..2], [0x53, 0xef]);
}

#[test]
fn a_device_without_room_and_a_log_without_sense_are_refused() {
    let exit = |disk: &Disk, options: &Options| {
        let refused = disk.create(Placement::Internal, options);
        refused.unwrap_err().exit()
    };
    assert_eq!(exit(&Disk::new(60 << 10), &options(true)), 10);
    let disk = Disk::new(64 * MIB);
    for (al_stripes, al_stripe_kib) in [(0, 32), (1, 16), (1024, 99_999_999)] {
        let options = Options {
            al_stripes,
            al_stripe_kib,
            ..options(true)
        };
        assert_eq!(exit(&disk, &options), 10);
    }
}

#[test]
fn what_a_driver_left_is_dumped_as_stock_drbdmeta_dumps_it() {
    let disk = Disk::with_end(16 * MIB, AFTER_DOWN);
    let mut area = disk.load().unwrap();
    assert_eq!(dumped(&area, false).unwrap_err().exit(), 1);
    let unclean = dumped(&area, true).unwrap();
    assert!(unclean.contains("This_is_an_unclean_meta_data_dump."));
    recover::apply(&mut area, false).unwrap();
    assert_eq!(
        dumped(&disk.load().unwrap(), false).unwrap(),
        AFTER_DOWN_DUMP
    );
}

#[test]
fn applying_the_log_twice_changes_nothing_the_second_time() {
    let disk = Disk::with_end(16 * MIB, AFTER_DOWN);
    recover::apply(&mut disk.load().unwrap(), false).unwrap();
    let before = disk.bytes();
    recover::apply(&mut disk.load().unwrap(), false).unwrap();
    assert_eq!(disk.bytes(), before);
}

#[test]
fn without_a_usable_log_a_crashed_primary_is_refused_and_a_secondary_is_not() {
    for (flags, expected) in [
        (MdFlags::PRIMARY_IND, Err(1)),
        (MdFlags::CONSISTENT, Ok(())),
    ] {
        let disk = Disk::with_end(16 * MIB, AFTER_DOWN);
        let mut area = disk.load().unwrap();
        area.superblock.flags = flags;
        let log = area.layout().activity_log().bytes().unwrap();
        area.save().unwrap();
        disk.write(log, &[0xa5; 8 * BLOCK_SIZE]);
        let applied = recover::apply(&mut disk.load().unwrap(), false);
        assert_eq!(applied.map_err(|failure| failure.exit()), expected);
    }
}

#[test]
fn the_log_of_an_8_3_driver_is_applied() {
    let disk = crashed_83_primary(3);
    recover::apply(&mut disk.load().unwrap(), false).unwrap();
    let area = disk.load().unwrap();
    assert_eq!(area.superblock.magic, Magic::Clean);
    let mut set = 0;
    area.for_each_bitmap_chunk(|_, pages| {
        let bytes = pages.iter().flat_map(|page| page.0);
        set = bytes.map(u8::count_ones).sum();
        Ok(())
    })
    .unwrap();
    assert_eq!(set, 1024);
}

#[test]
fn an_extent_that_the_bitmap_does_not_have_is_refused() {
    let disk = crashed_83_primary(32);
    let refused = recover::apply(&mut disk.load().unwrap(), false);
    assert_eq!(refused.unwrap_err().exit(), 10);
}

/// A volume of 16 MiB whose Primary crashed while it wrote to this extent of 4 MiB.
fn crashed_83_primary(extent: u32) -> Disk {
    let disk = Disk::new(16 * MIB);
    let mut area = disk.create(Placement::Internal, &options(false)).unwrap();
    area.superblock.last_agreed_size = area.layout().usable();
    area.superblock.flags = MdFlags::CONSISTENT.with(MdFlags::PRIMARY_IND);
    area.superblock.al_extents = 127;
    area.save().unwrap();
    let mut log = vec![0; 8 * BLOCK_SIZE];
    log[512..1024].copy_from_slice(&sector_83(extent));
    disk.write(area.layout().activity_log().bytes().unwrap(), &log);
    disk
}

/// A sector of an 8.3 activity log that says that slot 0 holds this extent.
fn sector_83(extent: u32) -> [u8; 512] {
    let mut words = vec![0x8374_0267, 5, 0, extent];
    words.extend([0xffff, 0].repeat(61));
    words.extend([extent, 0]);
    let bytes: Vec<_> = words
        .iter()
        .flat_map(|word: &u32| word.to_be_bytes())
        .collect();
    bytes.try_into().unwrap()
}

#[test]
fn metadata_of_a_device_that_grew_move_to_its_end_with_their_bitmap() {
    let disk = Disk::with_end(16 * MIB, AFTER_DOWN);
    let mut old = disk.load().unwrap();
    recover::apply(&mut old, false).unwrap();
    let mut bits = vec![Page::ZERO];
    bits[0].0[5] = 0x81;
    old.write_bitmap(0, &bits).unwrap();
    disk.file().set_len(200 * MIB).unwrap();
    let note = Note {
        size: 16 * MIB,
        path: String::new(),
        uuid: old.superblock.device_uuid,
    };
    let load = |note| relocate::load(disk.store(), Placement::Internal, note, &options(false));
    assert_eq!(load(None).unwrap_err().exit(), 1);
    load(Some(&note)).unwrap();
    let new = disk.load().unwrap();
    assert_eq!(new.superblock.uuids, old.superblock.uuids);
    assert_eq!(
        new.superblock.last_agreed_size,
        old.superblock.last_agreed_size
    );
    new.read_bitmap(0, &mut bits).unwrap();
    assert_eq!(bits[0].0[5], 0x81);
    let left = Area::load(disk.store().with_size(16 * MIB), Placement::Internal);
    assert!(left.is_err(), "the old super block is still there");
}

#[test]
fn metadata_of_another_device_are_not_moved() {
    let disk = Disk::with_end(16 * MIB, AFTER_DOWN);
    disk.file().set_len(200 * MIB).unwrap();
    let note = Note {
        size: 16 * MIB,
        path: String::new(),
        uuid: 1,
    };
    let before = disk.bytes();
    let loaded = relocate::load(
        disk.store(),
        Placement::Internal,
        Some(&note),
        &options(false),
    );
    assert_eq!(loaded.unwrap_err().exit(), 1);
    assert!(disk.bytes() == before);
}

#[test]
fn a_fresh_log_has_the_check_sum_that_drivers_expect() {
    let mut block = [0; BLOCK_SIZE];
    block::initialize(&mut block, super::crc32c_raw);
    assert_eq!(block[8..12], [0x70, 0x9c, 0xc6, 0x51]);
}
