// SPDX-License-Identifier: GPL-2.0

//! Which volume syncs after which: `resync-after` (spec §6.5).
//!
//! A volume names the one that goes first, that one may name another, and so on. A volume without a
//! disk is never in the way, and ends the chain.

use crate::state::{ConnState, State};
use crate::types::Minor;

/// No chain is followed further: it has come round to itself without meeting its beginning.
const LONGEST_CHAIN: u32 = 4096;

/// A volume with a disk, as others see it that come after it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its state.
    pub state: State,
    /// What goes before it.
    pub after: Option<Minor>,
}

impl Place {
    /// Whether those that come after it must wait.
    fn is_busy(&self) -> bool {
        let conn = self.state.conn;
        let is_syncing = conn >= ConnState::SyncSource && conn <= ConnState::PausedSyncT;
        is_syncing || self.state.is_resync_paused()
    }
}

/// A volume would have to wait for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle;

/// Whether a volume must wait; `place` looks up volumes with a disk.
pub fn must_wait(own: Minor, place: impl Fn(Minor) -> Option<Place>) -> bool {
    let mut next = place(own).and_then(|own| own.after);
    for _ in 0..LONGEST_CHAIN {
        let Some(minor) = next.filter(|&minor| minor != own) else {
            return false;
        };
        let Some(before) = place(minor) else {
            return false;
        };
        if before.is_busy() {
            return true;
        }
        next = before.after;
    }
    false
}

/// Whether a volume may come after another, which need not exist.
///
/// # Errors
///
/// [`Cycle`].
pub fn check(
    own: Minor,
    after: Option<Minor>,
    place: impl Fn(Minor) -> Option<Place>,
) -> Result<(), Cycle> {
    let mut next = after;
    for _ in 0..LONGEST_CHAIN {
        let Some(minor) = next else { return Ok(()) };
        if minor == own {
            return Err(Cycle);
        }
        next = place(minor).and_then(|place| place.after);
    }
    Err(Cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(after: Option<u32>) -> Option<Place> {
        Some(Place {
            state: State {
                conn: ConnState::Connected,
                ..State::NEW
            },
            after: after.map(Minor),
        })
    }

    fn syncing(after: Option<u32>) -> Option<Place> {
        let mut place = idle(after)?;
        place.state.conn = ConnState::SyncTarget;
        Some(place)
    }

    #[test]
    fn a_volume_waits_for_every_one_before_it() {
        let chain = |minor: Minor| match minor.0 {
            0 => syncing(None),
            1 => idle(Some(0)),
            2 => syncing(Some(1)),
            _ => None,
        };
        assert!(!must_wait(Minor(0), chain));
        assert!(must_wait(Minor(1), chain));
        assert!(must_wait(Minor(2), chain));
        let quiet = |minor: Minor| match minor.0 {
            0 => idle(None),
            1 => idle(Some(0)),
            2 => syncing(Some(1)),
            _ => None,
        };
        assert!(!must_wait(Minor(2), quiet));
    }

    #[test]
    fn a_pause_or_a_verify_before_it_holds_a_volume_back_and_a_missing_disk_does_not() {
        let mut first = idle(None).unwrap();
        first.state.user_isp = true;
        let paused = |minor: Minor| match minor.0 {
            0 => Some(first),
            1 => idle(Some(0)),
            _ => None,
        };
        assert!(must_wait(Minor(1), paused));
        let mut verifies = idle(None).unwrap();
        verifies.state.conn = ConnState::VerifyS;
        let verify = |minor: Minor| match minor.0 {
            0 => Some(verifies),
            1 => idle(Some(0)),
            _ => None,
        };
        assert!(must_wait(Minor(1), verify));
        let missing = |minor: Minor| (minor.0 == 1).then(|| idle(Some(0))).flatten();
        assert!(!must_wait(Minor(1), missing));
    }

    #[test]
    fn a_volume_cannot_come_after_itself() {
        let chain = |minor: Minor| match minor.0 {
            1 => idle(Some(0)),
            2 => idle(Some(1)),
            _ => None,
        };
        assert_eq!(check(Minor(0), Some(Minor(0)), chain), Err(Cycle));
        assert_eq!(check(Minor(0), Some(Minor(2)), chain), Err(Cycle));
        assert_eq!(check(Minor(3), Some(Minor(2)), chain), Ok(()));
        assert_eq!(check(Minor(3), Some(Minor(77)), chain), Ok(()));
        assert_eq!(check(Minor(3), None, chain), Ok(()));
    }

    #[test]
    fn a_ring_that_does_not_meet_the_volume_ends() {
        let ring = |minor: Minor| match minor.0 {
            1 => idle(Some(2)),
            2 => idle(Some(1)),
            3 => idle(Some(1)),
            _ => None,
        };
        assert!(!must_wait(Minor(3), ring));
        assert_eq!(check(Minor(4), Some(Minor(3)), ring), Err(Cycle));
    }
}
