// SPDX-License-Identifier: GPL-2.0

//! Resync: starting it, asking for blocks, serving them, and ending it. The engine plans and paces.
//!
//! Both sides claim the exact range of blocks that travel, see `drbd_engine::range` for why. The
//! worker drives the target.

pub(crate) mod checksum;
mod finish;
mod full;
pub(crate) mod order;
mod pace;
mod source;
mod start;
mod target;
pub(crate) mod verify;

pub(crate) use finish::finish;
pub(crate) use full::{
    resync_new_storage,
    set_all_and_write,
    start_full_sync, //
};
pub(crate) use source::{
    receive_request,
    retry_aside, //
};
pub(crate) use start::receive_sync_uuid;
pub(crate) use target::{
    finish_write,
    receive_deallocated,
    receive_reply,
    Plan, //
};

use drbd_engine::{
    range::Kind as RangeKind,
    resync::{
        Controller,
        Extent,
        Progress,
        Throttle,
        Verify, //
    },
    state::{
        resync::Side,
        ConnState, //
    },
    timer::SECOND_NS,
    types::{
        Sector,
        BIT_SIZE,
        SECTOR_SHIFT, //
    },
    wire::{
        BlockAck,
        Command, //
    },
};
use drbd_sys::time::monotonic_ns;
use kernel::sync::Arc;

use finish::finish_if_done;
use start::start;
use target::{
    ask,
    is_in_sync,
    release_asked, //
};

use super::{
    bitmap::Which,
    device::{
        flag,
        Device, //
    },
    worker::chore, //
};

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
    /// The target asks by checksum; on the source, it did.
    uses_checksums: bool,
    /// The online verify, if that is what it is.
    pub(crate) verify: Option<Verify>,
    /// What the admin wants to be verified.
    pub(crate) verify_wanted: Extent,
    /// Where the last verify stopped.
    pub(crate) verify_start: Sector,
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
            let pause_ms = ask(device);
            // What was asked for is in as few frames as it takes.
            device.resource.push_data();
            pause_ms
        }
        ConnState::VerifyS => {
            advance(device, now_ns);
            let pause_ms = verify::ask(device);
            device.resource.push_data();
            pause_ms
        }
        ConnState::SyncSource | ConnState::VerifyT => {
            advance(device, now_ns);
            // Before version 96 the target does not say when it is done.
            finish_if_done(device);
            THROTTLE_MS
        }
        _ => u32::MAX,
    }
}

/// Sets progress marks, and writes what changed of the bitmap every now and then.
fn advance(device: &Arc<Device>, now_ns: u64) {
    let Some(local) = device.local() else { return };
    let set_bits = local.bitmap.set_bits();
    let mut resync = device.resync.lock();
    let left = match &resync.verify {
        Some(verify) => verify.left_bits(),
        None => set_bits,
    };
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

/// An ack about resync blocks; whether there was anything to be acked. On the asender.
pub(crate) fn receive_ack(device: &Arc<Device>, command: Command, ack: BlockAck) -> bool {
    match command {
        Command::RsIsInSync | Command::NegRsDReply | Command::RsCancel => {
            let is_asked = if command == Command::RsIsInSync {
                is_in_sync(device, ack.sector, ack.size)
            } else {
                release_asked(device, ack.sector, ack.size)
            };
            if !is_asked {
                return false;
            }
            device.counters.resync_pending.take();
        }
        _ => {
            if !device.counters.resync_pending.take() {
                return false;
            }
        }
    }
    match command {
        // The blocks were read before a write that came when the resync had been given up: the ack
        // says nothing about it.
        Command::RsWriteAck | Command::WriteAck | Command::RecvAck
            if !device.state().conn.is_resync_source() => {}
        Command::RsWriteAck | Command::WriteAck | Command::RecvAck => {
            believe_in_sync(device, ack.sector, ack.size);
        }
        Command::RsIsInSync | Command::RsCancel => {}
        Command::NegRsDReply if device.state().conn.is_verify() => verify::refused(device, &ack),
        // The source could not read, or the target not write.
        _ => device.resync.lock().fail(ack.size),
    }
    true
}

/// The peer has acked blocks, which are in sync then, unless a write has failed here: that may have
/// come after what is acked, which says nothing about it. Any context.
pub(crate) fn believe_in_sync(device: &Arc<Device>, sector: Sector, size_bytes: u32) {
    let Some(local) = device.local() else { return };
    let is_doubted = || device.flags.any(flag::RESYNC_DOUBTED);
    if is_doubted() {
        return;
    }
    local.bitmap.set_in_sync(sector, size_bytes);
    if is_doubted() {
        // It failed just now, and its bits may be among those.
        local.bitmap.set_out_of_sync(sector, size_bytes);
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
