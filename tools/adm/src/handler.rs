// SPDX-License-Identifier: GPL-2.0

//! Handlers: the kernel calls `drbdadm HANDLER minor-N`, and drbdadm runs what is configured.

use crate::config::Volume;
use crate::failure::{Failure, Outcome, USAGE};
use crate::option::Section;
use crate::run::escaped;
use crate::selection::Site;
use crate::world::World;
use std::process::Command;

/// Runs the handler with the `DRBD_…` environment and returns its exit code; 0 if there is none.
pub(crate) fn run(
    name: &str,
    site: Site<'_>,
    config_file: &str,
    needs_volume: bool,
    dry_run: bool,
    world: &mut World<'_>,
) -> Outcome<i32> {
    let resource = &site.resource.name;
    let volumes: Vec<&Volume> = site.volumes().collect();
    if needs_volume && site.volume.is_none() && volumes.len() != 1 {
        return Err(Failure::usage(format!(
            "{name} requires a specific volume id, but none is specified.\n\
             Try '{name} minor-<minor_number>' or '{name} {resource}/<vnr>'"
        )));
    }
    // The kernel of DRBD 8.3 used the old name.
    let configured = if name == "outdate-peer" {
        "fence-peer"
    } else {
        name
    };
    let Some(command) = site
        .resource
        .sections
        .of(Section::Handlers)
        .value(configured)
    else {
        return Ok(0);
    };
    if dry_run {
        writeln!(world.out, "/bin/sh -c {}", escaped(command))?;
        return Ok(0);
    }
    world.out.flush()?;
    let joined = |of: fn(&Volume) -> String| {
        volumes
            .iter()
            .map(|volume| of(volume))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut child = Command::new("/bin/sh");
    child
        .args(["-c", command])
        .env("DRBD_CONF", config_file)
        .env("DRBD_RESOURCE", resource)
        .env("DRBD_MINOR", joined(|volume| volume.minor().to_string()))
        .env("DRBD_VOLUME", joined(|volume| volume.number.to_string()))
        .env("DRBD_LL_DISK", joined(|volume| volume.disk().to_owned()));
    if let Ok(peer) = site.peer(None) {
        let names = peer.names.join(" ");
        child.env("DRBD_PEER", &names).env("DRBD_PEERS", &names);
        if let Some(address) = &peer.address {
            child.env("DRBD_PEER_AF", &address.family);
            child.env("DRBD_PEER_ADDRESS", &address.host);
        }
    }
    let status = child
        .status()
        .map_err(|error| Failure::not_possible(format!("cannot run '/bin/sh': {error}")))?;
    Ok(status.code().unwrap_or(USAGE))
}
