// SPDX-License-Identifier: GPL-2.0

//! Packets that carry digests of blocks, or ask for them: online verify, and resync by checksum
//! (Spec §1.20, §1.21).

use drbd_engine::wire::{
    BlockRequest,
    RequestKind, //
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
    checksums::Digest,
    device::Device,
    peer_request::Kind,
    resync::{
        self,
        verify, //
    },
};

impl Receiver {
    /// P_CSUM_RS_REQUEST.
    pub(super) fn checksum_request(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
        rest: u32,
    ) -> Result<(), ConnectionError> {
        let (packet, digest) = self.with_digest(device, payload, rest)?;
        let digest = digest.boxed().map_err(|_| ConnectionError)?;
        let kind = Kind::ResyncRead { thin: false };
        resync::receive_request(device, kind, packet, Some(digest))
    }

    /// P_OV_REQUEST.
    pub(super) fn verify_request(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = self.decoded(BlockRequest::decode(payload))?;
        self.check(device, packet.sector, packet.size, RequestKind::Data)?;
        verify::note_request(device, packet.sector);
        resync::receive_request(device, Kind::VerifyRead, packet, None)
    }

    /// P_OV_REPLY.
    pub(super) fn verify_reply(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
        rest: u32,
    ) -> Result<(), ConnectionError> {
        let (packet, digest) = self.with_digest(device, payload, rest)?;
        verify::receive_reply(device, packet, digest)
    }

    fn with_digest(
        &mut self,
        device: &Device,
        payload: &[u8],
        rest: u32,
    ) -> Result<(BlockRequest, Digest), ConnectionError> {
        let packet = self.decoded(BlockRequest::decode(payload))?;
        self.check(device, packet.sector, packet.size, RequestKind::Data)?;
        let len = usize::try_from(rest).map_err(|_| ConnectionError)?;
        let digest = Digest::read(len, ConnectionError, |to| self.read(to))?;
        Ok((packet, digest))
    }
}
