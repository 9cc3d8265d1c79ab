// SPDX-License-Identifier: GPL-2.0

//! Ties commands, dumps and events to the generic netlink family.

use super::{
    backend::Backend,
    event::{
        Event,
        EventWriter,
        Events,
        Multicast, //
    },
    request::{
        Parsed,
        Request,
        Unanswerable, //
    },
    Control,
    Scratch, //
};
use drbd_engine::config::{
    attr::Writer,
    command::Command, //
};
use drbd_sys::genl::{
    self,
    Description,
    DumpMessage,
    Group,
    Operation, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Commands from this number on would get the core's strict checks; the family has its own.
const FIRST_STRICT_COMMAND: u8 = 42;

/// The family's commands, as the core needs to know them.
const OPERATIONS: &[Operation] = &[
    Operation {
        command: Command::GetStatus.number(),
        request: true,
        dump: true,
        admin: false,
    },
    request(Command::NewMinor),
    request(Command::DelMinor),
    request(Command::NewResource),
    request(Command::DelResource),
    request(Command::ResourceOptions),
    request(Command::Connect),
    request(Command::Disconnect),
    request(Command::Attach),
    request(Command::Resize),
    request(Command::Primary),
    request(Command::Secondary),
    request(Command::NewCurrentUuid),
    request(Command::StartVerify),
    request(Command::Detach),
    request(Command::Invalidate),
    request(Command::InvalidatePeer),
    request(Command::PauseSync),
    request(Command::ResumeSync),
    request(Command::SuspendIo),
    request(Command::ResumeIo),
    request(Command::Outdate),
    request(Command::GetTimeoutType),
    request(Command::Down),
    request(Command::ChangeDiskOptions),
    request(Command::ChangeNetOptions),
    dump(Command::GetResources),
    dump(Command::GetDevices),
    dump(Command::GetConnections),
    dump(Command::GetPeerDevices),
    dump(Command::GetInitialState),
];

const fn request(command: Command) -> Operation {
    Operation {
        command: command.number(),
        request: true,
        dump: false,
        admin: true,
    }
}

const fn dump(command: Command) -> Operation {
    Operation {
        command: command.number(),
        request: false,
        dump: true,
        admin: false,
    }
}

/// The listeners on the multicast group `events`.
#[pin_data]
pub(crate) struct Listeners {
    group: Arc<Group>,
    #[pin]
    writer: Mutex<KBox<EventWriter<GroupMulticast>>>,
}

impl Listeners {
    /// Makes the sending end; events go nowhere before the family is registered and after it is
    /// gone.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let group = Group::new()?;
        let multicast = GroupMulticast(group.clone());
        let writer = KBox::new(EventWriter::new(multicast), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                group,
                writer <- new_mutex!(writer, "drbd_events"),
            }),
            GFP_KERNEL,
        )
    }
}

impl Events for Arc<Listeners> {
    fn send<B: Backend + ?Sized>(&self, backend: &B, event: Event<'_>) {
        self.writer.lock().send(backend, event);
    }
}

/// Sends to the group; what cannot be sent is lost, as netlink's listeners must expect.
struct GroupMulticast(Arc<Group>);

impl Multicast for GroupMulticast {
    fn multicast(&mut self, command: Command, sequence: u32, message: &[u8]) {
        if let Err(error) = self.0.multicast(command.number(), sequence, message) {
            pr_err!(
                "Error {} while broadcasting event {}\n",
                error.to_errno(),
                command.number()
            );
        }
    }
}

/// The registered family. Dropping it ends all requests and dumps.
pub(crate) type Family<B> = genl::Registration<Control<B, Arc<Listeners>>>;

/// Registers the family; the last step of loading, because commands come in from then on.
pub(crate) fn register<B: Backend + 'static>(
    module: &'static ThisModule,
    backend: B,
    listeners: Arc<Listeners>,
) -> Result<Family<B>> {
    let group = listeners.group.clone();
    let family = genl::Registration::new(module, Control::new(backend, listeners), group);
    if let Err(error) = &family {
        match *error {
            EEXIST => pr_err!("the netlink family drbd is taken: another drbd module is loaded\n"),
            error => pr_err!(
                "unable to register the netlink family: {}\n",
                error.to_errno()
            ),
        }
    }
    family
}

impl<B: Backend + 'static> genl::Handler for Control<B, Arc<Listeners>> {
    const DESCRIPTION: Description = Description {
        name: c"drbd",
        version: drbd_engine::config::command::FAMILY_VERSION,
        header_size: 8,
        first_strict_command: FIRST_STRICT_COMMAND,
        group: c"events",
    };
    const OPERATIONS: &'static [Operation] = OPERATIONS;

    fn request(&self, request: &genl::Request<'_>, reply: &mut [u8]) -> Result<usize> {
        let mut scratch = KBox::new(Scratch::EMPTY, GFP_KERNEL)?;
        let mut writer = Writer::new(reply);
        self.answer(&translate(request), &mut scratch, &mut writer)
            .map_err(errno)?;
        Ok(writer.finish().map_err(|_| EMSGSIZE)?.len())
    }

    fn begin_dump(&self, request: &genl::Request<'_>) -> Result {
        Parsed::new(&translate(request)).map(drop).map_err(errno)
    }

    fn dump(
        &self,
        request: &genl::Request<'_>,
        cursor: &mut genl::Cursor,
        message: &mut [u8],
    ) -> Result<Option<DumpMessage>> {
        let mut scratch = KBox::new(Scratch::EMPTY, GFP_KERNEL)?;
        let mut writer = Writer::new(message);
        let written = self
            .dump(&translate(request), cursor, &mut scratch, &mut writer)
            .map_err(errno)?;
        let length = writer.finish().map_err(|_| EMSGSIZE)?.len();
        Ok(written.map(|message| DumpMessage {
            command: message.command.number(),
            length,
            addressed: message.addressed,
        }))
    }
}

fn translate<'a>(request: &genl::Request<'a>) -> Request<'a> {
    Request {
        command: request.command,
        message: request.message,
        net_admin: request.net_admin,
        sys_admin: request.sys_admin,
        exclusive: request.exclusive,
    }
}

fn errno(error: Unanswerable) -> Error {
    match error {
        Unanswerable::Malformed => EINVAL,
        Unanswerable::OutOfRange => ERANGE,
        Unanswerable::UnknownCommand => kernel::error::code::EOPNOTSUPP,
        Unanswerable::NoSuchObject => ENODEV,
        Unanswerable::TooLarge => EMSGSIZE,
    }
}
