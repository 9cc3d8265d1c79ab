// SPDX-License-Identifier: GPL-2.0

//! `drbdadm dump-xml`: the configuration as XML, in the layout of drbd-utils.

use crate::config::{Config, Host, Meta, Resource, Sections, Volume};
use crate::option::{OptionList, Section};
use crate::source::Sources;
use std::fmt::Write;

/// Some resources, without what is around them.
pub(crate) fn some<'c>(resources: impl Iterator<Item = &'c Resource>, sources: &Sources) -> String {
    let mut out = Xml::default();
    for resource in resources {
        self::resource(&mut out, resource, sources);
    }
    out.text
}

/// The whole document.
pub(crate) fn document(config: &Config, sources: &Sources) -> String {
    let mut out = Xml::default();
    let file = config.file.display().to_string();
    out.element("config", &[("file", &file)], |out| {
        global(out, config);
        if let Some(common) = &config.common {
            out.element("common", &[], |out| sections(out, common));
        }
        for resource in &config.resources {
            self::resource(out, resource, sources);
        }
    });
    out.text
}

fn global(out: &mut Xml, config: &Config) {
    let global = &config.global;
    let refresh = global.dialog_refresh.filter(|seconds| *seconds != 1);
    if !global.disable_ip_verification && global.minor_count.is_none() && refresh.is_none() {
        return;
    }
    out.element("global", &[], |out| {
        if global.disable_ip_verification {
            out.empty("disable-ip-verification", &[]);
        }
        if let Some(count) = global.minor_count {
            out.empty("minor-count", &[("count", &count.to_string())]);
        }
        if let Some(seconds) = refresh {
            out.empty("dialog-refresh", &[("refresh", &seconds.to_string())]);
        }
    });
}

fn resource(out: &mut Xml, resource: &Resource, sources: &Sources) {
    let place = sources.file_and_line(resource.span);
    let attributes = [("name", &*resource.name), ("conf-file-line", &place)];
    out.element("resource", &attributes, |out| {
        for host in &resource.hosts {
            self::host(out, host);
        }
        sections(out, &resource.sections);
    });
}

fn host(out: &mut Xml, host: &Host) {
    let names = host.names.join(" ");
    let attribute = match host.is_floating() {
        true => ("floating", "1"),
        false => ("name", &*names),
    };
    out.element("host", &[attribute], |out| {
        for volume in &host.volumes {
            self::volume(out, volume);
        }
        if let Some(address) = &host.address {
            let port = address.port.to_string();
            let attributes = [("family", &*address.family), ("port", &port)];
            out.leaf("address", &attributes, &address.host);
        }
    });
}

fn volume(out: &mut Xml, volume: &Volume) {
    let number = volume.number.to_string();
    out.element("volume", &[("vnr", &number)], |out| {
        options(out, "disk", &volume.options);
        let minor = volume.minor().to_string();
        out.leaf("device", &[("minor", &minor)], &volume.device());
        out.leaf("disk", &[], volume.disk());
        match &volume.meta {
            Some(Meta::Indexed(device, index)) => {
                let index = index.to_string();
                out.leaf("meta-disk", &[("index", &index)], device);
            }
            Some(Meta::Flexible(device)) => out.leaf("meta-disk", &[], device),
            _ => out.leaf("meta-disk", &[], "internal"),
        }
    });
}

fn sections(out: &mut Xml, sections: &Sections) {
    for section in Section::ALL {
        options(out, section.name(), sections.of(section));
    }
}

fn options(out: &mut Xml, name: &str, list: &OptionList) {
    if list.is_empty() {
        return;
    }
    out.element("section", &[("name", name)], |out| {
        // drbd-utils keep the hosts apart and show them last.
        let (hosts, others): (Vec<_>, Vec<_>) = list
            .iter()
            .partition(|setting| setting.name == "become-primary-on");
        for setting in others.into_iter().chain(hosts) {
            out.empty(
                "option",
                &[("name", &setting.name), ("value", &setting.value)],
            );
        }
    });
}

/// A document under construction.
#[derive(Default)]
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn element(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        content: impl FnOnce(&mut Self),
    ) {
        self.open(name, attributes, ">\n");
        self.depth += 1;
        content(self);
        self.depth -= 1;
        let _ = writeln!(self.text, "{:1$}</{name}>", "", self.depth * 4);
    }

    fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], content: &str) {
        self.open(name, attributes, ">");
        let _ = writeln!(self.text, "{}</{name}>", escaped(content));
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.open(name, attributes, "/>\n");
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)], end: &str) {
        let _ = write!(self.text, "{:1$}<{name}", "", self.depth * 4);
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"{}\"", escaped(value));
        }
        self.text.push_str(end);
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c => out.push(c),
        }
    }
    out
}
