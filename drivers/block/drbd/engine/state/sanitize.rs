// SPDX-License-Identifier: GPL-2.0

//! Brings a requested state into shape: fields that contradict each other are adjusted before
//! anything is judged (spec §4.3).

use super::context::Context;
use super::policy::{Fencing, OnNoData};
use super::values::{ConnState, DiskState, Role};
use super::word::State;

/// Something that sanitising did and that the log should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Warning {
    /// A verify lost its disk or its peer's.
    VerifyAborted,
    /// A resync lost its disk or its peer's.
    ResyncAborted,
    /// Without the peer nobody knows what the data is worth.
    ConnectionLostNegotiating,
    /// The peer's disk, which is what the users have seen, was lost while this one was negotiating.
    PeerDiskLostNegotiating,
    /// The connection state implies a better disk than was asked for.
    DiskUpgraded,
    /// The connection state implies a better peer disk than was asked for.
    PeerDiskUpgraded,
}

impl Warning {
    /// Every warning, in the order of the rules.
    pub const ALL: [Self; 6] = [
        Self::VerifyAborted,
        Self::ResyncAborted,
        Self::ConnectionLostNegotiating,
        Self::PeerDiskLostNegotiating,
        Self::DiskUpgraded,
        Self::PeerDiskUpgraded,
    ];

    /// The log line.
    pub const fn text(self) -> &'static str {
        match self {
            Self::VerifyAborted => "Online-verify aborted.",
            Self::ResyncAborted => "Resync aborted.",
            Self::ConnectionLostNegotiating => "Connection lost while negotiating, no data!",
            Self::PeerDiskLostNegotiating => {
                "Peer disk lost while negotiating, not attaching older data!"
            }
            Self::DiskUpgraded => "Implicitly upgraded disk",
            Self::PeerDiskUpgraded => "Implicitly upgraded pdsk",
        }
    }

    const fn bit(self) -> u8 {
        1u8.wrapping_shl(self as u32)
    }
}

/// The warnings of one change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warnings(u8);

impl Warnings {
    /// No warning.
    pub const NONE: Self = Self(0);

    /// Whether there is nothing to say.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this warning is among them.
    pub const fn contains(self, warning: Warning) -> bool {
        self.0 & warning.bit() != 0
    }

    /// The warnings in the order of the rules.
    pub fn iter(self) -> impl Iterator<Item = Warning> {
        Warning::ALL
            .into_iter()
            .filter(move |&warning| self.contains(warning))
    }

    fn add(&mut self, warning: Warning) {
        self.0 |= warning.bit();
    }
}

/// What `wanted` has to become, coming from `old`.
///
/// The rules run in the order of the spec; each sees what those before it made.
pub fn sanitize(old: State, wanted: State, context: &Context) -> (State, Warnings) {
    let mut new = wanted;
    let mut warnings = Warnings::NONE;
    forget_lost_peer(&mut new);
    forget_pause_of_unconfigured(&mut new);
    abort_without_disks(&mut new, &mut warnings);
    settle_lost_negotiation(&mut new, context, &mut warnings);
    refuse_older_disk(old, &mut new, context, &mut warnings);
    trust_connected_disks(old, &mut new);
    clamp_disks(&mut new, &mut warnings);
    suspend(old, &mut new, context);
    pause_or_continue_resync(&mut new);
    (new, warnings)
}

fn forget_lost_peer(new: &mut State) {
    if new.conn >= ConnState::Connected {
        return;
    }
    new.peer_isp = false;
    new.peer = Role::Unknown;
    if new.pdsk > DiskState::DUnknown || new.pdsk < DiskState::Inconsistent {
        new.pdsk = DiskState::DUnknown;
    }
}

fn forget_pause_of_unconfigured(new: &mut State) {
    if new.is_unconfigured() {
        new.aftr_isp = false;
    }
}

fn abort_without_disks(new: &mut State, warnings: &mut Warnings) {
    let without = new.disk <= DiskState::Failed || new.pdsk <= DiskState::Failed;
    if new.conn <= ConnState::Connected || !without {
        return;
    }
    warnings.add(if new.conn.is_verify() {
        Warning::VerifyAborted
    } else {
        Warning::ResyncAborted
    });
    new.conn = ConnState::Connected;
}

fn settle_lost_negotiation(new: &mut State, context: &Context, warnings: &mut Warnings) {
    if new.conn >= ConnState::Connected || new.disk != DiskState::Negotiating {
        return;
    }
    if context.users_saw_disk {
        new.disk = context.negotiated_disk;
        new.pdsk = context.negotiated_pdsk;
    } else {
        warnings.add(Warning::ConnectionLostNegotiating);
        new.disk = DiskState::Diskless;
        new.pdsk = DiskState::DUnknown;
    }
}

/// A Primary that ran on its peer's disk gets no older one under its users. Where the peer loses
/// its disk while the own one is negotiating, no handshake compares the two. The C driver asks when
/// the attach begins, and no more.
fn refuse_older_disk(old: State, new: &mut State, context: &Context, warnings: &mut Warnings) {
    let settles = old.disk == DiskState::Negotiating && new.disk > DiskState::Negotiating;
    let is_alone = new.pdsk <= DiskState::Failed;
    if settles && is_alone && new.role.is_primary() && !context.users_saw_disk {
        warnings.add(Warning::PeerDiskLostNegotiating);
        new.disk = DiskState::Diskless;
    }
}

/// A disk that its node was not sure of is good where the nodes meet, or where it comes into use
/// while they are connected: the handshake has compared its generation, and where that is an old
/// one the next rule says so again.
///
/// Only then. A resync that ends early because the other disk fails leaves its target with the old
/// data that it had: that it is connected makes it no younger. The C driver does not ask where the
/// disk comes from, calls such a target UpToDate, and what the source wrote is lost. Neither does
/// it make it younger that this node agreed to its being given up, and that came to nothing.
fn trust_connected_disks(old: State, new: &mut State) {
    if new.conn < ConnState::Connected || new.conn >= ConnState::Ahead {
        return;
    }
    let meets = old.conn < ConnState::Connected;
    for (was, disk) in [(old.disk, &mut new.disk), (old.pdsk, &mut new.pdsk)] {
        let comes_into_use = was < DiskState::Inconsistent && was != DiskState::Failed;
        let is_new = meets || comes_into_use;
        if is_new && matches!(*disk, DiskState::Consistent | DiskState::Outdated) {
            *disk = DiskState::UpToDate;
        }
    }
}

/// The disk states, lowest and highest, that a connection state allows: first this node's, then the
/// peer's.
const fn allowed_disks(conn: ConnState) -> [(DiskState, DiskState); 2] {
    use ConnState as C;
    use DiskState as D;
    const ANY: (D, D) = (D::Diskless, D::UpToDate);
    const UP_TO_DATE: (D, D) = (D::UpToDate, D::UpToDate);
    const INCONSISTENT: (D, D) = (D::Inconsistent, D::Inconsistent);
    match conn {
        C::WFBitMapT | C::PausedSyncT | C::WFSyncUUID | C::Behind => {
            [(D::Inconsistent, D::Outdated), UP_TO_DATE]
        }
        // The admin gave the data up. Nothing else says so if the sync does not come about: the
        // generations are equal still.
        C::StartingSyncT => [INCONSISTENT, UP_TO_DATE],
        C::VerifyS | C::VerifyT => [UP_TO_DATE, UP_TO_DATE],
        C::Connected => [ANY, ANY],
        C::WFBitMapS | C::PausedSyncS | C::StartingSyncS | C::Ahead => {
            [UP_TO_DATE, (D::Inconsistent, D::Consistent)]
        }
        C::SyncTarget => [INCONSISTENT, UP_TO_DATE],
        C::SyncSource => [UP_TO_DATE, INCONSISTENT],
        C::StandAlone
        | C::Disconnecting
        | C::Unconnected
        | C::Timeout
        | C::BrokenPipe
        | C::NetworkFailure
        | C::ProtocolError
        | C::TearDown
        | C::WFConnection
        | C::WFReportParams => [ANY, (D::Inconsistent, D::DUnknown)],
    }
}

fn clamp_disks(new: &mut State, warnings: &mut Warnings) {
    let [(disk_min, disk_max), (pdsk_min, pdsk_max)] = allowed_disks(new.conn);
    if new.disk < disk_min {
        warnings.add(Warning::DiskUpgraded);
    }
    if new.pdsk < pdsk_min {
        warnings.add(Warning::PeerDiskUpgraded);
    }
    new.disk = new.disk.min(disk_max).max(disk_min);
    new.pdsk = new.pdsk.min(pdsk_max).max(pdsk_min);
}

/// Whether a Primary lost a peer that may still write.
fn needs_fencing(state: State) -> bool {
    state.role.is_primary() && state.conn < ConnState::Connected && state.pdsk > DiskState::Outdated
}

/// I/O is suspended where the reason appears, not while it lasts: the admin may have resumed it
/// meanwhile.
fn suspend(old: State, new: &mut State, context: &Context) {
    if context.fencing == Fencing::ResourceAndStonith && needs_fencing(*new) && !needs_fencing(old)
    {
        new.susp_fen = true;
    }
    if context.on_no_data == OnNoData::SuspendIo && new.lacks_data() && !old.lacks_data() {
        new.susp_nod = true;
    }
}

/// The last rule, so the disks of a resync that continues here are held to their range by the next
/// change only; peers do the same.
fn pause_or_continue_resync(new: &mut State) {
    new.conn = match (new.conn, new.is_resync_paused()) {
        (ConnState::SyncSource, true) => ConnState::PausedSyncS,
        (ConnState::SyncTarget, true) => ConnState::PausedSyncT,
        (ConnState::PausedSyncS, false) => ConnState::SyncSource,
        (ConnState::PausedSyncT, false) => ConnState::SyncTarget,
        (other, _) => other,
    };
}

#[cfg(test)]
mod tests;
