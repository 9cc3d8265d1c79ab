// SPDX-License-Identifier: GPL-2.0

//! The after-split-brain policies: whose changes are thrown away (spec §1.15).

/// What to do after a split brain, as configured per number of Primaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// Drop the connection.
    #[default]
    Disconnect = 0,
    /// The node that became Primary later loses its changes.
    DiscardYoungerPrimary = 1,
    /// The node that was Primary first loses its changes.
    DiscardOlderPrimary = 2,
    /// A node without changes takes over the other's.
    DiscardZeroChanges = 3,
    /// The node with fewer changes loses them.
    DiscardLeastChanges = 4,
    /// This node loses its changes.
    DiscardLocal = 5,
    /// The peer loses its changes.
    DiscardRemote = 6,
    /// The Secondary loses its changes if the policy for no Primary says so too.
    Consensus = 7,
    /// The Secondary loses its changes.
    DiscardSecondary = 8,
    /// A Primary that is to lose its changes is demoted first, else a helper is called.
    CallPriLost = 9,
    /// The policy for no Primary decides, even against a Primary.
    Violently = 10,
}

impl Policy {
    /// The policy with this number on the wire and in the configuration.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Disconnect,
            1 => Self::DiscardYoungerPrimary,
            2 => Self::DiscardOlderPrimary,
            3 => Self::DiscardZeroChanges,
            4 => Self::DiscardLeastChanges,
            5 => Self::DiscardLocal,
            6 => Self::DiscardRemote,
            7 => Self::Consensus,
            8 => Self::DiscardSecondary,
            9 => Self::CallPriLost,
            10 => Self::Violently,
            _ => return None,
        })
    }
}

/// The policies per number of Primaries at the time of the connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// `after-sb-0pri`.
    pub none: Policy,
    /// `after-sb-1pri`.
    pub one: Policy,
    /// `after-sb-2pri`.
    pub two: Policy,
}

/// What the policies read about the two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// This node is Primary.
    pub is_primary: bool,
    /// The peer is Primary.
    pub peer_is_primary: bool,
    /// This node was Primary when its generation began: bit 0 of its bitmap UUID.
    pub began_primary: bool,
    /// The peer was: bit 0 of its bitmap UUID.
    pub peer_began_primary: bool,
    /// This node's changed bits, as last sent to the peer.
    pub changes: u64,
    /// The peer's changed bits, as last received.
    pub peer_changes: u64,
    /// This node decides ties (flag RESOLVE_CONFLICTS).
    pub resolves_conflicts: bool,
}

impl Nodes {
    /// How many of the two nodes are Primary.
    pub fn primaries(&self) -> u8 {
        u8::from(self.is_primary).saturating_add(u8::from(self.peer_is_primary))
    }

    fn tie(&self) -> Winner {
        if self.resolves_conflicts {
            Winner::Peer
        } else {
            Winner::Own
        }
    }
}

/// Whose changes survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// This node's: it becomes the source.
    Own,
    /// The peer's: this node becomes the target.
    Peer,
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One side wins.
    Solved(Winner),
    /// The peer wins once this node is Secondary: demote it, then ask again; where that fails call
    /// the pri-lost-after-sb helper.
    DemoteFirst,
    /// No decision: the connection is dropped.
    Unsolved,
}

/// What the log should say about a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The policy cannot be used for this number of Primaries: "Configuration error."
    ConfigurationError,
    /// Neither or both were Primary: "Discard younger/older primary did not find a decision…"
    NoYoungerOrOlder,
}

/// A decision and what to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the policy says.
    pub outcome: Outcome,
    /// What the log should say, if anything.
    pub remark: Option<Remark>,
}

impl Decision {
    const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            remark: None,
        }
    }

    const fn winner(winner: Winner) -> Self {
        Self::of(Outcome::Solved(winner))
    }

    const MISCONFIGURED: Self = Self {
        outcome: Outcome::Unsolved,
        remark: Some(Remark::ConfigurationError),
    };
}

/// Decides by the policy for the present number of Primaries.
pub fn decide(policies: &Policies, nodes: &Nodes) -> Decision {
    match nodes.primaries() {
        0 => without_primary(policies.none, nodes),
        1 => with_one_primary(policies, nodes),
        _ => with_two_primaries(policies, nodes),
    }
}

fn without_primary(policy: Policy, nodes: &Nodes) -> Decision {
    match policy {
        Policy::Disconnect => Decision::of(Outcome::Unsolved),
        Policy::DiscardLocal => Decision::winner(Winner::Peer),
        Policy::DiscardRemote => Decision::winner(Winner::Own),
        Policy::DiscardYoungerPrimary => by_age(nodes, Winner::Peer, Winner::Own),
        Policy::DiscardOlderPrimary => by_age(nodes, Winner::Own, Winner::Peer),
        Policy::DiscardZeroChanges => match by_zero_changes(nodes) {
            Some(winner) => Decision::winner(winner),
            None => Decision::of(Outcome::Unsolved),
        },
        Policy::DiscardLeastChanges => Decision::winner(by_least_changes(nodes)),
        Policy::Consensus | Policy::DiscardSecondary | Policy::CallPriLost | Policy::Violently => {
            Decision::MISCONFIGURED
        }
    }
}

/// `peer_began`: who wins if only the peer began as Primary; `own_began`: if only this node did.
fn by_age(nodes: &Nodes, peer_began: Winner, own_began: Winner) -> Decision {
    match (nodes.began_primary, nodes.peer_began_primary) {
        (false, true) => Decision::winner(peer_began),
        (true, false) => Decision::winner(own_began),
        _ => {
            let winner = by_zero_changes(nodes).unwrap_or_else(|| by_least_changes(nodes));
            Decision {
                outcome: Outcome::Solved(winner),
                remark: Some(Remark::NoYoungerOrOlder),
            }
        }
    }
}

fn by_zero_changes(nodes: &Nodes) -> Option<Winner> {
    match (nodes.changes, nodes.peer_changes) {
        (0, 0) => Some(nodes.tie()),
        (_, 0) => Some(Winner::Own),
        (0, _) => Some(Winner::Peer),
        _ => None,
    }
}

fn by_least_changes(nodes: &Nodes) -> Winner {
    match nodes.changes.cmp(&nodes.peer_changes) {
        core::cmp::Ordering::Less => Winner::Peer,
        core::cmp::Ordering::Greater => Winner::Own,
        core::cmp::Ordering::Equal => nodes.tie(),
    }
}

fn with_one_primary(policies: &Policies, nodes: &Nodes) -> Decision {
    match policies.one {
        Policy::Disconnect => Decision::of(Outcome::Unsolved),
        Policy::Consensus => {
            let decision = without_primary(policies.none, nodes);
            let secondary_loses = match decision.outcome {
                Outcome::Solved(Winner::Peer) => !nodes.is_primary,
                Outcome::Solved(Winner::Own) => nodes.is_primary,
                Outcome::DemoteFirst | Outcome::Unsolved => false,
            };
            if secondary_loses {
                decision
            } else {
                Decision {
                    outcome: Outcome::Unsolved,
                    ..decision
                }
            }
        }
        Policy::Violently => without_primary(policies.none, nodes),
        Policy::DiscardSecondary if nodes.is_primary => Decision::winner(Winner::Own),
        Policy::DiscardSecondary => Decision::winner(Winner::Peer),
        Policy::CallPriLost => demoting_loser(policies, nodes),
        Policy::DiscardYoungerPrimary
        | Policy::DiscardOlderPrimary
        | Policy::DiscardZeroChanges
        | Policy::DiscardLeastChanges
        | Policy::DiscardLocal
        | Policy::DiscardRemote => Decision::MISCONFIGURED,
    }
}

fn with_two_primaries(policies: &Policies, nodes: &Nodes) -> Decision {
    match policies.two {
        Policy::Disconnect => Decision::of(Outcome::Unsolved),
        Policy::Violently => without_primary(policies.none, nodes),
        Policy::CallPriLost => demoting_loser(policies, nodes),
        Policy::DiscardYoungerPrimary
        | Policy::DiscardOlderPrimary
        | Policy::DiscardZeroChanges
        | Policy::DiscardLeastChanges
        | Policy::DiscardLocal
        | Policy::DiscardRemote
        | Policy::Consensus
        | Policy::DiscardSecondary => Decision::MISCONFIGURED,
    }
}

fn demoting_loser(policies: &Policies, nodes: &Nodes) -> Decision {
    let decision = without_primary(policies.none, nodes);
    if decision.outcome == Outcome::Solved(Winner::Peer) && nodes.is_primary {
        Decision {
            outcome: Outcome::DemoteFirst,
            ..decision
        }
    } else {
        decision
    }
}

#[cfg(test)]
mod tests;
