// SPDX-License-Identifier: GPL-2.0

//! Being told what happens on a socket.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use drbd_bindings::drbd_shim_sock_hook;
use kernel::{
    bindings,
    error::from_err_ptr,
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};

use super::TcpSocket;

/// Who wants to know what happens on a socket.
///
/// The functions run in soft interrupt context or in a task, under locks of the socket: they must
/// not sleep and must not use the socket. They wake a thread or queue work.
pub trait SocketEvents: Send + Sync + 'static {
    /// Bytes arrived, or the end of them.
    fn data_ready(&self, _arrived: Arrived<'_>) {}

    /// The connection's state changed: established, closed by the peer, failed, shut down.
    fn state_change(&self) {}

    /// There is room again in a send buffer that was full.
    fn write_space(&self) {}
}

/// What a socket has received, while it is locked.
pub struct Arrived<'a> {
    sk: NonNull<bindings::sock>,
    _locked: PhantomData<&'a ()>,
}

impl Arrived<'_> {
    /// Offers bytes to `take`, in their order and a few at a time, as long as it takes any: it
    /// returns how many of them. What it leaves stays in the socket for whoever receives from it.
    ///
    /// Returns whether nothing is left.
    pub fn offer<F: FnMut(&[u8]) -> usize>(self, mut take: F) -> bool {
        // SAFETY: The socket is valid and locked while `self` lives, and a TCP socket, as all of
        // this module are; `taken::<F>` fits `take`, which outlives the call.
        unsafe {
            drbd_bindings::drbd_shim_sock_offer(
                self.sk.as_ptr(),
                Some(taken::<F>),
                (&raw mut take).cast(),
            )
        }
    }
}

/// C's way into a closure.
///
/// # Safety
///
/// `context` points to an `F` that is nobody else's; `bytes` are `len` that can be read.
unsafe extern "C" fn taken<F: FnMut(&[u8]) -> usize>(
    context: *mut c_void,
    bytes: *const u8,
    len: usize,
) -> usize {
    // SAFETY: By the requirement.
    let (take, bytes) = unsafe {
        (
            &mut *context.cast::<F>(),
            core::slice::from_raw_parts(bytes, len),
        )
    };
    take(bytes)
}

/// While it lives, events of a socket go to a context; whoever waits in the socket itself is woken
/// as before.
pub struct Hook<T: SocketEvents> {
    raw: NonNull<drbd_shim_sock_hook>,
    socket: Arc<TcpSocket>,
    context: Arc<T>,
}

// SAFETY: The hook is only a means to undo itself; the context is `Send` and `Sync`.
unsafe impl<T: SocketEvents> Send for Hook<T> {}
// SAFETY: See `Send`.
unsafe impl<T: SocketEvents> Sync for Hook<T> {}

impl<T: SocketEvents> Hook<T> {
    /// Sends the events of `socket` to `context` from now on. May sleep.
    ///
    /// What happened before is not told: look once after this.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` where the socket has a hook already.
    pub fn new(socket: Arc<TcpSocket>, context: Arc<T>) -> Result<Self> {
        // SAFETY: The socket is valid, and `notify::<T>` fits the context, which this keeps until
        // it has undone the hook.
        let raw = from_err_ptr(unsafe {
            drbd_bindings::drbd_shim_sock_hook(
                socket.0.as_ptr(),
                Some(notify::<T>),
                Arc::as_ptr(&context).cast_mut().cast(),
            )
        })?;
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            socket,
            context,
        })
    }

    /// The context.
    pub fn context(&self) -> &Arc<T> {
        &self.context
    }
}

impl<T: SocketEvents> Drop for Hook<T> {
    fn drop(&mut self) {
        // SAFETY: `raw` was made for this socket, and is undone once. May sleep, as may the drop
        // of the socket.
        unsafe {
            drbd_bindings::drbd_shim_sock_unhook(self.socket.0.as_ptr(), self.raw.as_ptr());
        }
    }
}

/// C's way into a context.
///
/// # Safety
///
/// `context` points to a `T`; `sk` is the hooked socket, locked.
unsafe extern "C" fn notify<T: SocketEvents>(
    context: *mut c_void,
    sk: *mut bindings::sock,
    event: c_uint,
) {
    // SAFETY: By the requirement; `Hook` keeps it until the hook is undone.
    let context = unsafe { &*context.cast_const().cast::<T>() };
    match event {
        drbd_bindings::DRBD_SHIM_SOCK_DATA_READY => {
            if let Some(sk) = NonNull::new(sk) {
                context.data_ready(Arrived {
                    sk,
                    _locked: PhantomData,
                });
            }
        }
        drbd_bindings::DRBD_SHIM_SOCK_STATE_CHANGE => context.state_change(),
        drbd_bindings::DRBD_SHIM_SOCK_WRITE_SPACE => context.write_space(),
        _ => {}
    }
}
