// SPDX-License-Identifier: GPL-2.0

//! Questions about the driver's state that more than one tool asks.

use crate::netlink::{self, Driver, Request};
use drbd_engine::config::command::Command;
use drbd_engine::config::info::StateInfo;
use drbd_engine::state::{DiskState, State};

/// Whether a minor has a disk, so that its metadata belong to the driver.
///
/// A driver that is not loaded is not loaded for this question, and one that cannot be asked has
/// nothing attached.
pub fn is_attached(minor: u32) -> bool {
    netlink::is_loaded() && disk_state(minor).is_some_and(|disk| disk != DiskState::Diskless)
}

fn disk_state(minor: u32) -> Option<DiskState> {
    let mut driver = Driver::open().ok()?;
    let reply = driver
        .ask(&Request::about_minor(Command::GetStatus, minor))
        .ok()?;
    let status = reply.settings::<StateInfo>()?;
    reply.ret_code().is_success().then_some(())?;
    Some(State::from_word(status.current_state).ok()?.disk)
}
