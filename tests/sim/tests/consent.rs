// SPDX-License-Identifier: GPL-2.0

//! A peer consents to a change, and its new state overtakes its answer, which comes on the other
//! socket.

mod pair;

use drbd_engine::config::Protocol;
use drbd_engine::state::{ConnState, DiskState};
use drbd_sim::net::Socket;
use drbd_sim::sim::MS;

use pair::Pair;

#[test]
fn a_full_sync_begins_once() {
    for asks_for_own in [false, true] {
        for seed in 1..=20 {
            let pair = Pair::connected(seed, Protocol::C, None);
            pair.net.stall_one(1, Socket::Meta, 300 * MS);
            pair.on(0, "the full sync has begun", |node| async move {
                node.devices[0].invalidate(asks_for_own).await.unwrap();
            });
            pair.run_until("it has ended", || {
                pair.devices().iter().all(|device| {
                    let state = device.state();
                    state.conn == ConnState::Connected && state.disk == DiskState::UpToDate
                })
            });
            pair.expect_to_get_well();
        }
    }
}
