// SPDX-License-Identifier: GPL-2.0

//! Addresses of TCP sockets.

use core::mem::size_of;
use kernel::{
    bindings,
    ffi::c_int,
    fmt,
    prelude::*, //
};

/// The longest raw address this driver handles, that of IPv6.
pub const ADDRESS_BYTES_MAX: usize = size_of::<bindings::sockaddr_in6>();

const V4_BYTES: usize = size_of::<bindings::sockaddr_in>();
// CAST: The families are small numbers, which C keeps in 16 bits.
const FAMILY_V4: u16 = bindings::AF_INET as u16;
const FAMILY_V6: u16 = bindings::AF_INET6 as u16;

/// An IPv4 or IPv6 address with a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketAddr {
    /// IPv4.
    V4 {
        /// The address, in network order.
        ip: [u8; 4],
        /// The port, in host order.
        port: u16,
    },
    /// IPv6.
    V6 {
        /// The address, in network order.
        ip: [u8; 16],
        /// The port, in host order.
        port: u16,
        /// The flow information, as it came.
        flow_info: [u8; 4],
        /// The interface that a link-local address belongs to.
        scope_id: u32,
    },
}

impl SocketAddr {
    /// Reads a `struct sockaddr`, as netlink messages carry it. More bytes than the family needs
    /// are ignored. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` where `raw` is too short, `EAFNOSUPPORT` where it is neither IPv4 nor IPv6.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        let family = u16::from_ne_bytes(field(raw, 0)?);
        let port = u16::from_be_bytes(field(raw, 2)?);
        match family {
            FAMILY_V4 if raw.len() >= V4_BYTES => Ok(Self::V4 {
                ip: field(raw, 4)?,
                port,
            }),
            FAMILY_V6 => Ok(Self::V6 {
                ip: field(raw, 8)?,
                port,
                flow_info: field(raw, 4)?,
                scope_id: u32::from_ne_bytes(field(raw, 24)?),
            }),
            FAMILY_V4 => Err(EINVAL),
            _ => Err(EAFNOSUPPORT),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match *self {
            Self::V4 { port, .. } | Self::V6 { port, .. } => port,
        }
    }

    /// The same address with another port; 0 lets the kernel choose one at bind.
    pub fn with_port(mut self, new: u16) -> Self {
        match &mut self {
            Self::V4 { port, .. } | Self::V6 { port, .. } => *port = new,
        }
        self
    }

    /// Whether both have the same IP address, whatever their ports.
    pub fn is_same_host(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::V4 { ip: a, .. }, Self::V4 { ip: b, .. }) => a == b,
            (Self::V6 { ip: a, .. }, Self::V6 { ip: b, .. }) => a == b,
            _ => false,
        }
    }

    /// The address family, `AF_INET` or `AF_INET6`.
    pub fn family(&self) -> u16 {
        match self {
            Self::V4 { .. } => FAMILY_V4,
            Self::V6 { .. } => FAMILY_V6,
        }
    }

    /// The `struct sockaddr` of this address.
    pub fn to_raw(&self) -> RawAddress {
        let mut raw = RawAddress {
            bytes: [0; ADDRESS_BYTES_MAX],
            len: match self {
                Self::V4 { .. } => V4_BYTES,
                Self::V6 { .. } => ADDRESS_BYTES_MAX,
            },
        };
        raw.put(0, &self.family().to_ne_bytes());
        raw.put(2, &self.port().to_be_bytes());
        match self {
            Self::V4 { ip, .. } => raw.put(4, ip),
            Self::V6 {
                ip,
                flow_info,
                scope_id,
                ..
            } => {
                raw.put(4, flow_info);
                raw.put(8, ip);
                raw.put(24, &scope_id.to_ne_bytes());
            }
        }
        raw
    }
}

impl fmt::Display for SocketAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4 { ip, port } => {
                let [a, b, c, d] = *ip;
                f.write_fmt(fmt!("{a}.{b}.{c}.{d}:{port}"))
            }
            Self::V6 { ip, port, .. } => {
                let ip = core::net::Ipv6Addr::from(*ip);
                f.write_fmt(format_args!("[{ip}]:{port}"))
            }
        }
    }
}

/// An address as C wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct RawAddress {
    bytes: [u8; ADDRESS_BYTES_MAX],
    len: usize,
}

impl RawAddress {
    /// The bytes of the `struct sockaddr`.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// The pointer and length that C's functions take.
    pub(super) fn as_c(&mut self) -> (*mut bindings::sockaddr_unsized, c_int) {
        let len = c_int::try_from(self.len).unwrap_or(0);
        (self.bytes.as_mut_ptr().cast(), len)
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
    }
}

/// `N` bytes of `raw` from `offset`.
fn field<const N: usize>(raw: &[u8], offset: usize) -> Result<[u8; N]> {
    raw.get(offset..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(EINVAL)
}
