// SPDX-License-Identifier: GPL-2.0

//! Sending, as `io/sender.rs` does it.

use std::rc::Rc;

use drbd_engine::request::{Event, RequestState};
use drbd_engine::state::{Change as Request, ConnState, State};
use drbd_engine::transfer_log::{Barrier, Index, Part};
use drbd_engine::types::{BlockId, VolumeNr};

use super::device::Device;
use super::peer_request::{Kind, PeerRequest};
use super::request::Operation;
use super::{resync, Node};
use crate::canary::Canary;
use crate::net::Socket;
use crate::packet::{Ack, Packet, WriteFlags};

/// A packet could not be sent: there is no connection any more.
pub(crate) struct NotSent;

impl Node {
    async fn send_on(
        &self,
        socket: Socket,
        volume: VolumeNr,
        packet: Packet,
    ) -> Result<(), NotSent> {
        let Some(session) = self.session.borrow().clone() else {
            return Err(NotSent);
        };
        self.sim
            .until(|| session.is_gone(self.id) || session.has_room(self.id, socket))
            .await;
        if session.send(self.id, socket, volume, packet).is_ok() {
            return Ok(());
        }
        // Refused only where the connection is going down already.
        let _ = self.change_connection(Request::conn(ConnState::BrokenPipe), Node::HARD);
        Err(NotSent)
    }

    /// Sends on the data socket.
    pub(crate) async fn send_data(&self, volume: VolumeNr, packet: Packet) -> Result<(), NotSent> {
        self.send_on(Socket::Data, volume, packet).await
    }

    /// Sends on the meta socket.
    pub(crate) async fn send_meta(&self, volume: VolumeNr, packet: Packet) -> Result<(), NotSent> {
        self.send_on(Socket::Meta, volume, packet).await
    }
}

impl Device {
    /// Sends on the data socket.
    pub(crate) async fn send_data(&self, packet: Packet) -> Result<(), NotSent> {
        self.node().send_data(self.volume, packet).await
    }

    /// Sends on the meta socket.
    pub(crate) async fn send_meta(&self, packet: Packet) -> Result<(), NotSent> {
        self.node().send_meta(self.volume, packet).await
    }

    /// Sends a state of this volume.
    pub(crate) async fn send_state(&self, state: State) {
        self.send_data(Packet::State(state.to_word())).await.ok();
    }
}

/// The most requests that the worker sends before it looks after its chores.
const WORKER_REQUESTS_MAX: usize = 4;

/// Sends some of what the transfer log has queued, unless changes of state are to be told first.
/// Whether there may be more. On the worker.
pub(crate) async fn send_some(node: &Rc<Node>) -> bool {
    for _ in 0..WORKER_REQUESTS_MAX {
        let has_unsent_changes = !node.deferred.volumes.borrow().is_empty();
        let is_connected = node.session.borrow().is_some();
        if (is_connected && has_unsent_changes) || !send_next(node).await {
            return false;
        }
    }
    true
}

/// Sends what the transfer log has queued. On the worker, for the effects of a change.
pub(crate) async fn drain(node: &Rc<Node>) {
    while send_next(node).await {}
}

/// The connection is gone: no request waits to be sent on the next one.
pub(crate) fn drop_queued(node: &Rc<Node>) {
    while drop_next(node) {}
}

fn drop_next(node: &Rc<Node>) -> bool {
    let next = node.log.borrow_mut().next_to_send();
    let Some(index) = next else { return false };
    node.log.borrow_mut().cancel_send(index);
    node.happens(index, Event::NotSent);
    true
}

/// Sends the oldest request that waits for it, or the barrier of the last ones; whether there was
/// one.
async fn send_next(node: &Rc<Node>) -> bool {
    if node.session.borrow().is_none() {
        return drop_next(node);
    }
    {
        let now_ns = node.sim.now_ns();
        let next = node.log.borrow_mut().next_to_send();
        let Some(index) = next else {
            let barrier = node.log.borrow_mut().idle_barrier(now_ns);
            if let Some(Barrier { number }) = barrier {
                send_barrier(node, number).await.ok();
            }
            return false;
        };
        let (part, cookie, barrier) = {
            let mut log = node.log.borrow_mut();
            let part = log.get(index).map_or(Part::None, |entry| entry.part());
            (part, log.cookie(index), log.begin_send(index, now_ns))
        };
        let sent = send_part(node, index, part, cookie, barrier).await;
        let event = if sent.is_ok() {
            Event::HandedOver
        } else {
            Event::NotSent
        };
        node.happens(index, event);
    }
    true
}

async fn send_barrier(node: &Node, number: u32) -> Result<(), NotSent> {
    node.send_data(VolumeNr(0), Packet::Barrier(number)).await
}

async fn send_part(
    node: &Rc<Node>,
    index: Index,
    part: Part,
    cookie: Option<BlockId>,
    barrier: Option<Barrier>,
) -> Result<(), NotSent> {
    if let Some(Barrier { number }) = barrier {
        send_barrier(node, number).await?;
    }
    let cookie = cookie.ok_or(NotSent)?;
    let request = node.request(index);
    let parts = request.with(|parts| (parts.device.clone(), parts.master.clone()));
    let (device, master) = parts.ok_or(NotSent)?;
    let packet = match (part, master.operation) {
        (Part::Read, _) => Packet::DataRequest(cookie, master.blocks),
        (Part::OutOfSync, _) => Packet::OutOfSync(master.blocks),
        (Part::Write, Operation::Write(number)) => {
            let flags = write_flags(&device, request.state());
            Packet::Data(cookie, master.blocks, number, flags)
        }
        _ => return Err(NotSent),
    };
    device.send_data(packet).await
}

fn write_flags(device: &Device, state: RequestState) -> WriteFlags {
    let conn = device.state().conn;
    let resyncs = conn >= ConnState::SyncSource && conn <= ConnState::PausedSyncT;
    WriteFlags {
        receive_ack: state.has(RequestState::EXPECT_RECEIVE_ACK),
        write_ack: state.has(RequestState::EXPECT_WRITE_ACK) || resyncs,
        may_set_in_sync: resyncs,
        flushes_first: state.has(RequestState::FLUSHES_FIRST),
    }
}

/// A read for the peer, or for a resync, ended: answers it. On the worker.
pub(crate) async fn answer(request: PeerRequest) {
    let device = request.device.clone();
    let blocks = request.blocks;
    let sectors = request.sectors.clone();
    if !request.ok {
        let ack = if request.kind == Kind::Read {
            Ack::NegativeRead
        } else {
            resync::could_not_read(&device, blocks);
            Ack::NegativeResyncRead
        };
        refuse(&device, ack, request.block_id, blocks).await;
    } else if request.kind == Kind::Read {
        let packet = Packet::DataReply(request.block_id, blocks, sectors);
        device.send_data(packet).await.ok();
    } else {
        device
            .send_data(Packet::ResyncReply(blocks, sectors))
            .await
            .ok();
        if device.config.has(Canary::BitClearedTooEarly) {
            if let Some(local) = device.local() {
                local.set_in_sync(&device, blocks.sector, blocks.size_bytes);
            }
        }
    }
    device.free_request(request);
}

/// Says that a request of the peer cannot be served.
pub(crate) async fn refuse(device: &Device, ack: Ack, id: BlockId, blocks: crate::packet::Blocks) {
    device.send_meta(Packet::Ack(ack, id, blocks)).await.ok();
}
