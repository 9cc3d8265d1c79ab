// SPDX-License-Identifier: GPL-2.0

//! Whether a request has the shape that its command allows: only attributes that it takes, each of
//! exactly the size of its type, nests that say so, and nothing left over (spec §3.1).
//!
//! It is asked before anything is read from a request, so that what is not understood is refused
//! and never half obeyed. The C driver refuses the same, but for a verify that names its object by
//! more than the minor.

use super::attr::{Attribute, Attributes, HEADER_SIZE};
use super::command::Command;
use super::context::{ADDRESS_SIZE_MAX, ATTRIBUTE_CONTEXT, RESOURCE_NAME_LENGTH_MAX};
use super::field::{Field, Kind, Settings};
use super::info::{
    ConnectionInfo, ConnectionStatistics, DeviceInfo, DeviceStatistics, PeerDeviceInfo,
    PeerDeviceStatistics, ResourceInfo, ResourceStatistics,
};
use super::{
    Detach, Disconnect, DiskConf, NetConf, NewCurrentUuid, Resize, ResourceOptions, SetRole,
    StartVerify,
};

/// What is wrong with a request's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misshapen {
    /// An attribute is unknown, of the wrong size or kind, or cut (EINVAL).
    Malformed,
    /// A nest too short for an attribute, or bytes beyond the most that are allowed (ERANGE).
    OutOfRange,
}

/// A top-level attribute that holds others.
#[derive(Clone, Copy)]
struct Nest {
    number: u16,
    fields: &'static [Field],
}

impl Nest {
    const fn of<S: Settings>() -> Self {
        Self {
            number: S::ATTRIBUTE,
            fields: S::FIELDS,
        }
    }
}

const CONTEXT: Nest = Nest {
    number: ATTRIBUTE_CONTEXT,
    fields: &[
        Field::any_u32("volume").row(1, "", ""),
        Field::text("resource", RESOURCE_NAME_LENGTH_MAX).row(2, "", ""),
        Field::bytes("my-address", ADDRESS_SIZE_MAX).row(3, "", ""),
        Field::bytes("peer-address", ADDRESS_SIZE_MAX).row(4, "", ""),
    ],
};

/// What a command takes besides the context.
const fn nests(command: Command) -> &'static [Nest] {
    macro_rules! of {
        ($($settings:ty),+) => { const { &[$(Nest::of::<$settings>()),+] } };
    }
    match command {
        Command::NewResource | Command::ResourceOptions => of!(ResourceOptions),
        Command::Connect | Command::ChangeNetOptions => of!(NetConf),
        Command::Disconnect => of!(Disconnect),
        Command::Attach | Command::ChangeDiskOptions => of!(DiskConf),
        Command::Resize => of!(Resize),
        Command::Primary | Command::Secondary => of!(SetRole),
        Command::NewCurrentUuid => of!(NewCurrentUuid),
        Command::StartVerify => of!(StartVerify),
        Command::Detach => of!(Detach),
        Command::GetResources => of!(ResourceInfo, ResourceStatistics),
        Command::GetDevices => of!(DeviceInfo, DeviceStatistics),
        Command::GetConnections => of!(ConnectionInfo, ConnectionStatistics),
        Command::GetPeerDevices => of!(PeerDeviceInfo, PeerDeviceStatistics),
        _ => &[],
    }
}

/// Checks all attributes of a request.
pub fn check(command: Command, attributes: Attributes<'_>) -> Result<(), Misshapen> {
    each(attributes, |attribute| {
        nests(command)
            .iter()
            .chain([&CONTEXT])
            .find(|nest| nest.number == attribute.number)
            .ok_or(Misshapen::Malformed)?
            .check(attribute)
    })
}

impl Nest {
    fn check(&self, attribute: &Attribute<'_>) -> Result<(), Misshapen> {
        match attribute.payload.len() {
            _ if !attribute.is_nest() => Err(Misshapen::Malformed),
            0 => Ok(()),
            1..HEADER_SIZE => Err(Misshapen::OutOfRange),
            _ => each(attribute.nested(), |inner| {
                let field = self.fields.iter().find(|row| row.number == inner.number);
                check_value(field.ok_or(Misshapen::Malformed)?.kind, inner)
            }),
        }
    }
}

fn check_value(kind: Kind, attribute: &Attribute<'_>) -> Result<(), Misshapen> {
    let size = attribute.payload.len();
    let fits = match kind {
        Kind::Flag => size == 1,
        Kind::U32 { .. } | Kind::I32 { .. } | Kind::Choice(_) => size == 4,
        Kind::U64 { .. } => size == 8,
        // What is one byte too long is left to those who can say so.
        Kind::Text { max } => {
            let end = attribute.as_text().map(<[u8]>::len);
            end.is_some_and(|length| length <= max.saturating_add(1))
        }
        Kind::Bytes { max } if size > max => return Err(Misshapen::OutOfRange),
        Kind::Bytes { .. } => true,
    };
    match fits && !attribute.is_nest() {
        true => Ok(()),
        false => Err(Misshapen::Malformed),
    }
}

/// Checks one after the other, and that nothing else is there.
fn each<'a>(
    mut attributes: Attributes<'a>,
    mut check: impl FnMut(&Attribute<'a>) -> Result<(), Misshapen>,
) -> Result<(), Misshapen> {
    attributes.try_for_each(|attribute| check(&attribute))?;
    match attributes.rest().is_empty() {
        true => Ok(()),
        false => Err(Misshapen::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::attr::{Writer, FLAG_NESTED};
    use proptest::prelude::*;

    fn options(command: Command, nest: u16, field: u16, payload: &[u8]) -> Result<(), Misshapen> {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        let open = writer.begin(nest, FLAG_NESTED);
        writer.put_bytes(field, payload);
        writer.end(open);
        check(command, Attributes::new(writer.finish().unwrap()))
    }

    #[test]
    fn a_command_takes_its_own_parameters_only() {
        assert_eq!(options(Command::Primary, 6, 1, &[1]), Ok(()));
        assert_eq!(
            options(Command::Resize, 6, 1, &[1]),
            Err(Misshapen::Malformed)
        );
        assert_eq!(
            options(Command::Primary, 6, 2, &[1]),
            Err(Misshapen::Malformed)
        );
    }

    #[test]
    fn values_have_exactly_the_size_of_their_type() {
        for size in [0, 1, 3, 5, 8] {
            let read = options(Command::Attach, 3, 8, &[0; 8][..size]);
            assert_eq!(read, Err(Misshapen::Malformed), "{size}");
        }
        assert_eq!(options(Command::Attach, 3, 8, &[0; 4]), Ok(()));
        assert_eq!(
            options(Command::Attach, 3, 1, b"/dev/vda"),
            Err(Misshapen::Malformed)
        );
        assert_eq!(options(Command::Attach, 3, 1, b"/dev/vda\0"), Ok(()));
        let address = options(Command::Primary, 2, 3, &[2; 129]);
        assert_eq!(address, Err(Misshapen::OutOfRange));
    }

    #[test]
    fn a_nest_says_that_it_is_one_and_what_is_left_over_is_refused() {
        let unflagged = [4, 0, 6, 0];
        let flagged = [4, 0, 6, 0x80];
        let short = [5, 0, 6, 0x80, 1, 0, 0, 0];
        let over = [4, 0, 6, 0x80, 1, 2, 3];
        let read = |bytes| check(Command::Primary, Attributes::new(bytes));
        assert_eq!(read(&unflagged), Err(Misshapen::Malformed));
        assert_eq!(read(&flagged), Ok(()));
        assert_eq!(read(&short), Err(Misshapen::OutOfRange));
        assert_eq!(read(&over), Err(Misshapen::Malformed));
        assert_eq!(read(&[]), Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_judged(
            number in 0u8..64,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Some(command) = Command::from_number(number) {
                let _ = check(command, Attributes::new(&bytes));
            }
        }
    }
}
