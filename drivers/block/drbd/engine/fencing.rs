// SPDX-License-Identifier: GPL-2.0

//! Fencing: a Primary that lost its peer has the peer's data outdated before it goes on alone (spec
//! §5.8).

use crate::state::{Aggregate, Change, ConnState, DiskState};

/// Whether a Primary does not know what has become of its peer.
pub fn is_due(conn: ConnState, volumes: &Aggregate) -> bool {
    conn < ConnState::WFReportParams
        && volumes.highest_role.is_primary()
        && volumes.highest_pdsk >= DiskState::DUnknown
}

/// What the helper `fence-peer` found out, by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer's data are Inconsistent or worse.
    Inconsistent,
    /// The peer's data were outdated.
    Outdated,
    /// The peer cannot be reached and is taken for dead.
    Unreachable,
    /// The peer is Primary: our data are the outdated ones.
    Active,
    /// The peer was switched off.
    Stonithed,
}

impl Verdict {
    /// `None`: the helper is broken, and nothing is known of the peer.
    pub const fn from_exit_code(code: i32) -> Option<Self> {
        Some(match code {
            3 => Self::Inconsistent,
            4 => Self::Outdated,
            5 => Self::Unreachable,
            6 => Self::Active,
            7 => Self::Stonithed,
            _ => return None,
        })
    }

    /// What follows from it, and how the log puts it.
    pub fn act(self, volumes: &Aggregate) -> (Change, &'static str) {
        let outdated = Change::pdsk(DiskState::Outdated);
        match self {
            Self::Inconsistent => {
                let change = Change::pdsk(DiskState::Inconsistent);
                (change, "peer is inconsistent or worse")
            }
            Self::Outdated => (outdated, "peer was fenced"),
            Self::Unreachable if volumes.highest_disk == DiskState::UpToDate => {
                (outdated, "peer is unreachable, assumed to be dead")
            }
            Self::Unreachable => {
                let why = "peer unreachable, doing nothing since disk != UpToDate";
                (Change::NONE, why)
            }
            Self::Active => (Change::disk(DiskState::Outdated), "peer is active"),
            Self::Stonithed => (outdated, "peer was stonithed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Role;

    fn alone(disk: DiskState, pdsk: DiskState) -> Aggregate {
        Aggregate {
            highest_role: Role::Primary,
            highest_disk: disk,
            highest_pdsk: pdsk,
            ..Aggregate::EMPTY
        }
    }

    #[test]
    fn only_a_primary_that_does_not_know_its_peer_fences() {
        let lost = alone(DiskState::UpToDate, DiskState::DUnknown);
        assert!(is_due(ConnState::NetworkFailure, &lost));
        assert!(!is_due(ConnState::WFReportParams, &lost));
        let known = alone(DiskState::UpToDate, DiskState::Outdated);
        assert!(!is_due(ConnState::Unconnected, &known));
        let secondary = Aggregate {
            highest_role: Role::Secondary,
            ..lost
        };
        assert!(!is_due(ConnState::Unconnected, &secondary));
    }

    #[test]
    fn a_code_that_no_helper_gives_outdates_nobody() {
        for code in [-1, 0, 1, 2, 8, 127, 255] {
            assert_eq!(Verdict::from_exit_code(code), None);
        }
    }

    #[test]
    fn a_dead_peer_is_outdated_only_by_who_has_the_data() {
        let outdated = Change::pdsk(DiskState::Outdated);
        let own = Change::disk(DiskState::Outdated);
        let inconsistent = Change::pdsk(DiskState::Inconsistent);
        for (code, disk, change) in [
            (3, DiskState::UpToDate, inconsistent),
            (4, DiskState::UpToDate, outdated),
            (5, DiskState::UpToDate, outdated),
            (5, DiskState::Consistent, Change::NONE),
            (6, DiskState::UpToDate, own),
            (7, DiskState::UpToDate, outdated),
        ] {
            let verdict = Verdict::from_exit_code(code).unwrap();
            let (acted, _) = verdict.act(&alone(disk, DiskState::DUnknown));
            assert_eq!(acted, change, "exit code {code}");
        }
    }
}
