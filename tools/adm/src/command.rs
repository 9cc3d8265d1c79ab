// SPDX-License-Identifier: GPL-2.0

//! The commands of drbdadm: what they act on and what they do (spec §9.2).

use crate::diagnostic::nearest;
use crate::failure::{Failure, Outcome};
use drbd_engine::config::{DiskConf, Field, NetConf, ResourceOptions, Settings};
use drbd_engine::config::{NewCurrentUuid, StartVerify};

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stages over all named resources.
    Up,
    /// The same, but only what differs from what runs; `true` shows progress.
    Adjust(bool),
    /// Recovers the activity log and attaches.
    Attach,
    /// Connects.
    Connect,
    /// `new-resource`.
    NewResource,
    /// `new-minor`.
    NewMinor,
    /// drbdsetup with a minor.
    SetupMinor,
    /// drbdsetup with a minor; drbdmeta if the volume is not attached.
    SetupOrMeta,
    /// drbdsetup with the resource's name.
    SetupResource,
    /// drbdsetup with both addresses.
    SetupAddresses,
    /// `resize`, then `check-resize`.
    Resize,
    /// drbdmeta.
    Meta,
    /// A property of each volume.
    Property(Property),
    /// `sh-resources`
    List,
    /// `sh-resource`: one name a line.
    ListLines,
    /// `sh-nop`: reads the configuration.
    Nothing,
    /// `sh-mod-parms`
    ModuleParameters,
    /// `sh-b-pri`: becomes Primary where the configuration says so.
    BecomePrimary,
    /// `dump`
    Dump,
    /// `dump-xml`
    DumpXml,
    /// `sh-status`: where everything is written, and drbdsetup's answer for each volume.
    ShellStatus,
    /// `sh-driver`: which driver is loaded, in one line.
    Driver,
    /// `sh-lr-of`: the resource below a stacked one.
    LowerResource,
    /// `wait-connect`
    WaitConnect,
    /// `wait-con-int`: waits with a banner and a way out.
    WaitInteractive,
    /// A handler that the kernel calls; `true` if it is about one volume.
    Handler(bool),
    /// Known to drbd-utils, not built here.
    NotBuilt,
}

/// What `sh-…` commands print of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// The device.
    Device,
    /// The same, in the form that udev rules want.
    Udev,
    /// The minor.
    Minor,
    /// The backing device.
    Disk,
    /// The device that holds the metadata.
    MetaDisk,
    /// Where on it.
    MetaIndex,
    /// The own address.
    Ip,
}

/// Whether a command is given resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Whole resources.
    Whole,
    /// Resources or single volumes.
    Volumes,
    /// Single volumes.
    Volume,
    /// Resources; none means all.
    Optional,
    /// It acts on all.
    Ignored,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) action: Action,
    /// What it acts on.
    pub(crate) names: Names,
    /// Whether help leaves it away.
    pub(crate) hidden: bool,
}

const fn shown(name: &'static str, action: Action, names: Names) -> Command {
    Command {
        name,
        action,
        names,
        hidden: false,
    }
}

const fn hidden(name: &'static str, action: Action, names: Names) -> Command {
    Command {
        name,
        action,
        names,
        hidden: true,
    }
}

/// Every command.
pub(crate) const COMMANDS: [Command; 74] = {
    use Action::*;
    use Names::*;
    [
        shown("attach", Attach, Volumes),
        shown("disk-options", SetupMinor, Volumes),
        shown("detach", SetupMinor, Volumes),
        shown("connect", Connect, Whole),
        shown("net-options", SetupAddresses, Whole),
        shown("disconnect", SetupAddresses, Whole),
        shown("up", Up, Volumes),
        shown("resource-options", SetupResource, Whole),
        shown("down", SetupResource, Whole),
        shown("primary", SetupMinor, Volumes),
        shown("secondary", SetupMinor, Volumes),
        shown("invalidate", SetupOrMeta, Volumes),
        shown("invalidate-remote", SetupMinor, Volumes),
        shown("outdate", SetupOrMeta, Volumes),
        shown("resize", Resize, Volumes),
        shown("verify", SetupMinor, Volumes),
        shown("pause-sync", SetupMinor, Volumes),
        shown("resume-sync", SetupMinor, Volumes),
        shown("adjust", Adjust(false), Volumes),
        shown("adjust-with-progress", Adjust(true), Volumes),
        shown("wait-connect", WaitConnect, Volumes),
        shown("wait-con-int", WaitInteractive, Ignored),
        shown("status", SetupResource, Optional),
        shown("role", SetupMinor, Volumes),
        shown("cstate", SetupMinor, Volumes),
        shown("dstate", SetupOrMeta, Volumes),
        shown("dump", Dump, Optional),
        shown("create-md", Meta, Volumes),
        shown("show-gi", SetupOrMeta, Volumes),
        shown("get-gi", SetupOrMeta, Volumes),
        shown("dump-md", Meta, Volumes),
        shown("wipe-md", Meta, Volumes),
        shown("apply-al", Meta, Volumes),
        shown("suspend-io", SetupMinor, Volumes),
        shown("resume-io", SetupMinor, Volumes),
        hidden("new-current-uuid", SetupMinor, Volume),
        hidden("set-gi", Meta, Volume),
        hidden("check-resize", Resize, Volumes),
        hidden("new-resource", NewResource, Whole),
        hidden("new-minor", NewMinor, Volumes),
        hidden("sh-new-minor", NewMinor, Volumes),
        hidden("sh-nop", Nothing, Ignored),
        hidden("sh-driver", Driver, Ignored),
        hidden("sh-resources", List, Ignored),
        hidden("sh-resource", ListLines, Whole),
        hidden("sh-mod-parms", ModuleParameters, Ignored),
        hidden("sh-dev", Property(self::Property::Device), Volumes),
        hidden("sh-udev", Property(self::Property::Udev), Volume),
        hidden("sh-minor", Property(self::Property::Minor), Volumes),
        hidden("sh-ll-dev", Property(self::Property::Disk), Volumes),
        hidden("sh-md-dev", Property(self::Property::MetaDisk), Volumes),
        hidden("sh-md-idx", Property(self::Property::MetaIndex), Volumes),
        hidden("sh-ip", Property(self::Property::Ip), Volumes),
        hidden("sh-b-pri", BecomePrimary, Volumes),
        hidden("before-resync-target", Handler(true), Volumes),
        hidden("after-resync-target", Handler(true), Volumes),
        hidden("before-resync-source", Handler(true), Volumes),
        hidden("pri-on-incon-degr", Handler(true), Volumes),
        hidden("pri-lost-after-sb", Handler(true), Volumes),
        hidden("local-io-error", Handler(true), Volumes),
        hidden("pri-lost", Handler(true), Volumes),
        hidden("initial-split-brain", Handler(true), Volumes),
        hidden("split-brain", Handler(true), Volumes),
        hidden("out-of-sync", Handler(true), Volumes),
        hidden("fence-peer", Handler(false), Volumes),
        hidden("unfence-peer", Handler(false), Volumes),
        hidden("outdate-peer", Handler(false), Volumes),
        hidden("dump-xml", DumpXml, Optional),
        hidden("sh-lr-of", LowerResource, Volumes),
        hidden("sh-status", ShellStatus, Ignored),
        hidden("proxy-up", NotBuilt, Optional),
        hidden("proxy-down", NotBuilt, Optional),
        hidden("new-path", NotBuilt, Optional),
        hidden("forget-peer", NotBuilt, Optional),
    ]
};

/// The command with this name.
pub(crate) fn named(name: &str) -> Outcome<&'static Command> {
    COMMANDS
        .iter()
        .find(|command| command.name == name)
        .ok_or_else(|| {
            let known = COMMANDS.iter().map(|command| command.name);
            let hint = match nearest(name, known) {
                Some(known) => format!("did you mean '{known}'?"),
                None => "try 'drbdadm help'".into(),
            };
            Failure::usage(format!("drbdadm: unknown command '{name}'; {hint}"))
        })
}

const META_OPTIONS: [&str; 6] = [
    "force",
    "peer-max-bio-size",
    "al-stripes",
    "al-stripe-size-kB",
    "ignore-sanity-checks",
    "initialize-bitmap",
];
const WAIT_OPTIONS: [&str; 4] = [
    "wfc-timeout",
    "degr-wfc-timeout",
    "outdated-wfc-timeout",
    "wait-after-sb",
];

impl Command {
    /// Options that the program behind the command takes.
    fn options(&self) -> Vec<&'static str> {
        let names = |fields: &'static [Field]| fields.iter().map(|field| field.name).collect();
        let with = |mut list: Vec<&'static str>, more: &[&'static str]| {
            list.extend(more);
            list
        };
        match (self.name, self.action) {
            ("primary", _) => vec!["force", "overwrite-data-of-peer"],
            ("detach" | "disconnect", _) => vec!["force"],
            ("connect", _) => names(NetConf::FIELDS),
            ("net-options", _) => with(names(NetConf::FIELDS), &["set-defaults"]),
            ("attach", _) => names(DiskConf::FIELDS),
            ("disk-options", _) => with(names(DiskConf::FIELDS), &["set-defaults"]),
            ("new-resource", _) => names(ResourceOptions::FIELDS),
            ("resource-options", _) => with(names(ResourceOptions::FIELDS), &["set-defaults"]),
            ("verify", _) => names(StartVerify::FIELDS),
            ("new-current-uuid", _) => names(NewCurrentUuid::FIELDS),
            ("status", _) => vec!["verbose", "statistics", "color"],
            (_, Action::Resize) => names(drbd_engine::config::Resize::FIELDS),
            (_, Action::Meta) => META_OPTIONS.to_vec(),
            (_, Action::WaitConnect | Action::WaitInteractive) => WAIT_OPTIONS.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Refuses options that the program behind the command would not know.
    pub(crate) fn check_options(&self, options: &[String]) -> Outcome {
        let known = self.options();
        for option in options {
            let bare = option.trim_start_matches('-');
            let bare = bare.split('=').next().unwrap_or(bare);
            let plain = bare.strip_prefix("no-").unwrap_or(bare);
            if known.contains(&bare) || known.contains(&plain) {
                continue;
            }
            let hint = match nearest(bare, known.iter().copied()) {
                Some(known) => format!("; did you mean '--{known}'?"),
                None => String::new(),
            };
            let text = format!("drbdadm {}: unknown option '{option}'{hint}", self.name);
            return Err(Failure::usage(text));
        }
        Ok(())
    }
}

/// The list of commands in a usage text; `all` shows the hidden ones instead.
pub(crate) fn usage(want_hidden: bool) -> String {
    let names: Vec<_> = COMMANDS
        .iter()
        .filter(|command| command.hidden == want_hidden && command.action != Action::NotBuilt)
        .map(|command| command.name)
        .collect();
    let mut text = String::from("COMMANDS:\n");
    for pair in names.chunks(2) {
        let second = pair.get(1).copied().unwrap_or_default();
        text.push_str(format!(" {:<35}{second}", pair[0]).trim_end());
        text.push('\n');
    }
    text
}
