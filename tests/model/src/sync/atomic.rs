// SPDX-License-Identifier: GPL-2.0

//! `kernel::sync::atomic` over loom.

use std::sync::OnceLock;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is loaded happened before.
pub struct Acquire;
/// What happened before is visible to who loads it.
pub struct Release;
/// Both, and in one order for all.
pub struct Full;

/// An ordering of loads.
pub trait OfLoad {
    /// Loom's name of it.
    const ORDERING: Ordering;
}

/// An ordering of stores.
pub trait OfStore {
    /// Loom's name of it.
    const ORDERING: Ordering;
}

impl OfLoad for Acquire {
    const ORDERING: Ordering = Ordering::Acquire;
}

impl OfStore for Release {
    const ORDERING: Ordering = Ordering::Release;
}

/// A number with an atomic of loom.
pub trait Number: Copy {
    /// That.
    type Atomic;
    /// Makes one.
    fn atomic(self) -> Self::Atomic;
    /// Loads it.
    fn load(atomic: &Self::Atomic, ordering: Ordering) -> Self;
    /// Stores to it.
    fn store(atomic: &Self::Atomic, value: Self, ordering: Ordering);
    /// Stores `new` where it holds `old`, else tells what it holds, in no order.
    fn exchange(atomic: &Self::Atomic, old: Self, new: Self) -> Result<Self, Self>;
}

macro_rules! number {
    ($number:ty, $atomic:ty) => {
        impl Number for $number {
            type Atomic = $atomic;

            fn atomic(self) -> $atomic {
                <$atomic>::new(self)
            }

            fn load(atomic: &$atomic, ordering: Ordering) -> Self {
                atomic.load(ordering)
            }

            fn store(atomic: &$atomic, value: Self, ordering: Ordering) {
                atomic.store(value, ordering);
            }

            fn exchange(atomic: &$atomic, old: Self, new: Self) -> Result<Self, Self> {
                atomic.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
            }
        }
    };
}

number!(u32, AtomicU32);
number!(u64, AtomicU64);

/// An atomic number. It is made at its first use, which must be before other threads know it.
pub struct Atomic<T: Number> {
    initial: T,
    atomic: OnceLock<T::Atomic>,
}

impl<T: Number> Atomic<T> {
    /// One that starts as `initial`.
    pub const fn new(initial: T) -> Self {
        Self {
            initial,
            atomic: OnceLock::new(),
        }
    }

    /// The number now.
    pub fn load<O: OfLoad>(&self, _: O) -> T {
        T::load(self.made(), O::ORDERING)
    }

    /// Replaces it.
    pub fn store<O: OfStore>(&self, value: T, _: O) {
        T::store(self.made(), value, O::ORDERING);
    }

    /// Replaces it where it is `old`; the number before.
    ///
    /// # Errors
    ///
    /// What it is instead.
    pub fn cmpxchg(&self, old: T, new: T, _: Full) -> Result<T, T> {
        T::exchange(self.made(), old, new)
    }

    fn made(&self) -> &T::Atomic {
        self.atomic.get_or_init(|| self.initial.atomic())
    }
}
