// SPDX-License-Identifier: GPL-2.0

//! The super block of metadata v08 (Spec §2.1): 4096 bytes, all numbers big-endian, of which the
//! first 96 carry something.

use super::{MdFlags, MetaError, Uuids};
use crate::activity_log::Ring;
use crate::types::{Sector, BIT_SIZE};
use zerocopy::big_endian::{I32, U32, U64};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a super block.
pub const SUPERBLOCK_SIZE: usize = 4096;

const MAGIC_V07: u32 = 0x8374_026a;
const MAGIC_V08: u32 = 0x8374_026b;
const MAGIC_84_UNCLEAN: u32 = 0x8374_026c;

/// What `drbdmeta create-md` writes as the number of activity log extents; the driver replaces it
/// when it attaches.
const FRESH_AL_EXTENTS: u32 = 257;

/// Whether the activity log has been settled since the metadata were last in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// Magic 0x8374026b: written by the tools, and by 8.3 drivers.
    Clean,
    /// Magic 0x8374026c: written by a driver, which uses nothing else.
    Unclean,
}

/// A super block in core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The size of the volume that both nodes last agreed on; 0 before their first connection.
    pub last_agreed_size: Sector,
    /// The generation UUIDs.
    pub uuids: Uuids,
    /// Identity of the backing device for the tools' notes about where it was last seen; only ever
    /// preserved.
    pub device_uuid: u64,
    /// What was true of the volume at the last write.
    pub flags: MdFlags,
    /// Whether the activity log was settled.
    pub magic: Magic,
    /// Sectors of the whole metadata area.
    pub md_size_sectors: u32,
    /// The activity log's first sector, relative to the super block.
    pub al_offset_sectors: i32,
    /// Slots of the activity log in use (al-extents).
    pub al_extents: u32,
    /// The bitmap's first sector, relative to the super block.
    pub bitmap_offset_sectors: i32,
    /// The peer's largest request in bytes as last negotiated; 0 when never connected.
    pub peer_max_bio_bytes: u32,
    /// Shape of the activity log's ring.
    pub ring: Ring,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Disk {
    last_agreed_size: U64,
    uuids: [U64; 4],
    device_uuid: U64,
    reserved: U64,
    flags: U32,
    magic: U32,
    md_size_sectors: U32,
    al_offset_sectors: I32,
    al_extents: U32,
    bitmap_offset_sectors: I32,
    bytes_per_bit: U32,
    peer_max_bio_bytes: U32,
    al_stripes: U32,
    al_stripe_blocks: U32,
}

impl Superblock {
    /// The disk is given up and lacks what another one has, see [`MdFlags::lacking`].
    pub fn note_lack(&mut self) {
        self.flags = self.flags.lacking(self.uuids.bitmap != 0);
    }

    /// Reads a super block, clean or not. May be called in any context.
    ///
    /// Only the fields' own meaning is checked here; whether the offsets fit the devices is
    /// [`super::Layout::of`]'s question.
    ///
    /// # Errors
    ///
    /// [`MetaError::Version07`] and [`MetaError::Magic`] where this is no v08 super block,
    /// [`MetaError::BytesPerBit`] and [`MetaError::Stripes`] where it is one that no driver wrote.
    /// A short block has no magic.
    pub fn decode(block: &[u8]) -> Result<Self, MetaError> {
        let (disk, _) = Disk::ref_from_prefix(block).map_err(|_| MetaError::Magic(0))?;
        let magic = match disk.magic.get() {
            MAGIC_V08 => Magic::Clean,
            MAGIC_84_UNCLEAN => Magic::Unclean,
            MAGIC_V07 => return Err(MetaError::Version07),
            other => return Err(MetaError::Magic(other)),
        };
        if disk.bytes_per_bit.get() != BIT_SIZE {
            return Err(MetaError::BytesPerBit(disk.bytes_per_bit.get()));
        }
        let [current, bitmap, history0, history1] = disk.uuids;
        Ok(Self {
            last_agreed_size: Sector(disk.last_agreed_size.get()),
            uuids: Uuids {
                current: current.get(),
                bitmap: bitmap.get(),
                history: [history0.get(), history1.get()],
            },
            device_uuid: disk.device_uuid.get(),
            flags: MdFlags(disk.flags.get()),
            magic,
            md_size_sectors: disk.md_size_sectors.get(),
            al_offset_sectors: disk.al_offset_sectors.get(),
            al_extents: disk.al_extents.get(),
            bitmap_offset_sectors: disk.bitmap_offset_sectors.get(),
            peer_max_bio_bytes: disk.peer_max_bio_bytes.get(),
            ring: Ring::from_stored(disk.al_stripes.get(), disk.al_stripe_blocks.get())?,
        })
    }

    /// Whether a driver may attach these metadata: the activity log must have been applied (Spec
    /// §2.1).
    ///
    /// # Errors
    ///
    /// [`MetaError::Unclean`] where it was not.
    pub fn check_clean(&self) -> Result<(), MetaError> {
        match self.magic {
            Magic::Clean if self.flags.contains(MdFlags::AL_CLEAN) => Ok(()),
            _ => Err(MetaError::Unclean),
        }
    }

    /// Writes the super block, all 4096 bytes of it.
    pub fn encode(&self, block: &mut [u8; SUPERBLOCK_SIZE]) {
        block.fill(0);
        let Ok((disk, _)) = Disk::mut_from_prefix(block.as_mut_slice()) else {
            return;
        };
        let [history0, history1] = self.uuids.history;
        *disk = Disk {
            last_agreed_size: self.last_agreed_size.0.into(),
            uuids: [self.uuids.current, self.uuids.bitmap, history0, history1].map(U64::new),
            device_uuid: self.device_uuid.into(),
            reserved: U64::ZERO,
            flags: self.flags.0.into(),
            magic: match self.magic {
                Magic::Clean => MAGIC_V08.into(),
                Magic::Unclean => MAGIC_84_UNCLEAN.into(),
            },
            md_size_sectors: self.md_size_sectors.into(),
            al_offset_sectors: self.al_offset_sectors.into(),
            al_extents: self.al_extents.into(),
            bitmap_offset_sectors: self.bitmap_offset_sectors.into(),
            bytes_per_bit: BIT_SIZE.into(),
            peer_max_bio_bytes: self.peer_max_bio_bytes.into(),
            al_stripes: self.ring.stripes().into(),
            al_stripe_blocks: self.ring.stripe_blocks().into(),
        };
    }

    /// The super block of new metadata in `layout` (Spec §2.6). Activity log and bitmap are to be
    /// initialised by the caller.
    pub fn fresh(layout: &super::Layout) -> Self {
        Self {
            last_agreed_size: Sector(0),
            uuids: Uuids::JUST_CREATED,
            device_uuid: 0,
            flags: MdFlags::AL_CLEAN,
            magic: Magic::Clean,
            md_size_sectors: layout.md_size_sectors(),
            al_offset_sectors: layout.al_offset_sectors(),
            al_extents: FRESH_AL_EXTENTS,
            bitmap_offset_sectors: layout.bitmap_offset_sectors(),
            peer_max_bio_bytes: 0,
            ring: layout.ring(),
        }
    }

    /// Takes over where things lie after the metadata were moved or changed their size.
    pub fn set_layout(&mut self, layout: &super::Layout) {
        self.md_size_sectors = layout.md_size_sectors();
        self.al_offset_sectors = layout.al_offset_sectors();
        self.bitmap_offset_sectors = layout.bitmap_offset_sectors();
        self.ring = layout.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Layout, Placement};
    use proptest::prelude::*;

    fn fresh_block() -> [u8; SUPERBLOCK_SIZE] {
        let layout = Layout::fresh(Placement::Internal, 32768, 32768, Ring::DEFAULT).unwrap();
        let mut block = [0xaa; SUPERBLOCK_SIZE];
        Superblock::fresh(&layout).encode(&mut block);
        block
    }

    #[test]
    fn fresh_metadata_are_clean_and_say_just_created() {
        let block = fresh_block();
        assert_eq!(block[15], 4);
        assert_eq!(block[56..64], [0, 0, 0, 128, 0x83, 0x74, 0x02, 0x6b]);
        assert_eq!(block[96..], [0; 4000]);
        assert_eq!(Superblock::decode(&block).unwrap().check_clean(), Ok(()));
    }

    #[test]
    fn unclean_magic_or_a_missing_clean_flag_is_refused_with_165() {
        let mut block = fresh_block();
        block[63] = 0x6c;
        let unclean = Superblock::decode(&block)
            .unwrap()
            .check_clean()
            .unwrap_err();
        assert_eq!(unclean.return_code(), 165);
        let mut block = fresh_block();
        block[59] = 0;
        assert_eq!(
            Superblock::decode(&block).unwrap().check_clean(),
            Err(MetaError::Unclean)
        );
    }

    #[test]
    fn foreign_magics_and_other_bit_sizes_are_refused_with_119() {
        for (offset, value, error) in [
            (63, 0x6a, MetaError::Version07),
            (63, 0x6d, MetaError::Magic(0x8374_026d)),
            (82, 0x20, MetaError::BytesPerBit(8192)),
            (
                91,
                0,
                MetaError::Stripes {
                    count: 0,
                    blocks: 8,
                },
            ),
        ] {
            let mut block = fresh_block();
            block[offset] = value;
            assert_eq!(Superblock::decode(&block), Err(error));
            assert_eq!(error.return_code(), 119);
        }
        assert_eq!(Superblock::decode(&[0; 95]), Err(MetaError::Magic(0)));
    }

    #[test]
    fn metadata_without_stripes_have_the_default_ring() {
        let mut block = fresh_block();
        block[88..96].fill(0);
        assert_eq!(Superblock::decode(&block).unwrap().ring, Ring::DEFAULT);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_fields(
            mut bytes in prop::collection::vec(any::<u8>(), 96),
        ) {
            bytes[60..64].copy_from_slice(&MAGIC_84_UNCLEAN.to_be_bytes());
            bytes[80..84].copy_from_slice(&4096u32.to_be_bytes());
            bytes[88..96].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 9]);
            bytes[48..56].fill(0);
            let mut block = [0; SUPERBLOCK_SIZE];
            Superblock::decode(&bytes).unwrap().encode(&mut block);
            prop_assert_eq!(&block[..96], &bytes[..]);
        }
    }
}
