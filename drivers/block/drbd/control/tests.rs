// SPDX-License-Identifier: GPL-2.0

//! Commands, dumps and events over a data path made of plain tables.

use super::backend::{
    Backend, ConnectionSnapshot, DeviceSnapshot, DeviceSummary, InfoText, ResourceId,
    ResourceSnapshot, ResourceSummary,
};
use super::dump::Cursor;
use super::event::{Event, EventWriter, Events, Multicast, Object, ResourceChange, VolumeChange};
use super::request::{Request, Unanswerable};
use super::{Control, Scratch};
use drbd_engine::config::attr::{Attributes, Writer, FLAG_NESTED};
use drbd_engine::config::command::Command;
use drbd_engine::config::context::{info_text, ATTRIBUTE_CONTEXT, NO_MINOR};
use drbd_engine::config::field::{Secrets, Settings, Value};
use drbd_engine::config::info::{
    ConnectionInfo, ConnectionStatistics, DeviceStatistics, NotificationHeader, NotificationKind,
    PeerDeviceStatistics, ResourceStatistics, StateInfo,
};
use drbd_engine::config::{
    Context, DiskConf, Fencing, NetConf, NewCurrentUuid, Protocol, ResourceOptions, RetCode,
    SetRole, UserHeader,
};
use drbd_engine::state::{ConnState, DiskState, Role, State};
use drbd_engine::types::{Minor, VolumeNr};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::sync::{Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;

/// Names an object in a request, as tools do: with the flag of nests.
fn put_context(writer: &mut Writer<'_>, context: &Context<'_>) {
    let mut buffer = [0; 512];
    let mut own = Writer::new(&mut buffer);
    context.encode(&mut own);
    let mut attributes = Attributes::new(own.finish().unwrap());
    let attribute = attributes.next().unwrap();
    writer.put_bytes(ATTRIBUTE_CONTEXT | FLAG_NESTED, attribute.payload);
}

/// The status message of the C driver, from the user header on.
const STATUS: &[u8] = include_bytes!("../../../../tests/engine/data/netlink-status.bin");
/// The initial state messages of the C driver, with their lengths in front.
const INITIAL_STATE: &[u8] =
    include_bytes!("../../../../tests/engine/data/netlink-initial-state.bin");

const MY_ADDRESS: [u8; 16] = [2, 0, 0x1e, 0x6d, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const PEER_ADDRESS: [u8; 16] = [2, 0, 0x1e, 0x6d, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0];

#[derive(Debug)]
struct Resource {
    id: ResourceId,
    snapshot: ResourceSnapshot,
    connection: Option<ConnectionSnapshot>,
    connection_state: ConnState,
    devices: Vec<DeviceSnapshot>,
}

#[derive(Debug, Default)]
struct Tables {
    resources: Vec<Resource>,
    created: u64,
    promoted: Vec<(u32, bool)>,
    answer: Option<RetCode>,
}

impl Tables {
    fn resource(&self, id: ResourceId) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    fn device(&self, minor: Minor) -> Option<(&Resource, &DeviceSnapshot)> {
        self.resources.iter().find_map(|resource| {
            let device = resource
                .devices
                .iter()
                .find(|device| device.minor == minor)?;
            Some((resource, device))
        })
    }
}

/// The data path: tables, and what it was asked to do.
#[derive(Debug, Default)]
struct Fake(Mutex<Tables>);

impl Fake {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    fn answer(&self) -> RetCode {
        self.tables().answer.unwrap_or(RetCode::SUCCESS)
    }
}

impl Backend for Fake {
    fn device(&self, minor: Minor) -> Option<DeviceSummary> {
        let tables = self.tables();
        let (resource, device) = tables.device(minor)?;
        Some(DeviceSummary {
            resource: resource.id,
            volume: device.volume,
            state: device.state,
            has_disk: device.attached,
        })
    }

    fn resource(&self, name: &[u8]) -> Option<ResourceId> {
        let tables = self.tables();
        let mut resources = tables.resources.iter();
        Some(
            resources
                .find(|resource| resource.snapshot.name.as_bytes() == name)?
                .id,
        )
    }

    fn summary(&self, id: ResourceId) -> Option<ResourceSummary> {
        let tables = self.tables();
        let resource = tables.resource(id)?;
        let devices = &resource.devices;
        Some(ResourceSummary {
            connection_state: resource.connection_state,
            has_net: resource.connection.is_some(),
            agreed_protocol: 101,
            resync_runs: devices.iter().any(|device| device.state.conn.is_resync()),
            verify_runs: devices.iter().any(|device| device.state.conn.is_verify()),
            is_primary: devices
                .iter()
                .any(|device| device.state.role == Role::Primary),
            peer_is_primary: devices
                .iter()
                .any(|device| device.state.peer == Role::Primary),
            fences_with_stonith: devices
                .iter()
                .any(|device| device.disk.fencing == Fencing::ResourceAndStonith),
        })
    }

    fn connection(&self, my_address: &[u8], peer_address: &[u8]) -> Option<ResourceId> {
        let tables = self.tables();
        let matches = |resource: &&Resource| {
            resource.connection.as_ref().is_some_and(|connection| {
                connection.my_address.as_bytes() == my_address
                    && connection.peer_address.as_bytes() == peer_address
            })
        };
        Some(tables.resources.iter().find(matches)?.id)
    }

    fn next_resource(&self, after: ResourceId) -> Option<ResourceId> {
        self.tables()
            .resources
            .iter()
            .map(|resource| resource.id)
            .find(|id| *id > after)
    }

    fn next_volume(&self, resource: ResourceId, from: u32) -> Option<(VolumeNr, Minor)> {
        let tables = self.tables();
        let devices = &tables.resource(resource)?.devices;
        let device = devices
            .iter()
            .find(|device| u32::from(device.volume.0) >= from)?;
        Some((device.volume, device.minor))
    }

    fn describe_resource(&self, resource: ResourceId, into: &mut ResourceSnapshot) -> bool {
        match self.tables().resource(resource) {
            Some(resource) => *into = resource.snapshot.clone(),
            None => return false,
        }
        true
    }

    fn describe_connection(&self, resource: ResourceId, into: &mut ConnectionSnapshot) -> bool {
        let tables = self.tables();
        match tables
            .resource(resource)
            .and_then(|resource| resource.connection.as_ref())
        {
            Some(connection) => *into = connection.clone(),
            None => return false,
        }
        true
    }

    fn describe_device(&self, minor: Minor, into: &mut DeviceSnapshot) -> bool {
        match self.tables().device(minor) {
            Some((_, device)) => *into = device.clone(),
            None => return false,
        }
        true
    }

    fn new_resource(&self, name: &[u8], options: &ResourceOptions, _: &mut InfoText) -> RetCode {
        let mut tables = self.tables();
        tables.created += 1;
        let mut snapshot = ResourceSnapshot::EMPTY;
        snapshot.name.set(name).unwrap();
        snapshot.options = *options;
        let id = ResourceId(tables.created);
        tables.resources.push(Resource {
            id,
            snapshot,
            connection: None,
            connection_state: ConnState::StandAlone,
            devices: Vec::new(),
        });
        RetCode::NO_ERROR
    }

    fn delete_resource(&self, id: ResourceId, _: &mut InfoText) -> RetCode {
        self.tables().resources.retain(|resource| resource.id != id);
        RetCode::NO_ERROR
    }

    fn new_device(
        &self,
        id: ResourceId,
        volume: VolumeNr,
        minor: Minor,
        _: &mut InfoText,
    ) -> RetCode {
        let mut tables = self.tables();
        let resource = tables
            .resources
            .iter_mut()
            .find(|resource| resource.id == id)
            .unwrap();
        resource.devices.push(DeviceSnapshot {
            minor,
            volume,
            ..DeviceSnapshot::EMPTY
        });
        resource.devices.sort_by_key(|device| device.volume);
        RetCode::NO_ERROR
    }

    fn delete_device(&self, minor: Minor, _: &mut InfoText) -> RetCode {
        for resource in &mut self.tables().resources {
            resource.devices.retain(|device| device.minor != minor);
        }
        RetCode::NO_ERROR
    }

    fn primary(&self, minor: Minor, force: bool, _: &mut InfoText) -> RetCode {
        self.tables().promoted.push((minor.0, force));
        self.answer()
    }

    fn secondary(&self, _: Minor, _: &mut InfoText) -> RetCode {
        self.answer()
    }

    fn disconnect(&self, id: ResourceId, _: bool, _: &mut InfoText) -> RetCode {
        let mut tables = self.tables();
        let resource = tables
            .resources
            .iter_mut()
            .find(|resource| resource.id == id)
            .unwrap();
        resource.connection = None;
        resource.connection_state = ConnState::StandAlone;
        RetCode::SUCCESS
    }

    fn detach(&self, minor: Minor, _: bool, _: &mut InfoText) -> RetCode {
        let mut tables = self.tables();
        let mut devices = tables
            .resources
            .iter_mut()
            .flat_map(|resource| &mut resource.devices);
        let device = devices.find(|device| device.minor == minor).unwrap();
        match device.attached {
            true => {
                device.attached = false;
                device.state.disk = DiskState::Diskless;
                RetCode::SUCCESS
            }
            false => RetCode::IS_DISKLESS,
        }
    }

    fn attach(&self, minor: Minor, disk: &DiskConf, _: &mut InfoText) -> RetCode {
        let mut tables = self.tables();
        let mut devices = tables
            .resources
            .iter_mut()
            .flat_map(|resource| &mut resource.devices);
        let device = devices.find(|device| device.minor == minor).unwrap();
        device.disk = disk.clone();
        device.attached = true;
        device.state.disk = DiskState::Inconsistent;
        RetCode::NO_ERROR
    }

    fn connect(
        &self,
        id: ResourceId,
        my_address: &[u8],
        peer_address: &[u8],
        net: &NetConf,
        _: &mut InfoText,
    ) -> RetCode {
        let mut connection = ConnectionSnapshot {
            net: net.clone(),
            ..ConnectionSnapshot::EMPTY
        };
        connection.my_address.set(my_address).unwrap();
        connection.peer_address.set(peer_address).unwrap();
        let mut tables = self.tables();
        let resource = tables
            .resources
            .iter_mut()
            .find(|resource| resource.id == id)
            .unwrap();
        resource.connection = Some(connection);
        resource.connection_state = ConnState::Unconnected;
        RetCode::SUCCESS
    }

    fn local_address_in_use(&self, address: &[u8]) -> bool {
        let tables = self.tables();
        let mut connections = tables
            .resources
            .iter()
            .filter_map(|resource| resource.connection.as_ref());
        connections.any(|connection| connection.my_address.as_bytes() == address)
    }

    fn peer_address_in_use(&self, address: &[u8]) -> bool {
        let tables = self.tables();
        let mut connections = tables
            .resources
            .iter()
            .filter_map(|resource| resource.connection.as_ref());
        connections.any(|connection| connection.peer_address.as_bytes() == address)
    }

    fn pause_sync(&self, _: Minor, _: bool, _: &mut InfoText) -> RetCode {
        self.answer()
    }
}

/// A message that was sent to the group.
#[derive(Debug)]
struct Sent {
    command: Command,
    sequence: u32,
    message: Vec<u8>,
}

impl Sent {
    fn kind(&self) -> u32 {
        let (_, rest) = UserHeader::split(&self.message).unwrap();
        let header = Attributes::new(rest)
            .find(NotificationHeader::ATTRIBUTE)
            .unwrap();
        header.nested().find(1).unwrap().as_u32().unwrap()
    }

    fn has<S: Settings>(&self) -> bool {
        let (_, rest) = UserHeader::split(&self.message).unwrap();
        Attributes::new(rest).find(S::ATTRIBUTE).is_some()
    }
}

#[derive(Debug, Default)]
struct Recorder(Vec<Sent>);

impl Multicast for &mut Recorder {
    fn multicast(&mut self, command: Command, sequence: u32, message: &[u8]) {
        self.0.push(Sent {
            command,
            sequence,
            message: message.to_vec(),
        });
    }
}

impl Multicast for Recorder {
    fn multicast(&mut self, command: Command, sequence: u32, message: &[u8]) {
        (&mut &mut *self).multicast(command, sequence, message);
    }
}

/// Listeners that remember.
struct Listeners(Mutex<EventWriter<Recorder>>);

impl Events for Listeners {
    fn send<B: Backend + ?Sized>(&self, backend: &B, event: Event<'_>) {
        self.0.lock().unwrap().send(backend, event);
    }
}

struct Bench {
    control: Control<Fake, Listeners>,
    scratch: Scratch,
    exclusive: bool,
}

/// What a command was answered.
#[derive(Debug)]
struct Answer {
    code: RetCode,
    text: String,
    message: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let listeners = Listeners(Mutex::new(EventWriter::new(Recorder::default())));
        Self {
            control: Control::new(Fake::default(), listeners),
            scratch: Scratch::EMPTY,
            exclusive: true,
        }
    }

    /// One resource `r0` with volume 0 on minor 2.
    fn with_device() -> Self {
        let mut bench = Self::new();
        assert_eq!(
            bench.named(Command::NewResource, "r0").code,
            RetCode::NO_ERROR
        );
        assert_eq!(bench.new_minor("r0", 2, 0).code, RetCode::NO_ERROR);
        bench.sent();
        bench
    }

    fn request(command: Command, message: &[u8]) -> Request<'_> {
        Request {
            command: command.number(),
            message,
            net_admin: true,
            sys_admin: true,
            exclusive: true,
        }
    }

    fn run(
        &mut self,
        command: Command,
        minor: u32,
        flags: u32,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Answer {
        let mut buffer = vec![0; 2048];
        let mut writer = Writer::new(&mut buffer);
        UserHeader { minor, word: flags }.encode(&mut writer);
        write(&mut writer);
        let message = writer.finish().unwrap().to_vec();
        let request = Request {
            exclusive: self.exclusive,
            ..Self::request(command, &message)
        };
        let mut reply = vec![0; 4096];
        let mut writer = Writer::new(&mut reply);
        self.control
            .answer(&request, &mut self.scratch, &mut writer)
            .unwrap();
        let message = writer.finish().unwrap().to_vec();
        let (header, rest) = UserHeader::split(&message).unwrap();
        let text = info_text(Attributes::new(rest)).unwrap_or_default();
        Answer {
            code: RetCode(header.ret_code()),
            text: String::from_utf8(text.to_vec()).unwrap(),
            message: message.clone(),
        }
    }

    fn named(&mut self, command: Command, name: &str) -> Answer {
        let context = Context {
            resource_name: Some(name.as_bytes()),
            ..Context::default()
        };
        self.run(command, NO_MINOR, 0, |writer| put_context(writer, &context))
    }

    fn new_minor(&mut self, name: &str, minor: u32, volume: u32) -> Answer {
        let context = Context {
            volume: Some(volume),
            resource_name: Some(name.as_bytes()),
            ..Context::default()
        };
        self.run(Command::NewMinor, minor, 0, |writer| {
            put_context(writer, &context)
        })
    }

    fn on_minor(&mut self, command: Command, minor: u32) -> Answer {
        self.run(command, minor, 0, |_| {})
    }

    fn attach(&mut self, change: impl FnOnce(&mut DiskConf)) -> Answer {
        let mut disk = DiskConf::DEFAULT;
        disk.backing_dev.set(b"/dev/vda").unwrap();
        disk.meta_dev.set(b"/dev/vda").unwrap();
        disk.meta_dev_idx = -3;
        change(&mut disk);
        self.run(Command::Attach, 2, 0, |writer| {
            disk.encode(writer, Secrets::Show)
        })
    }

    fn connect(&mut self, name: &str, change: impl FnOnce(&mut NetConf)) -> Answer {
        let mut net = NetConf::DEFAULT;
        change(&mut net);
        let context = Context {
            resource_name: Some(name.as_bytes()),
            my_address: Some(&MY_ADDRESS),
            peer_address: Some(&PEER_ADDRESS),
            ..Context::default()
        };
        self.run(Command::Connect, NO_MINOR, 0, |writer| {
            put_context(writer, &context);
            net.encode(writer, Secrets::Show);
        })
    }

    fn set_state(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut self.control.backend.tables().resources[0].devices[0].state);
    }

    /// What was sent since the last call.
    fn sent(&self) -> Vec<Sent> {
        let mut writer = self.control.events.0.lock().unwrap();
        std::mem::take(&mut writer.multicast_mut().0)
    }

    /// All messages of a dump: command, whether addressed, content.
    fn dump(
        &mut self,
        command: Command,
        name: Option<&str>,
    ) -> Result<Vec<(Command, bool, Vec<u8>)>, Unanswerable> {
        let mut buffer = vec![0; 256];
        let mut writer = Writer::new(&mut buffer);
        UserHeader {
            minor: NO_MINOR,
            word: 0,
        }
        .encode(&mut writer);
        if let Some(name) = name {
            let context = Context {
                resource_name: Some(name.as_bytes()),
                ..Context::default()
            };
            put_context(&mut writer, &context);
        }
        let message = writer.finish().unwrap().to_vec();
        let mut cursor = Cursor::default();
        let mut messages = Vec::new();
        loop {
            let mut buffer = vec![0; 4096];
            let mut out = Writer::new(&mut buffer);
            let request = Self::request(command, &message);
            let written = self
                .control
                .dump(&request, &mut cursor, &mut self.scratch, &mut out)?;
            let Some(written) = written else {
                return Ok(messages);
            };
            let content = out.finish().unwrap().to_vec();
            messages.push((written.command, written.addressed, content));
            assert!(messages.len() < 100, "a dump must end");
        }
    }

    /// The node that the recordings are of.
    fn recorded() -> Self {
        let mut bench = Self::with_device();
        bench.connect("r0", |net| net.use_rle = false);
        bench.attach(|disk| (disk.resync_rate, disk.c_plan_ahead) = (20480, 0));
        let mut tables = bench.control.backend.tables();
        let resource = &mut tables.resources[0];
        resource.snapshot.statistics = ResourceStatistics { write_ordering: 2 };
        resource.connection_state = ConnState::WFReportParams;
        let connection = resource.connection.as_mut().unwrap();
        connection.info = ConnectionInfo {
            connection_state: 9,
            role: 2,
        };
        connection.statistics = ConnectionStatistics { congested: false };
        let device = &mut resource.devices[0];
        device.state = State::from_word(0x0001_10aa).unwrap();
        let (_, rest) = UserHeader::split(STATUS).unwrap();
        let nested = |number| {
            Attributes::new(rest)
                .find(number)
                .map(|attribute| attribute.nested())
        };
        device
            .status
            .update(nested(StateInfo::ATTRIBUTE).unwrap())
            .unwrap();
        recorded_part(&mut device.statistics);
        recorded_part(&mut device.peer_statistics);
        drop(tables);
        bench.sent();
        bench
    }
}

/// The recorded messages of the initial state: command and content from the user header on.
fn recorded_initial_state() -> Vec<(u8, Vec<u8>)> {
    let mut rest = INITIAL_STATE;
    let mut messages = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        let (message, tail) = tail.split_at(length);
        messages.push((message[0], message[4..].to_vec()));
        rest = tail;
    }
    messages
}

/// Takes over the set of options from whichever recorded message has it.
fn recorded_part<S: Settings>(settings: &mut S) {
    for (_, message) in recorded_initial_state() {
        if let Some(attribute) = Attributes::new(&message[8..]).find(S::ATTRIBUTE) {
            settings.update(attribute.nested()).unwrap();
            return;
        }
    }
    panic!("not in the recording");
}

#[test]
#[cfg(target_endian = "little")]
fn status_is_dumped_as_the_c_driver_dumps_it() {
    let dump = Bench::recorded().dump(Command::GetStatus, None).unwrap();
    assert_eq!(dump, [(Command::GetStatus, true, STATUS.to_vec())]);
}

#[test]
#[cfg(target_endian = "little")]
fn the_initial_state_is_dumped_as_the_c_driver_dumps_it() {
    let dump = Bench::recorded()
        .dump(Command::GetInitialState, None)
        .unwrap();
    let dump: Vec<_> = dump
        .into_iter()
        .map(|(command, addressed, message)| {
            assert!(!addressed);
            (command.number(), message)
        })
        .collect();
    assert_eq!(dump, recorded_initial_state());
}

#[test]
fn a_reply_repeats_the_context_of_the_request() {
    let mut bench = Bench::new();
    let answer = bench.named(Command::NewResource, "r0");
    let (header, rest) = UserHeader::split(&answer.message).unwrap();
    assert_eq!(header.minor, NO_MINOR);
    let context = Context::find(Attributes::new(rest)).unwrap();
    assert_eq!(context.resource_name, Some(&b"r0"[..]));
}

#[test]
fn only_the_status_may_be_asked_for_without_privilege() {
    let mut bench = Bench::with_device();
    let message = [2, 0, 0, 0, 0, 0, 0, 0];
    for (command, code) in [
        (Command::Primary, RetCode::PERMISSION),
        (Command::GetStatus, RetCode::NO_ERROR),
    ] {
        let request = Request {
            net_admin: false,
            ..Bench::request(command, &message)
        };
        let mut reply = [0; 2048];
        let mut writer = Writer::new(&mut reply);
        bench
            .control
            .answer(&request, &mut bench.scratch, &mut writer)
            .unwrap();
        let (header, _) = UserHeader::split(writer.finish().unwrap()).unwrap();
        assert_eq!(header.ret_code(), code.0);
    }
    assert_eq!(bench.control.backend.tables().promoted, []);
}

#[test]
fn a_new_resource_needs_a_name_without_slash_that_is_free() {
    let mut bench = Bench::new();
    let answer = bench.run(Command::NewResource, NO_MINOR, 0, |_| {});
    assert_eq!(
        (answer.code, &*answer.text),
        (RetCode::MANDATORY_TAG, "resource name missing")
    );
    assert_eq!(
        bench.named(Command::NewResource, "a/b").code,
        RetCode::INVALID_REQUEST
    );
    assert_eq!(
        bench.named(Command::NewResource, "r0").code,
        RetCode::NO_ERROR
    );
    let answer = bench.named(Command::NewResource, "r0");
    assert_eq!(
        (answer.code, &*answer.text),
        (RetCode::INVALID_REQUEST, "resource exists")
    );
    bench.exclusive = false;
    assert_eq!(
        bench.named(Command::NewResource, "r0").code,
        RetCode::NO_ERROR
    );
    assert_eq!(bench.control.backend.tables().resources.len(), 1);
}

#[test]
fn a_new_minor_needs_free_numbers_in_range() {
    let mut bench = Bench::with_device();
    assert_eq!(
        bench.new_minor("r1", 3, 1).code,
        RetCode::RESOURCE_NOT_KNOWN
    );
    assert_eq!(
        bench.new_minor("r0", 1 << 20, 1).text,
        "requested minor out of range"
    );
    assert_eq!(
        bench.new_minor("r0", 3, 65535).text,
        "requested volume id out of range"
    );
    assert_eq!(
        bench.new_minor("r0", 3, u32::MAX).text,
        "requested volume id out of range"
    );
    assert_eq!(
        bench.new_minor("r0", 3, 0).code,
        RetCode::MINOR_OR_VOLUME_EXISTS
    );
    assert_eq!(
        bench.new_minor("r0", 2, 1).text,
        "minor exists as different volume"
    );
    assert_eq!(
        bench.new_minor("r0", 2, 0).code,
        RetCode::MINOR_OR_VOLUME_EXISTS
    );
    bench.named(Command::NewResource, "r1");
    assert_eq!(
        bench.new_minor("r1", 2, 0).text,
        "minor exists in different resource"
    );
    assert_eq!(bench.new_minor("r0", 3, 1).code, RetCode::NO_ERROR);
}

#[test]
fn an_unknown_minor_is_told_so() {
    let mut bench = Bench::with_device();
    let answer = bench.on_minor(Command::Primary, 7);
    assert_eq!(
        (answer.code, &*answer.text),
        (RetCode::MINOR_INVALID, "unknown minor")
    );
}

#[test]
fn promotion_passes_the_force_flag_and_the_outcome_on() {
    let mut bench = Bench::with_device();
    let force = SetRole { force: true };
    assert_eq!(bench.on_minor(Command::Primary, 2).code, RetCode::SUCCESS);
    bench.control.backend.tables().answer = Some(RetCode::NO_UP_TO_DATE_DISK);
    let answer = bench.run(Command::Primary, 2, 0, |writer| {
        force.encode(writer, Secrets::Show)
    });
    assert_eq!(answer.code, RetCode::NO_UP_TO_DATE_DISK);
    assert_eq!(
        bench.control.backend.tables().promoted,
        [(2, false), (2, true)]
    );
}

#[test]
fn a_command_that_is_not_built_says_so() {
    let mut bench = Bench::with_device();
    let answer = bench.on_minor(Command::Outdate, 2);
    assert_eq!(answer.code, RetCode::PACKET_NUMBER);
    assert_eq!(answer.text, "outdate is not built into this driver");
}

#[test]
fn attach_tells_a_missing_device_from_a_bad_index_and_a_second_disk() {
    let mut bench = Bench::with_device();
    let answer = bench.on_minor(Command::Attach, 2);
    assert_eq!(answer.code, RetCode::MANDATORY_TAG);
    assert_eq!(answer.text, "required attribute missing: backing-dev");
    assert_eq!(
        bench.attach(|disk| disk.meta_dev_idx = -4).code,
        RetCode::META_INDEX_INVALID
    );
    assert_eq!(bench.attach(|_| {}).code, RetCode::NO_ERROR);
    assert_eq!(bench.attach(|_| {}).code, RetCode::DISK_CONFIGURED);
}

#[test]
fn stonith_and_protocol_a_are_refused_from_either_side() {
    let protocol_a = |net: &mut NetConf| net.wire_protocol = Protocol::A;
    let stonith = |disk: &mut DiskConf| disk.fencing = Fencing::ResourceAndStonith;
    let mut bench = Bench::with_device();
    assert_eq!(bench.connect("r0", protocol_a).code, RetCode::SUCCESS);
    assert_eq!(bench.attach(stonith).code, RetCode::STONITH_AND_PROTOCOL_A);
    let mut bench = Bench::with_device();
    assert_eq!(bench.attach(stonith).code, RetCode::NO_ERROR);
    assert_eq!(
        bench.connect("r0", protocol_a).code,
        RetCode::STONITH_AND_PROTOCOL_A
    );
}

#[test]
fn connect_checks_the_options_against_each_other() {
    let mut bench = Bench::with_device();
    let two_primaries = |net: &mut NetConf| {
        net.two_primaries = true;
        net.wire_protocol = Protocol::B;
    };
    assert_eq!(
        bench.connect("r0", two_primaries).code,
        RetCode::NOT_PROTOCOL_C
    );
    let pull_ahead = |net: &mut NetConf| {
        net.on_congestion = drbd_engine::config::OnCongestion::PullAhead;
    };
    assert_eq!(
        bench.connect("r0", pull_ahead).code,
        RetCode::CONGESTION_NOT_PROTOCOL_A
    );
    bench.set_state(|state| state.role = Role::Primary);
    let discard = |net: &mut NetConf| net.discard_my_data = true;
    assert_eq!(
        bench.connect("r0", discard).code,
        RetCode::DISCARD_IMPOSSIBLE
    );
    assert_eq!(bench.connect("r0", |_| {}).code, RetCode::SUCCESS);
    assert_eq!(bench.connect("r0", |_| {}).code, RetCode::LOCAL_ADDRESS);
    bench.named(Command::NewResource, "r1");
    assert_eq!(bench.connect("r1", |_| {}).code, RetCode::LOCAL_ADDRESS);
    let elsewhere = Context {
        resource_name: Some(b"r0"),
        my_address: Some(&[2; 16]),
        peer_address: Some(&[2; 16]),
        ..Context::default()
    };
    let answer = bench.run(Command::Connect, NO_MINOR, 0, |writer| {
        put_context(writer, &elsewhere)
    });
    assert_eq!(answer.code, RetCode::NET_CONFIGURED);
    let answer = bench.named(Command::Connect, "r0");
    assert_eq!(answer.text, "connection endpoint(s) missing");
}

#[test]
fn a_connection_is_named_by_both_addresses_and_nothing_else() {
    let mut bench = Bench::with_device();
    bench.connect("r0", |_| {});
    let mut context = Context {
        my_address: Some(&MY_ADDRESS),
        peer_address: Some(&PEER_ADDRESS),
        ..Context::default()
    };
    let mut disconnect = |context: Context<'_>, minor| {
        bench.run(Command::Disconnect, minor, 0, |writer| {
            put_context(writer, &context)
        })
    };
    assert_eq!(disconnect(context, 2).text, "no minor number expected");
    context.resource_name = Some(b"r0");
    assert_eq!(
        disconnect(context, NO_MINOR).text,
        "no resource name expected"
    );
    context.resource_name = None;
    assert_eq!(disconnect(context, NO_MINOR).code, RetCode::NO_ERROR);
    assert_eq!(disconnect(context, NO_MINOR).text, "unknown connection");
}

#[test]
fn net_options_cannot_change_what_a_running_resync_or_two_primaries_need() {
    let mut bench = Bench::with_device();
    bench.connect("r0", |net| net.two_primaries = true);
    bench.set_state(|state| {
        (state.conn, state.role, state.peer) =
            (ConnState::SyncSource, Role::Primary, Role::Primary);
    });
    let mut change = |number, value: Value<'_>| {
        let context = Context {
            my_address: Some(&MY_ADDRESS),
            peer_address: Some(&PEER_ADDRESS),
            ..Context::default()
        };
        bench.run(Command::ChangeNetOptions, NO_MINOR, 0, |writer| {
            put_context(writer, &context);
            let nest = writer.begin(NetConf::ATTRIBUTE, FLAG_NESTED);
            writer.put_value(number, value);
            writer.end(nest);
        })
    };
    assert_eq!(
        change(5, Value::Text(b"crc32c")).code,
        RetCode::CSUMS_RESYNC_RUNNING
    );
    assert_eq!(
        change(24, Value::Flag(false)).code,
        RetCode::NEED_ALLOW_TWO_PRIMARIES
    );
    let answer = change(28, Value::Flag(true));
    assert_eq!(answer.text, "can not change invariant setting: tentative");
    assert_eq!(
        change(8, Value::U32(50)).text,
        "net-options is not built into this driver"
    );
}

#[test]
fn pausing_twice_and_resuming_what_others_pause_is_told() {
    let mut bench = Bench::with_device();
    bench.control.backend.tables().answer = Some(RetCode::NOTHING_TO_DO);
    assert_eq!(
        bench.on_minor(Command::PauseSync, 2).code,
        RetCode::PAUSE_IS_SET
    );
    assert_eq!(
        bench.on_minor(Command::ResumeSync, 2).code,
        RetCode::PAUSE_IS_CLEAR
    );
    bench.set_state(|state| {
        (state.conn, state.peer_isp) = (ConnState::PausedSyncT, true);
    });
    assert_eq!(
        bench.on_minor(Command::ResumeSync, 2).code,
        RetCode::PAUSED_BY_PEER
    );
    bench.set_state(|state| state.aftr_isp = true);
    assert_eq!(
        bench.on_minor(Command::ResumeSync, 2).code,
        RetCode::PAUSED_BY_DEPENDENCY
    );
}

#[test]
fn a_new_generation_needs_a_disk() {
    let mut bench = Bench::with_device();
    let clear = NewCurrentUuid { clear_bitmap: true };
    let answer = bench.run(Command::NewCurrentUuid, 2, 0, |writer| {
        clear.encode(writer, Secrets::Show)
    });
    assert_eq!(answer.code, RetCode::NO_DISK);
}

#[test]
fn objects_in_use_are_not_removed() {
    let mut bench = Bench::with_device();
    assert_eq!(
        bench.named(Command::DelResource, "r0").code,
        RetCode::RESOURCE_IN_USE
    );
    bench.attach(|_| {});
    assert_eq!(
        bench.on_minor(Command::DelMinor, 2).code,
        RetCode::MINOR_CONFIGURED
    );
    bench.connect("r0", |_| {});
    assert_eq!(
        bench.named(Command::DelResource, "r0").code,
        RetCode::NET_CONFIGURED
    );
}

#[test]
fn down_removes_all_of_a_resource_and_nothing_else() {
    let mut bench = Bench::recorded();
    bench.named(Command::NewResource, "r1");
    bench.new_minor("r0", 3, 1);
    assert_eq!(bench.named(Command::Down, "r0").code, RetCode::NO_ERROR);
    let tables = bench.control.backend.tables();
    let names: Vec<_> = tables
        .resources
        .iter()
        .map(|resource| resource.snapshot.name.to_string())
        .collect();
    assert_eq!(names, ["r1"]);
}

#[test]
fn down_says_where_it_failed() {
    let mut bench = Bench::with_device();
    bench.control.backend.tables().answer = Some(RetCode::DEVICE_IN_USE);
    let answer = bench.named(Command::Down, "r0");
    assert_eq!(
        (answer.code, &*answer.text),
        (RetCode::DEVICE_IN_USE, "failed to demote")
    );
    assert_eq!(bench.control.backend.tables().resources[0].devices.len(), 1);
}

#[test]
fn a_status_dump_lists_a_resource_without_volumes_once() {
    let mut bench = Bench::with_device();
    bench.named(Command::NewResource, "empty");
    bench.new_minor("r0", 5, 7);
    let dump = bench.dump(Command::GetStatus, None).unwrap();
    let minors: Vec<_> = dump
        .iter()
        .map(|(_, _, message)| UserHeader::split(message).unwrap().0.minor)
        .collect();
    assert_eq!(minors, [2, 5, NO_MINOR]);
    assert_eq!(
        bench.dump(Command::GetStatus, Some("empty")).unwrap().len(),
        1
    );
    assert_eq!(bench.dump(Command::GetStatus, Some("r0")).unwrap().len(), 2);
    let unknown = bench.dump(Command::GetStatus, Some("r9")).unwrap_err();
    assert_eq!(unknown, Unanswerable::NoSuchObject);
}

#[test]
fn lists_filter_by_name_and_answer_an_unknown_one_with_its_code() {
    let mut bench = Bench::recorded();
    bench.named(Command::NewResource, "r1");
    bench.new_minor("r1", 3, 0);
    for (command, all) in [
        (Command::GetDevices, 2),
        (Command::GetConnections, 1),
        (Command::GetPeerDevices, 1),
    ] {
        assert_eq!(bench.dump(command, None).unwrap().len(), all);
        assert_eq!(bench.dump(command, Some("r0")).unwrap().len(), 1);
        let unknown = bench.dump(command, Some("r9")).unwrap();
        assert_eq!(unknown.len(), 1);
        let (header, rest) = UserHeader::split(&unknown[0].2).unwrap();
        assert_eq!(RetCode(header.ret_code()), RetCode::RESOURCE_NOT_KNOWN);
        assert!(rest.is_empty());
    }
    assert_eq!(
        bench.dump(Command::GetResources, Some("r9")).unwrap().len(),
        2
    );
}

#[test]
fn an_empty_node_has_an_empty_initial_state() {
    let dump = Bench::new().dump(Command::GetInitialState, None).unwrap();
    assert_eq!(dump.len(), 1);
    assert_eq!(dump[0].0, Command::InitialStateDone);
    assert!(Bench::new()
        .dump(Command::GetStatus, None)
        .unwrap()
        .is_empty());
}

#[test]
fn creation_and_removal_are_announced_in_order() {
    let mut bench = Bench::new();
    bench.named(Command::NewResource, "r0");
    bench.new_minor("r0", 2, 0);
    bench.named(Command::Down, "r0");
    let sent = bench.sent();
    let told: Vec<_> = sent
        .iter()
        .map(|sent| (sent.command, sent.sequence, sent.kind()))
        .collect();
    let (create, destroy) = (
        NotificationKind::Create.number(),
        NotificationKind::Destroy.number(),
    );
    assert_eq!(
        told,
        [
            (Command::ResourceState, 3, create),
            (Command::DeviceState, 4, create),
            (Command::DeviceState, 5, destroy),
            (Command::ResourceState, 6, destroy),
        ]
    );
    assert!(sent[1].has::<drbd_engine::config::info::DeviceInfo>());
    assert!(!sent[2].has::<drbd_engine::config::info::DeviceInfo>());
    assert!(sent[2].has::<DeviceStatistics>());
}

#[test]
fn a_new_connection_is_announced_with_its_volumes() {
    let bench = Bench::recorded();
    let connection = Event::Created(Object::Connection(ResourceId(1)));
    bench
        .control
        .events
        .send(&bench.control.backend, connection);
    bench.control.events.send(
        &bench.control.backend,
        Event::ConnectionGoing(ResourceId(1)),
    );
    let sent = bench.sent();
    let told: Vec<_> = sent
        .iter()
        .map(|sent| (sent.command, sent.kind()))
        .collect();
    let more = NotificationKind::CONTINUES;
    let (create, destroy) = (
        NotificationKind::Create.number(),
        NotificationKind::Destroy.number(),
    );
    assert_eq!(
        told,
        [
            (Command::ConnectionState, create | more),
            (Command::PeerDeviceState, create),
            (Command::PeerDeviceState, destroy | more),
            (Command::ConnectionState, destroy),
        ]
    );
    assert!(sent[1].has::<PeerDeviceStatistics>());
}

#[test]
fn a_state_change_tells_only_what_changed_and_then_the_status() {
    let bench = Bench::recorded();
    let old = State::from_word(0x0001_10aa).unwrap();
    let new = State {
        role: Role::Primary,
        pdsk: DiskState::Outdated,
        ..old
    };
    let change = ResourceChange {
        resource: ResourceId(1),
        old_connection: ConnState::WFReportParams,
        new_connection: ConnState::WFReportParams,
        volumes: &[VolumeChange {
            minor: Minor(2),
            old,
            new,
        }],
    };
    bench
        .control
        .events
        .send(&bench.control.backend, Event::Changed(change));
    let sent = bench.sent();
    let commands: Vec<_> = sent.iter().map(|sent| sent.command).collect();
    assert_eq!(
        commands,
        [
            Command::ResourceState,
            Command::PeerDeviceState,
            Command::Event
        ]
    );
    let change = NotificationKind::Change.number();
    assert_eq!(sent[0].kind(), change | NotificationKind::CONTINUES);
    assert_eq!(sent[1].kind(), change);
    let (header, rest) = UserHeader::split(&sent[2].message).unwrap();
    assert_eq!((header.minor, sent[2].sequence), (2, 3));
    let mut status = StateInfo::DEFAULT;
    let nested = Attributes::new(rest)
        .find(StateInfo::ATTRIBUTE)
        .unwrap()
        .nested();
    status.update(nested).unwrap();
    assert_eq!(
        (status.previous_state, status.new_state),
        (old.to_word(), new.to_word())
    );
}

#[test]
fn broadcasts_never_carry_the_secret() {
    let bench = Bench::recorded();
    let set = |bench: &Bench| {
        let mut tables = bench.control.backend.tables();
        let connection = tables.resources[0].connection.as_mut().unwrap();
        connection.net.shared_secret.set(b"geheim").unwrap();
    };
    set(&bench);
    bench
        .control
        .events
        .send(&bench.control.backend, Event::Progress(Minor(2)));
    let helper = Event::Helper {
        resource: ResourceId(1),
        minor: Some(Minor(2)),
        name: b"pri-on-incon-degr",
        status: Some(256),
    };
    bench.control.events.send(&bench.control.backend, helper);
    let sent = bench.sent();
    assert_eq!(sent.len(), 3);
    for message in sent {
        assert!(!message.message.windows(6).any(|window| window == b"geheim"));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_refused(
        number in any::<u8>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        minor in 0u32..4,
        headed in any::<bool>(),
    ) {
        let mut bench = Bench::recorded();
        let mut message = Vec::new();
        if headed {
            message.extend(minor.to_ne_bytes());
            message.extend([0; 4]);
        }
        message.extend(&bytes);
        let request = Request {
            command: number,
            message: &message,
            net_admin: true,
            sys_admin: false,
            exclusive: true,
        };
        let mut reply = vec![0; 4096];
        let mut writer = Writer::new(&mut reply);
        if bench.control.answer(&request, &mut bench.scratch, &mut writer).is_ok() {
            prop_assert!(writer.finish().unwrap().len() >= UserHeader::SIZE);
        }
        let mut cursor = Cursor::default();
        for _ in 0..20 {
            writer.clear();
            let written =
                bench.control.dump(&request, &mut cursor, &mut bench.scratch, &mut writer);
            if !matches!(written, Ok(Some(_))) {
                break;
            }
        }
    }
}
