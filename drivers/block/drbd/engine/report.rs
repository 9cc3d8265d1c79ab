// SPDX-License-Identifier: GPL-2.0

//! The text of `/proc/drbd`: numbers in, characters out (spec §7.1).
//!
//! Tools tell the driver's version by it and people read it, so it is the C driver's to the byte.

pub mod grouped;
pub mod minor;
pub mod progress;
pub mod version;

pub use grouped::Grouped;
pub use minor::{Congestion, Counters, Details, LruStatistics, MinorText, WriteOrdering};
pub use progress::{ProgressText, Rate};
pub use version::VersionText;
