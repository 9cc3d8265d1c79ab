// SPDX-License-Identifier: GPL-2.0

//! What the kernel says of each resource, read while it says it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Priorities up to this one are errors.
const ERROR: u32 = 3;
/// What the line says about a peer that closed a socket.
pub(crate) const CLOSED: &str = "shut down by peer";
const TROUBLE: [&str; 9] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection",
    "panicked at",
    "KASAN:",
    "blocked for more",
    "refcount_t:",
    "possible recursive",
];

#[derive(Default)]
struct Of {
    /// Lines about errors and closed sockets.
    errors: Vec<String>,
    /// How often the receiver began anew or ended.
    begun: u64,
}

#[derive(Default)]
struct State {
    of: HashMap<String, Of>,
    trouble: Option<String>,
}

/// The log, and the thread that reads it.
pub(crate) struct KernelLog(Arc<Mutex<State>>);

/// A place in the log.
pub(crate) struct Mark {
    errors: usize,
    begun: u64,
}

impl KernelLog {
    /// Reads the log from now on.
    pub(crate) fn follow() -> Result<Self, String> {
        let mut file = File::open("/dev/kmsg").map_err(|error| format!("/dev/kmsg: {error}"))?;
        file.seek(SeekFrom::End(0))
            .map_err(|error| error.to_string())?;
        let state = Arc::new(Mutex::new(State::default()));
        let reader = state.clone();
        std::thread::spawn(move || {
            let mut record = [0; 8192];
            loop {
                match file.read(&mut record) {
                    Ok(length) => note(&reader, &String::from_utf8_lossy(&record[..length])),
                    // Records were overwritten before they were read.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                        eprintln!("the kernel's log was too fast");
                    }
                    Err(_) => break,
                }
            }
        });
        Ok(Self(state))
    }

    /// The place where the log of a resource is now.
    pub(crate) fn mark(&self, resource: &str) -> Mark {
        let state = self.0.lock().expect("the reader does not panic");
        let of = state.of.get(resource);
        Mark {
            errors: of.map_or(0, |of| of.errors.len()),
            begun: of.map_or(0, |of| of.begun),
        }
    }

    /// Lines about errors and closed sockets of a resource since then.
    pub(crate) fn errors_since(&self, resource: &str, mark: &Mark) -> Vec<String> {
        let state = self.0.lock().expect("the reader does not panic");
        let errors = state.of.get(resource).map(|of| &of.errors[mark.errors..]);
        errors.unwrap_or_default().to_vec()
    }

    /// Waits until the receiver has begun anew, or ended, if that is to be expected.
    pub(crate) fn wait_ready(
        &self,
        resource: &str,
        mark: &Mark,
        expected: bool,
        patience: Duration,
    ) -> bool {
        let end = Instant::now() + patience;
        while expected && self.mark(resource).begun == mark.begun {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until an error of a resource is told.
    pub(crate) fn wait_error(&self, resource: &str, mark: &Mark, patience: Duration) {
        let end = Instant::now() + patience;
        while self.errors_since(resource, mark).is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The first report of trouble.
    pub(crate) fn trouble(&self) -> Option<String> {
        let state = self.0.lock().expect("the reader does not panic");
        state.trouble.clone()
    }
}

fn note(state: &Mutex<State>, record: &str) {
    let Some((front, text)) = record.split_once(';') else {
        return;
    };
    let text = text.lines().next().unwrap_or_default();
    let priority = front
        .split(',')
        .next()
        .and_then(|number| number.parse::<u32>().ok())
        .map_or(7, |number| number & 7);
    let mut state = state.lock().expect("nobody panics with it");
    if TROUBLE.iter().any(|trouble| text.contains(trouble)) && state.trouble.is_none() {
        state.trouble = Some(text.to_owned());
    }
    let Some(rest) = text.strip_prefix("drbd ") else {
        return;
    };
    let Some((name, what)) = rest.split_once(": ") else {
        return;
    };
    let name = name.split(['/', ' ']).next().unwrap_or(name);
    let of = state.of.entry(name.to_owned()).or_default();
    // The end of a connection is an error only where the module has a complaint.
    if priority <= ERROR || what.contains(CLOSED) {
        of.errors.push(what.to_owned());
    }
    if what.contains("receiver (re)started") || what.contains("receiver terminated") {
        of.begun += 1;
    }
}
