// SPDX-License-Identifier: GPL-2.0

//! A bounded first-in first-out queue between contexts.
//!
//! Completions run in interrupt context, where nothing may be allocated: the ring is allocated
//! once, and its capacity is chosen so that the objects that can be in it at a time all fit. A push
//! beyond that hands the value back, and the caller says what that means.

use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::SpinLockIrq, //
};

struct Ring<T> {
    slots: KVVec<Option<T>>,
    head: usize,
    len: usize,
}

/// A bounded queue. Push and pop from any context; O(1), no allocation after creation.
#[pin_data]
pub(crate) struct Fifo<T> {
    #[pin]
    ring: SpinLockIrq<Ring<T>>,
}

impl<T> Fifo<T> {
    /// Makes a queue for `capacity` values. May sleep.
    pub(crate) fn new(capacity: usize) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut slots = KVVec::with_capacity(capacity, GFP_KERNEL)?;
            for _ in 0..capacity {
                slots.push(None, GFP_KERNEL)?;
            }
            let ring = Ring {
                slots,
                head: 0,
                len: 0,
            };
            Ok(try_pin_init!(Self {
                ring <- new_spinlock_irq!(ring, "drbd_fifo"),
            }))
        })
    }

    /// Appends `value`, or hands it back where the queue is full. Any context.
    ///
    /// Returns whether the queue was empty: whoever takes values until there are none need not be
    /// woken otherwise.
    pub(crate) fn push(&self, value: T) -> Result<bool, T> {
        let mut ring = self.ring.lock();
        let capacity = ring.slots.len();
        if ring.len >= capacity {
            return Err(value);
        }
        let mut at = ring.head.wrapping_add(ring.len);
        if at >= capacity {
            at = at.wrapping_sub(capacity);
        }
        match ring.slots.get_mut(at) {
            Some(slot) => *slot = Some(value),
            None => return Err(value),
        }
        let was_empty = ring.len == 0;
        ring.len = ring.len.wrapping_add(1);
        Ok(was_empty)
    }

    /// Takes the oldest value. Any context.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut ring = self.ring.lock();
        if ring.len == 0 {
            return None;
        }
        let head = ring.head;
        let value = ring.slots.get_mut(head)?.take();
        let next = head.wrapping_add(1);
        ring.head = if next >= ring.slots.len() { 0 } else { next };
        ring.len = ring.len.wrapping_sub(1);
        value
    }

    /// How many values are queued at this moment. Any context.
    pub(crate) fn len(&self) -> usize {
        self.ring.lock().len
    }

    /// Whether nothing is queued at this moment. Any context.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.lock().len == 0
    }
}
