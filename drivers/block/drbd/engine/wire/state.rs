// SPDX-License-Identifier: GPL-2.0

//! Payloads of states: p_state, p_req_state and p_req_state_reply (Spec §1.8, §1.9).

use zerocopy::big_endian::{I32, U32};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// A state word as it travels; P_STATE is nothing else.
///
/// What its bits mean, and which words make sense, the engine's `state` module knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateWord(pub u32);

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct StateLayout {
    word: U32,
}

impl From<StateLayout> for StateWord {
    fn from(layout: StateLayout) -> Self {
        Self(layout.word.get())
    }
}

impl From<StateWord> for StateLayout {
    fn from(state: StateWord) -> Self {
        Self {
            word: state.0.into(),
        }
    }
}

fixed_payload!(StateWord, StateLayout, 4);

/// p_req_state: P_STATE_CHG_REQ and P_CONN_ST_CHG_REQ, seen from the sender's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRequest {
    /// The bits that are to change.
    pub mask: StateWord,
    /// What they are to become.
    pub value: StateWord,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RequestLayout {
    mask: U32,
    value: U32,
}

impl From<RequestLayout> for StateRequest {
    fn from(layout: RequestLayout) -> Self {
        Self {
            mask: StateWord(layout.mask.get()),
            value: StateWord(layout.value.get()),
        }
    }
}

impl From<StateRequest> for RequestLayout {
    fn from(request: StateRequest) -> Self {
        Self {
            mask: request.mask.0.into(),
            value: request.value.0.into(),
        }
    }
}

fixed_payload!(StateRequest, RequestLayout, 8);

/// p_req_state_reply: P_STATE_CHG_REPLY and P_CONN_ST_CHG_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateReply {
    /// The result of the change, 1 and up mean consent.
    pub code: i32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ReplyLayout {
    code: I32,
}

impl From<ReplyLayout> for StateReply {
    fn from(layout: ReplyLayout) -> Self {
        Self {
            code: layout.code.get(),
        }
    }
}

impl From<StateReply> for ReplyLayout {
    fn from(reply: StateReply) -> Self {
        Self {
            code: reply.code.into(),
        }
    }
}

fixed_payload!(StateReply, ReplyLayout, 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_word_is_the_interop_vector() {
        // Primary/Secondary, Connected, UpToDate/UpToDate.
        let word = StateWord(1 | 2 << 2 | 10 << 4 | 8 << 9 | 8 << 13);
        assert_eq!(word.encode(), [0x00, 0x01, 0x10, 0xa9]);
    }

    #[test]
    fn refusals_are_negative_on_the_wire() {
        assert_eq!(StateReply { code: -19 }.encode(), [0xff, 0xff, 0xff, 0xed]);
        assert_eq!(
            StateReply::decode(&[0xff, 0xff, 0xff, 0xed]),
            Ok(StateReply { code: -19 })
        );
    }
}
