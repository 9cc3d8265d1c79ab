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

use super::device::Device;
use super::disk::{LocalRef, MetaFailed, Which};
use super::peer_request::{Kind, PeerRequest};
use super::{acks, after, bitmap_exchange, fence, handshake, resync, sender, Node};
use crate::canary::Canary;
use crate::drive::Content;
use crate::net::{Session, Socket};
use crate::packet::{Ack, Blocks, Packet, WriteFlags};
use crate::sim::MS;

/// Writes that are given to the disk before the ack of an epoch that ended in front of them.
const WRITES_BEFORE_ACK_MAX: u32 = 32;
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
    node.flags.epoch_ended.set(false);
    node.pings.set(0);
    node.ping_acks.set(0);
    if node.config.freezes {
        // A change before has ended, and none begins until the peer's state is known.
        node.sim.until(|| !node.flags.agreement.get()).await;
        node.state_sent.set(true);
        node.flush_worker().await;
        introduce(node).await;
    }
    let change = Request::conn(ConnState::WFReportParams);
    if node.change_connection(change, Node::SOFT).is_err() {
        node.state_sent.set(false);
        return;
    }
    node.sim
        .spawn(node.owner, acks::run(node.clone(), session.clone()));
    if !node.config.freezes {
        // Not as the module does it; what the seeds draw depends on it.
        node.state_sent.set(true);
        introduce(node).await;
    }
    while receive_arrived(node, session).await.is_ok() {}
    // Refused where the connection is going down already.
    let _ = node.change_connection(Request::conn(ConnState::ProtocolError), Node::HARD);
}

async fn introduce(node: &Rc<Node>) {
    for device in &node.devices {
        device.send_uuids(0).await;
        device.send_state(device.state()).await;
    }
}

/// Receives a packet, and all that have arrived by then: what they write goes to the disk, and then
/// the epochs that ended are acked.
async fn receive_arrived(node: &Rc<Node>, session: &Rc<Session>) -> Result<(), Dropped> {
    node.sim
        .until(|| {
            session.has_packet(node.id, Socket::Data)
                || session.is_gone(node.id)
                || node.is_interrupted()
        })
        .await;
    let mut left = WRITES_BEFORE_ACK_MAX;
    loop {
        receive_packet(node, session).await?;
        if node.flags.epoch_ended.get() {
            left -= 1;
        }
        if left == 0 || !session.has_packet(node.id, Socket::Data) {
            break;
        }
    }
    ack_ended(node).await;
    Ok(())
}

/// Acks what ended, where the disk has the writes that came behind it.
async fn ack_ended(node: &Rc<Node>) {
    if node.flags.epoch_ended.replace(false) {
        acks::send_barrier_acks(node).await;
    }
}

async fn receive_packet(node: &Rc<Node>, session: &Rc<Session>) -> Result<(), Dropped> {
    if node.is_interrupted() {
        return Err(Dropped);
    }
    let Some((volume, packet)) = session.receive(node.id, Socket::Data) else {
        // The peer closed the socket.
        let _ = node.change_connection(Request::conn(ConnState::BrokenPipe), Node::HARD);
        return Err(Dropped);
    };
    if let Some(liveness) = &mut *node.liveness.borrow_mut() {
        liveness.on_received(node.sim.now_ns());
    }
    if !matches!(packet, Packet::Data(..)) {
        // Whatever it is it may take long.
        ack_ended(node).await;
    }
    if let Packet::Barrier(number) = packet {
        return receive_barrier(node, number).await;
    }
    let device = node.device(volume).ok_or(Dropped)?;
    receive(device, packet).await
}

async fn receive(device: &Rc<Device>, packet: Packet) -> Result<(), Dropped> {
    match packet {
        Packet::Data(id, blocks, number, flags) => {
            receive_write(device, id, blocks, number, flags).await
        }
        Packet::DataRequest(id, blocks) => receive_read(device, id, blocks).await,
        Packet::DataReply(id, blocks, sectors) => receive_data_reply(device, id, blocks, sectors),
        Packet::OutOfSync(blocks) => {
            receive_out_of_sync(device, blocks).await;
            Ok(())
        }
        Packet::Uuids(set, bits, flags) => handshake::receive_uuids(device, set, bits, flags).await,
        Packet::State(word) => handshake::receive_state(device, word).await,
        Packet::SyncUuid(uuid) => resync::receive_sync_uuid(device, uuid).await,
        Packet::Bitmap(compressed, bytes) => {
            bitmap_exchange::receive(device, compressed, &bytes).await
        }
        Packet::ResyncRequest(blocks) => resync::receive_request(device, blocks).await,
        Packet::ResyncReply(blocks, sectors) => {
            resync::receive_reply(device, blocks, sectors).await
        }
        Packet::ChangeRequest(mask, val) => {
            device.receive_change_request(Request { mask, val }).await;
            Ok(())
        }
        other => {
            device.tell(|| format!("unexpected packet {}", other.name()));
            Err(Dropped)
        }
    }
}

async fn receive_write(
    device: &Rc<Device>,
    id: BlockId,
    blocks: Blocks,
    number: u64,
    flags: WriteFlags,
) -> Result<(), Dropped> {
    let mut request = device.peer_request(Kind::Write, blocks, id);
    if request.local.is_none() {
        let node = device.node();
        sender::refuse(device, Ack::Negative, id, blocks).await;
        node.epochs.borrow_mut().write_refused();
        if let Some(local) = device.local() {
            local.set_out_of_sync(device, blocks.sector, blocks.size_bytes);
        }
        device.free_request(request);
        acks::send_barrier_acks(&node).await;
        return Ok(());
    }
    request.flags = flags;
    if claim(device, &mut request, RangeKind::PeerWrite)
        .await
        .is_err()
    {
        device.free_request(request);
        return Err(Dropped);
    }
    if device.state().has_peer_writes_alone() {
        remember_for_diskless_peer(device, &mut request).await;
    }
    join(device, &mut request).await;
    if request.local.is_none() {
        device.io_ended(&mut request, false);
        device.node().done.borrow_mut().push_back(request);
        return Ok(());
    }
    let content = Some(Content::Data(number));
    let sectors =
        (blocks.sector.0..blocks.sector.0 + blocks.sectors()).map(|at| (at, content.clone()));
    device.start_peer_write(request, sectors.collect());
    Ok(())
}

/// Enters the write into the epoch, and sends the acks that do not wait for the disk.
async fn join(device: &Rc<Device>, request: &mut PeerRequest) {
    request.epoch = Some(device.node().epochs.borrow_mut().write_received());
    let (id, blocks, flags) = (request.block_id, request.blocks, request.flags);
    if device.config.protocol == Protocol::B && flags.receive_ack {
        device
            .send_meta(Packet::Ack(Ack::Receive, id, blocks))
            .await
            .ok();
    }
    if device.config.has(Canary::AckBeforeWrite) && flags.write_ack {
        device
            .send_meta(Packet::Ack(Ack::Write, id, blocks))
            .await
            .ok();
        request.flags.write_ack = false;
    }
}

/// What the peer replied before, when a resync was given up since, lacks this write and is in sync
/// when it is on disk.
async fn receive_out_of_sync(device: &Rc<Device>, blocks: Blocks) {
    let Blocks { sector, size_bytes } = blocks;
    let mut claimed = Err(Refusal::Full);
    device
        .sim
        .until(|| {
            claimed =
                device
                    .ranges
                    .borrow_mut()
                    .try_insert(RangeKind::PeerWrite, sector, size_bytes);
            matches!(claimed, Ok(_) | Err(Refusal::Malformed)) || device.node().is_interrupted()
        })
        .await;
    if let Some(local) = device.local() {
        local.set_out_of_sync(device, sector, size_bytes);
    }
    let waited_for = claimed.is_ok_and(|range| device.ranges.borrow_mut().remove(range));
    if waited_for {
        device.retry_delayed();
    }
}

/// Waits until nothing in the way of a range is left, and claims it.
async fn claim(
    device: &Rc<Device>,
    request: &mut PeerRequest,
    kind: RangeKind,
) -> Result<(), Dropped> {
    let Blocks { sector, size_bytes } = request.blocks;
    let careless = device.config.has(Canary::ResyncOvertakesWrite);
    let mut claimed = None;
    device
        .sim
        .until(|| {
            let answer = device
                .ranges
                .borrow_mut()
                .try_insert(kind, sector, size_bytes);
            claimed = answer.ok();
            let conflicts = matches!(answer, Err(Refusal::Conflict(_) | Refusal::Full));
            !conflicts || careless || device.node().is_interrupted()
        })
        .await;
    request.range = claimed;
    if device.node().is_interrupted() {
        Err(Dropped)
    } else {
        Ok(())
    }
}

/// This node has the only copy: what is written is out of sync, and the activity log must know of
/// it before. Where it cannot, the write does without the disk, and fails.
async fn remember_for_diskless_peer(device: &Rc<Device>, request: &mut PeerRequest) {
    let Blocks { sector, size_bytes } = request.blocks;
    request.flags.may_set_in_sync = false;
    if !device.config.has(Canary::PeerWritesBeforeGeneration) {
        device
            .sim
            .until(|| device.flags.generations_due.get() == 0 || device.node().is_interrupted())
            .await;
        let vouches =
            !device.flags.metadata_unjudged.get() && device.state().disk >= DiskState::Inconsistent;
        request.local = request.local.take().filter(|_| vouches);
    }
    let (Some(local), Some(span)) = (&request.local, Span::of(sector, size_bytes)) else {
        return;
    };
    let held = hold_extents(device, local, span).await;
    local.set_out_of_sync(device, sector, size_bytes);
    request.span = held.then_some((local.id, span));
    if !held && !device.config.has(Canary::UnloggedWrite) {
        request.local = None;
    }
}

async fn hold_extents(device: &Rc<Device>, local: &LocalRef, span: Span) -> bool {
    loop {
        let kicks = device.kicks.get();
        let answer = local.activity_log.borrow_mut().reserve(span);
        match answer {
            Reserve::Hot => return true,
            Reserve::TooLarge => return false,
            Reserve::AfterCommit => return local.write_transaction(device).await.is_ok(),
            Reserve::Wait(_) => match local.write_transaction(device).await {
                Err(MetaFailed) => return false,
                Ok(true) => {}
                // Extents are given back by requests that end, which nobody sees to once the
                // connection does.
                Ok(false) if device.node().is_interrupted() => return false,
                Ok(false) => {
                    device
                        .sim
                        .until(|| device.kicks.get() != kicks || device.node().is_interrupted())
                        .await;
                }
            },
        }
    }
}

async fn receive_read(device: &Rc<Device>, id: BlockId, blocks: Blocks) -> Result<(), Dropped> {
    let request = device.peer_request(Kind::Read, blocks, id);
    if !device.serves_reads() || request.local.is_none() {
        device.free_request(request);
        sender::refuse(device, Ack::NegativeRead, id, blocks).await;
        return Ok(());
    }
    device.start_peer_read(request);
    Ok(())
}

fn receive_data_reply(
    device: &Rc<Device>,
    id: BlockId,
    blocks: Blocks,
    sectors: crate::drive::Sectors,
) -> Result<(), Dropped> {
    let found = device
        .node()
        .log
        .borrow()
        .lookup(id, blocks.sector, blocks.size_bytes);
    let index = found.map_err(|_| Dropped)?;
    device.node().request(index).with(|parts| {
        if !parts.is_over {
            parts.master.read.replace(sectors);
        }
    });
    if device.node().happens(index, Event::DataReceived) {
        Ok(())
    } else {
        Err(Dropped)
    }
}

impl Device {
    /// What the peer wrote could not be flushed.
    pub(crate) fn data_not_flushed(&self) {
        self.node().flags.flush_failed.set(true);
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
    if too_early {
        acks::send_barrier_acks(node).await;
    }
    let next_is_open = step == BarrierStep::GoOn || settle(node).await?;
    node.flags.epoch_ended.set(true);
    if !next_is_open {
        ack_ended(node).await;
    }
    Ok(())
}

/// Waits until the disks have what came before; whether the next epoch is open then.
async fn settle(node: &Rc<Node>) -> Result<bool, Dropped> {
    wait(node, || node.epochs.borrow().active() == 0).await?;
    flush_all(node).await?;
    Ok(node.epochs.borrow_mut().settled())
}

/// Waits for a condition, or the end of the connection.
async fn wait(node: &Rc<Node>, mut condition: impl FnMut() -> bool) -> Result<(), Dropped> {
    let mut held = false;
    node.sim
        .until(|| {
            held = condition();
            held || node.is_interrupted()
        })
        .await;
    if held {
        Ok(())
    } else {
        Err(Dropped)
    }
}

fn flushed_devices(node: &Node) -> &[Rc<Device>] {
    if node.config.has(Canary::OneVolumeFlushed) {
        &node.devices[..1]
    } else {
        &node.devices
    }
}

/// Flushes the caches of all disks, side by side.
///
/// A disk that fails to costs the connection, also when that was as it was let go.
async fn flush_all(node: &Rc<Node>) -> Result<(), Dropped> {
    // One that began early may be all that is needed.
    wait(node, || node.flushes.get() == 0).await?;
    for device in flushed_devices(node) {
        match device.local() {
            Some(local) => start_flush(device, local),
            // Whoever lets a disk go flushes it.
            None => wait(node, || device.retired.borrow().is_none()).await?,
        }
    }
    wait(node, || node.flushes.get() == 0).await?;
    if node.flags.flush_failed.get() && !node.config.has(Canary::FailedFlushVouchedFor) {
        node.tell(|| "what the peer wrote could not be flushed, dropping connection".into());
        return Err(Dropped);
    }
    Ok(())
}

/// Flushes the disks where the epoch looks complete: the flush goes on while the acks are on their
/// way, and the barrier with the next write. On the asender.
pub(crate) fn flush_early(node: &Rc<Node>) {
    let is_busy = node.flushes.get() != 0 || node.is_interrupted();
    if is_busy || !node.epochs.borrow_mut().may_flush_early() {
        return;
    }
    for device in flushed_devices(node) {
        if let Some(local) = device.local() {
            start_flush(device, local);
        }
    }
}

/// Flushes the cache of a disk, if there may be anything in it.
fn start_flush(device: &Rc<Device>, local: LocalRef) {
    let (is_stable, since) = {
        let cache = local.cache.borrow();
        (cache.is_stable(), cache.flush_begins())
    };
    if is_stable {
        return;
    }
    let node = device.node();
    node.flushes.set(node.flushes.get() + 1);
    let data = local.data.clone();
    let device = device.clone();
    data.flush(node.owner, move |flushed| {
        if flushed {
            local.cache.borrow_mut().flushed(since);
        } else {
            device.data_not_flushed();
        }
        drop(local);
        node.flushes.set(node.flushes.get() - 1);
    });
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
            node.peer_requests.get() == 0 && node.flushes.get() == 0
        })
        .await;
    node.epochs.borrow_mut().reset();
    // Writes are told done as this node's alone only after that is a generation of its own.
    node.flush_worker().await;
    sender::drop_queued(node);
    // Requests that wait for the peer end, or are kept where I/O is frozen until it is back.
    if node.is_suspended() {
        after::freeze_requests(node).await;
    } else {
        node.fail_for_lost_connection();
    }
    for device in &node.devices {
        resync::connection_lost(device);
        device.peer.set(None);
        device.peer_bitmap.replace(None);
    }
    for device in &node.devices {
        if let Some(local) = device.local() {
            local.write_bitmap(device, Which::Dirty).await;
        }
    }
    node.state_sent.set(false);
    fence::fence_lost_peer(node);
    let next = if node.conn() == ConnState::Disconnecting {
        ConnState::StandAlone
    } else {
        ConnState::Unconnected
    };
    let _ = node.change_connection(Request::conn(next), Node::HARD);
}
