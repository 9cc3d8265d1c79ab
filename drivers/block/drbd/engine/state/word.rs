// SPDX-License-Identifier: GPL-2.0

//! The 32-bit state word and partial changes of it (spec §1.9).
//!
//! The layout is ABI: it travels in P_STATE, in state change requests and in netlink.

use super::error::StateError;
use super::values::{ConnState, DiskState, Role};

const PEER_SHIFT: u32 = 2;
const CONN_SHIFT: u32 = 4;
const DISK_SHIFT: u32 = 9;
const PDSK_SHIFT: u32 = 13;
const SUSP: u32 = 1 << 17;
const AFTR_ISP: u32 = 1 << 18;
const PEER_ISP: u32 = 1 << 19;
const USER_ISP: u32 = 1 << 20;
const SUSP_NOD: u32 = 1 << 21;
const SUSP_FEN: u32 = 1 << 22;

const ROLE_MASK: u32 = 3;
const PEER_MASK: u32 = 3 << PEER_SHIFT;
const CONN_MASK: u32 = 31 << CONN_SHIFT;
const DISK_MASK: u32 = 15 << DISK_SHIFT;
const PDSK_MASK: u32 = 15 << PDSK_SHIFT;
const SUSP_MASK: u32 = SUSP | SUSP_NOD | SUSP_FEN;

/// A state word with a field whose number stands for nothing.
///
/// Only the peer or a tool can be the author of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidState(pub u32);

impl core::fmt::Display for InvalidState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "invalid state word 0x{:08x}", self.0)
    }
}

/// The state of one volume, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// This node's role.
    pub role: Role,
    /// The peer's role.
    pub peer: Role,
    /// The connection, or the replication of this volume over it.
    pub conn: ConnState,
    /// This node's disk.
    pub disk: DiskState,
    /// The peer's disk.
    pub pdsk: DiskState,
    /// The admin suspended I/O.
    pub susp: bool,
    /// Resync is paused because another volume goes first.
    pub aftr_isp: bool,
    /// Resync is paused by the peer.
    pub peer_isp: bool,
    /// Resync is paused by the admin.
    pub user_isp: bool,
    /// I/O is suspended because no data is accessible.
    pub susp_nod: bool,
    /// I/O is suspended until the peer is fenced.
    pub susp_fen: bool,
}

impl State {
    /// The state of a volume that was just created.
    pub const NEW: Self = Self {
        role: Role::Secondary,
        peer: Role::Unknown,
        conn: ConnState::StandAlone,
        disk: DiskState::Diskless,
        pdsk: DiskState::DUnknown,
        susp: false,
        aftr_isp: false,
        peer_isp: false,
        user_isp: false,
        susp_nod: false,
        susp_fen: false,
    };

    /// Reads a state word. Bits 23 and up belong to later protocols and are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidState`] where a field's number stands for nothing: role 3, conn above 23, disk
    /// above 8.
    pub const fn from_word(word: u32) -> Result<Self, InvalidState> {
        let (Some(role), Some(peer), Some(conn), Some(disk), Some(pdsk)) = (
            Role::from_bits(field(word, ROLE_MASK, 0)),
            Role::from_bits(field(word, PEER_MASK, PEER_SHIFT)),
            ConnState::from_bits(field(word, CONN_MASK, CONN_SHIFT)),
            DiskState::from_bits(field(word, DISK_MASK, DISK_SHIFT)),
            DiskState::from_bits(field(word, PDSK_MASK, PDSK_SHIFT)),
        ) else {
            return Err(InvalidState(word));
        };
        Ok(Self {
            role,
            peer,
            conn,
            disk,
            pdsk,
            susp: word & SUSP != 0,
            aftr_isp: word & AFTR_ISP != 0,
            peer_isp: word & PEER_ISP != 0,
            user_isp: word & USER_ISP != 0,
            susp_nod: word & SUSP_NOD != 0,
            susp_fen: word & SUSP_FEN != 0,
        })
    }

    /// The state word.
    pub const fn to_word(self) -> u32 {
        self.role as u32
            | (self.peer as u32) << PEER_SHIFT
            | (self.conn as u32) << CONN_SHIFT
            | (self.disk as u32) << DISK_SHIFT
            | (self.pdsk as u32) << PDSK_SHIFT
            | flag(self.susp, SUSP)
            | flag(self.aftr_isp, AFTR_ISP)
            | flag(self.peer_isp, PEER_ISP)
            | flag(self.user_isp, USER_ISP)
            | flag(self.susp_nod, SUSP_NOD)
            | flag(self.susp_fen, SUSP_FEN)
    }

    /// Whether I/O is suspended for any reason.
    pub const fn is_suspended(self) -> bool {
        self.susp || self.susp_nod || self.susp_fen
    }

    /// Whether anything pauses a resync.
    pub const fn is_resync_paused(self) -> bool {
        self.aftr_isp || self.peer_isp || self.user_isp
    }

    /// Whether one of the two nodes is Primary.
    pub const fn someone_is_primary(self) -> bool {
        self.role.is_primary() || self.peer.is_primary()
    }

    /// Whether the volume has neither a disk nor a connection nor a user.
    pub const fn is_unconfigured(self) -> bool {
        matches!(
            (self.conn, self.disk, self.role),
            (ConnState::StandAlone, DiskState::Diskless, Role::Secondary)
        )
    }

    /// Whether neither node can give a Primary the newest data.
    pub fn lacks_data(self) -> bool {
        self.role.is_primary() && self.disk < DiskState::UpToDate && self.pdsk < DiskState::UpToDate
    }

    /// Whether the peer's own writes are on this disk only.
    ///
    /// So they are while the peer has no disk, or attaches one: what it sent before it knew that
    /// its disk is in use comes when the handshake has been made here already.
    #[inline]
    pub fn has_peer_writes_alone(self) -> bool {
        let attaches = self.conn == ConnState::WFBitMapS && self.pdsk == DiskState::Consistent;
        self.pdsk < DiskState::Inconsistent || attaches
    }

    /// Whether writes are sent to the peer as data (spec §5.5).
    pub fn replicates_writes(self) -> bool {
        self.pdsk == DiskState::UpToDate
            || (self.pdsk >= DiskState::Inconsistent
                && self.conn >= ConnState::WFBitMapT
                && self.conn < ConnState::Ahead)
    }
}

#[inline]
const fn field(word: u32, mask: u32, shift: u32) -> u8 {
    // Lossless: no field is wider than five bits.
    (word & mask).wrapping_shr(shift) as u8
}

const fn flag(set: bool, bit: u32) -> u32 {
    if set {
        bit
    } else {
        0
    }
}

/// A word of a valid state of which single fields are looked at, for who has no time for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance(u32);

impl Glance {
    /// Of a word that [`State::to_word`] made.
    #[inline]
    pub const fn new(word: u32) -> Self {
        Self(word)
    }

    /// As [`State::is_suspended`].
    #[inline]
    pub const fn is_suspended(self) -> bool {
        self.0 & SUSP_MASK != 0
    }

    /// This node's disk.
    #[inline]
    pub const fn disk(self) -> DiskState {
        match DiskState::from_bits(field(self.0, DISK_MASK, DISK_SHIFT)) {
            Some(disk) => disk,
            None => State::NEW.disk,
        }
    }

    /// The peer's disk.
    #[inline]
    pub const fn pdsk(self) -> DiskState {
        match DiskState::from_bits(field(self.0, PDSK_MASK, PDSK_SHIFT)) {
            Some(pdsk) => pdsk,
            None => State::NEW.pdsk,
        }
    }

    /// The connection.
    #[inline]
    pub const fn conn(self) -> ConnState {
        match ConnState::from_bits(field(self.0, CONN_MASK, CONN_SHIFT)) {
            Some(conn) => conn,
            None => State::NEW.conn,
        }
    }

    /// As [`State::has_peer_writes_alone`].
    #[inline]
    pub fn has_peer_writes_alone(self) -> bool {
        let (conn, pdsk) = (self.conn(), self.pdsk());
        let state = State {
            conn,
            pdsk,
            ..State::NEW
        };
        state.has_peer_writes_alone()
    }

    /// Whether the local disk is UpToDate.
    #[inline]
    pub const fn has_current_disk(self) -> bool {
        field(self.0, DISK_MASK, DISK_SHIFT) == DiskState::UpToDate.bits()
    }

    /// Whether the peer's disk is UpToDate.
    #[inline]
    pub const fn has_current_peer(self) -> bool {
        field(self.0, PDSK_MASK, PDSK_SHIFT) == DiskState::UpToDate.bits()
    }

    /// Whether the peer's disk is known not to be up to date.
    #[inline]
    pub const fn has_stale_peer(self) -> bool {
        field(self.0, PDSK_MASK, PDSK_SHIFT) < DiskState::DUnknown.bits()
    }
}

/// A change of some fields of a state: what P_STATE_CHG_REQ carries and what every rule is asked
/// about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Change {
    /// The bits to change.
    pub mask: u32,
    /// Their new values; bits outside the mask are ignored.
    pub val: u32,
}

impl Change {
    /// A change of nothing.
    pub const NONE: Self = Self { mask: 0, val: 0 };

    /// Changes the role.
    pub const fn role(role: Role) -> Self {
        Self::NONE.with_role(role)
    }

    /// Changes the connection state.
    pub const fn conn(conn: ConnState) -> Self {
        Self::NONE.with_conn(conn)
    }

    /// Changes the disk.
    pub const fn disk(disk: DiskState) -> Self {
        Self::NONE.with_disk(disk)
    }

    /// Changes what is known of the peer's disk.
    pub const fn pdsk(pdsk: DiskState) -> Self {
        Self::NONE.with_pdsk(pdsk)
    }

    /// Suspends or resumes I/O for the admin.
    pub const fn susp(susp: bool) -> Self {
        Self::NONE.with_susp(susp)
    }

    /// Pauses or resumes a resync for the admin.
    pub const fn user_isp(paused: bool) -> Self {
        Self::NONE.with(USER_ISP, flag(paused, USER_ISP))
    }

    /// Pauses or resumes a resync for the sake of another volume.
    pub const fn aftr_isp(paused: bool) -> Self {
        Self::NONE.with_aftr_isp(paused)
    }

    /// The change that turns any state into this one.
    pub const fn all(state: State) -> Self {
        Self {
            mask: (1 << 23) - 1,
            val: state.to_word(),
        }
    }

    const fn with(self, mask: u32, val: u32) -> Self {
        Self {
            mask: self.mask | mask,
            val: (self.val & !mask) | val,
        }
    }

    /// Also changes the role.
    #[must_use]
    pub const fn with_role(self, role: Role) -> Self {
        self.with(ROLE_MASK, role as u32)
    }

    /// Also changes what is known of the peer's role.
    #[must_use]
    pub const fn with_peer(self, peer: Role) -> Self {
        self.with(PEER_MASK, (peer as u32) << PEER_SHIFT)
    }

    /// Also changes the connection state.
    #[must_use]
    pub const fn with_conn(self, conn: ConnState) -> Self {
        self.with(CONN_MASK, (conn as u32) << CONN_SHIFT)
    }

    /// Also changes the disk.
    #[must_use]
    pub const fn with_disk(self, disk: DiskState) -> Self {
        self.with(DISK_MASK, (disk as u32) << DISK_SHIFT)
    }

    /// Also changes what is known of the peer's disk.
    #[must_use]
    pub const fn with_pdsk(self, pdsk: DiskState) -> Self {
        self.with(PDSK_MASK, (pdsk as u32) << PDSK_SHIFT)
    }

    /// Also suspends or resumes I/O for the admin.
    #[must_use]
    pub const fn with_susp(self, susp: bool) -> Self {
        self.with(SUSP, flag(susp, SUSP))
    }

    /// Also sets or clears the suspension for want of data.
    #[must_use]
    pub const fn with_susp_nod(self, susp: bool) -> Self {
        self.with(SUSP_NOD, flag(susp, SUSP_NOD))
    }

    /// Also sets or clears the suspension for fencing.
    #[must_use]
    pub const fn with_susp_fen(self, susp: bool) -> Self {
        self.with(SUSP_FEN, flag(susp, SUSP_FEN))
    }

    /// Also pauses or resumes a resync for the sake of another volume.
    #[must_use]
    pub const fn with_aftr_isp(self, paused: bool) -> Self {
        self.with(AFTR_ISP, flag(paused, AFTR_ISP))
    }

    /// Leaves the peer's disk out of the change again.
    #[must_use]
    pub const fn without_pdsk(self) -> Self {
        Self {
            mask: self.mask & !PDSK_MASK,
            val: self.val & !PDSK_MASK,
        }
    }

    /// Whether the change names the peer's disk.
    pub const fn names_pdsk(self) -> bool {
        self.mask & PDSK_MASK != 0
    }

    /// The connection state that the change asks for, if it names one.
    ///
    /// A partial mask or a number that stands for nothing gives `None`.
    pub const fn wanted_conn(self) -> Option<ConnState> {
        if self.mask & CONN_MASK == CONN_MASK {
            ConnState::from_bits(field(self.val, CONN_MASK, CONN_SHIFT))
        } else {
            None
        }
    }

    /// The state that the change makes of `old`, before any rule is applied.
    ///
    /// # Errors
    ///
    /// [`InvalidState`] where a field ends up with a number that stands for nothing.
    pub const fn apply(self, old: State) -> Result<State, InvalidState> {
        State::from_word((old.to_word() & !self.mask) | (self.val & self.mask))
    }

    /// The peer's request in this node's terms, if it is one that a peer may have (spec §4.5).
    ///
    /// It may tell of its own role and disk, start a resync or a verify, shake hands anew, or
    /// leave; and who leaves may take this node's disk for outdated. All else is its own
    /// business: that changes are judged does not help, for a rule says what goes together, not
    /// who has a say in it.
    ///
    /// # Errors
    ///
    /// [`StateError::NotSupported`] for anything else, and for numbers that stand for nothing.
    pub fn of_peer(self) -> Result<Self, StateError> {
        let change = self.convert_peer();
        if change.is_for_peers() == Some(true) {
            Ok(change)
        } else {
            Err(StateError::NotSupported)
        }
    }

    /// Whether a change in this node's terms is one that a peer may ask for; `None` where a number
    /// stands for nothing.
    fn is_for_peers(self) -> Option<bool> {
        let named = |mask| self.mask & mask != 0;
        let whole = |mask| self.mask & mask == 0 || self.mask & mask == mask;
        let fields = [PEER_MASK, CONN_MASK, DISK_MASK, PDSK_MASK];
        let all = fields.into_iter().fold(0, |all, field| all | field);
        if self.mask & !all != 0 || !fields.into_iter().all(whole) {
            return Some(false);
        }
        let conn = ConnState::from_bits(field(self.val, CONN_MASK, CONN_SHIFT))?;
        let peer = Role::from_bits(field(self.val, PEER_MASK, PEER_SHIFT))?;
        let disk = DiskState::from_bits(field(self.val, DISK_MASK, DISK_SHIFT))?;
        let pdsk = DiskState::from_bits(field(self.val, PDSK_MASK, PDSK_SHIFT))?;
        let leaves = named(CONN_MASK) && conn == ConnState::TearDown;
        let conn_is_fit = matches!(
            conn,
            ConnState::TearDown
                | ConnState::WFReportParams
                | ConnState::StartingSyncS
                | ConnState::StartingSyncT
                | ConnState::VerifyT
        );
        let pdsk_is_fit = !matches!(
            pdsk,
            DiskState::Attaching | DiskState::Negotiating | DiskState::DUnknown
        );
        Some(
            (!named(CONN_MASK) || conn_is_fit)
                && (!named(PEER_MASK) || peer != Role::Unknown)
                && (!named(PDSK_MASK) || pdsk_is_fit)
                && (!named(DISK_MASK) || leaves && disk == DiskState::Outdated),
        )
    }

    /// The peer's request in this node's terms: roles and disks swapped, pauses and connection
    /// states translated (spec §1.9).
    #[must_use]
    pub const fn convert_peer(self) -> Self {
        Self {
            mask: convert_word(self.mask),
            val: convert_word(self.val),
        }
    }
}

/// Translates a peer's word bit by bit: a mask has all ones in its fields and must keep them.
const fn convert_word(word: u32) -> u32 {
    const COPIED: u32 = !(ROLE_MASK | PEER_MASK | CONN_MASK | DISK_MASK | PDSK_MASK | PEER_ISP);
    let paused = word & (AFTR_ISP | USER_ISP) != 0;
    (word & COPIED)
        | (word & ROLE_MASK) << PEER_SHIFT
        | (word & PEER_MASK) >> PEER_SHIFT
        | (convert_conn(field(word, CONN_MASK, CONN_SHIFT)) as u32) << CONN_SHIFT
        | (word & DISK_MASK) << (PDSK_SHIFT - DISK_SHIFT)
        | (word & PDSK_MASK) >> (PDSK_SHIFT - DISK_SHIFT)
        | flag(paused, PEER_ISP)
}

const fn convert_conn(bits: u8) -> u8 {
    if bits == ConnState::MASK {
        return bits;
    }
    let converted = match ConnState::from_bits(bits) {
        Some(same @ (ConnState::WFReportParams | ConnState::Connected)) => same,
        Some(ConnState::StartingSyncS) => ConnState::StartingSyncT,
        Some(ConnState::StartingSyncT) => ConnState::StartingSyncS,
        Some(ConnState::Disconnecting) => ConnState::TearDown,
        Some(ConnState::VerifyS) => ConnState::VerifyT,
        _ => ConnState::StandAlone,
    };
    converted.bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEALTHY: State = State {
        role: Role::Primary,
        peer: Role::Secondary,
        conn: ConnState::Connected,
        disk: DiskState::UpToDate,
        pdsk: DiskState::UpToDate,
        ..State::NEW
    };

    #[test]
    fn a_peer_may_ask_for_what_concerns_it() {
        for fit in [
            Change::role(Role::Primary),
            Change::role(Role::Primary).with_disk(DiskState::UpToDate),
            Change::disk(DiskState::Failed),
            Change::conn(ConnState::StartingSyncS),
            Change::conn(ConnState::StartingSyncT),
            Change::conn(ConnState::VerifyS),
            Change::conn(ConnState::Disconnecting),
            Change::conn(ConnState::Disconnecting).with_disk(DiskState::Outdated),
            Change::conn(ConnState::Disconnecting).with_pdsk(DiskState::Outdated),
        ] {
            assert_eq!(fit.of_peer(), Ok(fit.convert_peer()), "{fit:?}");
        }
    }

    #[test]
    fn a_peer_has_no_say_in_this_nodes_own_affairs() {
        let partial = Change { mask: 1, val: 1 };
        for unfit in [
            // Each was accepted once: an evil peer detached and demoted disks this way.
            Change::pdsk(DiskState::Attaching),
            Change::pdsk(DiskState::Inconsistent),
            Change::pdsk(DiskState::Failed),
            Change::pdsk(DiskState::Outdated),
            Change::user_isp(true),
            Change::susp(true),
            Change::role(Role::Primary).with_peer(Role::Secondary),
            Change::conn(ConnState::Connected),
            Change::conn(ConnState::Unconnected),
            Change::conn(ConnState::SyncTarget),
            Change::disk(DiskState::Negotiating),
            partial,
        ] {
            assert_eq!(unfit.of_peer(), Err(StateError::NotSupported), "{unfit:?}");
        }
    }

    #[test]
    fn a_healthy_primary_has_the_word_of_the_interop_vector() {
        assert_eq!(HEALTHY.to_word(), 0x0001_10a9);
        assert_eq!(HEALTHY.to_word().to_be_bytes(), [0x00, 0x01, 0x10, 0xa9]);
        assert_eq!(State::from_word(0x0001_10a9), Ok(HEALTHY));
    }

    #[test]
    fn the_flags_have_the_bits_of_the_layout() {
        let quiet = State::NEW.to_word();
        let flags: [(State, u32); 6] = [
            (
                State {
                    susp: true,
                    ..State::NEW
                },
                17,
            ),
            (
                State {
                    aftr_isp: true,
                    ..State::NEW
                },
                18,
            ),
            (
                State {
                    peer_isp: true,
                    ..State::NEW
                },
                19,
            ),
            (
                State {
                    user_isp: true,
                    ..State::NEW
                },
                20,
            ),
            (
                State {
                    susp_nod: true,
                    ..State::NEW
                },
                21,
            ),
            (
                State {
                    susp_fen: true,
                    ..State::NEW
                },
                22,
            ),
        ];
        for (state, bit) in flags {
            assert_eq!(state.to_word(), quiet | 1 << bit);
        }
    }

    #[test]
    fn numbers_that_stand_for_nothing_are_refused() {
        for word in [3, 3 << 2, 24 << 4, 31 << 4, 9 << 9, 15 << 13] {
            assert_eq!(State::from_word(word), Err(InvalidState(word)));
        }
    }

    #[test]
    fn bits_of_later_protocols_are_ignored() {
        assert_eq!(State::from_word(0xff81_10a9), Ok(HEALTHY));
    }

    #[test]
    fn a_change_touches_only_what_it_names() {
        let change = Change::role(Role::Secondary).with_pdsk(DiskState::Outdated);
        let changed = change.apply(HEALTHY);
        let expected = State {
            role: Role::Secondary,
            pdsk: DiskState::Outdated,
            ..HEALTHY
        };
        assert_eq!(changed, Ok(expected));
        assert_eq!(change.without_pdsk(), Change::role(Role::Secondary));
        assert!(change.names_pdsk());
        assert_eq!(change.wanted_conn(), None);
    }

    #[test]
    fn a_peers_disconnect_is_a_tear_down_here() {
        let theirs = Change::conn(ConnState::Disconnecting).with_pdsk(DiskState::Outdated);
        let ours = theirs.convert_peer();
        assert_eq!(ours.wanted_conn(), Some(ConnState::TearDown));
        assert_eq!(
            ours,
            Change::conn(ConnState::TearDown).with_disk(DiskState::Outdated)
        );
    }

    #[test]
    fn the_peers_connection_states_are_translated() {
        use ConnState as C;
        for &conn in C::ALL {
            let expected = match conn {
                C::WFReportParams | C::Connected => conn,
                C::StartingSyncS => C::StartingSyncT,
                C::StartingSyncT => C::StartingSyncS,
                C::Disconnecting => C::TearDown,
                C::VerifyS => C::VerifyT,
                _ => C::StandAlone,
            };
            assert_eq!(
                Change::conn(conn).convert_peer().wanted_conn(),
                Some(expected),
                "{conn}"
            );
        }
    }

    #[test]
    fn the_peers_own_pauses_become_its_pause_here() {
        for paused in [Change::user_isp(true), Change::aftr_isp(true)] {
            assert_ne!(paused.convert_peer().val & PEER_ISP, 0);
        }
        let theirs = Change {
            mask: PEER_ISP,
            val: PEER_ISP,
        };
        assert_eq!(theirs.convert_peer().val & PEER_ISP, 0);
    }

    proptest! {
        #[test]
        fn any_word_is_read_or_refused_and_comes_back_unchanged(word: u32) {
            if let Ok(state) = State::from_word(word) {
                prop_assert_eq!(state.to_word(), word & ((1 << 23) - 1));
            }
        }

        #[test]
        fn a_glance_sees_what_the_state_says(word: u32) {
            if let Ok(state) = State::from_word(word) {
                let glance = Glance::new(word);
                prop_assert_eq!(glance.is_suspended(), state.is_suspended());
                prop_assert_eq!(
                    (glance.disk(), glance.pdsk(), glance.conn()),
                    (state.disk, state.pdsk, state.conn)
                );
                prop_assert_eq!(glance.has_current_disk(), state.disk == DiskState::UpToDate);
                prop_assert_eq!(glance.has_current_peer(), state.pdsk == DiskState::UpToDate);
            }
        }

        #[test]
        fn converting_roles_and_disks_twice_gives_them_back(mask: u32, val: u32) {
            let swapped = ROLE_MASK | PEER_MASK | DISK_MASK | PDSK_MASK | SUSP_MASK;
            let change = Change { mask: mask & swapped, val: val & swapped };
            prop_assert_eq!(change.convert_peer().convert_peer(), change);
        }

        #[test]
        fn converting_connection_states_known_to_both_sides_twice_gives_them_back(
            index in 0usize..4,
        ) {
            let both = [
                ConnState::WFReportParams,
                ConnState::Connected,
                ConnState::StartingSyncS,
                ConnState::StartingSyncT,
            ];
            let change = Change::conn(both[index]);
            prop_assert_eq!(change.convert_peer().convert_peer(), change);
        }
    }
}
