// SPDX-License-Identifier: GPL-2.0

//! From two nodes that know each other's address to a connection on which data may flow.
//!
//! The order is: [`sockets`] finds a pair of sockets, [`features`] agrees on a version, [`auth`]
//! proves that both know the secret, [`protocol`] and [`sync_param`] compare the configurations,
//! [`sizes`] the devices. Everything here is a pure decision; nothing sleeps (Spec §1.3 to §1.12).

pub mod auth;
pub mod features;
pub mod peer_state;
pub mod protocol;
pub mod sizes;
pub mod sockets;
pub mod split_brain;
pub mod sync_decision;
pub mod sync_param;
pub mod uuid_compare;
