// SPDX-License-Identifier: GPL-2.0

//! Which steps from one state to the next are allowed (spec §4.4, soft and hard rules).

use super::context::Context;
use super::error::StateError;
use super::values::{ConnState, DiskState};
use super::word::State;

/// Whether a soft change may go from `old` to `new`.
///
/// # Errors
///
/// All rules are asked and the last one that the step breaks is the answer: that order is what the
/// tools and the peer see.
pub fn soft_transition(old: State, new: State, context: &Context) -> Result<(), StateError> {
    let rules: [Result<(), StateError>; 8] = [
        starts_one_resync_at_a_time(old, new),
        leaves_a_usable_state(old, new),
        is_not_in_transit(old, new, context),
        verifies_over_a_connection(old, new),
        resyncs_over_a_connection(old, new),
        outdates_a_present_peer(old, new),
        leaves_the_peer_its_data(old, new),
        syncs_from_the_good_disk(old, new),
    ];
    rules
        .into_iter()
        .rev()
        .find(Result::is_err)
        .unwrap_or(Ok(()))
}

fn refuse_if(broken: bool, error: StateError) -> Result<(), StateError> {
    if broken {
        Err(error)
    } else {
        Ok(())
    }
}

/// The last error of two rules: the later one wins.
fn later(first: Result<(), StateError>, second: Result<(), StateError>) -> Result<(), StateError> {
    if second.is_err() {
        second
    } else {
        first
    }
}

fn starts_full_sync(state: State) -> bool {
    matches!(
        state.conn,
        ConnState::StartingSyncS | ConnState::StartingSyncT
    )
}

fn starts_one_resync_at_a_time(old: State, new: State) -> Result<(), StateError> {
    refuse_if(
        starts_full_sync(new) && old.conn > ConnState::Connected,
        StateError::ResyncRunning,
    )
}

fn leaves_a_usable_state(old: State, new: State) -> Result<(), StateError> {
    let ends_nothing = new.conn == ConnState::Disconnecting && old.conn == ConnState::StandAlone;
    let uses_no_disk = new.disk > DiskState::Attaching && old.disk == DiskState::Diskless;
    let connects_nowhere = new.conn == ConnState::WFConnection && old.conn < ConnState::Unconnected;
    let upgrades_to_outdated = new.disk == DiskState::Outdated
        && old.disk < DiskState::Outdated
        && old.disk != DiskState::Attaching;
    let rules = later(
        refuse_if(ends_nothing, StateError::AlreadyStandAlone),
        refuse_if(uses_no_disk, StateError::IsDiskless),
    );
    let rules = later(rules, refuse_if(connects_nowhere, StateError::NoNetConfig));
    later(
        rules,
        refuse_if(upgrades_to_outdated, StateError::LowerThanOutdated),
    )
}

fn is_not_in_transit(old: State, new: State, context: &Context) -> Result<(), StateError> {
    let ends_too_early = new.conn == ConnState::Disconnecting && old.conn == ConnState::Unconnected;
    let establishes = (old.conn == ConnState::WFConnection
        && new.conn == ConnState::WFReportParams)
        || (old.conn == ConnState::WFReportParams && new.conn >= ConnState::Connected);
    // Another volume may be unknown to the peer, and its state never be told.
    let is_decided = old.conn >= ConnState::Connected;
    let disturbs_handshake = context.state_sent && !establishes && !is_decided;
    // The peer of a node that was just forced Primary is about to become its resync target.
    let promotes_into_handshake = !old.role.is_primary()
        && new.role.is_primary()
        && new.pdsk == DiskState::UpToDate
        && !matches!(new.disk, DiskState::UpToDate | DiskState::Diskless)
        && (new.conn <= ConnState::WFSyncUUID || new.conn != old.conn);
    // Whether the disk is used, and which way it is synced, is being decided.
    let syncs_into_handshake = starts_full_sync(new)
        && !starts_full_sync(old)
        && matches!(old.disk, DiskState::Attaching | DiskState::Negotiating);
    refuse_if(
        ends_too_early || disturbs_handshake || promotes_into_handshake || syncs_into_handshake,
        StateError::InTransientState,
    )
}

fn verifies_over_a_connection(old: State, new: State) -> Result<(), StateError> {
    let changes = new.conn != old.conn;
    later(
        refuse_if(
            new.conn.is_verify() && old.conn < ConnState::Connected,
            StateError::NeedConnection,
        ),
        refuse_if(
            new.conn.is_verify() && changes && old.conn > ConnState::Connected,
            StateError::ResyncRunning,
        ),
    )
}

fn resyncs_over_a_connection(old: State, new: State) -> Result<(), StateError> {
    let begins_unconnected = starts_full_sync(new) && old.conn < ConnState::Connected;
    let runs_without_socket = matches!(new.conn, ConnState::SyncSource | ConnState::SyncTarget)
        && old.conn < ConnState::WFReportParams;
    refuse_if(
        begins_unconnected || runs_without_socket,
        StateError::NeedConnection,
    )
}

fn outdates_a_present_peer(old: State, new: State) -> Result<(), StateError> {
    let outdates_absent = new.conn == ConnState::Disconnecting
        && new.pdsk == DiskState::Outdated
        && old.conn < ConnState::Connected
        && old.pdsk > DiskState::Outdated;
    refuse_if(outdates_absent, StateError::OutdateWithoutConnection)
}

/// The peer, which is Primary, asks whether it may detach the disk that has the data. It asks
/// itself too, but meanwhile this node may have given up its own.
fn leaves_the_peer_its_data(old: State, new: State) -> Result<(), StateError> {
    let takes_data = old.pdsk == DiskState::UpToDate && new.pdsk == DiskState::Failed;
    let is_left_without = new.peer.is_primary() && new.disk <= DiskState::Inconsistent;
    refuse_if(takes_data && is_left_without, StateError::NoUpToDateDisk)
}

/// A full sync makes its source's disk UpToDate whatever it was, which is the admin's to say while
/// neither is. The disk of the node that is to be the source may have failed since.
fn syncs_from_the_good_disk(old: State, new: State) -> Result<(), StateError> {
    let enters = |conn| new.conn == conn && old.conn != conn;
    let (own, peer) = (old.disk, old.pdsk);
    let is_good = |disk| disk == DiskState::UpToDate;
    let overwrites = (enters(ConnState::StartingSyncS) && !is_good(own) && is_good(peer))
        || (enters(ConnState::StartingSyncT) && !is_good(peer) && is_good(own));
    refuse_if(overwrites, StateError::NoUpToDateDisk)
}

/// Whether any change, hard ones too, may go from `old` to `new`.
///
/// # Errors
///
/// What makes the step impossible.
pub fn hard_transition(old: State, new: State) -> Result<(), StateError> {
    hard_connection_transition(old.conn, new.conn)?;
    refuse_if(
        new.disk == DiskState::Failed && old.disk == DiskState::Diskless,
        StateError::IsDiskless,
    )
}

/// The part of [`hard_transition`] that concerns the connection; staying is always allowed.
///
/// # Errors
///
/// What makes the step impossible.
pub fn hard_connection_transition(old: ConnState, new: ConnState) -> Result<(), StateError> {
    use ConnState as C;
    if old == new {
        return Ok(());
    }
    if old == C::StandAlone && new == C::Disconnecting {
        return Err(StateError::AlreadyStandAlone);
    }
    if old == C::StandAlone && new != C::Unconnected {
        return Err(StateError::NeedConnection);
    }
    if old < C::WFReportParams && new >= C::Connected {
        return Err(StateError::NeedConnection);
    }
    if old.is_failure() && !matches!(new, C::Unconnected | C::Disconnecting) {
        return Err(StateError::InTransientState);
    }
    refuse_if(
        old == C::Disconnecting && new != C::StandAlone,
        StateError::InTransientState,
    )
}

#[cfg(test)]
mod tests;
