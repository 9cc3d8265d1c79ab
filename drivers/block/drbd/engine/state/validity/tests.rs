// SPDX-License-Identifier: GPL-2.0

//! Every validity rule: a state that breaks it, and the nearest one that does not.

use super::*;
use ConnState as C;
use DiskState as D;
use StateError as E;

const OK: Context = Context {
    has_verify_alg: true,
    apv: 101,
    ..Context::NEW
};

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
const ALONE: State = State {
    role: Role::Primary,
    peer: Role::Unknown,
    conn: C::WFConnection,
    pdsk: D::DUnknown,
    ..PAIR
};

fn refused(state: State, context: &Context, error: StateError) {
    assert_eq!(is_valid_soft(state, context), Err(error), "{state:?}");
}

fn allowed(state: State, context: &Context) {
    assert_eq!(is_valid_soft(state, context), Ok(()), "{state:?}");
}

#[test]
fn two_primaries_need_the_configuration() {
    let both = State {
        peer: Role::Primary,
        ..PRIMARY
    };
    refused(both, &OK, E::TwoPrimaries);
    let two = Context {
        two_primaries: true,
        ..OK
    };
    allowed(both, &two);
    let other = Context {
        highest_peer_role: Role::Primary,
        ..OK
    };
    refused(PRIMARY, &other, E::OtherVolumePeerPrimary);
    allowed(
        PRIMARY,
        &Context {
            two_primaries: true,
            ..other
        },
    );
    allowed(PAIR, &other);
}

#[test]
fn a_secondary_has_no_users() {
    let open = Context {
        open_count: 1,
        ..OK
    };
    refused(PAIR, &open, E::DeviceInUse);
    allowed(PRIMARY, &open);
}

#[test]
fn a_primary_alone_needs_the_newest_data() {
    allowed(ALONE, &OK);
    for disk in [D::Diskless, D::Inconsistent, D::Outdated, D::Consistent] {
        refused(State { disk, ..ALONE }, &OK, E::NoUpToDateDisk);
    }
}

#[test]
fn fencing_wants_the_lost_peer_outdated() {
    for fencing in [Fencing::ResourceOnly, Fencing::ResourceAndStonith] {
        let context = Context { fencing, ..OK };
        refused(ALONE, &context, E::PrimaryNop);
        allowed(
            State {
                pdsk: D::Outdated,
                ..ALONE
            },
            &context,
        );
        allowed(
            State {
                role: Role::Secondary,
                ..ALONE
            },
            &context,
        );
    }
}

#[test]
fn a_primary_needs_data_somewhere() {
    for (disk, pdsk) in [(D::Inconsistent, D::Inconsistent), (D::Diskless, D::Failed)] {
        refused(
            State {
                disk,
                pdsk,
                ..PRIMARY
            },
            &OK,
            E::NoUpToDateDisk,
        );
        allowed(State { disk, pdsk, ..PAIR }, &OK);
    }
    refused(
        State {
            disk: D::Inconsistent,
            pdsk: D::Consistent,
            ..PRIMARY
        },
        &OK,
        E::NoUpToDateDisk,
    );
    allowed(
        State {
            disk: D::Diskless,
            ..PRIMARY
        },
        &OK,
    );
}

#[test]
fn a_resync_needs_both_disks() {
    let source = State {
        conn: C::SyncSource,
        pdsk: D::Inconsistent,
        ..PAIR
    };
    allowed(source, &OK);
    refused(
        State {
            disk: D::Failed,
            ..source
        },
        &OK,
        E::NoLocalDisk,
    );
    refused(
        State {
            pdsk: D::Failed,
            ..source
        },
        &OK,
        E::NoRemoteDisk,
    );
    refused(
        State {
            disk: D::Inconsistent,
            ..source
        },
        &OK,
        E::NoUpToDateDisk,
    );
}

#[test]
fn a_replicating_disk_is_not_outdated() {
    for conn in [C::Connected, C::WFBitMapS, C::SyncSource, C::PausedSyncS] {
        refused(
            State {
                conn,
                disk: D::Outdated,
                ..PAIR
            },
            &OK,
            E::ConnectedOutdates,
        );
    }
    allowed(
        State {
            conn: C::Behind,
            disk: D::Outdated,
            ..PAIR
        },
        &OK,
    );
}

#[test]
fn a_verify_needs_an_algorithm_and_a_protocol() {
    for conn in [C::VerifyS, C::VerifyT] {
        let verify = State { conn, ..PAIR };
        allowed(verify, &OK);
        refused(
            verify,
            &Context {
                has_verify_alg: false,
                ..OK
            },
            E::NoVerifyAlg,
        );
        refused(verify, &Context { apv: 87, ..OK }, E::NotSupported);
        allowed(verify, &Context { apv: 88, ..OK });
    }
}

#[test]
fn a_connected_peers_disk_is_known() {
    for conn in [C::StartingSyncS, C::StartingSyncT] {
        refused(
            State {
                conn,
                pdsk: D::DUnknown,
                ..PAIR
            },
            &OK,
            E::NeedConnection,
        );
    }
    refused(
        State {
            pdsk: D::DUnknown,
            ..PAIR
        },
        &OK,
        E::ConnectedOutdates,
    );
    allowed(
        State {
            conn: C::WFConnection,
            pdsk: D::DUnknown,
            ..PAIR
        },
        &OK,
    );
}

#[test]
fn the_first_broken_rule_answers() {
    let both = State {
        peer: Role::Primary,
        disk: D::Diskless,
        pdsk: D::Diskless,
        ..PRIMARY
    };
    refused(both, &OK, E::TwoPrimaries);
}
