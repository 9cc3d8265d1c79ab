// SPDX-License-Identifier: GPL-2.0

//! Pages that a pool keeps for its next buffers.
//!
//! The kernel may zero each page that it hands out, which costs as much as all else that is done
//! for a small request. What came with the peer's data before is overwritten whole, so that pages
//! of a former buffer serve as well.

use drbd_bindings as raw;
use kernel::{
    bindings,
    new_spinlock_irq,
    prelude::*,
    sync::SpinLockIrq, //
};

/// Pages that are kept of each order; 1 MiB of single ones and less than 4.5 MiB in all.
const KEPT_MAX: [usize; 6] = [256, 16, 16, 16, 8, 16];

/// Pages of some order.
///
/// # Invariants
///
/// Each page is of the shelf's order and has one reference, which is ours.
struct Shelf(KVec<*mut bindings::page>);

/// Spare pages of each order.
#[pin_data(PinnedDrop)]
pub(super) struct Spares {
    #[pin]
    shelves: SpinLockIrq<[Shelf; KEPT_MAX.len()]>,
}

// SAFETY: The pages are ours alone, and the lock protects the lists.
unsafe impl Send for Spares {}
// SAFETY: As above.
unsafe impl Sync for Spares {}

impl Spares {
    /// Keeps none yet. May sleep.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            // INVARIANT: No pages.
            let shelf = |order: usize| -> Result<Shelf> {
                let places = KEPT_MAX.get(order).copied().unwrap_or(0);
                Ok(Shelf(KVec::with_capacity(places, GFP_KERNEL)?))
            };
            let shelves = [
                shelf(0)?,
                shelf(1)?,
                shelf(2)?,
                shelf(3)?,
                shelf(4)?,
                shelf(5)?,
            ];
            Ok(try_pin_init!(Self {
                shelves <- new_spinlock_irq!(shelves, "drbd_spare_pages"),
            }))
        })
    }

    /// Takes a page with arbitrary content and the only reference to it. Any context.
    pub(super) fn take(&self, order: u32) -> Option<*mut bindings::page> {
        let order = usize::try_from(order).ok()?;
        self.shelves.lock().get_mut(order)?.0.pop()
    }

    /// Keeps a page, if nobody else refers to it and there is room. Any context.
    ///
    /// # Safety
    ///
    /// `page` is a page of [`super::buffer`], and the caller gives up a reference to it where this
    /// answers with `true`.
    pub(super) unsafe fn keep(&self, page: *mut bindings::page) -> bool {
        // SAFETY: By the requirement.
        let order = unsafe { raw::drbd_shim_page_sole_order(page) };
        let Ok(order) = usize::try_from(order) else {
            return false;
        };
        let mut shelves = self.shelves.lock();
        let room = KEPT_MAX.get(order).copied().unwrap_or(0);
        // INVARIANT: The order was just asked for, and the reference is the only one.
        shelves
            .get_mut(order)
            .is_some_and(|shelf| shelf.0.len() < room && shelf.0.push_within_capacity(page).is_ok())
    }

    /// Gives all pages back to the kernel. Any context.
    pub(super) fn clear(&self) {
        for order in 0..u32::try_from(KEPT_MAX.len()).unwrap_or(0) {
            while let Some(page) = self.take(order) {
                // SAFETY: By the type invariant.
                unsafe { raw::drbd_shim_page_put(page) };
            }
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Spares {
    fn drop(self: Pin<&mut Self>) {
        self.clear();
    }
}
