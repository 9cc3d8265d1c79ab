// SPDX-License-Identifier: GPL-2.0

//! What follows from changes of state, on the worker: the engine's deferred effects, in order.

use drbd_engine::{
    handshake::peer_state::exposes_peer_after_detach,
    meta::MdFlags,
    request::{
        DiskError,
        Writer, //
    },
    state::{
        begins_when_io_goes_on,
        begins_while_suspended,
        connection::{
            connection_work,
            ConnectionWork, //
        },
        effects_after,
        promote::demotes_with_new_generation,
        restart_is_seen,
        AfterContext,
        Change,
        ConnState,
        Deferred,
        DiskState,
        State, //
    },
    timer::SECOND_NS,
    wire::{
        Command,
        ResizeFlags,
        SyncUuid,
        UuidFlags, //
    },
};
use drbd_sys::{
    log,
    random, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    bitmap::Which,
    bitmap_exchange,
    connection::flag as connection_flag,
    device::{
        flag,
        Device, //
    },
    disk::LocalDisk,
    disk_error,
    limits::METADATA_DIRTY_MS,
    resource::Resource,
    resync,
    state::{
        How,
        Phase, //
    },
    worker::{
        chore,
        After,
        AfterConnection, //
    },
};

/// Carries out what state changes left for the worker.
pub(crate) fn carry_out(resource: &Arc<Resource>) {
    loop {
        let mut control = resource.control.lock();
        let (volumes, connections) = control.take_after();
        if volumes.is_empty() && connections.is_empty() {
            resource.set_unsent_changes(false);
            return;
        }
        drop(control);
        for after in volumes {
            after_volume(resource, &after);
        }
        for after in connections {
            after_connection(resource, &after);
        }
    }
}

fn after_volume(resource: &Arc<Resource>, after: &After) {
    let device = &after.device;
    let local = device.local();
    let context = AfterContext {
        apv: resource.connection.version().number(),
        present: device.state(),
        volumes: resource.control.lock().aggregate(),
        is_attached: local.is_some(),
        bitmap_uuid_is_zero: local
            .as_ref()
            .is_some_and(|local| local.uuids().bitmap == 0),
        was_io_error: device.flags.any(flag::WAS_IO_ERROR),
        calls_local_io_error: local.as_ref().is_some_and(|local| {
            local.conf().on_io_error == drbd_engine::config::OnIoError::CallLocalIoError
        }),
        resync_after_negotiation: device.flags.any(flag::RESYNC_AFTER_NEGOTIATION),
    };
    // A reference held across the effects would keep the disk from being let go.
    drop(local);
    if after.resends {
        // What cannot be sent has cost the connection.
        let _ = device
            .send_uuids(UuidFlags::default())
            .and_then(|()| device.send_state(after.new));
    }
    for effect in effects_after(after.old, after.new, &context).iter() {
        carry_out_deferred(resource, device, effect, after.old, after.new);
    }
    if after.holds_writes {
        device.release_writes();
    }
}

fn carry_out_deferred(
    resource: &Arc<Resource>,
    device: &Arc<Device>,
    effect: Deferred,
    old: State,
    new: State,
) {
    // What cannot be sent has cost the connection already.
    let _ = match effect {
        Deferred::Notify | Deferred::BroadcastEvent => {
            crate::notify::state_changed(device, effect, old, new);
            Ok(())
        }
        Deferred::SendStateForPause
        | Deferred::SendStateForHandshake
        | Deferred::SendStateForAhead
        | Deferred::SendStateForInconsistent
        | Deferred::SendStateForVerifyEnd => device.send_state(new),
        Deferred::SendStateForResyncEnd => {
            let sent = device.send_state(new);
            device.flags.clear(flag::END_UNTOLD);
            resource.waiters.wake_all();
            sent
        }
        Deferred::GreetPeerDisk => device
            .send_uuids(UuidFlags::default())
            .and_then(|()| device.send_state(new)),
        Deferred::SendDisk => device
            .send_sizes(false, ResizeFlags::default())
            .and_then(|()| device.send_uuids(UuidFlags::default()))
            .and_then(|()| device.send_state(new)),
        Deferred::SendSyncUuid => send_sync_uuid(device),
        Deferred::ReleaseDisk => {
            if old.disk == DiskState::Negotiating {
                // The connection was lost before the nodes agreed what the disk is worth.
                device.chore(chore::GO_DISKLESS);
            }
            device.send_state(new)
        }
        Deferred::RememberNewCurrentUuid if device.state().is_suspended() => {
            device.flags.set(flag::NEW_CURRENT_UUID);
            Ok(())
        }
        // Or I/O has gone on since.
        Deferred::NewCurrentUuid | Deferred::RememberNewCurrentUuid => {
            begin_generation_once(device);
            device.send_uuids(UuidFlags::default())
        }
        _ => {
            carry_out_local(resource, device, effect, new);
            Ok(())
        }
    };
}

/// The effects that send nothing by themselves.
fn carry_out_local(resource: &Arc<Resource>, device: &Arc<Device>, effect: Deferred, new: State) {
    match effect {
        Deferred::ClearCrashedPrimary => clear_crashed_primary(device),
        Deferred::HelperPriOnInconDegr => helper(device, "pri-on-incon-degr"),
        Deferred::HelperLocalIoError => helper(device, "local-io-error"),
        Deferred::ResendForNoData => {
            thaw(
                resource,
                device,
                Change::NONE.with_susp_nod(false),
                Resource::resend,
            );
        }
        Deferred::RestartDiskIoForNoData => {
            let change = Change::NONE.with_susp_nod(false);
            thaw(resource, device, change, Resource::restart_at_disk);
        }
        Deferred::ResendForFencing => {
            thaw(
                resource,
                device,
                Change::NONE.with_susp_fen(false),
                Resource::resend,
            );
        }
        Deferred::ResendForAdmin => {
            settle_generations(resource);
            resource.resend();
        }
        Deferred::SendBitmap => bitmap_exchange::send_as_source(device),
        Deferred::WriteBitmapForPeerDemotion | Deferred::WriteBitmapForDemotion => {
            write_bitmap(device, Which::Dirty);
        }
        Deferred::WriteChangedBitmap => write_bitmap(device, Which::Dirty),
        Deferred::StartFullSyncAsTarget | Deferred::StartFullSyncAsSource => {
            resync::start_full_sync(device, effect == Deferred::StartFullSyncAsTarget);
        }
        Deferred::ReleaseFailedDisk => release_failed_disk(device, new),
        Deferred::ResyncNewStorage => {
            device.flags.clear(flag::RESYNC_AFTER_NEGOTIATION);
            resync::resync_new_storage(device);
        }
        Deferred::ForgetNewStorage => {
            device.flags.clear(flag::RESYNC_AFTER_NEGOTIATION);
        }
        Deferred::SuspendDependents
        | Deferred::ResumeDependents
        | Deferred::ResumeDependentsOfUnconfigured => resync::order::reconsider(resource),
        Deferred::SyncMetadata => sync_metadata(device),
        _ => {}
    }
}

fn clear_crashed_primary(device: &Arc<Device>) {
    device.flags.clear(flag::CRASHED_PRIMARY);
    // The other flags are those of a state, which may be another one by now.
    let crashed = MdFlags::CRASHED_PRIMARY;
    let local = device
        .local()
        .filter(|local| local.flags().contains(crashed));
    if let Some(local) = local {
        local.change(device, |superblock| {
            superblock.flags = superblock.flags.without(crashed);
        });
    }
    let mut peer = device.peer.lock();
    if let Some(uuids) = &mut peer.uuids {
        uuids.flags = UuidFlags(uuids.flags.0 & !UuidFlags::CRASHED_PRIMARY.0);
    }
}

/// Runs a helper and does not care how it ends.
fn helper(device: &Arc<Device>, name: &'static str) {
    let _ = super::helper::run(device, name);
}

/// I/O goes on: what was held back ends or is sent again, by `again`.
fn thaw(
    resource: &Arc<Resource>,
    device: &Arc<Device>,
    change: Change,
    again: impl FnOnce(&Resource),
) {
    settle_generations(resource);
    again(resource);
    let _ = resource.change_state(device, change, How::VERBOSE);
    resource.end_held_back();
}

/// The volumes whose writes are of a generation of their own from here on begin it. May sleep.
pub(crate) fn settle_generations(resource: &Arc<Resource>) {
    for device in resource.volumes() {
        let is_due = take_generation_due(&device);
        if !begins_when_io_goes_on(device.state(), is_due) {
            continue;
        }
        begin_generation_once(&device);
        if device.state().conn >= ConnState::Connected {
            // What cannot be sent has cost the connection.
            let _ = device.send_uuids(UuidFlags::default());
        }
    }
}

/// Whether a generation was to begin when I/O goes on; who asks sees to it, or has a reason not to.
pub(crate) fn take_generation_due(device: &Device) -> bool {
    device.flags.clear(flag::NEW_CURRENT_UUID) & flag::NEW_CURRENT_UUID != 0
}

/// Tells the target which generation it gets. May sleep; on the worker.
pub(crate) fn send_sync_uuid(device: &Arc<Device>) -> Result<(), super::sender::NotSent> {
    let Some(local) = device.local() else {
        return Ok(());
    };
    // What was only announced as out of sync belongs before the resync begins.
    super::sender::send_queued(&device.resource);
    let uuid = local.change(device, |superblock| {
        superblock.uuids.start_as_sync_source(random::u64())
    });
    log!(Info, device, "updated sync UUID {}", local.uuids_text());
    if local.sync(device).is_err() {
        // The disk is given up, and the resync with it. A target that took the UUID would be the
        // only one to know of it.
        return Ok(());
    }
    device
        .resource
        .send_data(device.volume, Command::SyncUuid, &SyncUuid(uuid).encode())
}

/// Begins a new data generation: from now on the bitmap counts against the old one. May sleep.
pub(crate) fn new_current_uuid(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let primary = device.state().role.is_primary();
    let overwritten = local.change(device, |superblock| {
        superblock.uuids.begin_generation(random::u64(), primary)
    });
    if let Some(bitmap) = overwritten {
        log!(Warning, device, "bm UUID was already set: {:X}", bitmap);
    }
    generation_begun(device, &local);
}

/// The same, unless the bitmap counts from a generation already.
pub(crate) fn begin_generation_once(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let primary = device.state().role.is_primary();
    let begun = local.change(device, |superblock| {
        superblock
            .uuids
            .begin_generation_once(random::u64(), primary)
    });
    if begun {
        generation_begun(device, &local);
    }
}

/// The connection was lost while I/O is suspended: begins a generation where blocks differ already.
/// May sleep.
pub(crate) fn begin_generation_while_suspended(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let is_zero = local.uuids().bitmap == 0;
    let set_bits = local.bitmap.set_bits();
    let fencing = local.fencing();
    drop(local);
    let protocol = device.resource.connection.protocol();
    if begins_while_suspended(device.state(), protocol, fencing, is_zero, set_bits) {
        begin_generation_once(device);
    }
}

/// Whether a peer that is restarted while I/O is suspended is known as such when it is back. Any
/// context.
pub(crate) fn sees_restart(device: &Arc<Device>) -> bool {
    device
        .local()
        .is_some_and(|local| restart_is_seen(local.fencing(), local.uuids().bitmap == 0))
}

/// Begins a generation for a Primary that is being demoted, if one is due, and tells the peer. May
/// sleep.
pub(crate) fn begin_generation_for_demotion(device: &Arc<Device>) {
    let Some(local) = device.local() else { return };
    let is_due = demotes_with_new_generation(
        device.state().disk,
        local.uuids().bitmap == 0,
        device.flags.any(flag::PEER_REFUSED),
        local.bitmap.set_bits(),
    );
    drop(local);
    if is_due {
        begin_generation_once(device);
        // What cannot be sent has cost the connection.
        let _ = device.send_uuids(UuidFlags::default());
    }
}

fn generation_begun(device: &Device, local: &LocalDisk) {
    device.flags.clear(flag::PEER_REFUSED);
    device.exposed_uuid.store(local.current_uuid());
    log!(Info, device, "new current UUID {}", local.uuids_text());
    let _ = local.sync(device);
}

fn write_bitmap(device: &Arc<Device>, which: Which) {
    if let Some(local) = device.local() {
        let _ = local.bitmap.write(device, &local, which);
    }
}

/// The disk failed, or the admin detaches it: nothing new goes there; it is let go when what is
/// under way has ended.
fn release_failed_disk(device: &Arc<Device>, new: State) {
    if device.flags.any(flag::FORCE_DETACH) {
        if let Some(local) = device.local() {
            local.abandon();
        }
        for request in device.resource.requests.iter() {
            request.abort_local(device);
        }
    }
    let _ = device.send_state(new);
    if exposes_peer_after_detach(device.state()) {
        let peer = device.peer.lock().uuids;
        if let Some(peer) = peer {
            device.exposed_uuid.store(peer.current);
        }
    }
    device.resync.lock().cancel();
    sync_metadata(device);
    device.chore(chore::GO_DISKLESS);
}

fn sync_metadata(device: &Arc<Device>) {
    if let Some(local) = device.local() {
        let _ = local.sync(device);
    }
}

fn after_connection(resource: &Arc<Resource>, after: &AfterConnection) {
    let volumes = resource.control.lock().aggregate();
    let suspended = resource.volumes().any(|device| device.state().susp_fen);
    let ConnectionWork {
        start_receiver,
        discard_configuration,
        finish_fencing,
    } = connection_work(after.old, after.new, suspended, &volumes);
    if start_receiver {
        if let Err(error) = resource.start_receiver() {
            log!(Error, resource, "no receiver thread: {}", error.to_errno());
            let _ = resource.change_connection(Change::conn(ConnState::Disconnecting), How::HARD);
            let _ = resource.change_connection(Change::conn(ConnState::StandAlone), How::HARD);
        }
    }
    if discard_configuration {
        crate::notify::connection_destroyed(resource);
        resource.connection.set_config(None);
    }
    if finish_fencing {
        for device in resource.volumes() {
            if take_generation_due(&device) {
                // A demotion may have begun one while the peer was fenced.
                begin_generation_once(&device);
            }
        }
        thaw_without_peer(resource);
    }
    resource.waiters.wake_all();
}

/// Fencing holds nothing back any more: what waits for the peer ends without it.
///
/// No connection is established meanwhile, see [`super::handshake`].
fn thaw_without_peer(resource: &Arc<Resource>) {
    let waits_on = |state: State| state.susp || state.susp_nod;
    if !resource.volumes().any(|device| waits_on(device.state())) {
        resource.fail_for_lost_connection();
    }
    let _ = resource.change_connection(Change::NONE.with_susp_fen(false), How::VERBOSE);
    // What the disk was through with in between.
    resource.end_held_back();
}

/// Nobody is asked about the peer: what fencing held back goes on, unless the peer is on its way
/// back, which decides then.
pub(crate) fn give_up_fencing(resource: &Arc<Resource>) {
    let phase = resource.phase();
    if phase == Phase::Away && resource.volumes().any(|device| device.state().susp_fen) {
        thaw_without_peer(resource);
    }
}

/// Does a device's chores that are not about the resync.
pub(crate) fn look_after(device: &Arc<Device>, chores: u32) {
    if chores & chore::DISK_FAILED != 0 {
        let error = if device.flags.any(flag::WAS_READ_ERROR) {
            DiskError::Read
        } else {
            DiskError::Write
        };
        disk_error::judge(device, error);
    }
    if chores & chore::METADATA_FAILED != 0 {
        disk_error::judge(device, DiskError::Metadata);
    }
    if chores & chore::GO_DISKLESS != 0 {
        go_diskless(device);
    }
}

/// Lets a disk go that failed, or that the nodes could not agree about, once nobody uses it any
/// more: whoever gives back the last reference makes the worker come again.
fn go_diskless(device: &Arc<Device>) {
    if !matches!(device.state().disk, DiskState::Failed | DiskState::Diskless) {
        return;
    }
    let Some(disk) = device.retire_local() else {
        return;
    };
    if device.has_local_references() {
        return;
    }
    if device.state().disk == DiskState::Failed {
        part_with(device, &disk);
    }
    drop(disk);
    super::attach::close(device);
}

/// The last that is done with a failed disk.
fn part_with(device: &Arc<Device>, disk: &Arc<LocalDisk>) {
    // The peer is told that what it wrote here before is on stable storage, see `flush_all`.
    if disk.backing.has_write_cache() {
        if let Err(error) = disk.flush(&disk.backing) {
            if error != EOPNOTSUPP {
                let connection = &device.resource.connection;
                connection.flags.set(connection_flag::FLUSH_FAILED);
                disk_error::note_lack(device, Writer::Own { acked: false });
            }
        }
    }
    // What the bitmap says is needed at the next attach; if it cannot be written, everything is out
    // of sync.
    let lost = device.flags.any(flag::WAS_READ_ERROR)
        || disk.bitmap.write(device, disk, Which::Dirty).is_err();
    if lost {
        disk.change(device, |superblock| {
            superblock.flags = superblock.flags.with(MdFlags::FULL_SYNC);
        });
    }
    disk_error::record_lack(device, disk);
    let _ = disk.sync_with_bitmap(device);
    let _ = device
        .resource
        .change_state(device, Change::disk(DiskState::Diskless), How::HARD);
}

/// Writes metadata that has been dirty for long enough; returns when there is something to write,
/// in milliseconds from now.
pub(crate) fn sync_when_due(device: &Arc<Device>, now_ns: u64) -> u32 {
    let Some(local) = device.local() else {
        return u32::MAX;
    };
    let Some(since_ns) = local.dirty_since_ns() else {
        return u32::MAX;
    };
    let age_ms = now_ns.saturating_sub(since_ns) / (SECOND_NS / 1000);
    if age_ms >= METADATA_DIRTY_MS {
        let _ = local.sync(device);
        return u32::MAX;
    }
    u32::try_from(METADATA_DIRTY_MS.saturating_sub(age_ms)).unwrap_or(u32::MAX)
}
