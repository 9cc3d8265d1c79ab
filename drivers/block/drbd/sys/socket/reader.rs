// SPDX-License-Identifier: GPL-2.0

//! Receiving from a socket: small pieces through a buffer, big ones straight into pages.

use core::cell::Cell;
use kernel::{
    bindings,
    prelude::*,
    sync::Arc, //
};

use super::{
    RecvError,
    TcpSocket, //
};
use crate::segment::SegmentMut;

/// Runs of pages that one receive call takes at most; 1 MiB of single pages.
const VECS_MAX: usize = 256;

/// Bytes that are awaited at a time: fewer than a socket has room for, so that the peer need not
/// stop.
const AWAITED_BYTES_MAX: usize = 32768;

/// The receiving end of a socket.
///
/// Headers come through a small buffer, payload goes straight into its pages. A receive for a
/// header takes up to `lookahead` bytes if they are there: with the size of a header and its fixed
/// fields, no payload is copied twice. A receive for a payload takes as much behind it, if it is
/// there: where packets follow one another each costs one call. A socket that carries headers only
/// can look ahead as far as it likes.
///
/// All functions may sleep up to the socket's receive timeout, which starts anew with each part
/// that arrives, and end with [`RecvError::Closed`] when the socket is shut down.
pub struct Reader {
    socket: Arc<TcpSocket>,
    buffer: KVec<u8>,
    start: usize,
    end: usize,
    vecs: KVec<bindings::bio_vec>,
}

// SAFETY: The page pointers in `vecs` are used only during a call.
unsafe impl Send for Reader {}

impl Reader {
    /// Makes the receiving end of `socket`; `lookahead` is the most that is read before it is
    /// asked for, and the most that [`Self::peek`] can show. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(socket: Arc<TcpSocket>, lookahead: usize) -> Result<Self> {
        Ok(Self {
            socket,
            buffer: KVec::from_elem(0, lookahead, GFP_KERNEL)?,
            start: 0,
            end: 0,
            vecs: KVec::with_capacity(VECS_MAX + 1, GFP_KERNEL)?,
        })
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<TcpSocket> {
        &self.socket
    }

    /// What was received and not yet consumed.
    pub fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or(&[])
    }

    /// Whether bytes have arrived that are not consumed. Never waits.
    pub fn has_more(&self) -> bool {
        !self.buffered().is_empty() || self.socket.has_bytes()
    }

    /// Whether all of the next packet has arrived, so that nobody waits who receives it. Its first
    /// `header` bytes tell `size_of` how many it has in all; where they are wrong nothing is to be
    /// waited for either. Never waits.
    pub fn has_packet(
        &mut self,
        header: usize,
        size_of: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> bool {
        let arrived = self
            .buffered()
            .len()
            .saturating_add(self.socket.arrived_bytes());
        if arrived < header {
            return false;
        }
        self.peek(header)
            .is_ok_and(|bytes| size_of(bytes).is_none_or(|size| size <= arrived))
    }

    /// Shows the next `len` bytes without consuming them.
    ///
    /// # Errors
    ///
    /// On [`RecvError::TimedOut`] nothing is lost: what came stays in the buffer, and the call can
    /// be repeated. `EINVAL` where `len` is more than the lookahead.
    pub fn peek(&mut self, len: usize) -> Result<&[u8], RecvError> {
        if len > self.buffer.len() {
            return Err(RecvError::Failed(EINVAL));
        }
        while self.buffered().len() < len {
            self.receive_more()?;
        }
        self.buffered().get(..len).ok_or(RecvError::Failed(EINVAL))
    }

    /// Gives up the next `len` bytes of what is buffered.
    pub fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start.saturating_add(len));
    }

    /// Receives exactly `to.len()` bytes.
    pub fn read_exact(&mut self, to: &mut [u8]) -> Result<(), RecvError> {
        let from_buffer = copy_start(to, self.buffered());
        self.consume(from_buffer);
        match to.get_mut(from_buffer..) {
            Some(rest) if !rest.is_empty() => self
                .socket
                .recv_exact(rest)
                .map_err(|error| error.after(from_buffer)),
            _ => Ok(()),
        }
    }

    /// Receives until all `segments` are full.
    pub fn read_segments<'a>(
        &mut self,
        segments: impl IntoIterator<Item = SegmentMut<'a>>,
    ) -> Result<(), RecvError> {
        let mut segments = segments.into_iter().peekable();
        let mut received: usize = 0;
        while segments.peek().is_some() {
            received = self.read_batch(&mut segments, received)?;
        }
        Ok(())
    }

    /// Receives into as many `segments` as one call takes; `before` bytes went into earlier ones.
    /// Returns the new sum.
    fn read_batch<'a>(
        &mut self,
        segments: &mut impl Iterator<Item = SegmentMut<'a>>,
        before: usize,
    ) -> Result<usize, RecvError> {
        let mut received = before;
        let mut len: usize = 0;
        self.vecs.clear();
        for mut segment in segments.take(VECS_MAX) {
            let from_buffer = segment.fill(self.buffered());
            self.consume(from_buffer);
            received = received.saturating_add(from_buffer);
            if !segment.is_empty() {
                len = len.saturating_add(segment.len());
                self.vecs
                    .push_within_capacity(segment.as_vec())
                    .map_err(|_| RecvError::Failed(ENOMEM))?;
            }
        }
        if len == 0 {
            return Ok(received);
        }
        let ahead = self.push_buffer()?;

        // SAFETY: The segments are borrowed for `'a`, which outlives this call, and ours to
        // write, as is the buffer; `len` and `ahead` are the sums of their lengths.
        let count = unsafe { self.receive_vecs(len, ahead) };
        let count = count.map_err(|error| error.after(received))?;
        self.end = count.saturating_sub(len);
        Ok(received.saturating_add(len))
    }

    /// Adds the buffer, which is empty, to the vectors; returns its size.
    fn push_buffer(&mut self) -> Result<usize, RecvError> {
        self.start = 0;
        self.end = 0;
        let len = u32::try_from(self.buffer.len()).map_err(|_| RecvError::Failed(EINVAL))?;
        let mut vec = bindings::bio_vec::default();
        // SAFETY: The buffer is memory of the slab allocator, whole pages or not.
        unsafe {
            drbd_bindings::drbd_shim_bvec_set_virt(
                (&raw mut vec).cast(),
                self.buffer.as_mut_ptr().cast(),
                len,
            );
        }
        self.vecs
            .push_within_capacity(vec)
            .map_err(|_| RecvError::Failed(ENOMEM))?;
        Ok(self.buffer.len())
    }

    /// Receives `len` bytes into the vectors, many at a time, and up to `ahead` more that are
    /// there. Returns how many.
    ///
    /// # Safety
    ///
    /// The pages of the vectors exist and may be written; `len` and `ahead` together are the sum of
    /// their lengths.
    unsafe fn receive_vecs(&self, len: usize, ahead: usize) -> Result<usize, RecvError> {
        let room = len.saturating_add(ahead);
        let mut received: usize = 0;
        while received < len {
            let left = len.wrapping_sub(received);
            let in_time = self.socket.await_bytes(left.min(AWAITED_BYTES_MAX));
            let flags = bindings::MSG_DONTWAIT;
            // SAFETY: By the requirements; `received` is less than `len`.
            match unsafe { self.socket.recv_vecs(&self.vecs, room, received, flags) } {
                Ok(count) => received = received.saturating_add(count),
                // Something else happened on the socket.
                Err(RecvError::TimedOut { .. }) if in_time => {}
                Err(error) => return Err(error.after(received)),
            }
        }
        Ok(received)
    }

    /// Receives `len` bytes and drops them.
    pub fn discard(&mut self, len: usize) -> Result<(), RecvError> {
        let mut left = len;
        while left > 0 {
            if self.buffered().is_empty() {
                self.receive_more()?;
            }
            let now = left.min(self.buffered().len());
            self.consume(now);
            left = left.wrapping_sub(now);
        }
        Ok(())
    }

    /// Receives at least one more byte into the buffer, which is not full.
    fn receive_more(&mut self) -> Result<(), RecvError> {
        self.move_to_front();
        let held = self.end;
        let room = self.buffer.get_mut(held..).unwrap_or(&mut []);
        if room.is_empty() {
            return Err(RecvError::Failed(EINVAL));
        }
        let count = self
            .socket
            .recv_some(room)
            .map_err(|error| error.after(held))?;
        self.end = self.end.saturating_add(count);
        Ok(())
    }

    /// Makes room behind what is buffered, a part of a header at most.
    fn move_to_front(&mut self) {
        let cells = Cell::from_mut(self.buffer.as_mut_slice()).as_slice_of_cells();
        let held = cells.get(self.start..self.end).unwrap_or(&[]);
        for (to, from) in cells.iter().zip(held) {
            to.set(from.get());
        }
        self.start = 0;
        self.end = held.len();
    }
}

/// Copies as much of `from` as fits to the start of `to`; returns how much.
fn copy_start(to: &mut [u8], from: &[u8]) -> usize {
    let mut count: usize = 0;
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
        count = count.wrapping_add(1);
    }
    count
}
