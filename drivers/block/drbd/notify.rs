// SPDX-License-Identifier: GPL-2.0

//! What the data path tells those who listen: events of control (spec §3.4).

use drbd_engine::state::{
    ConnState,
    Deferred,
    State, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use crate::{
    control::{
        backend::ResourceId,
        event::{
            Event,
            Events,
            Object,
            ResourceChange,
            VolumeChange, //
        },
        netlink::Listeners, //
    },
    io::{
        device::Device,
        registry::Registry,
        resource::Resource, //
    },
};

/// Knows the listeners, and the registry in which objects have their numbers.
///
/// The registry's objects lead here and this leads to the registry: the module breaks the circle
/// when it is unloaded.
#[pin_data]
pub(crate) struct Notifier {
    listeners: Arc<Listeners>,
    #[pin]
    registry: Mutex<Option<Arc<Registry>>>,
}

impl Notifier {
    /// Without a registry: events go nowhere yet. May sleep.
    pub(crate) fn new(listeners: Arc<Listeners>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                listeners,
                registry <- new_mutex!(None, "drbd_notifier"),
            }),
            GFP_KERNEL,
        )
    }

    /// From now on events are about the objects of this registry; of none, they go nowhere. May
    /// sleep.
    pub(crate) fn set_registry(&self, registry: Option<Arc<Registry>>) {
        let old = core::mem::replace(&mut *self.registry.lock(), registry);
        drop(old);
    }

    /// The registry, while there is one. May sleep.
    pub(crate) fn registry(&self) -> Option<Arc<Registry>> {
        self.registry.lock().clone()
    }

    fn with(&self, resource: &Resource, act: impl FnOnce(&Arc<Registry>, ResourceId)) {
        let Some(registry) = self.registry() else {
            return;
        };
        if let Some(id) = registry.id_of(resource) {
            act(&registry, id);
        }
    }
}

/// Tells of an event about an object of this resource, as long as the resource is registered. May
/// sleep.
fn tell(resource: &Resource, event: impl FnOnce(&Arc<Listeners>, &Arc<Registry>, ResourceId)) {
    let notifier = &resource.environment.notifier;
    notifier.with(resource, |registry, id| {
        event(&notifier.listeners, registry, id)
    });
}

/// A connection got its configuration. May sleep.
pub(crate) fn connection_created(resource: &Resource) {
    tell(resource, |listeners, registry, id| {
        listeners.send(registry, Event::Created(Object::Connection(id)));
    });
}

/// A connection is about to lose its configuration. May sleep.
pub(crate) fn connection_destroyed(resource: &Resource) {
    tell(resource, |listeners, registry, id| {
        listeners.send(registry, Event::ConnectionGoing(id));
    });
}

/// A resync or verify got further. May sleep.
pub(crate) fn sync_progress(device: &Device) {
    tell(&device.resource, |listeners, registry, _| {
        listeners.send(registry, Event::Progress(device.minor));
    });
}

/// A helper is about to run, or has run and ended with `status`. May sleep.
pub(crate) fn helper(
    resource: &Resource,
    device: Option<&Device>,
    name: &str,
    status: Option<u32>,
) {
    tell(resource, |listeners, registry, id| {
        let event = Event::Helper {
            resource: id,
            minor: device.map(|device| device.minor),
            name: name.as_bytes(),
            status,
        };
        listeners.send(registry, event);
    });
}

/// The state of a volume changed. On the worker, in the order of the changes.
///
/// Both streams of events are written in one go, so that the second effect has nothing to add to
/// the first.
pub(crate) fn state_changed(device: &Arc<Device>, effect: Deferred, old: State, new: State) {
    if effect != Deferred::Notify {
        return;
    }
    let resource = &device.resource;
    let mut volumes = KVec::new();
    for volume in resource.volumes() {
        let present = volume.state();
        let is_changed = Arc::ptr_eq(&volume, device);
        let change = VolumeChange {
            minor: volume.minor,
            old: if is_changed { old } else { present },
            new: if is_changed { new } else { present },
        };
        if volumes.push(change, GFP_KERNEL).is_err() {
            return;
        }
    }
    // All volumes share one connection, whose change is told once: with that of the first volume.
    let is_first = resource
        .volumes()
        .next()
        .is_some_and(|first| Arc::ptr_eq(&first, device));
    let new_connection = connection_state(new);
    let old_connection = if is_first {
        connection_state(old)
    } else {
        new_connection
    };
    tell(resource, |listeners, registry, id| {
        let change = ResourceChange {
            resource: id,
            old_connection,
            new_connection,
            volumes: &volumes,
        };
        listeners.send(registry, Event::Changed(change));
    });
}

/// The state of the connection that a volume in this state has.
fn connection_state(state: State) -> ConnState {
    state.conn.min(ConnState::WFReportParams)
}
