// SPDX-License-Identifier: GPL-2.0

//! The receiver: connects, greets, receives until the connection breaks, and cleans up.

use std::rc::Rc;

use drbd_engine::activity_log::{Reserve, Span};
use drbd_engine::config::Protocol;
use drbd_engine::epoch::{BarrierStep, WriteOrdering};
use drbd_engine::range::{Kind as RangeKind, Refusal};
use drbd_engine::request::{Event, Writer};
use drbd_engine::state::{Change as Request, ConnState, DiskState};
use drbd_engine::timer::Liveness;
use drbd_engine::types::BlockId;

use super::disk::{LocalRef, MetaFailed, Which};
use super::peer_request::{Kind, PeerRequest};
use super::{acks, bitmap_exchange, handshake, resync, sender, Node};
use crate::canary::Canary;
use crate::drive::Content;
use crate::net::{Session, Socket};
use crate::packet::{Ack, Blocks, Packet, WriteFlags};
use crate::sim::MS;

/// `ping-int`.
const PING_INTERVAL_NS: u64 = 1000 * MS;
/// `ping-timeout`.
const PING_TIMEOUT_NS: u64 = 500 * MS;

/// The connection is to be dropped.
pub(crate) struct Dropped;

impl Node {
    /// Starts the receiver unless it runs.
    pub(crate) fn start_receiver(self: &Rc<Self>) {
        if !self.receiver_runs.replace(true) {
            self.sim.spawn(self.owner, run(self.clone()));
        }
    }

    fn wants_connection(&self) -> bool {
        !matches!(
            self.conn(),
            ConnState::Disconnecting | ConnState::StandAlone
        )
    }
}

/// The thread.
async fn run(node: Rc<Node>) {
    while node.wants_connection() {
        node.flags.interrupted.set(false);
        if let Some(session) = connect(&node).await {
            serve(&node, &session).await;
            clean_up(&node).await;
        }
    }
    // Whoever asked for it waits until nothing of the connection is left.
    let _ = node.change_connection(Request::conn(ConnState::StandAlone), Node::HARD);
    node.receiver_runs.set(false);
    node.sim.touch();
}

async fn connect(node: &Rc<Node>) -> Option<Rc<Session>> {
    let _ = node.change_connection(Request::conn(ConnState::WFConnection), Node::HARD);
    let cell = node.net.offer(node.id);
    node.sim
        .until(|| cell.borrow().is_some() || !node.wants_connection())
        .await;
    node.net.withdraw(node.id);
    let session = cell.take()?;
    if !node.wants_connection() {
        session.shut_down(node.id);
        return None;
    }
    Some(session)
}

async fn serve(node: &Rc<Node>, session: &Rc<Session>) {
    node.session.replace(Some(session.clone()));
    let now_ns = node.sim.now_ns();
    node.liveness.replace(Some(Liveness::new(
        PING_INTERVAL_NS,
        PING_TIMEOUT_NS,
        now_ns,
    )));
    node.flags.flush_failed.set(false);
    let change = Request::conn(ConnState::WFReportParams);
    if node.change_connection(change, Node::SOFT).is_err() {
        return;
    }
    node.sim
        .spawn(node.owner, acks::run(node.clone(), session.clone()));
    node.state_sent.set(true);
    node.send_uuids(0).await;
    node.send_state(node.state()).await;
    loop {
        node.sim
            .until(|| {
                session.has_packet(node.id, Socket::Data)
                    || session.is_gone(node.id)
                    || node.is_interrupted()
            })
            .await;
        if node.is_interrupted() {
            return;
        }
        let Some(packet) = session.receive(node.id, Socket::Data) else {
            // The peer closed the socket.
            let _ = node.change_connection(Request::conn(ConnState::BrokenPipe), Node::HARD);
            return;
        };
        if let Some(liveness) = &mut *node.liveness.borrow_mut() {
            liveness.on_received(node.sim.now_ns());
        }
        if receive(node, packet).await.is_err() {
            let _ = node.change_connection(Request::conn(ConnState::ProtocolError), Node::HARD);
            return;
        }
    }
}

async fn receive(node: &Rc<Node>, packet: Packet) -> Result<(), Dropped> {
    match packet {
        Packet::Data(id, blocks, number, flags) => {
            receive_write(node, id, blocks, number, flags).await
        }
        Packet::DataRequest(id, blocks) => receive_read(node, id, blocks).await,
        Packet::DataReply(id, blocks, sectors) => receive_data_reply(node, id, blocks, sectors),
        Packet::OutOfSync(blocks) => {
            receive_out_of_sync(node, blocks).await;
            Ok(())
        }
        Packet::Barrier(number) => receive_barrier(node, number).await,
        Packet::Uuids(set, bits, flags) => handshake::receive_uuids(node, set, bits, flags).await,
        Packet::State(word) => handshake::receive_state(node, word).await,
        Packet::SyncUuid(uuid) => resync::receive_sync_uuid(node, uuid).await,
        Packet::Bitmap(compressed, bytes) => {
            bitmap_exchange::receive(node, compressed, &bytes).await
        }
        Packet::ResyncRequest(blocks) => resync::receive_request(node, blocks).await,
        Packet::ResyncReply(blocks, sectors) => resync::receive_reply(node, blocks, sectors).await,
        Packet::ChangeRequest(mask, val) => {
            node.receive_change_request(Request { mask, val }).await;
            Ok(())
        }
        other => {
            node.tell(|| format!("unexpected packet {}", other.name()));
            Err(Dropped)
        }
    }
}

async fn receive_write(
    node: &Rc<Node>,
    id: BlockId,
    blocks: Blocks,
    number: u64,
    flags: WriteFlags,
) -> Result<(), Dropped> {
    let mut request = node.peer_request(Kind::Write, blocks, id);
    let epoch = node.epochs.borrow_mut().write_received();
    if request.local.is_none() {
        sender::refuse(node, Ack::Negative, id, blocks).await;
        node.epochs.borrow_mut().write_done(epoch);
        node.free_request(request);
        acks::send_barrier_acks(node).await;
        return Ok(());
    }
    request.epoch = Some(epoch);
    request.flags = flags;
    if node.config.protocol == Protocol::B && flags.receive_ack {
        node.send_meta(Packet::Ack(Ack::Receive, id, blocks))
            .await
            .ok();
    }
    if node.config.has(Canary::AckBeforeWrite) && flags.write_ack {
        node.send_meta(Packet::Ack(Ack::Write, id, blocks))
            .await
            .ok();
        request.flags.write_ack = false;
    }
    if claim(node, &mut request, RangeKind::PeerWrite)
        .await
        .is_err()
    {
        node.epochs.borrow_mut().write_done(epoch);
        node.free_request(request);
        return Err(Dropped);
    }
    if node.state().has_peer_writes_alone() {
        remember_for_diskless_peer(node, &mut request).await;
        if request.local.is_none() {
            node.io_ended(&mut request, false);
            node.done.borrow_mut().push_back(request);
            return Ok(());
        }
    }
    let content = Some(Content::Data(number));
    let sectors =
        (blocks.sector.0..blocks.sector.0 + blocks.sectors()).map(|at| (at, content.clone()));
    node.start_peer_write(request, sectors.collect());
    Ok(())
}

/// What the peer replied before, when a resync was given up since, lacks this write and is in sync
/// when it is on disk.
async fn receive_out_of_sync(node: &Rc<Node>, blocks: Blocks) {
    let Blocks { sector, size_bytes } = blocks;
    let mut claimed = Err(Refusal::Full);
    node.sim
        .until(|| {
            claimed = node
                .ranges
                .borrow_mut()
                .try_insert(RangeKind::PeerWrite, sector, size_bytes);
            matches!(claimed, Ok(_) | Err(Refusal::Malformed)) || node.is_interrupted()
        })
        .await;
    if let Some(local) = node.local() {
        local.set_out_of_sync(node, sector, size_bytes);
    }
    let waited_for = claimed.is_ok_and(|range| node.ranges.borrow_mut().remove(range));
    if waited_for {
        node.retry_delayed();
    }
}

/// Waits until nothing in the way of a range is left, and claims it.
async fn claim(node: &Rc<Node>, request: &mut PeerRequest, kind: RangeKind) -> Result<(), Dropped> {
    let Blocks { sector, size_bytes } = request.blocks;
    let careless = node.config.has(Canary::ResyncOvertakesWrite);
    let mut claimed = None;
    node.sim
        .until(|| {
            let answer = node
                .ranges
                .borrow_mut()
                .try_insert(kind, sector, size_bytes);
            claimed = answer.ok();
            let conflicts = matches!(answer, Err(Refusal::Conflict(_) | Refusal::Full));
            !conflicts || careless || node.is_interrupted()
        })
        .await;
    request.range = claimed;
    if node.is_interrupted() {
        Err(Dropped)
    } else {
        Ok(())
    }
}

/// This node has the only copy: what is written is out of sync, and the activity log must know of
/// it before. Where it cannot, the write does without the disk, and fails.
async fn remember_for_diskless_peer(node: &Rc<Node>, request: &mut PeerRequest) {
    let Blocks { sector, size_bytes } = request.blocks;
    request.flags.may_set_in_sync = false;
    if !node.config.has(Canary::PeerWritesBeforeGeneration) {
        node.sim
            .until(|| node.flags.generations_due.get() == 0 || node.is_interrupted())
            .await;
        let vouches =
            !node.flags.metadata_unjudged.get() && node.state().disk >= DiskState::Inconsistent;
        request.local = request.local.take().filter(|_| vouches);
    }
    let (Some(local), Some(span)) = (&request.local, Span::of(sector, size_bytes)) else {
        return;
    };
    let held = hold_extents(node, local, span).await;
    local.set_out_of_sync(node, sector, size_bytes);
    request.span = held.then_some((local.id, span));
    if !held && !node.config.has(Canary::UnloggedWrite) {
        request.local = None;
    }
}

async fn hold_extents(node: &Rc<Node>, local: &LocalRef, span: Span) -> bool {
    loop {
        let kicks = node.kicks.get();
        let answer = local.activity_log.borrow_mut().reserve(span);
        match answer {
            Reserve::Hot => return true,
            Reserve::TooLarge => return false,
            Reserve::AfterCommit => return local.write_transaction(node).await.is_ok(),
            Reserve::Wait(_) => match local.write_transaction(node).await {
                Err(MetaFailed) => return false,
                Ok(true) => {}
                // Extents are given back by requests that end, which nobody sees to once the
                // connection does.
                Ok(false) if node.is_interrupted() => return false,
                Ok(false) => {
                    node.sim
                        .until(|| node.kicks.get() != kicks || node.is_interrupted())
                        .await;
                }
            },
        }
    }
}

async fn receive_read(node: &Rc<Node>, id: BlockId, blocks: Blocks) -> Result<(), Dropped> {
    let request = node.peer_request(Kind::Read, blocks, id);
    if !node.serves_reads() || request.local.is_none() {
        node.free_request(request);
        sender::refuse(node, Ack::NegativeRead, id, blocks).await;
        return Ok(());
    }
    node.start_peer_read(request);
    Ok(())
}

fn receive_data_reply(
    node: &Rc<Node>,
    id: BlockId,
    blocks: Blocks,
    sectors: crate::drive::Sectors,
) -> Result<(), Dropped> {
    let found = node
        .log
        .borrow()
        .lookup(id, blocks.sector, blocks.size_bytes);
    let index = found.map_err(|_| Dropped)?;
    node.request(index).with(|parts| {
        if !parts.is_over {
            parts.master.read.replace(sectors);
        }
    });
    if node.happens(index, Event::DataReceived) {
        Ok(())
    } else {
        Err(Dropped)
    }
}

impl Node {
    /// What the peer wrote could not be flushed.
    pub(crate) fn data_not_flushed(&self) {
        self.flags.flush_failed.set(true);
        self.note_lack(Writer::Peer);
        self.flags.disk_unjudged.set(true);
        self.flags.disk_failed.set(true);
        self.sim.touch();
    }
}

async fn receive_barrier(node: &Rc<Node>, number: u32) -> Result<(), Dropped> {
    let too_early = node.config.has(Canary::AckBeforeFlush);
    let ordering = if too_early {
        WriteOrdering::Drain
    } else {
        WriteOrdering::Flush
    };
    let step = node
        .epochs
        .borrow_mut()
        .barrier(number.to_be_bytes(), ordering)
        .map_err(|_| Dropped)?;
    acks::send_barrier_acks(node).await;
    if step == BarrierStep::GoOn {
        return Ok(());
    }
    node.sim
        .until(|| node.epochs.borrow().active() == 0 || node.is_interrupted())
        .await;
    if node.is_interrupted() {
        return Err(Dropped);
    }
    // Whoever lets a disk go flushes it.
    node.sim
        .until(|| node.retired.borrow().is_none() || node.is_interrupted())
        .await;
    if node.is_interrupted() {
        return Err(Dropped);
    }
    if let Some(local) = node.local() {
        let is_stable = local.cache.borrow().is_stable();
        if !is_stable && !local.flush_data(node).await {
            node.data_not_flushed();
        }
    }
    if node.flags.flush_failed.get() && !node.config.has(Canary::FailedFlushVouchedFor) {
        node.tell(|| "what the peer wrote could not be flushed, dropping connection".into());
        return Err(Dropped);
    }
    // The acks go first here, whether the next epoch is open or not.
    let _ = node.epochs.borrow_mut().settled();
    acks::send_barrier_acks(node).await;
    Ok(())
}

/// The connection is gone: what belongs to it is ended, in this order.
async fn clean_up(node: &Rc<Node>) {
    let conn = node.conn();
    if !conn.is_failure() && conn != ConnState::Disconnecting {
        let _ = node.change_connection(Request::conn(ConnState::NetworkFailure), Node::HARD);
    }
    node.interrupt();
    node.session.replace(None);
    node.liveness.replace(None);
    // Writes of the peer that are under way end on the disk, and nobody is told.
    node.sim
        .until(|| {
            acks::finish_silently(node);
            node.peer_requests.get() == 0
        })
        .await;
    node.epochs.borrow_mut().reset();
    // Writes are told done as this node's alone only after that is a generation of its own.
    node.flush_worker().await;
    resync::connection_lost(node);
    node.peer.set(None);
    node.peer_bitmap.replace(None);
    node.log.borrow_mut().connection_lost();
    node.walk_log(Event::ConnectionLost);
    if let Some(local) = node.local() {
        local.write_bitmap(node, Which::Dirty).await;
    }
    node.state_sent.set(false);
    let next = if node.conn() == ConnState::Disconnecting {
        ConnState::StandAlone
    } else {
        ConnState::Unconnected
    };
    let _ = node.change_connection(Request::conn(next), Node::HARD);
}
