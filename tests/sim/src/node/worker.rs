// SPDX-License-Identifier: GPL-2.0

//! The worker, as `io/worker.rs` runs it: everything there is to do now, then sleep.

use std::rc::Rc;

use super::device::Device;
use super::disk::LocalDisk;
use super::{after, disk_error, resync, sender, Node};
use crate::sim::MS;

/// How long the worker sleeps when nothing else has a deadline.
const IDLE_NS: u64 = 100 * MS;

impl Node {
    fn has_chores(&self) -> bool {
        let queued = !self.deferred.volumes.borrow().is_empty()
            || !self.deferred.connection.borrow().is_empty()
            || !self.answers.borrow().is_empty()
            || (self.aside_due.get() && !self.aside.borrow().is_empty());
        let has_chores = |device: &Rc<Device>| device.has_chores();
        queued
            || self.fencer.not_fenced.get()
            || self.devices.iter().any(has_chores)
            || self.log.borrow_mut().next_to_send().is_some()
            || self.epoch_is_closed()
    }

    /// Whether a barrier is due though nothing waits to be sent.
    fn epoch_is_closed(&self) -> bool {
        let log = self.log.borrow();
        log.epoch() != self.seen_epoch.get()
    }
}

impl Device {
    fn has_chores(&self) -> bool {
        let flags = &self.flags;
        let resyncs = flags.start_source.get() || flags.resync_done.get();
        self.has_disk_error() || self.may_go_diskless() || resyncs
    }

    fn may_go_diskless(&self) -> bool {
        let attached = self.local.borrow();
        let retired = self.retired.borrow();
        let disk = attached.as_ref().or(retired.as_ref());
        let is_unused = |disk: &Rc<LocalDisk>| disk.references.get() == 0;
        self.flags.go_diskless.get() && (attached.is_some() || disk.is_none_or(is_unused))
    }
}

impl Node {
    /// Waits until the worker has done what it was given before.
    pub(crate) async fn flush_worker(&self) {
        let turns = self.worker_turns.get();
        self.worker_called.set(true);
        // Two turns: the one under way may have looked already.
        self.sim
            .until(|| self.worker_turns.get() >= turns + 2)
            .await;
        self.worker_called.set(false);
    }
}

/// The thread.
pub(crate) async fn run(node: Rc<Node>) {
    loop {
        node.seen_epoch.set(node.log.borrow().epoch());
        let sleep_ns = turn(&node).await.min(IDLE_NS);
        node.worker_turns.set(node.worker_turns.get() + 1);
        node.sim.pause().await;
        node.sim
            .until_timeout(node.owner, sleep_ns, || {
                node.has_chores() || node.worker_called.get()
            })
            .await;
    }
}

async fn turn(node: &Rc<Node>) -> u64 {
    after::carry_out(node).await;
    if node.fencer.not_fenced.replace(false) {
        after::give_up_fencing(node);
    }
    loop {
        let next = node.answers.borrow_mut().pop_front();
        let Some(request) = next else { break };
        sender::answer(request).await;
    }
    let is_left = sender::send_some(node).await;
    let mut sleep_ns = if is_left { 0 } else { u64::MAX };
    for device in &node.devices {
        disk_error::look_after(device);
        if device.may_go_diskless() {
            after::go_diskless(device).await;
        }
        sleep_ns = sleep_ns.min(resync::turn(device).await);
    }
    sleep_ns.min(resync::retry_aside(node).await)
}
