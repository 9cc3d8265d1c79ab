// SPDX-License-Identifier: GPL-2.0

//! A resync ends: the peer has seen our acks, the generations are settled, the state goes back.

use drbd_engine::{
    resync::Progress,
    state::{
        resync::{
            end_waits as decide_end_waits,
            ends_equal,
            finish as decide_finish,
            finishes_by_itself,
            has_bits_left,
            unfences_peer,
            FinishUuids,
            Side, //
        },
        ConnState, //
    },
    timer::SECOND_NS, //
};
use drbd_sys::{
    log,
    time::monotonic_ns, //
};
use kernel::sync::Arc;

use super::{
    checksum,
    verify, //
};
use crate::io::{
    after,
    device::{
        flag,
        Device, //
    },
    helper,
    state::How,
    worker::chore, //
};

/// Whether the end of a resync waits for a change that the peer is asked for.
pub(super) fn end_waits(device: &Device) -> bool {
    decide_end_waits(
        device.state().conn,
        device.resource.connection.is_changing(),
    )
}

pub(super) fn finish_if_done(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let set_bits = local.bitmap.set_bits();
    drop(local);
    if device.state().conn.is_verify() {
        let is_over = device
            .resync
            .lock()
            .verify
            .is_some_and(|verify| verify.is_over());
        if is_over {
            finish(device);
        }
        return;
    }
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
    let (progress, left_bits, uses_checksums) = {
        let resync = device.resync.lock();
        let left_bits = resync.verify.map_or(0, |verify| verify.left_bits());
        (resync.progress, left_bits, resync.uses_checksums)
    };
    let is_verify = old.conn.is_verify();
    if is_verify {
        verify::report_rest(device);
    }
    let out_of_sync = device.local().map_or(0, |local| local.bitmap.set_bits());
    let Some(finish) = decide_finish(old, progress.failed_bits(), out_of_sync) else {
        return;
    };
    log_done(device, old.conn, &progress, left_bits, now_ns);
    if is_verify && out_of_sync > 0 {
        log!(
            Alert,
            device,
            "Online verify found {} 4k block out of sync!",
            out_of_sync
        );
    }
    if !is_verify && uses_checksums && progress.total_bits() > 0 {
        checksum::log_saved(device, &progress);
    }
    let local = device.local();
    if let Some(local) = local.as_ref().filter(|_| !is_verify) {
        // The generation must not promise more than the disk holds.
        if local.flush(&local.backing).is_err() {
            device.resync.lock().done = false;
            device.chore(chore::DISK_FAILED);
            // Where the disk stays the resync begins anew; nobody would end this one.
            resource.lose_connection(ConnState::NetworkFailure);
            return;
        }
    }
    let peer = device.peer.lock().uuids;
    let is_target = Side::of(old.conn) == Some(Side::Target);
    let has_bits_left = || {
        let set_bits = local.as_ref().map_or(0, |local| local.bitmap.set_bits());
        has_bits_left(old.conn, set_bits, progress.failed_bits())
    };
    let mut settled = None;
    // Together with the state: who loses the peer in between must not find both generations equal
    // and write on.
    let changed = resource.change_state_if(device, finish.change, How::VERBOSE, |state| {
        let ends = state.conn == old.conn && !end_waits(device);
        let mut equal = 0;
        if ends && !is_verify {
            equal = flag::PEER_REFUSED;
            if ends_equal(old.conn, progress.failed_bits()) {
                equal |= flag::TOLD_ALONE;
            }
        }
        // Before the bits are counted: what one node alone has from now on has set one, or is told
        // again.
        let forgotten = device.flags.clear(equal) & equal;
        let goes_on = ends && !has_bits_left();
        if !goes_on {
            device.flags.set(forgotten);
        }
        if goes_on && is_target {
            device.flags.set(flag::END_UNTOLD);
        }
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
    if changed.is_err() {
        if is_target {
            device.flags.clear(flag::END_UNTOLD);
        }
        device.resync.lock().done = false;
        if Side::of(device.state().conn) == Some(Side::Source) {
            // A write has failed, or the resync was paused or resumed. The peer has ended it, and
            // tells so once.
            log!(
                Error,
                device,
                "the peer ends a resync that cannot end here, connecting anew"
            );
            resource.lose_connection(ConnState::ProtocolError);
        }
        return;
    }
    drop(local);
    *device.plan.lock() = None;
    {
        let mut resync = device.resync.lock();
        resync.progress = Progress::default();
        resync.cancel();
    }
    device.flags.clear(flag::BEFORE_RESYNC_DONE);
    if is_target {
        // The peer need not wait for the helper.
        after::carry_out(resource);
    }
    if let Some(name) = finish.helper {
        let _ = helper::run(device, name);
    }
    let context = resource.context_of(device);
    let volumes = resource.control.lock().aggregate();
    if unfences_peer(old, &context, &volumes) {
        let _ = helper::run_for_resource(resource, "unfence-peer");
    }
}

fn log_done(device: &Device, conn: ConnState, progress: &Progress, left_bits: u64, now_ns: u64) {
    let paused_s = progress.paused(now_ns) / SECOND_NS;
    let total_s = now_ns.saturating_sub(progress.start_ns()) / SECOND_NS;
    let rate = progress.average_rate_kib(now_ns, left_bits);
    let what = if conn.is_verify() {
        "Online verify"
    } else {
        "Resync"
    };
    log!(
        Info,
        device,
        "{} done (total {} sec; paused {} sec; {} K/sec)",
        what,
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
    local: &crate::io::disk::LocalDisk,
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
