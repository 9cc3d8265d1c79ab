// SPDX-License-Identifier: GPL-2.0

//! Ends of a connection: as the admin writes them, as netlink carries them, as `show` prints them.

use crate::failure::{Failure, Outcome};
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{socket, AddressFamily, SocketType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

/// The port of an address that names none.
const DEFAULT_PORT: u16 = 7788;
const FAMILY_INET: u16 = 2;
const FAMILY_INET6: u16 = 10;

/// Reads `[ipv4:|ipv6:]ADDRESS[:PORT]`; an IPv6 address stands in brackets. A host name is looked
/// up.
pub fn parse(text: &str) -> Outcome<SocketAddr> {
    let (family, rest) = match text.split_once(':') {
        Some((family @ ("ipv4" | "ipv6"), rest)) => (Some(family), rest),
        Some((family @ ("ssocks" | "sdp"), _)) => {
            let text = format!("address family '{family}' is not supported, use ipv4 or ipv6");
            return Err(Failure::new(20, text));
        }
        _ => (None, text),
    };
    let address = match rest.strip_prefix('[') {
        Some(rest) => parse_ipv6(rest),
        None => parse_ipv4(rest),
    }?;
    let fits = match family {
        Some("ipv4") => address.is_ipv4(),
        Some("ipv6") => address.is_ipv6(),
        _ => true,
    };
    if fits {
        Ok(address)
    } else {
        let family = family.unwrap_or_default();
        Err(Failure::new(20, format!("'{rest}' is no {family} address")))
    }
}

fn parse_ipv6(rest: &str) -> Outcome<SocketAddr> {
    let invalid = || Failure::new(20, format!("unexpected ipv6 format: [{rest}"));
    let (address, after) = rest.split_once(']').ok_or_else(invalid)?;
    let port = match after.strip_prefix(':') {
        Some(port) => parse_port(port)?,
        None if after.is_empty() => DEFAULT_PORT,
        None => return Err(invalid()),
    };
    let (address, scope) = match address.split_once('%') {
        Some((address, scope)) => (address, scope_id(scope)?),
        None => (address, 0),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
    Ok(SocketAddrV6::new(address, port, 0, scope).into())
}

fn parse_ipv4(rest: &str) -> Outcome<SocketAddr> {
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (rest, DEFAULT_PORT),
    };
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(SocketAddrV4::new(address, port).into());
    }
    let unknown = || Failure::new(20, format!("can not resolve the hostname: '{host}'"));
    let mut found = (host, port).to_socket_addrs().map_err(|_| unknown())?;
    found.find(SocketAddr::is_ipv4).ok_or_else(unknown)
}

fn parse_port(text: &str) -> Outcome<u16> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        Failure::new(
            20,
            format!("'{text}' is not a port, must be from 1 to 65535"),
        )
    })
}

fn scope_id(scope: &str) -> Outcome<u32> {
    if let Ok(index) = scope.parse() {
        return Ok(index);
    }
    let any = socket(AddressFamily::INET6, SocketType::DGRAM, None);
    any.and_then(|socket| name_to_index(socket, scope))
        .map_err(|error| Failure::new(20, format!("network interface '{scope}': {error}")))
}

/// The address as `struct sockaddr_in` or `struct sockaddr_in6`.
pub fn to_bytes(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => {
            let family = FAMILY_INET.to_ne_bytes();
            [&family, &port, &v4.ip().octets()[..], &[0; 8]].concat()
        }
        SocketAddr::V6(v6) => {
            let family = FAMILY_INET6.to_ne_bytes();
            let flow = v6.flowinfo().to_ne_bytes();
            let scope = v6.scope_id().to_ne_bytes();
            [&family, &port, &flow[..], &v6.ip().octets(), &scope].concat()
        }
    }
}

/// The address in a `struct sockaddr`, if it is one of the internet.
pub fn from_bytes(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        FAMILY_INET => {
            let octets: [u8; 4] = *rest.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V4(octets.into()), port))
        }
        FAMILY_INET6 => {
            let (flow, rest) = rest.split_first_chunk()?;
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            let scope = rest
                .first_chunk()
                .map_or(0, |scope| u32::from_ne_bytes(*scope));
            let address = Ipv6Addr::from(*octets);
            Some(SocketAddrV6::new(address, port, u32::from_ne_bytes(*flow), scope).into())
        }
        _ => None,
    }
}

/// The address as `show` prints it: `ipv4 192.0.2.1:7788`.
pub fn shown(bytes: &[u8]) -> String {
    match from_bytes(bytes) {
        Some(SocketAddr::V4(v4)) => format!("ipv4 {v4}"),
        Some(SocketAddr::V6(v6)) => {
            let scope = match v6.scope_id() {
                0 => String::new(),
                index => format!("%{}", scope_name(index)),
            };
            format!("ipv6 [{}{scope}]:{}", v6.ip(), v6.port())
        }
        None => format!("[unknown address, len={}]", bytes.len()),
    }
}

fn scope_name(index: u32) -> String {
    let any = socket(AddressFamily::INET6, SocketType::DGRAM, None);
    any.and_then(|socket| index_to_name(socket, index))
        .unwrap_or_else(|_| index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_a_sockaddr() {
        for text in ["192.0.2.1:7789", "[2001:db8::1]:7788", "[fe80::1%1]:80"] {
            let address = parse(text).unwrap();
            let bytes = to_bytes(address);
            assert_eq!(bytes.len(), if address.is_ipv4() { 16 } else { 28 });
            assert_eq!(from_bytes(&bytes), Some(address));
        }
    }

    #[test]
    fn a_sockaddr_has_the_bytes_of_the_recording() {
        let recorded = b"\x1e\x6d\xc0\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00";
        let bytes = to_bytes(parse("ipv4:192.0.2.1:7789").unwrap());
        assert_eq!(bytes[2..], recorded[..]);
        assert_eq!(bytes[..2], 2u16.to_ne_bytes());
    }

    #[test]
    fn the_port_may_be_left_away() {
        assert_eq!(parse("192.0.2.1").unwrap().port(), 7788);
        assert_eq!(parse("ipv6:[::1]").unwrap().port(), 7788);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let wrong = [
            "192.0.2.1:99999",
            "192.0.2.1:0",
            "[::1",
            "[::1]7",
            "[x]:1",
            "ipv6:192.0.2.1",
            "sdp:192.0.2.1",
        ];
        for text in wrong {
            assert_eq!(parse(text).unwrap_err().exit(), 20, "{text}");
        }
    }

    #[test]
    fn addresses_are_shown_with_their_family() {
        assert_eq!(
            shown(&to_bytes(parse("192.0.2.1:7").unwrap())),
            "ipv4 192.0.2.1:7"
        );
        assert_eq!(shown(&to_bytes(parse("[::1]:7").unwrap())), "ipv6 [::1]:7");
        assert_eq!(shown(&[1]), "[unknown address, len=1]");
    }
}
