// SPDX-License-Identifier: GPL-2.0

//! Bitmaps, and the blocks that they say differ.

use super::Node;
use crate::link::nonsense;
use drbd_engine::bitmap::transfer::{self, Packet};
use drbd_engine::state::{ConnState, DiskState};
use drbd_engine::types::BlockId;
use drbd_engine::wire::{header, BlockRequest, Command, Data, Socket, SyncUuid};
use std::io;

/// Requests in flight.
const WINDOW: u32 = 32;
/// Bytes of a request.
const REQUEST_MAX: u32 = 32 * 1024;

/// A resync under way.
#[derive(Default)]
pub(super) struct Resync {
    /// The bit from which on nothing was asked for.
    next: u64,
    /// Requests without their answers.
    in_flight: u32,
    /// All is here; the peer is asked whether it has seen the acks.
    ends: bool,
}

impl Node {
    pub(super) fn become_source(&mut self, full: bool) -> io::Result<()> {
        self.conn = ConnState::WFBitMapS;
        if full {
            self.disk.bitmap().set_all();
        }
        self.send_bitmap()
    }

    pub(super) fn become_target(&mut self, full: bool) -> io::Result<()> {
        self.conn = ConnState::WFBitMapT;
        if full {
            self.disk.bitmap().set_all();
        }
        Ok(())
    }

    /// The same as [`Self::full_sync`], told before it begins, as a kernel's node does.
    pub(super) fn begin_full_sync(&mut self, wanted: ConnState) -> io::Result<()> {
        self.conn = wanted;
        if wanted == ConnState::StartingSyncT {
            self.disk.state = DiskState::Inconsistent;
        }
        self.send_state()?;
        self.full_sync(wanted)
    }

    /// A full sync that somebody asked for: no bitmaps are exchanged.
    pub(super) fn full_sync(&mut self, wanted: ConnState) -> io::Result<()> {
        self.disk.bitmap().set_all();
        if wanted == ConnState::StartingSyncS {
            self.start_source()
        } else {
            self.conn = ConnState::WFSyncUUID;
            Ok(())
        }
    }

    fn send_bitmap(&mut self) -> io::Result<()> {
        let version = self.version();
        let bits = self.disk.bitmap().bits();
        let compressed = version.has_compressed_bitmap();
        let mut sender = transfer::Sender::new(bits, header::size(version), compressed);
        let mut payload = [0; transfer::MAX_PACKET];
        loop {
            let filled = sender.next(&self.disk.bitmap(), &mut payload);
            let (command, length) = match filled {
                Some(Packet::Plain(length)) => (Command::Bitmap, length),
                Some(Packet::Compressed(length)) => (Command::CompressedBitmap, length),
                None => return Ok(()),
            };
            self.send(Socket::Data, command, &[&payload[..length]])?;
        }
    }

    pub(super) fn bitmap(&mut self, compressed: bool, payload: &[u8]) -> io::Result<()> {
        let header_size = header::size(self.version());
        let bitmap = self.disk.bitmap();
        let receiver = self
            .peer_bitmap
            .get_or_insert_with(|| transfer::Receiver::new(bitmap.bits(), header_size));
        let merged = if compressed {
            receiver.compressed(&bitmap, payload)
        } else {
            receiver.plain(&bitmap, payload)
        };
        let received = merged.map_err(|error| nonsense(&format!("bitmap: {error:?}")))?;
        if !received.complete {
            return Ok(());
        }
        self.peer_bitmap = None;
        match self.conn {
            ConnState::WFBitMapT => {
                self.send_bitmap()?;
                self.conn = ConnState::WFSyncUUID;
                Ok(())
            }
            ConnState::WFBitMapS => self.start_source(),
            _ => Err(nonsense("a bitmap that nobody waits for")),
        }
    }

    fn start_source(&mut self) -> io::Result<()> {
        let sync_uuid = if self.version().is_at_least(96) {
            self.disk.uuids.start_as_sync_source(Self::random())
        } else {
            let random = Self::random();
            self.disk.uuids.replace_bitmap(random);
            random
        };
        self.conn = ConnState::SyncSource;
        self.peer_disk = DiskState::Inconsistent;
        self.send(
            Socket::Data,
            Command::SyncUuid,
            &[&SyncUuid(sync_uuid).encode()],
        )?;
        self.send_state()?;
        self.source_may_be_done()
    }

    pub(super) fn source_may_be_done(&mut self) -> io::Result<()> {
        let knows_itself = !self.version().is_at_least(96);
        if self.conn == ConnState::SyncSource && knows_itself && self.disk.dirty_bits() == 0 {
            return self.finish_as_source();
        }
        Ok(())
    }

    pub(super) fn finish_as_source(&mut self) -> io::Result<()> {
        if self.disk.dirty_bits() != 0 {
            return Err(nonsense("the target is done, but blocks are missing"));
        }
        self.disk.uuids.finish_as_sync_source();
        self.disk.was_primary = false;
        self.conn = ConnState::Connected;
        self.peer_disk = DiskState::UpToDate;
        self.save();
        self.send_state()
    }

    pub(super) fn sync_uuid(&mut self, uuid: u64) -> io::Result<()> {
        if self.conn != ConnState::WFSyncUUID {
            return Err(nonsense("a SyncUuid that nobody waits for"));
        }
        let primary = self.role.is_primary();
        self.disk.uuids.adopt_current(uuid, primary);
        self.disk.state = DiskState::Inconsistent;
        self.conn = ConnState::SyncTarget;
        self.resync = Resync::default();
        self.save();
        self.send_state()?;
        self.ask()
    }

    fn ask(&mut self) -> io::Result<()> {
        let max = REQUEST_MAX.min(self.version().max_request_size());
        while self.resync.in_flight < WINDOW {
            let Some((sector, size)) = self.disk.next_dirty(self.resync.next, max) else {
                break;
            };
            self.resync.next = sector.bit().0 + u64::from(size.div_ceil(4096));
            self.resync.in_flight += 1;
            let request = BlockRequest {
                sector,
                block_id: BlockId::SYNCER,
                size,
            };
            self.send(Socket::Data, Command::RsDataRequest, &[&request.encode()])?;
        }
        if self.resync.in_flight == 0 && !self.resync.ends {
            // Acks travel on the other socket: the state must not overtake them.
            self.resync.ends = true;
            return self.send(Socket::Meta, Command::Ping, &[]);
        }
        Ok(())
    }

    pub(super) fn resync_data(&mut self, data: Data, bytes: &[u8]) -> io::Result<()> {
        if self.conn != ConnState::SyncTarget || self.resync.in_flight == 0 {
            return Err(nonsense("resync data that nobody asked for"));
        }
        let size = bytes.len() as u32;
        self.disk.write(data.sector, bytes)?;
        self.disk.bitmap().clear_range(data.sector, size);
        self.resync.in_flight -= 1;
        self.send_ack(Command::RsWriteAck, data.sector, size, BlockId::SYNCER)?;
        self.ask()
    }

    pub(super) fn ping_acked(&mut self) -> io::Result<()> {
        if self.conn != ConnState::SyncTarget || !self.resync.ends {
            return Ok(());
        }
        if self.disk.dirty_bits() != 0 {
            self.resync = Resync::default();
            return self.ask();
        }
        let peer = self.peer_uuids.ok_or_else(|| nonsense("no UUIDs"))?;
        let theirs = drbd_engine::meta::Uuids {
            current: peer.current,
            bitmap: peer.bitmap,
            history: peer.history,
        };
        self.disk
            .uuids
            .finish_as_sync_target(&theirs, self.role.is_primary());
        self.disk.state = DiskState::UpToDate;
        self.disk.was_primary = false;
        self.conn = ConnState::Connected;
        self.save();
        self.send_state()
    }
}
