// SPDX-License-Identifier: GPL-2.0

//! A slot of the transfer log: what is remembered of one request.

use super::NIL;
use crate::types::{BlockId, Sector};

/// The number of a slot; the shell keeps its request object under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Index(pub u32);

/// What of a request concerns the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Part {
    /// Nothing: the request has a local part only.
    #[default]
    None,
    /// A read that the peer serves.
    Read,
    /// A write, discard or write-zeroes that is mirrored; it belongs to an epoch.
    Write,
    /// The message that blocks are out of sync.
    OutOfSync,
}

/// The two lists that run through the slots.
#[derive(Clone, Copy)]
pub(super) enum List {
    Order,
    Wire,
}

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl Ends {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    const NONE: Self = Self {
        previous: NIL,
        next: NIL,
    };
}

/// How far a request got on its way to the peer and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    /// Not to be sent, or no more.
    #[default]
    Idle,
    /// Waits to be sent.
    Queued,
    /// Sent, the answer is awaited.
    Unanswered,
    /// Sent, no answer is awaited.
    Answered,
}

/// A slot of the transfer log; the default is fit to be lent.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    sector: Sector,
    sent_ns: u64,
    sequence: u64,
    size: u32,
    epoch: u32,
    generation: u32,
    order: Links,
    wire: Links,
    part: Part,
    progress: Progress,
    is_occupied: bool,
    is_on_wire_list: bool,
    is_acked: bool,
}

impl Default for Entry {
    fn default() -> Self {
        Self::free(0, NIL)
    }
}

impl Entry {
    /// The first sector.
    pub const fn sector(&self) -> Sector {
        self.sector
    }

    /// The size in bytes.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The epoch the request belongs to.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What of the request concerns the network.
    pub const fn part(&self) -> Part {
        self.part
    }

    /// When it was sent last.
    pub const fn sent_ns(&self) -> u64 {
        self.sent_ns
    }

    pub(super) const fn free(generation: u32, next_free: u32) -> Self {
        Self {
            sector: Sector(0),
            sent_ns: 0,
            sequence: 0,
            size: 0,
            epoch: 0,
            // One bit less, so that no cookie is the one of resync traffic.
            generation: generation & (u32::MAX >> 1),
            order: Links {
                previous: NIL,
                next: next_free,
            },
            wire: Links::NONE,
            part: Part::None,
            progress: Progress::Idle,
            is_occupied: false,
            is_on_wire_list: false,
            is_acked: false,
        }
    }

    pub(super) fn occupy(
        &mut self,
        part: Part,
        sector: Sector,
        size: u32,
        epoch: u32,
        sequence: u64,
    ) {
        let progress = match part {
            Part::None => Progress::Idle,
            _ => Progress::Queued,
        };
        let free = Self::free(self.generation, NIL);
        *self = Self {
            part,
            sector,
            size,
            epoch,
            sequence,
            progress,
            is_occupied: true,
            ..free
        };
    }

    /// The index in the lower half, the generation in the upper one.
    pub(super) fn cookie(&self, index: u32) -> BlockId {
        BlockId(u64::from(self.generation) << 32 | u64::from(index))
    }

    pub(super) const fn index_of(id: BlockId) -> u32 {
        // Truncation wanted: the lower half is the index.
        (id.0 & 0xffff_ffff) as u32
    }

    pub(super) const fn next_generation(&self) -> u32 {
        self.generation.wrapping_add(1)
    }

    pub(super) const fn next_free(&self) -> u32 {
        self.order.next
    }

    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) const fn is_occupied(&self) -> bool {
        self.is_occupied
    }

    pub(super) const fn is_on_wire_list(&self) -> bool {
        self.is_on_wire_list
    }

    pub(super) const fn is_acked(&self) -> bool {
        self.is_acked
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.progress, Progress::Unanswered | Progress::Answered)
    }

    pub(super) fn waits_to_be_sent(&self) -> bool {
        self.progress == Progress::Queued
    }

    pub(super) fn awaits_answer(&self) -> bool {
        self.progress == Progress::Unanswered
    }

    /// A mirrored write of which the peer has yet to say that it is on stable storage.
    pub(super) fn awaits_barrier_ack(&self) -> bool {
        let on_its_way = self.waits_to_be_sent() || self.is_sent();
        self.part == Part::Write && on_its_way && !self.is_acked
    }

    pub(super) fn mark_sent(&mut self, now_ns: u64) {
        self.sent_ns = now_ns;
        self.progress = match self.part {
            Part::OutOfSync => Progress::Answered,
            _ => Progress::Unanswered,
        };
    }

    pub(super) fn mark_answered(&mut self) {
        if self.progress == Progress::Unanswered {
            self.progress = Progress::Answered;
        }
    }

    pub(super) fn mark_acked(&mut self) {
        self.is_acked = true;
        self.mark_answered();
    }

    pub(super) fn cancel_send(&mut self) {
        if self.progress == Progress::Queued {
            self.progress = Progress::Idle;
        }
    }

    pub(super) fn requeue(&mut self) {
        if self.part != Part::None {
            self.progress = Progress::Queued;
            self.is_acked = false;
        }
    }

    /// What was sent is no longer of interest; what waits to be sent still waits.
    pub(super) fn void(&mut self) {
        if self.is_sent() {
            self.progress = Progress::Idle;
        }
        self.is_acked = false;
    }

    const fn links(&self, list: List) -> &Links {
        match list {
            List::Order => &self.order,
            List::Wire => &self.wire,
        }
    }

    fn links_mut(&mut self, list: List) -> &mut Links {
        match list {
            List::Order => &mut self.order,
            List::Wire => &mut self.wire,
        }
    }

    pub(super) const fn next(&self, list: List) -> u32 {
        self.links(list).next
    }

    pub(super) const fn previous(&self, list: List) -> u32 {
        self.links(list).previous
    }

    pub(super) fn set_next(&mut self, list: List, index: u32) {
        self.links_mut(list).next = index;
    }

    pub(super) fn set_previous(&mut self, list: List, index: u32) {
        self.links_mut(list).previous = index;
    }

    /// Makes the slot the last of a list.
    pub(super) fn link(&mut self, list: List, previous: u32) {
        *self.links_mut(list) = Links {
            previous,
            next: NIL,
        };
        if matches!(list, List::Wire) {
            self.is_on_wire_list = true;
        }
    }

    pub(super) fn unlink(&mut self, list: List) {
        *self.links_mut(list) = Links::NONE;
        if matches!(list, List::Wire) {
            self.is_on_wire_list = false;
        }
    }
}
