// SPDX-License-Identifier: GPL-2.0

//! Finding a pair of sockets: calls the peer and waits for its calls, as the engine's search says
//! (Spec §1.3, steps 1 to 3).

use drbd_engine::{
    handshake::sockets::{
        accept_timeout_ms,
        Alive,
        Event,
        FirstPacket,
        Newcomer,
        Next,
        SocketSetup, //
    },
    state::{
        Change,
        ConnState, //
    },
    wire::{
        header,
        Command,
        Version, //
    },
};
use drbd_sys::{
    log, random,
    socket::{
        BufferSizes,
        Sender,
        TcpListener,
        TcpSocket,
        Timeout, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    agree,
    tenths,
    Config,
    Failure,
    How,
    Resource,
    Which, //
};

/// Calls that may wait until we accept them.
const BACKLOG: u16 = 5;
/// How often it is looked whether the peer goes on.
const CHECK_NAP_MS: u32 = 50;

/// The sockets of a connection.
pub(super) struct Pair {
    pub(super) data: Arc<TcpSocket>,
    pub(super) meta: Arc<TcpSocket>,
    /// This node accepted the meta socket.
    pub(super) resolve_conflicts: bool,
}

/// The sockets found so far.
struct Search<'a> {
    resource: &'a Resource,
    config: &'a Config,
    listener: Arc<TcpListener>,
    data: Option<Arc<TcpSocket>>,
    meta: Option<Arc<TcpSocket>>,
    newcomer: Option<Arc<TcpSocket>>,
}

/// Searches until there is a pair. May sleep, for as long as the peer is away.
pub(super) fn find(resource: &Resource, config: &Config) -> Result<Pair, Failure> {
    let connection = &resource.connection;
    let mut search = Search {
        resource,
        config,
        listener: listen(resource, config)?,
        data: None,
        meta: None,
        newcomer: None,
    };
    connection.expose_listener(Some(search.listener.clone()));
    let found = search.run();
    connection.expose_socket(Which::Connecting, None);
    connection.expose_listener(None);
    found
}

fn buffers(config: &Config) -> BufferSizes {
    BufferSizes {
        send_bytes: config.net.sndbuf_size,
        receive_bytes: config.net.rcvbuf_size,
    }
}

fn listen(resource: &Resource, config: &Config) -> Result<Arc<TcpListener>, Failure> {
    let listener = TcpListener::bind(&config.local, buffers(config), BACKLOG).map_err(|error| {
        log!(
            Error,
            resource,
            "bind before listen failed, err = {}",
            error.to_errno()
        );
        disconnect(resource)
    })?;
    Arc::new(listener, GFP_KERNEL).map_err(|_| Failure::Retry)
}

/// An error that is the configuration's fault.
fn disconnect(resource: &Resource) -> Failure {
    // Refused where the connection is ending already.
    let _ = resource.change_connection(Change::conn(ConnState::Disconnecting), How::HARD);
    Failure::Over
}

/// Whether an error of calling the peer says no more than that it is not there yet.
fn is_not_yet(error: Error) -> bool {
    [
        ETIMEDOUT,
        EAGAIN,
        EINPROGRESS,
        EINTR,
        ERESTARTSYS,
        ECONNREFUSED,
        ENETUNREACH,
        EHOSTDOWN,
        EHOSTUNREACH,
    ]
    .contains(&error)
}

impl Search<'_> {
    fn run(&mut self) -> Result<Pair, Failure> {
        let (mut setup, mut next) = SocketSetup::new();
        loop {
            if self.resource.connection.is_interrupted() {
                return Err(Failure::GiveUp);
            }
            let event = match next {
                Next::Connect => self.call()?,
                Next::Accept => self.accept(),
                Next::Check => self.check(),
                Next::Done { resolve_conflicts } => return self.finish(resolve_conflicts),
            };
            let step = setup.handle(event);
            self.place(step.newcomer, matches!(event, Event::Accepted { .. }));
            next = step.next;
        }
    }

    /// Calls the peer.
    fn call(&mut self) -> Result<Event, Failure> {
        let opened = TcpSocket::open(&self.config.local, buffers(self.config));
        let socket = match opened.and_then(|socket| Ok(Arc::new(socket, GFP_KERNEL)?)) {
            Ok(socket) => socket,
            Err(error) if is_not_yet(error) => return Ok(Event::NotConnected),
            Err(error) => {
                log!(
                    Error,
                    self.resource,
                    "bind before connect failed, err = {}",
                    error.to_errno()
                );
                return Err(disconnect(self.resource));
            }
        };
        let connect_int = self.config.net.connect_int.saturating_mul(1000);
        socket.set_send_timeout(Timeout::Ms(connect_int));
        socket.set_receive_timeout(Timeout::Ms(connect_int));
        let result = self.while_exposed(&socket, |socket| socket.connect(&self.config.remote));
        match result {
            Ok(()) => {
                self.newcomer = Some(socket);
                Ok(Event::Connected)
            }
            Err(error) => {
                if !is_not_yet(error) && !self.resource.connection.is_interrupted() {
                    log!(
                        Error,
                        self.resource,
                        "connect failed, err = {}",
                        error.to_errno()
                    );
                }
                Ok(Event::NotConnected)
            }
        }
    }

    /// Waits for a call of the peer and its first packet.
    fn accept(&mut self) -> Event {
        let coin = random::u32() & 1 != 0;
        let timeout_ms = accept_timeout_ms(self.config.net.connect_int, coin);
        let timeout = Timeout::Ms(u32::try_from(timeout_ms).unwrap_or(u32::MAX));
        let accepted = self.listener.accept(timeout);
        let Ok(socket) = accepted.and_then(|(socket, _)| Ok(Arc::new(socket, GFP_KERNEL)?)) else {
            return Event::NotAccepted;
        };
        socket.set_receive_timeout(tenths(self.config.net.ping_timeo.saturating_mul(4)));
        let first = self.while_exposed(&socket, first_packet);
        self.newcomer = Some(socket);
        Event::Accepted {
            first,
            alive: self.look(),
            coin: random::u32() & 1 != 0,
        }
    }

    /// Does something with a socket that may block, so that it ends when the connection does.
    fn while_exposed<R>(&self, socket: &Arc<TcpSocket>, work: impl FnOnce(&TcpSocket) -> R) -> R {
        let connection = &self.resource.connection;
        connection.expose_socket(Which::Connecting, Some(socket.clone()));
        if connection.is_interrupted() {
            socket.shutdown();
        }
        let result = work(socket);
        connection.expose_socket(Which::Connecting, None);
        result
    }

    /// Lets some time pass, in which a socket that the peer gave up would be closed, and looks.
    ///
    /// A peer that goes on already has looked, and waits for us no longer than four of its own
    /// ping-timeouts: where ours is much longer, the two would never meet.
    fn check(&mut self) -> Event {
        let net = &self.config.net;
        let pause = if net.sock_check_timeo != 0 {
            net.sock_check_timeo
        } else {
            net.ping_timeo
        };
        let connection = &self.resource.connection;
        let naps = pause.saturating_mul(100).div_ceil(CHECK_NAP_MS);
        let _ = (0..naps).any(|_| {
            connection
                .receiver_wait
                .wait_until_timeout(|| connection.is_interrupted(), CHECK_NAP_MS)
                || self.data.as_ref().is_some_and(|socket| socket.has_bytes())
        });
        Event::Checked(self.look())
    }

    /// Which sockets live; the others are released.
    fn look(&mut self) -> Alive {
        for slot in [&mut self.data, &mut self.meta] {
            if slot.as_ref().is_some_and(|socket| !socket.is_alive()) {
                *slot = None;
            }
        }
        Alive {
            data: self.data.is_some(),
            meta: self.meta.is_some(),
        }
    }

    /// Does with the new socket what was decided.
    fn place(&mut self, newcomer: Newcomer, was_accepted: bool) {
        let socket = self.newcomer.take();
        match newcomer {
            Newcomer::None => {}
            Newcomer::CallData => {
                self.say(socket.as_ref(), Command::InitialData);
                self.data = socket;
            }
            Newcomer::CallMeta => {
                self.say(socket.as_ref(), Command::InitialMeta);
                self.meta = socket;
            }
            Newcomer::TakeData { crossed } => {
                if crossed {
                    log!(Warning, self.resource, "initial packet S crossed");
                }
                self.data = socket;
            }
            Newcomer::TakeMeta { crossed } => {
                if crossed {
                    log!(Warning, self.resource, "initial packet M crossed");
                }
                self.meta = socket;
            }
            Newcomer::Release if was_accepted => {
                log!(Warning, self.resource, "Error receiving initial packet");
            }
            Newcomer::Release => {}
        }
    }

    /// Tells the peer what a socket is for. One that does not take it will be found dead.
    fn say(&self, socket: Option<&Arc<TcpSocket>>, command: Command) {
        let Some(socket) = socket else { return };
        if let Ok(mut sender) = Sender::new(socket.clone()) {
            let _ = agree::send(self.resource, &mut sender, Version::ASSUMED, command, &[]);
        }
    }

    fn finish(&mut self, resolve_conflicts: bool) -> Result<Pair, Failure> {
        let (Some(data), Some(meta)) = (self.data.take(), self.meta.take()) else {
            return Err(Failure::Retry);
        };
        self.resource.expose_pair(&data, &meta);
        if self.resource.connection.is_interrupted() {
            return Err(Failure::GiveUp);
        }
        Ok(Pair {
            data,
            meta,
            resolve_conflicts,
        })
    }
}

/// What the first packet of an accepted socket says.
fn first_packet(socket: &TcpSocket) -> FirstPacket {
    let mut bytes = [0; header::MAX_SIZE];
    let header = bytes
        .get_mut(..header::size(Version::ASSUMED))
        .and_then(|bytes| {
            socket.recv_exact(bytes).ok()?;
            header::decode(Version::ASSUMED, bytes).ok()
        });
    FirstPacket::of(header)
}
