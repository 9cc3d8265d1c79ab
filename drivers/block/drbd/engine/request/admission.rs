// SPDX-License-Identifier: GPL-2.0

//! Whether a bio may enter at all (spec §5.2).

use super::route::Copies;
use crate::state::{ConnState, DiskState};

/// What admission depends on.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// The device's state.
    pub copies: Copies,
    /// I/O is suspended: by the admin, for lack of data, or while the peer is fenced.
    pub suspended: bool,
    /// Someone inside the driver holds back new I/O.
    pub held_back: bool,
    /// A bulk transfer of the bitmap runs or waits.
    pub bitmap_io: bool,
    /// The agreed protocol version.
    pub protocol_version: u32,
    /// Application bios of the device that have not ended, with this one.
    pub bios: u32,
    /// The limit to them: `max-buffers`.
    pub max_bios: u32,
}

/// Whether a bio may enter now; if not it waits until one of the inputs changes.
pub fn may_admit(inputs: &Admission) -> bool {
    let may_start = !inputs.suspended && !inputs.held_back && !inputs.bitmap_io;
    may_start && is_stable(inputs) && inputs.bios <= inputs.max_bios
}

/// Whether the state is one that requests can be routed by.
fn is_stable(inputs: &Admission) -> bool {
    let disk = !matches!(
        inputs.copies.disk,
        DiskState::Attaching | DiskState::Negotiating
    );
    let conn = match inputs.copies.conn {
        ConnState::WFBitMapT | ConnState::WFSyncUUID => false,
        // Newer peers take application writes while bitmaps are exchanged.
        ConnState::WFBitMapS => inputs.protocol_version >= 96,
        _ => true,
    };
    disk && conn
}
