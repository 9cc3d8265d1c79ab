// SPDX-License-Identifier: GPL-2.0

//! Where metadata lie (Spec §2.2): at the end of the data, alone on a device, or in a slot of a
//! shared one.
//!
//! [`Layout`] holds absolute sectors of the metadata device that were checked once, when it was
//! made: the shell adds nothing to them and compares nothing.

use super::{MetaError, Superblock};
use crate::activity_log::Ring;
use crate::types::Sector;
use core::ops::RangeInclusive;

/// Sectors of a 4 KiB block; everything is aligned to it.
const BLOCK_SECTORS: u64 = 8;
/// Sectors of data that one sector of bitmap covers.
const DATA_PER_BITMAP_SECTOR: u64 = 32768;
/// Sectors of one slot of indexed metadata (128 MiB).
const INDEXED_SLOT_SECTORS: u64 = 262_144;
/// Smallest metadata device in sectors (1 MiB).
const MIN_DEVICE_SECTORS: u64 = 2048;
/// Largest volume in sectors that a driver accepts.
pub const MAX_DATA_SECTORS: u64 = 1 << 51;
/// The activity log of external metadata follows the super block.
const EXTERNAL_AL_OFFSET: i32 = 8;

/// The kind of metadata: what `meta-disk` says after the device (Spec §2.2 `meta_dev_idx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the end of the backing device.
    Internal,
    /// A device of its own.
    FlexibleExternal,
    /// A slot of 128 MiB on a shared device.
    Indexed(u32),
}

impl Placement {
    /// The placement that the number of netlink and of the tools stands for; `None` below -3.
    pub const fn from_index(index: i32) -> Option<Self> {
        match index {
            -3 | -1 => Some(Self::Internal),
            -2 => Some(Self::FlexibleExternal),
            _ if index < 0 => None,
            _ => Some(Self::Indexed(index.unsigned_abs())),
        }
    }

    /// Whether the metadata share the device with the data.
    pub const fn is_internal(self) -> bool {
        matches!(self, Self::Internal)
    }

    /// The sector of the super block on a metadata device of this size: where to read before
    /// anything else is known.
    ///
    /// # Errors
    ///
    /// [`MetaError::DeviceTooSmall`] where the device cannot hold metadata of this kind.
    pub const fn superblock_sector(self, md_device_sectors: u64) -> Result<Sector, MetaError> {
        let (need, sector) = match self {
            Self::Internal => (
                MIN_DEVICE_SECTORS,
                align_down(md_device_sectors).saturating_sub(BLOCK_SECTORS),
            ),
            Self::FlexibleExternal => (MIN_DEVICE_SECTORS, 0),
            Self::Indexed(slot) => {
                let sector = (slot as u64).saturating_mul(INDEXED_SLOT_SECTORS);
                (sector.saturating_add(INDEXED_SLOT_SECTORS), sector)
            }
        };
        if md_device_sectors < need {
            return Err(MetaError::DeviceTooSmall {
                have: md_device_sectors,
                need,
            });
        }
        Ok(Sector(sector))
    }
}

/// Where everything lies, checked. All sectors count from the start of the metadata device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    placement: Placement,
    superblock: u64,
    first: u64,
    last: u64,
    al_offset_sectors: i32,
    bitmap_offset_sectors: i32,
    md_size_sectors: u32,
    activity_log: u64,
    bitmap: u64,
    bitmap_sectors: u64,
    usable: u64,
    ring: Ring,
}

impl Layout {
    /// The layout that a stored super block describes, for an attach.
    ///
    /// # Errors
    ///
    /// What does not fit the placement or the devices (Spec §2.2, attach validity checks).
    pub fn of(
        placement: Placement,
        backing_sectors: u64,
        md_device_sectors: u64,
        stored: &Superblock,
    ) -> Result<Self, MetaError> {
        let layout = Self::place(
            placement,
            backing_sectors,
            md_device_sectors,
            Offsets {
                activity_log: stored.al_offset_sectors,
                bitmap: stored.bitmap_offset_sectors,
                md_size_sectors: stored.md_size_sectors,
                ring: stored.ring,
            },
        )?;
        // The area of internal metadata is what lies between the data and the end, so one of the
        // two fields is damaged if they disagree. Read elsewhere, the bitmap would hide what is
        // out of sync.
        let begin = i64::from(stored.bitmap_offset_sectors).unsigned_abs();
        let area = u64::from(stored.md_size_sectors);
        if placement.is_internal() && area != begin.saturating_add(BLOCK_SECTORS) {
            return Err(MetaError::AreaSize(area));
        }
        // A size below one sector of bitmap needs none: the divisions are those of the driver.
        let need = stored.last_agreed_size.0.saturating_add(7) / 8 / 8 / 512;
        if layout.bitmap_sectors < need {
            return Err(MetaError::BitmapTooSmall {
                have: layout.bitmap_sectors,
                need,
            });
        }
        Ok(layout)
    }

    /// The layout of new metadata, or of metadata that move because the device changed its size.
    ///
    /// # Errors
    ///
    /// The device is too small or too large for metadata of this kind, or the ring is none that
    /// indexed metadata have.
    pub fn fresh(
        placement: Placement,
        backing_sectors: u64,
        md_device_sectors: u64,
        ring: Ring,
    ) -> Result<Self, MetaError> {
        let too_large = MetaError::DeviceTooLarge(md_device_sectors);
        let al = i32::try_from(ring.sectors()).map_err(|_| too_large)?;
        let after_al = EXTERNAL_AL_OFFSET.saturating_add(al);
        let offsets = match placement {
            Placement::Internal => {
                let size = internal_size(md_device_sectors, ring).ok_or(too_large)?;
                let whole = i32::try_from(size).map_err(|_| too_large)?;
                Offsets {
                    activity_log: al.saturating_neg(),
                    bitmap: EXTERNAL_AL_OFFSET.saturating_sub(whole),
                    md_size_sectors: size,
                    ring,
                }
            }
            Placement::FlexibleExternal => Offsets {
                activity_log: EXTERNAL_AL_OFFSET,
                bitmap: after_al,
                // The field has 32 bits; more than that covers 2^47 sectors of data anyway.
                md_size_sectors: u32::try_from(md_device_sectors).unwrap_or(u32::MAX),
                ring,
            },
            Placement::Indexed(_) => Offsets {
                activity_log: EXTERNAL_AL_OFFSET,
                bitmap: after_al,
                md_size_sectors: u32::try_from(INDEXED_SLOT_SECTORS).unwrap_or(u32::MAX),
                ring,
            },
        };
        Self::place(placement, backing_sectors, md_device_sectors, offsets)
    }

    fn place(
        placement: Placement,
        backing_sectors: u64,
        md_device_sectors: u64,
        offsets: Offsets,
    ) -> Result<Self, MetaError> {
        let superblock = placement.superblock_sector(md_device_sectors)?.0;
        offsets.check(placement)?;
        let area = u64::from(offsets.md_size_sectors);
        let al_error = MetaError::ActivityLogOffset(offsets.activity_log);
        let bitmap_error = MetaError::BitmapOffset(offsets.bitmap);
        let activity_log = superblock
            .checked_add_signed(i64::from(offsets.activity_log))
            .ok_or(al_error)?;
        let bitmap = superblock
            .checked_add_signed(i64::from(offsets.bitmap))
            .ok_or(bitmap_error)?;
        let (first, end, bitmap_end) = if placement.is_internal() {
            (
                bitmap,
                superblock.saturating_add(BLOCK_SECTORS),
                activity_log,
            )
        } else {
            let end = superblock.saturating_add(area);
            (superblock, end, end)
        };
        let fits = md_device_sectors
            .checked_sub(area)
            .is_some_and(|rest| rest >= first);
        if !fits || end > md_device_sectors {
            return Err(MetaError::AreaSize(area));
        }
        let bitmap_sectors = bitmap_end.checked_sub(bitmap).ok_or(bitmap_error)?;
        let covered = if placement.is_internal() {
            first
        } else {
            bitmap_sectors.saturating_mul(DATA_PER_BITMAP_SECTOR)
        };
        Ok(Self {
            placement,
            superblock,
            first,
            last: end.saturating_sub(1),
            al_offset_sectors: offsets.activity_log,
            bitmap_offset_sectors: offsets.bitmap,
            md_size_sectors: offsets.md_size_sectors,
            activity_log,
            bitmap,
            bitmap_sectors,
            usable: covered.min(backing_sectors).min(MAX_DATA_SECTORS),
            ring: offsets.ring,
        })
    }

    /// The kind of metadata.
    pub const fn placement(&self) -> Placement {
        self.placement
    }

    /// The sector of the super block.
    pub const fn superblock(&self) -> Sector {
        Sector(self.superblock)
    }

    /// The first sector of the activity log.
    pub const fn activity_log(&self) -> Sector {
        Sector(self.activity_log)
    }

    /// The first sector of a 4 KiB block of the activity log; `None` outside the ring.
    pub const fn activity_log_block(&self, block: u32) -> Option<Sector> {
        if block >= self.ring.blocks() {
            return None;
        }
        let offset = (block as u64).saturating_mul(BLOCK_SECTORS);
        Some(Sector(self.activity_log.saturating_add(offset)))
    }

    /// The first sector of the bitmap.
    pub const fn bitmap(&self) -> Sector {
        Sector(self.bitmap)
    }

    /// The first sector of a 4 KiB page of the bitmap; `None` where that page would not lie in the
    /// bitmap's area.
    pub fn bitmap_page(&self, page: u64) -> Option<Sector> {
        let offset = page.checked_mul(BLOCK_SECTORS)?;
        let end = offset.checked_add(BLOCK_SECTORS)?;
        (end <= self.bitmap_sectors).then(|| Sector(self.bitmap.saturating_add(offset)))
    }

    /// Sectors of the bitmap's area.
    pub const fn bitmap_sectors(&self) -> u64 {
        self.bitmap_sectors
    }

    /// Sectors of data that a volume with these metadata can have at most (Spec §1.12: own max
    /// capacity).
    pub const fn usable(&self) -> Sector {
        Sector(self.usable)
    }

    /// Whether a backing device of this size still is as it was when the layout was made: internal
    /// metadata lie at its end, and no storage that could be used has come.
    pub fn is_for(&self, backing_sectors: u64) -> bool {
        if self.placement.is_internal() {
            return self.placement.superblock_sector(backing_sectors) == Ok(self.superblock());
        }
        let covered = self.bitmap_sectors.saturating_mul(DATA_PER_BITMAP_SECTOR);
        backing_sectors.min(covered).min(MAX_DATA_SECTORS) == self.usable
    }

    /// The first and the last sector that metadata I/O may touch.
    pub const fn sectors(&self) -> RangeInclusive<u64> {
        self.first..=self.last
    }

    /// The shape of the activity log's ring.
    pub const fn ring(&self) -> Ring {
        self.ring
    }

    pub(super) const fn md_size_sectors(&self) -> u32 {
        self.md_size_sectors
    }

    pub(super) const fn al_offset_sectors(&self) -> i32 {
        self.al_offset_sectors
    }

    pub(super) const fn bitmap_offset_sectors(&self) -> i32 {
        self.bitmap_offset_sectors
    }
}

/// The relative offsets as a super block has them.
#[derive(Clone, Copy)]
struct Offsets {
    activity_log: i32,
    bitmap: i32,
    md_size_sectors: u32,
    ring: Ring,
}

impl Offsets {
    /// Whether the parts lie as the placement wants them, whatever the devices' sizes.
    fn check(&self, placement: Placement) -> Result<(), MetaError> {
        let al_error = MetaError::ActivityLogOffset(self.activity_log);
        let bitmap_error = MetaError::BitmapOffset(self.bitmap);
        let log = i64::from(self.activity_log);
        let bitmap = i64::from(self.bitmap);
        let log_end = match placement {
            Placement::Internal if log >= 0 => return Err(al_error),
            Placement::Internal if bitmap > log => return Err(bitmap_error),
            Placement::Internal => 0,
            _ if self.activity_log != EXTERNAL_AL_OFFSET => return Err(al_error),
            _ => bitmap,
        };
        let log_sectors = log_end
            .checked_sub(log)
            .and_then(|size| u64::try_from(size).ok());
        if log_sectors != Some(u64::from(self.ring.sectors())) {
            return Err(if placement.is_internal() {
                al_error
            } else {
                bitmap_error
            });
        }
        if bitmap.unsigned_abs() % BLOCK_SECTORS != 0 {
            return Err(bitmap_error);
        }
        if let Placement::Indexed(_) = placement {
            if self.ring != Ring::DEFAULT {
                return Err(bitmap_error);
            }
            if u64::from(self.md_size_sectors) != INDEXED_SLOT_SECTORS {
                return Err(MetaError::AreaSize(u64::from(self.md_size_sectors)));
            }
        }
        Ok(())
    }
}

const fn align_down(sectors: u64) -> u64 {
    sectors & !(BLOCK_SECTORS - 1)
}

/// Sectors of internal metadata on a device of this size; `None` where they do not fit the super
/// block's field.
fn internal_size(device_sectors: u64, ring: Ring) -> Option<u32> {
    let bitmap = device_sectors
        .div_ceil(DATA_PER_BITMAP_SECTOR)
        .checked_next_multiple_of(BLOCK_SECTORS)?;
    let size = bitmap
        .checked_add(BLOCK_SECTORS)?
        .checked_add(u64::from(ring.sectors()))?;
    u32::try_from(size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn internal(sectors: u64) -> Layout {
        Layout::fresh(Placement::Internal, sectors, sectors, Ring::DEFAULT).unwrap()
    }

    #[test]
    fn internal_metadata_lie_where_the_specs_table_has_them() {
        for (backing, bitmap, size, offset, superblock, usable) in [
            (204_800, 8, 80, -72, 204_792, 204_720),
            (2_097_152, 64, 136, -128, 2_097_144, 2_097_016),
            (2_097_155, 72, 144, -136, 2_097_144, 2_097_008),
            (20_971_520, 640, 712, -704, 20_971_512, 20_970_808),
            (209_715_200, 6400, 6472, -6464, 209_715_192, 209_708_728),
            (
                2_147_483_648,
                65_536,
                65_608,
                -65_600,
                2_147_483_640,
                2_147_418_040,
            ),
            (
                34_359_738_368,
                1_048_576,
                1_048_648,
                -1_048_640,
                34_359_738_360,
                34_358_689_720,
            ),
        ] {
            let layout = internal(backing);
            assert_eq!(layout.bitmap_sectors, bitmap);
            assert_eq!(layout.md_size_sectors, size);
            assert_eq!(layout.bitmap_offset_sectors, offset);
            assert_eq!(layout.al_offset_sectors, -64);
            assert_eq!(layout.superblock(), Sector(superblock));
            assert_eq!(layout.usable(), Sector(usable));
            assert_eq!(layout.sectors(), usable..=superblock + 7);
        }
    }

    #[test]
    fn a_layout_is_for_devices_that_keep_their_size() {
        let layout = internal(204_800);
        assert!(layout.is_for(204_800) && layout.is_for(204_807));
        assert!(!layout.is_for(204_792) && !layout.is_for(409_600));
        let external =
            Layout::fresh(Placement::FlexibleExternal, 100_000, 4096, Ring::DEFAULT).unwrap();
        assert!(external.is_for(100_000) && !external.is_for(200_000));
    }

    #[test]
    fn external_metadata_begin_with_the_super_block() {
        let layout =
            Layout::fresh(Placement::FlexibleExternal, 1 << 30, 4096, Ring::DEFAULT).unwrap();
        assert_eq!(layout.superblock(), Sector(0));
        assert_eq!(layout.activity_log(), Sector(8));
        assert_eq!(layout.bitmap(), Sector(72));
        assert_eq!(layout.usable(), Sector((4096 - 72) * 32768));
        assert_eq!(layout.sectors(), 0..=4095);
        assert_eq!(layout.bitmap_page(502), Some(Sector(72 + 502 * 8)));
        assert_eq!(layout.bitmap_page(503), None);
        assert_eq!(layout.activity_log_block(7), Some(Sector(64)));
        assert_eq!(layout.activity_log_block(8), None);
    }

    #[test]
    fn an_indexed_slot_holds_just_under_four_tebibytes() {
        let slot = Placement::Indexed(2);
        let layout = Layout::fresh(slot, u64::MAX, 3 * 262_144, Ring::DEFAULT).unwrap();
        assert_eq!(layout.superblock(), Sector(524_288));
        assert_eq!(layout.usable(), Sector(8_587_575_296));
        assert_eq!(
            Layout::fresh(slot, u64::MAX, 3 * 262_144 - 1, Ring::DEFAULT),
            Err(MetaError::DeviceTooSmall {
                have: 3 * 262_144 - 1,
                need: 3 * 262_144
            })
        );
        let striped = Ring::new(2, 8).unwrap();
        assert!(Layout::fresh(slot, u64::MAX, 3 * 262_144, striped).is_err());
    }

    #[test]
    fn the_numbers_of_the_tools_name_placements() {
        assert_eq!(Placement::from_index(-1), Some(Placement::Internal));
        assert_eq!(Placement::from_index(-3), Some(Placement::Internal));
        assert_eq!(Placement::from_index(-2), Some(Placement::FlexibleExternal));
        assert_eq!(Placement::from_index(5), Some(Placement::Indexed(5)));
        assert_eq!(Placement::from_index(-4), None);
    }

    #[test]
    fn devices_below_a_mebibyte_and_beyond_the_offsets_are_refused() {
        for placement in [Placement::Internal, Placement::FlexibleExternal] {
            let small = Layout::fresh(placement, 2047, 2047, Ring::DEFAULT).unwrap_err();
            assert_eq!(small.return_code(), 112);
        }
        let huge = 1 << 47;
        assert_eq!(
            Layout::fresh(Placement::Internal, huge, huge, Ring::DEFAULT),
            Err(MetaError::DeviceTooLarge(huge))
        );
    }

    #[test]
    fn a_ring_larger_than_the_device_is_refused() {
        let ring = Ring::new(1, 4096).unwrap();
        assert!(Layout::fresh(Placement::Internal, 4096, 4096, ring).is_err());
        assert!(Layout::fresh(Placement::FlexibleExternal, 4096, 4096, ring).is_err());
    }

    fn attach(change: impl Fn(&mut Superblock)) -> Result<Layout, MetaError> {
        let mut stored = Superblock::fresh(&internal(32768));
        change(&mut stored);
        Layout::of(Placement::Internal, 32768, 32768, &stored)
    }

    #[test]
    fn an_attach_finds_what_create_md_laid_out() {
        assert_eq!(attach(|_| ()), Ok(internal(32768)));
    }

    #[test]
    fn stored_offsets_that_do_not_fit_are_refused_with_119() {
        for (change, error) in [
            (
                (|s| s.al_offset_sectors = 8) as fn(&mut Superblock),
                MetaError::ActivityLogOffset(8),
            ),
            (
                |s| s.al_offset_sectors = -72,
                MetaError::ActivityLogOffset(-72),
            ),
            (
                |s| s.al_offset_sectors = i32::MIN,
                MetaError::BitmapOffset(-72),
            ),
            (
                |s| s.bitmap_offset_sectors = -56,
                MetaError::BitmapOffset(-56),
            ),
            (
                |s| s.bitmap_offset_sectors = -76,
                MetaError::BitmapOffset(-76),
            ),
            (
                |s| s.bitmap_offset_sectors = i32::MIN,
                MetaError::BitmapOffset(i32::MIN),
            ),
            (|s| s.md_size_sectors = 32776, MetaError::AreaSize(32776)),
            (|s| s.md_size_sectors = 88, MetaError::AreaSize(88)),
            (|s| s.md_size_sectors = 72, MetaError::AreaSize(72)),
            (|s| s.bitmap_offset_sectors = -80, MetaError::AreaSize(80)),
            (
                |s| s.last_agreed_size = Sector(9 * 32768),
                MetaError::BitmapTooSmall { have: 8, need: 9 },
            ),
        ] {
            assert_eq!(attach(change), Err(error));
            assert_eq!(error.return_code(), 119);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_stored_the_layout_stays_on_the_device(
            index in -3..3i32,
            device in 0..1u64 << 21,
            backing: u64,
            al in prop_oneof![Just(8), Just(-64), -100..100i32, any::<i32>()],
            bitmap in prop_oneof![Just(72), Just(-72), -100..100i32, any::<i32>()],
            size in prop_oneof![Just(80), Just(262_144), any::<u32>()],
        ) {
            let placement = Placement::from_index(index).unwrap();
            let mut stored = Superblock::fresh(&internal(32768));
            stored.al_offset_sectors = al;
            stored.bitmap_offset_sectors = bitmap;
            stored.md_size_sectors = size;
            if let Ok(layout) = Layout::of(placement, backing, device, &stored) {
                prop_assert!(*layout.sectors().end() < device);
                prop_assert!(layout.sectors().contains(&layout.superblock().0));
                prop_assert!(layout.sectors().contains(&layout.activity_log().0));
                prop_assert!(layout.sectors().contains(&layout.activity_log_block(7).unwrap().0));
                let pages = layout.bitmap_sectors() / 8;
                if let Some(last) = pages.checked_sub(1) {
                    prop_assert!(layout.sectors().contains(&layout.bitmap_page(last).unwrap().0));
                }
                prop_assert!(!placement.is_internal() || layout.usable().0 <= layout.bitmap().0);
                prop_assert!(layout.usable().0 <= backing);
            }
        }

        #[test]
        fn fresh_metadata_can_always_be_attached(index in -3..3i32, device in 2048..1u64 << 41) {
            let placement = Placement::from_index(index).unwrap();
            if let Ok(layout) = Layout::fresh(placement, device, device, Ring::DEFAULT) {
                let mut stored = Superblock::fresh(&layout);
                stored.last_agreed_size = layout.usable();
                prop_assert_eq!(Layout::of(placement, device, device, &stored), Ok(layout));
            }
        }
    }
}
