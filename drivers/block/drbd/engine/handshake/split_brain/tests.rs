// SPDX-License-Identifier: GPL-2.0

//! Every policy for every number of Primaries.

use proptest::prelude::*;

use super::*;
use Outcome::{DemoteFirst, Solved, Unsolved};
use Winner::{Own, Peer};

const NODES: Nodes = Nodes {
    is_primary: false,
    peer_is_primary: false,
    began_primary: false,
    peer_began_primary: false,
    changes: 5,
    peer_changes: 3,
    resolves_conflicts: false,
};

fn none(policy: Policy, nodes: &Nodes) -> Outcome {
    decide(
        &Policies {
            none: policy,
            ..Policies::default()
        },
        nodes,
    )
    .outcome
}

fn one(policy: Policy, without: Policy, is_primary: bool) -> Outcome {
    let nodes = Nodes {
        is_primary,
        peer_is_primary: !is_primary,
        ..NODES
    };
    decide(
        &Policies {
            none: without,
            one: policy,
            ..Policies::default()
        },
        &nodes,
    )
    .outcome
}

fn two(policy: Policy, without: Policy) -> Outcome {
    let nodes = Nodes {
        is_primary: true,
        peer_is_primary: true,
        ..NODES
    };
    decide(
        &Policies {
            none: without,
            two: policy,
            ..Policies::default()
        },
        &nodes,
    )
    .outcome
}

#[test]
fn local_and_remote_name_the_loser() {
    assert_eq!(none(Policy::Disconnect, &NODES), Unsolved);
    assert_eq!(none(Policy::DiscardLocal, &NODES), Solved(Peer));
    assert_eq!(none(Policy::DiscardRemote, &NODES), Solved(Own));
}

#[test]
fn the_younger_or_the_older_primary_loses() {
    let peer_began = Nodes {
        peer_began_primary: true,
        ..NODES
    };
    let own_began = Nodes {
        began_primary: true,
        ..NODES
    };
    assert_eq!(
        none(Policy::DiscardYoungerPrimary, &peer_began),
        Solved(Peer)
    );
    assert_eq!(none(Policy::DiscardYoungerPrimary, &own_began), Solved(Own));
    assert_eq!(none(Policy::DiscardOlderPrimary, &peer_began), Solved(Own));
    assert_eq!(none(Policy::DiscardOlderPrimary, &own_began), Solved(Peer));
}

#[test]
fn where_age_does_not_tell_the_changes_do() {
    let policies = Policies {
        none: Policy::DiscardYoungerPrimary,
        ..Policies::default()
    };
    for began in [false, true] {
        let nodes = Nodes {
            began_primary: began,
            peer_began_primary: began,
            ..NODES
        };
        let decision = decide(&policies, &nodes);
        assert_eq!(decision.outcome, Solved(Own));
        assert_eq!(decision.remark, Some(Remark::NoYoungerOrOlder));
    }
}

#[test]
fn a_node_without_changes_gives_way() {
    let policy = Policy::DiscardZeroChanges;
    assert_eq!(none(policy, &NODES), Unsolved);
    assert_eq!(
        none(
            policy,
            &Nodes {
                changes: 0,
                ..NODES
            }
        ),
        Solved(Peer)
    );
    assert_eq!(
        none(
            policy,
            &Nodes {
                peer_changes: 0,
                ..NODES
            }
        ),
        Solved(Own)
    );
    let neither = Nodes {
        changes: 0,
        peer_changes: 0,
        ..NODES
    };
    assert_eq!(none(policy, &neither), Solved(Own));
    assert_eq!(
        none(
            policy,
            &Nodes {
                resolves_conflicts: true,
                ..neither
            }
        ),
        Solved(Peer)
    );
}

#[test]
fn the_node_with_fewer_changes_gives_way() {
    let policy = Policy::DiscardLeastChanges;
    assert_eq!(none(policy, &NODES), Solved(Own));
    assert_eq!(
        none(
            policy,
            &Nodes {
                changes: 1,
                ..NODES
            }
        ),
        Solved(Peer)
    );
    let equal = Nodes {
        changes: 3,
        ..NODES
    };
    assert_eq!(none(policy, &equal), Solved(Own));
    assert_eq!(
        none(
            policy,
            &Nodes {
                resolves_conflicts: true,
                ..equal
            }
        ),
        Solved(Peer)
    );
}

#[test]
fn consensus_needs_the_secondary_to_lose_either_way() {
    let policy = Policy::Consensus;
    assert_eq!(one(policy, Policy::DiscardLocal, false), Solved(Peer));
    assert_eq!(one(policy, Policy::DiscardLocal, true), Unsolved);
    assert_eq!(one(policy, Policy::DiscardRemote, true), Solved(Own));
    assert_eq!(one(policy, Policy::DiscardRemote, false), Unsolved);
}

#[test]
fn the_secondary_loses_or_whoever_the_policy_without_primary_names() {
    assert_eq!(
        one(Policy::DiscardSecondary, Policy::Disconnect, true),
        Solved(Own)
    );
    assert_eq!(
        one(Policy::DiscardSecondary, Policy::Disconnect, false),
        Solved(Peer)
    );
    assert_eq!(
        one(Policy::Violently, Policy::DiscardLocal, true),
        Solved(Peer)
    );
    assert_eq!(two(Policy::Violently, Policy::DiscardLocal), Solved(Peer));
    assert_eq!(
        one(Policy::Disconnect, Policy::DiscardLocal, true),
        Unsolved
    );
    assert_eq!(two(Policy::Disconnect, Policy::DiscardLocal), Unsolved);
}

#[test]
fn a_primary_that_loses_is_demoted_first() {
    assert_eq!(
        one(Policy::CallPriLost, Policy::DiscardLocal, true),
        DemoteFirst
    );
    assert_eq!(
        one(Policy::CallPriLost, Policy::DiscardLocal, false),
        Solved(Peer)
    );
    assert_eq!(
        one(Policy::CallPriLost, Policy::DiscardRemote, true),
        Solved(Own)
    );
    assert_eq!(two(Policy::CallPriLost, Policy::DiscardLocal), DemoteFirst);
    assert_eq!(two(Policy::CallPriLost, Policy::DiscardRemote), Solved(Own));
}

#[test]
fn policies_in_the_wrong_place_are_a_configuration_error() {
    let all = (0..=10).filter_map(Policy::from_number);
    for policy in all {
        let number = policy as u8;
        let places = [
            (number <= 6, 0),
            (matches!(number, 0 | 7..=10), 1),
            (matches!(number, 0 | 9 | 10), 2),
        ];
        for (valid, primaries) in places {
            let policies = Policies {
                none: policy,
                one: policy,
                two: policy,
            };
            let policies = match primaries {
                0 => policies,
                _ => Policies {
                    none: Policy::DiscardLocal,
                    ..policies
                },
            };
            let nodes = Nodes {
                is_primary: primaries > 0,
                peer_is_primary: primaries > 1,
                ..NODES
            };
            let remark = decide(&policies, &nodes).remark;
            assert_eq!(
                remark == Some(Remark::ConfigurationError),
                !valid,
                "{policy:?} {primaries}"
            );
        }
    }
    assert_eq!(Policy::from_number(11), None);
}

proptest! {
    #[test]
    fn both_nodes_name_the_same_winner(
        number in 1u32..=6,
        primaries in 0u8..3,
        began: (bool, bool),
        changes in (0u64..3, 0u64..3),
        resolves_conflicts: bool,
    ) {
        let policy = Policy::from_number(number).unwrap_or_default();
        let mirrored_policy = match policy {
            Policy::DiscardLocal => Policy::DiscardRemote,
            Policy::DiscardRemote => Policy::DiscardLocal,
            other => other,
        };
        let nodes = Nodes {
            is_primary: primaries > 0,
            peer_is_primary: primaries > 1,
            began_primary: began.0,
            peer_began_primary: began.1,
            changes: changes.0,
            peer_changes: changes.1,
            resolves_conflicts,
        };
        let mirrored = Nodes {
            is_primary: nodes.peer_is_primary,
            peer_is_primary: nodes.is_primary,
            began_primary: began.1,
            peer_began_primary: began.0,
            changes: changes.1,
            peer_changes: changes.0,
            resolves_conflicts: !resolves_conflicts,
        };
        let with = |none| Policies { none, one: Policy::Violently, two: Policy::Violently };
        let here = decide(&with(policy), &nodes).outcome;
        let there = decide(&with(mirrored_policy), &mirrored).outcome;
        let opposite = match here {
            Solved(Own) => Solved(Peer),
            Solved(Peer) => Solved(Own),
            other => other,
        };
        prop_assert_eq!(there, opposite);
    }
}
