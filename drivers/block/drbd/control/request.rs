// SPDX-License-Identifier: GPL-2.0

//! From the bytes of a request to the objects it is about (spec §3.2).

use super::backend::{Backend, DeviceSummary, InfoText, ResourceId};
use drbd_engine::config::attr::Attributes;
use drbd_engine::config::command::{Command, Needs};
use drbd_engine::config::context::{ContextError, ATTRIBUTE_CONTEXT, NO_MINOR};
use drbd_engine::config::shape::{self, Misshapen};
use drbd_engine::config::{Context, RetCode, Settings, UserHeader};
use drbd_engine::types::Minor;

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The command's number.
    pub(crate) command: u8,
    /// User header and attributes.
    pub(crate) message: &'a [u8],
    /// The sender may configure the network.
    pub(crate) net_admin: bool,
    /// The sender may see secrets.
    pub(crate) sys_admin: bool,
    /// An object that exists is an error (`NLM_F_EXCL`).
    pub(crate) exclusive: bool,
}

/// A request that cannot even be answered with a reply; the sender gets a netlink error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswerable {
    /// Too short, or attributes out of shape.
    Malformed,
    /// An attribute shorter or longer than any of its kind.
    OutOfRange,
    /// No such command.
    UnknownCommand,
    /// The named object does not exist (dumps only).
    NoSuchObject,
    /// The reply does not fit.
    TooLarge,
}

impl From<Misshapen> for Unanswerable {
    fn from(misshapen: Misshapen) -> Self {
        match misshapen {
            Misshapen::Malformed => Self::Malformed,
            Misshapen::OutOfRange => Self::OutOfRange,
        }
    }
}

impl From<ContextError> for Unanswerable {
    fn from(_: ContextError) -> Self {
        Self::Malformed
    }
}

/// A request taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed<'a> {
    /// The command.
    pub(crate) command: Command,
    /// The user header.
    pub(crate) header: UserHeader,
    /// What follows it.
    pub(crate) attributes: Attributes<'a>,
    /// The context attribute as it came, header included, for the reply.
    pub(crate) raw_context: Option<&'a [u8]>,
    /// The objects it names.
    pub(crate) context: Context<'a>,
}

impl<'a> Parsed<'a> {
    /// Takes a request apart.
    pub(crate) fn new(request: &Request<'a>) -> Result<Self, Unanswerable> {
        let command = Command::from_number(request.command).ok_or(Unanswerable::UnknownCommand)?;
        let (header, rest) = UserHeader::split(request.message).ok_or(Unanswerable::Malformed)?;
        let attributes = Attributes::new(rest);
        shape::check(command, attributes)?;
        let context = attributes.find(ATTRIBUTE_CONTEXT);
        Ok(Self {
            command,
            header,
            attributes,
            raw_context: context.map(|attribute| attribute.raw),
            context: Context::find(attributes)?,
        })
    }

    /// The attributes of a set of options, none if the request lacks it.
    pub(crate) fn options<S: Settings>(&self) -> Option<Attributes<'a>> {
        self.attributes
            .find(S::ATTRIBUTE)
            .map(|attribute| attribute.nested())
    }

    /// Whether options that are not mentioned go back to their defaults.
    pub(crate) fn sets_defaults(&self) -> bool {
        self.header.word & UserHeader::SET_DEFAULTS != 0
    }

    /// The minor in the header, if there is one.
    pub(crate) fn minor(&self) -> Option<Minor> {
        (self.header.minor != NO_MINOR).then_some(Minor(self.header.minor))
    }
}

/// The objects of a request that exist.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    /// The device with the minor in the header.
    pub(crate) device: Option<(Minor, DeviceSummary)>,
    /// The named resource; for commands on connections the connection's.
    pub(crate) resource: Option<ResourceId>,
}

impl Target {
    /// Finds the objects and checks that the command has what it needs.
    pub(crate) fn find<B: Backend>(
        backend: &B,
        parsed: &Parsed<'_>,
        info: &mut InfoText,
    ) -> Result<Self, RetCode> {
        let context = &parsed.context;
        let device = parsed
            .minor()
            .and_then(|minor| Some((minor, backend.device(minor)?)));
        let resource = context
            .resource_name
            .and_then(|name| backend.resource(name));
        let mut target = Self { device, resource };
        match parsed.command.needs() {
            Needs::Nothing => {}
            Needs::Minor if device.is_none() => {
                return Err(info.say(RetCode::MINOR_INVALID, format_args!("unknown minor")));
            }
            Needs::Minor => {}
            Needs::Resource if resource.is_none() => {
                let code = match context.resource_name {
                    Some(_) => RetCode::RESOURCE_NOT_KNOWN,
                    None => RetCode::INVALID_REQUEST,
                };
                return Err(info.say(code, format_args!("unknown resource")));
            }
            Needs::Resource => {}
            Needs::Connection => {
                target.resource = Some(target.connection(backend, context, info)?);
            }
        }
        target.check_agreement(context, info)?;
        Ok(target)
    }

    /// The device; only commands that need a minor may ask.
    pub(crate) fn minor(&self) -> Result<(Minor, DeviceSummary), RetCode> {
        self.device.ok_or(RetCode::MINOR_INVALID)
    }

    /// The resource; only commands that need one may ask.
    pub(crate) fn resource(&self) -> Result<ResourceId, RetCode> {
        self.resource.ok_or(RetCode::RESOURCE_NOT_KNOWN)
    }

    /// A minor that the request puts into another resource or volume is a misunderstanding.
    fn check_agreement(&self, context: &Context<'_>, info: &mut InfoText) -> Result<(), RetCode> {
        let Some((_, device)) = self.device else {
            return Ok(());
        };
        if self
            .resource
            .is_some_and(|resource| resource != device.resource)
        {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("minor exists in different resource"),
            ));
        }
        if context
            .volume
            .is_some_and(|volume| volume != u32::from(device.volume.0))
        {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("minor exists as different volume"),
            ));
        }
        Ok(())
    }

    /// Finds a connection by its addresses; no other object may be named beside it.
    fn connection<B: Backend>(
        &self,
        backend: &B,
        context: &Context<'_>,
        info: &mut InfoText,
    ) -> Result<ResourceId, RetCode> {
        let mut refuse = |text| info.say(RetCode::INVALID_REQUEST, format_args!("{text}"));
        if self.resource.is_some() {
            return Err(refuse("no resource name expected"));
        }
        if self.device.is_some() {
            return Err(refuse("no minor number expected"));
        }
        let found = match (context.my_address, context.peer_address) {
            (Some(my_address), Some(peer_address)) => backend.connection(my_address, peer_address),
            _ => None,
        };
        found.ok_or_else(|| refuse("unknown connection"))
    }
}
