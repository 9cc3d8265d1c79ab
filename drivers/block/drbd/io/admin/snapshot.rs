// SPDX-License-Identifier: GPL-2.0

//! Objects as status reports show them (spec §3.3). No lock is taken that a command holds for long.

use drbd_engine::{
    config::Fencing,
    epoch::WriteOrdering,
    meta::{
        MdFlags,
        Uuids, //
    },
    state::DiskState,
    types::{
        Minor,
        SECTORS_PER_BIT_SHIFT, //
    },
};
use kernel::sync::Arc;

use super::has_disk;
use crate::{
    control::backend::{
        ConnectionSnapshot,
        DeviceSnapshot,
        DeviceSummary,
        ResourceId,
        ResourceSnapshot,
        ResourceSummary, //
    },
    io::{
        connection::flag as connection_flag,
        device::{
            flag,
            Device,
            Gauge, //
        },
        registry::Registry, //
    },
};

pub(super) fn device_summary(registry: &Registry, minor: Minor) -> Option<DeviceSummary> {
    let device = registry.device(minor)?;
    Some(DeviceSummary {
        resource: registry.id_of(&device.resource)?,
        volume: device.volume,
        state: device.state(),
        has_disk: has_disk(&device),
    })
}

pub(super) fn resource_summary(registry: &Registry, id: ResourceId) -> Option<ResourceSummary> {
    let resource = registry.resource(id)?;
    let control = resource.control.lock();
    let (aggregate, conn) = (control.aggregate(), control.conn());
    drop(control);
    let any = |test: &dyn Fn(&Arc<Device>) -> bool| resource.volumes().any(|device| test(&device));
    let connection = &resource.connection;
    Some(ResourceSummary {
        connection_state: conn,
        has_net: connection.config().is_some(),
        agreed_protocol: connection.version().number(),
        resync_runs: any(&|device| device.state().conn.is_resync()),
        verify_runs: any(&|device| device.state().conn.is_verify()),
        is_primary: aggregate.highest_role.is_primary(),
        peer_is_primary: aggregate.highest_peer.is_primary(),
        fences_with_stonith: any(&|device| {
            let local = device.local();
            local.is_some_and(|local| local.conf().fencing == Fencing::ResourceAndStonith)
        }),
    })
}

pub(super) fn describe_resource(
    registry: &Registry,
    id: ResourceId,
    into: &mut ResourceSnapshot,
) -> Option<()> {
    let resource = registry.resource(id)?;
    into.name = *resource.name();
    into.options = resource.control.lock().options;
    into.statistics.write_ordering = match resource.connection.ordering() {
        WriteOrdering::None => 0,
        WriteOrdering::Drain => 1,
        WriteOrdering::Flush => 2,
    };
    Some(())
}

pub(super) fn describe_connection(
    registry: &Registry,
    id: ResourceId,
    into: &mut ConnectionSnapshot,
) -> Option<()> {
    let resource = registry.resource(id)?;
    let config = resource.connection.config()?;
    let control = resource.control.lock();
    let (aggregate, conn) = (control.aggregate(), control.conn());
    drop(control);
    into.my_address = config.my_address;
    into.peer_address = config.peer_address;
    into.net.clone_from(&config.net);
    into.info.connection_state = u32::from(conn.bits());
    into.info.role = u32::from(aggregate.highest_peer.bits());
    into.statistics.congested = resource.connection.flags.any(connection_flag::CONGESTED);
    Some(())
}

pub(super) fn describe_device(
    registry: &Registry,
    minor: Minor,
    into: &mut DeviceSnapshot,
) -> Option<()> {
    let device = registry.device(minor)?;
    into.minor = minor;
    into.volume = device.volume;
    into.state = device.state();
    into.attached = false;
    into.status = DeviceSnapshot::EMPTY.status;
    into.statistics = DeviceSnapshot::EMPTY.statistics;
    into.peer_statistics = DeviceSnapshot::EMPTY.peer_statistics;
    count(&device, into);
    describe_disk(&device, into);
    describe_sync(&device, into);
    Some(())
}

/// Numbers that a device has with and without a disk.
fn count(device: &Device, into: &mut DeviceSnapshot) {
    let counters = &device.counters;
    let pending = gauge(&counters.application_pending);
    let resync_pending = gauge(&counters.resync_pending);

    let status = &mut into.status;
    status.capacity = device.capacity();
    status.exposed_uuid = device.exposed_uuid.load();
    status.sent = counters.sent.get();
    status.received = counters.received.get();
    status.read = counters.read.get();
    status.written = counters.written.get();
    status.activity_log_writes = counters.activity_log_writes.get();
    status.bitmap_writes = counters.bitmap_writes.get();
    status.application_requests = gauge(&counters.application_bios);
    status.application_pending = pending;
    status.resync_pending = resync_pending;

    let statistics = &mut into.statistics;
    statistics.size = device.capacity();
    statistics.read = counters.read.get();
    statistics.written = counters.written.get();
    statistics.activity_log_writes = counters.activity_log_writes.get();
    statistics.bitmap_writes = counters.bitmap_writes.get();
    statistics.upper_pending = gauge(&counters.application_bios);
    statistics.lower_pending = device.local_bios().try_into().unwrap_or(0);
    statistics.upper_blocked = into.state.is_suspended() || device.gate.get() != 0;
    statistics.activity_log_suspended = device.flags.any(flag::ACTIVITY_LOG_SUSPENDED);
    statistics.exposed_uuid = device.exposed_uuid.load();

    let peer = &mut into.peer_statistics;
    peer.sent = counters.sent.get();
    peer.received = counters.received.get();
    peer.pending = pending.saturating_add(resync_pending);
    peer.unacked = gauge(&counters.unacked);
}

/// What only an attached disk has.
fn describe_disk(device: &Arc<Device>, into: &mut DeviceSnapshot) {
    let Some(local) = device.local() else { return };
    into.attached = true;
    into.disk.clone_from(&local.conf());
    let uuids = local.uuids();
    let flags = local.flags();
    let bits_set = local.bitmap.set_bits();

    let Uuids {
        current,
        bitmap,
        history: [first, second],
    } = uuids;
    let status = &mut into.status;
    // Four UUIDs fit as they fill the field.
    let _ = status
        .uuids
        .set(&bytes_of([current, bitmap, first, second]));
    status.disk_flags = flags.0;
    status.bits_total = local.bitmap.bits();
    status.bits_out_of_sync = bits_set;

    let statistics = &mut into.statistics;
    statistics.current_uuid = current;
    statistics.disk_flags = flags.0;
    let _ = statistics
        .history_uuids
        .set(&bytes_of([first, second, 0, 0]));

    let peer = &mut into.peer_statistics;
    peer.out_of_sync = sectors_of(bits_set);
    peer.bitmap_uuid = bitmap;
    let about_peer = [
        (MdFlags::CONNECTED_IND, 1),
        (MdFlags::PEER_OUT_DATED, 2),
        (MdFlags::FULL_SYNC, 8),
    ];
    for (flag, number) in about_peer {
        if flags.contains(flag) {
            peer.flags |= number;
        }
    }
}

fn describe_sync(device: &Device, into: &mut DeviceSnapshot) {
    let resync = device.resync.lock();
    let (total, failed) = (resync.progress.total_bits(), resync.progress.failed_bits());
    drop(resync);
    into.status.bits_resync_total = total;
    into.status.bits_resync_failed = failed;
    into.peer_statistics.resync_failed = sectors_of(failed);
}

/// Which of the tools' timeouts counts when they wait for the connection.
pub(super) fn timeout_type(registry: &Registry, minor: Minor) -> u32 {
    const DEFAULT: u32 = 0;
    const DEGRADED: u32 = 1;
    const PEER_OUTDATED: u32 = 2;
    let Some(device) = registry.device(minor) else {
        return DEFAULT;
    };
    if device.state().pdsk == DiskState::Outdated {
        PEER_OUTDATED
    } else if device.flags.any(flag::USE_DEGR_WFC_TIMEOUT) {
        DEGRADED
    } else {
        DEFAULT
    }
}

/// Numbers in host order, as messages have them.
fn bytes_of(uuids: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, uuid) in bytes.chunks_exact_mut(8).zip(uuids) {
        for (to, from) in to.iter_mut().zip(uuid.to_ne_bytes()) {
            *to = from;
        }
    }
    bytes
}

fn gauge(gauge: &Gauge) -> u32 {
    u32::try_from(gauge.get()).unwrap_or(0)
}

fn sectors_of(bits: u64) -> u64 {
    bits.saturating_mul(1 << SECTORS_PER_BIT_SHIFT)
}
