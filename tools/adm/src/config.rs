// SPDX-License-Identifier: GPL-2.0

//! A configuration as it was read: resources, their hosts and volumes.

use crate::option::{OptionList, Section};
use crate::source::Span;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Everything that a configuration file and what it includes say.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The file that drbdadm was given.
    pub(crate) file: PathBuf,
    /// Settings of drbdadm itself.
    pub(crate) global: Global,
    /// What all resources inherit.
    pub(crate) common: Option<Sections>,
    /// The resources, in the order of the file.
    pub(crate) resources: Vec<Resource>,
}

/// The section `global`.
#[derive(Debug, Default)]
pub(crate) struct Global {
    /// Minors the module shall prepare for.
    pub(crate) minor_count: Option<u32>,
    /// Seconds between two refreshs of a dialog.
    pub(crate) dialog_refresh: Option<u32>,
    /// Whether addresses need not be this host's own.
    pub(crate) disable_ip_verification: bool,
    /// yes, no or ask; nothing here counts anything.
    pub(crate) usage_count: Option<String>,
    /// Seconds, by keyword `cmd-timeout-…`.
    pub(crate) timeouts: Vec<(&'static str, u32)>,
}

/// The sections with options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sections([OptionList; Section::ALL.len()]);

impl Sections {
    /// The options of a section.
    pub(crate) fn of(&self, section: Section) -> &OptionList {
        &self.0[index(section)]
    }

    /// The options of a section, to change them.
    pub(crate) fn of_mut(&mut self, section: Section) -> &mut OptionList {
        &mut self.0[index(section)]
    }

    /// Takes over what is not set here.
    pub(crate) fn inherit(&mut self, from: &Self) {
        for section in Section::ALL {
            self.of_mut(section).inherit(from.of(section));
        }
    }
}

const fn index(section: Section) -> usize {
    match section {
        Section::Options => 0,
        Section::Net => 1,
        Section::Disk => 2,
        Section::Startup => 3,
        Section::Handlers => 4,
        Section::Proxy => 5,
    }
}

/// A resource.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Its name.
    pub(crate) name: String,
    /// Place of its `resource` keyword.
    pub(crate) span: Span,
    /// Its options, with what it inherits.
    pub(crate) sections: Sections,
    /// The nodes it is on.
    pub(crate) hosts: Vec<Host>,
    /// Whether it is stacked on another resource.
    pub(crate) stacked: bool,
}

/// A node of a resource.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its names; none for a floating host.
    pub(crate) names: Vec<String>,
    /// Place of its keyword.
    pub(crate) span: Span,
    /// Where it listens.
    pub(crate) address: Option<Address>,
    /// Its volumes in ascending order as written.
    pub(crate) volumes: Vec<Volume>,
}

impl Host {
    /// Whether it goes by its address instead of a name.
    pub(crate) fn is_floating(&self) -> bool {
        self.names.is_empty()
    }

    /// How messages name it.
    pub(crate) fn describe(&self) -> String {
        match &self.address {
            Some(address) if self.is_floating() => format!("floating {address}"),
            _ => format!("on {}", self.names.join(" ")),
        }
    }
}

/// An address with a port.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// ipv4, ipv6, ssocks or sdp.
    pub(crate) family: String,
    /// The address, without brackets.
    pub(crate) host: String,
    /// The same, parsed (without the scope of an IPv6 address).
    pub(crate) ip: IpAddr,
    /// The TCP port.
    pub(crate) port: u16,
    /// Its place.
    pub(crate) span: Span,
}

impl Address {
    fn bracketed(&self) -> String {
        match self.ip {
            IpAddr::V4(_) => self.host.clone(),
            IpAddr::V6(_) => format!("[{}]", self.host),
        }
    }

    /// As drbdsetup takes it, and shows it, however it is spelled in the configuration.
    pub(crate) fn argument(&self) -> String {
        let scope = self.host.find('%').and_then(|at| self.host.get(at..));
        let host = match self.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}{}]", scope.unwrap_or("")),
        };
        format!("{}:{host}:{}", self.family, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.family, self.bracketed(), self.port)
    }
}

/// A volume as far as it was described.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volume {
    /// Its number.
    pub(crate) number: u16,
    /// Whether there was no `volume` section for it.
    pub(crate) implicit: bool,
    /// Place of its section or of the host's.
    pub(crate) span: Span,
    /// Path of the device, if it has a name of its own.
    pub(crate) device: Option<String>,
    /// Its minor.
    pub(crate) minor: Option<u32>,
    /// Place of the `device` statement.
    pub(crate) device_span: Span,
    /// The backing device.
    pub(crate) disk: Option<String>,
    /// Place of the `disk` statement.
    pub(crate) disk_span: Span,
    /// Where the metadata is.
    pub(crate) meta: Option<Meta>,
    /// Its disk options, with what it inherits.
    pub(crate) options: OptionList,
}

impl Volume {
    /// Takes over what is not said here.
    pub(crate) fn inherit(&mut self, from: &Self) {
        if self.device.is_none() && self.minor.is_none() {
            self.device.clone_from(&from.device);
            self.minor = from.minor;
            self.device_span = from.device_span;
        }
        if self.disk.is_none() {
            self.disk.clone_from(&from.disk);
            self.disk_span = from.disk_span;
        }
        if self.meta.is_none() {
            self.meta.clone_from(&from.meta);
        }
        self.options.inherit(&from.options);
    }

    /// The minor; checked configurations have one.
    pub(crate) fn minor(&self) -> u32 {
        self.minor.unwrap_or_default()
    }

    /// The path of the device.
    pub(crate) fn device(&self) -> String {
        match &self.device {
            Some(device) => device.clone(),
            None => format!("/dev/drbd{}", self.minor()),
        }
    }

    /// The backing device; checked configurations have one.
    pub(crate) fn disk(&self) -> &str {
        self.disk.as_deref().unwrap_or_default()
    }

    /// The device that holds the metadata.
    pub(crate) fn meta_disk(&self) -> &str {
        match &self.meta {
            Some(Meta::Indexed(device, _) | Meta::Flexible(device)) => device,
            _ => self.disk(),
        }
    }

    /// Where on it, as drbdsetup takes it.
    pub(crate) fn setup_index(&self) -> String {
        match &self.meta {
            Some(Meta::Indexed(_, index)) => index.to_string(),
            Some(Meta::Flexible(_)) => "flexible".into(),
            _ => "internal".into(),
        }
    }

    /// Where on it, as drbdmeta takes it.
    pub(crate) fn meta_index(&self) -> String {
        match &self.meta {
            Some(Meta::Indexed(_, index)) => index.to_string(),
            Some(Meta::Flexible(_)) => "flex-external".into(),
            _ => "internal".into(),
        }
    }
}

/// Placement of metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    /// At the end of the backing device.
    Internal,
    /// In one of the slots of a fixed size on another device.
    Indexed(String, u32),
    /// On a device of its own.
    Flexible(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `drbdsetup show` has one spelling, and what is spelled otherwise would be connected anew.
    #[test]
    fn an_address_is_spelled_as_the_driver_shows_it() {
        let argument = |host: &str| {
            let plain = host.split('%').next().unwrap();
            let address = Address {
                family: "ipv6".into(),
                host: host.to_owned(),
                ip: plain.parse().unwrap(),
                port: 7788,
                span: Span::default(),
            };
            address.argument()
        };
        assert_eq!(argument("2001:DB8:0::1"), "ipv6:[2001:db8::1]:7788");
        assert_eq!(argument("FE80::1%eth0"), "ipv6:[fe80::1%eth0]:7788");
    }
}
