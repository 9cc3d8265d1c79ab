// SPDX-License-Identifier: GPL-2.0

//! Two volumes of one connection, each Primary on another node and written alone there: when the
//! nodes meet each is the source of its own, and its application goes on writing to the very blocks
//! that the other asks for.
//!
//! A receiver that waited for its application's writes with such a request in its hands would take
//! no writes of the other application meanwhile, and be waited for in turn (seed 6179 of a former
//! tree).

mod pair;

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::config::Protocol;
use drbd_engine::state::ConnState;
use drbd_sim::node::device::Device;
use drbd_sim::rng::Rng;
use drbd_sim::sim::MS;

use pair::{is_well, write, Pair, PLACES};

/// Applications of a node.
const APPLICATIONS: u64 = 4;

/// The volume that a node is to be the source of.
fn own(pair: &Pair, id: usize) -> &Rc<Device> {
    &pair.nodes[id].devices[id]
}

/// The nodes meet, having written alone, and write on. Ends with the resyncs begun.
fn meet_as_sources(pair: &Pair, stop: &Rc<Cell<bool>>) {
    pair.on_both("the disks are attached", |node| async move {
        for device in &node.devices {
            device.attach().await.unwrap();
        }
        node.connect(false).await.unwrap();
    });
    pair.run_until("both are connected", || pair.all(is_well));
    pair.on_both("both are apart", |node| async move {
        node.disconnect().await.unwrap();
    });
    pair.on_both("both have written alone", |node| async move {
        let device = &node.devices[node.id];
        device.promote(false).await.unwrap();
        for place in 0..PLACES {
            write(device, place).await;
        }
        node.connect(false).await.unwrap();
    });
    for id in [0, 1] {
        for number in 0..APPLICATIONS {
            let (device, stop) = (own(pair, id).clone(), stop.clone());
            let mut rng = Rng::new(pair.sim.random() ^ number);
            pair.sim.spawn(device.owner, async move {
                while !stop.get() {
                    write(&device, rng.below(PLACES)).await;
                    device.sim.sleep(device.owner, rng.below(MS)).await;
                }
            });
        }
    }
    pair.run_until("each is the source of its own", || {
        [0, 1]
            .iter()
            .all(|&id| own(pair, id).state().conn == ConnState::SyncSource)
    });
}

/// Something is put aside, which not every schedule brings about; whether it came to that.
fn puts_aside(pair: &Pair, stop: &Rc<Cell<bool>>) -> bool {
    pair.run_until("something is put aside, or nothing will be", || {
        pair.nodes[0].aside() > 0 || pair.all(is_well)
    });
    let has_some = pair.nodes[0].aside() > 0;
    stop.set(!has_some);
    has_some
}

/// In how many of twenty schedules that has to come about.
const ENOUGH: usize = 10;

#[test]
fn two_sources_do_not_wait_for_each_other() {
    for seed in 1..=20 {
        let pair = Pair::boot(seed, Protocol::C, 2);
        let stop = Rc::new(Cell::new(false));
        meet_as_sources(&pair, &stop);
        // The applications go on: what they write all the time is synced nevertheless.
        pair.run_until("both are in sync", || pair.all(is_well));
        stop.set(true);
        pair.expect_to_get_well();
    }
}

#[test]
fn what_was_put_aside_ends_with_the_connection() {
    let mut count = 0;
    for seed in 1..=20 {
        let pair = Pair::boot(seed, Protocol::C, 2);
        let stop = Rc::new(Cell::new(false));
        meet_as_sources(&pair, &stop);
        if !puts_aside(&pair, &stop) {
            continue;
        }
        count += 1;
        pair.net.reset();
        pair.run_until("it is lost", || {
            pair.nodes[0].conn() < ConnState::WFConnection
        });
        pair.run_until("nothing of it is left", || {
            pair.nodes[0].conn() >= ConnState::WFConnection
        });
        assert_eq!(pair.nodes[0].aside(), 0);
        stop.set(true);
        pair.expect_to_get_well();
    }
    assert!(count >= ENOUGH, "{count}");
}

#[test]
fn what_was_put_aside_ends_with_the_resync() {
    let mut count = 0;
    for seed in 1..=20 {
        let pair = Pair::boot(seed, Protocol::C, 2);
        let stop = Rc::new(Cell::new(false));
        meet_as_sources(&pair, &stop);
        if !puts_aside(&pair, &stop) {
            continue;
        }
        count += 1;
        // The target gives its disk up, and gets it back in the same connection.
        let target = pair.nodes[1].devices[0].clone();
        let done = Rc::new(Cell::new(false));
        let is_done = done.clone();
        pair.sim.spawn(target.owner, async move {
            target.detach().await.unwrap();
            target.sim.sleep(target.owner, 20 * MS).await;
            assert_eq!(target.state().conn, ConnState::Connected);
            target.attach().await.unwrap();
            is_done.set(true);
        });
        pair.run_until("the disk is back", || done.get());
        stop.set(true);
        pair.expect_to_get_well();
    }
    assert!(count >= ENOUGH, "{count}");
}
