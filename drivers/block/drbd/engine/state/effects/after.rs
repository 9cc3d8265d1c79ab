// SPDX-License-Identifier: GPL-2.0

//! The deferred effects of a change (spec §4.8).

use super::super::connection::Aggregate;
use super::super::policy::Fencing;
use super::super::values::{ConnState, DiskState, Role};
use super::super::word::State;
use super::{Deferred, DeferredEffects};
use crate::config::Protocol;

/// The first protocol in which the source sends the UUID of the resync from here.
const SYNC_UUID_APV: u32 = 96;

/// The facts of the moment in which the worker carries out the deferred effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterContext {
    /// The agreed protocol version.
    pub apv: u32,
    /// The volume's present state, which may have moved on since the change.
    pub present: State,
    /// The extremes over the present states of all volumes.
    pub volumes: Aggregate,
    /// Whether a disk is attached, so that its UUIDs and bitmap may be used.
    pub is_attached: bool,
    /// Whether the bitmap UUID is zero.
    pub bitmap_uuid_is_zero: bool,
    /// Whether the disk failed with an I/O error (flags WAS_IO_ERROR, WAS_READ_ERROR).
    pub was_io_error: bool,
    /// Whether on-io-error is call-local-io-error.
    pub calls_local_io_error: bool,
    /// Whether the device grew during the handshake (flag RESYNC_AFTER_NEG); cleared when
    /// [`Deferred::ResyncNewStorage`] is carried out.
    pub resync_after_negotiation: bool,
}

/// What a change from `old` to `new` asks of the worker.
pub fn effects_after(old: State, new: State, context: &AfterContext) -> DeferredEffects {
    let mut effects = DeferredEffects::NONE;
    for always in [
        Deferred::Notify,
        Deferred::BroadcastEvent,
        Deferred::SyncMetadata,
    ] {
        effects.add_if(always, true);
    }
    thaw(&mut effects, old, new, context);
    // A peer that is Primary writes here whatever is suspended here.
    let is_frozen = new.role.is_primary() && new.is_suspended() && !thaws(&effects, new);
    generations(&mut effects, old, new, context, is_frozen);
    resync_start(&mut effects, old, new, context);
    resync_end(&mut effects, old, new, context);
    announcements(&mut effects, old, new);
    pauses(&mut effects, old, new);
    disk(&mut effects, old, new, context);
    effects
}

fn thaw(effects: &mut DeferredEffects, old: State, new: State, context: &AfterContext) {
    let all_connected = context.volumes.lowest_conn >= ConnState::Connected;
    let reconnected = old.conn < ConnState::Connected && all_connected;
    let was_attaching = matches!(old.disk, DiskState::Attaching | DiskState::Negotiating);
    let reattached = was_attaching && context.volumes.lowest_disk == DiskState::UpToDate;
    let no_data = new.susp_nod;
    effects.add_if(Deferred::RestartDiskIoForNoData, no_data && reattached);
    effects.add_if(
        Deferred::ResendForNoData,
        no_data && reconnected && !reattached,
    );
    effects.add_if(Deferred::ResendForFencing, new.susp_fen && all_connected);
    let by_admin = new.susp && !new.susp_nod && !new.susp_fen;
    effects.add_if(Deferred::ResendForAdmin, by_admin && reconnected);
    effects.add_if(
        Deferred::HelperPriOnInconDegr,
        new.lacks_data() && !old.lacks_data(),
    );
}

/// Whether I/O goes on by these effects.
fn thaws(effects: &DeferredEffects, new: State) -> bool {
    let fencing = !new.susp_fen || effects.contains(Deferred::ResendForFencing);
    let no_data = !new.susp_nod
        || effects.contains(Deferred::RestartDiskIoForNoData)
        || effects.contains(Deferred::ResendForNoData);
    !new.susp && fencing && no_data
}

/// Whether the peer held data that it holds no longer, or that nobody knows of any more.
///
/// A peer whose disk fell back to Inconsistent, by an error that it passed on, may be good again by
/// its own account when it is back. The C driver begins no generation where it is lost.
fn lost_peer_data(old: State, new: State) -> bool {
    use DiskState as D;
    let had = old.pdsk >= D::Inconsistent && !matches!(old.pdsk, D::DUnknown | D::Outdated);
    let has_not = new.pdsk < D::Inconsistent || matches!(new.pdsk, D::DUnknown | D::Outdated);
    let settled = matches!(new.pdsk, D::Diskless | D::Failed | D::Outdated);
    let leaves = old.conn >= ConnState::Connected && new.conn < ConnState::Connected;
    (had && (has_not || leaves)) || (old.pdsk == D::DUnknown && settled)
}

/// Whether the peer takes part with a disk, and so gets what was held back while it was away.
fn has_peer_data(state: State) -> bool {
    state.conn >= ConnState::Connected && state.pdsk > DiskState::Failed
}

/// Whether a generation begins before suspended I/O goes on; `is_due` is whether one was to.
///
/// What is written from then on is on this node's good disk alone. Who has I/O go on may be quicker
/// than the worker, which finds what is due after the peer is lost. A peer that is back gets what
/// was held back, and no generation begins.
pub fn begins_when_io_goes_on(state: State, is_due: bool) -> bool {
    let is_good = state.role.is_primary() && state.disk == DiskState::UpToDate;
    (is_due || is_good) && !has_peer_data(state)
}

/// Whether a generation begins where the connection is lost while I/O is suspended, and not when it
/// goes on: blocks differ that were told done with protocol A, the peer may be back before, and
/// would be called equal. The C driver forgets these blocks.
///
/// With the others nothing was told done that the peer has not got. Where it is fenced it may go on
/// alone by then, so a generation that this node began would be a split brain; should it be
/// restarted it is taken for equal, and so for one that frozen I/O must not meet (see
/// `Verdict::AbortFrozen`). Without fencing nobody would notice that it was restarted.
pub fn begins_while_suspended(
    state: State,
    protocol: Protocol,
    fencing: Fencing,
    bitmap_uuid_is_zero: bool,
    set_bits: u64,
) -> bool {
    let has_good_data = state.role.is_primary() && state.disk == DiskState::UpToDate;
    let may_differ = protocol == Protocol::A || fencing == Fencing::DontCare;
    may_differ && has_good_data && bitmap_uuid_is_zero && set_bits != 0
}

/// Whether a peer that is restarted while I/O is suspended is known as such when it is back: its
/// disk is Consistent then. Not where the bitmaps are compared anyway, as its disk may be the
/// target of a resync.
pub fn restart_is_seen(fencing: Fencing, bitmap_uuid_is_zero: bool) -> bool {
    fencing != Fencing::DontCare && bitmap_uuid_is_zero
}

/// Whether a peer that has no disk begins to write here.
fn diskless_peer_begins(old: State, new: State) -> bool {
    let peer_lacks_data = new.pdsk < DiskState::Inconsistent;
    let peer_promoted = !old.peer.is_primary() && new.peer.is_primary();
    peer_lacks_data && peer_promoted
}

/// Whether writes, the application's and those of a peer without a disk, wait until the deferred
/// effects of a change are carried out.
///
/// A node that alone has the data begins a generation of its own. A write that is told done before
/// that is on disk would be of the generation that both nodes know, and thrown away where the peer
/// goes on alone.
pub fn holds_writes(old: State, new: State) -> bool {
    (new.someone_is_primary() && lost_peer_data(old, new))
        || got_disk_alone(old, new)
        || diskless_peer_begins(old, new)
}

/// Whether a Primary that ran without a disk and has no peer goes on with its own disk. The peer
/// may have begun a generation when that disk was detached, and not been heard.
fn got_disk_alone(old: State, new: State) -> bool {
    let was_without = matches!(old.disk, DiskState::Attaching | DiskState::Negotiating);
    let is_alone = new.conn < ConnState::Connected;
    was_without && new.disk == DiskState::UpToDate && is_alone && new.role.is_primary()
}

fn generations(
    effects: &mut DeferredEffects,
    old: State,
    new: State,
    context: &AfterContext,
    is_frozen: bool,
) {
    let both =
        |state: State| state.disk == DiskState::UpToDate && state.pdsk == DiskState::UpToDate;
    effects.add_if(Deferred::ClearCrashedPrimary, both(new) && !both(old));
    if !context.is_attached {
        return;
    }
    let begins = context.bitmap_uuid_is_zero && new.disk >= DiskState::UpToDate;
    let lost = lost_peer_data(old, new) && new.someone_is_primary() && begins;
    let lost = lost || (got_disk_alone(old, new) && begins);
    effects.add_if(Deferred::RememberNewCurrentUuid, lost && is_frozen);
    let peer_lacks_data = new.pdsk < DiskState::Inconsistent;
    let diskless_peer_writes = diskless_peer_begins(old, new) && begins;
    effects.add_if(
        Deferred::NewCurrentUuid,
        (lost && !is_frozen) || diskless_peer_writes,
    );
    let peer_demoted = old.peer.is_primary() && new.peer == Role::Secondary;
    effects.add_if(
        Deferred::WriteBitmapForPeerDemotion,
        peer_lacks_data && peer_demoted,
    );
    let demoted = old.role.is_primary() && new.role == Role::Secondary;
    let no_resync = context.present.conn <= ConnState::Connected;
    effects.add_if(Deferred::WriteBitmapForDemotion, demoted && no_resync);
}

fn is_source(state: State) -> bool {
    matches!(state.conn, ConnState::SyncSource | ConnState::PausedSyncS)
}

fn resync_start(effects: &mut DeferredEffects, old: State, new: State, context: &AfterContext) {
    use ConnState as C;
    let enters = |conn| new.conn == conn && old.conn != conn;
    let becomes_source = is_source(new) && !is_source(old);
    let announces = becomes_source && context.apv >= SYNC_UUID_APV && context.is_attached;
    effects.add_if(Deferred::SendSyncUuid, announces);
    let still = context.present.conn == C::WFBitMapS;
    effects.add_if(Deferred::SendBitmap, enters(C::WFBitMapS) && still);
    effects.add_if(Deferred::StartFullSyncAsTarget, enters(C::StartingSyncT));
    effects.add_if(Deferred::StartFullSyncAsSource, enters(C::StartingSyncS));
    let usable = new.disk > DiskState::Negotiating && new.pdsk > DiskState::Negotiating;
    let grown = context.resync_after_negotiation && usable;
    let connected = new.conn == C::Connected;
    effects.add_if(Deferred::ResyncNewStorage, grown && connected);
    // The resync that begins has it in it. The C driver begins another one when that ends.
    effects.add_if(Deferred::ForgetNewStorage, grown && !connected);
}

fn resync_end(effects: &mut DeferredEffects, old: State, new: State, context: &AfterContext) {
    use ConnState as C;
    let connected = new.conn == C::Connected;
    let target_done = old.disk < DiskState::UpToDate && old.conn >= C::SyncSource && connected;
    effects.add_if(Deferred::SendStateForResyncEnd, target_done);
    let can_stop = context.apv >= 97 && context.apv != 100;
    let verified = old.conn == C::VerifyS && connected;
    effects.add_if(Deferred::SendStateForVerifyEnd, verified && can_stop);
    let was_syncing = old.conn > C::Connected && old.conn < C::Ahead;
    let left = connected || new.conn >= C::Ahead;
    effects.add_if(
        Deferred::WriteChangedBitmap,
        was_syncing && left && context.is_attached,
    );
}

fn announcements(effects: &mut DeferredEffects, old: State, new: State) {
    use ConnState as C;
    use DiskState as D;
    let connected = new.conn >= C::Connected;
    // A peer that is still attaching needs no greeting, and gets one when it is done.
    let peer_attached =
        old.pdsk <= D::Attaching && new.pdsk >= D::Inconsistent && new.pdsk != D::DUnknown;
    effects.add_if(Deferred::GreetPeerDisk, peer_attached);
    let negotiates = old.disk == D::Attaching && new.disk == D::Negotiating;
    effects.add_if(Deferred::SendDisk, connected && negotiates);
    let agreed = old.conn == C::WFReportParams && connected;
    effects.add_if(Deferred::SendStateForHandshake, agreed);
    effects.add_if(
        Deferred::SendStateForAhead,
        new.conn == C::Ahead && old.conn != C::Ahead,
    );
    // Who invalidates tells by the change that both agree to.
    let invalidates = new.conn == C::StartingSyncT;
    let fell_back = old.disk == D::UpToDate && new.disk == D::Inconsistent && !invalidates;
    effects.add_if(Deferred::SendStateForInconsistent, connected && fell_back);
}

fn pauses(effects: &mut DeferredEffects, old: State, new: State) {
    let own_changed = old.aftr_isp != new.aftr_isp || old.user_isp != new.user_isp;
    let connected = new.conn >= ConnState::Connected;
    effects.add_if(Deferred::SendStateForPause, connected && own_changed);
    let paused = new.is_resync_paused() && !old.is_resync_paused();
    effects.add_if(Deferred::SuspendDependents, paused);
    let ended = old.conn > ConnState::Connected && new.conn <= ConnState::Connected;
    let resumed = (old.aftr_isp && !new.aftr_isp)
        || (old.peer_isp && !new.peer_isp)
        || (old.user_isp && !new.user_isp);
    effects.add_if(Deferred::ResumeDependents, ended || resumed);
    let gone = new.is_unconfigured() && old.aftr_isp != new.aftr_isp;
    effects.add_if(Deferred::ResumeDependentsOfUnconfigured, gone);
}

fn disk(effects: &mut DeferredEffects, old: State, new: State, context: &AfterContext) {
    let failed = new.disk == DiskState::Failed && old.disk != DiskState::Failed;
    let helper = context.was_io_error && context.calls_local_io_error;
    effects.add_if(Deferred::HelperLocalIoError, failed && helper);
    effects.add_if(Deferred::ReleaseFailedDisk, failed);
    let gone = new.disk == DiskState::Diskless && old.disk != DiskState::Diskless;
    effects.add_if(Deferred::ReleaseDisk, gone);
}
