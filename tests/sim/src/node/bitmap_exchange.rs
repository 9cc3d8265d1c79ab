// SPDX-License-Identifier: GPL-2.0

//! The exchange of bitmaps before a resync, as `io/bitmap_exchange.rs` does it.

use std::rc::Rc;

use drbd_engine::bitmap::transfer::{Packet as Filled, Receiver, Sender, MAX_PACKET};
use drbd_engine::meta::MdFlags;
use drbd_engine::state::{Change as Request, ConnState};

use super::device::Device;
use super::receiver::Dropped;
use super::{resync, Node};
use crate::packet::Packet;

/// Bytes of a header of protocol 100 and up.
const HEADER_SIZE: usize = 16;

/// Sends the bitmap as the source to be. On the worker.
pub(crate) async fn send_as_source(device: &Rc<Device>) {
    if device.state().conn == ConnState::WFBitMapS {
        send(device).await.ok();
    }
}

async fn send(device: &Rc<Device>) -> Result<(), Dropped> {
    let local = device.local().ok_or(Dropped)?;
    if local.superblock.borrow().flags.contains(MdFlags::FULL_SYNC) {
        if !resync::set_all_and_write(device).await {
            return Err(Dropped);
        }
    }
    let mut transfer = Sender::new(local.view(device).bits(), HEADER_SIZE, device.node_id == 0);
    let mut payload = [0; MAX_PACKET];
    loop {
        let next = transfer.next(&local.view(device), &mut payload);
        let Some(filled) = next else { return Ok(()) };
        let (compressed, length) = match filled {
            Filled::Plain(length) => (false, length),
            Filled::Compressed(length) => (true, length),
        };
        let content = payload[..length].to_vec();
        device
            .send_data(Packet::Bitmap(compressed, content))
            .await
            .map_err(|_| Dropped)?;
    }
}

/// Merges a packet of the peer's bitmap. On the receiver.
pub(crate) async fn receive(
    device: &Rc<Device>,
    compressed: bool,
    payload: &[u8],
) -> Result<(), Dropped> {
    let complete = {
        let local = device.local().ok_or(Dropped)?;
        let view = local.view(device);
        let mut transfer = device.peer_bitmap.borrow_mut();
        let receiver = transfer.get_or_insert_with(|| Receiver::new(view.bits(), HEADER_SIZE));
        let received = if compressed {
            receiver.compressed(&view, payload)
        } else {
            receiver.plain(&view, payload)
        };
        local.mark_dirty();
        let complete = received.map_err(|_| Dropped)?.complete;
        if complete {
            *transfer = None;
        }
        complete
    };
    if !complete {
        return Ok(());
    }
    match device.state().conn {
        ConnState::WFBitMapT => {
            let_acks_arrive(device).await?;
            send(device).await?;
            let change = Request::conn(ConnState::WFSyncUUID);
            device
                .change_state(change, Node::SOFT)
                .map(|_| ())
                .map_err(|_| Dropped)
        }
        ConnState::WFBitMapS => {
            device.flags.start_source.set(true);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Waits until the peer has heard what became of all that it sent before its bitmap.
async fn let_acks_arrive(device: &Device) -> Result<(), Dropped> {
    let node = device.node();
    let is_acked = || device.peer_requests.get() == 0 || node.is_interrupted();
    node.sim.until(is_acked).await;
    if node.ping_peer().await {
        Ok(())
    } else {
        Err(Dropped)
    }
}
