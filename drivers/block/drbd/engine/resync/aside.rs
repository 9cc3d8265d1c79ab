// SPDX-License-Identifier: GPL-2.0

//! Requests of the target, or of a verify, for blocks in use.
//!
//! The C driver's receiver waits for the blocks. Here it goes on, see [`crate::range`]; the request
//! keeps its place there, and is looked at again by the worker. Every one is answered as long as
//! there is a connection: the target's writes wait for that.

use crate::state::ConnState;

/// What to do now about a request that was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutAside {
    /// Claim its range, and read; or leave it aside.
    Retry,
    /// The resync or verify that it belongs to is over: say that no data are to come, which counts
    /// as nothing in the next one (P_RS_CANCEL).
    Cancel,
    /// This node has the data no more: say so (P_NEG_RS_DREPLY).
    Refuse,
    /// There is nobody to be told: give back what it holds.
    Forget,
}

/// The first protocol version with P_RS_CANCEL. Before it nothing better can be said than that the
/// data cannot be read.
const CANCEL_SINCE: u32 = 96;

impl PutAside {
    /// `conn` is the volume's, `serves_reads` whether the peer may read from its disk, `apv` the
    /// agreed protocol version, and `is_lost` whether the connection is going down.
    pub const fn of(conn: ConnState, serves_reads: bool, apv: u32, is_lost: bool) -> Self {
        // What a target asked for before a pause it gets.
        let is_wanted = conn.is_resync_source() || matches!(conn, ConnState::VerifyT);
        match (is_lost, is_wanted) {
            (true, _) => Self::Forget,
            (false, false) if apv >= CANCEL_SINCE => Self::Cancel,
            (false, true) if serves_reads => Self::Retry,
            _ => Self::Refuse,
        }
    }
}
