// SPDX-License-Identifier: GPL-2.0

//! The immediate effects of a change (spec §4.7).

use super::super::users::{see_own_disk, see_peer};
use super::super::values::{ConnState, DiskState, Role};
use super::super::word::State;
use super::{Immediate, ImmediateEffects};

/// What a stored change asks for at once.
///
/// `another_reports` says whether another volume of the connection is still in WFReportParams.
pub fn effects_now(old: State, new: State, another_reports: bool) -> ImmediateEffects {
    let mut effects = ImmediateEffects::NONE;
    if old == new {
        return effects;
    }
    effects.add_if(Immediate::WakeWaiters, true);
    effects.add_if(Immediate::QueueDeferred, true);
    replication(&mut effects, old, new, another_reports);
    resync(&mut effects, old, new);
    verify(&mut effects, old, new);
    disk(&mut effects, old, new);
    receiver(&mut effects, old, new);
    effects
}

fn replication(effects: &mut ImmediateEffects, old: State, new: State, another_reports: bool) {
    let toggles = old.replicates_writes() != new.replicates_writes();
    effects.add_if(Immediate::CloseEpoch, toggles);
    let reported = old.conn == ConnState::WFReportParams && new.conn != ConnState::WFReportParams;
    effects.add_if(Immediate::ClearStateSent, reported && !another_reports);
    let connects = old.conn < ConnState::Connected && new.conn >= ConnState::Connected;
    effects.add_if(Immediate::ResumeActivityLog, connects);
    effects.add_if(Immediate::CountConnect, connects);
    let forced_peer = old.disk == DiskState::Inconsistent
        && old.pdsk == DiskState::Inconsistent
        && old.peer == Role::Secondary
        && new.peer == Role::Primary;
    effects.add_if(Immediate::ConsiderResync, forced_peer);
}

fn resync(effects: &mut ImmediateEffects, old: State, new: State) {
    let enters = new.conn.is_resync() && new.conn != old.conn;
    effects.add_if(Immediate::ClearResyncDone, enters);
    let runs = |state: State| matches!(state.conn, ConnState::SyncSource | ConnState::SyncTarget);
    let paused =
        |state: State| matches!(state.conn, ConnState::PausedSyncS | ConnState::PausedSyncT);
    let goes_on = paused(old) && runs(new);
    effects.add_if(Immediate::AccountPause, goes_on);
    let is_synced = old.conn.is_resync_source()
        && new.conn == ConnState::Connected
        && old.disk == DiskState::UpToDate
        && new.disk == DiskState::UpToDate
        && new.pdsk == DiskState::UpToDate;
    effects.add_if(Immediate::PeerSynced, is_synced);
    effects.add_if(
        Immediate::KickResyncTimer,
        goes_on && new.conn == ConnState::SyncTarget,
    );
    effects.add_if(Immediate::StampPause, runs(old) && paused(new));
}

fn verify(effects: &mut ImmediateEffects, old: State, new: State) {
    let ends = old.conn.is_verify() && new.conn <= ConnState::Connected;
    effects.add_if(Immediate::RememberVerifyStart, ends);
    let begins = old.conn == ConnState::Connected && new.conn.is_verify();
    effects.add_if(Immediate::BeginVerify, begins);
    effects.add_if(
        Immediate::StartVerifyTimer,
        begins && new.conn == ConnState::VerifyS,
    );
}

fn disk(effects: &mut ImmediateEffects, old: State, new: State) {
    let attached = old.disk == DiskState::Attaching && new.disk >= DiskState::Negotiating;
    effects.add_if(Immediate::LogAttachedUuids, attached);
    // The C driver asks the bitmap of a disk that was just attached, or whose peer wrote alone:
    // blocks that the peer wrote meanwhile are read as they were until the bitmaps are exchanged,
    // and where it is lost before, after that too.
    let meets_newer = new.conn == ConnState::WFBitMapT && old.conn != ConnState::WFBitMapT;
    effects.add_if(Immediate::DistrustBitmap, attached || meets_newer);
    let exchanged = becomes_target(new) && !becomes_target(old);
    let is_whole = exchanged || new.disk == DiskState::UpToDate;
    effects.add_if(Immediate::TrustBitmap, is_whole);
    // The flags remember the disk as it was last in use: detaching, by force too, leaves them
    // alone.
    let is_used = new.disk >= DiskState::Inconsistent;
    effects.add_if(Immediate::UpdateMetadataFlags, is_used);
    let trusted = old.disk < DiskState::Consistent && new.disk >= DiskState::Consistent;
    effects.add_if(Immediate::ExposeCurrentUuid, trusted);
    effects.add_if(Immediate::UsersSeePeer, see_peer(new));
    effects.add_if(Immediate::UsersSeeDisk, see_own_disk(new));
    effects.add_if(Immediate::NoUsers, !new.role.is_primary());
    let comes_into_use = old.disk != DiskState::UpToDate && new.disk == DiskState::UpToDate;
    effects.add_if(Immediate::DoubtUnflushed, comes_into_use);
    let was_attaching = matches!(old.disk, DiskState::Attaching | DiskState::Negotiating);
    let usable = new.disk > DiskState::Negotiating;
    effects.add_if(Immediate::RecordReattach, was_attaching && usable);
}

/// Whether the bitmaps were exchanged, or all bits set, and this node is to get what is out of
/// sync.
fn becomes_target(state: State) -> bool {
    matches!(
        state.conn,
        ConnState::WFSyncUUID | ConnState::SyncTarget | ConnState::PausedSyncT
    )
}

fn receiver(effects: &mut ImmediateEffects, old: State, new: State) {
    if old.conn == new.conn {
        return;
    }
    let ends = matches!(new.conn, ConnState::Disconnecting | ConnState::StandAlone);
    effects.add_if(Immediate::StopReceiver, ends);
    let breaks = old.conn > ConnState::WFConnection && new.conn.is_failure();
    effects.add_if(Immediate::RestartReceiver, breaks);
}
