// SPDX-License-Identifier: GPL-2.0

//! Gives up a peer that owes answers for too long, although it may be alive (Spec §5.9).

use drbd_engine::{
    config::NetConf,
    state::ConnState,
    timer::{
        RequestTimer,
        RequestVerdict,
        Waiting, //
    },
};
use drbd_sys::{
    log,
    time::monotonic_ns, //
};

use super::{
    receiver::ConnectionError,
    resource::Resource, //
};

/// The request timer of a connection, on its asender.
pub(super) struct RequestWatch {
    timer: RequestTimer,
    ko_count: u32,
    timeout_ds: u32,
    due_ns: u64,
}

impl RequestWatch {
    /// Starts to watch with the connection's options.
    pub(super) fn new(net: &NetConf) -> Self {
        Self {
            timer: RequestTimer::new(net.ko_count, net.timeout, 0),
            ko_count: net.ko_count,
            timeout_ds: net.timeout,
            due_ns: 0,
        }
    }

    /// The options may have changed.
    pub(super) fn set_options(&mut self, net: &NetConf) {
        if (net.ko_count, net.timeout) != (self.ko_count, self.timeout_ds) {
            *self = Self::new(net);
        }
    }

    /// When to look next.
    pub(super) fn deadline_ns(&self) -> u64 {
        self.due_ns
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self, resource: &Resource) -> Result<(), ConnectionError> {
        let now_ns = monotonic_ns();
        if now_ns < self.due_ns {
            return Ok(());
        }
        let connection = &resource.connection;
        let (oldest, mut waiting) = {
            let mut log = connection.log.lock();
            let oldest = log.oldest_unanswered();
            let answer_since_ns = oldest.and_then(|index| Some(log.get(index)?.sent_ns()));
            let waiting = Waiting {
                answer_since_ns,
                barrier_since_ns: log.barrier_since_ns(),
                connected_ns: connection.established_ns.load(),
                ..Waiting::default()
            };
            (oldest, waiting)
        };
        // Many may be sent at once, and are erased one after another: what counts is how long the
        // peer takes for one.
        let request = oldest.and_then(|index| resource.requests.get(index));
        let answered_ns = connection.erasure_answered_ns.load();
        if request.is_some_and(|request| request.erases()) {
            waiting.answer_since_ns = waiting.answer_since_ns.max(Some(answered_ns));
            waiting.barrier_since_ns = waiting.barrier_since_ns.map(|ns| ns.max(answered_ns));
        }
        let verdict = self.timer.check(&waiting, now_ns);
        self.due_ns = match self.timer.interval_ns() {
            Some(interval_ns) => now_ns.saturating_add(interval_ns / 4),
            None => u64::MAX,
        };
        let limit_ms = self
            .ko_count
            .saturating_mul(self.timeout_ds)
            .saturating_mul(100);
        match verdict {
            RequestVerdict::Fine | RequestVerdict::DiskTimeout => Ok(()),
            RequestVerdict::PeerSlow { waited_ns } => {
                connection.slow_answers.add(1);
                log!(
                    Warning,
                    resource,
                    "Remote has not finished a request for {}ms, giving up after {}ms",
                    waited_ns / 1_000_000,
                    limit_ms
                );
                Ok(())
            }
            RequestVerdict::PeerTimeout => {
                log!(
                    Warning,
                    resource,
                    "Remote failed to finish a request within {}ms > ko-count ({}) * timeout ({} * 0.1s)",
                    limit_ms,
                    self.ko_count,
                    self.timeout_ds
                );
                resource.lose_connection(ConnState::Timeout);
                Err(ConnectionError)
            }
        }
    }
}
