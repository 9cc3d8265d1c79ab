// SPDX-License-Identifier: GPL-2.0

//! Resources and devices come and go (spec §15.3).

use drbd_engine::{
    config::{
        ResourceOptions,
        RetCode, //
    },
    state::{
        Change,
        ConnState, //
    },
    types::{
        Minor,
        VolumeNr, //
    },
};
use drbd_sys::reclaim::NoIoScope;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    has_disk,
    Outcome, //
};
use crate::{
    control::backend::InfoText,
    io::{
        cpu_mask,
        device::Device,
        handshake,
        limits::COMMAND_WAIT_MS,
        registry::{
            NotCreated,
            Registry, //
        },
        resource::{
            Name,
            Resource, //
        },
        state::{
            How,
            Phase, //
        },
    },
};

/// NEW_RESOURCE.
pub(super) fn new_resource(
    registry: &Registry,
    name: &[u8],
    options: &ResourceOptions,
    info: &mut InfoText,
) -> Outcome {
    let _scope = NoIoScope::enter();
    let mut checked = Name::EMPTY;
    if name.is_empty() || checked.set(name).is_err() {
        let text = format_args!("invalid resource name");
        return Err(info.say(RetCode::INVALID_REQUEST, text));
    }
    cpu_mask::check(options)?;
    match registry.create_resource(checked, options) {
        Ok(_) => Ok(RetCode::NO_ERROR),
        Err(NotCreated::Exists) => {
            Err(info.say(RetCode::INVALID_REQUEST, format_args!("resource exists")))
        }
        Err(NotCreated::Failed(_)) => Err(RetCode::NO_MEMORY),
    }
}

/// DEL_RESOURCE.
pub(super) fn delete_resource(registry: &Registry, resource: &Arc<Resource>) -> Outcome {
    if resource.cstate() != ConnState::StandAlone {
        return Err(RetCode::NET_CONFIGURED);
    }
    if resource.volumes().next().is_some() {
        return Err(RetCode::RESOURCE_IN_USE);
    }
    resource.stop_worker();
    let fencer = resource.threads.lock().fencer.take();
    drop(fencer);
    registry.remove_resource(resource);
    Ok(RetCode::NO_ERROR)
}

/// NEW_MINOR.
pub(super) fn new_device(
    registry: &Registry,
    resource: &Arc<Resource>,
    volume: VolumeNr,
    minor: Minor,
    info: &mut InfoText,
) -> Outcome {
    match registry.create_device(resource, volume, minor) {
        Ok(device) => {
            if resource.phase() != Phase::Away {
                // What cannot be sent has cost the connection.
                let _ = handshake::greet(&device);
            }
            Ok(RetCode::NO_ERROR)
        }
        Err(NotCreated::Exists) => Err(RetCode::MINOR_OR_VOLUME_EXISTS),
        Err(NotCreated::Failed(error)) if error == ENOMEM => Err(RetCode::NO_MEMORY),
        Err(NotCreated::Failed(error)) => Err(info.say(
            RetCode::INVALID_REQUEST,
            format_args!("the kernel refused the device ({})", error.to_errno()),
        )),
    }
}

/// DEL_MINOR.
pub(super) fn delete_device(registry: &Registry, device: &Arc<Device>) -> Outcome {
    let state = device.state();
    if has_disk(device) || state.role.is_primary() {
        return Err(RetCode::MINOR_CONFIGURED);
    }
    let resource = &device.resource;
    if state.conn >= ConnState::Connected {
        // The peer keeps what it has of the volume, and no longer counts on us.
        let change = Change::conn(ConnState::WFReportParams);
        let _ = resource.request_state(device, change, How::VERBOSE);
        resource.flush_worker_within(COMMAND_WAIT_MS);
    }
    {
        // The peer is not met meanwhile, see `handshake::introduce`.
        let _agreement = resource.connection.agreement.lock();
        if resource.phase() == Phase::Away {
            // Writes that were told done, and whose peer was lost while I/O was suspended.
            resource.fail_requests_of(device);
        }
    }
    registry.remove_device(device);
    Ok(RetCode::NO_ERROR)
}

/// RESOURCE_OPTS.
pub(super) fn resource_options(
    resource: &Arc<Resource>,
    options: &ResourceOptions,
    _info: &mut InfoText,
) -> Outcome {
    cpu_mask::check(options)?;
    resource.set_options(options);
    resource.apply_cpu_mask();
    Ok(RetCode::NO_ERROR)
}
