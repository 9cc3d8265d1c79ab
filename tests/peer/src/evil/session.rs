// SPDX-License-Identifier: GPL-2.0

//! One connection, from the first byte to the end that the module makes of it.

use super::craft::{self, Crafted, Seen, Terms};
use super::rng::Rng;
use crate::link::{call, packet, Link, Offer, Way};
use drbd_engine::state::{ConnState, DiskState, Role, State};
use drbd_engine::types::Sector;
use drbd_engine::wire::{
    header, Barrier, BarrierAck, BlockRequest, Command, ConnectionFeatures, Data, Features,
    Protocol, ResizeFlags, Sizes, Socket, StateWord, SyncParam, SyncUuid, UuidFlags, Uuids,
    Version,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// A step to the stage that is aimed at takes no longer.
const STEP: Duration = Duration::from_secs(5);
/// So long the module may take to notice the end of a session.
const NOTICE: Duration = Duration::from_millis(250);
/// Names of packets that are remembered.
const REMEMBERED: usize = 16;

/// Where a session misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Instead of the first packets.
    Sockets,
    /// Instead of the features.
    Features,
    /// In the authentication, or instead of it.
    Authentication,
    /// Before or while the parameters are exchanged.
    Parameters,
    Connected,
    /// The module is to receive a bitmap first.
    BitmapTarget,
    SyncUuid,
    Target,
    /// The module has sent its bitmap.
    BitmapSource,
    Source,
}

const STAGES: [Stage; 14] = [
    Stage::Sockets,
    Stage::Features,
    Stage::Authentication,
    Stage::Parameters,
    Stage::Parameters,
    Stage::Connected,
    Stage::Connected,
    Stage::Connected,
    Stage::BitmapTarget,
    Stage::SyncUuid,
    Stage::Target,
    Stage::Target,
    Stage::BitmapSource,
    Stage::Source,
];

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Features => "features",
            Self::Authentication => "authentication",
            Self::Parameters => "parameters",
            Self::Connected => "connected",
            Self::BitmapTarget => "bitmap target",
            Self::SyncUuid => "sync uuid",
            Self::Target => "sync target",
            Self::BitmapSource => "bitmap source",
            Self::Source => "sync source",
        }
    }
}

/// A resource of the module.
pub(crate) struct Target {
    to: SocketAddrV4,
    /// It wants to know who calls.
    secret: Option<String>,
    /// It puts digests in front of data.
    integrity: bool,
}

impl Target {
    /// The resource of that number; see the test for how each is configured.
    pub(crate) fn new(first: SocketAddrV4, number: u16) -> Self {
        Self {
            to: SocketAddrV4::new(*first.ip(), first.port() + number),
            secret: (number % 4 == 1).then(|| "evil".to_owned()),
            integrity: number % 4 == 2,
        }
    }
}

/// What became of a session.
pub(crate) struct Outcome {
    pub(crate) stage: &'static str,
    pub(crate) version: u32,
    pub(crate) packets: u64,
    /// The module ended it.
    pub(crate) was_dropped: bool,
    /// Both sockets were there and features agreed on, so the module has to begin anew.
    pub(crate) was_established: bool,
    pub(crate) last: Vec<String>,
}

/// A session.
pub(crate) struct Session {
    rng: Rng,
    stage: Stage,
    offer: Offer,
    integrity: bool,
    to: SocketAddrV4,
    link: Option<Link>,
    inbox: [Vec<u8>; 2],
    seen: Seen,
    packets: u64,
    is_gone: bool,
    last: Vec<String>,
}

impl Session {
    /// Connects as far as the stage goes that the numbers choose.
    pub(crate) fn open(target: &Target, mut rng: Rng) -> io::Result<Self> {
        let stage = rng.pick(&STAGES);
        let number = if rng.one_in(3) {
            86 + rng.below(16) as u32
        } else {
            101
        };
        let features = if rng.one_in(3) {
            Features::from_bits(rng.below(16) as u32)
        } else {
            Features::OURS
        };
        let mut session = Self {
            rng,
            stage,
            offer: Offer {
                version: Version::new(number).unwrap_or(Version::MAX),
                features: if number >= 100 {
                    features
                } else {
                    Features::NONE
                },
                secret: target.secret.clone(),
            },
            integrity: target.integrity,
            to: target.to,
            link: None,
            inbox: [Vec::new(), Vec::new()],
            seen: Seen::default(),
            packets: 0,
            is_gone: false,
            last: Vec::new(),
        };
        if matches!(
            stage,
            Stage::Sockets | Stage::Features | Stage::Authentication
        ) {
            // Whether it listens is found out there.
            drop(call(session.to, Command::InitialData)?);
        } else {
            let link = Link::connect(Way::Call(session.to), None, &session.offer)?;
            link.data.set_nonblocking(true)?;
            link.meta.set_nonblocking(true)?;
            session.link = Some(link);
        }
        Ok(session)
    }

    /// Misbehaves. Whatever fails ends the session.
    pub(crate) fn run(&mut self) {
        // An error is the module that has had enough.
        let _ = match self.stage {
            Stage::Sockets => self.sockets(),
            Stage::Features => self.features(),
            Stage::Authentication => self.authentication(),
            _ => self.established(),
        };
    }

    /// Ends it, if the module has not.
    pub(crate) fn end(mut self) -> Outcome {
        if !self.is_gone && self.link.is_some() {
            self.pump(NOTICE, |_| false);
        }
        let was_dropped = self.is_gone;
        if let Some(link) = &self.link {
            link.close();
        }
        Outcome {
            stage: self.stage.name(),
            version: self.offer.version.number(),
            packets: self.packets,
            was_dropped,
            was_established: self.link.is_some(),
            last: self.last,
        }
    }

    /// First packets that are none, sockets that are too many or too few.
    fn sockets(&mut self) -> io::Result<()> {
        let mut open = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            self.packets += 1;
            let mut socket = TcpStream::connect(self.to)?;
            let bytes = match self.rng.below(6) {
                0 => Vec::new(),
                1 => self.rng.bytes(8),
                2 => packet(Version::ASSUMED, Command::InitialMeta, &[]),
                3 => packet(Version::ASSUMED, Command::InitialData, &[b"more"]),
                4 => packet(Version::MAX, Command::InitialData, &[]),
                _ => packet(Version::ASSUMED, Command::InitialData, &[])[..4].to_vec(),
            };
            socket.write_all(&bytes)?;
            open.push(socket);
            std::thread::sleep(Duration::from_millis(self.rng.below(100)));
        }
        Ok(())
    }

    fn pair(&mut self) -> io::Result<(TcpStream, TcpStream)> {
        let data = call(self.to, Command::InitialData)?;
        let meta = call(self.to, Command::InitialMeta)?;
        Ok((data, meta))
    }

    /// Features that are none.
    fn features(&mut self) -> io::Result<()> {
        let (mut data, _meta) = self.pair()?;
        self.packets += 1;
        let offer = ConnectionFeatures {
            protocol_min: self.rng.pick(&[0, 86, 102, 110, u32::MAX]),
            protocol_max: self.rng.pick(&[0, 85, 101, 122, u32::MAX]),
            feature_flags: self.rng.next() as u32,
        };
        let bytes = match self.rng.below(5) {
            0 => packet(
                Version::ASSUMED,
                Command::ConnectionFeatures,
                &[&offer.encode()[..71]],
            ),
            1 => packet(
                Version::MAX,
                Command::ConnectionFeatures,
                &[&offer.encode()],
            ),
            2 => packet(Version::ASSUMED, Command::Data, &[&offer.encode()]),
            3 => self.rng.bytes(80),
            _ => packet(
                Version::ASSUMED,
                Command::ConnectionFeatures,
                &[&offer.encode()],
            ),
        };
        data.write_all(&bytes)?;
        data.read_to_end(&mut Vec::new()).map(|_| ())
    }

    /// Challenges and answers of all kinds.
    fn authentication(&mut self) -> io::Result<()> {
        let secret = self.offer.secret.take();
        let link = Link::connect(Way::Call(self.to), None, &self.offer);
        self.offer.secret = secret;
        let mut data = link?.data;
        let version = self.offer.version;
        for _ in 0..1 + self.rng.below(4) {
            self.packets += 1;
            let length = self.rng.pick(&[0, 1, 20, 63, 64, 65, 128, 129, 4000]);
            let content = self.rng.bytes(length);
            let command = self.rng.pick(&[
                Command::AuthChallenge,
                Command::AuthResponse,
                Command::AuthChallenge,
                Command::Protocol,
                Command::State,
            ]);
            data.write_all(&packet(version, command, &[&content]))?;
        }
        let mut start = vec![0; 1000];
        data.read(&mut start).map(|_| ())
    }

    fn terms(&self) -> Terms {
        Terms {
            version: self.offer.version,
            features: self
                .link
                .as_ref()
                .map_or(Features::NONE, |link| link.features),
            digest: if self.integrity { 20 } else { 0 },
        }
    }

    fn established(&mut self) -> io::Result<()> {
        if self.stage == Stage::Parameters {
            let before = self.rng.below(3);
            self.misbehave(before)?;
        }
        self.approach()?;
        let packets = 1 + self.rng.below(60);
        self.misbehave(packets)?;
        if self.rng.one_in(6) {
            // One socket is left open, or both, in the middle of a packet.
            let terms = self.terms();
            let crafted = craft::packet(&mut self.rng, &self.seen, terms);
            let cut = self.rng.below(crafted.bytes.len() as u64) as usize;
            self.write(crafted.socket, &crafted.bytes[..cut])?;
            if let Some(link) = &self.link {
                let socket = if self.rng.one_in(2) {
                    &link.data
                } else {
                    &link.meta
                };
                socket.shutdown(std::net::Shutdown::Write)?;
            }
        }
        Ok(())
    }

    fn misbehave(&mut self, packets: u64) -> io::Result<()> {
        let terms = self.terms();
        for number in 0..packets {
            let Crafted {
                socket,
                bytes,
                name,
            } = craft::packet(&mut self.rng, &self.seen, terms);
            if self.last.len() >= REMEMBERED {
                self.last.remove(0);
            }
            self.last.push(name);
            self.packets += 1;
            self.write(socket, &bytes)?;
            let patience = if number % 8 == 7 { 30 } else { 0 };
            self.pump(Duration::from_millis(patience), |_| false);
            if self.is_gone {
                return Err(ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Behaves until the module is where the stage wants it.
    fn approach(&mut self) -> io::Result<()> {
        self.pump(STEP, |seen| seen.has(Command::State));
        if self.is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.greet()?;
        let conn = |seen: &Seen| {
            State::from_word(seen.state).map_or(ConnState::StandAlone, |state| state.conn)
        };
        match self.stage {
            Stage::Parameters | Stage::Connected => {}
            Stage::BitmapTarget => self.pump(NOTICE, |_| false),
            Stage::SyncUuid | Stage::Target => {
                self.send_bitmap()?;
                self.pump(NOTICE, |seen| {
                    seen.has(Command::Bitmap) || seen.has(Command::CompressedBitmap)
                });
                if self.stage == Stage::Target {
                    let uuid = SyncUuid(self.rng.next() | 2).encode();
                    self.send(Socket::Data, Command::SyncUuid, &uuid)?;
                    self.pump(STEP, |seen| !seen.asked.is_empty());
                }
            }
            Stage::BitmapSource | Stage::Source => {
                self.pump(NOTICE, |seen| {
                    seen.has(Command::Bitmap) || seen.has(Command::CompressedBitmap)
                });
                if self.stage == Stage::Source {
                    self.send_bitmap()?;
                    self.pump(STEP, |seen| {
                        seen.has(Command::SyncUuid) || conn(seen) == ConnState::SyncSource
                    });
                }
            }
            Stage::Sockets | Stage::Features | Stage::Authentication => {}
        }
        Ok(())
    }

    /// Says who we are, so that the module goes where the stage is.
    fn greet(&mut self) -> io::Result<()> {
        let version = self.offer.version;
        let integrity: &[u8] = if self.integrity { b"sha1" } else { b"" };
        let protocol = Protocol {
            protocol: 3,
            after_sb_0p: 0,
            after_sb_1p: 0,
            after_sb_2p: 0,
            flags: Default::default(),
            two_primaries: 0,
            integrity_algorithm: drbd_engine::wire::AlgorithmName::new(
                &[integrity, b"\0"].concat(),
            )
            .unwrap_or_default(),
        };
        let mut bytes = [0; Protocol::MAX_SIZE];
        let length = protocol.encode(version, &mut bytes);
        self.send(Socket::Data, Command::Protocol, &bytes[..length])?;
        let rates = SyncParam {
            resync_rate_kib: 250 * 1024,
            verify_algorithm: Default::default(),
            csums_algorithm: Default::default(),
            controller: version
                .is_at_least(95)
                .then_some(drbd_engine::wire::Controller {
                    plan_ahead_ds: 0,
                    delay_target_ds: 10,
                    fill_target_sectors: 0,
                    max_rate_kib: 100 * 1024,
                }),
        };
        let mut bytes = [0; SyncParam::MAX_SIZE];
        let length = rates.encode(version, &mut bytes);
        self.send(Socket::Data, SyncParam::command(version), &bytes[..length])?;
        let has_limits = self.terms().features.contains(Features::WRITE_SAME);
        let sizes = Sizes {
            disk: Sector(self.seen.capacity),
            user: Sector(0),
            current: Sector(self.seen.capacity),
            max_bio_size: version.max_request_size(),
            queue_order_type: 0,
            flags: ResizeFlags::default(),
            queue_limits: has_limits.then(Default::default),
        };
        let mut bytes = [0; Sizes::MAX_SIZE];
        let length = sizes.encode(&mut bytes);
        self.send(Socket::Data, Command::Sizes, &bytes[..length])?;
        let own = self.seen.uuids.unwrap_or_default();
        let as_source = matches!(
            self.stage,
            Stage::BitmapTarget | Stage::SyncUuid | Stage::Target
        );
        let as_target = matches!(self.stage, Stage::BitmapSource | Stage::Source);
        let uuids = Uuids {
            current: if as_source {
                self.rng.next()
            } else {
                own.current
            },
            bitmap: if as_source { own.current } else { 0 },
            history: own.history,
            bits_set: 17,
            flags: UuidFlags::default(),
        };
        self.send(Socket::Data, Command::Uuids, &uuids.encode())?;
        let module = State::from_word(self.seen.state).unwrap_or(State::NEW);
        let same = if module.disk == DiskState::Inconsistent {
            DiskState::Inconsistent
        } else {
            DiskState::UpToDate
        };
        let state = State {
            role: Role::Secondary,
            conn: ConnState::WFReportParams,
            disk: match (as_source, as_target) {
                (true, _) => DiskState::UpToDate,
                (_, true) => DiskState::Inconsistent,
                _ => same,
            },
            ..State::NEW
        };
        self.send(
            Socket::Data,
            Command::State,
            &StateWord(state.to_word()).encode(),
        )
    }

    /// A bitmap with some bits set, the right way.
    fn send_bitmap(&mut self) -> io::Result<()> {
        let words = self.seen.capacity.div_ceil(8).div_ceil(64) as usize;
        let room = (4096 - header::size(self.offer.version)) / 8;
        let mut left = words;
        while left > 0 {
            let now = left.min(room);
            let mut bytes = self.rng.bytes(now * 8);
            left -= now;
            if left == 0 {
                // Nothing beyond the end.
                let tail = bytes.len() - 8;
                bytes[tail..].fill(0);
            }
            self.send(Socket::Data, Command::Bitmap, &bytes)?;
        }
        self.send(Socket::Data, Command::Bitmap, &[])
    }

    fn send(&mut self, socket: Socket, command: Command, payload: &[u8]) -> io::Result<()> {
        let bytes = packet(self.offer.version, command, &[payload]);
        self.write(socket, &bytes)
    }

    /// Writes all of it, reading meanwhile, as a peer must.
    fn write(&mut self, socket: Socket, mut bytes: &[u8]) -> io::Result<()> {
        let end = Instant::now() + STEP;
        while !bytes.is_empty() {
            let Some(link) = &mut self.link else {
                return Err(ErrorKind::NotConnected.into());
            };
            match link.socket(socket).write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pump(Duration::from_millis(10), |_| false);
                    if Instant::now() > end {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => {
                    self.is_gone = true;
                    return Err(error);
                }
            }
            if self.is_gone {
                return Err(ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Reads what comes, until `enough` says so.
    fn pump(&mut self, patience: Duration, enough: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + patience;
        loop {
            let got = self.read(Socket::Data) | self.read(Socket::Meta);
            if self.is_gone || enough(&self.seen) || Instant::now() >= end {
                return;
            }
            if !got {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Reads what is there on a socket; whether anything was.
    fn read(&mut self, socket: Socket) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let mut bytes = [0; 16384];
        match link.socket(socket).read(&mut bytes) {
            Ok(0) => self.is_gone = true,
            Ok(count) => {
                self.inbox[socket as usize].extend_from_slice(&bytes[..count]);
                self.parse(socket);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.is_gone = true,
        }
        false
    }

    fn parse(&mut self, socket: Socket) {
        let version = self.offer.version;
        let size = header::size(version);
        loop {
            let inbox = &mut self.inbox[socket as usize];
            let Some(front) = inbox.get(..size) else {
                return;
            };
            let Ok(header) = header::decode(version, front) else {
                inbox.clear();
                return;
            };
            let end = size + header.length as usize;
            if inbox.len() < end {
                return;
            }
            let payload: Vec<u8> = inbox.drain(..end).skip(size).collect();
            if let Some(command) = Command::from_u16(header.command) {
                self.note(command, &payload);
            }
        }
    }

    fn note(&mut self, command: Command, payload: &[u8]) {
        let seen = &mut self.seen;
        *seen.counts.entry(command.number()).or_default() += 1;
        match command {
            Command::Sizes => {
                if let Ok(sizes) = Sizes::decode(payload) {
                    seen.capacity = sizes.current.0.max(sizes.disk.0);
                }
            }
            Command::Uuids => seen.uuids = Uuids::decode(payload).ok().or(seen.uuids),
            Command::State => {
                seen.state = StateWord::decode(payload).map_or(0, |state| state.0);
            }
            Command::Data => {
                if let Ok(data) = Data::decode(&payload[..Data::SIZE.min(payload.len())]) {
                    let size = payload.len().saturating_sub(Data::SIZE) as u32;
                    let size = if self.integrity {
                        size.saturating_sub(20)
                    } else {
                        size
                    };
                    seen.requests.push((data.block_id.0, data.sector.0, size));
                    seen.writes += 1;
                }
            }
            Command::DataRequest => {
                if let Ok(request) = BlockRequest::decode(payload) {
                    seen.requests
                        .push((request.block_id.0, request.sector.0, request.size));
                }
            }
            Command::RsDataRequest | Command::RsThinRequest => {
                if let Ok(request) = BlockRequest::decode(payload) {
                    seen.asked.push((request.sector.0, request.size));
                }
            }
            Command::Barrier => {
                if let Ok(barrier) = Barrier::decode(payload) {
                    seen.barriers
                        .push((barrier.cookie.0, std::mem::take(&mut seen.writes)));
                    self.ack_barrier();
                }
            }
            Command::Ping => {
                // An error shows at the next read.
                let _ = self.send(Socket::Meta, Command::PingAck, &[]);
            }
            Command::StateChangeRequest | Command::ConnStateChangeRequest => {
                let reply = if command == Command::StateChangeRequest {
                    Command::StateChangeReply
                } else {
                    Command::ConnStateChangeReply
                };
                let _ = self.send(Socket::Meta, reply, &1i32.to_be_bytes());
            }
            _ => {}
        }
    }

    /// Half of the barriers get their ack, so that the module's writes go on.
    fn ack_barrier(&mut self) {
        if let (true, Some((cookie, set_size))) =
            (self.rng.one_in(2), self.seen.barriers.last().copied())
        {
            let cookie = drbd_engine::wire::BarrierCookie(cookie);
            let ack = BarrierAck { cookie, set_size }.encode();
            // An error shows at the next read.
            let _ = self.send(Socket::Meta, Command::BarrierAck, &ack);
        }
    }
}

impl Seen {
    fn has(&self, command: Command) -> bool {
        self.counts.contains_key(&command.number())
    }
}
