// SPDX-License-Identifier: GPL-2.0

//! Resync, as `io/resync.rs` drives and serves it.

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::bitmap::{Bitmap, Run};
use drbd_engine::handshake::uuid_compare::UuidSet;
use drbd_engine::meta::MdFlags;
use drbd_engine::range::{Kind as RangeKind, Refusal};
use drbd_engine::resync::{Deferred, DirtyBits, Next, Planner, Progress, Request as Ask, Shape};
use drbd_engine::state::resync::{
    awaits_sync_uuid, finish as decide_finish, finishes_by_itself, start as decide_start,
    takes_sync_uuid, FinishUuids, Side,
};
use drbd_engine::state::{Change as Request, ConnState};
use drbd_engine::types::{BitNr, BlockId, Sector, BIT_SIZE};

use super::disk::{uuid_set, uuids_of, Which};
use super::peer_request::{Kind, PeerRequest};
use super::receiver::Dropped;
use super::{sender, Node};
use crate::canary::Canary;
use crate::drive::Sectors;
use crate::net::Socket;
use crate::packet::{Ack, Blocks, Packet};
use crate::sim::MS;

/// The agreed protocol version.
const APV: u32 = 101;
/// Blocks in use that the target remembers to ask for later.
const DEFERRED_MAX: usize = 8;
/// The largest request of a resync: small, so that many meet writes.
const REQUEST_BYTES: u32 = 1 << 20;
/// Sectors that are asked for at a time. The module's controller would ask for less, and the nodes
/// meet in fewer ways.
const WINDOW_SECTORS: u64 = 8192;

/// The target's plan.
pub(crate) type Plan = Planner<Vec<Deferred>>;

/// A resync under way.
#[derive(Default)]
pub(crate) struct Resync {
    progress: Progress,
    /// The target may ask for blocks.
    asks: bool,
    in_flight_sectors: u64,
    done: bool,
}

impl Resync {
    pub(crate) fn clear_done(&mut self) {
        self.done = false;
    }

    pub(crate) fn cancel(&mut self) {
        self.asks = false;
        self.in_flight_sectors = 0;
    }

    pub(crate) fn failed_bits(&self) -> u64 {
        self.progress.failed_bits()
    }

    fn fail(&mut self, size_bytes: u32) {
        self.progress.fail(size_bytes.div_ceil(BIT_SIZE));
    }
}

struct Dirty<'a>(Bitmap<&'a [Cell<u64>]>);

impl DirtyBits for Dirty<'_> {
    fn next_run(&self, from: BitNr, max_bits: u32) -> Option<(BitNr, u32)> {
        let Run { first, bits } = self.0.next_run(from, u64::from(max_bits))?;
        Some((first, u32::try_from(bits).unwrap_or(max_bits)))
    }
}

/// Does the chores that are about the resync; returns when to come again. On the worker.
pub(crate) async fn turn(node: &Rc<Node>) -> u64 {
    // A change that the peer is asked for must find the state that it was judged by.
    if node.flags.start_source.replace(false) {
        start(node, Side::Source).await;
    }
    if node.flags.resync_done.replace(false) {
        finish_if_done(node).await;
    }
    if node.state().conn == ConnState::SyncTarget {
        ask(node).await;
        return 10 * MS;
    }
    u64::MAX
}

async fn ask(node: &Rc<Node>) {
    let Some(local) = node.local() else { return };
    let Some(mut planner) = node.plan.borrow_mut().take() else {
        return;
    };
    planner.begin_turn();
    loop {
        let may_ask = {
            let resync = node.resync.borrow();
            resync.asks && resync.in_flight_sectors < WINDOW_SECTORS
        };
        if !may_ask || node.state().conn != ConnState::SyncTarget {
            break;
        }
        match planner.next(&Dirty(local.view(node))) {
            Next::Request(request) => {
                if !ask_for(node, &mut planner, &request).await {
                    break;
                }
            }
            Next::Blocked => break,
            Next::Done => {
                check_end(node, &mut planner);
                break;
            }
        }
    }
    if node.state().conn == ConnState::SyncTarget {
        node.plan.replace(Some(planner));
    }
}

async fn ask_for(node: &Rc<Node>, planner: &mut Plan, request: &Ask) -> bool {
    let blocks = Blocks {
        sector: request.sector,
        size_bytes: request.size,
    };
    let claimed =
        node.ranges
            .borrow_mut()
            .try_insert(RangeKind::ResyncRequest, request.sector, request.size);
    let range = match claimed {
        Ok(range) => range,
        Err(Refusal::Conflict(_) | Refusal::Full) => return planner.defer(request),
        Err(Refusal::Malformed) => return false,
    };
    node.resync.borrow_mut().in_flight_sectors += blocks.sectors();
    let sent = node.send_data(Packet::ResyncRequest(blocks)).await;
    if sent.is_err() {
        node.ranges.borrow_mut().remove(range);
        node.retry_delayed();
    }
    sent.is_ok()
}

fn check_end(node: &Rc<Node>, planner: &mut Plan) {
    let Some(local) = node.local() else { return };
    let resync = node.resync.borrow();
    let idle = resync.in_flight_sectors == 0;
    if idle && resync.progress.is_finished(local.set_bits(node)) {
        node.flags.resync_done.set(true);
    } else if idle {
        planner.restart();
    }
}

async fn finish_if_done(node: &Rc<Node>) {
    let Some(set_bits) = node.local().map(|local| local.set_bits(node)) else {
        return;
    };
    let Some(side) = Side::of(node.state().conn) else {
        return;
    };
    let failed = node.resync.borrow().failed_bits();
    if finishes_by_itself(side, APV, set_bits, failed) {
        finish(node).await;
    }
}

/// Waits until the peer has answered a ping.
pub(crate) async fn ping_peer(node: &Rc<Node>) -> bool {
    node.flags.got_ping_ack.set(false);
    if node.send_meta(Packet::Ping).await.is_err() {
        return false;
    }
    node.sim
        .until(|| node.flags.got_ping_ack.get() || node.is_interrupted())
        .await;
    node.flags.got_ping_ack.get()
}

/// Ends a resync.
pub(crate) async fn finish(node: &Rc<Node>) {
    if std::mem::replace(&mut node.resync.borrow_mut().done, true) {
        return;
    }
    if !ping_peer(node).await {
        return;
    }
    let old = node.state();
    let failed = node.resync.borrow().failed_bits();
    let Some(finish) = decide_finish(old, failed, 0) else {
        return;
    };
    let local = node.local();
    if let Some(local) = &local {
        // The generation must not say more than the disk holds.
        let careless = node.config.has(Canary::FinishedWithoutFlush);
        if !careless && !local.flush_data(node).await {
            node.resync.borrow_mut().done = false;
            node.flags.disk_failed.set(true);
            let _ = node.change_connection(Request::conn(ConnState::NetworkFailure), Node::HARD);
            return;
        }
    }
    // Generation and state change together: who loses the peer in between must not be told that
    // both are equal.
    let changed = node.change_state_if(finish.change, Node::SOFT, |state| {
        let goes_on = state.conn == old.conn;
        if let (true, Some(local)) = (goes_on && finish.uuids != FinishUuids::Keep, &local) {
            settle_uuids(node, local, finish.uuids);
        }
        goes_on
    });
    if let Some(local) = local {
        local.sync(node).await;
    }
    if changed.is_err() {
        node.resync.borrow_mut().done = false;
        return;
    }
    node.plan.replace(None);
    let mut resync = node.resync.borrow_mut();
    resync.progress = Progress::default();
    resync.cancel();
}

fn settle_uuids(node: &Rc<Node>, local: &super::disk::LocalDisk, uuids: FinishUuids) {
    let peer = node.peer.get();
    let primary = node.is_primary();
    let settled: UuidSet = local.change(|superblock| {
        match (uuids, peer) {
            (FinishUuids::AdoptPeer, Some(peer)) => {
                superblock
                    .uuids
                    .finish_as_sync_target(&uuids_of(&peer.set), primary);
            }
            _ => superblock.uuids.finish_as_sync_source(),
        }
        uuid_set(&superblock.uuids)
    });
    if let Some(mut peer) = node.peer.get() {
        peer.set = settled;
        node.peer.set(Some(peer));
    }
    node.exposed_uuid.set(settled.current);
    node.tell(|| format!("updated UUIDs {settled}"));
}

/// Starts a resync.
pub(crate) async fn start(node: &Rc<Node>, side: Side) {
    let state = node.state();
    if Side::of(state.conn).is_some() || state.conn < ConnState::Connected {
        return;
    }
    let Some(local) = node.local() else { return };
    let set_bits = local.set_bits(node);
    let start = match decide_start(node.state(), side, false, set_bits, &node.context()) {
        Ok(start) => start,
        Err(error) => {
            node.tell(|| format!("the resync does not start: {error}"));
            return;
        }
    };
    prepare(node, side, set_bits);
    let wanted = Request::all(start.changed.new);
    if node
        .change_state_if(wanted, Node::SOFT, |now| now == state)
        .is_err()
    {
        node.plan.replace(None);
        node.resync.borrow_mut().cancel();
        return;
    }
    node.tell(|| {
        format!(
            "Began resync as {} ({set_bits} bits set)",
            node.state().conn
        )
    });
    if set_bits == 0 && side == Side::Target {
        node.flags.resync_done.set(true);
    }
    node.sim.touch();
}

fn prepare(node: &Rc<Node>, side: Side, set_bits: u64) {
    let now_ns = node.sim.now_ns();
    if side == Side::Target {
        let shape = Shape::new(Sector(node.config.capacity_sectors), REQUEST_BYTES, 0);
        let plan = Planner::new(shape, vec![Deferred::default(); DEFERRED_MAX]);
        node.plan.replace(Some(plan));
    }
    node.flags.resync_doubted.set(false);
    let mut resync = node.resync.borrow_mut();
    resync.progress = Progress::start(now_ns, set_bits);
    resync.asks = true;
    resync.in_flight_sectors = 0;
}

/// The source told which generation the target gets: takes it over and starts. On the receiver.
pub(crate) async fn receive_sync_uuid(node: &Rc<Node>, uuid: u64) -> Result<(), Dropped> {
    // Our own bitmap, or our own change, may still be on its way.
    node.sim
        .until(|| {
            let changes = node.flags.agreement.get();
            !awaits_sync_uuid(node.state().conn, changes) || node.is_interrupted()
        })
        .await;
    if !takes_sync_uuid(node.state().conn) {
        node.tell(|| "Ignoring SyncUUID packet!".into());
        return Ok(());
    }
    let Some(local) = node.local() else {
        return Ok(());
    };
    let primary = node.is_primary();
    local.change(|superblock| superblock.uuids.adopt_current(uuid, primary));
    node.tell(|| format!("updated sync uuid {}", local.uuids_text()));
    local.sync(node).await;
    // The source forgets a block when it is written here. What a power cut takes back must be
    // remembered here; now all that the source said is out of sync has arrived.
    if !local.write_bitmap(node, Which::Dirty).await {
        return Err(Dropped);
    }
    drop(local);
    start(node, Side::Target).await;
    Ok(())
}

/// The target asks for blocks: reads them. On the receiver, which waits while the range is in use.
pub(crate) async fn receive_request(node: &Rc<Node>, blocks: Blocks) -> Result<(), Dropped> {
    if !node.serves_reads() {
        sender::refuse(node, Ack::NegativeResyncRead, BlockId::SYNCER, blocks).await;
        return Ok(());
    }
    let careless = node.config.has(Canary::ResyncOvertakesWrite);
    let mut range = None;
    node.sim
        .until(|| {
            let answer = node.ranges.borrow_mut().try_insert(
                RangeKind::ResyncRead,
                blocks.sector,
                blocks.size_bytes,
            );
            range = answer.ok();
            range.is_some() || careless || node.is_interrupted()
        })
        .await;
    if range.is_none() && !careless {
        return Err(Dropped);
    }
    let mut request = node.peer_request(Kind::ResyncRead, blocks, BlockId::SYNCER);
    request.range = range;
    if request.local.is_none() {
        // It went while the range was in use.
        node.free_request(request);
        sender::refuse(node, Ack::NegativeResyncRead, BlockId::SYNCER, blocks).await;
        return Ok(());
    }
    node.start_peer_read(request);
    Ok(())
}

/// The source's answer: writes it. On the receiver.
pub(crate) async fn receive_reply(
    node: &Rc<Node>,
    blocks: Blocks,
    sectors: Sectors,
) -> Result<(), Dropped> {
    let found =
        node.ranges
            .borrow()
            .find(RangeKind::ResyncRequest, blocks.sector, blocks.size_bytes);
    let range = found.ok_or(Dropped)?;
    let careless = node.config.has(Canary::ResyncOvertakesWrite);
    let mut promoted = false;
    node.sim
        .until(|| {
            promoted = node.ranges.borrow_mut().promote(range).is_ok();
            promoted || careless || node.is_interrupted()
        })
        .await;
    if !promoted && !careless {
        return Err(Dropped);
    }
    let mut request = node.peer_request(Kind::ResyncWrite, blocks, BlockId::SYNCER);
    request.range = Some(range);
    if request.local.is_none() {
        sender::refuse(node, Ack::Negative, BlockId::SYNCER, blocks).await;
        node.free_request(request);
        forget_asked(node, blocks);
        return Ok(());
    }
    if let (true, Some(local)) = (node.config.has(Canary::BitClearedTooEarly), &request.local) {
        local.set_in_sync(node, blocks.sector, blocks.size_bytes);
    }
    node.start_peer_write(request, whole(blocks, sectors));
    Ok(())
}

/// All sectors of the blocks, those that were never written too.
fn whole(blocks: Blocks, sectors: Sectors) -> Sectors {
    let mut all: Sectors = (blocks.sector.0..blocks.sector.0 + blocks.sectors())
        .map(|at| (at, None))
        .collect();
    for (at, content) in sectors {
        let index = usize::try_from(at - blocks.sector.0).unwrap_or(0);
        all[index].1 = content;
    }
    all
}

fn forget_asked(node: &Rc<Node>, blocks: Blocks) {
    let mut resync = node.resync.borrow_mut();
    resync.in_flight_sectors = resync.in_flight_sectors.saturating_sub(blocks.sectors());
}

/// A resync write is on disk: settles the bitmap and acks it. On the asender.
pub(crate) async fn finish_write(node: &Rc<Node>, request: PeerRequest) {
    let blocks = request.blocks;
    let ack = if request.ok {
        if let Some(local) = node.local() {
            local.set_in_sync(node, blocks.sector, blocks.size_bytes);
        }
        Ack::ResyncWrite
    } else {
        node.resync.borrow_mut().fail(blocks.size_bytes);
        Ack::Negative
    };
    let packet = Packet::Ack(ack, BlockId::SYNCER, blocks);
    node.send_meta(packet).await.ok();
    node.free_request(request);
    forget_asked(node, blocks);
}

/// Blocks that the target asked for could not be read here.
pub(crate) fn could_not_read(node: &Rc<Node>, blocks: Blocks) {
    node.resync.borrow_mut().fail(blocks.size_bytes);
}

/// An ack about resync blocks. On the asender.
pub(crate) fn receive_ack(node: &Rc<Node>, ack: Ack, blocks: Blocks) {
    match ack {
        // The blocks were read before the write that failed here, or that came when the resync had
        // been given up: the ack says nothing about it.
        Ack::ResyncWrite | Ack::Write | Ack::Receive
            if node.flags.resync_doubted.get() || !node.state().conn.is_resync_source() => {}
        Ack::ResyncWrite | Ack::Write | Ack::Receive => {
            if let Some(local) = node.local() {
                local.set_in_sync(node, blocks.sector, blocks.size_bytes);
            }
        }
        Ack::NegativeResyncRead => {
            node.resync.borrow_mut().fail(blocks.size_bytes);
            let mut ranges = node.ranges.borrow_mut();
            let found = ranges.find(RangeKind::ResyncRequest, blocks.sector, blocks.size_bytes);
            if let Some(range) = found {
                ranges.remove(range);
                drop(ranges);
                node.retry_delayed();
                forget_asked(node, blocks);
            }
        }
        Ack::Negative | Ack::NegativeRead => node.resync.borrow_mut().fail(blocks.size_bytes),
    }
}

/// The connection is gone: what was asked for will not come.
pub(crate) fn connection_lost(node: &Rc<Node>) {
    node.plan.replace(None);
    node.ranges
        .borrow_mut()
        .remove_kind(RangeKind::ResyncRequest);
    node.retry_delayed();
    let mut resync = node.resync.borrow_mut();
    resync.cancel();
    resync.progress = Progress::default();
    resync.done = false;
    node.sim.touch();
}

/// All blocks are to be synced, in a direction that the admin chose. On the worker.
pub(crate) async fn start_full_sync(node: &Rc<Node>, as_target: bool) {
    if !set_all_and_write(node).await {
        let _ = node.change_state(Request::conn(ConnState::Connected), Node::HARD);
    } else if as_target {
        let _ = node.change_state(Request::conn(ConnState::WFSyncUUID), Node::HARD);
    } else {
        start(node, Side::Source).await;
    }
}

/// Marks everything out of sync, on disk too; whether that worked.
pub(crate) async fn set_all_and_write(node: &Rc<Node>) -> bool {
    let Some(local) = node.local() else {
        return false;
    };
    local.change(|superblock| superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC));
    if !local.sync(node).await {
        return false;
    }
    local.view(node).set_all();
    local.mark_dirty();
    if !local.write_bitmap(node, Which::All).await {
        return false;
    }
    local.change(|superblock| superblock.flags = superblock.flags.without(MdFlags::FULL_SYNC));
    local.sync(node).await
}

/// Whether packets of a resync may still come.
pub(crate) fn is_quiet(node: &Node) -> bool {
    let session = node.session.borrow();
    node.resync.borrow().in_flight_sectors == 0
        && session
            .as_ref()
            .is_none_or(|session| !session.has_packet(node.id, Socket::Data))
}
