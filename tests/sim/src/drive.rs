// SPDX-License-Identifier: GPL-2.0

//! A disk with a volatile write cache. A power cut loses or keeps what was not flushed, sector by
//! sector, in any order. It may fail for a while, be slow, or not answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::sim::{Moment, Owner, Sim, MS, US};

/// What a sector holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Data: the number of the write it comes from.
    Data(u64),
    /// Metadata.
    Meta(Rc<[u8; 512]>),
}

/// A write: first sector, and the content of each; `None` is a sector that was never written.
pub type Sectors = Vec<(u64, Option<Content>)>;

/// What a write leaves in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything.
    Cached,
    /// Not the write itself: it is durable at its end.
    Stable,
    /// Neither the write nor what completed before it: that is flushed first.
    AllStable,
}

impl Durability {
    /// What is needed of a write of an application, which has a flush made first or does not.
    pub const fn of_write(flushes_first: bool) -> Self {
        if flushes_first {
            Self::AllStable
        } else {
            Self::Cached
        }
    }
}

struct InFlight {
    sectors: Sectors,
    /// What completed before is flushed before the write begins.
    flushes: bool,
}

struct Unflushed {
    sequence: u64,
    sectors: Sectors,
}

/// How fast a disk is.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// The longest time for a read or write.
    pub io_ns: u64,
    /// The longest time for a flush.
    pub flush_ns: u64,
}

impl Speed {
    /// A usual disk.
    pub const USUAL: Self = Self {
        io_ns: 400 * US,
        flush_ns: 3 * MS,
    };
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Of a thousand reads, so many fail.
    pub reads_permille: u64,
    /// Reads of this sector fail.
    pub unreadable: Option<u64>,
    /// Of a thousand writes, so many fail. Of each sector of such a write nobody knows what it
    /// holds, the old or the new.
    pub writes_permille: u64,
    /// Of a thousand flushes, so many fail, and flush nothing.
    pub flushes_permille: u64,
    /// How many times slower it is.
    pub slowness: u64,
    /// Until when it does not answer.
    pub stalled_until_ns: u64,
}

impl Trouble {
    /// A disk that is well.
    pub const NONE: Self = Self {
        reads_permille: 0,
        unreadable: None,
        writes_permille: 0,
        flushes_permille: 0,
        slowness: 1,
        stalled_until_ns: 0,
    };
}

/// How many of a thousand sectors that were on their way a power cut keeps.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    data_permille: u64,
    meta_permille: u64,
}

impl Keep {
    /// All.
    pub const ALL: Self = Self::some(1000);
    /// Those of data.
    pub const DATA: Self = Self {
        data_permille: 1000,
        meta_permille: 0,
    };
    /// Those of metadata.
    pub const METADATA: Self = Self {
        data_permille: 0,
        meta_permille: 1000,
    };

    /// So many of a thousand, whatever they are.
    pub const fn some(permille: u64) -> Self {
        Self {
            data_permille: permille,
            meta_permille: permille,
        }
    }

    const fn permille(self, content: Option<&Content>) -> u64 {
        match content {
            Some(Content::Meta(_)) => self.meta_permille,
            _ => self.data_permille,
        }
    }
}

/// A disk.
pub struct Drive {
    sim: Rc<Sim>,
    speed: Speed,
    durable: RefCell<BTreeMap<u64, Content>>,
    visible: RefCell<BTreeMap<u64, Content>>,
    /// Completed, not flushed, oldest first.
    unflushed: RefCell<Vec<Unflushed>>,
    /// Submitted and not completed.
    in_flight: RefCell<BTreeMap<u64, InFlight>>,
    sequence: Cell<u64>,
    /// What is wrong with it.
    pub trouble: Cell<Trouble>,
    /// Reads, writes and flushes that failed.
    pub errors: Cell<u64>,
}

impl Drive {
    /// An empty disk.
    pub fn new(sim: Rc<Sim>, speed: Speed) -> Rc<Self> {
        Rc::new(Self {
            sim,
            speed,
            durable: RefCell::default(),
            visible: RefCell::default(),
            unflushed: RefCell::default(),
            in_flight: RefCell::default(),
            sequence: Cell::new(0),
            trouble: Cell::new(Trouble::NONE),
            errors: Cell::new(0),
        })
    }

    /// Whether something with this chance goes wrong.
    fn fails(&self, permille: u64) -> bool {
        let fails = permille != 0 && self.sim.below(1000) < permille;
        self.errors.set(self.errors.get() + u64::from(fails));
        fails
    }

    fn fails_to_read(&self, sector: u64, count: u64) -> bool {
        let trouble = self.trouble.get();
        let is_of = |unreadable| (sector..sector + count).contains(&unreadable);
        let certainly = trouble.unreadable.is_some_and(is_of);
        self.fails(if certainly {
            1000
        } else {
            trouble.reads_permille
        })
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.set(self.sequence.get() + 1);
        self.sequence.get()
    }

    fn delay(&self, flushes: bool) -> u64 {
        let flush_ns = if flushes {
            self.sim.between(50 * US, self.speed.flush_ns)
        } else {
            0
        };
        let trouble = self.trouble.get();
        let usual_ns = self.sim.between(10 * US, self.speed.io_ns) + flush_ns;
        let stalled_ns = trouble.stalled_until_ns.saturating_sub(self.sim.now_ns());
        stalled_ns + usual_ns * trouble.slowness
    }

    /// Writes. `done` gets whether that worked.
    pub fn write(
        self: &Rc<Self>,
        owner: Owner,
        sectors: Sectors,
        durability: Durability,
        done: impl FnOnce(bool) + 'static,
    ) {
        let sequence = self.next_sequence();
        let flushes = durability == Durability::AllStable;
        let write = InFlight { sectors, flushes };
        let delay_ns = self.delay(durability != Durability::Cached);
        self.in_flight.borrow_mut().insert(sequence, write);
        let drive = self.clone();
        self.sim.after(owner, delay_ns, move || {
            let fails = drive.fails(drive.trouble.get().writes_permille);
            // Where the flush in front of it fails a write does not begin; else what it counts on
            // is on stable storage, whatever becomes of the write itself.
            let begins = !(flushes && fails && drive.sim.one_in(2));
            if flushes && begins {
                drive.settle(sequence);
            }
            let durable = durability != Durability::Cached && !fails;
            let write = drive.in_flight.borrow_mut().remove(&sequence);
            let mut sectors = write.map(|write| write.sectors).unwrap_or_default();
            if fails {
                sectors.retain(|_| begins && drive.sim.one_in(2));
            }
            store(&mut drive.visible.borrow_mut(), &sectors);
            if matches!(sectors.first(), Some((_, Some(Content::Meta(_))))) {
                drive.sim.moment.set(Some(Moment::Stored));
            }
            let completed = drive.next_sequence();
            drive.unflushed.borrow_mut().push(Unflushed {
                sequence: completed,
                sectors,
            });
            if durable {
                drive.settle_one(completed);
            }
            done(!fails);
        });
    }

    /// Makes durable what completed before now; `done` gets whether that worked.
    pub fn flush(self: &Rc<Self>, owner: Owner, done: impl FnOnce(bool) + 'static) {
        let sequence = self.next_sequence();
        let drive = self.clone();
        self.sim.after(owner, self.delay(true), move || {
            let fails = drive.fails(drive.trouble.get().flushes_permille);
            if !fails {
                drive.settle(sequence);
            }
            drive.sim.moment.set(Some(Moment::Stored));
            done(!fails);
        });
    }

    /// Reads; `done` gets what is there at the end, or nothing where that cannot be read.
    pub fn read(
        self: &Rc<Self>,
        owner: Owner,
        sector: u64,
        count: u64,
        done: impl FnOnce(Option<Sectors>) + 'static,
    ) {
        let drive = self.clone();
        self.sim.after(owner, self.delay(false), move || {
            let fails = drive.fails_to_read(sector, count);
            done((!fails).then(|| drive.peek(sector, count)));
        });
    }

    /// What a read would give now, sectors that were never written left out.
    pub fn peek(&self, sector: u64, count: u64) -> Sectors {
        let visible = self.visible.borrow();
        visible
            .range(sector..sector + count)
            .map(|(&at, content)| (at, Some(content.clone())))
            .collect()
    }

    /// Stores without a device in between, as the admin's tools do before the first attach.
    pub fn poke(&self, sectors: &Sectors) {
        self.settle(u64::MAX);
        store(&mut self.visible.borrow_mut(), sectors);
        store(&mut self.durable.borrow_mut(), sectors);
    }

    fn settle(&self, before: u64) {
        self.settle_where(|sequence| sequence < before);
    }

    fn settle_one(&self, sequence: u64) {
        self.settle_where(|other| other == sequence);
    }

    fn settle_where(&self, settles: impl Fn(u64) -> bool) {
        let mut durable = self.durable.borrow_mut();
        self.unflushed.borrow_mut().retain(|write| {
            let settles = settles(write.sequence);
            if settles {
                store(&mut durable, &write.sectors);
            }
            !settles
        });
    }

    /// The power fails: some of the sectors that were on their way are kept.
    pub fn cut_power(&self, keep: Keep) {
        let mut in_flight = self.in_flight.take();
        // A write with a flush in front has not begun before that is through.
        in_flight.retain(|&sequence, write| {
            let begun = !write.flushes || self.sim.one_in(2);
            if begun && write.flushes {
                self.settle(sequence);
            }
            begun
        });
        let on_their_way = self.unflushed.take().into_iter().map(|write| write.sectors);
        let in_flight = in_flight.into_values().map(|write| write.sectors);
        let mut durable = self.durable.borrow_mut();
        for sectors in on_their_way.chain(in_flight) {
            for sector in sectors {
                if self.sim.below(1000) < keep.permille(sector.1.as_ref()) {
                    store(&mut durable, std::slice::from_ref(&sector));
                }
            }
        }
        self.visible.replace(durable.clone());
    }
}

fn store(map: &mut BTreeMap<u64, Content>, sectors: &[(u64, Option<Content>)]) {
    for (sector, content) in sectors {
        match content {
            Some(content) => map.insert(*sector, content.clone()),
            None => map.remove(sector),
        };
    }
}
