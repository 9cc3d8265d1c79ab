// SPDX-License-Identifier: GPL-2.0

//! The word a request starts with (spec §5.3, §5.6).

use super::life::RequestState;
use crate::config::Protocol;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads data.
    Read {
        /// The read is read-ahead: its failure is of no interest, it is not tried on the other
        /// node.
        read_ahead: bool,
    },
    /// Changes data: write, discard or write-zeroes.
    Write,
    /// Has a flush made, then writes data.
    FlushAndWrite,
    /// An empty flush.
    Flush,
}

/// The parts a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// What the request does.
    pub kind: Kind,
    /// It is submitted to the local disk.
    pub local: bool,
    /// That disk is UpToDate.
    pub local_is_current: bool,
    /// It is sent to the peer.
    pub remote: bool,
    /// Only the message that the blocks are out of sync is sent to the peer.
    pub out_of_sync: bool,
    /// The protocol agreed with the peer.
    pub protocol: Protocol,
    /// The peer acks a write as its flags say (protocol 100 and up), not as the protocol does.
    pub chooses_ack: bool,
}

impl Start {
    /// The first word: the submitter holds the request, and every part is pending.
    ///
    /// It must be stored before any part can report. The peer's part is already queued: give it to
    /// the sender afterwards. The submitter ends with [`super::Event::SubmitterDone`].
    pub fn state(&self) -> RequestState {
        let mut state = RequestState::SUBMITTING | self.kind_bits();
        if self.local {
            state = state | RequestState::LOCAL_PENDING;
        }
        if self.remote {
            state = state | self.remote_bits();
        } else if self.out_of_sync {
            state = state | RequestState::NET_QUEUED | RequestState::OUT_OF_SYNC_ONLY;
        }
        state
    }

    fn kind_bits(&self) -> RequestState {
        match self.kind {
            Kind::Read { read_ahead: false } => RequestState::RETRYABLE,
            Kind::Read { read_ahead: true } => RequestState::default(),
            Kind::Write => RequestState::WRITE,
            Kind::FlushAndWrite => RequestState::WRITE | RequestState::FLUSHES_FIRST,
            Kind::Flush => RequestState::WRITE | RequestState::FLUSH,
        }
    }

    fn remote_bits(&self) -> RequestState {
        let sent = RequestState::NET_PENDING | RequestState::NET_QUEUED;
        match self.kind {
            Kind::Read { .. } => sent,
            // A flush is never sent: closing the epoch is all it needs (spec §1.16). Where the
            // local disk fails to make it, it is admitted again for the peer's.
            Kind::Flush => RequestState::RETRYABLE | RequestState::NET_DONE,
            Kind::Write | Kind::FlushAndWrite => {
                sent | RequestState::EXPECT_BARRIER_ACK | self.expected_ack()
            }
        }
    }

    /// What no good disk of this node takes is nowhere before it is on the peer's, and is not told
    /// done before. The C driver lets a node without a disk tell by protocol A what may never
    /// arrive.
    fn expected_ack(&self) -> RequestState {
        let is_kept = self.local && self.local_is_current;
        if !is_kept && self.chooses_ack {
            return RequestState::EXPECT_WRITE_ACK;
        }
        match self.protocol {
            Protocol::A => RequestState::default(),
            Protocol::B => RequestState::EXPECT_RECEIVE_ACK,
            Protocol::C => RequestState::EXPECT_WRITE_ACK,
        }
    }
}
