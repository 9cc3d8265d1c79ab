// SPDX-License-Identifier: GPL-2.0

//! `/proc/drbd` (spec §7.1): the numbers for the engine's text.

use core::fmt;

use drbd_engine::{
    epoch,
    report::{
        progress::Position,
        Counters,
        Details,
        LruStatistics,
        MinorText,
        ProgressText,
        Rate,
        VersionText,
        WriteOrdering, //
    },
    state::{
        ConnState,
        State, //
    },
    timer::SECOND_NS,
    types::{
        Minor,
        Sector,
        SECTORS_PER_BIT_SHIFT, //
    },
};
use drbd_sys::{
    module,
    params,
    proc::Show,
    time::monotonic_ns, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::io::{
    device::{
        flag,
        Device,
        Gauge, //
    },
    registry::Registry, //
};

/// The content of the file.
pub(crate) struct Status {
    registry: Arc<Registry>,
}

impl Status {
    /// Shows what is in this registry. May sleep.
    pub(crate) fn new(registry: Arc<Registry>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { registry }, GFP_KERNEL)?)
    }
}

impl Show for Status {
    fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let srcversion = module::srcversion(self.registry.environment.module);
        write!(out, "{}", VersionText { srcversion })?;
        let mut previous = None;
        let mut next = Minor(0);
        while let Some(device) = self.registry.next_device(next) {
            show_device(&device, previous, out)?;
            previous = Some(device.minor);
            next = Minor(device.minor.0.saturating_add(1));
        }
        Ok(())
    }
}

fn show_device(
    device: &Arc<Device>,
    previous: Option<Minor>,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    let state = device.state();
    let connection = &device.resource.connection;
    let level = params::proc_details();
    let counters = counters(device);
    let progress = progress(device, state, level);
    let text = MinorText {
        minor: device.minor,
        previous,
        state,
        protocol: connection
            .config()
            .map(|config| match config.net.wire_protocol {
                drbd_engine::config::Protocol::A => 'A',
                drbd_engine::config::Protocol::B => 'B',
                drbd_engine::config::Protocol::C => 'C',
            }),
        // The kernel tells no driver about congestion any more, and the C driver shows none; a busy
        // link is in the connection's statistics.
        congestion: None,
        is_activity_log_suspended: device.flags.any(flag::ACTIVITY_LOG_SUSPENDED),
        counters: &counters,
        write_ordering: match connection.ordering() {
            epoch::WriteOrdering::None => WriteOrdering::None,
            epoch::WriteOrdering::Drain => WriteOrdering::Drain,
            epoch::WriteOrdering::Flush => WriteOrdering::Flush,
        },
        progress: progress.as_ref(),
        details: &details(device, level),
    };
    write!(out, "{text}")
}

fn counters(device: &Arc<Device>) -> Counters {
    let counters = &device.counters;
    let local = device.local();
    let epochs = device.resource.connection.epochs.lock().open();
    let pending =
        gauge(&counters.application_pending).saturating_add(gauge(&counters.resync_pending));
    Counters {
        sent_sectors: counters.sent.get(),
        received_sectors: counters.received.get(),
        written_sectors: counters.written.get(),
        read_sectors: counters.read.get(),
        // They wrap around, as the C driver's do.
        activity_log_writes: (counters.activity_log_writes.get() & u64::from(u32::MAX)) as u32,
        bitmap_writes: (counters.bitmap_writes.get() & u64::from(u32::MAX)) as u32,
        local_count: device.local_bios().try_into().unwrap_or(0),
        pending,
        unacknowledged: gauge(&counters.unacked),
        application_requests: gauge(&counters.application_bios),
        epochs: u32::try_from(epochs).unwrap_or(u32::MAX),
        out_of_sync_bits: local.map_or(0, |local| local.bitmap.set_bits()),
    }
}

fn progress(device: &Arc<Device>, state: State, level: i32) -> Option<ProgressText> {
    let is_shown = matches!(
        state.conn,
        ConnState::SyncSource | ConnState::SyncTarget | ConnState::VerifyS | ConnState::VerifyT
    );
    let local = device.local().filter(|_| is_shown)?;
    let bits_set = local.bitmap.set_bits();
    let now_ns = monotonic_ns();
    let resync = device.resync.lock();
    let progress = &resync.progress;
    let mark = progress.rolling_mark();
    let recent = Rate {
        seconds: now_ns.saturating_sub(mark.time_ns) / SECOND_NS,
        bits_left_then: mark.left_bits,
    };
    let running_ns = now_ns
        .saturating_sub(progress.start_ns())
        .saturating_sub(progress.paused(now_ns));
    let verify = resync.verify;
    let bits_left = match &verify {
        Some(verify) => verify.left_bits(),
        None => bits_set.saturating_sub(progress.failed_bits()),
    };
    let drives = matches!(state.conn, ConnState::SyncTarget | ConnState::VerifyS);
    let capacity = Sector(device.capacity());
    Some(ProgressText {
        is_verify: verify.is_some(),
        bits_total: progress.total_bits(),
        bits_left,
        recent,
        latest: recent,
        running_seconds: running_ns / SECOND_NS,
        wanted_kib_per_second: drives.then_some(resync.wanted_kib),
        position: Position {
            bit: match &verify {
                Some(verify) => verify.position(capacity).0,
                None => progress.total_bits().saturating_sub(bits_left),
            },
            device_bits: capacity.0 >> SECTORS_PER_BIT_SHIFT,
            stop_sector: verify
                .and_then(|verify| verify.stop_sector(capacity))
                .map(|sector| sector.0),
        },
        is_detailed: level >= 1,
    })
}

fn details(device: &Arc<Device>, level: i32) -> Details {
    let log = device
        .local()
        .filter(|_| level >= 1)
        .map(|local| local.activity_log.lock().statistics());
    let caches = log.map(|log| {
        let activity_log = LruStatistics {
            used: log.used,
            elements: log.slots,
            hits: log.hits,
            misses: log.misses,
            starving: log.starving,
            locked: log.locked,
            changed: log.changed,
        };
        (LruStatistics::default(), activity_log)
    });
    Details {
        caches,
        blocked_on_activity_log: (level >= 2).then(|| gauge(&device.resource.delayed)),
        slow_answers: (level >= 2).then(|| device.resource.connection.slow_answers.get()),
    }
}

fn gauge(gauge: &Gauge) -> u32 {
    u32::try_from(gauge.get()).unwrap_or(0)
}
