// SPDX-License-Identifier: GPL-2.0

//! A volume of a node, as `io/device.rs` has it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use drbd_engine::config::OnIoError;
use drbd_engine::handshake::uuid_compare::UuidSet;
use drbd_engine::range::{Node as RangeNode, RangeTable};
use drbd_engine::state::{DiskState, Role, Seen, State};
use drbd_engine::types::VolumeNr;

use super::{disk, resync, submit, Config, Hardware, Node, Parts};
use crate::oracle::Oracle;
use crate::sim::{Owner, Sim};

/// Ranges of the range table.
const RANGES_MAX: usize = 128;

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

/// Facts about a volume that are one bit each.
#[derive(Default)]
pub struct DeviceFlags {
    /// This node crashed as Primary.
    pub crashed_primary: Cell<bool>,
    /// The handshake is to be run again.
    pub consider_resync: Cell<bool>,
    /// The admin gave up this node's data.
    pub discard_my_data: Cell<bool>,
    /// A new generation is due when I/O goes on.
    pub new_current_uuid: Cell<bool>,
    /// The failed disk is unused, let it go.
    pub go_diskless: Cell<bool>,
    /// Start the resync as source.
    pub start_source: Cell<bool>,
    /// The resync may be at its end.
    pub resync_done: Cell<bool>,
    /// The peer has yet to be told that the resync ended here.
    pub end_untold: Cell<bool>,
    /// New generations that must be on disk before the application may write.
    pub generations_due: Cell<u32>,
    /// The disks have nothing in common.
    pub unrelated: Cell<bool>,
    /// The peer may know of blocks out of sync that the bitmap does not tell of.
    pub bitmap_distrusted: Cell<bool>,
    /// The users have seen the peer's data since this node's disk was in use.
    pub users_saw_peer: Cell<bool>,
    /// The users were told done what the peer need not have.
    pub told_alone: Cell<bool>,
    /// The peer was lost with writes that it need not have flushed, and that only it has: the next
    /// flush fails.
    pub stability_lost: Cell<bool>,
    /// The peer was lost with writes that it need not have flushed, and that this node's disk has:
    /// the next flush that only the peer can make fails.
    pub peer_unflushed: Cell<bool>,
    /// The peer has refused a write of which no generation tells.
    pub peer_refused: Cell<bool>,
    /// The disk failed, and the worker has not judged it yet.
    pub disk_unjudged: Cell<bool>,
    /// The metadata could not be written, and the worker has not judged that yet.
    pub metadata_unjudged: Cell<bool>,
    /// The disk failed to read or to write data: the worker decides about it.
    pub disk_failed: Cell<bool>,
    /// The disk did not take a write since the last resync began: what the target acks is not in
    /// sync for sure.
    pub resync_doubted: Cell<bool>,
    /// The disk failed since the last resync began: bits may be set of which the peer does not
    /// know.
    pub marked_untold: Cell<bool>,
    /// The disk failed to read.
    pub was_read_error: Cell<bool>,
    /// The disk did not take what another disk has.
    pub lacks_data: Cell<bool>,
    /// The metadata could not be written: the worker decides about the disk.
    pub metadata_failed: Cell<bool>,
}

/// A volume.
pub struct Device {
    node: Weak<Node>,
    /// The node that it is on: 0 or 1.
    pub node_id: usize,
    /// Which volume of the resource it is.
    pub volume: VolumeNr,
    /// What dies with it.
    pub owner: Owner,
    /// Time and chance.
    pub sim: Rc<Sim>,
    /// The options.
    pub config: Rc<Config>,
    /// What an error of the disk does.
    pub on_io_error: Cell<OnIoError>,
    /// Slots of the activity log of a disk that is attached from now on.
    pub(crate) al_slots: Cell<usize>,
    /// The disks.
    pub hardware: Hardware,
    /// Who is told what the application is told.
    pub oracle: Rc<RefCell<Oracle>>,
    /// The state. Changed by `state` only.
    pub(crate) state: Cell<State>,
    pub(crate) negotiated: Cell<(DiskState, DiskState)>,
    /// Facts of one bit.
    pub flags: DeviceFlags,
    pub(crate) exposed_uuid: Cell<u64>,
    pub(crate) mirror_generation: Cell<u32>,
    pub(crate) local: RefCell<Option<Rc<disk::LocalDisk>>>,
    /// The disk that is being let go.
    pub(crate) retired: RefCell<Option<Rc<disk::LocalDisk>>>,
    pub(crate) ranges: RefCell<RangeTable<Vec<RangeNode>>>,
    pub(crate) delayed: RefCell<VecDeque<submit::Bio>>,
    /// Bios in the hands of the work item.
    pub(crate) waits: Cell<usize>,
    pub(crate) application_bios: Cell<u32>,
    /// How many hold back application I/O.
    pub(crate) gate: Cell<u32>,
    pub(crate) application_pending: Cell<i32>,
    /// Requests of the peer, or of a resync, that are under way.
    pub(crate) peer_requests: Cell<u32>,
    pub(crate) peer: Cell<Option<PeerUuids>>,
    pub(crate) peer_bitmap: RefCell<Option<drbd_engine::bitmap::transfer::Receiver>>,
    pub(crate) sent_bits: Cell<u64>,
    pub(crate) resync: RefCell<resync::Resync>,
    pub(crate) plan: RefCell<Option<resync::Plan>>,
    /// How often bios that wait were told to try again.
    pub(crate) kicks: Cell<u64>,
}

/// What a volume is made of, beside its node.
pub struct Volume {
    /// The disks.
    pub hardware: Hardware,
    /// The judge.
    pub oracle: Rc<RefCell<Oracle>>,
}

impl Device {
    /// A volume without a disk.
    pub(crate) fn new(
        node: Weak<Node>,
        parts: &Parts,
        volume: VolumeNr,
        Volume { hardware, oracle }: Volume,
    ) -> Self {
        Self {
            node,
            node_id: parts.id,
            volume,
            owner: parts.owner(),
            sim: parts.sim.clone(),
            config: parts.config.clone(),
            on_io_error: Cell::new(parts.config.on_io_error),
            al_slots: Cell::new(parts.config.al_slots),
            hardware,
            oracle,
            state: Cell::new(State::NEW),
            negotiated: Cell::new((DiskState::Diskless, DiskState::DUnknown)),
            flags: DeviceFlags::default(),
            exposed_uuid: Cell::new(0),
            mirror_generation: Cell::new(0),
            local: RefCell::new(None),
            retired: RefCell::new(None),
            ranges: RefCell::new(RangeTable::new(vec![RangeNode::default(); RANGES_MAX])),
            delayed: RefCell::default(),
            waits: Cell::new(0),
            application_bios: Cell::new(0),
            gate: Cell::new(0),
            application_pending: Cell::new(0),
            peer_requests: Cell::new(0),
            peer: Cell::new(None),
            peer_bitmap: RefCell::new(None),
            sent_bits: Cell::new(0),
            resync: RefCell::default(),
            plan: RefCell::new(None),
            kicks: Cell::new(0),
        }
    }

    /// Whether the peer has told its generations.
    pub fn knows_peer(&self) -> bool {
        self.peer.get().is_some()
    }

    /// Blocks that are out of sync; 0 without a disk.
    pub fn out_of_sync(&self) -> u64 {
        self.local().map_or(0, |local| local.set_bits(self))
    }

    /// The node, which lives as long as anything of it runs.
    pub fn node(&self) -> Rc<Node> {
        self.node.upgrade().expect("threads end before their node")
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// What the users have seen.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            exposed_uuid: self.exposed_uuid.get(),
            peer: self.flags.users_saw_peer.get(),
            alone: self.flags.told_alone.get(),
        }
    }

    /// Whether this node is Primary.
    pub fn is_primary(&self) -> bool {
        self.state().role == Role::Primary
    }

    /// Adds a line about this volume to the story.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.sim
            .tell(|| format!("[{}/{}] {}", self.node_id, self.volume.0, line()));
    }

    /// Whether no bio of an application is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.application_bios.get() == 0
            && self.delayed.borrow().is_empty()
            && self.waits.get() == 0
    }
}
