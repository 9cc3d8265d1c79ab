// SPDX-License-Identifier: GPL-2.0

//! Which change entails what, at once and later.

use super::super::connection::Aggregate;
use super::super::policy::Fencing;
use super::super::values::{ConnState as C, DiskState as D, Role};
use super::super::word::State;
use super::*;
use crate::config::Protocol;
use std::vec::Vec;

const PAIR: State = State {
    role: Role::Secondary,
    peer: Role::Secondary,
    conn: C::Connected,
    disk: D::UpToDate,
    pdsk: D::UpToDate,
    ..State::NEW
};
const PRIMARY: State = State {
    role: Role::Primary,
    ..PAIR
};
const LOST: State = State {
    peer: Role::Unknown,
    conn: C::NetworkFailure,
    pdsk: D::DUnknown,
    ..PRIMARY
};

fn at(conn: C) -> State {
    State { conn, ..PAIR }
}

fn now(old: State, new: State, effect: Immediate) -> bool {
    effects_now(old, new, false).contains(effect)
}

fn context(present: State) -> AfterContext {
    AfterContext {
        apv: 101,
        present,
        volumes: Aggregate::of([present]),
        is_attached: true,
        bitmap_uuid_is_zero: true,
        was_io_error: false,
        calls_local_io_error: false,
        resync_after_negotiation: false,
    }
}

fn after(old: State, new: State, effect: Deferred) -> bool {
    effects_after(old, new, &context(new)).contains(effect)
}

// Seed 8320 of the simulator.
#[test]
fn the_bitmap_of_a_disk_that_was_away_is_asked_after_the_exchange() {
    let disk = |conn, disk| State { conn, disk, ..PAIR };
    let negotiates = disk(C::Connected, D::Negotiating);
    let attaches = (disk(C::Connected, D::Attaching), negotiates);
    assert!(now(attaches.0, attaches.1, Immediate::DistrustBitmap));
    let waits = disk(C::WFBitMapT, D::Inconsistent);
    assert!(!now(negotiates, waits, Immediate::TrustBitmap));
    let lost = disk(C::NetworkFailure, D::Inconsistent);
    assert!(!now(waits, lost, Immediate::TrustBitmap));
    let exchanged = disk(C::WFSyncUUID, D::Inconsistent);
    assert!(now(waits, exchanged, Immediate::TrustBitmap));
    assert!(now(negotiates, PAIR, Immediate::TrustBitmap));
}

// Seed 1309 of the simulator with failing disks and two volumes.
#[test]
fn the_bitmap_of_a_target_is_asked_after_the_exchange() {
    let target = |conn| State {
        disk: D::Inconsistent,
        ..at(conn)
    };
    let meets = target(C::WFReportParams);
    assert!(now(meets, target(C::WFBitMapT), Immediate::DistrustBitmap));
    let lost = target(C::NetworkFailure);
    assert!(!now(target(C::WFBitMapT), lost, Immediate::TrustBitmap));
    for full_sync in [C::StartingSyncT, C::WFReportParams] {
        let begins = (target(full_sync), target(C::SyncTarget));
        assert!(now(begins.0, begins.1, Immediate::TrustBitmap));
        assert!(!now(begins.1, lost, Immediate::DistrustBitmap));
    }
}

#[test]
fn nothing_follows_from_nothing() {
    assert!(effects_now(PAIR, PAIR, false).is_empty());
}

#[test]
fn effects_come_in_the_order_of_their_declaration() {
    let order: Vec<Immediate> = effects_now(PAIR, LOST, false).iter().collect();
    assert!(order.is_sorted());
    assert_eq!(order.last(), Some(&Immediate::QueueDeferred));
    let order: Vec<Deferred> = effects_after(PRIMARY, LOST, &context(LOST))
        .iter()
        .collect();
    assert_eq!(
        order,
        [
            Deferred::Notify,
            Deferred::BroadcastEvent,
            Deferred::NewCurrentUuid,
            Deferred::SyncMetadata
        ]
    );
}

#[test]
fn each_immediate_effect_has_its_change() {
    use Immediate as I;
    let inconsistent = State {
        disk: D::Inconsistent,
        pdsk: D::Inconsistent,
        ..PAIR
    };
    let attaching = State {
        disk: D::Attaching,
        ..PAIR
    };
    let without_disk = State {
        disk: D::Failed,
        ..PRIMARY
    };
    let table = [
        (PAIR, at(C::SyncSource), I::ClearResyncDone),
        (PRIMARY, LOST, I::CloseEpoch),
        (attaching, PAIR, I::LogAttachedUuids),
        (attaching, PAIR, I::DistrustBitmap),
        (at(C::WFBitMapT), at(C::WFSyncUUID), I::TrustBitmap),
        (at(C::WFReportParams), PAIR, I::ClearStateSent),
        (PAIR, PRIMARY, I::WakeWaiters),
        (at(C::VerifyS), PAIR, I::RememberVerifyStart),
        (at(C::PausedSyncS), at(C::SyncSource), I::AccountPause),
        (at(C::PausedSyncT), at(C::SyncTarget), I::KickResyncTimer),
        (at(C::SyncTarget), at(C::PausedSyncT), I::StampPause),
        (PAIR, at(C::VerifyT), I::BeginVerify),
        (PAIR, at(C::VerifyS), I::StartVerifyTimer),
        (PAIR, PRIMARY, I::UpdateMetadataFlags),
        (inconsistent, PAIR, I::ExposeCurrentUuid),
        (PRIMARY, without_disk, I::UsersSeePeer),
        (without_disk, PRIMARY, I::UsersSeeDisk),
        (PRIMARY, PAIR, I::NoUsers),
        (inconsistent, PAIR, I::DoubtUnflushed),
        (at(C::SyncSource), PAIR, I::PeerSynced),
        (
            inconsistent,
            State {
                peer: Role::Primary,
                ..inconsistent
            },
            I::ConsiderResync,
        ),
        (PAIR, at(C::Disconnecting), I::StopReceiver),
        (at(C::Disconnecting), at(C::StandAlone), I::StopReceiver),
        (PAIR, at(C::Timeout), I::RestartReceiver),
        (at(C::WFReportParams), PAIR, I::ResumeActivityLog),
        (at(C::WFReportParams), at(C::WFBitMapS), I::CountConnect),
        (attaching, PAIR, I::RecordReattach),
        (PAIR, PRIMARY, I::QueueDeferred),
    ];
    for (old, new, effect) in table {
        assert!(now(old, new, effect), "{effect:?}");
        assert_eq!(effects_now(new, new, false), ImmediateEffects::NONE);
    }
    let covered = |effect: &Immediate| table.iter().any(|(_, _, told)| told == effect);
    assert!(Immediate::ALL.iter().all(covered));
}

#[test]
fn immediate_effects_do_not_come_unasked() {
    use Immediate as I;
    assert!(!now(
        at(C::PausedSyncS),
        at(C::SyncSource),
        I::KickResyncTimer
    ));
    assert!(!now(PAIR, at(C::VerifyT), I::StartVerifyTimer));
    assert!(!now(
        at(C::Unconnected),
        at(C::WFConnection),
        I::RestartReceiver
    ));
    assert!(!effects_now(at(C::WFReportParams), PAIR, true).contains(I::ClearStateSent));
    assert!(!now(PAIR, PRIMARY, I::CloseEpoch));
    let diskless = State {
        disk: D::Diskless,
        ..PAIR
    };
    assert!(!now(PAIR, diskless, I::UpdateMetadataFlags));
    let failed = State {
        disk: D::Failed,
        ..PAIR
    };
    assert!(!now(PAIR, failed, I::UpdateMetadataFlags));
}

#[test]
fn each_deferred_effect_has_its_change() {
    use Deferred as E;
    let syncing = State {
        conn: C::SyncTarget,
        disk: D::Inconsistent,
        ..PAIR
    };
    let diskless_peer = State {
        pdsk: D::Diskless,
        ..PAIR
    };
    // Seeds 65 and 407 of the simulator.
    let attaching_peer = State {
        pdsk: D::Attaching,
        ..PAIR
    };
    let peer_primary = State {
        peer: Role::Primary,
        ..diskless_peer
    };
    let failed = State {
        disk: D::Failed,
        ..PAIR
    };
    let diskless = State {
        disk: D::Diskless,
        ..PAIR
    };
    let table = [
        (PAIR, PRIMARY, E::Notify),
        (PAIR, PRIMARY, E::BroadcastEvent),
        (PAIR, PRIMARY, E::SyncMetadata),
        (syncing, PAIR, E::ClearCrashedPrimary),
        (
            PRIMARY,
            State {
                disk: D::Failed,
                pdsk: D::Outdated,
                ..PRIMARY
            },
            E::HelperPriOnInconDegr,
        ),
        (
            at(C::WFReportParams),
            State {
                susp_nod: true,
                ..PAIR
            },
            E::ResendForNoData,
        ),
        (
            State {
                disk: D::Attaching,
                ..PAIR
            },
            State {
                susp_nod: true,
                ..PAIR
            },
            E::RestartDiskIoForNoData,
        ),
        (
            PAIR,
            State {
                susp_fen: true,
                ..PAIR
            },
            E::ResendForFencing,
        ),
        (
            at(C::WFReportParams),
            State { susp: true, ..PAIR },
            E::ResendForAdmin,
        ),
        (at(C::WFBitMapS), at(C::SyncSource), E::SendSyncUuid),
        (diskless_peer, PAIR, E::GreetPeerDisk),
        (attaching_peer, PAIR, E::GreetPeerDisk),
        (PAIR, at(C::WFBitMapS), E::SendBitmap),
        (
            PRIMARY,
            State {
                susp_fen: true,
                ..LOST
            },
            E::RememberNewCurrentUuid,
        ),
        (PRIMARY, LOST, E::NewCurrentUuid),
        (
            State {
                peer: Role::Primary,
                susp: true,
                ..PAIR
            },
            State {
                peer: Role::Primary,
                pdsk: D::Failed,
                susp: true,
                ..PAIR
            },
            E::NewCurrentUuid,
        ),
        (diskless_peer, peer_primary, E::NewCurrentUuid),
        (peer_primary, diskless_peer, E::WriteBitmapForPeerDemotion),
        (PRIMARY, PAIR, E::WriteBitmapForDemotion),
        (
            State {
                disk: D::Attaching,
                ..PAIR
            },
            State {
                disk: D::Negotiating,
                ..PAIR
            },
            E::SendDisk,
        ),
        (
            PAIR,
            State {
                user_isp: true,
                ..PAIR
            },
            E::SendStateForPause,
        ),
        (
            PAIR,
            State {
                peer_isp: true,
                ..PAIR
            },
            E::SuspendDependents,
        ),
        (at(C::WFReportParams), PAIR, E::SendStateForHandshake),
        (PAIR, at(C::Ahead), E::SendStateForAhead),
        (PAIR, at(C::StartingSyncT), E::StartFullSyncAsTarget),
        (PAIR, at(C::StartingSyncS), E::StartFullSyncAsSource),
        (PAIR, failed, E::ReleaseFailedDisk),
        (failed, diskless, E::ReleaseDisk),
        (
            PAIR,
            State {
                disk: D::Inconsistent,
                ..PAIR
            },
            E::SendStateForInconsistent,
        ),
        (
            State {
                peer_isp: true,
                ..PAIR
            },
            PAIR,
            E::ResumeDependents,
        ),
        (syncing, PAIR, E::ResumeDependents),
        (syncing, PAIR, E::SendStateForResyncEnd),
        (at(C::VerifyS), PAIR, E::SendStateForVerifyEnd),
        (syncing, PAIR, E::WriteChangedBitmap),
        (
            State {
                aftr_isp: true,
                ..State::NEW
            },
            State::NEW,
            E::ResumeDependentsOfUnconfigured,
        ),
    ];
    for (old, new, effect) in table {
        assert!(after(old, new, effect), "{effect:?}");
    }
    let by_flag = [
        E::HelperLocalIoError,
        E::ResyncNewStorage,
        E::ForgetNewStorage,
    ];
    let covered = |effect: &Deferred| {
        by_flag.contains(effect) || table.iter().any(|(_, _, told)| told == effect)
    };
    assert!(Deferred::ALL.iter().all(covered));
}

#[test]
fn deferred_effects_depend_on_the_facts_of_the_moment() {
    use Deferred as E;
    let old_apv = AfterContext {
        apv: 95,
        ..context(at(C::SyncSource))
    };
    let effects = effects_after(at(C::WFBitMapS), at(C::SyncSource), &old_apv);
    assert!(!effects.contains(E::SendSyncUuid));
    let no_stop = AfterContext {
        apv: 100,
        ..context(PAIR)
    };
    assert!(!effects_after(at(C::VerifyS), PAIR, &no_stop).contains(E::SendStateForVerifyEnd));
    let known = AfterContext {
        bitmap_uuid_is_zero: false,
        ..context(LOST)
    };
    assert!(!effects_after(PRIMARY, LOST, &known).contains(E::NewCurrentUuid));
    let moved_on = context(LOST);
    assert!(!effects_after(PAIR, at(C::WFBitMapS), &moved_on).contains(E::SendBitmap));
    let failed = State {
        disk: D::Failed,
        ..PAIR
    };
    let error = AfterContext {
        was_io_error: true,
        calls_local_io_error: true,
        ..context(failed)
    };
    assert!(effects_after(PAIR, failed, &error).contains(E::HelperLocalIoError));
    assert!(!after(PAIR, failed, E::HelperLocalIoError));
    let grown = AfterContext {
        resync_after_negotiation: true,
        ..context(PAIR)
    };
    assert!(effects_after(at(C::WFReportParams), PAIR, &grown).contains(E::ResyncNewStorage));
    assert!(!after(at(C::WFReportParams), PAIR, E::ResyncNewStorage));
    let synced = effects_after(at(C::WFReportParams), at(C::WFBitMapS), &grown);
    assert!(synced.contains(E::ForgetNewStorage) && !synced.contains(E::ResyncNewStorage));
}

/// The peer is back without its disk while fencing held I/O back: what is written from now on it
/// lacks, and I/O goes on by the same change.
#[test]
fn a_generation_begins_before_io_goes_on_without_the_peers_data() {
    let away = State {
        conn: C::WFReportParams,
        pdsk: D::DUnknown,
        susp_fen: true,
        ..PRIMARY
    };
    let without = State {
        conn: C::Connected,
        pdsk: D::Diskless,
        ..away
    };
    let effects = effects_after(away, without, &context(without));
    let order: Vec<Deferred> = effects.iter().collect();
    let place = |effect| order.iter().position(|told| *told == effect);
    assert!(place(Deferred::NewCurrentUuid) < place(Deferred::ResendForFencing));
    assert!(place(Deferred::NewCurrentUuid).is_some());
    assert!(!effects.contains(Deferred::RememberNewCurrentUuid));
    let also_by_admin = State {
        susp: true,
        ..without
    };
    let effects = effects_after(away, also_by_admin, &context(also_by_admin));
    assert!(effects.contains(Deferred::RememberNewCurrentUuid));
}

#[test]
fn a_generation_begins_where_io_goes_on_alone() {
    let diskless_peer = State {
        pdsk: D::Diskless,
        ..PRIMARY
    };
    assert!(begins_when_io_goes_on(LOST, false) && begins_when_io_goes_on(LOST, true));
    assert!(begins_when_io_goes_on(diskless_peer, false));
    assert!(!begins_when_io_goes_on(PRIMARY, true) && !begins_when_io_goes_on(PRIMARY, false));
    let secondary = State {
        role: Role::Secondary,
        ..LOST
    };
    assert!(!begins_when_io_goes_on(secondary, false));
    assert!(begins_when_io_goes_on(secondary, true));
}

#[test]
fn blocks_that_differ_when_io_is_frozen_are_of_a_generation_of_their_own() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let begins = |state, is_zero, set_bits| {
            begins_while_suspended(state, protocol, Fencing::DontCare, is_zero, set_bits)
        };
        assert!(begins(PRIMARY, true, 1));
        assert!(!begins(PRIMARY, true, 0) && !begins(PRIMARY, false, 1));
        assert!(!begins(PAIR, true, 1));
        let fenced = Fencing::ResourceAndStonith;
        let begins = begins_while_suspended(PRIMARY, protocol, fenced, true, 1);
        assert_eq!(begins, protocol == Protocol::A);
    }
}

#[test]
fn a_peer_that_was_restarted_is_known_as_such_by_fencing_alone() {
    assert!(restart_is_seen(Fencing::ResourceOnly, true));
    assert!(!restart_is_seen(Fencing::ResourceOnly, false));
    assert!(!restart_is_seen(Fencing::DontCare, true));
}

#[test]
fn a_secondary_that_loses_its_peer_keeps_its_generation() {
    let lost = State {
        role: Role::Secondary,
        ..LOST
    };
    assert!(!after(PAIR, lost, Deferred::NewCurrentUuid));
    assert!(!after(PAIR, lost, Deferred::RememberNewCurrentUuid));
}

/// What a good disk has beside a peer that need not have flushed it.
#[test]
fn a_peer_is_synced_from_a_disk_that_was_good_all_the_time() {
    use Immediate as I;
    let synced = |old: State, new: State| now(old, new, I::PeerSynced);
    let source = at(C::SyncSource);
    let outdated = State {
        pdsk: D::Inconsistent,
        ..PAIR
    };
    assert!(!synced(source, outdated));
    assert!(!synced(at(C::SyncTarget), PAIR));
    assert!(!synced(at(C::WFReportParams), PAIR));
    assert!(!synced(source, LOST));
    let failed = State {
        disk: D::Failed,
        ..PAIR
    };
    assert!(!synced(source, failed));
    assert!(!now(source, PAIR, I::DoubtUnflushed));
    let target = State {
        disk: D::Inconsistent,
        ..at(C::SyncTarget)
    };
    assert!(now(target, PAIR, I::DoubtUnflushed));
    assert!(!now(target, PAIR, I::PeerSynced));
}
