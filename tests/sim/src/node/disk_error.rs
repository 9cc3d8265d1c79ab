// SPDX-License-Identifier: GPL-2.0

//! Errors of the disk, as `io/disk_error.rs` has them: noted where they happen, acted upon by the
//! worker.

use std::rc::Rc;

use drbd_engine::meta::Superblock;
use drbd_engine::request::{lacks_data, on_disk_error, unjudged, Copies, DiskError, Writer};
use drbd_engine::state::{Change as Request, DiskState, State};

use super::device::Device;
use super::disk::LocalDisk;
use super::Node;
use crate::canary::Canary;
use crate::packet::Blocks;

impl Device {
    /// An I/O on data failed: its blocks are out of sync, and the worker decides about the disk.
    pub(crate) fn note_disk_error(&self, is_read: bool, blocks: Blocks) {
        if let Some(local) = self.local() {
            local.set_out_of_sync(self, blocks.sector, blocks.size_bytes);
        }
        if is_read {
            self.flags.was_read_error.set(true);
        }
        self.flags.disk_unjudged.set(true);
        self.flags.marked_untold.set(true);
        if !is_read {
            self.flags.resync_doubted.set(true);
        }
        self.flags.disk_failed.set(true);
        self.sim.touch();
    }

    /// What somebody wrote, or flushed, is not on this disk.
    pub(crate) fn note_lack(&self, writer: Writer) {
        if lacks_data(writer, self.state().pdsk) {
            self.flags.lacks_data.set(true);
        }
    }

    /// The application is told that a write is done which this disk did not take: the worker
    /// decides about the disk by that, whatever it has decided before.
    pub(crate) fn judge_lacking(&self) {
        // Whatever the peer's disk is worth by now: it has it, and was good.
        self.flags.lacks_data.set(true);
        self.flags.disk_unjudged.set(true);
        self.flags.disk_failed.set(true);
        self.sim.touch();
    }

    /// A disk that is given up remembers that another has what it lacks.
    pub(crate) fn record_lack(&self, local: &LocalDisk) {
        if self.flags.lacks_data.get() && !self.config.has(Canary::LackForgotten) {
            local.change(Superblock::note_lack);
        }
    }

    /// The copies of the data in a state; a disk that failed is not believed from then on.
    pub(crate) fn copies(&self, state: State) -> Copies {
        let is_doubtful =
            self.flags.disk_unjudged.get() && !self.config.has(Canary::FailedDiskBelieved);
        Copies {
            disk: unjudged(
                state.disk,
                state.pdsk,
                is_doubtful,
                self.flags.lacks_data.get(),
                self.flags.metadata_unjudged.get(),
            ),
            peer_disk: state.pdsk,
            conn: state.conn,
        }
    }

    /// Whether the peer may read from the disk.
    pub(crate) fn serves_reads(&self) -> bool {
        self.copies(self.state()).disk == DiskState::UpToDate
    }

    /// Whether there is something to decide about the disk.
    pub(crate) fn has_disk_error(&self) -> bool {
        self.flags.disk_failed.get() || self.flags.metadata_failed.get()
    }
}

/// Decides about a disk that failed. On the worker.
pub(crate) fn look_after(device: &Rc<Device>) {
    if device.flags.disk_failed.replace(false) {
        let error = if device.flags.was_read_error.get() {
            DiskError::Read
        } else {
            DiskError::Write
        };
        judge(device, error);
    }
    if device.flags.metadata_failed.replace(false) {
        judge(device, DiskError::Metadata);
    }
}

fn judge(device: &Rc<Device>, error: DiskError) {
    if device.local.borrow().is_some() {
        let state = device.state();
        let policy = device.on_io_error.get();
        let lacks_data = device.flags.lacks_data.get();
        let actions = on_disk_error(policy, error, state.disk, state.pdsk, lacks_data);
        if let Some(disk) = actions.new_disk {
            device.tell(|| format!("Local IO failed, disk goes {disk}"));
            let _ = device.change_state(Request::disk(disk), Node::HARD);
        }
        if device.state().disk > DiskState::Failed {
            device.flags.lacks_data.set(false);
        } else if let Some(local) = device.local() {
            device.record_lack(&local);
        }
    }
    match error {
        DiskError::Read | DiskError::Write => device.flags.disk_unjudged.set(false),
        DiskError::Metadata => device.flags.metadata_unjudged.set(false),
        DiskError::ForcedDetach => {
            device.flags.disk_unjudged.set(false);
            device.flags.metadata_unjudged.set(false);
        }
    }
}
