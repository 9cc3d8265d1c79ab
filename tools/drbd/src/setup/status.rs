// SPDX-License-Identifier: GPL-2.0

//! `status`: the state of resources at a glance.

use super::events::dump;
use super::object::{conn, properties, Key, Kind, Property, Sort};
use super::{driver_if_loaded, Call, Filter};
use crate::failure::{Failure, Outcome};
use crate::netlink::{Driver, Message};
use drbd_engine::config::command::Command;
use drbd_engine::config::info::{
    ConnectionInfo, DeviceStatistics, PeerDeviceInfo, PeerDeviceStatistics,
};
use drbd_engine::config::Field;
use drbd_engine::state::ConnState;
use std::io::{self, IsTerminal, Write};

/// Options of `status`.
pub const OPTIONS: &[Field] = &[
    Field::flag("verbose"),
    Field::flag("statistics"),
    Field::choice("color", &[Some("auto"), Some("always"), Some("never")]),
];

/// Columns that statistics fill before they go on in the next line.
const LINE_COLUMNS: usize = 80;
/// How much further right a line goes on.
const CONTINUATION_INDENT: usize = 4;
const RESOURCE_NOT_KNOWN_EXIT: u8 = 10;

/// Prints the state of all resources, or of one.
pub fn run(call: &Call<'_>) -> Outcome {
    let filter = call.filter();
    let style = Style {
        verbose: call.is_on("verbose"),
        statistics: call.is_on("statistics"),
        color: wants_color(call),
    };
    let text = match driver_if_loaded()? {
        Some(mut driver) => Snapshot::take(&mut driver, &filter)?.shown(&style),
        None => String::new(),
    };
    if let (Filter::Resource(name), true) = (&filter, text.is_empty()) {
        let text = format!("{name}: No such resource");
        return Err(Failure::new(RESOURCE_NOT_KNOWN_EXIT, text));
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn wants_color(call: &Call<'_>) -> bool {
    use crate::netlink::request::OwnedValue;
    use drbd_engine::config::Value;
    match call.option("color") {
        Some(OwnedValue::Plain(Value::U32(1))) => true,
        Some(OwnedValue::Plain(Value::U32(2))) => false,
        _ => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}

/// How the state is shown.
struct Style {
    verbose: bool,
    statistics: bool,
    color: bool,
}

/// Everything the driver has, at about the same moment.
struct Snapshot {
    resources: Vec<Message>,
    devices: Vec<Message>,
    connections: Vec<Message>,
    peer_devices: Vec<Message>,
}

impl Snapshot {
    fn take(driver: &mut Driver, filter: &Filter) -> Outcome<Self> {
        let mut all = |command| -> Outcome<Vec<Message>> {
            let mut messages = dump(driver, command, filter)?;
            messages.retain(|message| {
                let name = message.resource_name();
                message.ret_code().is_success() && filter.admits_resource(&name)
            });
            Ok(messages)
        };
        Ok(Self {
            resources: all(Command::GetResources)?,
            devices: all(Command::GetDevices)?,
            connections: all(Command::GetConnections)?,
            peer_devices: all(Command::GetPeerDevices)?,
        })
    }

    fn shown(&self, style: &Style) -> String {
        let mut text = String::new();
        for resource in &self.resources {
            let name = resource.resource_name();
            let of = |messages: &[Message]| -> Vec<Message> {
                let mine = messages
                    .iter()
                    .filter(|message| message.resource_name() == name);
                mine.cloned().collect()
            };
            let (devices, connections) = (of(&self.devices), of(&self.connections));
            let single = devices.len() == 1;
            text.push_str(&resource_text(&name, resource, style));
            for device in &devices {
                text.push_str(&device_text(device, single, style));
            }
            for connection in &connections {
                let peers = of(&self.peer_devices);
                text.push_str(&connection_text(connection, style));
                for peer in &peers {
                    text.push_str(&peer_device_text(peer, &devices, single, style));
                }
            }
            text.push('\n');
        }
        text
    }
}

fn value<'a>(properties: &'a [Property], name: &str) -> &'a str {
    let found = properties.iter().find(|property| property.name == name);
    found.map_or("", |property| property.value.as_str())
}

fn resource_text(name: &str, message: &Message, style: &Style) -> String {
    let properties = properties(Kind::Resource, message);
    let mut lines = Lines::new(0, name.to_owned());
    lines.item("role", &style.role(value(&properties, "role")));
    let suspended = value(&properties, "suspended");
    if style.verbose || suspended != "no" {
        lines.item("suspended", suspended);
    }
    if style.statistics {
        lines.break_line();
        lines.statistics(&properties);
    }
    lines.end()
}

fn device_text(message: &Message, single: bool, style: &Style) -> String {
    let properties = properties(Kind::Device, message);
    let key = Key::of(Kind::Device, message);
    let mut lines = Lines::new(2, String::new());
    let volume = key.volume.unwrap_or(0);
    if style.verbose || !single || volume != 0 {
        lines.item("volume", &volume.to_string());
    }
    if style.verbose {
        lines.item("minor", &key.minor.unwrap_or(0).to_string());
    }
    lines.item("disk", &style.disk(value(&properties, "disk"), true));
    let blocked = value(&properties, "blocked");
    if !style.statistics && (style.verbose || blocked != "no") {
        lines.item("blocked", blocked);
    }
    if style.statistics {
        lines.break_line();
        lines.statistics(&properties);
    }
    lines.end()
}

fn connection_text(message: &Message, style: &Style) -> String {
    let properties = properties(Kind::Connection, message);
    let connected = connection_state(message) >= Some(ConnState::WFReportParams);
    let mut lines = Lines::new(2, "peer".to_owned());
    if style.verbose || !connected {
        let state = value(&properties, "connection");
        lines.item("connection", &style.connection(state, connected));
    }
    if style.verbose || connected {
        lines.item("role", &style.role(value(&properties, "role")));
    }
    let congested = value(&properties, "congested");
    if style.verbose || style.statistics || congested == "yes" {
        lines.item("congested", congested);
    }
    lines.end()
}

fn connection_state(message: &Message) -> Option<ConnState> {
    conn(message.settings::<ConnectionInfo>()?.connection_state)
}

fn peer_device_text(message: &Message, devices: &[Message], single: bool, style: &Style) -> String {
    let properties = properties(Kind::PeerDevice, message);
    let info = message.settings::<PeerDeviceInfo>();
    let state = info.and_then(|info| conn(info.replication_state));
    let key = Key::of(Kind::PeerDevice, message);
    let replication = value(&properties, "replication");
    let disk = value(&properties, "peer-disk");
    let paused = value(&properties, "resync-suspended");
    let quiet = replication == "Off" && disk == "DUnknown" && paused == "no";
    if quiet && !style.verbose {
        return String::new();
    }
    let mut lines = Lines::new(4, String::new());
    let volume = key.volume.unwrap_or(0);
    if style.verbose || !single || volume != 0 {
        lines.item("volume", &volume.to_string());
    }
    let syncing = state.is_some_and(is_syncing);
    lines.item("replication", &style.replication(replication, syncing));
    lines.item("peer-disk", &style.disk(disk, false));
    if let (true, Some(done)) = (syncing, done(message, &key, devices)) {
        lines.item("done", &done);
    }
    if style.verbose || style.statistics || paused != "no" {
        lines.item("resync-suspended", paused);
    }
    if style.statistics {
        lines.break_line();
        lines.statistics(&properties);
    }
    lines.end()
}

fn is_syncing(state: ConnState) -> bool {
    state >= ConnState::SyncSource && state <= ConnState::PausedSyncT
}

/// Percent of the volume that is in sync, with two digits after the point.
fn done(message: &Message, key: &Key, devices: &[Message]) -> Option<String> {
    let out_of_sync = message.settings::<PeerDeviceStatistics>()?.out_of_sync;
    let device = devices
        .iter()
        .find(|device| Key::of(Kind::Device, device).volume == key.volume)?;
    let size = device.settings::<DeviceStatistics>()?.size;
    let in_sync = u128::from(size.saturating_sub(out_of_sync));
    let hundredths = in_sync.saturating_mul(10_000).checked_div(size.into())?;
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
}

/// The line about an object, which goes on further right where it gets too long.
struct Lines {
    text: String,
    indent: usize,
    column: usize,
    begins_line: bool,
}

impl Lines {
    /// Begins with `indent` blanks and a name, which may be empty.
    fn new(indent: usize, name: String) -> Self {
        let text = format!("{}{name}", " ".repeat(indent));
        Self {
            column: text.len(),
            begins_line: name.is_empty(),
            indent: indent.saturating_add(CONTINUATION_INDENT),
            text,
        }
    }

    /// Appends `name:value`.
    fn item(&mut self, name: &str, value: &str) {
        let item = format!("{name}:{value}");
        let end = self.column.saturating_add(item.len()).saturating_add(1);
        if !self.begins_line && end > LINE_COLUMNS {
            self.break_line();
        }
        if !self.begins_line {
            self.text.push(' ');
            self.column = self.column.saturating_add(1);
        }
        self.text.push_str(&item);
        self.column = self.column.saturating_add(item.len());
        self.begins_line = false;
    }

    fn break_line(&mut self) {
        self.text.push('\n');
        self.text.push_str(&" ".repeat(self.indent));
        self.column = self.indent;
        self.begins_line = true;
    }

    fn statistics(&mut self, properties: &[Property]) {
        let statistics = properties
            .iter()
            .filter(|property| property.sort != Sort::State);
        for property in statistics {
            self.item(property.name, &property.value);
        }
    }

    fn end(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

impl Style {
    fn paint(&self, color: &str, bold: bool, text: &str) -> String {
        match (self.color, bold) {
            (false, _) => text.to_owned(),
            (true, true) => format!("\x1b[1;{color}m{text}\x1b[0m"),
            (true, false) => format!("\x1b[{color}m{text}\x1b[0m"),
        }
    }

    fn role(&self, role: &str) -> String {
        match role {
            "Primary" => self.paint(CYAN, true, role),
            _ => role.to_owned(),
        }
    }

    /// This node's disks stand out from the peer's.
    fn disk(&self, disk: &str, own: bool) -> String {
        match disk {
            "UpToDate" => self.paint(GREEN, own, disk),
            "Inconsistent" | "Failed" | "Diskless" | "DUnknown" => self.paint(RED, own, disk),
            _ => self.paint(YELLOW, own, disk),
        }
    }

    fn connection(&self, state: &str, connected: bool) -> String {
        match (connected, state) {
            (true, _) => state.to_owned(),
            (false, "Connecting") => self.paint(YELLOW, true, state),
            (false, _) => self.paint(RED, true, state),
        }
    }

    fn replication(&self, state: &str, syncing: bool) -> String {
        if syncing {
            self.paint(RED, false, state)
        } else {
            state.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(indent: usize, items: &str) -> String {
        let mut lines = Lines::new(indent, String::new());
        for item in items.split(' ') {
            let (name, value) = item.split_once(':').unwrap();
            lines.item(name, value);
        }
        lines.end()
    }

    #[test]
    fn a_line_goes_on_in_the_next_after_eighty_columns() {
        assert_eq!(
            lines(
                6,
                "size:16344 read:16420 written:2436 al-writes:11 bm-writes:0 upper-pending:0"
            ),
            "      size:16344 read:16420 written:2436 al-writes:11 bm-writes:0\n          \
             upper-pending:0\n"
        );
    }

    #[test]
    fn a_line_of_79_columns_is_left_in_one_piece() {
        let items = "volume:0 replication:Established peer-disk:Inconsistent resync-suspended:no";
        assert_eq!(lines(4, items), format!("    {items}\n"));
    }
}
