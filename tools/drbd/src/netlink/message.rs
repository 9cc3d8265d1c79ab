// SPDX-License-Identifier: GPL-2.0

//! Messages from the kernel: framing of netlink and generic netlink, read without trust.

use drbd_engine::config::attr::Attributes;
use drbd_engine::config::command::EVENTS_GROUP;
use drbd_engine::config::context::info_text;
use drbd_engine::config::{Context, RetCode, Settings, UserHeader};

/// Message type of generic netlink's own controller.
pub(super) const GENL_CONTROL: u16 = 16;
/// Bytes of a netlink header.
pub(super) const NETLINK_HEADER_SIZE: usize = 16;
/// Bytes of a generic netlink header.
pub(super) const GENERIC_HEADER_SIZE: usize = 4;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const ALIGNMENT: usize = 4;

/// Something the kernel sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of a family.
    Message(Message),
    /// A request failed in netlink itself, with this errno.
    Error {
        /// Sequence number of the request.
        sequence: u32,
        /// The errno, positive.
        error: i32,
    },
    /// A stream of replies is complete.
    Done {
        /// Sequence number of the request.
        sequence: u32,
    },
}

impl Received {
    /// The sequence number: of the request that this answers, or of the event.
    pub fn sequence(&self) -> u32 {
        match self {
            Self::Message(message) => message.sequence,
            Self::Error { sequence, .. } | Self::Done { sequence } => *sequence,
        }
    }
}

/// A message of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Sequence number of the request that this answers, or of the event.
    pub sequence: u32,
    /// The command's number.
    pub command: u8,
    /// What follows the generic netlink header.
    payload: Vec<u8>,
}

impl Message {
    /// A message as it would have been received.
    #[cfg(test)]
    pub(crate) fn for_test(command: u8, sequence: u32, payload: &[u8]) -> Self {
        Self {
            sequence,
            command,
            payload: payload.to_vec(),
        }
    }

    /// The family's header; all zeroes if the message is too short for one.
    pub fn header(&self) -> UserHeader {
        UserHeader::split(&self.payload)
            .map_or(UserHeader { minor: 0, word: 0 }, |(header, _)| header)
    }

    /// The return code of a reply.
    pub fn ret_code(&self) -> RetCode {
        RetCode(self.header().ret_code())
    }

    /// The attributes.
    pub fn attributes(&self) -> Attributes<'_> {
        super::attributes_after(&self.payload, UserHeader::SIZE)
    }

    /// The attributes of a message of the controller, which has no header of its own.
    pub(super) fn control_attributes(&self) -> Attributes<'_> {
        super::attributes_after(&self.payload, 0)
    }

    /// The text for humans, if there is one.
    pub fn info_text(&self) -> Option<String> {
        let text = info_text(self.attributes())?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// The object that the message is about; one that makes no sense names nothing.
    pub fn context(&self) -> Context<'_> {
        Context::find(self.attributes()).unwrap_or_default()
    }

    /// The name of the resource that the message is about.
    pub fn resource_name(&self) -> String {
        let name = self.context().resource_name.unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// A set of options or status, if the message has it. What it lacks has its default.
    pub fn settings<S: Settings>(&self) -> Option<Box<S>> {
        let attribute = self.attributes().find(S::ATTRIBUTE)?;
        let mut settings = Box::new(S::DEFAULT);
        for inner in attribute.nested() {
            if let Some(field) = S::field(inner.number) {
                if let Some(value) = field.decode(&inner) {
                    // A value that does not fit leaves the default, which is the best guess there
                    // is.
                    let _ = settings.store(inner.number, value);
                }
            }
        }
        Some(settings)
    }
}

/// What the controller says about a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FamilyReply {
    pub(super) id: u16,
    pub(super) version: u32,
    pub(super) header_size: u32,
    pub(super) events_group: Option<u32>,
}

impl FamilyReply {
    const ID: u16 = 1;
    const VERSION: u16 = 3;
    const HEADER_SIZE: u16 = 4;
    const GROUPS: u16 = 7;
    const GROUP_NAME: u16 = 1;
    const GROUP_ID: u16 = 2;

    pub(super) fn read(attributes: Attributes<'_>) -> Self {
        let mut reply = Self::default();
        for attribute in attributes {
            let number = attribute.as_u32().unwrap_or(0);
            match attribute.number {
                Self::ID => {
                    let id = attribute.payload.first_chunk().copied();
                    reply.id = id.map_or(0, u16::from_ne_bytes);
                }
                Self::VERSION => reply.version = number,
                Self::HEADER_SIZE => reply.header_size = number,
                Self::GROUPS => {
                    reply.events_group = attribute
                        .nested()
                        .find_map(|group| Self::group(group.nested()));
                }
                _ => {}
            }
        }
        reply
    }

    fn group(attributes: Attributes<'_>) -> Option<u32> {
        let name = attributes.find(Self::GROUP_NAME)?.as_text()?;
        let id = attributes.find(Self::GROUP_ID)?.as_u32()?;
        (name == EVENTS_GROUP.as_bytes()).then_some(id)
    }
}

/// Takes a datagram apart; what does not look like a message ends it.
pub(super) fn split(mut datagram: &[u8]) -> Vec<Received> {
    let mut messages = Vec::new();
    while let Some((received, rest)) = split_first(datagram) {
        messages.extend(received);
        datagram = rest;
    }
    messages
}

fn split_first(datagram: &[u8]) -> Option<(Option<Received>, &[u8])> {
    let (header, _) = datagram.split_first_chunk::<NETLINK_HEADER_SIZE>()?;
    let [l0, l1, l2, l3, t0, t1, _, _, s0, s1, s2, s3, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let kind = u16::from_ne_bytes([t0, t1]);
    let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
    let body = datagram.get(NETLINK_HEADER_SIZE..length)?;
    let next = length.checked_next_multiple_of(ALIGNMENT)?;
    let rest = datagram.get(next..).unwrap_or_default();
    Some((receive(kind, sequence, body), rest))
}

fn receive(kind: u16, sequence: u32, body: &[u8]) -> Option<Received> {
    let errno = || {
        body.first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code).wrapping_neg())
    };
    match kind {
        // Errno 0 is an acknowledgement, which nobody asked for.
        TYPE_ERROR => (errno() != 0).then(|| Received::Error {
            sequence,
            error: errno(),
        }),
        TYPE_DONE if errno() > 0 => Some(Received::Error {
            sequence,
            error: errno(),
        }),
        TYPE_DONE => Some(Received::Done { sequence }),
        kind if kind < GENL_CONTROL => None,
        _ => {
            let (header, payload) = body.split_first_chunk::<GENERIC_HEADER_SIZE>()?;
            Some(Received::Message(Message {
                sequence,
                command: header.first().copied().unwrap_or(0),
                payload: payload.to_vec(),
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(NETLINK_HEADER_SIZE + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    #[test]
    fn a_datagram_may_hold_several_messages() {
        let datagram = [
            framed(40, &[9, 1, 0, 0, 1, 2, 3]),
            framed(TYPE_DONE, &[0; 4]),
        ]
        .concat();
        let received = split(&datagram);
        let [Received::Message(message), Received::Done { sequence: 7 }] = received.as_slice()
        else {
            panic!("{received:?}");
        };
        assert_eq!((message.command, message.sequence), (9, 7));
        assert_eq!(message.payload, [1, 2, 3]);
    }

    #[test]
    fn a_failed_request_and_a_failed_dump_carry_their_errno() {
        for kind in [TYPE_ERROR, TYPE_DONE] {
            let datagram = framed(kind, &(-19i32).to_ne_bytes());
            let expected = Received::Error {
                sequence: 7,
                error: 19,
            };
            assert_eq!(split(&datagram), [expected]);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_taken_apart_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            for received in split(&bytes) {
                if let Received::Message(message) = received {
                    prop_assert!(message.payload.len() <= bytes.len());
                    message.context();
                    message.info_text();
                    FamilyReply::read(message.control_attributes());
                }
            }
        }
    }
}
