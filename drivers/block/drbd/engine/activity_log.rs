// SPDX-License-Identifier: GPL-2.0

//! The activity log: which 4 MiB extents may differ between the nodes if this one crashes now (Spec
//! §2.4, §12.1).
//!
//! A write may begin when every extent it touches is *hot*, that is, on disk in a slot of the log.
//! Slots are few; an extent that is not hot takes the place of one that nobody uses, and a
//! *transaction* block says so on disk. The write path therefore is:
//!
//! 1. [`ActivityLog::try_get`]. Mostly [`Got::Hot`]: the extents are referenced, go on.
//! 2. Otherwise the request queues. Whoever serves the queue calls [`ActivityLog::reserve`] for
//!    each waiting request in order, as long as the answer is not [`Reserve::Wait`]: one
//!    transaction admits them all. A reservation takes all extents of a request or none, so that
//!    two requests never wait for each other.
//! 3. [`ActivityLog::begin`] encodes the transaction. The shell flushes the data where it is to
//!    ([`Transaction::flushes_data`]), writes the bitmap pages of the extents that lost their slots
//!    ([`ActivityLog::evicted_pages`]), then the block, and calls [`ActivityLog::commit`]; the
//!    requests with [`Reserve::AfterCommit`] go on. Meanwhile hot extents can be had, new
//!    reservations wait.
//! 4. When a request is finished, [`ActivityLog::put`] with its span; `true` says that a waiting
//!    request may now get its slots.
//!
//! All of it takes exclusive access; the shell holds a short lock around each call, never during
//! I/O. Nothing here sleeps.

pub mod block;
mod list;
pub mod recovery;
pub mod ring;
pub mod span;

#[cfg(test)]
mod tests;

pub use block::{BLOCK_SIZE, MAX_UPDATES};
pub use list::Slot;
pub use ring::Ring;
pub use span::Span;

use crate::types::ExtentNr;
use block::{Crc32c, CONTEXT_SIZE, FREE};
use core::ops::DerefMut;
use list::{get, update, List, Place, NONE};

/// Extents of 4 MiB whose bitmap lies in one 4 KiB page.
const EXTENTS_PER_BITMAP_PAGE: u64 = 32;

/// The answer to [`ActivityLog::try_get`]. Only [`Got::Hot`] has taken references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// Every extent is hot and referenced: the write may begin.
    Hot,
    /// An extent is not in the log: reserve it.
    NeedsTransaction,
    /// Every extent is hot or is so after the transaction that is being prepared or written:
    /// reserve it to wait for that.
    Pending,
    /// A request waits for slots to fall free; those before it must finish first.
    Starving,
}

/// The answer to [`ActivityLog::reserve`]. All but [`Reserve::Wait`] and [`Reserve::TooLarge`] have
/// taken references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Every extent is hot: the write may begin.
    Hot,
    /// The write may begin after the next [`ActivityLog::commit`].
    AfterCommit,
    /// Nothing was taken; try again after the event named.
    Wait(WaitFor),
    /// More extents than a transaction can change or than there are slots: the request must be
    /// split.
    TooLarge,
}

/// What a request that could not reserve waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// The transaction being prepared or written; it changes as many slots as it can, or changes
    /// none any more.
    Commit,
    /// A [`ActivityLog::put`] that says `true`.
    Put,
}

/// A transaction to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its number.
    pub tr_number: u32,
    /// The ring's block to write; [`crate::meta::Layout::activity_log_block`] knows its sector.
    pub ring_block: u32,
    /// Slots that it changes.
    pub changes: u16,
    /// What was written to an extent that loses its slot may still be in a volatile cache: the data
    /// are to be flushed before the block is written, or the transaction aborted.
    pub flushes_data: bool,
}

/// Counters for `/proc/drbd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Slots in use.
    pub used: u32,
    /// All slots.
    pub slots: u32,
    /// Extents asked for that were hot.
    pub hits: u64,
    /// Extents asked for that were not in the log.
    pub misses: u64,
    /// Requests refused because too few slots were idle.
    pub starving: u64,
    /// Requests refused because a transaction was being written or had no room.
    pub locked: u64,
    /// Slots changed by transactions.
    pub changed: u64,
}

/// The activity log of one volume over lent slots.
pub struct ActivityLog<S> {
    slots: S,
    /// Slots of the storage in use, at most [`ring::MAX_EXTENTS`].
    count: u16,
    ring: Ring,
    free: List,
    idle: List,
    pending: List,
    tr_number: u32,
    context_start: u16,
    /// A transaction is being written: its changes are fixed.
    writing: bool,
    /// Flushes of the data that transactions began; the one of the transaction that is being
    /// written, and the last that is over.
    flushes: u64,
    flushing: Option<u64>,
    flushed: u64,
    /// A request waits until this many slots are free or idle.
    starving: Option<u32>,
    statistics: Statistics,
}

/// What it would take to have every extent of a span.
struct Survey {
    /// Extents in no slot.
    missing: u32,
    /// Extents in idle slots: to be used, so not to be evicted.
    idle: u32,
    /// Extents in slots whose change is pending.
    pending: u32,
}

impl<S: DerefMut<Target = [Slot]>> ActivityLog<S> {
    /// An empty log over all of the storage, which [`Ring::clamp_extents`] should have sized. Slots
    /// beyond 65534 stay unused.
    ///
    /// The log on disk must be empty too: the tools apply and initialise it before every attach.
    pub fn new(slots: S, ring: Ring) -> Self {
        let usable = slots.len().min(usize::from(NONE.saturating_sub(1)));
        let mut log = Self {
            slots,
            count: u16::try_from(usable).unwrap_or(0),
            ring,
            free: List::EMPTY,
            idle: List::EMPTY,
            pending: List::EMPTY,
            tr_number: 0,
            context_start: 0,
            writing: false,
            flushes: 0,
            flushing: None,
            flushed: 0,
            starving: None,
            statistics: Statistics::default(),
        };
        log.reset();
        log
    }

    /// Forgets all extents and references, as after a detach. Numbering and statistics go on.
    pub fn reset(&mut self) {
        self.slots.fill(Slot::default());
        (self.free, self.idle, self.pending) = (List::EMPTY, List::EMPTY, List::EMPTY);
        for number in 0..self.count {
            self.free.push(&mut self.slots, number);
        }
        self.writing = false;
        self.flushing = None;
        self.starving = None;
    }

    /// References every extent of the span if all of them are hot.
    pub fn try_get(&mut self, span: Span) -> Got {
        if self.starving.is_some() {
            self.statistics.starving = self.statistics.starving.saturating_add(1);
            return Got::Starving;
        }
        if span.count() == 1 {
            return self.try_get_one(span.first());
        }
        let survey = self.survey(span);
        if survey.missing != 0 {
            return Got::NeedsTransaction;
        }
        if survey.pending != 0 {
            return Got::Pending;
        }
        self.reference_found(span);
        Got::Hot
    }

    /// References every extent of the span, by changing slots in the next transaction where they
    /// are not hot.
    ///
    /// To be called for waiting requests in their order: a request that finds too few idle slots
    /// keeps others from taking more until it, or a request that comes before it, has been served.
    pub fn reserve(&mut self, span: Span) -> Reserve {
        if span.count() > self.largest_span() {
            return Reserve::TooLarge;
        }
        let survey = self.survey(span);
        let reserved = if survey.pending == 0 && survey.missing == 0 {
            Reserve::Hot
        } else {
            Reserve::AfterCommit
        };
        if survey.missing != 0 {
            let pending = u32::from(self.pending.len()).saturating_add(survey.missing);
            if self.writing || pending > max_updates() {
                self.statistics.locked = self.statistics.locked.saturating_add(1);
                return Reserve::Wait(WaitFor::Commit);
            }
        }
        let need = survey.missing.saturating_add(survey.idle);
        if self.available() < self.starving.unwrap_or(0).max(need) {
            return self.starve(need);
        }
        self.starving = None;
        self.statistics.misses = self
            .statistics
            .misses
            .saturating_add(u64::from(survey.missing));
        self.reference_found(span);
        self.change_missing(span);
        reserved
    }

    /// Drops the references that a successful [`Self::try_get`] or [`Self::reserve`] took on this
    /// span.
    ///
    /// Returns whether requests that wait for [`WaitFor::Put`] should be tried again.
    pub fn put(&mut self, span: Span) -> bool {
        for extent in span.extents() {
            if let Some(number) = self.find(extent) {
                self.release(number);
            }
        }
        self.starving.is_some_and(|need| self.available() >= need)
    }

    /// Whether reservations wait for a transaction, and none is being written.
    pub fn wants_transaction(&self) -> bool {
        !self.writing && self.pending.head().is_some()
    }

    /// Encodes the transaction of all pending changes and keeps further ones out until
    /// [`Self::commit`] or [`Self::abort`].
    ///
    /// `None` when there is nothing to write or a transaction is being written already.
    pub fn begin(
        &mut self,
        block: &mut [u8; BLOCK_SIZE],
        crc32c: impl Crc32c,
    ) -> Option<Transaction> {
        if !self.wants_transaction() {
            return None;
        }
        self.encode(block, crc32c)?;
        self.writing = true;
        let flushes_data = self.evicts_unflushed();
        if flushes_data {
            self.flushes = self.flushes.saturating_add(1);
            self.flushing = Some(self.flushes);
        }
        Some(Transaction {
            flushes_data,
            ..self.transaction()
        })
    }

    /// Whether no flush is over that began after the last write to each extent that is to lose its
    /// slot had ended.
    ///
    /// Mostly there is one: the slot that is taken is the one idle for longest. What is written to
    /// an extent ends before it is idle, so a flush that begins later covers it. (The C driver
    /// flushes with each transaction.)
    fn evicts_unflushed(&self) -> bool {
        let mut changes = self.pending.iter(&self.slots);
        changes.any(|(_, slot)| slot.extent != FREE && slot.idle_since >= self.flushed)
    }

    /// Encodes a transaction that changes no slot, and counts it as committed. Pending changes stay
    /// pending.
    ///
    /// After the log has moved or changed its shape, the shell writes as many of these as the ring
    /// has blocks: nothing that was in their place before may be replayed. `None` while a
    /// transaction is being written.
    pub fn rewrite(
        &mut self,
        block: &mut [u8; BLOCK_SIZE],
        crc32c: impl Crc32c,
    ) -> Option<Transaction> {
        if self.writing {
            return None;
        }
        let pending = core::mem::replace(&mut self.pending, List::EMPTY);
        let encoded = self.encode(block, crc32c);
        let transaction = self.transaction();
        self.pending = pending;
        encoded?;
        self.advance();
        Some(transaction)
    }

    /// The extents that lose their slots by the pending changes. What their bitmap says must be on
    /// disk before the transaction is.
    pub fn evicted(&self) -> impl Iterator<Item = ExtentNr> + '_ {
        let changes = self.pending.iter(&self.slots);
        changes
            .filter(|(_, slot)| slot.extent != FREE)
            .map(|(_, slot)| ExtentNr(slot.extent))
    }

    /// The 4 KiB pages of the bitmap that cover [`Self::evicted`]; a page may come more than once.
    pub fn evicted_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.evicted().map(bitmap_page)
    }

    /// The transaction is on disk (or the log is not written at all): its extents are hot. Whoever
    /// waits is to be tried again.
    pub fn commit(&mut self) {
        if !self.writing {
            return;
        }
        self.writing = false;
        if let Some(flush) = self.flushing.take() {
            self.flushed = flush;
        }
        self.advance();
        self.statistics.changed = self
            .statistics
            .changed
            .saturating_add(u64::from(self.pending.len()));
        while let Some(number) = self.pending.head() {
            self.pending.remove(&mut self.slots, number);
            let in_use = get(&self.slots, number).references != 0;
            update(&mut self.slots, number, |slot| {
                slot.extent = slot.label;
                slot.place = Place::Used;
            });
            if !in_use {
                self.rest(number);
            }
        }
    }

    /// The transaction could not be written, and may or may not be on disk. Its changes are pending
    /// as before: they can be written again, or the log is [`Self::reset`] with the disk. No extent
    /// of it becomes hot.
    pub fn abort(&mut self) {
        self.writing = false;
        self.flushing = None;
    }

    /// Takes the shape of a ring that has moved. To be followed by [`Self::rewrite`] of every
    /// block.
    pub fn set_ring(&mut self, ring: Ring) {
        self.ring = ring;
    }

    /// Whether a request uses an extent of the span: a resync request must wait for it.
    pub fn is_active(&self, span: Span) -> bool {
        let in_use = |extent| {
            self.find(extent)
                .is_some_and(|n| get(&self.slots, n).references != 0)
        };
        span.extents().any(in_use)
    }

    /// All extents that are hot on disk now, in no order: what a crash would have marked out of
    /// sync.
    pub fn hot(&self) -> impl Iterator<Item = ExtentNr> + '_ {
        self.slots
            .iter()
            .filter(|slot| slot.extent != FREE)
            .map(|slot| ExtentNr(slot.extent))
    }

    /// The counters.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            used: u32::from(self.count).saturating_sub(self.available()),
            slots: u32::from(self.count),
            ..self.statistics
        }
    }

    fn largest_span(&self) -> u32 {
        max_updates().min(u32::from(self.count))
    }

    /// Slots that a new extent could take.
    fn available(&self) -> u32 {
        u32::from(self.free.len()).saturating_add(u32::from(self.idle.len()))
    }

    fn starve(&mut self, need: u32) -> Reserve {
        self.statistics.starving = self.statistics.starving.saturating_add(1);
        self.starving = Some(self.starving.unwrap_or(0).max(need));
        Reserve::Wait(WaitFor::Put)
    }

    fn survey(&self, span: Span) -> Survey {
        let mut survey = Survey {
            missing: 0,
            idle: 0,
            pending: 0,
        };
        for extent in span.extents() {
            let place = self
                .find(extent)
                .map(|number| get(&self.slots, number).place);
            let count = match place {
                None | Some(Place::Free) => &mut survey.missing,
                Some(Place::Idle) => &mut survey.idle,
                Some(Place::Pending) => &mut survey.pending,
                Some(Place::Used) => continue,
            };
            *count = count.saturating_add(1);
        }
        survey
    }

    /// The usual case in one look-up.
    fn try_get_one(&mut self, extent: ExtentNr) -> Got {
        let Some(number) = self.find(extent) else {
            return Got::NeedsTransaction;
        };
        match get(&self.slots, number).place {
            Place::Pending => Got::Pending,
            Place::Free => Got::NeedsTransaction,
            Place::Idle | Place::Used => {
                self.reference(number);
                Got::Hot
            }
        }
    }

    fn reference_found(&mut self, span: Span) {
        for extent in span.extents() {
            if let Some(number) = self.find(extent) {
                self.reference(number);
            }
        }
    }

    /// Gives slots to the extents that have none. Those that have one must be referenced by then,
    /// or they could be evicted for these.
    fn change_missing(&mut self, span: Span) {
        for extent in span.extents() {
            if self.find(extent).is_none() {
                self.change(extent);
            }
        }
    }

    fn reference(&mut self, number: u16) {
        if get(&self.slots, number).place == Place::Idle {
            self.idle.remove(&mut self.slots, number);
            update(&mut self.slots, number, |slot| slot.place = Place::Used);
        }
        update(&mut self.slots, number, |slot| {
            slot.references = slot.references.saturating_add(1);
        });
        self.statistics.hits = self.statistics.hits.saturating_add(1);
    }

    /// Gives a free slot, or the one idle for longest, to an extent from the next transaction on.
    fn change(&mut self, extent: ExtentNr) {
        let number = if let Some(number) = self.free.head() {
            self.free.remove(&mut self.slots, number);
            number
        } else if let Some(number) = self.idle.head() {
            self.idle.remove(&mut self.slots, number);
            self.unhash(number);
            number
        } else {
            return;
        };
        update(&mut self.slots, number, |slot| {
            slot.label = extent.0;
            slot.references = 1;
            slot.place = Place::Pending;
        });
        self.hash(number);
        self.pending.push(&mut self.slots, number);
    }

    fn release(&mut self, number: u16) {
        let slot = get(&self.slots, number);
        let references = slot.references.saturating_sub(1);
        update(&mut self.slots, number, |slot| slot.references = references);
        // A pending slot without references keeps its change: on disk it is harmless, and the old
        // extent may be gone already.
        if references == 0 && slot.place == Place::Used {
            self.rest(number);
        }
    }

    /// Nobody uses the extent any more.
    fn rest(&mut self, number: u16) {
        let idle_since = self.flushes;
        update(&mut self.slots, number, |slot| {
            slot.place = Place::Idle;
            slot.idle_since = idle_since;
        });
        self.idle.push(&mut self.slots, number);
    }

    fn encode(&self, block: &mut [u8; BLOCK_SIZE], crc32c: impl Crc32c) -> Option<()> {
        let disk = block::Disk::start(block, self.tr_number, self.count, self.context_start)?;
        let changes = self.pending.iter(&self.slots);
        disk.set_updates(changes.map(|(number, slot)| (number, slot.label)));
        let slots = self.slots.iter().take(usize::from(self.count));
        disk.set_context(
            slots
                .skip(usize::from(self.context_start))
                .map(|slot| slot.extent),
        );
        block::seal(block, crc32c);
        Some(())
    }

    fn transaction(&self) -> Transaction {
        Transaction {
            tr_number: self.tr_number,
            ring_block: self.ring.block_of(self.tr_number),
            changes: self.pending.len(),
            flushes_data: false,
        }
    }

    /// On to the next transaction's number and the next part of the context.
    fn advance(&mut self) {
        self.tr_number = self.tr_number.wrapping_add(1);
        let step = u16::try_from(CONTEXT_SIZE).unwrap_or(u16::MAX);
        let next = self.context_start.saturating_add(step);
        self.context_start = if next < self.count { next } else { 0 };
    }

    fn bucket(&self, label: u32) -> u16 {
        // Neighbouring extents are the usual case and fill neighbouring chains.
        let chain = label.checked_rem(u32::from(self.count)).unwrap_or(0);
        u16::try_from(chain).unwrap_or(0)
    }

    /// The slot that holds the extent, or is about to.
    fn find(&self, extent: ExtentNr) -> Option<u16> {
        let mut number = get(&self.slots, self.bucket(extent.0)).bucket;
        while number != NONE {
            let slot = get(&self.slots, number);
            if slot.label == extent.0 {
                return Some(number);
            }
            number = slot.chain;
        }
        None
    }

    fn hash(&mut self, number: u16) {
        let bucket = self.bucket(get(&self.slots, number).label);
        let head = get(&self.slots, bucket).bucket;
        update(&mut self.slots, number, |slot| slot.chain = head);
        update(&mut self.slots, bucket, |slot| slot.bucket = number);
    }

    fn unhash(&mut self, number: u16) {
        let slot = get(&self.slots, number);
        let bucket = self.bucket(slot.label);
        let head = get(&self.slots, bucket).bucket;
        if head == number {
            update(&mut self.slots, bucket, |bucket| bucket.bucket = slot.chain);
            return;
        }
        let mut before = head;
        while before != NONE {
            let next = get(&self.slots, before).chain;
            if next == number {
                update(&mut self.slots, before, |before| before.chain = slot.chain);
                return;
            }
            before = next;
        }
    }
}

/// The 4 KiB page of the bitmap that covers an extent.
pub fn bitmap_page(extent: ExtentNr) -> u64 {
    u64::from(extent.0) / EXTENTS_PER_BITMAP_PAGE
}

fn max_updates() -> u32 {
    u32::try_from(MAX_UPDATES).unwrap_or(0)
}
