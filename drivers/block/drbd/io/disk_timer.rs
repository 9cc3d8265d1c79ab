// SPDX-License-Identifier: GPL-2.0

//! Gives up a disk that does not end application I/O for `disk-timeout` (Spec §5.9).

use drbd_engine::{
    request::DiskError,
    state::DiskState,
    timer::{
        RequestTimer,
        RequestVerdict,
        Waiting, //
    },
};
use drbd_sys::log;
use kernel::sync::Arc;

use super::{
    device::Device,
    disk_error, //
};

/// How often a disk with a timeout is looked at, at most and at least.
const LOOK_MS: (u32, u32) = (50, 1000);

/// Looks at the oldest request at the disk, if it is time; returns when to come again, in
/// milliseconds. On the worker.
pub(crate) fn look(device: &Arc<Device>, now_ns: u64) -> u32 {
    let Some(local) = device.local() else {
        return u32::MAX;
    };
    let (tenths, attached_ns) = (local.conf().disk_timeout, local.attached_ns());
    drop(local);
    if tenths == 0 || device.state().disk <= DiskState::Failed {
        return u32::MAX;
    }
    let pause_ms = tenths.saturating_mul(25).clamp(LOOK_MS.0, LOOK_MS.1);
    let due_ns = device.disk_watch_ns.load();
    if now_ns < due_ns {
        return ms_until(due_ns, now_ns).min(pause_ms);
    }
    let next_ns = now_ns.saturating_add(u64::from(pause_ms).saturating_mul(1_000_000));
    device.disk_watch_ns.store(next_ns);
    let waiting = Waiting {
        disk_since_ns: oldest(device, now_ns),
        attached_ns,
        ..Waiting::default()
    };
    let verdict = RequestTimer::new(0, 0, tenths).check(&waiting, now_ns);
    if verdict == RequestVerdict::DiskTimeout {
        log!(
            Warning,
            device,
            "Local backing device failed to meet the disk-timeout"
        );
        disk_error::judge(device, DiskError::ForcedDetach);
    }
    pause_ms
}

/// When the bio that has been at the disk for longest came there.
fn oldest(device: &Arc<Device>, now_ns: u64) -> Option<u64> {
    let read = device.reads.oldest_ns(now_ns);
    let requests = device.resource.requests.iter();
    requests
        .filter(|_| device.counters.local.get() != 0)
        .filter_map(|request| request.at_disk_since(device))
        .chain(read)
        .min()
}

fn ms_until(due_ns: u64, now_ns: u64) -> u32 {
    let ms = due_ns.saturating_sub(now_ns) / 1_000_000;
    u32::try_from(ms).unwrap_or(u32::MAX).saturating_add(1)
}
