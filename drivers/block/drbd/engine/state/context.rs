// SPDX-License-Identifier: GPL-2.0

//! What the rules read beside the state word itself.

use super::policy::{Fencing, OnNoData};
use super::values::{DiskState, Role};

/// The facts about a volume, its connection and its configuration that the rules depend on (spec
/// §4.3, §4.4).
///
/// The caller takes them under the lock that serialises state changes, so that they hold while the
/// change is decided and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The disk's fencing policy while a disk is attached, else [`Fencing::DontCare`].
    pub fencing: Fencing,
    /// The resource's policy for I/O without data.
    pub on_no_data: OnNoData,
    /// Whether both nodes may be Primary. `false` without a network configuration.
    pub two_primaries: bool,
    /// The highest role of the peer over all volumes: Primary if the peer is Primary on any.
    pub highest_peer_role: Role,
    /// How often the device is held open.
    pub open_count: u32,
    /// Whether a verify algorithm is configured.
    pub has_verify_alg: bool,
    /// The agreed protocol version.
    pub apv: u32,
    /// The connection has sent its state and waits for the peer's (flag STATE_SENT).
    pub state_sent: bool,
    /// Whether what the users have seen is what the disk has, see
    /// [`Seen::is_on_disk`](super::users::Seen::is_on_disk).
    pub users_saw_disk: bool,
    /// The disk state that attaching would have given without a peer; used while Negotiating.
    pub negotiated_disk: DiskState,
    /// The peer's disk state that attaching would have given without a peer; used while
    /// Negotiating.
    pub negotiated_pdsk: DiskState,
}

impl Context {
    /// A volume of an unconfigured resource: no disk, no peer, no user.
    pub const NEW: Self = Self {
        fencing: Fencing::DontCare,
        on_no_data: OnNoData::IoError,
        two_primaries: false,
        highest_peer_role: Role::Unknown,
        open_count: 0,
        has_verify_alg: false,
        apv: 0,
        state_sent: false,
        users_saw_disk: false,
        negotiated_disk: DiskState::Diskless,
        negotiated_pdsk: DiskState::DUnknown,
    };
}

impl Default for Context {
    fn default() -> Self {
        Self::NEW
    }
}
