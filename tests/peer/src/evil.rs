// SPDX-License-Identifier: GPL-2.0

//! A peer that sends what no node would, in every state of the connection, and counts what the
//! module makes of it.
//!
//! Each resource has a thread of its own; a seed and the number of a session decide what is sent
//! in it.

mod craft;
mod kernel_log;
mod rng;
mod session;

use kernel_log::{KernelLog, Mark, CLOSED};
use rng::Rng;
use session::{Session, Target};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::process::Command as Process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The module must be ready for the next connection within this time. Guests that are emulated on a
/// busy host need a minute for an admin's command.
const READY: Duration = Duration::from_secs(180);
/// The kernel's log is read within this time.
const TOLD: Duration = Duration::from_secs(10);
/// So many sessions pass before the disk is made usable again, whatever became of it.
const SESSIONS_PER_CURE: u64 = 40;

/// What a run is to do.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The module's address of the first resource; the others are on the ports after it.
    pub(crate) to: SocketAddrV4,
    /// Resources.
    pub(crate) resources: u16,
    /// What makes runs differ.
    pub(crate) seed: u64,
    /// Packets in all.
    pub(crate) packets: u64,
    /// The one session to run, for all there is.
    pub(crate) only: Option<u64>,
    /// The run ends after this time in any case.
    pub(crate) seconds: u64,
}

/// What was seen.
#[derive(Default)]
struct Tally {
    packets: u64,
    sessions: u64,
    /// Sessions that the module ended.
    dropped: u64,
    by_stage: BTreeMap<&'static str, u64>,
    /// The module's lines about errors in a session that it ended, by number of sessions.
    lines: BTreeMap<u64, u64>,
    complaints: Vec<String>,
}

/// Runs a plan; an error is a module that does not hold what it must.
pub(crate) fn run(plan: &Plan) -> Result<(), String> {
    let log = Arc::new(KernelLog::follow()?);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let left = Arc::new(AtomicU64::new(plan.packets));
    let threads: Vec<_> = (0..plan.resources)
        .map(|number| {
            let (plan, log) = (plan.clone(), log.clone());
            let (tally, left) = (tally.clone(), left.clone());
            std::thread::spawn(move || resource(&plan, number, &log, &tally, &left))
        })
        .collect();
    let mut failed = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failed.push(why),
            Err(_) => failed.push("a thread panicked".to_owned()),
        }
    }
    let tally = tally.lock().expect("the threads have ended");
    println!(
        "{} packets in {} sessions, {} of them ended by the module",
        tally.packets, tally.sessions, tally.dropped
    );
    println!("stages: {:?}", tally.by_stage);
    println!("sessions by lines about errors: {:?}", tally.lines);
    for complaint in tally.complaints.iter().take(40) {
        println!("{complaint}");
    }
    failed.extend(log.trouble());
    if !tally.complaints.is_empty() {
        failed.push(format!("{} complaints", tally.complaints.len()));
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n"))
    }
}

/// The sessions of one resource.
fn resource(
    plan: &Plan,
    number: u16,
    log: &KernelLog,
    tally: &Mutex<Tally>,
    left: &AtomicU64,
) -> Result<(), String> {
    let name = format!("r{number}");
    let target = Target::new(plan.to, number);
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    let mut session_number = plan.only.unwrap_or(0);
    while left.load(Ordering::Relaxed) > 0 && Instant::now() < end && log.trouble().is_none() {
        if session_number % SESSIONS_PER_CURE == 0 {
            cure(number);
        }
        let rng = Rng::new(plan.seed, u64::from(number) << 32 | session_number);
        let (mut session, before) = reach(number, &target, rng, &name, log)?;
        session.run();
        let outcome = session.end();
        let took = Instant::now();
        let ready = log.wait_ready(&name, &before, outcome.was_established, READY);
        if outcome.was_dropped && outcome.was_established {
            log.wait_error(&name, &before, TOLD);
        }
        let errors = log.errors_since(&name, &before);
        let mut tally = tally.lock().map_err(|_| "a thread panicked")?;
        tally.packets += outcome.packets;
        tally.sessions += 1;
        *tally.by_stage.entry(outcome.stage).or_default() += 1;
        let what = format!(
            "{name} session {session_number} ({}, version {})",
            outcome.stage, outcome.version
        );
        if !ready {
            tally.complaints.push(format!(
                "{what}: not ready after {} s; last sent: {}",
                took.elapsed().as_secs(),
                outcome.last.join(", ")
            ));
        }
        if outcome.was_dropped {
            tally.dropped += 1;
            let count = errors
                .iter()
                .filter(|line| !is_of_no_consequence(line))
                .count() as u64;
            *tally.lines.entry(count).or_default() += 1;
            // Both sockets may be the reason at the same time.
            if outcome.was_established && (errors.is_empty() || count > 2) {
                tally.complaints.push(format!(
                    "{what}: {count} lines {errors:?}; last sent: {}",
                    outcome.last.join(", ")
                ));
            }
        }
        let sent = outcome.packets.min(left.load(Ordering::Relaxed));
        left.fetch_sub(sent, Ordering::Relaxed);
        session_number += 1;
        if plan.only.is_some() {
            println!(
                "{what}: sent {}; errors {errors:?}",
                outcome.last.join(", ")
            );
            break;
        }
    }
    Ok(())
}

/// Connects, and brings the connection to the session's stage; a module that does not listen is
/// told to. With the place in the log from which on it speaks of this session: a module whose ping
/// a busy host answers too late may drop it at once.
fn reach(
    number: u16,
    target: &Target,
    rng: Rng,
    name: &str,
    log: &KernelLog,
) -> Result<(Session, Mark), String> {
    let end = Instant::now() + READY;
    loop {
        let before = log.mark(name);
        match Session::open(target, rng.clone()) {
            Ok(session) => return Ok((session, before)),
            Err(_) if Instant::now() < end => {}
            Err(error) => return Err(format!("{name} does not listen any more: {error}")),
        }
        if is_standalone(number) {
            reconnect(number);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lines about what the module refuses without dropping the connection, or what the peer did.
fn is_of_no_consequence(line: &str) -> bool {
    const REFUSED: [&str; 10] = [
        "Requested state change failed",
        "State change failed",
        "Can not satisfy peer's read request",
        "ASSERT FAILED cstate",
        "Ignoring SyncUUID",
        "sending on the",
        "IO ERROR",
        "could not be resized",
        "Got NegDReply",
        "the resync does not start",
    ];
    line.contains(CLOSED) || REFUSED.iter().any(|start| line.starts_with(start))
}

/// Whether the module gave the connection up.
fn is_standalone(number: u16) -> bool {
    let status = std::fs::read_to_string("/proc/drbd").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{number}: ")));
    line.is_some_and(|line| line.contains("cs:StandAlone") || line.contains("cs:Unconfigured"))
}

/// What an admin does about a connection that was given up.
fn reconnect(number: u16) {
    admin(&["connect", &format!("r{number}")]);
}

/// Makes a disk that a broken resync left Inconsistent usable again, and changes roles.
fn cure(number: u16) {
    let name = format!("r{number}");
    admin(&["primary", "--force", &name]);
    if number % 2 == 0 {
        admin(&["secondary", &name]);
    }
}

fn admin(arguments: &[&str]) {
    // Refused where the state changes meanwhile; then it is tried again.
    let _ = Process::new("drbdadm").args(arguments).output();
}
