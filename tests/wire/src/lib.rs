// SPDX-License-Identifier: GPL-2.0

//! Reads recorded conversations: from a compressed pcap file to the packets on each socket.
//!
//! The recordings in `captures/` are two nodes with the C driver of kernel 7.3: `t`, 192.0.2.1,
//! and `Shentar`, 192.0.2.2. Each covers one configuration, from the first connect on:
//!
//! * `c-plain`: protocol C; full sync, writes of 512 B to 1 MiB, flush, discard, disconnect,
//!   bitmap resync, role swap;
//! * `c-auth-integrity`: the same with authentication, data integrity, checksum-based resync,
//!   run-length encoded bitmap and an online verify that finds a difference;
//! * `a`, `b`: protocols A and B, the latter with a verify;
//! * `split-brain`: both sides written while apart, refused, solved with discard-my-data.

pub mod capture;
pub mod conversation;
pub mod packet;
