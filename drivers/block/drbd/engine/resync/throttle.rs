// SPDX-License-Identifier: GPL-2.0

//! Whether resync makes way for the application (spec §6.4).

/// Foreign sectors on the backing disk that count as application I/O.
const NOTABLE_SECTORS: u64 = 64;

/// How long a range that is to be served lets the application's requests pass, at most: however
/// busy the application is, a resync gets on.
pub const COURTESY_MS: u32 = 20;

/// What the disk and the application have been doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Sectors read from and written to the backing disk since it exists.
    pub disk_sectors: u64,
    /// Those of them that resync and verify moved (`rs_sect_ev`).
    pub resync_sectors: u64,
    /// Application requests wait for the activity log.
    pub activity_log_waiters: bool,
    /// An application request waits for this very range: the sooner it is done, the better.
    pub range_is_wanted: bool,
    /// The peer is Primary: its application waits for the resync as well.
    pub peer_is_primary: bool,
    /// Requests of this node's application that are under way.
    pub application_requests: u32,
    /// The rate over the last two marks, in KiB/s.
    pub recent_rate_kib: u64,
}

impl Activity {
    /// Whether to wait before serving a range until no request of the application is under way, for
    /// up to [`COURTESY_MS`]: both would be slower side by side. `min_rate_kib` as for
    /// [`Throttle::must_wait`].
    pub fn lets_pass(&self, min_rate_kib: u32) -> bool {
        min_rate_kib != 0
            && self.application_requests != 0
            && self.recent_rate_kib > u64::from(min_rate_kib)
    }
}

/// Remembers what it saw of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throttle {
    seen_sectors: u64,
}

impl Throttle {
    /// A resync starts: what the disk did before does not count.
    pub const fn new(activity: &Activity) -> Self {
        Self {
            seen_sectors: activity
                .disk_sectors
                .saturating_sub(activity.resync_sectors),
        }
    }

    /// Whether to wait 100 ms before serving, or asking for, a range. `min_rate_kib` is
    /// `c-min-rate`; 0 means never to wait.
    pub fn must_wait(&mut self, activity: &Activity, min_rate_kib: u32) -> bool {
        if min_rate_kib == 0 || activity.peer_is_primary {
            return false;
        }
        let foreign = activity
            .disk_sectors
            .saturating_sub(activity.resync_sectors);
        let moved = foreign.saturating_sub(self.seen_sectors) > NOTABLE_SECTORS;
        if !moved && !activity.activity_log_waiters {
            return false;
        }
        self.seen_sectors = foreign;
        activity.recent_rate_kib > u64::from(min_rate_kib) && !activity.range_is_wanted
    }
}
