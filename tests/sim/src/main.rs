// SPDX-License-Identifier: GPL-2.0

//! `sim [--seeds N] [--first N] [--seed N] [--canary NAME] [--disks well|failing] [--volumes 1|2]
//! [--settings kept|changed] [--sockets alike|apart] [--freezes on|off] [--aim on|off]
//! [--without EVENTS]`: runs seeds and tells what they found.
//!
//! I/O is suspended, for whatever reason, in odd seeds, unless told otherwise.

use std::process::ExitCode;
use std::time::Instant;

use drbd_sim::canary::Canary;
use drbd_sim::run::{run, Aim, Disks, Options, Report, Settings, Sockets, Volumes};
use drbd_sim::shrink::{happened, shrink};

struct Arguments {
    first: u64,
    seeds: u64,
    options: Options,
    freezes: Option<bool>,
}

impl Arguments {
    fn options_of(&self, seed: u64) -> Options {
        Options {
            freezes: self.freezes.unwrap_or(seed % 2 == 1),
            ..self.options
        }
    }
}

fn parse() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        first: 1,
        seeds: 200,
        options: Options::default(),
        freezes: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} wants a value"))?;
        let number = value.parse::<u64>();
        match (word.as_str(), number) {
            ("--first", Ok(first)) => arguments.first = first,
            ("--seeds", Ok(seeds)) => arguments.seeds = seeds,
            ("--seed", Ok(seed)) => {
                arguments.first = seed;
                arguments.seeds = 1;
                arguments.options.aloud = true;
            }
            ("--canary", _) => {
                let canary = Canary::from_name(&value).ok_or(format!("no canary {value}"))?;
                arguments.options.canary = Some(canary);
            }
            ("--disks", _) if value == "well" => arguments.options.disks = Disks::Well,
            ("--disks", _) if value == "failing" => arguments.options.disks = Disks::Failing,
            ("--volumes", Ok(1)) => arguments.options.volumes = Volumes::One,
            ("--volumes", Ok(2)) => arguments.options.volumes = Volumes::Two,
            ("--settings", _) if value == "kept" => arguments.options.settings = Settings::Kept,
            ("--settings", _) if value == "changed" => {
                arguments.options.settings = Settings::Changed;
            }
            ("--sockets", _) if value == "alike" => arguments.options.sockets = Sockets::Alike,
            ("--sockets", _) if value == "apart" => arguments.options.sockets = Sockets::Apart,
            ("--freezes", _) if value == "on" => arguments.freezes = Some(true),
            ("--freezes", _) if value == "off" => arguments.freezes = Some(false),
            ("--aim", _) if value == "on" => arguments.options.aim = Aim::On,
            ("--aim", _) if value == "off" => arguments.options.aim = Aim::Off,
            ("--without", _) => {
                let events = u128::from_str_radix(&value, 16);
                arguments.options.without = events.map_err(|error| format!("{value}: {error}"))?;
            }
            _ => return Err(format!("what is {word} {value}?")),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("sim: {error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut sum = Report::default();
    let mut failed = 0;
    for seed in arguments.first..arguments.first + arguments.seeds {
        let options = arguments.options_of(seed);
        let report = run(seed, options);
        sum.counts.add(report.counts);
        sum.volumes += report.volumes;
        sum.crashes += report.crashes;
        sum.cuts += report.cuts;
        sum.disk_faults += report.disk_faults;
        sum.disk_errors += report.disk_errors;
        sum.commands += report.commands;
        sum.decisions += report.decisions;
        sum.time_ns += report.time_ns;
        if !report.violations.is_empty() {
            failed += 1;
            tell_failure(seed, options, &report);
        }
    }
    println!(
        "{} seeds, {} volumes, {:.2} simulated hours, {} writes, {} reads, {} flushes, {} crashes, {} cuts, {} disk faults \
         ({} errors), {} commands, {} human decisions, {:.1} s: {failed} failed",
        arguments.seeds,
        sum.volumes,
        sum.time_ns as f64 / 3.6e12,
        sum.counts.writes,
        sum.counts.reads,
        sum.counts.flushes,
        sum.crashes,
        sum.cuts,
        sum.disk_faults,
        sum.disk_errors,
        sum.commands,
        sum.decisions,
        started.elapsed().as_secs_f64(),
    );
    ExitCode::from(u8::from(failed != 0))
}

/// Tells the story of a seed that failed, or of a shorter run of it that fails alike.
fn tell_failure(seed: u64, options: Options, report: &Report) {
    println!("seed {seed}: {}", report.violations[0]);
    if options.aloud {
        return;
    }
    let shrunk = shrink(seed, options);
    let again = run(
        seed,
        Options {
            kept: true,
            ..shrunk
        },
    );
    for line in &again.story {
        println!("    {line}");
    }
    let left = happened(&again, shrunk);
    println!(
        "    reproduce: make sim SEED={seed}; with {left} faults and commands instead of {}: make sim SEED={seed} WITHOUT={:x}",
        report.events, shrunk.without
    );
}
