// SPDX-License-Identifier: GPL-2.0

//! Waiting for connections.

use core::ptr::NonNull;
use kernel::{
    bindings,
    error::to_result,
    ffi::c_int,
    prelude::*, //
};

use super::{
    BufferSizes,
    RawSocket,
    SocketAddr,
    TcpSocket,
    Timeout, //
};

/// A listening socket.
pub struct TcpListener(RawSocket);

impl TcpListener {
    /// Listens on `address`; connections get the buffer sizes. May sleep.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`, `EADDRNOTAVAIL` and others of C.
    pub fn bind(address: &SocketAddr, buffers: BufferSizes, backlog: u16) -> Result<Self> {
        let socket = RawSocket::open(address, buffers)?;
        socket.bind(address)?;
        // SAFETY: The socket is valid.
        to_result(unsafe { bindings::kernel_listen(socket.as_ptr(), c_int::from(backlog)) })?;
        Ok(Self(socket))
    }

    /// Waits for a connection and returns it with the peer's address. May sleep.
    ///
    /// # Errors
    ///
    /// `EAGAIN` where none came in time; `EINVAL` after [`Self::shutdown`]; others of C.
    pub fn accept(&self, timeout: Timeout) -> Result<(TcpSocket, SocketAddr)> {
        self.0.set_receive_timeout(timeout);
        let mut raw = core::ptr::null_mut();
        // SAFETY: The socket is valid, `raw` is valid for writing.
        to_result(unsafe { bindings::kernel_accept(self.0.as_ptr(), &mut raw, 0) })?;
        // INVARIANT: Just accepted.
        let socket = TcpSocket(RawSocket(NonNull::new(raw).ok_or(ENOTCONN)?));
        socket.0.prepare();
        let peer = socket.peer()?;
        Ok((socket, peer))
    }

    /// Ends an `accept` that waits in another thread, and all later ones. May sleep.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}
