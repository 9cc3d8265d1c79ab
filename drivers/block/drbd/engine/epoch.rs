// SPDX-License-Identifier: GPL-2.0

//! The epochs of the node that receives writes (spec §1.17, §12.3).
//!
//! The peer's writes between two barriers form an epoch. When all of them are on disk, and for the
//! method *flush* the disk's cache is written, the peer gets the barrier ack; epochs are
//! acknowledged in order. The C driver acknowledges before it flushes, so that a power failure
//! right then loses writes which no bitmap bit tells of; here the ack waits for the flush.

use core::ops::DerefMut;

/// How the order of writes is kept across epochs, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteOrdering {
    /// Not at all; the device below keeps the order.
    None,
    /// The writes of an epoch are completed before the next begins.
    Drain,
    /// As drain, and the disk's cache is written in between.
    Flush,
}

impl WriteOrdering {
    /// The name in "Method to ensure write ordering: ".
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Drain => "drain",
            Self::Flush => "flush",
        }
    }

    /// The letter of the `wo:` field in `/proc/drbd`.
    pub const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Drain => 'd',
            Self::Flush => 'f',
        }
    }

    /// The strongest method not above this one that a disk's options permit; to be narrowed over
    /// all disks of the resource.
    pub const fn permitted(self, disk_flushes: bool, disk_drain: bool) -> Self {
        match self {
            Self::Flush if disk_flushes => Self::Flush,
            Self::Flush | Self::Drain if disk_drain => Self::Drain,
            _ => Self::None,
        }
    }

    /// The method to go on with after a disk refused to flush.
    pub const fn without_flush(self) -> Self {
        match self {
            Self::Flush => Self::Drain,
            other => other,
        }
    }
}

/// The epoch a write belongs to: kept with the write, given back when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochRef(u64);

/// One epoch; the default is fit to be lent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epoch {
    cookie: [u8; 4],
    has_barrier: bool,
    must_settle: bool,
    writes: u32,
    active: u32,
    was_guessed: bool,
}

impl Epoch {
    const fn is_finished(&self) -> bool {
        self.writes > 0 && self.active == 0 && self.has_barrier && !self.must_settle
    }
}

/// A barrier ack to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BarrierAck {
    /// The barrier's cookie, echoed.
    pub cookie: [u8; 4],
    /// The number of writes in the epoch.
    pub set_size: u32,
}

/// What the receiver does before it takes the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BarrierStep {
    /// Nothing: go on.
    GoOn,
    /// Wait until [`Epochs::active`] is 0, then call [`Epochs::settled`].
    Drain,
    /// Wait until [`Epochs::active`] is 0, flush every attached disk, then call
    /// [`Epochs::settled`].
    DrainAndFlush,
}

/// The peer sent a second barrier for the same epoch before the first was settled; drop the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTurn;

/// The open epochs of a connection, in lent storage for at least one. All calls need exclusive
/// access.
#[derive(Debug)]
pub struct Epochs<S> {
    slots: S,
    /// The number of the oldest open epoch; numbers never repeat within the life of a write.
    oldest: u64,
    /// The number of the epoch that writes join.
    current: u64,
    active: u32,
    /// How many writes the epoch before the current one had.
    last_writes: u32,
    /// The number of the last epoch with a write that was refused.
    last_refused: Option<u64>,
}

impl<S: DerefMut<Target = [Epoch]>> Epochs<S> {
    /// One empty epoch over `slots`, whatever they contain.
    pub fn new(slots: S) -> Self {
        let mut epochs = Self {
            slots,
            oldest: 0,
            current: 0,
            active: 0,
            last_writes: 0,
            last_refused: None,
        };
        epochs.reset();
        epochs
    }

    /// A write arrived: it joins the current epoch.
    pub fn write_received(&mut self) -> EpochRef {
        let number = self.current;
        if let Some(epoch) = self.slot(number) {
            epoch.writes = epoch.writes.saturating_add(1);
            epoch.active = epoch.active.saturating_add(1);
            self.active = self.active.saturating_add(1);
        }
        EpochRef(number)
    }

    /// A write is done, well or not. Afterwards ask [`Self::next_ack`] until it has none.
    ///
    /// Returns whether it was the last, for which a barrier may wait.
    pub fn write_done(&mut self, epoch: EpochRef) -> bool {
        if !self.is_open(epoch.0) {
            // The connection the write came by is gone.
            return false;
        }
        if let Some(epoch) = self.slot(epoch.0) {
            epoch.active = epoch.active.saturating_sub(1);
            self.active = self.active.saturating_sub(1);
        }
        self.active == 0
    }

    /// A write arrived that there is no disk for: it counts in its epoch, and is done. Afterwards
    /// ask [`Self::next_ack`] until it has none.
    pub fn write_refused(&mut self) {
        let epoch = self.write_received();
        self.last_refused = Some(epoch.0);
        self.write_done(epoch);
    }

    /// The epoch of the last write that was refused on this connection.
    ///
    /// The peer learns on the meta socket what was refused, and on the other one that there is a
    /// disk again. A C driver marks such blocks when it hears the ack of their epoch, and sends its
    /// bitmap when it hears of the disk: what it marks later is in nobody's bitmap. So a disk is
    /// announced when this epoch [is acked](Self::is_acked) and a ping that was sent after the ack
    /// is answered; what is refused later is marked here.
    pub fn last_refused(&self) -> Option<EpochRef> {
        self.last_refused.map(EpochRef)
    }

    /// Whether an epoch's ack was told, or the connection its writes came by is gone.
    pub fn is_acked(&self, epoch: EpochRef) -> bool {
        !self.is_open(epoch.0)
    }

    /// A barrier arrived. Afterwards ask [`Self::next_ack`] until it has none.
    ///
    /// Without a free slot for another epoch the receiver has to drain, whatever the method. A
    /// barrier after nothing is ignored, as the C driver does.
    pub fn barrier(
        &mut self,
        cookie: [u8; 4],
        ordering: WriteOrdering,
    ) -> Result<BarrierStep, OutOfTurn> {
        let has_room = self.open() < self.capacity();
        let Some(epoch) = self.slot(self.current) else {
            return Ok(BarrierStep::GoOn);
        };
        if epoch.has_barrier {
            return Err(OutOfTurn);
        }
        if epoch.writes == 0 {
            return Ok(BarrierStep::GoOn);
        }
        epoch.cookie = cookie;
        epoch.has_barrier = true;
        match ordering {
            WriteOrdering::None if has_room => {
                self.open_next();
                Ok(BarrierStep::GoOn)
            }
            WriteOrdering::None | WriteOrdering::Drain => Ok(BarrierStep::Drain),
            WriteOrdering::Flush => {
                epoch.must_settle = true;
                Ok(BarrierStep::DrainAndFlush)
            }
        }
    }

    /// The wait that [`Self::barrier`] asked for is over, the flushes too. Afterwards ask
    /// [`Self::next_ack`] until it has none, then go on.
    ///
    /// Returns whether the next epoch is open: a write may come before the ack is asked for. Where
    /// it is not only the ack makes room, and a write before it would join the epoch that ended.
    #[must_use]
    pub fn settled(&mut self) -> bool {
        if let Some(epoch) = self.slot(self.current) {
            epoch.must_settle = false;
        }
        let has_barrier = self
            .slot(self.current)
            .is_some_and(|epoch| epoch.has_barrier);
        let has_room = self.open() < self.capacity();
        if has_barrier && has_room {
            self.open_next();
        }
        !has_barrier || has_room
    }

    /// Whether [`Self::next_ack`] has one.
    pub fn is_ack_due(&mut self) -> bool {
        self.slot(self.oldest)
            .is_some_and(|epoch| epoch.is_finished())
    }

    /// The next barrier ack to send, in the order of the epochs; each is told once.
    pub fn next_ack(&mut self) -> Option<BarrierAck> {
        let epoch = *self.slot(self.oldest)?;
        if !epoch.is_finished() {
            return None;
        }
        if self.oldest == self.current {
            self.open_next();
        }
        self.oldest = self.oldest.wrapping_add(1);
        Some(BarrierAck {
            cookie: epoch.cookie,
            set_size: epoch.writes,
        })
    }

    /// The connection is gone: forgets all epochs. Writes that are still in progress report to
    /// nobody.
    pub fn reset(&mut self) {
        self.current = self.current.wrapping_add(1);
        self.oldest = self.current;
        self.active = 0;
        self.last_refused = None;
        if let Some(epoch) = self.slot(self.current) {
            *epoch = Epoch::default();
        }
    }

    /// Whether to flush now: the current epoch looks complete, although its barrier is not here
    /// yet. All of its writes are done, and they are as many as those of the epoch before.
    ///
    /// A flush that begins now is likely over when the barrier comes. It is a guess, one for each
    /// epoch: what the barrier promises is not founded upon it.
    pub fn may_flush_early(&mut self) -> bool {
        let (is_idle, last_writes) = (self.active == 0, self.last_writes);
        let Some(epoch) = self.slot(self.current) else {
            return false;
        };
        let looks_complete = is_idle && epoch.writes > 0 && epoch.writes >= last_writes;
        let flushes = looks_complete && !epoch.has_barrier && !epoch.was_guessed;
        epoch.was_guessed |= flushes;
        flushes
    }

    /// Writes of all epochs that are not done.
    pub const fn active(&self) -> u32 {
        self.active
    }

    /// The number of open epochs (`ep:` in `/proc/drbd`).
    pub const fn open(&self) -> u64 {
        self.current.wrapping_sub(self.oldest).saturating_add(1)
    }

    fn capacity(&self) -> u64 {
        // Lossless: no `usize` has more than 64 bits.
        self.slots.len() as u64
    }

    fn is_open(&self, number: u64) -> bool {
        number.wrapping_sub(self.oldest) < self.open()
    }

    fn open_next(&mut self) {
        self.last_writes = self.slot(self.current).map_or(0, |epoch| epoch.writes);
        self.current = self.current.wrapping_add(1);
        if let Some(epoch) = self.slot(self.current) {
            *epoch = Epoch::default();
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Epoch> {
        let index = number.checked_rem(self.capacity())?;
        // Lossless: it is less than a slice's length.
        self.slots.get_mut(index as usize)
    }
}

#[cfg(test)]
mod tests;
