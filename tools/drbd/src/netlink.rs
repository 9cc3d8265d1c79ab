// SPDX-License-Identifier: GPL-2.0

//! The conversation with the driver: generic netlink, family `drbd` (Spec §3.1).

pub mod message;
pub mod request;

pub use message::Message;
pub use request::Request;

use crate::failure::{Failure, Outcome};
use crate::host;
use drbd_engine::config::attr::{Attributes, Writer};
use drbd_engine::config::command::{FAMILY_NAME, FAMILY_VERSION};
use drbd_engine::config::{RetCode, UserHeader};
use message::{Received, GENL_CONTROL};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Command as Process;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the driver announces itself by.
const PROC_DRBD: &str = "/proc/drbd";
/// How long the driver may take to appear after modprobe.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the driver may take for a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// Room for events that arrive while the last ones are being printed.
const RECEIVE_BUFFER_BYTES: u32 = 1 << 20;

/// The family's numbers, which the kernel gives out anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family {
    id: u16,
    events_group: u32,
}

/// A netlink socket that the driver listens to.
pub struct Driver {
    socket: Socket,
    family: Family,
    sequence: u32,
    /// Messages of datagrams that held more than one.
    pending: VecDeque<Received>,
}

/// Whether the driver is loaded.
pub fn is_loaded() -> bool {
    Path::new(PROC_DRBD).exists()
}

impl Driver {
    /// Opens the conversation, loading the driver if it is not there.
    pub fn open() -> Outcome<Self> {
        load()?;
        let socket = open_socket()
            .map_err(|error| Failure::new(20, format!("error creating netlink socket: {error}")))?;
        let mut driver = Self {
            socket,
            family: Family {
                id: GENL_CONTROL,
                events_group: 0,
            },
            sequence: host::seconds(),
            pending: VecDeque::new(),
        };
        driver.family = driver.resolve()?;
        Ok(driver)
    }

    /// Sends a request and returns the driver's reply, whatever its return code.
    pub fn ask(&mut self, request: &Request) -> Outcome<Message> {
        let sequence = self.send(request)?;
        loop {
            match self.receive_until(Instant::now() + REPLY_TIMEOUT)? {
                None => return Err(Failure::new(20, "timed out waiting for reply")),
                Some(received) if received.sequence() != sequence => {}
                Some(Received::Message(message)) => return Ok(message),
                Some(Received::Error { error, .. }) => return Err(refused(error)),
                Some(Received::Done { .. }) => {
                    return Err(Failure::new(20, "unexpected message type in reply"));
                }
            }
        }
    }

    /// Sends a request for a stream of messages and returns them.
    ///
    /// A message that says that the request failed is the last one that is looked at: the C driver
    /// repeats it for ever.
    pub fn dump(&mut self, request: &Request) -> Outcome<Vec<Message>> {
        let sequence = self.send(request)?;
        let mut messages = Vec::new();
        loop {
            match self.receive_until(Instant::now() + REPLY_TIMEOUT)? {
                None => return Err(Failure::new(20, "timed out waiting for reply")),
                Some(received) if received.sequence() != sequence => {}
                Some(Received::Message(message)) => {
                    let failed = !message.ret_code().is_success();
                    messages.push(message);
                    if failed {
                        self.reconnect()?;
                        return Ok(messages);
                    }
                }
                Some(Received::Error { error, .. }) => return Err(refused(error)),
                Some(Received::Done { .. }) => return Ok(messages),
            }
        }
    }

    /// Leaves behind whatever the kernel still has to say to the old socket.
    fn reconnect(&mut self) -> Outcome {
        self.socket = open_socket()?;
        self.pending.clear();
        Ok(())
    }

    /// Joins the group that the driver sends its events to.
    pub fn subscribe(&self) -> Outcome {
        self.socket
            .add_membership(self.family.events_group)
            .map_err(|_| Failure::new(20, "unable to join drbd events multicast group"))
    }

    /// Sends a request whose answers the caller takes with [`Driver::next`]; returns its sequence
    /// number.
    pub fn send(&mut self, request: &Request) -> Outcome<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.bytes(self.family.id, self.sequence)?;
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map_err(|error| {
                let reason = host::reason(&error);
                Failure::new(20, format!("failed to send netlink message: {reason}"))
            })?;
        Ok(self.sequence)
    }

    /// The next message, of whatever conversation or event; `None` at the deadline.
    pub fn next(&mut self, deadline: Option<Instant>) -> Outcome<Option<Received>> {
        match deadline {
            Some(deadline) => self.receive_until(deadline),
            None => loop {
                let later = Instant::now() + REPLY_TIMEOUT;
                if let Some(received) = self.receive_until(later)? {
                    return Ok(Some(received));
                }
            },
        }
    }

    fn receive_until(&mut self, deadline: Instant) -> Outcome<Option<Received>> {
        loop {
            if let Some(received) = self.pending.pop_front() {
                return Ok(Some(received));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&self.socket, left)? {
                return Ok(None);
            }
            let (datagram, _) = self.socket.recv_from_full().map_err(|error| {
                let text = match error.raw_os_error() {
                    Some(code) if code == rustix::io::Errno::NOBUFS.raw_os_error() => {
                        "packets dropped, socket receive buffer overrun".to_owned()
                    }
                    _ => format!("failed to receive netlink reply: {}", host::reason(&error)),
                };
                Failure::new(20, text)
            })?;
            self.pending.extend(message::split(&datagram));
        }
    }

    /// Asks the kernel for the family's numbers and checks that it is the one these tools know.
    fn resolve(&mut self) -> Outcome<Family> {
        let unknown = || {
            let text = format!("Could not connect to '{FAMILY_NAME}' generic netlink family");
            Failure::new(20, text)
        };
        let reply = self.ask(&Request::family_lookup()).map_err(|_| unknown())?;
        let about = message::FamilyReply::read(reply.control_attributes());
        if about.version != u32::from(FAMILY_VERSION)
            || about.header_size != UserHeader::SIZE as u32
        {
            let text = format!(
                "API mismatch!\n\tAPI version drbdsetup: {FAMILY_VERSION} kernel: {}\n\
                 \theader size drbdsetup: {} kernel: {}",
                about.version,
                UserHeader::SIZE,
                about.header_size
            );
            return Err(Failure::new(20, text));
        }
        Ok(Family {
            id: about.id,
            events_group: about.events_group.ok_or_else(unknown)?,
        })
    }
}

fn refused(error: i32) -> Failure {
    let reason = host::reason(&io::Error::from_raw_os_error(error));
    Failure::new(20, format!("received netlink error reply: {reason}"))
}

fn open_socket() -> Outcome<Socket> {
    let open = || -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        // A smaller buffer loses events earlier, which is noticed by their sequence numbers.
        let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES);
        Ok(socket)
    };
    open().map_err(|error| Failure::new(20, format!("error creating netlink socket: {error}")))
}

/// Waits until the socket has something, or the time is over.
fn readable(socket: &Socket, timeout: Duration) -> Outcome<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let mut waits = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut waits, Some(&timeout)) {
        Ok(ready) => Ok(ready != 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(Failure::new(20, format!("poll: {error}"))),
    }
}

/// Loads the driver if it is not there, and waits until it says that it is.
fn load() -> Outcome {
    if is_loaded() {
        return Ok(());
    }
    // What modprobe has to say it says itself; whether it helped is seen below.
    let _ = Process::new("/sbin/modprobe").arg("drbd").status();
    let deadline = Instant::now() + LOAD_TIMEOUT;
    while !is_loaded() {
        if Instant::now() > deadline {
            let text = format!(
                "Could not stat {PROC_DRBD}: No such file or directory\n\n\
                 Make sure that the DRBD kernel module is installed and can be loaded!\n"
            );
            return Err(Failure::new(20, text));
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Turns a reply's return code into a failure, with the texts that tell the admin why.
///
/// `subject` is what the request was about, as the admin named it.
pub fn check(reply: &Message, subject: &str) -> Outcome {
    let code = reply.ret_code();
    if code.is_success() {
        return Ok(());
    }
    Err(Failure::new(
        code.exit_code(),
        failure_text(code, reply, subject),
    ))
}

fn failure_text(code: RetCode, reply: &Message, subject: &str) -> String {
    let mut text = match code.0 {
        102.. => format!("{subject}: Failure: ({}) {code}", code.0),
        _ => format!("{subject}: State change failed: ({}) {code}", code.0),
    };
    text.push_str(hint(code));
    if let Some(info) = reply.info_text() {
        text.push_str("\nadditional info from kernel:\n");
        text.push_str(info.trim_end());
    }
    text
}

/// What the admin can do about a failure.
fn hint(code: RetCode) -> &'static str {
    match code {
        RetCode::META_INVALID => {
            "\n\n\t==> Use 'drbdadm create-md res' to initialize meta-data area. <=="
        }
        RetCode::AUTH_ALG | RetCode::INTEGRITY_ALG | RetCode::CSUMS_ALG | RetCode::VERIFY_ALG => {
            " (Maybe you need to modprobe it, or modprobe hmac?)"
        }
        _ => "",
    }
}

/// Writes attributes into a buffer of growing size until they fit.
fn write_attributes(write: &dyn Fn(&mut Writer<'_>)) -> Outcome<Vec<u8>> {
    let mut buffer = vec![0; 16 << 10];
    let mut writer = Writer::new(&mut buffer);
    write(&mut writer);
    writer
        .finish()
        .map(<[u8]>::to_vec)
        .map_err(|_| Failure::new(20, "the request is too long for a netlink message"))
}

/// The attributes of a message that begin after this many bytes.
fn attributes_after(payload: &[u8], header: usize) -> Attributes<'_> {
    Attributes::new(payload.get(header..).unwrap_or_default())
}
