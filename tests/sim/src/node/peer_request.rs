// SPDX-License-Identifier: GPL-2.0

//! Requests of the peer and of resyncs, as `io/peer_request.rs` has them.

use std::rc::Rc;

use drbd_engine::activity_log::Span;
use drbd_engine::epoch::EpochRef;
use drbd_engine::range::Handle;
use drbd_engine::request::Writer;
use drbd_engine::state::DiskState;
use drbd_engine::types::BlockId;

use super::device::Device;
use super::disk::LocalRef;
use crate::canary::Canary;
use crate::drive::{Durability, Sectors};
use crate::packet::{Blocks, WriteFlags};

/// What a peer request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The peer's application writes.
    Write,
    /// The peer's application reads.
    Read,
    /// The target asks for blocks.
    ResyncRead,
    /// The source's answer is written here.
    ResyncWrite,
}

/// A request of the peer.
pub(crate) struct PeerRequest {
    pub(crate) device: Rc<Device>,
    pub(crate) kind: Kind,
    pub(crate) blocks: Blocks,
    pub(crate) block_id: BlockId,
    pub(crate) flags: WriteFlags,
    pub(crate) epoch: Option<EpochRef>,
    pub(crate) range: Option<Handle>,
    pub(crate) local: Option<LocalRef>,
    /// The extents it holds in the activity log of the disk with this id.
    pub(crate) span: Option<(u64, Span)>,
    pub(crate) sectors: Sectors,
    /// Whether the disk did what it should.
    pub(crate) ok: bool,
}

impl Device {
    pub(crate) fn peer_request(
        self: &Rc<Self>,
        kind: Kind,
        blocks: Blocks,
        block_id: BlockId,
    ) -> PeerRequest {
        let node = self.node();
        node.peer_requests.set(node.peer_requests.get() + 1);
        self.peer_requests.set(self.peer_requests.get() + 1);
        PeerRequest {
            device: self.clone(),
            kind,
            blocks,
            block_id,
            flags: WriteFlags::default(),
            epoch: None,
            range: None,
            local: self.usable_disk(),
            span: None,
            sectors: Sectors::new(),
            ok: true,
        }
    }

    /// The disk, where requests may go to it.
    pub(crate) fn usable_disk(self: &Rc<Self>) -> Option<LocalRef> {
        self.local()
            .filter(|_| self.state().disk >= DiskState::Inconsistent)
            .filter(|_| !self.flags.metadata_unjudged.get())
    }

    /// Gives back what a request holds.
    pub(crate) fn free_request(&self, request: PeerRequest) {
        if let Some(range) = request.range {
            self.ranges.borrow_mut().remove(range);
        }
        if let (Some(local), Some((id, span))) = (self.local(), request.span) {
            if local.id == id {
                local.put_extents(self, span);
            }
        }
        drop(request);
        let node = self.node();
        node.peer_requests.set(node.peer_requests.get() - 1);
        self.peer_requests.set(self.peer_requests.get() - 1);
        self.retry_delayed();
    }

    /// Reads for a request; its answer is the worker's.
    pub(crate) fn start_peer_read(self: &Rc<Self>, mut request: PeerRequest) {
        let device = self.clone();
        let Blocks { sector, .. } = request.blocks;
        let count = request.blocks.sectors();
        self.hardware
            .data
            .read(self.owner, sector.0, count, move |sectors| {
                device.io_ended(&mut request, sectors.is_some());
                request.sectors = sectors.unwrap_or_default();
                device.node().answers.borrow_mut().push_back(request);
            });
    }

    /// Writes for a request; its ack is the asender's.
    pub(crate) fn start_peer_write(self: &Rc<Self>, mut request: PeerRequest, sectors: Sectors) {
        let device = self.clone();
        let durability = Durability::of_write(request.flags.flushes_first);
        self.hardware
            .data
            .write(self.owner, sectors, durability, move |ok| {
                device.io_ended(&mut request, ok);
                device.node().done.borrow_mut().push_back(request);
            });
    }

    /// The I/O of a request ended. Whoever works on it from here on must not keep the disk from
    /// being let go.
    pub(crate) fn io_ended(&self, request: &mut PeerRequest, ok: bool) {
        request.ok = ok;
        if let Some(local) = request.local.take() {
            let counts = !self.config.has(Canary::WriteNotCounted);
            if counts && matches!(request.kind, Kind::Write | Kind::ResyncWrite) {
                local.cache.borrow_mut().write_ended();
            }
        }
        if !ok {
            self.tell(|| format!("{:?} {:?} fails on the disk", request.kind, request.blocks));
            if request.kind == Kind::Write {
                self.note_lack(Writer::Peer);
            }
            let is_read = matches!(request.kind, Kind::Read | Kind::ResyncRead);
            self.note_disk_error(is_read, request.blocks);
        }
    }
}
