// SPDX-License-Identifier: GPL-2.0

//! What a Primary has written alone, and its peer has the generation of.

mod pair;

use drbd_engine::config::{OnIoError, Protocol};
use drbd_engine::state::{ConnState, DiskState};
use drbd_sim::canary::Canary;
use drbd_sim::drive::Trouble;
use drbd_sim::net::Socket;
use drbd_sim::sim::MS;

use pair::{is_well, read, write, Pair, PLACES, STRIDE};

/// The first node is Primary, and source of a resync of which it has not heard the end.
fn source(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = Pair::resyncing(seed, protocol, canary);
    let [source, target] = pair.devices();
    pair.net.stall_one(1, Socket::Data, 300 * MS);
    pair.run_until("it has ended", || {
        target.state().disk == DiskState::UpToDate
    });
    assert_eq!(source.state().conn, ConnState::SyncSource);
    pair
}

/// The source writes alone, loses its disk, and meets its target, which does not have that. What
/// the application reads then.
fn lost_with_the_disk(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = source(seed, protocol, canary);
    let [source, target] = pair.devices();
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
    pair.expect_violation("older than the told");
}

/// What was written alone, up to the moment when the resync begins, the peer has got when it ends.
#[test]
fn a_primary_follows_the_peer_that_was_synced_from_its_disk() {
    for seed in 1..=20 {
        let pair = Pair::apart(seed, Protocol::C, None);
        let [source, target] = pair.devices();
        for place in 0..PLACES {
            let writer = source.clone();
            pair.sim.spawn(source.owner, async move {
                for _ in 0..8 {
                    write(&writer, place).await;
                    writer.sim.sleep(writer.owner, MS).await;
                }
            });
        }
        pair.connect(1);
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
        let pair = Pair::apart(seed, Protocol::C, None);
        let [source, target] = pair.devices();
        source.change_on_io_error(OnIoError::PassOn).unwrap();
        pair.connect(1);
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

/// With protocol A a write is told done that the peer does not get, and the disk that has it fails
/// another one. To follow the peer would take it from users who were told that it is written.
#[test]
fn a_primary_whose_disk_is_bad_follows_no_peer_without_what_it_was_told() {
    for seed in 1..=20 {
        let pair = Pair::with_primary(seed, Protocol::A, None);
        let [device, _] = pair.devices();
        device.change_on_io_error(OnIoError::PassOn).unwrap();
        pair.net.stall_one(0, Socket::Data, 300 * MS);
        pair.on(0, "it has written", |node| async move {
            write(&node.devices[0], 0).await;
        });
        device.hardware.data.trouble.set(Trouble {
            writes_permille: 1000,
            ..Trouble::NONE
        });
        pair.on(0, "a write has failed", |node| async move {
            write(&node.devices[0], 1).await;
        });
        device.hardware.data.trouble.set(Trouble::NONE);
        pair.run_until("the disk is bad", || {
            device.state().disk == DiskState::Inconsistent
        });
        pair.net.cut(0);
        pair.net.cut(1);
        pair.run_until("both are alone", || {
            pair.all(|device| device.state().conn == ConnState::WFConnection)
        });
        pair.net.mend();
        pair.run_until("the peer is refused", || {
            device.state().conn == ConnState::StandAlone
        });
        pair.expect_no_violation();
        pair.on(0, "its data are given up", |node| async move {
            node.devices[0].demote().await.unwrap();
            node.connect(false).await.unwrap();
        });
        pair.expect_to_get_well();
    }
}

/// The peer's generations are accepted, as the disk of the first node has what it lacks, and then
/// that is lost.
fn lose_disk_amid_the_handshake(pair: &Pair) {
    let [device, _] = pair.devices();
    pair.run_until("the peer's generations are there", || device.knows_peer());
    pair.net.hold_one(1, Socket::Data, 100 * MS);
    lose_disk(pair);
    assert_eq!(device.state().conn, ConnState::WFReportParams);
}

/// A read fails on the first node, which costs it the disk.
fn lose_disk(pair: &Pair) {
    let [device, _] = pair.devices();
    device.hardware.data.trouble.set(Trouble {
        reads_permille: 1000,
        ..Trouble::NONE
    });
    pair.on(0, "a read has failed", |node| async move {
        read(&node.devices[0], 1).await;
    });
    pair.run_until("the disk is gone", || {
        device.state().disk == DiskState::Diskless
    });
    device.hardware.data.trouble.set(Trouble::NONE);
}

/// The first node, which runs without a disk, does not run on its peer's.
fn expect_peer_to_be_refused(pair: &Pair) {
    let [device, _] = pair.devices();
    pair.run_until("the peer is refused", || {
        device.state().conn == ConnState::StandAlone
    });
    pair.attach(0);
    pair.on(0, "it is read", |node| async move {
        read(&node.devices[0], 0).await;
    });
    pair.expect_no_violation();
}

#[test]
fn a_primary_that_loses_its_disk_amid_the_handshake_follows_no_older_data() {
    for seed in 1..=20 {
        let pair = Pair::apart(seed, Protocol::C, None);
        pair.connect(1);
        lose_disk_amid_the_handshake(&pair);
        expect_peer_to_be_refused(&pair);
    }
}

/// The generations are equal: the peer's resync has ended, and its source has missed that.
#[test]
fn nor_the_data_of_a_peer_that_need_not_have_what_was_written_alone() {
    for seed in 1..=20 {
        let pair = source(seed, Protocol::C, None);
        pair.net.cut(0);
        pair.net.cut(1);
        pair.run_until("both are alone", || {
            pair.all(|device| device.state().conn == ConnState::WFConnection)
        });
        pair.on(0, "it has written", |node| async move {
            write(&node.devices[0], 0).await;
        });
        pair.net.mend();
        lose_disk_amid_the_handshake(&pair);
        expect_peer_to_be_refused(&pair);
    }
}

/// The peer's disk is being attached when the nodes meet.
#[test]
fn nor_the_older_data_of_a_disk_that_is_being_attached() {
    let mut met = 0;
    for seed in 1..=60 {
        let pair = Pair::apart(seed, Protocol::C, None);
        let [device, peer] = pair.devices();
        lose_disk(&pair);
        pair.on(1, "it has no disk", |node| async move {
            node.devices[0].detach().await.unwrap();
        });
        pair.connect(1);
        pair.run_until("it looks for its peer", || {
            peer.state().conn == ConnState::WFConnection
        });
        let attaches = peer.clone();
        pair.sim.spawn(peer.owner, async move {
            // Refused while the nodes greet each other.
            while attaches.attach().await.is_err() {
                attaches.sim.sleep(attaches.owner, MS).await;
            }
        });
        pair.run_until("the nodes meet", || {
            device.state().conn != ConnState::WFConnection
        });
        pair.run_until("the peer's state is known", || {
            device.state().conn != ConnState::WFReportParams
        });
        met += usize::from(device.state().pdsk == DiskState::Attaching);
        expect_peer_to_be_refused(&pair);
    }
    assert!(met > 10, "{met}");
}
