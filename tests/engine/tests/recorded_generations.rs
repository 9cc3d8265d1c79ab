// SPDX-License-Identifier: GPL-2.0

//! What the C driver 8.4.11 decided about generated pairs of disks, against what the engine says.
//!
//! `data/generations.txt` was recorded by `scripts/record-generations` from two nodes with the C
//! driver: what each compared as its log told it, the verdict, and what followed.

use drbd_engine::handshake::split_brain::{Policies, Policy, Remark};
use drbd_engine::handshake::sync_decision::{
    sync_decision, Facts as DecisionFacts, LogLine, Outcome, Step,
};
use drbd_engine::handshake::uuid_compare::{uuid_compare, Comparison, Facts, UuidSet};
use drbd_engine::state::{ConnState, DiskState, Role};

const RECORD: &str = include_str!("../data/generations.txt");
const AGREED_VERSION: u32 = 101;
/// `UuidFlags::CRASHED_PRIMARY`, as the log tells the peer's flags.
const CRASHED_PRIMARY: u64 = 2;
/// Flags of the super block that make a node a crashed Primary when it attaches.
const DISK_CRASHED: u64 = 2 | 64;

/// One node's half of a line.
struct Half<'a> {
    input: &'a str,
    net: &'a str,
    compared: &'a str,
    steps: &'a str,
}

struct Case<'a> {
    number: &'a str,
    /// The disks were attached after the connection was there, the first node's first.
    late: bool,
    halves: [Half<'a>; 2],
}

fn cases() -> impl Iterator<Item = Case<'static>> {
    let lines = RECORD.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        let half = |node: usize| Half {
            input: columns[1 + node],
            net: columns[3 + node],
            compared: columns[6 + 4 * node],
            steps: columns[7 + 4 * node],
        };
        Case {
            number: columns[0],
            late: columns[5] == "late",
            halves: [half(0), half(1)],
        }
    })
}

/// Something to compare for the name of a UUID.
fn uuid(name: &str) -> u64 {
    let (base, bit) = match name.strip_suffix('+') {
        Some(base) => (base, 1),
        None => (name, 0),
    };
    let letter = base.bytes().next().unwrap();
    if letter.is_ascii_digit() {
        return base.parse().unwrap();
    }
    let resyncs: i64 = match &base[1..] {
        "" => 0,
        number => number.parse().unwrap(),
    };
    let plain = u64::from(letter - b'A' + 1) << 56 | 0x40_5a5a_5a5a_5a50;
    plain.wrapping_add_signed(resyncs << 48) | bit
}

fn set(text: &str) -> UuidSet {
    let uuids: Vec<_> = text.split(':').map(uuid).collect();
    UuidSet {
        current: uuids[0],
        bitmap: uuids[1],
        history: [uuids[2], uuids[3]],
    }
}

fn input(half: &Half<'_>, column: usize) -> u64 {
    half.input.split(',').nth(column).unwrap().parse().unwrap()
}

/// What `own` had in front of it, and what it said: `verdict rule`. `None` where the peer was gone
/// before it came to that.
fn comparison<'a>(own: &Half<'a>, peer: &Half<'_>) -> Option<(Facts, &'a str)> {
    let (mine, theirs) = own.compared.split_once(' ')?;
    let verdict = own.steps.split("; ").next()?.strip_prefix("compare ")?;
    let column = |text: &'a str, column| text.split(',').nth(column).unwrap();
    let peer_flags = u64::from_str_radix(column(theirs, 2), 16).unwrap();
    let facts = Facts {
        own: set(column(mine, 0)),
        peer: set(column(theirs, 0)),
        apv: AGREED_VERSION,
        crashed_primary: input(own, 1) & DISK_CRASHED != 0,
        peer_crashed_primary: peer_flags & CRASHED_PRIMARY != 0,
        is_primary: input(own, 3) != 0,
        peer_is_primary: input(peer, 3) != 0,
        has_write_same: true,
        resolves_conflicts: false,
        // The C driver decides without.
        own_bits: 0,
        peer_bits: 0,
    };
    Some((facts, verdict))
}

#[test]
fn the_engine_compares_generations_as_the_c_driver_does() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in cases() {
        let [first, second] = &case.halves;
        for (own, peer) in [(first, second), (second, first)] {
            let Some((facts, wanted)) = comparison(own, peer) else {
                continue;
            };
            count += 1;
            // Who decides a tie is the connection's luck, which no log tells.
            let said = [false, true].map(|resolves_conflicts| {
                let comparison = uuid_compare(&Facts {
                    resolves_conflicts,
                    ..facts
                });
                format!("{} {}", comparison.verdict.code(), comparison.rule)
            });
            if !said.iter().any(|said| said == wanted) {
                wrong.push(format!("case {}: {wanted}, not {said:?}", case.number));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let cases = cases().count();
    assert!(
        count >= cases,
        "{count} comparisons of {cases} cases were recorded"
    );
}

/// What the node would make of its disk alone.
fn disk(half: &Half<'_>) -> DiskState {
    match input(half, 1) {
        flags if flags & 1 == 0 => DiskState::Inconsistent,
        flags if flags & 16 == 0 => DiskState::Outdated,
        _ => DiskState::UpToDate,
    }
}

fn policy(half: &Half<'_>, option: &str) -> Policy {
    let value = half.net.split(' ').find_map(|word| {
        word.strip_prefix("--")?
            .strip_prefix(option)?
            .strip_prefix('=')
    });
    let names = [
        "disconnect",
        "discard-younger-primary",
        "discard-older-primary",
        "discard-zero-changes",
        "discard-least-changes",
        "discard-local",
        "discard-remote",
        "consensus",
        "discard-secondary",
        "call-pri-lost-after-sb",
        "violently-as0p",
    ];
    let value = match value {
        Some("call-pri-lost") => "call-pri-lost-after-sb",
        Some("violently") => "violently-as0p",
        other => other.unwrap_or("disconnect"),
    };
    let number = names.iter().position(|&name| name == value).unwrap();
    Policy::from_number(number as u32).unwrap()
}

fn decision_facts(case: &Case<'_>, node: usize, compared: &Facts) -> DecisionFacts {
    let (own, peer) = (&case.halves[node], &case.halves[1 - node]);
    let role = |half| match input(half, 3) {
        0 => Role::Secondary,
        _ => Role::Primary,
    };
    let bits = |text: &str| text.split(',').nth(1).unwrap().parse().unwrap();
    let (mine, theirs) = own.compared.split_once(' ').unwrap();
    // The wish ends with the first state that the peer tells.
    let discards = |half| !case.late && input(half, 4) != 0;
    // The second node attaches while the first one has its disk already.
    let own_disk = match (case.late, node) {
        (true, 1) => DiskState::Negotiating,
        _ => disk(own),
    };
    let peer_disk = match (case.late, node, disk(peer)) {
        (true, 0, DiskState::Inconsistent) => DiskState::Inconsistent,
        (true, 0, _) => DiskState::Consistent,
        (_, _, disk) => disk,
    };
    DecisionFacts {
        role: role(own),
        peer_role: role(peer),
        disk: own_disk,
        negotiated_disk: disk(own),
        peer_disk,
        told_alone: false,
        policies: Policies {
            none: policy(own, "after-sb-0pri"),
            one: policy(own, "after-sb-1pri"),
            two: policy(own, "after-sb-2pri"),
        },
        always_asbp: own.net.contains("--always-asbp=yes"),
        rr_conflict: policy(own, "rr-conflict"),
        discard_my_data: discards(own),
        peer_discards_data: discards(peer),
        began_primary: compared.own.bitmap & 1 != 0,
        peer_began_primary: compared.peer.bitmap & 1 != 0,
        sent_bits: bits(mine),
        peer_bits: bits(theirs),
        set_bits: bits(mine),
        resolves_conflicts: compared.resolves_conflicts,
        dry_run: false,
        demotion: None,
    }
}

/// The steps as the record names them.
fn told(step: Step) -> Option<String> {
    let side = |is_source| if is_source { "this" } else { "peer" };
    Some(match step {
        Step::Helper(helper) => format!("helper {}", helper.name()),
        Step::Log(LogLine::Unrelated) => "unrelated".into(),
        Step::Log(LogLine::DiskStatesDecide { is_source }) => {
            format!("disks {}", if is_source { "source" } else { "target" })
        }
        Step::Log(LogLine::Policy(Remark::ConfigurationError)) => "misconfigured".into(),
        Step::Log(LogLine::Policy(Remark::NoYoungerOrOlder)) => "no age".into(),
        Step::Log(LogLine::SolvedAutomatically {
            primaries,
            is_source,
        }) => format!("solved {primaries} {}", side(is_source)),
        Step::Log(LogLine::FullSyncForAmbiguity) => "full".into(),
        Step::Log(LogLine::SolvedManually { is_source }) => format!("chosen {}", side(is_source)),
        Step::Log(LogLine::SplitBrainUnresolved) => "unsolved".into(),
        Step::Log(LogLine::InconsistentSource) => "inconsistent source".into(),
        Step::Log(LogLine::PrimaryTarget) => "primary target".into(),
        Step::Log(LogLine::ViolatesStableData) => "violently".into(),
        Step::Log(LogLine::BitsWithoutResync(bits)) => format!("bits {bits}"),
        Step::Log(_) => return None,
    })
}

/// What the engine does after the comparison, up to the beginning of the resync.
fn decided(facts: &DecisionFacts, comparison: &Comparison) -> Vec<String> {
    let mut decision = sync_decision(comparison, facts);
    let mut steps: Vec<_> = decision.steps.iter().filter_map(told).collect();
    if decision.outcome == Outcome::TryDemotion {
        // No role changes while the connection is being established (the flag STATE_SENT).
        let demoted = DecisionFacts {
            demotion: Some(false),
            ..*facts
        };
        decision = sync_decision(comparison, &demoted);
        steps.extend(decision.steps.iter().filter_map(told));
    }
    if let Outcome::Proceed { conn, set_all_bits } = decision.outcome {
        steps.extend(set_all_bits.then(|| "all bits".into()));
        steps.extend(match conn {
            ConnState::WFBitMapS => Some("resync SyncSource".into()),
            ConnState::WFBitMapT => Some("resync SyncTarget".into()),
            _ => None,
        });
    }
    steps
}

#[test]
fn the_engine_decides_who_syncs_as_the_c_driver_does() {
    let mut wrong = Vec::new();
    for case in cases() {
        for node in [0, 1] {
            let (own, peer) = (&case.halves[node], &case.halves[1 - node]);
            let Some((facts, _)) = comparison(own, peer) else {
                continue;
            };
            let wanted: Vec<_> = own
                .steps
                .split("; ")
                .skip(1)
                .take_while(|step| !step.starts_with("refused") && !step.starts_with("compare"))
                .map(|step| match step.strip_prefix("resync ") {
                    Some(began) => format!("resync {}", began.split(' ').next().unwrap()),
                    None => step.to_owned(),
                })
                .collect();
            let said = [false, true].map(|resolves_conflicts| {
                let facts = Facts {
                    resolves_conflicts,
                    ..facts
                };
                decided(&decision_facts(&case, node, &facts), &uuid_compare(&facts))
            });
            // What had begun may have been cut off by the peer.
            if !said.iter().any(|said| said.starts_with(&wanted)) {
                wrong.push(format!(
                    "case {} node {node}: {wanted:?}, not {said:?}",
                    case.number
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_record_meets_the_rules() {
    let rules: Vec<_> = cases()
        .flat_map(|case| case.halves.map(|half| half.steps))
        .filter_map(|steps| steps.split("; ").next()?.strip_prefix("compare "))
        .filter_map(|verdict| verdict.split(' ').nth(1)?.parse::<u32>().ok())
        .collect();
    // 10 needs two new disks and 41 a Primary whose peer crashed; chance may leave them out.
    let all = [20, 30, 34, 35, 36, 37, 40, 50, 51, 60, 70, 71, 80, 90, 100];
    let missing: Vec<_> = all.iter().filter(|rule| !rules.contains(rule)).collect();
    assert!(missing.is_empty(), "no case meets the rules {missing:?}");
}
