// SPDX-License-Identifier: GPL-2.0

//! What the admin's tools do to the metadata of a disk that is not attached, and what an observer
//! reads in them.

use std::rc::Rc;

use drbd_engine::activity_log::block::initialize;
use drbd_engine::activity_log::recovery::{hot, replay_84, Found, Replayed, TABLE_SIZE};
use drbd_engine::activity_log::{Ring, BLOCK_SIZE};
use drbd_engine::bitmap::bits_for;
use drbd_engine::bitmap::page::{pages_for, Page};
use drbd_engine::meta::superblock::Magic;
use drbd_engine::meta::{Layout, MdFlags, Placement, Superblock, Uuids, SUPERBLOCK_SIZE};
use drbd_engine::types::{ExtentNr, Sector};

use crate::canary::Canary;
use crate::drive::{Content, Drive, Sectors};
use crate::node::disk::meta_sectors;
use crate::node::Config;

/// Raw CRC-32C: seed 0, no inversion.
pub fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::OnceLock<[u32; 256]> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|index| {
            (0..8).fold(index as u32, |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
            })
        })
    });
    bytes.iter().fold(0, |crc, &byte| {
        (crc >> 8) ^ table[((crc ^ u32::from(byte)) & 0xff) as usize]
    })
}

/// Sectors of the disk that metadata and data share, or of the one that has the metadata alone.
fn device_sectors(config: &Config) -> (Placement, u64, u64) {
    if config.internal_metadata {
        let sectors = config.capacity_sectors + 4096;
        (Placement::Internal, sectors, sectors)
    } else {
        (Placement::FlexibleExternal, config.capacity_sectors, 4096)
    }
}

/// Where the metadata lie.
pub fn layout(config: &Config) -> Layout {
    let (placement, backing, device) = device_sectors(config);
    Layout::fresh(placement, backing, device, Ring::DEFAULT).expect("the sizes are chosen to fit")
}

/// `drbdmeta create-md`, and both disks declared equal, as after an initial sync.
pub fn create_metadata(meta: &Drive, config: &Config, current_uuid: u64) {
    let layout = layout(config);
    let mut superblock = Superblock::fresh(&layout);
    superblock.uuids = Uuids {
        current: current_uuid & !1,
        bitmap: 0,
        history: [0; 2],
    };
    superblock.last_agreed_size = Sector(config.capacity_sectors);
    superblock.flags = MdFlags::AL_CLEAN
        .with(MdFlags::CONSISTENT)
        .with(MdFlags::WAS_UP_TO_DATE);
    write_superblock(meta, &layout, &superblock);
    initialize_log(meta, &layout);
}

/// `drbdmeta create-md` alone: the disk follows any peer that has data.
pub fn wipe_metadata(meta: &Drive, config: &Config) {
    let layout = layout(config);
    let mut superblock = Superblock::fresh(&layout);
    superblock.last_agreed_size = Sector(config.capacity_sectors);
    write_superblock(meta, &layout, &superblock);
    initialize_log(meta, &layout);
}

fn write_superblock(meta: &Drive, layout: &Layout, superblock: &Superblock) {
    let mut block = [0; SUPERBLOCK_SIZE];
    superblock.encode(&mut block);
    meta.poke(&meta_sectors(layout.superblock(), &block));
}

fn initialize_log(meta: &Drive, layout: &Layout) {
    let mut block = [0; BLOCK_SIZE];
    initialize(&mut block, crc32c);
    for position in 0..layout.ring().blocks() {
        if let Some(sector) = layout.activity_log_block(position) {
            meta.poke(&meta_sectors(sector, &block));
        }
    }
}

fn read_block(meta: &Drive, sector: Sector) -> [u8; 4096] {
    block_of(sector, &meta.peek(sector.0, 8))
}

/// The block of metadata that begins at a sector.
pub fn block_of(sector: Sector, sectors: &Sectors) -> [u8; 4096] {
    let mut block = [0; 4096];
    for (at, content) in sectors {
        if let Some(Content::Meta(bytes)) = content {
            let start = usize::try_from(at - sector.0).unwrap_or(0) * 512;
            block[start..start + 512].copy_from_slice(bytes.as_ref());
        }
    }
    block
}

/// Reads the super block, if it is one.
pub fn read_superblock(meta: &Drive, config: &Config) -> Option<Superblock> {
    Superblock::decode(&read_block(meta, layout(config).superblock())).ok()
}

/// Reads a page of the bitmap.
pub fn read_bitmap_page(meta: &Drive, config: &Config, page: u64) -> Page {
    layout(config)
        .bitmap_page(page)
        .map_or([0; 4096], |sector| read_block(meta, sector))
}

/// The extents that the activity log on disk calls hot; none where it was never written since it
/// was initialised.
pub fn hot_extents(meta: &Drive, config: &Config) -> Vec<ExtentNr> {
    let layout = layout(config);
    let mut table = vec![0; TABLE_SIZE];
    let mut order = vec![Found::default(); usize::try_from(layout.ring().blocks()).unwrap_or(0)];
    let read = |position: u32, buffer: &mut [u8; BLOCK_SIZE]| {
        let sector = layout.activity_log_block(position).ok_or(())?;
        *buffer = read_block(meta, sector);
        Ok::<(), ()>(())
    };
    let mut buffer = [0; BLOCK_SIZE];
    let replayed = replay_84(
        layout.ring(),
        read,
        crc32c,
        &mut buffer,
        &mut order,
        &mut table,
    );
    match replayed {
        Ok(Replayed::Transactions(_)) => hot(&table).collect(),
        _ => Vec::new(),
    }
}

/// `drbdmeta apply-al`: what was hot is out of sync; the log is empty and the metadata clean
/// afterwards.
pub fn apply_activity_log(meta: &Rc<Drive>, config: &Config) {
    let layout = layout(config);
    let Some(mut superblock) = read_superblock(meta, config) else {
        return;
    };
    if superblock.check_clean().is_ok() {
        return;
    }
    let mut extents = hot_extents(meta, config);
    if config.has(Canary::ActivityLogIgnored) {
        extents.clear();
    }
    for page in 0..pages_for(bits_for(Sector(config.capacity_sectors))) {
        let mut content = read_bitmap_page(meta, config, page);
        for extent in &extents {
            mark_extent(&mut content, page, *extent);
        }
        if let Some(sector) = layout.bitmap_page(page) {
            meta.poke(&meta_sectors(sector, &content));
        }
    }
    superblock.magic = Magic::Clean;
    superblock.flags = superblock.flags.with(MdFlags::AL_CLEAN);
    write_superblock(meta, &layout, &superblock);
    initialize_log(meta, &layout);
}

/// Sets the 1024 bits of an extent if they lie in this page.
fn mark_extent(content: &mut Page, page: u64, extent: ExtentNr) {
    let first = u64::from(extent.0) * 128;
    let Some(start) = first.checked_sub(page * 4096) else {
        return;
    };
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    if let Some(bytes) = content.get_mut(start..start.saturating_add(128)) {
        bytes.fill(0xff);
    }
}
