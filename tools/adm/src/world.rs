// SPDX-License-Identifier: GPL-2.0

//! What drbdadm needs of the machine it runs on.

use if_addrs::{get_if_addrs, Interface};
use std::io::Write;
use std::net::IpAddr;

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

/// Whether an interface of this node has the address. That a socket can be bound to it says less:
/// where `ip_nonlocal_bind` is set any can.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    let has_it = |interfaces: Vec<Interface>| interfaces.iter().any(|one| one.ip() == ip);
    ip.is_loopback() || get_if_addrs().is_ok_and(has_it)
}
