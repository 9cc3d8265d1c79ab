// SPDX-License-Identifier: GPL-2.0

//! Which resources and volumes a command acts on, seen from this host.

use crate::config::{Config, Host, Resource, Volume};
use crate::diagnostic::nearest;
use crate::failure::{Failure, Outcome, BAD_CONFIG};
use crate::world::World;

/// A resource that is on this host, and the part of it that was named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'c> {
    /// The resource.
    pub(crate) resource: &'c Resource,
    /// This host's section.
    pub(crate) local: &'c Host,
    /// The only volume that is meant, if one was named.
    pub(crate) volume: Option<u16>,
}

impl<'c> Site<'c> {
    /// The volumes that are meant.
    pub(crate) fn volumes(self) -> impl Iterator<Item = &'c Volume> {
        let wanted = move |volume: &&Volume| self.volume.is_none_or(|nr| nr == volume.number);
        self.local.volumes.iter().filter(wanted)
    }

    /// The peer's section; `named` tells which one where there are several.
    pub(crate) fn peer(self, named: Option<&str>) -> Outcome<&'c Host> {
        let mut peers = self.resource.hosts.iter().filter(|host| {
            !std::ptr::eq(*host, self.local)
                && named.is_none_or(|name| host.names.iter().any(|known| known == name))
        });
        match (peers.next(), peers.next()) {
            (Some(peer), None) => Ok(peer),
            (None, _) => Err(Failure {
                code: BAD_CONFIG,
                text: format!("resource '{}' has no such peer", self.resource.name),
            }),
            (Some(_), Some(_)) => Err(Failure {
                code: BAD_CONFIG,
                text: format!(
                    "resource '{}' has several peers; say which one with --peer=HOST",
                    self.resource.name
                ),
            }),
        }
    }
}

/// This host's section of a resource, if it has one.
pub(crate) fn local<'c>(resource: &'c Resource, world: &World<'_>) -> Option<&'c Host> {
    if resource.stacked {
        return None;
    }
    resource.hosts.iter().find(|host| match &host.address {
        Some(address) if host.is_floating() => (world.is_local)(address.ip),
        _ => host.names.contains(&world.host),
    })
}

/// Every resource on this host.
pub(crate) fn all<'c>(config: &'c Config, world: &World<'_>) -> Vec<Site<'c>> {
    let resources = config.resources.iter();
    resources
        .filter_map(|resource| {
            Some(Site {
                resource,
                local: local(resource, world)?,
                volume: None,
            })
        })
        .collect()
}

/// What `names` mean: `all`, resources, `RES/VOL` or `minor-N`.
pub(crate) fn select<'c>(
    config: &'c Config,
    names: &[String],
    world: &mut World<'_>,
) -> Outcome<Vec<Site<'c>>> {
    let known = all(config, world);
    if config.resources.is_empty() {
        return Err(Failure::usage("no resources defined!"));
    }
    if names.iter().any(|name| name == "all") {
        if known.is_empty() {
            writeln!(
                world.err,
                "WARN: no normal resources defined for this host ({})!?\n\
                 Misspelled name of the local machine with the 'on' keyword ?",
                world.host
            )?;
            return Err(Failure::usage(""));
        }
        return Ok(known);
    }
    names.iter().map(|name| one(&known, name)).collect()
}

fn one<'c>(known: &[Site<'c>], name: &str) -> Outcome<Site<'c>> {
    let not_found = || {
        let resources = known.iter().map(|site| site.resource.name.as_str());
        let hint = match nearest(name, resources) {
            Some(near) => format!("\ndid you mean '{near}'?"),
            None => String::new(),
        };
        let text = format!("'{name}' not defined in your config (for this host).{hint}");
        Failure::usage(text)
    };
    if let Some(minor) = name
        .strip_prefix("minor-")
        .and_then(|minor| minor.parse().ok())
    {
        for site in known {
            let mut volumes = site.local.volumes.iter();
            if let Some(volume) = volumes.find(|volume| volume.minor() == minor) {
                return Ok(Site {
                    volume: Some(volume.number),
                    ..*site
                });
            }
        }
    }
    let (resource, volume) = match name.split_once('/') {
        Some((resource, number)) => {
            let number: u16 = number
                .parse()
                .map_err(|_| Failure::not_possible(format!("'{number}' is not a volume number")))?;
            (resource, Some(number))
        }
        None => (name, None),
    };
    let site = known.iter().find(|site| site.resource.name == resource);
    let site = Site {
        volume,
        ..*site.ok_or_else(not_found)?
    };
    match site.volumes().next() {
        Some(_) => Ok(site),
        None => Err(not_found()),
    }
}
