// SPDX-License-Identifier: GPL-2.0

//! Discards and zeroes at this node's disk (Spec §1.16).
//!
//! Both nodes read the same afterwards, whatever their disks can do by themselves and say that they
//! can: what a disk does not discard or zero is written.
//!
//! That takes several bios, one after the other. So a work item of the device erases, for the
//! application, the peer and the resync alike, one range at a time. It waits for the disk; nobody
//! waits for it but those whose blocks are erased.

use core::ops::Range;

use drbd_engine::{
    erase::{
        portions,
        DiscardUnits, //
    },
    request::RequestState,
    types::{
        Sector,
        SECTOR_SHIFT, //
    },
};
use drbd_sys::{
    bdev::BlockDevice,
    bio::{
        Completion,
        Flags,
        Operation,
        ZERO_PAGES_SECTORS_MAX, //
    },
    bits::AtomicBits64,
    log,
    time::monotonic_ns, //
};
use kernel::{
    impl_has_work,
    prelude::*,
    sync::Arc,
    workqueue::WorkItem, //
};

use super::{
    device::Device,
    disk::LocalDisk,
    fifo::Fifo,
    limits::ERASURES_MAX,
    peer_request::PeerIo,
    request::AtDisk, //
};

/// What blocks are erased by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Discarded, so that they read as zeroes.
    Discard,
    /// Written with zeroes.
    Zero {
        /// Whether the disk may release them.
        unmap: bool,
    },
}

impl Way {
    /// What an application's bio asks for, if it erases.
    pub(crate) fn of(operation: Operation, flags: Flags) -> Option<Self> {
        match operation {
            Operation::Discard => Some(Self::Discard),
            Operation::WriteZeroes => Some(Self::Zero {
                unmap: !flags.contains(Flags::NOUNMAP),
            }),
            _ => None,
        }
    }
}

/// Blocks of a disk are to be erased.
pub(crate) struct Erasure {
    backing: BlockDevice,
    way: Way,
    blocks: Range<u64>,
}

impl Erasure {
    /// On `local`, as its options allow. Any context.
    pub(crate) fn new(local: &LocalDisk, way: Way, sector: Sector, size_bytes: u32) -> Self {
        let can_discard = || local.backing.max_discard_sectors() != 0;
        let may_discard = || local.conf().discard_zeroes_if_aligned;
        let way = match way {
            Way::Discard if !can_discard() || !may_discard() => Way::Zero { unmap: true },
            way => way,
        };
        let sectors = u64::from(size_bytes >> SECTOR_SHIFT);
        Self {
            backing: local.backing.clone(),
            way,
            blocks: sector.0..sector.0.saturating_add(sectors),
        }
    }

    /// Erases, and waits for the disk; tells of each part that is done. May sleep; not inside the
    /// submission of a bio.
    fn carry_out(&self, advanced: &dyn Fn()) -> Result {
        match self.way {
            Way::Zero { unmap } => self.zero(self.blocks.clone(), unmap, advanced),
            Way::Discard => self.discard(advanced),
        }
    }

    /// Discards what the disk discards as a whole. What it would leave as it is at the edges is
    /// written.
    fn discard(&self, advanced: &dyn Fn()) -> Result {
        let Range { start, end } = self.blocks;
        let units = DiscardUnits {
            sectors: self.backing.discard_granularity_bytes() >> SECTOR_SHIFT,
            offset_sectors: self.backing.discard_alignment_bytes() >> SECTOR_SHIFT,
        };
        let inside = units.inside(start..end);
        let sectors = u32::try_from(inside.end.saturating_sub(inside.start))?;
        self.zero(start..inside.start, true, advanced)?;
        if sectors != 0 {
            match self.backing.discard(inside.start, sectors) {
                Ok(()) => advanced(),
                // Some disks find out that they cannot when they are to do it.
                Err(error) if error == EOPNOTSUPP || self.backing.max_discard_sectors() == 0 => {
                    return self.zero(inside.start..end, true, advanced);
                }
                Err(error) => return Err(error),
            }
        }
        self.zero(inside.end..end, true, advanced)
    }

    fn zero(&self, blocks: Range<u64>, unmap: bool, advanced: &dyn Fn()) -> Result {
        let mut is_able = self.backing.max_write_zeroes_sectors() != 0;
        for (sector, sectors) in portions(blocks, ZERO_PAGES_SECTORS_MAX) {
            is_able = is_able && self.zero_by_itself(sector, sectors, unmap)?;
            if !is_able {
                self.backing.write_zero_pages(sector, sectors)?;
            }
            advanced();
        }
        Ok(())
    }

    /// Has the disk zero blocks without being sent zeroes; whether it can.
    fn zero_by_itself(&self, sector: u64, sectors: u32, unmap: bool) -> Result<bool> {
        let flags = if unmap { Flags::NONE } else { Flags::NOUNMAP };
        match self.backing.write_zeroes(flags, sector, sectors) {
            Ok(()) => Ok(true),
            Err(error) if error == EOPNOTSUPP || self.backing.max_write_zeroes_sectors() == 0 => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whose blocks are erased.
pub(crate) enum Owner {
    /// A request of this node's application.
    Application(AtDisk),
    /// A request of the peer, or of a resync.
    Peer(PeerIo),
}

impl Owner {
    /// Whether nobody waits for the disk any more, which was given up.
    fn is_aborted(&self) -> bool {
        match self {
            Self::Application(AtDisk(request)) => request.state().has(RequestState::LOCAL_ABORTED),
            Self::Peer(_) => false,
        }
    }

    fn complete(self, result: Result) {
        match self {
            Self::Application(token) => Completion::complete(token, result),
            Self::Peer(token) => Completion::complete(token, result),
        }
    }
}

/// Erasures of a device that wait for their turn.
#[pin_data]
pub(crate) struct Erasing {
    #[pin]
    waiting: Fifo<(Erasure, Owner)>,
    /// When the disk did a part of one last.
    advanced_ns: AtomicBits64,
}

impl Erasing {
    /// None waits. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            waiting <- Fifo::new(ERASURES_MAX),
            advanced_ns: AtomicBits64::new(0),
        })
    }

    /// When the disk did a part of an erasure last; an erasure that was there before has waited
    /// since then only. Any context.
    pub(crate) fn advanced_ns(&self) -> u64 {
        self.advanced_ns.load()
    }
}

impl_has_work! {
    impl HasWork<Self, 1> for Device { self.erase_work }
}

impl WorkItem<1> for Device {
    type Pointer = Arc<Self>;

    fn run(device: Arc<Self>) {
        let advanced = || device.erasing.advanced_ns.store(monotonic_ns());
        while let Some((erasure, owner)) = device.erasing.waiting.pop() {
            advanced();
            let result = match owner.is_aborted() {
                true => Err(EIO),
                false => erasure.carry_out(&advanced),
            };
            // The disk may be closed when the owner has let go of it.
            drop(erasure);
            owner.complete(result);
        }
    }
}

impl Device {
    /// Has blocks erased, and then tells their owner. Any context.
    pub(crate) fn erase(self: &Arc<Self>, erasure: Erasure, owner: Owner) {
        match self.erasing.waiting.push((erasure, owner)) {
            Ok(_) => {
                let queue = &self.resource.environment.erase_queue;
                // An item that is queued already will see what there is.
                let _ = queue.enqueue::<Arc<Self>, 1>(self.clone());
            }
            Err((erasure, owner)) => {
                // No more requests are admitted than fit, so this is a defect of this module.
                log!(Error, self, "too many blocks to erase");
                drop(erasure);
                owner.complete(Err(EIO));
            }
        }
    }
}
