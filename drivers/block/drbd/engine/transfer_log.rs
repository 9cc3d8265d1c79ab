// SPDX-License-Identifier: GPL-2.0

//! The transfer log: every request that has not left the node's memory, in the order of submission
//! (spec §1.17, §5.4).
//!
//! A request occupies one of a fixed number of slots; the shell finds its own request object under
//! the same index. When no slot is free the submitter waits. A slot's index and a generation make
//! the cookie that the peer echoes in its acks, so an ack is matched in constant time, and one that
//! is stale, forged or about other sectors is told apart before anything is touched.
//!
//! Two lists run through the slots. The *order* list holds all requests as submitted; the sender
//! follows it. The *wire* list holds the writes that were sent and whose epoch is not acknowledged
//! yet; the barrier acks follow it. All calls need exclusive access (one short lock), none depends
//! on the number of requests but those that say so.

use core::ops::DerefMut;

use crate::types::{BlockId, Sector};

mod entry;

use entry::{Ends, List};
pub use entry::{Entry, Index, Part};

const NIL: u32 = u32::MAX;

/// The boundary of an epoch that must be sent: P_BARRIER with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Barrier {
    /// The number of the epoch that ends.
    pub number: u32,
}

/// Why an ack does not belong to a request. The connection must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupError {
    /// No request has this cookie, or it has it no more.
    Unknown,
    /// The request was not sent yet.
    NotSent,
    /// The request is about other sectors.
    OtherRange,
}

/// Why a barrier ack is wrong. The connection must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BarrierError {
    /// No barrier is outstanding.
    NotExpected,
    /// It is another epoch's turn.
    WrongEpoch {
        /// The oldest unacknowledged epoch.
        expected: u32,
    },
    /// The peer counted another number of writes.
    WrongSize {
        /// The number of writes that were sent. Counting ends one after the peer's number.
        expected: u32,
    },
}

/// What was written so far, for a flush that the peer is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    sequence: u64,
    connections: u32,
}

/// Where the peer is with what was written before a [`Mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// The barrier of some of it is not acknowledged.
    Pending,
    /// All of it is on the peer's stable storage.
    Reached,
    /// The connection was lost since, and nobody will say.
    Lost,
}

/// The epoch the sender is in, which is behind the one that requests are admitted to.
#[derive(Clone, Copy, Debug, Default)]
struct Sender {
    epoch: u32,
    writes: u32,
    seen_any_write: bool,
    /// Barriers that were sent and not acknowledged.
    barriers: u32,
    /// When the peer last made progress with barriers, or the first outstanding one was sent.
    barrier_since_ns: u64,
}

/// The transfer log of a connection over lent slots.
#[derive(Debug)]
pub struct TransferLog<S> {
    slots: S,
    order: Ends,
    wire: Ends,
    free: u32,
    used: u32,
    sequence: u64,
    epoch: u32,
    epoch_writes: u32,
    max_epoch_size: u32,
    sender: Sender,
    /// Connections that were lost.
    connections: u32,
    /// No request before this one waits to be sent.
    to_send: u32,
    /// No request before this one waits for an answer.
    to_answer: u32,
    /// The next request of the walk over all of them.
    walk: u32,
}

impl<S: DerefMut<Target = [Entry]>> TransferLog<S> {
    /// An empty log over `slots`, whatever they contain.
    ///
    /// `seed` is any number; it makes cookies of an earlier connection unlikely to be valid.
    /// `max_epoch_size` is the option of that name.
    pub fn new(slots: S, seed: u32, max_epoch_size: u32) -> Self {
        let mut log = Self {
            slots,
            order: Ends::EMPTY,
            wire: Ends::EMPTY,
            free: NIL,
            used: 0,
            sequence: 0,
            epoch: 1,
            epoch_writes: 0,
            max_epoch_size,
            sender: Sender::default(),
            connections: 0,
            to_send: NIL,
            to_answer: NIL,
            walk: NIL,
        };
        let mut next = NIL;
        // The last index is the end-of-list mark.
        for (index, slot) in (0..NIL).zip(log.slots.iter_mut()) {
            *slot = Entry::free(seed.wrapping_add(index), next);
            next = index;
        }
        log.free = next;
        log
    }

    /// Enters a request, in the order of submission; `None` when all slots are taken: wait for a
    /// release.
    pub fn admit(&mut self, part: Part, sector: Sector, size: u32) -> Option<(Index, BlockId)> {
        let index = self.free;
        let next_free = self.slots.get(usize_of(index))?.next_free();
        if part == Part::Write {
            if self.epoch_writes >= self.max_epoch_size {
                self.close_epoch();
            }
            self.epoch_writes = self.epoch_writes.saturating_add(1);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let (epoch, sequence) = (self.epoch, self.sequence);
        let slot = self.slots.get_mut(usize_of(index))?;
        slot.occupy(part, sector, size, epoch, sequence);
        let cookie = slot.cookie(index);
        self.free = next_free;
        self.used = self.used.saturating_add(1);
        self.push(List::Order, index);
        for cursor in [&mut self.to_send, &mut self.to_answer] {
            if *cursor == NIL {
                *cursor = index;
            }
        }
        Some((Index(index), cookie))
    }

    /// Takes a request out; its cookie is void from now on. Idempotent.
    pub fn release(&mut self, index: Index) {
        let index = index.0;
        let Some(slot) = self.occupied(index) else {
            return;
        };
        let (next, on_wire_list) = (slot.next(List::Order), slot.is_on_wire_list());
        for cursor in [&mut self.to_send, &mut self.to_answer, &mut self.walk] {
            if *cursor == index {
                *cursor = next;
            }
        }
        self.unlink(List::Order, index);
        if on_wire_list {
            self.unlink(List::Wire, index);
        }
        let free = self.free;
        if let Some(slot) = self.slots.get_mut(usize_of(index)) {
            *slot = Entry::free(slot.next_generation(), free);
            self.free = index;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Finds the request that an ack or a reply is about.
    pub fn lookup(&self, id: BlockId, sector: Sector, size: u32) -> Result<Index, LookupError> {
        let index = Entry::index_of(id);
        let slot = self.occupied(index).ok_or(LookupError::Unknown)?;
        if slot.cookie(index) != id {
            return Err(LookupError::Unknown);
        }
        if !slot.is_sent() {
            return Err(LookupError::NotSent);
        }
        if slot.sector() != sector || slot.size() != size {
            return Err(LookupError::OtherRange);
        }
        Ok(Index(index))
    }

    /// The slot of a request.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.occupied(index.0)
    }

    /// The cookie of a request.
    pub fn cookie(&self, index: Index) -> Option<BlockId> {
        self.occupied(index.0).map(|slot| slot.cookie(index.0))
    }

    /// The number of requests in the log.
    pub const fn len(&self) -> u32 {
        self.used
    }

    /// Whether no request is in the log.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The epoch that requests are admitted to.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Changes the option `max-epoch-size`.
    pub fn set_max_epoch_size(&mut self, writes: u32) {
        self.max_epoch_size = writes;
    }

    /// Ends the current epoch unless it is empty: an empty flush, mirroring that begins or ends,
    /// going Ahead (spec §5.4).
    ///
    /// Whether it ended; the sender may then have an [`Self::idle_barrier`] to send.
    pub fn close_epoch(&mut self) -> bool {
        if self.epoch_writes == 0 {
            return false;
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch_writes = 0;
        true
    }

    /// Ends the current epoch and marks what was written so far, see [`Self::stability`].
    ///
    /// The sender may then have an [`Self::idle_barrier`] to send.
    pub fn mark(&mut self) -> Mark {
        self.close_epoch();
        Mark {
            sequence: self.sequence,
            connections: self.connections,
        }
    }

    /// Whether the peer has acknowledged the barriers of all that was mirrored before a mark. To be
    /// asked again when a request is released or the connection lost. Takes time by the number of
    /// requests before the mark.
    pub fn stability(&self, mark: Mark) -> Stability {
        if mark.connections != self.connections {
            return Stability::Lost;
        }
        let mut index = self.order.head;
        while let Some(slot) = self.occupied(index) {
            if slot.sequence() > mark.sequence {
                break;
            }
            if slot.awaits_barrier_ack() {
                return Stability::Pending;
            }
            index = slot.next(List::Order);
        }
        Stability::Reached
    }

    /// Ends the current epoch if the request belongs to it. To be called before the application
    /// learns that the write is done.
    pub fn close_epoch_of(&mut self, index: Index) -> bool {
        match self.occupied(index.0) {
            Some(slot) if slot.epoch() == self.epoch => self.close_epoch(),
            _ => false,
        }
    }

    /// The oldest request that waits to be sent. Amortised constant time.
    pub fn next_to_send(&mut self) -> Option<Index> {
        while let Some(slot) = self.occupied(self.to_send) {
            if slot.waits_to_be_sent() {
                return Some(Index(self.to_send));
            }
            self.to_send = slot.next(List::Order);
        }
        None
    }

    /// Begins to send a request, which must be the one [`Self::next_to_send`] named: from now on it
    /// may be acknowledged.
    ///
    /// The barrier, if there is one, must be sent before it.
    pub fn begin_send(&mut self, index: Index, now_ns: u64) -> Option<Barrier> {
        let slot = self.occupied(index.0)?;
        if !slot.waits_to_be_sent() {
            return None;
        }
        let (epoch, part) = (slot.epoch(), slot.part());
        let barrier = self.barrier_before(epoch, now_ns);
        if let Some(slot) = self.slots.get_mut(usize_of(index.0)) {
            slot.mark_sent(now_ns);
        }
        if part == Part::Write {
            if !self.sender.seen_any_write {
                self.sender.seen_any_write = true;
                self.sender.epoch = epoch;
            }
            self.sender.writes = self.sender.writes.saturating_add(1);
            self.push(List::Wire, index.0);
        }
        barrier
    }

    /// The request will not be sent after all.
    pub fn cancel_send(&mut self, index: Index) {
        if let Some(slot) = self.occupied_mut(index.0) {
            slot.cancel_send();
        }
    }

    /// The request is to be sent again, after [`Self::connection_lost`].
    pub fn requeue(&mut self, index: Index) {
        let Some(slot) = self.occupied_mut(index.0) else {
            return;
        };
        slot.requeue();
        let sequence = slot.sequence();
        for list in [Cursor::Send, Cursor::Answer] {
            let current = self.occupied(self.cursor(list)).map(Entry::sequence);
            if current.is_none_or(|current| sequence < current) {
                self.set_cursor(list, index.0);
            }
        }
    }

    /// The barrier to send when the sender ran out of requests while its epoch is closed; none as
    /// long as a request waits to be sent.
    pub fn idle_barrier(&mut self, now_ns: u64) -> Option<Barrier> {
        if self.next_to_send().is_some() {
            return None;
        }
        self.barrier_before(self.epoch, now_ns)
    }

    /// Whether neither a request nor a barrier waits to be sent.
    pub fn is_sent(&mut self) -> bool {
        let epoch_is_open = self.sender.epoch == self.epoch || self.sender.writes == 0;
        epoch_is_open && self.next_to_send().is_none()
    }

    /// Checks a barrier ack. If it is right, [`Self::next_acked`] yields the writes of the epoch.
    /// Takes time by their number.
    pub fn barrier_ack(
        &mut self,
        number: u32,
        set_size: u32,
        now_ns: u64,
    ) -> Result<(), BarrierError> {
        let first = self.first_unacked();
        let head = self.occupied(first).ok_or(BarrierError::NotExpected)?;
        if self.sender.barriers == 0 {
            return Err(BarrierError::NotExpected);
        }
        let expected = head.epoch();
        if number != expected {
            return Err(BarrierError::WrongEpoch { expected });
        }
        let writes = self.count_epoch(first, number, set_size);
        if writes != set_size {
            return Err(BarrierError::WrongSize { expected: writes });
        }
        self.mark_acked(first, number);
        self.sender.barriers = self.sender.barriers.saturating_sub(1);
        self.sender.barrier_since_ns = now_ns;
        Ok(())
    }

    /// The next write of the acknowledged epochs; each is yielded once.
    pub fn next_acked(&mut self) -> Option<Index> {
        let index = self.wire.head;
        if !self.occupied(index)?.is_acked() {
            return None;
        }
        self.unlink(List::Wire, index);
        Some(Index(index))
    }

    /// The peer's answer to the request arrived or is not awaited any more.
    pub fn answered(&mut self, index: Index) {
        if let Some(slot) = self.occupied_mut(index.0) {
            slot.mark_answered();
        }
    }

    /// The oldest request that was sent and not answered, for the request timer (spec §5.9).
    /// Amortised constant time.
    pub fn oldest_unanswered(&mut self) -> Option<Index> {
        while let Some(slot) = self.occupied(self.to_answer) {
            if slot.waits_to_be_sent() {
                return None;
            }
            if slot.awaits_answer() {
                return Some(Index(self.to_answer));
            }
            self.to_answer = slot.next(List::Order);
        }
        None
    }

    /// Since when the peer owes the answer to a barrier; `None` if it owes none.
    pub const fn barrier_since_ns(&self) -> Option<u64> {
        if self.sender.barriers == 0 {
            return None;
        }
        Some(self.sender.barrier_since_ns)
    }

    /// Forgets what was sent on a connection that is gone: no ack and no barrier ack will be
    /// accepted. Takes time by their number.
    ///
    /// The requests stay; walk over them.
    pub fn connection_lost(&mut self) {
        self.sender = Sender::default();
        self.connections = self.connections.wrapping_add(1);
        self.close_epoch();
        while self.wire.head != NIL {
            self.unlink(List::Wire, self.wire.head);
        }
        let mut index = self.order.head;
        while let Some(slot) = self.occupied_mut(index) {
            slot.void();
            index = slot.next(List::Order);
        }
    }

    /// Begins a walk over all requests, oldest first. There is one walk at a time; requests may be
    /// released during it.
    pub fn begin_walk(&mut self) {
        self.walk = self.order.head;
    }

    /// The next request of the walk.
    pub fn next_of_walk(&mut self) -> Option<Index> {
        let index = self.walk;
        self.walk = self.occupied(index)?.next(List::Order);
        Some(Index(index))
    }

    /// The barrier to be sent before anything of another epoch (spec §5.4).
    fn barrier_before(&mut self, epoch: u32, now_ns: u64) -> Option<Barrier> {
        let sender = &mut self.sender;
        if !sender.seen_any_write || sender.epoch == epoch {
            return None;
        }
        let barrier = Barrier {
            number: sender.epoch,
        };
        let has_writes = sender.writes > 0;
        sender.epoch = epoch;
        sender.writes = 0;
        if !has_writes {
            return None;
        }
        if sender.barriers == 0 {
            sender.barrier_since_ns = now_ns;
        }
        sender.barriers = sender.barriers.saturating_add(1);
        Some(barrier)
    }

    /// The oldest write on the wire that is not acknowledged.
    fn first_unacked(&self) -> u32 {
        let mut index = self.wire.head;
        while let Some(slot) = self.occupied(index) {
            if !slot.is_acked() {
                break;
            }
            index = slot.next(List::Wire);
        }
        index
    }

    /// Counts the writes of an epoch, to one more than `limit`.
    fn count_epoch(&self, first: u32, epoch: u32, limit: u32) -> u32 {
        let mut count: u32 = 0;
        let mut index = first;
        while let Some(slot) = self.occupied(index) {
            if slot.epoch() != epoch || count > limit {
                break;
            }
            count = count.saturating_add(1);
            index = slot.next(List::Wire);
        }
        count
    }

    fn mark_acked(&mut self, first: u32, epoch: u32) {
        let mut index = first;
        while let Some(slot) = self.occupied_mut(index) {
            if slot.epoch() != epoch {
                break;
            }
            slot.mark_acked();
            index = slot.next(List::Wire);
        }
    }
}

/// The places in the order list that requests are followed from.
#[derive(Clone, Copy)]
enum Cursor {
    Send,
    Answer,
}

/// The slots and the lists through them.
impl<S: DerefMut<Target = [Entry]>> TransferLog<S> {
    fn occupied(&self, index: u32) -> Option<&Entry> {
        self.slots
            .get(usize_of(index))
            .filter(|slot| slot.is_occupied())
    }

    fn occupied_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.slots
            .get_mut(usize_of(index))
            .filter(|slot| slot.is_occupied())
    }

    const fn cursor(&self, cursor: Cursor) -> u32 {
        match cursor {
            Cursor::Send => self.to_send,
            Cursor::Answer => self.to_answer,
        }
    }

    fn set_cursor(&mut self, cursor: Cursor, index: u32) {
        match cursor {
            Cursor::Send => self.to_send = index,
            Cursor::Answer => self.to_answer = index,
        }
    }

    fn ends(&mut self, list: List) -> &mut Ends {
        match list {
            List::Order => &mut self.order,
            List::Wire => &mut self.wire,
        }
    }

    fn push(&mut self, list: List, index: u32) {
        let ends = self.ends(list);
        let tail = ends.tail;
        ends.tail = index;
        if tail == NIL {
            ends.head = index;
        }
        if let Some(slot) = self.slots.get_mut(usize_of(tail)) {
            slot.set_next(list, index);
        }
        if let Some(slot) = self.slots.get_mut(usize_of(index)) {
            slot.link(list, tail);
        }
    }

    fn unlink(&mut self, list: List, index: u32) {
        let Some(slot) = self.slots.get_mut(usize_of(index)) else {
            return;
        };
        let (previous, next) = (slot.previous(list), slot.next(list));
        slot.unlink(list);
        match self.slots.get_mut(usize_of(previous)) {
            Some(slot) => slot.set_next(list, next),
            None => self.ends(list).head = next,
        }
        match self.slots.get_mut(usize_of(next)) {
            Some(slot) => slot.set_previous(list, previous),
            None => self.ends(list).tail = previous,
        }
    }
}

/// Lossless: the kernel's `usize` has 64 bits, and [`NIL`] is never a valid index.
const fn usize_of(index: u32) -> usize {
    index as usize
}

#[cfg(test)]
mod tests;
