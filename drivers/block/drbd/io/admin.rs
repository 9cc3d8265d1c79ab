// SPDX-License-Identifier: GPL-2.0

//! The commands, carried out (spec §3.5): what control asks of the data path.
//!
//! One command at a time runs on a resource. Reports take no lock that a command holds for long, so
//! a helper that a command waits for may ask for the status.

mod connect;
mod disk;
mod log_size;
mod objects;
mod resize;
mod role;
mod snapshot;
mod sync;

use drbd_engine::{
    config::{
        DiskConf,
        NetConf,
        ResourceOptions,
        RetCode, //
    },
    state::{
        ConnState,
        DiskState, //
    },
    types::{
        Minor,
        VolumeNr, //
    },
};
use drbd_sys::{
    kthread::Thread,
    reclaim::NoIoScope, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    device::Device,
    registry::Registry,
    resource::Resource, //
};
use crate::control::backend::{
    Backend,
    ConnectionSnapshot,
    DeviceSnapshot,
    DeviceSummary,
    InfoText,
    ResizeRequest,
    ResourceId,
    ResourceSnapshot,
    ResourceSummary, //
};

/// How a command ended; both arms go into the reply.
type Outcome = Result<RetCode, RetCode>;

/// Both arms of an outcome.
fn code_of(outcome: Outcome) -> RetCode {
    match outcome {
        Ok(code) | Err(code) => code,
    }
}

impl Registry {
    /// Runs a command on a device.
    #[inline(never)] // Keeps a command's frame off the stack of the others.
    fn on_device(&self, minor: Minor, act: impl FnOnce(&Arc<Device>) -> Outcome) -> RetCode {
        let _scope = NoIoScope::enter();
        let Some(device) = self.find(minor) else {
            return RetCode::MINOR_INVALID;
        };
        let resource = device.resource.clone();
        let _admin = resource.admin.lock();
        // It may have been removed while this waited for its turn.
        if !self
            .find(minor)
            .is_some_and(|present| Arc::ptr_eq(&present, &device))
        {
            return RetCode::MINOR_INVALID;
        }
        let code = code_of(act(&device));
        settle(&resource);
        code
    }

    /// Runs a command on a resource.
    #[inline(never)] // Keeps a command's frame off the stack of the others.
    fn on_resource(&self, id: ResourceId, act: impl FnOnce(&Arc<Resource>) -> Outcome) -> RetCode {
        let _scope = NoIoScope::enter();
        let Some(resource) = self.resource(id) else {
            return RetCode::RESOURCE_NOT_KNOWN;
        };
        let _admin = resource.admin.lock();
        if self.id_of(&resource).is_none() {
            return RetCode::RESOURCE_NOT_KNOWN;
        }
        let code = code_of(act(&resource));
        settle(&resource);
        code
    }

    fn find(&self, minor: Minor) -> Option<Arc<Device>> {
        Registry::device(self, minor)
    }
}

/// Stops the worker of a resource that is not configured any more, after it did what is left.
fn settle(resource: &Arc<Resource>) {
    let is_idle = resource.cstate() == ConnState::StandAlone
        && resource
            .volumes()
            .all(|device| device.state().is_unconfigured() && !device.is_attached());
    if !is_idle {
        return;
    }
    // Threads that ended by themselves keep the module loaded until they are joined.
    resource.stop_receiver();
    let fencer = {
        let mut threads = resource.threads.lock();
        let is_finished = threads.fencer.as_ref().is_some_and(Thread::is_finished);
        is_finished.then(|| threads.fencer.take())
    };
    drop(fencer);
    let had_worker = resource.threads.lock().worker.is_some();
    if !had_worker && !resource.bell.has_chores() {
        return;
    }
    // Changes that were made without a worker have effects too. Without memory for one they wait.
    if resource.ensure_worker().is_ok() {
        resource.stop_worker();
    }
    for device in resource.volumes() {
        device.set_capacity(0);
    }
}

/// Waits until no request of a device awaits the peer; the connection's end ends that too, and
/// requests of suspended I/O are not waited for, since it takes a command to resume it. May sleep.
fn wait_for_answers(device: &Device) {
    const LOOK_AGAIN_MS: u32 = 100;
    let answered =
        || device.counters.application_pending.get() == 0 || device.state().is_suspended();
    while !device.waiters.wait_until_timeout(answered, LOOK_AGAIN_MS) {}
}

/// Whether a disk is attached or on its way.
fn has_disk(device: &Device) -> bool {
    device.is_attached() || device.state().disk != DiskState::Diskless
}

impl Backend for Arc<Registry> {
    fn device(&self, minor: Minor) -> Option<DeviceSummary> {
        snapshot::device_summary(self, minor)
    }

    fn resource(&self, name: &[u8]) -> Option<ResourceId> {
        self.resource_named(name)
    }

    fn summary(&self, resource: ResourceId) -> Option<ResourceSummary> {
        snapshot::resource_summary(self, resource)
    }

    fn connection(&self, my_address: &[u8], peer_address: &[u8]) -> Option<ResourceId> {
        connect::find(self, |config| {
            config.my_address.as_bytes() == my_address
                && config.peer_address.as_bytes() == peer_address
        })
    }

    fn next_resource(&self, after: ResourceId) -> Option<ResourceId> {
        Registry::next_resource(self, after)
    }

    fn next_volume(&self, resource: ResourceId, from: u32) -> Option<(VolumeNr, Minor)> {
        let resource = Registry::resource(self, resource)?;
        let mut volumes = resource.volumes();
        let device = volumes.find(|device| u32::from(device.volume.0) >= from)?;
        Some((device.volume, device.minor))
    }

    fn describe_resource(&self, resource: ResourceId, into: &mut ResourceSnapshot) -> bool {
        snapshot::describe_resource(self, resource, into).is_some()
    }

    fn describe_connection(&self, resource: ResourceId, into: &mut ConnectionSnapshot) -> bool {
        snapshot::describe_connection(self, resource, into).is_some()
    }

    fn describe_device(&self, minor: Minor, into: &mut DeviceSnapshot) -> bool {
        snapshot::describe_device(self, minor, into).is_some()
    }

    fn new_resource(&self, name: &[u8], options: &ResourceOptions, info: &mut InfoText) -> RetCode {
        code_of(objects::new_resource(self, name, options, info))
    }

    fn delete_resource(&self, resource: ResourceId, _info: &mut InfoText) -> RetCode {
        self.on_resource(resource, |resource| {
            objects::delete_resource(self, resource)
        })
    }

    fn new_device(
        &self,
        resource: ResourceId,
        volume: VolumeNr,
        minor: Minor,
        info: &mut InfoText,
    ) -> RetCode {
        self.on_resource(resource, |resource| {
            objects::new_device(self, resource, volume, minor, info)
        })
    }

    fn delete_device(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| objects::delete_device(self, device))
    }

    fn resource_options(
        &self,
        resource: ResourceId,
        options: &ResourceOptions,
        info: &mut InfoText,
    ) -> RetCode {
        self.on_resource(resource, |resource| {
            objects::resource_options(resource, options, info)
        })
    }

    fn attach(&self, minor: Minor, disk: &DiskConf, info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| super::attach::attach(device, disk, info))
    }

    fn disk_options(&self, minor: Minor, disk: &DiskConf, info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| disk::change_options(device, disk, info))
    }

    fn detach(&self, minor: Minor, force: bool, info: &mut InfoText) -> RetCode {
        if let (true, Some(device)) = (force, self.find(minor)) {
            disk::give_up(&device);
        }
        self.on_device(minor, |device| disk::detach(device, force, info))
    }

    fn connect(
        &self,
        resource: ResourceId,
        my_address: &[u8],
        peer_address: &[u8],
        net: &NetConf,
        info: &mut InfoText,
    ) -> RetCode {
        self.on_resource(resource, |resource| {
            connect::connect(self, resource, (my_address, peer_address), net, info)
        })
    }

    fn local_address_in_use(&self, address: &[u8]) -> bool {
        connect::find(self, |config| config.my_address.as_bytes() == address).is_some()
    }

    fn peer_address_in_use(&self, address: &[u8]) -> bool {
        connect::find(self, |config| config.peer_address.as_bytes() == address).is_some()
    }

    fn net_options(&self, resource: ResourceId, net: &NetConf, info: &mut InfoText) -> RetCode {
        self.on_resource(resource, |resource| {
            connect::change_options(resource, net, info)
        })
    }

    fn disconnect(&self, resource: ResourceId, force: bool, info: &mut InfoText) -> RetCode {
        if let (true, Some(resource)) = (force, Registry::resource(self, resource)) {
            connect::hang_up(&resource);
        }
        self.on_resource(resource, |resource| {
            connect::disconnect(resource, force, info)
        })
    }

    fn primary(&self, minor: Minor, force: bool, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| role::promote(device, force))
    }

    fn secondary(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, role::demote)
    }

    fn resize(&self, minor: Minor, request: &ResizeRequest, info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| resize::resize(device, request, info))
    }

    fn invalidate(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, sync::invalidate)
    }

    fn invalidate_peer(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, sync::invalidate_peer)
    }

    fn pause_sync(&self, minor: Minor, paused: bool, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| sync::pause(device, paused))
    }

    fn suspend_io(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, sync::suspend_io)
    }

    fn resume_io(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, sync::resume_io)
    }

    fn outdate(&self, minor: Minor, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, disk::outdate)
    }

    fn start_verify(
        &self,
        minor: Minor,
        start: Option<u64>,
        stop: u64,
        _info: &mut InfoText,
    ) -> RetCode {
        self.on_device(minor, |device| sync::verify(device, start, stop))
    }

    fn new_current_uuid(&self, minor: Minor, clear_bitmap: bool, _info: &mut InfoText) -> RetCode {
        self.on_device(minor, |device| sync::new_current_uuid(device, clear_bitmap))
    }

    fn timeout_type(&self, minor: Minor) -> u32 {
        snapshot::timeout_type(self, minor)
    }
}
