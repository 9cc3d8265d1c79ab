// SPDX-License-Identifier: GPL-2.0

//! The sending end of the meta socket: acks, pings, answers.

use drbd_engine::{
    types::{
        BlockId,
        Sector,
        VolumeNr, //
    },
    wire::{
        BlockAck,
        Command, //
    },
};
use drbd_sys::socket::{
    SendError,
    SendOptions,
    Sender,
    Stall, //
};
use kernel::{
    alloc::flags::GFP_NOWAIT,
    prelude::*, //
};

use super::{
    copy,
    Device,
    NotSent,
    Resource, //
};

/// The longest packet of the meta socket, header included, and more.
const PACKET_BYTES: usize = 64;
/// Bytes of acks that go in one call: some 25 of them.
const QUEUE_BYTES: usize = 1024;

/// The sending end of the meta socket.
///
/// Acks that are due together are queued, and sent in one call with the last of them, or before
/// any other packet.
pub(crate) struct MetaChannel {
    sender: Sender,
    queued: KVec<u8>,
}

impl MetaChannel {
    /// Makes the sending end. May sleep.
    pub(crate) fn new(sender: Sender) -> Result<Self> {
        Ok(Self {
            sender,
            queued: KVec::with_capacity(QUEUE_BYTES, GFP_KERNEL)?,
        })
    }

    fn queue(&mut self, packet: &[u8]) -> Result<(), SendError> {
        let room = self.queued.capacity().saturating_sub(self.queued.len());
        if room < packet.len() {
            self.flush()?;
        }
        // There is room: nothing is allocated.
        self.queued
            .extend_from_slice(packet, GFP_NOWAIT)
            .map_err(|_| SendError::Failed(ENOMEM))
    }

    fn flush(&mut self) -> Result<(), SendError> {
        if self.queued.is_empty() {
            return Ok(());
        }
        let options = SendOptions::default();
        let sent = self
            .sender
            .send(&self.queued, options, &mut |_| Stall::GiveUp);
        self.queued.clear();
        sent
    }
}

impl Resource {
    /// Sends a packet on the meta socket. May sleep.
    pub(crate) fn send_meta(
        &self,
        volume: VolumeNr,
        command: Command,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        let mut once = Some(payload);
        self.send_each_meta(volume, command, || once.take())
    }

    /// Sends a packet on the meta socket for each payload there is; no other packet comes in
    /// between. May sleep.
    pub(crate) fn send_each_meta<P: AsRef<[u8]>>(
        &self,
        volume: VolumeNr,
        command: Command,
        mut next: impl FnMut() -> Option<P>,
    ) -> Result<(), NotSent> {
        self.on_meta(|channel| {
            while let Some(payload) = next() {
                self.queue_packet(channel, volume, command, payload.as_ref())?;
            }
            channel.flush()
        })
    }

    /// Sends an ack about blocks. May sleep.
    pub(crate) fn send_ack(
        &self,
        device: &Device,
        command: Command,
        sector: Sector,
        size_bytes: u32,
        block_id: BlockId,
    ) -> Result<(), NotSent> {
        self.queue_ack(device, command, sector, size_bytes, block_id)?;
        self.send_queued()
    }

    /// Puts an ack about blocks in front of whatever is sent next on the meta socket; at the latest
    /// [`Self::send_queued`] is to follow at once. May sleep.
    pub(crate) fn queue_ack(
        &self,
        device: &Device,
        command: Command,
        sector: Sector,
        size_bytes: u32,
        block_id: BlockId,
    ) -> Result<(), NotSent> {
        self.on_meta(|channel| {
            let ack = BlockAck {
                sector,
                block_id,
                size: size_bytes,
                seq_num: device.next_packet_seq(),
            };
            self.queue_packet(channel, device.volume, command, &ack.encode())
        })
    }

    /// Sends the acks that are queued. May sleep.
    pub(crate) fn send_queued(&self) -> Result<(), NotSent> {
        self.on_meta(MetaChannel::flush)
    }

    fn on_meta(
        &self,
        act: impl FnOnce(&mut MetaChannel) -> Result<(), SendError>,
    ) -> Result<(), NotSent> {
        let mut meta = self.connection.meta.lock();
        let channel = (*meta).as_mut().ok_or(NotSent)?;
        let sent = act(channel);
        drop(meta);
        self.judge_send(sent, "meta")
    }

    fn queue_packet(
        &self,
        channel: &mut MetaChannel,
        volume: VolumeNr,
        command: Command,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let malformed = SendError::Failed(EMSGSIZE);
        let mut packet = [0u8; PACKET_BYTES];
        let used = self
            .put_header(volume, command, payload.len(), &mut packet)
            .ok_or(malformed)?;
        let rest = packet.get_mut(used..).ok_or(malformed)?;
        let total = copy(rest, payload)
            .and_then(|len| used.checked_add(len))
            .ok_or(malformed)?;
        channel.queue(packet.get(..total).ok_or(malformed)?)
    }
}
