// SPDX-License-Identifier: GPL-2.0

//! `drbdadm dump`: the configuration as drbdadm understood it, in the layout of drbd-utils.

use crate::config::{Config, Host, Meta, Resource, Sections, Volume};
use crate::option::{OptionList, Section};
use crate::source::Sources;
use std::fmt::Write;

/// Settings of drbd-utils that differ from what it once called their defaults: dumps name them.
const TIMEOUTS: [(&str, u32, u32); 3] = [
    ("cmd-timeout-short", 5, 5),
    ("cmd-timeout-medium", 600, 121),
    ("cmd-timeout-long", 0, 600),
];

/// The file's name, `global` and `common`.
pub(crate) fn head(config: &Config) -> String {
    let mut out = format!("# {}\n", config.file.display());
    global(&mut out, config);
    if let Some(common) = &config.common {
        out.push_str("common {\n");
        sections(&mut out, common);
        out.push_str("}\n\n");
    }
    out
}

fn global(out: &mut String, config: &Config) {
    let global = &config.global;
    let refresh = global.dialog_refresh.filter(|seconds| *seconds != 1);
    let usage = global
        .usage_count
        .as_deref()
        .filter(|usage| *usage != "ask");
    if !global.disable_ip_verification
        && global.minor_count.is_none()
        && refresh.is_none()
        && usage.is_none()
    {
        return;
    }
    out.push_str("global {\n");
    if global.disable_ip_verification {
        out.push_str("    disable-ip-verification;\n");
    }
    if let Some(count) = global.minor_count {
        line(out, 4, &format!("minor-count {count};"));
    }
    if let Some(seconds) = refresh {
        line(out, 4, &format!("dialog-refresh {seconds};"));
    }
    if let Some(usage) = usage {
        line(out, 4, &format!("usage-count {usage};"));
    }
    for (name, unset, hidden) in TIMEOUTS {
        let mut set = global.timeouts.iter();
        let seconds = set
            .find(|(set, _)| *set == name)
            .map_or(unset, |(_, seconds)| *seconds);
        if seconds != hidden {
            line(out, 4, &format!("{name} {seconds};"));
        }
    }
    out.push_str("}\n\n");
}

/// One resource; `host` is the name of this node, `ignored` whether the resource is not on it.
pub(crate) fn resource(
    resource: &Resource,
    sources: &Sources,
    host: &str,
    ignored: bool,
) -> String {
    let not = |yes| if yes { "" } else { "not " };
    let (ignored, stacked) = (not(ignored), not(resource.stacked));
    let mut out = format!(
        "# resource {} on {host}: {ignored}ignored, {stacked}stacked\n# defined at {}\n",
        resource.name,
        sources.file_and_line(resource.span)
    );
    let _ = writeln!(out, "resource {} {{", quoted(&resource.name));
    for host in &resource.hosts {
        self::host(&mut out, host);
    }
    sections(&mut out, &resource.sections);
    out.push_str("}\n\n");
    out
}

fn host(out: &mut String, host: &Host) {
    let address = host
        .address
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    if host.is_floating() {
        line(out, 4, &format!("floating {address} {{"));
    } else {
        line(out, 4, &format!("on {} {{", host.names.join(" ")));
    }
    for volume in &host.volumes {
        if volume.implicit {
            self::volume(out, volume, 8);
        } else {
            line(out, 8, &format!("volume {} {{", volume.number));
            self::volume(out, volume, 12);
            line(out, 8, "}");
        }
    }
    if !host.is_floating() {
        line(out, 8, &format!("{:<16} {address};", "address"));
    }
    line(out, 4, "}");
}

fn volume(out: &mut String, volume: &Volume, indent: usize) {
    options(out, "disk", &volume.options, indent);
    let width = 24 - indent;
    let device = format!("{} minor {}", volume.device(), volume.minor());
    line(out, indent, &format!("{:<width$} {device};", "device"));
    line(
        out,
        indent,
        &format!("{:<width$} {};", "disk", quoted(volume.disk())),
    );
    match &volume.meta {
        Some(Meta::Indexed(device, index)) => {
            line(
                out,
                indent,
                &format!("{:<16} {} [{index}];", "meta-disk", quoted(device)),
            );
        }
        Some(Meta::Flexible(device)) => {
            line(
                out,
                indent,
                &format!("{:<16} {};", "meta-disk", quoted(device)),
            );
        }
        _ => line(out, indent, &format!("{:<width$} internal;", "meta-disk")),
    }
}

fn sections(out: &mut String, sections: &Sections) {
    for section in Section::ALL {
        options(out, section.name(), sections.of(section), 4);
    }
}

fn options(out: &mut String, name: &str, list: &OptionList, indent: usize) {
    if list.is_empty() {
        return;
    }
    line(out, indent, &format!("{name} {{"));
    let width = 20usize.saturating_sub(indent);
    // drbd-utils keep the hosts apart and show them last.
    let (hosts, others): (Vec<_>, Vec<_>) = list
        .iter()
        .partition(|setting| setting.name == "become-primary-on");
    for setting in others.into_iter().chain(hosts) {
        let value = match setting.name.as_str() {
            // Several hosts are several words.
            "become-primary-on" => setting.value.clone(),
            _ => quoted(&setting.value),
        };
        line(
            out,
            indent + 4,
            &format!("{:<width$} {value:>3};", setting.name),
        );
    }
    line(out, indent, "}");
}

fn line(out: &mut String, indent: usize, text: &str) {
    let _ = writeln!(out, "{:indent$}{text}", "");
}

/// A word as it must stand in a configuration file.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
