// SPDX-License-Identifier: GPL-2.0

//! `drbdmeta`: creates, shows, repairs and removes the metadata of a volume that is not in use
//! (Spec §2, §9.3).

pub mod area;
pub mod create;
pub mod dump;
pub mod recover;
pub mod relocate;
pub mod signature;
pub mod store;

#[cfg(test)]
mod tests;

use crate::arguments::{unknown, Arguments, Word};
use crate::failure::{Failure, Outcome};
use crate::generation::{parse_hex, size_text, Generation};
use crate::host::{self, MinorLock};
use crate::note::Note;
use crate::{kernel, numbers, terminal};
use area::Area;
use create::InitializeBitmap;
use drbd_engine::meta::{MdFlags, Placement};
use std::ffi::OsString;
use std::io::{self, Write};
use store::{Page, Sharing, Store};

const USAGE: &str =
    "\nUSAGE: drbdmeta [--force] DEVICE FORMAT [FORMAT ARGS...] COMMAND [CMD ARGS...]

FORMATS:
  v08 device index

COMMANDS:
  get-gi
  show-gi
  dump-md
  apply-al
  check-resize
  wipe-md
  outdate
  invalidate
  dstate
  read-dev-uuid
  write-dev-uuid {val}
  set-gi {val}
  create-md [--peer-max-bio-size {val}] [--al-stripes {val}] [--al-stripe-size-kB {val}]";

/// What the command line asks for besides the command.
#[derive(Debug)]
pub struct Options {
    force: bool,
    verbose: bool,
    dry_run: bool,
    ignore_sanity_checks: bool,
    peer_max_bio_bytes: u32,
    al_stripes: u32,
    al_stripe_kib: u32,
    initialize_bitmap: InitializeBitmap,
    /// The command line as it was typed.
    command_line: String,
    given: Given,
}

/// Which options were given that only some commands take.
#[derive(Debug, Default)]
struct Given {
    peer_max_bio: bool,
    stripes: bool,
}

/// What a command does with the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Reads,
    Changes,
}

type Run = fn(Subject<'_>) -> Outcome;

/// Name, what it does with the metadata, arguments it needs, and the command.
const COMMANDS: &[(&str, Access, usize, Run)] = &[
    ("get-gi", Access::Reads, 0, get_gi),
    ("show-gi", Access::Reads, 0, show_gi),
    ("dump-md", Access::Reads, 0, dump_md),
    ("apply-al", Access::Changes, 0, apply_al),
    ("check-resize", Access::Changes, 0, check_resize),
    ("wipe-md", Access::Changes, 0, wipe_md),
    ("outdate", Access::Changes, 0, outdate),
    ("invalidate", Access::Changes, 0, invalidate),
    ("dstate", Access::Reads, 0, dstate),
    ("read-dev-uuid", Access::Reads, 0, read_dev_uuid),
    ("write-dev-uuid", Access::Changes, 1, write_dev_uuid),
    ("set-gi", Access::Changes, 1, set_gi),
    ("create-md", Access::Changes, 0, create_md),
];

/// What a command works on.
struct Subject<'a> {
    minor: Option<u32>,
    store: Store,
    placement: Placement,
    options: &'a Options,
    argument: &'a str,
}

impl Subject<'_> {
    /// The metadata where they belong, moved there if the device grew.
    fn load_relocated(self) -> Outcome<Area> {
        let note = self.minor.and_then(Note::read);
        relocate::load(self.store, self.placement, note.as_ref(), self.options)
    }

    fn load(self) -> Outcome<Area> {
        Area::load(self.store, self.placement).map_err(|(_, failure)| failure)
    }
}

/// Runs `drbdmeta` with its name and arguments and returns its exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    match run(arguments) {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: Vec<OsString>) -> Outcome {
    let (options, words) = parse(arguments)?;
    let mut words = words.iter().map(String::as_str);
    let usage = || Failure::new(20, USAGE);
    let device = words.next().ok_or_else(usage)?;
    match words.next().ok_or_else(usage)? {
        "v08" => {}
        format @ ("v06" | "v07" | "v09") => {
            let text = format!("Format '{format}' is not supported, only v08 is.");
            return Err(Failure::new(20, text));
        }
        format => return Err(Failure::new(20, format!("Unknown format '{format}'."))),
    }
    let too_few = || Failure::new(20, "Too few arguments for format");
    let path = words.next().ok_or_else(too_few)?;
    let index = words.next().ok_or_else(too_few)?;
    let placement = placement(index)?;
    let name = words
        .next()
        .ok_or_else(|| Failure::new(20, "command missing"))?;
    let &(_, access, needed, command) = COMMANDS
        .iter()
        .find(|(known, ..)| *known == name)
        .ok_or_else(|| Failure::new(20, format!("Unknown command '{name}'.")))?;
    options.check(name)?;
    let rest: Vec<_> = words.collect();
    if rest.len() < needed {
        return Err(Failure::new(10, "Required Argument missing"));
    }
    if rest.len() > needed {
        eprintln!("Ignoring additional arguments");
    }
    let minor = minor_of(device)?;
    let _lock = minor.map(MinorLock::take).transpose()?;
    let attached = minor.is_some_and(kernel::is_attached);
    if attached && access == Access::Changes {
        let text = format!("Device '{device}' is configured!");
        return Err(Failure::new(20, text));
    }
    let sharing = match placement {
        Placement::Indexed(_) => Sharing::Slots,
        _ => Sharing::Alone,
    };
    let store = Store::open(path, sharing, options.force, options.dry_run)?;
    if let (true, Some(minor)) = (attached, minor) {
        println!("# Output might be stale, since minor {minor} is attached");
    }
    command(Subject {
        minor,
        store,
        placement,
        options: &options,
        argument: rest.first().copied().unwrap_or(""),
    })
}

/// The minor whose metadata they are; `-` stands for none, which nothing is looked up about.
fn minor_of(device: &str) -> Outcome<Option<u32>> {
    match (device, host::minor(device)) {
        ("-", _) => Ok(None),
        (_, Some(minor)) => Ok(Some(minor)),
        (_, None) => {
            let text = format!("Cannot determine minor device number of drbd device '{device}'");
            Err(Failure::new(20, text))
        }
    }
}

fn placement(index: &str) -> Outcome<Placement> {
    match index {
        "internal" | "flex-internal" => Ok(Placement::Internal),
        "flex-external" | "flexible" => Ok(Placement::FlexibleExternal),
        _ => index
            .parse()
            .map(Placement::Indexed)
            .map_err(|_| Failure::new(20, format!("'{index}' is not a valid index number."))),
    }
}

fn parse(arguments: Vec<OsString>) -> Outcome<(Options, Vec<String>)> {
    let shown: Vec<_> = arguments
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy())
        .collect();
    let mut options = Options {
        force: false,
        verbose: false,
        dry_run: false,
        ignore_sanity_checks: false,
        peer_max_bio_bytes: 0,
        al_stripes: 1,
        al_stripe_kib: 32,
        initialize_bitmap: InitializeBitmap::default(),
        command_line: format!("drbdmeta {}", shown.join(" ")),
        given: Given::default(),
    };
    let mut words = Vec::new();
    let mut arguments = Arguments::new(arguments);
    while let Some(word) = arguments.next_word()? {
        match word {
            Word::Argument(word) => words.push(word),
            Word::Option(option) => options.take(&option, &mut arguments)?,
        }
    }
    Ok((options, words))
}

impl Options {
    fn take(&mut self, option: &str, arguments: &mut Arguments) -> Outcome {
        let mut value = || arguments.value();
        match option {
            "force" | "f" => self.force = true,
            "verbose" | "v" => self.verbose = true,
            "dry-run" => self.dry_run = true,
            "ignore-sanity-checks" => self.ignore_sanity_checks = true,
            "peer-max-bio-size" => {
                let bytes = numbers::parse(&value()?, 1)?;
                self.peer_max_bio_bytes = u32::try_from(bytes)
                    .ok()
                    .filter(|bytes| *bytes <= 1 << 20)
                    .ok_or_else(|| Failure::new(10, "peer-max-bio-size out of range (0...1M)"))?;
                self.given.peer_max_bio = true;
            }
            "al-stripes" | "a" => {
                self.al_stripes = number(&value()?)?;
                self.given.stripes = true;
            }
            "al-stripe-size-kB" | "b" => {
                self.al_stripe_kib = number(&value()?)?;
                self.given.stripes = true;
            }
            "initialize-bitmap" => self.initialize_bitmap = value()?.parse()?,
            // Only metadata of DRBD 9 know nodes.
            "node-id" => drop(value()?),
            _ => return Err(unknown("drbdmeta", option, USAGE)),
        }
        Ok(())
    }

    /// Refuses options that the command does not take.
    fn check(&self, command: &str) -> Outcome {
        if self.given.peer_max_bio && command != "create-md" {
            let text = "The --peer-max-bio-size option is only allowed with create-md";
            return Err(Failure::new(10, text));
        }
        if self.given.stripes && command != "create-md" {
            let text = "The --al-stripe* options are only allowed with create-md";
            return Err(Failure::new(10, text));
        }
        Ok(())
    }
}

fn number(text: &str) -> Outcome<u32> {
    u32::try_from(numbers::parse(text, 1)?)
        .map_err(|_| Failure::new(10, format!("{text}: out of range")))
}

fn generation(area: &Area) -> Generation {
    Generation {
        uuids: area.superblock.uuids,
        flags: area.superblock.flags,
    }
}

fn get_gi(subject: Subject<'_>) -> Outcome {
    let area = subject.load()?;
    writeln!(io::stdout(), "{}", generation(&area))?;
    Ok(())
}

fn show_gi(subject: Subject<'_>) -> Outcome {
    let area = subject.load()?;
    let superblock = &area.superblock;
    let state = match superblock.check_clean() {
        Ok(()) => "clean",
        Err(_) => "need apply-al",
    };
    let mut text = format!("{}meta-data: {state}\n", generation(&area).explain());
    match superblock.last_agreed_size.0 {
        0 => text.push_str("zero size device -- never seen peer yet?\n"),
        sectors => {
            let size = size_text(sectors / 2);
            text.push_str(&format!("last agreed size: {size} ({sectors} sectors)\n"));
            if superblock.peer_max_bio_bytes != 0 {
                let bytes = superblock.peer_max_bio_bytes;
                text.push_str(&format!("last agreed max bio size: {bytes} Byte\n"));
            }
        }
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn dump_md(subject: Subject<'_>) -> Outcome {
    let options = subject.options;
    dump::dump(&subject.load()?, options, &mut io::stdout().lock())
}

fn apply_al(subject: Subject<'_>) -> Outcome {
    let (minor, verbose) = (subject.minor, subject.options.verbose);
    let mut area = subject.load_relocated()?;
    recover::apply(&mut area, verbose)?;
    remember(minor, &area);
    Ok(())
}

fn check_resize(subject: Subject<'_>) -> Outcome {
    let minor = subject.minor;
    let area = subject.load_relocated()?;
    remember(minor, &area);
    Ok(())
}

fn wipe_md(subject: Subject<'_>) -> Outcome {
    let force = subject.options.force;
    let (minor, placement) = (subject.minor, subject.placement);
    let sector = area::superblock_sector(&subject.store, placement)?;
    let area = match Area::load(subject.store, placement) {
        Ok(area) => area,
        Err(_) => {
            println!("There appears to be no drbd meta data to wipe out?");
            return Ok(());
        }
    };
    if !terminal::confirm("Do you really want to wipe out the DRBD meta data?", force) {
        return Err(Failure::new(1, "Operation cancelled."));
    }
    println!("Wiping meta data...");
    area.store().write(sector, &[Page::ZERO], "super block")?;
    area.store().flush()?;
    if let Some(minor) = minor {
        Note::remove(minor);
    }
    println!("DRBD meta data block successfully wiped out.");
    Ok(())
}

fn outdate(subject: Subject<'_>) -> Outcome {
    let mut area = subject.load()?;
    let flags = area.superblock.flags;
    if !flags.contains(MdFlags::CONSISTENT) {
        return Err(Failure::new(5, "Device is inconsistent."));
    }
    area.superblock.flags = flags.without(MdFlags::WAS_UP_TO_DATE);
    area.save()
}

fn invalidate(subject: Subject<'_>) -> Outcome {
    let mut area = subject.load()?;
    let gone = MdFlags::CONSISTENT.with(MdFlags::WAS_UP_TO_DATE);
    let flags = area.superblock.flags.without(gone);
    area.superblock.flags = flags.with(MdFlags::FULL_SYNC);
    area.save()
}

fn dstate(subject: Subject<'_>) -> Outcome {
    let flags = subject.load()?.superblock.flags;
    let has = |flag| flags.contains(flag);
    let state = match (has(MdFlags::CONSISTENT), has(MdFlags::WAS_UP_TO_DATE)) {
        (false, _) => "Inconsistent",
        (true, false) => "Outdated",
        (true, true) if has(MdFlags::PEER_OUT_DATED) => "UpToDate",
        // Whether there is newer data elsewhere is not known until the peer is seen.
        (true, true) => "Consistent",
    };
    writeln!(io::stdout(), "{state}")?;
    Ok(())
}

fn read_dev_uuid(subject: Subject<'_>) -> Outcome {
    let uuid = subject.load()?.superblock.device_uuid;
    writeln!(io::stdout(), "{uuid:016X}")?;
    Ok(())
}

fn write_dev_uuid(subject: Subject<'_>) -> Outcome {
    let uuid = parse_hex(subject.argument)?;
    let minor = subject.minor;
    let mut area = subject.load()?;
    area.superblock.device_uuid = uuid;
    area.save()?;
    remember(minor, &area);
    Ok(())
}

fn set_gi(subject: Subject<'_>) -> Outcome {
    let (text, force) = (subject.argument, subject.options.force);
    let mut area = subject.load()?;
    let before = generation(&area);
    let mut after = before;
    after.change(text)?;
    println!("previously {before}\nset GI to  {after}");
    if !terminal::confirm("Write new GI to disk?", force) {
        println!("Operation canceled.");
        return Ok(());
    }
    area.superblock.uuids = after.uuids;
    area.superblock.flags = after.flags;
    area.save()
}

fn create_md(subject: Subject<'_>) -> Outcome {
    let minor = subject.minor;
    let area = create::create(subject.store, subject.placement, subject.options)?;
    remember(minor, &area);
    Ok(())
}

fn remember(minor: Option<u32>, area: &Area) {
    if let (Some(minor), true) = (minor, area.placement().is_internal()) {
        if !area.store().dry_run() {
            let note = Note {
                size: area.store().size(),
                path: area.store().path().to_owned(),
                uuid: area.superblock.device_uuid,
            };
            note.write(minor);
        }
    }
}

/// CRC-32C without the usual inversions, as the activity log has it.
fn crc32c_raw(bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(u32::MAX, bytes)
}
