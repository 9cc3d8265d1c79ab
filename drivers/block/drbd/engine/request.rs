// SPDX-License-Identifier: GPL-2.0

//! One application request: where it goes, what completes it, what its failure means (spec §5).
//!
//! [`route()`] decides at admission which parts a request gets. From then on its progress is one
//! word, [`RequestState`], that [`apply()`] moves along; the shell keeps the word in an atomic and
//! needs no lock to change it. [`on_disk_error()`] says what an error of the backing device does to
//! the disk.

pub mod admission;
pub mod disk_error;
pub mod life;
pub mod route;
pub mod start;

pub use admission::{may_admit, Admission};
pub use disk_error::{
    holds_completions, lacks_data, on_disk_error, unjudged, without_data, DiskError,
    DiskErrorActions, Writer,
};
pub use life::{apply, enter, settle, Consequences, Context, Event, RequestState};
pub use route::{
    never_prefers_remote, reads_here, route_flush, route_read, route_write, tells_out_of_sync,
    Copies, Destination, ReadInputs, Route, WriteRoute,
};
pub use start::{Kind, Start};

#[cfg(test)]
mod tests;
