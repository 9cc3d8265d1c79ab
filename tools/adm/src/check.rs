// SPDX-License-Identifier: GPL-2.0

//! Checks over the whole of a configuration: nothing missing, nothing used twice.

use crate::config::{Config, Host, Meta, Resource, Volume};
use crate::diagnostic::Diagnostic;
use crate::option::{is_discard_node, Section};
use crate::source::{Sources, Span};
use std::collections::HashMap;

/// Everything that is wrong, in the order of the file.
pub(crate) fn check(config: &Config, sources: &Sources) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    let mut used = HashMap::new();
    for resource in &config.resources {
        hosts(resource, &mut errors);
        for host in &resource.hosts {
            complete(resource, host, &mut errors);
            unique(host, &mut used, &mut errors);
        }
        names(config, resource, &mut errors);
    }
    // A value that resources inherit is wrong once, not once for each of them.
    let mut shown = Vec::new();
    errors.retain(|error| {
        let text = error.render(sources, "");
        let new = !shown.contains(&text);
        shown.push(text);
        new
    });
    errors
}

fn hosts(resource: &Resource, errors: &mut Vec<Diagnostic>) {
    if resource.stacked {
        return;
    }
    let name = &resource.name;
    match resource.hosts.as_slice() {
        [] | [_] => errors.push(
            Diagnostic::new(resource.span, format!("resource '{name}' lacks a peer"))
                .expected("two sections 'on HOST { … }'"),
        ),
        [first, rest @ ..] => {
            let set = |host: &Host| {
                let mut numbers: Vec<_> = host.volumes.iter().map(|v| v.number).collect();
                numbers.sort_unstable();
                numbers
            };
            for host in rest.iter().filter(|host| set(host) != set(first)) {
                errors.push(
                    Diagnostic::new(
                        host.span,
                        format!("'{}' has other volumes than its peer", host.describe()),
                    )
                    .related(first.span, format!("'{}' is here", first.describe())),
                );
            }
        }
    }
}

fn complete(resource: &Resource, host: &Host, errors: &mut Vec<Diagnostic>) {
    let mut lacks = |span: Span, what: &str, example: &str| {
        let place = format!("resource '{}', '{}'", resource.name, host.describe());
        errors.push(Diagnostic::new(span, format!("{place}: no '{what}'")).expected(example));
    };
    if host.address.is_none() {
        lacks(host.span, "address", "'address IP:PORT;'");
    }
    if host.volumes.is_empty() {
        lacks(
            host.span,
            "device",
            "'device /dev/drbdN;' or a section 'volume'",
        );
    }
    for volume in &host.volumes {
        if volume.minor.is_none() {
            lacks(volume.span, "device", "'device /dev/drbdN;'");
        }
        if volume.disk.is_none() {
            lacks(volume.span, "disk", "'disk /dev/…;'");
        }
        if volume.meta.is_none() {
            lacks(
                volume.span,
                "meta-disk",
                "'meta-disk internal;' or another device",
            );
        }
    }
}

type Used = HashMap<(String, String), Span>;

/// On one host, a minor, a backing device, a place for metadata and an address are used once.
fn unique(host: &Host, used: &mut Used, errors: &mut Vec<Diagnostic>) {
    let mut claim =
        |node: &str, what: String, span: Span| match used.get(&(node.to_owned(), what.clone())) {
            Some(first) => errors.push(
                Diagnostic::new(span, format!("{what} is used twice on '{node}'"))
                    .related(*first, "first used here"),
            ),
            None => {
                used.insert((node.to_owned(), what), span);
            }
        };
    for node in &host.names {
        if let Some(address) = &host.address {
            claim(
                node,
                format!("address {}:{}", address.host, address.port),
                address.span,
            );
        }
        for volume in &host.volumes {
            claim_volume(node, volume, &mut claim);
        }
    }
}

fn claim_volume(node: &str, volume: &Volume, claim: &mut impl FnMut(&str, String, Span)) {
    if let Some(minor) = volume.minor {
        claim(node, format!("minor {minor}"), volume.device_span);
    }
    if let Some(disk) = &volume.disk {
        claim(node, format!("disk {disk}"), volume.disk_span);
    }
    match &volume.meta {
        // Two volumes would write over each other's bitmap and log.
        Some(Meta::Indexed(device, index)) => {
            claim(node, format!("meta-disk {device}[{index}]"), volume.span);
        }
        Some(Meta::Flexible(device)) => claim(node, format!("disk {device}"), volume.span),
        Some(Meta::Internal) | None => {}
    }
}

/// Names of hosts and resources that options mention exist.
fn names(config: &Config, resource: &Resource, errors: &mut Vec<Diagnostic>) {
    let hosts: Vec<&str> = resource
        .hosts
        .iter()
        .flat_map(|host| host.names.iter().map(String::as_str))
        .collect();
    let mut host_named = |name: &str, span: Span, option: &str| {
        if !hosts.is_empty() && !hosts.contains(&name) {
            let text = format!(
                "'{option}' names '{name}', which is no host of '{}'",
                resource.name
            );
            errors.push(Diagnostic::new(span, text).did_you_mean(name, hosts.iter().copied()));
        }
    };
    if let Some(setting) = resource
        .sections
        .of(Section::Startup)
        .get("become-primary-on")
    {
        for name in setting.value.split(' ').filter(|name| *name != "both") {
            host_named(name, setting.span, "become-primary-on");
        }
    }
    for setting in resource.sections.of(Section::Net).iter() {
        if is_discard_node(&setting.value) {
            host_named(
                &setting.value["discard-node-".len()..],
                setting.span,
                &setting.name,
            );
        }
    }
    for volume in resource.hosts.iter().flat_map(|host| &host.volumes) {
        let Some(after) = volume.options.get("resync-after") else {
            continue;
        };
        let name = after.value.split('/').next().unwrap_or_default();
        let mut known = config
            .resources
            .iter()
            .map(|resource| resource.name.as_str());
        if after.value.parse::<i64>().is_err() && !known.any(|known| known == name) {
            let text = format!("'resync-after' names '{name}', which is no resource");
            let known = config
                .resources
                .iter()
                .map(|resource| resource.name.as_str());
            errors.push(Diagnostic::new(after.span, text).did_you_mean(name, known));
        }
    }
}
