// SPDX-License-Identifier: GPL-2.0

//! Faults that are aimed: at the moment after a promise, when what it counts on may be in a cache.
//!
//! Whether a run has them, and what of them happens when, is drawn apart from all else.

use super::{choose_aside, Rng, Target, World};
use crate::drive::{Keep, Trouble};
use crate::sim::{Moment, MS, US};

/// Whether faults of a run are aimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// In every fourth run or so.
    #[default]
    BySeed,
    /// They come as they come.
    Off,
    /// Some are aimed.
    On,
}

/// What is drawn for such faults, and what is to come of it.
pub(super) struct Marksman {
    rng: Rng,
    /// A power cut that comes soon.
    due: Option<Due>,
    /// Then there is peace: what a fault has made unequal is not made equal by those after it.
    strikes_left: u64,
}

/// A power cut that comes at this time, or when a command ends if that is sooner.
#[derive(Clone, Copy)]
struct Due {
    at_ns: u64,
    nodes: &'static [usize],
    keep: Keep,
}

const NODES: [&[usize]; 2] = [&[0], &[1]];
const BOTH: &[usize] = &[0, 1];

impl Marksman {
    /// The marksman of a run, if it has one.
    pub(super) fn of(aim: Aim, seed: u64) -> Option<Self> {
        let mut rng = Rng::new(!seed.rotate_left(48));
        let aims = rng.one_in(4);
        let strikes_left = rng.between(1, 6);
        let marksman = Self {
            rng,
            due: None,
            strikes_left,
        };
        match aim {
            Aim::BySeed => aims.then_some(marksman),
            Aim::Off => None,
            Aim::On => Some(marksman),
        }
    }
}

impl World {
    /// Looks whether this is the moment; whether it was the last.
    pub(super) fn aim(&mut self) -> bool {
        let moment = self.sim.moment.take();
        let Some(mut marksman) = self.marksman.take() else {
            return false;
        };
        match marksman.due {
            Some(due) => {
                let is_obeyed = moment == Some(Moment::Obeyed);
                if is_obeyed || self.sim.now_ns() >= due.at_ns {
                    marksman.due = None;
                    self.cut_down(due.nodes, due.keep);
                }
            }
            None => {
                let chance = match moment {
                    None => None,
                    Some(Moment::Told) => Some(300),
                    Some(Moment::Stored) => Some(150),
                    Some(Moment::Obeyed) => Some(3),
                };
                let strikes = chance.is_some_and(|chance| marksman.rng.one_in(chance));
                marksman.strikes_left -= u64::from(strikes);
                if strikes && self.happens() {
                    self.strike(&mut marksman);
                }
            }
        }
        let is_last = marksman.strikes_left == 0 && marksman.due.is_none();
        self.marksman = Some(marksman);
        is_last
    }

    fn strike(&mut self, marksman: &mut Marksman) {
        let rng = &mut marksman.rng;
        let id = choose_aside(rng, 2);
        let longest_ns = [200 * US, 5 * MS, 30 * MS][choose_aside(rng, 3)];
        let at_ns = self.sim.now_ns() + rng.below(longest_ns);
        let primary = self.primary().unwrap_or(id);
        let (own, peer) = (NODES[primary], NODES[1 - primary]);
        let mut falls_due = |nodes, keep| marksman.due = Some(Due { at_ns, nodes, keep });
        match rng.below(9) {
            // What the metadata says is there, what it says it of is not.
            0 | 1 => self.cut_down(NODES[id], Keep::METADATA),
            2 => self.cut_down(BOTH, Keep::METADATA),
            3 => self.cut_down(NODES[id], Keep::DATA),
            // A Primary is demoted, and no data is in flight any more.
            4 | 5 => {
                self.command(primary, 8, Target::All);
                falls_due(BOTH, Keep::METADATA);
            }
            // The peer is lost, and soon after it who went on alone; the other goes on then.
            6 => {
                self.crash_keeping(1 - primary, Some(Keep::ALL));
                falls_due(own, Keep::DATA);
            }
            // A Primary without a disk, and a peer that is slow, or fails and dies of it.
            7 => {
                self.command(primary, 16, Target::All);
                let meta_fails = self.disks_fail && rng.one_in(2);
                let trouble = Trouble {
                    writes_permille: if meta_fails { 1000 } else { 0 },
                    slowness: if meta_fails { 1 } else { 50 },
                    ..Trouble::NONE
                };
                self.trouble_with(1 - primary, !meta_fails, trouble);
                if meta_fails {
                    falls_due(peer, Keep::ALL);
                }
            }
            // Flushes fail, and then the power.
            _ => {
                let trouble = Trouble {
                    flushes_permille: 1000,
                    ..Trouble::NONE
                };
                if self.disks_fail {
                    self.trouble_with(1 - primary, true, trouble);
                }
                falls_due(peer, Keep::METADATA);
            }
        }
    }

    fn primary(&self) -> Option<usize> {
        let is_primary = |id: &usize| {
            let node = self.slots[*id].node.as_ref();
            node.is_some_and(|node| node.is_primary())
        };
        (0..2).find(is_primary)
    }

    /// Cuts the power of nodes, which boot at once but where one went on alone before: its peer is
    /// promoted first.
    fn cut_down(&mut self, ids: &[usize], keep: Keep) {
        for &id in ids {
            self.heal(id);
            self.crash_keeping(id, Some(keep));
        }
        let one = ids.first().copied().unwrap_or(0);
        let is_last = ids.len() == 1 && self.slots[1 - one].node.is_none();
        if is_last {
            self.boot(1 - one);
            self.command(1 - one, 0, Target::All);
            return;
        }
        for &id in ids {
            self.boot(id);
        }
    }
}
