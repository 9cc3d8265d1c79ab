// SPDX-License-Identifier: GPL-2.0

//! Requests of the peer and of resyncs, as `io/peer_request.rs` has them.

use std::rc::Rc;

use drbd_engine::activity_log::Span;
use drbd_engine::epoch::EpochRef;
use drbd_engine::range::Handle;
use drbd_engine::types::BlockId;

use super::disk::LocalRef;
use super::Node;
use crate::drive::Sectors;
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
    pub(crate) kind: Kind,
    pub(crate) blocks: Blocks,
    pub(crate) block_id: BlockId,
    pub(crate) flags: WriteFlags,
    pub(crate) epoch: Option<EpochRef>,
    pub(crate) range: Option<Handle>,
    pub(crate) local: Option<LocalRef>,
    pub(crate) span: Option<Span>,
    pub(crate) sectors: Sectors,
}

impl Node {
    pub(crate) fn peer_request(
        &self,
        kind: Kind,
        blocks: Blocks,
        block_id: BlockId,
    ) -> PeerRequest {
        self.peer_requests.set(self.peer_requests.get() + 1);
        PeerRequest {
            kind,
            blocks,
            block_id,
            flags: WriteFlags::default(),
            epoch: None,
            range: None,
            local: self.local(),
            span: None,
            sectors: Sectors::new(),
        }
    }

    /// Gives back what a request holds.
    pub(crate) fn free_request(&self, request: PeerRequest) {
        if let Some(range) = request.range {
            self.ranges.borrow_mut().remove(range);
        }
        if let (Some(local), Some(span)) = (&request.local, request.span) {
            local.put_extents(self, span);
        }
        drop(request);
        self.peer_requests.set(self.peer_requests.get() - 1);
        self.retry_delayed();
    }

    /// Reads for a request; its answer is the worker's.
    pub(crate) fn start_peer_read(self: &Rc<Self>, mut request: PeerRequest) {
        let node = self.clone();
        let Blocks { sector, .. } = request.blocks;
        let count = request.blocks.sectors();
        self.hardware
            .data
            .read(self.owner, sector.0, count, move |sectors| {
                request.sectors = sectors;
                node.answers.borrow_mut().push_back(request);
            });
    }

    /// Writes for a request; its ack is the asender's.
    pub(crate) fn start_peer_write(self: &Rc<Self>, request: PeerRequest, sectors: Sectors) {
        let node = self.clone();
        self.hardware
            .data
            .write(self.owner, sectors, false, move || {
                node.done.borrow_mut().push_back(request);
            });
    }
}
