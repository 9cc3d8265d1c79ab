// SPDX-License-Identifier: GPL-2.0

//! What a Primary has written alone, and its peer has the generation of.

mod pair;

use std::rc::Rc;

use drbd_engine::config::{OnIoError, Protocol};
use drbd_engine::state::{ConnState, DiskState};
use drbd_sim::canary::Canary;
use drbd_sim::drive::Trouble;
use drbd_sim::net::Socket;
use drbd_sim::node::device::Device;
use drbd_sim::sim::MS;

use pair::{is_well, read, write, Pair, PLACES, STRIDE};

/// The first node is Primary, and source of a resync of which it has not heard the end.
fn source(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = apart(seed, protocol, canary);
    pair.on(1, "it connects", |node| async move {
        node.connect(false).await.unwrap();
    });
    let [source, target] = devices(&pair);
    pair.run_until("the resync has begun", || {
        target.state().conn == ConnState::SyncTarget
    });
    pair.net.stall_one(1, Socket::Data, 300 * MS);
    pair.run_until("it has ended", || {
        target.state().disk == DiskState::UpToDate
    });
    assert_eq!(source.state().conn, ConnState::SyncSource);
    pair
}

/// The first node is Primary and has written, and the other does not connect.
fn apart(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = Pair::boot_with(seed, protocol, 1, canary);
    pair.on_both("the disks are attached", |node| async move {
        node.devices[0].attach().await.unwrap();
        node.connect(false).await.unwrap();
    });
    pair.run_until("both are connected", || pair.all(is_well));
    pair.on(0, "there is a Primary", |node| async move {
        node.devices[0].promote(false).await.unwrap();
    });
    pair.on(1, "it is alone", |node| async move {
        node.disconnect().await.unwrap();
    });
    pair.on(0, "something is to be synced", |node| async move {
        for place in 0..PLACES {
            write(&node.devices[0], place).await;
        }
    });
    pair
}

fn devices(pair: &Pair) -> [Rc<Device>; 2] {
    [0, 1].map(|id: usize| pair.nodes[id].devices[0].clone())
}

/// The source writes alone, loses its disk, and meets its target, which does not have that. What
/// the application reads then.
fn lost_with_the_disk(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = source(seed, protocol, canary);
    let [source, target] = devices(&pair);
    pair.net.cut(0);
    pair.net.cut(1);
    pair.run_until("both are alone", || {
        pair.all(|device| device.state().conn == ConnState::WFConnection)
    });
    source.hardware.data.trouble.set(Trouble {
        reads_permille: 1000,
        ..Trouble::NONE
    });
    pair.on(0, "it has written, and failed to read", |node| async move {
        write(&node.devices[0], 0).await;
        read(&node.devices[0], 1).await;
    });
    pair.run_until("the disk is gone", || {
        source.state().disk == DiskState::Diskless
    });
    source.hardware.data.trouble.set(Trouble::NONE);
    pair.net.mend();
    pair.run_until("they have met", || {
        target.state().conn == ConnState::Connected || pair.nodes[0].conn() == ConnState::StandAlone
    });
    pair.pass(20 * MS);
    pair.on(0, "it reads", |node| async move {
        read(&node.devices[0], 0).await;
    });
    pair
}

#[test]
fn a_primary_that_lost_its_disk_follows_no_peer_without_what_it_has_written_alone() {
    for seed in 1..=10 {
        for protocol in [Protocol::A, Protocol::B, Protocol::C] {
            let pair = lost_with_the_disk(seed, protocol, None);
            assert_eq!(pair.nodes[0].conn(), ConnState::StandAlone);
            pair.on(0, "its disk is back, and read", |node| async move {
                let device = &node.devices[0];
                device.attach().await.unwrap();
                read(device, 0).await;
            });
            pair.expect_no_violation();
        }
    }
}

#[test]
fn the_judge_sees_a_peer_without_what_was_written_alone() {
    let pair = lost_with_the_disk(1, Protocol::C, Some(Canary::AloneForgotten));
    let violations = pair.oracles[0].borrow().violations.clone();
    assert!(
        violations[0].contains("older than the told"),
        "{violations:?}"
    );
}

/// What was written alone, up to the moment when the resync begins, the peer has got when it ends.
#[test]
fn a_primary_follows_the_peer_that_was_synced_from_its_disk() {
    for seed in 1..=20 {
        let pair = apart(seed, Protocol::C, None);
        let [source, target] = devices(&pair);
        for place in 0..PLACES {
            let writer = source.clone();
            pair.sim.spawn(source.owner, async move {
                for _ in 0..8 {
                    write(&writer, place).await;
                    writer.sim.sleep(writer.owner, MS).await;
                }
            });
        }
        pair.on(1, "it connects", |node| async move {
            node.connect(false).await.unwrap();
        });
        pair.run_until("the resync has begun", || {
            target.state().conn == ConnState::SyncTarget
        });
        pair.run_until("both are connected", || pair.all(is_well));
        pair.on(0, "its disk is let go", |node| async move {
            node.devices[0].detach().await.unwrap();
        });
        pair.pass(5 * MS);
        pair.net.cut(0);
        pair.net.cut(1);
        pair.run_until("both are alone", || {
            pair.all(|device| device.state().conn == ConnState::WFConnection)
        });
        pair.net.mend();
        pair.run_until("it runs on its peer's disk again", || {
            let state = source.state();
            state.conn == ConnState::Connected && state.pdsk == DiskState::UpToDate
        });
        pair.expect_no_violation();
    }
}

/// A read fails when the bitmap is sent, which sets a bit, and the block is written.
#[test]
fn a_target_is_told_of_a_write_whose_block_was_marked_by_a_read() {
    for seed in 1..=20 {
        let pair = apart(seed, Protocol::C, None);
        let [source, target] = devices(&pair);
        source.change_on_io_error(OnIoError::PassOn).unwrap();
        pair.on(1, "it connects", |node| async move {
            node.connect(false).await.unwrap();
        });
        pair.run_until("the nodes meet", || {
            source.state().conn == ConnState::WFBitMapS
        });
        pair.net.stall_one(1, Socket::Data, 300 * MS);
        pair.pass(100 * MS);
        source.hardware.data.trouble.set(Trouble {
            reads_permille: 1000,
            ..Trouble::NONE
        });
        pair.on(0, "a read has failed", |node| async move {
            read(&node.devices[0], PLACES).await;
        });
        source.hardware.data.trouble.set(Trouble::NONE);
        pair.on(0, "it has written", |node| async move {
            write(&node.devices[0], PLACES).await;
        });
        assert_eq!(source.state().conn, ConnState::WFBitMapS);
        pair.run_until("the resync has begun", || {
            target.state().conn == ConnState::SyncTarget
        });
        pair.run_until("it has ended", || {
            target.state().disk == DiskState::UpToDate
        });
        let [here, there] =
            [&source, &target].map(|device| device.hardware.data.peek(PLACES * STRIDE, 8));
        assert_eq!(here.len(), 8);
        assert_eq!(here, there);
        pair.expect_to_get_well();
    }
}
