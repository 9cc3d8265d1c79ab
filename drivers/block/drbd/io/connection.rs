// SPDX-License-Identifier: GPL-2.0

//! The connection of a resource: its configuration, what was agreed with the peer, the sockets and
//! the transfer log.

use drbd_engine::{
    config::{
        text::Bytes,
        NetConf,
        Protocol, //
    },
    epoch::{
        Epoch,
        Epochs,
        WriteOrdering, //
    },
    state::State,
    transfer_log::{
        Entry,
        TransferLog, //
    },
    wire::{
        Features,
        Version, //
    },
};
use drbd_sys::{
    bits::{
        AtomicBits32,
        AtomicBits64, //
    },
    log::Limit,
    new_wait_queue,
    page,
    random,
    socket::{
        SocketAddr,
        TcpListener,
        TcpSocket, //
    },
    wait::WaitQueue, //
};
use kernel::{
    alloc::KBox,
    new_mutex, new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};

use super::{
    checksums::Checksums,
    device::{
        Counter,
        Device,
        Gauge, //
    },
    fifo::Fifo,
    limits::{
        EPOCHS_MAX,
        PEER_REQUESTS_MAX,
        REQUESTS_MAX, //
    },
    peer_request::PeerRequest,
    sender::{
        DataChannel,
        MetaChannel, //
    },
};

/// Facts about a connection that are one bit each; see [`Connection::flags`].
pub(crate) mod flag {
    /// This node accepted the meta socket: it decides when both want the same thing.
    pub(crate) const RESOLVE_CONFLICTS: u32 = 1 << 0;
    /// A ping was asked for.
    pub(crate) const SEND_PING: u32 = 1 << 1;
    /// The peer only wants to know what a connection would do.
    pub(crate) const DRY_RUN: u32 = 1 << 3;
    /// We asked the peer to let us disconnect, or told it so.
    pub(crate) const DISCONNECT_SENT: u32 = 1 << 4;
    /// The peer's answer to a state change: it agrees.
    pub(crate) const CHANGE_ACCEPTED: u32 = 1 << 5;
    /// The peer's answer to a state change: it refuses.
    pub(crate) const CHANGE_REFUSED: u32 = 1 << 6;
    /// The peer's answer to a state change: a change of its own comes first.
    pub(crate) const CHANGE_CONCURRENT: u32 = 1 << 14;
    /// A change that the peer is asked for is under way.
    pub(crate) const CHANGING: u32 = 1 << 16;
    /// An answer to a state change is awaited.
    pub(crate) const CHANGE_PENDING: u32 = 1 << 7;
    /// The asender runs: a stalled send is worth a ping.
    pub(crate) const ASENDER_RUNS: u32 = 1 << 8;
    /// The data socket takes more than 80 % of its buffer.
    pub(crate) const CONGESTED: u32 = 1 << 9;
    /// The previous read that a policy could choose a node for went to the peer.
    pub(crate) const LAST_READ_REMOTE: u32 = 1 << 10;
    /// The sockets were shut down: nobody may wait for the peer any more.
    pub(crate) const INTERRUPTED: u32 = 1 << 11;
    /// A backing device cannot flush.
    pub(crate) const FLUSH_UNSUPPORTED: u32 = 1 << 12;
    /// A backing device did not flush what the peer wrote: that it is on stable storage must not be
    /// told over this connection any more.
    pub(crate) const FLUSH_FAILED: u32 = 1 << 13;
    /// The configuration was replaced, and the asender has not looked at it yet.
    pub(crate) const CONFIG_CHANGED: u32 = 1 << 15;
}

/// What CONNECT configured. Replaced as a whole, never changed in place.
pub(crate) struct Config {
    /// The options.
    pub(crate) net: NetConf,
    /// This node's address as the tools gave it.
    pub(crate) my_address: Bytes<128>,
    /// The peer's address as the tools gave it.
    pub(crate) peer_address: Bytes<128>,
    /// This node's address.
    pub(crate) local: SocketAddr,
    /// The peer's address.
    pub(crate) remote: SocketAddr,
}

impl Config {
    /// The same connection with other options.
    pub(crate) fn with_net(&self, net: NetConf) -> Self {
        Self {
            net,
            my_address: self.my_address,
            peer_address: self.peer_address,
            local: self.local,
            remote: self.remote,
        }
    }
}

/// The log over its own slots.
pub(crate) type Log = TransferLog<KVVec<Entry>>;

/// What can be shut down to wake whoever is blocked in it.
#[derive(Default)]
struct Interruptible {
    listener: Option<Arc<TcpListener>>,
    connecting: Option<Arc<TcpSocket>>,
    data: Option<Arc<TcpSocket>>,
    meta: Option<Arc<TcpSocket>>,
}

/// Which socket is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Being connected.
    Connecting,
    /// The data socket.
    Data,
    /// The meta socket.
    Meta,
}

/// A resource's connection.
#[pin_data]
pub(crate) struct Connection {
    #[pin]
    config: SpinLockIrq<Option<Arc<Config>>>,
    /// Held by whoever replaces it, from the look at the one before.
    #[pin]
    config_change: Mutex<()>,
    version: AtomicBits32,
    features: AtomicBits32,
    /// The protocol that new requests are sent with.
    protocol: AtomicBits32,
    /// `max-buffers` where it limits the application's bios.
    max_bios: AtomicBits32,
    /// A set of [`flag`].
    pub(crate) flags: AtomicBits32,
    /// What is told of a peer whose requests are refused while it stays connected.
    pub(crate) refusals: Limit,
    /// Requests in the order of submission. Publishing a state takes this lock, so requests are
    /// routed by the state they entered in.
    #[pin]
    pub(crate) log: SpinLockIrq<Log>,
    /// Sectors on their way to the peer.
    pub(crate) in_flight_sectors: AtomicBits64,
    #[pin]
    interruptible: SpinLockIrq<Interruptible>,
    /// The sending end of the data socket.
    #[pin]
    pub(crate) data: Mutex<Option<DataChannel>>,
    /// The sending end of the meta socket.
    #[pin]
    pub(crate) meta: Mutex<Option<MetaChannel>>,
    /// Epochs of the peer's writes.
    #[pin]
    pub(crate) epochs: SpinLockIrq<Epochs<KVVec<Epoch>>>,
    /// How the order of the peer's writes is kept: a number of `WriteOrdering`.
    ordering: AtomicBits32,
    /// Requests of the peer that ended and are to be acked.
    #[pin]
    pub(crate) done: Fifo<KBox<PeerRequest>>,
    /// Requests of the target for blocks in use, which the worker tries again; they hold neither
    /// memory for data nor the disk.
    #[pin]
    pub(crate) aside: Fifo<KBox<PeerRequest>>,
    /// Requests of the peer that are free.
    #[pin]
    pub(crate) idle: Fifo<KBox<PeerRequest>>,
    /// The asender waits here.
    #[pin]
    pub(crate) asender_wait: WaitQueue,
    /// The receiver waits here for memory, epochs and ranges.
    #[pin]
    pub(crate) receiver_wait: WaitQueue,
    /// When anything was received last.
    pub(crate) last_received_ns: AtomicBits64,
    /// Pings that were sent, of all connections.
    pub(super) pings: AtomicBits64,
    /// Those of them that were answered, or never will be as their connection is gone.
    pub(super) ping_acks: AtomicBits64,
    /// How often the peer was about to be given up, see [`super::request_timer`].
    pub(crate) slow_answers: Counter,
    /// When the connection was established last.
    pub(crate) established_ns: AtomicBits64,
    /// When the peer answered a discard or zeroes last: it erases one range after another.
    pub(crate) erasure_answered_ns: AtomicBits64,
    /// 1 once the requests of the peer were allocated.
    pub(super) pool_filled: AtomicBits32,
    /// Requests of the peer in progress.
    pub(crate) peer_requests: Gauge,
    /// Flushes of backing devices that the receiver waits for.
    pub(crate) flushes: Gauge,
    /// How often connecting began; whoever waits for the peer's answer gives up when this steps on.
    pub(crate) attempts: AtomicBits32,
    /// Digests of blocks, for verify and resync.
    #[pin]
    pub(super) checksums: Mutex<Checksums>,
    /// One walk over the transfer log at a time.
    #[pin]
    pub(crate) walk: Mutex<()>,
    /// Pages for what the peer sends.
    pub(crate) pages: page::Pool,
    /// The limit to them: `max-buffers`.
    pub(crate) account: page::Account,
    /// One cluster-wide change at a time.
    #[pin]
    pub(crate) agreement: Mutex<()>,
}

/// Buffers that are available when memory is short.
const PAGE_RESERVE: u32 = 32;
/// `max-buffers` where nothing is configured, in pages.
const PAGES_DEFAULT: usize = 2048;
/// `max-epoch-size` where nothing is configured.
const EPOCH_SIZE_DEFAULT: u32 = 2048;

impl Connection {
    /// A connection without configuration. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let mut slots = KVVec::with_capacity(REQUESTS_MAX, GFP_KERNEL)?;
            slots.resize(REQUESTS_MAX, Entry::default(), GFP_KERNEL)?;
            let log = TransferLog::new(slots, random::u32(), EPOCH_SIZE_DEFAULT);
            let mut open = KVVec::with_capacity(EPOCHS_MAX, GFP_KERNEL)?;
            open.resize(EPOCHS_MAX, Epoch::default(), GFP_KERNEL)?;
            let epochs = Epochs::new(open);
            Ok(try_pin_init!(Self {
                config <- new_spinlock_irq!(None, "drbd_net_conf"),
                config_change <- new_mutex!((), "drbd_net_conf_change"),
                version: AtomicBits32::new(0),
                features: AtomicBits32::new(0),
                protocol: AtomicBits32::new(protocol_number(Protocol::C)),
                max_bios: AtomicBits32::new(u32::MAX),
                flags: AtomicBits32::new(0),
                refusals: Limit::new(),
                log <- new_spinlock_irq!(log, "drbd_log"),
                in_flight_sectors: AtomicBits64::new(0),
                interruptible <- new_spinlock_irq!(Interruptible::default(), "drbd_sockets"),
                data <- new_mutex!(None, "drbd_data"),
                meta <- new_mutex!(None, "drbd_meta_socket"),
                epochs <- new_spinlock_irq!(epochs, "drbd_epochs"),
                ordering: AtomicBits32::new(ordering_number(WriteOrdering::Flush)),
                done <- Fifo::new(PEER_REQUESTS_MAX),
                // Whoever takes one out always has room to put it back.
                aside <- Fifo::new(PEER_REQUESTS_MAX),
                idle <- Fifo::new(PEER_REQUESTS_MAX),
                asender_wait <- new_wait_queue!("drbd_asender"),
                receiver_wait <- new_wait_queue!("drbd_receiver"),
                last_received_ns: AtomicBits64::new(0),
                pings: AtomicBits64::new(0),
                ping_acks: AtomicBits64::new(0),
                slow_answers: Counter::default(),
                established_ns: AtomicBits64::new(0),
                erasure_answered_ns: AtomicBits64::new(0),
                pool_filled: AtomicBits32::new(0),
                peer_requests: Gauge::default(),
                flushes: Gauge::default(),
                attempts: AtomicBits32::new(0),
                checksums <- new_mutex!(Checksums::default(), "drbd_checksums"),
                walk <- new_mutex!((), "drbd_walk"),
                pages: page::Pool::new(PAGE_RESERVE)?,
                account: page::Account::new(PAGES_DEFAULT)?,
                agreement <- new_mutex!((), "drbd_agreement"),
            }))
        })
    }

    /// The configuration, while there is one. Any context.
    pub(crate) fn config(&self) -> Option<Arc<Config>> {
        self.config.lock().clone()
    }

    /// Replaces the configuration. May sleep.
    pub(crate) fn set_config(&self, config: Option<Arc<Config>>) {
        let _one_change = self.config_change.lock();
        self.store_config(config);
    }

    /// Changes the options, with the protocol that new requests are sent with. Whether there were
    /// any to be changed. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; nothing has changed then.
    #[inline(never)] // All net options are on its stack.
    pub(crate) fn edit_net(&self, edit: impl FnOnce(&mut NetConf)) -> Result<bool> {
        let _one_change = self.config_change.lock();
        let Some(config) = self.config() else {
            return Ok(false);
        };
        let mut net = config.net.clone();
        edit(&mut net);
        let protocol = net.wire_protocol;
        let changed = Arc::new(config.with_net(net), GFP_KERNEL)?;
        self.store_config(Some(changed));
        self.set_protocol(protocol);
        Ok(true)
    }

    /// Has new requests sent with the protocol that the options have now. May sleep.
    pub(crate) fn take_protocol(&self) {
        let _one_change = self.config_change.lock();
        if let Some(config) = self.config() {
            self.set_protocol(config.net.wire_protocol);
        }
    }

    fn store_config(&self, config: Option<Arc<Config>>) {
        if let Some(config) = &config {
            let pages = usize::try_from(config.net.max_buffers).unwrap_or(PAGES_DEFAULT);
            self.account.set_limit(pages);
            self.log
                .lock()
                .set_max_epoch_size(config.net.max_epoch_size);
        }
        let max_bios = config
            .as_ref()
            .map_or(u32::MAX, |config| config.net.max_buffers);
        self.max_bios.store(max_bios);
        let old = core::mem::replace(&mut *self.config.lock(), config);
        drop(old);
        self.flags.set(flag::CONFIG_CHANGED);
        self.asender_wait.wake_all();
    }

    /// The most bios that the application may have under way on a device. Any context.
    pub(crate) fn max_bios(&self) -> u32 {
        self.max_bios.load()
    }

    /// Whether packets that are there together may be sent together: the option `tcp-cork`. Any
    /// context.
    pub(crate) fn corks(&self) -> bool {
        self.config().is_some_and(|config| config.net.tcp_cork)
    }

    /// The agreed protocol version; the one assumed before any was agreed. Any context.
    pub(crate) fn version(&self) -> Version {
        Version::new(self.version.load()).unwrap_or(Version::ASSUMED)
    }

    /// The agreed features. Any context.
    pub(crate) fn features(&self) -> Features {
        Features::from_bits(self.features.load())
    }

    /// Stores what the handshake agreed upon.
    pub(crate) fn set_agreed(&self, version: Version, features: Features) {
        self.version.store(version.number());
        self.features.store(features.bits());
    }

    /// The protocol that new requests are sent with. Any context.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.protocol.load() {
            1 => Protocol::A,
            2 => Protocol::B,
            _ => Protocol::C,
        }
    }

    /// Changes the protocol of new requests.
    pub(crate) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol_number(protocol));
    }

    /// How the order of the peer's writes is kept. Any context.
    pub(crate) fn ordering(&self) -> WriteOrdering {
        match self.ordering.load() {
            0 => WriteOrdering::None,
            1 => WriteOrdering::Drain,
            _ => WriteOrdering::Flush,
        }
    }

    /// Changes how the order of the peer's writes is kept; whether that is something new.
    pub(crate) fn set_ordering(&self, ordering: WriteOrdering) -> bool {
        let number = ordering_number(ordering);
        self.ordering.update(|_| number).0 != number
    }

    /// Stores a device's state. Requests are routed under the same lock. For `io::state` alone.
    pub(super) fn publish(&self, device: &Device, new: State) {
        let log = self.log.lock();
        device.publish(new);
        drop(log);
    }

    /// Ends the current epoch of our writes. Any context.
    pub(crate) fn close_epoch(&self) -> bool {
        self.log.lock().close_epoch()
    }

    /// Remembers a socket that somebody may block in.
    pub(crate) fn expose_socket(&self, which: Which, socket: Option<Arc<TcpSocket>>) {
        let mut exposed = self.interruptible.lock();
        let place = match which {
            Which::Connecting => &mut exposed.connecting,
            Which::Data => &mut exposed.data,
            Which::Meta => &mut exposed.meta,
        };
        let old = core::mem::replace(place, socket);
        drop(exposed);
        drop(old);
    }

    /// Remembers a listener that somebody may block in.
    pub(crate) fn expose_listener(&self, listener: Option<Arc<TcpListener>>) {
        let old = core::mem::replace(&mut self.interruptible.lock().listener, listener);
        drop(old);
    }

    /// Whether the previous read went to the peer. Any context.
    pub(crate) fn last_read_was_remote(&self) -> bool {
        self.flags.any(flag::LAST_READ_REMOTE)
    }

    /// Remembers where a read went. Any context.
    pub(crate) fn note_read(&self, remote: bool) {
        if remote != self.last_read_was_remote() {
            self.flags.update(|flags| flags ^ flag::LAST_READ_REMOTE);
        }
    }

    /// A new attempt to connect begins.
    pub(crate) fn begin_attempt(&self) {
        self.attempts.update(|attempts| attempts.wrapping_add(1));
        self.account.reopen();
        self.flags.clear(flag::INTERRUPTED);
    }

    /// Whether nobody may wait for the peer any more. Any context.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.flags.any(flag::INTERRUPTED)
    }

    /// Wakes whoever waits for the peer: all sockets are shut down. May sleep.
    ///
    /// The receiver takes it back ([`Self::begin_attempt`]) when it starts over.
    pub(crate) fn interrupt(&self) {
        self.flags.set(flag::INTERRUPTED);
        self.account.close();
        let exposed = self.interruptible.lock();
        let listener = exposed.listener.clone();
        let sockets = [
            exposed.connecting.clone(),
            exposed.data.clone(),
            exposed.meta.clone(),
        ];
        drop(exposed);
        if let Some(listener) = listener {
            listener.shutdown();
        }
        for socket in sockets.into_iter().flatten() {
            socket.shutdown();
        }
        self.asender_wait.wake_all();
        self.receiver_wait.wake_all();
    }
}

const fn protocol_number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::A => 1,
        Protocol::B => 2,
        Protocol::C => 3,
    }
}

const fn ordering_number(ordering: WriteOrdering) -> u32 {
    match ordering {
        WriteOrdering::None => 0,
        WriteOrdering::Drain => 1,
        WriteOrdering::Flush => 2,
    }
}
