// SPDX-License-Identifier: GPL-2.0

//! One node: the module's shell in miniature, around the real engine. One resource, one volume.
//!
//! Each file stands for the file of that name in `drivers/block/drbd/io/` and keeps its order of
//! calls; that order is what is tested.

pub mod acks;
pub mod admin;
pub mod after;
pub mod attach;
pub mod bitmap_exchange;
pub mod disk;
pub mod disk_error;
pub mod handshake;
pub mod peer_request;
pub mod receiver;
pub mod request;
pub mod resync;
pub mod sender;
pub mod state;
pub mod submit;
pub mod worker;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use drbd_engine::config::{OnIoError, Protocol};
use drbd_engine::epoch::{Epoch, Epochs};
use drbd_engine::handshake::uuid_compare::UuidSet;
use drbd_engine::range::{Node as RangeNode, RangeTable};
use drbd_engine::state::{ConnState, DiskState, Flags, Role, State};
use drbd_engine::timer::Liveness;
use drbd_engine::transfer_log::{Entry, TransferLog};

use crate::canary::Canary;
use crate::drive::Drive;
use crate::net::{Net, Session};
use crate::oracle::Oracle;
use crate::sim::{Owner, Sim};

/// Slots of the transfer log.
const REQUESTS_MAX: usize = 64;
/// Ranges of the range table.
const RANGES_MAX: usize = 128;
/// Open epochs.
const EPOCHS_MAX: usize = 4;

/// What stays the same during a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The protocol of both nodes.
    pub protocol: Protocol,
    /// Whether the metadata share the disk with the data.
    pub internal_metadata: bool,
    /// Slots of the activity log.
    pub al_slots: usize,
    /// Sectors of the volume.
    pub capacity_sectors: u64,
    /// The largest epoch.
    pub max_epoch_size: u32,
    /// What an error of the disk does.
    pub on_io_error: OnIoError,
    /// The deliberate bug, if there is one.
    pub canary: Option<Canary>,
}

impl Config {
    /// Whether this deliberate bug is wanted.
    pub fn has(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }
}

/// What outlives a crash.
#[derive(Clone)]
pub struct Hardware {
    /// Holds the data.
    pub data: Rc<Drive>,
    /// Holds the metadata; may be the same.
    pub meta: Rc<Drive>,
}

/// What is known of the peer's side.
#[derive(Clone, Copy, Debug)]
pub struct PeerUuids {
    /// The generations.
    pub set: UuidSet,
    /// Its set bits.
    pub bits: u64,
    /// The flags that came with them.
    pub flags: u64,
}

/// Facts that are one bit each.
#[derive(Default)]
pub struct NodeFlags {
    /// This node crashed as Primary.
    pub crashed_primary: Cell<bool>,
    /// The handshake is to be run again.
    pub consider_resync: Cell<bool>,
    /// The admin gave up this node's data.
    pub discard_my_data: Cell<bool>,
    /// A new generation is due when I/O goes on.
    pub new_current_uuid: Cell<bool>,
    /// The sockets were shut down: nobody may wait for the peer.
    pub interrupted: Cell<bool>,
    /// A ping was answered.
    pub got_ping_ack: Cell<bool>,
    /// A cluster-wide change is under way.
    pub agreement: Cell<bool>,
    /// The peer's answer to it.
    pub change_answer: Cell<Option<i32>>,
    /// The failed disk is unused, let it go.
    pub go_diskless: Cell<bool>,
    /// Start the resync as source.
    pub start_source: Cell<bool>,
    /// The resync may be at its end.
    pub resync_done: Cell<bool>,
    /// New generations that must be on disk before the application may write.
    pub generations_due: Cell<u32>,
    /// The peer refused us, or we the peer, for a split brain.
    pub split_brain: Cell<bool>,
    /// The disks have nothing in common.
    pub unrelated: Cell<bool>,
    /// The peer may know of blocks out of sync that the bitmap does not tell of.
    pub bitmap_distrusted: Cell<bool>,
    /// The disk failed, and the worker has not judged it yet.
    pub disk_unjudged: Cell<bool>,
    /// The metadata could not be written, and the worker has not judged that yet.
    pub metadata_unjudged: Cell<bool>,
    /// The disk failed to read or to write data: the worker decides about it.
    pub disk_failed: Cell<bool>,
    /// A write failed on this disk since the resync began.
    pub resync_doubted: Cell<bool>,
    /// The disk failed to read.
    pub was_read_error: Cell<bool>,
    /// The disk did not take what another disk has.
    pub lacks_data: Cell<bool>,
    /// The metadata could not be written: the worker decides about the disk.
    pub metadata_failed: Cell<bool>,
    /// A flush failed of what the peer wrote in this session.
    pub flush_failed: Cell<bool>,
    /// An epoch of the peer's writes ended whose ack may be due.
    pub epoch_ended: Cell<bool>,
}

/// A change of state whose deferred effects are due.
#[derive(Clone, Copy, Debug)]
pub struct Change<T> {
    /// Before.
    pub old: T,
    /// After.
    pub new: T,
    /// Whether writes wait until its effects are carried out.
    pub holds_writes: bool,
    /// The peer is to be sent UUIDs and state first.
    pub resends: bool,
}

/// The changes that wait for the worker.
#[derive(Default)]
pub struct Deferred {
    /// Of the volume.
    pub volume: RefCell<VecDeque<Change<State>>>,
    /// Of the connection.
    pub connection: RefCell<VecDeque<Change<ConnState>>>,
}

/// A node in one of its lives.
pub struct Node {
    /// 0 or 1.
    pub id: usize,
    /// What dies with it.
    pub owner: Owner,
    /// Time and chance.
    pub sim: Rc<Sim>,
    /// The wire.
    pub net: Rc<Net>,
    /// The options.
    pub config: Rc<Config>,
    /// The disks.
    pub hardware: Hardware,
    /// Who is told what the application is told.
    pub oracle: Rc<RefCell<Oracle>>,
    /// The state of the volume. Changed by `state` only.
    pub(crate) state: Cell<State>,
    /// The state of the connection.
    pub(crate) conn: Cell<ConnState>,
    pub(crate) state_sent: Cell<bool>,
    pub(crate) negotiated: Cell<(DiskState, DiskState)>,
    /// The highest role of the peer; the volume is the only one.
    pub(crate) deferred: Deferred,
    /// Facts of one bit.
    pub flags: NodeFlags,
    pub(crate) exposed_uuid: Cell<u64>,
    pub(crate) mirror_generation: Cell<u32>,
    pub(crate) local: RefCell<Option<Rc<disk::LocalDisk>>>,
    /// The disk that is being let go.
    pub(crate) retired: RefCell<Option<Rc<disk::LocalDisk>>>,
    pub(crate) log: RefCell<TransferLog<Vec<Entry>>>,
    /// The epoch that the worker has seen.
    pub(crate) seen_epoch: Cell<u32>,
    pub(crate) requests: Vec<request::Request>,
    pub(crate) ranges: RefCell<RangeTable<Vec<RangeNode>>>,
    pub(crate) delayed: RefCell<VecDeque<submit::Bio>>,
    /// Bios in the hands of the work item.
    pub(crate) waits: Cell<usize>,
    pub(crate) application_bios: Cell<u32>,
    /// How many hold back application I/O.
    pub(crate) gate: Cell<u32>,
    pub(crate) application_pending: Cell<i32>,
    pub(crate) session: RefCell<Option<Rc<Session>>>,
    pub(crate) epochs: RefCell<Epochs<Vec<Epoch>>>,
    pub(crate) peer_requests: Cell<u32>,
    /// Flushes of what the peer wrote that are under way.
    pub(crate) flushes: Cell<u32>,
    pub(crate) answers: RefCell<VecDeque<peer_request::PeerRequest>>,
    pub(crate) done: RefCell<VecDeque<peer_request::PeerRequest>>,
    pub(crate) peer: Cell<Option<PeerUuids>>,
    pub(crate) peer_bitmap: RefCell<Option<drbd_engine::bitmap::transfer::Receiver>>,
    pub(crate) sent_bits: Cell<u64>,
    pub(crate) resync: RefCell<resync::Resync>,
    pub(crate) plan: RefCell<Option<resync::Plan>>,
    pub(crate) liveness: RefCell<Option<Liveness>>,
    /// Whether the admin wants a connection.
    pub(crate) configured: Cell<bool>,
    /// How often bios that wait were told to try again.
    pub(crate) kicks: Cell<u64>,
    /// How often the worker looked at everything.
    pub(crate) worker_turns: Cell<u64>,
    /// Somebody waits for the worker.
    pub(crate) worker_called: Cell<bool>,
    receiver_runs: Cell<bool>,
}

/// What a node is made of.
pub struct Parts {
    /// 0 or 1.
    pub id: usize,
    /// The how many-th life.
    pub life: u32,
    /// Time and chance.
    pub sim: Rc<Sim>,
    /// The wire.
    pub net: Rc<Net>,
    /// The options.
    pub config: Rc<Config>,
    /// The disks.
    pub hardware: Hardware,
    /// The judge.
    pub oracle: Rc<RefCell<Oracle>>,
}

impl Node {
    /// Boots: the module is loaded, the resource is there, StandAlone and Diskless.
    pub fn boot(parts: Parts) -> Rc<Self> {
        let seed = (parts.sim.random() & 0xffff_ffff) as u32;
        let slots = vec![Entry::default(); REQUESTS_MAX];
        let log = TransferLog::new(slots, seed, parts.config.max_epoch_size);
        let node = Rc::new(Self {
            id: parts.id,
            owner: Owner::Node {
                node: parts.id,
                life: parts.life,
            },
            sim: parts.sim,
            net: parts.net,
            config: parts.config,
            hardware: parts.hardware,
            oracle: parts.oracle,
            state: Cell::new(State::NEW),
            conn: Cell::new(ConnState::StandAlone),
            state_sent: Cell::new(false),
            negotiated: Cell::new((DiskState::Diskless, DiskState::DUnknown)),
            deferred: Deferred::default(),
            flags: NodeFlags::default(),
            exposed_uuid: Cell::new(0),
            mirror_generation: Cell::new(0),
            local: RefCell::new(None),
            retired: RefCell::new(None),
            log: RefCell::new(log),
            seen_epoch: Cell::new(0),
            requests: (0..REQUESTS_MAX).map(request::Request::new).collect(),
            ranges: RefCell::new(RangeTable::new(vec![RangeNode::default(); RANGES_MAX])),
            delayed: RefCell::default(),
            waits: Cell::new(0),
            application_bios: Cell::new(0),
            gate: Cell::new(0),
            application_pending: Cell::new(0),
            session: RefCell::new(None),
            epochs: RefCell::new(Epochs::new(vec![Epoch::default(); EPOCHS_MAX])),
            peer_requests: Cell::new(0),
            flushes: Cell::new(0),
            answers: RefCell::default(),
            done: RefCell::default(),
            peer: Cell::new(None),
            peer_bitmap: RefCell::new(None),
            sent_bits: Cell::new(0),
            resync: RefCell::default(),
            plan: RefCell::new(None),
            liveness: RefCell::new(None),
            configured: Cell::new(false),
            kicks: Cell::new(0),
            worker_turns: Cell::new(0),
            worker_called: Cell::new(false),
            receiver_runs: Cell::new(false),
        });
        let sim = node.sim.clone();
        sim.spawn(node.owner, worker::run(node.clone()));
        sim.spawn(node.owner, submit::serve(node.clone()));
        node
    }

    /// The state of the volume.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// The state of the connection.
    pub fn conn(&self) -> ConnState {
        self.conn.get()
    }

    /// Whether this node is Primary.
    pub fn is_primary(&self) -> bool {
        self.state().role == Role::Primary
    }

    /// Adds a line about this node to the story.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.sim.tell(|| format!("[{}] {}", self.id, line()));
    }

    /// Whether nothing is under way on this node.
    pub fn is_idle(&self) -> bool {
        self.application_bios.get() == 0
            && self.log.borrow().is_empty()
            && self.delayed.borrow().is_empty()
            && self.waits.get() == 0
            && self.peer_requests.get() == 0
            && self.deferred.volume.borrow().is_empty()
            && self.deferred.connection.borrow().is_empty()
    }

    /// A change that tells what happened.
    pub(crate) const HARD: Flags = Flags::HARD;
    /// A change that may be refused.
    pub(crate) const SOFT: Flags = Flags::SOFT;
}
