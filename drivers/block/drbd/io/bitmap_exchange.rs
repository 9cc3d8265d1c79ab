// SPDX-License-Identifier: GPL-2.0

//! Exchanging bitmaps before a resync: what either side knows to differ, merged (spec §1.22).

use drbd_engine::{
    bitmap::transfer::{
        Packet,
        Received,
        Receiver,
        Sender,
        Statistics,
        MAX_PACKET, //
    },
    meta::MdFlags,
    state::{
        Change,
        ConnState,
        DiskState, //
    },
    wire::{
        header,
        Command, //
    },
};
use drbd_sys::log;
use kernel::{
    alloc::KBox,
    prelude::*,
    sync::Arc, //
};

use super::{
    device::Device,
    receiver::ConnectionError,
    resync,
    sender::NotSent,
    state::How,
    worker::chore, //
};

/// Pause before the target looks again whether all was acked.
const ACKS_PAUSE_MS: u32 = 2;

/// Sends the bitmap as the source to be. On the worker.
pub(crate) fn send_as_source(device: &Arc<Device>) {
    if device.state().conn != ConnState::WFBitMapS {
        return;
    }
    // What fails here has cost the disk or the connection.
    let _ = send(device, "send_bitmap (WFBitMapS)");
}

/// Sends the bitmap; where a full sync is due all of it is set first. May sleep.
fn send(device: &Arc<Device>, why: &str) -> Result<(), NotSent> {
    let Some(local) = device.local() else {
        return Err(NotSent);
    };
    if local.flags().contains(MdFlags::FULL_SYNC) {
        resync::set_all_and_write(device, why).map_err(|_| NotSent)?;
    }
    let connection = &device.resource.connection;
    let config = connection.config().ok_or(NotSent)?;
    let version = connection.version();
    let compress = config.net.use_rle && version.has_compressed_bitmap();
    let view = local.bitmap.view().ok_or(NotSent)?;
    let mut transfer = Sender::new(view.bits(), header::size(version), compress);
    let mut payload = KBox::new([0u8; MAX_PACKET], GFP_KERNEL).map_err(|_| NotSent)?;
    while let Some(packet) = transfer.next(&view, &mut payload) {
        let (command, length) = match packet {
            Packet::Plain(length) => (Command::Bitmap, length),
            Packet::Compressed(length) => (Command::CompressedBitmap, length),
        };
        let content = payload.get(..length).ok_or(NotSent)?;
        device.resource.send_data(device.volume, command, content)?;
    }
    log_statistics(
        device,
        "send",
        &transfer.statistics(),
        transfer.saved_permille(),
    );
    Ok(())
}

/// Merges a plain packet of the peer's bitmap. On the receiver.
pub(crate) fn receive_plain(device: &Arc<Device>, payload: &[u8]) -> Result<(), ConnectionError> {
    receive(device, |receiver, view| receiver.plain(view, payload))
}

/// Merges a compressed packet of the peer's bitmap. On the receiver.
pub(crate) fn receive_compressed(
    device: &Arc<Device>,
    payload: &[u8],
) -> Result<(), ConnectionError> {
    receive(device, |receiver, view| receiver.compressed(view, payload))
}

type View<'a> = drbd_engine::bitmap::Bitmap<&'a super::bitmap::CoreWords>;

fn receive(
    device: &Arc<Device>,
    merge: impl FnOnce(
        &mut Receiver,
        &View<'_>,
    ) -> Result<Received, drbd_engine::bitmap::transfer::TransferError>,
) -> Result<(), ConnectionError> {
    // Of a disk that is being attached the bitmap is not in core yet.
    let local = device.local();
    let local = local.filter(|_| device.state().disk != DiskState::Attaching);
    let Some(local) = local else {
        log!(
            Error,
            device,
            "the peer sends a bitmap, but there is no disk"
        );
        return Err(ConnectionError);
    };
    let view = local.bitmap.view().ok_or(ConnectionError)?;
    let header_size = header::size(device.resource.connection.version());
    let mut peer = device.peer.lock();
    let receiver = peer
        .bitmap
        .get_or_insert_with(|| Receiver::new(view.bits(), header_size));
    let merged = merge(receiver, &view);
    if let Ok(received) = &merged {
        local.bitmap.merged(received.set);
    }
    match merged {
        Ok(received) if received.complete => {
            log_statistics(
                device,
                "receive",
                &receiver.statistics(),
                receiver.saved_permille(),
            );
            peer.bitmap = None;
            drop(peer);
            local.bitmap.mark_all_dirty();
            drop(local);
            complete(device)
        }
        Ok(_) => Ok(()),
        Err(error) => {
            local.bitmap.merged(receiver.stray_bits());
            log!(Error, device, "the peer's bitmap is malformed: {:?}", error);
            Err(ConnectionError)
        }
    }
}

/// The peer's bitmap is here: the target answers with its own, the source starts.
fn complete(device: &Arc<Device>) -> Result<(), ConnectionError> {
    match device.state().conn {
        ConnState::WFBitMapT => {
            let_acks_arrive(device)?;
            send(device, "send_bitmap (WFBitMapT)").map_err(|_| ConnectionError)?;
            let change = Change::conn(ConnState::WFSyncUUID);
            let changed = device.resource.change_state(device, change, How::VERBOSE);
            changed.map(|_| ()).map_err(|_| ConnectionError)
        }
        ConnState::WFBitMapS => {
            device.chore(chore::START_SOURCE);
            Ok(())
        }
        conn => {
            log!(
                Info,
                device,
                "unexpected cstate ({}) in receive_bitmap",
                conn.name()
            );
            Ok(())
        }
    }
}

/// Waits until the peer has heard what became of all that it sent before its bitmap. An ack of a
/// resync that was given up, heard when the next one has begun, would call in sync what was written
/// since.
fn let_acks_arrive(device: &Device) -> Result<(), ConnectionError> {
    let resource = &device.resource;
    let connection = &resource.connection;
    let is_over = || connection.is_interrupted();
    while device.counters.unacked.get() > 0 {
        if connection
            .receiver_wait
            .wait_until_timeout(is_over, ACKS_PAUSE_MS)
        {
            return Err(ConnectionError);
        }
    }
    if resource.ping_peer() {
        Ok(())
    } else {
        Err(ConnectionError)
    }
}

fn log_statistics(
    device: &Device,
    direction: &str,
    statistics: &Statistics,
    saved_permille: Option<u32>,
) {
    let Some(saved) = saved_permille else { return };
    log!(
        Info,
        device,
        "{} bitmap stats [Bytes(packets)]: plain {}({}), RLE {}({}), total {}; compression: {}.{}%",
        direction,
        statistics.plain_bytes,
        statistics.plain_packets,
        statistics.compressed_bytes,
        statistics.compressed_packets,
        statistics.total_bytes(),
        saved / 10,
        saved % 10
    );
}
