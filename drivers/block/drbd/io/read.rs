// SPDX-License-Identifier: GPL-2.0

//! Reads that this node's disk serves: handed on, without a place in the transfer log.
//!
//! Nobody else has to know of such a read: it keeps no order, and no peer answers it. What holds
//! for it holds for every request all the same: the disk is not let go while it is there, it counts
//! among the application's bios, `disk-timeout` watches it, an error lets the peer serve it, and it
//! does not end while I/O is suspended.

use drbd_engine::{
    request::reads_here,
    types::Sector, //
};
use drbd_sys::{
    bio::{
        Flags,
        MasterBio,
        MasterCompletion, //
    },
    bits::{
        AtomicBits32,
        AtomicBits64, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    device::{
        Device,
        Gauge,
        LocalRef, //
    },
    disk_error,
    fault::{
        self,
        Fault, //
    },
    request::Failed,
    submit::Bio, //
};

/// Reads at the disk, in two generations, so that the age of the oldest can be told without a list
/// of them.
pub(crate) struct ReadWatch {
    reads: [Gauge; 2],
    /// The lowest bit tells which generation reads join.
    generation: AtomicBits32,
    /// When it began: reads of the other one are older.
    since_ns: AtomicBits64,
}

impl ReadWatch {
    /// No read is there.
    pub(crate) fn new() -> Self {
        Self {
            reads: [Gauge::default(), Gauge::default()],
            generation: AtomicBits32::new(0),
            since_ns: AtomicBits64::new(0),
        }
    }

    /// Reads at the disk. Any context.
    pub(crate) fn count(&self) -> i32 {
        let [even, odd] = &self.reads;
        even.get().saturating_add(odd.get())
    }

    /// Since when, at least, the oldest read is at the disk; `None` where none is, or none was when
    /// this was called last. For one caller at a time.
    pub(crate) fn oldest_ns(&self, now_ns: u64) -> Option<u64> {
        let generation = self.generation.load();
        if self.of(generation.wrapping_add(1)).get() != 0 {
            return Some(self.since_ns.load());
        }
        self.since_ns.store(now_ns);
        self.generation.store(generation.wrapping_add(1));
        None
    }

    /// A read goes to the disk; returns the generation it is of.
    fn begin(&self) -> u32 {
        let generation = self.generation.load();
        self.of(generation).up();
        generation
    }

    fn end(&self, generation: u32) {
        self.of(generation).down();
    }

    fn of(&self, generation: u32) -> &Gauge {
        let [even, odd] = &self.reads;
        if generation & 1 == 0 {
            even
        } else {
            odd
        }
    }
}

/// A read at the disk.
struct AtDisk {
    local: LocalRef,
    generation: u32,
    failed: Failed,
}

impl MasterCompletion for AtDisk {
    fn complete(self, master: MasterBio, result: Result) {
        let Self {
            local,
            generation,
            mut failed,
        } = self;
        let device = local.device();
        device.reads.end(generation);
        match result {
            Ok(()) if device.glance().is_suspended() => device.delay(Bio::served(master)),
            Ok(()) => {
                master.end(Ok(()));
                device.leave();
            }
            Err(error) if master.flags().contains(Flags::RAHEAD) => {
                // A device may refuse it at will, as one that is suspended does.
                master.end(Err(error));
                device.leave();
            }
            Err(_) => {
                let sector = Sector(master.sector());
                disk_error::note(device, true, sector, master.size_bytes());
                failed.locally = true;
                device.delay(Bio::again(master, failed));
            }
        }
    }
}

impl Device {
    /// Hands a read to this node's disk, where that disk is current and the policy leaves reads to
    /// it; otherwise gives it back. Does not sleep for I/O.
    pub(crate) fn read_here(
        self: &Arc<Self>,
        master: MasterBio,
        failed: Failed,
    ) -> Option<MasterBio> {
        let glance = self.glance();
        if !glance.has_current_disk() || glance.is_suspended() {
            return Some(master);
        }
        let Some(local) = self.local() else {
            return Some(master);
        };
        if !reads_here(self.copies(glance), local.keeps_reads(), failed.locally) {
            return Some(master);
        }
        self.counters.read.add(u64::from(master.size_sectors()));
        let at_disk = AtDisk {
            generation: self.reads.begin(),
            failed,
            local,
        };
        if fault::strikes(self, Fault::DataRead) {
            at_disk.complete(master, Err(EIO));
        } else {
            let backing = at_disk.local.backing.clone();
            backing.submit_owned(master, at_disk);
        }
        None
    }
}
