// SPDX-License-Identifier: GPL-2.0

//! The metadata of one volume on their device: super block, activity log and bitmap (Spec §2).

use super::store::{Page, Store, PAGE_SECTORS};
use crate::failure::{Failure, Outcome};
use drbd_engine::activity_log::{block, Ring};
use drbd_engine::bitmap::{bits_for, page::pages_for};
use drbd_engine::meta::{Layout, MetaError, Placement, Superblock};
use drbd_engine::types::Sector;

/// Sectors of data that nobody can exceed: external metadata do not know their backing device.
const UNKNOWN_BACKING_SECTORS: u64 = u64::MAX;
/// Pages of bitmap that are read or written at once.
const CHUNK_PAGES: usize = 64;

/// Metadata that were found and make sense.
#[derive(Debug)]
pub struct Area {
    store: Store,
    placement: Placement,
    /// The super block; [`Area::save`] writes it.
    pub superblock: Superblock,
    layout: Layout,
}

/// Where the super block of this placement is, or why the device cannot have one.
pub fn superblock_sector(store: &Store, placement: Placement) -> Outcome<Sector> {
    placement
        .superblock_sector(store.sectors())
        .map_err(|error| too_small(store, &error))
}

/// The layout that new metadata would have on a device.
pub fn fresh_layout(store: &Store, placement: Placement, ring: Ring) -> Outcome<Layout> {
    Layout::fresh(placement, UNKNOWN_BACKING_SECTORS, store.sectors(), ring)
        .map_err(|error| too_small(store, &error))
}

fn too_small(store: &Store, error: &MetaError) -> Failure {
    let (path, size) = (store.path(), store.size());
    let text = match error {
        MetaError::DeviceTooSmall { need, .. } => format!(
            "{path} is only {size} bytes. That's not enough.\nAt least {} bytes are needed.",
            need.saturating_mul(512)
        ),
        other => format!("{path}: {other}"),
    };
    Failure::new(10, text)
}

impl Area {
    /// Reads the metadata of a device. Says why where there are none that make sense.
    pub fn load(store: Store, placement: Placement) -> Result<Self, (Store, Failure)> {
        match Self::read(&store, placement) {
            Ok((superblock, layout)) => Ok(Self {
                store,
                placement,
                superblock,
                layout,
            }),
            Err(failure) => Err((store, failure)),
        }
    }

    fn read(store: &Store, placement: Placement) -> Outcome<(Superblock, Layout)> {
        let sector = superblock_sector(store, placement)?;
        let mut page = [Page::ZERO];
        store.read(sector, &mut page)?;
        let invalid = |error: MetaError| {
            let text = match error {
                MetaError::Magic(_) => "No valid meta data found".to_owned(),
                other => format!("{}: {other}\nNo valid meta data found", store.path()),
            };
            Failure::new(1, text)
        };
        let [page] = &page;
        let superblock = Superblock::decode(&page.0).map_err(invalid)?;
        let sectors = store.sectors();
        let layout = Layout::of(placement, UNKNOWN_BACKING_SECTORS, sectors, &superblock);
        Ok((superblock, layout.map_err(invalid)?))
    }

    /// New metadata, of which nothing is on the device yet.
    pub fn fresh(
        store: Store,
        placement: Placement,
        layout: Layout,
        superblock: Superblock,
    ) -> Self {
        Self {
            store,
            placement,
            superblock,
            layout,
        }
    }

    /// Gives the device back.
    pub fn into_store(self) -> Store {
        self.store
    }

    /// The device.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The kind of metadata.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Where the parts lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes the super block and waits until it is on the medium.
    pub fn save(&self) -> Outcome {
        let mut page = Page::ZERO;
        self.superblock.encode(&mut page.0);
        self.store
            .write(self.layout.superblock(), &[page], "super block")?;
        self.store.flush()
    }

    /// Overwrites the activity log with one that holds nothing.
    pub fn initialize_log(&self) -> Outcome {
        let mut page = Page::ZERO;
        block::initialize(&mut page.0, super::crc32c_raw);
        let blocks = usize::try_from(self.layout.ring().blocks()).unwrap_or(0);
        // Blocks of a striped log lie behind each other as well: only their order is another one.
        let all = vec![page; blocks];
        self.store
            .write(self.layout.activity_log(), &all, "activity log")
    }

    /// Pages of bitmap that the volume's last agreed size needs.
    pub fn bitmap_pages(&self) -> u64 {
        pages_for(bits_for(self.superblock.last_agreed_size))
    }

    /// Reads the bitmap of the volume, some pages at a time.
    pub fn for_each_bitmap_chunk(
        &self,
        mut visit: impl FnMut(u64, &mut [Page]) -> Outcome,
    ) -> Outcome {
        let mut pages = vec![Page::ZERO; CHUNK_PAGES];
        let end = self.bitmap_pages();
        let mut first = 0;
        while first < end {
            let count = usize::try_from(end.saturating_sub(first)).unwrap_or(CHUNK_PAGES);
            let chunk = pages.get_mut(..count.min(CHUNK_PAGES)).unwrap_or_default();
            self.read_bitmap(first, chunk)?;
            visit(first, chunk)?;
            first = first.saturating_add(u64::try_from(chunk.len()).unwrap_or(1));
        }
        Ok(())
    }

    /// Reads pages of the bitmap.
    pub fn read_bitmap(&self, first_page: u64, pages: &mut [Page]) -> Outcome {
        self.store.read(self.bitmap_sector(first_page)?, pages)
    }

    /// Writes pages of the bitmap.
    pub fn write_bitmap(&self, first_page: u64, pages: &[Page]) -> Outcome {
        self.store
            .write(self.bitmap_sector(first_page)?, pages, "bitmap")
    }

    fn bitmap_sector(&self, page: u64) -> Outcome<Sector> {
        self.layout
            .bitmap_page(page)
            .ok_or_else(|| Failure::new(20, format!("bitmap has no page {page}")))
    }

    /// Writes zeroes over the bitmap's first sectors.
    pub fn zero_bitmap(&self, sectors: u64) -> Outcome {
        let zeroes = vec![Page::ZERO; CHUNK_PAGES];
        let start = self.layout.bitmap().0;
        let end = start.saturating_add(sectors);
        let mut sector = start;
        while sector < end {
            let pages = end.saturating_sub(sector).div_ceil(PAGE_SECTORS);
            let pages = usize::try_from(pages)
                .unwrap_or(CHUNK_PAGES)
                .min(CHUNK_PAGES);
            let chunk = zeroes.get(..pages).unwrap_or_default();
            self.store.write(Sector(sector), chunk, "bitmap")?;
            sector = sector.saturating_add(PAGE_SECTORS.saturating_mul(pages as u64));
        }
        Ok(())
    }
}
