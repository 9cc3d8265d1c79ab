// SPDX-License-Identifier: GPL-2.0

//! Commands, dumps and events: what the tools and the kernel tell each other (spec §3).
//!
//! A request goes one way: bytes → [`request`] finds the objects it names → [`command`] reads its
//! options, checks them and calls the data path through [`backend::Backend`] → the reply's bytes.
//! [`dump`] streams the objects, [`event`] announces what happens to them; both write the messages
//! of [`message`].
//!
//! All of this is free of kernel interfaces and runs in the host's tests as it is; `netlink` alone
//! ties it to the generic netlink family.

pub(crate) mod backend;
pub(crate) mod command;
pub(crate) mod dump;
pub(crate) mod event;
pub(crate) mod message;
pub(crate) mod net_rules;
#[cfg(CONFIG_RUST)]
pub(crate) mod netlink;
pub(crate) mod request;

#[cfg(test)]
mod tests;

use backend::{Backend, ConnectionSnapshot, DeviceSnapshot, InfoText, ResourceSnapshot};
use drbd_engine::config::{DiskConf, NetConf, Settings};

/// The commands over a data path, and where events go.
#[derive(Debug)]
pub(crate) struct Control<B, E> {
    /// The data path.
    pub(crate) backend: B,
    /// The listeners.
    pub(crate) events: E,
}

impl<B: Backend, E: event::Events> Control<B, E> {
    /// Ties the two together.
    pub(crate) const fn new(backend: B, events: E) -> Self {
        Self { backend, events }
    }
}

/// Memory that a request works in; too large for a kernel stack, so lent by the caller.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Text beside the return code.
    pub(crate) info: InfoText,
    /// Options of a disk under construction.
    pub(crate) disk: DiskConf,
    /// Options of a connection under construction.
    pub(crate) net: NetConf,
    /// Descriptions of the objects at hand.
    pub(crate) objects: Objects,
}

impl Scratch {
    /// Nothing in it yet.
    pub(crate) const EMPTY: Self = Self {
        info: InfoText::EMPTY,
        disk: DiskConf::DEFAULT,
        net: NetConf::DEFAULT,
        objects: Objects::EMPTY,
    };
}

/// Descriptions of a resource, its connection and one of its devices.
#[derive(Debug)]
pub(crate) struct Objects {
    /// The resource.
    pub(crate) resource: ResourceSnapshot,
    /// Its connection; of use if `has_connection`.
    pub(crate) connection: ConnectionSnapshot,
    /// One of its devices.
    pub(crate) device: DeviceSnapshot,
    /// Whether the resource has a configured connection.
    pub(crate) has_connection: bool,
}

impl Objects {
    /// Nothing described yet.
    pub(crate) const EMPTY: Self = Self {
        resource: ResourceSnapshot::EMPTY,
        connection: ConnectionSnapshot::EMPTY,
        device: DeviceSnapshot::EMPTY,
        has_connection: false,
    };

    /// Describes a resource and its connection; false if the resource is gone.
    pub(crate) fn describe_resource<B: Backend + ?Sized>(
        &mut self,
        backend: &B,
        resource: backend::ResourceId,
    ) -> bool {
        self.has_connection = backend.describe_connection(resource, &mut self.connection);
        backend.describe_resource(resource, &mut self.resource)
    }

    /// Describes a device, its resource and its connection; false if the device is gone.
    pub(crate) fn describe_device<B: Backend + ?Sized>(
        &mut self,
        backend: &B,
        minor: drbd_engine::types::Minor,
    ) -> bool {
        let Some(summary) = backend.device(minor) else {
            return false;
        };
        self.describe_resource(backend, summary.resource)
            && backend.describe_device(minor, &mut self.device)
    }

    /// The connection, if there is one.
    pub(crate) fn connection(&self) -> Option<&ConnectionSnapshot> {
        self.has_connection.then_some(&self.connection)
    }
}
