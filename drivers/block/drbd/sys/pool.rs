// SPDX-License-Identifier: GPL-2.0

//! Memory with a reserve: allocations that never fail, because some are always kept back.
//!
//! C header: [`include/linux/mempool.h`](srctree/include/linux/mempool.h)

use core::{
    mem::{
        align_of,
        size_of, //
    },
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        Arc,
        Refcount, //
    },
    types::Opaque, //
};

/// A `mempool_t` of equally large elements.
#[pin_data(PinnedDrop)]
pub(crate) struct Mempool {
    #[pin]
    pool: Opaque<bindings::mempool_t>,
}

// SAFETY: A mempool is made for concurrent use.
unsafe impl Send for Mempool {}
// SAFETY: As above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// A pool of single pages.
    pub(crate) fn pages(reserve: u32) -> impl PinInit<Self, Error> {
        let order = ptr::null_mut();
        Self::new(
            reserve,
            Some(bindings::mempool_alloc_pages),
            Some(bindings::mempool_free_pages),
            order,
        )
    }

    /// A pool of `size` bytes of `kmalloc` memory an element.
    pub(crate) fn bytes(reserve: u32, size: usize) -> impl PinInit<Self, Error> {
        Self::new(
            reserve,
            Some(bindings::mempool_kmalloc),
            Some(bindings::mempool_kfree),
            ptr::without_provenance_mut(size),
        )
    }

    fn new(
        reserve: u32,
        alloc: bindings::mempool_alloc_t,
        free: bindings::mempool_free_t,
        data: *mut c_void,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pool <- Opaque::try_ffi_init(move |pool: *mut bindings::mempool_t| {
                // SAFETY: `pool` is valid for writes. `mempool_init_node` takes the number of
                // elements that are there already from the structure.
                unsafe { pool.write_bytes(0, 1) };
                // SAFETY: `pool` is zeroed and stays in place, being pinned; the functions and
                // their data belong together.
                to_result(unsafe {
                    bindings::mempool_init_node(
                        pool,
                        reserve.try_into()?,
                        alloc,
                        free,
                        data,
                        raw::DRBD_CONST_GFP_KERNEL,
                        bindings::NUMA_NO_NODE,
                    )
                })
            }),
        })
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::mempool_t {
        self.pool.get()
    }

    /// Whether the reserve is whole: nobody waits for it. Context: any.
    pub(crate) fn is_full(&self) -> bool {
        // SAFETY: The pool is initialised.
        unsafe { raw::drbd_shim_mempool_full(self.pool.get()) }
    }

    /// Takes an element, waiting for one to come back if memory is short. Context: may sleep.
    pub(crate) fn take(&self) -> NonNull<c_void> {
        // SAFETY: The pool is initialised. With direct reclaim allowed in the mask the call does
        // not return null.
        unsafe {
            NonNull::new_unchecked(bindings::mempool_alloc_noprof(
                self.pool.get(),
                raw::DRBD_CONST_GFP_NOIO,
            ))
        }
    }

    /// Takes an element if there is one. Context: any.
    pub(crate) fn try_take(&self) -> Option<NonNull<c_void>> {
        // SAFETY: The pool is initialised.
        NonNull::new(unsafe {
            bindings::mempool_alloc_noprof(self.pool.get(), raw::DRBD_CONST_GFP_ATOMIC)
        })
    }

    /// Gives an element back. Context: any.
    ///
    /// # Safety
    ///
    /// `element` must come from this pool and not be used any more.
    pub(crate) unsafe fn give_back(&self, element: NonNull<c_void>) {
        // SAFETY: By the requirement of this function.
        unsafe { bindings::mempool_free(element.as_ptr(), self.pool.get()) }
    }
}

#[pinned_drop]
impl PinnedDrop for Mempool {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised by `new`; every element in use holds a reference to what contains
        // the pool, so all are back.
        unsafe { bindings::mempool_exit(self.pool.get()) }
    }
}

/// A pool of objects of type `T`, handed out as [`Pooled`].
///
/// Dropping it leaves the objects in use alive; the memory of the pool goes with the last.
pub struct ObjectPool<T>(Arc<ObjectPoolInner<T>>);

#[pin_data]
struct ObjectPoolInner<T> {
    #[pin]
    mempool: Mempool,
    _type: core::marker::PhantomData<fn() -> T>,
}

#[repr(C)]
struct Object<T> {
    references: Refcount,
    pool: Arc<ObjectPoolInner<T>>,
    value: T,
}

/// A shared reference to an object from an [`ObjectPool`], counted like an `Arc`.
///
/// Cloning and dropping are allowed in any context, if dropping a `T` is.
///
/// # Invariants
///
/// The pointer is to a live object, of whose references this is one.
pub struct Pooled<T>(NonNull<Object<T>>);

// SAFETY: As for `Arc`.
unsafe impl<T: Send + Sync> Send for Pooled<T> {}
// SAFETY: As for `Arc`.
unsafe impl<T: Send + Sync> Sync for Pooled<T> {}

impl<T> ObjectPool<T> {
    /// Creates a pool that always keeps `reserve` objects.
    ///
    /// Errors: `ENOMEM`. Context: may sleep.
    pub fn new(reserve: u32) -> Result<Self> {
        const {
            assert!(align_of::<Object<T>>() <= 8, "kmalloc aligns to 8");
        }
        Ok(Self(Arc::pin_init(
            try_pin_init!(ObjectPoolInner {
                mempool <- Mempool::bytes(reserve, size_of::<Object<T>>()),
                _type: core::marker::PhantomData,
            }),
            GFP_KERNEL,
        )?))
    }

    /// Moves `value` into the pool, waiting for an object to come back if memory is short.
    ///
    /// A caller that already holds objects of the pool may wait for itself; take one at a time.
    /// Context: may sleep.
    pub fn insert(&self, value: T) -> Pooled<T> {
        self.init(self.0.mempool.take(), value)
    }

    /// Moves `value` into the pool if there is memory, else gives it back. Context: any.
    pub fn try_insert(&self, value: T) -> Result<Pooled<T>, T> {
        match self.0.mempool.try_take() {
            Some(memory) => Ok(self.init(memory, value)),
            None => Err(value),
        }
    }

    fn init(&self, memory: NonNull<c_void>, value: T) -> Pooled<T> {
        let object = memory.cast::<Object<T>>();
        // SAFETY: The element is `size_of::<Object<T>>()` bytes, aligned by kmalloc, and ours.
        unsafe {
            object.write(Object {
                references: Refcount::new(1),
                pool: self.0.clone(),
                value,
            });
        }
        // INVARIANT: Just made, with one reference.
        Pooled(object)
    }
}

impl<T> Pooled<T> {
    /// The object itself if this is the only reference to it.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: Alive by the type invariant.
        if unsafe { self.0.as_ref() }
            .references
            .as_atomic()
            .load(kernel::sync::atomic::ordering::Acquire)
            != 1
        {
            return None;
        }
        // SAFETY: We hold the only reference, exclusively borrowed.
        Some(unsafe { &mut self.0.as_mut().value })
    }

    /// Whether both refer to the same object.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Alive by the type invariant.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Clone for Pooled<T> {
    fn clone(&self) -> Self {
        // SAFETY: Alive by the type invariant.
        unsafe { self.0.as_ref() }.references.inc();
        // INVARIANT: The reference was just counted.
        Self(self.0)
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        // SAFETY: Alive by the type invariant.
        if !unsafe { self.0.as_ref() }.references.dec_and_test() {
            return;
        }
        // SAFETY: This was the last reference. The pool is moved out, so that it outlives giving
        // the element back.
        unsafe {
            let object = self.0.as_ptr();
            let pool = (&raw const (*object).pool).read();
            ptr::drop_in_place(&raw mut (*object).value);
            pool.mempool.give_back(self.0.cast());
        }
    }
}
