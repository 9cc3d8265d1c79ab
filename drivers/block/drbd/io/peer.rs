// SPDX-License-Identifier: GPL-2.0

//! What this node knows of the peer's side of a volume.

use drbd_engine::{
    bitmap,
    handshake::{
        peer_state::PeerGeneration,
        uuid_compare::UuidSet, //
    },
    wire::Uuids, //
};

/// The peer's side of a volume. Valid while connected, but for what is said to outlive that.
#[derive(Default)]
pub(crate) struct PeerVolume {
    /// The UUIDs as last received, corrected where the handshake did so.
    pub(crate) uuids: Option<Uuids>,
    /// The usable size of the peer's disk, in sectors; 0 without one.
    pub(crate) disk_sectors: u64,
    /// The largest request that the peer takes, as announced; outlives the connection.
    pub(crate) max_bio_bytes: u32,
    /// How many bits were set when we last told.
    pub(crate) sent_bits: u64,
    /// The peer's bitmap on its way in.
    pub(crate) bitmap: Option<bitmap::transfer::Receiver>,
}

impl PeerVolume {
    /// The peer's generations, if they are known.
    pub(crate) fn uuid_set(&self) -> Option<UuidSet> {
        self.uuids.map(|uuids| UuidSet {
            current: uuids.current,
            bitmap: uuids.bitmap,
            history: uuids.history,
        })
    }

    /// Replaces the generations, as a correction of the handshake does.
    pub(crate) fn set_uuid_set(&mut self, set: UuidSet) {
        if let Some(uuids) = &mut self.uuids {
            uuids.current = set.current;
            uuids.bitmap = set.bitmap;
            uuids.history = set.history;
        }
    }

    /// What the UUIDs tell of the disk, if they are known.
    pub(crate) fn generation(&self) -> Option<PeerGeneration> {
        self.uuids.map(|uuids| PeerGeneration {
            current: uuids.current,
            flags: uuids.flags.0,
        })
    }

    /// The connection is gone; whether part of the peer's bitmap had come.
    pub(crate) fn forget(&mut self) -> bool {
        self.uuids = None;
        self.disk_sectors = 0;
        self.bitmap.take().is_some()
    }
}
