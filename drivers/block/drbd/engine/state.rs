// SPDX-License-Identifier: GPL-2.0

//! The state of a volume and of its connection: what it may become, and what follows when it
//! changes (spec §4).
//!
//! A volume's state is one 32-bit word. Every change goes the same way: a [`Change`] is applied to
//! the old word, the result is brought into shape ([`sanitize`]), judged ([`is_valid_soft`],
//! [`soft_transition`], [`hard_transition`]), stored, and then acted upon ([`effects_now`],
//! [`effects_after`]). All of it is pure: the facts the rules read beside the word itself come in a
//! [`Context`].

pub mod change;
pub mod connection;
pub mod context;
pub mod difference;
pub mod effects;
pub mod error;
pub mod policy;
pub mod promote;
pub mod resync;
pub mod sanitize;
pub mod transition;
pub mod users;
pub mod validity;
pub mod values;
pub mod word;

pub use change::{change, needs_peer, Changed, Flags};
pub use connection::{
    change_all, connection_needs_peer, Aggregate, ConnectionChanged, VolumeChange,
};
pub use context::Context;
pub use difference::Difference;
pub use effects::{
    begins_when_io_goes_on, begins_while_suspended, effects_after, effects_now, holds_writes,
    restart_is_seen, AfterContext, Deferred, DeferredEffects, Immediate, ImmediateEffects,
};
pub use error::{StateError, Success};
pub use policy::{Fencing, OnNoData};
pub use sanitize::{sanitize, Warning, Warnings};
pub use transition::{hard_transition, soft_transition};
pub use users::Seen;
pub use validity::is_valid_soft;
pub use values::{ConnState, DiskState, Role};
pub use word::{Change, Glance, InvalidState, State};
