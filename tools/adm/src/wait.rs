// SPDX-License-Identifier: GPL-2.0

//! Waiting for peers: `wait-connect`, and `wait-con-int` with its banner and a way out.

use crate::failure::Outcome;
use crate::option::Section;
use crate::run::{Runner, Step};
use crate::selection::Site;
use crate::world::World;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the script waits before it explains itself.
const PATIENCE_SECONDS: u64 = 10;
/// Exit code of `drbdsetup wait-connect` after its timeout, and of `wait-con-int` then.
const TIMED_OUT: i32 = 5;
const POLL: Duration = Duration::from_millis(100);

/// The run of drbdsetup that waits for one volume's connection.
pub(crate) fn step(site: Site<'_>, minor: u32, extra: &[String]) -> Step {
    let options = site.resource.sections.of(Section::Startup).iter();
    let options = options.filter(|setting| {
        setting.name.ends_with("wfc-timeout")
            || (setting.name == "wait-after-sb" && setting.value == "yes")
    });
    let options = options.map(|setting| match setting.name.as_str() {
        "wait-after-sb" => "--wait-after-sb".to_owned(),
        name => format!("--{name}={}", setting.value),
    });
    Step::setup(["wait-connect".to_owned(), minor.to_string()])
        .with(options)
        .with(extra.iter().cloned())
}

/// Waits until every volume is connected or its timeout is over, or the admin has enough of it.
pub(crate) fn interactive(
    sites: &[Site<'_>],
    runner: &Runner,
    extra: &[String],
    world: &mut World<'_>,
) -> Outcome<i32> {
    let mut children = Vec::new();
    for site in sites {
        for volume in site.volumes() {
            let step = step(*site, volume.minor(), extra);
            children.extend(runner.start(&step, world)?);
        }
    }
    let mut wait = Wait {
        children,
        code: 0,
        start: Instant::now(),
    };
    let outcome = wait.run(sites);
    wait.stop();
    outcome?;
    Ok(wait.code)
}

struct Wait {
    children: Vec<Child>,
    code: i32,
    start: Instant,
}

impl Wait {
    fn run(&mut self, sites: &[Site<'_>]) -> Outcome {
        // A child that has nothing to wait for ends at once; then nobody need hear of waiting.
        thread::sleep(POLL);
        if self.is_over()? {
            return Ok(());
        }
        let mut console = Console::open();
        while self.start.elapsed().as_secs() < PATIENCE_SECONDS {
            console.show(".")?;
            if self.is_over_within(Duration::from_secs(1))? {
                return console.show("\n");
            }
        }
        console.show(&banner(sites))?;
        let answers = console.listen();
        loop {
            let seconds = self.start.elapsed().as_secs();
            console.counter(seconds)?;
            if self.is_over_within(Duration::from_secs(1))? {
                return console.show("\n");
            }
            if answers.try_iter().any(|answer| answer.trim() == "yes") {
                return Ok(());
            }
        }
    }

    fn is_over_within(&mut self, time: Duration) -> Outcome<bool> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.is_over()? {
                return Ok(true);
            }
            thread::sleep(POLL);
        }
        self.is_over()
    }

    fn is_over(&mut self) -> Outcome<bool> {
        let mut waiting = Vec::new();
        for mut child in self.children.drain(..) {
            match child.try_wait()? {
                None => waiting.push(child),
                Some(status) if status.success() => {}
                Some(status) => self.code = status.code().unwrap_or(TIMED_OUT),
            }
        }
        self.children = waiting;
        Ok(self.children.is_empty())
    }

    fn stop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The timeouts are those of the first resource, as the banner says.
fn banner(sites: &[Site<'_>]) -> String {
    let Some(site) = sites.first() else {
        return String::new();
    };
    let startup = site.resource.sections.of(Section::Startup);
    let seconds = |name| startup.value(name).unwrap_or("0").to_owned();
    let (degraded, usual) = (seconds("degr-wfc-timeout"), seconds("wfc-timeout"));
    format!(
        "\n***************************************************************\n \
         DRBD's startup script waits for the peer node(s) to appear.\n \
         - In case this node was already a degraded cluster before the\n   \
         reboot the timeout is {degraded} seconds. [degr-wfc-timeout]\n \
         - If the peer was available before the reboot the timeout will\n   \
         expire after {usual} seconds. [wfc-timeout]\n   \
         (These values are for resource '{}'; 0 sec -> wait forever)\n",
        site.resource.name
    )
}

/// Where the admin sits: at input and output, or at the console if a script runs without them.
struct Console {
    out: Box<dyn Write>,
    input: Option<Box<dyn BufRead + Send>>,
    is_terminal: bool,
}

impl Console {
    fn open() -> Self {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let device = || {
            let write = File::options().write(true).open("/dev/console").ok()?;
            let read = File::open("/dev/console").ok()?;
            Some((write, read))
        };
        match if is_nobody_there() { device() } else { None } {
            Some((write, read)) if write.is_terminal() => Self {
                out: Box::new(write),
                input: Some(Box::new(BufReader::new(read))),
                is_terminal: true,
            },
            _ => Self {
                out: Box::new(std::io::stdout()),
                input: Some(Box::new(BufReader::new(std::io::stdin()))),
                is_terminal,
            },
        }
    }

    fn show(&mut self, text: &str) -> Outcome {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    fn counter(&mut self, seconds: u64) -> Outcome {
        // What the admin has typed so far stays behind the counter.
        let text = format!(" To abort waiting enter 'yes' [{seconds:>3}]:");
        match self.is_terminal {
            true if seconds > PATIENCE_SECONDS => self.show(&format!("\x1b[s\r{text}\x1b[u")),
            _ => self.show(&format!("\r{text}")),
        }
    }

    /// Lines that the admin types. Reading blocks, so it has a thread, which the program's end
    /// ends.
    fn listen(&mut self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        if let Some(input) = self.input.take() {
            thread::spawn(move || {
                for line in input.lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        receiver
    }
}

/// Whether the input is a device that nobody types at, such as `/dev/null`, as it is at boot. A
/// pipe has somebody at its other end.
fn is_nobody_there() -> bool {
    let stdin = std::io::stdin();
    let metadata = stdin
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .and_then(|f| f.metadata());
    !stdin.is_terminal() && metadata.map_or(true, |data| data.file_type().is_char_device())
}
