// SPDX-License-Identifier: GPL-2.0

//! Runs drbdadm in a world where this is node `t` with address 192.0.2.1.

use drbd_adm::World;

/// Exit code, output and errors of `drbdadm` with the words of `line` as arguments.
pub(crate) fn drbdadm(line: &str) -> (i32, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut world = World {
        host: "t".into(),
        is_local: |ip| ip.to_string() == "192.0.2.1",
        out: &mut out,
        err: &mut err,
    };
    let code = drbd_adm::run(line.split_whitespace().map(str::to_owned), &mut world);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}
