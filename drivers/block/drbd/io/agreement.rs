// SPDX-License-Identifier: GPL-2.0

//! Changes of state that the peer has to agree to (Spec §1.23, §4.5).
//!
//! One at a time: whoever asks holds `Connection::agreement` until the answer is there, the
//! connection is gone, or the peer has taken too long. The receiver never waits for that lock, so
//! two nodes that ask each other at once both get an answer.

use drbd_engine::{
    state::{
        change,
        connection::connection_needs_peer,
        needs_peer,
        Change,
        ConnState,
        StateError,
        Success, //
    },
    types::VolumeNr,
    wire::{
        Command,
        StateRequest,
        StateWord, //
    },
};
use drbd_sys::{
    log,
    time::monotonic_ns, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    connection::{
        flag,
        Connection, //
    },
    device::{
        flag as device_flag,
        Device, //
    },
    resource::Resource,
    state::How, //
};

/// Pause before a change is tried again that a change under way refuses.
const RETRY_MS: u32 = 100;
/// How long it is tried again.
const RETRY_LIMIT_NS: u64 = 30 * drbd_engine::timer::SECOND_NS;
/// How long a change waits for the worker to tell that a resync has ended.
const UNTOLD_MS: u32 = 1000;
/// The shortest time that the peer has for its answer: it may have much to write before.
const ANSWER_MS_MIN: u32 = 10_000;

impl Connection {
    /// Whether a change that the peer is asked for is under way; its end wakes the resource's
    /// waiters. Any context.
    pub(crate) fn is_changing(&self) -> bool {
        self.flags.any(flag::CHANGING)
    }

    /// Makes a change that the peer is asked for, where it needs to be. May sleep.
    fn change_alone<T>(&self, change: impl FnOnce() -> T) -> T {
        let _one_change = self.agreement.lock();
        self.flags.set(flag::CHANGING);
        let made = change();
        self.flags.clear(flag::CHANGING);
        made
    }
}

impl Resource {
    /// Changes the state of a volume, with the peer's consent where that is needed. May sleep; not
    /// from the receiver or the asender.
    ///
    /// A change that another one under way refuses is tried again.
    ///
    /// # Errors
    ///
    /// The rule that refuses it; [`StateError::RefusedByPeer`] where the peer does.
    pub(crate) fn request_state(
        &self,
        device: &Arc<Device>,
        change: Change,
        how: How,
    ) -> Result<Success, StateError> {
        self.until_settled(|| {
            if !self.volume_needs_peer(device, change, how)? {
                return self.change_state(device, change, how);
            }
            self.await_told_end(device)?;
            self.ask_peer(device.volume, Command::StateChangeRequest, change)?;
            self.change_state(device, change, how).inspect_err(|_| {
                // The peer has made the change already: tell it how things are. What cannot be sent
                // has cost the connection.
                let _ = device.send_present_state();
            })
        })
    }

    /// Changes the state of the connection, with the peer's consent where that is needed; as
    /// [`Self::request_state`] otherwise.
    ///
    /// # Errors
    ///
    /// As for [`Self::request_state`].
    pub(crate) fn request_connection(
        &self,
        change: Change,
        how: How,
    ) -> Result<Success, StateError> {
        self.until_settled(|| {
            if how.flags.hard || !connection_needs_peer(self.cstate(), change) {
                return self.change_connection(change, how);
            }
            let command = if self.connection.version().has_volumes() {
                Command::ConnStateChangeRequest
            } else {
                Command::StateChangeRequest
            };
            if change.wanted_conn() == Some(ConnState::Disconnecting) {
                self.connection.flags.set(flag::DISCONNECT_SENT);
            }
            let agreed = self.ask_peer(VolumeNr(0), command, change);
            if agreed.is_err() {
                self.connection.flags.clear(flag::DISCONNECT_SENT);
            }
            agreed?;
            self.change_connection(change, how)
        })
    }

    /// Tries until the answer is another than that a change is under way.
    fn until_settled(
        &self,
        attempt: impl Fn() -> Result<Success, StateError>,
    ) -> Result<Success, StateError> {
        let begin_ns = monotonic_ns();
        loop {
            let result = self.connection.change_alone(&attempt);
            // The agreement is let go only now.
            self.waiters.wake_all();
            let waited_ns = monotonic_ns().saturating_sub(begin_ns);
            if result != Err(StateError::InTransientState) || waited_ns > RETRY_LIMIT_NS {
                return result;
            }
            // What is in the way ends with a state change, which need not be of this resource's
            // making.
            self.waiters.wait_until_timeout(|| false, RETRY_MS);
        }
    }

    /// Whether the peer is to be asked; the rules are checked first, so that it is not asked in
    /// vain.
    fn volume_needs_peer(
        &self,
        device: &Arc<Device>,
        wanted: Change,
        how: How,
    ) -> Result<bool, StateError> {
        let old = device.state();
        let context = self.context_of(device);
        let judged = change(old, wanted, how.flags, &context);
        if let Some(error) = judged.as_ref().err().filter(|error| how.tells(**error)) {
            log!(Error, device, "State change failed: {}", error.text());
        }
        Ok(!how.flags.hard && needs_peer(old, judged?.new))
    }

    /// Waits until the peer knows of a resync that has ended here: it must not leave it by what it
    /// is asked for, and go on without the generation that the target has taken over.
    fn await_told_end(&self, device: &Device) -> Result<(), StateError> {
        let is_told = || !device.flags.any(device_flag::END_UNTOLD);
        if self.waiters.wait_until_timeout(is_told, UNTOLD_MS) {
            Ok(())
        } else {
            Err(StateError::InTransientState)
        }
    }

    /// Asks, and waits for the answer. The caller holds the agreement.
    ///
    /// Without an answer, or where the peer has a change of its own under way, the state is another
    /// one soon: [`StateError::InTransientState`].
    fn ask_peer(
        &self,
        volume: VolumeNr,
        command: Command,
        change: Change,
    ) -> Result<(), StateError> {
        let connection = &self.connection;
        let attempt = connection.attempts.load();
        let answers = flag::CHANGE_ACCEPTED | flag::CHANGE_REFUSED | flag::CHANGE_CONCURRENT;
        connection.flags.clear(answers);
        connection.flags.set(flag::CHANGE_PENDING);
        let request = StateRequest {
            mask: StateWord(change.mask),
            value: StateWord(change.val),
        };
        let sent = self.send_data(volume, command, &request.encode());
        let is_over = || connection.is_interrupted() || connection.attempts.load() != attempt;
        let ended = sent.is_ok()
            && self.waiters.wait_until_timeout(
                || connection.flags.any(answers) || is_over(),
                self.answer_ms(),
            );
        let before = connection.flags.clear(answers | flag::CHANGE_PENDING);
        if before & flag::CHANGE_ACCEPTED != 0 {
            return Ok(());
        }
        if before & flag::CHANGE_REFUSED != 0 {
            return Err(StateError::RefusedByPeer);
        }
        if sent.is_ok() && !ended {
            log!(
                Error,
                self,
                "the peer does not answer a state change request"
            );
            self.lose_connection(ConnState::Timeout);
        }
        Err(StateError::InTransientState)
    }

    /// How long the peer has for its answer: as long as for a write.
    fn answer_ms(&self) -> u32 {
        let config = self.connection.config();
        let limit_ms = config.map_or(0, |config| {
            let net = &config.net;
            net.timeout.saturating_mul(net.ko_count).saturating_mul(100)
        });
        limit_ms.max(ANSWER_MS_MIN)
    }
}
