// SPDX-License-Identifier: GPL-2.0

//! Userspace peers of the module, built on its engine.
//!
//! `drbd-peer node` is an ordinary node of any protocol version from 86 on, with a shell on its
//! standard input; `drbd-peer evil` sends what no node would.

mod disk;
mod evil;
mod link;
mod node;
mod shell;

use drbd_engine::wire::{Features, Version};
use link::{Offer, Way};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage:
  drbd-peer evil --to ADDRESS:PORT [--resources N] [--seed N] [--packets N] [--seconds N]
                 [--session N]
  drbd-peer node --proto 86..101 --disk FILE --kib SIZE (--call | --wait) ADDRESS:PORT
                 [--protocol A|B|C] [--features BITS] [--secret TEXT]
";

/// Options with a value each.
struct Options(Vec<(String, String)>);

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Vec::new();
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            options.push((name, value));
        }
        Ok(Self(options))
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.text(name) {
            Some(text) => text
                .parse()
                .map_err(|_| format!("{name}: {text} is no number")),
            None => Ok(default),
        }
    }

    fn address(&self, name: &str) -> Result<Option<SocketAddrV4>, String> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| format!("{name}: {text} is no address"))
        };
        self.text(name).map(parse).transpose()
    }
}

fn node(options: &Options) -> Result<(), String> {
    let version = options.number("--proto", 101)?;
    let version = u32::try_from(version).ok().and_then(Version::new);
    let features = match options.number("--features", 0)? {
        0 => Features::NONE,
        _ => Features::OURS,
    };
    let offer = Offer {
        version: version.ok_or("no such protocol version")?,
        features,
        secret: options.text("--secret").map(str::to_owned),
    };
    let way = match (options.address("--call")?, options.address("--wait")?) {
        (Some(to), None) => Way::Call(to),
        (None, Some(at)) => Way::Wait(at),
        _ => return Err("either --call or --wait".to_owned()),
    };
    let protocol = match options.text("--protocol").unwrap_or("C") {
        "A" => 1,
        "B" => 2,
        _ => 3,
    };
    let path = PathBuf::from(options.text("--disk").ok_or("--disk is missing")?);
    let kib = options.number("--kib", 16 * 1024)?;
    let disk = disk::Disk::open(&path, kib).map_err(|error| error.to_string())?;
    let node = node::Node::new(disk, offer, way, protocol).map_err(|error| error.to_string())?;
    shell::run(node);
    Ok(())
}

fn evil(options: &Options) -> Result<(), String> {
    let resources = options.number("--resources", 1)?;
    evil::run(&evil::Plan {
        to: options.address("--to")?.ok_or("--to is missing")?,
        resources: u16::try_from(resources).map_err(|_| "too many resources")?,
        seed: options.number("--seed", 1)?,
        packets: options.number("--packets", 1000)?,
        only: options
            .text("--session")
            .map(|_| options.number("--session", 0))
            .transpose()?,
        seconds: options.number("--seconds", 3600)?,
    })
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let run = match kind.as_str() {
        "node" => Options::read(arguments).and_then(|options| node(&options)),
        "evil" => Options::read(arguments).and_then(|options| evil(&options)),
        _ => Err(USAGE.to_owned()),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
