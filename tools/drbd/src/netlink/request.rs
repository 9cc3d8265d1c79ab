// SPDX-License-Identifier: GPL-2.0

//! Requests to the driver.

use super::message::{GENERIC_HEADER_SIZE, GENL_CONTROL, NETLINK_HEADER_SIZE};
use super::write_attributes;
use crate::failure::Outcome;
use drbd_engine::config::attr::{Attributes, Writer, FLAG_NESTED};
use drbd_engine::config::command::{Command, Usage, FAMILY_NAME, FAMILY_VERSION};
use drbd_engine::config::context::NO_MINOR;
use drbd_engine::config::{Context, UserHeader, Value};

const FLAG_REQUEST: u16 = 1;
const FLAG_DUMP: u16 = 0x300;

/// Room for a context: a name and two addresses.
const CONTEXT_SIZE_MAX: usize = 1024;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_VERSION: u8 = 2;
const CONTROL_FAMILY_NAME: u16 = 2;

type WriteAttributes = Box<dyn Fn(&mut Writer<'_>)>;

/// A request: a command, the object it is about, and options.
pub struct Request {
    command: u8,
    flags: u16,
    header: Option<UserHeader>,
    attributes: Vec<WriteAttributes>,
}

/// Value of an option that owns its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    /// Anything that is not text.
    Plain(Value<'static>),
    /// Text without its NUL.
    Text(Vec<u8>),
}

impl OwnedValue {
    /// The value.
    pub fn borrow(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => *value,
            Self::Text(text) => Value::Text(text),
        }
    }
}

impl Request {
    /// A request that is about no minor.
    pub fn new(command: Command) -> Self {
        Self::about_minor(command, NO_MINOR)
    }

    /// A request about a minor.
    pub fn about_minor(command: Command, minor: u32) -> Self {
        let dumps = match command.usage() {
            Usage::Dump => FLAG_DUMP,
            _ => 0,
        };
        Self {
            command: command.number(),
            flags: FLAG_REQUEST | dumps,
            header: Some(UserHeader { minor, word: 0 }),
            attributes: Vec::new(),
        }
    }

    /// Asks the controller for the driver's family.
    pub(super) fn family_lookup() -> Self {
        Self {
            command: CONTROL_GET_FAMILY,
            flags: FLAG_REQUEST,
            header: None,
            attributes: vec![Box::new(|writer| {
                writer.put_text(CONTROL_FAMILY_NAME, FAMILY_NAME.as_bytes());
            })],
        }
    }

    /// Asks for the stream of a command that can also give a single reply.
    #[must_use]
    pub fn as_dump(mut self) -> Self {
        self.flags |= FLAG_DUMP;
        self
    }

    /// Options that are not mentioned go back to their defaults.
    #[must_use]
    pub fn setting_defaults(mut self, on: bool) -> Self {
        if let (Some(header), true) = (&mut self.header, on) {
            header.word |= UserHeader::SET_DEFAULTS;
        }
        self
    }

    /// Names a resource.
    #[must_use]
    pub fn resource(self, name: &str) -> Self {
        self.volume_of(name, None)
    }

    /// Names a volume of a resource.
    #[must_use]
    pub fn volume_of(self, name: &str, volume: Option<u32>) -> Self {
        let name = name.as_bytes().to_vec();
        self.with(move |writer| {
            let context = Context {
                volume,
                resource_name: Some(&name),
                ..Context::default()
            };
            encode_nested(&context, writer);
        })
    }

    /// Names a connection by its ends, and its resource where that is not known by them.
    #[must_use]
    pub fn connection(self, name: Option<&str>, mine: Vec<u8>, peer: Vec<u8>) -> Self {
        let name = name.map(|name| name.as_bytes().to_vec());
        self.with(move |writer| {
            let context = Context {
                resource_name: name.as_deref(),
                my_address: Some(&mine),
                peer_address: Some(&peer),
                ..Context::default()
            };
            encode_nested(&context, writer);
        })
    }

    /// Carries options of the set with this attribute: numbers and values.
    #[must_use]
    pub fn options(self, attribute: u16, options: Vec<(u16, OwnedValue)>) -> Self {
        self.with(move |writer| {
            let nest = writer.begin(attribute, FLAG_NESTED);
            for (number, value) in &options {
                writer.put_value(*number, value.borrow());
            }
            writer.end(nest);
        })
    }

    fn with(mut self, write: impl Fn(&mut Writer<'_>) + 'static) -> Self {
        self.attributes.push(Box::new(write));
        self
    }

    /// The request as the kernel takes it.
    pub(super) fn bytes(&self, family: u16, sequence: u32) -> Outcome<Vec<u8>> {
        let body = write_attributes(&|writer| {
            if let Some(header) = self.header {
                header.encode(writer);
            }
            for write in &self.attributes {
                write(writer);
            }
        })?;
        let kind = match self.header {
            Some(_) => family,
            None => GENL_CONTROL,
        };
        let version = match self.header {
            Some(_) => FAMILY_VERSION,
            None => CONTROL_VERSION,
        };
        let headers = NETLINK_HEADER_SIZE + GENERIC_HEADER_SIZE;
        let length = u32::try_from(headers.saturating_add(body.len())).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([self.command, version, 0, 0]);
        bytes.extend(body);
        Ok(bytes)
    }
}

/// Writes a context with the flag for nested attributes. Drivers leave it away in what they send,
/// but
/// want to see it in requests.
fn encode_nested(context: &Context<'_>, writer: &mut Writer<'_>) {
    let mut buffer = [0; CONTEXT_SIZE_MAX];
    let mut plain = Writer::new(&mut buffer);
    context.encode(&mut plain);
    let Some(attribute) = plain
        .finish()
        .ok()
        .and_then(|bytes| Attributes::new(bytes).next())
    else {
        return;
    };
    writer.put_bytes(attribute.number | FLAG_NESTED, attribute.payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use drbd_engine::config::context::ATTRIBUTE_CONTEXT;
    use drbd_engine::config::{NetConf, Settings};

    #[test]
    fn a_dump_of_the_status_has_the_bytes_of_stock_drbdsetup() {
        let request = Request::new(Command::GetStatus).as_dump();
        let bytes = request.bytes(0x24, 0x6b02_b8e2).unwrap();
        let recorded = b"\x1c\x00\x00\x00\x24\x00\x01\x03\xe2\xb8\x02\x6b\x00\x00\x00\x00\
                         \x02\x01\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00";
        if cfg!(target_endian = "little") {
            assert_eq!(bytes, recorded);
        }
    }

    #[test]
    fn options_and_context_follow_the_header() {
        let request = Request::new(Command::Connect)
            .connection(Some("r0"), vec![2; 16], vec![3; 16])
            .options(
                NetConf::ATTRIBUTE,
                vec![(8, OwnedValue::Plain(Value::U32(70)))],
            );
        let bytes = request.bytes(36, 1).unwrap();
        let attributes = Attributes::new(&bytes[NETLINK_HEADER_SIZE + GENERIC_HEADER_SIZE + 8..]);
        assert_eq!(
            Context::find(attributes).unwrap().resource_name,
            Some(&b"r0"[..])
        );
        let timeout = attributes
            .find(NetConf::ATTRIBUTE)
            .unwrap()
            .nested()
            .find(8)
            .unwrap();
        assert_eq!(timeout.as_u32(), Some(70));
        let context = attributes.find(ATTRIBUTE_CONTEXT).unwrap();
        let kind = u16::from_ne_bytes([context.raw[2], context.raw[3]]);
        assert_eq!(kind, ATTRIBUTE_CONTEXT | FLAG_NESTED);
    }
}
