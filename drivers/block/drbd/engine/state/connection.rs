// SPDX-License-Identifier: GPL-2.0

//! Changes of a connection: all its volumes together, all or none (spec §4.5).

use super::change::{change, Changed, Flags};
use super::context::Context;
use super::difference::Fields;
use super::error::{StateError, Success};
use super::sanitize::Warnings;
use super::transition::hard_connection_transition;
use super::values::{ConnState, DiskState, Role};
use super::word::{Change, State};

/// One volume of a connection that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeChange {
    /// The state before.
    pub old: State,
    /// What the rules read about this volume.
    pub context: Context,
    /// The state after; filled in by [`change_all`].
    pub new: State,
    /// What the log should say; filled in by [`change_all`].
    pub warnings: Warnings,
}

impl VolumeChange {
    /// A volume before the change.
    pub const fn new(old: State, context: Context) -> Self {
        Self {
            old,
            context,
            new: old,
            warnings: Warnings::NONE,
        }
    }
}

/// A change of a connection that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionChanged {
    /// The connection's own state after the change.
    pub cstate: ConnState,
    /// Whether anything changes.
    pub success: Success,
}

/// Decides a change of a connection in state `cstate` and of all its volumes.
///
/// Either every volume's `new` is filled in, or none is and the error says why. A connection
/// without volumes changes too.
///
/// # Errors
///
/// The rule that refuses the change, of the connection first, then of the first volume that
/// refuses.
pub fn change_all(
    cstate: ConnState,
    volumes: &mut [VolumeChange],
    request: Change,
    flags: Flags,
) -> Result<ConnectionChanged, StateError> {
    let wanted = request.wanted_conn();
    if let Some(conn) = wanted {
        hard_connection_transition(cstate, conn)?;
    }
    for volume in volumes.iter() {
        decide(volume, request, flags)?;
    }
    let mut success = match wanted {
        Some(conn) if conn != cstate => Success::Done,
        _ => Success::NothingToDo,
    };
    for volume in volumes.iter_mut() {
        // The first pass found no error and the inputs are the same.
        let changed = decide(volume, request, flags)?;
        volume.new = changed.new;
        volume.warnings = changed.warnings;
        if changed.success == Success::Done {
            success = Success::Done;
        }
    }
    suspend_together(volumes);
    Ok(ConnectionChanged {
        cstate: wanted.unwrap_or(cstate),
        success,
    })
}

/// I/O is suspended for the whole resource: a reason that one volume has counts for the others,
/// which would take it back.
fn suspend_together(volumes: &mut [VolumeChange]) {
    let any = |has: fn(&State) -> bool| volumes.iter().any(|volume| has(&volume.new));
    let susp = any(|state| state.susp);
    let susp_nod = any(|state| state.susp_nod);
    let susp_fen = any(|state| state.susp_fen);
    for volume in volumes {
        volume.new = State {
            susp,
            susp_nod,
            susp_fen,
            ..volume.new
        };
    }
}

fn decide(volume: &VolumeChange, request: Change, flags: Flags) -> Result<Changed, StateError> {
    change(volume.old, request, flags, &volume.context)
}

/// Whether the peer has to consent to this change of the connection.
///
/// Only a graceful disconnect asks; the connection's own state stays WFReportParams while its
/// volumes are in higher states.
pub fn connection_needs_peer(cstate: ConnState, request: Change) -> bool {
    cstate == ConnState::WFReportParams && request.wanted_conn() == Some(ConnState::Disconnecting)
}

/// The extremes over the volumes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Primary if any volume is Primary here.
    pub highest_role: Role,
    /// Primary if any volume is Primary at the peer.
    pub highest_peer: Role,
    /// The best disk here.
    pub highest_disk: DiskState,
    /// The worst disk here.
    pub lowest_disk: DiskState,
    /// The best disk at the peer.
    pub highest_pdsk: DiskState,
    /// The worst disk at the peer.
    pub lowest_pdsk: DiskState,
    /// The lowest connection state.
    pub lowest_conn: ConnState,
}

impl Aggregate {
    /// The extremes of no volume at all.
    pub const EMPTY: Self = Self {
        highest_role: Role::Secondary,
        highest_peer: Role::Unknown,
        highest_disk: DiskState::Diskless,
        lowest_disk: DiskState::UpToDate,
        highest_pdsk: DiskState::Diskless,
        lowest_pdsk: DiskState::UpToDate,
        lowest_conn: ConnState::Behind,
    };

    /// The extremes of these volumes.
    pub fn of(volumes: impl IntoIterator<Item = State>) -> Self {
        volumes.into_iter().fold(Self::EMPTY, Self::with)
    }

    /// The extremes with one more volume.
    #[must_use]
    pub fn with(self, state: State) -> Self {
        Self {
            highest_role: higher_role(self.highest_role, state.role),
            highest_peer: higher_role(self.highest_peer, state.peer),
            highest_disk: self.highest_disk.max(state.disk),
            lowest_disk: self.lowest_disk.min(state.disk),
            highest_pdsk: self.highest_pdsk.max(state.pdsk),
            lowest_pdsk: self.lowest_pdsk.min(state.pdsk),
            lowest_conn: self.lowest_conn.min(state.conn),
        }
    }
}

/// Primary is above Secondary, which is above Unknown; the numbers are ordered otherwise.
fn higher_role(one: Role, other: Role) -> Role {
    if one.is_primary() || other.is_primary() {
        Role::Primary
    } else {
        one.max(other)
    }
}

/// The fields in which all volumes agreed before the change and agree after it.
///
/// The log tells these once for the connection and only the others for each volume (spec §14).
pub fn common_fields(volumes: &[VolumeChange]) -> Fields {
    let Some((first, rest)) = volumes.split_first() else {
        return Fields::CONNECTION;
    };
    rest.iter().fold(Fields::CONNECTION, |fields, volume| {
        fields
            .where_equal(first.old, volume.old)
            .where_equal(first.new, volume.new)
    })
}

/// Work that a change of the connection leaves for its worker, in this order (spec §4.8, connection
/// work).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionWork {
    /// StandAlone to Unconnected: start the receiver.
    pub start_receiver: bool,
    /// Disconnecting to StandAlone: tell that the connection is gone, forget addresses, options and
    /// keys.
    pub discard_configuration: bool,
    /// The peer is fenced: new current UUIDs for the volumes that wait for one, fail what was sent
    /// to it, clear `susp_fen`.
    pub finish_fencing: bool,
}

/// What a connection that went from `old` to `new` has to do, given the extremes of its volumes.
/// Metadata is synced afterwards.
pub fn connection_work(
    old: ConnState,
    new: ConnState,
    susp_fen: bool,
    volumes: &Aggregate,
) -> ConnectionWork {
    ConnectionWork {
        start_receiver: old == ConnState::StandAlone && new == ConnState::Unconnected,
        discard_configuration: old == ConnState::Disconnecting && new == ConnState::StandAlone,
        finish_fencing: susp_fen && volumes.highest_pdsk <= DiskState::Outdated,
    }
}

#[cfg(test)]
mod tests;
