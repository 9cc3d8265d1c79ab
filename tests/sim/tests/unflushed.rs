// SPDX-License-Identifier: GPL-2.0

//! What a peer has acked and not flushed when it is lost: its power may have taken that, and no
//! flush that comes later vouches for it.

mod pair;

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::config::Protocol;
use drbd_engine::state::{ConnState, DiskState};
use drbd_sim::canary::Canary;
use drbd_sim::drive::Trouble;
use drbd_sim::node::device::Device;
use drbd_sim::sim::MS;

use pair::{flush, flush_and_write, is_well, write, Pair};

const PROTOCOLS: [Protocol; 3] = [Protocol::A, Protocol::B, Protocol::C];

/// How an application asks for what it was told done to be on stable storage.
#[derive(Clone, Copy, Debug)]
enum Way {
    Flush,
    /// As journals commit.
    FlushAndWrite,
}

const WAYS: [Way; 2] = [Way::Flush, Way::FlushAndWrite];

fn primary(pair: &Pair) -> &Rc<Device> {
    &pair.nodes[0].devices[0]
}

/// Whether the Primary is told that what it wrote is on stable storage.
fn is_stable(pair: &Pair, way: Way) -> bool {
    let ok = Rc::new(Cell::new(false));
    let is_ok = ok.clone();
    pair.on(0, "a flush ends", |node| async move {
        let device = &node.devices[0];
        is_ok.set(match way {
            Way::Flush => flush(device).await,
            Way::FlushAndWrite => flush_and_write(device, 2).await,
        });
    });
    ok.get()
}

fn detach(pair: &Pair) {
    pair.on(0, "it has no disk", |node| async move {
        let device = &node.devices[0];
        device.detach().await.unwrap();
        // The peer's new generation is heard of.
        device.sim.sleep(device.owner, 50 * MS).await;
    });
}

fn attach(pair: &Pair) {
    pair.attach(0);
    pair.run_until("both are in sync", || pair.all(is_well));
}

fn write_one(pair: &Pair) {
    pair.on(0, "it has written", |node| async move {
        write(&node.devices[0], 0).await;
    });
}

/// What is written is in the cache of the peer's disk, whose flush takes long.
fn write_unflushed(pair: &Pair) {
    let [device, peer] = pair.devices();
    let left = Rc::new(Cell::new(true));
    let is_left = left.clone();
    pair.sim.spawn(device.owner, async move {
        write(&device, 0).await;
        is_left.set(false);
    });
    let drive = &peer.hardware.data;
    pair.run_until("the peer has it", || has_been_written(&peer));
    drive.trouble.set(Trouble {
        stalled_until_ns: pair.sim.now_ns() + 60_000 * MS,
        ..Trouble::NONE
    });
    pair.run_until("it is told done", || !left.get());
}

fn has_been_written(device: &Device) -> bool {
    !device.hardware.data.peek(0, 1).is_empty()
}

/// The peer loses its power and what was written, and comes back.
fn lose_peer(pair: &mut Pair) {
    pair.lose_power(1);
    let peer = &pair.nodes[1].devices[0];
    assert!(!has_been_written(peer));
    peer.hardware.data.trouble.set(Trouble::NONE);
    pair.run_until("the peer is lost", || {
        primary(pair).state().conn < ConnState::Connected
    });
    pair.on(1, "it is back", |node| async move {
        node.devices[0].attach().await.unwrap();
        node.connect(false).await.unwrap();
    });
    pair.run_until("they are connected again", || {
        primary(pair).state().pdsk == DiskState::UpToDate
    });
}

/// The connection is lost, and comes back.
fn lose_connection(pair: &Pair) {
    pair.net.reset();
    let state = || primary(pair).state();
    pair.run_until("the peer is lost", || state().conn < ConnState::Connected);
    pair.run_until("it is back", || state().pdsk == DiskState::UpToDate);
}

/// Only the peer had a write, and has lost it; the Primary's disk was synced from there since.
fn synced_from_who_lost_it(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let mut pair = Pair::with_primary(seed, protocol, canary);
    detach(&pair);
    write_unflushed(&pair);
    lose_peer(&mut pair);
    attach(&pair);
    pair
}

/// Both had a write, unflushed; the Primary's disk has failed, and then the peer has lost it.
fn lost_one_by_one(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let mut pair = Pair::with_primary(seed, protocol, canary);
    write_unflushed(&pair);
    let device = primary(&pair).clone();
    let drive = device.hardware.data.clone();
    drive.trouble.set(Trouble {
        writes_permille: 1000,
        ..Trouble::NONE
    });
    pair.sim.spawn(device.owner, async move {
        write(&device, 1).await;
    });
    pair.run_until("the disk is given up", || {
        primary(&pair).state().disk == DiskState::Diskless
    });
    drive.trouble.set(Trouble::NONE);
    lose_peer(&mut pair);
    pair
}

/// Only the peer had a write when it was lost.
fn parted(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = Pair::with_primary(seed, protocol, canary);
    detach(&pair);
    write_one(&pair);
    lose_connection(&pair);
    pair
}

/// Does `lost` with these protocols, and asks for flushes.
fn expect_one_to_fail(
    protocols: &[Protocol],
    lost: impl Fn(u64, Protocol, Option<Canary>) -> Pair,
) {
    for seed in 1..=10 {
        for &protocol in protocols {
            for way in WAYS {
                let pair = lost(seed, protocol, None);
                assert!(!is_stable(&pair, way), "{seed} {protocol:?} {way:?}");
                // The application knows.
                assert!(is_stable(&pair, way), "{seed} {protocol:?} {way:?}");
                if primary(&pair).state().disk == DiskState::Diskless {
                    attach(&pair);
                }
                pair.expect_to_get_well();
            }
        }
    }
}

#[test]
fn what_no_disk_need_have_is_not_called_stable_once() {
    expect_one_to_fail(&PROTOCOLS, synced_from_who_lost_it);
    expect_one_to_fail(&PROTOCOLS, parted);
    // With protocol A the peer need not even have got what was on its way when it was lost: a
    // Primary without a disk does not follow it any more (`written_alone.rs`).
    expect_one_to_fail(&[Protocol::B, Protocol::C], lost_one_by_one);
}

#[test]
fn the_judge_sees_what_no_disk_need_have() {
    for way in WAYS {
        for lost in [synced_from_who_lost_it, lost_one_by_one, parted] {
            let pair = lost(1, Protocol::C, Some(Canary::StabilityForgotten));
            assert!(is_stable(&pair, way));
            pair.expect_violation("no disk has flushed");
        }
    }
}

/// With two good disks nothing fails, and nothing is remembered for the time when there is one.
#[test]
fn a_connection_that_is_lost_and_back_makes_no_flush_fail() {
    for seed in 1..=10 {
        for protocol in PROTOCOLS {
            for way in WAYS {
                let pair = Pair::with_primary(seed, protocol, None);
                write_one(&pair);
                lose_connection(&pair);
                pair.run_until("both are in sync", || pair.all(is_well));
                if seed % 2 == 0 {
                    assert!(is_stable(&pair, way), "{seed} {protocol:?} {way:?}");
                }
                detach(&pair);
                assert!(is_stable(&pair, way), "{seed} {protocol:?} {way:?}");
                attach(&pair);
                pair.expect_to_get_well();
            }
        }
    }
}

/// Nor does a disk that was attached before the peer was lost: it got what only the peer had.
#[test]
fn what_was_synced_before_the_peer_was_lost_is_flushed_here() {
    for seed in 1..=10 {
        let pair = Pair::with_primary(seed, Protocol::C, None);
        detach(&pair);
        write_one(&pair);
        attach(&pair);
        lose_connection(&pair);
        assert!(is_stable(&pair, Way::Flush));
        pair.expect_to_get_well();
    }
}
