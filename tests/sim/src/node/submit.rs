// SPDX-License-Identifier: GPL-2.0

//! The application's way in, as `io/submit.rs` has it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use drbd_engine::activity_log::{Got, Reserve, Span};
use drbd_engine::range::{Handle, Kind as RangeKind, Refusal};
use drbd_engine::request::{
    may_admit, route_flush, route_read, route_write, tells_out_of_sync, without_data, Admission,
    Copies, Destination, Event, Kind, ReadInputs, RequestState, Route, Start, Writer,
};
use drbd_engine::state::{DiskState, State};
use drbd_engine::transfer_log::{Index, Mark, Part, Stability};

use super::device::Device;
use super::disk::LocalRef;
use super::request::{Master, Operation, Parts};
use crate::canary::Canary;
use crate::drive::{Content, Durability};
use crate::packet::Blocks;
use crate::sim::Moment;

/// Application bios that a node takes at a time.
const BIOS_MAX: u32 = 32;

/// A bio on its way in, with what it holds so far.
pub(crate) struct Bio {
    master: Rc<Master>,
    extents: Option<(LocalRef, Span)>,
    after_commit: bool,
    range: Option<Handle>,
    failed_locally: bool,
    failed_remotely: bool,
    /// What was written before a flush that the peer is to make.
    mark: Option<Mark>,
    /// It has set bits that the peer is to be told of.
    is_untold: bool,
}

impl Bio {
    fn new(master: Rc<Master>) -> Self {
        Self {
            master,
            extents: None,
            after_commit: false,
            range: None,
            failed_locally: false,
            failed_remotely: false,
            mark: None,
            is_untold: false,
        }
    }

    /// A bio that some copy could not serve.
    pub(crate) fn again(master: Rc<Master>, failed_locally: bool, failed_remotely: bool) -> Self {
        Self {
            failed_locally,
            failed_remotely,
            ..Self::new(master)
        }
    }

    fn changes_data(&self) -> bool {
        matches!(self.master.operation, Operation::Write(_))
    }

    /// Whether the application counts on what was told done before as on stable storage when this
    /// is done.
    fn flushes(&self) -> bool {
        self.master.operation == Operation::Flush || self.master.flushes_first
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    ActivityLog,
    Range,
    Slot,
    Generation,
    PeerFlush,
    Data,
}

#[derive(Clone, Copy)]
struct Plan {
    local: bool,
    remote: bool,
    out_of_sync: bool,
}

/// How an application's bio ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Success.
    pub ok: bool,
    /// The local disk has it.
    pub local: bool,
    /// The peer took part.
    pub remote: bool,
    /// The peer promised what the protocol promises.
    pub acknowledged: bool,
}

impl Device {
    /// Submits an application's bio and waits until the node takes it; its end is told by
    /// [`Master::ended`].
    pub async fn submit(
        self: &Rc<Self>,
        number: u64,
        operation: Operation,
        blocks: Blocks,
    ) -> Rc<Master> {
        self.submit_master(Master {
            number,
            operation,
            blocks,
            flushes_first: false,
            read: RefCell::default(),
            ended: Cell::new(None),
        })
        .await
    }

    /// The same for a write that has a flush made first.
    pub async fn submit_after_flush(self: &Rc<Self>, number: u64, blocks: Blocks) -> Rc<Master> {
        self.submit_master(Master {
            number,
            operation: Operation::Write(number),
            blocks,
            flushes_first: true,
            read: RefCell::default(),
            ended: Cell::new(None),
        })
        .await
    }

    async fn submit_master(self: &Rc<Self>, master: Master) -> Rc<Master> {
        let Master {
            number,
            operation,
            blocks,
            ..
        } = master;
        let master = Rc::new(master);
        self.sim.until(|| self.may_enter()).await;
        self.application_bios.set(self.application_bios.get() + 1);
        self.tell(|| {
            format!(
                "app #{number} {operation:?} {}+{}",
                blocks.sector,
                blocks.sectors()
            )
        });
        self.oracle.borrow_mut().submitted(self.node_id, &master);
        if let Err((bio, _)) = self.attempt(Bio::new(master.clone())) {
            self.delayed.borrow_mut().push_back(bio);
            self.retry_delayed();
        }
        master
    }

    fn may_enter(&self) -> bool {
        let state = self.state();
        may_admit(&Admission {
            copies: self.copies(state),
            suspended: state.is_suspended(),
            held_back: !state.role.is_primary() || self.gate.get() != 0,
            bitmap_io: false,
            protocol_version: 101,
            bios: self.application_bios.get() + 1,
            max_bios: BIOS_MAX,
        })
    }

    /// Tells the application how its bio ended.
    pub(crate) fn end(&self, master: &Rc<Master>, ended: Ended) {
        self.tell(|| format!("app #{} ends: {ended:?}", master.number));
        self.oracle.borrow_mut().ended(self.node_id, master, ended);
        master.ended.set(Some(ended.ok));
        self.sim.moment.set(Some(Moment::Told));
        self.application_bios.set(self.application_bios.get() - 1);
        self.sim.touch();
    }

    /// Takes a bio as far as it goes; hands it back with what is in the way.
    fn attempt(self: &Rc<Self>, mut bio: Bio) -> Result<(), (Bio, Obstacle)> {
        if bio.changes_data() {
            if let Err(obstacle) = self.get_extents(&mut bio) {
                return Err((bio, obstacle));
            }
            if let Err(obstacle) = self.claim_range(&mut bio) {
                return Err((bio, obstacle));
            }
        }
        self.admit(bio)
    }

    fn get_extents(&self, bio: &mut Bio) -> Result<(), Obstacle> {
        if bio.extents.is_some() {
            return if bio.after_commit {
                Err(Obstacle::ActivityLog)
            } else {
                Ok(())
            };
        }
        let Some((local, span)) = self.extents_of(bio) else {
            return Ok(());
        };
        let got = local.activity_log.borrow_mut().try_get(span);
        if got != Got::Hot && self.config.has(Canary::ActivityLogAfterData) {
            // The work item writes the transaction when it comes to that.
            let answer = local.activity_log.borrow_mut().reserve(span);
            if matches!(answer, Reserve::Hot | Reserve::AfterCommit) {
                bio.extents = Some((local, span));
                self.retry_delayed();
                return Ok(());
            }
        }
        if got != Got::Hot {
            return Err(Obstacle::ActivityLog);
        }
        bio.extents = Some((local, span));
        Ok(())
    }

    fn extents_of(&self, bio: &Bio) -> Option<(LocalRef, Span)> {
        let local = self.local()?;
        let Blocks { sector, size_bytes } = bio.master.blocks;
        Some((local, Span::of(sector, size_bytes)?))
    }

    fn claim_range(&self, bio: &mut Bio) -> Result<(), Obstacle> {
        if bio.range.is_some() {
            return Ok(());
        }
        let Blocks { sector, size_bytes } = bio.master.blocks;
        let claimed =
            self.ranges
                .borrow_mut()
                .try_insert(RangeKind::LocalWrite, sector, size_bytes);
        match claimed {
            Ok(handle) => {
                bio.range = Some(handle);
                Ok(())
            }
            Err(Refusal::Conflict(conflict)) => {
                let is_resync = matches!(
                    conflict.kind,
                    RangeKind::ResyncRead
                        | RangeKind::ResyncAside
                        | RangeKind::ResyncRequest
                        | RangeKind::ResyncWrite
                );
                if is_resync && self.config.has(Canary::ResyncOvertakesWrite) {
                    return Ok(());
                }
                Err(Obstacle::Range)
            }
            Err(Refusal::Full) => Err(Obstacle::Slot),
            Err(Refusal::Malformed) => Ok(()),
        }
    }

    /// Routes the request in the state it enters the transfer log in, and starts its parts.
    fn admit(self: &Rc<Self>, mut bio: Bio) -> Result<(), (Bio, Obstacle)> {
        let careless = self.config.has(Canary::WritesBeforeGeneration);
        if bio.changes_data() && self.flags.generations_due.get() != 0 && !careless {
            return Err((bio, Obstacle::Generation));
        }
        let local = match &bio.extents {
            Some(_) => None,
            None => self.local(),
        };
        let has_disk = bio.extents.is_some() || local.is_some();
        let state = self.state();
        if bio.changes_data() && state.is_suspended() {
            return Err((bio, Obstacle::Data));
        }
        let here = has_disk && state.disk == DiskState::UpToDate && !bio.failed_locally;
        let may_go = here || state.pdsk == DiskState::UpToDate;
        if bio.flushes() && may_go && bio.mark.is_none() && self.takes_lost_stability(here) {
            self.fail(bio);
            return Ok(());
        }
        let plan = match self.route(&bio, state, has_disk) {
            Route::Go(plan) => plan,
            Route::Suspend => {
                // What it waits for is another copy than the one that failed.
                bio.failed_locally &= state.disk == DiskState::UpToDate;
                bio.failed_remotely &= state.pdsk == DiskState::UpToDate;
                return Err((bio, Obstacle::Data));
            }
            Route::Fail => {
                self.fail(bio);
                return Ok(());
            }
        };
        bio.is_untold |= plan.out_of_sync;
        let plan = Plan {
            local: plan.local && has_disk,
            ..plan
        };
        if !plan.local && !plan.remote {
            self.fail(bio);
            return Ok(());
        }
        let master = bio.master.clone();
        if master.operation == Operation::Flush && !plan.local {
            return self.flush_by_peer(bio);
        }
        let Blocks { sector, size_bytes } = master.blocks;
        let admitted =
            self.node()
                .log
                .borrow_mut()
                .admit(part_of(plan, master.operation), sector, size_bytes);
        let Some((index, _)) = admitted else {
            return Err((bio, Obstacle::Slot));
        };
        if master.operation == Operation::Flush && plan.remote {
            self.node().log.borrow_mut().close_epoch();
        }
        let kind = match master.operation {
            Operation::Read => Kind::Read { read_ahead: false },
            Operation::Flush => Kind::Flush,
            Operation::Write(_) if master.flushes_first => Kind::FlushAndWrite,
            Operation::Write(_) => Kind::Write,
        };
        let start = Start {
            kind,
            local: plan.local,
            local_is_current: state.disk == DiskState::UpToDate,
            remote: plan.remote,
            out_of_sync: plan.out_of_sync,
            protocol: self.config.protocol,
            chooses_ack: !self.config.has(Canary::DisklessBelieved),
        };
        let (reference, extents) = match bio.extents {
            Some((reference, span)) => {
                let id = reference.id;
                (Some(reference), Some((id, span)))
            }
            None => (local, None),
        };
        if plan.remote && kind != Kind::Flush {
            self.application_pending
                .set(self.application_pending.get() + 1);
        }
        let parts = Parts {
            device: self.clone(),
            master: master.clone(),
            local: reference.filter(|_| plan.local),
            extents,
            range: bio.range,
            mirror_generation: self.mirror_generation.get(),
            is_over: false,
            remote: plan.remote,
            marks_later: false,
        };
        self.node().request(index).begin(parts, start.state());
        self.oracle
            .borrow_mut()
            .routed(self.node_id, &master, plan.local, plan.remote);
        if plan.local {
            self.start_local(index, &master);
        }
        self.node().happens(index, Event::SubmitterDone);
        Ok(())
    }

    /// Whether a flush says nothing of what the peer acked before it was lost.
    fn takes_lost_stability(&self, here: bool) -> bool {
        let is_lost = self.flags.stability_lost.replace(false);
        let is_unflushed = !here && self.flags.peer_unflushed.replace(false);
        is_lost || is_unflushed
    }

    /// Ends a flush that only the peer can make, once it has.
    fn flush_by_peer(&self, mut bio: Bio) -> Result<(), (Bio, Obstacle)> {
        let stability = {
            let node = self.node();
            let mut log = node.log.borrow_mut();
            let mark = *bio.mark.get_or_insert_with(|| log.mark());
            log.stability(mark)
        };
        self.sim.touch();
        let careless = self.config.has(Canary::FlushBelieved);
        match stability {
            Stability::Pending if !careless => return Err((bio, Obstacle::PeerFlush)),
            Stability::Pending | Stability::Reached => {
                let ended = Ended {
                    ok: true,
                    local: false,
                    remote: true,
                    acknowledged: true,
                };
                self.end(&bio.master, ended);
            }
            Stability::Lost => self.fail(bio),
        }
        Ok(())
    }

    fn start_local(self: &Rc<Self>, index: Index, master: &Rc<Master>) {
        let Blocks { sector, .. } = master.blocks;
        let count = master.blocks.sectors();
        let device = self.clone();
        let data = &self.hardware.data;
        match master.operation {
            Operation::Read => {
                let master = master.clone();
                data.read(self.owner, sector.0, count, move |sectors| {
                    let found = sectors.map(|sectors| master.read.replace(sectors));
                    device.local_ended(index, &master, found.is_some());
                });
            }
            Operation::Write(number) => {
                let content = Some(Content::Data(number));
                let sectors = (sector.0..sector.0 + count).map(|at| (at, content.clone()));
                let master = master.clone();
                data.write(
                    self.owner,
                    sectors.collect(),
                    Durability::of_write(master.flushes_first),
                    move |ok| {
                        device.local_ended(index, &master, ok);
                    },
                );
            }
            Operation::Flush => {
                let master = master.clone();
                data.flush(self.owner, move |ok| {
                    device.local_ended(index, &master, ok);
                });
            }
        }
    }

    fn local_ended(self: &Rc<Self>, index: Index, master: &Rc<Master>, ok: bool) {
        if !ok {
            self.tell(|| format!("app #{} fails on the disk", master.number));
            if master.operation != Operation::Read {
                let acked = self.node().request(index).state().has(RequestState::NET_OK);
                self.note_lack(Writer::Own { acked });
            }
            self.note_disk_error(master.operation == Operation::Read, master.blocks);
        }
        let event = if ok {
            Event::LocalOk
        } else {
            Event::LocalFailed
        };
        self.node().happens(index, event);
    }

    fn route(&self, bio: &Bio, state: State, has_disk: bool) -> Route<Plan> {
        let copies = self.copies(state);
        let written = match bio.master.operation {
            Operation::Flush => {
                let disk_flushes = has_disk && !bio.failed_locally;
                route_flush(
                    copies,
                    disk_flushes,
                    without_data(self.state().is_suspended()),
                )
            }
            Operation::Read => return self.route_read(bio, copies),
            Operation::Write(_) => route_write(copies, without_data(self.state().is_suspended())),
        };
        match written {
            Route::Go(route) => {
                let Blocks { sector, size_bytes } = bio.master.blocks;
                let newly_set = || {
                    bio.extents.as_ref().map_or(0, |(local, _)| {
                        local.set_out_of_sync(self, sector, size_bytes)
                    })
                };
                if route.marks && !self.config.has(Canary::MarkedTooLate) {
                    newly_set();
                }
                let is_untold = bio.is_untold || self.flags.marked_untold.get();
                let tells = || tells_out_of_sync(newly_set(), is_untold);
                Route::Go(Plan {
                    local: route.local,
                    remote: route.remote,
                    out_of_sync: route.out_of_sync && tells(),
                })
            }
            Route::Suspend => Route::Suspend,
            Route::Fail => Route::Fail,
        }
    }

    fn route_read(&self, bio: &Bio, copies: Copies) -> Route<Plan> {
        let Blocks { sector, size_bytes } = bio.master.blocks;
        let is_clean = !self.flags.bitmap_distrusted.get()
            && self
                .local()
                .is_some_and(|local| !local.any_out_of_sync(self, sector, size_bytes));
        let inputs = ReadInputs {
            sector,
            is_clean: is_clean || self.config.has(Canary::ReadsOutOfSync),
            balancing: self.config.read_balancing,
            local_pending: 0,
            remote_pending: 0,
            last_was_remote: false,
            failed_locally: bio.failed_locally,
            failed_remotely: bio.failed_remotely,
        };
        match route_read(copies, &inputs, without_data(self.state().is_suspended())) {
            Route::Go(destination) => {
                let remote = destination == Destination::Remote;
                Route::Go(Plan {
                    local: !remote,
                    remote,
                    out_of_sync: false,
                })
            }
            Route::Suspend => Route::Suspend,
            Route::Fail => Route::Fail,
        }
    }

    fn fail(&self, bio: Bio) {
        if let Some(range) = bio.range {
            self.ranges.borrow_mut().remove(range);
            self.retry_delayed();
        }
        if let Some((local, span)) = &bio.extents {
            local.put_extents(self, *span);
        }
        let ended = Ended {
            ok: false,
            local: false,
            remote: false,
            acknowledged: false,
        };
        self.end(&bio.master, ended);
    }
}

/// Serves the bios that wait: the device's work item.
pub(crate) async fn serve(device: Rc<Device>) {
    let mut waiting: Vec<Bio> = Vec::new();
    loop {
        let kicks = device.kicks.get();
        waiting.extend(device.delayed.take());
        let committed = commit_extents(&device, &mut waiting).await;
        let served = serve_once(&device, &mut waiting);
        if !committed && !served {
            device.sim.until(|| device.kicks.get() != kicks).await;
        }
    }
}

impl Device {
    /// Lets bios that wait try again, and what was put aside.
    pub(crate) fn retry_delayed(&self) {
        self.kicks.set(self.kicks.get() + 1);
        self.node().aside_due.set(true);
        self.sim.touch();
    }
}

async fn commit_extents(device: &Rc<Device>, waiting: &mut [Bio]) -> bool {
    let Some(local) = device.local() else {
        for bio in waiting.iter_mut() {
            bio.extents = None;
            bio.after_commit = false;
        }
        return false;
    };
    for bio in waiting.iter_mut() {
        if bio.extents.is_some() || !bio.changes_data() {
            continue;
        }
        let Some((reference, span)) = device.extents_of(bio) else {
            continue;
        };
        let answer = local.activity_log.borrow_mut().reserve(span);
        match answer {
            Reserve::Hot | Reserve::AfterCommit => {
                bio.after_commit = answer == Reserve::AfterCommit;
                bio.extents = Some((reference, span));
            }
            Reserve::Wait(_) | Reserve::TooLarge => break,
        }
    }
    let written = local.write_transaction(device).await;
    // Where there was nothing left to write somebody else has written it.
    if written.is_ok() {
        for bio in waiting.iter_mut() {
            bio.after_commit = false;
        }
    }
    if written.is_err() {
        // The worker needs the metadata too, to let the disk go.
        device.sim.pause().await;
    }
    written.unwrap_or(false)
}

fn serve_once(device: &Rc<Device>, waiting: &mut Vec<Bio>) -> bool {
    let mut served = false;
    let mut index = 0;
    while index < waiting.len() {
        let bio = waiting.remove(index);
        match device.attempt(bio) {
            Ok(()) => served = true,
            Err((bio, obstacle)) => {
                waiting.insert(index, bio);
                index += 1;
                if obstacle == Obstacle::Slot {
                    break;
                }
            }
        }
    }
    device.waits.set(waiting.len());
    served
}

fn part_of(plan: Plan, operation: Operation) -> Part {
    match operation {
        Operation::Flush => Part::None,
        _ if plan.out_of_sync => Part::OutOfSync,
        _ if !plan.remote => Part::None,
        Operation::Read => Part::Read,
        Operation::Write(_) => Part::Write,
    }
}
