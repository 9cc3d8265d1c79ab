// SPDX-License-Identifier: GPL-2.0

//! Metadata v08: the super block, where its parts lie, and what they decide (Spec §2).
//!
//! A volume's metadata is a super block of 4096 bytes, the ring of activity log transactions and
//! the quick-sync bitmap. Reading and writing the sectors is the shell's business; this module
//! knows what the bytes mean and which of them may not be trusted.

pub mod crash;
pub mod flags;
pub mod placement;
pub mod superblock;
pub mod uuid;

pub use flags::MdFlags;
pub use placement::{Layout, Placement};
pub use superblock::{Superblock, SUPERBLOCK_SIZE};
pub use uuid::Uuids;

use core::fmt;

/// Why metadata cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaError {
    /// The super block could not be read.
    Io,
    /// There is v07 metadata: it must be converted first.
    Version07,
    /// There is no v08 super block; the number is what stands in the magic's place.
    Magic(u32),
    /// The metadata was in use: the activity log must be applied first.
    Unclean,
    /// A bitmap bit stands for another number of bytes than 4096.
    BytesPerBit(u32),
    /// The activity log's stripes make no sense: `count` stripes of `blocks` 4 KiB blocks.
    Stripes {
        /// Number of stripes.
        count: u32,
        /// 4 KiB blocks in one stripe.
        blocks: u32,
    },
    /// The activity log does not lie where this placement has it, in sectors from the super block.
    ActivityLogOffset(i32),
    /// The bitmap does not lie where this placement has it, in sectors from the super block.
    BitmapOffset(i32),
    /// The metadata area does not have the size that its parts need, in sectors.
    AreaSize(u64),
    /// The bitmap area is too small for the last agreed size: sectors there are, sectors needed.
    BitmapTooSmall {
        /// Sectors of bitmap on disk.
        have: u64,
        /// Sectors that the last agreed size needs.
        need: u64,
    },
    /// The metadata device is too small: sectors it has, sectors needed.
    DeviceTooSmall {
        /// Sectors the device has.
        have: u64,
        /// Sectors needed at least.
        need: u64,
    },
    /// The device is larger than the offsets of a super block can express, in sectors.
    DeviceTooLarge(u64),
}

impl MetaError {
    /// The netlink return code that reports this error (Spec §3.7): 118 unreadable, 165 unclean,
    /// 112 metadata device too small, 119 anything else.
    pub const fn return_code(self) -> u32 {
        match self {
            Self::Io => 118,
            Self::Unclean => 165,
            Self::DeviceTooSmall { .. } => 112,
            _ => 119,
        }
    }
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Io => f.write_str("metadata super block cannot be read"),
            Self::Version07 => {
                f.write_str("found v07 metadata, please convert it with create-md first")
            }
            Self::Magic(found) => {
                write!(
                    f,
                    "metadata magic not found: 0x{found:08x}, did you create-md?"
                )
            }
            Self::Unclean => {
                f.write_str("found unclean metadata, did you apply-al? (drbdadm apply-al)")
            }
            Self::BytesPerBit(found) => {
                write!(f, "unexpected bm_bytes_per_bit: {found}, want 4096")
            }
            Self::Stripes { count, blocks } => {
                write!(
                    f,
                    "invalid activity log: {count} stripes of {blocks} blocks"
                )
            }
            Self::ActivityLogOffset(found) => write!(f, "unexpected al_offset: {found}"),
            Self::BitmapOffset(found) => write!(f, "unexpected bm_offset: {found}"),
            Self::AreaSize(found) => write!(f, "unexpected metadata size: {found} sectors"),
            Self::BitmapTooSmall { have, need } => {
                write!(f, "bitmap too small: {have} sectors, the data need {need}")
            }
            Self::DeviceTooSmall { have, need } => {
                write!(
                    f,
                    "metadata device too small: {have} sectors, at least {need} needed"
                )
            }
            Self::DeviceTooLarge(sectors) => write!(f, "device too large: {sectors} sectors"),
        }
    }
}
