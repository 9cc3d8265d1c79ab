// SPDX-License-Identifier: GPL-2.0

//! The two sockets of a connection, and packets on them.

use drbd_engine::types::VolumeNr;
use drbd_engine::wire::{header, Command, ConnectionFeatures, Features, Socket, Version};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long the other side may take for a step of the handshake.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer payloads are taken for nonsense.
const PAYLOAD_MAX: u32 = 2 << 20;

/// A packet as it came in.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Its command, if that is a known one.
    pub(crate) command: Option<Command>,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
}

/// What this side offers.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// The newest version that it speaks.
    pub(crate) version: Version,
    /// Its features.
    pub(crate) features: Features,
    /// Who else knows it, with SHA-1.
    pub(crate) secret: Option<String>,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// This side calls the other one there.
    Call(SocketAddrV4),
    /// This side waits there.
    Wait(SocketAddrV4),
}

/// Two sockets on which packets may flow.
pub(crate) struct Link {
    pub(crate) data: TcpStream,
    pub(crate) meta: TcpStream,
    pub(crate) version: Version,
    pub(crate) features: Features,
    /// This side accepted the meta socket, and decides conflicts.
    pub(crate) resolves_conflicts: bool,
}

/// The bytes of a packet.
pub(crate) fn packet(version: Version, command: Command, payload: &[&[u8]]) -> Vec<u8> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let mut front = [0; header::MAX_SIZE];
    let size = header::encode(version, VolumeNr(0), command, length, &mut front);
    let mut bytes = front[..size].to_vec();
    for part in payload {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Receives a packet.
pub(crate) fn receive(from: &mut impl Read, version: Version) -> io::Result<Packet> {
    let mut front = [0; header::MAX_SIZE];
    let front = &mut front[..header::size(version)];
    from.read_exact(front)?;
    let header = header::decode(version, front).map_err(|error| nonsense(&error.to_string()))?;
    if header.length > PAYLOAD_MAX {
        return Err(nonsense("a payload without end"));
    }
    let mut payload = vec![0; header.length as usize];
    from.read_exact(&mut payload)?;
    Ok(Packet {
        command: Command::from_u16(header.command),
        payload,
    })
}

/// An error of what came in.
pub(crate) fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Calls, and says what the socket is for.
pub(crate) fn call(to: SocketAddrV4, command: Command) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&SocketAddr::V4(to), Duration::from_secs(5))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(&packet(Version::ASSUMED, command, &[]))?;
    Ok(socket)
}

/// A pair of sockets, data first, and whether the second was accepted.
fn pair(way: Way, listener: Option<&TcpListener>) -> io::Result<(TcpStream, TcpStream, bool)> {
    match (way, listener) {
        (Way::Call(to), _) => {
            let data = call(to, Command::InitialData)?;
            Ok((data, call(to, Command::InitialMeta)?, false))
        }
        (Way::Wait(_), Some(listener)) => accept_pair(listener),
        (Way::Wait(_), None) => Err(nonsense("nobody listens")),
    }
}

/// Waits until the other side has called twice; later calls replace earlier ones.
fn accept_pair(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream, bool)> {
    let (mut data, mut meta) = (None, None);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let Ok((mut socket, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            if data.is_none() && meta.is_none() {
                break;
            }
            continue;
        };
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        match receive(&mut socket, Version::ASSUMED)?.command {
            Some(Command::InitialData) => data = Some(socket),
            Some(Command::InitialMeta) => meta = Some(socket),
            other => return Err(nonsense(&format!("first packet {other:?}"))),
        }
        if let (Some(data), Some(meta)) = (&data, &meta) {
            return Ok((data.try_clone()?, meta.try_clone()?, true));
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nobody called"))
}

/// A listener that does not block.
pub(crate) fn listen(at: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddrV4::new(
        Ipv4Addr::from(at.ip().octets()),
        at.port(),
    ))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Link {
    /// Connects, agrees on a version and proves who is who.
    pub(crate) fn connect(
        way: Way,
        listener: Option<&TcpListener>,
        offer: &Offer,
    ) -> io::Result<Self> {
        let (mut data, meta, accepted) = pair(way, listener)?;
        let (version, features) = agree(&mut data, offer)?;
        let mut link = Self {
            data,
            meta,
            version,
            features,
            resolves_conflicts: accepted,
        };
        if let Some(secret) = &offer.secret {
            link.prove(secret)?;
        }
        Ok(link)
    }

    fn prove(&mut self, secret: &str) -> io::Result<()> {
        let ours = *b"a challenge of sixty-four bytes that no other node would send...";
        self.send(Socket::Data, Command::AuthChallenge, &[&ours])?;
        let theirs = receive(&mut self.data, self.version)?;
        if theirs.command != Some(Command::AuthChallenge) {
            return Err(nonsense("no challenge"));
        }
        let answer = digest(secret, &theirs.payload);
        self.send(Socket::Data, Command::AuthResponse, &[&answer])?;
        let response = receive(&mut self.data, self.version)?;
        if response.payload != digest(secret, &ours) {
            return Err(nonsense("the other side does not know the secret"));
        }
        Ok(())
    }

    /// Sends a packet.
    pub(crate) fn send(
        &mut self,
        socket: Socket,
        command: Command,
        payload: &[&[u8]],
    ) -> io::Result<()> {
        let bytes = packet(self.version, command, payload);
        self.socket(socket).write_all(&bytes)
    }

    /// One of the sockets.
    pub(crate) fn socket(&mut self, socket: Socket) -> &mut TcpStream {
        match socket {
            Socket::Data => &mut self.data,
            Socket::Meta => &mut self.meta,
        }
    }

    /// Ends both.
    pub(crate) fn close(&self) {
        // They may be closed.
        let _ = self.data.shutdown(Shutdown::Both);
        let _ = self.meta.shutdown(Shutdown::Both);
    }
}

/// HMAC-SHA1 of bytes.
pub(crate) fn digest(secret: &str, bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

/// Exchanges features; what is common.
fn agree(data: &mut TcpStream, offer: &Offer) -> io::Result<(Version, Features)> {
    let ours = ConnectionFeatures {
        protocol_min: Version::MIN.number(),
        protocol_max: offer.version.number(),
        feature_flags: offer.features.bits(),
    };
    data.write_all(&packet(
        Version::ASSUMED,
        Command::ConnectionFeatures,
        &[&ours.encode()],
    ))?;
    let answer = receive(data, Version::ASSUMED)?;
    if answer.command != Some(Command::ConnectionFeatures) {
        return Err(nonsense("no features"));
    }
    let theirs = ConnectionFeatures::decode(&answer.payload)
        .map_err(|error| nonsense(&error.to_string()))?;
    let newest = theirs.protocol_max.min(offer.version.number());
    let version = Version::new(newest).ok_or_else(|| nonsense("no common version"))?;
    let features = offer
        .features
        .common(Features::from_bits(theirs.feature_flags));
    Ok((version, features))
}
