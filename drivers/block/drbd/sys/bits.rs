// SPDX-License-Identifier: GPL-2.0

//! Words of bits that several contexts change at once.
//!
//! The kernel crate's `Atomic` has no `fetch_or` and no conditional update. These words add them
//! as loops of compare-exchange, so that a pure function on a plain word can decide a transition.

use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Release, //
};

macro_rules! atomic_word {
    ($(#[$doc:meta])* $name:ident, $word:ty) => {
        $(#[$doc])*
        pub struct $name(Atomic<$word>);

        impl $name {
            /// A word that starts as `value`.
            #[inline]
            pub const fn new(value: $word) -> Self {
                Self(Atomic::new(value))
            }

            /// The word now; what was written before it was stored is visible. Any context.
            #[inline]
            pub fn load(&self) -> $word {
                self.0.load(Acquire)
            }

            /// Replaces the word; what was written before is visible to who loads it. Any context.
            #[inline]
            pub fn store(&self, value: $word) {
                self.0.store(value, Release);
            }

            /// Replaces the word by `change(old)` and returns `(old, new)`. Any context.
            ///
            /// `change` may be called several times and must have no effect but its result. What it
            /// looks at beside its argument is at least as new. Fully ordered, also where the word
            /// stays the same.
            #[inline]
            pub fn update(&self, mut change: impl FnMut($word) -> $word) -> ($word, $word) {
                let mut old = self.0.load(Acquire);
                loop {
                    let new = change(old);
                    match self.0.cmpxchg(old, new, Full) {
                        Ok(_) => return (old, new),
                        // An exchange that failed orders nothing.
                        Err(_) => old = self.0.load(Acquire),
                    }
                }
            }

            /// Like [`Self::update`], but leaves the word alone where `change` refuses. Any
            /// context.
            ///
            /// # Errors
            ///
            /// The word that was refused.
            #[inline]
            pub fn try_update(
                &self,
                mut change: impl FnMut($word) -> Option<$word>,
            ) -> Result<($word, $word), $word> {
                let mut old = self.0.load(Acquire);
                while let Some(new) = change(old) {
                    match self.0.cmpxchg(old, new, Full) {
                        Ok(_) => return Ok((old, new)),
                        Err(_) => old = self.0.load(Acquire),
                    }
                }
                Err(old)
            }

            /// Sets the bits of `mask` and returns the word before. Any context.
            #[inline]
            pub fn set(&self, mask: $word) -> $word {
                self.update(|old| old | mask).0
            }

            /// Clears the bits of `mask` and returns the word before. Any context.
            #[inline]
            pub fn clear(&self, mask: $word) -> $word {
                self.update(|old| old & !mask).0
            }

            /// Whether any bit of `mask` is set. Any context.
            #[inline]
            pub fn any(&self, mask: $word) -> bool {
                self.load() & mask != 0
            }
        }
    };
}

atomic_word!(
    /// 32 bits shared between contexts.
    AtomicBits32,
    u32
);

atomic_word!(
    /// 64 bits shared between contexts.
    AtomicBits64,
    u64
);
