// SPDX-License-Identifier: GPL-2.0

//! `drbdsetup`, which talks to the driver, `drbdmeta`, which works on metadata, and the program
//! that they share with `drbdadm`.
//!
//! The name that the program is called by says which of them it is; called by another name, its
//! first argument does.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod clock;
pub mod failure;
pub mod generation;
pub mod host;
pub mod kernel;
pub mod meta;
pub mod netlink;
pub mod note;
pub mod numbers;
pub mod setup;
pub mod terminal;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: drbd-tools {drbdadm|drbdsetup|drbdmeta} ARGUMENTS";

/// Runs the tool that `arguments` name, and says how it ended.
pub fn run(mut arguments: Vec<OsString>) -> ExitCode {
    if tool(arguments.first()).is_none() && arguments.len() > 1 {
        arguments.remove(0);
    }
    let exit = match tool(arguments.first()).as_deref() {
        Some("drbdadm") => drbd_adm::main(arguments),
        Some("drbdsetup") => i32::from(setup::main(arguments)),
        Some("drbdmeta") => i32::from(meta::main(arguments)),
        _ => {
            eprintln!("{USAGE}");
            20
        }
    };
    ExitCode::from(u8::try_from(exit).unwrap_or(20))
}

/// The tool that a path names, without a suffix like `-84`.
fn tool(program: Option<&OsString>) -> Option<String> {
    let name = Path::new(program?).file_name()?.to_str()?;
    let tool = name.split('-').next()?;
    ["drbdadm", "drbdsetup", "drbdmeta"]
        .contains(&tool)
        .then(|| tool.to_owned())
}
