// SPDX-License-Identifier: GPL-2.0

//! One change of one volume's state, decided from beginning to end (spec §4.3–§4.5).

use super::context::Context;
use super::error::{StateError, Success};
use super::sanitize::{sanitize, Warnings};
use super::transition::{hard_transition, soft_transition};
use super::validity::is_valid_soft;
use super::values::{ConnState, DiskState};
use super::word::{Change, State};

/// How strictly a change is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The change tells what has happened and cannot be refused for its consequences; only
    /// impossible steps are.
    pub hard: bool,
    /// A disk that is worse than Outdated already is left as it is instead of refusing to outdate
    /// it.
    pub ignore_outdate_failure: bool,
}

impl Flags {
    /// A change that may be refused.
    pub const SOFT: Self = Self {
        hard: false,
        ignore_outdate_failure: false,
    };
    /// A change that tells what has happened.
    pub const HARD: Self = Self {
        hard: true,
        ignore_outdate_failure: false,
    };
}

/// A change that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The state to store; the old one where there is nothing to do.
    pub new: State,
    /// What the log should say about adjustments.
    pub warnings: Warnings,
    /// [`Success::Done`] or [`Success::NothingToDo`].
    pub success: Success,
}

/// Decides a change: what the new state is, or why there is none.
///
/// A pure function of its arguments; the caller holds the lock under which it stores the result.
///
/// # Errors
///
/// The rule that refuses the change; [`StateError::Unknown`] where the request is not a state at
/// all.
pub fn change(
    old: State,
    change: Change,
    flags: Flags,
    context: &Context,
) -> Result<Changed, StateError> {
    let (mut new, warnings) = sanitize(old, change.apply(old)?, context);
    if flags.ignore_outdate_failure
        && new.disk == DiskState::Outdated
        && old.disk < DiskState::Outdated
    {
        new.disk = old.disk;
    }
    if new == old {
        return Ok(Changed {
            new,
            warnings,
            success: Success::NothingToDo,
        });
    }
    hard_transition(old, new)?;
    if !flags.hard {
        judge_soft(old, new, context)?;
    }
    Ok(Changed {
        new,
        warnings,
        success: Success::Done,
    })
}

/// A defect that the old state had already is no reason to refuse: the change did not bring it
/// about.
fn judge_soft(old: State, new: State, context: &Context) -> Result<(), StateError> {
    if let Err(defect) = is_valid_soft(new, context) {
        if is_valid_soft(old, context) != Err(defect) {
            return Err(defect);
        }
    }
    soft_transition(old, new, context)
}

/// Whether the peer has to consent before this change is applied (spec §4.5).
pub fn needs_peer(old: State, new: State) -> bool {
    use ConnState as C;
    if old.conn < C::Connected {
        return false;
    }
    let enters = |conn| new.conn == conn && old.conn != conn;
    let promotes = new.role.is_primary() && !old.role.is_primary();
    let detaches = new.disk == DiskState::Failed && old.disk != DiskState::Failed;
    let full_syncs = enters(C::StartingSyncS) || enters(C::StartingSyncT);
    (new.conn >= C::Connected && (promotes || detaches || full_syncs))
        || enters(C::Disconnecting)
        || (old.conn == C::Connected && matches!(new.conn, C::VerifyS | C::WFReportParams))
}

#[cfg(test)]
mod tests;
