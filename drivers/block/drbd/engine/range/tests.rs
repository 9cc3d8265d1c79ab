// SPDX-License-Identifier: GPL-2.0

//! The range table against a list, and the rules of its matrix.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Handle, Kind, Node, RangeTable, Refusal};
use crate::types::Sector;

type Table = RangeTable<Vec<Node>>;

fn table(nodes: usize) -> Table {
    RangeTable::new(vec![Node::default(); nodes])
}

const KINDS: [Kind; 6] = [
    Kind::LocalWrite,
    Kind::PeerWrite,
    Kind::ResyncRead,
    Kind::ResyncAside,
    Kind::ResyncRequest,
    Kind::ResyncWrite,
];

#[test]
fn the_matrix_is_the_one_in_the_documentation() {
    // Columns: local write, local write told done, peer write, resync read, put aside, request,
    // write. The row of those put aside is empty.
    let rows = [
        "x.xxxxx", "x.x...x", "xxx..xx", ".......", "xxxxxxx", "x.x..xx",
    ];
    for (new, row) in KINDS.into_iter().zip(rows) {
        let mut waits = vec![new.waits_for(Kind::LocalWrite, false)];
        waits.push(new.waits_for(Kind::LocalWrite, true));
        waits.extend(
            KINDS
                .iter()
                .skip(1)
                .map(|&present| new.waits_for(present, false)),
        );
        let found: Vec<_> = waits
            .iter()
            .map(|&waits| if waits { b'x' } else { b'.' })
            .collect();
        assert_eq!(found, row.as_bytes(), "{new:?}");
    }
}

#[test]
fn neighbours_do_not_wait_for_each_other() {
    let mut table = table(4);
    table.try_insert(Kind::LocalWrite, Sector(8), 4096).unwrap();
    table.try_insert(Kind::LocalWrite, Sector(0), 4096).unwrap();
    table.try_insert(Kind::LocalWrite, Sector(16), 512).unwrap();
    let overlapping = table.try_insert(Kind::LocalWrite, Sector(15), 1024);
    assert!(matches!(overlapping, Err(Refusal::Conflict(_))));
}

#[test]
fn who_waited_is_woken_once_for_each_reason() {
    let mut table = table(4);
    let write = table.try_insert(Kind::LocalWrite, Sector(8), 4096).unwrap();
    let Err(Refusal::Conflict(conflict)) = table.try_insert(Kind::LocalWrite, Sector(8), 4096)
    else {
        panic!("overlapping writes must not both be in flight");
    };
    assert_eq!(
        (conflict.with, conflict.sector, conflict.end),
        (write, Sector(8), Sector(16))
    );
    assert!(table.mark_completed(write));
    assert!(!table.mark_completed(write));
    table.try_insert(Kind::LocalWrite, Sector(8), 4096).unwrap();
    assert!(!table.remove(write));
    assert!(!table.remove(write), "the handle is void");
    assert_eq!(table.len(), 1);
}

#[test]
fn a_reply_waits_for_writes_before_it_and_is_waited_for_by_those_after() {
    let mut table = table(4);
    let request = table
        .try_insert(Kind::ResyncRequest, Sector(0), 8192)
        .unwrap();
    let write = table.try_insert(Kind::PeerWrite, Sector(8), 512).unwrap();
    assert!(table.is_overtaken(request));
    assert_eq!(
        table.find(Kind::ResyncRequest, Sector(0), 8192),
        Some(request)
    );
    assert_eq!(table.find(Kind::ResyncRequest, Sector(0), 4096), None);
    assert_eq!(table.promote(request).unwrap_err().unwrap().with, write);
    assert!(table.remove(write));
    assert_eq!(table.promote(request), Ok(()));
    let late = table.try_insert(Kind::PeerWrite, Sector(8), 512);
    assert!(matches!(late, Err(Refusal::Conflict(conflict)) if conflict.with == request));
    assert!(table.remove(request));
    assert_eq!(table.promote(request), Err(None));
}

#[test]
fn a_read_that_is_put_aside_waits_for_what_was_there_and_not_for_what_comes() {
    let mut table = table(4);
    let write = table.try_insert(Kind::LocalWrite, Sector(8), 4096).unwrap();
    let mut held = None;
    assert_eq!(table.claim_read(&mut held, Sector(0), 8192), Ok(false));
    assert!(table.mark_completed(write), "it is told of every change");
    let late = table.try_insert(Kind::LocalWrite, Sector(8), 4096);
    assert!(matches!(late, Err(Refusal::Conflict(conflict)) if Some(conflict.with) == held));
    assert_eq!(table.claim_read(&mut held, Sector(0), 8192), Ok(false));
    assert!(table.remove(write));
    assert_eq!(table.claim_read(&mut held, Sector(0), 8192), Ok(true));
    assert_eq!(table.claim_read(&mut held, Sector(0), 8192), Ok(true));
    assert_eq!(
        table.find(Kind::ResyncRead, Sector(0), 8192),
        held,
        "once is enough"
    );
    assert!(table.remove(held.unwrap()), "the late write waits");
    assert!(table.is_empty());
}

#[test]
fn reads_that_are_put_aside_wait_neither_for_each_other_nor_do_the_peers_writes_for_them() {
    let mut table = table(4);
    let write = table.try_insert(Kind::LocalWrite, Sector(0), 4096).unwrap();
    let (mut one, mut other) = (None, None);
    assert_eq!(table.claim_read(&mut one, Sector(0), 8192), Ok(false));
    assert_eq!(table.claim_read(&mut other, Sector(0), 8192), Ok(false));
    let peers = table.try_insert(Kind::PeerWrite, Sector(8), 4096).unwrap();
    assert!(table.remove(write));
    assert_eq!(table.claim_read(&mut one, Sector(0), 8192), Ok(false));
    assert!(table.remove(peers));
    assert_eq!(table.claim_read(&mut other, Sector(0), 8192), Ok(true));
    assert_eq!(table.claim_read(&mut one, Sector(0), 8192), Ok(true));
}

#[test]
fn a_read_finds_its_place_in_a_full_table_later() {
    let mut table = table(1);
    let write = table
        .try_insert(Kind::LocalWrite, Sector(64), 4096)
        .unwrap();
    let mut held = None;
    assert_eq!(table.claim_read(&mut held, Sector(0), 4096), Ok(false));
    assert_eq!(held, None);
    table.remove(write);
    assert_eq!(table.claim_read(&mut held, Sector(0), 4096), Ok(true));
    let malformed = table.claim_read(&mut None, Sector(0), 0);
    assert_eq!(malformed, Err(Refusal::Malformed));
}

#[test]
fn malformed_ranges_and_a_full_table_are_refused() {
    let mut table = table(1);
    for (sector, size) in [(0, 0), (0, 511), (0, 513), (u64::MAX, 1024)] {
        let refused = table.try_insert(Kind::PeerWrite, Sector(sector), size);
        assert_eq!(refused, Err(Refusal::Malformed));
    }
    table
        .try_insert(Kind::PeerWrite, Sector(u64::MAX - 1), 512)
        .unwrap();
    assert_eq!(
        table.try_insert(Kind::PeerWrite, Sector(0), 512),
        Err(Refusal::Full)
    );
}

#[test]
fn resync_requests_leave_places_for_writes_and_a_full_table_tells_when_it_has_one() {
    let mut table = table(10);
    let mut enter = |kind, sector| table.try_insert(kind, Sector(sector), 512);
    for sector in 0..8 {
        enter(Kind::ResyncRequest, sector).unwrap();
    }
    assert_eq!(enter(Kind::ResyncRequest, 8), Err(Refusal::Full));
    enter(Kind::LocalWrite, 8).unwrap();
    let last = enter(Kind::PeerWrite, 9).unwrap();
    assert_eq!(enter(Kind::PeerWrite, 10), Err(Refusal::Full));
    assert!(table.remove(last));
    let last = table.try_insert(Kind::PeerWrite, Sector(10), 512).unwrap();
    assert!(table.remove(last));
    let request = table.find(Kind::ResyncRequest, Sector(0), 512).unwrap();
    assert!(!table.remove(request));
}

/// A range as the model knows it: handle, kind, start, end, completed, overtaken.
#[derive(Clone, Debug)]
struct Known(Handle, Kind, u64, u64, bool, bool);

fn blockers(
    known: &[Known],
    kind: Kind,
    start: u64,
    end: u64,
    except: Option<Handle>,
) -> Vec<Handle> {
    known
        .iter()
        .filter(|it| it.2 < end && start < it.3 && Some(it.0) != except)
        .filter(|it| kind.waits_for(it.1, it.4))
        .map(|it| it.0)
        .collect()
}

fn insert(table: &mut Table, known: &mut Vec<Known>, kind: Kind, start: u64, sectors: u32) {
    let end = start + u64::from(sectors);
    let expected = blockers(known, kind, start, end, None);
    match table.try_insert(kind, Sector(start), sectors * 512) {
        Ok(handle) => {
            assert!(expected.is_empty());
            for it in known.iter_mut().filter(|it| it.2 < end && start < it.3) {
                it.5 |= kind == Kind::PeerWrite && it.1 == Kind::ResyncRequest;
            }
            known.push(Known(handle, kind, start, end, false, false));
        }
        Err(Refusal::Conflict(conflict)) => assert!(expected.contains(&conflict.with)),
        Err(other) => {
            assert_eq!(other, Refusal::Full);
            let most = if kind == Kind::ResyncRequest { 52 } else { 64 };
            assert!(known.len() >= most);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_table_does_what_a_list_would(
        steps in prop::collection::vec((0_u8..12, 0_usize..6, 0_u64..600, 1_u32..24), 1..600)
    ) {
        let mut table = table(64);
        let mut known: Vec<Known> = vec![];
        for (choice, kind, start, sectors) in steps {
            let chosen = (!known.is_empty()).then(|| start as usize % known.len().max(1));
            match (choice, chosen) {
                (0..=3, Some(at)) => {
                    let it = known.remove(at);
                    table.remove(it.0);
                }
                (4, Some(at)) => {
                    known[at].4 = true;
                    table.mark_completed(known[at].0);
                }
                (5, Some(at)) if known[at].1.promoted().is_some() => {
                    let Known(handle, kind, start, end, ..) = known[at];
                    let promoted = kind.promoted().unwrap();
                    let expected = blockers(&known, promoted, start, end, Some(handle));
                    match table.promote(handle) {
                        Ok(()) => {
                            prop_assert!(expected.is_empty());
                            known[at].1 = promoted;
                        }
                        Err(conflict) => prop_assert!(expected.contains(&conflict.unwrap().with)),
                    }
                }
                _ => insert(&mut table, &mut known, KINDS[kind], start, sectors),
            }
            prop_assert_eq!(table.len() as usize, known.len());
            prop_assert!(table.tree.is_sound(known.len()));
            for it in &known {
                prop_assert_eq!(table.is_overtaken(it.0), it.5);
            }
        }
    }
}

#[test]
fn all_ranges_of_a_kind_are_taken_out_and_no_others() {
    let mut table = RangeTable::new(std::vec![Node::default(); 16]);
    let mut kept = std::vec::Vec::new();
    for index in 0..5u64 {
        table
            .try_insert(Kind::ResyncRequest, Sector(index * 64), 4096)
            .unwrap();
        kept.push(
            table
                .try_insert(Kind::LocalWrite, Sector(index * 64 + 32), 4096)
                .unwrap(),
        );
    }
    assert!(table
        .try_insert(Kind::LocalWrite, Sector(128), 4096)
        .is_err());
    assert!(table.remove_kind(Kind::ResyncRequest), "somebody waits");
    assert_eq!(table.len(), 5);
    for handle in kept {
        assert!(!table.remove(handle));
    }
    assert!(table.is_empty());
}
