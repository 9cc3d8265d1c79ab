// SPDX-License-Identifier: GPL-2.0

//! The wire between two User Mode Linux guests: passes their frames on while both cables are
//! plugged in.
//!
//! Standard input and output are the two ends, sockets that keep frames apart. On standard error
//! arrives which cables are plugged in: bytes `0` to `3`, a bit for each end. Standard library
//! only.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Larger than any frame.
const FRAME_BYTES_MAX: usize = 1 << 17;
/// How long a guest that takes no frames is waited for before they are dropped.
const PATIENCE: Duration = Duration::from_millis(100);

fn end(fd: BorrowedFd<'_>) -> io::Result<UnixDatagram> {
    Ok(UnixDatagram::from(fd.try_clone_to_owned()?))
}

fn forward(from: &UnixDatagram, to: &UnixDatagram, plugged: &AtomicBool) -> io::Result<()> {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    loop {
        let length = match from.recv(&mut frame) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if plugged.load(Ordering::Relaxed) {
            // A guest that is off or stalled loses frames, as with a real wire.
            let _ = to.send(&frame[..length]);
        }
    }
}

fn main() -> io::Result<()> {
    let (left, right) = (end(io::stdin().as_fd())?, end(io::stdout().as_fd())?);
    let control = end(io::stderr().as_fd())?;
    let plugged = Arc::new(AtomicBool::new(true));
    for (from, to) in [(&left, &right), (&right, &left)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        to.set_write_timeout(Some(PATIENCE))?;
        let plugged = plugged.clone();
        thread::spawn(move || forward(&from, &to, &plugged));
    }
    let mut order = [0; 1];
    while control.recv(&mut order)? == 1 {
        plugged.store(order[0] == b'3', Ordering::Relaxed);
    }
    Ok(())
}
