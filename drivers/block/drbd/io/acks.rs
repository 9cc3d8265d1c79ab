// SPDX-License-Identifier: GPL-2.0

//! The thread `drbdN_asender`: has the meta socket to itself. It receives acks, sends those of the
//! peer's requests that ended, and finds out whether the peer is alive (Spec §1.6, §1.16, §1.17).
//!
//! What says that a request is done does not wait for the thread: it is taken off the socket where
//! it arrives, in a soft interrupt, as long as the thread is not in the middle of what came before.

use drbd_engine::{
    config::NetConf,
    state::ConnState,
    timer::{
        Liveness,
        LivenessAction,
        SECOND_NS,
        TENTH_NS, //
    },
    wire::{
        header,
        Command,
        Consequence,
        Header,
        Socket, //
    },
};
use drbd_sys::{
    bits::AtomicBits32,
    kthread::{
        self,
        Thread, //
    },
    log,
    reclaim::NoIoScope,
    socket::{
        Arrived,
        Hook,
        RecvError,
        SocketEvents,
        TcpSocket, //
    },
    time::monotonic_ns, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::{
    connection::{
        flag,
        Config,
        Connection, //
    },
    receiver::ConnectionError,
    request_timer::RequestWatch,
    resource::Resource, //
};

mod dispatch;
mod settle;

pub(super) use settle::{
    ack_epochs,
    settle_done, //
};

/// Bytes of acks that are received at once.
const INBOX_BYTES: usize = 4096;
/// Acks that a soft interrupt takes at most; the thread goes on with the rest.
const SOFT_ACKS_MAX: u32 = 64;
/// The longest the thread sleeps when no deadline is near.
const SLEEP_MS_MAX: u64 = 10_000;
/// How often a ping is asked for before its ack is given up.
const PING_TRIES: u32 = 10;

/// There is something to receive for the asender: a bit of [`MetaEvents::state`].
const READY: u32 = 1 << 0;
/// The asender receives, or has received what it did not handle yet: nothing may overtake that. It
/// sets this before it locks the socket.
const RECEIVES: u32 = 1 << 1;

/// Takes acks where they arrive, and tells the asender of all else that there is to receive.
struct MetaEvents {
    resource: Arc<Resource>,
    state: AtomicBits32,
}

impl MetaEvents {
    fn wake(&self) {
        self.state.set(READY);
        self.resource.connection.asender_wait.wake_all();
    }

    fn take_acks(&self, arrived: Arrived<'_>) -> bool {
        let mut budget = SOFT_ACKS_MAX;
        let connection = &self.resource.connection;
        arrived.offer(|bytes| {
            connection.last_received_ns.store(monotonic_ns());
            dispatch::take_acks(&self.resource, bytes, &mut budget)
        })
    }
}

impl SocketEvents for MetaEvents {
    fn data_ready(&self, arrived: Arrived<'_>) {
        let took_all = !self.state.any(RECEIVES) && self.take_acks(arrived);
        if !took_all {
            self.wake();
        }
    }

    fn state_change(&self) {
        self.wake();
    }
}

/// What the thread works with.
struct Asender {
    resource: Arc<Resource>,
    socket: Arc<TcpSocket>,
    events: Hook<MetaEvents>,
    liveness: Liveness,
    watch: RequestWatch,
    inbox: KVec<u8>,
    /// Bytes at the front of the inbox that are not looked at.
    held: usize,
}

/// Starts the thread. May sleep; on the receiver, which ends it.
pub(super) fn start(
    resource: &Arc<Resource>,
    config: &Config,
    socket: Arc<TcpSocket>,
) -> Result<Thread> {
    let events = MetaEvents {
        resource: resource.clone(),
        // What came before is looked at once.
        state: AtomicBits32::new(READY | RECEIVES),
    };
    let net = &config.net;
    let (interval_ns, timeout_ns) = ping_times(net);
    let mut asender = Asender {
        resource: resource.clone(),
        events: Hook::new(socket.clone(), Arc::new(events, GFP_KERNEL)?)?,
        socket,
        liveness: Liveness::new(interval_ns, timeout_ns, monotonic_ns()),
        watch: RequestWatch::new(net),
        inbox: KVec::from_elem(0, INBOX_BYTES, GFP_KERNEL)?,
        held: 0,
    };
    let name = CString::try_from_fmt(fmt!("drbd{}_asender", resource.lowest_minor().0))?;
    log!(Info, resource, "Starting asender thread");
    Thread::spawn(resource.environment.module, &name, move |context| {
        asender.run(context)
    })
}

/// `ping-int` and `ping-timeout` in nanoseconds.
fn ping_times(net: &NetConf) -> (u64, u64) {
    (
        u64::from(net.ping_int).saturating_mul(SECOND_NS),
        u64::from(net.ping_timeo).saturating_mul(TENTH_NS),
    )
}

impl Asender {
    fn run(&mut self, context: &kthread::Context) {
        let _scope = NoIoScope::enter();
        context.set_fifo_low();
        let mut cpu_mask_changes = None;
        while !context.should_stop() && !self.resource.connection.is_interrupted() {
            let changes = self.resource.cpu_mask_changes.load();
            if cpu_mask_changes != Some(changes) {
                cpu_mask_changes = Some(changes);
                self.resource.enter_cpu_mask(context);
            }
            if self.turn().is_err() {
                self.resource.lose_connection(ConnState::NetworkFailure);
                break;
            }
            self.sleep(context);
        }
        log!(Info, self.resource, "asender terminated");
        log!(Info, self.resource, "Terminating asender thread");
    }

    /// Does what there is to do.
    fn turn(&mut self) -> Result<(), ConnectionError> {
        if self.events.context().state.clear(READY) & READY != 0 {
            self.receive()?;
        }
        if !self.resource.connection.done.is_empty() {
            settle_done(&self.resource);
        }
        self.follow_options();
        self.keep_alive()?;
        self.watch.look(&self.resource)
    }

    /// Takes the options over if they were changed.
    fn follow_options(&mut self) {
        let connection = &self.resource.connection;
        if !connection.flags.any(flag::CONFIG_CHANGED) {
            return;
        }
        connection.flags.clear(flag::CONFIG_CHANGED);
        if let Some(config) = connection.config() {
            let (interval_ns, timeout_ns) = ping_times(&config.net);
            self.liveness.set_options(interval_ns, timeout_ns);
            self.watch.set_options(&config.net);
        }
    }

    fn sleep(&self, context: &kthread::Context) {
        let connection = &self.resource.connection;
        let now_ns = monotonic_ns();
        let due_ns = self.liveness.deadline().min(self.watch.deadline_ns());
        let left_ms = due_ns.saturating_sub(now_ns) / 1_000_000;
        let sleep_ms = u32::try_from(left_ms.min(SLEEP_MS_MAX)).unwrap_or(u32::MAX);
        connection.asender_wait.wait_until_timeout(
            || {
                self.events.context().state.any(READY)
                    || !connection.done.is_empty()
                    || connection.flags.any(flag::SEND_PING | flag::CONFIG_CHANGED)
                    || connection.is_interrupted()
                    || context.should_stop()
            },
            sleep_ms.saturating_add(1),
        );
    }

    /// Pings when it is time, or wanted.
    fn keep_alive(&mut self) -> Result<(), ConnectionError> {
        let connection = &self.resource.connection;
        if connection.flags.clear(flag::SEND_PING) & flag::SEND_PING != 0 {
            self.liveness.request_ping();
        }
        self.liveness
            .on_received(connection.last_received_ns.load());
        match self.liveness.poll(monotonic_ns()) {
            None => Ok(()),
            Some(LivenessAction::SendPing) => {
                // Counted first: whoever waits for the next one has sent before it what that is
                // about.
                connection.pings.update(|count| count.saturating_add(1));
                self.send(Command::Ping)
            }
            Some(LivenessAction::PeerDead) => {
                log!(Error, self.resource, "PingAck did not arrive in time.");
                Err(ConnectionError)
            }
        }
    }

    fn send(&self, command: Command) -> Result<(), ConnectionError> {
        let sent = self.resource.send_meta(Default::default(), command, &[]);
        sent.map_err(|_| ConnectionError)
    }

    /// Receives and handles everything that is there.
    fn receive(&mut self) -> Result<(), ConnectionError> {
        let events = self.events.context().clone();
        events.state.set(RECEIVES);
        self.receive_all()?;
        if self.held == 0 {
            // What came meanwhile has woken the thread.
            events.state.clear(RECEIVES);
        }
        Ok(())
    }

    fn receive_all(&mut self) -> Result<(), ConnectionError> {
        loop {
            let room = self.inbox.get_mut(self.held..).unwrap_or(&mut []);
            let room_bytes = room.len();
            match self.socket.try_recv(room) {
                Ok(count) => {
                    let was_all = count < room_bytes;
                    self.held = self.held.saturating_add(count);
                    let now_ns = monotonic_ns();
                    self.liveness.on_received(now_ns);
                    self.handle_all(now_ns)?;
                    if was_all {
                        // Whatever came since says so itself.
                        return Ok(());
                    }
                }
                Err(RecvError::TimedOut { .. }) => return Ok(()),
                Err(error) => return self.lost(error),
            }
        }
    }

    /// Handles the packets that are complete, and keeps the rest.
    fn handle_all(&mut self, now_ns: u64) -> Result<(), ConnectionError> {
        let inbox = core::mem::take(&mut self.inbox);
        let bytes = inbox.get(..self.held).unwrap_or(&[]);
        let result = self.handle(bytes, now_ns);
        self.inbox = inbox;
        let used = result?;
        self.inbox.copy_within(used..self.held, 0);
        self.held = self.held.saturating_sub(used);
        Ok(())
    }

    /// Handles packets; returns how many bytes they had.
    fn handle(&mut self, bytes: &[u8], now_ns: u64) -> Result<usize, ConnectionError> {
        let connection = &self.resource.connection;
        let (version, features) = (connection.version(), connection.features());
        let header_size = header::size(version);
        let mut rest = bytes;
        while let Some((front, payload)) = rest.split_at_checked(header_size) {
            let header = header::decode(version, front).map_err(|error| {
                log!(Error, self.resource, "{}", error);
                ConnectionError
            })?;
            let admitted = header.admit(Socket::Meta, version, features);
            let (command, _) = admitted.map_err(|error| {
                log!(Error, self.resource, "{}", error);
                if error.consequence() == Consequence::Disconnecting {
                    self.resource.lose_connection(ConnState::Disconnecting);
                }
                ConnectionError
            })?;
            // No packet of this socket is longer than its rule's fixed part.
            let length = usize::try_from(header.length).map_err(|_| ConnectionError)?;
            let Some((payload, next)) = payload.split_at_checked(length) else {
                break;
            };
            self.packet(command, &header, payload, now_ns)?;
            rest = next;
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    fn packet(
        &mut self,
        command: Command,
        header: &Header,
        payload: &[u8],
        now_ns: u64,
    ) -> Result<(), ConnectionError> {
        match command {
            Command::Ping => self.send(Command::PingAck),
            Command::PingAck => {
                self.liveness.on_ping_ack(now_ns);
                let connection = &self.resource.connection;
                connection.ping_acks.update(|count| count.saturating_add(1));
                self.resource.waiters.wake_all();
                Ok(())
            }
            _ => dispatch::dispatch(&self.resource, command, header.volume, payload),
        }
    }

    /// The socket is of no use any more.
    fn lost(&self, error: RecvError) -> Result<(), ConnectionError> {
        let connection = &self.resource.connection;
        if connection.is_interrupted() {
            return Err(ConnectionError);
        }
        if connection.flags.any(flag::DISCONNECT_SENT) {
            // The peer closes after it agreed to disconnect; our own state follows in a moment.
            let timeout = connection
                .config()
                .map_or(5, |config| config.net.ping_timeo);
            let ends = || connection.is_interrupted();
            if connection
                .asender_wait
                .wait_until_timeout(ends, timeout.saturating_mul(100))
            {
                return Err(ConnectionError);
            }
        }
        match error {
            RecvError::Failed(error) => {
                log!(
                    Error,
                    self.resource,
                    "sock_recvmsg returned {}",
                    error.to_errno()
                );
            }
            _ => log!(Error, self.resource, "meta connection shut down by peer."),
        }
        Err(ConnectionError)
    }
}

impl Connection {
    /// Asks for a ping. Any context.
    pub(crate) fn request_ping(&self) {
        self.flags.set(flag::SEND_PING);
        self.asender_wait.wake_all();
    }

    /// Remembers whether the data socket is congested. Any context.
    pub(crate) fn set_congested(&self, congested: bool) {
        if congested != self.flags.any(flag::CONGESTED) {
            if congested {
                self.flags.set(flag::CONGESTED);
            } else {
                self.flags.clear(flag::CONGESTED);
            }
        }
    }

    /// Whether digests of the data are sent with it. Any context.
    pub(crate) fn has_integrity(&self) -> bool {
        self.config()
            .is_some_and(|config| !config.net.integrity_alg.is_empty())
    }
}

impl Resource {
    /// Asks the peer for a sign of life, and waits for it: what was sent to it on the meta socket
    /// before, it has received by then. A ping that was under way does not count.
    ///
    /// Returns whether it came; where it did not the connection is gone, or on its way out. May
    /// sleep; not from the asender.
    pub(crate) fn ping_peer(&self) -> bool {
        let connection = &self.connection;
        let timeout = connection
            .config()
            .map_or(5, |config| config.net.ping_timeo);
        let wait_ms = timeout.saturating_mul(100).saturating_add(1000);
        let wanted = connection.pings.load().saturating_add(1);
        let is_answered = || connection.ping_acks.load() >= wanted;
        for _ in 0..PING_TRIES {
            connection.request_ping();
            let ended = self
                .waiters
                .wait_until_timeout(|| is_answered() || connection.is_interrupted(), wait_ms);
            if ended {
                return is_answered() && !connection.is_interrupted();
            }
            if !connection.flags.any(flag::ASENDER_RUNS) {
                return false;
            }
        }
        log!(Error, self, "the peer does not answer pings");
        self.lose_connection(ConnState::NetworkFailure);
        false
    }
}
