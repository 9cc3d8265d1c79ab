// SPDX-License-Identifier: GPL-2.0

//! Resync and online verify: what to ask for next, how fast, and how far it got (spec §6).
//!
//! The node that drives (the target, or VerifyS) runs turns: [`Controller::turn`] says how many
//! sectors may be asked for, [`Planner`] or [`VerifyPlanner`] say which. The node that serves asks
//! [`Throttle`] whether to let the application go first, and [`PutAside`] what becomes of requests
//! for blocks in use. Both keep [`Progress`].

mod aside;
mod checksum;
mod controller;
pub mod order;
mod planner;
mod progress;
mod throttle;
mod verify;

pub use aside::PutAside;
pub use checksum::{ChecksumFacts, EqualChecksums};
pub use controller::{Controller, Limits, Pace, Window, APPLICATION_MEMORY_NS, TURN_NS};
pub use planner::{Deferred, DirtyBits, Next, Planner, Request, Shape};
pub use progress::{Mark, Progress, MARKS, MARK_STEP_NS};
pub use throttle::{Activity, Throttle, COURTESY_MS};
pub use verify::{can_stop_early, Differing, Extent, Settled, Verify, VerifyPlanner};

#[cfg(test)]
mod tests;
