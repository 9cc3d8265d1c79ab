// SPDX-License-Identifier: GPL-2.0

//! What to do when becoming Primary is refused (spec §4.6).

use super::error::{StateError, Success};
use super::values::{ConnState, DiskState, Role};
use super::word::{Change, State};

/// How often the change is requested at most.
pub const MAX_ATTEMPTS: u8 = 4;

/// A promotion under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The change to request.
    pub change: Change,
    /// How often it has been requested.
    pub made: u8,
    /// Whether the data was declared UpToDate by force.
    pub forced: bool,
}

impl Attempt {
    /// The first request. Peers are pinged before it, so that a dead one is noticed.
    pub const FIRST: Self = Self {
        change: Change::role(Role::Primary),
        made: 0,
        forced: false,
    };
}

/// What a promotion does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromoteStep {
    /// The node is Primary. `forced`: the data was declared UpToDate.
    Promoted {
        /// Whether a new current UUID is due for that reason alone.
        forced: bool,
    },
    /// The node was Primary already.
    NothingToDo,
    /// Request the change again.
    Retry(Attempt),
    /// Run the fence-peer helper, then go on with [`after_fencing`].
    FencePeer(Attempt),
    /// Wait for ping-timeout and one tenth of a second: the peer may be found dead; then request
    /// again.
    WaitForPing(Attempt),
    /// Request once more, saying why in the log, and take the answer as final.
    LastRequest(Attempt),
    /// Refused.
    Refused(StateError),
}

/// What follows an answer to the request in `attempt`, the node being in `state`.
pub fn next(
    answer: Result<Success, StateError>,
    attempt: Attempt,
    force: bool,
    state: State,
) -> PromoteStep {
    let error = match answer {
        Ok(Success::NothingToDo) => return PromoteStep::NothingToDo,
        Ok(_) => {
            return PromoteStep::Promoted {
                forced: attempt.forced,
            }
        }
        Err(error) => error,
    };
    let attempt = Attempt {
        made: attempt.made.saturating_add(1),
        ..attempt
    };
    let step = recover(error, attempt, force, state);
    let exhausted = attempt.made >= MAX_ATTEMPTS;
    match step {
        PromoteStep::Retry(_) | PromoteStep::FencePeer(_) | PromoteStep::WaitForPing(_)
            if exhausted =>
        {
            PromoteStep::Refused(error)
        }
        step => step,
    }
}

fn recover(error: StateError, attempt: Attempt, force: bool, state: State) -> PromoteStep {
    let names_pdsk = attempt.change.names_pdsk();
    match error {
        // The peer was declared outdated, and now it is there to say otherwise.
        StateError::RefusedByPeer if names_pdsk => {
            let change = attempt.change.without_pdsk();
            PromoteStep::Retry(Attempt { change, ..attempt })
        }
        StateError::NoUpToDateDisk
            if force
                && state.disk >= DiskState::Inconsistent
                && state.disk < DiskState::UpToDate =>
        {
            let change = attempt.change.with_disk(DiskState::UpToDate);
            PromoteStep::Retry(Attempt {
                change,
                forced: true,
                ..attempt
            })
        }
        StateError::NoUpToDateDisk if state.disk == DiskState::Consistent && !names_pdsk => {
            PromoteStep::FencePeer(attempt)
        }
        StateError::PrimaryNop if !names_pdsk => PromoteStep::FencePeer(attempt),
        // At most one more request: the other Primary is there or it is not.
        StateError::TwoPrimaries => PromoteStep::WaitForPing(Attempt {
            made: attempt.made.max(MAX_ATTEMPTS.saturating_sub(1)),
            ..attempt
        }),
        _ => PromoteStep::LastRequest(attempt),
    }
}

/// The attempt after the fence-peer helper ran for `error`, and whether "Forced into split brain
/// situation!" is to be logged.
pub fn after_fencing(
    error: StateError,
    attempt: Attempt,
    fenced: bool,
    force: bool,
) -> (Attempt, bool) {
    match (error, fenced) {
        (StateError::NoUpToDateDisk, true) => {
            let change = attempt.change.with_disk(DiskState::UpToDate);
            (Attempt { change, ..attempt }, false)
        }
        (StateError::PrimaryNop, false) if force => {
            let change = attempt.change.with_pdsk(DiskState::Outdated);
            (Attempt { change, ..attempt }, true)
        }
        _ => (attempt, false),
    }
}

/// Whether a node that was just promoted starts a new data generation (spec §2.7).
pub fn starts_new_generation(state: State, bitmap_uuid_is_zero: bool, forced: bool) -> bool {
    let peer_lacks_data = state.conn < ConnState::Connected || state.pdsk <= DiskState::Failed;
    state.disk >= DiskState::Inconsistent && ((peer_lacks_data && bitmap_uuid_is_zero) || forced)
}

/// Whether a Primary that is being demoted starts a new data generation: the peer has refused a
/// write (`peer_refused`), and it is not synced since.
///
/// The refusal may come before the state that tells why. A Primary begins a generation when it
/// hears of that; a Secondary does not, and were the peer's disk attached again both nodes would
/// call themselves equal. The C driver has it so.
pub fn demotes_with_new_generation(
    disk: DiskState,
    bitmap_uuid_is_zero: bool,
    peer_refused: bool,
    set_bits: u64,
) -> bool {
    peer_refused && set_bits != 0 && bitmap_uuid_is_zero && disk == DiskState::UpToDate
}

#[cfg(test)]
mod tests;
