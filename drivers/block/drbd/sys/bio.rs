// SPDX-License-Identifier: GPL-2.0

//! Bios: the application's, our clones of them, and our own over page buffers.
//!
//! A bio in flight is owned by its completion token: [`Completion::complete`] gets the token back
//! exactly once, in interrupt context, whatever happened to the I/O. The token lies in front of
//! the bio in the same allocation, so submitting allocates nothing but the bio, which comes from a
//! reserve.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::{
    bdev::BlockDevice,
    page::{
        Buffer,
        Segments, //
    },
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
    ops::BitOr,
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
    types::Opaque,
};

/// log2 of the sector size that the block layer counts in.
const SECTOR_SHIFT: u32 = kernel::block::SECTOR_SHIFT;

/// The bits of `bi_opf` that are the operation; the others are flags.
const OPERATION_MASK: u32 = (1 << bindings::REQ_OP_BITS) - 1;

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
struct Pad {
    token: MaybeUninit<[u8; TOKEN_BYTES_MAX]>,
    device: MaybeUninit<BlockDevice>,
    /// Keeps the pages and the vector that a clone borrows.
    master: MaybeUninit<Option<MasterHold>>,
}

/// The reserve that all our bios come from.
///
/// Made once when the module loads and dropped when it unloads: dropping it waits until every
/// [`BlockDevice`] opened with it is gone, and with them every bio.
pub struct BioSet(Arc<BioSetInner>);

#[pin_data]
pub(crate) struct BioSetInner {
    #[pin]
    set: Opaque<bindings::bio_set>,
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
                            size_of::<Pad>().try_into()?,
                            flags.try_into()?,
                        )
                    })
                }),
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
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An application's bio that was submitted to one of our disks.
///
/// Owning it is the duty to end it; one that is dropped ends with an I/O error. It counts in the
/// disk's I/O statistics while it lives.
///
/// # Invariants
///
/// `bio` is a bio that was passed to `submit_bio` of our disk and was not yet ended by us.
pub struct MasterBio {
    bio: NonNull<bindings::bio>,
    start_jiffies: c_ulong,
}

// SAFETY: A bio has no ties to the thread that submitted it.
unsafe impl Send for MasterBio {}
// SAFETY: `&self` only reads fields that are constant while the bio is ours, and changes the
// remaining count, which is atomic.
unsafe impl Sync for MasterBio {}

impl MasterBio {
    /// # Safety
    ///
    /// `bio` must be a bio passed to `submit_bio` of a live disk, and the caller must not use it
    /// any more.
    pub(crate) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the requirement of this function.
        Self {
            bio,
            // SAFETY: As above.
            start_jiffies: unsafe { bindings::bio_start_io_acct(bio.as_ptr()) },
        }
    }

    fn get(&self) -> &bindings::bio {
        // SAFETY: By the type invariant the bio is alive, and nobody changes what we read.
        unsafe { self.bio.as_ref() }
    }

    /// What the bio asks for.
    pub fn operation(&self) -> Operation {
        match self.get().bi_opf & OPERATION_MASK {
            bindings::req_op_REQ_OP_READ => Operation::Read,
            bindings::req_op_REQ_OP_WRITE if self.size_bytes() == 0 => Operation::Flush,
            bindings::req_op_REQ_OP_WRITE => Operation::Write,
            bindings::req_op_REQ_OP_DISCARD => Operation::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Operation::WriteZeroes,
            _ => Operation::Other,
        }
    }

    /// Its modifiers.
    pub fn flags(&self) -> Flags {
        Flags(self.get().bi_opf & !OPERATION_MASK)
    }

    /// First sector on our disk.
    pub fn sector(&self) -> u64 {
        self.get().bi_iter.bi_sector
    }

    /// Size in bytes, 0 for a flush.
    pub fn size_bytes(&self) -> u32 {
        self.get().bi_iter.bi_size
    }

    /// Size in sectors, 0 for a flush.
    pub fn size_sectors(&self) -> u32 {
        self.size_bytes() >> SECTOR_SHIFT
    }

    /// The data of a read or write; empty for the other operations.
    ///
    /// The application can still change the bytes (direct I/O), so nothing may rely on reading the
    /// same value twice.
    pub fn segments(&self) -> Segments<'_> {
        // SAFETY: By the type invariant the bio has not ended; the borrow outlives that.
        unsafe { data_of(self.bio) }
    }

    /// Keeps the application's memory, independently of who owns the bio. Context: any.
    pub fn hold(&self) -> MasterHold {
        // SAFETY: By the type invariant the bio is alive and not ended.
        unsafe { raw::drbd_shim_bio_inc_remaining(self.bio.as_ptr()) };
        // INVARIANT: The count was just taken.
        MasterHold(self.bio)
    }

    /// Ends the bio towards the application.
    ///
    /// The application sees the end once every clone in flight has ended and every hold is gone as
    /// well, because those borrow its pages. Context: any.
    pub fn end(self, result: Result) {
        let mut bio = ManuallyDrop::new(self);
        bio.finish(result);
    }

    fn finish(&mut self, result: Result) {
        let bio = self.bio.as_ptr();
        // SAFETY: By the type invariant the bio is ours to end; this runs once, from `end` or
        // `drop`.
        unsafe {
            (*bio).bi_status = match result {
                Ok(()) => 0,
                Err(error) => bindings::errno_to_blk_status(error.to_errno()),
            };
            bindings::bio_end_io_acct_remapped(bio, self.start_jiffies, (*bio).bi_bdev);
            bindings::bio_endio(bio);
        }
    }
}

impl Drop for MasterBio {
    fn drop(&mut self) {
        self.finish(Err(EIO));
    }
}

/// A claim on an application bio's memory: while it lives, pages and vector stay, even where the
/// [`MasterBio`] was ended meanwhile. Whoever sends the data takes one.
///
/// # Invariants
///
/// We hold one of the bio's remaining counts.
pub struct MasterHold(NonNull<bindings::bio>);

// SAFETY: A count on a bio has no ties to a thread.
unsafe impl Send for MasterHold {}
// SAFETY: `&self` only reads what is constant while the count is held.
unsafe impl Sync for MasterHold {}

impl MasterHold {
    /// As [`MasterBio::segments`].
    pub fn segments(&self) -> Segments<'_> {
        // SAFETY: By the type invariant the bio has not ended; the borrow outlives that.
        unsafe { data_of(self.0) }
    }
}

impl Drop for MasterHold {
    fn drop(&mut self) {
        // SAFETY: Gives our count back; the last one ends the bio.
        unsafe { bindings::bio_endio(self.0.as_ptr()) };
    }
}

/// The data of a bio, none unless it reads or writes.
///
/// # Safety
///
/// The bio must not end during `'a`.
unsafe fn data_of<'a>(bio: NonNull<bindings::bio>) -> Segments<'a> {
    // SAFETY: By the requirement the bio is alive, and these fields are constant until it ends.
    let (op, vector, position) = unsafe {
        let bio = bio.as_ref();
        (bio.bi_opf & OPERATION_MASK, bio.bi_io_vec, bio.bi_iter)
    };
    if !matches!(
        op,
        bindings::req_op_REQ_OP_READ | bindings::req_op_REQ_OP_WRITE
    ) {
        return Segments::empty();
    }
    // SAFETY: The vector of a bio covers `bi_size` bytes from `bi_offset` of entry `bi_idx` on; it
    // and its pages stay until the bio ends.
    unsafe {
        Segments::from_raw(
            vector.add(position.bi_idx as usize),
            position.bi_offset as usize,
            position.bi_size as usize,
        )
    }
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
        let set = self.bio_set().set.get();
        // SAFETY: Device, master and set are alive; the clone borrows the master's vector, which
        // the hold keeps until the clone has ended.
        let clone = unsafe {
            bindings::bio_alloc_clone(
                self.as_ptr(),
                master.bio.as_ptr(),
                raw::DRBD_CONST_GFP_NOIO,
                set,
            )
        };
        let bio = NonNull::new(clone).ok_or(ENOMEM)?;
        // SAFETY: The clone is ours alone.
        unsafe { (*bio.as_ptr()).bi_opf &= !raw::DRBD_CONST_REQ_POLLED };
        // INVARIANT: As required.
        Ok(ClonedBio {
            bio,
            device: self.clone(),
            master: master.hold(),
        })
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

    /// Discards `sectors` sectors. The token gets `EOPNOTSUPP` when the device cannot.
    pub fn submit_discard<C: Completion>(&self, sector: u64, sectors: u32, token: C) {
        let op = bindings::req_op_REQ_OP_DISCARD;
        self.submit_range(op, Flags::NONE, sector, sectors, token);
    }

    /// Writes zeroes; with [`Flags::NOUNMAP`] the blocks stay allocated. The token gets
    /// `EOPNOTSUPP` when the device cannot.
    pub fn submit_write_zeroes<C: Completion>(
        &self,
        flags: Flags,
        sector: u64,
        sectors: u32,
        token: C,
    ) {
        let op = bindings::req_op_REQ_OP_WRITE_ZEROES;
        self.submit_range(op, flags, sector, sectors, token);
    }

    fn submit_range<C: Completion>(
        &self,
        op: bindings::req_op,
        flags: Flags,
        sector: u64,
        sectors: u32,
        token: C,
    ) {
        let Some(size_bytes) = sectors.checked_mul(kernel::block::SECTOR_SIZE) else {
            return token.complete(Err(EINVAL));
        };
        let bio = self.alloc(op, flags, sector, size_bytes);
        // SAFETY: `bio` is fresh from our set; these operations carry no data.
        unsafe { self.start(bio, None, token) };
    }

    /// Allocates a bio without a vector; waits for one of the reserve if need be.
    fn alloc(
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
