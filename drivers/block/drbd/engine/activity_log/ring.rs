// SPDX-License-Identifier: GPL-2.0

//! The shape of the ring of transaction blocks on disk (Spec §2.4): how many 4 KiB blocks, over how
//! many stripes.

use super::block::CONTEXT_SIZE;
use crate::meta::MetaError;

/// Slots that the activity log has at least.
pub const MIN_EXTENTS: u32 = 67;
/// Slots that the activity log has at most, whatever the ring's size: slot 65535 means "none" on
/// disk.
pub const MAX_EXTENTS: u32 = 65534;
/// Slots of the activity log unless configured otherwise.
pub const DEFAULT_EXTENTS: u32 = 1237;

const MIN_BLOCKS: u32 = 8;
const MAX_BLOCKS: u32 = 4_194_304;
const BLOCK_SECTORS: u32 = 8;

/// Stripes of 4 KiB blocks. Neighbouring transactions lie on neighbouring stripes, so that a
/// striped disk can take them in parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    stripes: u32,
    stripe_blocks: u32,
    /// The product of the two, within the limits.
    blocks: u32,
}

impl Ring {
    /// One stripe of 32 KiB.
    pub const DEFAULT: Self = Self {
        stripes: 1,
        stripe_blocks: 8,
        blocks: 8,
    };

    /// A ring of `stripes` stripes of `stripe_blocks` 4 KiB blocks each.
    ///
    /// # Errors
    ///
    /// [`MetaError::Stripes`] unless that makes 8 to 4194304 blocks.
    pub const fn new(stripes: u32, stripe_blocks: u32) -> Result<Self, MetaError> {
        match stripes.checked_mul(stripe_blocks) {
            Some(blocks) if blocks >= MIN_BLOCKS && blocks <= MAX_BLOCKS => Ok(Self {
                stripes,
                stripe_blocks,
                blocks,
            }),
            _ => Err(MetaError::Stripes {
                count: stripes,
                blocks: stripe_blocks,
            }),
        }
    }

    /// The ring that a super block describes; two zeros stand for the default.
    ///
    /// # Errors
    ///
    /// Those of [`Ring::new`].
    pub const fn from_stored(stripes: u32, stripe_blocks: u32) -> Result<Self, MetaError> {
        match (stripes, stripe_blocks) {
            (0, 0) => Ok(Self::DEFAULT),
            _ => Self::new(stripes, stripe_blocks),
        }
    }

    /// Number of stripes.
    pub const fn stripes(self) -> u32 {
        self.stripes
    }

    /// 4 KiB blocks in one stripe.
    pub const fn stripe_blocks(self) -> u32 {
        self.stripe_blocks
    }

    /// 4 KiB blocks in the whole ring.
    pub const fn blocks(self) -> u32 {
        self.blocks
    }

    /// Sectors of the whole ring.
    pub const fn sectors(self) -> u32 {
        self.blocks.saturating_mul(BLOCK_SECTORS)
    }

    /// The block that holds the transaction with this number.
    pub fn block_of(self, tr_number: u32) -> u32 {
        // No divisor is zero in a ring of at least eight blocks.
        let turn = tr_number.checked_rem(self.blocks).unwrap_or(0);
        let stripe = turn.checked_rem(self.stripes).unwrap_or(0);
        let row = turn.checked_div(self.stripes).unwrap_or(0);
        stripe
            .saturating_mul(self.stripe_blocks)
            .saturating_add(row)
    }

    /// How many slots this ring can keep a full context of, while one of its blocks is being
    /// overwritten.
    pub fn max_extents(self) -> u32 {
        let context = u32::try_from(CONTEXT_SIZE).unwrap_or(0);
        self.blocks
            .saturating_sub(1)
            .saturating_mul(context)
            .min(MAX_EXTENTS)
    }

    /// The configured number of slots, silently brought within the limits.
    pub fn clamp_extents(self, configured: u32) -> u32 {
        configured.max(MIN_EXTENTS).min(self.max_extents())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_ring_needs_eight_blocks_and_at_most_sixteen_gibibytes() {
        assert_eq!(Ring::new(1, 8), Ok(Ring::DEFAULT));
        assert!(Ring::new(1, 7).is_err());
        assert!(Ring::new(2, 4).is_ok());
        assert!(Ring::new(1024, 4096).is_ok());
        assert!(Ring::new(1024, 4097).is_err());
        assert!(Ring::new(1 << 16, 1 << 16).is_err());
        assert_eq!(Ring::from_stored(0, 0), Ok(Ring::DEFAULT));
        assert!(Ring::from_stored(0, 8).is_err());
        assert!(Ring::from_stored(8, 0).is_err());
    }

    #[test]
    fn the_number_of_slots_is_clipped_to_what_the_ring_can_keep() {
        assert_eq!(Ring::DEFAULT.max_extents(), 6433);
        assert_eq!(Ring::DEFAULT.clamp_extents(1), 67);
        assert_eq!(Ring::DEFAULT.clamp_extents(DEFAULT_EXTENTS), 1237);
        assert_eq!(Ring::DEFAULT.clamp_extents(u32::MAX), 6433);
        assert_eq!(Ring::new(1, 72).unwrap().max_extents(), 71 * 919);
        assert_eq!(Ring::new(1, 73).unwrap().max_extents(), 65534);
    }

    #[test]
    fn neighbouring_transactions_lie_on_neighbouring_stripes() {
        let ring = Ring::new(3, 4).unwrap();
        let blocks: Vec<_> = (0..13).map(|t| ring.block_of(t)).collect();
        assert_eq!(blocks, [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 0]);
        assert_eq!(Ring::DEFAULT.block_of(u32::MAX), 7);
    }
}
