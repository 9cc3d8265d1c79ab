// SPDX-License-Identifier: GPL-2.0

//! How a resync or a verify begins and ends: states, helpers and UUIDs of either side (spec §6.2,
//! §6.5).

use super::change::{change, Changed, Flags};
use super::context::Context;
use super::error::StateError;
use super::values::{ConnState, DiskState};
use super::word::{Change, State};

/// The first protocol in which the sync UUID is sent from the deferred effects and the source waits
/// for the target to finish.
const EXPLICIT_FINISH_APV: u32 = 96;
/// The first protocol in which an empty resync needs no patience.
const EMPTY_RESYNC_APV: u32 = 95;

/// Which side of a resync this node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Has the data.
    Source,
    /// Gets the data.
    Target,
}

impl Side {
    /// The side that a connection state stands for; `None` where no resync runs.
    pub const fn of(conn: ConnState) -> Option<Self> {
        match conn {
            ConnState::SyncSource | ConnState::PausedSyncS => Some(Self::Source),
            ConnState::SyncTarget | ConnState::PausedSyncT => Some(Self::Target),
            _ => None,
        }
    }

    /// The state of a resync that is not paused.
    pub const fn conn(self) -> ConnState {
        match self {
            Self::Source => ConnState::SyncSource,
            Self::Target => ConnState::SyncTarget,
        }
    }

    /// The helper that runs before the resync, once.
    pub const fn before_helper(self) -> &'static str {
        match self {
            Self::Source => "before-resync-source",
            Self::Target => "before-resync-target",
        }
    }
}

/// What the status of the helper before a resync means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperVerdict {
    /// Begin.
    GoOn,
    /// Begin, and warn that the helper answered 3 ("Old userland tools?").
    GoOnWarned,
    /// Drop the connection: hard to Disconnecting.
    Disconnect,
}

/// Judges the helper's raw wait status (exit code << 8).
///
/// A negative status is a helper that could not be run; that is no reason to stay out of sync.
pub const fn helper_verdict(side: Side, status: i32) -> HelperVerdict {
    if status < 0 {
        return HelperVerdict::GoOn;
    }
    match (side, (status >> 8) & 0xff) {
        (_, 0) => HelperVerdict::GoOn,
        (Side::Source, 3) => HelperVerdict::GoOnWarned,
        _ => HelperVerdict::Disconnect,
    }
}

/// What a node that starts a resync does after the state change, besides setting up its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The state change.
    pub changed: Changed,
    /// Generate and send the sync UUID now; later protocols do so in the deferred effects.
    pub send_sync_uuid: bool,
    /// Nothing is out of sync: finish at once.
    pub finish_at_once: bool,
    /// ...but first give the peer ping-int seconds and a ninth of ping-timeout to follow.
    pub wait_before_finish: bool,
}

/// Decides the start of a resync.
///
/// `must_wait` says that another volume goes first (resync-after); `set_bits` is the number of bits
/// to sync. The helper has run.
///
/// # Errors
///
/// [`StateError::ResyncRunning`] where a resync or verify runs, an error where a disk is gone, else
/// what refuses the change.
pub fn start(
    old: State,
    side: Side,
    must_wait: bool,
    set_bits: u64,
    context: &Context,
) -> Result<Start, StateError> {
    if old.conn >= ConnState::SyncSource && old.conn < ConnState::Ahead {
        return Err(StateError::ResyncRunning);
    }
    // A disk that was given up meanwhile must not come back to life by this.
    if old.disk <= DiskState::Failed {
        return Err(StateError::NoLocalDisk);
    }
    if old.pdsk <= DiskState::Failed {
        return Err(StateError::NoRemoteDisk);
    }
    let request = Change::conn(side.conn());
    let mut wanted = match side {
        Side::Source => request.with_pdsk(DiskState::Inconsistent),
        Side::Target => request.with_disk(DiskState::Inconsistent),
    };
    wanted = wanted.with_aftr_isp(must_wait);
    let changed = change(old, wanted, Flags::SOFT, context)?;
    if changed.new.conn < ConnState::Connected {
        return Err(StateError::Unknown);
    }
    let empty = context.apv < EMPTY_RESYNC_APV && set_bits == 0;
    Ok(Start {
        changed,
        send_sync_uuid: side == Side::Source && context.apv < EXPLICIT_FINISH_APV,
        finish_at_once: empty,
        wait_before_finish: empty && side == Side::Source,
    })
}

/// Whether a side may finish by itself when the set bits are down to the failed ones.
///
/// The source of later protocols waits until the target says so in its state.
pub const fn finishes_by_itself(side: Side, apv: u32, set_bits: u64, failed_bits: u64) -> bool {
    let may = match side {
        Side::Target => true,
        Side::Source => apv < EXPLICIT_FINISH_APV,
    };
    may && set_bits <= failed_bits
}

/// Whether the end of a resync waits for a change that the peer is asked for, as `changes` says.
///
/// A source that consents to a detach has left the resync, and what it writes from then on only its
/// bitmap tells of: the generation that a target takes over at the end would promise more than its
/// disk has. The C driver's target ends the resync.
pub const fn end_waits(conn: ConnState, changes: bool) -> bool {
    changes && matches!(Side::of(conn), Some(Side::Target))
}

/// Whether more is out of sync, when a resync on which a node is in state `conn` is about to end,
/// than could not be synced: then it does not end.
///
/// To be asked in the very change that ends it. Until then a write may fail on either disk, which
/// the other node may not know of, and the generations would call the disks equal. The target goes
/// on with those bits; at the source nobody would end the resync any more, and the connection
/// begins anew. The C driver's source asks when it hears of the end, and waits for its target's
/// acks after that; a write that one of them refuses is never synced.
pub const fn has_bits_left(conn: ConnState, set_bits: u64, failed_bits: u64) -> bool {
    Side::of(conn).is_some() && set_bits > failed_bits
}

/// Whether both disks are equal when a resync ends on which a node is in state `conn`: what its
/// users were told alone (see `Consequences::TOLD_ALONE`) the peer has then. A verify syncs
/// nothing.
pub const fn ends_equal(conn: ConnState, failed_bits: u64) -> bool {
    Side::of(conn).is_some() && failed_bits == 0
}

/// Whether a target may take over the UUID of the resync that its source has begun.
pub const fn takes_sync_uuid(conn: ConnState) -> bool {
    matches!(conn, ConnState::WFSyncUUID | ConnState::Behind)
}

/// Whether a node that got the UUID of a resync is on its way to where it may take it: its own
/// bitmap is not out yet, or the change that both nodes agreed to not made.
///
/// `changes` says that such a change is under way. In every other state the resync is off, because
/// a disk was given up meanwhile, and the UUID is none of the node's business: to wait on would
/// keep the receiver until the connection is lost, and to take it would forge a generation.
pub const fn awaits_sync_uuid(conn: ConnState, changes: bool) -> bool {
    match conn {
        ConnState::WFBitMapT | ConnState::StartingSyncT => true,
        ConnState::Connected => changes,
        _ => false,
    }
}

/// What happens to the UUIDs at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishUuids {
    /// Nothing: blocks failed, or it was a verify.
    Keep,
    /// Only the bitmap UUID goes into the history: the source.
    RetireBitmap,
    /// Take over the peer's bitmap and history UUIDs, retire the own current one, take the peer's:
    /// the target.
    ///
    /// Where the peer's UUIDs are not known only the bitmap UUID is retired.
    AdoptPeer,
}

/// The end of a resync or a verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The soft change to make: back to Connected with these disks.
    pub change: Change,
    /// What to do with the UUIDs, before the change is stored. What is known of the peer's set then
    /// equals the own one.
    pub uuids: FinishUuids,
    /// The helper to run afterwards.
    pub helper: Option<&'static str>,
}

/// Decides the end; `None` where something else ended it already.
///
/// `failed_bits` counts blocks that could not be synced, `out_of_sync_bits` those a verify found to
/// differ.
pub fn finish(old: State, failed_bits: u64, out_of_sync_bits: u64) -> Option<Finish> {
    if old.conn <= ConnState::Connected {
        return None;
    }
    let back = Change::conn(ConnState::Connected);
    if old.conn.is_verify() {
        let helper = if out_of_sync_bits > 0 {
            Some("out-of-sync")
        } else {
            None
        };
        return Some(Finish {
            change: back,
            uuids: FinishUuids::Keep,
            helper,
        });
    }
    let side = Side::of(old.conn)?;
    let helper = match side {
        Side::Target => Some("after-resync-target"),
        Side::Source => None,
    };
    let (disk, pdsk) = match (failed_bits, side) {
        (0, _) => (DiskState::UpToDate, DiskState::UpToDate),
        (_, Side::Target) => (DiskState::Inconsistent, DiskState::UpToDate),
        (_, Side::Source) => (DiskState::UpToDate, DiskState::Inconsistent),
    };
    let uuids = match (failed_bits, side) {
        (0, Side::Target) => FinishUuids::AdoptPeer,
        (0, Side::Source) => FinishUuids::RetireBitmap,
        _ => FinishUuids::Keep,
    };
    Some(Finish {
        change: back.with_disk(disk).with_pdsk(pdsk),
        uuids,
        helper,
    })
}

/// Whether the unfence-peer helper is due: a resync as source ended, a fencing policy is set, all
/// volumes are UpToDate on both sides.
pub fn unfences_peer(old: State, context: &Context, volumes: &super::Aggregate) -> bool {
    Side::of(old.conn) == Some(Side::Source)
        && context.fencing != super::Fencing::DontCare
        && volumes.lowest_disk == DiskState::UpToDate
        && volumes.lowest_pdsk == DiskState::UpToDate
}

#[cfg(test)]
mod tests;
