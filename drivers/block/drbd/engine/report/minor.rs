// SPDX-License-Identifier: GPL-2.0

//! What `/proc/drbd` says about one minor.

use core::fmt;

use super::progress::ProgressText;
use crate::state::State;
use crate::types::Minor;

/// Why a volume is congested: the letter in the fifth place of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congestion(pub char);

/// How writes are kept in order on the backing device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOrdering {
    /// Not at all: the device needs no help.
    None,
    /// By waiting for the writes of an epoch.
    Drain,
    /// By flushing after each epoch.
    Flush,
}

impl WriteOrdering {
    const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Drain => 'd',
            Self::Flush => 'f',
        }
    }
}

/// The counters of the second line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sectors sent over the network.
    pub sent_sectors: u64,
    /// Sectors received over the network.
    pub received_sectors: u64,
    /// Sectors written to the disk.
    pub written_sectors: u64,
    /// Sectors read from the disk.
    pub read_sectors: u64,
    /// Transactions of the activity log.
    pub activity_log_writes: u32,
    /// Bitmap pages written.
    pub bitmap_writes: u32,
    /// References to the local disk.
    pub local_count: u32,
    /// Requests of application and resync that wait for the peer's answer.
    pub pending: u32,
    /// Requests of the peer that were not answered yet.
    pub unacknowledged: u32,
    /// Application requests that are not complete.
    pub application_requests: u32,
    /// Open epochs.
    pub epochs: u32,
    /// Set bits.
    pub out_of_sync_bits: u64,
}

/// The statistics of a cache, told with `proc_details` 1 and up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LruStatistics {
    /// Elements in use.
    pub used: u32,
    /// Elements there are.
    pub elements: u32,
    /// Times the element was there.
    pub hits: u64,
    /// Times it was not.
    pub misses: u64,
    /// Times there was no element to spare.
    pub starving: u64,
    /// Times the cache was locked by another change.
    pub locked: u64,
    /// Times it was changed.
    pub changed: u64,
}

impl LruStatistics {
    fn line(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let Self {
            used,
            elements,
            hits,
            misses,
            starving,
            locked,
            changed,
        } = *self;
        writeln!(
            f,
            "\t{name}: used:{used}/{elements} hits:{hits} misses:{misses} \
             starving:{starving} locked:{locked} changed:{changed}"
        )
    }
}

/// What the module parameter `proc_details` adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// With 1 and up and a disk: the resync cache and the activity log.
    pub caches: Option<(LruStatistics, LruStatistics)>,
    /// With 2 and up: requests that wait for the activity log.
    pub blocked_on_activity_log: Option<u32>,
    /// How often the peer owed an answer for a quarter of the time after which it is given up; told
    /// with `proc_details` 2 and more.
    pub slow_answers: Option<u64>,
}

/// The lines of one minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinorText<'a> {
    /// The minor.
    pub minor: Minor,
    /// The minor before it in the list; `None` for the first.
    pub previous: Option<Minor>,
    /// The state.
    pub state: State,
    /// A, B or C; `None` without a network configuration.
    pub protocol: Option<char>,
    /// Why it is congested, if it is.
    pub congestion: Option<Congestion>,
    /// Whether updates of the activity log are suspended.
    pub is_activity_log_suspended: bool,
    /// The counters.
    pub counters: &'a Counters,
    /// How writes are ordered.
    pub write_ordering: WriteOrdering,
    /// The progress, told while a resync or verify runs.
    pub progress: Option<&'a ProgressText>,
    /// What `proc_details` adds.
    pub details: &'a Details,
}

impl MinorText<'_> {
    /// A hole in the minors is told by an empty line; a list that does not begin with 0 begins with
    /// one.
    fn follows_a_hole(&self) -> bool {
        let expected = match self.previous {
            Some(Minor(previous)) => previous.checked_add(1),
            None => Some(0),
        };
        expected != Some(self.minor.0)
    }

    fn state_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State {
            role,
            peer,
            conn,
            disk,
            pdsk,
            ..
        } = self.state;
        let protocol = self.protocol.unwrap_or(' ');
        write!(
            f,
            " cs:{conn} ro:{role}/{peer} ds:{disk}/{pdsk} {protocol} "
        )?;
        let letter = |set: bool, letter: char| if set { letter } else { '-' };
        writeln!(
            f,
            "{}{}{}{}{}{}",
            if self.state.is_suspended() { 's' } else { 'r' },
            letter(self.state.aftr_isp, 'a'),
            letter(self.state.peer_isp, 'p'),
            letter(self.state.user_isp, 'u'),
            self.congestion.map_or('-', |Congestion(reason)| reason),
            letter(self.is_activity_log_suspended, 's'),
        )
    }

    fn counter_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.counters;
        writeln!(
            f,
            "    ns:{} nr:{} dw:{} dr:{} al:{} bm:{} lo:{} pe:{} ua:{} ap:{} ep:{} wo:{} oos:{}",
            c.sent_sectors / 2,
            c.received_sectors / 2,
            c.written_sectors / 2,
            c.read_sectors / 2,
            c.activity_log_writes,
            c.bitmap_writes,
            c.local_count,
            c.pending,
            c.unacknowledged,
            c.application_requests,
            c.epochs,
            self.write_ordering.letter(),
            c.out_of_sync_bits.saturating_mul(4),
        )
    }

    fn shows_progress(&self) -> bool {
        use crate::state::ConnState as C;
        matches!(
            self.state.conn,
            C::SyncSource | C::SyncTarget | C::VerifyS | C::VerifyT
        )
    }
}

impl fmt::Display for MinorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.follows_a_hole() {
            f.write_str("\n")?;
        }
        write!(f, "{:2}:", self.minor.0)?;
        if self.state.is_unconfigured() {
            return f.write_str(" cs:Unconfigured\n");
        }
        self.state_line(f)?;
        self.counter_line(f)?;
        if let Some(progress) = self.progress.filter(|_| self.shows_progress()) {
            progress.fmt(f)?;
        }
        if let Some((resync, activity_log)) = &self.details.caches {
            resync.line(f, "resync")?;
            activity_log.line(f, "act_log")?;
        }
        if let Some(blocked) = self.details.blocked_on_activity_log {
            writeln!(f, "\tblocked on activity log: {blocked}")?;
        }
        if let Some(times) = self.details.slow_answers {
            writeln!(f, "\tslow answers of the peer: {times}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
