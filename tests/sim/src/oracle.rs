// SPDX-License-Identifier: GPL-2.0

//! The judge of a volume: what the application was told, and so what it may read on either node
//! from then on.
//!
//! For every node there is a view: for each sector the writes that may be found there. A write that
//! was told done supersedes those before it. A power cut takes that back where the write was not
//! flushed. A resync that ends makes the target's view the source's.
//!
//! Beside that, whatever disk a Primary has now, its users read nothing that is older than what
//! they were told done since it was promoted.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use drbd_engine::config::Protocol;
use drbd_engine::state::{ConnState, DiskState, State};

use crate::drive::Content;
use crate::node::request::{Master, Operation};
use crate::node::submit::Ended;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    number: u64,
    /// The node whose application wrote it.
    writer: usize,
    submitted: u64,
    /// When its end was told, well or not.
    ended: Option<u64>,
    acknowledged: bool,
    superseded: Option<u64>,
    durable: bool,
    /// What superseded it is on stable storage.
    gone: bool,
}

impl Candidate {
    /// What a sector holds before the first write.
    const FIRST: Self = Self {
        number: 0,
        writer: 0,
        submitted: 0,
        ended: Some(0),
        acknowledged: true,
        superseded: None,
        durable: true,
        gone: false,
    };
}

/// What may be read on one node.
#[derive(Clone, Debug)]
struct View {
    sectors: BTreeMap<u64, Vec<Candidate>>,
    /// The admin declared data good that nobody vouches for.
    is_anything: bool,
}

impl View {
    fn candidates(&mut self, sector: u64) -> &mut Vec<Candidate> {
        self.sectors
            .entry(sector)
            .or_insert_with(|| vec![Candidate::FIRST])
    }

    fn add(&mut self, sectors: std::ops::Range<u64>, number: u64, writer: usize, submitted: u64) {
        for sector in sectors {
            self.candidates(sector).push(Candidate {
                number,
                writer,
                submitted,
                ended: None,
                acknowledged: false,
                superseded: None,
                durable: false,
                gone: false,
            });
        }
    }

    /// A write was told done: what it overwrote may not be seen again.
    ///
    /// Its ack may come late, when the nodes have left each other and the other one was promoted:
    /// what that has written since is newer. It was on disk before that began, for a node that is
    /// promoted waits for the last writes of its peer.
    fn acknowledge(&mut self, sectors: std::ops::Range<u64>, number: u64, now: u64) {
        for sector in sectors {
            let candidates = self.candidates(sector);
            let Some(&own) = candidates.iter().find(|one| one.number == number) else {
                continue;
            };
            if own.acknowledged {
                continue;
            }
            let follows =
                |one: &&Candidate| one.writer != own.writer && one.submitted > own.submitted;
            let next = candidates.iter().filter(follows);
            let done = next.map(|one| one.submitted).fold(now, u64::min);
            let is_newer = |one: &&Candidate| one.acknowledged && one.submitted >= done;
            let newer = candidates.iter().filter(is_newer);
            let superseded = newer.filter_map(|one| one.ended).min();
            for one in candidates.iter_mut() {
                let ended = one.ended.is_some_and(|ended| {
                    ended <= own.submitted || (one.acknowledged && ended <= done)
                });
                if one.number == number {
                    one.acknowledged = true;
                    one.ended = Some(done);
                    one.superseded = one.superseded.or(superseded);
                } else if one.superseded.is_none() && ended {
                    one.superseded = Some(done);
                }
            }
        }
    }

    fn fail(&mut self, sectors: std::ops::Range<u64>, number: u64, now: u64) {
        for sector in sectors {
            for one in self
                .candidates(sector)
                .iter_mut()
                .filter(|one| one.number == number)
            {
                one.ended = one.ended.or(Some(now));
            }
        }
    }

    /// Flushed: what these writes superseded is gone for good.
    fn settle(&mut self, is_durable: impl Fn(&Candidate) -> bool) {
        for candidates in self.sectors.values_mut() {
            let mut horizon = 0;
            for one in candidates.iter_mut() {
                if one.acknowledged && is_durable(one) {
                    one.durable = true;
                }
                if one.durable && one.acknowledged {
                    horizon = horizon.max(one.ended.unwrap_or(0));
                }
            }
            // Reads that began before may still find it.
            for one in candidates.iter_mut() {
                one.gone |= one.superseded.is_some_and(|at| at <= horizon);
            }
        }
    }

    /// The power failed: what was not flushed may be lost, what was under way may have happened.
    fn crash(&mut self, now: u64) {
        for candidates in self.sectors.values_mut() {
            // A read that was answered before, and is held back, may still give what is gone.
            for one in candidates.iter_mut().filter(|one| !one.gone) {
                one.superseded = None;
                one.ended = one.ended.or(Some(now));
            }
        }
    }

    /// These writes may not have come here yet: what only they superseded may still be found.
    fn doubt(&mut self, is_in_flight: impl Fn(u64) -> bool) {
        for candidates in self.sectors.values_mut() {
            let here: Vec<(u64, u64)> = candidates
                .iter()
                .filter(|one| one.acknowledged && !is_in_flight(one.number))
                .map(|one| (one.number, one.submitted))
                .collect();
            for one in candidates.iter_mut().filter(|one| one.superseded.is_some()) {
                let is_older = |&(number, submitted): &(u64, u64)| {
                    number != one.number && one.ended.is_some_and(|ended| ended <= submitted)
                };
                if !here.iter().any(is_older) {
                    one.superseded = None;
                    one.gone = false;
                }
            }
        }
    }

    fn allows(&mut self, sector: u64, number: u64, since: u64) -> bool {
        self.is_anything
            || self.candidates(sector).iter().any(|one| {
                one.number == number && one.superseded.is_none_or(|superseded| superseded > since)
            })
    }

    /// Whether only writes superseded this one of which the application had not been told.
    fn allows_untold(&mut self, sector: u64, number: u64, was_told: impl Fn(u64) -> bool) -> bool {
        let candidates = self.candidates(sector);
        let superseded = candidates
            .iter()
            .find(|one| one.number == number)
            .and_then(|one| one.superseded);
        let successor = candidates
            .iter()
            .find(|one| one.acknowledged && superseded.is_some() && one.ended == superseded);
        successor.is_some_and(|one| !was_told(one.number))
    }

    fn end_all(&mut self, now: u64, has_ended: impl Fn(u64) -> bool) {
        for candidates in self.sectors.values_mut() {
            for one in candidates.iter_mut().filter(|one| has_ended(one.number)) {
                one.ended = one.ended.or(Some(now));
            }
        }
    }

    fn is_durable(&self, number: u64) -> bool {
        let mut all = self
            .sectors
            .values()
            .flatten()
            .filter(|one| one.number == number);
        all.all(|one| one.durable)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bio {
    started: u64,
    /// The node that it was submitted to.
    reader: usize,
    local: bool,
    remote: bool,
    /// The node whose view a read is judged by.
    view: usize,
    /// A read of what an unfinished resync had put in sync before the source lost this node.
    frozen: bool,
    over: bool,
    /// When its end was told.
    told: Option<u64>,
    /// A write that was told done.
    done: bool,
    /// A write that was told done though this node's disk does not have it.
    elsewhere: bool,
    /// The peer lost its power since the write was sent there: what it acked before is as good as
    /// lost there, though the ack may arrive only now.
    peer_crashed: bool,
}

/// A write told done of which the peer, when it was lost, had not said that it had flushed it.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    number: u64,
    /// When the peer was lost.
    lost: u64,
    /// How long this node's disk, which has it too, was good after that; 0 if it was not.
    here_until: u64,
}

impl Doubt {
    /// Whether this node's disk was good, and had it, when a bio began.
    fn was_here(&self, bio: Bio) -> bool {
        self.lost > bio.started || self.here_until > bio.started
    }

    fn is_here(&self) -> bool {
        self.here_until == u64::MAX
    }
}

/// What was counted in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Writes told done.
    pub writes: u64,
    /// Reads judged.
    pub reads: u64,
    /// Flushes told done.
    pub flushes: u64,
}

impl Counts {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.flushes += other.flushes;
    }
}

/// The judge.
pub struct Oracle {
    protocol: Protocol,
    /// A node that was restarted is known as such when it is back, by fencing.
    pub restart_is_seen: bool,
    tick: u64,
    numbers: u64,
    bios: BTreeMap<u64, Bio>,
    views: [View; 2],
    states: [State; 2],
    /// The source's view when it lost this target, and what only the source had then.
    frozen: [Option<(View, BTreeSet<u64>)>; 2],
    /// Writes that this node sent, of which the peer has not said that they are on stable storage.
    in_flight: [BTreeSet<u64>; 2],
    /// Writes that this node sent, of whose epoch the peer has said nothing yet.
    unacked: [BTreeSet<u64>; 2],
    /// Writes told done that only this node has.
    alone: [BTreeSet<u64>; 2],
    /// The admin gave up this node's data.
    worthless: [bool; 2],
    /// Writes told done that the peer, which was lost, need not have flushed.
    doubted: [Vec<Doubt>; 2],
    /// By sector, the last writes that the users of this Primary were told done.
    told: [BTreeMap<u64, Vec<u64>>; 2],
    /// Of these, what the peer may have lost with its power, and this node's disk alone vouches
    /// for.
    kept: [BTreeSet<u64>; 2],
    /// What was counted.
    pub counts: Counts,
    /// What was broken.
    pub violations: Vec<String>,
}

fn range(master: &Master) -> std::ops::Range<u64> {
    let first = master.blocks.sector.0;
    first..first + master.blocks.sectors()
}

/// Whether the end of a write was told before another bio was submitted.
fn ended_before(bios: &BTreeMap<u64, Bio>, write: u64, bio: Bio) -> bool {
    let told = bios.get(&write).and_then(|write| write.told);
    told.is_some_and(|told| told <= bio.started)
}

impl Oracle {
    /// A judge of two equal disks; the numbers of bios begin behind `first`.
    pub fn new(protocol: Protocol, first: u64) -> Self {
        let view = View {
            sectors: BTreeMap::new(),
            is_anything: false,
        };
        Self {
            protocol,
            restart_is_seen: false,
            tick: 1,
            numbers: first,
            bios: BTreeMap::new(),
            views: [view.clone(), view],
            states: [State::NEW; 2],
            frozen: [None, None],
            in_flight: Default::default(),
            unacked: Default::default(),
            alone: Default::default(),
            worthless: [false; 2],
            doubted: Default::default(),
            told: Default::default(),
            kept: Default::default(),
            counts: Counts::default(),
            violations: Vec::new(),
        }
    }

    fn now(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// Says that something is broken.
    pub fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// A number for a bio, which a write leaves on the disk.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A bio was submitted.
    pub fn submitted(&mut self, node: usize, master: &Rc<Master>) {
        let started = self.now();
        let bio = Bio {
            started,
            reader: node,
            view: node,
            ..Bio::default()
        };
        self.bios.insert(master.number, bio);
    }

    /// A bio was sent on its ways.
    pub fn routed(&mut self, node: usize, master: &Rc<Master>, local: bool, remote: bool) {
        let state = self.states[node];
        let is_current = state.disk == DiskState::UpToDate;
        let Some(bio) = self.bios.get_mut(&master.number) else {
            return;
        };
        bio.local = local;
        bio.remote = remote;
        bio.view = if local && is_current { node } else { 1 - node };
        bio.frozen = local && !is_current && self.frozen[node].is_some();
        let started = bio.started;
        if let Operation::Write(number) = master.operation {
            for (_, view) in [(local, node), (remote, 1 - node)]
                .into_iter()
                .filter(|(to, _)| *to)
            {
                self.views[view].add(range(master), number, node, started);
            }
            if remote {
                self.in_flight[node].insert(number);
                self.unacked[node].insert(number);
            }
            if let (true, Some((frozen, _))) = (local, &mut self.frozen[node]) {
                frozen.add(range(master), number, node, started);
            }
        }
    }

    /// The application was told how its bio ended.
    pub fn ended(&mut self, node: usize, master: &Rc<Master>, ended: Ended) {
        let now = self.now();
        let Some(bio) = self.bios.get_mut(&master.number) else {
            return;
        };
        bio.over = true;
        bio.told = Some(now);
        let bio = *bio;
        match master.operation {
            Operation::Write(number) => self.write_ended(node, master, number, bio, ended, now),
            Operation::Flush if ended.ok => {
                self.counts.flushes += 1;
                if !ended.local {
                    self.judge_flush_by_peer(node, master, bio);
                }
                self.flushed(node, master, bio, ended);
            }
            Operation::Flush => self.flush_failed(node, bio),
            Operation::Read if ended.ok => {
                self.counts.reads += 1;
                self.judge_read(master, bio);
                self.judge_read_by_users(master, bio);
            }
            _ => {}
        }
    }

    fn write_ended(
        &mut self,
        node: usize,
        master: &Master,
        number: u64,
        bio: Bio,
        ended: Ended,
        now: u64,
    ) {
        let sectors = || range(master);
        if !ended.ok {
            self.views[node].fail(sectors(), number, now);
            if master.flushes_first {
                self.flush_failed(node, bio);
            }
            return;
        }
        if master.flushes_first {
            self.flushed(node, master, bio, ended);
        }
        self.counts.writes += 1;
        self.remember_told(node, sectors(), number, bio);
        if ended.local {
            self.views[node].acknowledge(sectors(), number, now);
        } else {
            self.views[node].fail(sectors(), number, now);
        }
        if bio.remote && bio.peer_crashed {
            self.views[1 - node].fail(sectors(), number, now);
            self.kept[node].insert(number);
        } else if bio.remote && ended.acknowledged && self.protocol != Protocol::A {
            self.views[1 - node].acknowledge(sectors(), number, now);
        }
        match (ended.local, ended.acknowledged) {
            (true, false) => self.alone[node].insert(number),
            // With protocol A it is only on its way there.
            (false, true) if self.protocol != Protocol::A => self.alone[1 - node].insert(number),
            _ => false,
        };
        if let Some(bio) = self.bios.get_mut(&master.number) {
            bio.done = true;
            bio.elsewhere = !ended.local;
        }
    }

    /// Without the own disk the peer's has to have what was told done before.
    fn judge_flush_by_peer(&mut self, node: usize, master: &Master, bio: Bio) {
        let was_told = |number: &&u64| ended_before(&self.bios, **number, bio);
        let missing = self.unacked[node].iter().find(was_told).copied();
        if let Some(number) = missing {
            self.not_flushed(master, number);
        }
    }

    /// A flush was told done, or a write in front of which there was one.
    fn flushed(&mut self, node: usize, master: &Master, bio: Bio, ended: Ended) {
        if ended.local {
            let flushed = |one: &Candidate| one.ended.is_some_and(|at| at <= bio.started);
            self.views[node].settle(flushed);
        }
        let here = ended.local && bio.view == node;
        let bios = &self.bios;
        let was_told = |doubt: &Doubt| ended_before(bios, doubt.number, bio);
        let missing = self.doubted[node]
            .iter()
            .find(|doubt| was_told(doubt) && !(here && doubt.was_here(bio)))
            .map(|doubt| doubt.number);
        self.doubted[node].retain(|doubt| !(here && doubt.is_here() && was_told(doubt)));
        if let Some(number) = missing {
            self.not_flushed(master, number);
        }
    }

    /// The application was told that it cannot count on what was told done before.
    fn flush_failed(&mut self, node: usize, bio: Bio) {
        let bios = &self.bios;
        self.doubted[node].retain(|doubt| !ended_before(bios, doubt.number, bio));
    }

    fn not_flushed(&mut self, master: &Master, number: u64) {
        self.violation(format!(
            "flush #{} was told done, but no disk has flushed write #{number}",
            master.number
        ));
    }

    fn judge_read(&mut self, master: &Master, bio: Bio) {
        let found: BTreeMap<u64, u64> = master
            .read
            .borrow()
            .iter()
            .map(|(sector, content)| match content {
                Some(Content::Data(number)) => (*sector, *number),
                _ => (*sector, 0),
            })
            .collect();
        let view = match &mut self.frozen[bio.reader] {
            Some((frozen, _)) if bio.frozen => frozen,
            _ => &mut self.views[bio.view],
        };
        // The own disk may not have what the peer vouches for while the application does not know
        // of it.
        let elsewhere = bio.local && bio.view != bio.reader;
        let bios = &self.bios;
        let was_told = |write: u64| {
            bios.get(&write)
                .is_none_or(|write| write.told.is_some_and(|told| told <= bio.started))
        };
        for sector in range(master) {
            let number = found.get(&sector).copied().unwrap_or(0);
            let allowed = view.allows(sector, number, bio.started)
                || (elsewhere && view.allows_untold(sector, number, was_told));
            if !allowed {
                let known = view.candidates(sector).clone();
                self.violation(format!(
                    "read #{} of sector {sector} gave write #{number}, which was overwritten; allowed: {:?}",
                    master.number,
                    known.iter().map(|one| (one.number, one.superseded)).collect::<Vec<_>>(),
                ));
                return;
            }
        }
    }

    /// What a write follows its users do not count on any more.
    fn remember_told(&mut self, node: usize, sectors: std::ops::Range<u64>, number: u64, bio: Bio) {
        let bios = &self.bios;
        let precedes = |one: u64| ended_before(bios, one, bio);
        for sector in sectors {
            let told = self.told[node].entry(sector).or_default();
            told.retain(|&one| !precedes(one));
            told.push(number);
        }
    }

    /// Users are not given what was there before something that they were told done.
    fn judge_read_by_users(&mut self, master: &Master, bio: Bio) {
        let content = master.read.borrow();
        for (sector, content) in content.iter() {
            let found = match content {
                Some(Content::Data(number)) => *number,
                _ => 0,
            };
            let told = self.told[bio.reader].get(sector);
            let is_lost = |one: &&u64| {
                let write = self.bios.get(one).copied().unwrap_or_default();
                let was_told = write.told.is_some_and(|told| told <= bio.started);
                let is_older = found == 0 || ended_before(&self.bios, found, write);
                was_told && **one != found && is_older
            };
            let lost = told.and_then(|told| told.iter().find(is_lost)).copied();
            if let Some(lost) = lost {
                self.violation(format!(
                    "read #{} of sector {sector} gave write #{found}, older than the told #{lost}",
                    master.number
                ));
                return;
            }
        }
    }

    /// The peer acked the epoch of a write, which it may have refused.
    pub fn epoch_acked(&mut self, node: usize, number: u64) {
        self.unacked[node].remove(&number);
        self.doubted[node].retain(|doubt| doubt.number != number);
    }

    /// The peer vouches that a write is on stable storage there.
    pub fn peer_flushed(&mut self, node: usize, master: &Rc<Master>) {
        let now = self.now();
        if let Operation::Write(number) = master.operation {
            self.in_flight[node].remove(&number);
            if self
                .bios
                .get(&master.number)
                .is_some_and(|bio| bio.elsewhere)
            {
                self.alone[1 - node].insert(number);
            }
            let view = &mut self.views[1 - node];
            view.acknowledge(range(master), number, now);
            view.settle(|one| one.number == number);
            self.peer_has_flushed(node);
        }
    }

    /// The peer flushed its disk: what it acked before it was lost, and it was not restarted since,
    /// is on stable storage too. With protocol A it was asked for an ack of what it alone has.
    fn peer_has_flushed(&mut self, node: usize) {
        let was_acked = |bio: &Bio| self.protocol != Protocol::A || !bio.local;
        let has_it = |number| {
            let bio = self.bios.get(&number);
            bio.is_some_and(|bio| was_acked(bio) && !bio.peer_crashed)
        };
        self.doubted[node].retain(|doubt| !has_it(doubt.number));
    }

    /// A node's state changed.
    pub fn state_changed(&mut self, node: usize, old: State, new: State) {
        let now = self.now();
        self.states[node] = new;
        if !new.role.is_primary() {
            self.told[node].clear();
            self.doubted[node].clear();
        }
        if new.disk != DiskState::UpToDate {
            for doubt in &mut self.doubted[node] {
                doubt.here_until = doubt.here_until.min(now);
            }
        }
        let is_good = |state: State| state.disk == DiskState::UpToDate;
        let peer_synced = old.conn.is_resync_source()
            && new.conn == ConnState::Connected
            && new.pdsk == DiskState::UpToDate;
        if peer_synced && is_good(old) && is_good(new) {
            self.doubted[node].retain(|doubt| !doubt.is_here());
        }
        if is_good(old) && new.conn == ConnState::StartingSyncT {
            // The admin of a peer whose power is gone already gave this disk up.
            let kept = std::mem::take(&mut self.kept[node]);
            for told in self.told[node].values_mut() {
                told.retain(|number| !kept.contains(number));
            }
        }
        let bios = std::mem::take(&mut self.bios);
        if old.conn < ConnState::Connected && new.conn >= ConnState::Connected {
            // What the peer lacks it gets now.
            self.kept[node].clear();
            for view in &mut self.views {
                view.end_all(now, |number| bios.get(&number).is_none_or(|bio| bio.over));
            }
        }
        self.bios = bios;
        let loses_peer = old.conn >= ConnState::Connected && new.conn < ConnState::Connected;
        if loses_peer {
            self.freeze_target_of(node);
        }
        if loses_peer && old.disk < DiskState::UpToDate && self.frozen[node].is_none() {
            self.frozen[node] = Some(self.as_synced_from(1 - node));
        }
        if loses_peer {
            self.doubt_unflushed(node, now);
            self.in_flight[node].clear();
            self.unacked[node].clear();
        }
        // A peer without a disk has nothing that could be read instead.
        let meets_data = |state: State| {
            state.conn >= ConnState::Connected && state.pdsk >= DiskState::Inconsistent
        };
        if !meets_data(old) && meets_data(new) {
            self.frozen[node] = None;
            if new.is_suspended() && !is_good(new) && !self.restart_is_seen {
                // What only the peer had it may have lost, and nobody is told: a known gap.
                self.doubted[node].clear();
            }
        }
        let was_target = matches!(old.conn, ConnState::SyncTarget | ConnState::PausedSyncT);
        if was_target && new.conn == ConnState::Connected && new.disk == DiskState::UpToDate {
            let (view, synced) = self.frozen[node]
                .take()
                .unwrap_or_else(|| self.as_synced_from(1 - node));
            self.views[node] = view;
            self.alone[node].clear();
            self.alone[1 - node].retain(|number| !synced.contains(number));
            self.worthless[node] = false;
        }
    }

    /// The peer is lost, and with it who could say whether what it has is on stable storage.
    fn doubt_unflushed(&mut self, node: usize, lost: u64) {
        let is_good = self.states[node].disk == DiskState::UpToDate;
        for &number in &self.unacked[node] {
            let Some(write) = self.bios.get(&number).filter(|write| write.done) else {
                continue;
            };
            // A disk that has become good since got it from this peer.
            let is_here = is_good && !(write.local && write.elsewhere);
            self.doubted[node].push(Doubt {
                number,
                lost,
                here_until: if is_here { u64::MAX } else { 0 },
            });
        }
    }

    /// A source is lost. Until the target hears of it, and after that, it may read what is in sync
    /// there, as it is now.
    fn freeze_target_of(&mut self, source: usize) {
        let target = self.states[1 - source];
        if target.conn >= ConnState::Connected && target.disk < DiskState::UpToDate {
            self.frozen[1 - source] = Some(self.as_synced_from(source));
        }
    }

    /// What a target has when all that is in sync came from this source, and the writes that only
    /// the source had.
    fn as_synced_from(&self, source: usize) -> (View, BTreeSet<u64>) {
        let mut view = self.views[source].clone();
        if self.protocol == Protocol::A {
            // What was told done at the source may still be on its way.
            let in_flight = &self.in_flight[source];
            view.doubt(|number| in_flight.contains(&number));
        }
        (view, self.alone[source].clone())
    }

    /// The handshake decided what a node does next.
    pub fn decided(&mut self, node: usize, conn: ConnState, verdict: i32) {
        let told =
            |alone: &BTreeSet<u64>| format!("{:?}", alone.iter().take(5).collect::<Vec<_>>());
        match conn {
            ConnState::WFBitMapT if !self.worthless[node] && !self.alone[node].is_empty() => {
                let text = told(&self.alone[node]);
                self.violation(format!(
                    "node {node} becomes target (verdict {verdict}), writes {text} that only it has are thrown away silently"
                ));
            }
            ConnState::Connected => {
                for one in 0..2 {
                    if !self.alone[one].is_empty() {
                        let text = told(&self.alone[one]);
                        self.violation(format!(
                            "connected without a resync, but only node {one} has writes {text}"
                        ));
                    }
                }
            }
            _ => {}
        }
    }

    /// The admin declared a node's data good by force.
    pub fn forced(&mut self, node: usize) {
        self.views[node].is_anything = true;
        self.worthless[1 - node] = true;
        self.told[node].clear();
    }

    /// The admin gave up a node's data.
    pub fn declared_worthless(&mut self, node: usize) {
        self.worthless[node] = true;
    }

    /// A node lost its power.
    pub fn crashed(&mut self, node: usize) {
        let now = self.now();
        self.forget_told_with(node);
        if self.states[node].conn >= ConnState::Connected {
            self.freeze_target_of(node);
        }
        self.states[node] = State::NEW;
        self.in_flight[node].clear();
        self.unacked[node].clear();
        self.views[node].crash(now);
        let view = &self.views[node];
        self.alone[node].retain(|&number| view.is_durable(number));
        for bio in self.bios.values_mut() {
            bio.over = true;
            bio.peer_crashed |= bio.reader != node;
        }
    }

    /// A node lost its power, and with it what only it had and what was not flushed there.
    fn forget_told_with(&mut self, node: usize) {
        self.told[node].clear();
        self.doubted[node].clear();
        let view = &self.views[node];
        let has_disk = self.states[1 - node].disk == DiskState::UpToDate;
        for told in self.told[1 - node].values_mut() {
            let is_lost = |number: &u64| !view.is_durable(*number);
            if has_disk {
                self.kept[1 - node].extend(told.iter().copied().filter(is_lost));
            } else {
                told.retain(|number| !is_lost(number));
            }
        }
    }
}
