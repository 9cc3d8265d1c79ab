// SPDX-License-Identifier: GPL-2.0

//! The user header of a message, and the attribute that names the object it is about (spec §3.1,
//! §3.3).

use super::attr::{Attribute, Attributes, Writer};

/// Number of the top-level attribute with text for humans.
pub const ATTRIBUTE_REPLY: u16 = 1;
/// Number of the top-level attribute that names the object.
pub const ATTRIBUTE_CONTEXT: u16 = 2;
/// Number of the text inside [`ATTRIBUTE_REPLY`].
pub const REPLY_INFO_TEXT: u16 = 1;

/// Minor number of messages that are not about a minor.
pub const NO_MINOR: u32 = u32::MAX;
/// Volume number of a context that names none.
pub const NO_VOLUME: u32 = u32::MAX;
/// Longest name of a resource, without NUL.
pub const RESOURCE_NAME_LENGTH_MAX: usize = 127;
/// Longest address: the size of `struct sockaddr_storage`.
pub const ADDRESS_SIZE_MAX: usize = 128;

const VOLUME: u16 = 1;
const RESOURCE_NAME: u16 = 2;
const MY_ADDRESS: u16 = 3;
const PEER_ADDRESS: u16 = 4;

/// The header that follows the generic netlink header in every message of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserHeader {
    /// The minor that the message is about, or [`NO_MINOR`].
    pub minor: u32,
    /// Flags of a request, return code of a reply.
    pub word: u32,
}

impl UserHeader {
    /// Its size.
    pub const SIZE: usize = 8;
    /// Request flag: options that are not mentioned go back to their defaults.
    pub const SET_DEFAULTS: u32 = 1;

    /// Splits the header off a message.
    pub fn split(message: &[u8]) -> Option<(Self, &[u8])> {
        let (minor, rest) = message.split_first_chunk()?;
        let (word, rest) = rest.split_first_chunk()?;
        let header = Self {
            minor: u32::from_ne_bytes(*minor),
            word: u32::from_ne_bytes(*word),
        };
        Some((header, rest))
    }

    /// The return code in a reply.
    pub const fn ret_code(self) -> i32 {
        i32::from_ne_bytes(self.word.to_ne_bytes())
    }

    /// The header of a reply.
    pub const fn reply(minor: u32, ret_code: i32) -> Self {
        Self {
            minor,
            word: u32::from_ne_bytes(ret_code.to_ne_bytes()),
        }
    }

    /// Writes the header; it belongs in front of all attributes.
    pub fn encode(self, writer: &mut Writer<'_>) {
        writer.put_raw(&self.minor.to_ne_bytes());
        writer.put_raw(&self.word.to_ne_bytes());
    }
}

/// The object that a message is about, as far as it is named. Borrowed from the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// The volume.
    pub volume: Option<u32>,
    /// The resource, without NUL; an empty name is that of none.
    pub resource_name: Option<&'a [u8]>,
    /// This node's end of the connection, a `struct sockaddr`.
    pub my_address: Option<&'a [u8]>,
    /// The peer's end of the connection, a `struct sockaddr`.
    pub peer_address: Option<&'a [u8]>,
}

/// What is wrong with a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextError {
    /// An attribute is too short or too long, or a string without end.
    Malformed,
}

impl<'a> Context<'a> {
    /// Reads the context out of the attributes of a message; one that is absent names nothing.
    pub fn find(attributes: Attributes<'a>) -> Result<Self, ContextError> {
        match attributes.find(ATTRIBUTE_CONTEXT) {
            Some(attribute) => Self::decode(attribute.nested()),
            None => Ok(Self::default()),
        }
    }

    /// Reads the attributes inside a context attribute.
    pub fn decode(attributes: Attributes<'a>) -> Result<Self, ContextError> {
        let mut context = Self::default();
        for attribute in attributes {
            context.take(&attribute).ok_or(ContextError::Malformed)?;
        }
        Ok(context)
    }

    fn take(&mut self, attribute: &Attribute<'a>) -> Option<()> {
        match attribute.number {
            VOLUME => {
                let volume = attribute.as_u32()?;
                self.volume = (volume != NO_VOLUME).then_some(volume);
            }
            RESOURCE_NAME => {
                self.resource_name = Some(attribute.as_text()?);
            }
            MY_ADDRESS => self.my_address = address(attribute.payload)?,
            PEER_ADDRESS => self.peer_address = address(attribute.payload)?,
            _ => {}
        }
        Some(())
    }

    /// Writes the context attribute; the C driver sets no flag on it.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        let nest = writer.begin(ATTRIBUTE_CONTEXT, 0);
        if let Some(volume) = self.volume {
            writer.put_u32(VOLUME, volume);
        }
        if let Some(name) = self.resource_name {
            writer.put_text(RESOURCE_NAME, name);
        }
        if let Some(address) = self.my_address {
            writer.put_bytes(MY_ADDRESS, address);
        }
        if let Some(address) = self.peer_address {
            writer.put_bytes(PEER_ADDRESS, address);
        }
        writer.end(nest);
    }
}

/// An address of acceptable length; an empty one counts as absent.
fn address(payload: &[u8]) -> Option<Option<&[u8]>> {
    if payload.len() > ADDRESS_SIZE_MAX {
        return None;
    }
    Some((!payload.is_empty()).then_some(payload))
}

/// Writes the text for humans of a reply.
pub fn encode_info_text(writer: &mut Writer<'_>, text: &[u8]) {
    let nest = writer.begin(ATTRIBUTE_REPLY, 0);
    writer.put_text(REPLY_INFO_TEXT, text);
    writer.end(nest);
}

/// The text for humans in a reply, if there is one.
pub fn info_text(attributes: Attributes<'_>) -> Option<&[u8]> {
    attributes
        .find(ATTRIBUTE_REPLY)?
        .nested()
        .find(REPLY_INFO_TEXT)?
        .as_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_context_comes_back_as_it_was_written() {
        let context = Context {
            volume: Some(3),
            resource_name: Some(b"r0"),
            my_address: Some(&[2; 16]),
            peer_address: Some(&[10; 28]),
        };
        let mut buffer = [0; 128];
        let mut writer = Writer::new(&mut buffer);
        context.encode(&mut writer);
        assert_eq!(
            Context::find(Attributes::new(writer.finish().unwrap())),
            Ok(context)
        );
    }

    #[test]
    fn an_address_longer_than_any_sockaddr_is_refused() {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        Context {
            my_address: Some(&[2; 129]),
            ..Context::default()
        }
        .encode(&mut writer);
        let read = Context::find(Attributes::new(writer.finish().unwrap()));
        assert_eq!(read, Err(ContextError::Malformed));
    }

    #[test]
    fn the_unspecified_volume_names_nothing() {
        let mut buffer = [0; 64];
        let mut writer = Writer::new(&mut buffer);
        let context = Context {
            volume: Some(NO_VOLUME),
            ..Context::default()
        };
        context.encode(&mut writer);
        let read = Context::find(Attributes::new(writer.finish().unwrap()));
        assert_eq!(read, Ok(Context::default()));
    }

    #[test]
    fn the_user_header_is_eight_bytes_in_front() {
        let mut buffer = [0; 16];
        let mut writer = Writer::new(&mut buffer);
        UserHeader::reply(2, -11).encode(&mut writer);
        writer.put_u8(1, 1);
        let (header, rest) = UserHeader::split(writer.finish().unwrap()).unwrap();
        assert_eq!((header.minor, header.ret_code(), rest.len()), (2, -11, 8));
        assert_eq!(UserHeader::split(&[0; 7]), None);
    }

    proptest! {
        #[test]
        fn a_context_from_arbitrary_bytes_is_bounded_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Ok(context) = Context::decode(Attributes::new(&bytes)) {
                prop_assert!(context.my_address.unwrap_or_default().len() <= ADDRESS_SIZE_MAX);
            }
        }
    }
}
