// SPDX-License-Identifier: GPL-2.0

//! Announcements to whoever listens on the group `events` (spec §3.4).
//!
//! There are two streams with a sequence of their own each: EVENT messages with the whole status of
//! a minor, and notifications of what happened to which object. Messages of one change are sent in
//! one go.

use super::backend::{volumes, Backend, ResourceId};
use super::message::{self, Head, Occasion};
use super::Objects;
use drbd_engine::config::attr::Writer;
use drbd_engine::config::command::Command;
use drbd_engine::config::field::Secrets;
use drbd_engine::config::info::{ConnectionInfo, NotificationKind, ResourceInfo};
use drbd_engine::config::RetCode;
use drbd_engine::state::{ConnState, State};
use drbd_engine::types::Minor;

/// Bytes of the largest message.
const MESSAGE_SIZE_MAX: usize = 2048;
/// The first number of both sequences, as seen of the C driver.
const FIRST_SEQUENCE: u32 = 3;

/// An object that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// A resource.
    Resource(ResourceId),
    /// A resource's connection and its volumes on the peer.
    Connection(ResourceId),
    /// A device, and its volume on the peer if there is a connection.
    Device(Minor),
}

/// A state change of one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VolumeChange {
    /// Its device.
    pub(crate) minor: Minor,
    /// Its state before.
    pub(crate) old: State,
    /// Its state after; the same if only other volumes changed.
    pub(crate) new: State,
}

/// A state change of a resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceChange<'a> {
    /// The resource.
    pub(crate) resource: ResourceId,
    /// The state of the connection before.
    pub(crate) old_connection: ConnState,
    /// The state of the connection after.
    pub(crate) new_connection: ConnState,
    /// All volumes of the resource, changed or not.
    pub(crate) volumes: &'a [VolumeChange],
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// An object came into being. Control sends this for resources and devices; the data path for a
    /// connection, while it is still StandAlone.
    Created(Object),
    /// A connection is about to lose its configuration. Sent by the data path, before it happens.
    ConnectionGoing(ResourceId),
    /// A device is gone; the last that was known of it. Sent by control.
    DeviceGone(&'a Objects),
    /// A resource is gone; the last that was known of it. Sent by control.
    ResourceGone(&'a Objects),
    /// States changed. Sent by the data path, in the order of the changes.
    Changed(ResourceChange<'a>),
    /// A resync made progress. Sent by the data path about every two seconds.
    Progress(Minor),
    /// A helper is about to run (no status) or has run. Sent by the data path.
    Helper {
        /// The resource it runs for.
        resource: ResourceId,
        /// The device it runs for, if not for the whole resource.
        minor: Option<Minor>,
        /// Its name.
        name: &'a [u8],
        /// Its wait status, once it has run.
        status: Option<u32>,
    },
}

/// Where events go. Sending may sleep; it has no errors, because nobody may listen.
pub(crate) trait Events: Send + Sync {
    /// Announces what happened.
    fn send<B: Backend + ?Sized>(&self, backend: &B, event: Event<'_>);
}

/// Takes finished messages.
pub(crate) trait Multicast {
    /// Sends one message to all listeners.
    fn multicast(&mut self, command: Command, sequence: u32, message: &[u8]);
}

/// Writes the messages of events. Large: keep it on the heap, behind a lock that keeps the order.
#[derive(Debug)]
pub(crate) struct EventWriter<M> {
    multicast: M,
    sequences: Sequences,
    buffer: [u8; MESSAGE_SIZE_MAX],
    objects: Objects,
}

/// The next numbers of both streams.
#[derive(Debug)]
struct Sequences {
    status: u32,
    notification: u32,
}

impl<M: Multicast> EventWriter<M> {
    /// Starts both streams.
    pub(crate) const fn new(multicast: M) -> Self {
        Self {
            multicast,
            sequences: Sequences {
                status: FIRST_SEQUENCE,
                notification: FIRST_SEQUENCE,
            },
            buffer: [0; MESSAGE_SIZE_MAX],
            objects: Objects::EMPTY,
        }
    }

    /// Where messages went to.
    #[cfg(test)]
    pub(crate) fn multicast_mut(&mut self) -> &mut M {
        &mut self.multicast
    }

    /// Writes and sends the messages of an event.
    pub(crate) fn send<B: Backend + ?Sized>(&mut self, backend: &B, event: Event<'_>) {
        match event {
            Event::Created(Object::Resource(resource)) => self.resource_created(backend, resource),
            Event::Created(Object::Connection(resource)) => {
                self.connection_created(backend, resource);
            }
            Event::Created(Object::Device(minor)) => self.device_created(backend, minor),
            Event::ConnectionGoing(resource) => self.connection_going(backend, resource),
            Event::DeviceGone(objects) => self.device_gone(objects),
            Event::ResourceGone(objects) => self.emit(Command::ResourceState, |writer, _| {
                message::resource_notification(writer, objects, DESTROY, None);
            }),
            Event::Changed(change) => self.changed(backend, &change),
            Event::Progress(minor) => self.status(backend, minor, Occasion::Progress),
            Event::Helper {
                resource,
                minor,
                name,
                status,
            } => {
                self.helper(backend, resource, minor, name, status);
            }
        }
    }

    fn resource_created<B: Backend + ?Sized>(&mut self, backend: &B, resource: ResourceId) {
        if !self.objects.describe_resource(backend, resource) {
            return;
        }
        let info =
            message::resource_info(volumes(backend, resource).map(|(_, device)| device.state));
        self.emit(Command::ResourceState, |writer, objects| {
            message::resource_notification(writer, objects, CREATE, Some(info));
        });
    }

    fn connection_created<B: Backend + ?Sized>(&mut self, backend: &B, resource: ResourceId) {
        if !self.objects.describe_resource(backend, resource) || !self.objects.has_connection {
            return;
        }
        let mut left = volumes(backend, resource).count();
        self.emit(Command::ConnectionState, |writer, objects| {
            let info = objects.connection.info;
            message::connection_notification(writer, objects, CREATE.then(left), Some(info));
        });
        for (minor, device) in volumes(backend, resource) {
            left = left.saturating_sub(1);
            if backend.describe_device(minor, &mut self.objects.device) {
                let info = message::peer_device_info(device.state);
                self.emit(Command::PeerDeviceState, |writer, objects| {
                    message::peer_device_notification(
                        writer,
                        objects,
                        CREATE.then(left),
                        Some(info),
                    );
                });
            }
        }
    }

    fn connection_going<B: Backend + ?Sized>(&mut self, backend: &B, resource: ResourceId) {
        if !self.objects.describe_resource(backend, resource) || !self.objects.has_connection {
            return;
        }
        for (minor, _) in volumes(backend, resource) {
            if backend.describe_device(minor, &mut self.objects.device) {
                self.emit(Command::PeerDeviceState, |writer, objects| {
                    message::peer_device_notification(writer, objects, DESTROY.then(1), None);
                });
            }
        }
        self.emit(Command::ConnectionState, |writer, objects| {
            message::connection_notification(writer, objects, DESTROY, None);
        });
    }

    fn device_created<B: Backend + ?Sized>(&mut self, backend: &B, minor: Minor) {
        if !self.objects.describe_device(backend, minor) {
            return;
        }
        let state = self.objects.device.state;
        let left = usize::from(self.objects.has_connection);
        self.emit(Command::DeviceState, |writer, objects| {
            let info = message::device_info(state);
            message::device_notification(writer, objects, CREATE.then(left), Some(info));
        });
        if self.objects.has_connection {
            self.emit(Command::PeerDeviceState, |writer, objects| {
                let info = message::peer_device_info(state);
                message::peer_device_notification(writer, objects, CREATE, Some(info));
            });
        }
    }

    fn device_gone(&mut self, gone: &Objects) {
        if gone.has_connection {
            self.emit(Command::PeerDeviceState, |writer, _| {
                message::peer_device_notification(writer, gone, DESTROY.then(1), None);
            });
        }
        self.emit(Command::DeviceState, |writer, _| {
            message::device_notification(writer, gone, DESTROY, None);
        });
    }

    /// Notifications of what changed, in the order resource, connection, devices, volumes on the
    /// peer; then the whole status of each volume that changed.
    fn changed<B: Backend + ?Sized>(&mut self, backend: &B, change: &ResourceChange<'_>) {
        if !self.objects.describe_resource(backend, change.resource) {
            return;
        }
        let mut left = change.count(self.objects.has_connection);
        let mut next = || {
            left = left.saturating_sub(1);
            CHANGE.then(left)
        };
        if let Some(info) = change.resource_info() {
            let head = next();
            self.emit(Command::ResourceState, |writer, objects| {
                message::resource_notification(writer, objects, head, Some(info));
            });
        }
        if let Some(info) = change
            .connection_info()
            .filter(|_| self.objects.has_connection)
        {
            let head = next();
            self.emit(Command::ConnectionState, |writer, objects| {
                message::connection_notification(writer, objects, head, Some(info));
            });
        }
        for volume in change
            .volumes
            .iter()
            .filter(|volume| volume.device_changed())
        {
            let head = next();
            if backend.describe_device(volume.minor, &mut self.objects.device) {
                let info = message::device_info(volume.new);
                self.emit(Command::DeviceState, |writer, objects| {
                    message::device_notification(writer, objects, head, Some(info));
                });
            }
        }
        let connected = self.objects.has_connection;
        let peers = change
            .volumes
            .iter()
            .filter(|volume| volume.peer_device_changed());
        for volume in peers.filter(|_| connected) {
            let head = next();
            if backend.describe_device(volume.minor, &mut self.objects.device) {
                let info = message::peer_device_info(volume.new);
                self.emit(Command::PeerDeviceState, |writer, objects| {
                    message::peer_device_notification(writer, objects, head, Some(info));
                });
            }
        }
        for volume in change
            .volumes
            .iter()
            .filter(|volume| volume.old != volume.new)
        {
            let (old, new) = (volume.old, volume.new);
            self.status(backend, volume.minor, Occasion::Changed { old, new });
        }
    }

    fn helper<B: Backend + ?Sized>(
        &mut self,
        backend: &B,
        resource: ResourceId,
        minor: Option<Minor>,
        name: &[u8],
        status: Option<u32>,
    ) {
        if let Some(minor) = minor {
            let occasion = match status {
                None => Occasion::HelperBefore { name },
                Some(status) => Occasion::HelperAfter { name, status },
            };
            self.status(backend, minor, occasion);
        }
        let described = match minor {
            Some(minor) => self.objects.describe_device(backend, minor),
            None => self.objects.describe_resource(backend, resource),
        };
        if described {
            self.emit(Command::Helper, |writer, objects| {
                message::helper_notification(writer, objects, minor, name, status);
            });
        }
    }

    /// Sends the whole status of a device, without secrets.
    fn status<B: Backend + ?Sized>(&mut self, backend: &B, minor: Minor, occasion: Occasion<'_>) {
        if !self.objects.describe_device(backend, minor) {
            return;
        }
        let mut writer = Writer::new(&mut self.buffer);
        message::head(&mut writer, Some(minor.0), RetCode::NO_ERROR);
        message::status(&mut writer, &mut self.objects, occasion, Secrets::Blank);
        if let Ok(bytes) = writer.finish() {
            self.multicast
                .multicast(Command::Event, self.sequences.status, bytes);
            self.sequences.status = self.sequences.status.wrapping_add(1);
        }
    }

    /// Sends one notification.
    fn emit(&mut self, command: Command, write: impl FnOnce(&mut Writer<'_>, &Objects)) {
        let mut writer = Writer::new(&mut self.buffer);
        write(&mut writer, &self.objects);
        if let Ok(bytes) = writer.finish() {
            self.multicast
                .multicast(command, self.sequences.notification, bytes);
            self.sequences.notification = self.sequences.notification.wrapping_add(1);
        }
    }
}

const CREATE: Head = Head::last(NotificationKind::Create);
const CHANGE: Head = Head::last(NotificationKind::Change);
const DESTROY: Head = Head::last(NotificationKind::Destroy);

impl VolumeChange {
    fn device_changed(&self) -> bool {
        message::device_info(self.old) != message::device_info(self.new)
    }

    fn peer_device_changed(&self) -> bool {
        message::peer_device_info(self.old) != message::peer_device_info(self.new)
    }
}

impl ResourceChange<'_> {
    fn states_before(&self) -> impl Iterator<Item = State> + Clone + '_ {
        self.volumes.iter().map(|volume| volume.old)
    }

    fn states_after(&self) -> impl Iterator<Item = State> + Clone + '_ {
        self.volumes.iter().map(|volume| volume.new)
    }

    /// The new state of the resource, if it changed.
    fn resource_info(&self) -> Option<ResourceInfo> {
        let new = message::resource_info(self.states_after());
        (new != message::resource_info(self.states_before())).then_some(new)
    }

    /// The new state of the connection, if it changed.
    fn connection_info(&self) -> Option<ConnectionInfo> {
        let old = message::connection_info(self.old_connection, self.states_before());
        let new = message::connection_info(self.new_connection, self.states_after());
        (new != old).then_some(new)
    }

    /// How many notifications the change takes.
    fn count(&self, has_connection: bool) -> usize {
        let devices = self
            .volumes
            .iter()
            .filter(|volume| volume.device_changed())
            .count();
        let peers = self
            .volumes
            .iter()
            .filter(|volume| volume.peer_device_changed())
            .count();
        let connection = usize::from(self.connection_info().is_some());
        let here = usize::from(self.resource_info().is_some()).saturating_add(devices);
        match has_connection {
            true => here.saturating_add(peers).saturating_add(connection),
            false => here,
        }
    }
}
