// SPDX-License-Identifier: GPL-2.0

//! Bios of ours in flight to a backing device, owned by their completion tokens.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::{
    Flags,
    MasterBio,
    MasterHold,
    Operation, //
};
use crate::{
    bdev::BlockDevice,
    page::Buffer,
    sync_io::{
        SlotToken,
        META_PAGE_BYTES, //
    },
};
use core::{
    mem::{
        align_of,
        size_of,
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::{
        self,
        NonNull, //
    },
};
use drbd_bindings as raw;
use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// The largest token that fits in front of a bio, in bytes.
pub const TOKEN_BYTES_MAX: usize = 48;

/// What is called when an I/O has ended. The value is the I/O's private state.
///
/// Implementations are small values such as a reference and an index; at most
/// [`TOKEN_BYTES_MAX`] bytes (checked at compile time), 8 less for [`BufferCompletion`].
pub trait Completion: Send + Sized + 'static {
    /// Takes the token back with the result of the I/O.
    ///
    /// Context: usually hard or soft interrupt; must not sleep. It may also be called by the
    /// submitting function itself, before that returns.
    fn complete(self, result: Result);
}

/// Like [`Completion`], for an I/O that owns a [`Buffer`].
pub trait BufferCompletion: Send + Sized + 'static {
    /// Takes token and buffer back with the result of the I/O.
    ///
    /// Context: as for [`Completion::complete`].
    fn complete(self, buffer: Buffer, result: Result);
}

/// Like [`Completion`], for an I/O that owns the application's bio it is a clone of.
pub trait MasterCompletion: Send + Sized + 'static {
    /// Takes token and application's bio back with the result of the I/O.
    ///
    /// Context: as for [`Completion::complete`].
    fn complete(self, master: MasterBio, result: Result);
}

/// The token of such an I/O: the application's bio travels with it.
struct WithMaster<C> {
    master: MasterBio,
    token: C,
}

impl<C: MasterCompletion> Completion for WithMaster<C> {
    fn complete(self, result: Result) {
        self.token.complete(self.master, result);
    }
}

/// The token of a buffer I/O: the buffer travels with it.
struct WithBuffer<C> {
    buffer: Buffer,
    token: C,
}

impl<C: BufferCompletion> Completion for WithBuffer<C> {
    fn complete(self, result: Result) {
        self.token.complete(self.buffer, result);
    }
}

/// What stands in front of each of our bios.
#[repr(C, align(8))]
pub(super) struct Pad {
    token: MaybeUninit<[u8; TOKEN_BYTES_MAX]>,
    device: MaybeUninit<BlockDevice>,
    /// Keeps the pages and the vector that a clone borrows.
    master: MaybeUninit<Option<MasterHold>>,
}

/// Submitting I/O to a backing device. None of these may be called in atomic context; all use
/// the reserve and never fail for lack of memory.
impl BlockDevice {
    /// Makes a bio that does to this device what the application's bio asks for, with all its
    /// modifiers and at the same sector.
    ///
    /// In two steps, so that the master can move to where the completion finds it in between.
    /// Errors: `ENOMEM`, only for bios with inline encryption or integrity.
    pub fn clone_bio(&self, master: &MasterBio) -> Result<ClonedBio> {
        let bio = self.clone_of(master)?;
        // INVARIANT: As required; the hold keeps the vector until the clone has ended.
        Ok(ClonedBio {
            bio,
            device: self.clone(),
            master: master.hold(),
        })
    }

    /// Makes such a clone and submits it at once; the application's bio is the I/O's until it has
    /// ended. An error of making the clone goes to the token.
    pub fn submit_owned<C: MasterCompletion>(&self, master: MasterBio, token: C) {
        match self.clone_of(&master) {
            // SAFETY: `bio` is fresh from our set; its vector is that of the master, which the
            // token owns, and ends after the clone.
            Ok(bio) => unsafe { self.start(bio, None, WithMaster { master, token }) },
            Err(error) => token.complete(master, Err(error)),
        }
    }

    /// A clone that is ours alone and borrows the master's vector.
    fn clone_of(&self, master: &MasterBio) -> Result<NonNull<bindings::bio>> {
        let set = self.bio_set().set.get();
        // SAFETY: Device, master and set are alive; the caller keeps the master until the clone has
        // ended.
        let clone = unsafe {
            bindings::bio_alloc_clone(
                self.as_ptr(),
                master.as_ptr(),
                raw::DRBD_CONST_GFP_NOIO,
                set,
            )
        };
        let bio = NonNull::new(clone).ok_or(ENOMEM)?;
        // SAFETY: The clone is ours alone.
        unsafe { (*bio.as_ptr()).bi_opf &= !raw::DRBD_CONST_REQ_POLLED };
        Ok(bio)
    }

    /// Reads into or writes from a whole buffer at `sector`.
    ///
    /// `operation` must be `Read` or `Write`, or the token comes back with `EINVAL`.
    pub fn submit_buffer<C: BufferCompletion>(
        &self,
        operation: Operation,
        flags: Flags,
        sector: u64,
        buffer: Buffer,
        token: C,
    ) {
        let op = match operation {
            Operation::Read => bindings::req_op_REQ_OP_READ,
            Operation::Write => bindings::req_op_REQ_OP_WRITE,
            _ => return token.complete(buffer, Err(EINVAL)),
        };
        let bio = self.alloc(op, flags, sector, buffer.len_bytes());
        let (table, _) = buffer.table();
        // SAFETY: `bio` is fresh from our set; its vector and pages are the buffer's, which the
        // token owns.
        unsafe { self.start_borrowed(bio, table, WithBuffer { buffer, token }) };
    }

    /// Reads or writes the page of a slot.
    pub(crate) fn submit_slot(
        &self,
        op: bindings::req_op,
        flags: Flags,
        sector: u64,
        token: SlotToken,
    ) {
        let bio = self.alloc(op, flags, sector, META_PAGE_BYTES as u32);
        // SAFETY: `bio` is fresh from our set; its vector and page are the slot's, which the token
        // keeps.
        unsafe { self.start_borrowed(bio, token.table(), token) };
    }

    /// Flushes the device's volatile write cache.
    pub fn submit_flush<C: Completion>(&self, token: C) {
        let op = bindings::req_op_REQ_OP_WRITE;
        let bio = self.alloc(op, Flags::PREFLUSH | Flags::SYNC, 0, 0);
        // SAFETY: `bio` is fresh from our set and carries no data.
        unsafe { self.start(bio, None, token) };
    }

    /// Allocates a bio without a vector; waits for one of the reserve if need be.
    pub(super) fn alloc(
        &self,
        op: bindings::req_op,
        flags: Flags,
        sector: u64,
        size_bytes: u32,
    ) -> NonNull<bindings::bio> {
        let set = self.bio_set().set.get();
        // SAFETY: Device and set are alive. With direct reclaim allowed in the mask the call does
        // not return null.
        unsafe {
            let bio = bindings::bio_alloc_bioset(
                self.as_ptr(),
                0,
                op | flags.0,
                raw::DRBD_CONST_GFP_NOIO,
                set,
            );
            (*bio).bi_iter.bi_sector = sector;
            (*bio).bi_iter.bi_size = size_bytes;
            NonNull::new_unchecked(bio)
        }
    }

    /// Starts a bio over a vector of somebody else's.
    ///
    /// # Safety
    ///
    /// As for [`BlockDevice::start`]; `table` must cover the bio's size and be owned by `token`,
    /// with its pages.
    unsafe fn start_borrowed<C: Completion>(
        &self,
        bio: NonNull<bindings::bio>,
        table: *const bindings::bio_vec,
        token: C,
    ) {
        // SAFETY: `bio` is ours. `BIO_CLONED` says that it does not own its vector; `end_io` puts
        // the bio before it lets the token go.
        unsafe {
            (*bio.as_ptr()).bi_io_vec = table.cast_mut();
            (*bio.as_ptr()).bi_flags |= 1 << bindings::BIO_CLONED;
            self.start(bio, None, token);
        }
    }

    /// Hands a prepared bio over to the block layer; `end_io` gets it back.
    ///
    /// # Safety
    ///
    /// `bio` must come from this device's bio set and be exclusively ours; what its vector refers
    /// to must be owned by `token` or held by `master`.
    unsafe fn start<C: Completion>(
        &self,
        bio: NonNull<bindings::bio>,
        master: Option<MasterHold>,
        token: C,
    ) {
        const {
            assert!(size_of::<C>() <= TOKEN_BYTES_MAX);
            assert!(align_of::<C>() <= align_of::<Pad>());
        }
        // SAFETY: Our set puts a `Pad` in front of each bio; it is ours as the bio is, and large
        // and aligned enough for the token by the assertions.
        unsafe {
            let pad = pad_of(bio.as_ptr());
            (&raw mut (*pad).token).cast::<C>().write(token);
            (&raw mut (*pad).device).write(MaybeUninit::new(self.clone()));
            (&raw mut (*pad).master).write(MaybeUninit::new(master));
            (*bio.as_ptr()).bi_end_io = Some(end_io::<C>);
            bindings::submit_bio_noacct(bio.as_ptr());
        }
    }
}

/// A clone of an application's bio for a backing device, ready to be submitted.
///
/// # Invariants
///
/// `bio` comes from the device's bio set, is ours alone and borrows the vector of `master`.
pub struct ClonedBio {
    bio: NonNull<bindings::bio>,
    device: BlockDevice,
    master: MasterHold,
}

// SAFETY: A bio that was not submitted has no ties to a thread.
unsafe impl Send for ClonedBio {}

impl ClonedBio {
    /// Submits it. Context: may sleep.
    pub fn submit<C: Completion>(self, token: C) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used after its fields are moved out.
        let (device, master) = unsafe { (ptr::read(&this.device), ptr::read(&this.master)) };
        // SAFETY: By the type invariant.
        unsafe { device.start(this.bio, Some(master), token) };
    }
}

impl Drop for ClonedBio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the bio is ours, and it was not submitted.
        unsafe { bindings::bio_put(self.bio.as_ptr()) };
    }
}

/// The [`Pad`] in front of a bio of ours.
///
/// # Safety
///
/// `bio` must come from a [`BioSet`].
unsafe fn pad_of(bio: *mut bindings::bio) -> *mut Pad {
    // SAFETY: The set was created with `size_of::<Pad>()` bytes of front padding. Its slab aligns
    // elements to a cache line, and the size of `Pad` is a multiple of its alignment.
    unsafe { bio.byte_sub(size_of::<Pad>()).cast::<Pad>() }
}

/// Gives the token of an ended bio back.
///
/// # Safety
///
/// Called by the block layer once for a bio that [`BlockDevice::start`] submitted with `C`.
unsafe extern "C" fn end_io<C: Completion>(bio: *mut bindings::bio) {
    // SAFETY: `start` filled the pad, and only we take its content, once.
    let (token, device, master, status) = unsafe {
        let pad = pad_of(bio);
        (
            (&raw const (*pad).token).cast::<C>().read(),
            (&raw const (*pad).device).read().assume_init(),
            (&raw const (*pad).master).read().assume_init(),
            (*bio).bi_status,
        )
    };
    // SAFETY: The bio has ended and this is our reference to it.
    unsafe { bindings::bio_put(bio) };
    // SAFETY: The function has no requirements.
    token.complete(to_result(unsafe { bindings::blk_status_to_errno(status) }));
    drop(master);
    drop(device);
}
