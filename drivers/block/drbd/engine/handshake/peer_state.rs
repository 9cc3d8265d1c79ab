// SPDX-License-Identifier: GPL-2.0

//! What the peer's UUIDs and its state mean for this node (spec §1.13).
//!
//! P_STATE is taken in two halves, with the sync handshake between them where it is due: [`assess`]
//! reads the two states, [`conclude`] makes the new one. In between the caller may sleep, so the
//! second half is only valid if the own state has not changed meanwhile; otherwise it starts over.

use super::uuid_compare::JUST_CREATED;
use crate::state::{Change, ConnState, DiskState, Seen, State};

/// UUID flag: the sender gave up its data.
pub const UUID_DISCARD_MY_DATA: u64 = 1;
/// UUID flag: the sender was Primary when it crashed.
pub const UUID_CRASHED_PRIMARY: u64 = 2;
/// UUID flag: the sender's disk is Inconsistent.
pub const UUID_INCONSISTENT: u64 = 4;
/// UUID flag: the initial resync is skipped.
pub const UUID_SKIP_INITIAL_SYNC: u64 = 8;

/// The first protocol in which the initial resync may be skipped.
const SKIP_INITIAL_SYNC_APV: u32 = 90;

/// What P_UUIDS asks for, beside remembering the peer's UUIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UuidsDecision {
    /// A diskless Primary was promised other data: "Can only connect to data with current UUID=…".
    /// Hard to Disconnecting.
    Refuse,
    /// Both disks are declared UpToDate: clear and write the bitmap, take over the peer's current
    /// UUID, bitmap UUID 0, hard change.
    SkipInitialSync,
    /// A diskless node follows the peer: its current UUID is the exposed one.
    ExposePeerCurrent,
    /// Nothing more.
    Accept,
}

/// Decides what the peer's UUIDs ask for.
///
/// `own_current` is this node's current UUID; it counts while a disk is attached. `peer_flags` are
/// the flags that came with the UUIDs.
pub fn receive_uuids(
    state: State,
    own_current: u64,
    seen: Seen,
    peer_current: u64,
    peer_flags: u64,
    apv: u32,
) -> UuidsDecision {
    if refuses_peer(state, seen, peer_current) {
        return UuidsDecision::Refuse;
    }
    if is_attached(state) {
        let skips = state.conn == ConnState::Connected
            && apv >= SKIP_INITIAL_SYNC_APV
            && own_current == JUST_CREATED
            && peer_flags & UUID_SKIP_INITIAL_SYNC != 0;
        return if skips {
            UuidsDecision::SkipInitialSync
        } else {
            UuidsDecision::Accept
        };
    }
    if keeps_exposed(state) {
        return UuidsDecision::Accept;
    }
    // A Secondary too: should it be promoted, its users see the peer's data, and it must not attach
    // older ones under them when the peer is gone.
    UuidsDecision::ExposePeerCurrent
}

fn is_attached(state: State) -> bool {
    state.disk >= DiskState::Inconsistent
}

/// Whether the users of a Primary without a disk have yet to see the data of this peer: it is new,
/// or its disk is.
fn is_to_follow_peer(state: State) -> bool {
    let peer_is_new = state.conn < ConnState::Connected || state.pdsk < DiskState::Negotiating;
    peer_is_new && !is_attached(state) && state.role.is_primary()
}

/// Whether they must not see them, as they have seen other data; `peer_current` is the peer's
/// current UUID.
///
/// The C driver does not ask where the peer's disk is attached while the nodes meet.
fn refuses_peer(state: State, seen: Seen, peer_current: u64) -> bool {
    let seen = Seen {
        // A disk that is about to come into use may be the one that has it: the comparison tells.
        alone: seen.alone && state.disk < DiskState::Negotiating,
        ..seen
    };
    is_to_follow_peer(state) && !seen.is_at_peer(peer_current)
}

/// The users of a source that lost its disk have not seen what its target has, Inconsistent or, if
/// the resync had not begun, older: they get that disk back, and no other.
fn keeps_exposed(state: State) -> bool {
    let has_other_data = state.pdsk >= DiskState::Inconsistent && state.pdsk < DiskState::UpToDate;
    state.conn >= ConnState::Connected && has_other_data && state.role.is_primary()
}

/// Whether the peer's current UUID becomes the exposed one after a state change under way has been
/// waited for.
pub fn exposes_peer_after_wait(state: State) -> bool {
    state.conn >= ConnState::Connected
        && state.disk < DiskState::Inconsistent
        && !keeps_exposed(state)
}

/// Whether the peer's current UUID becomes the exposed one when the own disk was given up: users
/// see the peer's data from then on, and must not get back to an older disk when the peer is gone.
pub fn exposes_peer_after_detach(state: State) -> bool {
    exposes_peer_after_wait(state) && state.pdsk == DiskState::UpToDate
}

/// What P_UUIDS tells of the peer's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerGeneration {
    /// The current UUID.
    pub current: u64,
    /// The flags that came with it.
    pub flags: u64,
}

/// The facts about the volume that [`assess`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// The peer's generation; `None` while P_UUIDS has not come.
    pub peer_generation: Option<PeerGeneration>,
    /// What the users of this node have seen.
    pub seen: Seen,
    /// The handshake is to be run again (flag CONSIDER_RESYNC).
    pub consider_resync: bool,
    /// Set bits.
    pub set_bits: u64,
    /// Blocks that could not be synced.
    pub failed_bits: u64,
}

/// What the peer's state amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// The connection is going down; the packet comes too late.
    Abort,
    /// A peer that negotiates, or that a Primary without a disk is to follow, has to send its UUIDs
    /// first: drop the connection.
    ProtocolError,
    /// As [`UuidsDecision::Refuse`], where that was not asked for: the UUIDs came when the own disk
    /// was in use, and was given up since. The C driver does not ask again.
    Refuse,
    /// The peer is done with the resync: finish it.
    FinishResync,
    /// The peer is done with the verify: finish it.
    FinishVerify,
    /// The peer is done, but bits are set here that it knows nothing of, as where this node could
    /// not write a block itself: drop the connection, the next handshake begins with both bitmaps.
    /// The C driver waits for an end that nobody will tell of.
    BitsLeft,
    /// Go on, running the sync handshake first where it says so.
    Continue(Proposal),
}

/// The first half of a P_STATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The own state that was assessed.
    pub old: State,
    /// The peer's state, as it sees itself.
    pub peer: State,
    /// The peer's disk, Negotiating resolved and flapping removed.
    pub peer_disk: DiskState,
    /// The connection state to go to without a handshake.
    pub conn: ConnState,
    /// Whether the sync handshake is to be run.
    pub needs_handshake: bool,
    /// The peer attaches a disk that the handshake refused.
    pub refuses_peer_disk: bool,
}

/// Whether what the peer tells of a resync that begins there waits for the change that is under way
/// here: it may be the very resync that the peer was asked for, and its consent comes on the other
/// socket. Read before that, it would begin another one, by bitmaps, for which the peer does not
/// wait.
///
/// `changes` says that a change which the peer is asked for is under way. The C driver does not
/// wait: both nodes remain between Connected and the resync.
pub fn awaits_own_change(own: State, peer: State, changes: bool) -> bool {
    let is_asked_for = matches!(
        peer.conn,
        ConnState::StartingSyncS | ConnState::StartingSyncT
    );
    changes && own.conn == ConnState::Connected && is_asked_for
}

/// Reads the peer's state.
pub fn assess(own: State, peer: State, facts: &PeerFacts) -> Assessment {
    use ConnState as C;
    if own.conn <= C::TearDown {
        return Assessment::Abort;
    }
    let Some(mut peer_disk) = real_peer_disk(peer.disk, facts.peer_generation) else {
        return Assessment::ProtocolError;
    };
    // Whose data is newer is for the handshake to find, which goes by what was sent before.
    let both_have_disks = own.disk > DiskState::Failed && peer_disk > DiskState::Failed;
    if both_have_disks && own.conn == C::WFReportParams && facts.peer_generation.is_none() {
        return Assessment::ProtocolError;
    }
    if peer_disk > DiskState::Failed && is_to_follow_peer(own) {
        let Some(generation) = facts.peer_generation else {
            return Assessment::ProtocolError;
        };
        if refuses_peer(own, facts.seen, generation.current) {
            return Assessment::Refuse;
        }
    }
    let now_up_to_date = peer_disk == DiskState::UpToDate && own.disk == DiskState::UpToDate;
    let was_worse = matches!(own.pdsk, DiskState::Inconsistent | DiskState::Consistent);
    if was_worse && now_up_to_date && own.conn > C::Connected {
        if peer.conn > C::Connected && peer.conn < C::SyncSource {
            peer_disk = DiskState::Inconsistent;
        } else if own.conn >= C::SyncSource && peer.conn == C::Connected {
            let complete = facts.set_bits <= facts.failed_bits;
            return end_of_resync(complete);
        }
    }
    // The C driver does not hear of an end with failed blocks, and remains the source.
    let failed = matches!(own.conn, C::SyncSource | C::PausedSyncS)
        && peer.conn == C::Connected
        && peer_disk == DiskState::Inconsistent;
    if failed {
        let known = facts.failed_bits != 0 && facts.set_bits <= facts.failed_bits;
        return end_of_resync(known);
    }
    if own.conn == C::VerifyT && now_up_to_date && peer.conn == C::Connected {
        return Assessment::FinishVerify;
    }
    // A peer that already syncs tells of a disk that is about to be UpToDate again.
    let flaps = own.pdsk == DiskState::UpToDate
        && peer_disk == DiskState::Inconsistent
        && own.conn == C::Connected
        && peer.conn > C::SyncSource;
    if flaps {
        peer_disk = DiskState::UpToDate;
    }
    let needs_handshake = needs_handshake(own, peer, facts);
    let conn = target_conn(own.conn, peer.conn);
    Assessment::Continue(Proposal {
        old: own,
        peer,
        peer_disk,
        conn,
        needs_handshake,
        refuses_peer_disk: false,
    })
}

/// The target has ended the resync; whether that is all that can be done here too.
const fn end_of_resync(complete: bool) -> Assessment {
    if complete {
        Assessment::FinishResync
    } else {
        Assessment::BitsLeft
    }
}

/// The peer's disk behind Negotiating, told by its UUID flags; `None` if it has not sent them.
fn real_peer_disk(disk: DiskState, generation: Option<PeerGeneration>) -> Option<DiskState> {
    if disk != DiskState::Negotiating {
        return Some(disk);
    }
    let flags = generation?.flags;
    Some(if flags & UUID_INCONSISTENT != 0 {
        DiskState::Inconsistent
    } else {
        DiskState::Consistent
    })
}

fn target_conn(own: ConnState, peer: ConnState) -> ConnState {
    match (own, peer) {
        (_, ConnState::Ahead) => ConnState::Behind,
        (ConnState::WFReportParams, _) => ConnState::Connected,
        (own, _) => own,
    }
}

fn needs_handshake(own: State, peer: State, facts: &PeerFacts) -> bool {
    let both_have_disks = facts.peer_generation.is_some()
        && peer.disk >= DiskState::Negotiating
        && own.disk >= DiskState::Negotiating;
    let negotiating = peer.disk == DiskState::Negotiating || own.disk == DiskState::Negotiating;
    let peer_starts_sync =
        peer.conn >= ConnState::StartingSyncS && peer.conn <= ConnState::WFBitMapT;
    let connected = own.conn == ConnState::Connected;
    both_have_disks
        && (own.conn < ConnState::Connected
            || (connected && (negotiating || peer_starts_sync))
            || facts.consider_resync)
}

/// What a failed handshake does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This node's attach is refused: hard to disk Failed, stay Connected.
    FailOwnDisk(Proposal),
    /// The peer's attach is refused ("Disk attach process on the peer node was aborted."): go on,
    /// the peer is Diskless.
    PeerIsDiskless(Proposal),
    /// A dry run: close the connection with a plain error.
    CloseDryRun,
    /// Hard to Disconnecting.
    Disconnect,
}

/// What to do when the handshake refused, or setting all bits failed.
pub fn handshake_failed(proposal: Proposal, dry_run: bool) -> Failure {
    let connected = Proposal {
        conn: ConnState::Connected,
        ..proposal
    };
    if proposal.old.disk == DiskState::Negotiating {
        return Failure::FailOwnDisk(connected);
    }
    if proposal.peer.disk == DiskState::Negotiating {
        let peer = State {
            disk: DiskState::Diskless,
            ..proposal.peer
        };
        let peer_disk = DiskState::Diskless;
        return Failure::PeerIsDiskless(Proposal {
            peer,
            peer_disk,
            refuses_peer_disk: true,
            ..connected
        });
    }
    if dry_run {
        Failure::CloseDryRun
    } else {
        Failure::Disconnect
    }
}

/// The second half of a P_STATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The state to request, all fields.
    pub change: Change,
    /// Whether the change is hard. Only establishing the connection is soft: it may be refused,
    /// which is Disconnecting.
    pub hard: bool,
    /// The peer has not decided to resync yet, or does not know that its disk is refused and would
    /// stay Negotiating: send UUIDs and state again after the change, so that it comes to the same
    /// decision. In their turn: states that the worker has yet to send are older, and would undo
    /// what this one tells.
    pub resend: bool,
    /// The peer may have been restarted while I/O was frozen, and have lost what it had acked: that
    /// is to be marked before I/O goes on.
    pub peer_restarted: bool,
}

/// How a P_STATE ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply, then clear CONSIDER_RESYNC and the volume's DISCARD_MY_DATA, and sync the metadata.
    Apply(Conclusion),
    /// The peer rebooted while I/O was frozen and cannot have it all ("Aborting Connect, can not
    /// thaw IO with an only Consistent peer"): what it may have lost is marked, a generation
    /// begins, and the next meeting has it get that. Until then it takes its disk for UpToDate, so
    /// I/O stays frozen. The C driver has it go on at once.
    AbortFrozen,
}

/// Makes the new state of a proposal, the handshake's result already in it as `conn`.
///
/// `negotiated_disk` is the remembered state of a disk that is Negotiating;
/// `new_current_uuid_pending` the flag NEW_CUR_UUID.
pub fn conclude(
    proposal: &Proposal,
    negotiated_disk: DiskState,
    new_current_uuid_pending: bool,
) -> Verdict {
    let Proposal {
        old,
        peer,
        peer_disk,
        conn,
        refuses_peer_disk,
        ..
    } = *proposal;
    let mut new = State {
        conn,
        peer: peer.role,
        pdsk: peer_disk,
        peer_isp: peer.aftr_isp || peer.user_isp,
        ..old
    };
    let settled = matches!(conn, ConnState::Connected | ConnState::WFBitMapS);
    if settled && new.disk == DiskState::Negotiating {
        new.disk = negotiated_disk;
    }
    let establishes = old.conn < ConnState::Connected && conn >= ConnState::Connected;
    let meets_frozen = old.is_suspended() && establishes;
    // With fencing a disk whose node was restarted does not know whether it is still good. It can
    // be outdated since, or not attached yet.
    let peer_restarted = meets_frozen && peer_disk != DiskState::UpToDate;
    let is_taken_for_equal = peer_disk == DiskState::Consistent && conn == ConnState::Connected;
    if meets_frozen && is_taken_for_equal && new_current_uuid_pending {
        return Verdict::AbortFrozen;
    }
    // Without a disk on either side the resync ends, and there is no decision to come to. A Primary
    // that has lost its disk would take our generation, told now, for the one that its users have
    // seen, and the C driver then refuses it its own disk.
    let goes_on = new.disk.min(new.pdsk) > DiskState::Failed;
    let is_ahead = old.conn > ConnState::WFReportParams
        && conn > ConnState::Connected
        && goes_on
        && peer.conn <= ConnState::Connected
        && peer.disk != DiskState::Negotiating;
    let resend = is_ahead || refuses_peer_disk;
    Verdict::Apply(Conclusion {
        change: Change::all(new),
        hard: !establishes,
        resend,
        peer_restarted,
    })
}

#[cfg(test)]
mod tests;
