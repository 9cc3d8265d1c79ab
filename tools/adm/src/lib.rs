// SPDX-License-Identifier: GPL-2.0

//! `drbdadm`: reads `drbd.conf` and drives `drbdsetup` and `drbdmeta` by it (spec §9.2, §9.4).
//!
//! | module | what it does |
//! | --- | --- |
//! | `source`, `token`, `tree` | texts, their words, their shape |
//! | `reader`, `check` | what the shape means; mistakes are shown with their place |
//! | `config`, `option` | the configuration, and options with their inheritance |
//! | `arguments`, `command`, `selection` | what the admin asked for |
//! | `plan`, `adjust`, `running` | which programs have to be run |
//! | `run` | runs them, or prints them |
//! | `wait`, `handler`, `registry`, `dump`, `version` | single commands |
//!
//! Nothing is run before the whole configuration was read and found good.

mod adjust;
mod arguments;
mod check;
mod command;
mod config;
mod diagnostic;
mod dispatch;
mod dump;
mod failure;
mod handler;
mod option;
mod plan;
mod reader;
mod registry;
mod run;
mod running;
mod selection;
mod source;
mod token;
mod tree;
mod version;
mod wait;
mod world;
mod xml;

pub use world::World;

use std::ffi::OsString;
use std::path::Path;

/// Runs `drbdadm` with these arguments, the program's name first, and returns its exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    let mut world = World {
        host: world::host_name(),
        is_local: world::is_local,
        out: &mut std::io::stdout(),
        err: &mut std::io::stderr(),
    };
    let args = args.into_iter().skip(1);
    run(
        args.map(|arg| arg.to_string_lossy().into_owned()),
        &mut world,
    )
}

/// Runs `drbdadm` with the arguments behind its name in a world that the caller describes.
pub fn run(args: impl IntoIterator<Item = String>, world: &mut World<'_>) -> i32 {
    let outcome = arguments::parse(args).and_then(|arguments| dispatch::run(&arguments, world));
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            let _ = world.out.flush();
            if !failure.text.is_empty() {
                let _ = writeln!(world.err, "{}", failure.text);
            }
            failure.code
        }
    }
}

/// Reads a configuration and says what is wrong with it, as `drbdadm sh-nop` would.
///
/// `path` is the name that messages show, and the directory that relative includes start from.
pub fn check(path: &Path, text: String) -> Result<(), String> {
    let mut sources = source::Sources::default();
    match reader::read(&mut sources, path, text) {
        Ok(_) => Ok(()),
        Err(errors) => Err(failure::Failure::config(&errors, &sources).text),
    }
}
