// SPDX-License-Identifier: GPL-2.0

//! The helper that fences a lost peer, as `io/fence.rs` runs it. The world is the helper.

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::fencing::{self, Verdict};
use drbd_engine::state::{ConnState, DiskState, Fencing};

use super::Node;

/// Who fences the peer of a node.
#[derive(Default)]
pub struct Fencer {
    wanted: Cell<bool>,
    runs: Cell<bool>,
    /// The helper runs.
    pub asks: Cell<bool>,
    /// What it found out; nothing where it is broken.
    pub answer: Cell<Option<Option<Verdict>>>,
    /// Nobody is asked about the peer.
    pub(crate) not_fenced: Cell<bool>,
    /// How often a volume was connected.
    pub(crate) connects: Cell<u32>,
}

/// A Primary that has just lost its peer keeps it from going on by itself, if it is configured so.
pub(crate) fn fence_lost_peer(node: &Rc<Node>) {
    if !is_due(node) || policy(node) == Some(Fencing::DontCare) {
        return;
    }
    node.fencer.wanted.set(true);
    if node.fencer.runs.replace(true) {
        return;
    }
    let subject = node.clone();
    node.sim.spawn(node.owner, async move {
        while subject.fencer.wanted.replace(false) {
            if is_due(&subject) {
                fence_peer(&subject).await;
            }
        }
        subject.fencer.runs.set(false);
    });
}

fn is_due(node: &Node) -> bool {
    fencing::is_due(node.conn(), &node.aggregate())
}

/// Fences the peer of a connection that is down; whether its data are known to be outdated then.
pub(crate) async fn fence_peer(node: &Rc<Node>) -> bool {
    if node.conn() >= ConnState::WFReportParams {
        return false;
    }
    let connects = node.fencer.connects.get();
    match policy(node) {
        None => {
            node.fencer.not_fenced.set(true);
            node.sim.touch();
            return false;
        }
        Some(Fencing::DontCare) => return true,
        Some(_) => {
            if !ask(node, connects).await {
                return false;
            }
        }
    }
    node.aggregate().highest_pdsk <= DiskState::Outdated
}

fn policy(node: &Node) -> Option<Fencing> {
    let has_data = node
        .devices
        .iter()
        .any(|device| device.state().disk >= DiskState::Consistent && device.local().is_some());
    has_data.then_some(node.config.fencing)
}

async fn ask(node: &Rc<Node>, connects: u32) -> bool {
    let fencer = &node.fencer;
    // One helper at a time.
    node.sim.until(|| !fencer.asks.get()).await;
    node.tell(|| "helper fence-peer".into());
    fencer.asks.set(true);
    node.sim.touch();
    node.sim.until(|| fencer.answer.get().is_some()).await;
    let answer = fencer.answer.take().flatten();
    fencer.asks.set(false);
    node.tell(|| format!("helper fence-peer returned {answer:?}"));
    let Some(verdict) = answer else { return false };
    let (change, _) = verdict.act(&node.aggregate());
    if fencer.connects.get() == connects && node.conn() < ConnState::WFReportParams {
        let _ = node.change_connection(change, Node::SOFT);
    }
    true
}
