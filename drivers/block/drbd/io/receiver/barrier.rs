// SPDX-License-Identifier: GPL-2.0

//! The end of an epoch: what came before is on disk before what comes after begins (Spec §1.17).

use drbd_engine::{
    cache::Mark,
    epoch::{
        BarrierStep,
        WriteOrdering, //
    },
    request::Writer,
    state::DiskState,
    wire::Barrier, //
};
use drbd_sys::{
    bio::Completion,
    log, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    ConnectionError,
    Receiver, //
};
use crate::io::{
    connection::{
        flag,
        Connection, //
    },
    device::{
        flag as device_flag,
        Device,
        LocalRef, //
    },
    disk_error,
    resource::Resource,
    worker::chore, //
};

/// A flush of a backing device that the receiver waits for.
struct Flushing {
    device: Arc<Device>,
    /// Keeps the disk.
    local: LocalRef,
    since: Mark,
}

impl Completion for Flushing {
    fn complete(self, result: Result) {
        let Self {
            device,
            local,
            since,
        } = self;
        if result.is_ok() {
            local.cache.lock().flushed(since);
        }
        let connection = &device.resource.connection;
        match result {
            Ok(()) => {}
            Err(EOPNOTSUPP) => {
                connection.flags.set(flag::FLUSH_UNSUPPORTED);
            }
            Err(_) => {
                connection.flags.set(flag::FLUSH_FAILED);
                disk_error::note_lack(&device, Writer::Peer);
                device.flags.set(device_flag::DISK_UNJUDGED);
                device.chore(chore::DISK_FAILED);
            }
        }
        // What it lacks is noted: who gives it up waits for this.
        drop(local);
        if connection.flushes.down() {
            connection.receiver_wait.wake_all();
            if connection.is_interrupted() {
                // The receiver cleans up, and waits where the asender did.
                connection.asender_wait.wake_all();
            }
        }
    }
}

impl Receiver {
    /// P_BARRIER.
    pub(super) fn barrier(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let barrier = self.decoded(Barrier::decode(payload))?;
        let connection = &self.resource.connection;
        let ordering = connection.ordering();
        let step = connection.epochs.lock().barrier(barrier.cookie.0, ordering);
        let step = step.map_err(|_| self.refuse("Barrier packet out of turn"))?;
        let next_is_open = step == BarrierStep::GoOn || self.settle(step)?;
        self.epoch_ended = true;
        if !next_is_open {
            self.ack_ended();
        }
        Ok(())
    }

    /// Waits until the disks have what came before; whether the next epoch is open then.
    fn settle(&self, step: BarrierStep) -> Result<bool, ConnectionError> {
        let connection = &self.resource.connection;
        wait(connection, || connection.epochs.lock().active() == 0)?;
        if step == BarrierStep::DrainAndFlush {
            flush_all(&self.resource)?;
        }
        Ok(connection.epochs.lock().settled())
    }
}

/// Waits for a condition, or the end of the connection.
fn wait(
    connection: &Connection,
    mut condition: impl FnMut() -> bool,
) -> Result<(), ConnectionError> {
    let mut held = false;
    connection.receiver_wait.wait_until(|| {
        held = condition();
        held || connection.is_interrupted()
    });
    if held {
        Ok(())
    } else {
        Err(ConnectionError)
    }
}

/// Flushes the disks where the epoch looks complete: the flush goes on while the acks are on their
/// way, and the barrier with the next write. On the asender.
pub(in crate::io) fn flush_early(resource: &Resource) {
    let connection = &resource.connection;
    let is_busy = connection.flushes.get() != 0 || connection.is_interrupted();
    if is_busy || connection.ordering() != WriteOrdering::Flush {
        return;
    }
    if !connection.epochs.lock().may_flush_early() {
        return;
    }
    for device in resource.volumes() {
        if let Some(local) = written_disk(&device) {
            start_flush(&device, local);
        }
    }
}

/// The disk, where the peer may have written to it: not one that is not in use yet.
fn written_disk(device: &Arc<Device>) -> Option<LocalRef> {
    device.local().filter(|_| {
        let disk = device.glance().disk();
        disk != DiskState::Attaching && disk != DiskState::Negotiating
    })
}

/// Flushes the cache of a disk, if there may be anything in it.
fn start_flush(device: &Arc<Device>, local: LocalRef) {
    let cache = local.cache.lock();
    let (is_stable, since) = (cache.is_stable(), cache.flush_begins());
    drop(cache);
    if is_stable || !local.backing.has_write_cache() {
        return;
    }
    let backing = local.backing.clone();
    device.resource.connection.flushes.up();
    backing.submit_flush(Flushing {
        device: device.clone(),
        local,
        since,
    });
}

/// Flushes the caches of all disks of the resource, side by side.
///
/// A disk that fails to costs the connection, also when that was as it was let go.
fn flush_all(resource: &Resource) -> Result<(), ConnectionError> {
    let connection = &resource.connection;
    // One that began early may be all that is needed.
    wait(connection, || connection.flushes.get() == 0)?;
    for device in resource.volumes() {
        match written_disk(&device) {
            Some(local) => start_flush(&device, local),
            // Whoever lets a disk go flushes it.
            None => wait(connection, || !device.is_parting())?,
        }
    }
    wait(connection, || connection.flushes.get() == 0)?;
    if connection.flags.any(flag::FLUSH_FAILED) {
        // The C driver goes on without flushes, and says of writes that a power cut may take that
        // they are safe. Without its ack the peer remembers them as out of sync.
        log!(
            Error,
            resource,
            "what the peer wrote could not be flushed, dropping connection"
        );
        return Err(ConnectionError);
    }
    let before = connection.flags.clear(flag::FLUSH_UNSUPPORTED);
    let weaker = connection.ordering().without_flush();
    if before & flag::FLUSH_UNSUPPORTED != 0 && connection.set_ordering(weaker) {
        log!(
            Info,
            resource,
            "Method to ensure write ordering: {}",
            WriteOrdering::name(weaker)
        );
    }
    Ok(())
}
