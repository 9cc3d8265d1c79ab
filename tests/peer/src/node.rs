// SPDX-License-Identifier: GPL-2.0

//! A node with one volume, in one thread: packets and commands in, packets out.

mod receive;
mod resync;
mod role;

use crate::disk::Disk;
use crate::link::{listen, receive, Link, Offer, Packet, Way};
use drbd_engine::state::{ConnState, DiskState, Role, State};
use drbd_engine::types::{BlockId, Sector};
use drbd_engine::wire::{
    BarrierCookie, Command, Features, Protocol, ResizeFlags, Sizes, Socket, StateWord, SyncParam,
    UuidFlags, Uuids, Version,
};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How often a node without a connection looks for its peer.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a command may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What happens to a node.
pub(crate) enum Event {
    /// A line of the shell.
    Line(String),
    /// The shell's input ended.
    End,
    /// A packet, of the connection of that number.
    Packet(u32, Socket, Packet),
    /// The connection of that number is gone.
    Closed(u32, String),
}

/// The node.
pub(crate) struct Node {
    pub(crate) disk: Disk,
    offer: Offer,
    way: Way,
    listener: Option<TcpListener>,
    protocol: u32,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// Lines of the shell that wait.
    pub(crate) lines: VecDeque<Event>,
    link: Option<Link>,
    connections: u32,
    /// The admin wants a connection.
    pub(crate) wanted: bool,
    pub(crate) conn: ConnState,
    pub(crate) role: Role,
    peer_role: Role,
    peer_disk: DiskState,
    peer_uuids: Option<Uuids>,
    peer_bitmap: Option<drbd_engine::bitmap::transfer::Receiver>,
    resync: resync::Resync,
    sequence: u32,
    /// Writes of the peer in the open epoch.
    epoch: u32,
    /// Own writes that are not acked.
    writes: HashMap<u64, (Sector, u32)>,
    next_write: u64,
    barrier: u32,
    /// Own writes since the last barrier, and whether that is acked.
    written: u32,
    barrier_pending: bool,
    /// The answer to a change of state.
    answer: Option<i32>,
    /// How long after its own state the next consent to a full sync is sent.
    pub(crate) consents_late: Option<Duration>,
    /// What the other side said of itself last.
    last_error: String,
}

impl Node {
    /// A node that is not connected.
    pub(crate) fn new(disk: Disk, offer: Offer, way: Way, protocol: u32) -> io::Result<Self> {
        let listener = match way {
            Way::Wait(at) => Some(listen(at)?),
            Way::Call(_) => None,
        };
        let (sender, events) = channel();
        Ok(Self {
            disk,
            offer,
            way,
            listener,
            protocol,
            events,
            sender,
            lines: VecDeque::new(),
            link: None,
            connections: 0,
            wanted: false,
            conn: ConnState::StandAlone,
            role: Role::Secondary,
            peer_role: Role::Unknown,
            peer_disk: DiskState::DUnknown,
            peer_uuids: None,
            peer_bitmap: None,
            resync: resync::Resync::default(),
            sequence: 0,
            epoch: 0,
            writes: HashMap::new(),
            next_write: 0x1000,
            barrier: 7,
            written: 0,
            barrier_pending: false,
            answer: None,
            consents_late: None,
            last_error: String::new(),
        })
    }

    /// Where events come in.
    pub(crate) fn events(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// What the node is like.
    pub(crate) fn state(&self) -> State {
        State {
            role: self.role,
            peer: self.peer_role,
            conn: self.conn,
            disk: self.disk.state,
            pdsk: self.peer_disk,
            ..State::NEW
        }
    }

    /// The same as a line.
    pub(crate) fn status(&self) -> String {
        let state = self.state();
        let proto = self.link.as_ref().map_or(0, |link| link.version.number());
        format!(
            "cs:{} ro:{}/{} ds:{}/{} proto:{proto} oos:{} {}",
            state.conn.name(),
            state.role.name(),
            state.peer.name(),
            state.disk.name(),
            state.pdsk.name(),
            if self.disk.size.0 == 0 {
                0
            } else {
                self.disk.dirty_bits() * 4
            },
            self.last_error,
        )
    }

    /// Handles what happens until `done` says so; whether it did in time.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while !done(self) {
            if Instant::now() > end {
                return false;
            }
            self.step(Duration::from_millis(50));
        }
        true
    }

    /// Handles one event, or lets time pass.
    pub(crate) fn step(&mut self, patience: Duration) {
        if self.wanted && self.link.is_none() {
            self.connect();
        }
        match self.events.recv_timeout(patience) {
            Ok(Event::Packet(number, socket, packet)) if number == self.connections => {
                if let Err(error) = self.receive(socket, packet) {
                    self.lose(&error.to_string());
                }
            }
            Ok(Event::Closed(number, why)) if number == self.connections => self.lose(&why),
            Ok(Event::Packet(..) | Event::Closed(..)) => {}
            Ok(line) => self.lines.push_back(line),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn connect(&mut self) {
        self.conn = ConnState::WFConnection;
        match Link::connect(self.way, self.listener.as_ref(), &self.offer) {
            Ok(link) => {
                if let Err(error) = self.begin(link) {
                    self.lose(&error.to_string());
                }
            }
            Err(error) => {
                self.last_error = error.to_string();
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Says who we are.
    fn begin(&mut self, link: Link) -> io::Result<()> {
        self.connections += 1;
        for (socket, stream) in [(Socket::Data, &link.data), (Socket::Meta, &link.meta)] {
            let mut stream = stream.try_clone()?;
            stream.set_read_timeout(None)?;
            let (version, number) = (link.version, self.connections);
            let events = self.sender.clone();
            std::thread::spawn(move || loop {
                let event = match receive(&mut stream, version) {
                    Ok(packet) => Event::Packet(number, socket, packet),
                    Err(error) => Event::Closed(number, error.to_string()),
                };
                let is_last = matches!(event, Event::Closed(..));
                if events.send(event).is_err() || is_last {
                    break;
                }
            });
        }
        self.link = Some(link);
        self.last_error.clear();
        self.conn = ConnState::WFReportParams;
        self.introduce()
    }

    fn introduce(&mut self) -> io::Result<()> {
        let protocol = Protocol {
            protocol: self.protocol,
            after_sb_0p: 0,
            after_sb_1p: 0,
            after_sb_2p: 0,
            flags: Default::default(),
            two_primaries: 0,
            integrity_algorithm: Default::default(),
        };
        let version = self.version();
        let mut bytes = [0; Protocol::MAX_SIZE];
        let length = protocol.encode(version, &mut bytes);
        self.send(Socket::Data, Command::Protocol, &[&bytes[..length]])?;
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
        self.send(
            Socket::Data,
            SyncParam::command(version),
            &[&bytes[..length]],
        )?;
        self.send_sizes()?;
        self.send_uuids()?;
        self.send_state()
    }

    fn send_sizes(&mut self) -> io::Result<()> {
        let has_limits = self.features().contains(Features::WRITE_SAME);
        let sizes = Sizes {
            disk: self.disk.max,
            user: Sector(0),
            current: self.disk.size,
            max_bio_size: self.version().max_request_size(),
            queue_order_type: 0,
            flags: ResizeFlags::default(),
            queue_limits: has_limits.then(Default::default),
        };
        let mut bytes = [0; Sizes::MAX_SIZE];
        let length = sizes.encode(&mut bytes);
        self.send(Socket::Data, Command::Sizes, &[&bytes[..length]])
    }

    fn send_uuids(&mut self) -> io::Result<()> {
        let mut flags = UuidFlags::default();
        if self.disk.was_primary {
            flags = flags.with(UuidFlags::CRASHED_PRIMARY);
        }
        if self.disk.state == DiskState::Inconsistent {
            flags = flags.with(UuidFlags::INCONSISTENT);
        }
        let uuids = Uuids {
            current: self.disk.uuids.current,
            bitmap: self.disk.uuids.bitmap,
            history: self.disk.uuids.history,
            bits_set: self.dirty_bits(),
            flags,
        };
        self.send(Socket::Data, Command::Uuids, &[&uuids.encode()])
    }

    fn send_state(&mut self) -> io::Result<()> {
        let word = StateWord(self.state().to_word());
        self.send(Socket::Data, Command::State, &[&word.encode()])
    }

    fn dirty_bits(&self) -> u64 {
        if self.disk.size.0 == 0 {
            0
        } else {
            self.disk.dirty_bits()
        }
    }

    fn send(&mut self, socket: Socket, command: Command, payload: &[&[u8]]) -> io::Result<()> {
        match &mut self.link {
            Some(link) => link.send(socket, command, payload),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "not connected")),
        }
    }

    fn version(&self) -> Version {
        self.link
            .as_ref()
            .map_or(Version::ASSUMED, |link| link.version)
    }

    fn features(&self) -> Features {
        self.link
            .as_ref()
            .map_or(Features::NONE, |link| link.features)
    }

    /// The connection is gone: a Primary that goes on alone begins a generation.
    pub(crate) fn lose(&mut self, why: &str) {
        let Some(link) = self.link.take() else { return };
        link.close();
        self.connections += 1;
        self.last_error = why.to_owned();
        let was_replicating = self.conn >= ConnState::Connected;
        self.conn = if self.wanted {
            ConnState::Unconnected
        } else {
            ConnState::StandAlone
        };
        self.peer_role = Role::Unknown;
        self.peer_disk = DiskState::DUnknown;
        self.peer_uuids = None;
        self.peer_bitmap = None;
        self.resync = resync::Resync::default();
        self.epoch = 0;
        self.written = 0;
        self.barrier_pending = false;
        let pending: Vec<_> = self.writes.drain().collect();
        for (_, (sector, size)) in pending {
            self.disk.bitmap().set_range(sector, size);
        }
        if was_replicating && self.role.is_primary() {
            self.begin_generation();
        }
        self.save();
    }

    /// A number that no other generation has.
    pub(crate) fn random() -> u64 {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos());
        let id = u128::from(std::process::id());
        ((now ^ (id << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8) as u64
    }

    pub(crate) fn begin_generation(&mut self) {
        if self.disk.uuids.bitmap == 0 && self.disk.state == DiskState::UpToDate {
            let primary = self.role.is_primary();
            self.disk.uuids.begin_generation(Self::random(), primary);
        }
    }

    pub(crate) fn save(&self) {
        if let Err(error) = self.disk.save(self.role.is_primary()) {
            eprintln!("cannot write the metadata: {error}");
        }
    }

    /// Acks of blocks share a counter with writes.
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send_ack(
        &mut self,
        command: Command,
        sector: Sector,
        size: u32,
        block_id: BlockId,
    ) -> io::Result<()> {
        let ack = drbd_engine::wire::BlockAck {
            sector,
            block_id,
            size,
            seq_num: self.next_sequence(),
        };
        self.send(Socket::Meta, command, &[&ack.encode()])
    }

    fn cookie(&self) -> BarrierCookie {
        BarrierCookie(self.barrier.to_ne_bytes())
    }
}
