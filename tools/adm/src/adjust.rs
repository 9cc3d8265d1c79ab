// SPDX-License-Identifier: GPL-2.0

//! `adjust`: the difference between what runs and what the configuration says.

use crate::config::{Meta, Volume};
use crate::failure::Outcome;
use crate::option::{normal, Normal, OptionList, Section};
use crate::plan::{Plan, Planner, Stage};
use crate::run::{Runner, Step};
use crate::running::{self, Options, Running, RunningVolume};
use crate::selection::Site;
use crate::world::World;
use drbd_engine::config::field::Kind;
use drbd_engine::config::{DiskConf, Field, NetConf, ResourceOptions, Settings, Value};

/// Options that cannot be changed while attached; `size` has a command of its own.
const FIXED: [&str; 2] = ["size", "max-bio-bvecs"];

/// Plans what brings the resource to its configuration.
pub(crate) fn adjust(
    planner: Planner<'_>,
    site: Site<'_>,
    runner: &Runner,
    plan: &mut Plan,
    world: &World<'_>,
) -> Outcome {
    let Some(running) = ask(site, runner)? else {
        plan.add(Stage::Prepare, site, vec![planner.new_resource(site)]);
        for volume in site.volumes() {
            plan.add(
                Stage::PrepareDisk,
                site,
                vec![planner.new_minor(site, volume)],
            );
            plan.add(Stage::Disk, site, planner.attach(volume, world));
        }
        plan.add(Stage::Net, site, vec![planner.connect(site)?]);
        return Ok(());
    };
    resource(site, &running, plan);
    for old in running
        .volumes
        .iter()
        .filter(|old| is_superfluous(site, old))
    {
        plan.add(Stage::Prepare, site, remove(old));
    }
    for volume in site.volumes() {
        let mut known = running
            .volumes
            .iter()
            .filter(|old| !is_superfluous(site, old));
        let known = known.find(|old| old.number == volume.number);
        self::volume(planner, site, volume, known, plan, world);
    }
    net(planner, site, &running, plan)
}

/// What runs of the resource. A dry run goes on without drbdsetup as if nothing ran.
fn ask(site: Site<'_>, runner: &Runner) -> Outcome<Option<Running>> {
    match runner.query(&Step::setup(["show", &site.resource.name])) {
        Ok(answer) if answer.status.success() => {
            let answer = String::from_utf8_lossy(&answer.stdout);
            Ok(running::parse(&answer, &site.resource.name))
        }
        Ok(_) => Ok(None),
        Err(_) if runner.dry_run => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn resource(site: Site<'_>, running: &Running, plan: &mut Plan) {
    let wanted = site.resource.sections.of(Section::Options);
    if differs::<ResourceOptions>(wanted, &running.options, |_, _| None) {
        let step = Step::setup(["resource-options", &site.resource.name, "--set-defaults"]);
        plan.add(Stage::Resource, site, vec![step.with(wanted.arguments())]);
    }
}

/// Whether the configuration has no such volume, or has it under another minor.
fn is_superfluous(site: Site<'_>, old: &RunningVolume) -> bool {
    let mut volumes = site.local.volumes.iter();
    let same = volumes.any(|new| new.number == old.number && new.minor() == old.minor);
    // If a single volume was named, the others are left alone.
    !same && site.volume.is_none_or(|number| number == old.number)
}

fn remove(old: &RunningVolume) -> Vec<Step> {
    let minor = old.minor.to_string();
    let mut steps = Vec::new();
    if old.disk.is_some() {
        steps.push(Step::setup(["detach", &minor]));
    }
    steps.push(Step::setup(["del-minor", &minor]));
    steps
}

fn volume(
    planner: Planner<'_>,
    site: Site<'_>,
    volume: &Volume,
    running: Option<&RunningVolume>,
    plan: &mut Plan,
    world: &World<'_>,
) {
    let minor = volume.minor().to_string();
    let Some(running) = running else {
        plan.add(
            Stage::PrepareDisk,
            site,
            vec![planner.new_minor(site, volume)],
        );
        plan.add(Stage::Disk, site, planner.attach(volume, world));
        return;
    };
    let attached = match &running.disk {
        Some(disk) => disk == volume.disk() && running.meta == meta_words(volume),
        None => false,
    };
    if !attached {
        if running.disk.is_some() {
            plan.add(Stage::Prepare, site, vec![Step::setup(["detach", &minor])]);
        }
        plan.add(Stage::Disk, site, planner.attach(volume, world));
        return;
    }
    let resolve = |name: &str, value: &str| {
        let minor = (name == "resync-after").then(|| planner.minor_of(value, world));
        // A resource that is not here is not waited for.
        minor.map(|minor| Normal::Text(minor.unwrap_or(-1).to_string()))
    };
    if differs::<DiskConf>(&volume.options, &running.options, resolve) {
        plan.add(Stage::Disk, site, vec![planner.disk_options(volume, world)]);
    }
    let size = |value: Option<&str>| {
        let field = DiskConf::field_named("size")?;
        normal(field, value.unwrap_or("0")).ok()
    };
    if size(volume.options.value("size")) != size(value(&running.options, "size")) {
        let wanted = volume
            .options
            .value("size")
            .map(|size| format!("--size={size}"));
        let steps = vec![
            Step::setup(["resize", &minor]).with(wanted),
            Step::setup(["check-resize", &minor]),
        ];
        plan.add(Stage::Disk, site, steps);
    }
}

fn meta_words(volume: &Volume) -> Vec<String> {
    match &volume.meta {
        Some(Meta::Indexed(device, index)) => vec![device.clone(), index.to_string()],
        Some(Meta::Flexible(device)) => vec![device.clone()],
        _ => vec!["internal".into()],
    }
}

fn net(planner: Planner<'_>, site: Site<'_>, running: &Running, plan: &mut Plan) -> Outcome {
    let [own, peer] = planner.addresses(site)?;
    let same = |running: &Option<String>, wanted: &str| running.as_deref() == Some(wanted);
    if same(&running.own_address, &own) && same(&running.peer_address, &peer) {
        let wanted = site.resource.sections.of(Section::Net);
        // discard-node-HOST is one of the two on either node.
        let resolve = |_: &str, value: &str| {
            let host = value.strip_prefix("discard-node-")?;
            let here = site.local.names.iter().any(|name| name == host);
            let name = if here {
                "discard-local"
            } else {
                "discard-remote"
            };
            normal(NetConf::field_named("after-sb-0pri")?, name).ok()
        };
        if differs::<NetConf>(wanted, &running.net, resolve) {
            plan.add(Stage::Net, site, vec![planner.net_options(site)?]);
        }
        return Ok(());
    }
    if let (Some(own), Some(peer)) = (&running.own_address, &running.peer_address) {
        plan.add(
            Stage::PrepareNet,
            site,
            vec![Step::setup(["disconnect", own, peer])],
        );
    }
    plan.add(Stage::Net, site, vec![planner.connect(site)?]);
    Ok(())
}

fn value<'o>(options: &'o Options, name: &str) -> Option<&'o str> {
    let mut options = options.iter();
    options
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

/// Whether an option that can be changed has another value than the one that runs; what is not
/// mentioned has its default.
fn differs<S: Settings>(
    wanted: &OptionList,
    running: &Options,
    resolve: impl Fn(&str, &str) -> Option<Normal>,
) -> bool {
    let defaults = Box::new(S::DEFAULT);
    S::FIELDS
        .iter()
        .filter(|field| !field.argument && !FIXED.contains(&field.name))
        .any(|field| {
            let default = || match defaults.value(field.number) {
                Some(value) => default_of(field, value),
                None => Normal::Text(String::new()),
            };
            let meaning = |value: Option<&str>| match value {
                Some(value) => resolve(field.name, value)
                    .or_else(|| normal(field, value).ok())
                    .unwrap_or_else(|| Normal::Text(value.to_owned())),
                None => default(),
            };
            meaning(wanted.value(field.name)) != meaning(value(running, field.name))
        })
}

fn default_of(field: &Field, value: Value<'_>) -> Normal {
    match (field.kind, value) {
        (Kind::I32 { .. }, Value::I32(number)) => Normal::Text(number.to_string()),
        (_, Value::Flag(flag)) => Normal::Number(u64::from(flag)),
        (_, Value::U32(number)) => Normal::Number(u64::from(number)),
        (_, Value::U64(number)) => Normal::Number(number),
        (_, value) => Normal::Text(value.to_string()),
    }
}
