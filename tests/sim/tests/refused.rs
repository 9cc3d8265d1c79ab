// SPDX-License-Identifier: GPL-2.0

//! The peer refuses a write, and the state that tells why comes later, on the other socket.

mod pair;

use drbd_engine::config::Protocol;
use drbd_engine::state::DiskState;
use drbd_sim::canary::Canary;
use drbd_sim::drive::Trouble;
use drbd_sim::net::Socket;
use drbd_sim::sim::MS;

use pair::{write, Pair};

/// The peer's disk fails, whose metadata tell of none of it, and refuses a write. The Primary is
/// demoted before it hears that the disk is gone; then that is attached again.
fn refused(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Pair {
    let pair = Pair::with_primary(seed, protocol, canary);
    pair.pass(100 * MS);
    let peer = &pair.nodes[1].devices[0];
    let meta = &peer.hardware.meta;
    meta.trouble.set(Trouble {
        writes_permille: 1000,
        ..Trouble::NONE
    });
    pair.net.stall_one(1, Socket::Data, 300 * MS);
    let changes = peer.clone();
    pair.sim.spawn(peer.owner, async move {
        changes.change_al_extents(7).await.unwrap_err();
    });
    pair.run_until("the disk is given up", || {
        peer.state().disk <= DiskState::Failed
    });
    pair.on(
        0,
        "it has written, and is no Primary any more",
        |node| async move {
            let device = &node.devices[0];
            write(device, 0).await;
            assert_eq!(device.state().pdsk, DiskState::UpToDate);
            device.demote().await.unwrap();
            assert_eq!(device.state().pdsk, DiskState::UpToDate);
        },
    );
    meta.trouble.set(Trouble::NONE);
    let device = &pair.nodes[0].devices[0];
    pair.run_until("it hears of the peer's disk", || {
        device.state().pdsk == DiskState::Diskless
    });
    pair.attach(1);
    pair
}

#[test]
fn what_the_peer_refused_is_synced_though_the_primary_is_demoted() {
    for seed in 1..=20 {
        for protocol in [Protocol::A, Protocol::B, Protocol::C] {
            refused(seed, protocol, None).expect_to_get_well();
        }
    }
}

#[test]
fn the_judge_sees_a_refusal_that_is_forgotten() {
    let pair = refused(1, Protocol::C, Some(Canary::RefusalForgotten));
    pair.expect_to_differ();
}
