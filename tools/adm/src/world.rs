// SPDX-License-Identifier: GPL-2.0

//! What drbdadm needs of the machine it runs on.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};

/// The machine, as far as a command's outcome depends on it.
pub struct World<'a> {
    /// This node's name, which `on HOST` sections are compared with.
    pub host: String,
    /// Whether an address is one of this node's.
    pub is_local: fn(IpAddr) -> bool,
    /// Where output goes.
    pub out: &'a mut dyn Write,
    /// Where errors and warnings go.
    pub err: &'a mut dyn Write,
}

/// This node's name, as `uname -n` prints it.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Whether a socket can be bound to the address, which is so if it is this node's.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
