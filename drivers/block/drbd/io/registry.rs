// SPDX-License-Identifier: GPL-2.0

//! All resources and minors of the module: what exists, under which number and name.
//!
//! A resource and its devices refer to each other, and so do a device and its gendisk. The registry
//! makes these circles and breaks them: what is removed here goes away with its last user.

use drbd_engine::{
    config::ResourceOptions,
    state::State,
    types::{
        Minor,
        VolumeNr, //
    },
};
use drbd_sys::{
    disk::{
        Disk,
        Major, //
    },
    limits::Limits,
    reclaim::NoIoScope,
    workqueue::cancel_sync, //
};
use kernel::{
    alloc::AllocError,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use super::{
    device::Device,
    environment::Environment,
    limits::FRESH_BIO_BYTES,
    resource::{
        Name,
        Resource, //
    },
};
use crate::control::backend::ResourceId;

/// What there is.
struct Objects {
    /// The number that was given last; none is given twice.
    last: u64,
    /// In the order of creation, which is that of the numbers.
    resources: KVec<(ResourceId, Arc<Resource>)>,
    /// In the order of minors.
    devices: KVec<Arc<Device>>,
}

/// The registry. Its lock is a leaf: nothing else is taken under it, and it is not held across I/O.
#[pin_data]
pub(crate) struct Registry {
    pub(crate) environment: Arc<Environment>,
    major: Arc<Major>,
    #[pin]
    objects: Mutex<Objects>,
}

/// Why an object could not be made.
pub(crate) enum NotCreated {
    /// Its name, minor or volume is in use.
    Exists,
    /// The kernel refused something.
    Failed(Error),
}

impl From<Error> for NotCreated {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AllocError> for NotCreated {
    fn from(_: AllocError) -> Self {
        Self::Failed(ENOMEM)
    }
}

impl Registry {
    /// Without any object. May sleep.
    pub(crate) fn new(environment: Arc<Environment>, major: Arc<Major>) -> Result<Arc<Self>> {
        let objects = Objects {
            last: 0,
            resources: KVec::new(),
            devices: KVec::new(),
        };
        Arc::pin_init(
            pin_init!(Self {
                environment,
                major,
                objects <- new_mutex!(objects, "drbd_objects"),
            }),
            GFP_KERNEL,
        )
    }

    /// The resource with this number. May sleep.
    pub(crate) fn resource(&self, id: ResourceId) -> Option<Arc<Resource>> {
        let objects = self.objects.lock();
        let found = objects.resources.iter().find(|(number, _)| *number == id);
        found.map(|(_, resource)| resource.clone())
    }

    /// The number of the resource with this name. May sleep.
    pub(crate) fn resource_named(&self, name: &[u8]) -> Option<ResourceId> {
        self.id_where(|resource| resource.name().as_bytes() == name)
    }

    /// The number of a resource, unless it was removed. May sleep.
    pub(crate) fn id_of(&self, resource: &Resource) -> Option<ResourceId> {
        self.id_where(|other| core::ptr::eq(other, resource))
    }

    /// The number of the first resource of this kind; `matches` must not sleep. May sleep.
    pub(crate) fn id_where(&self, matches: impl Fn(&Resource) -> bool) -> Option<ResourceId> {
        let objects = self.objects.lock();
        let found = objects
            .resources
            .iter()
            .find(|(_, resource)| matches(resource));
        found.map(|(id, _)| *id)
    }

    /// The resource created next after the one with this number. May sleep.
    pub(crate) fn next_resource(&self, after: ResourceId) -> Option<ResourceId> {
        let objects = self.objects.lock();
        let next = objects.resources.iter().find(|(id, _)| *id > after);
        next.map(|(id, _)| *id)
    }

    /// The device with this minor. May sleep.
    pub(crate) fn device(&self, minor: Minor) -> Option<Arc<Device>> {
        self.next_device(minor)
            .filter(|device| device.minor == minor)
    }

    /// The device with the lowest minor from this one on. May sleep.
    pub(crate) fn next_device(&self, from: Minor) -> Option<Arc<Device>> {
        let objects = self.objects.lock();
        let at = objects
            .devices
            .partition_point(|device| device.minor < from);
        objects.devices.get(at).cloned()
    }

    /// Creates a resource, StandAlone and without volumes. May sleep.
    pub(crate) fn create_resource(
        &self,
        name: Name,
        options: &ResourceOptions,
    ) -> Result<ResourceId, NotCreated> {
        let resource = Resource::new(name, *options, self.environment.clone())?;
        resource.set_options(options);
        let _scope = NoIoScope::enter();
        let mut objects = self.objects.lock();
        let exists = |(_, other): &(ResourceId, Arc<Resource>)| {
            other.name().as_bytes() == resource.name().as_bytes()
        };
        if objects.resources.iter().any(exists) {
            return Err(NotCreated::Exists);
        }
        let id = ResourceId(objects.last.wrapping_add(1));
        objects.resources.push((id, resource), GFP_KERNEL)?;
        objects.last = id.0;
        Ok(id)
    }

    /// Takes a resource out, which has no volumes and no threads. May sleep.
    pub(crate) fn remove_resource(&self, resource: &Arc<Resource>) {
        let mut objects = self.objects.lock();
        let at = objects
            .resources
            .iter()
            .position(|(_, other)| Arc::ptr_eq(other, resource));
        let removed = at.and_then(|at| objects.resources.remove(at).ok());
        drop(objects);
        drop(removed);
    }

    /// Creates the device of a volume and shows it to the system. May sleep; the caller holds the
    /// resource's `admin`.
    pub(crate) fn create_device(
        &self,
        resource: &Arc<Resource>,
        volume: VolumeNr,
        minor: Minor,
    ) -> Result<Arc<Device>, NotCreated> {
        if resource.volume(volume).is_some() || self.device(minor).is_some() {
            return Err(NotCreated::Exists);
        }
        let state = State {
            conn: resource.cstate(),
            ..State::NEW
        };
        let device = Device::new(minor, volume, resource.clone(), state)?;
        let data = device.clone();
        let disk = Disk::new(
            &self.major,
            minor.0,
            format_args!("drbd{minor}"),
            fresh_limits,
            data,
        )?;
        disk.set_read_only(true);
        *device.disk.lock() = Some(disk);
        let made = self
            .register(&device)
            .and_then(|()| match device.disk.lock().as_ref() {
                Some(disk) => disk.add().map_err(NotCreated::Failed),
                None => Err(NotCreated::Failed(ENODEV)),
            });
        if let Err(error) = made {
            self.remove_device(&device);
            return Err(error);
        }
        Ok(device)
    }

    fn register(&self, device: &Arc<Device>) -> Result<(), NotCreated> {
        let _scope = NoIoScope::enter();
        device.resource.add_volume(device.clone())?;
        let mut objects = self.objects.lock();
        let at = objects
            .devices
            .partition_point(|other| other.minor < device.minor);
        let taken = objects
            .devices
            .get(at)
            .is_some_and(|other| other.minor == device.minor);
        if taken {
            return Err(NotCreated::Exists);
        }
        objects.devices.reserve(1, GFP_KERNEL)?;
        objects
            .devices
            .insert_within_capacity(at, device.clone())
            .map_err(|_| NotCreated::Failed(ENOMEM))
    }

    /// Takes a device out, which is Diskless and Secondary, and hides it from the system. May
    /// sleep.
    pub(crate) fn remove_device(&self, device: &Arc<Device>) {
        let mut objects = self.objects.lock();
        let at = objects
            .devices
            .iter()
            .position(|other| Arc::ptr_eq(other, device));
        let removed = at.and_then(|at| objects.devices.remove(at).ok());
        drop(objects);
        drop(removed);
        device.resource.remove_volume(device);
        let disk = device.disk.lock().take();
        // Waits for whoever is submitting still.
        drop(disk);
        cancel_sync::<Device, 0>(device);
        cancel_sync::<Device, 1>(device);
    }

    /// Removes everything, as when the module goes: nothing is configured or open then. May sleep.
    pub(crate) fn clear(&self) {
        while let Some(id) = self.next_resource(ResourceId(0)) {
            let Some(resource) = self.resource(id) else {
                continue;
            };
            let _admin = resource.admin.lock();
            for device in resource.volumes() {
                self.remove_device(&device);
            }
            resource.stop_worker();
            self.remove_resource(&resource);
        }
    }
}

/// The limits of a device that never had a disk or a peer.
fn fresh_limits(limits: &mut Limits) {
    limits.set_max_hw_sectors(FRESH_BIO_BYTES >> 9);
    limits.set_stable_writes(true);
    limits.set_write_cache(true);
}
