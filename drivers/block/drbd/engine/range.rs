// SPDX-License-Identifier: GPL-2.0

//! Who works on which sectors of a device, and who has to wait (spec §1.16, §1.18, §6.1, §6.4).
//!
//! The C driver keeps resync and application writes apart by 16 MiB extents. Here exact ranges are
//! kept apart, by this matrix (`x`: the new one waits):
//!
//! | new \ present     | local write | local write, told done | peer write | resync read, put aside or not | resync request | resync write |
//! |-------------------|:-----------:|:----------------------:|:----------:|:-----------------------------:|:--------------:|:------------:|
//! | local write       | x           |                        | x          | x                             | x              | x            |
//! | peer write        | x           |                        | x          |                               |                | x            |
//! | resync read       | x           | x                      | x          |                               | x              | x            |
//! | resync request    | x           | x                      | x          | x                             | x              | x            |
//! | resync write      | x           |                        | x          |                               | (itself)       | x            |
//!
//! A resync read that has to wait is put aside, see [`RangeTable::claim_read`]: it is in the table
//! all the same, where it waits for nothing that comes after it but the peer's writes, of which
//! there are none. So it gets its turn however busy its blocks are.
//!
//! Old resync data never overwrites new data, because:
//!
//! * *On the source* a resync read waits for every write that has not left the transfer log, so it
//!   reads what the writes wrote, and both the data and P_OUT_OF_SYNC of those writes are on the
//!   data socket before the reply. A local write waits for the resync read, which stays until its
//!   reply is handed to the data socket, so that write's data follows the reply and wins on the
//!   target.
//! * *On the target* a resync request waits for every local write that has not left the transfer
//!   log: the peer has acknowledged its epoch, so even a C peer, which does not compare a resync
//!   read with our writes in flight, reads the new data. A local write waits for the request and
//!   for the resync write it becomes, so the reply cannot overwrite it.
//! * *A write from the source* does not wait for a resync request: the source sent it before it
//!   read for the reply, or its read waits for our ack of this very write, and waiting here would
//!   be a deadlock. It waits for a resync write, because it was sent after that reply. A reply
//!   waits for the peer's writes that came before it. For both the receiver takes no further packet
//!   while it waits: the order of the data socket is the order on disk.
//! * A checksum that the target computed before such a write is about old data. The request is
//!   marked [`RangeTable::is_overtaken`]; if the source answers that the block is in sync, the
//!   target does not believe it and asks again.
//! * A peer's write never meets a resync read: the target holds back its own writes while a request
//!   is out. For the same reason no packet behind the request depends on it, and the receiver goes
//!   on while it is put aside. It must: the write that the read waits for ends with the peer's ack,
//!   and where each node is the source of a volume, or writes what the other does, the peer's
//!   receiver may be about to wait for one of ours.
//!
//! Two overlapping writes are never in flight to one disk at the same time. When a peer's write
//! meets a local one (dual primary) the shell resolves the conflict (spec §1.18) instead of
//! waiting. Online verify uses resync requests on the side that drives it and resync reads on the
//! other. Reads of the application are not kept here: they wait for nobody, and the transfer log
//! validates their replies.

use core::ops::DerefMut;

use crate::types::{Sector, SECTOR_SHIFT};

mod tree;

pub use tree::Node;
use tree::{Tree, NIL};

/// What is done to the sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The application of this node writes; from admission until the request is released.
    #[default]
    LocalWrite,
    /// The peer's application writes; until it is on this node's disk.
    PeerWrite,
    /// This node is the source and reads for the peer; until the reply is handed to the data
    /// socket.
    ResyncRead,
    /// This node is the source and is to read for the peer; until nothing is in the way.
    ResyncAside,
    /// This node is the target and asked the source; until the reply comes.
    ResyncRequest,
    /// This node is the target and writes what the source replied; until it is on disk.
    ResyncWrite,
}

impl Kind {
    /// Whether a new range of this kind must wait for one that is present: the matrix above.
    pub const fn waits_for(self, present: Self, is_completed: bool) -> bool {
        match (self, present) {
            (Self::ResyncAside, _) => false,
            (Self::ResyncRead | Self::ResyncRequest, Self::LocalWrite) => true,
            (_, Self::LocalWrite) => !is_completed,
            (Self::PeerWrite, Self::ResyncRequest) => false,
            (
                Self::PeerWrite | Self::ResyncRead | Self::ResyncWrite,
                Self::ResyncRead | Self::ResyncAside,
            ) => false,
            _ => true,
        }
    }

    /// What a range of this kind becomes when nothing is in the way any more.
    const fn promoted(self) -> Option<Self> {
        match self {
            Self::ResyncRequest => Some(Self::ResyncWrite),
            Self::ResyncAside => Some(Self::ResyncRead),
            Self::LocalWrite | Self::PeerWrite | Self::ResyncRead | Self::ResyncWrite => None,
        }
    }
}

/// A range in the table. A handle to a range that was removed is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

/// The range that a new one has to wait for. It is marked as waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conflict {
    /// The range in the way.
    pub with: Handle,
    /// What is done there.
    pub kind: Kind,
    /// Its first sector.
    pub sector: Sector,
    /// The sector after its last.
    pub end: Sector,
}

/// Why a range was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Another range is in the way; try again when the shell is told to wake its waiters.
    Conflict(Conflict),
    /// The lent storage is used up, or what is left of it is not for resync requests; try again
    /// when the shell is told to wake its waiters, for a resync request in a while.
    Full,
    /// The range is empty (nothing to enter), not made of whole sectors, or ends beyond all
    /// numbers.
    Malformed,
}

/// The ranges of one device that are being worked on, in lent nodes. All calls need exclusive
/// access; they take logarithmic time plus the number of overlapping ranges that are not in the
/// way.
#[derive(Debug)]
pub struct RangeTable<S> {
    tree: Tree<S>,
    free: u32,
    used: u32,
    /// So many ranges leave no place for a [`Kind::ResyncRequest`].
    requests_max: u32,
}

impl<S: DerefMut<Target = [Node]>> RangeTable<S> {
    /// An empty table over `nodes`, whatever they contain.
    pub fn new(mut nodes: S) -> Self {
        let mut free = NIL;
        let size = u32::try_from(nodes.len()).unwrap_or(NIL);
        // The last index is the mark for no node.
        for (index, node) in (0..NIL).zip(nodes.iter_mut()) {
            *node = Node::free(0, free);
            free = index;
        }
        Self {
            tree: Tree::new(nodes),
            free,
            used: 0,
            // The fifth that is left is for writes that come before what answers these requests.
            requests_max: size.saturating_sub(size / 5),
        }
    }

    /// Enters a range unless it has to wait.
    pub fn try_insert(&mut self, kind: Kind, sector: Sector, size: u32) -> Result<Handle, Refusal> {
        let (start, end) = bounds(sector, size).ok_or(Refusal::Malformed)?;
        self.check(kind, start, end, NIL)
            .map_err(Refusal::Conflict)?;
        if kind == Kind::ResyncRequest && self.used >= self.requests_max {
            return Err(Refusal::Full);
        }
        let index = self.free;
        let free = self.tree.node(index).ok_or(Refusal::Full)?;
        let (generation, next_free) = (free.generation(), free.next_free());
        if kind == Kind::PeerWrite {
            self.overtake_requests(start, end);
        }
        self.free = next_free;
        self.used = self.used.saturating_add(1);
        self.tree
            .insert(index, Node::new(kind, start, end, generation));
        Ok(Handle { index, generation })
    }

    /// The reply to a resync request came: the range becomes a resync write unless it has to wait
    /// for a write that came before.
    ///
    /// The receiver takes no further packet while it waits. A void handle is refused with no
    /// conflict.
    pub fn promote(&mut self, handle: Handle) -> Result<(), Option<Conflict>> {
        let node = self.get(handle).ok_or(None)?;
        let (start, end) = (node.start(), node.end());
        let Some(kind) = node.kind().promoted() else {
            return Ok(());
        };
        self.check(kind, start, end, handle.index).map_err(Some)?;
        if let Some(node) = self.get_mut(handle) {
            node.set_kind(kind);
        }
        Ok(())
    }

    /// Claims the range of a resync read; whether nothing is in the way. Else it is put aside:
    /// go on to the next packet, and call again with the same `held` when the shell is told to wake
    /// its waiters. Writes of the application that come meanwhile wait for it.
    ///
    /// `held` is what the request has in the table, nothing at first; to be removed with it, also
    /// where it was not granted. A table that is full is one more thing in the way, of which no
    /// waiter is told.
    ///
    /// # Errors
    ///
    /// The range is malformed.
    pub fn claim_read(
        &mut self,
        held: &mut Option<Handle>,
        sector: Sector,
        size: u32,
    ) -> Result<bool, Refusal> {
        let handle = match *held {
            Some(handle) => handle,
            None => match self.try_insert(Kind::ResyncAside, sector, size) {
                Ok(handle) => *held.insert(handle),
                Err(Refusal::Malformed) => return Err(Refusal::Malformed),
                Err(Refusal::Full | Refusal::Conflict(_)) => return Ok(false),
            },
        };
        Ok(self.promote(handle).is_ok())
    }

    /// The application is about to be told that its write is done. Whether someone waits: wake all
    /// waiters before the bio ends.
    pub fn mark_completed(&mut self, handle: Handle) -> bool {
        self.get_mut(handle).is_some_and(Node::complete)
    }

    /// Takes a range out. Whether someone waits, for it or for a place: wake all waiters.
    pub fn remove(&mut self, handle: Handle) -> bool {
        let Some(node) = self.get(handle) else {
            return false;
        };
        let is_awaited = node.is_awaited();
        self.tree.remove(handle.index);
        let free = self.free;
        if let Some(node) = self.tree.node_mut(handle.index) {
            *node = Node::free(handle.generation.wrapping_add(1), free);
            self.free = handle.index;
            self.used = self.used.saturating_sub(1);
        }
        is_awaited || free == NIL
    }

    /// Whether a peer's write was entered over a resync request since the request was.
    pub fn is_overtaken(&self, handle: Handle) -> bool {
        self.get(handle).is_some_and(Node::is_overtaken)
    }

    /// Finds a range of this kind with exactly these bounds: the target's request that a reply
    /// belongs to.
    pub fn find(&self, kind: Kind, sector: Sector, size: u32) -> Option<Handle> {
        let (start, end) = bounds(sector, size)?;
        let mut index = self.tree.first_overlap(start, end);
        while let Some(node) = self.tree.node(index) {
            if node.kind() == kind && node.start() == start && node.end() == end {
                return Some(Handle {
                    index,
                    generation: node.generation(),
                });
            }
            index = self.tree.next_overlap(index, start, end);
        }
        None
    }

    /// Takes out all ranges of this kind: the answers they wait for will not come. Whether someone
    /// waits: wake all waiters.
    pub fn remove_kind(&mut self, kind: Kind) -> bool {
        let mut is_awaited = false;
        let mut from = 0;
        while let Some(handle) = self.first_of(kind, &mut from) {
            is_awaited |= self.remove(handle);
        }
        is_awaited
    }

    /// The first range of this kind that ends after `from`, which moves there.
    fn first_of(&self, kind: Kind, from: &mut u64) -> Option<Handle> {
        let mut index = self.tree.first_overlap(*from, u64::MAX);
        while let Some(node) = self.tree.node(index) {
            if node.kind() == kind {
                *from = node.start();
                return Some(Handle {
                    index,
                    generation: node.generation(),
                });
            }
            index = self.tree.next_overlap(index, *from, u64::MAX);
        }
        None
    }

    /// The number of ranges.
    pub const fn len(&self) -> u32 {
        self.used
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Looks for a range that stands in the way, other than `except`, and marks it.
    fn check(&mut self, kind: Kind, start: u64, end: u64, except: u32) -> Result<(), Conflict> {
        let mut index = self.tree.first_overlap(start, end);
        while let Some(node) = self.tree.node_mut(index) {
            if index != except && kind.waits_for(node.kind(), node.is_completed()) {
                node.await_it();
                return Err(Conflict {
                    with: Handle {
                        index,
                        generation: node.generation(),
                    },
                    kind: node.kind(),
                    sector: Sector(node.start()),
                    end: Sector(node.end()),
                });
            }
            index = self.tree.next_overlap(index, start, end);
        }
        Ok(())
    }

    fn overtake_requests(&mut self, start: u64, end: u64) {
        let mut index = self.tree.first_overlap(start, end);
        while let Some(node) = self.tree.node_mut(index) {
            if node.kind() == Kind::ResyncRequest {
                node.overtake();
            }
            index = self.tree.next_overlap(index, start, end);
        }
    }

    fn get(&self, handle: Handle) -> Option<&Node> {
        let node = self.tree.node(handle.index)?;
        (node.is_used() && node.generation() == handle.generation).then_some(node)
    }

    fn get_mut(&mut self, handle: Handle) -> Option<&mut Node> {
        let node = self.tree.node_mut(handle.index)?;
        (node.is_used() && node.generation() == handle.generation).then_some(node)
    }
}

/// The first sector and the one after the last.
fn bounds(sector: Sector, size: u32) -> Option<(u64, u64)> {
    let sectors = u64::from(size >> SECTOR_SHIFT);
    let is_whole = size.trailing_zeros() >= SECTOR_SHIFT && sectors > 0;
    let end = sector.0.checked_add(sectors)?;
    is_whole.then_some((sector.0, end))
}

#[cfg(test)]
mod tests;
