// SPDX-License-Identifier: GPL-2.0

//! From the command line to the deed.

use crate::arguments::{self, Arguments};
use crate::command::{self, Action, Command, Names, Property};
use crate::config::{Config, Volume};
use crate::failure::{Failure, Outcome, NOT_POSSIBLE};
use crate::option::Section;
use crate::plan::{Plan, Planner, Stage};
use crate::run::{Runner, Step};
use crate::selection::{self, Site};
use crate::source::Sources;
use crate::world::World;
use crate::{adjust, dump, handler, reader, registry, version, wait, xml};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where a configuration is looked for; the first that exists is read.
const CONFIG_FILES: [&str; 5] = [
    "/etc/drbd-84.conf",
    "/etc/drbd-83.conf",
    "/etc/drbd-82.conf",
    "/etc/drbd-08.conf",
    "/etc/drbd.conf",
];
/// What the module prepares for if nobody says how many minors there will be.
const MINOR_COUNT_DEFAULT: u32 = 32;
/// drbdsetup's codes for: no disk to show, no such minor, no disk, no module. Then drbdmeta is
/// asked.
const NOT_ATTACHED: [i32; 4] = [1, 10, 16, 20];

/// Runs the command that was asked for.
pub(crate) fn run(arguments: &Arguments, world: &mut World<'_>) -> Outcome<i32> {
    if arguments.version {
        write!(world.out, "{}", version::text())?;
        return Ok(0);
    }
    let name = match arguments.command.as_deref() {
        None if arguments.help => "help",
        None => {
            let text = format!("{}\nNo command specified", usage(None, false));
            return Err(Failure::usage(text));
        }
        Some(name) => name,
    };
    if matches!(name, "help" | "hidden-commands") || arguments.help {
        return help(name, arguments, world);
    }
    let command = command::named(name)?;
    if command.action == Action::NotBuilt {
        let text = format!("drbdadm: the command '{name}' is not built in this version");
        return Err(Failure::not_possible(text));
    }
    command.check_options(&arguments.options)?;
    if command.names == Names::Ignored && !arguments.names.is_empty() {
        writeln!(world.err, "This command will ignore resource names!")?;
    }
    let wants_names = matches!(command.names, Names::Whole | Names::Volumes | Names::Volume);
    if wants_names && arguments.names.is_empty() {
        let text = format!("{}\nNo resource names specified", usage(Some(name), false));
        return Err(Failure::usage(text));
    }
    let mut sources = Sources::default();
    let (config, file) = load(arguments, command, &mut sources, world)?;
    if arguments.stacked {
        return stacked(arguments, &config, world);
    }
    let sites = match command.names {
        Names::Ignored => selection::all(&config, world),
        Names::Optional if arguments.names.is_empty() => selection::all(&config, world),
        _ => selection::select(&config, &arguments.names, world)?,
    };
    if command.names == Names::Whole {
        if let Some(site) = sites.iter().find(|site| site.volume.is_some()) {
            let text = format!(
                "{name} operates on whole resources, but you specified a specific volume!\n\
                 (try '{}')",
                site.resource.name
            );
            return Err(Failure::usage(text));
        }
    }
    if command.names == Names::Volume && !arguments.names.iter().any(|name| name == "all") {
        require_volumes(name, &sites)?;
    }
    let mut runner = Runner::new(
        arguments.drbdsetup.as_deref(),
        arguments.drbdmeta.as_deref(),
    );
    runner.dry_run = arguments.dry_run;
    runner.verbose = arguments.verbose;
    let pass = arguments.pass();
    let session = Session {
        arguments,
        command,
        sources: &sources,
        file: &file,
        planner: Planner {
            config: &config,
            peer: arguments.peer.as_deref(),
            extra: &pass,
        },
        runner: &runner,
    };
    session.run(&sites, world)
}

/// With `--stacked`, of which no configuration that can be read has any resource.
fn stacked(arguments: &Arguments, config: &Config, world: &mut World<'_>) -> Outcome<i32> {
    let Some(name) = arguments.names.first() else {
        return Ok(0);
    };
    if name == "all" {
        let text = format!(
            "WARN: nothing stacked for this host ({}), nothing to do in stacked mode!",
            world.host
        );
        return Err(Failure::usage(text));
    }
    if config
        .resources
        .iter()
        .any(|resource| resource.name == *name)
    {
        let text = format!("'{name}' is a normal resource, and not available in stacked mode.");
        return Err(Failure::usage(text));
    }
    let text = format!("'{name}' not defined in your config (for this host).");
    Err(Failure::usage(text))
}

/// Refuses a resource where one of its volumes has to be named.
fn require_volumes(name: &str, sites: &[Site<'_>]) -> Outcome {
    let is_one =
        |site: &&Site<'_>| site.volume.is_some() || site.volumes().all(|volume| volume.implicit);
    match sites.iter().find(|site| !is_one(site)) {
        None => Ok(()),
        Some(site) => Err(Failure::usage(format!(
            "{name} requires a specific volume id, but none is specified.\n\
             Try '{name} minor-<minor_number>' or '{name} {}/<vnr>'",
            site.resource.name
        ))),
    }
}

fn help(name: &str, arguments: &Arguments, world: &mut World<'_>) -> Outcome<i32> {
    let about = match name {
        "help" => arguments.names.first().map(String::as_str),
        "hidden-commands" => None,
        name => Some(name),
    };
    if let Some(about) = about {
        command::named(about)?;
    }
    write!(world.out, "{}", usage(about, name == "hidden-commands"))?;
    Ok(0)
}

fn usage(about: Option<&str>, hidden: bool) -> String {
    let command = about.unwrap_or("COMMAND");
    let options = arguments::usage();
    let head = format!("\nUSAGE: drbdadm {command} [OPTION...] {{all|RESOURCE...}}\n\n{options}");
    match about {
        Some(_) => head,
        None => format!("{head}\n{}", command::usage(hidden)),
    }
}

/// Reads the configuration; returns it and the file it came from.
fn load(
    arguments: &Arguments,
    command: &Command,
    sources: &mut Sources,
    world: &mut World<'_>,
) -> Outcome<(Config, PathBuf)> {
    if let Some(test) = &arguments.config_to_test {
        read(test, &mut Sources::default(), world)?;
    }
    let registered = || match (command.action, arguments.names.first()) {
        (Action::Handler(_), Some(name)) => registry::lookup(name),
        _ => None,
    };
    let first_existing = || {
        let mut files = CONFIG_FILES.iter().map(PathBuf::from);
        files.find(|file| file.exists())
    };
    let file = arguments
        .config
        .clone()
        .or_else(registered)
        .or_else(first_existing);
    let Some(file) = file else {
        return Err(Failure::not_possible(format!(
            "Can not open '{}'.\nname a configuration file with --config-file, or write this one",
            CONFIG_FILES[CONFIG_FILES.len() - 1]
        )));
    };
    let config = read(&file, sources, world)?;
    Ok((config, file))
}

fn read(file: &Path, sources: &mut Sources, world: &mut World<'_>) -> Outcome<Config> {
    let text = if matches!(file.to_str(), Some("-" | "STDIN")) {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        reader::read_text(file)
            .map_err(|error| Failure::not_possible(format!("drbdadm: {error}")))?
    };
    match reader::read(sources, file, text) {
        Ok(reading) => {
            for warning in &reading.warnings {
                write!(world.err, "{}", warning.render(sources, "warning"))?;
            }
            Ok(reading.config)
        }
        Err(errors) => Err(Failure::config(&errors, sources)),
    }
}

/// A command with all it needs.
struct Session<'s> {
    arguments: &'s Arguments,
    command: &'s Command,
    sources: &'s Sources,
    file: &'s Path,
    planner: Planner<'s>,
    runner: &'s Runner,
}

impl Session<'_> {
    fn run(&self, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
        match self.command.action {
            Action::Nothing => Ok(0),
            Action::List => {
                let names: Vec<_> = sites
                    .iter()
                    .map(|site| site.resource.name.as_str())
                    .collect();
                writeln!(world.out, "{}", names.join(" "))?;
                Ok(0)
            }
            Action::ListLines => {
                for site in sites {
                    writeln!(world.out, "{}", site.resource.name)?;
                }
                Ok(0)
            }
            Action::Driver => {
                writeln!(world.out, "{}", version::driver())?;
                Ok(0)
            }
            Action::ModuleParameters => {
                let count = self.planner.config.global.minor_count;
                writeln!(
                    world.out,
                    "minor_count={}",
                    count.unwrap_or(MINOR_COUNT_DEFAULT)
                )?;
                Ok(0)
            }
            Action::Property(property) => properties(property, sites, world),
            Action::Dump => self.dump(sites, world),
            Action::DumpXml => self.dump_xml(sites, world),
            Action::ShellStatus => self.shell_status(sites, world),
            Action::LowerResource => Err(Failure::usage(
                "sh-lower-resource only available in stacked mode",
            )),
            Action::WaitInteractive => {
                wait::interactive(sites, self.runner, self.planner.extra, world)
            }
            Action::Handler(needs_volume) => {
                let (name, dry_run) = (self.command.name, self.arguments.dry_run);
                let file = self.file.display().to_string();
                each(sites, |site| {
                    handler::run(name, *site, &file, needs_volume, dry_run, world)
                })
            }
            Action::SetupOrMeta => {
                each_volume(sites, |_, volume| self.setup_or_meta(volume, world))
            }
            Action::Up
            | Action::Adjust(_)
            | Action::Attach
            | Action::Connect
            | Action::NewResource
            | Action::NewMinor => self.plan(sites, world),
            _ => self.simple(sites, world),
        }
    }

    fn plan(&self, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
        self.verify_addresses(sites, world)?;
        let (mut plan, planner) = (Plan::default(), self.planner);
        for &site in sites {
            match self.command.action {
                Action::Up => planner.up(site, &mut plan, world)?,
                Action::Adjust(_) => {
                    adjust::adjust(planner, site, self.runner, &mut plan, world)?;
                }
                Action::Connect => plan.add(Stage::Net, site, vec![planner.connect(site)?]),
                Action::NewResource => {
                    let step = planner.new_resource(site).with(planner.extra.to_vec());
                    plan.add(Stage::Prepare, site, vec![step]);
                }
                Action::NewMinor => {
                    let steps = site.volumes().map(|volume| planner.new_minor(site, volume));
                    plan.add(Stage::Prepare, site, steps.collect());
                }
                _ => {
                    for volume in site.volumes() {
                        plan.add(Stage::Disk, site, planner.attach(volume, world));
                    }
                }
            }
        }
        if !self.arguments.dry_run {
            planner.register(sites);
        }
        match self.command.action {
            Action::Adjust(true) => plan.run_with_progress(self.runner, world),
            _ => plan.run(self.runner, world),
        }
    }

    /// Connecting from an address that is not there fails late and obscurely.
    fn verify_addresses(&self, sites: &[Site<'_>], world: &World<'_>) -> Outcome {
        let connects = matches!(
            self.command.action,
            Action::Up | Action::Adjust(_) | Action::Connect
        );
        if self.arguments.dry_run || !connects || self.planner.config.global.disable_ip_verification
        {
            return Ok(());
        }
        for site in sites {
            let Some(address) = &site.local.address else {
                continue;
            };
            // An address with a scope can only be tried with it.
            if !address.host.contains('%') && !(world.is_local)(address.ip) {
                return Err(Failure {
                    code: NOT_POSSIBLE,
                    text: format!(
                        "{}: in resource {}, {}:\n\tIP {} not found on this host.",
                        self.sources.file_and_line(address.span),
                        site.resource.name,
                        site.local.describe(),
                        address.host
                    ),
                });
            }
        }
        Ok(())
    }

    /// Commands that are a few runs for each volume or resource.
    fn simple(&self, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
        let (name, planner) = (self.command.name, self.planner);
        let pass = || planner.extra.to_vec();
        let mut run = |steps: Vec<Step>| {
            let mut code = 0;
            for step in steps {
                code = self.runner.run_or_tell(&step, world)?;
                if code != 0 {
                    break;
                }
            }
            Ok(code)
        };
        match self.command.action {
            Action::SetupResource => each(sites, |site| {
                run(vec![Step::setup([name, &site.resource.name]).with(pass())])
            }),
            Action::SetupAddresses => each(sites, |site| {
                let [own, peer] = planner.addresses(*site)?;
                run(vec![Step::setup([name, &own, &peer]).with(pass())])
            }),
            Action::BecomePrimary => each_volume(sites, |site, volume| {
                if !becomes_primary(site) {
                    return Ok(0);
                }
                run(vec![Step::setup(["primary", &volume.minor().to_string()])])
            }),
            Action::WaitConnect => each_volume(sites, |site, volume| {
                run(vec![wait::step(site, volume.minor(), planner.extra)])
            }),
            Action::Meta => each_volume(sites, |_, volume| {
                run(vec![planner.meta(volume, name).with(pass())])
            }),
            Action::Resize => each_volume(sites, |_, volume| {
                let minor = volume.minor().to_string();
                let size = volume
                    .options
                    .value("size")
                    .map(|size| format!("--size={size}"));
                run(vec![
                    Step::setup(["resize", &minor]).with(size).with(pass()),
                    Step::setup(["check-resize", &minor]),
                ])
            }),
            _ => each_volume(sites, |_, volume| {
                run(vec![
                    Step::setup([name, &volume.minor().to_string()]).with(pass())
                ])
            }),
        }
    }

    /// Asks the kernel; a volume that is not attached has its answer in the metadata.
    fn setup_or_meta(&self, volume: &Volume, world: &mut World<'_>) -> Outcome<i32> {
        let (name, extra) = (self.command.name, self.planner.extra);
        let minor = volume.minor().to_string();
        let step = Step::setup([name, &minor]).with(extra.to_vec());
        let meta = self.planner.meta(volume, name).with(extra.to_vec());
        let Some(output) = self.runner.output(&step, world)? else {
            return self.runner.run(&meta, world);
        };
        let code = output.status.code().unwrap_or(NOT_POSSIBLE);
        let detached = name == "dstate" && output.stdout.starts_with(b"Unconfigured");
        if NOT_ATTACHED.contains(&code) || detached {
            return self.runner.run_or_tell(&meta, world);
        }
        world.out.write_all(&output.stdout)?;
        world.err.write_all(&output.stderr)?;
        Ok(code)
    }

    fn dump_xml(&self, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
        let config = self.planner.config;
        let names = &self.arguments.names;
        let text = if names.is_empty() || names.iter().any(|name| name == "all") {
            xml::document(config, self.sources)
        } else {
            let resources = config.resources.iter().filter(|resource| {
                let mut named = sites.iter();
                named.any(|site| std::ptr::eq(site.resource, *resource))
            });
            xml::some(resources, self.sources)
        };
        write!(world.out, "{text}")?;
        Ok(0)
    }

    /// Shell variables, for scripts to evaluate.
    fn shell_status(&self, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
        if !self.arguments.dry_run {
            let file = self.file.display();
            write!(
                world.out,
                "_drbd_version={}\n_drbd_api=1\n_config_file={file}\n\n\n",
                version::NUMBER
            )?;
        }
        each(sites, |site| {
            let resource = site.resource;
            let place = self.sources.file_and_line(resource.span);
            write!(
                world.out,
                "_conf_res_name={}\n_conf_file_line={place}\n\n\
                 _stacked_on=\n_stacked_on_device=\n_stacked_on_minor=\n",
                resource.name
            )?;
            let mut code = 0;
            for volume in site.volumes() {
                writeln!(world.out, "_conf_volume={}", volume.number)?;
                world.out.flush()?;
                let step = Step::setup(["sh-status", &volume.minor().to_string()]);
                code = self.runner.run_or_tell(&step, world)?;
                if code != 0 {
                    break;
                }
            }
            Ok(code)
        })
    }

    fn dump(&self, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
        let config = self.planner.config;
        let everything = self.arguments.names.is_empty()
            || self.arguments.names.iter().any(|name| name == "all");
        if everything {
            write!(world.out, "{}", dump::head(config))?;
        }
        for resource in &config.resources {
            let here = selection::local(resource, world).is_some();
            let named = sites
                .iter()
                .any(|site| std::ptr::eq(site.resource, resource));
            if everything || named {
                let text = dump::resource(resource, self.sources, &world.host, !here);
                write!(world.out, "{text}")?;
            }
        }
        Ok(0)
    }
}

fn becomes_primary(site: Site<'_>) -> bool {
    let startup = site.resource.sections.of(Section::Startup);
    startup.value("become-primary-on").is_some_and(|hosts| {
        let mut hosts = hosts.split(' ');
        hosts.any(|host| host == "both" || site.local.names.iter().any(|name| name == host))
    })
}

fn properties(property: Property, sites: &[Site<'_>], world: &mut World<'_>) -> Outcome<i32> {
    each_volume(sites, |site, volume| {
        let text = match property {
            Property::Device => volume.device(),
            Property::Minor => volume.minor().to_string(),
            Property::Disk => volume.disk().to_owned(),
            Property::MetaDisk => volume.meta_disk().to_owned(),
            Property::MetaIndex => volume.setup_index(),
            Property::Ip => match &site.local.address {
                Some(address) => address.host.clone(),
                None => String::new(),
            },
            Property::Udev => udev(site, volume),
        };
        writeln!(world.out, "{text}")?;
        Ok(0)
    })
}

fn udev(site: Site<'_>, volume: &Volume) -> String {
    let name = &site.resource.name;
    let resource = match volume.implicit {
        true => name.clone(),
        false => format!("{name}/{}", volume.number),
    };
    let device = volume.device();
    let (device, disk) = (device.trim_start_matches("/dev/"), volume.disk());
    let disk = disk.trim_start_matches("/dev/");
    format!("RESOURCE={resource}\nDEVICE={device}\nDISK={disk}")
}

/// Does something for each; returns the first exit code that is not 0.
fn each<T>(items: &[T], mut run: impl FnMut(&T) -> Outcome<i32>) -> Outcome<i32> {
    let mut first = 0;
    for item in items {
        let code = run(item)?;
        if first == 0 {
            first = code;
        }
    }
    Ok(first)
}

fn each_volume(
    sites: &[Site<'_>],
    mut run: impl FnMut(Site<'_>, &Volume) -> Outcome<i32>,
) -> Outcome<i32> {
    let mut first = 0;
    for site in sites {
        for volume in site.volumes() {
            let code = run(*site, volume)?;
            if first == 0 {
                first = code;
            }
        }
    }
    Ok(first)
}
