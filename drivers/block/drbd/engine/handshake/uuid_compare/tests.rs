// SPDX-License-Identifier: GPL-2.0

//! Every rule of the comparison by its number, and the promise that both nodes come to opposite
//! results.

use proptest::prelude::*;
use std::string::ToString;

use super::*;

const A: u64 = 0xa0;
const B: u64 = 0xb0;
const C: u64 = 0xc0;
const D: u64 = 0xd0;
const E: u64 = 0xe0;

fn uuids(current: u64, bitmap: u64, younger: u64, older: u64) -> UuidSet {
    UuidSet {
        current,
        bitmap,
        history: [younger, older],
    }
}

fn facts(own: UuidSet, peer: UuidSet) -> Facts {
    Facts {
        own,
        peer,
        apv: 101,
        has_write_same: true,
        ..Facts::default()
    }
}

fn expect(facts: &Facts, rule: u32, verdict: Verdict) -> Comparison {
    let comparison = uuid_compare(facts);
    assert_eq!((comparison.rule, comparison.verdict), (rule, verdict));
    comparison
}

fn expect_correction(facts: &Facts, rule: u32, verdict: Verdict, correction: Correction) {
    assert_eq!(expect(facts, rule, verdict).correction, correction);
    for apv in [86, 90] {
        let old = Facts { apv, ..*facts };
        let comparison = uuid_compare(&old);
        assert_eq!(comparison.verdict.code(), -1091);
        assert_eq!(comparison.correction, Correction::None);
    }
}

#[test]
fn rule_10_two_new_disks_have_nothing_to_sync() {
    let new = uuids(JUST_CREATED, 0, 0, 0);
    expect(&facts(new, new), 10, Verdict::IN_SYNC);
    let written = uuids(JUST_CREATED | 1, 0, 0, 0);
    expect(&facts(written, new), 10, Verdict::IN_SYNC);
}

#[test]
fn rule_20_a_new_disk_takes_everything() {
    for mine in [0, JUST_CREATED] {
        expect(
            &facts(uuids(mine, 0, 0, 0), uuids(A, 0, 0, 0)),
            20,
            Verdict::TARGET_FULL,
        );
    }
}

#[test]
fn rule_30_a_new_peer_gets_everything() {
    for theirs in [0, JUST_CREATED] {
        expect(
            &facts(uuids(A, 0, 0, 0), uuids(theirs, 0, 0, 0)),
            30,
            Verdict::SOURCE_FULL,
        );
    }
}

#[test]
fn rule_34_i_missed_the_end_of_my_resync() {
    let facts = facts(uuids(A, B, C, D), uuids(A, 0, B, C));
    expect_correction(&facts, 34, Verdict::SOURCE, Correction::None);
}

/// Seed 354 of the simulator.
#[test]
fn a_source_that_missed_the_end_stays_the_source_until_the_next_resync_begins() {
    let facts = facts(uuids(A, B, C, D), uuids(A, 0, B, C));
    let (mut own, mut peer) = (facts.own, facts.peer);
    let comparison = uuid_compare(&facts);
    comparison.correction.apply(&mut own, &mut peer);
    // The connection is lost; the peer sends its UUIDs anew.
    expect(
        &Facts {
            own,
            peer: facts.peer,
            ..facts
        },
        34,
        Verdict::SOURCE,
    );
}

#[test]
fn rule_49_and_69_a_source_that_wrote_alone_is_a_split_brain() {
    // It missed the end of its resync, and the peer was complete and went on alone as well; or the
    // peer never heard of the resync (seeds 5512 and 6260 of the simulator).
    for ahead in [uuids(E, A, B, C), uuids(E, A, C, D)] {
        let behind = uuids(A, B, C, D);
        let written = Facts {
            own_bits: 1,
            ..facts(behind, ahead)
        };
        expect(&written, 49, Verdict::SPLIT_BRAIN_DISCONNECT);
        expect(&mirrored(&written), 69, Verdict::SPLIT_BRAIN_DISCONNECT);
        let unwritten = facts(behind, ahead);
        expect(&unwritten, 50, Verdict::TARGET);
        expect(&mirrored(&unwritten), 70, Verdict::SOURCE);
    }
}

#[test]
fn rule_35_the_peer_missed_the_end_of_its_resync() {
    let facts = facts(uuids(A, 0, B, C), uuids(A, B, C, D));
    expect_correction(&facts, 35, Verdict::TARGET, Correction::RetirePeerBitmap);
    let (mut own, mut peer) = (facts.own, facts.peer);
    Correction::RetirePeerBitmap.apply(&mut own, &mut peer);
    assert_eq!((own, peer), (facts.own, uuids(A, 0, B, C)));
}

#[test]
fn rule_36_the_peer_failed_to_write_the_sync_uuid() {
    let facts = facts(uuids(A, B, C, D), uuids(A, 0, C, D));
    expect_correction(&facts, 36, Verdict::SOURCE, Correction::None);
}

#[test]
fn rule_37_i_failed_to_write_the_sync_uuid() {
    let facts = facts(uuids(A, 0, C, D), uuids(A, B, C, D));
    expect_correction(&facts, 37, Verdict::TARGET, Correction::None);
}

#[test]
fn rule_40_equal_generations_without_a_crash_are_in_sync() {
    let set = uuids(A, 0, B, C);
    expect(&facts(set, uuids(A | 1, 0, D, E)), 40, Verdict::IN_SYNC);
    expect(
        &facts(uuids(A, B, 0, 0), uuids(A, C, 0, 0)),
        40,
        Verdict::IN_SYNC,
    );
}

// Seed 147372 of the simulator: the end of a resync never got to the source's disk, which failed
// when that node was to be the target of another one. It went on writing to its peer, and crashed.
#[test]
fn rule_38_who_saw_the_end_of_the_others_resync_is_no_target() {
    let (own, peer) = (uuids(A, D, B, C), uuids(A, B, C, 0));
    let split = Verdict::SPLIT_BRAIN_DISCONNECT;
    let counted = Facts {
        own_bits: 1,
        ..facts(own, peer)
    };
    expect(&counted, 38, split);
    let crashed = Facts {
        peer_crashed_primary: true,
        ..counted
    };
    expect(&crashed, 38, split);
    let seen_by_peer = Facts {
        crashed_primary: true,
        peer_bits: 1,
        ..facts(peer, own)
    };
    expect(&seen_by_peer, 38, split);
    let nothing_counted = Facts {
        own_bits: 0,
        ..crashed
    };
    expect(&nothing_counted, 40, Verdict::TARGET);
    let agrees = Facts {
        crashed_primary: true,
        ..counted
    };
    expect(&agrees, 40, Verdict::SOURCE);
    let in_use = Facts {
        is_primary: true,
        ..crashed
    };
    expect(&in_use, 41, Verdict::SOURCE);
}

#[test]
fn rule_40_who_crashed_as_primary_is_the_source() {
    let set = uuids(A, 0, B, C);
    let table = [
        (true, false, false, Verdict::SOURCE),
        (false, true, false, Verdict::TARGET),
        (true, true, true, Verdict::TARGET),
        (true, true, false, Verdict::SOURCE),
    ];
    for (crashed_primary, peer_crashed_primary, resolves_conflicts, verdict) in table {
        let facts = Facts {
            crashed_primary,
            peer_crashed_primary,
            resolves_conflicts,
            ..facts(set, set)
        };
        expect(&facts, 40, verdict);
    }
}

#[test]
fn rule_41_after_a_crash_the_present_primary_is_the_source() {
    let set = uuids(A, 0, B, C);
    let table = [
        (true, false, Verdict::SOURCE),
        (false, true, Verdict::TARGET),
        (true, true, Verdict::SPLIT_BRAIN_DISCONNECT),
    ];
    for (is_primary, peer_is_primary, verdict) in table {
        let crashed = Facts {
            crashed_primary: true,
            is_primary,
            peer_is_primary,
            ..facts(set, set)
        };
        expect(&crashed, 41, verdict);
        let comparison = uuid_compare(&Facts {
            has_write_same: false,
            ..crashed
        });
        assert_eq!(comparison.verdict.code(), -(0x10000 + 101 + 0x400));
    }
}

#[test]
fn rule_50_the_peer_went_on_from_my_generation() {
    expect(
        &facts(uuids(A, 0, C, D), uuids(B, A | 1, C, D)),
        50,
        Verdict::TARGET,
    );
}

#[test]
fn rule_51_i_never_got_the_peers_sync_uuid() {
    let peer = uuids(B, A + SYNC_UUID_OFFSET, A, D);
    let facts = facts(uuids(A, 0, D, E), peer);
    expect_correction(&facts, 51, Verdict::TARGET, Correction::UndoPeerSyncUuid);
    let (mut own, mut corrected) = (facts.own, peer);
    Correction::UndoPeerSyncUuid.apply(&mut own, &mut corrected);
    assert_eq!((own, corrected), (facts.own, uuids(B, A, D, D)));
}

#[test]
fn rule_51_older_protocols_compare_the_history() {
    let peer = uuids(B, C, A, D);
    let old = Facts {
        apv: 95,
        ..facts(uuids(A, 0, D, E), peer)
    };
    expect(&old, 51, Verdict::TARGET);
    expect(&Facts { apv: 96, ..old }, 60, Verdict::TARGET_FULL);
}

#[test]
fn rule_60_the_peer_knows_my_generation_as_an_old_one() {
    for (younger, older) in [(A, D), (D, A | 1)] {
        expect(
            &facts(uuids(A, 0, 0, 0), uuids(B, C, younger, older)),
            60,
            Verdict::TARGET_FULL,
        );
    }
}

#[test]
fn rule_70_i_went_on_from_the_peers_generation() {
    expect(
        &facts(uuids(B, A | 1, C, D), uuids(A, 0, C, D)),
        70,
        Verdict::SOURCE,
    );
}

#[test]
fn rule_71_the_peer_never_got_my_sync_uuid() {
    let own = uuids(B, A + SYNC_UUID_OFFSET, A, D);
    let facts = facts(own, uuids(A, 0, D, E));
    expect_correction(&facts, 71, Verdict::SOURCE, Correction::UndoOwnSyncUuid);
    let (mut corrected, mut peer) = (own, facts.peer);
    Correction::UndoOwnSyncUuid.apply(&mut corrected, &mut peer);
    assert_eq!((corrected, peer), (uuids(B, A, D, D), facts.peer));
}

#[test]
fn rule_71_older_protocols_compare_the_history() {
    let old = Facts {
        apv: 95,
        ..facts(uuids(B, C, A, D), uuids(A, 0, D, E))
    };
    expect(&old, 71, Verdict::SOURCE);
    expect(&Facts { apv: 96, ..old }, 80, Verdict::SOURCE_FULL);
}

#[test]
fn rule_80_i_know_the_peers_generation_as_an_old_one() {
    for (younger, older) in [(A, D), (D, A | 1)] {
        expect(
            &facts(uuids(B, C, younger, older), uuids(A, 0, 0, 0)),
            80,
            Verdict::SOURCE_FULL,
        );
    }
}

#[test]
fn rule_90_both_went_on_from_the_same_generation() {
    expect(
        &facts(uuids(A, C, D, E), uuids(B, C | 1, D, E)),
        90,
        Verdict::SPLIT_BRAIN,
    );
}

#[test]
fn rule_100_both_share_an_old_generation() {
    let own = uuids(A, C, E, 0x10);
    expect(
        &facts(own, uuids(B, D, 0x20, E | 1)),
        100,
        Verdict::SPLIT_BRAIN_DISCONNECT,
    );
}

#[test]
fn rule_100_two_empty_histories_match() {
    expect(
        &facts(uuids(A, 0, 0, 0), uuids(B, 0, 0, 0)),
        100,
        Verdict::SPLIT_BRAIN_DISCONNECT,
    );
}

#[test]
fn disks_without_a_common_generation_are_unrelated() {
    expect(
        &facts(uuids(A, 0, C, D), uuids(B, 0, E, 0x10)),
        100,
        Verdict::UNRELATED,
    );
}

#[test]
fn the_log_tells_verdict_and_rule() {
    let comparison = uuid_compare(&facts(uuids(A, 0, C, D), uuids(B, A, C, D)));
    assert_eq!(comparison.to_string(), "uuid_compare()=-1 by rule 50");
    let set = uuids(0x5d5d_8321_20ed_b777, 4, 0, 0);
    assert_eq!(
        set.to_string(),
        "5D5D832120EDB777:0000000000000004:0000000000000000:0000000000000000"
    );
}

#[test]
fn the_first_sync_of_the_c_driver_ends_with_the_uuids_it_recorded() {
    let mut source = uuids(0x5d5d_8321_20ed_b777, 0x4b2f_0643_b417_b8cd, 4, 0);
    source.retire_bitmap();
    assert_eq!(
        source,
        uuids(0x5d5d_8321_20ed_b777, 0, 0x4b2f_0643_b417_b8cd, 4)
    );
    let received = uuids(0x5d5d_8321_20ed_b777, 4, 0, 0);
    let mut target = uuids(0x4b2f_0643_b417_b8cc, 0, 0, 0);
    target.finish_as_target(&received, false);
    assert_eq!(
        target,
        uuids(0x5d5d_8321_20ed_b776, 0, 0x4b2f_0643_b417_b8cc, 4)
    );
}

#[test]
fn the_generations_of_the_recorded_split_brain_are_a_rule_90() {
    let t = uuids(
        0xc4eb_6905_35cb_430c,
        0x5d5d_8321_20ed_b776,
        0x4b2f_0643_b417_b8cd,
        4,
    );
    let shentar = uuids(
        0xd684_9cfb_ebc3_dbf8,
        0x5d5d_8321_20ed_b776,
        0x4b2f_0643_b417_b8cc,
        4,
    );
    expect(&facts(t, shentar), 90, Verdict::SPLIT_BRAIN);
    expect(&facts(shentar, t), 90, Verdict::SPLIT_BRAIN);
}

/// The same pair of disks from the peer's side.
fn mirrored(facts: &Facts) -> Facts {
    Facts {
        own: facts.peer,
        peer: facts.own,
        crashed_primary: facts.peer_crashed_primary,
        peer_crashed_primary: facts.crashed_primary,
        is_primary: facts.peer_is_primary,
        peer_is_primary: facts.is_primary,
        resolves_conflicts: !facts.resolves_conflicts,
        own_bits: facts.peer_bits,
        peer_bits: facts.own_bits,
        ..*facts
    }
}

/// Whether both nodes may act on these two verdicts.
fn agree(one: Verdict, other: Verdict) -> bool {
    match one.code() {
        -2..=2 => one.code() == -other.code(),
        code => code == other.code(),
    }
}

/// A step in the life of a pair of disks.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A node writes while its peer is away.
    WriteAlone { on_first: bool },
    /// A resync starts, and how far it gets.
    Resync { progress: Progress },
}

#[derive(Clone, Copy, Debug)]
enum Progress {
    /// The sync UUID is made, but does not arrive.
    UuidLost,
    /// The target has the sync UUID, then the connection is cut.
    Cut,
    /// The target is done, the source never hears of it.
    TargetDone,
    /// Both are done.
    Done,
}

fn events() -> impl Strategy<Value = std::vec::Vec<Event>> {
    let progress = prop_oneof![
        Just(Progress::UuidLost),
        Just(Progress::Cut),
        Just(Progress::TargetDone),
        Just(Progress::Done),
    ];
    let event = prop_oneof![
        any::<bool>().prop_map(|on_first| Event::WriteAlone { on_first }),
        progress.prop_map(|progress| Event::Resync { progress }),
    ];
    proptest::collection::vec(event, 0..8)
}

/// Two disks that lived through `events`, each generation being a new number.
fn live(events: &[Event]) -> (UuidSet, UuidSet) {
    let mut fresh = 0x1_0000u64;
    let mut next = move || {
        fresh += 0x1_0000;
        fresh
    };
    let start = uuids(next(), 0, next(), next());
    let (mut first, mut second) = (start, start);
    for &event in events {
        match event {
            Event::WriteAlone { on_first } => {
                let node = if on_first { &mut first } else { &mut second };
                if node.bitmap == 0 {
                    *node = uuids(next(), node.current, node.youngest(), node.oldest());
                }
            }
            Event::Resync { progress } => {
                let comparison = uuid_compare(&facts(first, second));
                comparison.correction.apply(&mut first, &mut second.clone());
                let back = uuid_compare(&facts(second, first));
                back.correction.apply(&mut second, &mut first.clone());
                match comparison.verdict.code() {
                    1 | 2 => resync(&mut first, &mut second, progress, next()),
                    -1 | -2 => resync(&mut second, &mut first, progress, next()),
                    _ => {}
                }
            }
        }
    }
    (first, second)
}

fn resync(source: &mut UuidSet, target: &mut UuidSet, progress: Progress, random: u64) {
    let sync = match source.bitmap {
        0 | JUST_CREATED => random,
        bitmap => bitmap.wrapping_add(SYNC_UUID_OFFSET),
    };
    let as_received = *source;
    source.retire_bitmap();
    source.bitmap = sync & !1;
    if matches!(progress, Progress::UuidLost) {
        return;
    }
    target.current = sync;
    target.bitmap = 0;
    if matches!(progress, Progress::Cut) {
        return;
    }
    target.finish_as_target(&as_received, false);
    if matches!(progress, Progress::Done) {
        source.retire_bitmap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn disks_with_a_real_past_lead_to_opposite_verdicts(
        events in events(),
        crashed in any::<(bool, bool)>(),
        primary in any::<(bool, bool)>(),
        resolves_conflicts: bool,
    ) {
        let (first, second) = live(&events);
        let facts = Facts {
            crashed_primary: crashed.0,
            peer_crashed_primary: crashed.1,
            is_primary: primary.0,
            peer_is_primary: primary.1,
            resolves_conflicts,
            ..facts(first, second)
        };
        let (one, other) = (uuid_compare(&facts), uuid_compare(&mirrored(&facts)));
        prop_assert!(
            agree(one.verdict, other.verdict),
            "{one} here, {other} there: {first} {second}"
        );
    }

    #[test]
    fn disks_whose_generations_are_not_each_others_past_lead_to_the_same_refusal(
        own in proptest::array::uniform4(5u64..1000),
        peer in proptest::array::uniform4(1000u64..2000),
    ) {
        let set = |[current, bitmap, younger, older]: [u64; 4]| {
            uuids(current * 2, bitmap * 2, younger * 2, older * 2)
        };
        let facts = facts(set(own), set(peer));
        prop_assert_eq!(uuid_compare(&facts).verdict, Verdict::UNRELATED);
        prop_assert_eq!(uuid_compare(&mirrored(&facts)).verdict, Verdict::UNRELATED);
    }

    #[test]
    fn any_uuids_get_one_of_the_known_verdicts(
        own in proptest::array::uniform4(0u64..12),
        peer in proptest::array::uniform4(0u64..12),
        apv in 86u32..=101,
    ) {
        let set = |[current, bitmap, younger, older]: [u64; 4]| {
            uuids(current, bitmap, younger, older)
        };
        let facts = Facts { apv, ..facts(set(own), set(peer)) };
        let code = uuid_compare(&facts).verdict.code();
        prop_assert!(matches!(code, -2..=2 | 100 | -100 | -1000 | -1091), "{code}");
    }
}
