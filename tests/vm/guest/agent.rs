// SPDX-License-Identifier: GPL-2.0

//! Runs commands in a guest for the test runner, over a virtio console or a serial line.
//!
//! Both directions carry frames: command id and payload length as little-endian `u32`, one byte of
//! kind, the payload. Standard library only, so that rustc alone builds it in the build root.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Kinds of frame; the runner's side is `tests/vm/drbdvm/agent.py`.
mod kind {
    /// To the guest: run the payload with bash.
    pub const RUN: u8 = b'r';
    /// To the guest: payload for the command's standard input; empty closes it.
    pub const INPUT: u8 = b'i';
    /// To the guest: kill the command's process group.
    pub const KILL: u8 = b'k';
    /// To the guest: write a file; payload is mode (octal), blank, path, newline, content.
    pub const WRITE: u8 = b'w';
    /// From the guest: the agent listens.
    pub const HELLO: u8 = b'h';
    /// From the guest: standard output of the command.
    pub const OUTPUT: u8 = b'o';
    /// From the guest: standard error of the command.
    pub const ERROR: u8 = b'e';
    /// From the guest: the command ended; payload is its exit code in decimal.
    pub const EXIT: u8 = b'x';
    /// From the guest, on a serial line: so many bytes (decimal) of input have been taken.
    pub const TAKEN: u8 = b't';
}

/// The line to the runner; whole frames are written under the lock.
#[derive(Clone)]
struct Line(Arc<Mutex<File>>);

impl Line {
    fn send(&self, id: u32, kind: u8, payload: &[u8]) {
        let mut frame = Vec::with_capacity(9 + payload.len());
        frame.extend_from_slice(&id.to_le_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.push(kind);
        frame.extend_from_slice(payload);
        // Without a runner at the other end there is nobody to tell.
        let _ = self.0.lock().expect("a sender panicked").write_all(&frame);
    }
}

/// The input of a serial line; the runner is told what has been taken of it, and sends no more than
/// the kernel has room for.
struct Paced {
    from: File,
    line: Line,
    taken: usize,
}

impl Paced {
    const STEP_BYTES: usize = 512;
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.taken += length;
        if self.taken >= Self::STEP_BYTES {
            let taken = std::mem::take(&mut self.taken).to_string();
            self.line.send(0, kind::TAKEN, taken.as_bytes());
        }
        Ok(length)
    }
}

/// A command that runs: its process group and its standard input.
struct Running {
    group: u32,
    input: Option<ChildStdin>,
}

type Table = Arc<Mutex<HashMap<u32, Running>>>;

fn forward(line: Line, id: u32, kind: u8, mut from: impl Read) {
    let mut buffer = [0; 8192];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 {
            return;
        }
        line.send(id, kind, &buffer[..length]);
    }
}

/// Forward the output until the command ends. A daemon it left behind may hold the pipes open
/// for ever, so the end of the command, not of its output, is what counts.
fn attend(line: Line, table: Table, id: u32, mut child: Child) {
    let streams = [
        child.stdout.take().map(|from| {
            let line = line.clone();
            thread::spawn(move || forward(line, id, kind::OUTPUT, from))
        }),
        child.stderr.take().map(|from| {
            let line = line.clone();
            thread::spawn(move || forward(line, id, kind::ERROR, from))
        }),
    ];
    let status = child.wait();
    for _ in 0..20 {
        if streams.iter().flatten().all(|stream| stream.is_finished()) {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    table.lock().expect("a command thread panicked").remove(&id);
    let code = match status {
        Ok(status) => status.code().unwrap_or(128 + status.signal().unwrap_or(0)),
        Err(_) => 255,
    };
    line.send(id, kind::EXIT, code.to_string().as_bytes());
}

fn run(line: &Line, table: &Table, id: u32, script: &[u8]) {
    let spawned = Command::new("/bin/bash")
        .arg("-c")
        .arg(String::from_utf8_lossy(script).as_ref())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    match spawned {
        Ok(mut child) => {
            let running = Running {
                group: child.id(),
                input: child.stdin.take(),
            };
            table
                .lock()
                .expect("a command thread panicked")
                .insert(id, running);
            let (line, table) = (line.clone(), table.clone());
            thread::spawn(move || attend(line, table, id, child));
        }
        Err(error) => {
            line.send(id, kind::ERROR, error.to_string().as_bytes());
            line.send(id, kind::EXIT, b"127");
        }
    }
}

fn feed(table: &Table, id: u32, data: &[u8]) {
    if let Some(running) = table
        .lock()
        .expect("a command thread panicked")
        .get_mut(&id)
    {
        if data.is_empty() {
            running.input = None;
        } else if let Some(input) = running.input.as_mut() {
            // A command that closed its input does not want it.
            let _ = input.write_all(data);
        }
    }
}

fn kill(table: &Table, id: u32) {
    if let Some(running) = table.lock().expect("a command thread panicked").get(&id) {
        let group = format!("-{}", running.group);
        let _ = Command::new("/bin/kill")
            .args(["-9", "--", &group])
            .status();
    }
}

fn write_file(payload: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no header line");
    let end = payload
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(malformed)?;
    let header = String::from_utf8_lossy(&payload[..end]);
    let (mode, path) = header.split_once(' ').ok_or_else(malformed)?;
    let mode = u32::from_str_radix(mode, 8).map_err(|_| malformed())?;
    if let Some(parent) = std::path::Path::new(path).parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, &payload[end + 1..])?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Memory that the kernel reads a disk into without a copy.
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Asks a disk again and again. On a busy host the kernel of User Mode Linux at times hears that a
/// disk has answered only when it answers once more, and what waits then waits for ever.
fn ask_disk(path: &str) {
    const O_DIRECT: i32 = 0o40000;
    let mut block = Block([0; 4096]);
    loop {
        thread::sleep(Duration::from_secs(1));
        let disk = OpenOptions::new()
            .read(true)
            .custom_flags(O_DIRECT)
            .open(path);
        // A guest need not have a disk, and a test may let it fail.
        let _ = disk.and_then(|mut disk| disk.read(&mut block.0));
    }
}

fn main() -> io::Result<()> {
    let path = std::env::args().nth(1).expect("usage: agent DEVICE");
    let device = OpenOptions::new().read(true).write(true).open(&path)?;
    let line = Line(Arc::new(Mutex::new(device.try_clone()?)));
    let mut from: Box<dyn Read> = if path.starts_with("/dev/tty") {
        thread::spawn(|| ask_disk("/dev/ubda"));
        Box::new(Paced {
            from: device,
            line: line.clone(),
            taken: 0,
        })
    } else {
        Box::new(device)
    };
    let table = Table::default();
    line.send(0, kind::HELLO, b"");
    loop {
        let mut header = [0; 9];
        from.read_exact(&mut header)?;
        let id = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload)?;
        match header[8] {
            kind::RUN => run(&line, &table, id, &payload),
            kind::INPUT => feed(&table, id, &payload),
            kind::KILL => kill(&table, id),
            kind::WRITE => {
                let outcome = write_file(&payload);
                if let Err(error) = &outcome {
                    line.send(id, kind::ERROR, error.to_string().as_bytes());
                }
                line.send(id, kind::EXIT, if outcome.is_ok() { b"0" } else { b"1" });
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown frame")),
        }
    }
}
