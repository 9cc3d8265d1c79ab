// SPDX-License-Identifier: GPL-2.0

//! Changes of several volumes together.

use super::super::policy::Fencing;
use super::*;
use ConnState as C;
use DiskState as D;

const PAIR: State = State {
    role: Role::Secondary,
    peer: Role::Secondary,
    conn: C::Connected,
    disk: D::UpToDate,
    pdsk: D::UpToDate,
    ..State::NEW
};
const SYNCING: State = State {
    conn: C::SyncSource,
    pdsk: D::Inconsistent,
    ..PAIR
};

fn volume(old: State) -> VolumeChange {
    VolumeChange::new(old, Context::NEW)
}

/// The wire is cut: the volume that is in sync has a reason to suspend I/O, the one whose peer's
/// disk is bad anyway has none.
#[test]
fn a_volume_without_a_reason_does_not_take_back_that_of_another() {
    let fencing = Context {
        fencing: Fencing::ResourceAndStonith,
        ..Context::NEW
    };
    let primary = |state| State {
        role: Role::Primary,
        ..state
    };
    let mut volumes = [PAIR, SYNCING].map(|state| VolumeChange::new(primary(state), fencing));
    let request = Change::conn(C::NetworkFailure);
    change_all(C::WFReportParams, &mut volumes, request, Flags::HARD).unwrap();
    assert!(volumes.iter().all(|volume| volume.new.susp_fen));
    // Who takes it back does so for all.
    let mut volumes = volumes.map(|volume| VolumeChange::new(volume.new, fencing));
    let request = Change::NONE.with_susp_fen(false);
    change_all(C::NetworkFailure, &mut volumes, request, Flags::HARD).unwrap();
    assert!(volumes.iter().all(|volume| !volume.new.susp_fen));
}

#[test]
fn all_volumes_disconnect_together() {
    let mut volumes = [volume(PAIR), volume(SYNCING)];
    let request = Change::conn(C::Disconnecting);
    let changed = change_all(C::WFReportParams, &mut volumes, request, Flags::SOFT);
    let expected = ConnectionChanged {
        cstate: C::Disconnecting,
        success: Success::Done,
    };
    assert_eq!(changed, Ok(expected));
    for volume in &volumes {
        assert_eq!(
            (volume.new.conn, volume.new.peer),
            (C::Disconnecting, Role::Unknown)
        );
    }
}

#[test]
fn one_volume_that_refuses_leaves_all_as_they_are() {
    let open = Context {
        open_count: 1,
        ..Context::NEW
    };
    let primary = State {
        role: Role::Primary,
        ..PAIR
    };
    let mut volumes = [volume(primary), VolumeChange::new(primary, open)];
    let before = volumes;
    let request = Change::role(Role::Secondary);
    let refused = change_all(C::WFReportParams, &mut volumes, request, Flags::SOFT);
    assert_eq!(refused, Err(StateError::DeviceInUse));
    assert_eq!(volumes, before);
}

#[test]
fn a_connection_without_volumes_changes_too() {
    let changed = change_all(
        C::StandAlone,
        &mut [],
        Change::conn(C::Unconnected),
        Flags::SOFT,
    );
    assert_eq!(changed.map(|changed| changed.cstate), Ok(C::Unconnected));
    let refused = change_all(
        C::StandAlone,
        &mut [],
        Change::conn(C::Disconnecting),
        Flags::HARD,
    );
    assert_eq!(refused, Err(StateError::AlreadyStandAlone));
}

#[test]
fn only_a_graceful_disconnect_asks_the_peer() {
    assert!(connection_needs_peer(
        C::WFReportParams,
        Change::conn(C::Disconnecting)
    ));
    assert!(!connection_needs_peer(
        C::WFConnection,
        Change::conn(C::Disconnecting)
    ));
    assert!(!connection_needs_peer(
        C::WFReportParams,
        Change::conn(C::NetworkFailure)
    ));
}

#[test]
fn the_extremes_are_taken_over_all_volumes() {
    let primary = State {
        role: Role::Primary,
        peer: Role::Unknown,
        ..SYNCING
    };
    let extremes = Aggregate::of([PAIR, primary]);
    assert_eq!(
        (extremes.highest_role, extremes.highest_peer),
        (Role::Primary, Role::Secondary)
    );
    assert_eq!(
        (extremes.highest_pdsk, extremes.lowest_pdsk),
        (D::UpToDate, D::Inconsistent)
    );
    assert_eq!(
        (extremes.highest_disk, extremes.lowest_disk),
        (D::UpToDate, D::UpToDate)
    );
    assert_eq!(extremes.lowest_conn, C::Connected);
}

#[test]
fn what_all_volumes_share_is_told_once() {
    use super::super::difference::Difference;
    use std::string::ToString;
    let mut volumes = [volume(PAIR), volume(SYNCING)];
    let request = Change::conn(C::NetworkFailure);
    assert!(change_all(C::WFReportParams, &mut volumes, request, Flags::HARD).is_ok());
    let fields = common_fields(&volumes);
    let [first, second] = volumes;
    let text = |volume: VolumeChange, fields| {
        Difference::in_fields(volume.old, volume.new, fields).to_string()
    };
    assert_eq!(text(first, fields), "peer( Secondary -> Unknown ) ");
    assert_eq!(
        text(first, fields.remaining()),
        "conn( Connected -> NetworkFailure ) pdsk( UpToDate -> DUnknown ) "
    );
    assert_eq!(
        text(second, fields.remaining()),
        "conn( SyncSource -> NetworkFailure ) "
    );
}

#[test]
fn the_connection_leaves_work_for_its_worker() {
    let outdated = Aggregate {
        highest_pdsk: D::Outdated,
        ..Aggregate::EMPTY
    };
    let start = connection_work(C::StandAlone, C::Unconnected, false, &outdated);
    assert_eq!(
        start,
        ConnectionWork {
            start_receiver: true,
            ..ConnectionWork::default()
        }
    );
    let end = connection_work(C::Disconnecting, C::StandAlone, true, &outdated);
    assert!(end.discard_configuration && end.finish_fencing);
    let unknown = Aggregate {
        highest_pdsk: D::DUnknown,
        ..Aggregate::EMPTY
    };
    assert!(!connection_work(C::Timeout, C::Unconnected, true, &unknown).finish_fencing);
}
