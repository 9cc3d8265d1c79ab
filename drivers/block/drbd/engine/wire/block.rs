// SPDX-License-Identifier: GPL-2.0

//! Payloads that name blocks without carrying them: p_block_ack, p_block_req and p_block_desc
//! (Spec §1.8).

use crate::types::{BlockId, Sector};
use zerocopy::big_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// p_block_ack: every answer about blocks on the meta socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAck {
    /// The sector of the request that is answered.
    pub sector: Sector,
    /// The cookie of the request that is answered.
    pub block_id: BlockId,
    /// Bytes of the request that is answered.
    pub size: u32,
    /// Orders packets between the two sockets.
    pub seq_num: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct AckLayout {
    sector: U64,
    block_id: U64,
    size: U32,
    seq_num: U32,
}

impl From<AckLayout> for BlockAck {
    fn from(layout: AckLayout) -> Self {
        Self {
            sector: Sector(layout.sector.get()),
            block_id: BlockId(layout.block_id.get()),
            size: layout.size.get(),
            seq_num: layout.seq_num.get(),
        }
    }
}

impl From<BlockAck> for AckLayout {
    fn from(ack: BlockAck) -> Self {
        Self {
            sector: ack.sector.0.into(),
            block_id: ack.block_id.0.into(),
            size: ack.size.into(),
            seq_num: ack.seq_num.into(),
        }
    }
}

fixed_payload!(BlockAck, AckLayout, 24);

/// What P_OV_RESULT says in place of a cookie (Spec §1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyResult {
    /// Both sides hold the same.
    InSync,
    /// The blocks differ.
    OutOfSync,
}

impl VerifyResult {
    /// The block id that says so.
    pub const fn block_id(self) -> BlockId {
        match self {
            Self::InSync => BlockId(4711),
            Self::OutOfSync => BlockId(4712),
        }
    }

    /// What the block id says. Anything but "out of sync" counts as in sync, as in the C driver.
    pub const fn from_block_id(block_id: BlockId) -> Self {
        if block_id.0 == 4712 {
            Self::OutOfSync
        } else {
            Self::InSync
        }
    }
}

/// p_block_req: asks for blocks. In P_OV_REPLY and P_CSUM_RS_REQUEST a digest follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// The first sector asked for.
    pub sector: Sector,
    /// The requester's cookie, [`BlockId::SYNCER`] for resync and verify.
    pub block_id: BlockId,
    /// Bytes asked for.
    pub size: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RequestLayout {
    sector: U64,
    block_id: U64,
    size: U32,
    /// The C driver leaves stale bytes here.
    pad: U32,
}

impl From<RequestLayout> for BlockRequest {
    fn from(layout: RequestLayout) -> Self {
        Self {
            sector: Sector(layout.sector.get()),
            block_id: BlockId(layout.block_id.get()),
            size: layout.size.get(),
        }
    }
}

impl From<BlockRequest> for RequestLayout {
    fn from(request: BlockRequest) -> Self {
        Self {
            sector: request.sector.0.into(),
            block_id: request.block_id.0.into(),
            size: request.size.into(),
            pad: U32::ZERO,
        }
    }
}

fixed_payload!(BlockRequest, RequestLayout, 24);

/// p_block_desc: P_OUT_OF_SYNC and P_RS_DEALLOCATED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// The first sector.
    pub sector: Sector,
    /// Bytes from there on.
    pub size: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DescriptorLayout {
    sector: U64,
    size: U32,
    /// The C driver leaves stale bytes here.
    pad: U32,
}

impl From<DescriptorLayout> for BlockDescriptor {
    fn from(layout: DescriptorLayout) -> Self {
        Self {
            sector: Sector(layout.sector.get()),
            size: layout.size.get(),
        }
    }
}

impl From<BlockDescriptor> for DescriptorLayout {
    fn from(descriptor: BlockDescriptor) -> Self {
        Self {
            sector: descriptor.sector.0.into(),
            size: descriptor.size.into(),
            pad: U32::ZERO,
        }
    }
}

fixed_payload!(BlockDescriptor, DescriptorLayout, 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_come_back_byte_for_byte() {
        let mut bytes = [0; 24];
        bytes[8..16].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(BlockAck::decode(&bytes).unwrap().encode(), bytes);
    }

    #[test]
    fn the_pad_of_a_request_is_ignored() {
        let mut bytes = [0; 24];
        bytes[20..].fill(0xff);
        assert_eq!(BlockRequest::decode(&bytes).unwrap().encode(), [0; 24]);
    }

    #[test]
    fn verify_results_are_4711_and_4712_on_the_wire() {
        let ack = BlockAck {
            sector: Sector(8),
            block_id: VerifyResult::OutOfSync.block_id(),
            size: 4096,
            seq_num: 0,
        };
        assert_eq!(ack.encode()[8..16], 4712u64.to_be_bytes());
        assert_eq!(
            VerifyResult::from_block_id(BlockId(4711)),
            VerifyResult::InSync
        );
    }
}
