// SPDX-License-Identifier: GPL-2.0

//! One run: two nodes, an application, an admin, and fate; then peace, and the question whether all
//! is well.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use drbd_engine::config::{OnIoError, OnNoData, Protocol, ReadBalancing};
use drbd_engine::fencing::Verdict;
use drbd_engine::state::{ConnState, DiskState, Fencing, State, StateError};
use drbd_engine::types::Sector;

use crate::canary::Canary;
use crate::check;
use crate::drive::{Drive, Keep, Speed, Trouble};
use crate::net::{Net, Socket};
use crate::node::device::{Device, Volume};
use crate::node::request::Operation;
use crate::node::{Config, Hardware, Node, Parts};
use crate::oracle::{Counts, Oracle};
use crate::packet::Blocks;
use crate::rng::Rng;
use crate::sim::{Moment, Sim, Step, MS, S, US};
use crate::story::Story;
use crate::tools;

mod aim;

pub use aim::Aim;
use aim::Marksman;

/// Steps of the part of a run in which things go wrong.
const FAULT_STEPS: u64 = 40_000;
/// How long a socket may lag behind the other: less than an answer to a ping is waited for.
const LAG_NS_MAX: u64 = 300 * MS;
/// Steps after which a run that does not come to rest is stuck.
const PEACE_STEPS: u64 = 600_000;
/// How often the operator looks once there is peace.
const ROUNDS_MAX: u32 = 60;
/// Applications on a node.
const APPLICATIONS: u64 = 4;

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the application did.
    pub counts: Counts,
    /// Volumes of the resource.
    pub volumes: usize,
    /// Power cuts.
    pub crashes: u64,
    /// Cuts, resets and stalls of the network.
    pub cuts: u64,
    /// Times that a disk began to fail, to be slow or not to answer.
    pub disk_faults: u64,
    /// Reads, writes and flushes that failed.
    pub disk_errors: u64,
    /// Commands of the admin.
    pub commands: u64,
    /// Faults and commands that were drawn in the part in which things go wrong.
    pub events: u32,
    /// Decisions that only a human could take, at the end.
    pub decisions: u64,
    /// Virtual time.
    pub time_ns: u64,
    /// What was broken.
    pub violations: Vec<String>,
    /// The last lines of what happened.
    pub story: Vec<String>,
}

/// Whether the disks of a run may fail, be slow, or not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disks {
    /// In every second run, those of even seeds: what takes power cuts and networks alone to be
    /// found would be lost among disks that are given up.
    #[default]
    BySeed,
    /// They are always well.
    Well,
    /// They may fail.
    Failing,
}

/// How many volumes the resource of a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Two in every third run or so, else one. Drawn apart from all else: what a seed with one
    /// volume draws is the same whether others have two or not.
    #[default]
    BySeed,
    /// One.
    One,
    /// Two.
    Two,
}

impl Volumes {
    fn count(self, seed: u64) -> usize {
        let has_two = match self {
            Self::BySeed => Rng::new(!seed).one_in(3),
            Self::One => false,
            Self::Two => true,
        };
        1 + usize::from(has_two)
    }
}

/// Whether the admin changes options in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Settings {
    /// In every third run or so. What they are and when is drawn apart from all else, too.
    #[default]
    BySeed,
    /// They stay as they are.
    Kept,
    /// They change.
    Changed,
}

/// Whether the sockets of a run are as slow as each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sockets {
    /// Not in every third run or so. Which one lags and when is drawn apart from all else, too.
    #[default]
    BySeed,
    /// They are.
    Alike,
    /// At times what a node sends over one of them is late.
    Apart,
}

impl Sockets {
    fn lag(self, lags: &mut Rng) -> bool {
        match self {
            Self::BySeed => lags.one_in(3),
            Self::Alike => false,
            Self::Apart => true,
        }
    }
}

/// Who serves reads in a run that either node could.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// The peer has its part of them in every third run or so. Drawn apart from all else, too.
    #[default]
    BySeed,
    /// This node's disk.
    Own,
}

impl Reads {
    fn balancing(self, seed: u64) -> ReadBalancing {
        let is_striped = self == Self::BySeed && Rng::new(!seed.rotate_left(8)).one_in(3);
        match is_striped {
            true => ReadBalancing::Striping32K,
            false => ReadBalancing::PreferLocal,
        }
    }
}

/// How to make a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The deliberate bug, if there is one.
    pub canary: Option<Canary>,
    /// Whether disks fail.
    pub disks: Disks,
    /// How many volumes there are.
    pub volumes: Volumes,
    /// Whether options change.
    pub settings: Settings,
    /// Whether one socket may lag behind the other.
    pub sockets: Sockets,
    /// Who serves reads.
    pub reads: Reads,
    /// Whether I/O is suspended at times: by the admin, for want of data, until the peer is fenced.
    pub freezes: bool,
    /// Whether faults are aimed.
    pub aim: Aim,
    /// What happens in the part in which things go wrong is numbered, faults and commands alike;
    /// those whose bits are set here do not. What is drawn after the first of them may be another
    /// thing than without.
    pub without: u128,
    /// Print what happens.
    pub aloud: bool,
    /// Remember what happens.
    pub kept: bool,
}

struct Slot {
    node: Option<Rc<Node>>,
    /// Of each volume.
    hardware: Vec<Hardware>,
    life: u32,
    busy: Rc<Cell<bool>>,
}

struct World {
    sim: Rc<Sim>,
    net: Rc<Net>,
    config: Rc<Config>,
    /// A judge for each volume.
    oracles: Vec<Rc<RefCell<Oracle>>>,
    slots: [Slot; 2],
    /// Places that the application likes, so that writes overlap.
    places: Rc<Vec<u64>>,
    peace: Rc<Cell<bool>>,
    /// Disks may be in trouble.
    disks_fail: bool,
    /// What is drawn apart from all else.
    aside: Rng,
    /// Options change.
    changes_options: bool,
    /// Draws when a socket lags behind the other.
    lags: Rng,
    /// One does.
    sockets_lag: bool,
    /// Draws when I/O is suspended, and goes on.
    freezes: Rng,
    /// The admin does that.
    suspends_io: bool,
    /// Who aims faults.
    marksman: Option<Marksman>,
    /// Events that do not happen, see [`Options`].
    without: u128,
    /// Whose data the operator gave up where the disks have nothing in common.
    starts_over: Option<usize>,
    report: Report,
}

/// Runs a seed.
pub fn run(seed: u64, options: Options) -> Report {
    let story = Story::new(options.aloud, options.kept);
    let mut world = World::new(seed, options, story);
    world.disks_fail = match options.disks {
        Disks::BySeed => seed % 2 == 0,
        Disks::Well => false,
        Disks::Failing => true,
    };
    world.changes_options = match options.settings {
        Settings::BySeed => world.aside.one_in(3),
        Settings::Kept => false,
        Settings::Changed => true,
    };
    world.suspends_io = options.freezes && world.freezes.one_in(3);
    world.sockets_lag = options.sockets.lag(&mut world.lags);
    world.marksman = Marksman::of(options.aim, seed);
    world.without = options.without;
    world.faults();
    if !world.broken() {
        world.peace();
    }
    for Hardware { data, meta } in world.slots.iter().flat_map(|slot| &slot.hardware) {
        world.report.disk_errors += data.errors.get();
        if !Rc::ptr_eq(data, meta) {
            world.report.disk_errors += meta.errors.get();
        }
    }
    for oracle in &world.oracles {
        let oracle = oracle.borrow();
        world.report.counts.add(oracle.counts);
        world
            .report
            .violations
            .extend_from_slice(&oracle.violations);
    }
    world.report.volumes = world.config.volumes;
    world.report.time_ns = world.sim.now_ns();
    world.report.story = world.sim.story.last(60);
    for slot in &mut world.slots {
        if let Some(node) = slot.node.take() {
            world.sim.kill(node.owner);
        }
    }
    world.report
}

impl World {
    fn new(seed: u64, options: Options, story: Story) -> Self {
        let sim = Sim::new(seed, story);
        let protocol = [Protocol::A, Protocol::B, Protocol::C, Protocol::C];
        let extents = [3, 6, 40][usize::try_from(sim.below(3)).unwrap_or(0)];
        let config = Rc::new(Config {
            protocol: protocol[usize::try_from(sim.below(4)).unwrap_or(0)],
            internal_metadata: sim.one_in(2),
            al_slots: usize::try_from(sim.between(2, 6)).unwrap_or(2),
            capacity_sectors: extents * 8192 - sim.below(7),
            max_epoch_size: [4, 64][usize::try_from(sim.below(2)).unwrap_or(0)],
            on_io_error: [OnIoError::Detach, OnIoError::PassOn][usize::from(sim.one_in(3))],
            read_balancing: options.reads.balancing(seed),
            freezes: options.freezes,
            on_no_data: if options.freezes && Rng::new(!seed.rotate_left(24)).one_in(3) {
                OnNoData::SuspendIo
            } else {
                OnNoData::IoError
            },
            fencing: if options.freezes && Rng::new(!seed.rotate_left(48)).one_in(3) {
                Fencing::ResourceAndStonith
            } else {
                Fencing::DontCare
            },
            volumes: options.volumes.count(seed),
            canary: options.canary,
        });
        sim.tell(|| format!("seed {seed}: {config:?}"));
        let latency_ns = sim.between(20 * US, 2 * MS);
        let net = Net::new(sim.clone(), latency_ns);
        // No number stands for writes of two volumes.
        let oracles = (0..config.volumes as u64)
            .map(|volume| {
                let mut oracle = Oracle::new(config.protocol, volume << 32);
                oracle.restart_is_seen = config.fencing != Fencing::DontCare;
                Rc::new(RefCell::new(oracle))
            })
            .collect();
        let places = (0..8)
            .map(|_| sim.below(config.capacity_sectors - 64))
            .collect();
        let uuids: Vec<u64> = (0..config.volumes).map(|_| sim.random()).collect();
        let slots = [0, 1].map(|_| Slot {
            node: None,
            hardware: uuids
                .iter()
                .map(|&uuid| new_hardware(&sim, &config, uuid))
                .collect(),
            life: 0,
            busy: Rc::default(),
        });
        Self {
            sim,
            net,
            config,
            oracles,
            slots,
            places: Rc::new(places),
            peace: Rc::default(),
            disks_fail: false,
            aside: Rng::new(!seed.rotate_left(32)),
            lags: Rng::new(!seed.rotate_left(16)),
            sockets_lag: false,
            freezes: Rng::new(!seed.rotate_left(40)),
            suspends_io: false,
            changes_options: false,
            marksman: None,
            without: 0,
            starts_over: None,
            report: Report::default(),
        }
    }

    /// Boots a node, whose init script attaches and connects.
    fn boot(&mut self, id: usize) {
        let slot = &mut self.slots[id];
        if slot.node.is_some() {
            return;
        }
        slot.life += 1;
        self.sim.tell(|| format!("[{id}] boots"));
        let parts = Parts {
            id,
            life: slot.life,
            sim: self.sim.clone(),
            net: self.net.clone(),
            config: self.config.clone(),
        };
        let volumes = slot.hardware.iter().zip(&self.oracles);
        let volumes = volumes.map(|(hardware, oracle)| Volume {
            hardware: hardware.clone(),
            oracle: oracle.clone(),
        });
        let node = Node::boot(parts, volumes.collect());
        slot.busy = Rc::new(Cell::new(true));
        let busy = slot.busy.clone();
        slot.node = Some(node.clone());
        for _ in 0..APPLICATIONS {
            self.sim.spawn(
                node.owner,
                application(node.clone(), self.places.clone(), self.peace.clone()),
            );
        }
        self.sim.spawn(node.owner, async move {
            for device in &node.devices {
                let _ = device.attach().await;
            }
            let _ = node.connect(false).await;
            busy.set(false);
        });
    }

    /// Cuts a node's power.
    fn crash(&mut self, id: usize) {
        self.crash_keeping(id, None);
    }

    /// Cuts a node's power; what was not flushed is kept as drawn, or as told.
    fn crash_keeping(&mut self, id: usize, told: Option<Keep>) {
        let Some(node) = self.slots[id].node.take() else {
            return;
        };
        self.sim.tell(|| format!("[{id}] CRASHES"));
        self.report.crashes += 1;
        self.sim.kill(node.owner);
        self.net.vanish(id);
        drop(node);
        for oracle in &self.oracles {
            oracle.borrow_mut().crashed(id);
        }
        for Hardware { data, meta } in &self.slots[id].hardware {
            let keep = [0, 500, 900, 1000][usize::try_from(self.sim.below(4)).unwrap_or(0)];
            data.cut_power(told.unwrap_or(Keep::some(keep)));
            if !Rc::ptr_eq(data, meta) {
                let keep = [0, 500, 1000][usize::try_from(self.sim.below(3)).unwrap_or(0)];
                meta.cut_power(told.unwrap_or(Keep::some(keep)));
            }
        }
        self.check_coverage("at a crash");
    }

    fn check_coverage(&self, when: &str) {
        for (volume, oracle) in self.oracles.iter().enumerate() {
            let sides = [0, 1].map(|id| {
                let slot = &self.slots[id];
                check::Side {
                    device: slot.node.as_ref().map(|node| &*node.devices[volume]),
                    hardware: &slot.hardware[volume],
                }
            });
            if let Some(sector) = check::uncovered(&sides, &self.config) {
                oracle.borrow_mut().violation(format!(
                    "{when}: the disks differ at sector {sector} of volume {volume}, and neither bitmap nor activity log knows"
                ));
            }
        }
    }

    /// Says that something is broken that is not about one volume.
    fn violation(&mut self, text: String) {
        self.report.violations.push(text);
    }

    fn broken(&self) -> bool {
        let is_broken = |oracle: &Rc<RefCell<Oracle>>| !oracle.borrow().violations.is_empty();
        !self.report.violations.is_empty() || self.oracles.iter().any(is_broken)
    }

    /// The part in which things go wrong.
    fn faults(&mut self) {
        self.boot(0);
        self.boot(1);
        self.command(0, 0, Target::All);
        for _ in 0..FAULT_STEPS {
            if self.broken() || self.sim.step() == Step::Dead {
                return;
            }
            if self.aim() {
                return;
            }
            if self.sim.one_in(2500) && self.happens() {
                self.fate();
            }
            if self.sim.one_in(1200) {
                let id = usize::from(self.sim.one_in(2));
                let what = self.sim.below(24);
                if self.happens() {
                    let target = Target::choose(&self.sim, self.config.volumes);
                    self.command(id, what, target);
                }
            }
            if self.sim.one_in(2000) {
                self.check_coverage("on the way");
            }
            if self.changes_options && self.aside.one_in(2000) && self.happens() {
                self.change_option();
            }
            self.fence(2000);
            if self.suspends_io && self.freezes.one_in(1200) && self.happens() {
                let id = choose_aside(&mut self.freezes, 2);
                if self.freezes.one_in(2) {
                    self.boot(1 - id);
                }
                let suspends = !self.freezes.one_in(6);
                self.freeze(id, suspends);
            }
            if self.sockets_lag && self.lags.one_in(800) && self.happens() {
                self.lag();
            }
        }
    }

    /// Numbers an event; whether it happens.
    fn happens(&mut self) -> bool {
        let number = self.report.events;
        self.report.events += 1;
        1u128
            .checked_shl(number)
            .is_none_or(|bit| self.without & bit == 0)
    }

    fn fate(&mut self) {
        let id = usize::from(self.sim.one_in(2));
        match self.sim.below(17) {
            0 | 1 => {
                self.crash(id);
                if self.suspends_io && self.freezes.one_in(2) {
                    // The admin sees it before the other node does.
                    self.freeze(1 - id, true);
                }
            }
            2 => {
                self.crash(0);
                self.crash(1);
            }
            3 => {
                self.report.cuts += 1;
                self.sim.tell(|| format!("the wire is cut from {id}"));
                self.net.cut(id);
            }
            4 => {
                self.report.cuts += 1;
                self.sim.tell(|| "the wire is cut".into());
                self.net.cut(0);
                self.net.cut(1);
            }
            5 => {
                self.report.cuts += 1;
                self.sim.tell(|| "the sockets are reset".into());
                self.net.reset();
            }
            6..=8 => {
                self.sim.tell(|| "the wire is mended".into());
                self.net.mend();
            }
            9 => {
                self.report.cuts += 1;
                let stall_ns = self.sim.between(MS, 3 * S);
                self.sim
                    .tell(|| format!("the wire stalls for {} ms", stall_ns / MS));
                self.net.stall(stall_ns);
            }
            10 | 11 if self.disks_fail => self.trouble(id),
            10..=13 => self.heal(id),
            _ => {
                self.boot(id);
            }
        }
    }

    /// What a node sends over one of the sockets is late.
    fn lag(&mut self) {
        let from = choose_aside(&mut self.lags, 2);
        let socket = [Socket::Data, Socket::Meta][choose_aside(&mut self.lags, 2)];
        let time_ns = MS + self.lags.below(LAG_NS_MAX);
        self.sim
            .tell(|| format!("{socket:?} from {from} lags by {} ms", time_ns / MS));
        self.net.stall_one(from, socket, time_ns);
    }

    /// A disk of a node begins to be in trouble.
    fn trouble(&mut self, id: usize) {
        let permille = [30, 300, 1000][usize::try_from(self.sim.below(3)).unwrap_or(0)];
        let mut trouble = Trouble::NONE;
        let volume = choose(&self.sim, self.config.volumes);
        match self.sim.below(6) {
            0 => trouble.reads_permille = permille,
            1 => trouble.writes_permille = permille,
            2 => trouble.flushes_permille = permille,
            3 => {
                trouble.reads_permille = permille;
                trouble.writes_permille = permille;
                trouble.flushes_permille = permille;
            }
            4 => trouble.slowness = 50,
            _ => trouble.stalled_until_ns = self.sim.now_ns() + self.sim.between(MS, 2 * S),
        }
        let is_data = self.sim.one_in(2);
        self.trouble_of(id, volume, is_data, trouble);
    }

    /// The disks of all volumes of a node begin to be in trouble.
    fn trouble_with(&mut self, id: usize, is_data: bool, trouble: Trouble) {
        for volume in 0..self.config.volumes {
            self.trouble_of(id, volume, is_data, trouble);
        }
    }

    fn trouble_of(&mut self, id: usize, volume: usize, is_data: bool, trouble: Trouble) {
        let Hardware { data, meta } = &self.slots[id].hardware[volume];
        let drive = if is_data { data } else { meta };
        drive.trouble.set(trouble);
        self.report.disk_faults += 1;
        let name = if is_data { "data" } else { "meta" };
        self.sim
            .tell(|| format!("[{id}/{volume}] the {name} disk is in trouble: {trouble:?}"));
    }

    /// The disks of a node are well again.
    fn heal(&mut self, id: usize) {
        let hardware = &self.slots[id].hardware;
        let mut drives = hardware.iter().flat_map(|one| [&one.data, &one.meta]);
        if drives.any(|drive| drive.trouble.get() != Trouble::NONE) {
            self.sim.tell(|| format!("[{id}] the disks are well again"));
        }
        for Hardware { data, meta } in hardware {
            data.trouble.set(Trouble::NONE);
            meta.trouble.set(Trouble::NONE);
        }
    }

    /// The admin says something, unless a command is still running on that node.
    fn command(&mut self, id: usize, what: u64, target: Target) {
        let slot = &self.slots[id];
        let Some(node) = slot.node.clone() else {
            return;
        };
        let wait = what == 0;
        if slot.busy.get() && !wait {
            return;
        }
        self.report.commands += 1;
        let other = self.slots[1 - id].node.clone();
        let split =
            node.flags.split_brain.get() || other.is_some_and(|node| node.flags.split_brain.get());
        let busy = slot.busy.clone();
        self.sim.spawn(node.owner, async move {
            node.sim.until(|| !busy.replace(true)).await;
            obey(&node, what, target, split).await;
            node.sim.moment.set(Some(Moment::Obeyed));
            busy.set(false);
            node.sim.touch();
        });
    }

    /// The admin changes an option, unless a command is running on that node.
    fn change_option(&mut self) {
        let id = choose_aside(&mut self.aside, 2);
        let volume = choose_aside(&mut self.aside, self.config.volumes);
        let option = match self.aside.below(5) {
            0 => Setting::OnIoError(OnIoError::Detach),
            1 => Setting::OnIoError(OnIoError::PassOn),
            2 => Setting::MaxEpochSize([1, 4, 64][choose_aside(&mut self.aside, 3)]),
            _ => Setting::AlExtents(2 + choose_aside(&mut self.aside, 5)),
        };
        let slot = &self.slots[id];
        let Some(node) = slot.node.clone().filter(|_| !slot.busy.get()) else {
            return;
        };
        self.report.commands += 1;
        let busy = slot.busy.clone();
        busy.set(true);
        self.sim.spawn(node.owner, async move {
            let device = &node.devices[volume];
            device.tell(|| format!("{option:?}"));
            let result = match option {
                Setting::OnIoError(policy) => device.change_on_io_error(policy),
                Setting::MaxEpochSize(writes) => node.change_max_epoch_size(writes),
                Setting::AlExtents(extents) => device.change_al_extents(extents).await,
            };
            device.tell(|| format!("{option:?}: {result:?}"));
            node.sim.moment.set(Some(Moment::Obeyed));
            busy.set(false);
            node.sim.touch();
        });
    }

    /// A helper that is asked to fence the other node answers, sooner or later: it has switched
    /// that node off, or is broken.
    fn fence(&mut self, patience: u64) {
        for id in [0, 1] {
            let Some(node) = self.slots[id].node.clone() else {
                continue;
            };
            let fencer = &node.fencer;
            let is_asked = fencer.asks.get() && fencer.answer.get().is_none();
            if !is_asked || !self.freezes.one_in(patience) {
                continue;
            }
            let is_broken = !self.peace.get() && self.freezes.one_in(4);
            if !is_broken {
                self.crash(1 - id);
            }
            fencer
                .answer
                .set(Some((!is_broken).then_some(Verdict::Stonithed)));
            self.sim.touch();
        }
    }

    /// The admin suspends I/O, or has it go on, whatever command is running.
    fn freeze(&mut self, id: usize, suspends: bool) {
        let Some(node) = self.slots[id].node.clone() else {
            return;
        };
        self.report.commands += 1;
        self.sim.spawn(node.owner, async move {
            let name = if suspends { "suspend-io" } else { "resume-io" };
            node.tell(|| format!("drbdadm {name}"));
            let result = match suspends {
                true => node.suspend_io(),
                false => node.resume_io().await,
            };
            node.tell(|| format!("drbdadm {name}: {result:?}"));
            node.sim.moment.set(Some(Moment::Obeyed));
            node.sim.touch();
        });
    }

    /// Faults stop; the operator does what only a human can do.
    fn peace(&mut self) {
        self.sim.tell(|| "PEACE".into());
        self.peace.set(true);
        self.net.mend();
        self.heal(0);
        self.heal(1);
        let mut steps = 0;
        for round in 0..ROUNDS_MAX {
            self.boot(0);
            self.boot(1);
            let until_ns = self.sim.now_ns() + 2 * S;
            while self.sim.now_ns() < until_ns && !self.broken() {
                steps += 1;
                self.fence(100);
                if self.sim.step() == Step::Dead || steps > PEACE_STEPS {
                    self.violation(format!("no end: {}", self.states()));
                    return;
                }
            }
            if self.broken() {
                return;
            }
            if self.is_well() {
                self.check_equal();
                return;
            }
            self.operate(round);
        }
        self.violation(format!("stuck: {}", self.states()));
    }

    fn nodes(&self) -> Vec<Rc<Node>> {
        self.slots
            .iter()
            .filter_map(|slot| slot.node.clone())
            .collect()
    }

    fn states(&self) -> String {
        let states = self.nodes().into_iter().map(|node| {
            let volumes: Vec<_> = node.devices.iter().map(|device| device.state()).collect();
            format!(
                "[{}] {} {volumes:?} idle={}",
                node.id,
                node.conn(),
                node.is_quiet()
            )
        });
        states.collect::<Vec<_>>().join("; ")
    }

    fn is_well(&self) -> bool {
        let nodes = self.nodes();
        nodes.len() == 2
            && nodes.iter().all(|node| {
                let is_well = |state: State| {
                    state.conn == ConnState::Connected
                        && state.disk == DiskState::UpToDate
                        && state.pdsk == DiskState::UpToDate
                };
                let all_well = node.devices.iter().all(|device| is_well(device.state()));
                all_well && node.is_quiet() && !node.is_suspended()
            })
    }

    fn check_equal(&self) {
        for (volume, oracle) in self.oracles.iter().enumerate() {
            let [one, other] = [0, 1].map(|id| {
                let Hardware { data, .. } = &self.slots[id].hardware[volume];
                data.peek(0, self.config.capacity_sectors)
            });
            if let Some(sector) = check::first_difference(&one, &other) {
                oracle.borrow_mut().violation(format!(
                    "connected, UpToDate on both nodes and idle, but sector {sector} of volume {volume} differs"
                ));
            }
        }
    }

    fn operate(&mut self, round: u32) {
        let nodes = self.nodes();
        let split = nodes.iter().any(|node| node.flags.split_brain.get());
        let refused = nodes
            .iter()
            .any(|node| node.conn() == ConnState::StandAlone);
        let is_hopeless = |volume: usize| {
            nodes
                .iter()
                .all(|node| node.devices[volume].state().disk <= DiskState::Inconsistent)
        };
        let hopeless: Vec<bool> = (0..self.config.volumes).map(is_hopeless).collect();
        let loser = usize::from(round % 2 == 0);
        for node in nodes {
            let state = node.devices[0].state();
            // Data may be back by themselves.
            if state.susp || state.susp_fen || (state.susp_nod && round > 5) {
                self.report.decisions += 1;
                self.freeze(node.id, false);
            }
            let stand_alone = node.conn() == ConnState::StandAlone;
            let busy = self.slots[node.id].busy.clone();
            if busy.get() {
                continue;
            }
            let discards = split && node.id == loser;
            let facts = Facts {
                round,
                loser,
                split,
                refused,
            };
            let volumes = node.devices.iter().zip(&hopeless);
            let remedies: Vec<Remedy> = volumes
                .map(|(device, &hopeless)| self.remedy(device, facts, hopeless))
                .collect();
            let gives_up = discards || remedies.iter().any(|remedy| remedy.starts_over);
            let leaves = discards || remedies.iter().any(|remedy| remedy.leaves);
            self.report.decisions += u64::from(gives_up);
            busy.set(true);
            self.sim.spawn(node.owner, async move {
                let volumes = || node.devices.iter().zip(&remedies);
                for (device, _) in volumes().filter(|(_, remedy)| remedy.demotes) {
                    let _ = device.demote().await;
                }
                if leaves && !stand_alone {
                    let _ = node.disconnect().await;
                }
                for (device, remedy) in volumes() {
                    treat(device, *remedy).await;
                }
                if node.conn() == ConnState::StandAlone {
                    let _ = node.connect(discards).await;
                }
                busy.set(false);
            });
        }
    }

    /// What the operator does with a volume.
    fn remedy(&mut self, device: &Rc<Device>, facts: Facts, hopeless: bool) -> Remedy {
        let node = device.node();
        let Facts {
            round,
            loser,
            split,
            refused,
        } = facts;
        let state = device.state();
        let stand_alone = node.conn() == ConnState::StandAlone;
        let together = state.conn == ConnState::Connected;
        let diskless = state.disk == DiskState::Diskless;
        // A Primary without a disk may have been promised other data than its disk has.
        let clings = diskless && round > 5;
        let forces = hopeless && node.id != loser && (together || round > 10);
        let unrelated = device.flags.unrelated.get() && stand_alone;
        // Blocks could not be read or written; who had such errors passed on tries again.
        let passes_on = device.on_io_error.get() == OnIoError::PassOn;
        let tries_again = (passes_on || self.changes_options)
            && together
            && state.disk == DiskState::UpToDate
            && state.pdsk == DiskState::Inconsistent;
        // One of them: who gives up both has no data left. Or the one whose disk the other, which
        // is in use, refused.
        let refused_disk = device.flags.unrelated.get() && together && diskless;
        let refused_alone = refused_disk && state.pdsk >= DiskState::Inconsistent;
        let starts_over = refused_alone
            || ((refused_disk || unrelated) && node.id == *self.starts_over.get_or_insert(loser));
        self.report.decisions += u64::from(forces) + u64::from(tries_again);
        Remedy {
            demotes: (split || refused || clings) && device.is_primary(),
            leaves: (split && diskless) || tries_again,
            starts_over,
            forces,
        }
    }
}

/// What the operator sees of both nodes.
#[derive(Clone, Copy)]
struct Facts {
    round: u32,
    /// Whose data are given up, if one's must be.
    loser: usize,
    /// There is a split brain.
    split: bool,
    /// A node does not want the other.
    refused: bool,
}

/// What the operator does with a volume on a node.
#[derive(Clone, Copy)]
struct Remedy {
    demotes: bool,
    /// Disconnects, and connects again.
    leaves: bool,
    /// Gives up what the disk holds.
    starts_over: bool,
    /// Declares the disk good.
    forces: bool,
}

async fn treat(device: &Rc<Device>, remedy: Remedy) {
    if remedy.starts_over {
        let _ = device.detach().await;
        if device.state().disk == DiskState::Diskless {
            device.forget_data();
        }
    }
    if device.state().disk == DiskState::Diskless {
        let _ = device.attach().await;
    }
    if remedy.forces {
        let _ = device.promote(true).await;
    }
}

/// Empty disks of a volume, with metadata of this generation.
fn new_hardware(sim: &Rc<Sim>, config: &Config, uuid: u64) -> Hardware {
    let data = Drive::new(sim.clone(), Speed::USUAL);
    let meta = if config.internal_metadata {
        data.clone()
    } else {
        Drive::new(sim.clone(), Speed::USUAL)
    };
    tools::create_metadata(&meta, config, uuid);
    Hardware { data, meta }
}

/// One of so many; nothing is drawn where there is one alone.
fn choose(sim: &Sim, count: usize) -> usize {
    if count < 2 {
        return 0;
    }
    usize::try_from(sim.below(count as u64)).unwrap_or(0)
}

/// One of so many.
fn choose_aside(rng: &mut Rng, count: usize) -> usize {
    usize::try_from(rng.below(count as u64)).unwrap_or(0)
}

/// An option that changes while the module runs.
#[derive(Clone, Copy, Debug)]
enum Setting {
    OnIoError(OnIoError),
    AlExtents(usize),
    MaxEpochSize(u32),
}

/// Which volumes a command is about.
#[derive(Clone, Copy)]
enum Target {
    /// All, one after the other.
    All,
    /// One of them.
    Volume(usize),
}

impl Target {
    fn choose(sim: &Sim, volumes: usize) -> Self {
        match choose(sim, 2 * volumes - 1) {
            volume if volume < volumes => Self::Volume(volume),
            _ => Self::All,
        }
    }

    fn volumes(self, node: &Node) -> &[Rc<Device>] {
        match self {
            Self::All => &node.devices,
            Self::Volume(volume) => &node.devices[volume..=volume],
        }
    }
}

/// Carries out a command.
async fn obey(node: &Rc<Node>, what: u64, target: Target, split: bool) {
    let name = match what {
        0..=7 => "primary",
        8..=9 => "secondary",
        10..=11 => "disconnect",
        12..=15 => "connect",
        16..=17 => "detach",
        18..=20 => "attach",
        21 => "invalidate",
        22 => "invalidate-remote",
        _ => "primary --force",
    };
    match what {
        10..=11 => {
            node.tell(|| format!("drbdadm {name}"));
            let result = node.disconnect().await;
            node.tell(|| format!("drbdadm {name}: {result:?}"));
        }
        12..=15 => {
            node.tell(|| format!("drbdadm {name}"));
            // After a split brain some admin gives up one side, sometimes.
            let discards = split && !node.is_primary() && node.sim.one_in(3);
            let result = node.connect(discards).await;
            node.tell(|| format!("drbdadm {name}: {result:?}"));
        }
        _ => {
            for device in target.volumes(node) {
                device.tell(|| format!("drbdadm {name}"));
                let result = obey_for_volume(device, what).await;
                device.tell(|| format!("drbdadm {name}: {result:?}"));
            }
        }
    }
}

async fn obey_for_volume(device: &Rc<Device>, what: u64) -> Result<(), StateError> {
    match what {
        0..=7 => device.promote(false).await,
        8..=9 => device.demote().await,
        16..=17 => device.detach().await,
        18..=20 => device.attach().await,
        21 => device.invalidate(true).await,
        22 => device.invalidate(false).await,
        _ => device.promote(true).await,
    }
}

/// An application: while its node is Primary it reads, writes and flushes, on whichever volume.
async fn application(node: Rc<Node>, places: Rc<Vec<u64>>, peace: Rc<Cell<bool>>) {
    loop {
        node.sim.until(|| node.is_primary() && !peace.get()).await;
        let sim = &node.sim;
        let volumes = node.devices.iter().filter(|device| device.is_primary());
        let volumes: Vec<_> = volumes.collect();
        let device = volumes[choose(sim, volumes.len())];
        let place = places[usize::try_from(sim.below(places.len() as u64)).unwrap_or(0)];
        let sectors = sim.between(1, 24);
        let blocks = Blocks {
            sector: Sector(place + sim.below(16)),
            size_bytes: u32::try_from(sectors * 512).unwrap_or(512),
        };
        let number = device.oracle.borrow_mut().number();
        let (operation, blocks) = match sim.below(10) {
            0 => {
                let nowhere = Blocks {
                    sector: Sector(0),
                    size_bytes: 0,
                };
                (Operation::Flush, nowhere)
            }
            1..=3 => (Operation::Read, blocks),
            _ => (Operation::Write(number), blocks),
        };
        let master = device.submit(number, operation, blocks).await;
        sim.until(|| master.ended.get().is_some()).await;
        let pause_ns = sim.below(2 * MS);
        sim.sleep(node.owner, pause_ns).await;
    }
}
