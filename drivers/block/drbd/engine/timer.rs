// SPDX-License-Identifier: GPL-2.0

//! Timers as data: when to ping, when the peer or the disk is given up, when to try again (spec
//! §1.6, §5.9, §15.6).
//!
//! Nothing here reads a clock or sleeps. The shell asks for the deadline, sleeps, and asks again
//! with the time. All times are nanoseconds of one monotonic clock.

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in the unit of `timeout`, `ping-timeout` and `disk-timeout`: a tenth of a second.
pub const TENTH_NS: u64 = SECOND_NS / 10;

/// What liveness asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LivenessAction {
    /// Send P_PING.
    SendPing,
    /// "PingAck did not arrive in time.": the connection becomes NetworkFailure.
    PeerDead,
}

/// Whether the peer is alive, by what arrives on the two sockets.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    ping_interval_ns: u64,
    ping_timeout_ns: u64,
    last_received_ns: u64,
    /// When the ping that is not answered was sent.
    ping_sent_ns: Option<u64>,
    ping_wanted: bool,
}

impl Liveness {
    /// Starts to watch: `ping-int` and `ping-timeout`, both in nanoseconds.
    pub const fn new(ping_interval_ns: u64, ping_timeout_ns: u64, now_ns: u64) -> Self {
        Self {
            ping_interval_ns,
            ping_timeout_ns,
            last_received_ns: now_ns,
            ping_sent_ns: None,
            ping_wanted: false,
        }
    }

    /// Other options hold from now on, for a ping that is out as well.
    pub fn set_options(&mut self, ping_interval_ns: u64, ping_timeout_ns: u64) {
        self.ping_interval_ns = ping_interval_ns;
        self.ping_timeout_ns = ping_timeout_ns;
    }

    /// Something arrived on either socket.
    pub fn on_received(&mut self, now_ns: u64) {
        self.last_received_ns = self.last_received_ns.max(now_ns);
    }

    /// P_PING_ACK arrived.
    pub fn on_ping_ack(&mut self, now_ns: u64) {
        self.on_received(now_ns);
        self.ping_sent_ns = None;
    }

    /// Someone wants to know now whether the peer is there; the next [`Self::poll`] asks for a ping
    /// unless one is out.
    pub fn request_ping(&mut self) {
        self.ping_wanted = true;
    }

    /// What is due.
    pub fn poll(&mut self, now_ns: u64) -> Option<LivenessAction> {
        if let Some(sent_ns) = self.ping_sent_ns {
            if now_ns < sent_ns.saturating_add(self.ping_timeout_ns) {
                return None;
            }
            if self.last_received_ns <= sent_ns {
                return Some(LivenessAction::PeerDead);
            }
            // The ack is late, but the peer talks.
            self.ping_sent_ns = None;
        }
        if now_ns < self.deadline() {
            return None;
        }
        self.ping_wanted = false;
        self.ping_sent_ns = Some(now_ns);
        Some(LivenessAction::SendPing)
    }

    /// When to poll next.
    pub const fn deadline(&self) -> u64 {
        match self.ping_sent_ns {
            Some(sent_ns) => sent_ns.saturating_add(self.ping_timeout_ns),
            None if self.ping_wanted => 0,
            None => self.last_received_ns.saturating_add(self.ping_interval_ns),
        }
    }
}

/// What to do when the socket did not take data for `timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendVerdict {
    /// Ask for a ping and go on sending.
    GoOn,
    /// Give the peer up: the connection becomes Timeout.
    GiveUp,
}

/// How often a send may time out, from the beginning of each send (spec §1.6).
#[derive(Clone, Copy, Debug)]
pub struct KoCount {
    left: u32,
}

impl KoCount {
    /// `ko_count` is the option of that name; 0 is without end.
    pub const fn new(ko_count: u32) -> Self {
        Self { left: ko_count }
    }

    /// The send timed out. `may_go_on`: it is the data socket, the ack receiver runs, and the
    /// connection is at least WFReportParams.
    pub fn timed_out(&mut self, may_go_on: bool) -> SendVerdict {
        self.left = self.left.wrapping_sub(1);
        if may_go_on && self.left != 0 {
            SendVerdict::GoOn
        } else {
            SendVerdict::GiveUp
        }
    }
}

/// What the request timer looks at; times are when the waiting began, `None` if nothing is waited
/// for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// The oldest request sent and not answered.
    pub answer_since_ns: Option<u64>,
    /// The oldest barrier sent and not acknowledged.
    pub barrier_since_ns: Option<u64>,
    /// The oldest local bio.
    pub disk_since_ns: Option<u64>,
    /// When the connection was established.
    pub connected_ns: u64,
    /// When the disk was attached.
    pub attached_ns: u64,
}

/// What the request timer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestVerdict {
    /// Nothing is late.
    Fine,
    /// The peer has used up a quarter of its time: warn the admin. Told once for each request.
    PeerSlow {
        /// How long the peer has been owing an answer.
        waited_ns: u64,
    },
    /// The peer is given up: the connection becomes Timeout.
    PeerTimeout,
    /// The disk is given up: detach by force and abort local I/O.
    DiskTimeout,
}

/// The request timer of a device (spec §5.9).
#[derive(Clone, Copy, Debug)]
pub struct RequestTimer {
    peer_timeout_ns: Option<u64>,
    disk_timeout_ns: Option<u64>,
    warned_since_ns: Option<u64>,
}

impl RequestTimer {
    /// `ko_count` x `timeout` bounds the wait for the peer, `disk_timeout` the one for the disk;
    /// both in tenths of a second, 0 is off.
    pub const fn new(ko_count: u32, timeout: u32, disk_timeout: u32) -> Self {
        let tenths = ko_count.saturating_mul(timeout);
        Self {
            peer_timeout_ns: tenths_ns(tenths),
            disk_timeout_ns: tenths_ns(disk_timeout),
            warned_since_ns: None,
        }
    }

    /// Looks at what is waited for.
    pub fn check(&mut self, waiting: &Waiting, now_ns: u64) -> RequestVerdict {
        if self.disk_is_late(waiting, now_ns) {
            return RequestVerdict::DiskTimeout;
        }
        let (Some(limit_ns), Some(since_ns)) = (self.peer_timeout_ns, peer_since(waiting)) else {
            self.warned_since_ns = None;
            return RequestVerdict::Fine;
        };
        let waited_ns = now_ns.saturating_sub(since_ns);
        if waited_ns > limit_ns {
            return RequestVerdict::PeerTimeout;
        }
        if waited_ns > limit_ns / 4 && self.warned_since_ns != Some(since_ns) {
            self.warned_since_ns = Some(since_ns);
            return RequestVerdict::PeerSlow { waited_ns };
        }
        RequestVerdict::Fine
    }

    /// How long to sleep before the next check; `None` if both timeouts are off.
    pub fn interval_ns(&self) -> Option<u64> {
        let quarter = self.peer_timeout_ns.map(|ns| ns / 4);
        match (quarter, self.disk_timeout_ns) {
            (Some(peer), Some(disk)) => Some(peer.min(disk)),
            (one, other) => one.or(other),
        }
    }

    fn disk_is_late(&self, waiting: &Waiting, now_ns: u64) -> bool {
        let (Some(limit_ns), Some(since_ns)) = (self.disk_timeout_ns, waiting.disk_since_ns) else {
            return false;
        };
        now_ns.saturating_sub(since_ns.max(waiting.attached_ns)) > limit_ns
    }
}

/// Since when the peer owes something on this connection.
fn peer_since(waiting: &Waiting) -> Option<u64> {
    let since = match (waiting.answer_since_ns, waiting.barrier_since_ns) {
        (Some(answer), Some(barrier)) => Some(answer.min(barrier)),
        (one, other) => one.or(other),
    };
    since.map(|since_ns| since_ns.max(waiting.connected_ns))
}

const fn tenths_ns(tenths: u32) -> Option<u64> {
    match tenths {
        0 => None,
        // Lossless: widens. Cannot overflow: 2^32 tenths are less than 2^63 ns.
        _ => Some((tenths as u64).saturating_mul(TENTH_NS)),
    }
}

/// How long to wait before the next attempt to connect: `connect-int`, more or less by up to a
/// seventh, so that two nodes that always miss each other stop doing so. `random` is any random
/// number.
pub fn connect_retry_ns(connect_int_s: u32, random: u32) -> u64 {
    let interval_ns = u64::from(connect_int_s).saturating_mul(SECOND_NS);
    let seventh_ns = interval_ns / 7;
    let spread_us = seventh_ns.saturating_mul(2) / 1000;
    // A fraction random / 2^32 of the spread.
    let extra_us = spread_us.saturating_mul(u64::from(random)) >> 32;
    interval_ns
        .saturating_sub(seventh_ns)
        .saturating_add(extra_us.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 10 * SECOND_NS;
    const TIMEOUT: u64 = 5 * TENTH_NS;

    fn liveness() -> Liveness {
        Liveness::new(INTERVAL, TIMEOUT, 0)
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_dead() {
        let mut it = liveness();
        assert_eq!(it.poll(INTERVAL - 1), None);
        assert_eq!(it.deadline(), INTERVAL);
        assert_eq!(it.poll(INTERVAL), Some(LivenessAction::SendPing));
        assert_eq!(it.deadline(), INTERVAL + TIMEOUT);
        assert_eq!(it.poll(INTERVAL + TIMEOUT - 1), None);
        assert_eq!(it.poll(INTERVAL + TIMEOUT), Some(LivenessAction::PeerDead));
    }

    #[test]
    fn a_ping_ack_starts_the_interval_anew() {
        let mut it = liveness();
        assert_eq!(it.poll(INTERVAL), Some(LivenessAction::SendPing));
        it.on_ping_ack(INTERVAL + 1);
        assert_eq!(it.poll(INTERVAL + TIMEOUT), None);
        assert_eq!(it.deadline(), 2 * INTERVAL + 1);
    }

    #[test]
    fn data_counts_when_the_ping_ack_is_late() {
        let mut it = liveness();
        assert_eq!(it.poll(INTERVAL), Some(LivenessAction::SendPing));
        it.on_received(INTERVAL + 5);
        assert_eq!(it.poll(INTERVAL + TIMEOUT), None);
        assert_eq!(it.deadline(), 2 * INTERVAL + 5);
    }

    #[test]
    fn a_wanted_ping_goes_out_at_once_but_only_one_at_a_time() {
        let mut it = liveness();
        it.request_ping();
        assert_eq!(it.poll(1), Some(LivenessAction::SendPing));
        it.request_ping();
        assert_eq!(it.poll(2), None);
        it.on_ping_ack(3);
        assert_eq!(it.poll(3), Some(LivenessAction::SendPing));
        assert_eq!(it.poll(4), None);
    }

    #[test]
    fn options_that_change_hold_at_once() {
        let mut it = liveness();
        it.set_options(SECOND_NS, 9 * TENTH_NS);
        assert_eq!(it.deadline(), SECOND_NS);
        assert_eq!(it.poll(SECOND_NS), Some(LivenessAction::SendPing));
        it.set_options(SECOND_NS, TENTH_NS);
        let end = SECOND_NS + TENTH_NS;
        assert_eq!(it.poll(end - 1), None);
        assert_eq!(it.poll(end), Some(LivenessAction::PeerDead));
    }

    #[test]
    fn the_ko_count_bounds_the_send_timeouts_and_zero_does_not() {
        let mut ko = KoCount::new(2);
        assert_eq!(ko.timed_out(true), SendVerdict::GoOn);
        assert_eq!(ko.timed_out(true), SendVerdict::GiveUp);
        let mut endless = KoCount::new(0);
        for _ in 0..1000 {
            assert_eq!(endless.timed_out(true), SendVerdict::GoOn);
        }
        assert_eq!(endless.timed_out(false), SendVerdict::GiveUp);
    }

    #[test]
    fn a_late_peer_is_warned_about_once_and_then_given_up() {
        let mut timer = RequestTimer::new(7, 60, 0);
        let limit = 42 * SECOND_NS;
        let waiting = Waiting {
            answer_since_ns: Some(SECOND_NS),
            ..Waiting::default()
        };
        let quarter = SECOND_NS + limit / 4;
        assert_eq!(timer.interval_ns(), Some(limit / 4));
        assert_eq!(timer.check(&waiting, quarter), RequestVerdict::Fine);
        let slow = RequestVerdict::PeerSlow {
            waited_ns: limit / 4 + 1,
        };
        assert_eq!(timer.check(&waiting, quarter + 1), slow);
        assert_eq!(timer.check(&waiting, quarter + 2), RequestVerdict::Fine);
        assert_eq!(
            timer.check(&waiting, SECOND_NS + limit),
            RequestVerdict::Fine
        );
        assert_eq!(
            timer.check(&waiting, SECOND_NS + limit + 1),
            RequestVerdict::PeerTimeout
        );
    }

    #[test]
    fn time_before_the_connection_does_not_count_against_the_peer() {
        let mut timer = RequestTimer::new(1, 10, 0);
        let waiting = Waiting {
            barrier_since_ns: Some(0),
            connected_ns: 5 * SECOND_NS,
            ..Waiting::default()
        };
        assert_eq!(timer.check(&waiting, 5 * SECOND_NS), RequestVerdict::Fine);
        assert_eq!(
            timer.check(&waiting, 6 * SECOND_NS + 1),
            RequestVerdict::PeerTimeout
        );
    }

    #[test]
    fn a_hanging_disk_is_given_up_only_if_asked_to() {
        let waiting = Waiting {
            disk_since_ns: Some(0),
            ..Waiting::default()
        };
        let late = 1000 * SECOND_NS;
        assert_eq!(
            RequestTimer::new(7, 60, 0).check(&waiting, late),
            RequestVerdict::Fine
        );
        assert_eq!(
            RequestTimer::new(0, 60, 10).check(&waiting, late),
            RequestVerdict::DiskTimeout
        );
        assert_eq!(RequestTimer::new(0, 0, 0).interval_ns(), None);
    }

    #[test]
    fn connection_attempts_are_spread_by_a_seventh_both_ways() {
        let interval = 10 * SECOND_NS;
        assert_eq!(connect_retry_ns(10, 0), interval - interval / 7);
        let latest = connect_retry_ns(10, u32::MAX);
        assert!(latest > interval + interval / 7 - 10_000 && latest <= interval + interval / 7);
        let middle = connect_retry_ns(10, 1 << 31);
        assert!(middle.abs_diff(interval) < 10_000);
        assert!(connect_retry_ns(u32::MAX, u32::MAX) > 0);
    }
}
