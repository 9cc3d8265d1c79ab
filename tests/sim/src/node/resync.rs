// SPDX-License-Identifier: GPL-2.0

//! Resync, as `io/resync.rs` drives and serves it.

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::bitmap::{Bitmap, Run};
use drbd_engine::handshake::uuid_compare::UuidSet;
use drbd_engine::meta::MdFlags;
use drbd_engine::range::{Kind as RangeKind, Refusal};
use drbd_engine::resync::{
    Deferred, DirtyBits, Next, Planner, Progress, PutAside, Request as Ask, Shape,
};
use drbd_engine::state::resync::{
    awaits_sync_uuid, end_waits, ends_equal, finish as decide_finish, finishes_by_itself,
    has_bits_left, start as decide_start, takes_sync_uuid, FinishUuids, Side,
};
use drbd_engine::state::{Change as Request, ConnState};
use drbd_engine::types::{BitNr, BlockId, Sector, BIT_SIZE};

use super::device::Device;
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
/// Requests of the target for blocks in use that the source puts aside.
const ASIDE_MAX: usize = 64;
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
pub(crate) async fn turn(device: &Rc<Device>) -> u64 {
    // A change that the peer is asked for must find the state that it was judged by.
    if device.flags.start_source.replace(false) {
        start(device, Side::Source).await;
    }
    if device.flags.resync_done.replace(false) {
        finish_if_done(device).await;
    }
    if device.state().conn == ConnState::SyncTarget {
        ask(device).await;
        return 10 * MS;
    }
    u64::MAX
}

async fn ask(device: &Rc<Device>) {
    let Some(local) = device.local() else { return };
    let Some(mut planner) = device.plan.borrow_mut().take() else {
        return;
    };
    planner.begin_turn();
    loop {
        let may_ask = {
            let resync = device.resync.borrow();
            resync.asks && resync.in_flight_sectors < WINDOW_SECTORS
        };
        if !may_ask || device.state().conn != ConnState::SyncTarget {
            break;
        }
        match planner.next(&Dirty(local.view(device))) {
            Next::Request(request) => {
                if !ask_for(device, &mut planner, &request).await {
                    break;
                }
            }
            Next::Blocked => break,
            Next::Done => {
                check_end(device, &mut planner);
                break;
            }
        }
    }
    if device.state().conn == ConnState::SyncTarget {
        device.plan.replace(Some(planner));
    }
}

async fn ask_for(device: &Rc<Device>, planner: &mut Plan, request: &Ask) -> bool {
    let blocks = Blocks {
        sector: request.sector,
        size_bytes: request.size,
    };
    let claimed = device.ranges.borrow_mut().try_insert(
        RangeKind::ResyncRequest,
        request.sector,
        request.size,
    );
    let range = match claimed {
        Ok(range) => range,
        Err(Refusal::Conflict(_) | Refusal::Full) => return planner.defer(request),
        Err(Refusal::Malformed) => return false,
    };
    device.resync.borrow_mut().in_flight_sectors += blocks.sectors();
    let sent = device.send_data(Packet::ResyncRequest(blocks)).await;
    if sent.is_err() {
        device.ranges.borrow_mut().remove(range);
        device.retry_delayed();
    }
    sent.is_ok()
}

fn check_end(device: &Rc<Device>, planner: &mut Plan) {
    let Some(local) = device.local() else { return };
    let resync = device.resync.borrow();
    if resync.in_flight_sectors != 0 {
        return;
    }
    if !resync.progress.is_finished(local.set_bits(device)) {
        planner.restart();
    } else if !device.end_waits() {
        device.flags.resync_done.set(true);
    }
}

impl Device {
    /// Whether the end of a resync waits for a change that the peer is asked for.
    fn end_waits(&self) -> bool {
        end_waits(self.state().conn, self.node().flags.agreement.get())
    }
}

async fn finish_if_done(device: &Rc<Device>) {
    let Some(set_bits) = device.local().map(|local| local.set_bits(device)) else {
        return;
    };
    let Some(side) = Side::of(device.state().conn) else {
        return;
    };
    let failed = device.resync.borrow().failed_bits();
    if finishes_by_itself(side, APV, set_bits, failed) {
        finish(device).await;
    }
}

/// Ends a resync.
pub(crate) async fn finish(device: &Rc<Device>) {
    if std::mem::replace(&mut device.resync.borrow_mut().done, true) {
        return;
    }
    if !device.node().ping_peer().await {
        return;
    }
    let old = device.state();
    let failed = device.resync.borrow().failed_bits();
    let Some(finish) = decide_finish(old, failed, 0) else {
        return;
    };
    let local = device.local();
    if let Some(local) = &local {
        // The generation must not say more than the disk holds.
        let careless = device.config.has(Canary::FinishedWithoutFlush);
        if !careless && !local.flush_data(device).await {
            device.resync.borrow_mut().done = false;
            device.flags.disk_failed.set(true);
            let _ = device
                .node()
                .change_connection(Request::conn(ConnState::NetworkFailure), Node::HARD);
            return;
        }
    }
    // Generation and state change together: who loses the peer in between must not be told that
    // both are equal.
    let has_bits_left = || {
        let set_bits = local.as_ref().map_or(0, |local| local.set_bits(device));
        let careless = device.config.has(Canary::EndedWithBitsLeft);
        has_bits_left(old.conn, set_bits, failed) && !careless
    };
    let changed = device.change_state_if(finish.change, Node::SOFT, |state| {
        let ends = state.conn == old.conn && !device.end_waits();
        let goes_on = ends && !has_bits_left();
        if goes_on {
            device.flags.peer_refused.set(false);
            if ends_equal(old.conn, failed) {
                device.flags.told_alone.set(false);
            }
        }
        if let (true, Some(local)) = (goes_on && finish.uuids != FinishUuids::Keep, &local) {
            settle_uuids(device, local, finish.uuids);
        }
        let is_target = Side::of(state.conn) == Some(Side::Target);
        device.flags.end_untold.set(goes_on && is_target);
        goes_on
    });
    if let Some(local) = &local {
        local.sync(device).await;
    }
    if changed.is_err() {
        device.flags.end_untold.set(false);
        device.resync.borrow_mut().done = false;
        if Side::of(device.state().conn) == Some(Side::Source) {
            device.tell(|| "the end of the resync came too early".into());
            let _ = device
                .node()
                .change_connection(Request::conn(ConnState::ProtocolError), Node::HARD);
        }
        return;
    }
    device.plan.replace(None);
    let mut resync = device.resync.borrow_mut();
    resync.progress = Progress::default();
    resync.cancel();
}

fn settle_uuids(device: &Rc<Device>, local: &super::disk::LocalDisk, uuids: FinishUuids) {
    let peer = device.peer.get();
    let primary = device.is_primary();
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
    if let Some(mut peer) = device.peer.get() {
        peer.set = settled;
        device.peer.set(Some(peer));
    }
    device.exposed_uuid.set(settled.current);
    device.tell(|| format!("updated UUIDs {settled}"));
}

/// Starts a resync.
pub(crate) async fn start(device: &Rc<Device>, side: Side) {
    let state = device.state();
    if Side::of(state.conn).is_some() || state.conn < ConnState::Connected {
        return;
    }
    let Some(local) = device.local() else { return };
    let set_bits = local.set_bits(device);
    let start = match decide_start(device.state(), side, false, set_bits, &device.context()) {
        Ok(start) => start,
        Err(error) => {
            device.tell(|| format!("the resync does not start: {error}"));
            return;
        }
    };
    prepare(device, side, set_bits);
    let wanted = Request::all(start.changed.new);
    if device
        .change_state_if(wanted, Node::SOFT, |now| now == state)
        .is_err()
    {
        device.plan.replace(None);
        device.resync.borrow_mut().cancel();
        return;
    }
    device.tell(|| {
        format!(
            "Began resync as {} ({set_bits} bits set)",
            device.state().conn
        )
    });
    if set_bits == 0 && side == Side::Target {
        device.flags.resync_done.set(true);
    }
    device.sim.touch();
}

fn prepare(device: &Rc<Device>, side: Side, set_bits: u64) {
    let now_ns = device.sim.now_ns();
    if side == Side::Target {
        let shape = Shape::new(Sector(device.config.capacity_sectors), REQUEST_BYTES, 0);
        let plan = Planner::new(shape, vec![Deferred::default(); DEFERRED_MAX]);
        device.plan.replace(Some(plan));
    }
    device.flags.resync_doubted.set(false);
    device.flags.marked_untold.set(false);
    let mut resync = device.resync.borrow_mut();
    resync.progress = Progress::start(now_ns, set_bits);
    resync.asks = true;
    resync.in_flight_sectors = 0;
}

/// The source told which generation the target gets: takes it over and starts. On the receiver.
pub(crate) async fn receive_sync_uuid(device: &Rc<Device>, uuid: u64) -> Result<(), Dropped> {
    // Our own bitmap, or our own change, may still be on its way.
    device
        .sim
        .until(|| {
            let changes = device.node().flags.agreement.get();
            !awaits_sync_uuid(device.state().conn, changes) || device.node().is_interrupted()
        })
        .await;
    if !takes_sync_uuid(device.state().conn) {
        device.tell(|| "Ignoring SyncUUID packet!".into());
        return Ok(());
    }
    let Some(local) = device.local() else {
        return Ok(());
    };
    let primary = device.is_primary();
    local.change(|superblock| superblock.uuids.adopt_current(uuid, primary));
    device.tell(|| format!("updated sync uuid {}", local.uuids_text()));
    local.sync(device).await;
    // The source forgets a block when it is written here. What a power cut takes back must be
    // remembered here; now all that the source said is out of sync has arrived.
    if !local.write_bitmap(device, Which::Dirty).await {
        return Err(Dropped);
    }
    drop(local);
    start(device, Side::Target).await;
    // That the disk is Inconsistent, before anything of the source's is written there.
    if let Some(local) = device.local() {
        local.sync(device).await;
    }
    Ok(())
}

/// The target asks for blocks: reads them, or puts the request aside while they are in use. On the
/// receiver.
pub(crate) async fn receive_request(device: &Rc<Device>, blocks: Blocks) -> Result<(), Dropped> {
    if !device.serves_reads() {
        sender::refuse(device, Ack::NegativeResyncRead, BlockId::SYNCER, blocks).await;
        return Ok(());
    }
    let node = device.node();
    let has_room = || node.aside() < ASIDE_MAX;
    node.sim.until(|| has_room() || node.is_interrupted()).await;
    let mut request = device.peer_request(Kind::ResyncRead, blocks, BlockId::SYNCER);
    // Its turn may be long in coming, and the disk be let go before.
    request.local = None;
    if device.claim_read(&mut request) || device.config.has(Canary::ResyncOvertakesWrite) {
        read(device, request).await;
        return Ok(());
    }
    node.aside.borrow_mut().push_back(request);
    // What was in the way may be gone by now.
    node.aside_due.set(true);
    node.sim.touch();
    Ok(())
}

impl Device {
    /// Claims the range of what the target asked for; whether nothing is in the way.
    fn claim_read(&self, request: &mut PeerRequest) -> bool {
        let Blocks { sector, size_bytes } = request.blocks;
        let mut ranges = self.ranges.borrow_mut();
        ranges
            .claim_read(&mut request.range, sector, size_bytes)
            .unwrap_or(false)
    }
}

/// Reads what the target asked for.
async fn read(device: &Rc<Device>, mut request: PeerRequest) {
    request.local = device.usable_disk();
    if request.local.is_none() {
        // It went while the range was in use.
        return answer_without(request, Ack::NegativeResyncRead).await;
    }
    device.start_peer_read(request);
}

impl Node {
    /// How much the peer asked for that is put aside.
    pub fn aside(&self) -> usize {
        self.aside.borrow().len()
    }
}

/// Says that no data are to come.
async fn answer_without(request: PeerRequest, ack: Ack) {
    let device = request.device.clone();
    sender::refuse(&device, ack, request.block_id, request.blocks).await;
    device.free_request(request);
}

/// Tries what was put aside again; returns when to come again. On the worker.
pub(crate) async fn retry_aside(node: &Rc<Node>) -> u64 {
    node.aside_due.set(false);
    for _ in 0..node.aside() {
        let next = node.aside.borrow_mut().pop_front();
        let Some(mut request) = next else { break };
        let device = request.device.clone();
        let conn = device.state().conn;
        match PutAside::of(conn, device.serves_reads(), APV, node.is_interrupted()) {
            PutAside::Retry if device.claim_read(&mut request) => read(&device, request).await,
            PutAside::Retry => node.aside.borrow_mut().push_back(request),
            PutAside::Cancel => answer_without(request, Ack::ResyncCancelled).await,
            PutAside::Refuse => answer_without(request, Ack::NegativeResyncRead).await,
            PutAside::Forget => device.free_request(request),
        }
    }
    if node.aside() == 0 {
        u64::MAX
    } else {
        10 * MS
    }
}

/// The source's answer: writes it. On the receiver.
pub(crate) async fn receive_reply(
    device: &Rc<Device>,
    blocks: Blocks,
    sectors: Sectors,
) -> Result<(), Dropped> {
    let found =
        device
            .ranges
            .borrow()
            .find(RangeKind::ResyncRequest, blocks.sector, blocks.size_bytes);
    let range = found.ok_or(Dropped)?;
    let careless = device.config.has(Canary::ResyncOvertakesWrite);
    let mut promoted = false;
    device
        .sim
        .until(|| {
            promoted = device.ranges.borrow_mut().promote(range).is_ok();
            promoted || careless || device.node().is_interrupted()
        })
        .await;
    if !promoted && !careless {
        return Err(Dropped);
    }
    let mut request = device.peer_request(Kind::ResyncWrite, blocks, BlockId::SYNCER);
    request.range = Some(range);
    if request.local.is_none() {
        sender::refuse(device, Ack::Negative, BlockId::SYNCER, blocks).await;
        device.free_request(request);
        forget_asked(device, blocks);
        return Ok(());
    }
    if let (true, Some(local)) = (
        device.config.has(Canary::BitClearedTooEarly),
        &request.local,
    ) {
        local.set_in_sync(device, blocks.sector, blocks.size_bytes);
    }
    device.start_peer_write(request, whole(blocks, sectors));
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

fn forget_asked(device: &Rc<Device>, blocks: Blocks) {
    let mut resync = device.resync.borrow_mut();
    resync.in_flight_sectors = resync.in_flight_sectors.saturating_sub(blocks.sectors());
}

/// A resync write is on disk: settles the bitmap and acks it. On the asender.
pub(crate) async fn finish_write(request: PeerRequest) {
    let device = &request.device.clone();
    let blocks = request.blocks;
    let ack = if request.ok {
        if let Some(local) = device.local() {
            local.set_in_sync(device, blocks.sector, blocks.size_bytes);
        }
        Ack::ResyncWrite
    } else {
        device.resync.borrow_mut().fail(blocks.size_bytes);
        Ack::Negative
    };
    let packet = Packet::Ack(ack, BlockId::SYNCER, blocks);
    device.send_meta(packet).await.ok();
    device.free_request(request);
    forget_asked(device, blocks);
}

/// Blocks that the target asked for could not be read here.
pub(crate) fn could_not_read(device: &Rc<Device>, blocks: Blocks) {
    device.resync.borrow_mut().fail(blocks.size_bytes);
}

/// An ack about resync blocks. On the asender.
pub(crate) fn receive_ack(device: &Rc<Device>, ack: Ack, blocks: Blocks) {
    match ack {
        // The blocks were read before the write that failed here, or that came when the resync had
        // been given up: the ack says nothing about it.
        Ack::ResyncWrite | Ack::Write | Ack::Receive
            if device.flags.resync_doubted.get() || !device.state().conn.is_resync_source() => {}
        Ack::ResyncWrite | Ack::Write | Ack::Receive => {
            if let Some(local) = device.local() {
                local.set_in_sync(device, blocks.sector, blocks.size_bytes);
            }
        }
        Ack::NegativeResyncRead | Ack::ResyncCancelled => {
            if ack == Ack::NegativeResyncRead {
                device.resync.borrow_mut().fail(blocks.size_bytes);
            }
            let mut ranges = device.ranges.borrow_mut();
            let found = ranges.find(RangeKind::ResyncRequest, blocks.sector, blocks.size_bytes);
            if let Some(range) = found {
                ranges.remove(range);
                drop(ranges);
                device.retry_delayed();
                forget_asked(device, blocks);
            }
        }
        Ack::Negative | Ack::NegativeRead => device.resync.borrow_mut().fail(blocks.size_bytes),
    }
}

/// The connection is gone: what was asked for will not come.
pub(crate) fn connection_lost(device: &Rc<Device>) {
    device.plan.replace(None);
    device
        .ranges
        .borrow_mut()
        .remove_kind(RangeKind::ResyncRequest);
    device.retry_delayed();
    let mut resync = device.resync.borrow_mut();
    resync.cancel();
    resync.progress = Progress::default();
    resync.done = false;
    device.sim.touch();
}

/// All blocks are to be synced, in a direction that the admin chose. On the worker.
pub(crate) async fn start_full_sync(device: &Rc<Device>, as_target: bool) {
    if !set_all_and_write(device).await {
        let _ = device.change_state(Request::conn(ConnState::Connected), Node::HARD);
    } else if as_target {
        let _ = device.change_state(Request::conn(ConnState::WFSyncUUID), Node::HARD);
    } else {
        start(device, Side::Source).await;
    }
}

/// Marks everything out of sync, on disk too; whether that worked.
pub(crate) async fn set_all_and_write(device: &Rc<Device>) -> bool {
    let Some(local) = device.local() else {
        return false;
    };
    local.change(|superblock| superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC));
    if !local.sync(device).await {
        return false;
    }
    local.view(device).set_all();
    local.in_core.set(true);
    local.mark_dirty();
    if !local.write_bitmap(device, Which::All).await {
        return false;
    }
    local.change(|superblock| superblock.flags = superblock.flags.without(MdFlags::FULL_SYNC));
    local.sync(device).await
}

/// Whether packets of a resync may still come.
pub(crate) fn is_quiet(node: &Node) -> bool {
    let session = node.session.borrow();
    let is_quiet = |device: &Rc<Device>| device.resync.borrow().in_flight_sectors == 0;
    node.devices.iter().all(is_quiet)
        && session
            .as_ref()
            .is_none_or(|session| !session.has_packet(node.id, Socket::Data))
}
