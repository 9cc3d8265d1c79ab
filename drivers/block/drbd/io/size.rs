// SPDX-License-Identifier: GPL-2.0

//! How large a device is, and what the block layer may send to it (spec §1.12, §5.1).

use core::fmt;

use drbd_engine::{
    handshake::sizes::sendable_bio_size,
    state::ConnState,
    types::{
        Sector,
        BIT_SIZE,
        MAX_REQUEST_SIZE,
        SECTOR_SHIFT,
        SECTOR_SIZE, //
    },
    wire::Features,
};
use drbd_sys::{
    limits::Limits,
    log, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::{
    bitmap::Which,
    device::{
        Device,
        LocalRef, //
    },
    held_io::HeldIo,
    limits::UNKNOWN_PEER_BIO_BYTES, //
};

/// Segments of pages that the largest request has.
const SEGMENTS_MAX: u16 = 256;
/// No segment crosses a page.
const SEGMENT_MASK: usize = 4095;
/// Largest discard in sectors with a peer that takes any size (128 MiB), and with another (4 MiB).
const DISCARD_SECTORS_MAX: u32 = 1 << 18;
const DISCARD_SECTORS_OLD: u32 = 1 << 13;

/// What became of a device's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resized {
    /// It is as it was.
    Unchanged,
    /// There is new storage.
    Grown,
    /// Storage is gone.
    Shrunk,
}

/// A size for people: four digits and a unit.
pub(crate) struct HumanSize(pub(crate) Sector);

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 .0 >> 1;
        for unit in ['K', 'M', 'G', 'T', 'P'] {
            if size < 10_000 {
                return write!(f, "{size} {unit}B");
            }
            size = (size >> 10).saturating_add(u64::from(size & 512 != 0));
        }
        write!(f, "{size} EB")
    }
}

/// Gives a device with a disk a new size, in core and in the metadata; new storage is out of sync
/// unless `assume_clean`. May sleep.
///
/// Application I/O is held back meanwhile, if the size changes.
///
/// # Errors
///
/// `ETIMEDOUT` where application I/O does not end; those of the metadata device, which cost the
/// disk.
pub(crate) fn resize(device: &Arc<Device>, size: Sector, assume_clean: bool) -> Result<Resized> {
    let Some(local) = device.local() else {
        adopt(device, size);
        return Ok(Resized::Unchanged);
    };
    if local.last_agreed_size() == size && device.capacity() == size.0 {
        return Ok(Resized::Unchanged);
    }
    let _held = HeldIo::new(device)?;
    // The receiver and a command at a time; not while either waits for I/O, which may take the
    // other.
    let _resizing = local.resizing.lock();
    let resized = store(device, &local, size, assume_clean)?;
    show(device, size);
    Ok(resized)
}

/// Takes over the peer's size, for a device without a disk. May sleep.
pub(crate) fn adopt(device: &Device, size: Sector) {
    if device.capacity() != size.0 {
        show(device, size);
    }
}

/// Tells the system and the log.
pub(super) fn show(device: &Device, size: Sector) {
    device.set_capacity(size.0);
    log!(
        Info,
        device,
        "size = {} ({} KB)",
        HumanSize(size),
        size.0 >> 1
    );
}

/// Brings bitmap and super block to a new size. The caller holds back application I/O.
///
/// The super block never names a size that the bitmap on disk does not cover.
pub(super) fn store(
    device: &Device,
    local: &LocalRef,
    size: Sector,
    assume_clean: bool,
) -> Result<Resized> {
    let agreed = local.last_agreed_size();
    log!(
        Info,
        device,
        "drbd_bm_resize called with capacity == {}",
        size
    );
    let name = || {
        local.change(device, |superblock| superblock.last_agreed_size = size);
        local.sync(device)
    };
    if size < agreed {
        name()?;
    }
    local.bitmap.resize(size, !assume_clean);
    let (bits, words, pages) = local.bitmap.dimensions();
    log!(
        Info,
        device,
        "resync bitmap: bits={bits} words={words} pages={pages}"
    );
    if agreed != size {
        log!(Info, device, "Writing the whole bitmap, size changed");
        local.bitmap.write(device, local, Which::All)?;
    }
    if size > agreed {
        if assume_clean {
            // Not everything is out of sync any more.
            device.resume_activity_log();
        }
        name()?;
    }
    log_marked(device, local);
    Ok(match agreed.cmp(&size) {
        core::cmp::Ordering::Less => Resized::Grown,
        core::cmp::Ordering::Equal => Resized::Unchanged,
        core::cmp::Ordering::Greater => Resized::Shrunk,
    })
}

/// Tells how much is out of sync.
pub(super) fn log_marked(device: &Device, local: &LocalRef) {
    let bits = local.bitmap.set_bits();
    let marked = Sector(bits.saturating_mul(u64::from(BIT_SIZE / SECTOR_SIZE)));
    log!(
        Info,
        device,
        "{} ({} bits) marked out-of-sync by on disk bit-map.",
        HumanSize(marked),
        bits
    );
}

/// Brings the block layer's limits in line with the disk and the peer. May sleep.
///
/// To be called after attaching and detaching, and when the peer's sizes or features became known.
pub(crate) fn update_limits(device: &Arc<Device>) {
    let local = device.local();
    let max_bio_bytes = max_bio_bytes(device, local.as_ref());
    let peer = PeerLimits::of(device);
    let disk = device.disk.lock();
    let Some(disk) = disk.as_ref() else { return };
    let mut old_sectors = 0;
    let updated = disk.update_limits(false, |limits| {
        old_sectors = limits.max_hw_sectors();
        set(limits, device, local.as_ref(), max_bio_bytes, &peer);
    });
    if let Err(error) = updated {
        log!(Error, device, "queue limits refused: {}", error.to_errno());
    } else if old_sectors != max_bio_bytes >> SECTOR_SHIFT {
        log!(Info, device, "max BIO size = {}", max_bio_bytes);
    }
}

/// What the peer can do with an application's request.
struct PeerLimits {
    discard_sectors: u32,
    write_zeroes_sectors: u32,
}

impl PeerLimits {
    fn of(device: &Device) -> Self {
        let connection = &device.resource.connection;
        if device.state().conn < ConnState::WFReportParams {
            return Self {
                discard_sectors: DISCARD_SECTORS_MAX,
                write_zeroes_sectors: 0,
            };
        }
        let features = connection.features();
        let discard_sectors = match features.contains(Features::TRIM) {
            true if features.contains(Features::WRITE_SAME) => DISCARD_SECTORS_MAX,
            true => DISCARD_SECTORS_OLD,
            false => 0,
        };
        let write_zeroes_sectors = match features.may_send_zeroes(connection.has_integrity()) {
            true => DISCARD_SECTORS_MAX,
            false => 0,
        };
        Self {
            discard_sectors,
            write_zeroes_sectors,
        }
    }
}

/// The largest request in bytes. What the peer was found to take is remembered, also in the
/// metadata.
fn max_bio_bytes(device: &Arc<Device>, local: Option<&LocalRef>) -> u32 {
    let stored = local
        .map_or(0, |local| local.peer_max_bio_bytes())
        .max(UNKNOWN_PEER_BIO_BYTES);
    let peer = if device.state().conn >= ConnState::WFReportParams {
        let announced = device.peer.lock().max_bio_bytes;
        sendable_bio_size(device.resource.connection.version(), announced)
    } else {
        stored
    };
    let known = peer.max(stored);
    if let Some(local) = local.filter(|local| known != local.peer_max_bio_bytes()) {
        local.change(device, |superblock| superblock.peer_max_bio_bytes = known);
    }
    let own = local.map_or(MAX_REQUEST_SIZE, |local| {
        local.backing.max_hw_sectors().saturating_mul(SECTOR_SIZE)
    });
    own.min(peer).min(MAX_REQUEST_SIZE)
}

fn set(
    limits: &mut Limits,
    device: &Device,
    local: Option<&LocalRef>,
    max_bio_bytes: u32,
    peer: &PeerLimits,
) {
    limits.reset_to_stacking_defaults();
    limits.set_io_statistics(true);
    limits.set_max_hw_sectors(max_bio_bytes >> SECTOR_SHIFT);
    let segments = local
        .and_then(|local| u16::try_from(local.conf().max_bio_bvecs).ok())
        .filter(|&segments| segments != 0);
    limits.set_segments(segments.unwrap_or(SEGMENTS_MAX), SEGMENT_MASK);
    let discards = local.is_none_or(|local| local.backing.max_discard_sectors() != 0);
    let discard_sectors = if discards { peer.discard_sectors } else { 0 };
    limits.set_discard(discard_sectors, SECTOR_SIZE);
    limits.disable_secure_erase();
    limits.set_write_zeroes(peer.write_zeroes_sectors);
    match local {
        Some(local) => stack(limits, device, local),
        None => {
            limits.set_write_cache(true);
            limits.set_rotational(true);
        }
    }
    // The peer can be sent zeroes whatever our disk announces, which can be written there one by
    // one.
    limits.set_write_zeroes(peer.write_zeroes_sectors);
    // The bytes of a write go to two places and must be the same in both.
    limits.set_stable_writes(true);
}

fn stack(limits: &mut Limits, device: &Device, local: &LocalRef) {
    // Without memory for a name the kernel's warnings go without one.
    let name = CString::try_from_fmt(format_args!("drbd{}", device.minor));
    limits.stack(&local.backing, name.as_deref().unwrap_or(c"drbd"));
}
