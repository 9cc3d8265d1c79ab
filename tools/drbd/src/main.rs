// SPDX-License-Identifier: GPL-2.0

//! The program behind `drbdadm`, `drbdsetup` and `drbdmeta`.

fn main() -> std::process::ExitCode {
    drbd_tools::run(std::env::args_os().collect())
}
