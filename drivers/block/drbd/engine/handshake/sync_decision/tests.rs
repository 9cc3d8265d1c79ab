// SPDX-License-Identifier: GPL-2.0

//! What follows from each verdict, step by step.

use std::string::ToString;
use std::vec::Vec;

use super::super::uuid_compare::Correction;
use super::*;
use ConnState as C;
use DiskState as D;

const PAIR: Facts = Facts {
    role: Role::Secondary,
    peer_role: Role::Secondary,
    disk: D::UpToDate,
    negotiated_disk: D::Diskless,
    peer_disk: D::UpToDate,
    told_alone: false,
    policies: Policies {
        none: Policy::Disconnect,
        one: Policy::Disconnect,
        two: Policy::Disconnect,
    },
    always_asbp: false,
    rr_conflict: Policy::Disconnect,
    discard_my_data: false,
    peer_discards_data: false,
    began_primary: false,
    peer_began_primary: false,
    sent_bits: 3,
    peer_bits: 3,
    set_bits: 0,
    resolves_conflicts: false,
    dry_run: false,
    demotion: None,
};

const fn proceed(conn: C, set_all_bits: bool) -> Outcome {
    Outcome::Proceed { conn, set_all_bits }
}

fn decided(code: i32, facts: &Facts) -> (Outcome, Vec<std::string::String>) {
    let comparison = Comparison {
        verdict: Verdict::from_code(code),
        rule: 0,
        correction: Correction::None,
    };
    let decision = sync_decision(&comparison, facts);
    let told = decision.steps.iter().map(|step| match step {
        Step::Log(line) => line.to_string(),
        Step::Helper(helper) => std::format!("helper {}", helper.name()),
    });
    (decision.outcome, told.collect())
}

fn expect(code: i32, facts: &Facts, outcome: Outcome, told: &[&str]) {
    let (decided, steps) = decided(code, facts);
    assert_eq!(steps, told);
    assert_eq!(decided, outcome);
}

#[test]
fn plain_verdicts_choose_side_and_amount() {
    expect(2, &PAIR, proceed(C::WFBitMapS, true), &[]);
    expect(1, &PAIR, proceed(C::WFBitMapS, false), &[]);
    expect(0, &PAIR, proceed(C::Connected, false), &[]);
    expect(-1, &PAIR, proceed(C::WFBitMapT, false), &[]);
    expect(-2, &PAIR, proceed(C::WFBitMapT, true), &[]);
}

#[test]
fn bits_without_a_resync_are_told() {
    let facts = Facts {
        set_bits: 4086,
        ..PAIR
    };
    expect(
        0,
        &facts,
        proceed(C::Connected, false),
        &["No resync, but 4086 bits in bitmap!"],
    );
}

#[test]
fn hopeless_verdicts_are_refused() {
    expect(
        -1000,
        &PAIR,
        Outcome::Refuse,
        &["Unrelated data, aborting!"],
    );
    let text = "To resolve this both sides have to support at least protocol 91";
    expect(-1091, &PAIR, Outcome::Refuse, &[text]);
    let text =
        "To resolve this both sides have to support at least protocol 101 and feature flags 0x4";
    expect(-(0x10000 | 101 | 0x400), &PAIR, Outcome::Refuse, &[text]);
}

#[test]
fn an_inconsistent_disk_is_the_target() {
    let bad = Facts {
        disk: D::Inconsistent,
        ..PAIR
    };
    let target = "Becoming sync target due to disk states.";
    expect(1, &bad, proceed(C::WFBitMapT, false), &[target]);
    expect(2, &bad, proceed(C::WFBitMapT, true), &[target]);
    expect(-100, &bad, proceed(C::WFBitMapT, true), &[target]);
    expect(100, &bad, proceed(C::WFBitMapT, false), &[target]);
    let good = Facts {
        peer_disk: D::Inconsistent,
        ..PAIR
    };
    let source = "Becoming sync source due to disk states.";
    expect(-1, &good, proceed(C::WFBitMapS, false), &[source]);
    expect(-2, &good, proceed(C::WFBitMapS, true), &[source]);
    let both = Facts {
        disk: D::Inconsistent,
        peer_disk: D::Inconsistent,
        ..PAIR
    };
    expect(-1, &both, proceed(C::WFBitMapT, false), &[]);
}

#[test]
fn a_negotiating_disk_counts_as_what_it_would_be() {
    let negotiating = Facts {
        disk: D::Negotiating,
        negotiated_disk: D::Inconsistent,
        ..PAIR
    };
    expect(
        1,
        &negotiating,
        proceed(C::WFBitMapT, false),
        &["Becoming sync target due to disk states."],
    );
}

#[test]
fn an_unsolved_split_brain_drops_the_connection() {
    for code in [100, -100] {
        expect(
            code,
            &PAIR,
            Outcome::Refuse,
            &[
                "helper initial-split-brain",
                "Split-Brain detected but unresolved, dropping connection!",
                "helper split-brain",
            ],
        );
    }
}

#[test]
fn the_admins_choice_solves_it() {
    let peer_gives_up = Facts {
        peer_discards_data: true,
        ..PAIR
    };
    let told = [
        "helper initial-split-brain",
        "Split-Brain detected, manually solved. Sync from this node",
    ];
    expect(100, &peer_gives_up, proceed(C::WFBitMapS, false), &told);
    let own_gives_up = Facts {
        discard_my_data: true,
        ..PAIR
    };
    let told = [
        "helper initial-split-brain",
        "Split-Brain detected, manually solved. Sync from peer node",
    ];
    expect(-100, &own_gives_up, proceed(C::WFBitMapT, false), &told);
    let both = Facts {
        discard_my_data: true,
        peer_discards_data: true,
        ..PAIR
    };
    assert_eq!(decided(100, &both).0, Outcome::Refuse);
}

#[test]
fn a_policy_solves_it_and_without_an_ancestor_only_if_always_asked() {
    let policies = Policies {
        none: Policy::DiscardLocal,
        ..Policies::default()
    };
    let facts = Facts { policies, ..PAIR };
    let solved = "Split-Brain detected, 0 primaries, automatically solved. Sync from peer node";
    let told = ["helper initial-split-brain", solved];
    expect(100, &facts, proceed(C::WFBitMapT, false), &told);
    assert_eq!(decided(-100, &facts).0, Outcome::Refuse);
    let always = Facts {
        always_asbp: true,
        ..facts
    };
    let told = [
        "helper initial-split-brain",
        solved,
        "Doing a full sync, since UUIDs where ambiguous.",
    ];
    expect(-100, &always, proceed(C::WFBitMapT, true), &told);
}

#[test]
fn a_primary_that_loses_is_asked_to_step_down() {
    let policies = Policies {
        none: Policy::DiscardLocal,
        one: Policy::CallPriLost,
        two: Policy::Disconnect,
    };
    let facts = Facts {
        role: Role::Primary,
        policies,
        ..PAIR
    };
    expect(
        100,
        &facts,
        Outcome::TryDemotion,
        &["helper initial-split-brain"],
    );
    let demoted = Facts {
        demotion: Some(true),
        ..facts
    };
    let solved = "Split-Brain detected, 1 primaries, automatically solved. Sync from peer node";
    expect(100, &demoted, proceed(C::WFBitMapT, false), &[solved]);
    let still = Facts {
        demotion: Some(false),
        ..facts
    };
    let told = [
        "helper pri-lost-after-sb",
        "Split-Brain detected but unresolved, dropping connection!",
        "helper split-brain",
    ];
    expect(100, &still, Outcome::Refuse, &told);
}

#[test]
fn an_inconsistent_disk_is_no_source() {
    let both = Facts {
        disk: D::Inconsistent,
        peer_disk: D::Inconsistent,
        ..PAIR
    };
    expect(
        1,
        &both,
        Outcome::Refuse,
        &["I shall become SyncSource, but I am inconsistent!"],
    );
}

#[test]
fn a_primary_becomes_target_only_violently() {
    let primary = Facts {
        role: Role::Primary,
        ..PAIR
    };
    let refusal = "I shall become SyncTarget, but I am primary!";
    expect(-1, &primary, Outcome::Refuse, &[refusal]);
    let call = Facts {
        rr_conflict: Policy::CallPriLost,
        ..primary
    };
    expect(-1, &call, Outcome::Refuse, &["helper pri-lost", refusal]);
    let violently = Facts {
        rr_conflict: Policy::Violently,
        ..primary
    };
    let told = ["Becoming SyncTarget, violating the stable-data assumption"];
    expect(-1, &violently, proceed(C::WFBitMapT, false), &told);
    let inconsistent = Facts {
        disk: D::Inconsistent,
        peer_disk: D::UpToDate,
        ..primary
    };
    assert_eq!(decided(-1, &inconsistent).0, proceed(C::WFBitMapT, false));
    let told_alone = Facts {
        told_alone: true,
        ..inconsistent
    };
    let why = "the peer need not have all that applications were told is written: \
               demote this node to give it the peer's data";
    let due = "Becoming sync target due to disk states.";
    expect(-1, &told_alone, Outcome::Refuse, &[due, refusal, why]);
}

#[test]
fn a_dry_run_only_tells() {
    let dry = Facts {
        dry_run: true,
        ..PAIR
    };
    let table = [
        (
            0,
            "dry-run connect: No resync, would become Connected immediately.",
        ),
        (
            1,
            "dry-run connect: Would become SyncSource, doing a bit-map based resync.",
        ),
        (
            -2,
            "dry-run connect: Would become SyncTarget, doing a full resync.",
        ),
    ];
    for (code, text) in table {
        expect(code, &dry, Outcome::Refuse, &[text]);
    }
}

#[test]
fn a_decision_is_small_enough_for_the_kernels_stack() {
    assert!(size_of::<SyncDecision>() <= 256);
}
