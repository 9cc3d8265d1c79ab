// SPDX-License-Identifier: GPL-2.0

//! A Primary without a disk whose own disk has the generation that its users see, and not the data:
//! its peer has missed the end of a resync, or its new generation has not been heard of.

mod pair;

use std::rc::Rc;

use drbd_engine::config::Protocol;
use drbd_engine::state::{ConnState, DiskState};
use drbd_sim::canary::Canary;
use drbd_sim::net::Socket;
use drbd_sim::node::device::Device;
use drbd_sim::sim::MS;

use pair::{read, write, Pair, PLACES};

/// The second node's resync has ended, and the first, its source, does not know. The second runs
/// as Primary on the first's disk, and has overwritten what was synced.
fn runs_on_a_source_that_missed_the_end(seed: u64, canary: Option<Canary>) -> Pair {
    let pair = Pair::connected(seed, Protocol::C, canary);
    pair.disconnect(1);
    pair.on(0, "something is to be synced", |node| async move {
        node.devices[0].promote(false).await.unwrap();
        for place in 0..PLACES {
            write(&node.devices[0], place).await;
        }
        node.devices[0].demote().await.unwrap();
    });
    pair.connect(1);
    let [source, target] = pair.devices();
    pair.run_until("the resync has ended", || {
        target.state().disk == DiskState::UpToDate && target.state().conn == ConnState::Connected
    });
    lose_connection(&pair);
    assert_ne!(source.state().pdsk, DiskState::UpToDate);
    pair.on(1, "it has no disk", |node| async move {
        let _ = node.disconnect().await;
        node.devices[0].detach().await.unwrap();
        node.connect(false).await.unwrap();
    });
    pair.run_until("they are connected again", || {
        target.state().pdsk == DiskState::UpToDate
    });
    pair.on(1, "it has written as Primary", |node| async move {
        node.devices[0].promote(false).await.unwrap();
        for place in 0..PLACES {
            write(&node.devices[0], place).await;
        }
    });
    pair
}

/// A Primary has detached, and written to its peer, whose new generation it has not heard of.
fn has_not_heard_of_the_new_generation(seed: u64, canary: Option<Canary>) -> Pair {
    let pair = Pair::connected(seed, Protocol::C, canary);
    pair.on(1, "there is a Primary", |node| async move {
        node.devices[0].promote(false).await.unwrap();
        write(&node.devices[0], 0).await;
    });
    pair.net.stall_one(0, Socket::Data, 500 * MS);
    pair.on(1, "it has no disk and has written", |node| async move {
        node.devices[0].detach().await.unwrap();
        write(&node.devices[0], 0).await;
    });
    pair
}

fn lose_connection(pair: &Pair) {
    pair.net.reset();
    pair.run_until("the connection is lost", || {
        pair.nodes[1].conn() < ConnState::WFReportParams
    });
}

/// Attaches the disk of the second node, which is alone; whether it comes into use.
fn gets_its_disk_alone(pair: &Pair) -> bool {
    pair.on(1, "it is alone", |node| async move {
        let _ = node.disconnect().await;
        let _ = node.devices[0].attach().await;
    });
    let device = &pair.nodes[1].devices[0];
    device.state().disk == DiskState::UpToDate
}

fn read_again(pair: &Pair) {
    pair.on(1, "it is read", |node| async move {
        read(&node.devices[0], 0).await;
    });
}

/// The nodes meet, the disk is compared, and what was written is on both.
fn expect_to_meet(pair: &Pair) {
    pair.on(1, "it connects", |node| async move {
        let _ = node.connect(false).await;
    });
    let device: Rc<Device> = pair.nodes[1].devices[0].clone();
    pair.run_until("they are connected again", || {
        device.state().pdsk == DiskState::UpToDate
    });
    read_again(pair);
    pair.attach(1);
    pair.expect_to_get_well();
    read_again(pair);
    pair.expect_no_violation();
}

#[test]
fn the_disk_of_a_target_is_compared_though_its_generation_is_what_its_users_see() {
    for seed in 1..=20 {
        let pair = runs_on_a_source_that_missed_the_end(seed, None);
        pair.attach(1);
        pair.expect_to_get_well();
    }
}

#[test]
fn a_handshake_that_does_not_end_gives_no_stale_disk() {
    for seed in 1..=20 {
        let pair = runs_on_a_source_that_missed_the_end(seed, None);
        pair.attach(1);
        let device = pair.nodes[1].devices[0].clone();
        assert_eq!(device.state().disk, DiskState::Negotiating);
        lose_connection(&pair);
        assert_eq!(device.state().disk, DiskState::Diskless);
        expect_to_meet(&pair);
    }
}

#[test]
fn a_primary_that_lost_its_peer_gets_no_stale_disk() {
    for seed in 1..=20 {
        let pair = runs_on_a_source_that_missed_the_end(seed, None);
        lose_connection(&pair);
        assert!(!gets_its_disk_alone(&pair));
        expect_to_meet(&pair);
    }
}

/// It knows neither disk for what its users have seen, and an admin has to close the device: who
/// opens it again has been promised nothing.
#[test]
fn a_primary_that_has_not_heard_of_the_new_generation_gets_no_disk() {
    for seed in 1..=20 {
        let pair = has_not_heard_of_the_new_generation(seed, None);
        lose_connection(&pair);
        assert!(!gets_its_disk_alone(&pair));
        pair.on(1, "it is demoted", |node| async move {
            node.devices[0].demote().await.unwrap();
        });
        assert!(gets_its_disk_alone(&pair));
        pair.connect(1);
        pair.expect_to_get_well();
    }
}

#[test]
fn the_judge_sees_what_users_read_on_another_disk() {
    for ran in [
        runs_on_a_source_that_missed_the_end,
        has_not_heard_of_the_new_generation,
    ] {
        let pair = ran(1, Some(Canary::UsersForgotten));
        lose_connection(&pair);
        assert!(gets_its_disk_alone(&pair));
        read_again(&pair);
        assert_ne!(pair.oracles[0].borrow().violations, Vec::<String>::new());
    }
}
