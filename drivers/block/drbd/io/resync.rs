// SPDX-License-Identifier: GPL-2.0

//! Resync: starting it, asking for blocks, serving them, and ending it. The engine plans and paces.
//!
//! Both sides claim the exact range of blocks that travel, see `drbd_engine::range` for why. The
//! worker drives the target.

use drbd_engine::{
    bitmap::Run,
    config::{
        DiskConf,
        Settings, //
    },
    handshake::sizes::is_source_of_new_storage,
    meta::MdFlags,
    range::{
        Kind as RangeKind,
        Refusal, //
    },
    resync::{
        Activity,
        Controller,
        Deferred,
        DirtyBits,
        Limits,
        Next,
        Pace,
        Planner,
        Progress,
        Request,
        Shape,
        Throttle,
        Window,
        TURN_NS, //
    },
    state::{
        resync::{
            finish as decide_finish,
            finishes_by_itself,
            helper_verdict,
            start as decide_start,
            FinishUuids,
            HelperVerdict,
            Side, //
        },
        Change,
        ConnState,
        DiskState,
        Flags, //
    },
    timer::{
        SECOND_NS,
        TENTH_NS, //
    },
    types::{
        BitNr,
        BlockId,
        Sector,
        BIT_SIZE,
        SECTOR_SHIFT, //
    },
    wire::{
        BlockAck,
        BlockDescriptor,
        BlockRequest,
        Command,
        Data,
        Features,
        SyncUuid, //
    },
};
use drbd_sys::{
    bio::{
        Flags as BioFlags,
        Operation, //
    },
    log,
    page::Buffer,
    time::{
        monotonic_ns,
        sleep_ms, //
    },
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    bitmap::{
        Bitmap,
        Which, //
    },
    device::{
        flag,
        Device, //
    },
    peer_request::{
        Kind,
        PeerIo,
        PeerRequest, //
    },
    receiver::ConnectionError,
    sender,
    state::How,
    worker::chore, //
};

/// Blocks in use that the target remembers to ask for later.
const DEFERRED_MAX: usize = 256;
/// Pause of a throttled resync.
const THROTTLE_MS: u32 = 100;
/// How often changed bitmap pages are written during a resync.
const LAZY_WRITE_NS: u64 = 2 * SECOND_NS;

/// A resync under way, as far as several threads have to do with it.
#[derive(Default)]
pub(crate) struct Resync {
    /// How far it got.
    pub(crate) progress: Progress,
    /// What may be asked for; on the target.
    controller: Option<Controller>,
    /// Sectors that were asked for and are not on disk yet.
    pub(crate) in_flight_sectors: u64,
    /// Sectors that resyncs moved on this disk.
    moved_sectors: u64,
    throttle: Throttle,
    /// The controller's last grant, for /proc: KiB/s.
    pub(crate) wanted_kib: u64,
    /// It came to its end.
    done: bool,
    last_lazy_write_ns: u64,
}

impl Resync {
    /// A resync begins.
    pub(crate) fn clear_done(&mut self) {
        self.done = false;
    }

    /// The pause ends.
    pub(crate) fn resume(&mut self) {
        self.progress.resume(monotonic_ns());
    }

    /// A pause begins.
    pub(crate) fn pause(&mut self) {
        self.progress.pause(monotonic_ns());
    }

    /// The disk or the peer is gone.
    pub(crate) fn cancel(&mut self) {
        self.controller = None;
        self.in_flight_sectors = 0;
    }

    /// Blocks could not be read or written.
    pub(crate) fn fail(&mut self, size_bytes: u32) {
        self.progress.fail(size_bytes.div_ceil(BIT_SIZE));
    }

    fn moved(&mut self, size_bytes: u32) {
        let sectors = u64::from(size_bytes >> SECTOR_SHIFT);
        self.moved_sectors = self.moved_sectors.saturating_add(sectors);
    }
}

/// The target's plan, the worker's alone.
pub(crate) type Plan = Planner<KVVec<Deferred>>;

/// The bitmap as the planner sees it.
struct Dirty<'a>(&'a Bitmap);

impl DirtyBits for Dirty<'_> {
    fn next_run(&self, from: BitNr, max_bits: u32) -> Option<(BitNr, u32)> {
        let Run { first, bits } = self.0.view()?.next_run(from, u64::from(max_bits))?;
        Some((first, u32::try_from(bits).unwrap_or(max_bits)))
    }
}

/// Does a device's chores that are about the resync; returns when to come again, in milliseconds.
/// On the worker.
pub(crate) fn turn(device: &Arc<Device>, chores: u32, now_ns: u64) -> u32 {
    if chores & chore::START_SOURCE != 0 {
        start(device, Side::Source);
    }
    if chores & chore::START_TARGET != 0 {
        start(device, Side::Target);
    }
    if chores & chore::RESYNC_DONE != 0 {
        finish_if_done(device);
    }
    match device.state().conn {
        ConnState::SyncTarget => {
            advance(device, now_ns);
            ask(device, now_ns)
        }
        ConnState::SyncSource => {
            advance(device, now_ns);
            THROTTLE_MS
        }
        _ => u32::MAX,
    }
}

/// Sets progress marks, and writes what changed of the bitmap every now and then.
fn advance(device: &Arc<Device>, now_ns: u64) {
    let Some(local) = device.local() else { return };
    let left = local.bitmap.set_bits();
    let mut resync = device.resync.lock();
    resync.progress.advance(now_ns, left);
    let due = now_ns.saturating_sub(resync.last_lazy_write_ns) > LAZY_WRITE_NS;
    if due {
        resync.last_lazy_write_ns = now_ns;
    }
    drop(resync);
    if due {
        let _ = local.bitmap.write(device, &local, Which::Dirty);
        crate::notify::sync_progress(device);
    }
}

/// Asks for as much as the controller grants.
fn ask(device: &Arc<Device>, now_ns: u64) -> u32 {
    let Some(local) = device.local() else {
        return u32::MAX;
    };
    let connection = &device.resource.connection;
    let max_buffers = connection
        .config()
        .map_or(0, |config| config.net.max_buffers);
    let mut plan = device.plan.lock();
    let Some(planner) = (*plan).as_mut() else {
        return u32::MAX;
    };
    planner.begin_turn();
    loop {
        let granted = {
            let mut resync = device.resync.lock();
            let limits = Limits {
                in_flight_sectors: resync.in_flight_sectors,
                max_buffers,
            };
            match &mut resync.controller {
                Some(controller) => controller.turn(&limits, monotonic_ns()),
                None => 0,
            }
        };
        if granted == 0 || device.state().conn != ConnState::SyncTarget {
            break;
        }
        match planner.next(&Dirty(&local.bitmap)) {
            Next::Request(request) => {
                if !ask_for(device, planner, &request, now_ns) {
                    break;
                }
            }
            Next::Blocked => break,
            Next::Done => {
                drop(plan);
                check_end(device);
                return THROTTLE_MS;
            }
        }
    }
    u32::try_from(TURN_NS / 10 / 1_000_000).unwrap_or(THROTTLE_MS)
}

/// Claims a range and asks for it, or puts it off; whether to go on.
fn ask_for(device: &Arc<Device>, planner: &mut Plan, request: &Request, now_ns: u64) -> bool {
    let claimed =
        device
            .ranges
            .lock()
            .try_insert(RangeKind::ResyncRequest, request.sector, request.size);
    let range = match claimed {
        Ok(range) => range,
        Err(Refusal::Conflict(_) | Refusal::Full) => return planner.defer(request),
        Err(Refusal::Malformed) => return false,
    };
    let sectors = u64::from(request.sectors());
    {
        let mut resync = device.resync.lock();
        resync.in_flight_sectors = resync.in_flight_sectors.saturating_add(sectors);
        if let Some(controller) = &mut resync.controller {
            controller.asked(request.sectors());
        }
    }
    device.counters.resync_pending.up();
    let thin = request.is_thin
        && device
            .resource
            .connection
            .features()
            .contains(Features::THIN_RESYNC);
    let command = if thin {
        Command::RsThinRequest
    } else {
        Command::RsDataRequest
    };
    let sent = sender::ask_for_blocks(
        &device.resource,
        device,
        command,
        request.sector,
        request.size,
    );
    if sent.is_err() {
        device.ranges.lock().remove(range);
        device.counters.resync_pending.down();
        let _ = now_ns;
    }
    sent.is_ok()
}

/// Every block was asked for: looks whether that was all.
fn check_end(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let set_bits = local.bitmap.set_bits();
    let resync = device.resync.lock();
    let idle = resync.in_flight_sectors == 0;
    let finished = resync.progress.is_finished(set_bits);
    drop(resync);
    if idle && finished {
        device.chore(chore::RESYNC_DONE);
    } else if idle {
        // Bits were set behind the planner.
        if let Some(planner) = (*device.plan.lock()).as_mut() {
            planner.restart();
        }
    }
}

fn finish_if_done(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let set_bits = local.bitmap.set_bits();
    drop(local);
    let Some(side) = Side::of(device.state().conn) else {
        return;
    };
    let failed = device.resync.lock().progress.failed_bits();
    let apv = device.resource.connection.version().number();
    if finishes_by_itself(side, apv, set_bits, failed) {
        finish(device);
    }
}

/// Ends a resync: waits until the peer has seen our acks, settles the generations, goes back to
/// Connected. May sleep.
pub(crate) fn finish(device: &Arc<Device>) {
    {
        let mut resync = device.resync.lock();
        if resync.done {
            return;
        }
        resync.done = true;
    }
    let resource = &device.resource;
    // Acks travel on the meta socket, the state on the data socket: the state must not overtake
    // them.
    if !resource.ping_peer() {
        return;
    }
    let old = device.state();
    let now_ns = monotonic_ns();
    let progress = device.resync.lock().progress;
    let Some(finish) = decide_finish(old, progress.failed_bits(), 0) else {
        return;
    };
    log_done(device, &progress, now_ns);
    let local = device.local();
    if let Some(local) = &local {
        // The generation must not promise more than the disk holds.
        if local.backing.flush_sync().is_err() {
            device.resync.lock().done = false;
            device.chore(chore::DISK_FAILED);
            return;
        }
    }
    let peer = device.peer.lock().uuids;
    let mut settled = None;
    // Together with the state: who loses the peer in between must not find both generations equal
    // and write on.
    let changed = resource.change_state_if(device, finish.change, How::VERBOSE, |state| {
        let goes_on = state.conn == old.conn;
        if let (true, Some(local)) = (goes_on, &local) {
            settled = settle_uuids(device, local, finish.uuids, peer, state.role.is_primary());
        }
        goes_on
    });
    if let (Some(settled), Some(local)) = (settled, &local) {
        remember_peer(device, settled);
        log!(Info, device, "updated UUIDs {}", local.uuids_text());
        let _ = local.sync(device);
    }
    drop(local);
    if changed.is_err() {
        device.resync.lock().done = false;
        return;
    }
    *device.plan.lock() = None;
    {
        let mut resync = device.resync.lock();
        resync.progress = Progress::default();
        resync.cancel();
    }
    device.flags.clear(flag::BEFORE_RESYNC_DONE);
    if let Some(name) = finish.helper {
        let _ = super::helper::run(device, name);
    }
}

fn log_done(device: &Device, progress: &Progress, now_ns: u64) {
    let paused_s = progress.paused(now_ns) / SECOND_NS;
    let total_s = now_ns.saturating_sub(progress.start_ns()) / SECOND_NS;
    let rate = progress.average_rate_kib(now_ns, 0);
    log!(
        Info,
        device,
        "Resync done (total {} sec; paused {} sec; {} K/sec)",
        total_s.max(1),
        paused_s,
        rate
    );
    if progress.failed_bits() != 0 {
        log!(
            Error,
            device,
            "            {} failed blocks",
            progress.failed_bits()
        );
    }
}

/// Settles the generations in core; what they are now, if they changed. Does not sleep.
fn settle_uuids(
    device: &Arc<Device>,
    local: &super::disk::LocalDisk,
    uuids: FinishUuids,
    peer: Option<drbd_engine::wire::Uuids>,
    primary: bool,
) -> Option<drbd_engine::meta::Uuids> {
    if uuids == FinishUuids::Keep {
        return None;
    }
    let settled = local.change(device, |superblock| {
        match (uuids, peer) {
            (FinishUuids::AdoptPeer, Some(peer)) => {
                let peer = drbd_engine::meta::Uuids {
                    current: peer.current,
                    bitmap: peer.bitmap,
                    history: peer.history,
                };
                superblock.uuids.finish_as_sync_target(&peer, primary);
            }
            _ => superblock.uuids.finish_as_sync_source(),
        }
        superblock.uuids
    });
    device.exposed_uuid.store(settled.current);
    Some(settled)
}

/// The peer comes to the same generations by itself.
fn remember_peer(device: &Arc<Device>, settled: drbd_engine::meta::Uuids) {
    if let Some(peer) = &mut device.peer.lock().uuids {
        peer.current = settled.current;
        peer.bitmap = settled.bitmap;
        peer.history = settled.history;
    }
}

/// Starts a resync. May sleep.
pub(crate) fn start(device: &Arc<Device>, side: Side) {
    let resource = &device.resource;
    let state = device.state();
    if Side::of(state.conn).is_some() || state.conn < ConnState::Connected {
        return;
    }
    if !run_before_helper(device, side) {
        let _ = resource.change_connection(Change::conn(ConnState::Disconnecting), How::HARD);
        return;
    }
    let Some(local) = device.local() else { return };
    let set_bits = local.bitmap.set_bits();
    let context = resource.context_of(device);
    let start = match decide_start(device.state(), side, false, set_bits, &context) {
        Ok(start) => start,
        Err(error) => {
            log!(Error, device, "the resync does not start: {}", error.text());
            return;
        }
    };
    prepare(device, side, set_bits);
    let wanted = Change::all(start.changed.new);
    let changed = resource.change_state_if(
        device,
        wanted,
        How {
            flags: Flags::SOFT,
            verbose: true,
        },
        |now| now == state,
    );
    if changed.is_err() {
        *device.plan.lock() = None;
        device.resync.lock().cancel();
        return;
    }
    log!(
        Info,
        device,
        "Began resync as {} (will sync {} KB [{} bits set]).",
        device.state().conn.name(),
        set_bits.saturating_mul(4),
        set_bits
    );
    device.chore(chore::RESYNC_TURN);
    if set_bits == 0 && side == Side::Target {
        device.chore(chore::RESYNC_DONE);
    }
}

fn run_before_helper(device: &Arc<Device>, side: Side) -> bool {
    if device.flags.set(flag::BEFORE_RESYNC_DONE) & flag::BEFORE_RESYNC_DONE != 0 {
        return true;
    }
    let status = super::helper::run(device, side.before_helper());
    match helper_verdict(side, status) {
        HelperVerdict::GoOn => true,
        HelperVerdict::GoOnWarned => {
            log!(
                Warning,
                device,
                "{} handler returned 3, ignored. Old userland tools?",
                side.before_helper()
            );
            true
        }
        HelperVerdict::Disconnect => {
            log!(
                Info,
                device,
                "{} handler dropped the connection",
                side.before_helper()
            );
            false
        }
    }
}

fn prepare(device: &Arc<Device>, side: Side, set_bits: u64) {
    let now_ns = monotonic_ns();
    let Some(local) = device.local() else { return };
    let conf = local.conf();
    let pace = pace_of(&conf);
    if side == Side::Target {
        let version = device.resource.connection.version();
        let thin = if device
            .resource
            .connection
            .features()
            .contains(Features::THIN_RESYNC)
        {
            conf.rs_discard_granularity
        } else {
            0
        };
        let shape = Shape::new(Sector(device.capacity()), version.max_request_size(), thin);
        let mut deferred = KVVec::new();
        // Without room to remember blocks in use they are waited for.
        let _ = deferred.resize(DEFERRED_MAX, Deferred::default(), GFP_KERNEL);
        *device.plan.lock() = Some(Planner::new(shape, deferred));
    }
    let disk_sectors = local.backing.sectors_done();
    let mut resync = device.resync.lock();
    resync.progress = Progress::start(now_ns, set_bits);
    resync.controller = Some(Controller::new(pace, now_ns));
    resync.in_flight_sectors = 0;
    resync.last_lazy_write_ns = now_ns;
    resync.throttle = Throttle::new(&Activity {
        disk_sectors,
        resync_sectors: resync.moved_sectors,
        ..Activity::default()
    });
}

/// The pace that the options ask for. Nobody who left them alone wants the narrow window of old
/// defaults.
fn pace_of(conf: &DiskConf) -> Pace {
    let default = DiskConf::DEFAULT;
    if conf.c_plan_ahead == 0 {
        return Pace::Fixed {
            rate_kib: conf.resync_rate,
        };
    }
    let untouched = conf.c_plan_ahead == default.c_plan_ahead
        && conf.c_delay_target == default.c_delay_target
        && conf.c_fill_target == default.c_fill_target
        && conf.c_max_rate == default.c_max_rate
        && conf.resync_rate == default.resync_rate;
    if untouched {
        return Pace::Auto { max_rate_kib: None };
    }
    let window = match conf.c_fill_target {
        0 => Window::Delay {
            ns: u64::from(conf.c_delay_target).saturating_mul(TENTH_NS),
        },
        sectors => Window::Fill(sectors),
    };
    Pace::Dynamic {
        plan_ahead_ns: u64::from(conf.c_plan_ahead).saturating_mul(TENTH_NS),
        window,
        start_rate_kib: conf.resync_rate,
        max_rate_kib: conf.c_max_rate,
    }
}

/// The source told which generation the target gets: takes it over and starts. On the receiver.
pub(crate) fn receive_sync_uuid(
    device: &Arc<Device>,
    packet: SyncUuid,
) -> Result<(), ConnectionError> {
    let resource = &device.resource;
    // Our own bitmap may still be on its way out.
    resource.waiters.wait_until(|| {
        let conn = device.state().conn;
        conn == ConnState::WFSyncUUID
            || conn == ConnState::Behind
            || conn < ConnState::Connected
            || resource.connection.is_interrupted()
    });
    let Some(local) = device.local() else {
        log!(Error, device, "Ignoring SyncUUID packet!");
        return Ok(());
    };
    let primary = device.state().role.is_primary();
    local.change(device, |superblock| {
        superblock.uuids.adopt_current(packet.0, primary)
    });
    log!(Info, device, "updated sync uuid {}", local.uuids_text());
    let _ = local.sync(device);
    // The source forgets a block as soon as it is written here. What a power cut takes back again
    // must be known here, and now all that the source called out of sync has arrived.
    local
        .bitmap
        .write(device, &local, Which::Dirty)
        .map_err(|_| ConnectionError)?;
    drop(local);
    start(device, Side::Target);
    Ok(())
}

/// The target asks for blocks: reads them. On the receiver, which waits while the range is in use.
pub(crate) fn receive_request(
    device: &Arc<Device>,
    command: Command,
    packet: BlockRequest,
) -> Result<(), ConnectionError> {
    let resource = &device.resource;
    let connection = &resource.connection;
    if device.state().disk != DiskState::UpToDate {
        log!(
            Error,
            device,
            "Can not satisfy peer's read request, no local data."
        );
        let _ = resource.send_ack(
            device,
            Command::NegRsDReply,
            packet.sector,
            packet.size,
            packet.block_id,
        );
        return Ok(());
    }
    throttle(device);
    let mut claimed = None;
    connection.receiver_wait.wait_until(|| {
        let mut ranges = device.ranges.lock();
        claimed = Some(ranges.try_insert(RangeKind::ResyncRead, packet.sector, packet.size));
        matches!(claimed, Some(Ok(_) | Err(Refusal::Malformed))) || connection.is_interrupted()
    });
    let Some(Ok(range)) = claimed else {
        return Err(ConnectionError);
    };
    let thin = command == Command::RsThinRequest;
    let Some(mut request) = connection.take_request(
        device,
        Kind::ResyncRead { thin },
        packet.sector,
        packet.size,
    ) else {
        device.ranges.lock().remove(range);
        return Err(ConnectionError);
    };
    request.block_id = packet.block_id;
    request.range = Some(range);
    let size = usize::try_from(packet.size).unwrap_or(0);
    let Ok(buffer) = connection.account.alloc(&connection.pages, size) else {
        connection.free_request(request);
        return Err(ConnectionError);
    };
    let Some(local) = device.local() else {
        // It went while the range was in use.
        connection.free_request(request);
        let _ = resource.send_ack(
            device,
            Command::NegRsDReply,
            packet.sector,
            packet.size,
            packet.block_id,
        );
        return Ok(());
    };
    device.counters.unacked.up();
    device
        .counters
        .read
        .add(u64::from(packet.size >> SECTOR_SHIFT));
    device.resync.lock().moved(packet.size);
    let backing = local.backing.clone();
    request.local = Some(local);
    backing.submit_buffer(
        Operation::Read,
        BioFlags::NONE,
        packet.sector.0,
        buffer,
        PeerIo(request),
    );
    Ok(())
}

/// Lets the application go first, if it uses the disk and the resync is fast enough.
fn throttle(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let now_ns = monotonic_ns();
    let min_rate_kib = local.conf().c_min_rate;
    let left = local.bitmap.set_bits();
    let disk_sectors = local.backing.sectors_done();
    drop(local);
    let mut resync = device.resync.lock();
    let activity = Activity {
        disk_sectors,
        resync_sectors: resync.moved_sectors,
        activity_log_waiters: false,
        range_is_wanted: false,
        peer_is_primary: device.state().peer.is_primary(),
        recent_rate_kib: resync.progress.recent_rate_kib(now_ns, left),
    };
    let wait = resync.throttle.must_wait(&activity, min_rate_kib);
    drop(resync);
    if wait {
        sleep_ms(THROTTLE_MS);
    }
}

/// The source's answer: writes it. On the receiver.
pub(crate) fn receive_reply(
    device: &Arc<Device>,
    packet: Data,
    buffer: Buffer,
) -> Result<(), ConnectionError> {
    let size_bytes = buffer.len_bytes();
    let mut request = claim_reply(device, Kind::ResyncWrite, packet.sector, size_bytes)?;
    let Some(local) = device.local() else {
        let _ = device.resource.send_ack(
            device,
            Command::NegAck,
            packet.sector,
            size_bytes,
            packet.block_id,
        );
        forget_asked(device, size_bytes);
        device.resource.connection.free_request(request);
        return Ok(());
    };
    device.counters.unacked.up();
    device
        .counters
        .received
        .add(u64::from(size_bytes >> SECTOR_SHIFT));
    device
        .counters
        .written
        .add(u64::from(size_bytes >> SECTOR_SHIFT));
    device.resync.lock().moved(size_bytes);
    let backing = local.backing.clone();
    request.local = Some(local);
    backing.submit_buffer(
        Operation::Write,
        BioFlags::NONE,
        packet.sector.0,
        buffer,
        PeerIo(request),
    );
    Ok(())
}

/// The source has only zeroes there: discards or zeroes the range. On the receiver.
pub(crate) fn receive_deallocated(
    device: &Arc<Device>,
    packet: BlockDescriptor,
) -> Result<(), ConnectionError> {
    let mut request = claim_reply(device, Kind::ResyncDiscard, packet.sector, packet.size)?;
    let Some(local) = device.local() else {
        forget_asked(device, packet.size);
        device.resource.connection.free_request(request);
        return Ok(());
    };
    device.counters.unacked.up();
    device.resync.lock().moved(packet.size);
    let backing = local.backing.clone();
    request.local = Some(local);
    let sectors = packet.size >> SECTOR_SHIFT;
    // Zeroes must be read back: a plain discard does not promise that.
    let result = backing.zero_sync(packet.sector.0, u64::from(sectors), true);
    request.result = result;
    finish_write(device, request);
    Ok(())
}

/// Finds the range that was asked for, and makes it a write, waiting for writes that came before.
fn claim_reply(
    device: &Arc<Device>,
    kind: Kind,
    sector: Sector,
    size_bytes: u32,
) -> Result<KBox<PeerRequest>, ConnectionError> {
    let connection = &device.resource.connection;
    device.counters.resync_pending.down();
    let found = device
        .ranges
        .lock()
        .find(RangeKind::ResyncRequest, sector, size_bytes);
    let Some(range) = found else {
        log!(
            Error,
            device,
            "unexpected resync data at sector {}+{}",
            sector,
            size_bytes >> SECTOR_SHIFT
        );
        return Err(ConnectionError);
    };
    let mut promoted = false;
    connection.receiver_wait.wait_until(|| {
        promoted = device.ranges.lock().promote(range).is_ok();
        promoted || connection.is_interrupted()
    });
    if !promoted {
        return Err(ConnectionError);
    }
    let Some(mut request) = connection.take_request(device, kind, sector, size_bytes) else {
        return Err(ConnectionError);
    };
    request.block_id = BlockId::SYNCER;
    request.range = Some(range);
    Ok(request)
}

fn forget_asked(device: &Arc<Device>, size_bytes: u32) {
    let sectors = size_bytes >> SECTOR_SHIFT;
    let now_ns = monotonic_ns();
    let mut resync = device.resync.lock();
    resync.in_flight_sectors = resync.in_flight_sectors.saturating_sub(u64::from(sectors));
    if let Some(controller) = &mut resync.controller {
        controller.arrived(sectors, TENTH_NS, now_ns);
    }
    drop(resync);
    device.chore(chore::RESYNC_TURN);
}

/// A resync write is on disk: settles the bitmap and acks it. On the asender, or the receiver for
/// discards.
pub(crate) fn finish_write(device: &Arc<Device>, request: KBox<PeerRequest>) {
    let resource = &device.resource;
    let (sector, size_bytes) = (request.sector, request.size_bytes);
    let command = if request.result.is_ok() {
        if let Some(local) = device.local() {
            local.bitmap.set_in_sync(sector, size_bytes);
        }
        Command::RsWriteAck
    } else {
        device.resync.lock().fail(size_bytes);
        Command::NegAck
    };
    let _ = resource.send_ack(device, command, sector, size_bytes, BlockId::SYNCER);
    device.counters.unacked.down();
    resource.connection.free_request(request);
    forget_asked(device, size_bytes);
}

/// An ack about resync blocks. On the asender.
pub(crate) fn receive_ack(device: &Arc<Device>, command: Command, ack: BlockAck) {
    device.counters.resync_pending.down();
    match command {
        Command::RsWriteAck | Command::WriteAck | Command::RecvAck => {
            if let Some(local) = device.local() {
                local.bitmap.set_in_sync(ack.sector, ack.size);
            }
        }
        Command::RsIsInSync => {
            if let Some(local) = device.local() {
                local.bitmap.set_in_sync(ack.sector, ack.size);
            }
            release_asked(device, ack.sector, ack.size);
        }
        Command::NegRsDReply => {
            device.resync.lock().fail(ack.size);
            release_asked(device, ack.sector, ack.size);
        }
        Command::RsCancel => release_asked(device, ack.sector, ack.size),
        _ => {
            // The target could not write.
            device.resync.lock().fail(ack.size);
        }
    }
}

/// The answer to what was asked for is that there is no data to come.
fn release_asked(device: &Arc<Device>, sector: Sector, size_bytes: u32) {
    let mut ranges = device.ranges.lock();
    let found = ranges.find(RangeKind::ResyncRequest, sector, size_bytes);
    let awaited = found.is_some_and(|range| ranges.remove(range));
    drop(ranges);
    if found.is_some() {
        forget_asked(device, size_bytes);
    }
    if awaited {
        device.ranges_changed();
    }
}

/// The connection is gone: what was asked for will not come.
pub(crate) fn connection_lost(device: &Arc<Device>) {
    *device.plan.lock() = None;
    let mut ranges = device.ranges.lock();
    ranges.remove_kind(RangeKind::ResyncRequest);
    drop(ranges);
    device.ranges_changed();
    let mut resync = device.resync.lock();
    resync.cancel();
    resync.progress = Progress::default();
    resync.done = false;
    drop(resync);
    device.counters.resync_pending.reset();
    device.flags.clear(flag::BEFORE_RESYNC_DONE);
}

/// All blocks are to be synced, in a direction that the admin chose. On the worker.
pub(crate) fn start_full_sync(device: &Arc<Device>, as_target: bool) {
    let resource = &device.resource;
    let written = set_all_and_write(device, "set_n_write from StartingSync");
    if written.is_err() {
        let _ = resource.change_state(device, Change::conn(ConnState::Connected), How::HARD);
    } else if as_target {
        let _ = resource.change_state(device, Change::conn(ConnState::WFSyncUUID), How::HARD);
    } else {
        start(device, Side::Source);
    }
}

/// Marks everything out of sync, on disk too. A crash in the middle is remembered as a full sync to
/// be done. May sleep.
pub(crate) fn set_all_and_write(device: &Arc<Device>, why: &str) -> Result {
    let Some(local) = device.local() else {
        return Err(ENODEV);
    };
    local.change(device, |superblock| {
        superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC);
    });
    local.sync(device)?;
    log!(Info, device, "Writing the whole bitmap, {}", why);
    local.bitmap.set_all();
    local.bitmap.write(device, &local, Which::All)?;
    local.change(device, |superblock| {
        superblock.flags = superblock.flags.without(MdFlags::FULL_SYNC);
    });
    local.sync(device)
}

/// Storage that was added while both disks were there: the Primary has it right.
pub(crate) fn resync_new_storage(device: &Arc<Device>) {
    let resource = &device.resource;
    let state = device.state();
    let resolves = resource
        .connection
        .flags
        .any(super::connection::flag::RESOLVE_CONFLICTS);
    if is_source_of_new_storage(state.role, state.peer, resolves) {
        start(device, Side::Source);
    } else {
        let _ = resource.change_state(device, Change::conn(ConnState::WFSyncUUID), How::VERBOSE);
    }
}
