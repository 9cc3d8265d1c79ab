// SPDX-License-Identifier: GPL-2.0

//! One node: the module's shell in miniature, around the real engine. One resource with its
//! connection and its volumes.
//!
//! Each file stands for the file of that name in `drivers/block/drbd/io/` and keeps its order of
//! calls; that order is what is tested.

pub mod acks;
pub mod admin;
pub mod after;
pub mod attach;
pub mod bitmap_exchange;
pub mod device;
pub mod disk;
pub mod disk_error;
pub mod fence;
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

use drbd_engine::config::{OnIoError, OnNoData, Protocol, ReadBalancing};
use drbd_engine::epoch::{Epoch, Epochs};
use drbd_engine::state::{ConnState, Fencing, Flags, State};
use drbd_engine::timer::Liveness;
use drbd_engine::transfer_log::{Entry, TransferLog};
use drbd_engine::types::VolumeNr;

use crate::canary::Canary;
use crate::drive::Drive;
use crate::net::{Net, Session};
use crate::sim::{Owner, Sim};
use device::{Device, Volume};

/// Slots of the transfer log.
const REQUESTS_MAX: usize = 64;
/// Open epochs.
const EPOCHS_MAX: usize = 4;

/// What stays the same during a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The protocol of both nodes.
    pub protocol: Protocol,
    /// Whether the metadata share the disk with the data.
    pub internal_metadata: bool,
    /// Slots of the activity log at first.
    pub al_slots: usize,
    /// Sectors of a volume.
    pub capacity_sectors: u64,
    /// The largest epoch at first.
    pub max_epoch_size: u32,
    /// What an error of the disk does at first.
    pub on_io_error: OnIoError,
    /// Who serves reads that either node could.
    pub read_balancing: ReadBalancing,
    /// Whether I/O is suspended at times.
    pub freezes: bool,
    /// What becomes of I/O while there are no good data within reach.
    pub on_no_data: OnNoData,
    /// What a Primary does that loses its peer.
    pub fencing: Fencing,
    /// Volumes of the resource.
    pub volumes: usize,
    /// The deliberate bug, if there is one.
    pub canary: Option<Canary>,
}

impl Config {
    /// Whether this deliberate bug is wanted.
    pub fn has(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }
}

/// What of a volume outlives a crash.
#[derive(Clone)]
pub struct Hardware {
    /// Holds the data.
    pub data: Rc<Drive>,
    /// Holds the metadata; may be the same.
    pub meta: Rc<Drive>,
}

/// Facts about a connection that are one bit each.
#[derive(Default)]
pub struct NodeFlags {
    /// The sockets were shut down: nobody may wait for the peer.
    pub interrupted: Cell<bool>,
    /// A cluster-wide change is under way.
    pub agreement: Cell<bool>,
    /// The peer's answer to it.
    pub change_answer: Cell<Option<i32>>,
    /// The peer refused us, or we the peer, for a split brain.
    pub split_brain: Cell<bool>,
    /// A flush failed of what the peer wrote in this session.
    pub flush_failed: Cell<bool>,
    /// An epoch of the peer's writes ended whose ack may be due.
    pub epoch_ended: Cell<bool>,
}

/// A change of a volume's state whose deferred effects are due.
pub(crate) struct After {
    /// The volume.
    pub(crate) device: Rc<Device>,
    /// Before.
    pub(crate) old: State,
    /// After.
    pub(crate) new: State,
    /// Whether writes wait until its effects are carried out.
    pub(crate) holds_writes: bool,
    /// The peer is to be sent UUIDs and state first.
    pub(crate) resends: bool,
}

/// A change of the connection's state whose deferred effects are due.
pub(crate) struct AfterConnection {
    /// Before.
    pub(crate) old: ConnState,
    /// After.
    pub(crate) new: ConnState,
}

/// The changes that wait for the worker.
#[derive(Default)]
pub(crate) struct Deferred {
    /// Of the volumes.
    pub(crate) volumes: RefCell<VecDeque<After>>,
    /// Of the connection.
    pub(crate) connection: RefCell<VecDeque<AfterConnection>>,
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
    /// The volumes.
    pub devices: Vec<Rc<Device>>,
    /// The state of the connection.
    pub(crate) conn: Cell<ConnState>,
    pub(crate) state_sent: Cell<bool>,
    pub(crate) deferred: Deferred,
    /// Facts of one bit.
    pub flags: NodeFlags,
    pub(crate) log: RefCell<TransferLog<Vec<Entry>>>,
    /// The epoch that the worker has seen.
    pub(crate) seen_epoch: Cell<u32>,
    pub(crate) requests: Vec<request::Request>,
    pub(crate) session: RefCell<Option<Rc<Session>>>,
    pub(crate) epochs: RefCell<Epochs<Vec<Epoch>>>,
    pub(crate) peer_requests: Cell<u32>,
    /// Flushes of what the peer wrote that are under way.
    pub(crate) flushes: Cell<u32>,
    pub(crate) answers: RefCell<VecDeque<peer_request::PeerRequest>>,
    pub(crate) done: RefCell<VecDeque<peer_request::PeerRequest>>,
    /// What the target asked for and is in use.
    pub(crate) aside: RefCell<VecDeque<peer_request::PeerRequest>>,
    /// Ranges were given back since that was tried.
    pub(crate) aside_due: Cell<bool>,
    pub(crate) liveness: RefCell<Option<Liveness>>,
    /// Pings that were sent in this session.
    pub(crate) pings: Cell<u64>,
    /// Those of them that were answered.
    pub(crate) ping_acks: Cell<u64>,
    /// Whether the admin wants a connection.
    pub(crate) configured: Cell<bool>,
    /// How often the worker looked at everything.
    pub(crate) worker_turns: Cell<u64>,
    /// Somebody waits for the worker.
    pub(crate) worker_called: Cell<bool>,
    /// Who fences the peer.
    pub fencer: fence::Fencer,
    receiver_runs: Cell<bool>,
}

/// What a node is made of, beside its volumes.
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
}

impl Parts {
    fn owner(&self) -> Owner {
        Owner::Node {
            node: self.id,
            life: self.life,
        }
    }
}

impl Node {
    /// Boots: the module is loaded, the resource is there, StandAlone and Diskless.
    pub fn boot(parts: Parts, volumes: Vec<Volume>) -> Rc<Self> {
        let seed = (parts.sim.random() & 0xffff_ffff) as u32;
        let slots = vec![Entry::default(); REQUESTS_MAX];
        let log = TransferLog::new(slots, seed, parts.config.max_epoch_size);
        let node = Rc::new_cyclic(|node| Self {
            id: parts.id,
            owner: parts.owner(),
            devices: (0..)
                .map(VolumeNr)
                .zip(volumes)
                .map(|(nr, volume)| Rc::new(Device::new(node.clone(), &parts, nr, volume)))
                .collect(),
            sim: parts.sim,
            net: parts.net,
            config: parts.config,
            conn: Cell::new(ConnState::StandAlone),
            state_sent: Cell::new(false),
            deferred: Deferred::default(),
            flags: NodeFlags::default(),
            log: RefCell::new(log),
            seen_epoch: Cell::new(0),
            requests: (0..REQUESTS_MAX).map(request::Request::new).collect(),
            session: RefCell::new(None),
            epochs: RefCell::new(Epochs::new(vec![Epoch::default(); EPOCHS_MAX])),
            peer_requests: Cell::new(0),
            flushes: Cell::new(0),
            answers: RefCell::default(),
            done: RefCell::default(),
            aside: RefCell::default(),
            aside_due: Cell::new(false),
            liveness: RefCell::new(None),
            pings: Cell::new(0),
            ping_acks: Cell::new(0),
            configured: Cell::new(false),
            worker_turns: Cell::new(0),
            worker_called: Cell::new(false),
            fencer: fence::Fencer::default(),
            receiver_runs: Cell::new(false),
        });
        node.sim.spawn(node.owner, worker::run(node.clone()));
        for device in &node.devices {
            node.sim.spawn(node.owner, submit::serve(device.clone()));
        }
        node
    }

    /// The state of the connection.
    pub fn conn(&self) -> ConnState {
        self.conn.get()
    }

    /// The volume with this number.
    pub(crate) fn device(&self, volume: VolumeNr) -> Option<&Rc<Device>> {
        self.devices.get(usize::from(volume.0))
    }

    /// Whether this node is Primary, of one volume at least.
    pub fn is_primary(&self) -> bool {
        self.devices.iter().any(|device| device.is_primary())
    }

    /// Adds a line about this node to the story.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.sim.tell(|| format!("[{}] {}", self.id, line()));
    }

    /// Whether nothing is under way on this node.
    pub fn is_idle(&self) -> bool {
        self.devices.iter().all(|device| device.is_idle())
            && self.log.borrow().is_empty()
            && self.peer_requests.get() == 0
            && self.deferred.volumes.borrow().is_empty()
            && self.deferred.connection.borrow().is_empty()
    }

    /// A change that tells what happened.
    pub(crate) const HARD: Flags = Flags::HARD;
    /// A change that may be refused.
    pub(crate) const SOFT: Flags = Flags::SOFT;
}
