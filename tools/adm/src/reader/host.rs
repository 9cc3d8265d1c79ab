// SPDX-License-Identifier: GPL-2.0

//! Hosts, volumes, devices and addresses.

use super::{argument, body, check_name, missing, no_arguments, no_body, surplus, unknown};
use super::{Outcome, Reader};
use crate::config::{Address, Host, Meta, Volume};
use crate::diagnostic::Diagnostic;
use crate::option::Section;
use crate::tree::{Statement, Word};
use drbd_engine::config::options::{MINOR_MAX, PATH_LENGTH_MAX, VOLUME_MAX};
use std::net::IpAddr;

const HOST: [&str; 9] = [
    "device",
    "disk",
    "address",
    "meta-disk",
    "flexible-meta-disk",
    "alternate-link-address",
    "volume",
    "options",
    "proxy",
];
const VOLUME: [&str; 4] = ["device", "disk", "meta-disk", "flexible-meta-disk"];
const FAMILIES: [&str; 5] = ["ipv4", "ipv6", "ssocks", "sdp", "sci"];
/// Largest slot of indexed metadata.
const META_INDEX_MAX: u32 = 255;

impl Reader<'_> {
    /// Reads `on HOST… { … }` or `floating ADDRESS { … }`.
    pub(super) fn host(&mut self, statement: &Statement, floating: bool) -> Outcome<Host> {
        let mut host = Host {
            names: Vec::new(),
            span: statement.head.span,
            address: None,
            volumes: Vec::new(),
        };
        if floating {
            host.address = Some(address(statement, &statement.arguments)?);
        } else if statement.arguments.is_empty() {
            return Err(missing(statement, "a host's name, as 'uname -n' prints it"));
        }
        for name in statement.arguments.iter().filter(|_| !floating) {
            check_name(name)?;
            self.once(&format!("section 'on {}'", name.text), name.span)?;
            host.names.push(name.text.clone());
        }
        let entries = match &statement.body {
            // A floating host may have nothing to say but its address.
            None if floating => &[][..],
            _ => body(statement)?,
        };
        for entry in entries {
            match entry.head.text.as_str() {
                "address" if !floating => {
                    no_body(entry)?;
                    if host.address.is_some() {
                        return Err(Diagnostic::new(entry.head.span, "second address of a host"));
                    }
                    host.address = Some(address(entry, &entry.arguments)?);
                }
                "alternate-link-address" => drop(address(entry, &entry.arguments)?),
                "proxy" | "options" => drop(body(entry)?),
                _ if self.volume_entry(entry, &mut host.volumes)? => {}
                _ => return Err(unknown(&entry.head, "keyword of a host", HOST)),
            }
        }
        for volume in &mut host.volumes {
            if volume.implicit {
                volume.span = host.span;
            }
        }
        Ok(host)
    }

    /// Reads `volume N { … }` or a statement about the only volume; false if it is neither.
    pub(super) fn volume_entry(
        &mut self,
        statement: &Statement,
        volumes: &mut Vec<Volume>,
    ) -> Outcome<bool> {
        let head = statement.head.text.as_str();
        if head == "volume" {
            let volume = self.volume(statement)?;
            let mut others = volumes.iter();
            if let Some(other) = others.find(|other| other.number == volume.number) {
                let text = format!("second description of volume {}", volume.number);
                return Err(Diagnostic::new(statement.head.span, text)
                    .related(other.span, "the first one is here"));
            }
            volumes.push(volume);
            return Ok(true);
        }
        // `disk` is a statement about a volume, or a section with options.
        if !VOLUME.contains(&head) || statement.body.is_some() {
            return Ok(false);
        }
        if volumes.iter().any(|volume| !volume.implicit) {
            let text = format!("'{head}' beside a section 'volume'");
            return Err(Diagnostic::new(statement.head.span, text)
                .help("put it into the section of the volume it is about"));
        }
        if volumes.is_empty() {
            volumes.push(Volume {
                implicit: true,
                span: statement.head.span,
                ..Volume::default()
            });
        }
        for volume in volumes.iter_mut() {
            place(statement, volume)?;
        }
        Ok(true)
    }

    fn volume(&mut self, statement: &Statement) -> Outcome<Volume> {
        let expected = format!("a volume number from 0 to {VOLUME_MAX}");
        let word = match statement.arguments.as_slice() {
            [word] => word,
            [] => return Err(missing(statement, &expected)),
            [_, extra, ..] => return Err(surplus(extra, "'{'")),
        };
        let number = match word.text.parse::<u16>() {
            Ok(number) if number <= VOLUME_MAX => number,
            _ => {
                let text = format!("'{}' is no volume number", word.text);
                return Err(Diagnostic::new(word.span, text).expected(expected));
            }
        };
        let mut volume = Volume {
            number,
            span: statement.head.span,
            ..Volume::default()
        };
        for entry in body(statement)? {
            match entry.head.text.as_str() {
                "disk" if entry.body.is_some() => {
                    no_arguments(entry)?;
                    for option in body(entry)? {
                        self.option(option, Section::Disk, &mut volume.options)?;
                    }
                }
                head if VOLUME.contains(&head) => place(entry, &mut volume)?,
                _ => return Err(unknown(&entry.head, "keyword of a volume", VOLUME)),
            }
        }
        Ok(volume)
    }
}

/// Reads where a volume is: `device`, `disk` or `meta-disk`.
fn place(statement: &Statement, volume: &mut Volume) -> Outcome {
    no_body(statement)?;
    let twice = match statement.head.text.as_str() {
        "device" => volume.device.is_some() || volume.minor.is_some(),
        "disk" => volume.disk.is_some(),
        _ => volume.meta.is_some(),
    };
    if twice {
        let text = format!("second '{}' of the same volume", statement.head.text);
        return Err(Diagnostic::new(statement.head.span, text));
    }
    match statement.head.text.as_str() {
        "device" => device(statement, volume),
        "disk" => {
            let word = argument(statement, "a block device, as in /dev/sdb1")?;
            volume.disk = Some(path(word)?);
            volume.disk_span = word.span;
            Ok(())
        }
        _ => {
            volume.meta = Some(meta(statement)?);
            Ok(())
        }
    }
}

fn device(statement: &Statement, volume: &mut Volume) -> Outcome {
    let (name, minor) = match statement.arguments.as_slice() {
        [keyword, minor] if keyword.text == "minor" => (None, Some(minor)),
        [name] => (Some(name), None),
        [name, keyword, minor] if keyword.text == "minor" => (Some(name), Some(minor)),
        [] => return Err(missing(statement, "a device, as in /dev/drbd0")),
        [_, extra, ..] => return Err(surplus(extra, "'minor' or ';'")),
    };
    volume.device_span = name.or(minor).map_or(statement.head.span, |word| word.span);
    if let Some(minor) = minor {
        let expected = format!("a number from 0 to {MINOR_MAX}");
        volume.minor = match minor.text.parse() {
            Ok(number) if number <= MINOR_MAX => Some(number),
            _ => {
                let text = format!("'{}' is no minor number", minor.text);
                return Err(Diagnostic::new(minor.span, text).expected(expected));
            }
        };
    }
    let Some(name) = name else {
        return Ok(());
    };
    let short = name.text.strip_prefix("/dev/").unwrap_or(&name.text);
    let Some(rest) = short.strip_prefix("drbd") else {
        let text = format!("'{}' is no name for a DRBD device", name.text);
        return Err(Diagnostic::new(name.span, text).expected("a name that begins with /dev/drbd"));
    };
    let named = rest.parse::<u32>().ok().filter(|minor| *minor <= MINOR_MAX);
    match (named, volume.minor) {
        (Some(named), Some(minor)) if named != minor => {
            let text = format!("/dev/{short} is not the device with minor {minor}");
            return Err(Diagnostic::new(name.span, text));
        }
        (Some(named), _) => volume.minor = Some(named),
        (None, None) => {
            let text = format!("the name '{}' has no minor number in it", name.text);
            return Err(Diagnostic::new(name.span, text)
                .expected("/dev/drbdN, or 'minor N' behind the name"));
        }
        (None, Some(_)) => {}
    }
    if short.len() + "/dev/".len() > PATH_LENGTH_MAX {
        return Err(too_long(name));
    }
    volume.device = Some(format!("/dev/{short}"));
    Ok(())
}

fn path(word: &Word) -> Outcome<String> {
    if word.text.len() > PATH_LENGTH_MAX {
        return Err(too_long(word));
    }
    if !word.text.starts_with('/') {
        let text = format!("'{}' is not an absolute path", word.text);
        return Err(Diagnostic::new(word.span, text).expected("a path, as in /dev/sdb1"));
    }
    Ok(word.text.clone())
}

fn too_long(word: &Word) -> Diagnostic {
    Diagnostic::new(word.span, "path too long").expected(format!("at most {PATH_LENGTH_MAX} bytes"))
}

/// `internal`, `DEVICE`, `DEVICE [INDEX]` or `DEVICE[INDEX]`.
fn meta(statement: &Statement) -> Outcome<Meta> {
    let expected = "'internal', a device, or a device and '[index]'";
    let Some(first) = statement.arguments.first() else {
        return Err(missing(statement, expected));
    };
    let (name, attached) = match first.text.split_once('[') {
        Some((name, _)) => (name, first.text.get(name.len()..).unwrap_or_default()),
        None => (first.text.as_str(), ""),
    };
    let rest = statement
        .arguments
        .iter()
        .skip(1)
        .map(|word| word.text.as_str());
    let index: String = std::iter::once(attached).chain(rest).collect();
    if name == "internal" {
        return match statement.arguments.get(1) {
            Some(extra) => Err(surplus(extra, "';'")),
            None => Ok(Meta::Internal),
        };
    }
    let device = path(&Word {
        text: name.to_owned(),
        ..first.clone()
    })
    .map_err(|_| {
        let text = format!("'{name}' is no place for metadata");
        let words = ["internal", "flexible"];
        Diagnostic::new(first.span, text)
            .expected(expected)
            .did_you_mean(name, words)
    })?;
    let flexible = statement.head.text == "flexible-meta-disk";
    if index.is_empty() || index == "[flexible]" {
        return Ok(Meta::Flexible(device));
    }
    let second = statement.arguments.get(1).unwrap_or(first);
    let number = index
        .strip_prefix('[')
        .and_then(|index| index.strip_suffix(']'));
    match number.and_then(|number| number.trim().parse().ok()) {
        Some(number) if number <= META_INDEX_MAX && !flexible => Ok(Meta::Indexed(device, number)),
        _ if flexible => Err(surplus(second, "';'")),
        _ => Err(
            Diagnostic::new(second.span, format!("'{index}' is no index"))
                .expected(format!("';' or an index from [0] to [{META_INDEX_MAX}]")),
        ),
    }
}

/// `[family] IP:PORT`.
fn address(statement: &Statement, words: &[Word]) -> Outcome<Address> {
    let (family, word) = match words {
        [word] => (None, word),
        [family, word] => (Some(family), word),
        [] => return Err(missing(statement, "an address, as in 192.0.2.1:7788")),
        [_, _, extra, ..] => return Err(surplus(extra, "';'")),
    };
    if let Some(family) = family.filter(|family| !FAMILIES.contains(&family.text.as_str())) {
        return Err(
            Diagnostic::new(family.span, format!("unknown family '{}'", family.text))
                .expected("'ipv4', 'ipv6', 'ssocks' or 'sdp'")
                .did_you_mean(&family.text, FAMILIES),
        );
    }
    let Some((host, port)) = word
        .text
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
    else {
        let text = format!("'{}' has no port", word.text);
        let expected = "ADDRESS:PORT, as in 192.0.2.1:7788 or [2001:db8::1]:7788";
        return Err(Diagnostic::new(word.span, text).expected(expected));
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => {
            let text = format!("'{port}' is no port");
            return Err(Diagnostic::new(word.span, text).expected("a port from 1 to 65535"));
        }
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let plain = host.split('%').next().unwrap_or(host);
    let ip: Option<IpAddr> = plain.parse().ok();
    let wants_v6 = family.map(|family| family.text == "ipv6");
    match ip {
        Some(ip) if wants_v6.is_none_or(|v6| v6 == ip.is_ipv6()) => Ok(Address {
            family: match (family, ip) {
                (Some(family), _) => family.text.clone(),
                (None, IpAddr::V4(_)) => "ipv4".into(),
                (None, IpAddr::V6(_)) => "ipv6".into(),
            },
            host: host.to_owned(),
            ip,
            port,
            span: word.span,
        }),
        Some(_) => Err(
            Diagnostic::new(word.span, format!("'{host}' is of the other family")).expected(
                if wants_v6 == Some(true) {
                    "an IPv6 address"
                } else {
                    "an IPv4 address"
                },
            ),
        ),
        None => Err(
            Diagnostic::new(word.span, format!("'{host}' is no IP address"))
                .expected("an IPv4 address, or an IPv6 address in brackets")
                .help("names of hosts are not looked up: a resource must come up without DNS"),
        ),
    }
}
