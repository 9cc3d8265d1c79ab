// SPDX-License-Identifier: GPL-2.0

//! Slots of the activity log and the lists they are on, linked by slot numbers inside the lent
//! storage.
//!
//! Every accessor is total: a slot number outside the storage reads as a free slot and writes
//! nowhere.

use super::block::FREE;

/// No slot.
pub(super) const NONE: u16 = u16::MAX;

/// Where a slot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// On the free list: it holds no extent.
    #[default]
    Free,
    /// On the idle list: its extent is hot, nobody uses it.
    Idle,
    /// On no list: its extent is hot and in use.
    Used,
    /// On the pending list: it is to hold another extent from the next transaction on.
    Pending,
}

/// One slot of the activity log. The storage to lend is a slice of them; their content before does
/// not matter.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The extent that the slot holds on disk, or `FREE`.
    pub(super) extent: u32,
    /// The extent to find the slot by: the new one while the change is pending.
    pub(super) label: u32,
    /// Requests that use the extent.
    pub(super) references: u32,
    /// How many flushes had begun when the extent became idle: a later one makes what was written
    /// to it stable.
    pub(super) idle_since: u64,
    pub(super) previous: u16,
    pub(super) next: u16,
    /// The next slot in this one's hash chain.
    pub(super) chain: u16,
    /// The first slot of the hash chain with this slot's number: the hash table has as many chains
    /// as there are slots.
    pub(super) bucket: u16,
    pub(super) place: Place,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            extent: FREE,
            label: FREE,
            references: 0,
            idle_since: 0,
            previous: NONE,
            next: NONE,
            chain: NONE,
            bucket: NONE,
            place: Place::Free,
        }
    }
}

/// A list of slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u16,
    tail: u16,
    len: u16,
}

pub(super) fn get(slots: &[Slot], number: u16) -> Slot {
    slots.get(usize::from(number)).copied().unwrap_or_default()
}

pub(super) fn update(slots: &mut [Slot], number: u16, change: impl FnOnce(&mut Slot)) {
    if let Some(slot) = slots.get_mut(usize::from(number)) {
        change(slot);
    }
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        len: 0,
    };

    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    pub(super) const fn head(&self) -> Option<u16> {
        match self.head {
            NONE => None,
            head => Some(head),
        }
    }

    /// Puts a slot that is on no list to the end of this one.
    pub(super) fn push(&mut self, slots: &mut [Slot], number: u16) {
        let tail = self.tail;
        update(slots, number, |slot| {
            slot.previous = tail;
            slot.next = NONE;
        });
        match tail {
            NONE => self.head = number,
            _ => update(slots, tail, |slot| slot.next = number),
        }
        self.tail = number;
        self.len = self.len.saturating_add(1);
    }

    /// Takes a slot off this list, which it must be on.
    pub(super) fn remove(&mut self, slots: &mut [Slot], number: u16) {
        let Slot { previous, next, .. } = get(slots, number);
        match previous {
            NONE => self.head = next,
            _ => update(slots, previous, |slot| slot.next = next),
        }
        match next {
            NONE => self.tail = previous,
            _ => update(slots, next, |slot| slot.previous = previous),
        }
        self.len = self.len.saturating_sub(1);
    }

    /// The slots of this list in order.
    pub(super) fn iter<'a>(&self, slots: &'a [Slot]) -> impl Iterator<Item = (u16, Slot)> + 'a {
        let mut number = self.head;
        (0..self.len).map_while(move |_| {
            let current = number;
            let slot = slots.get(usize::from(current))?;
            number = slot.next;
            Some((current, *slot))
        })
    }
}
