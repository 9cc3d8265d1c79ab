// SPDX-License-Identifier: GPL-2.0

//! What the nodes say to each other. The bytes are the codec's business and tested there; here
//! packets travel as they are.

use drbd_engine::handshake::uuid_compare::UuidSet;
use drbd_engine::types::{BlockId, Sector};

use crate::drive::Sectors;

/// Blocks of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first sector.
    pub sector: Sector,
    /// The size in bytes.
    pub size_bytes: u32,
}

impl Blocks {
    /// The size in sectors.
    pub fn sectors(&self) -> u64 {
        u64::from(self.size_bytes >> 9)
    }
}

/// What a write asks for, beside being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags {
    /// Protocol B.
    pub receive_ack: bool,
    /// Protocol C, or a resync runs.
    pub write_ack: bool,
    /// The block is in sync once it is written.
    pub may_set_in_sync: bool,
    /// A flush comes first.
    pub flushes_first: bool,
}

/// An ack about blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The peer has it in memory.
    Receive,
    /// The peer has it on disk.
    Write,
    /// The peer has it on disk and calls the blocks in sync.
    ResyncWrite,
    /// The peer could not write it.
    Negative,
    /// The peer could not read it.
    NegativeRead,
    /// The peer could not read it for the resync.
    NegativeResyncRead,
    /// The peer does not read it, as the resync is over.
    ResyncCancelled,
}

/// A packet.
#[derive(Clone, Debug)]
pub enum Packet {
    /// P_DATA; all sectors get the same content.
    Data(BlockId, Blocks, u64, WriteFlags),
    /// P_DATA_REQUEST.
    DataRequest(BlockId, Blocks),
    /// P_DATA_REPLY.
    DataReply(BlockId, Blocks, Sectors),
    /// P_OUT_OF_SYNC.
    OutOfSync(Blocks),
    /// P_BARRIER.
    Barrier(u32),
    /// P_UUIDS: the set, set bits, flags.
    Uuids(UuidSet, u64, u64),
    /// P_STATE.
    State(u32),
    /// P_SYNC_UUID.
    SyncUuid(u64),
    /// P_BITMAP (`false`) or P_COMPRESSED_BITMAP.
    Bitmap(bool, Vec<u8>),
    /// P_RS_DATA_REQUEST.
    ResyncRequest(Blocks),
    /// P_RS_DATA_REPLY.
    ResyncReply(Blocks, Sectors),
    /// P_STATE_CHG_REQ: mask and value.
    ChangeRequest(u32, u32),
    /// An ack, on the meta socket.
    Ack(Ack, BlockId, Blocks),
    /// P_BARRIER_ACK.
    BarrierAck(u32, u32),
    /// P_STATE_CHG_REPLY.
    ChangeReply(i32),
    /// P_PING.
    Ping,
    /// P_PING_ACK.
    PingAck,
}

impl Packet {
    /// What the story says of it.
    pub fn name(&self) -> String {
        match self {
            Self::Bitmap(compressed, bytes) => {
                format!("Bitmap({compressed}, {} bytes)", bytes.len())
            }
            Self::DataReply(_, blocks, _) => format!("DataReply({blocks:?})"),
            Self::ResyncReply(blocks, _) => format!("ResyncReply({blocks:?})"),
            Self::State(word) => format!("State({word:#x})"),
            other => format!("{other:?}"),
        }
    }
}
