// SPDX-License-Identifier: GPL-2.0

//! The lines of a minor against recordings of the C driver.

use std::string::ToString;

use super::super::progress::{Position, Rate};
use super::super::version::VersionText;
use super::*;
use crate::state::{ConnState, DiskState, Role};

const PAIR: State = State {
    role: Role::Secondary,
    peer: Role::Secondary,
    conn: ConnState::Connected,
    disk: DiskState::UpToDate,
    pdsk: DiskState::UpToDate,
    ..State::NEW
};

/// What the C driver counted after a walk through everything under protocol C.
const RECORDED: Counters = Counters {
    sent_sectors: 144,
    received_sectors: 16,
    written_sectors: 4872,
    read_sectors: 32840,
    activity_log_writes: 11,
    bitmap_writes: 0,
    local_count: 0,
    pending: 0,
    unacknowledged: 0,
    application_requests: 0,
    epochs: 1,
    out_of_sync_bits: 0,
};

const PLAIN: Details = Details {
    caches: None,
    blocked_on_activity_log: None,
    slow_answers: None,
};

const MINOR: MinorText<'static> = MinorText {
    minor: Minor(2),
    previous: None,
    state: PAIR,
    protocol: Some('C'),
    congestion: None,
    is_activity_log_suspended: false,
    counters: &RECORDED,
    write_ordering: WriteOrdering::Flush,
    progress: None,
    details: &PLAIN,
};

fn first_line(text: &MinorText<'_>) -> std::string::String {
    text.to_string()
        .lines()
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .into()
}

#[test]
fn the_whole_file_is_that_of_the_c_driver() {
    let head = VersionText {
        srcversion: Some("B8171AFD2767BFC7E2C05FE"),
    };
    assert_eq!(
        std::format!("{head}{MINOR}"),
        "version: 8.4.11 (api:1/proto:86-101)\n\
         srcversion: B8171AFD2767BFC7E2C05FE \n\
         \n \
         2: cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate C r-----\n    \
         ns:72 nr:8 dw:2436 dr:16420 al:11 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    );
}

#[test]
fn a_minor_without_disk_and_peer_is_unconfigured() {
    let text = MinorText {
        state: State::NEW,
        previous: Some(Minor(1)),
        ..MINOR
    };
    assert_eq!(text.to_string(), " 2: cs:Unconfigured\n");
}

#[test]
fn a_hole_in_the_minors_is_an_empty_line() {
    let table = [
        (None, 0, false),
        (None, 2, true),
        (Some(0), 1, false),
        (Some(0), 2, true),
        (Some(u32::MAX), 0, true),
    ];
    for (previous, minor, blank) in table {
        let text = MinorText {
            minor: Minor(minor),
            previous: previous.map(Minor),
            ..MINOR
        }
        .to_string();
        assert_eq!(text.starts_with('\n'), blank, "{previous:?} {minor}");
    }
}

#[test]
fn each_flag_has_its_place() {
    let table = [
        (State { susp: true, ..PAIR }, "s-----"),
        (
            State {
                susp_nod: true,
                ..PAIR
            },
            "s-----",
        ),
        (
            State {
                susp_fen: true,
                ..PAIR
            },
            "s-----",
        ),
        (
            State {
                aftr_isp: true,
                ..PAIR
            },
            "ra----",
        ),
        (
            State {
                peer_isp: true,
                ..PAIR
            },
            "r-p---",
        ),
        (
            State {
                user_isp: true,
                ..PAIR
            },
            "r--u--",
        ),
    ];
    for (state, flags) in table {
        let line = first_line(&MinorText { state, ..MINOR });
        assert!(line.ends_with(&std::format!(" C {flags}")), "{line}");
    }
    let line = first_line(&MinorText {
        congestion: Some(Congestion('n')),
        is_activity_log_suspended: true,
        protocol: None,
        ..MINOR
    });
    assert!(line.ends_with("UpToDate   r---ns"), "{line}");
}

#[test]
fn the_progress_is_told_only_while_something_runs() {
    let rate = Rate {
        seconds: 1,
        bits_left_then: 20,
    };
    let progress = ProgressText {
        is_verify: false,
        bits_total: 20,
        bits_left: 10,
        recent: rate,
        latest: rate,
        running_seconds: 1,
        wanted_kib_per_second: None,
        position: Position {
            bit: 0,
            device_bits: 20,
            stop_sector: None,
        },
        is_detailed: false,
    };
    for &conn in ConnState::ALL {
        let state = State { conn, ..PAIR };
        let text = MinorText {
            state,
            progress: Some(&progress),
            ..MINOR
        }
        .to_string();
        let runs = matches!(
            conn,
            ConnState::SyncSource | ConnState::SyncTarget | ConnState::VerifyS | ConnState::VerifyT
        );
        assert_eq!(text.contains("\tfinish: "), runs, "{conn}");
    }
}

#[test]
fn details_tell_the_caches_and_who_is_blocked() {
    let activity_log = LruStatistics {
        used: 3,
        elements: 127,
        hits: 10,
        misses: 4,
        starving: 1,
        locked: 2,
        changed: 5,
    };
    let resync = LruStatistics {
        elements: 61,
        ..LruStatistics::default()
    };
    let details = Details {
        caches: Some((resync, activity_log)),
        blocked_on_activity_log: Some(7),
        slow_answers: Some(3),
    };
    let text = MinorText {
        details: &details,
        ..MINOR
    }
    .to_string();
    assert!(
        text.ends_with(
            "\tresync: used:0/61 hits:0 misses:0 starving:0 locked:0 changed:0\n\
             \tact_log: used:3/127 hits:10 misses:4 starving:1 locked:2 changed:5\n\
             \tblocked on activity log: 7\n\
             \tslow answers of the peer: 3\n"
        ),
        "{text}"
    );
}
