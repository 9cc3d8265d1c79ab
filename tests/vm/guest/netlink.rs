// SPDX-License-Identifier: GPL-2.0

//! Sends generic netlink messages as they stand, however malformed, to the family `drbd`.
//!
//! Each line of standard input is one message in hexadecimal digits, `nlmsghdr` included; a message
//! type of 0xfffe stands for the family's number. For each the answers are printed in a line, each
//! of them one word in hexadecimal digits; "silence" where there was none, and "endless" after more
//! than any message may have. With the argument N, N threads send all messages at the same time,
//! and print nothing.

use std::io::{self, BufRead, Write};
use std::thread;

const AF_NETLINK: i32 = 16;
const SOCK_RAW: i32 = 3;
const NETLINK_GENERIC: i32 = 16;
const SOL_SOCKET: i32 = 1;
const SO_RCVTIMEO: i32 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FAMILY: u16 = 0xfffe;
const PATIENCE_US: i64 = 300_000;
const ANSWERS_MAX: usize = 32;

extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn setsockopt(socket: i32, level: i32, name: i32, value: *const u8, length: u32) -> i32;
    fn sendto(
        socket: i32,
        data: *const u8,
        length: usize,
        flags: i32,
        to: *const u8,
        to_length: u32,
    ) -> isize;
    fn recv(socket: i32, data: *mut u8, length: usize, flags: i32) -> isize;
    fn close(socket: i32) -> i32;
}

struct Netlink(i32);

impl Netlink {
    fn open(patience_us: i64) -> io::Result<Self> {
        // SAFETY: No pointers.
        let socket = unsafe { socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let patience = [patience_us / 1_000_000, patience_us % 1_000_000];
        // SAFETY: The option takes a struct timeval, two words.
        unsafe {
            setsockopt(
                socket,
                SOL_SOCKET,
                SO_RCVTIMEO,
                patience.as_ptr().cast(),
                16,
            )
        };
        Ok(Self(socket))
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        let kernel = [AF_NETLINK as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: Both buffers live and have the lengths given.
        let sent = unsafe {
            sendto(
                self.0,
                message.as_ptr(),
                message.len(),
                0,
                kernel.as_ptr(),
                12,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut data = vec![0; 1 << 16];
        // SAFETY: The buffer lives and has the length given.
        let length = unsafe { recv(self.0, data.as_mut_ptr(), data.len(), 0) };
        data.truncate(usize::try_from(length).ok()?);
        Some(data)
    }

    /// All answers to one message, up to the error or the end that concludes them; not many more
    /// than `ANSWERS_MAX`, if they do not end.
    fn answers(&self) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        while answers.len() <= ANSWERS_MAX {
            let Some(data) = self.receive() else {
                break;
            };
            let mut rest = &data[..];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let length = length.clamp(16, rest.len());
                answers.push(rest[..length].to_vec());
                if kind == NLMSG_ERROR || kind == NLMSG_DONE {
                    return answers;
                }
                rest = &rest[(length + 3 & !3).min(rest.len())..];
            }
        }
        answers
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        // SAFETY: The socket is ours and not used any more.
        unsafe { close(self.0) };
    }
}

/// Asks the controller for the number of the family.
fn family() -> u16 {
    let netlink = Netlink::open(5_000_000).expect("no netlink socket");
    let request = b"\x20\0\0\0\x10\0\x05\0\x01\0\0\0\0\0\0\0\x03\x01\0\0\x09\0\x02\0drbd\0\0\0\0";
    netlink
        .send(request)
        .expect("the controller takes requests");
    let answers = netlink.answers();
    let mut rest = answers
        .first()
        .and_then(|answer| answer.get(20..))
        .unwrap_or_default();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).max(4);
        if rest[2] == 1 && rest.len() >= 6 {
            return u16::from_ne_bytes([rest[4], rest[5]]);
        }
        rest = &rest[(length + 3 & !3).min(rest.len())..];
    }
    panic!("there is no family drbd");
}

fn bytes_of(line: &str, family: u16) -> Vec<u8> {
    let digits = line.trim().as_bytes();
    let mut message: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("no hex"))
        .collect();
    if message.len() >= 6 && message[4..6] == FAMILY.to_ne_bytes() {
        message[4..6].copy_from_slice(&family.to_ne_bytes());
    }
    message
}

fn main() {
    let family = family();
    let lines = io::stdin().lock().lines();
    let messages: Vec<Vec<u8>> = lines.map(|line| bytes_of(&line.unwrap(), family)).collect();
    if let Some(count) = std::env::args().nth(1) {
        let count: usize = count.parse().expect("a number of threads");
        thread::scope(|scope| {
            for first in 0..count {
                let messages = &messages;
                scope.spawn(move || {
                    let netlink = Netlink::open(2_000).expect("no netlink socket");
                    for at in 0..messages.len() {
                        // Each begins elsewhere, so that different commands meet.
                        let index = (at + first * messages.len() / count) % messages.len();
                        let _ = netlink.send(&messages[index]);
                        netlink.answers();
                    }
                });
            }
        });
        return;
    }
    let mut out = io::stdout().lock();
    for message in &messages {
        let netlink = Netlink::open(PATIENCE_US).expect("no netlink socket");
        let words: Vec<String> = match netlink.send(message) {
            Err(error) => vec![format!("refused:{}", error.raw_os_error().unwrap_or(0))],
            Ok(()) => {
                let answers = netlink.answers();
                let endless = (answers.len() > ANSWERS_MAX).then(|| "endless".into());
                let words = answers
                    .iter()
                    .take(ANSWERS_MAX)
                    .map(|answer| answer.iter().map(|byte| format!("{byte:02x}")).collect());
                words.chain(endless).collect()
            }
        };
        let line = if words.is_empty() {
            "silence".into()
        } else {
            words.join(" ")
        };
        writeln!(out, "{line}").expect("standard output is there");
    }
}
