// SPDX-License-Identifier: GPL-2.0

//! The exchange of bitmaps before a resync, as `io/bitmap_exchange.rs` does it.

use std::rc::Rc;

use drbd_engine::bitmap::transfer::{Packet as Filled, Receiver, Sender, MAX_PACKET};
use drbd_engine::meta::MdFlags;
use drbd_engine::state::{Change as Request, ConnState};

use super::receiver::Dropped;
use super::{resync, Node};
use crate::packet::Packet;

/// Bytes of a header of protocol 100 and up.
const HEADER_SIZE: usize = 16;

/// Sends the bitmap as the source to be. On the worker.
pub(crate) async fn send_as_source(node: &Rc<Node>) {
    if node.state().conn == ConnState::WFBitMapS {
        send(node).await.ok();
    }
}

async fn send(node: &Rc<Node>) -> Result<(), Dropped> {
    let local = node.local().ok_or(Dropped)?;
    if local.superblock.borrow().flags.contains(MdFlags::FULL_SYNC) {
        if !resync::set_all_and_write(node).await {
            return Err(Dropped);
        }
    }
    let mut transfer = Sender::new(local.view(node).bits(), HEADER_SIZE, node.id == 0);
    let mut payload = [0; MAX_PACKET];
    loop {
        let next = transfer.next(&local.view(node), &mut payload);
        let Some(filled) = next else { return Ok(()) };
        let (compressed, length) = match filled {
            Filled::Plain(length) => (false, length),
            Filled::Compressed(length) => (true, length),
        };
        let content = payload[..length].to_vec();
        node.send_data(Packet::Bitmap(compressed, content))
            .await
            .map_err(|_| Dropped)?;
    }
}

/// Merges a packet of the peer's bitmap. On the receiver.
pub(crate) async fn receive(
    node: &Rc<Node>,
    compressed: bool,
    payload: &[u8],
) -> Result<(), Dropped> {
    let complete = {
        let local = node.local().ok_or(Dropped)?;
        let view = local.view(node);
        let mut transfer = node.peer_bitmap.borrow_mut();
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
    match node.state().conn {
        ConnState::WFBitMapT => {
            send(node).await?;
            let change = Request::conn(ConnState::WFSyncUUID);
            node.change_state(change, Node::SOFT)
                .map(|_| ())
                .map_err(|_| Dropped)
        }
        ConnState::WFBitMapS => {
            node.flags.start_source.set(true);
            Ok(())
        }
        _ => Ok(()),
    }
}
