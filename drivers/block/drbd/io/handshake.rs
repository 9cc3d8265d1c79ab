// SPDX-License-Identifier: GPL-2.0

//! The thread `drbdN_receiver`: connects, shakes hands, receives until the connection breaks,
//! cleans up, and starts over, until the connection is StandAlone (Spec §1.3).

use drbd_engine::{
    state::{
        Change,
        ConnState, //
    },
    wire::{
        Command,
        ResizeFlags,
        UuidFlags,
        Version, //
    },
};
use drbd_sys::{
    hash::Hash,
    kthread::{
        self,
        Thread, //
    },
    log,
    reclaim::NoIoScope,
    socket::{
        Priority,
        Reader,
        Sender,
        TcpSocket,
        Timeout, //
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
        flag as connection_flag,
        Config,
        Which, //
    },
    device::{
        flag,
        Device, //
    },
    limits::{
        COMMAND_WAIT_MS,
        RECONNECT_PAUSE_MS, //
    },
    receiver::Receiver,
    resource::Resource,
    sender::{
        DataChannel,
        MetaChannel,
        NotSent, //
    },
    state::How, //
};

mod agree;
mod sockets;

/// How many bytes are received at once where a packet begins: a barrier, and what of the write
/// behind it is not data. A write without one has as many bytes of its data copied once more as a
/// barrier is long.
const LOOKAHEAD: usize = 64;

/// Why an attempt to connect ended without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Clean up and try again after a pause.
    Retry,
    /// It will not get better: the connection ends StandAlone.
    GiveUp,
    /// The state forbids it: the connection is ending already.
    Over,
}

impl From<NotSent> for Failure {
    fn from(_: NotSent) -> Self {
        Self::Retry
    }
}

/// What an established connection consists of on the receiving side.
struct Session {
    receiver: Receiver,
    asender: Thread,
}

impl Resource {
    /// Starts the receiver, which connects. May sleep; on the worker.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of creating a thread.
    pub(crate) fn start_receiver(self: &Arc<Self>) -> Result {
        self.join_receiver();
        self.connection.fill_pool()?;
        let name = CString::try_from_fmt(fmt!("drbd{}_receiver", self.lowest_minor().0))?;
        let resource = self.clone();
        let run = move |context: &kthread::Context| run(&resource, context);
        log!(Info, self, "Starting receiver thread");
        let thread = Thread::spawn(self.environment.module, &name, run)?;
        self.threads.lock().receiver = Some(thread);
        Ok(())
    }

    /// Ends the receiver, and waits for its end. May sleep; not from the receiver.
    ///
    /// The connection is StandAlone afterwards. A graceful end is a change to Disconnecting before.
    pub(crate) fn stop_receiver(&self) {
        self.ask_receiver_to_stop();
        self.join_receiver();
    }

    /// Ends the receiver as [`Self::stop_receiver`] does, but waits for `timeout_ms` at most:
    /// requests of the peer that a backing device does not answer keep it. Returns whether it has
    /// ended; it goes on ending by itself otherwise.
    pub(crate) fn stop_receiver_within(&self, timeout_ms: u32) -> bool {
        self.ask_receiver_to_stop();
        // The receiver takes the lock too, so it must not be held here.
        let Some(thread) = self.threads.lock().receiver.take() else {
            return true;
        };
        if thread.wait_finished(timeout_ms) {
            return true;
        }
        self.threads.lock().receiver = Some(thread);
        false
    }

    fn ask_receiver_to_stop(&self) {
        let running = self.threads.lock().receiver.as_ref().is_some_and(|thread| {
            thread.request_stop();
            !thread.is_finished()
        });
        if running {
            self.connection.interrupt();
            self.waiters.wake_all();
        }
    }

    fn join_receiver(&self) {
        let thread = self.threads.lock().receiver.take();
        drop(thread);
    }
}

fn run(resource: &Arc<Resource>, context: &kthread::Context) {
    let _scope = NoIoScope::enter();
    resource.enter_cpu_mask(context);
    loop {
        log!(Info, resource, "receiver (re)started");
        let mut pause = false;
        let asender = match connect(resource) {
            Ok(mut session) => {
                session.receiver.run();
                Some(session.asender)
            }
            Err(failure) => {
                pause = failure != Failure::GiveUp;
                if failure == Failure::GiveUp {
                    discard_configuration(resource);
                }
                None
            }
        };
        if context.should_stop() {
            discard_configuration(resource);
        }
        if resource.disconnect(asender) {
            break;
        }
        if pause {
            let stops = || context.should_stop();
            resource
                .waiters
                .wait_until_timeout(stops, RECONNECT_PAUSE_MS);
        }
    }
    log!(Info, resource, "receiver terminated");
    log!(Info, resource, "Terminating receiver thread");
}

fn discard_configuration(resource: &Resource) {
    log!(Warning, resource, "Discarding network configuration.");
    let how = How {
        verbose: false,
        ..How::HARD
    };
    // Refused where the connection is ending already.
    let _ = resource.change_connection(Change::conn(ConnState::Disconnecting), how);
}

/// One attempt, up to the point where packets flow.
fn connect(resource: &Arc<Resource>) -> Result<Session, Failure> {
    let connection = &resource.connection;
    connection.begin_attempt();
    connection.flags.clear(
        connection_flag::RESOLVE_CONFLICTS
            | connection_flag::SEND_PING
            | connection_flag::DRY_RUN
            | connection_flag::DISCONNECT_SENT
            | connection_flag::CONGESTED,
    );
    connection.ping_acks.store(connection.pings.load());
    let waits = Change::conn(ConnState::WFConnection);
    resource
        .change_connection(waits, How::VERBOSE)
        .map_err(|_| Failure::Over)?;
    let config = connection.config().ok_or(Failure::GiveUp)?;
    let pair = sockets::find(resource, &config)?;
    // The peer may have been waited for for hours.
    let config = connection.config().ok_or(Failure::GiveUp)?;
    if pair.resolve_conflicts {
        connection.flags.set(connection_flag::RESOLVE_CONFLICTS);
    }
    prepare(&config, &pair.data, &pair.meta);
    let mut reader = Reader::new(pair.data.clone(), LOOKAHEAD).map_err(|_| Failure::Retry)?;
    let mut sender = Sender::new(pair.data.clone()).map_err(|_| Failure::Retry)?;
    let agreement = agree::features(resource, &mut sender, &mut reader)?;
    if !config.net.cram_hmac_alg.is_empty() {
        agree::authenticate(
            resource,
            &config,
            agreement.version,
            &mut sender,
            &mut reader,
        )?;
    }
    pair.data.set_send_timeout(tenths(config.net.timeout));
    pair.data.set_receive_timeout(Timeout::Never);
    install(resource, &config, sender, pair.meta.clone())?;
    introduce(resource, &config, agreement.version)?;
    let receiver = Receiver::new(resource, reader, agreement.version, agreement.features)
        .map_err(|_| Failure::Retry)?;
    establish(resource, &config, receiver, pair.meta)
}

/// The sockets as the handshake wants them.
fn prepare(config: &Config, data: &TcpSocket, meta: &TcpSocket) {
    let net = &config.net;
    data.set_priority(Priority::InteractiveBulk);
    meta.set_priority(Priority::Interactive);
    data.set_nodelay();
    meta.set_nodelay();
    meta.hasten_acks();
    let answer = tenths(net.ping_timeo.saturating_mul(4));
    data.set_send_timeout(answer);
    data.set_receive_timeout(answer);
    meta.set_send_timeout(tenths(net.timeout));
}

/// Tenths of a second, the unit of most options, as a timeout.
fn tenths(tenths: u32) -> Timeout {
    Timeout::Ms(tenths.saturating_mul(100))
}

/// Gives everybody the sending ends.
fn install(
    resource: &Resource,
    config: &Config,
    sender: Sender,
    meta: Arc<TcpSocket>,
) -> Result<(), Failure> {
    let connection = &resource.connection;
    let mut channel = DataChannel::new(sender).map_err(|_| Failure::Retry)?;
    channel.integrity = match hash_named(config.net.integrity_alg.as_bytes()) {
        Ok(hash) => hash,
        Err(_) => {
            let name = config.net.integrity_alg;
            log!(Error, resource, "data-integrity-alg {} not supported", name);
            return Err(Failure::GiveUp);
        }
    };
    let meta = Sender::new(meta).and_then(MetaChannel::new);
    let meta = meta.map_err(|_| Failure::Retry)?;
    *connection.data.lock() = Some(channel);
    *connection.meta.lock() = Some(meta);
    Ok(())
}

/// The hash of this name, none for an empty one. May sleep.
pub(super) fn hash_named(name: &[u8]) -> Result<Option<Hash>> {
    if name.is_empty() {
        return Ok(None);
    }
    with_c_str(name, Hash::new).map(Some)
}

/// Calls `make` with a name as C wants it.
fn with_c_str<T>(name: &[u8], make: impl FnOnce(&CStr) -> Result<T>) -> Result<T> {
    let mut bytes = [0; 129];
    for (to, from) in bytes.iter_mut().take(128).zip(name) {
        *to = *from;
    }
    make(CStr::from_bytes_until_nul(&bytes).map_err(|_| EINVAL)?)
}

/// Tells the peer who we are: steps 7 to 9.
fn introduce(resource: &Arc<Resource>, config: &Config, version: Version) -> Result<(), Failure> {
    let connection = &resource.connection;
    if config.net.tentative && !version.is_at_least(92) {
        log!(Error, resource, "--dry-run is not supported by peer");
        return Err(Failure::GiveUp);
    }
    connection.take_protocol();
    resource.send_protocol(Command::Protocol)?;
    {
        // A cluster-wide change of the connection before has ended, and none begins until the
        // peer's state is known.
        let _agreement = connection.agreement.lock();
        resource.control.lock().set_state_sent();
    }
    // What fencing found out is not heeded from here on. What it did before has begun a generation
    // that the peer is told of, and no walk over the log for it goes on.
    if !resource.flush_worker_within(COMMAND_WAIT_MS) {
        return Err(Failure::Retry);
    }
    connection.in_flight_sectors.store(0);
    for device in resource.volumes() {
        if discards_own_data(resource) && !device.state().role.is_primary() {
            device.flags.set(flag::DISCARD_MY_DATA);
        } else {
            device.flags.clear(flag::DISCARD_MY_DATA);
        }
        if greet(&device).is_err() {
            // A peer that refuses us closes at once. What it said before is still to be read, and
            // tells the admin why; then the receiver finds the end.
            connection.interrupt();
            break;
        }
    }
    Ok(())
}

/// Whether the admin gave up this node's data for the connection that is about to begin. Who is
/// promoted while the peer is waited for takes that back.
fn discards_own_data(resource: &Resource) -> bool {
    let config = resource.connection.config();
    config.is_some_and(|config| config.net.discard_my_data)
}

/// Introduces a volume to the peer; also one that is added to an established connection. May sleep.
pub(crate) fn greet(device: &Arc<Device>) -> Result<(), NotSent> {
    device.reset_packet_seq();
    device.send_sync_param()?;
    device.send_sizes(false, ResizeFlags::default())?;
    device.send_uuids(UuidFlags::default())?;
    device.send_present_state()?;
    device
        .flags
        .clear(flag::USE_DEGR_WFC_TIMEOUT | flag::RESIZE_PENDING);
    Ok(())
}

/// From here on the peer's packets count: steps 10 and 11.
fn establish(
    resource: &Arc<Resource>,
    config: &Config,
    receiver: Receiver,
    meta: Arc<TcpSocket>,
) -> Result<Session, Failure> {
    let connection = &resource.connection;
    let now_ns = monotonic_ns();
    // What a disk that was let go could not flush between two connections is in neither.
    connection
        .flags
        .clear(connection_flag::FLUSH_UNSUPPORTED | connection_flag::FLUSH_FAILED);
    connection.established_ns.store(now_ns);
    connection.last_received_ns.store(now_ns);
    let reports = Change::conn(ConnState::WFReportParams);
    if resource.change_connection(reports, How::VERBOSE).is_err() {
        resource.control.lock().clear_state_sent();
        return Err(Failure::Over);
    }
    connection.flags.set(connection_flag::ASENDER_RUNS);
    let asender = super::acks::start(resource, config, meta).map_err(|error| {
        log!(Error, resource, "no asender thread: {}", error.to_errno());
        Failure::Retry
    })?;
    if discards_own_data(resource) {
        // It holds for one connection; without memory for that, for the next one, too.
        let _ = connection.edit_net(|net| net.discard_my_data = false);
    }
    Ok(Session { receiver, asender })
}

impl Resource {
    /// Whether the peer is asked what a connection would do, by this node or by itself.
    pub(crate) fn is_dry_run(&self) -> bool {
        let ours = self
            .connection
            .config()
            .is_some_and(|config| config.net.tentative);
        ours || self.connection.flags.any(connection_flag::DRY_RUN)
    }

    /// Makes the sockets visible to whoever wants to end the connection.
    fn expose_pair(&self, data: &Arc<TcpSocket>, meta: &Arc<TcpSocket>) {
        self.connection
            .expose_socket(Which::Data, Some(data.clone()));
        self.connection
            .expose_socket(Which::Meta, Some(meta.clone()));
    }
}
