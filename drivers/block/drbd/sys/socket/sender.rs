// SPDX-License-Identifier: GPL-2.0

//! Sending on a socket: a header and its payload in one call.

use core::ptr::{
    self,
    NonNull, //
};
use drbd_bindings::DRBD_CONST_GFP_NOIO;
use kernel::{
    bindings,
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};

use super::{
    empty_message,
    TcpSocket, //
};
use crate::segment::Segment;

/// Runs of pages that one send call takes at most: a header and 1 MiB of single pages.
const VECS_MAX: usize = 257;

/// How to send.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SendOptions {
    /// More follows at once: a partial frame may wait for it.
    pub more: bool,
    /// Lend the payload's pages to the network instead of copying them, where that is possible.
    /// They must keep their contents until the peer has acknowledged them.
    pub lend: bool,
    /// Do not wait for the first byte to be taken.
    pub dont_wait: bool,
}

/// What to do when the send timeout passed without progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// Try for another send timeout.
    KeepTrying,
    /// End with [`SendError::Stalled`]. The connection is of no use any more, as part of a packet
    /// may be sent.
    GiveUp,
}

/// Why not all was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// Nothing was sent, as that would have to wait, and [`SendOptions::dont_wait`] was given.
    WouldBlock,
    /// The peer took no more, and the caller gave up after `sent` bytes.
    Stalled {
        /// Bytes that went.
        sent: usize,
    },
    /// The connection failed, for example `EPIPE` or `ECONNRESET`.
    Failed(Error),
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::WouldBlock => EAGAIN,
            SendError::Stalled { .. } => ETIMEDOUT,
            SendError::Failed(error) => error,
        }
    }
}

/// The sending end of a socket; what it sends is in order.
///
/// All functions may sleep: up to the socket's send timeout before `on_stall` is asked whether to
/// go on, which is told how many bytes went so far. They end with `EPIPE` when the socket is shut
/// down.
pub struct Sender {
    socket: Arc<TcpSocket>,
    headers: bindings::page_frag_cache,
    vecs: KVec<bindings::bio_vec>,
}

// SAFETY: The fragment cache is only used through `&mut self`; the page pointers in `vecs` are
// used only during a call.
unsafe impl Send for Sender {}
// SAFETY: All that touches more than the socket takes `&mut self`.
unsafe impl Sync for Sender {}

impl Sender {
    /// Makes the sending end of `socket`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(socket: Arc<TcpSocket>) -> Result<Self> {
        Ok(Self {
            socket,
            headers: pin_init::zeroed(),
            vecs: KVec::with_capacity(VECS_MAX, GFP_KERNEL)?,
        })
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<TcpSocket> {
        &self.socket
    }

    /// Sends `bytes`.
    pub fn send(
        &mut self,
        bytes: &[u8],
        options: SendOptions,
        on_stall: &mut dyn FnMut(usize) -> Stall,
    ) -> Result<(), SendError> {
        let mut transfer = Transfer::new(&self.socket, options, on_stall);
        transfer.send_bytes(bytes, options.more)
    }

    /// Sends `header` and then `payload`, in one call where the payload is not too scattered.
    pub fn send_vectored<'a>(
        &mut self,
        header: &[u8],
        payload: impl IntoIterator<Item = Segment<'a>>,
        options: SendOptions,
        on_stall: &mut dyn FnMut(usize) -> Stall,
    ) -> Result<(), SendError> {
        let mut payload = payload.into_iter().peekable();
        let mut transfer = Transfer::new(&self.socket, options, on_stall);
        if payload.peek().is_none() {
            return transfer.send_bytes(header, options.more);
        }

        self.vecs.clear();
        let mut len: usize = 0;
        let fragment = Fragment::new(&mut self.headers, header);
        match &fragment {
            Some(fragment) => {
                len = header.len();
                append(&mut self.vecs, fragment.vec)?;
            }
            // Short of memory: the header goes by copy, and what follows joins it.
            None => transfer.send_bytes(header, true)?,
        }
        while payload.peek().is_some() {
            let mut lend = options.lend;
            while self.vecs.len() < VECS_MAX {
                let Some(segment) = payload.next() else {
                    break;
                };
                lend = lend && segment.is_lendable();
                len = len.saturating_add(segment.len());
                append(&mut self.vecs, segment.as_vec())?;
            }
            let more = options.more || payload.peek().is_some();
            // SAFETY: The segments are borrowed for `'a`, which outlives this call, as does the
            // fragment, and `len` is the sum of their lengths. The caller allowed to lend the
            // payload, and the fragment is made for it.
            unsafe { transfer.send_vecs(&self.vecs, len, more, lend)? };
            self.vecs.clear();
            len = 0;
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // SAFETY: The cache was zeroed at first, and is used no more.
        unsafe { bindings::page_frag_cache_drain(&mut self.headers) };
    }
}

fn append(vecs: &mut KVec<bindings::bio_vec>, vec: bindings::bio_vec) -> Result<(), SendError> {
    vecs.push_within_capacity(vec)
        .map_err(|_| SendError::Failed(ENOMEM))
}

/// A header, copied to memory that the network can take references to.
struct Fragment {
    address: NonNull<c_void>,
    vec: bindings::bio_vec,
}

impl Fragment {
    fn new(cache: &mut bindings::page_frag_cache, header: &[u8]) -> Option<Self> {
        const UNALIGNED: c_uint = c_uint::MAX;
        let len = c_uint::try_from(header.len()).ok().filter(|&len| len > 0)?;
        // SAFETY: The cache is ours alone.
        let address = NonNull::new(unsafe {
            bindings::__page_frag_alloc_align(cache, len, DRBD_CONST_GFP_NOIO, UNALIGNED)
        })?;
        let mut vec = bindings::bio_vec::default();
        // SAFETY: The fragment is new and has room for the header; it is of the linear mapping.
        unsafe {
            ptr::copy_nonoverlapping(header.as_ptr(), address.as_ptr().cast(), header.len());
            drbd_bindings::drbd_shim_bvec_set_virt(&mut vec, address.as_ptr(), len);
        }
        Some(Self { address, vec })
    }
}

impl Drop for Fragment {
    fn drop(&mut self) {
        // SAFETY: Ours; the network holds references of its own.
        unsafe { bindings::page_frag_free(self.address.as_ptr()) };
    }
}

/// The memory a transfer sends from.
enum Source<'a> {
    Bytes(&'a bindings::kvec),
    Pages(&'a [bindings::bio_vec]),
}

/// One call of a [`Sender`] function: everything it sends is one unit to its caller.
struct Transfer<'a> {
    socket: &'a TcpSocket,
    on_stall: &'a mut dyn FnMut(usize) -> Stall,
    dont_wait: bool,
    sent: usize,
}

impl<'a> Transfer<'a> {
    fn new(
        socket: &'a TcpSocket,
        options: SendOptions,
        on_stall: &'a mut dyn FnMut(usize) -> Stall,
    ) -> Self {
        Self {
            socket,
            on_stall,
            dont_wait: options.dont_wait,
            sent: 0,
        }
    }

    fn send_bytes(&mut self, bytes: &[u8], more: bool) -> Result<(), SendError> {
        let vec = bindings::kvec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let flags = if more { bindings::MSG_MORE } else { 0 };
        // SAFETY: `vec` is of `bytes`, which C only reads.
        unsafe { self.send_all(&Source::Bytes(&vec), bytes.len(), flags) }
    }

    /// # Safety
    ///
    /// The pages of `vecs` exist, and `len` is the sum of their lengths. Where `lend`, their
    /// references may be taken.
    unsafe fn send_vecs(
        &mut self,
        vecs: &[bindings::bio_vec],
        len: usize,
        more: bool,
        lend: bool,
    ) -> Result<(), SendError> {
        let mut flags = 0;
        if more {
            flags |= bindings::MSG_MORE;
        }
        if lend {
            flags |= bindings::MSG_SPLICE_PAGES;
        }
        // SAFETY: By the requirements.
        unsafe { self.send_all(&Source::Pages(vecs), len, flags) }
    }

    /// Sends `len` bytes of `source`.
    ///
    /// # Safety
    ///
    /// `source` is readable and has `len` bytes.
    unsafe fn send_all(
        &mut self,
        source: &Source<'_>,
        len: usize,
        flags: c_uint,
    ) -> Result<(), SendError> {
        let mut done: usize = 0;
        while done < len {
            // Once part of a packet went, the rest has to follow.
            let wait = !self.dont_wait || self.sent > 0;
            let flags = if wait {
                flags
            } else {
                flags | bindings::MSG_DONTWAIT
            };
            // SAFETY: By the requirements; `done` is less than `len`.
            match unsafe { self.send_part(source, len, done, flags) } {
                Ok(count) => {
                    done = done.saturating_add(count);
                    self.sent = self.sent.saturating_add(count);
                }
                Err(EAGAIN) if !wait => return Err(SendError::WouldBlock),
                Err(EAGAIN) => {
                    if (self.on_stall)(self.sent) == Stall::GiveUp {
                        return Err(SendError::Stalled { sent: self.sent });
                    }
                }
                Err(error) => return Err(SendError::Failed(error)),
            }
        }
        Ok(())
    }

    /// Sends what C takes at once of `source` behind the first `skip` bytes.
    ///
    /// # Safety
    ///
    /// `source` is readable and has `len` bytes; `skip` is at most that.
    unsafe fn send_part(
        &self,
        source: &Source<'_>,
        len: usize,
        skip: usize,
        flags: c_uint,
    ) -> Result<usize> {
        let mut message = empty_message();
        message.msg_flags = flags | bindings::MSG_NOSIGNAL;
        let iter = &mut message.msg_iter;
        // SAFETY: By the requirements. A fresh iterator each time does not depend on how far C
        // moved it before it failed.
        unsafe {
            match source {
                Source::Bytes(vec) => {
                    bindings::iov_iter_kvec(iter, bindings::ITER_SOURCE, *vec, 1, len);
                }
                Source::Pages(vecs) => bindings::iov_iter_bvec(
                    iter,
                    bindings::ITER_SOURCE,
                    vecs.as_ptr(),
                    vecs.len(),
                    len,
                ),
            }
            bindings::iov_iter_advance(iter, skip);
        }
        // SAFETY: The socket is valid, the message was just made.
        let count = unsafe { bindings::sock_sendmsg(self.socket.0.as_ptr(), &mut message) };
        usize::try_from(count).map_err(|_| Error::from_errno(count))
    }
}
