// SPDX-License-Identifier: GPL-2.0

//! Attaching a backing device to a volume, and letting it go again (spec §15.1, §15.2).
//!
//! What may refuse is asked first: until the disk is published, nothing was written to it.

use drbd_engine::{
    activity_log::{
        ActivityLog,
        Slot, //
    },
    config::{
        DiskConf,
        Fencing,
        RetCode, //
    },
    epoch::WriteOrdering,
    handshake::sizes::Candidates,
    meta::{
        crash::{
            Attach,
            AttachInputs,
            BitmapSource, //
        },
        placement::MAX_DATA_SECTORS,
        superblock::Magic,
        Layout,
        MdFlags,
        MetaError,
        Placement,
        Superblock, //
    },
    state::{
        Change,
        ConnState,
        DiskState,
        State, //
    },
    types::Sector, //
};
use drbd_sys::{
    bdev::{
        BlockDevice,
        Holder,
        OpenError,
        SharedHolder, //
    },
    log,
    sync_io::SyncIo, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::{
    bitmap::{
        Bitmap,
        Which, //
    },
    device::{
        flag,
        Device,
        LocalRef, //
    },
    disk::{
        LocalDisk,
        MetaIo,
        Parts, //
    },
    fault::{
        self,
        Fault, //
    },
    held_io::HeldIo,
    limits::COMMAND_WAIT_MS,
    resource::Resource,
    resync::{
        self,
        order, //
    },
    size::{
        self,
        Resized, //
    },
    state::How,
    worker::chore, //
};
use crate::control::backend::InfoText;

/// How long a disk that is attached may take to read its super block.
const READ_MS: u32 = 60_000;

/// How often an attach looks whether the peer knows what was refused.
const REFUSALS_PAUSE_MS: u32 = 20;

/// Who claims metadata devices with room for several disks: all disks of this module together.
static INDEXED_METADATA: SharedHolder = SharedHolder::new();

/// Attaches a disk as `conf` has it. May sleep; the caller holds the resource's `admin`.
///
/// # Errors
///
/// The return code that says why not, with details in `info` or the log.
pub(crate) fn attach(
    device: &Arc<Device>,
    conf: &DiskConf,
    info: &mut InfoText,
) -> Result<RetCode, RetCode> {
    let resource = &device.resource;
    resource.ensure_worker().map_err(|_| RetCode::NO_MEMORY)?;
    // A disk that is on its way out is gone afterwards, unless it hangs.
    if !resource.flush_worker_within(COMMAND_WAIT_MS) {
        return Err(RetCode::INTERRUPTED);
    }
    let has_parted = || !device.is_parting();
    let has_disk = device.is_attached()
        || !device
            .waiters
            .wait_until_timeout(has_parted, COMMAND_WAIT_MS);
    if device.state().disk != DiskState::Diskless || has_disk {
        return Err(RetCode::DISK_CONFIGURED);
    }
    order::check(device, conf)?;
    device
        .flags
        .clear(flag::FORCE_DETACH | flag::WAS_IO_ERROR | flag::WAS_READ_ERROR | flag::LACKS_DATA);

    let found = Found::open(device, conf, info)?;
    let superblock = found.superblock;
    let size = found.size(device, conf, info)?;
    let disk = found.into_disk(device, conf, size)?;

    let _held = HeldIo::new(device).map_err(|_| RetCode::INTERRUPTED)?;
    if !resource.flush_worker_within(COMMAND_WAIT_MS) {
        return Err(RetCode::INTERRUPTED);
    }
    check_generation(device, device.state(), superblock.uuids.current)?;
    resource.change_state(device, Change::disk(DiskState::Attaching), How::VERBOSE)?;
    let result = publish(device, disk, &superblock, size);
    if result.is_err() {
        // Hard, so it is refused only where the disk is gone already.
        let _ = resource.change_state(device, Change::disk(DiskState::Diskless), How::HARD);
        device.retire_local();
        device.waiters.wait_until(|| !device.has_local_references());
        close(device);
    }
    order::reconsider(resource);
    result
}

/// The devices, and what their super block says.
struct Found {
    backing: BlockDevice,
    meta: BlockDevice,
    layout: Layout,
    superblock: Superblock,
}

impl Found {
    fn open(device: &Device, conf: &DiskConf, info: &mut InfoText) -> Result<Self, RetCode> {
        let placement = Placement::from_index(conf.meta_dev_idx);
        let placement = placement.ok_or(RetCode::META_INDEX_INVALID)?;
        let is_same = conf.backing_dev == conf.meta_dev;
        if is_same != placement.is_internal() {
            return Err(RetCode::META_INDEX_INVALID);
        }
        let path = conf.backing_dev.as_bytes();
        let backing = open(device, path, Holder::Exclusive, RetCode::OPEN_DISK, info)?;
        let meta = if is_same {
            backing.clone()
        } else {
            let holder = match placement {
                Placement::Indexed(_) => Holder::Shared(&INDEXED_METADATA),
                _ => Holder::Exclusive,
            };
            let path = conf.meta_dev.as_bytes();
            open(device, path, holder, RetCode::OPEN_META_DISK, info)?
        };
        let (superblock, layout) = read_superblock(device, placement, &backing, &meta)
            .map_err(|error| refuse_metadata(device, error))?;
        Ok(Self {
            backing,
            meta,
            layout,
            superblock,
        })
    }

    /// The size that the volume gets.
    fn size(
        &self,
        device: &Device,
        conf: &DiskConf,
        info: &mut InfoText,
    ) -> Result<Sector, RetCode> {
        let usable = self.layout.usable();
        let wanted = Sector(conf.disk_size);
        if usable < wanted {
            log!(
                Error,
                device,
                "max capacity {} smaller than disk size {}",
                usable,
                wanted
            );
            return Err(RetCode::DISK_TOO_SMALL);
        }
        // What is there may be in use without a disk, with its data at the peer.
        if usable.0 < device.capacity() {
            log!(
                Error,
                device,
                "max capacity {} smaller than device size {}",
                usable,
                Sector(device.capacity())
            );
            return Err(RetCode::DISK_TOO_SMALL);
        }
        if usable == Sector(MAX_DATA_SECTORS) {
            log!(
                Warning,
                device,
                "==> truncating very big lower level device to currently maximum possible {} sectors <==",
                usable
            );
        }
        let device_size = Sector(device.capacity());
        let last = self.superblock.last_agreed_size;
        let candidates = Candidates {
            own: usable,
            peer: Sector(device.peer.lock().disk_sectors),
            last_agreed: last,
            user: wanted,
        };
        let size = candidates.size().ok_or(RetCode::DISK_TOO_SMALL)?;
        if size < device_size && device.state().role.is_primary() {
            log!(
                Error,
                device,
                "device size {} would become {} under its users",
                device_size,
                size
            );
            return Err(RetCode::DISK_TOO_SMALL);
        }
        if size >= last || !self.superblock.flags.contains(MdFlags::CONSISTENT) {
            return Ok(size);
        }
        if size == wanted {
            log!(
                Warning,
                device,
                "truncating a consistent device during attach ({} < {})",
                size,
                last
            );
            return Ok(size);
        }
        log!(
            Warning,
            device,
            "refusing to truncate a consistent device ({} < {})",
            size,
            last
        );
        Err(info.say(
            RetCode::IMPLICIT_SHRINK,
            format_args!(
                "To-be-attached device has last effective > current size, and is consistent\n\
                 ({last} > {size} sectors). Refusing to attach."
            ),
        ))
    }

    /// Allocates what an attached disk has in core. The bitmap is as large as the volume was, so
    /// that it can be read.
    fn into_disk(
        self,
        device: &Device,
        conf: &DiskConf,
        size: Sector,
    ) -> Result<Arc<LocalDisk>, RetCode> {
        let extents = self.layout.ring().clamp_extents(conf.al_extents);
        let conf = self.effective_conf(device, conf, extents)?;
        let mut superblock = self.superblock;
        superblock.al_extents = extents;
        // From the first write on, the log has to be applied before the next attach.
        superblock.magic = Magic::Unclean;
        let before = superblock.last_agreed_size.min(size);
        if fault::strikes(device, Fault::BitmapAllocation) {
            return Err(RetCode::NO_MEMORY_BITMAP);
        }
        let bitmap = Bitmap::new(self.layout.usable(), before);
        let parts = Parts {
            minor: device.minor,
            bitmap: bitmap.map_err(|_| RetCode::NO_MEMORY_BITMAP)?,
            activity_log: ActivityLog::new(slots(extents)?, self.layout.ring()),
            meta: MetaIo::new(&self.meta, &self.backing).map_err(|_| RetCode::NO_MEMORY)?,
            conf,
            backing: self.backing,
            layout: self.layout,
            superblock,
        };
        LocalDisk::new(parts).map_err(|_| RetCode::NO_MEMORY)
    }

    /// The options as this disk can have them.
    #[inline(never)] // Keeps a copy of all options off the stack of the attach.
    fn effective_conf(
        &self,
        device: &Device,
        conf: &DiskConf,
        extents: u32,
    ) -> Result<Arc<DiskConf>, RetCode> {
        let mut conf = conf.clone();
        conf.al_extents = extents;
        conf.rs_discard_granularity = discard_granularity(device, &self.backing, &conf);
        Arc::new(conf, GFP_KERNEL).map_err(|_| RetCode::NO_MEMORY)
    }
}

fn open(
    device: &Device,
    path: &[u8],
    holder: Holder,
    code: RetCode,
    info: &mut InfoText,
) -> Result<BlockDevice, RetCode> {
    let shown = drbd_engine::config::text::Lossy(path);
    let path = CString::try_from_fmt(format_args!("{shown}")).map_err(|_| RetCode::NO_MEMORY)?;
    BlockDevice::open(&device.resource.environment.bios, &path, holder).map_err(|error| {
        let reason = match error {
            OpenError::NotFound => "there is no such device",
            OpenError::NotBlockDevice => "it is not a block device",
            OpenError::Busy => "it is in use: mounted, attached elsewhere, or claimed by a program",
            OpenError::ReadOnly => "it is read-only",
            OpenError::Other(_) => "the kernel refused",
        };
        log!(
            Error,
            device,
            "open(\"{}\") failed: {} ({:?})",
            shown,
            reason,
            error
        );
        info.say(code, format_args!("{shown}: {reason}"))
    })
}

fn read_superblock(
    device: &Device,
    placement: Placement,
    backing: &BlockDevice,
    meta: &BlockDevice,
) -> Result<(Superblock, Layout), MetaError> {
    let meta_sectors = meta.size_sectors();
    let sector = placement.superblock_sector(meta_sectors)?;
    let mut io = SyncIo::new(meta).map_err(|_| MetaError::Io)?;
    let read = match fault::strikes(device, Fault::MetaRead) {
        true => Err(EIO),
        false => io.read(sector.0, READ_MS),
    };
    let page = read.map_err(|error| {
        log!(
            Error,
            device,
            "Error while reading metadata: {}",
            error.to_errno()
        );
        MetaError::Io
    })?;
    let superblock = Superblock::decode(page)?;
    superblock.check_clean()?;
    let layout = Layout::of(placement, backing.size_sectors(), meta_sectors, &superblock)?;
    Ok((superblock, layout))
}

fn refuse_metadata(device: &Device, error: MetaError) -> RetCode {
    match error {
        MetaError::Io => {}
        MetaError::Version07 => log!(
            Error,
            device,
            "Found old (0.7) meta data magic. Did you \"drbdadm create-md\"?"
        ),
        MetaError::Magic(_) => log!(
            Error,
            device,
            "Meta data magic not found. Did you \"drbdadm create-md\"?"
        ),
        MetaError::Unclean => log!(
            Error,
            device,
            "Found unclean meta data. Did you \"drbdadm apply-al\"?"
        ),
        MetaError::DeviceTooSmall { need, .. } => log!(
            Warning,
            device,
            "refusing attach: md-device too small, at least {} sectors needed for this meta-disk type",
            need
        ),
        error => log!(Error, device, "{}", error),
    }
    // Codes are small positive numbers.
    RetCode(i32::try_from(error.return_code()).unwrap_or(0))
}

/// Storage for a log of this many extents. May sleep.
pub(super) fn slots(extents: u32) -> Result<KVVec<Slot>, RetCode> {
    let count = usize::try_from(extents).map_err(|_| RetCode::NO_MEMORY)?;
    let mut slots = KVVec::new();
    slots
        .resize(count, Slot::default(), GFP_KERNEL)
        .map_err(|_| RetCode::NO_MEMORY)?;
    Ok(slots)
}

/// The option rs-discard-granularity as the backing device can do it.
/// In bytes; 0 where it cannot discard.
pub(crate) fn discard_granularity(device: &Device, backing: &BlockDevice, conf: &DiskConf) -> u32 {
    let wanted = conf.rs_discard_granularity;
    if wanted == 0 {
        return 0;
    }
    let unit = backing.discard_granularity_bytes().max(512);
    let most = backing.max_discard_sectors().saturating_mul(512);
    let wanted_units = wanted.max(unit).min(most).checked_div(unit).unwrap_or(0);
    let granularity = wanted_units.saturating_mul(unit);
    if granularity == 0 {
        log!(Info, device, "rs_discard_granularity feature disabled");
    } else if granularity != wanted {
        log!(
            Info,
            device,
            "rs_discard_granularity changed to {}",
            granularity
        );
    }
    granularity
}

/// A Primary that runs on without its disk gets no other data than those it had.
fn check_generation(device: &Device, state: State, current_uuid: u64) -> Result<(), RetCode> {
    let seen = device.seen();
    if !seen.refuses(state, current_uuid) {
        return Ok(());
    }
    log!(
        Error,
        device,
        "Can only attach to data with current UUID={:016X}",
        seen.exposed_uuid
    );
    if seen.peer {
        log!(
            Error,
            device,
            "This Primary has run on its peer's disk: connect before attaching, or demote it \
             (after resume-io, if I/O is suspended)"
        );
    }
    Err(RetCode::DATA_NOT_CURRENT)
}

/// Puts the disk into use. On an error the caller takes it out of use again.
fn publish(
    device: &Arc<Device>,
    disk: Arc<LocalDisk>,
    superblock: &Superblock,
    size: Sector,
) -> Result<RetCode, RetCode> {
    let state = device.state();
    let conclusions = AttachInputs {
        flags: superblock.flags,
        primary: state.role.is_primary(),
        suspended_no_data: state.susp_nod,
        fencing_dont_care: disk.conf().fencing == Fencing::DontCare,
    }
    .decide();
    device.set_local(disk);
    let local = device.local().ok_or(RetCode::NO_DISK)?;
    set_flag(device, flag::CRASHED_PRIMARY, conclusions.crashed_primary);
    set_flag(
        device,
        flag::USE_DEGR_WFC_TIMEOUT,
        conclusions.use_degr_wfc_timeout,
    );
    update_write_ordering(&device.resource, WriteOrdering::Flush);
    let counters = &device.counters;
    for counter in [
        &counters.sent,
        &counters.received,
        &counters.read,
        &counters.written,
    ] {
        counter.reset();
    }
    link(device, &local, true);
    size::update_limits(device);
    read_bitmap(device, &local, &conclusions, size).map_err(|_| RetCode::IO_META_DISK)?;
    let_refusals_arrive(device)?;
    let noted = local.note_log(device, local.conf().al_updates);
    noted.map_err(|_| RetCode::IO_META_DISK)?;
    enter_state(device, &local, &conclusions)?;
    note_role(device, &local);
    if let Some(disk) = device.disk.lock().as_ref() {
        disk.notify_change();
    }
    Ok(RetCode::NO_ERROR)
}

fn set_flag(device: &Device, flag: u32, on: bool) {
    if on {
        device.flags.set(flag);
    } else {
        device.flags.clear(flag);
    }
}

/// Chooses how the order of the peer's writes is kept, not above `most`, by what all disks permit.
/// May sleep.
pub(crate) fn update_write_ordering(resource: &Resource, most: WriteOrdering) {
    let ordering = resource.volumes().fold(most, |ordering, device| {
        device.local().map_or(ordering, |local| {
            let conf = local.conf();
            ordering.permitted(conf.disk_flushes, conf.disk_drain)
        })
    });
    if resource.connection.set_ordering(ordering) || ordering == WriteOrdering::Flush {
        log!(
            Info,
            resource,
            "Method to ensure write ordering: {}",
            ordering.name()
        );
    }
}

/// Shows or hides in sysfs what is below the device.
fn link(device: &Device, local: &LocalDisk, on: bool) {
    let disk = device.disk.lock();
    let Some(disk) = disk.as_ref() else { return };
    let change = |below: &BlockDevice| {
        if !on {
            disk.unlink_backing(below);
        } else if let Err(error) = disk.link_backing(below) {
            log!(
                Warning,
                device,
                "no link to the backing device: {}",
                error.to_errno()
            );
        }
    };
    change(&local.backing);
    if !local.layout.placement().is_internal() {
        change(local.meta.lock().page.device());
    }
}

/// Gets the bitmap from where it is right, and the size with it.
fn read_bitmap(
    device: &Arc<Device>,
    local: &LocalRef,
    conclusions: &Attach,
    size: Sector,
) -> Result {
    let reads = conclusions.bitmap == BitmapSource::Disk;
    if reads {
        local.bitmap.read(local)?;
    }
    let resized = size::store(device, local, size, false)?;
    size::show(device, size);
    if resized == Resized::Grown && local.bitmap.set_bits() != local.bitmap.bits() {
        device.flags.set(flag::RESYNC_AFTER_NEGOTIATION);
    }
    if !reads {
        let why = match conclusions.bitmap {
            BitmapSource::FullSyncPending => {
                "Assuming that all blocks are out of sync (aka FullSync)"
            }
            _ => "all blocks are out of sync: a Primary crashed that kept no activity log",
        };
        log!(Info, device, "{}", why);
        resync::set_all_and_write(device, "set_n_write from attaching")?;
    }
    let is_all_set = local.bitmap.set_bits() == local.bitmap.bits();
    if is_all_set {
        // Without a log only what is on disk counts.
        local.bitmap.write(device, local, Which::Dirty)?;
    }
    // Who connects has the log resumed, in the change that connects.
    let control = device.resource.control.lock();
    let suspends = is_all_set && device.state().conn < ConnState::Connected;
    if suspends {
        device.flags.set(flag::ACTIVITY_LOG_SUSPENDED);
    }
    drop(control);
    if suspends {
        log!(Info, device, "Suspended AL updates");
    }
    Ok(())
}

/// Waits until the peer knows which of its writes were refused while there was no bitmap to
/// remember them, see `Epochs::last_refused`. May sleep.
fn let_refusals_arrive(device: &Device) -> Result<(), RetCode> {
    let resource = &device.resource;
    let connection = &resource.connection;
    let last = connection.epochs.lock().last_refused();
    let Some(last) = last else { return Ok(()) };
    let is_acked = || connection.epochs.lock().is_acked(last);
    let mut turns = 0..COMMAND_WAIT_MS / REFUSALS_PAUSE_MS;
    let waiters = &resource.waiters;
    if !turns.any(|_| waiters.wait_until_timeout(is_acked, REFUSALS_PAUSE_MS)) {
        log!(
            Error,
            device,
            "the peer does not end the epoch of what was refused here without a disk"
        );
        return Err(RetCode::INTERRUPTED);
    }
    // A connection that is lost tells the peer as much.
    resource.ping_peer();
    Ok(())
}

/// Enters the state that the metadata vouch for, or lets the peer judge it.
///
/// The peer may have come or gone since the attach began: what is asked for is asked for in the
/// state that it was decided in.
fn enter_state(
    device: &Arc<Device>,
    local: &LocalRef,
    conclusions: &Attach,
) -> Result<(), RetCode> {
    let resource = &device.resource;
    let pdsk = conclusions.peer_outdated.then_some(DiskState::Outdated);
    loop {
        let state = device.state();
        check_generation(device, state, local.current_uuid())?;
        let disk = conclusions.enters(state.conn);
        let change = if disk == DiskState::Negotiating {
            let (disk, pdsk) = (conclusions.disk.state(), pdsk.unwrap_or(state.pdsk));
            resource.control.lock().set_negotiated(device, disk, pdsk);
            // The peer sends them again; older ones must not be taken for them.
            device.peer.lock().uuids = None;
            Change::disk(DiskState::Negotiating)
        } else {
            let change = Change::disk(disk);
            pdsk.map_or(change, |pdsk| change.with_pdsk(pdsk))
        };
        let mut has_changed = false;
        let entered = resource.change_state_if(device, change, How::VERBOSE, |now| {
            has_changed = now != state;
            !has_changed
        });
        if !has_changed {
            entered?;
            local.stamp_attached();
            if local.has_failed_metadata() {
                // Whoever wrote them meanwhile was judged when the disk was not in use yet.
                device.flags.set(flag::METADATA_UNJUDGED);
                device.chore(chore::METADATA_FAILED);
            }
            return Ok(());
        }
    }
}

/// Lets the metadata know the role, and writes them: from now on they are unclean.
fn note_role(device: &Arc<Device>, local: &LocalRef) {
    let is_primary = device.state().role.is_primary();
    local.change(device, |superblock| match is_primary {
        true => superblock.uuids.enter_primary(),
        false => superblock.uuids.enter_secondary(),
    });
    // An error costs the disk by itself.
    let _ = local.sync(device);
}

/// Closes the devices of a disk that was retired and that nobody uses any more. May sleep.
pub(crate) fn close(device: &Arc<Device>) {
    let Some(disk) = device.take_retired() else {
        return;
    };
    link(device, &disk, false);
    let backing = disk.backing.clone();
    let meta = disk.meta.lock().page.device().clone();
    drop(disk);
    // Both may be the same one, which the last of them closes.
    meta.close();
    backing.close();
    device.flags.clear(flag::ACTIVITY_LOG_SUSPENDED);
    size::update_limits(device);
    device.wake();
    device.resource.connection.receiver_wait.wake_all();
}
