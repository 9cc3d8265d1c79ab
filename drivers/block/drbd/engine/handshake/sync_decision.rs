// SPDX-License-Identifier: GPL-2.0

//! From the comparison of the generations to what the volume does next (spec §1.14, "After
//! comparison").

use core::fmt;

use super::split_brain::{self, Nodes, Policies, Policy, Remark, Winner};
use super::uuid_compare::{Comparison, Verdict};
use crate::state::{ConnState, DiskState, Role};

/// A helper that the handshake runs, with the minor as its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// A split brain was found; policies may yet solve it.
    InitialSplitBrain,
    /// A split brain stays unsolved.
    SplitBrain,
    /// A Primary is to lose its data.
    PriLost,
    /// A Primary is to lose its data after a split brain and could not be demoted.
    PriLostAfterSplitBrain,
}

impl Helper {
    /// The name on the helper's command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitialSplitBrain => "initial-split-brain",
            Self::SplitBrain => "split-brain",
            Self::PriLost => "pri-lost",
            Self::PriLostAfterSplitBrain => "pri-lost-after-sb",
        }
    }
}

/// A line for the log; `Display` gives its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// The disks have nothing in common.
    Unrelated,
    /// Both sides need a later protocol.
    NeedsProtocol(u32),
    /// Both sides need a later protocol and feature flags.
    NeedsFeatures {
        /// The protocol version.
        apv: u32,
        /// The feature flags.
        flags: u32,
    },
    /// One disk is Inconsistent, so the other is the source.
    DiskStatesDecide {
        /// Whether this node is the source.
        is_source: bool,
    },
    /// What a policy remarked.
    Policy(Remark),
    /// A policy solved the split brain.
    SolvedAutomatically {
        /// The number of Primaries.
        primaries: u8,
        /// Whether this node is the source.
        is_source: bool,
    },
    /// Without a common ancestor in the bitmap everything is synced.
    FullSyncForAmbiguity,
    /// The admin chose the loser.
    SolvedManually {
        /// Whether this node is the source.
        is_source: bool,
    },
    /// The split brain stays.
    SplitBrainUnresolved,
    /// An inconsistent disk cannot be the source.
    InconsistentSource,
    /// A Primary cannot be the target.
    PrimaryTarget,
    /// Its users would lose what they were told is written.
    PeerLacksWrites,
    /// A Primary becomes the target nevertheless.
    ViolatesStableData,
    /// What a connect would have done.
    DryRun {
        /// The verdict.
        verdict: i32,
    },
    /// In sync by UUIDs, though the bitmap has set bits.
    BitsWithoutResync(u64),
}

const fn node(is_source: bool) -> &'static str {
    if is_source {
        "this"
    } else {
        "peer"
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unrelated => f.write_str("Unrelated data, aborting!"),
            Self::NeedsProtocol(apv) => {
                write!(
                    f,
                    "To resolve this both sides have to support at least protocol {apv}"
                )
            }
            Self::NeedsFeatures { apv, flags } => write!(
                f,
                "To resolve this both sides have to support at least protocol {apv} \
                 and feature flags 0x{flags:x}"
            ),
            Self::DiskStatesDecide { is_source } => {
                let side = if is_source { "source" } else { "target" };
                write!(f, "Becoming sync {side} due to disk states.")
            }
            Self::Policy(Remark::ConfigurationError) => f.write_str("Configuration error."),
            Self::Policy(Remark::NoYoungerOrOlder) => f.write_str(
                "Discard younger/older primary did not find a decision\n\
                 Using discard-least-changes instead",
            ),
            Self::SolvedAutomatically {
                primaries,
                is_source,
            } => write!(
                f,
                "Split-Brain detected, {primaries} primaries, automatically solved. \
                 Sync from {} node",
                node(is_source)
            ),
            Self::FullSyncForAmbiguity => {
                f.write_str("Doing a full sync, since UUIDs where ambiguous.")
            }
            Self::SolvedManually { is_source } => write!(
                f,
                "Split-Brain detected, manually solved. Sync from {} node",
                node(is_source)
            ),
            Self::SplitBrainUnresolved => {
                f.write_str("Split-Brain detected but unresolved, dropping connection!")
            }
            Self::InconsistentSource => {
                f.write_str("I shall become SyncSource, but I am inconsistent!")
            }
            Self::PrimaryTarget => f.write_str("I shall become SyncTarget, but I am primary!"),
            Self::PeerLacksWrites => f.write_str(
                "the peer need not have all that applications were told is written: \
                 demote this node to give it the peer's data",
            ),
            Self::ViolatesStableData => {
                f.write_str("Becoming SyncTarget, violating the stable-data assumption")
            }
            Self::DryRun { verdict: 0 } => {
                f.write_str("dry-run connect: No resync, would become Connected immediately.")
            }
            Self::DryRun { verdict } => write!(
                f,
                "dry-run connect: Would become {}, doing a {} resync.",
                if verdict > 0 {
                    "SyncSource"
                } else {
                    "SyncTarget"
                },
                if verdict.unsigned_abs() >= 2 {
                    "full"
                } else {
                    "bit-map based"
                },
            ),
            Self::BitsWithoutResync(bits) => write!(f, "No resync, but {bits} bits in bitmap!"),
        }
    }
}

/// Something to do on the way to the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Log a line.
    Log(LogLine),
    /// Run a helper and wait for it.
    Helper(Helper),
}

/// The steps of one decision, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    steps: [Option<Step>; Self::CAPACITY],
    len: usize,
}

impl Steps {
    /// The longest way through the rules: disk states do not meet a split brain, so seven steps are
    /// the most there are.
    const CAPACITY: usize = 8;

    fn push(&mut self, step: Step) {
        if let Some(slot) = self.steps.get_mut(self.len) {
            *slot = Some(step);
            self.len = self.len.saturating_add(1);
        }
    }

    fn log(&mut self, line: LogLine) {
        self.push(Step::Log(line));
    }

    fn helper(&mut self, helper: Helper) {
        self.push(Step::Helper(helper));
    }

    /// The steps in the order in which they are to be carried out.
    pub fn iter(&self) -> impl Iterator<Item = Step> + '_ {
        self.steps.iter().flatten().copied()
    }
}

/// How the handshake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Proceed {
        /// The volume's next connection state: WFBitMapS, WFBitMapT or Connected.
        conn: ConnState,
        /// Set all bits and write the bitmap first; where that fails the handshake fails.
        set_all_bits: bool,
    },
    /// The handshake failed.
    Refuse,
    /// Try to become Secondary, then decide again with [`Facts::demotion`] filled in.
    TryDemotion,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncDecision {
    /// What to do on the way.
    pub steps: Steps,
    /// How it ends.
    pub outcome: Outcome,
}

/// What the rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// This node's role.
    pub role: Role,
    /// The peer's role.
    pub peer_role: Role,
    /// This node's disk as it is.
    pub disk: DiskState,
    /// What a Negotiating disk would be without a peer.
    pub negotiated_disk: DiskState,
    /// The peer's disk, Negotiating already resolved.
    pub peer_disk: DiskState,
    /// What [`Seen::alone`](crate::state::Seen::alone) says: the peer need not have all that this
    /// node's users were told is written.
    pub told_alone: bool,
    /// The after-split-brain policies.
    pub policies: Policies,
    /// `always-asbp`: policies apply without a common ancestor too.
    pub always_asbp: bool,
    /// `rr-conflict`: what a Primary does that is to be the target.
    pub rr_conflict: Policy,
    /// This node gave up its data (flag DISCARD_MY_DATA).
    pub discard_my_data: bool,
    /// The peer gave up its data (UUID flag 1).
    pub peer_discards_data: bool,
    /// Bit 0 of this node's bitmap UUID.
    pub began_primary: bool,
    /// Bit 0 of the peer's bitmap UUID.
    pub peer_began_primary: bool,
    /// The number of set bits that was last sent to the peer.
    pub sent_bits: u64,
    /// The number of set bits that the peer sent.
    pub peer_bits: u64,
    /// The number of set bits now.
    pub set_bits: u64,
    /// This node decides ties (flag RESOLVE_CONFLICTS).
    pub resolves_conflicts: bool,
    /// The connect is tentative, or the peer's is.
    pub dry_run: bool,
    /// After [`Outcome::TryDemotion`]: whether this node is Secondary now. All else stays as it was
    /// when first asked.
    pub demotion: Option<bool>,
}

impl Facts {
    fn usable_disk(&self) -> DiskState {
        if self.disk == DiskState::Negotiating {
            self.negotiated_disk
        } else {
            self.disk
        }
    }

    fn nodes(&self) -> Nodes {
        Nodes {
            is_primary: self.role.is_primary(),
            peer_is_primary: self.peer_role.is_primary(),
            began_primary: self.began_primary,
            peer_began_primary: self.peer_began_primary,
            changes: self.sent_bits,
            peer_changes: self.peer_bits,
            resolves_conflicts: self.resolves_conflicts,
        }
    }
}

/// Decides what follows from a comparison whose correction has been carried out.
pub fn sync_decision(comparison: &Comparison, facts: &Facts) -> SyncDecision {
    let mut steps = Steps::default();
    let outcome = decide(comparison.verdict, facts, &mut steps);
    if facts.demotion.is_some() {
        // What came before the demotion was done when it was asked for.
        steps = after_demotion(steps);
    }
    SyncDecision { steps, outcome }
}

fn decide(compared: Verdict, facts: &Facts, steps: &mut Steps) -> Outcome {
    if refuses_verdict(compared, steps) {
        return Outcome::Refuse;
    }
    let mut verdict = by_disk_states(compared, facts, steps).code();
    if verdict.unsigned_abs() == 100 {
        steps.helper(Helper::InitialSplitBrain);
        match solve_split_brain(verdict, facts, steps) {
            Ok(solved) => verdict = solved,
            Err(outcome) => return outcome,
        }
    }
    if conflicts_with_use(verdict, facts, steps) {
        return Outcome::Refuse;
    }
    if facts.dry_run {
        steps.log(LogLine::DryRun { verdict });
        return Outcome::Refuse;
    }
    if verdict == 0 && facts.set_bits != 0 {
        steps.log(LogLine::BitsWithoutResync(facts.set_bits));
    }
    let conn = match verdict {
        0 => ConnState::Connected,
        1.. => ConnState::WFBitMapS,
        _ => ConnState::WFBitMapT,
    };
    Outcome::Proceed {
        conn,
        set_all_bits: verdict.unsigned_abs() >= 2,
    }
}

/// Items 1: verdicts that no state or policy can change.
fn refuses_verdict(verdict: Verdict, steps: &mut Steps) -> bool {
    let code = verdict.code();
    if code == Verdict::UNRELATED.code() {
        steps.log(LogLine::Unrelated);
        return true;
    }
    if code < -0x10000 {
        let needed = code.unsigned_abs();
        let (apv, flags) = (needed & 0xff, (needed >> 8) & 0xff);
        steps.log(LogLine::NeedsFeatures { apv, flags });
        return true;
    }
    if code < Verdict::UNRELATED.code() {
        steps.log(LogLine::NeedsProtocol(
            code.unsigned_abs().saturating_sub(1000),
        ));
        return true;
    }
    false
}

/// Item 2: if exactly one disk is Inconsistent the other is the source, whatever the generations
/// say.
fn by_disk_states(compared: Verdict, facts: &Facts, steps: &mut Steps) -> Verdict {
    let own = facts.usable_disk();
    let bad = DiskState::Inconsistent;
    let differ = (own == bad && facts.peer_disk > bad) || (facts.peer_disk == bad && own > bad);
    if !differ {
        return compared;
    }
    let is_source = own > bad;
    steps.log(LogLine::DiskStatesDecide { is_source });
    let code = compared.code();
    let full = code == Verdict::SPLIT_BRAIN_DISCONNECT.code() || code.unsigned_abs() == 2;
    match (is_source, full) {
        (true, true) => Verdict::SOURCE_FULL,
        (true, false) => Verdict::SOURCE,
        (false, true) => Verdict::TARGET_FULL,
        (false, false) => Verdict::TARGET,
    }
}

/// Items 4 to 6: policies first, then what the admin chose.
fn solve_split_brain(verdict: i32, facts: &Facts, steps: &mut Steps) -> Result<i32, Outcome> {
    let ambiguous = verdict == Verdict::SPLIT_BRAIN_DISCONNECT.code();
    if !ambiguous || facts.always_asbp {
        if let Some(winner) = by_policy(facts, steps)? {
            let is_source = winner == Winner::Own;
            let primaries = facts.nodes().primaries();
            steps.log(LogLine::SolvedAutomatically {
                primaries,
                is_source,
            });
            if ambiguous {
                steps.log(LogLine::FullSyncForAmbiguity);
            }
            return Ok(match (is_source, ambiguous) {
                (true, true) => 2,
                (true, false) => 1,
                (false, true) => -2,
                (false, false) => -1,
            });
        }
    }
    if facts.discard_my_data != facts.peer_discards_data {
        let is_source = facts.peer_discards_data;
        steps.log(LogLine::SolvedManually { is_source });
        return Ok(if is_source { 1 } else { -1 });
    }
    steps.log(LogLine::SplitBrainUnresolved);
    steps.helper(Helper::SplitBrain);
    Err(Outcome::Refuse)
}

fn by_policy(facts: &Facts, steps: &mut Steps) -> Result<Option<Winner>, Outcome> {
    let decision = split_brain::decide(&facts.policies, &facts.nodes());
    if let Some(remark) = decision.remark {
        steps.log(LogLine::Policy(remark));
    }
    match (decision.outcome, facts.demotion) {
        (split_brain::Outcome::Solved(winner), _) => Ok(Some(winner)),
        (split_brain::Outcome::Unsolved, _) => Ok(None),
        (split_brain::Outcome::DemoteFirst, None) => Err(Outcome::TryDemotion),
        (split_brain::Outcome::DemoteFirst, Some(true)) => Ok(Some(Winner::Peer)),
        (split_brain::Outcome::DemoteFirst, Some(false)) => {
            steps.helper(Helper::PriLostAfterSplitBrain);
            Ok(None)
        }
    }
}

/// Items 7 and 8: an inconsistent source, or a target in use.
fn conflicts_with_use(verdict: i32, facts: &Facts, steps: &mut Steps) -> bool {
    if verdict > 0 && facts.usable_disk() <= DiskState::Inconsistent {
        steps.log(LogLine::InconsistentSource);
        return true;
    }
    let is_primary = facts.role.is_primary() && facts.demotion != Some(true);
    // With a disk that lacks data users see the peer's already. That must not lack any either; the
    // C driver does not ask.
    let sees_peer = facts.disk < DiskState::Consistent && !facts.told_alone;
    if verdict >= 0 || !is_primary || sees_peer {
        return false;
    }
    match facts.rr_conflict {
        Policy::Violently => {
            steps.log(LogLine::ViolatesStableData);
            return false;
        }
        Policy::CallPriLost => steps.helper(Helper::PriLost),
        _ => {}
    }
    steps.log(LogLine::PrimaryTarget);
    if facts.disk < DiskState::Consistent {
        steps.log(LogLine::PeerLacksWrites);
    }
    true
}

/// Leaves out the steps up to the policy's remark: they belong to the first round.
fn after_demotion(all: Steps) -> Steps {
    let mut steps = Steps::default();
    let first_round = |step: &Step| {
        matches!(
            step,
            Step::Helper(Helper::InitialSplitBrain) | Step::Log(LogLine::Policy(_))
        )
    };
    for step in all.iter().skip_while(first_round) {
        steps.push(step);
    }
    steps
}

#[cfg(test)]
mod tests;
