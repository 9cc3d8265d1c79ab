// SPDX-License-Identifier: GPL-2.0

//! Requests of the peer and of resyncs: one owner at a time, who hands them on.
//!
//! They come from a pool that is filled once for a connection; when none is idle the receiver
//! waits, which is what slows the peer down.

use drbd_engine::{
    activity_log::Span,
    cache::Mark,
    epoch::EpochRef,
    range::Handle,
    request::Writer,
    types::{
        BlockId,
        Sector, //
    },
    wire::DataFlags,
};
use drbd_sys::{
    bio::{
        BufferCompletion,
        Completion,
        Flags,
        Operation, //
    },
    page::Buffer, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    checksums::Digest,
    connection::Connection,
    device::{
        Device,
        LocalRef, //
    },
    disk::LocalDisk,
    disk_error,
    erase::{
        Erasure,
        Owner,
        Way, //
    },
    fault::{
        self,
        Fault, //
    },
    limits::PEER_REQUESTS_MAX,
    worker::Work, //
};

/// What a peer request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The peer's application writes (P_DATA).
    Write,
    /// The peer's application discards or zeroes (P_TRIM, P_ZEROES).
    Discard,
    /// The peer's application reads (P_DATA_REQUEST).
    Read,
    /// The target asks for blocks (P_RS_DATA_REQUEST, P_RS_THIN_REQ).
    ResyncRead {
        /// Answer with P_RS_DEALLOCATED if all is zero.
        thin: bool,
    },
    /// The source's answer is written here (P_RS_DATA_REPLY).
    ResyncWrite,
    /// The source says that the blocks are zero (P_RS_DEALLOCATED).
    ResyncDiscard,
    /// The target reads what it has, to ask by checksum (P_CSUM_RS_REQUEST).
    ChecksumRead,
    /// The peer verifies and asks for a digest (P_OV_REQUEST).
    VerifyRead,
    /// The peer's digest is compared with what is here (P_OV_REPLY).
    VerifyCompare,
}

impl Kind {
    /// Whether it reads from the local disk.
    pub(crate) fn reads(self) -> bool {
        !matches!(
            self,
            Self::Write | Self::Discard | Self::ResyncWrite | Self::ResyncDiscard
        )
    }
}

/// A request of the peer.
pub(crate) struct PeerRequest {
    /// The volume; `None` while idle.
    pub(crate) device: Option<Arc<Device>>,
    /// What it is about.
    pub(crate) kind: Kind,
    /// The first sector.
    pub(crate) sector: Sector,
    /// The size.
    pub(crate) size_bytes: u32,
    /// The peer's cookie.
    pub(crate) block_id: BlockId,
    /// How the peer wants it done.
    pub(crate) flags: DataFlags,
    /// Whether the peer wants a write ack.
    pub(crate) wants_ack: bool,
    /// The epoch a write belongs to.
    pub(crate) epoch: Option<EpochRef>,
    /// The range that is claimed.
    pub(crate) range: Option<Handle>,
    /// The extents it holds in the activity log of the disk with this id.
    pub(crate) span: Option<(u64, Span)>,
    /// The disk, while its I/O is there.
    pub(crate) local: Option<LocalRef>,
    /// The id of the disk that its I/O was at.
    disk_id: Option<u64>,
    /// What the flush in front of it counts for.
    flush: Option<Mark>,
    /// The peer's digest of its data, to be compared.
    pub(crate) digest: Option<KBox<Digest>>,
    /// The data.
    pub(crate) buffer: Option<Buffer>,
    /// How it ended.
    pub(crate) result: Result,
}

impl PeerRequest {
    /// The disk that its I/O was at, if it is there still: another one need not have the data.
    pub(crate) fn disk(&self, device: &Arc<Device>) -> Option<LocalRef> {
        device
            .local()
            .filter(|local| Some(local.id) == self.disk_id)
    }

    /// Its I/O ended: notes what that means for the disk's cache.
    fn note_cache(&mut self, local: &LocalDisk) {
        if self.kind.reads() {
            return;
        }
        let flush = self.flush.take().filter(|_| self.result.is_ok());
        let is_stable = self.result.is_ok() && self.flags.contains(DataFlags::FUA);
        let mut cache = local.cache.lock();
        if let Some(since) = flush {
            cache.flushed(since);
        }
        if !is_stable {
            cache.write_ended();
        }
    }

    fn idle() -> Self {
        Self {
            device: None,
            kind: Kind::Read,
            sector: Sector(0),
            size_bytes: 0,
            block_id: BlockId(0),
            flags: DataFlags::NONE,
            wants_ack: false,
            epoch: None,
            range: None,
            span: None,
            local: None,
            disk_id: None,
            flush: None,
            digest: None,
            buffer: None,
            result: Ok(()),
        }
    }
}

impl Connection {
    /// Fills the pool of idle requests where it is not. May sleep.
    pub(crate) fn fill_pool(&self) -> Result {
        if self.pool_filled.set(1) != 0 {
            return Ok(());
        }
        for _ in 0..PEER_REQUESTS_MAX {
            let request = KBox::new(PeerRequest::idle(), GFP_KERNEL)?;
            if self.idle.push(request).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes an idle request, if there is one. Any context.
    pub(crate) fn try_take_request(
        &self,
        device: &Arc<Device>,
        kind: Kind,
        sector: Sector,
        size_bytes: u32,
    ) -> Option<KBox<PeerRequest>> {
        let mut request = self.idle.pop()?;
        request.device = Some(device.clone());
        request.kind = kind;
        request.sector = sector;
        request.size_bytes = size_bytes;
        self.peer_requests.up();
        Some(request)
    }

    /// Takes an idle request, waiting for one; `None` when the connection is being torn down. May
    /// sleep.
    pub(crate) fn take_request(
        &self,
        device: &Arc<Device>,
        kind: Kind,
        sector: Sector,
        size_bytes: u32,
    ) -> Option<KBox<PeerRequest>> {
        // As where no memory is left: the connection ends, and begins anew.
        if fault::strikes(device, Fault::PeerRequestAllocation) {
            return None;
        }
        let mut taken = None;
        self.receiver_wait.wait_until(|| {
            taken = self.try_take_request(device, kind, sector, size_bytes);
            taken.is_some() || self.is_interrupted()
        });
        taken
    }

    /// Makes a request idle: gives back its range, its epoch's hold on it is over, its disk and its
    /// buffer. Any context.
    pub(crate) fn free_request(&self, mut request: KBox<PeerRequest>) {
        let range = request.range.take();
        if let (Some(device), Some(range)) = (&request.device, range) {
            if device.ranges.lock().remove(range) {
                device.ranges_changed();
            }
        }
        if let (Some(device), Some((id, span))) = (&request.device, request.span) {
            // Its own reference went when its I/O ended.
            if let Some(local) = device.local().filter(|local| local.id == id) {
                local.put_extents(device, span);
            }
        }
        *request = PeerRequest::idle();
        let pushed = self.idle.push(request);
        if pushed.is_err() {
            pr_err!("drbd: more peer requests than there are\n");
        }
        if self.peer_requests.down() {
            self.asender_wait.wake_all();
        }
        if pushed.is_ok_and(|was_empty| was_empty) {
            self.receiver_wait.wake_all();
        }
    }
}

/// The token of a peer request's I/O: hands it to the asender (writes) or to the worker (reads).
pub(crate) struct PeerIo(pub(crate) KBox<PeerRequest>);

impl PeerIo {
    fn ended(self, result: Result) {
        let mut request = self.0;
        request.result = result;
        let local = request.local.take();
        if let Some(local) = &local {
            request.note_cache(local);
            request.disk_id = Some(local.id);
        }
        let Some(device) = request.device.clone() else {
            return;
        };
        let connection = &device.resource.connection;
        if result.is_err() {
            if matches!(request.kind, Kind::Write | Kind::Discard) {
                disk_error::note_lack(&device, Writer::Peer);
            }
            disk_error::note(
                &device,
                request.kind.reads(),
                request.sector,
                request.size_bytes,
            );
        }
        // Not before what it lacks is noted: who gives it up waits for this, and then records that.
        // Not later: whoever works on the request from here on must not keep it.
        drop(local);
        if request.kind.reads() {
            device.resource.give_work(Work::Answer(request));
        } else {
            match connection.done.push(request) {
                Ok(true) => connection.asender_wait.wake_all(),
                Ok(false) => {}
                Err(_) => pr_err!("drbd: more peer requests are done than there are\n"),
            }
        }
    }
}

impl PeerIo {
    /// Reads into or writes from `buffer`, unless a fault is injected.
    pub(crate) fn submit(mut self, device: &Device, mut flags: Flags, buffer: Buffer) {
        let Some(local) = &self.0.local else {
            return BufferCompletion::complete(self, buffer, Err(ENODEV));
        };
        let backing = local.backing.clone();
        if flags.contains(Flags::PREFLUSH) {
            let cache = local.cache.lock();
            let (is_stable, since) = (cache.is_stable(), cache.flush_begins());
            drop(cache);
            if is_stable {
                flags = flags.without(Flags::PREFLUSH);
            }
            self.0.flush = Some(since);
        }
        let (operation, fault) = match self.0.kind {
            Kind::Read => (Operation::Read, Fault::DataRead),
            Kind::Write => (Operation::Write, Fault::DataWrite),
            kind if kind.reads() => (Operation::Read, Fault::ResyncRead),
            _ => (Operation::Write, Fault::ResyncWrite),
        };
        if fault::strikes(device, fault) {
            return BufferCompletion::complete(self, buffer, Err(EIO));
        }
        backing.submit_buffer(operation, flags, self.0.sector.0, buffer, self);
    }

    /// Erases the blocks. Any context.
    pub(crate) fn erase(self, device: &Arc<Device>, way: Way) {
        let Some(local) = &self.0.local else {
            return Completion::complete(self, Err(ENODEV));
        };
        let erasure = Erasure::new(local, way, self.0.sector, self.0.size_bytes);
        device.erase(erasure, Owner::Peer(self));
    }
}

impl BufferCompletion for PeerIo {
    fn complete(mut self, buffer: Buffer, result: Result) {
        self.0.buffer = Some(buffer);
        self.ended(result);
    }
}

impl Completion for PeerIo {
    fn complete(self, result: Result) {
        self.ended(result);
    }
}
