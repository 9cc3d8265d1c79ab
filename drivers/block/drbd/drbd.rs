// SPDX-License-Identifier: GPL-2.0

//! The `drbd` kernel module: wiring, load and unload order.

use drbd_engine::report::version::{
    API_VERSION,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    VERSION, //
};
use drbd_sys::{
    disk::Major,
    module::srcversion,
    proc, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

mod control;
mod io;
mod notify;
mod report;

use control::netlink::{
    Family,
    Listeners, //
};
use io::{
    environment::Environment,
    registry::Registry, //
};
use notify::Notifier;
use report::proc::Status;

module! {
    type: Drbd,
    name: "drbd",
    authors: ["The drbd-rs authors"],
    description: "drbd - Distributed Replicated Block Device v8.4.11",
    license: "GPL",
    alias: ["block-major-147-*"],
}

/// The block devices' major number.
const MAJOR: u32 = 147;

/// The loaded module. Fields drop in declaration order, which is the unload order: tools take the
/// file in `/proc` for the sign that the module is there.
struct Drbd {
    _status: proc::File<Status>,
    _family: Family<Arc<Registry>>,
    _objects: Objects,
    /// Waits until the last of the devices has been freed.
    _major: Arc<Major>,
}

/// The registry with what is in it.
struct Objects {
    registry: Arc<Registry>,
    notifier: Arc<Notifier>,
}

impl Drop for Objects {
    fn drop(&mut self) {
        // Whatever is configured keeps the module loaded; what is left are bare names and minors.
        self.registry.clear();
        self.notifier.set_registry(None);
    }
}

impl kernel::Module for Drbd {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let major = register_major()?;
        let listeners = Listeners::new()?;
        let notifier = Notifier::new(listeners.clone())?;
        let environment = Environment::new(module, notifier.clone())?;
        let registry = Registry::new(environment, major.clone())?;
        notifier.set_registry(Some(registry.clone()));
        let objects = Objects {
            registry: registry.clone(),
            notifier,
        };
        let family = control::netlink::register(module, registry.clone(), listeners)?;
        let status = proc::File::new(c"drbd", Status::new(registry)?).inspect_err(|error| {
            pr_err!("unable to register proc file: {}\n", error.to_errno());
        })?;
        pr_info!(
            "initialized. Version: {VERSION} (api:{API_VERSION}/proto:{PROTOCOL_MIN}-{PROTOCOL_MAX})\n"
        );
        if let Some(version) = srcversion(module) {
            pr_info!("srcversion: {version:<24}\n");
        }
        pr_info!("registered as block device major {MAJOR}\n");
        Ok(Self {
            _status: status,
            _family: family,
            _objects: objects,
            _major: major,
        })
    }
}

impl Drop for Drbd {
    fn drop(&mut self) {
        pr_info!("module cleanup done.\n");
    }
}

fn register_major() -> Result<Arc<Major>> {
    let major = Major::register(MAJOR, c"drbd").inspect_err(|error| {
        let reason = match *error {
            EBUSY => "another driver has it",
            _ => "the kernel refused",
        };
        pr_err!("unable to register block device major {MAJOR}: {reason}\n");
    })?;
    Ok(Arc::new(major, GFP_KERNEL)?)
}
