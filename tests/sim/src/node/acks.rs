// SPDX-License-Identifier: GPL-2.0

//! The asender: receives acks and pings, and acks what the peer's requests achieved.

use std::rc::Rc;

use drbd_engine::config::Protocol;
use drbd_engine::request::{Event, RequestState};
use drbd_engine::state::{Change as Request, ConnState};
use drbd_engine::timer::LivenessAction;
use drbd_engine::transfer_log::LookupError;
use drbd_engine::types::{BlockId, VolumeNr};

use super::device::Device;
use super::peer_request::{Kind, PeerRequest};
use super::receiver::{flush_early, Dropped};
use super::sender::NotSent;
use super::{resync, Node};
use crate::canary::Canary;
use crate::net::{Session, Socket};
use crate::packet::{Ack, Blocks, Packet};

/// The thread.
pub(crate) async fn run(node: Rc<Node>, session: Rc<Session>) {
    loop {
        let now_ns = node.sim.now_ns();
        let deadline_ns = node
            .liveness
            .borrow()
            .as_ref()
            .map_or(0, |liveness| liveness.deadline());
        let wait_ns = deadline_ns.saturating_sub(now_ns);
        node.sim
            .until_timeout(node.owner, wait_ns, || {
                session.has_packet(node.id, Socket::Meta)
                    || !node.done.borrow().is_empty()
                    || session.is_gone(node.id)
                    || node.is_interrupted()
            })
            .await;
        if node.is_interrupted() || !node.is_over(&session) {
            return;
        }
        if let Some((volume, packet)) = session.receive(node.id, Socket::Meta) {
            if receive(&node, volume, packet).await.is_err() {
                let _ = node.change_connection(Request::conn(ConnState::ProtocolError), Node::HARD);
                return;
            }
        } else if session.is_gone(node.id) {
            let _ = node.change_connection(Request::conn(ConnState::NetworkFailure), Node::HARD);
            return;
        }
        let next = node.done.borrow_mut().pop_front();
        if let Some(request) = next {
            finish(&node, request).await;
        }
        if look_after_peer(&node).await.is_err() {
            return;
        }
    }
}

impl Node {
    /// Whether this session is still the node's.
    fn is_over(&self, session: &Rc<Session>) -> bool {
        self.session
            .borrow()
            .as_ref()
            .is_some_and(|now| Rc::ptr_eq(now, session))
    }

    async fn send_ping(&self) -> Result<(), NotSent> {
        self.pings.set(self.pings.get() + 1);
        self.send_meta(VolumeNr(0), Packet::Ping).await
    }

    /// Waits until the peer has answered a ping: what was sent to it on the meta socket before, it
    /// has received by then. A ping that was under way does not count.
    pub(crate) async fn ping_peer(&self) -> bool {
        let wanted = self.pings.get() + 1;
        if self.send_ping().await.is_err() {
            return false;
        }
        let answered = || self.ping_acks.get() >= wanted;
        self.sim.until(|| answered() || self.is_interrupted()).await;
        answered()
    }
}

async fn look_after_peer(node: &Rc<Node>) -> Result<(), Dropped> {
    let now_ns = node.sim.now_ns();
    let action = node
        .liveness
        .borrow_mut()
        .as_mut()
        .and_then(|liveness| liveness.poll(now_ns));
    match action {
        None => Ok(()),
        Some(LivenessAction::SendPing) => {
            node.send_ping().await.ok();
            Ok(())
        }
        Some(LivenessAction::PeerDead) => {
            node.tell(|| "PingAck did not arrive in time.".into());
            let _ = node.change_connection(Request::conn(ConnState::NetworkFailure), Node::HARD);
            Err(Dropped)
        }
    }
}

async fn receive(node: &Rc<Node>, volume: VolumeNr, packet: Packet) -> Result<(), Dropped> {
    if let Some(liveness) = &mut *node.liveness.borrow_mut() {
        let now_ns = node.sim.now_ns();
        if matches!(packet, Packet::PingAck) {
            liveness.on_ping_ack(now_ns);
        } else {
            liveness.on_received(now_ns);
        }
    }
    match packet {
        Packet::Ping => {
            node.send_meta(VolumeNr(0), Packet::PingAck).await.ok();
            Ok(())
        }
        Packet::PingAck => {
            node.ping_acks.set(node.ping_acks.get() + 1);
            Ok(())
        }
        Packet::ChangeReply(code) => {
            node.flags.change_answer.set(Some(code));
            Ok(())
        }
        Packet::BarrierAck(number, size) => receive_barrier_ack(node, number, size),
        Packet::Ack(ack, id, blocks) => {
            let device = node.device(volume).ok_or(Dropped)?;
            if id != BlockId::SYNCER {
                return receive_ack(node, device, ack, id, blocks);
            }
            resync::receive_ack(device, ack, blocks);
            Ok(())
        }
        _ => Err(Dropped),
    }
}

fn receive_ack(
    node: &Node,
    device: &Device,
    ack: Ack,
    id: BlockId,
    blocks: Blocks,
) -> Result<(), Dropped> {
    let found = node
        .log
        .borrow()
        .lookup(id, blocks.sector, blocks.size_bytes);
    let index = match found {
        Ok(index) => index,
        Err(LookupError::Unknown) if ack == Ack::Negative => {
            if let Some(local) = device.local() {
                local.set_out_of_sync(device, blocks.sector, blocks.size_bytes);
            }
            device.flags.peer_refused.set(true);
            return Ok(());
        }
        Err(error) => {
            node.tell(|| format!("{ack:?} for {id}: {error:?}"));
            return Err(Dropped);
        }
    };
    let event = match ack {
        Ack::Receive => Event::ReceiveAcked,
        Ack::Write => Event::WriteAcked { in_sync: false },
        Ack::ResyncWrite => Event::WriteAcked { in_sync: true },
        Ack::Negative
            if node.config.has(Canary::NegativeAckBelieved)
                && node.config.protocol == Protocol::C =>
        {
            Event::WriteAcked { in_sync: false }
        }
        Ack::Negative | Ack::NegativeRead | Ack::NegativeResyncRead | Ack::ResyncCancelled => {
            Event::NegAcked
        }
    };
    if node.happens(index, event) {
        if ack == Ack::Negative {
            device.flags.peer_refused.set(true);
        }
        Ok(())
    } else {
        node.tell(|| format!("{ack:?} makes no sense"));
        Err(Dropped)
    }
}

fn receive_barrier_ack(node: &Rc<Node>, number: u32, size: u32) -> Result<(), Dropped> {
    let now_ns = node.sim.now_ns();
    let acked = node.log.borrow_mut().barrier_ack(number, size, now_ns);
    if let Err(error) = acked {
        node.tell(|| format!("BAD! BarrierAck #{number}: {error:?}"));
        return Err(Dropped);
    }
    loop {
        let next = node.log.borrow_mut().next_acked();
        let Some(index) = next else { return Ok(()) };
        let request = node.request(index);
        let is_written = request.state().has(RequestState::NET_OK);
        let parts = request.with(|parts| (parts.device.clone(), parts.master.clone()));
        if let Some((device, master)) = parts {
            let mut oracle = device.oracle.borrow_mut();
            oracle.epoch_acked(node.id, master.number);
            if is_written {
                oracle.peer_flushed(node.id, &master);
            }
        }
        if !node.happens(index, Event::BarrierAcked) {
            return Err(Dropped);
        }
    }
}

/// A write of the peer, or of a resync, is on the disk: acks it.
async fn finish(node: &Rc<Node>, request: PeerRequest) {
    if request.kind == Kind::ResyncWrite {
        resync::finish_write(request).await;
        return;
    }
    let device = request.device.clone();
    let blocks = request.blocks;
    if !request.ok {
        // Told whatever the protocol.
        let packet = Packet::Ack(Ack::Negative, request.block_id, blocks);
        device.send_meta(packet).await.ok();
    } else if request.flags.write_ack {
        let conn = device.state().conn;
        let resyncs = conn >= ConnState::SyncSource && conn <= ConnState::PausedSyncT;
        let in_sync = resyncs && request.flags.may_set_in_sync;
        if in_sync {
            if let Some(local) = device.local() {
                local.set_in_sync(&device, blocks.sector, blocks.size_bytes);
            }
        }
        let ack = if in_sync {
            Ack::ResyncWrite
        } else {
            Ack::Write
        };
        let packet = Packet::Ack(ack, request.block_id, blocks);
        device.send_meta(packet).await.ok();
    }
    let epoch = request.epoch;
    device.free_request(request);
    if let Some(epoch) = epoch {
        node.epochs.borrow_mut().write_done(epoch);
    }
    send_barrier_acks(node).await;
    flush_early(node);
}

/// Sends the barrier acks that are due.
pub(crate) async fn send_barrier_acks(node: &Rc<Node>) {
    loop {
        let next = node.epochs.borrow_mut().next_ack();
        let Some(ack) = next else { return };
        let number = u32::from_be_bytes(ack.cookie);
        let packet = Packet::BarrierAck(number, ack.set_size);
        node.send_meta(VolumeNr(0), packet).await.ok();
    }
}

/// The connection is gone: requests that ended have nobody to be told to.
pub(crate) fn finish_silently(node: &Rc<Node>) {
    for request in node.done.take().into_iter().chain(node.answers.take()) {
        if let Some(epoch) = request.epoch {
            node.epochs.borrow_mut().write_done(epoch);
        }
        let device = request.device.clone();
        device.free_request(request);
    }
}
