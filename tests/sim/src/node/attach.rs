// SPDX-License-Identifier: GPL-2.0

//! Attaching a disk.

use std::rc::Rc;

use drbd_engine::meta::crash::{AttachInputs, BitmapSource};
use drbd_engine::meta::superblock::Magic;
use drbd_engine::state::{Change as Request, DiskState, Fencing, StateError};

use super::device::Device;
use super::disk::LocalDisk;
use super::{resync, Hardware, Node};
use crate::drive::Trouble;
use crate::sim::S;
use crate::tools;

/// How long the peer may take to end the epoch of what was refused.
const REFUSALS_WAIT_NS: u64 = 30 * S;

impl Device {
    /// Attaches the disk, after the tools applied its activity log.
    pub async fn attach(self: &Rc<Self>) -> Result<(), StateError> {
        if self.state().disk != DiskState::Diskless || self.is_attached() {
            return Err(StateError::Unknown);
        }
        let Hardware { data, meta } = &self.hardware;
        if data.trouble.get() != Trouble::NONE || meta.trouble.get() != Trouble::NONE {
            // Who attaches a disk that fails has it taken away again; that is nothing new.
            return Err(StateError::Unknown);
        }
        self.flags.was_read_error.set(false);
        self.flags.lacks_data.set(false);
        tools::apply_activity_log(&self.hardware.meta, &self.config);
        self.change_state(Request::disk(DiskState::Attaching), Node::SOFT)?;
        let attached = self.read_and_attach().await;
        if attached.is_err() {
            let _ = self.change_state(Request::disk(DiskState::Diskless), Node::HARD);
        }
        attached
    }

    /// Waits until the peer knows which of its writes were refused while there was no bitmap to
    /// remember them.
    async fn let_refusals_arrive(&self) -> Result<(), StateError> {
        let node = self.node();
        let last = node.epochs.borrow().last_refused();
        let Some(last) = last else { return Ok(()) };
        let is_acked = || node.epochs.borrow().is_acked(last);
        let acked = self
            .sim
            .until_timeout(self.owner, REFUSALS_WAIT_NS, is_acked)
            .await;
        if !acked {
            return Err(StateError::Unknown);
        }
        // A connection that is lost tells the peer as much.
        node.ping_peer().await;
        Ok(())
    }

    /// `drbdadm create-md`: gives up what a detached disk holds.
    pub fn forget_data(&self) {
        tools::wipe_metadata(&self.hardware.meta, &self.config);
        self.flags.unrelated.set(false);
        self.oracle.borrow_mut().declared_worthless(self.node_id);
    }

    async fn read_and_attach(self: &Rc<Self>) -> Result<(), StateError> {
        let layout = tools::layout(&self.config);
        let superblock = tools::read_superblock(&self.hardware.meta, &self.config);
        let mut superblock = superblock.ok_or(StateError::Unknown)?;
        superblock.check_clean().map_err(|_| StateError::Unknown)?;
        let state = self.state();
        let current = superblock.uuids.current;
        if self.seen().refuses(state, current) {
            return Err(StateError::Unknown);
        }
        let decided = AttachInputs {
            flags: superblock.flags,
            primary: state.role.is_primary(),
            suspended_no_data: state.susp_nod,
            fencing_dont_care: self.config.fencing == Fencing::DontCare,
        }
        .decide();
        superblock.magic = Magic::Unclean;
        let disk = LocalDisk::new(self, layout, superblock);
        self.local.replace(Some(disk));
        self.flags.crashed_primary.set(decided.crashed_primary);
        let local = self.local().ok_or(StateError::Unknown)?;
        local.change(|superblock| {
            if state.role.is_primary() {
                superblock.uuids.enter_primary();
            } else {
                superblock.uuids.enter_secondary();
            }
        });
        let mut is_noted = match decided.bitmap {
            BitmapSource::Disk => local.read_bitmap(self).await,
            _ => resync::set_all_and_write(self).await,
        };
        is_noted = is_noted && local.sync(self).await;
        drop(local);
        if !is_noted {
            self.local.replace(None);
            return Err(StateError::Unknown);
        }
        if let Err(error) = self.let_refusals_arrive().await {
            self.local.replace(None);
            return Err(error);
        }
        let state = self.state();
        if self.seen().refuses(state, current) {
            // The peer was lost meanwhile.
            self.local.replace(None);
            return Err(StateError::Unknown);
        }
        let pdsk = if decided.peer_outdated {
            DiskState::Outdated
        } else {
            DiskState::DUnknown
        };
        let disk = decided.enters(state.conn);
        let change = if disk == DiskState::Negotiating {
            self.negotiated.set((decided.disk.state(), pdsk));
            Request::disk(DiskState::Negotiating)
        } else {
            Request::disk(disk).with_pdsk(pdsk)
        };
        self.tell(|| format!("attaches as {}", decided.disk.state()));
        let changed = self.change_state(change, Node::SOFT).map(|_| ());
        if changed.is_err() {
            self.local.replace(None);
        } else if self.local().is_some_and(|local| local.meta_failed.get()) {
            // Whoever wrote them meanwhile was judged when the disk was not in use yet.
            self.flags.metadata_unjudged.set(true);
            self.flags.metadata_failed.set(true);
        }
        changed
    }
}
