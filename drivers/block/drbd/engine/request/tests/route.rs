// SPDX-License-Identifier: GPL-2.0

//! Where requests go, and what disk errors do.

use crate::config::{OnIoError, OnNoData, ReadBalancing};
use crate::request::{
    lacks_data, may_admit, never_prefers_remote, on_disk_error, reads_here, route_flush,
    route_read, route_write, tells_out_of_sync, Admission, Copies, Destination, DiskError,
    DiskErrorActions, ReadInputs, Route, WriteRoute, Writer,
};
use crate::state::{ConnState, DiskState};
use crate::types::Sector;

fn copies(disk: DiskState, peer_disk: DiskState, conn: ConnState) -> Copies {
    Copies {
        disk,
        peer_disk,
        conn,
    }
}

fn go(local: bool, remote: bool, out_of_sync: bool) -> Route<WriteRoute> {
    Route::Go(WriteRoute {
        local,
        remote,
        out_of_sync,
        marks: local && !remote && !out_of_sync,
    })
}

const INPUTS: ReadInputs = ReadInputs {
    sector: Sector(0),
    is_clean: false,
    balancing: ReadBalancing::PreferLocal,
    local_pending: 0,
    remote_pending: 0,
    last_was_remote: false,
    failed_locally: false,
    failed_remotely: false,
};

#[test]
fn writes_go_where_a_copy_is() {
    use ConnState::{Ahead, Connected, SyncSource, SyncTarget, WFBitMapS, WFConnection};
    use DiskState::{DUnknown, Diskless, Inconsistent, Outdated, UpToDate};
    let table = [
        (copies(UpToDate, UpToDate, Connected), go(true, true, false)),
        (
            copies(UpToDate, DUnknown, WFConnection),
            go(true, false, false),
        ),
        (
            copies(UpToDate, Diskless, Connected),
            go(true, false, false),
        ),
        (
            copies(Diskless, UpToDate, Connected),
            go(false, true, false),
        ),
        (
            copies(UpToDate, Inconsistent, SyncSource),
            go(true, true, false),
        ),
        (
            copies(Inconsistent, UpToDate, SyncTarget),
            go(true, true, false),
        ),
        (copies(UpToDate, Inconsistent, Ahead), go(true, false, true)),
        (
            copies(UpToDate, Inconsistent, WFBitMapS),
            go(true, false, true),
        ),
        (copies(Outdated, DUnknown, WFConnection), Route::Fail),
        (copies(Inconsistent, Inconsistent, Connected), Route::Fail),
        (copies(Diskless, DUnknown, WFConnection), Route::Fail),
    ];
    for (copies, expected) in table {
        assert_eq!(
            route_write(copies, OnNoData::IoError),
            expected,
            "{copies:?}"
        );
    }
    let nothing = copies(Diskless, DUnknown, WFConnection);
    assert_eq!(route_write(nothing, OnNoData::SuspendIo), Route::Suspend);
    let ahead = copies(UpToDate, Inconsistent, Ahead);
    assert_eq!(
        route_flush(ahead, true, OnNoData::IoError),
        Route::Go(WriteRoute {
            local: true,
            remote: false,
            out_of_sync: false,
            marks: false,
        })
    );
}

#[test]
fn a_flush_is_made_by_a_good_disk() {
    use ConnState::{Connected, SyncSource, SyncTarget, WFConnection};
    use DiskState::{DUnknown, Diskless, Inconsistent, UpToDate};
    let go = |local, remote| {
        Route::Go(WriteRoute {
            local,
            remote,
            out_of_sync: false,
            marks: false,
        })
    };
    let table = [
        (copies(UpToDate, UpToDate, Connected), true, go(true, true)),
        (
            copies(UpToDate, UpToDate, Connected),
            false,
            go(false, true),
        ),
        (
            copies(Diskless, UpToDate, Connected),
            false,
            go(false, true),
        ),
        (
            copies(Inconsistent, UpToDate, SyncTarget),
            true,
            go(false, true),
        ),
        (
            copies(UpToDate, Inconsistent, SyncSource),
            true,
            go(true, true),
        ),
        (
            copies(UpToDate, Inconsistent, SyncSource),
            false,
            Route::Fail,
        ),
        (copies(UpToDate, DUnknown, WFConnection), false, Route::Fail),
        (
            copies(Diskless, DUnknown, WFConnection),
            false,
            Route::Suspend,
        ),
    ];
    for (copies, disk_flushes, expected) in table {
        assert_eq!(
            route_flush(copies, disk_flushes, OnNoData::SuspendIo),
            expected,
            "{copies:?}"
        );
    }
}

#[test]
fn reads_are_served_by_a_copy_that_has_current_data() {
    use DiskState::{Inconsistent, Outdated, UpToDate};
    let read = |disk, peer, inputs: &ReadInputs| {
        route_read(
            copies(disk, peer, ConnState::Connected),
            inputs,
            OnNoData::IoError,
        )
    };
    let clean = ReadInputs {
        is_clean: true,
        ..INPUTS
    };
    let local = Route::Go(Destination::Local);
    let remote = Route::Go(Destination::Remote);
    assert_eq!(read(UpToDate, Inconsistent, &INPUTS), local);
    assert_eq!(read(Inconsistent, UpToDate, &INPUTS), remote);
    assert_eq!(read(Inconsistent, UpToDate, &clean), local);
    assert_eq!(read(Outdated, Outdated, &clean), Route::Fail);
    let failed = ReadInputs {
        failed_locally: true,
        ..INPUTS
    };
    assert_eq!(read(UpToDate, UpToDate, &failed), remote);
    let failed_twice = ReadInputs {
        failed_remotely: true,
        ..failed
    };
    assert_eq!(read(UpToDate, UpToDate, &failed_twice), Route::Fail);
}

#[test]
fn read_balancing_follows_its_policy() {
    let both = copies(
        DiskState::UpToDate,
        DiskState::UpToDate,
        ConnState::Connected,
    );
    let destination = |inputs: ReadInputs| route_read(both, &inputs, OnNoData::IoError);
    let with = |balancing, sector| ReadInputs {
        balancing,
        sector: Sector(sector),
        ..INPUTS
    };
    let remote = Route::Go(Destination::Remote);
    assert_eq!(destination(with(ReadBalancing::PreferRemote, 0)), remote);
    assert_eq!(destination(with(ReadBalancing::RoundRobin, 0)), remote);
    assert_ne!(
        destination(with(ReadBalancing::WhenCongestedRemote, 0)),
        remote
    );
    for (policy, sectors) in [
        (ReadBalancing::Striping32K, 64),
        (ReadBalancing::Striping1M, 2048),
    ] {
        assert_ne!(destination(with(policy, sectors - 1)), remote);
        assert_eq!(destination(with(policy, sectors)), remote);
        assert_ne!(destination(with(policy, 2 * sectors)), remote);
    }
    let busy = ReadInputs {
        local_pending: 2,
        ..with(ReadBalancing::LeastPending, 0)
    };
    assert_eq!(destination(busy), remote);
    assert_ne!(
        destination(ReadInputs {
            remote_pending: 2,
            ..busy
        }),
        remote
    );
}

#[test]
fn what_is_read_here_at_once_is_routed_here_all_the_same() {
    let number = 0..9 * 9 * 11 * 64;
    let mut here = 0;
    for number in number {
        let bit = |place: u32| (number >> place) & 1 == 1;
        let disk = |digit: u32| DiskState::from_bits((digit % 9) as u8).unwrap();
        let inputs = ReadInputs {
            sector: Sector(if bit(0) { u64::MAX } else { 0 }),
            is_clean: bit(1),
            balancing: ReadBalancing::from_number(number / 64 % 11).unwrap(),
            local_pending: if bit(2) { 9 } else { 0 },
            last_was_remote: bit(3),
            failed_locally: bit(4),
            failed_remotely: bit(5),
            ..INPUTS
        };
        let of = copies(
            disk(number / 704),
            disk(number / 6336),
            ConnState::Connected,
        );
        let stays_local = never_prefers_remote(inputs.balancing);
        if reads_here(of, stays_local, inputs.failed_locally) {
            here += 1;
            let route = route_read(of, &inputs, OnNoData::SuspendIo);
            assert_eq!(route, Route::Go(Destination::Local), "{of:?} {inputs:?}");
        }
    }
    assert!(here > 0);
}

#[test]
fn a_bio_waits_while_the_state_is_in_between() {
    let stable = Admission {
        copies: copies(
            DiskState::UpToDate,
            DiskState::UpToDate,
            ConnState::Connected,
        ),
        suspended: false,
        held_back: false,
        bitmap_io: false,
        protocol_version: 101,
        bios: 8,
        max_bios: 8,
    };
    assert!(may_admit(&stable));
    let conn = |conn| Copies {
        conn,
        ..stable.copies
    };
    let bitmaps = Admission {
        copies: conn(ConnState::WFBitMapS),
        ..stable
    };
    assert!(may_admit(&bitmaps));
    let refused = [
        Admission {
            suspended: true,
            ..stable
        },
        Admission {
            held_back: true,
            ..stable
        },
        Admission {
            bitmap_io: true,
            ..stable
        },
        Admission { bios: 9, ..stable },
        Admission {
            protocol_version: 95,
            ..bitmaps
        },
        Admission {
            copies: conn(ConnState::WFBitMapT),
            ..stable
        },
        Admission {
            copies: Copies {
                disk: DiskState::Attaching,
                ..stable.copies
            },
            ..stable
        },
    ];
    for inputs in refused {
        assert!(!may_admit(&inputs), "{inputs:?}");
    }
}

#[test]
fn disk_errors_follow_the_policy_and_metadata_always_detaches() {
    use DiskState::{DUnknown, Failed, Inconsistent, UpToDate};
    let judge = |policy, error, disk| on_disk_error(policy, error, disk, UpToDate, false);
    let passed = judge(OnIoError::PassOn, DiskError::Read, UpToDate);
    let expected = DiskErrorActions {
        new_disk: Some(Inconsistent),
        ..DiskErrorActions::default()
    };
    assert_eq!(passed, expected);
    for peer_disk in [DUnknown, Inconsistent] {
        let (policy, error) = (OnIoError::PassOn, DiskError::Write);
        let best = on_disk_error(policy, error, UpToDate, peer_disk, false);
        assert_eq!(best, DiskErrorActions::default());
        let lacking = on_disk_error(policy, error, UpToDate, peer_disk, true);
        assert_eq!(lacking.new_disk, Some(DiskState::Outdated));
    }
    let again = judge(OnIoError::PassOn, DiskError::Write, Inconsistent);
    assert_eq!(again, DiskErrorActions::default());
    let metadata = judge(OnIoError::PassOn, DiskError::Metadata, UpToDate);
    assert_eq!(
        (metadata.new_disk, metadata.was_read_error),
        (Some(Failed), false)
    );
    let read = judge(OnIoError::Detach, DiskError::Read, UpToDate);
    assert!(read.was_read_error && !read.call_helper);
    let helper = judge(OnIoError::CallLocalIoError, DiskError::Write, UpToDate);
    assert!(helper.call_helper && helper.new_disk == Some(Failed));
    let forced = judge(OnIoError::PassOn, DiskError::ForcedDetach, UpToDate);
    assert!(forced.abort_local_io && forced.new_disk == Some(Failed));
    let late = judge(OnIoError::Detach, DiskError::Write, Failed);
    assert_eq!(late.new_disk, None);
}

#[test]
fn a_disk_lacks_what_another_took() {
    use DiskState::{DUnknown, Diskless, Inconsistent, UpToDate};
    let own = |acked, peer_disk| lacks_data(Writer::Own { acked }, peer_disk);
    assert!(own(false, UpToDate) && own(true, DUnknown));
    assert!(!own(false, DUnknown) && !own(true, Inconsistent));
    assert!(lacks_data(Writer::Peer, DUnknown) && lacks_data(Writer::Peer, UpToDate));
    assert!(!lacks_data(Writer::Peer, Diskless));
}

#[test]
fn the_peer_is_told_what_is_out_of_sync_unless_it_knows() {
    assert!(tells_out_of_sync(1, false) && tells_out_of_sync(1, true));
    assert!(!tells_out_of_sync(0, false));
    assert!(tells_out_of_sync(0, true));
}
