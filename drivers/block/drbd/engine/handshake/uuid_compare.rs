// SPDX-License-Identifier: GPL-2.0

//! Compares the data generations of two disks: who has the newer data, and is the bitmap enough
//! (spec §1.14).
//!
//! Both nodes run the same rules over the same eight UUIDs, each from its own side, and must come
//! to opposite results without talking about it. That is why the order of the rules is part of the
//! protocol.

use core::fmt;

/// The current UUID of metadata that was just created.
pub const JUST_CREATED: u64 = 4;
/// What the UUID of a resync is ahead of the bitmap UUID it was made of.
pub const SYNC_UUID_OFFSET: u64 = 1 << 48;

/// The first protocol in which the rules may correct UUIDs.
const CORRECTION_APV: u32 = 91;
/// The first protocol in which the UUID of a resync is [`SYNC_UUID_OFFSET`] ahead.
const SYNC_UUID_APV: u32 = 96;
/// What a crash of a running Primary pair asks for: the protocol and the feature flag (write same).
const CRASH_VERDICT: i32 = -(0x10000 | 101 | (4 << 8));

/// The four data generation UUIDs of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UuidSet {
    /// The generation of the data. Bit 0: it was written while Primary.
    pub current: u64,
    /// The generation that the bitmap is relative to; 0 while in sync.
    pub bitmap: u64,
    /// Earlier generations, the younger first.
    pub history: [u64; 2],
}

impl UuidSet {
    /// Moves the bitmap UUID into the history: what was missing is there now.
    pub fn retire_bitmap(&mut self) {
        if self.bitmap != 0 {
            self.push_history(self.bitmap);
            self.bitmap = 0;
        }
    }

    /// Takes the start of a resync back: the bitmap UUID is the youngest of the history again.
    pub fn undo_sync_uuid(&mut self) {
        let [younger, older] = self.history;
        self.bitmap = younger;
        self.history = [older, older];
    }

    /// What a resync target's UUIDs are when it is done: it follows the peer's lineage (spec §2.7).
    ///
    /// `peer` is the set as last received. Bit 0 of the current UUID tells this node's role.
    pub fn finish_as_target(&mut self, peer: &Self, is_primary: bool) {
        let own = self.current;
        *self = *peer;
        if self.bitmap != 0 {
            self.push_history(self.bitmap);
        }
        self.bitmap = own;
        self.current = (peer.current & !1) | u64::from(is_primary);
        self.retire_bitmap();
    }

    fn push_history(&mut self, uuid: u64) {
        let [younger, _] = self.history;
        self.history = [uuid, younger];
    }

    /// The same set with every bit 0 cleared: roles do not matter to generations.
    const fn masked(&self) -> Self {
        let [younger, older] = self.history;
        Self {
            current: self.current & !1,
            bitmap: self.bitmap & !1,
            history: [younger & !1, older & !1],
        }
    }

    fn youngest(&self) -> u64 {
        let [younger, _] = self.history;
        younger
    }

    fn oldest(&self) -> u64 {
        let [_, older] = self.history;
        older
    }
}

impl fmt::Display for UuidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [younger, older] = self.history;
        write!(
            f,
            "{:016X}:{:016X}:{younger:016X}:{older:016X}",
            self.current, self.bitmap
        )
    }
}

/// What a comparison came to.
///
/// Positive: this node has the newer data. A magnitude of 1: the bitmap tells what to sync, 2: all
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(i32);

impl Verdict {
    /// This node is the source, all bits.
    pub const SOURCE_FULL: Self = Self(2);
    /// This node is the source.
    pub const SOURCE: Self = Self(1);
    /// Nothing to sync.
    pub const IN_SYNC: Self = Self(0);
    /// This node is the target.
    pub const TARGET: Self = Self(-1);
    /// This node is the target, all bits.
    pub const TARGET_FULL: Self = Self(-2);
    /// Split brain of a common ancestor: policies may solve it.
    pub const SPLIT_BRAIN: Self = Self(100);
    /// Split brain that is not to be solved automatically.
    pub const SPLIT_BRAIN_DISCONNECT: Self = Self(-100);
    /// The disks have nothing in common.
    pub const UNRELATED: Self = Self(-1000);

    /// The number that the log tells.
    pub const fn code(self) -> i32 {
        self.0
    }

    /// The verdict that a number stands for.
    pub const fn from_code(code: i32) -> Self {
        Self(code)
    }

    /// Both sides need at least this protocol.
    const fn needs_protocol(apv: i32) -> Self {
        Self(-(1000 + apv))
    }
}

/// A correction of UUIDs that a lost message left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// None is needed.
    None,
    /// The peer missed the end of a resync as source: its bitmap UUID belongs into the history of
    /// what is known of it.
    RetirePeerBitmap,
    /// The peer never got the UUID of this node's resync: take it back on disk.
    UndoOwnSyncUuid,
    /// This node never got the UUID of the peer's resync: take it back in what is known of the
    /// peer.
    UndoPeerSyncUuid,
}

impl Correction {
    /// Carries the correction out. Where `own` changes, it has to be written to disk.
    pub fn apply(self, own: &mut UuidSet, peer: &mut UuidSet) {
        match self {
            Self::None => {}
            Self::RetirePeerBitmap => peer.retire_bitmap(),
            Self::UndoOwnSyncUuid => own.undo_sync_uuid(),
            Self::UndoPeerSyncUuid => peer.undo_sync_uuid(),
        }
    }
}

/// What the comparison reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node's UUIDs.
    pub own: UuidSet,
    /// The peer's UUIDs as received.
    pub peer: UuidSet,
    /// The agreed protocol version.
    pub apv: u32,
    /// This node was Primary when it crashed and has not seen its peer since.
    pub crashed_primary: bool,
    /// The peer says so of itself (UUID flag 2).
    pub peer_crashed_primary: bool,
    /// This node is Primary now.
    pub is_primary: bool,
    /// The peer is Primary now.
    pub peer_is_primary: bool,
    /// The feature write same is agreed, which stands for a peer that knows rule 41.
    pub has_write_same: bool,
    /// This node is the one that decides ties (flag RESOLVE_CONFLICTS).
    pub resolves_conflicts: bool,
    /// The number of set bits now, or that was last sent to the peer, whichever is more. A peer
    /// without a disk may have written here since; it is told when it attaches one.
    pub own_bits: u64,
    /// The number of set bits that the peer sent.
    pub peer_bits: u64,
}

/// The result of [`uuid_compare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Who is to sync from whom.
    pub verdict: Verdict,
    /// The rule that said so; the log tells it.
    pub rule: u32,
    /// What is to be corrected before anything else.
    pub correction: Correction,
}

impl Comparison {
    const fn by(rule: u32, verdict: Verdict) -> Self {
        Self {
            verdict,
            rule,
            correction: Correction::None,
        }
    }

    const fn correcting(rule: u32, verdict: Verdict, correction: Correction) -> Self {
        Self {
            verdict,
            rule,
            correction,
        }
    }

    /// A rule that corrects UUIDs needs a peer that does the same.
    const fn unless_too_old(self, apv: u32) -> Self {
        if apv < CORRECTION_APV {
            Self::by(self.rule, Verdict::needs_protocol(91))
        } else {
            self
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uuid_compare()={} by rule {}", self.verdict.0, self.rule)
    }
}

/// Compares the generations of two disks. The first rule that matches decides.
pub fn uuid_compare(facts: &Facts) -> Comparison {
    let own = facts.own.masked();
    let peer = facts.peer.masked();
    just_created(&own, &peer)
        .or_else(|| same_generation(&own, &peer, facts))
        .or_else(|| peer_is_ahead(&own, &peer, facts))
        .or_else(|| own_is_ahead(&own, &peer, facts))
        .or_else(|| common_ancestor(&own, &peer))
        .unwrap_or(Comparison::by(100, Verdict::UNRELATED))
}

/// Rules 10 to 30: a disk without a history follows one that has one.
fn just_created(own: &UuidSet, peer: &UuidSet) -> Option<Comparison> {
    let is_new = |uuid| uuid == JUST_CREATED || uuid == 0;
    match (own.current, peer.current) {
        (JUST_CREATED, JUST_CREATED) => Some(Comparison::by(10, Verdict::IN_SYNC)),
        (mine, theirs) if is_new(mine) && theirs != JUST_CREATED => {
            Some(Comparison::by(20, Verdict::TARGET_FULL))
        }
        (mine, theirs) if mine != JUST_CREATED && is_new(theirs) => {
            Some(Comparison::by(30, Verdict::SOURCE_FULL))
        }
        _ => None,
    }
}

/// Rules 34 to 41: the same data, but one may have missed the end of a resync, or crashed while
/// writing.
fn same_generation(own: &UuidSet, peer: &UuidSet, facts: &Facts) -> Option<Comparison> {
    if own.current != peer.current {
        return None;
    }
    let comparison = match (own.bitmap, peer.bitmap) {
        (bitmap, 0) if bitmap != 0 => {
            // Where this node missed the end of its resync it could retire the bitmap UUID, as the
            // C driver does. But until the resync that follows has begun nothing else says that the
            // peer lacks what was written since: were the connection lost in between, both nodes
            // would call themselves equal.
            let missed = bitmap == peer.youngest() && own.youngest() == peer.oldest();
            let rule = if missed { 34 } else { 36 };
            Comparison::by(rule, Verdict::SOURCE).unless_too_old(facts.apv)
        }
        (0, bitmap) if bitmap != 0 => {
            let missed = own.youngest() == bitmap && own.oldest() == peer.youngest();
            let comparison = if missed {
                Comparison::correcting(35, Verdict::TARGET, Correction::RetirePeerBitmap)
            } else {
                Comparison::by(37, Verdict::TARGET)
            };
            comparison.unless_too_old(facts.apv)
        }
        (mine, theirs) if mine != 0 && theirs != 0 => stale_bitmap(own, peer, facts),
        _ => after_crash(facts),
    };
    Some(comparison)
}

/// Rule 38: both nodes count against a generation, and one has the other's in its history: it saw
/// the end of that resync, of which the other's disk does not know, and was the source of another
/// one since. So the other was to be a target, and what the bits tell is on this node alone.
///
/// Rule 40 would make the other the source where it crashed as Primary, as the C driver does. The
/// rule is not one of the C driver's, and is content to see a split brain then, as rule 49.
fn stale_bitmap(own: &UuidSet, peer: &UuidSet, facts: &Facts) -> Comparison {
    let comparison = after_crash(facts);
    let is_ahead = own.youngest() == peer.bitmap && facts.own_bits != 0;
    let peer_is_ahead = peer.youngest() == own.bitmap && facts.peer_bits != 0;
    let believed = match (is_ahead, peer_is_ahead) {
        (true, false) => Verdict::SOURCE,
        (false, true) => Verdict::TARGET,
        _ => return comparison,
    };
    if comparison.verdict == believed {
        comparison
    } else {
        Comparison::by(38, Verdict::SPLIT_BRAIN_DISCONNECT)
    }
}

/// Rules 40 and 41: who crashed while Primary may have written blocks that the other does not have.
fn after_crash(facts: &Facts) -> Comparison {
    let crashed = (facts.crashed_primary, facts.peer_crashed_primary);
    if crashed == (false, false) {
        return Comparison::by(40, Verdict::IN_SYNC);
    }
    if facts.is_primary || facts.peer_is_primary {
        let verdict = match (
            facts.has_write_same,
            facts.is_primary,
            facts.peer_is_primary,
        ) {
            (false, _, _) => Verdict(CRASH_VERDICT),
            (true, true, true) => Verdict::SPLIT_BRAIN_DISCONNECT,
            (true, true, false) => Verdict::SOURCE,
            (true, false, _) => Verdict::TARGET,
        };
        return Comparison::by(41, verdict);
    }
    let is_source = match crashed {
        (true, true) => !facts.resolves_conflicts,
        (mine, _) => mine,
    };
    Comparison::by(
        40,
        if is_source {
            Verdict::SOURCE
        } else {
            Verdict::TARGET
        },
    )
}

/// Whether `behind` may have written alone in a generation that `ahead` goes on from.
///
/// `ahead` had all of that generation when it began its own. So `behind` has nothing to count,
/// unless it was the source of a resync of which the two know different things: it never heard
/// that its target was complete, or the target never heard that it began. A source that loses its
/// target begins no generation, since the one it counts against is the target's; what it wrote
/// alone shows in the bitmap only.
const fn wrote_unnoticed(behind: &UuidSet, bits: u64) -> bool {
    behind.bitmap != 0 && bits != 0
}

/// Rules 49 to 60: the peer knows this node's generation as one of its past.
///
/// Rule 49 is not one of the C driver's, who throws away what this node wrote. No policy but
/// `always-asbp` solves it, for the C driver sees no split brain there: the nodes would not decide
/// alike.
fn peer_is_ahead(own: &UuidSet, peer: &UuidSet, facts: &Facts) -> Option<Comparison> {
    let apv = facts.apv;
    if own.current == peer.bitmap {
        let comparison = if wrote_unnoticed(own, facts.own_bits) {
            Comparison::by(49, Verdict::SPLIT_BRAIN_DISCONNECT)
        } else {
            Comparison::by(50, Verdict::TARGET)
        };
        return Some(comparison);
    }
    let lost_sync_uuid = own.current == peer.youngest()
        && if apv < SYNC_UUID_APV {
            own.youngest() == peer.oldest()
        } else {
            peer.youngest().wrapping_add(SYNC_UUID_OFFSET) == peer.bitmap
        };
    if lost_sync_uuid {
        let corrected = Comparison::correcting(51, Verdict::TARGET, Correction::UndoPeerSyncUuid);
        return Some(corrected.unless_too_old(apv));
    }
    peer.history
        .contains(&own.current)
        .then_some(Comparison::by(60, Verdict::TARGET_FULL))
}

/// Rules 69 to 80: this node knows the peer's generation as one of its past.
///
/// Rule 69 is not one of the C driver's, who has what the peer wrote thrown away.
fn own_is_ahead(own: &UuidSet, peer: &UuidSet, facts: &Facts) -> Option<Comparison> {
    let apv = facts.apv;
    if own.bitmap == peer.current {
        let comparison = if wrote_unnoticed(peer, facts.peer_bits) {
            Comparison::by(69, Verdict::SPLIT_BRAIN_DISCONNECT)
        } else {
            Comparison::by(70, Verdict::SOURCE)
        };
        return Some(comparison);
    }
    let lost_sync_uuid = own.youngest() == peer.current
        && if apv < SYNC_UUID_APV {
            own.oldest() == peer.youngest()
        } else {
            own.youngest().wrapping_add(SYNC_UUID_OFFSET) == own.bitmap
        };
    if lost_sync_uuid {
        let corrected = Comparison::correcting(71, Verdict::SOURCE, Correction::UndoOwnSyncUuid);
        return Some(corrected.unless_too_old(apv));
    }
    own.history
        .contains(&peer.current)
        .then_some(Comparison::by(80, Verdict::SOURCE_FULL))
}

/// Rules 90 and 100: both went on from the same generation without each other. An empty history
/// matches an empty one.
fn common_ancestor(own: &UuidSet, peer: &UuidSet) -> Option<Comparison> {
    if own.bitmap == peer.bitmap && own.bitmap != 0 {
        return Some(Comparison::by(90, Verdict::SPLIT_BRAIN));
    }
    let shared = own.history.iter().any(|uuid| peer.history.contains(uuid));
    shared.then_some(Comparison::by(100, Verdict::SPLIT_BRAIN_DISCONNECT))
}

#[cfg(test)]
mod tests;
