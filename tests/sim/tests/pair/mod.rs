// SPDX-License-Identifier: GPL-2.0

//! Two nodes whose schedule a test forces.

#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use drbd_engine::config::{OnIoError, OnNoData, Protocol, ReadBalancing};
use drbd_engine::state::{ConnState, DiskState, Fencing};
use drbd_engine::types::Sector;
use drbd_sim::canary::Canary;
use drbd_sim::check::first_difference;
use drbd_sim::drive::{Drive, Keep, Speed};
use drbd_sim::net::Net;
use drbd_sim::node::device::{Device, Volume};
use drbd_sim::node::request::Operation;
use drbd_sim::node::{Config, Hardware, Node, Parts};
use drbd_sim::oracle::Oracle;
use drbd_sim::packet::Blocks;
use drbd_sim::sim::{Sim, Step, US};
use drbd_sim::story::Story;
use drbd_sim::tools;

/// Sectors of a volume.
pub(crate) const CAPACITY: u64 = 3 * 8192;
/// Blocks that are written, over and over.
pub(crate) const PLACES: u64 = 48;
/// Sectors from one to the next.
pub(crate) const STRIDE: u64 = 256;
/// Steps after which nothing comes of it any more.
const STEPS_MAX: u64 = 400_000;

/// Two nodes that are booted, and nothing else.
pub(crate) struct Pair {
    config: Rc<Config>,
    pub(crate) sim: Rc<Sim>,
    pub(crate) net: Rc<Net>,
    pub(crate) nodes: [Rc<Node>; 2],
    pub(crate) oracles: Vec<Rc<RefCell<Oracle>>>,
}

impl Pair {
    pub(crate) fn boot(seed: u64, protocol: Protocol, volumes: usize) -> Self {
        Self::boot_with(seed, protocol, volumes, None)
    }

    /// The same, with a deliberate bug.
    pub(crate) fn boot_with(
        seed: u64,
        protocol: Protocol,
        volumes: usize,
        canary: Option<Canary>,
    ) -> Self {
        let config = Rc::new(Config {
            protocol,
            internal_metadata: false,
            al_slots: 6,
            capacity_sectors: CAPACITY,
            max_epoch_size: 64,
            on_io_error: OnIoError::Detach,
            read_balancing: ReadBalancing::PreferLocal,
            freezes: false,
            on_no_data: OnNoData::IoError,
            fencing: Fencing::DontCare,
            volumes,
            canary,
        });
        let sim = Sim::new(seed, Story::new(false, true));
        let net = Net::new(sim.clone(), 200 * US);
        let oracles: Vec<_> = (0..volumes as u64)
            .map(|volume| Rc::new(RefCell::new(Oracle::new(protocol, volume << 32))))
            .collect();
        let nodes = [0, 1].map(|id| {
            let parts = Parts {
                id,
                life: 1,
                sim: sim.clone(),
                net: net.clone(),
                config: config.clone(),
            };
            let volumes = oracles.iter().map(|oracle| Volume {
                hardware: hardware(&sim, &config),
                oracle: oracle.clone(),
            });
            Node::boot(parts, volumes.collect())
        });
        Self {
            config,
            sim,
            net,
            nodes,
            oracles,
        }
    }

    /// The disks are attached, equal, and the nodes connected.
    pub(crate) fn connected(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Self {
        let pair = Self::boot_with(seed, protocol, 1, canary);
        pair.on_both("the disks are attached", |node| async move {
            node.devices[0].attach().await.unwrap();
            node.connect(false).await.unwrap();
        });
        pair.run_until("both are connected", || pair.all(is_well));
        pair
    }

    /// The same, and the first node is Primary.
    pub(crate) fn with_primary(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Self {
        let pair = Self::connected(seed, protocol, canary);
        pair.on(0, "there is a Primary", |node| async move {
            node.devices[0].promote(false).await.unwrap();
        });
        pair
    }

    /// The same; the second node has left, and lacks what the first has written since.
    pub(crate) fn apart(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Self {
        let pair = Self::with_primary(seed, protocol, canary);
        pair.disconnect(1);
        pair.on(0, "something is to be synced", |node| async move {
            for place in 0..PLACES {
                write(&node.devices[0], place).await;
            }
        });
        pair
    }

    /// The same; the second node is back, and gets what it lacks.
    pub(crate) fn resyncing(seed: u64, protocol: Protocol, canary: Option<Canary>) -> Self {
        let pair = Self::apart(seed, protocol, canary);
        pair.connect(1);
        pair.run_until("the resync has begun", || {
            pair.nodes[1].devices[0].state().conn == ConnState::SyncTarget
        });
        pair
    }

    /// Both nodes' first volume.
    pub(crate) fn devices(&self) -> [Rc<Device>; 2] {
        [0, 1].map(|id: usize| self.nodes[id].devices[0].clone())
    }

    pub(crate) fn attach(&self, id: usize) {
        self.on(id, "its disk is attached", |node| async move {
            node.devices[0].attach().await.unwrap();
        });
    }

    pub(crate) fn connect(&self, id: usize) {
        self.on(id, "it connects", |node| async move {
            node.connect(false).await.unwrap();
        });
    }

    pub(crate) fn disconnect(&self, id: usize) {
        self.on(id, "it is alone", |node| async move {
            node.disconnect().await.unwrap();
        });
    }

    /// Cuts a node's power, which loses all data that were not flushed, and boots it again.
    pub(crate) fn lose_power(&mut self, id: usize) {
        let node = &self.nodes[id];
        self.sim.kill(node.owner);
        self.net.vanish(id);
        let volumes: Vec<_> = node
            .devices
            .iter()
            .map(|device| Volume {
                hardware: device.hardware.clone(),
                oracle: device.oracle.clone(),
            })
            .collect();
        for Volume { hardware, oracle } in &volumes {
            oracle.borrow_mut().crashed(id);
            hardware.data.cut_power(Keep::METADATA);
            hardware.meta.cut_power(Keep::METADATA);
        }
        let parts = Parts {
            id,
            life: 2,
            sim: self.sim.clone(),
            net: self.net.clone(),
            config: self.config.clone(),
        };
        self.nodes[id] = Node::boot(parts, volumes);
    }

    /// Runs until something is so.
    #[track_caller]
    pub(crate) fn run_until(&self, what: &str, condition: impl Fn() -> bool) {
        for _ in 0..STEPS_MAX {
            if condition() {
                return;
            }
            assert_ne!(self.sim.step(), Step::Dead, "{what} never");
        }
        let story = self.sim.story.last(40).join("\n");
        panic!("no end of waiting until {what}: {}\n{story}", self.states());
    }

    fn states(&self) -> String {
        let states = self.nodes.iter().map(|node| {
            let volumes: Vec<_> = node.devices.iter().map(|device| device.state()).collect();
            format!("[{}] {volumes:?}", node.id)
        });
        states.collect::<Vec<_>>().join("; ")
    }

    /// Whether something is so of all volumes of both nodes.
    pub(crate) fn all(&self, condition: impl Fn(&Device) -> bool) -> bool {
        let mut devices = self.nodes.iter().flat_map(|node| &node.devices);
        devices.all(|device| condition(device))
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time_ns: u64) {
        let until_ns = self.sim.now_ns() + time_ns;
        self.run_until("later", || self.sim.now_ns() >= until_ns);
    }

    /// Has a command carried out on a node.
    #[track_caller]
    pub(crate) fn on<F: Future<Output = ()> + 'static>(
        &self,
        id: usize,
        what: &str,
        command: impl FnOnce(Rc<Node>) -> F,
    ) {
        let node = &self.nodes[id];
        let left = Rc::new(Cell::new(true));
        let (done, is_left) = (command(node.clone()), left.clone());
        self.sim.spawn(node.owner, async move {
            done.await;
            is_left.set(false);
        });
        self.run_until(what, || !left.get());
    }

    /// Has a command carried out on both nodes.
    #[track_caller]
    pub(crate) fn on_both<F: Future<Output = ()> + 'static>(
        &self,
        what: &str,
        command: impl Fn(Rc<Node>) -> F,
    ) {
        let left = Rc::new(Cell::new(self.nodes.len()));
        for node in &self.nodes {
            let (done, left) = (command(node.clone()), left.clone());
            self.sim.spawn(node.owner, async move {
                done.await;
                left.set(left.get() - 1);
            });
        }
        self.run_until(what, || left.get() == 0);
    }

    /// All is as it should be: a range or a request that was forgotten would be waited for.
    #[track_caller]
    pub(crate) fn expect_to_get_well(&self) {
        let is_quiet = |node: &Rc<Node>| node.is_quiet();
        self.run_until("both are in sync", || {
            self.all(is_well) && self.nodes.iter().all(is_quiet)
        });
        for volume in 0..self.oracles.len() {
            assert_eq!(self.difference(volume), None);
        }
        self.expect_no_violation();
    }

    /// Where the disks of a volume differ first.
    fn difference(&self, volume: usize) -> Option<u64> {
        let [one, other] = [0, 1].map(|id: usize| {
            let data = &self.nodes[id].devices[volume].hardware.data;
            data.peek(0, CAPACITY)
        });
        first_difference(&one, &other)
    }

    /// With a deliberate bug nodes call themselves equal that are not.
    #[track_caller]
    pub(crate) fn expect_to_differ(&self) {
        self.run_until("both call themselves equal", || self.all(is_well));
        assert_ne!(self.difference(0), None);
    }

    /// The judge of the first volume says this first.
    #[track_caller]
    pub(crate) fn expect_violation(&self, told: &str) {
        let violations = &self.oracles[0].borrow().violations;
        let is_told = violations.first().is_some_and(|first| first.contains(told));
        assert!(is_told, "{violations:?}");
    }

    /// No judge has found anything.
    #[track_caller]
    pub(crate) fn expect_no_violation(&self) {
        for oracle in &self.oracles {
            assert_eq!(oracle.borrow().violations, Vec::<String>::new());
        }
    }
}

fn hardware(sim: &Rc<Sim>, config: &Config) -> Hardware {
    let [data, meta] = [(); 2].map(|()| Drive::new(sim.clone(), Speed::USUAL));
    tools::create_metadata(&meta, config, 0x1234_5678_9abc_def0);
    Hardware { data, meta }
}

/// Writes a block, and waits for the end.
pub(crate) async fn write(device: &Rc<Device>, place: u64) {
    let number = device.oracle.borrow_mut().number();
    submit(device, number, Operation::Write(number), place).await;
}

/// Reads a block, and waits for the end.
pub(crate) async fn read(device: &Rc<Device>, place: u64) {
    let number = device.oracle.borrow_mut().number();
    submit(device, number, Operation::Read, place).await;
}

/// Has a flush made; whether it was.
pub(crate) async fn flush(device: &Rc<Device>) -> bool {
    let number = device.oracle.borrow_mut().number();
    submit(device, number, Operation::Flush, 0).await
}

/// Writes a block, with a flush in front; whether that was done.
pub(crate) async fn flush_and_write(device: &Rc<Device>, place: u64) -> bool {
    let number = device.oracle.borrow_mut().number();
    let master = device.submit_after_flush(number, block(place)).await;
    device.sim.until(|| master.ended.get().is_some()).await;
    master.ended.get() == Some(true)
}

fn block(place: u64) -> Blocks {
    Blocks {
        sector: Sector(place * STRIDE),
        size_bytes: 4096,
    }
}

async fn submit(device: &Rc<Device>, number: u64, operation: Operation, place: u64) -> bool {
    let blocks = match operation {
        Operation::Flush => Blocks {
            size_bytes: 0,
            ..block(place)
        },
        Operation::Read | Operation::Write(_) => block(place),
    };
    let master = device.submit(number, operation, blocks).await;
    device.sim.until(|| master.ended.get().is_some()).await;
    master.ended.get() == Some(true)
}

/// Whether a volume is in sync.
pub(crate) fn is_well(device: &Device) -> bool {
    let state = device.state();
    state.conn == ConnState::Connected
        && state.disk == DiskState::UpToDate
        && state.pdsk == DiskState::UpToDate
}
