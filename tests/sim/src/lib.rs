// SPDX-License-Identifier: GPL-2.0

//! Two nodes in virtual time: the engine as the kernel runs it, a thin shell in the shape of the
//! module's, and oracles.
//!
//! A seed determines a run to the last byte. Faults are drawn: power cuts that lose or tear what
//! was not flushed, networks that cut, stall and reset, admins who change their minds. Afterwards
//! there is peace, and the pair must get well.

pub mod canary;
pub mod check;
pub mod drive;
pub mod net;
pub mod node;
pub mod oracle;
pub mod packet;
pub mod rng;
pub mod run;
pub mod shrink;
pub mod sim;
pub mod story;
pub mod tools;
