// SPDX-License-Identifier: GPL-2.0

//! Two volumes of one connection, each Primary on another node and written alone there: when the
//! nodes meet each is the source of its own, and its application goes on writing to the very blocks
//! that the other asks for.
//!
//! A receiver that waited for its application's writes with such a request in its hands would take
//! no writes of the other application meanwhile, and be waited for in turn (seed 6179 of a former
//! tree).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use drbd_engine::config::{OnIoError, Protocol};
use drbd_engine::state::{ConnState, DiskState};
use drbd_engine::types::Sector;
use drbd_sim::check::first_difference;
use drbd_sim::drive::{Drive, Speed};
use drbd_sim::net::Net;
use drbd_sim::node::device::{Device, Volume};
use drbd_sim::node::request::Operation;
use drbd_sim::node::{Config, Hardware, Node, Parts};
use drbd_sim::oracle::Oracle;
use drbd_sim::packet::Blocks;
use drbd_sim::rng::Rng;
use drbd_sim::sim::{Sim, Step, MS, US};
use drbd_sim::story::Story;
use drbd_sim::tools;

/// Sectors of a volume.
const CAPACITY: u64 = 3 * 8192;
/// Blocks that are written, over and over.
const PLACES: u64 = 48;
/// Sectors from one to the next.
const STRIDE: u64 = 256;
/// Applications of a node.
const APPLICATIONS: u64 = 4;
/// Steps after which nothing comes of it any more.
const STEPS_MAX: u64 = 400_000;

struct Pair {
    sim: Rc<Sim>,
    net: Rc<Net>,
    nodes: [Rc<Node>; 2],
    oracles: Vec<Rc<RefCell<Oracle>>>,
}

impl Pair {
    fn boot(seed: u64) -> Self {
        let config = Rc::new(Config {
            protocol: Protocol::C,
            internal_metadata: false,
            al_slots: 6,
            capacity_sectors: CAPACITY,
            max_epoch_size: 64,
            on_io_error: OnIoError::Detach,
            volumes: 2,
            canary: None,
        });
        let sim = Sim::new(seed, Story::new(false, true));
        let net = Net::new(sim.clone(), 200 * US);
        let oracles: Vec<_> = [0, 1 << 32]
            .map(|first| Rc::new(RefCell::new(Oracle::new(config.protocol, first))))
            .into();
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
            sim,
            net,
            nodes,
            oracles,
        }
    }

    /// The volume that a node is to be the source of.
    fn own(&self, id: usize) -> &Rc<Device> {
        &self.nodes[id].devices[id]
    }

    /// Runs until something is so.
    #[track_caller]
    fn run_until(&self, what: &str, condition: impl Fn() -> bool) {
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

    fn all(&self, condition: impl Fn(&Device) -> bool) -> bool {
        let mut devices = self.nodes.iter().flat_map(|node| &node.devices);
        devices.all(|device| condition(device))
    }

    /// Has a command carried out on both nodes.
    #[track_caller]
    fn on_both<F: std::future::Future<Output = ()> + 'static>(
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

    /// The nodes meet, having written alone, and write on. Ends with the resyncs begun.
    fn meet_as_sources(&self, stop: &Rc<Cell<bool>>) {
        self.on_both("the disks are attached", |node| async move {
            for device in &node.devices {
                device.attach().await.unwrap();
            }
            node.connect(false).await.unwrap();
        });
        self.run_until("both are connected", || self.all(is_well));
        self.on_both("both are apart", |node| async move {
            node.disconnect().await.unwrap();
        });
        self.on_both("both have written alone", |node| async move {
            let device = &node.devices[node.id];
            device.promote(false).await.unwrap();
            for place in 0..PLACES {
                write(device, place).await;
            }
            node.connect(false).await.unwrap();
        });
        for id in [0, 1] {
            for number in 0..APPLICATIONS {
                let (device, stop) = (self.own(id).clone(), stop.clone());
                let mut rng = Rng::new(self.sim.random() ^ number);
                self.sim.spawn(device.owner, async move {
                    while !stop.get() {
                        write(&device, rng.below(PLACES)).await;
                        device.sim.sleep(device.owner, rng.below(MS)).await;
                    }
                });
            }
        }
        self.run_until("each is the source of its own", || {
            [0, 1]
                .iter()
                .all(|&id| self.own(id).state().conn == ConnState::SyncSource)
        });
    }

    /// The applications end, and all is as it should be: a range or a request that was forgotten
    /// would be waited for.
    #[track_caller]
    fn expect_to_get_well(&self, stop: &Rc<Cell<bool>>) {
        stop.set(true);
        let is_quiet = |node: &Rc<Node>| node.is_quiet();
        self.run_until("both are in sync", || {
            self.all(is_well) && self.nodes.iter().all(is_quiet)
        });
        for (volume, oracle) in self.oracles.iter().enumerate() {
            let [one, other] = [0, 1].map(|id: usize| {
                let data = &self.nodes[id].devices[volume].hardware.data;
                data.peek(0, CAPACITY)
            });
            assert_eq!(first_difference(&one, &other), None);
            assert_eq!(oracle.borrow().violations, Vec::<String>::new());
        }
    }
}

fn hardware(sim: &Rc<Sim>, config: &Config) -> Hardware {
    let [data, meta] = [(); 2].map(|()| Drive::new(sim.clone(), Speed::USUAL));
    tools::create_metadata(&meta, config, 0x1234_5678_9abc_def0);
    Hardware { data, meta }
}

async fn write(device: &Rc<Device>, place: u64) {
    let number = device.oracle.borrow_mut().number();
    let blocks = Blocks {
        sector: Sector(place * STRIDE),
        size_bytes: 4096,
    };
    let operation = Operation::Write(number);
    let master = device.submit(number, operation, blocks).await;
    device.sim.until(|| master.ended.get().is_some()).await;
}

fn is_well(device: &Device) -> bool {
    let state = device.state();
    state.conn == ConnState::Connected
        && state.disk == DiskState::UpToDate
        && state.pdsk == DiskState::UpToDate
}

#[test]
fn two_sources_do_not_wait_for_each_other() {
    for seed in 1..=20 {
        let pair = Pair::boot(seed);
        let stop = Rc::new(Cell::new(false));
        pair.meet_as_sources(&stop);
        // The applications go on: what they write all the time is synced nevertheless.
        pair.run_until("both are in sync", || pair.all(is_well));
        pair.expect_to_get_well(&stop);
    }
}

#[test]
fn what_was_put_aside_ends_with_the_connection() {
    for seed in 1..=20 {
        let pair = Pair::boot(seed);
        let stop = Rc::new(Cell::new(false));
        pair.meet_as_sources(&stop);
        pair.run_until("something is put aside", || pair.nodes[0].aside() > 0);
        pair.net.reset();
        pair.run_until("it is lost", || {
            pair.nodes[0].conn() < ConnState::WFConnection
        });
        pair.run_until("nothing of it is left", || {
            pair.nodes[0].conn() >= ConnState::WFConnection
        });
        assert_eq!(pair.nodes[0].aside(), 0);
        pair.expect_to_get_well(&stop);
    }
}

#[test]
fn what_was_put_aside_ends_with_the_resync() {
    for seed in 1..=20 {
        let pair = Pair::boot(seed);
        let stop = Rc::new(Cell::new(false));
        pair.meet_as_sources(&stop);
        pair.run_until("something is put aside", || pair.nodes[0].aside() > 0);
        // The target gives its disk up, and gets it back in the same connection.
        let target = pair.nodes[1].devices[0].clone();
        let done = Rc::new(Cell::new(false));
        let is_done = done.clone();
        pair.sim.spawn(target.owner, async move {
            target.detach().await.unwrap();
            target.sim.sleep(target.owner, 20 * MS).await;
            assert_eq!(target.state().conn, ConnState::Connected);
            target.attach().await.unwrap();
            is_done.set(true);
        });
        pair.run_until("the disk is back", || done.get());
        pair.expect_to_get_well(&stop);
    }
}
