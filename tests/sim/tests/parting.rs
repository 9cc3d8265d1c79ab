// SPDX-License-Identifier: GPL-2.0

//! What one node has done and the other does not know of yet, when they part: an ack, the consent
//! to a detach, the end of a resync, a flush.

mod pair;

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::config::Protocol;
use drbd_engine::state::{ConnState, DiskState};
use drbd_engine::types::Sector;
use drbd_sim::canary::Canary;
use drbd_sim::net::Socket;
use drbd_sim::node::request::Operation;
use drbd_sim::packet::Blocks;
use drbd_sim::sim::MS;
use drbd_sim::tools;

use pair::{flush, write, Pair};

/// The target detaches, and its source writes on: the target's disk is not of the generation that
/// this is written in. Attached again it gets what it lacks.
fn detach_and_write_alone(pair: &Pair) {
    let left = Rc::new(Cell::new(false));
    let (target, has_left) = (pair.nodes[1].devices[0].clone(), left.clone());
    pair.sim.spawn(target.owner, async move {
        target.detach().await.unwrap();
        has_left.set(true);
    });
    let device = &pair.nodes[0].devices[0];
    pair.run_until("the peer consents", || {
        device.state().pdsk <= DiskState::Failed
    });
    pair.on(0, "it has written alone", |node| async move {
        for place in 0..4 {
            write(&node.devices[0], place).await;
        }
    });
    pair.run_until("the disk is detached", || left.get());
    let [source, target] = [0, 1].map(|id: usize| {
        let device = &pair.nodes[id].devices[0];
        let superblock = tools::read_superblock(&device.hardware.meta, &device.config).unwrap();
        superblock.uuids.current & !1
    });
    assert_ne!(source, target);
    pair.attach(1);
    pair.expect_to_get_well();
}

#[test]
fn a_resync_does_not_end_while_the_peer_is_asked() {
    for seed in 1..=20 {
        let pair = Pair::resyncing(seed, Protocol::C, None);
        // The target waits for the answer to its last ping, and then still for that to its request.
        pair.net.stall_one(0, Socket::Meta, 50 * MS);
        pair.pass(20 * MS);
        pair.net.stall_one(0, Socket::Meta, 200 * MS);
        detach_and_write_alone(&pair);
    }
}

#[test]
fn the_end_of_a_resync_is_told_before_the_peer_is_asked() {
    for seed in 1..=20 {
        let pair = Pair::resyncing(seed, Protocol::C, None);
        pair.run_until("the resync has ended", || {
            pair.nodes[1].devices[0].state().disk == DiskState::UpToDate
        });
        detach_and_write_alone(&pair);
    }
}

/// With protocol A a write is told done long before the peer's ack is there. The peer has left by
/// then, is Primary, and has written the same blocks: the judge takes that for newer.
#[test]
fn an_ack_that_comes_late_is_older_than_what_was_written_since() {
    for seed in 1..=20 {
        let pair = Pair::with_primary(seed, Protocol::A, None);
        pair.net.stall_one(1, Socket::Meta, 300 * MS);
        pair.on(0, "it has written", |node| async move {
            write(&node.devices[0], 0).await;
        });
        let node = pair.nodes[0].clone();
        pair.sim.spawn(node.owner, async move {
            node.disconnect().await.unwrap();
        });
        pair.run_until("the peer has left", || {
            pair.nodes[1].conn() == ConnState::WFConnection
        });
        pair.on(
            1,
            "the peer is Primary and has written",
            |node| async move {
                let device = &node.devices[0];
                device.promote(false).await.unwrap();
                write(device, 0).await;
            },
        );
        assert_eq!(pair.nodes[0].conn(), ConnState::WFReportParams);
        pair.run_until("the ack has come", || {
            pair.nodes[0].conn() == ConnState::StandAlone
        });
        pair.on(1, "it is read", |node| async move {
            let device = &node.devices[0];
            let number = device.oracle.borrow_mut().number();
            let blocks = Blocks {
                sector: Sector(0),
                size_bytes: 4096,
            };
            let master = device.submit(number, Operation::Read, blocks).await;
            node.sim.until(|| master.ended.get().is_some()).await;
        });
        pair.expect_no_violation();
    }
}

/// A Primary without a disk loses its peer between the ack of a write and that of its barrier, and
/// has it back; what its next flush comes to.
fn flush_after_parting(pair: &Pair) -> bool {
    pair.on(0, "it has no disk and has written", |node| async move {
        let device = &node.devices[0];
        device.detach().await.unwrap();
        // The peer's new generation is heard of.
        device.sim.sleep(device.owner, 50 * MS).await;
        write(device, 0).await;
    });
    pair.net.reset();
    let state = || pair.nodes[0].devices[0].state();
    pair.run_until("the peer is lost", || state().conn < ConnState::Connected);
    pair.run_until("it is back", || state().pdsk == DiskState::UpToDate);
    flush_by_first(pair)
}

fn flush_by_first(pair: &Pair) -> bool {
    let ok = Rc::new(Cell::new(false));
    let is_ok = ok.clone();
    pair.on(0, "a flush ends", |node| async move {
        is_ok.set(flush(&node.devices[0]).await);
    });
    ok.get()
}

#[test]
fn a_flush_does_not_vouch_for_what_a_peer_that_was_lost_need_not_have_flushed() {
    for seed in 1..=20 {
        for protocol in [Protocol::A, Protocol::B, Protocol::C] {
            let pair = Pair::with_primary(seed, protocol, None);
            assert!(!flush_after_parting(&pair));
            // The application knows.
            assert!(flush_by_first(&pair));
            pair.on(0, "its disk is attached", |node| async move {
                node.devices[0].attach().await.unwrap();
            });
            pair.expect_to_get_well();
        }
    }
}

#[test]
fn the_judge_sees_a_flush_that_vouches_for_a_peer_that_was_lost() {
    let pair = Pair::with_primary(1, Protocol::C, Some(Canary::StabilityForgotten));
    assert!(flush_after_parting(&pair));
    assert_ne!(pair.oracles[0].borrow().violations, Vec::<String>::new());
}
