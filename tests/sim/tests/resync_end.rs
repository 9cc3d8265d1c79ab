// SPDX-License-Identifier: GPL-2.0

//! A write fails on one of the disks while the end of a resync is on its way to the source.

mod pair;

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::config::{OnIoError, Protocol};
use drbd_engine::state::{ConnState, DiskState};
use drbd_sim::canary::Canary;
use drbd_sim::drive::Trouble;
use drbd_sim::net::Socket;
use drbd_sim::node::device::Device;
use drbd_sim::sim::MS;
use drbd_sim::tools;

use pair::{read, write, Pair, PLACES, STRIDE};

const FAILS_TO_WRITE: Trouble = Trouble {
    writes_permille: 1000,
    ..Trouble::NONE
};

fn current_uuid(device: &Device) -> u64 {
    let superblock = tools::read_superblock(&device.hardware.meta, &device.config).unwrap();
    superblock.uuids.current & !1
}

/// The target has ended its resync, and has the generation of the source on its disk. The source
/// has heard of it, and of none of the acks that are on their way.
fn ended(seed: u64, canary: Option<Canary>) -> Pair {
    let pair = Pair::resyncing(seed, Protocol::C, canary);
    let [source, target] = pair.devices();
    pair.run_until("the resync has ended", || {
        target.state().disk == DiskState::UpToDate
    });
    pair.net.stall_one(1, Socket::Meta, 200 * MS);
    pair.run_until("its end is on disk", || {
        current_uuid(&target) == current_uuid(&source)
    });
    pair
}

/// The source writes a block, and does not wait.
fn write_one(pair: &Pair) {
    let source = pair.nodes[0].devices[0].clone();
    pair.sim.spawn(source.owner, async move {
        write(&source, 0).await;
    });
}

/// The target's disk fails, and refuses a write of the source, which is demoted before it hears
/// that the disk is gone. The target's metadata tell of none of it.
fn refused_by_target(seed: u64, canary: Option<Canary>) -> Pair {
    let pair = ended(seed, canary);
    let target = pair.nodes[1].devices[0].clone();
    target.hardware.meta.trouble.set(FAILS_TO_WRITE);
    let changes = target.clone();
    pair.sim.spawn(target.owner, async move {
        changes.change_al_extents(7).await.unwrap_err();
    });
    pair.run_until("the disk is given up", || {
        target.state().disk <= DiskState::Failed
    });
    write_one(&pair);
    pair.pass(MS);
    pair.net.stall_one(1, Socket::Data, 400 * MS);
    pair.on(0, "there is no Primary", |node| async move {
        // Refused while the connection goes down.
        while node.devices[0].demote().await.is_err() {
            node.sim.sleep(node.owner, 10 * MS).await;
        }
    });
    pair.run_until("it is detached", || {
        target.state().disk == DiskState::Diskless
    });
    target.hardware.meta.trouble.set(Trouble::NONE);
    pair.run_until("the source hears of it", || {
        let state = pair.nodes[0].devices[0].state();
        state.conn == ConnState::Connected && state.pdsk == DiskState::Diskless
    });
    pair.on(1, "the disk is back", |node| async move {
        while node.devices[0].attach().await.is_err() {
            node.sim.sleep(node.owner, 10 * MS).await;
        }
    });
    pair
}

#[test]
fn a_write_that_the_target_refuses_at_the_end_is_synced() {
    for seed in 1..=20 {
        refused_by_target(seed, None).expect_to_get_well();
    }
}

#[test]
fn the_judge_sees_a_resync_that_ends_with_bits_left() {
    let pair = refused_by_target(1, Some(Canary::EndedWithBitsLeft));
    pair.expect_to_differ();
}

/// The source's disk does not take a write, which is passed on, as its target is Inconsistent by
/// then. What the peer has written is acked when the source has had time to end the resync.
fn not_taken_by_source(seed: u64, canary: Option<Canary>) -> Pair {
    let pair = ended(seed, canary);
    // The last ping of the resync is answered.
    pair.pass(20 * MS);
    pair.net.stall_one(1, Socket::Meta, 400 * MS);
    let source = pair.nodes[0].devices[0].clone();
    source.change_on_io_error(OnIoError::PassOn).unwrap();
    source.hardware.data.trouble.set(FAILS_TO_WRITE);
    write_one(&pair);
    pair.pass(20 * MS);
    source.hardware.data.trouble.set(Trouble::NONE);
    assert_eq!(source.hardware.data.errors.get(), 1);
    assert_eq!(source.state().disk, DiskState::UpToDate);
    assert_eq!(source.state().pdsk, DiskState::Inconsistent);
    pair
}

#[test]
fn a_write_that_the_source_does_not_take_at_the_end_is_synced_or_fails() {
    for seed in 1..=20 {
        let pair = not_taken_by_source(seed, None);
        let source = &pair.nodes[0].devices[0];
        pair.run_until("the connection begins anew", || {
            source.state().conn < ConnState::Connected
        });
        pair.expect_to_get_well();
    }
}

/// Were the resync to end, the write would be told done by its target's disk alone.
#[test]
fn a_disk_that_does_not_have_what_is_told_done_is_judged_again() {
    for seed in 1..=20 {
        let pair = not_taken_by_source(seed, Some(Canary::EndedWithBitsLeft));
        let source = &pair.nodes[0].devices[0];
        pair.run_until("the disk is judged", || {
            source.state().disk == DiskState::Inconsistent
        });
        assert_eq!(source.state().pdsk, DiskState::UpToDate);
        pair.expect_no_violation();
    }
}

/// Each read that fails marks the block anew, and says nothing about what is synced meanwhile.
#[test]
fn a_resync_ends_though_an_application_reads_a_bad_block() {
    // One of those to be synced, and one that is in sync.
    for (seed, place) in (1..=20).flat_map(|seed| [(seed, 1), (seed, PLACES)]) {
        let pair = Pair::apart(seed, Protocol::C, None);
        let [source, target] = pair.devices();
        source.change_on_io_error(OnIoError::PassOn).unwrap();
        source.hardware.data.trouble.set(Trouble {
            unreadable: Some(place * STRIDE),
            ..Trouble::NONE
        });
        let reader = source.clone();
        let reads = Rc::new(Cell::new(true));
        let goes_on = reads.clone();
        pair.sim.spawn(source.owner, async move {
            while goes_on.get() {
                read(&reader, place).await;
                reader.sim.sleep(reader.owner, MS / 4).await;
            }
        });
        pair.connect(1);
        pair.run_until("all but the bad block is synced", || {
            let ended = pair.all(|device| device.state().conn == ConnState::Connected);
            ended && target.out_of_sync() == 1
        });
        assert!(source.hardware.data.errors.get() > 2);
        assert_eq!(target.state().disk, DiskState::Inconsistent);
        pair.pass(100 * MS);
        assert_eq!(source.state().conn, ConnState::Connected);
        reads.set(false);
        source.hardware.data.trouble.set(Trouble::NONE);
        pair.disconnect(1);
        pair.connect(1);
        pair.expect_to_get_well();
    }
}
