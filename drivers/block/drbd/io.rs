// SPDX-License-Identifier: GPL-2.0

//! The data path and the threads: moves bytes, memory and time between `sys` and `engine`.
//!
//! What a resource, a device and a connection consist of, and in which order their locks are
//! taken, stands in `Documentation/architecture.md`.

pub(crate) mod acks;
pub(crate) mod admin;
pub(crate) mod after;
pub(crate) mod agreement;
pub(crate) mod announce;
pub(crate) mod attach;
pub(crate) mod bitmap;
pub(crate) mod bitmap_exchange;
pub(crate) mod checksums;
pub(crate) mod connection;
pub(crate) mod cpu_mask;
pub(crate) mod device;
pub(crate) mod disconnect;
pub(crate) mod disk;
pub(crate) mod disk_error;
pub(crate) mod disk_timer;
pub(crate) mod environment;
pub(crate) mod erase;
pub(crate) mod fault;
pub(crate) mod fence;
pub(crate) mod fifo;
pub(crate) mod handshake;
pub(crate) mod held_io;
pub(crate) mod helper;
pub(crate) mod limits;
pub(crate) mod peer;
pub(crate) mod peer_request;
pub(crate) mod read;
pub(crate) mod receiver;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod request_timer;
pub(crate) mod resource;
pub(crate) mod resync;
pub(crate) mod sender;
pub(crate) mod size;
pub(crate) mod state;
pub(crate) mod submit;
pub(crate) mod worker;
