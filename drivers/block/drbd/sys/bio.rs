// SPDX-License-Identifier: GPL-2.0

//! Bios: the application's, our clones of them, and our own over page buffers.
//!
//! A bio in flight is owned by its completion token: [`Completion::complete`] gets the token back
//! exactly once, in interrupt context, whatever happened to the I/O. The token lies in front of
//! the bio in the same allocation, so submitting allocates nothing but the bio, which comes from a
//! reserve.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use core::{
    mem::size_of,
    ops::BitOr,
    ptr, //
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic, //
        },
        Arc,
        Completion as Event, //
    },
    types::Opaque, //
};

mod erase;
mod flight;
mod master;

pub use erase::ZERO_PAGES_SECTORS_MAX;
pub use flight::{
    BufferCompletion,
    ClonedBio,
    Completion,
    MasterCompletion,
    TOKEN_BYTES_MAX, //
};
pub use master::{
    MasterBio,
    MasterHold, //
};

/// The reserve that all our bios come from.
///
/// Made once when the module loads and dropped when it unloads: dropping it waits until every
/// [`BlockDevice`] opened with it is gone, and with them every bio.
pub struct BioSet(Arc<BioSetInner>);

#[pin_data]
pub(crate) struct BioSetInner {
    #[pin]
    set: Opaque<bindings::bio_set>,
    /// What is written where a device cannot zero by itself.
    zeroes: erase::Zeroes,
    /// Open devices, and one for the [`BioSet`] itself.
    users: Atomic<usize>,
    #[pin]
    unused: Event,
}

// SAFETY: The bio set is made for concurrent use; the other fields are `Send` themselves.
unsafe impl Send for BioSetInner {}
// SAFETY: As above.
unsafe impl Sync for BioSetInner {}

impl BioSet {
    /// Creates the set with `reserve` bios that are available even when memory is short.
    ///
    /// Errors: `ENOMEM`. Context: may sleep.
    pub fn new(reserve: u32) -> Result<Self> {
        let zeroes = erase::Zeroes::new()?;
        let inner = Arc::pin_init(
            try_pin_init!(BioSetInner {
                set <- Opaque::try_ffi_init(|set: *mut bindings::bio_set| {
                    // SAFETY: `set` is valid for writes; an all-zero `bio_set` is what
                    // `bioset_init` expects.
                    unsafe { ptr::write_bytes(set, 0, 1) };
                    let flags = bindings::BIOSET_NEED_RESCUER | bindings::BIOSET_PERCPU_CACHE;
                    // SAFETY: `set` is zeroed and stays in place, being pinned.
                    to_result(unsafe {
                        bindings::bioset_init(
                            set,
                            reserve,
                            size_of::<flight::Pad>().try_into()?,
                            flags.try_into()?,
                        )
                    })
                }),
                zeroes,
                users: Atomic::new(1),
                unused <- Event::new(),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(inner))
    }

    pub(crate) fn register_user(&self) -> Arc<BioSetInner> {
        self.0.users.add(1usize, Relaxed);
        self.0.clone()
    }
}

impl BioSetInner {
    /// Ends the use that [`BioSet::register_user`] began. Context: any.
    pub(crate) fn unregister_user(&self) {
        if self.users.fetch_sub(1usize, Full) == 1 {
            self.unused.complete_all();
        }
    }
}

impl Drop for BioSet {
    fn drop(&mut self) {
        self.0.unregister_user();
        self.0.unused.wait_for_completion();
        // SAFETY: The set was initialised in `new`, is exited only here, and the last user is
        // gone, with it the last bio.
        unsafe { bindings::bioset_exit(self.0.set.get()) };
    }
}

/// What a bio asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Write back the volatile cache; carries no data.
    Flush,
    /// Discard; the content becomes unspecified.
    Discard,
    /// Write zeroes.
    WriteZeroes,
    /// Something that no disk of ours announces; to be refused.
    Other,
}

/// Modifiers of a bio (`REQ_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// No modifier.
    pub const NONE: Self = Self(0);
    /// Somebody waits for it.
    pub const SYNC: Self = Self(raw::DRBD_CONST_REQ_SYNC);
    /// Metadata.
    pub const META: Self = Self(raw::DRBD_CONST_REQ_META);
    /// Boost priority.
    pub const PRIO: Self = Self(raw::DRBD_CONST_REQ_PRIO);
    /// More I/O follows soon.
    pub const IDLE: Self = Self(raw::DRBD_CONST_REQ_IDLE);
    /// On stable storage before it completes.
    pub const FUA: Self = Self(raw::DRBD_CONST_REQ_FUA);
    /// Flush the volatile cache before it is executed.
    pub const PREFLUSH: Self = Self(raw::DRBD_CONST_REQ_PREFLUSH);
    /// Read ahead; may fail at will.
    pub const RAHEAD: Self = Self(raw::DRBD_CONST_REQ_RAHEAD);
    /// Background I/O, throttled behind others.
    pub const BACKGROUND: Self = Self(raw::DRBD_CONST_REQ_BACKGROUND);
    /// Write zeroes without releasing the blocks.
    pub const NOUNMAP: Self = Self(raw::DRBD_CONST_REQ_NOUNMAP);
    /// Do not wait for resources.
    pub const NOWAIT: Self = Self(raw::DRBD_CONST_REQ_NOWAIT);

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same without those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Runs `work` with the block layer's plug held, so that bios submitted in it can be merged.
///
/// Sleeping inside releases the plug early. Context: may sleep.
pub fn plugged<R>(work: impl FnOnce() -> R) -> R {
    let plug = Opaque::<bindings::blk_plug>::uninit();
    // SAFETY: `plug` stays in place on this stack until `blk_finish_plug`; unwinding does not exist
    // in the kernel.
    unsafe { bindings::blk_start_plug(plug.get()) };
    let result = work();
    // SAFETY: Started above by the same task.
    unsafe { bindings::blk_finish_plug(plug.get()) };
    result
}

/// Whether the caller runs inside a disk's `submit`: bios submitted now start only after it
/// returned, so waiting for one would never end.
pub fn inside_submit() -> bool {
    // SAFETY: Only reads a field of the current task.
    unsafe { raw::drbd_shim_inside_submit() }
}
