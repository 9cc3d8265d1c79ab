// SPDX-License-Identifier: GPL-2.0

//! Every limit of the data path, by name.

/// Application requests of a resource that are in flight or wait for their barrier ack.
///
/// Four epochs of the default `max-epoch-size`; a request beyond waits in the submit work.
pub(crate) const REQUESTS_MAX: usize = 8192;
/// Requests of the peer and of resyncs that a resource works on at a time.
pub(crate) const PEER_REQUESTS_MAX: usize = 2048;
/// Those of them that may be put aside while their blocks are in use: what is left serves the rest.
///
/// A target asks for half of the default `max-buffers` at most, in requests of a page or more.
pub(crate) const ASIDE_MAX: usize = PEER_REQUESTS_MAX / 2;
/// Ranges that may be claimed on a device at a time.
pub(crate) const RANGES_MAX: usize = REQUESTS_MAX + PEER_REQUESTS_MAX;
/// Epochs of the peer that may be open at a time; a barrier beyond waits.
pub(crate) const EPOCHS_MAX: usize = 64;
/// Application bios that may wait for a cold extent, a busy range or a free request.
pub(crate) const DELAYED_BIOS_MAX: usize = 4096;
/// Ranges of a device's disk that may wait to be erased: all of the application and of the peer.
pub(crate) const ERASURES_MAX: usize = DELAYED_BIOS_MAX + PEER_REQUESTS_MAX;
/// Bios that are available to the module when memory is short.
pub(crate) const BIO_RESERVE: u32 = 128;
/// Pause before a failed connection is tried again.
pub(crate) const RECONNECT_PAUSE_MS: u32 = 1000;
/// How long changed metadata may stay in memory only.
pub(crate) const METADATA_DIRTY_MS: u64 = 5000;
/// Largest application bio that a device takes before it had a disk.
pub(crate) const FRESH_BIO_BYTES: u32 = 8192;
/// Largest application bio as long as no peer said what it takes.
pub(crate) const UNKNOWN_PEER_BIO_BYTES: u32 = 4096;
/// How long a command waits for application I/O to end before it gives up.
pub(crate) const HOLD_IO_MS: u32 = 30_000;
/// How long a command waits for a thread that a backing device or the peer may keep.
pub(crate) const COMMAND_WAIT_MS: u32 = 30_000;
