// SPDX-License-Identifier: GPL-2.0

//! The inputs that others make, each as a function that must hold for any bytes.
//!
//! `make fuzz` runs them under libFuzzer. The corpora in `corpus/` are run by every `cargo test`;
//! what a fuzzer found is added there.

mod bitmap;
mod conf;
mod input;
mod metadata;
mod netlink;
mod peer;
mod wire;

/// A target: its name, which is also that of its corpus, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("wire", wire::run),
    ("peer", peer::run),
    ("metadata", metadata::run),
    ("bitmap", bitmap::run),
    ("netlink", netlink::run),
    ("conf", conf::run),
];

/// Runs the target of that name.
///
/// # Panics
///
/// For a name that is none, and for a mistake that the bytes bring to light.
pub fn run(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.expect("a target of that name");
    target(bytes);
}
