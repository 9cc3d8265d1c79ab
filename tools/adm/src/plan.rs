// SPDX-License-Identifier: GPL-2.0

//! Plans: which programs bring a resource into the state its configuration describes.
//!
//! The work on several resources is done stage by stage: every resource exists before the first
//! one attaches, and every disk is attached before the first connection is made (spec §9.2).

use crate::config::Volume;
use crate::failure::Outcome;
use crate::option::{is_discard_node, OptionList, Section};
use crate::run::{Runner, Step};
use crate::selection::{self, Site};
use crate::world::World;
use crate::{config::Config, registry};

/// Stages, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Create resources and minors, and take away what is in the way.
    Prepare,
    /// Options of resources.
    Resource,
    /// Make minors.
    PrepareDisk,
    /// Attach, and options of disks.
    Disk,
    /// Disconnect from where the resource no longer shall be.
    PrepareNet,
    /// Connect, and options of connections.
    Net,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Prepare,
        Self::Resource,
        Self::PrepareDisk,
        Self::Disk,
        Self::PrepareNet,
        Self::Net,
    ];

    /// Whether what comes later makes no sense if this stage fails. A node whose disk fails can
    /// still serve its peer's data, and a node without options can still attach.
    const fn is_needed(self) -> bool {
        matches!(self, Self::Prepare | Self::PrepareDisk | Self::PrepareNet)
    }
}

/// Steps of which each needs the one before.
#[derive(Debug)]
pub(crate) struct Task {
    stage: Stage,
    resource: String,
    steps: Vec<Step>,
}

/// Everything that is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    tasks: Vec<Task>,
}

impl Plan {
    /// Adds steps of which each needs the one before.
    pub(crate) fn add(&mut self, stage: Stage, site: Site<'_>, steps: Vec<Step>) {
        self.tasks.push(Task {
            stage,
            resource: site.resource.name.clone(),
            steps,
        });
    }

    /// Does it. A resource that fails does not keep the others from their work; the first exit
    /// code that is not 0 is returned.
    pub(crate) fn run(&self, runner: &Runner, world: &mut World<'_>) -> Outcome<i32> {
        self.run_with(runner, world, false)
    }

    /// The same with the init script's progress: `[ d(r0) s(r0) n(r0) ]`.
    pub(crate) fn run_with_progress(&self, runner: &Runner, world: &mut World<'_>) -> Outcome<i32> {
        write!(world.out, "[ ")?;
        let code = self.run_with(runner, world, true)?;
        write!(world.out, "]")?;
        world.out.flush()?;
        Ok(code)
    }

    fn run_with(&self, runner: &Runner, world: &mut World<'_>, progress: bool) -> Outcome<i32> {
        let mut failed: Vec<(&Task, i32)> = Vec::new();
        for stage in Stage::ALL {
            for task in self.tasks.iter().filter(|task| task.stage == stage) {
                let given_up = failed
                    .iter()
                    .any(|(one, _)| one.stage.is_needed() && one.resource == task.resource);
                if given_up {
                    continue;
                }
                for step in &task.steps {
                    let code = runner.run_or_tell(step, world)?;
                    if code != 0 {
                        failed.push((task, code));
                        break;
                    }
                }
            }
            if progress {
                self.show_progress(stage, &failed, world)?;
            }
        }
        Ok(failed.first().map_or(0, |(_, code)| *code))
    }

    /// Disks, settings and net as the init script has always named them: settings come along with
    /// the resource and its disks.
    fn show_progress(
        &self,
        stage: Stage,
        failed: &[(&Task, i32)],
        world: &mut World<'_>,
    ) -> Outcome {
        let settings = [Stage::Prepare, Stage::Resource, Stage::PrepareDisk];
        let shown: &[(char, &[Stage])] = match stage {
            Stage::Disk => &[('d', &[Stage::Disk]), ('s', &settings)],
            Stage::Net => &[('n', &[Stage::PrepareNet, Stage::Net])],
            _ => &[],
        };
        for (letter, stages) in shown {
            let mut names: Vec<&str> = Vec::new();
            for task in self
                .tasks
                .iter()
                .filter(|task| stages.contains(&task.stage))
            {
                if names.contains(&task.resource.as_str()) {
                    continue;
                }
                names.push(&task.resource);
                let mut codes = failed.iter();
                let code = codes
                    .find(|(one, _)| one.resource == task.resource && stages.contains(&one.stage));
                let note = match code {
                    Some((_, code)) => format!(":failed({code})"),
                    None => String::new(),
                };
                write!(world.out, "{letter}({}){note} ", task.resource)?;
            }
        }
        world.out.flush()?;
        Ok(())
    }
}

/// Builds steps from a configuration.
#[derive(Clone, Copy)]
pub(crate) struct Planner<'c> {
    /// The configuration.
    pub(crate) config: &'c Config,
    /// Which peer is meant where there are several.
    pub(crate) peer: Option<&'c str>,
    /// Options from the command line.
    pub(crate) extra: &'c [String],
}

impl<'c> Planner<'c> {
    fn extra(self) -> impl Iterator<Item = String> + 'c {
        self.extra.iter().cloned()
    }

    /// Creates the resource.
    pub(crate) fn new_resource(self, site: Site<'_>) -> Step {
        let options = site.resource.sections.of(Section::Options).arguments();
        Step::setup(["new-resource", &site.resource.name]).with(options)
    }

    /// Creates a minor.
    pub(crate) fn new_minor(self, site: Site<'_>, volume: &Volume) -> Step {
        let (minor, number) = (volume.minor().to_string(), volume.number.to_string());
        Step::setup(["new-minor", &site.resource.name, &minor, &number])
    }

    /// drbdmeta with a volume.
    pub(crate) fn meta(self, volume: &Volume, command: &str) -> Step {
        let (minor, index) = (volume.minor().to_string(), volume.meta_index());
        Step::meta([&minor, "v08", volume.meta_disk(), &index, command])
    }

    /// Recovers the activity log, then attaches: a volume whose log was not recovered may not be
    /// used, since nobody would know which blocks differ.
    pub(crate) fn attach(self, volume: &Volume, world: &World<'_>) -> Vec<Step> {
        let (minor, index) = (volume.minor().to_string(), volume.setup_index());
        let mut arguments = volume.options.arguments();
        self.resolve_resync_after(&volume.options, &mut arguments, world);
        vec![
            self.meta(volume, "apply-al"),
            Step::setup(["attach", &minor, volume.disk(), volume.meta_disk(), &index])
                .with(arguments)
                .with(self.extra()),
        ]
    }

    /// Options of a disk, all others at their defaults.
    pub(crate) fn disk_options(self, volume: &Volume, world: &World<'_>) -> Step {
        let minor = volume.minor().to_string();
        let mut arguments = volume.options.arguments();
        self.resolve_resync_after(&volume.options, &mut arguments, world);
        arguments.retain(|one| !one.starts_with("--size=") && !one.starts_with("--max-bio-bvecs="));
        Step::setup(["disk-options", &minor, "--set-defaults"]).with(arguments)
    }

    /// The kernel knows minors only. A resource that is not on this host is not waited for.
    fn resolve_resync_after(
        self,
        options: &OptionList,
        arguments: &mut Vec<String>,
        world: &World<'_>,
    ) {
        let Some(after) = options.value("resync-after") else {
            return;
        };
        let resolved = self
            .minor_of(after, world)
            .map(|minor| format!("--resync-after={minor}"));
        let position = arguments
            .iter()
            .position(|one| one.starts_with("--resync-after="));
        match (position, resolved) {
            (Some(position), Some(resolved)) => arguments[position] = resolved,
            (Some(position), None) => drop(arguments.remove(position)),
            (None, _) => {}
        }
    }

    /// The minor that `RES`, `RES/VOL` or a number means.
    pub(crate) fn minor_of(self, name: &str, world: &World<'_>) -> Option<i64> {
        if let Ok(minor) = name.parse() {
            return Some(minor);
        }
        let (resource, number) = match name.split_once('/') {
            Some((resource, number)) => (resource, number.parse().ok()?),
            None => (name, 0),
        };
        let sites = selection::all(self.config, world);
        let site = sites.iter().find(|site| site.resource.name == resource)?;
        let mut volumes = site.local.volumes.iter();
        let volume = volumes.find(|volume| volume.number == number)?;
        Some(i64::from(volume.minor()))
    }

    /// Both addresses.
    pub(crate) fn addresses(self, site: Site<'_>) -> Outcome<[String; 2]> {
        let peer = site.peer(self.peer)?;
        let argument = |host: &crate::config::Host| {
            host.address
                .as_ref()
                .map(|address| address.argument())
                .unwrap_or_default()
        };
        Ok([argument(site.local), argument(peer)])
    }

    fn net_arguments(self, site: Site<'_>) -> Vec<String> {
        let options = site.resource.sections.of(Section::Net).iter();
        options
            .map(|setting| {
                let value = match setting.value.strip_prefix("discard-node-") {
                    Some(host) if is_discard_node(&setting.value) => {
                        if site.local.names.iter().any(|name| name == host) {
                            "discard-local"
                        } else {
                            "discard-remote"
                        }
                    }
                    _ => &setting.value,
                };
                format!("--{}={value}", setting.name)
            })
            .collect()
    }

    /// Connects.
    pub(crate) fn connect(self, site: Site<'_>) -> Outcome<Step> {
        let [own, peers] = self.addresses(site)?;
        Ok(Step::setup(["connect", &site.resource.name, &own, &peers])
            .with(self.net_arguments(site))
            .with(self.extra()))
    }

    /// Options of a connection, all others at their defaults.
    pub(crate) fn net_options(self, site: Site<'_>) -> Outcome<Step> {
        let [own, peers] = self.addresses(site)?;
        Ok(Step::setup(["net-options", &own, &peers, "--set-defaults"])
            .with(self.net_arguments(site)))
    }

    /// `up`: everything of one resource.
    pub(crate) fn up(self, site: Site<'_>, plan: &mut Plan, world: &World<'_>) -> Outcome {
        let mut create = vec![self.new_resource(site)];
        create.extend(site.volumes().map(|volume| self.new_minor(site, volume)));
        plan.add(Stage::Prepare, site, create);
        for volume in site.volumes() {
            plan.add(Stage::Disk, site, self.attach(volume, world));
        }
        plan.add(Stage::Net, site, vec![self.connect(site)?]);
        Ok(())
    }

    /// Remembers which file describes the resources, for the handlers that the kernel calls.
    pub(crate) fn register(self, sites: &[Site<'_>]) {
        for site in sites {
            registry::register(&self.config.file, site);
        }
    }
}
