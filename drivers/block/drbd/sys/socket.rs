// SPDX-License-Identifier: GPL-2.0

//! TCP sockets that block I/O depends on.
//!
//! A [`TcpSocket`] is shared (`Arc`) by the thread that receives, whoever sends and whoever tears
//! the connection down. Sending goes through a [`Sender`], receiving through a [`Reader`]: each
//! owns the scratch memory of its direction, so nothing is allocated per message. [`Hook`] tells
//! what happens on a socket to a context of the user's.
//!
//! Sockets live in the initial network namespace and allocate without waiting for block I/O.
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h)

use core::{
    mem::{
        size_of,
        MaybeUninit, //
    },
    ptr::NonNull,
};
use kernel::{
    bindings,
    error::to_result,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*, //
};

use crate::time::{
    timeout_jiffies,
    FOREVER_JIFFIES, //
};

mod address;
mod hook;
mod listener;
mod reader;
mod sender;

pub use self::{
    address::{
        RawAddress,
        SocketAddr,
        ADDRESS_BYTES_MAX, //
    },
    hook::{
        Arrived,
        Hook,
        SocketEvents, //
    },
    listener::TcpListener,
    reader::Reader,
    sender::{
        SendError,
        SendOptions,
        Sender,
        Stall, //
    },
};

/// How long a socket operation may block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Until it is done or the socket is shut down.
    Never,
    /// At most so many milliseconds.
    Ms(u32),
}

impl Timeout {
    fn jiffies(self) -> kernel::ffi::c_long {
        match self {
            Self::Never => FOREVER_JIFFIES,
            Self::Ms(ms) => timeout_jiffies(ms),
        }
    }
}

/// What the network stack should take first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Many bytes that somebody waits for.
    InteractiveBulk,
    /// Few bytes that somebody waits for.
    Interactive,
}

/// Sizes of a socket's buffers in bytes; 0 lets the kernel tune them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct BufferSizes {
    /// Of what waits to be sent or acknowledged.
    pub send_bytes: u32,
    /// Of what waits to be read.
    pub receive_bytes: u32,
}

/// Why nothing, or not enough, was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecvError {
    /// The peer closed the connection, or it was shut down here.
    Closed,
    /// The receive timeout passed; so many of the wanted bytes had arrived and are in place.
    TimedOut {
        /// Bytes in place.
        received: usize,
    },
    /// The connection failed, for example `ECONNRESET` or `ETIMEDOUT`.
    Failed(Error),
}

impl RecvError {
    /// The same error where `earlier` more bytes had been received before.
    fn after(self, earlier: usize) -> Self {
        match self {
            Self::TimedOut { received } => Self::TimedOut {
                received: received.saturating_add(earlier),
            },
            error => error,
        }
    }
}

impl From<RecvError> for Error {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => ENOTCONN,
            RecvError::TimedOut { .. } => EAGAIN,
            RecvError::Failed(error) => error,
        }
    }
}

/// A C socket, released on drop.
///
/// # Invariants
///
/// The pointer is a TCP socket that we own; its `sk` stays the same until it is released.
struct RawSocket(NonNull<bindings::socket>);

// SAFETY: C's socket functions may be called from any thread.
unsafe impl Send for RawSocket {}
// SAFETY: C's socket functions lock the socket themselves.
unsafe impl Sync for RawSocket {}

impl RawSocket {
    fn open(address: &SocketAddr, buffers: BufferSizes) -> Result<Self> {
        let mut raw = core::ptr::null_mut();
        // SAFETY: The initial namespace always exists; `raw` is valid for writing. CAST: Small
        // constants that C takes as `int`.
        to_result(unsafe {
            bindings::sock_create_kern(
                &raw mut bindings::init_net,
                c_int::from(address.family()),
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut raw,
            )
        })?;
        // INVARIANT: Just created.
        let socket = Self(NonNull::new(raw).ok_or(ENOMEM)?);
        socket.prepare();
        socket.set_buffers(buffers);
        Ok(socket)
    }

    fn as_ptr(&self) -> *mut bindings::socket {
        self.0.as_ptr()
    }

    fn sk(&self) -> *mut bindings::sock {
        // SAFETY: The socket is valid, and its `sk` does not change.
        unsafe { (*self.as_ptr()).sk }
    }

    fn prepare(&self) {
        // SAFETY: The socket is valid, and not yet used by another thread.
        unsafe { drbd_bindings::drbd_shim_sock_prepare(self.as_ptr()) };
    }

    fn set_buffers(&self, sizes: BufferSizes) {
        let limit = |bytes: u32| c_int::try_from(bytes).unwrap_or(c_int::MAX);
        if sizes.send_bytes != 0 {
            // SAFETY: The socket is valid.
            unsafe {
                drbd_bindings::drbd_shim_sock_set_sndbuf(self.as_ptr(), limit(sizes.send_bytes));
            }
        }
        if sizes.receive_bytes != 0 {
            // SAFETY: The socket is valid.
            unsafe {
                drbd_bindings::drbd_shim_sock_set_rcvbuf(self.as_ptr(), limit(sizes.receive_bytes));
            }
        }
    }

    fn bind(&self, address: &SocketAddr) -> Result {
        let mut raw = address.to_raw();
        let (pointer, len) = raw.as_c();
        // SAFETY: The socket is valid, and the address is one of `len` bytes.
        to_result(unsafe { bindings::kernel_bind(self.as_ptr(), pointer, len) })
    }

    fn set_receive_timeout(&self, timeout: Timeout) {
        // SAFETY: The socket is valid.
        unsafe { drbd_bindings::drbd_shim_sock_set_rcvtimeo(self.as_ptr(), timeout.jiffies()) };
    }

    fn shutdown(&self) {
        // SAFETY: The socket is valid. An error only says that it was not connected.
        unsafe {
            bindings::kernel_sock_shutdown(self.as_ptr(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        // SAFETY: We own the socket, and use it no more.
        unsafe { bindings::sock_release(self.as_ptr()) };
    }
}

/// A TCP socket. Dropping it may sleep; what was sent is still delivered.
pub struct TcpSocket(RawSocket);

impl TcpSocket {
    /// Makes a socket with the IP address of `local` and any port. May sleep.
    ///
    /// It is not connected yet, so that its owner can share it first and shut it down while it
    /// connects.
    ///
    /// # Errors
    ///
    /// Those of C's socket creation and bind, such as `EADDRNOTAVAIL`.
    pub fn open(local: &SocketAddr, buffers: BufferSizes) -> Result<Self> {
        let socket = RawSocket::open(local, buffers)?;
        socket.bind(&local.with_port(0))?;
        Ok(Self(socket))
    }

    /// Connects, within the send timeout or until [`Self::shutdown`]. May sleep.
    ///
    /// # Errors
    ///
    /// `EINPROGRESS` after the timeout; `ECONNREFUSED`, `EHOSTUNREACH` and others of C.
    pub fn connect(&self, peer: &SocketAddr) -> Result {
        let mut raw = peer.to_raw();
        let (pointer, len) = raw.as_c();
        // SAFETY: The socket is valid, and the address is one of `len` bytes.
        to_result(unsafe { bindings::kernel_connect(self.0.as_ptr(), pointer, len, 0) })
    }

    /// The address of the peer.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`.
    pub fn peer(&self) -> Result<SocketAddr> {
        let mut raw = RawStorage([0; size_of::<bindings::__kernel_sockaddr_storage>()]);
        // SAFETY: The socket is valid; C writes at most a `sockaddr_storage`.
        let len = unsafe {
            bindings::kernel_getpeername(
                self.0.as_ptr(),
                (&raw mut raw).cast::<bindings::sockaddr>(),
            )
        };
        let len = usize::try_from(len).map_err(|_| Error::from_errno(len))?;
        SocketAddr::from_bytes(raw.0.get(..len).ok_or(EINVAL)?)
    }

    /// Ends the connection in both directions and wakes whoever is blocked in it: connecting ends
    /// with an error, receiving with [`RecvError::Closed`], sending with `EPIPE`. From any thread,
    /// any number of times. May sleep.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// Whether the connection is established and neither side has closed it. Any context.
    pub fn is_established(&self) -> bool {
        // SAFETY: The socket is valid.
        unsafe { drbd_bindings::drbd_shim_sock_established(self.0.as_ptr()) }
    }

    /// How long sending, or connecting, may block. Any context.
    pub fn set_send_timeout(&self, timeout: Timeout) {
        // SAFETY: The socket is valid.
        unsafe { drbd_bindings::drbd_shim_sock_set_sndtimeo(self.0.as_ptr(), timeout.jiffies()) };
    }

    /// How long receiving may block; holds for receives that begin later. Any context.
    pub fn set_receive_timeout(&self, timeout: Timeout) {
        self.0.set_receive_timeout(timeout);
    }

    /// Sends what is queued without waiting for more or for acknowledgements. May sleep.
    pub fn set_nodelay(&self) {
        // SAFETY: The socket is a TCP socket.
        unsafe { drbd_bindings::tcp_sock_set_nodelay(self.0.sk()) };
    }

    /// Sends what [`SendOptions::more`] holds back, without waiting for more. May sleep.
    pub fn push(&self) {
        // Setting the option again does just that.
        self.set_nodelay();
    }

    /// Acknowledges now what has been received, and for a while without delay. May sleep.
    pub fn quick_ack(&self) {
        // An even number would go back to delayed acknowledgements after this one.
        const NOW_AND_STAY: c_int = 1;
        // SAFETY: The socket is a TCP socket.
        unsafe { drbd_bindings::tcp_sock_set_quickack(self.0.sk(), NOW_AND_STAY) };
    }

    /// Acknowledges what [`Arrived::offer`] takes within a tick. Any context.
    pub fn hasten_acks(&self) {
        // SAFETY: The socket is a TCP socket.
        unsafe { drbd_bindings::drbd_shim_sock_hasten_acks(self.0.as_ptr()) };
    }

    /// Says how urgent this socket's packets are.
    pub fn set_priority(&self, priority: Priority) {
        let value = match priority {
            Priority::InteractiveBulk => bindings::TC_PRIO_INTERACTIVE_BULK,
            Priority::Interactive => bindings::TC_PRIO_INTERACTIVE,
        };
        // SAFETY: The socket is valid.
        unsafe { drbd_bindings::drbd_shim_sock_set_priority(self.0.as_ptr(), value) };
    }

    /// Fixes the sizes of the buffers that are not 0. May sleep.
    pub fn set_buffers(&self, sizes: BufferSizes) {
        self.0.set_buffers(sizes);
    }

    /// Bytes of memory that sent and not yet acknowledged data takes. Any context.
    pub fn queued_bytes(&self) -> usize {
        // SAFETY: The socket is valid.
        let bytes = unsafe { drbd_bindings::drbd_shim_sock_wmem_queued(self.0.as_ptr()) };
        usize::try_from(bytes).unwrap_or(0)
    }

    /// Bytes of memory that sent data may take before sending blocks. Any context.
    pub fn send_buffer_bytes(&self) -> usize {
        // SAFETY: The socket is valid.
        let bytes = unsafe { drbd_bindings::drbd_shim_sock_sndbuf(self.0.as_ptr()) };
        usize::try_from(bytes).unwrap_or(0)
    }

    /// Whether bytes can be received without waiting. Any context.
    pub fn has_bytes(&self) -> bool {
        // SAFETY: The socket is valid.
        unsafe { drbd_bindings::drbd_shim_sock_has_bytes(self.0.as_ptr()) }
    }

    /// How many bytes can be received without waiting, at least; the end of the stream counts as
    /// one. Any context.
    fn arrived_bytes(&self) -> usize {
        // SAFETY: The socket is valid, and of TCP.
        let bytes = unsafe { drbd_bindings::drbd_shim_sock_arrived(self.0.as_ptr()) };
        usize::try_from(bytes).unwrap_or(0)
    }

    /// Sleeps until `bytes` can be received, up to the receive timeout, and is not woken for a part
    /// of them. Returns whether it is worth a look: early at the end of the connection, where the
    /// socket has no room for more, and for no reason.
    fn await_bytes(&self, bytes: usize) -> bool {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: The socket is valid.
        unsafe { drbd_bindings::drbd_shim_sock_await_bytes(self.0.as_ptr(), bytes) }
    }

    /// Whether the connection still works as far as can be seen without waiting: bytes can be
    /// read, or could be once they arrive. May sleep for the socket's lock.
    pub fn is_alive(&self) -> bool {
        let mut probe = [0; 4];
        let flags = bindings::MSG_PEEK | bindings::MSG_DONTWAIT;
        matches!(
            self.recv_bytes(&mut probe, flags),
            Ok(_) | Err(RecvError::TimedOut { .. })
        )
    }

    /// Receives what is there, at least one byte, waiting for it up to the receive timeout. May
    /// sleep.
    pub fn recv_some(&self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.recv_bytes(buffer, 0)
    }

    /// Receives what is there, at least one byte, without waiting: [`RecvError::TimedOut`] where
    /// there is nothing. May sleep for the socket's lock.
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.recv_bytes(buffer, bindings::MSG_DONTWAIT)
    }

    /// Receives exactly `buffer.len()` bytes. May sleep.
    ///
    /// The timeout restarts with every part that arrives.
    pub fn recv_exact(&self, buffer: &mut [u8]) -> Result<(), RecvError> {
        recv_all(buffer.len(), |received, flags| {
            let rest = buffer.get_mut(received..).unwrap_or(&mut []);
            self.recv_bytes(rest, flags)
        })
    }

    fn recv_bytes(&self, buffer: &mut [u8], flags: c_uint) -> Result<usize, RecvError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let vec = bindings::kvec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut message = empty_message();
        // SAFETY: `vec` describes `buffer`, which is writable; both outlive the call.
        unsafe {
            bindings::iov_iter_kvec(
                &mut message.msg_iter,
                bindings::ITER_DEST,
                &vec,
                1,
                buffer.len(),
            );
            self.recv_message(&mut message, flags)
        }
    }

    /// Receives into `vecs` behind their first `skip` bytes; `len` is the sum of their lengths.
    ///
    /// # Safety
    ///
    /// The pages of `vecs` exist and may be written; `skip` is at most `len`.
    unsafe fn recv_vecs(
        &self,
        vecs: &[bindings::bio_vec],
        len: usize,
        skip: usize,
        flags: c_uint,
    ) -> Result<usize, RecvError> {
        let mut message = empty_message();
        // SAFETY: By the requirements.
        unsafe {
            bindings::iov_iter_bvec(
                &mut message.msg_iter,
                bindings::ITER_DEST,
                vecs.as_ptr(),
                vecs.len(),
                len,
            );
            bindings::iov_iter_advance(&mut message.msg_iter, skip);
            self.recv_message(&mut message, flags)
        }
    }

    /// Receives what `message` describes.
    ///
    /// # Safety
    ///
    /// The iterator of `message` is over memory that may be written.
    unsafe fn recv_message(
        &self,
        message: &mut bindings::msghdr,
        flags: c_uint,
    ) -> Result<usize, RecvError> {
        // CAST: The flags are bits below the sign.
        let flags = (flags | bindings::MSG_NOSIGNAL) as c_int;
        // SAFETY: The socket is valid; the rest is the caller's promise.
        let count = unsafe { bindings::sock_recvmsg(self.0.as_ptr(), message, flags) };
        match usize::try_from(count) {
            Ok(0) => Err(RecvError::Closed),
            Ok(count) => Ok(count),
            Err(_) => Err(match Error::from_errno(count) {
                EAGAIN => RecvError::TimedOut { received: 0 },
                error => RecvError::Failed(error),
            }),
        }
    }
}

/// Receives `len` bytes by calls of `receive(received, flags)`.
///
/// C ends a receive for all of the bytes early when the timeout passed, but says so only where
/// nothing came at all. A look without waiting tells why, instead of another timeout.
fn recv_all(
    len: usize,
    mut receive: impl FnMut(usize, c_uint) -> Result<usize, RecvError>,
) -> Result<(), RecvError> {
    let mut received: usize = 0;
    let mut flags = bindings::MSG_WAITALL;
    while received < len {
        match receive(received, flags) {
            Ok(count) => received = received.saturating_add(count),
            Err(RecvError::TimedOut { .. }) => return Err(RecvError::TimedOut { received }),
            Err(error) => return Err(error),
        }
        flags = if flags == bindings::MSG_WAITALL {
            bindings::MSG_DONTWAIT
        } else {
            bindings::MSG_WAITALL
        };
    }
    Ok(())
}

/// Room for any address that C may write.
#[repr(C, align(8))]
struct RawStorage([u8; size_of::<bindings::__kernel_sockaddr_storage>()]);

fn empty_message() -> bindings::msghdr {
    // SAFETY: All zeroes are a valid `msghdr`: null pointers, no function, an empty iterator.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
