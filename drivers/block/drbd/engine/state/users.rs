// SPDX-License-Identifier: GPL-2.0

//! What the users of a volume have seen, and so which disk they may get.
//!
//! A generation UUID tells data apart only where each node that writes alone begins one. A source
//! that has missed the end of its resync counts against an older one still, and begins none, not
//! even for what a Primary without a disk writes there: that Primary's own disk has the generation
//! that its users see, and not the data. Nor has a Primary that detaches heard of its peer's new
//! generation when the first writes are acked. So a Primary that has run on its peer's disk gets
//! its own from a handshake alone. And such a source may lose its disk as well, with what was
//! written there alone since: its target has the generation that the users see, and not the data.
//! So a Primary without a disk follows no peer that need not have what its users were told done.
//! The C driver asks for the generation, and no more.

use super::values::{ConnState, DiskState};
use super::word::State;

/// What the users of a volume have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The exposed UUID: the generation; 0 if there is none.
    pub exposed_uuid: u64,
    /// The peer's data, since this node's own disk was in use (see `Immediate::UsersSeePeer`).
    pub peer: bool,
    /// Writes that were told done and that the peer need not have (see
    /// `Consequences::TOLD_ALONE`), since a resync last ended with both disks equal.
    pub alone: bool,
}

impl Seen {
    /// Whether a peer of this current UUID has it, for users whose node has no disk.
    pub const fn is_at_peer(self, current_uuid: u64) -> bool {
        !self.alone && self.has_generation(current_uuid)
    }

    /// Whether it is what a disk of this current UUID has.
    pub const fn is_on_disk(self, current_uuid: u64) -> bool {
        !self.peer && self.has_generation(current_uuid)
    }

    /// Whether a disk must not come into use in this state, which has no peer to ask: the users of
    /// a Primary were promised other data.
    pub fn refuses(self, state: State, current_uuid: u64) -> bool {
        let is_alone = state.conn < ConnState::Connected || state.pdsk < DiskState::UpToDate;
        let is_other = self.exposed_uuid != 0 && !self.has_generation(current_uuid);
        state.role.is_primary() && is_alone && (self.peer || is_other)
    }

    const fn has_generation(self, current_uuid: u64) -> bool {
        current_uuid & !1 == self.exposed_uuid & !1
    }
}

/// Whether the users of this state see the peer's data, and nothing of this node's.
pub(super) fn see_peer(state: State) -> bool {
    state.role.is_primary()
        && state.disk < DiskState::Inconsistent
        && state.conn >= ConnState::Connected
        && state.pdsk == DiskState::UpToDate
}

/// Whether there are no users in this state, or they see this node's data.
pub(super) fn see_own_disk(state: State) -> bool {
    !state.role.is_primary() || state.disk >= DiskState::Inconsistent
}

#[cfg(test)]
mod tests {
    use super::super::values::Role;
    use super::*;

    const ALONE: State = State {
        role: Role::Primary,
        ..State::NEW
    };
    const CONNECTED: State = State {
        conn: ConnState::Connected,
        pdsk: DiskState::UpToDate,
        ..ALONE
    };
    const SEEN: Seen = Seen {
        exposed_uuid: 0x10,
        peer: false,
        alone: false,
    };
    const PEER_SEEN: Seen = Seen { peer: true, ..SEEN };

    #[test]
    fn a_primary_gets_the_disk_that_it_lost_and_no_other() {
        assert!(!SEEN.refuses(ALONE, 0x11));
        assert!(SEEN.refuses(ALONE, 0x20));
        let nothing = Seen {
            exposed_uuid: 0,
            ..SEEN
        };
        assert!(!nothing.refuses(ALONE, 0x20));
        let secondary = State {
            role: Role::Secondary,
            ..ALONE
        };
        assert!(!SEEN.refuses(secondary, 0x20));
        assert!(!SEEN.refuses(CONNECTED, 0x20));
    }

    #[test]
    fn a_primary_without_a_disk_follows_who_has_all_that_was_told_done() {
        assert!(SEEN.is_at_peer(0x11));
        assert!(!SEEN.is_at_peer(0x20));
        let alone = Seen {
            alone: true,
            ..SEEN
        };
        assert!(!alone.is_at_peer(0x10));
        // Its own disk has it.
        assert!(!alone.refuses(ALONE, 0x10));
    }

    #[test]
    fn a_primary_that_ran_on_its_peers_disk_gets_its_own_from_a_handshake_alone() {
        assert!(see_peer(CONNECTED));
        assert!(PEER_SEEN.refuses(ALONE, 0x10));
        assert!(!PEER_SEEN.is_on_disk(0x10));
        let peer_failed = State {
            pdsk: DiskState::Inconsistent,
            ..CONNECTED
        };
        assert!(PEER_SEEN.refuses(peer_failed, 0x10));
        assert!(!PEER_SEEN.refuses(CONNECTED, 0x10));
    }

    #[test]
    fn users_see_the_peer_until_they_are_gone_or_the_disk_is_in_use() {
        let negotiates = State {
            disk: DiskState::Negotiating,
            ..CONNECTED
        };
        assert!(see_peer(negotiates) && !see_own_disk(negotiates));
        assert!(!see_peer(ALONE) && !see_own_disk(ALONE));
        let attached = State {
            disk: DiskState::Inconsistent,
            ..CONNECTED
        };
        assert!(see_own_disk(attached) && !see_peer(attached));
        let demoted = State {
            role: Role::Secondary,
            ..CONNECTED
        };
        assert!(see_own_disk(demoted) && !see_peer(demoted));
    }

    // A source that loses its disk gets that back, not its target's: its users have seen no other.
    #[test]
    fn the_users_of_a_source_that_lost_its_disk_have_not_seen_its_target() {
        let lost = State {
            disk: DiskState::Failed,
            pdsk: DiskState::Inconsistent,
            ..CONNECTED
        };
        assert!(!see_peer(lost));
        assert!(!SEEN.refuses(lost, 0x10));
    }
}
