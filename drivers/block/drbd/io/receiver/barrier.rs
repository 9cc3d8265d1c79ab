// SPDX-License-Identifier: GPL-2.0

//! The end of an epoch: what came before is on disk before what comes after begins (Spec §1.17).

use drbd_engine::{
    cache::Mark,
    epoch::{
        BarrierStep,
        WriteOrdering, //
    },
    request::Writer,
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
    acks::ack_epochs,
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
        drop(local);
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
        if step != BarrierStep::GoOn {
            self.settle(step)?;
        }
        ack_epochs(&self.resource);
        Ok(())
    }

    /// Waits until the disks have what came before.
    fn settle(&self, step: BarrierStep) -> Result<(), ConnectionError> {
        let connection = &self.resource.connection;
        wait(connection, || connection.epochs.lock().active() == 0)?;
        if step == BarrierStep::DrainAndFlush {
            flush_all(&self.resource)?;
        }
        connection.epochs.lock().settled();
        Ok(())
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

/// Flushes the caches of all disks of the resource, side by side.
///
/// A disk that fails to costs the connection, also when that was as it was let go.
fn flush_all(resource: &Resource) -> Result<(), ConnectionError> {
    let connection = &resource.connection;
    for device in resource.volumes() {
        let Some(local) = device.local() else {
            // Whoever lets a disk go flushes it.
            wait(connection, || !device.is_parting())?;
            continue;
        };
        let cache = local.cache.lock();
        let (is_stable, since) = (cache.is_stable(), cache.flush_begins());
        drop(cache);
        if is_stable || !local.backing.has_write_cache() {
            continue;
        }
        let backing = local.backing.clone();
        connection.flushes.up();
        backing.submit_flush(Flushing {
            device: device.clone(),
            local,
            since,
        });
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
