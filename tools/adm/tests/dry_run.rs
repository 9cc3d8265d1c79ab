// SPDX-License-Identifier: GPL-2.0

//! `drbdadm -d` prints what drbdadm of drbd-utils 9.22 for DRBD 8.4 prints, recorded in `dry-run/`.

mod drbdadm;

use drbdadm::drbdadm;
use std::fs;

/// What ours says where the two differ on purpose.
const FIXED_RATE_ARGUMENT: &str = "--c-plan-ahead=0 ";

#[test]
fn manual_8_3() {
    // 8.3 resyncs at a fixed rate; drbd-utils turn it into the controller's first guess.
    compare("manual-8.3", |ours| {
        ours.replace(FIXED_RATE_ARGUMENT, "")
            .replace("            c-plan-ahead   0;\n", "")
            .replace("        c-plan-ahead       0;\n", "")
    });
}

#[test]
fn common_8_3() {
    compare("common-8.3", |ours| {
        ours.replace(FIXED_RATE_ARGUMENT, "")
            .replace("            c-plan-ahead   0;\n", "")
            .replace("        c-plan-ahead       0;\n", "")
    });
}

#[test]
fn volumes_8_4() {
    compare("volumes-8.4", |ours| ours);
}

#[test]
fn a_rate_of_8_3_is_a_fixed_rate() {
    let config = "tests/dry-run/manual-8.3.conf";
    let (code, out, _) = drbdadm(&format!("-d -c {config} attach r0"));
    assert_eq!(code, 0);
    assert!(
        out.ends_with(" --on-io-error=pass_on --c-plan-ahead=0 --resync-rate=50M\n"),
        "{out}"
    );
}

fn compare(name: &str, expected_differences: fn(String) -> String) {
    let config = format!("tests/dry-run/{name}.conf");
    let recorded = fs::read_to_string(format!("tests/dry-run/{name}.expected")).unwrap();
    let mut blocks = 0;
    for block in recorded.split("$ drbdadm -d ").skip(1) {
        let (command, expected) = block.split_once('\n').unwrap();
        let (code, out, err) = drbdadm(&format!(
            "-d -s drbdsetup -m drbdmeta -c {config} {command}"
        ));
        let ours = expected_differences(out).replace(&config, "/etc/drbd.conf");
        let ours = format!("{out}[exit code {code}]", out = ours);
        let lines = |text: &str| {
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        for (ours, expected) in lines(&ours).iter().zip(&lines(expected)) {
            assert_eq!(ours, expected, "{name}: drbdadm -d {command}\n{err}");
        }
        assert_eq!(
            lines(&ours).len(),
            lines(expected).len(),
            "{name}: drbdadm -d {command}\n{err}"
        );
        blocks += 1;
    }
    assert!(blocks > 50);
}
