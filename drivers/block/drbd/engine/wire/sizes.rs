// SPDX-License-Identifier: GPL-2.0

//! P_SIZES: sizes of disk, device and requests (Spec §1.8).

use super::PayloadError;
use crate::types::Sector;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// How a resize is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResizeFlags(pub u16);

impl ResizeFlags {
    /// The admin insists: assume that the peer has the space.
    pub const FORCED: Self = Self(1);
    /// The new storage is clean and needs no resync.
    pub const NO_RESYNC: Self = Self(2);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// o_qlim: the queue limits of the sender's disk. All sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLimits {
    /// The physical block.
    pub physical_block_size: u32,
    /// The logical block.
    pub logical_block_size: u32,
    /// Where the first physical block starts.
    pub alignment_offset: u32,
    /// The smallest request that is not wasteful.
    pub io_min: u32,
    /// The best request.
    pub io_opt: u32,
    /// Whether discards are possible.
    pub discard_enabled: u8,
    /// Whether discarded blocks read as zeroes.
    pub discard_zeroes_data: u8,
    /// Whether write-same is possible.
    pub write_same_capable: u8,
}

/// p_sizes: sizes of disk, device and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What the sender's disk can hold; 0 without a disk.
    pub disk: Sector,
    /// The size the sender's configuration asks for; 0 for all there is.
    pub user: Sector,
    /// The size of the sender's device now; 0 asks for the receiver's sizes.
    pub current: Sector,
    /// The largest request the sender takes, in bytes.
    pub max_bio_size: u32,
    /// Always 0.
    pub queue_order_type: u16,
    /// How a resize is meant.
    pub flags: ResizeFlags,
    /// The queue limits, exactly where [`super::Features::WRITE_SAME`] is agreed.
    pub queue_limits: Option<QueueLimits>,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    disk: U64,
    user: U64,
    current: U64,
    max_bio_size: U32,
    queue_order_type: U16,
    flags: U16,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct LimitsLayout {
    physical_block_size: U32,
    logical_block_size: U32,
    alignment_offset: U32,
    io_min: U32,
    io_opt: U32,
    discard_enabled: u8,
    discard_zeroes_data: u8,
    write_same_capable: u8,
    pad: u8,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Encoded {
    sizes: Layout,
    limits: LimitsLayout,
}

impl From<LimitsLayout> for QueueLimits {
    fn from(layout: LimitsLayout) -> Self {
        Self {
            physical_block_size: layout.physical_block_size.get(),
            logical_block_size: layout.logical_block_size.get(),
            alignment_offset: layout.alignment_offset.get(),
            io_min: layout.io_min.get(),
            io_opt: layout.io_opt.get(),
            discard_enabled: layout.discard_enabled,
            discard_zeroes_data: layout.discard_zeroes_data,
            write_same_capable: layout.write_same_capable,
        }
    }
}

impl From<QueueLimits> for LimitsLayout {
    fn from(limits: QueueLimits) -> Self {
        Self {
            physical_block_size: limits.physical_block_size.into(),
            logical_block_size: limits.logical_block_size.into(),
            alignment_offset: limits.alignment_offset.into(),
            io_min: limits.io_min.into(),
            io_opt: limits.io_opt.into(),
            discard_enabled: limits.discard_enabled,
            discard_zeroes_data: limits.discard_zeroes_data,
            write_same_capable: limits.write_same_capable,
            pad: 0,
        }
    }
}

impl Sizes {
    /// Bytes of the payload without queue limits.
    pub const SHORT_SIZE: usize = 32;
    /// Bytes of the payload with queue limits.
    pub const MAX_SIZE: usize = 56;

    /// Reads the payload; `bytes` is all of it, with or without queue limits.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Length`] for any other length.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let wrong = PayloadError::Length {
            expected: Self::SHORT_SIZE,
            found: bytes.len(),
        };
        let (sizes, rest) = Layout::read_from_prefix(bytes).map_err(|_| wrong)?;
        let queue_limits = if rest.is_empty() {
            None
        } else {
            Some(
                LimitsLayout::read_from_bytes(rest)
                    .map_err(|_| wrong)?
                    .into(),
            )
        };
        Ok(Self {
            disk: Sector(sizes.disk.get()),
            user: Sector(sizes.user.get()),
            current: Sector(sizes.current.get()),
            max_bio_size: sizes.max_bio_size.get(),
            queue_order_type: sizes.queue_order_type.get(),
            flags: ResizeFlags(sizes.flags.get()),
            queue_limits,
        })
    }

    /// Writes the payload to the front of `out`; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8; Self::MAX_SIZE]) -> usize {
        *out = zerocopy::transmute!(Encoded {
            sizes: Layout {
                disk: self.disk.0.into(),
                user: self.user.0.into(),
                current: self.current.0.into(),
                max_bio_size: self.max_bio_size.into(),
                queue_order_type: self.queue_order_type.into(),
                flags: self.flags.0.into(),
            },
            limits: self.queue_limits.unwrap_or_default().into(),
        });
        match self.queue_limits {
            Some(_) => Self::MAX_SIZE,
            None => Self::SHORT_SIZE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_limits_are_there_or_not_by_length() {
        for queue_limits in [
            None,
            Some(QueueLimits {
                io_opt: 7,
                ..QueueLimits::default()
            }),
        ] {
            let sizes = Sizes {
                disk: Sector(0x7fb0),
                max_bio_size: 1 << 20,
                flags: ResizeFlags::NO_RESYNC,
                queue_limits,
                ..Sizes::default()
            };
            let mut out = [0; Sizes::MAX_SIZE];
            let length = sizes.encode(&mut out);
            assert_eq!(length, if queue_limits.is_some() { 56 } else { 32 });
            assert_eq!(Sizes::decode(&out[..length]), Ok(sizes));
        }
        assert!(Sizes::decode(&[0; 31]).is_err());
        assert!(Sizes::decode(&[0; 33]).is_err());
        assert!(Sizes::decode(&[0; 57]).is_err());
    }
}
