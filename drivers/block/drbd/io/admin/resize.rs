// SPDX-License-Identifier: GPL-2.0

//! RESIZE: another size of the volume (spec §1.12, §3.5).
//!
//! The volume grows and shrinks within what the disk can hold as it was attached.

use drbd_engine::{
    config::RetCode,
    handshake::sizes::Candidates,
    state::ConnState,
    types::Sector,
    wire::{
        ResizeFlags,
        UuidFlags, //
    },
};
use drbd_sys::log;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::Outcome;
use crate::{
    control::backend::{
        InfoText,
        ResizeRequest, //
    },
    io::{
        device::{
            flag,
            Device,
            LocalRef, //
        },
        size::{
            self,
            Resized, //
        },
    },
};

/// RESIZE.
pub(super) fn resize(
    device: &Arc<Device>,
    request: &ResizeRequest,
    info: &mut InfoText,
) -> Outcome {
    let local = device.local().ok_or(RetCode::NO_DISK)?;
    check_layout(&local, request, info)?;
    let size = new_size(device, &local, request)?;
    let asked = local.edit_conf(|conf| conf.disk_size = request.size);
    asked.map_err(|_| RetCode::NO_MEMORY)?;

    let resized = size::resize(device, size, request.no_resync).map_err(|error| match error {
        error if error == ETIMEDOUT => RetCode::INTERRUPTED,
        _ => RetCode::IO_META_DISK,
    })?;
    local.sync(device).map_err(|_| RetCode::IO_META_DISK)?;
    if device.state().conn == ConnState::Connected {
        if resized == Resized::Grown {
            device.flags.set(flag::RESIZE_PENDING);
        }
        announce(device, request);
    }
    Ok(RetCode::NO_ERROR)
}

/// Refuses what would need another place for the metadata.
fn check_layout(
    local: &LocalRef,
    request: &ResizeRequest,
    info: &mut InfoText,
) -> Result<(), RetCode> {
    let ring = local.layout.ring();
    let stripes = request.al_stripes.unwrap_or(ring.stripes());
    let present_kib = ring.stripe_blocks().saturating_mul(4);
    let stripe_kib = request.al_stripe_size_kib.unwrap_or(present_kib);
    if (stripes, stripe_kib) != (ring.stripes(), present_kib) {
        let text = format_args!(
            "another activity log needs fresh metadata: detach, and drbdmeta create-md --al-stripes"
        );
        return Err(info.say(RetCode::META_LAYOUT_NO_FIT, text));
    }
    if !local.layout.is_for(local.backing.size_sectors()) {
        let text = format_args!(
            "the backing device has another size than when it was attached: detach, \
             drbdadm check-resize, and attach"
        );
        return Err(info.say(RetCode::META_LAYOUT_NO_FIT, text));
    }
    Ok(())
}

fn new_size(device: &Device, local: &LocalRef, request: &ResizeRequest) -> Result<Sector, RetCode> {
    let mut candidates = Candidates {
        own: local.layout.usable(),
        peer: Sector(device.peer.lock().disk_sectors),
        last_agreed: local.last_agreed_size(),
        user: Sector(request.size),
    };
    if request.force && device.state().conn < ConnState::Connected {
        log!(
            Warning,
            device,
            "Resize while not connected was forced by the user!"
        );
        candidates = candidates.assuming_peer_has_space();
    }
    let size = candidates.size().ok_or(RetCode::DISK_TOO_SMALL)?;
    if candidates.user > size {
        log!(
            Error,
            device,
            "Requested disk size is too big ({} > {})",
            candidates.user,
            size
        );
    }
    Ok(size)
}

/// Asks the peer to follow. What cannot be sent has cost the connection.
fn announce(device: &Arc<Device>, request: &ResizeRequest) {
    let mut flags = ResizeFlags(0);
    if request.force {
        flags = flags.with(ResizeFlags::FORCED);
    }
    if request.no_resync {
        flags = flags.with(ResizeFlags::NO_RESYNC);
    }
    let _ = device.send_uuids(UuidFlags::default());
    let _ = device.send_sizes(true, flags);
}
