// SPDX-License-Identifier: GPL-2.0

//! Another number of activity log extents, online (spec §2.4, §3.5).

use drbd_engine::activity_log::{
    block,
    ActivityLog, //
};
use drbd_sys::{
    hash::crc32c,
    sync_io::{
        Durability,
        SyncIo, //
    },
};
use kernel::prelude::*;

use crate::io::{
    attach,
    device::{
        Device,
        LocalRef, //
    },
};

/// How often the bitmap is written before the log counts as busy.
const ATTEMPTS: u32 = 5;

/// What has to be so where the log is emptied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// No extent is in use: what the peer writes is in its own log, if the log was off here.
    Idle,
    /// Nor is there anything that the bitmap on disk does not tell, or that is in a cache only.
    Still,
}

/// Replaces the log by an empty one of `extents` extents. The caller holds back application I/O.
/// May sleep.
///
/// What the log stands for is in the bitmap on disk by then, and no extent is in use, so whatever
/// part of the old log a crash leaves names no more than it has to.
///
/// # Errors
///
/// `EBUSY` where writes of the peer keep extents in use, `ENOMEM`, and those of the metadata
/// device, which cost the disk.
pub(super) fn change(device: &Device, local: &LocalRef, extents: u32, needs: Needs) -> Result {
    let slots = attach::slots(extents).map_err(|_| ENOMEM)?;
    let log = ActivityLog::new(slots, local.layout.ring());
    // No transaction is written while this is held, and no page of the bitmap by anybody else.
    let mut meta = local.meta.lock();
    let one_writer = local.bitmap_writer.lock();
    let emptied = empty(device, local, &mut meta.page, log, needs)
        .and_then(|()| initialize(local, &mut meta.activity_log));
    if emptied.is_err() {
        // What was written may be in a cache only.
        local.bitmap.mark_all_dirty();
    }
    drop(one_writer);
    drop(meta);
    match emptied {
        Err(error) if error == EBUSY => return Err(error),
        emptied => local.judge_metadata(device, emptied)?,
    }
    local.change(device, |superblock| superblock.al_extents = extents);
    local.sync(device)
}

/// Brings data and bitmap to disk and puts `log` in the place of the old one, whose extents are
/// idle: after a power cut nothing would name what was in a cache only. The caller holds
/// `LocalDisk::bitmap_writer`.
fn empty(
    device: &Device,
    local: &LocalRef,
    page_io: &mut SyncIo,
    log: crate::io::disk::Extents,
    needs: Needs,
) -> Result {
    let (_, _, pages) = local.bitmap.dimensions();
    for _ in 0..ATTEMPTS {
        for page in 0..pages {
            local
                .bitmap
                .write_page_if_dirty(device, local, page_io, page)?;
        }
        if local.flushes_metadata() {
            local.flush(page_io.device())?;
        }
        let since = local.cache.lock().flush_begins();
        if local.backing.has_write_cache() {
            local.flush(&local.backing)?;
        }
        local.cache.lock().flushed(since);
        let mut present = local.activity_log.lock();
        let is_idle = present.statistics().used == 0;
        // A bit that was set meanwhile is of an extent that was in use.
        let is_still = || local.cache.lock().is_stable() && !local.bitmap.is_dirty();
        if is_idle && (needs == Needs::Idle || is_still()) {
            let old = core::mem::replace(&mut *present, log);
            drop(present);
            drop(old);
            return Ok(());
        }
    }
    Err(EBUSY)
}

/// Writes every block of the ring anew.
fn initialize(local: &LocalRef, block_io: &mut SyncIo) -> Result {
    let blocks = local.layout.ring().blocks();
    for number in 0..blocks {
        block::initialize(block_io.page()?, |bytes| crc32c(0, bytes));
        let sector = local.layout.activity_log_block(number).ok_or(EINVAL)?;
        let is_last = number.checked_add(1) == Some(blocks);
        let durability = match is_last {
            true => local.durability(),
            false => Durability::Cached,
        };
        local.write_page(block_io, sector, durability)?;
    }
    Ok(())
}
