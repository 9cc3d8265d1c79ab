// SPDX-License-Identifier: GPL-2.0

//! `apply-al`: marks what a crashed Primary may have been writing to (Spec §2.5).

use super::area::Area;
use super::crc32c_raw;
use super::store::{Page, PAGE_SIZE};
use crate::failure::{Failure, Outcome};
use crate::generation::size_text;
use drbd_engine::activity_log::recovery::{
    hot, replay_83, replay_84, sectors_83, Format, Found, ReplayError, Replayed, SECTOR_83_SIZE,
    TABLE_SIZE,
};
use drbd_engine::meta::superblock::Magic;
use drbd_engine::meta::MdFlags;
use std::collections::BTreeSet;

/// Bytes of bitmap of one activity log extent.
const EXTENT_BYTES: usize = 128;
/// Extents that one page of bitmap covers.
const EXTENTS_PER_PAGE: u32 = 32;

/// Applies the activity log and declares the metadata clean. Clean metadata stay as they are.
pub fn apply(area: &mut Area, verbose: bool) -> Outcome {
    let log = Log::read(area)?;
    let mut table = vec![0; TABLE_SIZE];
    let replayed = log.replay(area, &mut table)?;
    let superblock = &area.superblock;
    let unused = log.format == Format::V84 && replayed == Replayed::Empty;
    if superblock.check_clean().is_ok() && unused {
        return Ok(());
    }
    let was_primary = superblock.flags.contains(MdFlags::PRIMARY_IND);
    match replayed {
        Replayed::NoValidBlock if was_primary => {
            let text = "No usable activity log found. Do you need to create-md?";
            return Err(Failure::new(1, text));
        }
        Replayed::Transactions(_) if was_primary => {
            let added = mark(area, &hot(&table).map(|extent| extent.0).collect())?;
            if added != 0 || verbose {
                let added = size_text(added.saturating_mul(4));
                eprintln!("Marked additional {added} as out-of-sync based on AL.");
            }
        }
        _ if verbose => eprintln!("Nothing to do."),
        _ => {}
    }
    area.store().flush()?;
    area.initialize_log()?;
    area.store().flush()?;
    area.superblock.flags = area.superblock.flags.with(MdFlags::AL_CLEAN);
    area.superblock.magic = Magic::Clean;
    area.save()
}

/// The activity log in memory.
struct Log {
    blocks: Vec<Page>,
    format: Format,
}

impl Log {
    fn read(area: &Area) -> Outcome<Self> {
        let ring = area.layout().ring();
        let mut blocks = vec![Page::ZERO; usize::try_from(ring.blocks()).unwrap_or(0)];
        area.store()
            .read(area.layout().activity_log(), &mut blocks)?;
        let content = |index: usize| blocks.get(index).map_or(&[][..], |page| &page.0);
        let format = Format::detect(area.superblock.magic, ring, content(0), content(1));
        Ok(Self { blocks, format })
    }

    /// Fills the table of slots with what the log says.
    fn replay(&self, area: &Area, table: &mut [u32]) -> Outcome<Replayed> {
        let replayed = match self.format {
            Format::V84 => self.replay_84(area, table),
            Format::V83 => self.replay_83(area, table),
        };
        replayed
            .map_err(|_| Failure::new(10, "the activity log is smaller than the super block says"))
    }

    fn replay_84(&self, area: &Area, table: &mut [u32]) -> Result<Replayed, ReplayError<()>> {
        let read = |block: u32, buffer: &mut [u8; PAGE_SIZE]| {
            let page = usize::try_from(block)
                .ok()
                .and_then(|at| self.blocks.get(at));
            page.map(|page| *buffer = page.0).ok_or(())
        };
        let mut order = vec![Found::default(); self.blocks.len()];
        let mut buffer = [0; PAGE_SIZE];
        let ring = area.layout().ring();
        replay_84(ring, read, crc32c_raw, &mut buffer, &mut order, table)
    }

    fn replay_83(&self, area: &Area, table: &mut [u32]) -> Result<Replayed, ReplayError<()>> {
        let al_extents = area.superblock.al_extents;
        let read = |sector: u32, buffer: &mut [u8; SECTOR_83_SIZE]| {
            *buffer = self.sector(sector).ok_or(())?;
            Ok(())
        };
        let sectors = usize::try_from(sectors_83(al_extents)).unwrap_or(0);
        let mut order = vec![Found::default(); sectors];
        let mut buffer = [0; SECTOR_83_SIZE];
        replay_83(al_extents, read, &mut buffer, &mut order, table)
    }

    fn sector(&self, sector: u32) -> Option<[u8; SECTOR_83_SIZE]> {
        let sector = usize::try_from(sector).ok()?;
        let page = self.blocks.get(sector / 8)?;
        let start = (sector % 8).checked_mul(SECTOR_83_SIZE)?;
        page.0.get(start..)?.first_chunk().copied()
    }
}

/// Sets the bits of these extents in the bitmap on disk. Returns how many were not set before.
///
/// Extents are marked as a whole, also where the volume ends within one: drivers clear what lies
/// beyond its end when they read the bitmap.
fn mark(area: &Area, extents: &BTreeSet<u32>) -> Outcome<u64> {
    let mut added = 0u64;
    let mut rest = extents.iter().copied().peekable();
    while let Some(&first) = rest.peek() {
        let number = first / EXTENTS_PER_PAGE;
        if u64::from(number) >= area.bitmap_pages() {
            let text = format!("extent {first} beyond end of bitmap!");
            return Err(Failure::new(10, text));
        }
        let mut pages = [Page::ZERO];
        area.read_bitmap(u64::from(number), &mut pages)?;
        let [page] = &mut pages;
        while let Some(extent) = rest.next_if(|extent| extent / EXTENTS_PER_PAGE == number) {
            added = added.saturating_add(mark_extent(page, extent));
        }
        area.write_bitmap(u64::from(number), &pages)?;
    }
    Ok(added)
}

fn mark_extent(page: &mut Page, extent: u32) -> u64 {
    let place = usize::try_from(extent % EXTENTS_PER_PAGE).unwrap_or(0);
    let bits = page
        .0
        .chunks_exact_mut(EXTENT_BYTES)
        .nth(place)
        .unwrap_or_default();
    let added = bits.iter().map(|byte| u64::from(byte.count_zeros())).sum();
    bits.fill(0xff);
    added
}
