// SPDX-License-Identifier: GPL-2.0

//! `resync-after`: volumes of all resources wait for each other (Spec §6.5).
//!
//! Whenever something changes that others may wait for, all volumes are looked at. Whoever changes
//! something looks after the change is published, so the last one to look sees everything.

use drbd_engine::{
    config::{
        DiskConf,
        RetCode, //
    },
    resync::order::{
        self,
        Place, //
    },
    state::Change,
    types::Minor,
};
use kernel::sync::Arc;

use crate::io::{
    device::Device,
    registry::Registry,
    resource::Resource,
    state::How, //
};

/// What goes before a volume by its options.
fn after(conf: &DiskConf) -> Option<Minor> {
    u32::try_from(conf.resync_after).ok().map(Minor)
}

fn place(registry: &Registry, minor: Minor) -> Option<Place> {
    let device = registry.device(minor)?;
    let local = device.local()?;
    Some(Place {
        state: device.state(),
        after: after(&local.conf()),
    })
}

/// Whether another volume goes first. May sleep.
pub(super) fn must_wait(device: &Device) -> bool {
    let registry = device.resource.environment.notifier.registry();
    registry.is_some_and(|registry| order::must_wait(device.minor, |minor| place(&registry, minor)))
}

/// Refuses options by which a volume would wait for itself. May sleep.
pub(crate) fn check(device: &Device, conf: &DiskConf) -> Result<(), RetCode> {
    let Some(registry) = device.resource.environment.notifier.registry() else {
        return Ok(());
    };
    order::check(device.minor, after(conf), |minor| place(&registry, minor))
        .map_err(|order::Cycle| RetCode::RESYNC_AFTER_CYCLE)
}

/// Lets wait or go on whoever now must or may. May sleep; without any resource's state lock.
pub(crate) fn reconsider(resource: &Resource) {
    let Some(registry) = resource.environment.notifier.registry() else {
        return;
    };
    let mut from = Minor(0);
    while let Some(device) = registry.next_device(from) {
        from = Minor(device.minor.0.saturating_add(1));
        settle(&device);
    }
}

fn settle(device: &Arc<Device>) {
    let state = device.state();
    let waits = must_wait(device);
    if state.is_unconfigured() || state.aftr_isp == waits {
        return;
    }
    // Refused only where the volume is on its way out.
    let _ = device
        .resource
        .change_state(device, Change::NONE.with_aftr_isp(waits), How::HARD);
}
