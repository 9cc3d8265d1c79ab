// SPDX-License-Identifier: GPL-2.0

//! Broken configurations: each has one message with its place, the exit code 10, and changes
//! nothing.
//!
//! `DRBD_RECORD=1 cargo test --test broken` writes the messages anew; read them before committing.

mod drbdadm;

use drbdadm::drbdadm;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

#[test]
fn every_broken_file_has_its_message_and_exit_code() {
    let mut files = 0;
    let mut paths: Vec<_> = fs::read_dir("tests/broken")
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
    {
        // Programs that do not exist: running one would be an error with another code.
        let line = format!(
            "-s /nonexistent -m /nonexistent -c {} up all",
            path.display()
        );
        let (code, out, err) = drbdadm(&line);
        assert_eq!((code, out.as_str()), (10, ""), "{}:\n{err}", path.display());
        let expected = path.with_extension("message");
        if std::env::var_os("DRBD_RECORD").is_some() {
            fs::write(&expected, &err).unwrap();
        }
        let recorded = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(err, recorded, "{}", path.display());
        files += 1;
    }
    assert!(files >= 30, "{files} files");
}

#[test]
fn a_missing_file_and_unknown_names_have_their_exit_codes() {
    let config = "-c tests/dry-run/manual-8.3.conf";
    for (line, code, text) in [
        (
            "-c tests/none.conf up all".to_owned(),
            20,
            "cannot read 'tests/none.conf'",
        ),
        (
            format!("{config} up r1"),
            1,
            "'r1' not defined in your config",
        ),
        (
            format!("{config} up r0/1"),
            1,
            "'r0/1' not defined in your config",
        ),
        (format!("{config} up"), 1, "No resource names specified"),
        (format!("{config} conect r0"), 1, "did you mean 'connect'?"),
        (
            format!("{config} primary --forc r0"),
            1,
            "did you mean '--force'?",
        ),
        (
            format!("{config} down r0/0"),
            1,
            "operates on whole resources",
        ),
        (
            format!("{config} -s /nonexistent down r0"),
            20,
            "/nonexistent",
        ),
    ] {
        let (got, _, err) = drbdadm(&line);
        assert_eq!(got, code, "{line}: {err}");
        assert!(err.contains(text), "{line}: {err}");
    }
}

fn config_like() -> impl Strategy<Value = String> {
    let words = [
        "resource",
        "r0",
        "{",
        "}",
        ";",
        "on",
        "t",
        "device",
        "/dev/drbd2",
        "minor",
        "disk",
        "net",
        "syncer",
        "rate",
        "50M",
        "address",
        "[::1]:7",
        "192.0.2.1:7",
        "meta-disk",
        "/dev/x[2]",
        "[",
        "volume",
        "0",
        "protocol",
        "C",
        "common",
        "global",
        "\"",
        "\\",
        "#",
        "\n",
        "skip",
        "startup",
        "become-primary-on",
        "floating",
        "99999999999999999999",
        "no-tcp-cork",
        "\u{1f980}",
        "\u{0}",
    ];
    prop::collection::vec((prop::sample::select(words.to_vec()), any::<bool>()), 0..60).prop_map(
        |list| {
            list.iter()
                .flat_map(|(word, blank)| [*word, if *blank { " " } else { "" }])
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![config_like(), any::<String>()]) {
        if let Err(message) = drbd_adm::check(Path::new("any.conf"), text) {
            prop_assert!(message.contains("error: "), "{}", message);
        }
    }

    #[test]
    fn a_good_file_with_one_byte_changed_is_read_or_refused(
        at in 0usize..2000,
        to in any::<char>(),
    ) {
        let good = fs::read_to_string("tests/dry-run/volumes-8.4.conf").unwrap();
        let mut chars: Vec<char> = good.chars().collect();
        let at = at % chars.len();
        chars[at] = to;
        let _ = drbd_adm::check(Path::new("any.conf"), chars.into_iter().collect());
    }
}
