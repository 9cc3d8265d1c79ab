// SPDX-License-Identifier: GPL-2.0

//! `wait-connect` and `wait-sync`: wait until the peer is there, or the data are in sync.

use super::state::state_of;
use super::Call;
use crate::failure::{Failure, Outcome};
use crate::netlink::message::Received;
use crate::netlink::request::OwnedValue;
use crate::netlink::{Driver, Message, Request};
use drbd_engine::config::command::Command;
use drbd_engine::config::{Field, TimeoutParameters, Value};
use drbd_engine::state::ConnState;
use std::time::{Duration, Instant};

/// Options of both commands; the timeouts are in seconds, and 0 waits for ever.
pub const OPTIONS: &[Field] = &[
    Field::u32("wfc-timeout", 0, SECONDS_MAX),
    Field::u32("degr-wfc-timeout", 0, SECONDS_MAX),
    Field::u32("outdated-wfc-timeout", 0, SECONDS_MAX),
    Field::flag("wait-after-sb"),
];

const SECONDS_MAX: u32 = 300_000;
const TIMEOUT_EXIT: u8 = 5;

/// Waits until the device is connected, or gives up looking for its peer.
pub fn wait_connect(call: &Call<'_>) -> Outcome {
    wait(call, |conn| conn >= ConnState::Connected)
}

/// Waits until the device is connected and nothing is being resynced.
pub fn wait_sync(call: &Call<'_>) -> Outcome {
    wait(call, |conn| conn == ConnState::Connected)
}

fn wait(call: &Call<'_>, arrived: fn(ConnState) -> bool) -> Outcome {
    let minor = call.minor()?;
    let timeouts = Timeouts::of(call);
    let mut driver = Driver::open()?;
    let deadline = timeouts
        .for_kind(timeout_kind(&mut driver, minor)?)
        .map(|timeout| Instant::now() + timeout);
    driver.subscribe()?;
    let request = driver.send(&Request::about_minor(Command::GetStatus, minor))?;
    let stubborn = call.is_on("wait-after-sb");
    while let Some(received) = driver.next(deadline)? {
        let ours = received.sequence() == request;
        let Received::Message(message) = received else {
            continue;
        };
        if message.header().minor != minor || !(ours || is_event(&message)) {
            continue;
        }
        let Some(state) = state_of(&message) else {
            // The device is gone, and with it what was waited for.
            return Err(Failure::new(20, "minor not available"));
        };
        let gave_up = state.conn < ConnState::Unconnected;
        if arrived(state.conn) || (gave_up && !stubborn) {
            return Ok(());
        }
        if gave_up {
            let (name, volume) = (message.resource_name(), message.context().volume);
            eprintln!(
                "drbd{minor} ({name}[{}]) is {}, but I'm configured to wait anyways \
                 (--wait-after-sb)",
                volume.unwrap_or(0),
                state.conn
            );
        }
    }
    Err(Failure::new(TIMEOUT_EXIT, ""))
}

fn is_event(message: &Message) -> bool {
    message.command == Command::Event.number()
}

/// Which timeout applies: 0 default, 1 degraded, 2 peer outdated.
fn timeout_kind(driver: &mut Driver, minor: u32) -> Outcome<u32> {
    let reply = driver.ask(&Request::about_minor(Command::GetTimeoutType, minor))?;
    let kind = reply.settings::<TimeoutParameters>();
    match kind.filter(|_| reply.ret_code().is_success()) {
        Some(parameters) => Ok(parameters.kind),
        None => Err(Failure::new(
            20,
            "error determining which timeout to use: minor not available",
        )),
    }
}

/// How long to wait, in seconds; 0 for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timeouts {
    peer_available: u32,
    degraded: u32,
    outdated: u32,
}

impl Timeouts {
    fn of(call: &Call<'_>) -> Self {
        let seconds = |name| match call.option(name) {
            Some(OwnedValue::Plain(Value::U32(seconds))) => *seconds,
            _ => 0,
        };
        let mut timeouts = Self {
            peer_available: seconds("wfc-timeout"),
            degraded: seconds("degr-wfc-timeout"),
            outdated: seconds("outdated-wfc-timeout"),
        };
        for warning in timeouts.put_in_order() {
            eprintln!("{warning}");
        }
        timeouts
    }

    /// Makes each timeout no longer than the one before: the less is to be hoped for, the shorter
    /// the wait.
    fn put_in_order(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        let pairs = [
            ("degr-wfc-timeout", "wfc-timeout"),
            ("outdated-wfc-timeout", "degr-wfc-timeout"),
        ];
        let mut limit = self.peer_available;
        let shorter = [&mut self.degraded, &mut self.outdated];
        for (timeout, (name, longer)) in shorter.into_iter().zip(pairs) {
            if limit != 0 && (*timeout == 0 || *timeout > limit) {
                *timeout = limit;
                warnings.push(format!("{name} has to be shorter than {longer}"));
                warnings.push(format!("{name} implicitly set to {longer} ({limit}s)"));
            }
            limit = *timeout;
        }
        warnings
    }

    fn for_kind(self, kind: u32) -> Option<Duration> {
        let seconds = match kind {
            1 => self.degraded,
            2 => self.outdated,
            _ => self.peer_available,
        };
        (seconds != 0).then(|| Duration::from_secs(seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(peer_available: u32, degraded: u32, outdated: u32) -> (Timeouts, usize) {
        let mut timeouts = Timeouts {
            peer_available,
            degraded,
            outdated,
        };
        let warnings = timeouts.put_in_order().len();
        (timeouts, warnings)
    }

    #[test]
    fn a_longer_timeout_for_less_hope_is_cut() {
        let (timeouts, warnings) = ordered(10, 0, 20);
        assert_eq!((timeouts.degraded, timeouts.outdated), (10, 10));
        assert_eq!(warnings, 4);
    }

    #[test]
    fn timeouts_in_order_stay_as_they_are() {
        let (timeouts, warnings) = ordered(0, 20, 10);
        assert_eq!(warnings, 0);
        assert_eq!(timeouts.for_kind(0), None);
        assert_eq!(timeouts.for_kind(1), Some(Duration::from_secs(20)));
        assert_eq!(timeouts.for_kind(2), Some(Duration::from_secs(10)));
    }
}
