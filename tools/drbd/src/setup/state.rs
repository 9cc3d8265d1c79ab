// SPDX-License-Identifier: GPL-2.0

//! The state of one device: `role`, `cstate`, `dstate`, `show-gi`, `get-gi`, `sh-status`, and
//! `check-resize`, which only takes a note.

use super::{driver_if_loaded, Call, Filter};
use crate::failure::{Failure, Outcome};
use crate::generation::Generation;
use crate::host;
use crate::netlink::{check, Driver, Message, Request};
use crate::note::Note;
use drbd_engine::config::command::Command;
use drbd_engine::config::context::NO_MINOR;
use drbd_engine::config::info::StateInfo;
use drbd_engine::config::options::{META_INDEX_FIXED_INTERNAL, META_INDEX_INTERNAL};
use drbd_engine::config::DiskConf;
use drbd_engine::meta::{MdFlags, Uuids};
use drbd_engine::state::State;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// The status of the device that the command names.
fn status(call: &Call<'_>) -> Outcome<Message> {
    let request = Request::about_minor(Command::GetStatus, call.minor()?);
    let reply = Driver::open()?.ask(&request)?;
    check(&reply, call.argument(0))?;
    Ok(reply)
}

/// The state word in a message with a status, if it makes sense.
pub fn state_of(message: &Message) -> Option<State> {
    let status = message.settings::<StateInfo>()?;
    State::from_word(status.current_state).ok()
}

fn print_state(call: &Call<'_>, shown: impl Fn(State) -> String) -> Outcome {
    let message = status(call)?;
    let state = state_of(&message)
        .ok_or_else(|| Failure::new(20, "reply did not validate, the driver is unknown to us"))?;
    let text = if state.is_unconfigured() {
        "Unconfigured".to_owned()
    } else {
        shown(state)
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// Prints the roles: own and peer's.
pub fn role(call: &Call<'_>) -> Outcome {
    print_state(call, |state| format!("{}/{}", state.role, state.peer))
}

/// Prints the connection state.
pub fn cstate(call: &Call<'_>) -> Outcome {
    print_state(call, |state| state.conn.to_string())
}

/// Prints the disk states: own and peer's.
pub fn dstate(call: &Call<'_>) -> Outcome {
    print_state(call, |state| format!("{}/{}", state.disk, state.pdsk))
}

fn generation(call: &Call<'_>) -> Outcome<(Generation, Box<StateInfo>)> {
    let message = status(call)?;
    let state = state_of(&message);
    if state.is_none_or(State::is_unconfigured) {
        return Err(Failure::new(1, "Device is unconfigured"));
    }
    let info = message.settings::<StateInfo>();
    let info = info.filter(|info| !info.uuids.is_empty());
    let info = info.ok_or_else(|| Failure::new(1, "Device has no disk"))?;
    let mut uuids = info
        .uuids
        .as_bytes()
        .chunks_exact(8)
        .filter_map(|uuid| uuid.try_into().ok().map(u64::from_ne_bytes));
    let mut next = || uuids.next().unwrap_or(0);
    let generation = Generation {
        uuids: Uuids {
            current: next(),
            bitmap: next(),
            history: [next(), next()],
        },
        flags: MdFlags(info.disk_flags),
    };
    Ok((generation, info))
}

/// Prints the generation UUIDs and flags.
pub fn get_gi(call: &Call<'_>) -> Outcome {
    let (generation, _) = generation(call)?;
    writeln!(io::stdout(), "{generation}")?;
    Ok(())
}

/// Prints the generation UUIDs and flags with an explanation.
pub fn show_gi(call: &Call<'_>) -> Outcome {
    let (generation, _) = generation(call)?;
    let state = match generation.flags.contains(MdFlags::AL_CLEAN) {
        true => "clean",
        false => "need apply-al",
    };
    let text = format!("{}meta-data: {state}\n", generation.explain());
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Prints the state of devices as assignments for a shell.
pub fn sh_status(call: &Call<'_>) -> Outcome {
    let Some(mut driver) = driver_if_loaded()? else {
        return Ok(());
    };
    let messages = match call.filter() {
        Filter::Minor(minor) => {
            let reply = driver.ask(&Request::about_minor(Command::GetStatus, minor))?;
            check(&reply, call.argument(0))?;
            vec![reply]
        }
        Filter::Resource(name) => {
            driver.dump(&Request::new(Command::GetStatus).as_dump().resource(&name))?
        }
        Filter::All => driver.dump(&Request::new(Command::GetStatus).as_dump())?,
    };
    let text: String = messages.iter().map(shell_text).collect();
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn shell_text(message: &Message) -> String {
    let minor = message.header().minor;
    let volume = match message.context().volume {
        Some(volume) => volume.to_string(),
        None => "-1".to_owned(),
    };
    let state = state_of(message).filter(|_| minor != NO_MINOR);
    let known = match state {
        None => "NA # not available or not yet created",
        Some(state) if state.is_unconfigured() => "Unconfigured",
        Some(_) => "Configured",
    };
    let mut text = format!(
        "_minor={minor}\n_res_name={}\n_volume={volume}\n_known={known}\n\n",
        message.resource_name()
    );
    match state.filter(|state| !state.is_unconfigured()) {
        None => text.push_str(
            "_cstate=Unconfigured\n_role=\n_peer=\n_disk=\n_pdsk=\n_flags_susp=\n\
             _flags_aftr_isp=\n_flags_peer_isp=\n_flags_user_isp=\n_resynced_percent=\n",
        ),
        Some(state) => text.push_str(&format!(
            "_cstate={}\n_role={}\n_peer={}\n_disk={}\n_pdsk={}\n\n\
             _flags_susp={}\n_flags_aftr_isp={}\n_flags_peer_isp={}\n_flags_user_isp={}\n\n\
             _resynced_percent={}\n",
            state.conn,
            state.role,
            state.peer,
            state.disk,
            state.pdsk,
            set(state.is_suspended()),
            set(state.aftr_isp),
            set(state.peer_isp),
            set(state.user_isp),
            resynced_percent(message).unwrap_or_default()
        )),
    }
    text.push_str("\n_sh_status_process\n\n\n");
    text
}

fn set(flag: bool) -> &'static str {
    if flag {
        "1"
    } else {
        ""
    }
}

/// How far a resync is, in percent with one digit after the point.
pub fn resynced_percent(message: &Message) -> Option<String> {
    let info = message.settings::<StateInfo>()?;
    let total = info.bits_resync_total;
    let left = info
        .bits_out_of_sync
        .saturating_sub(info.bits_resync_failed);
    let done = u128::from(total.saturating_sub(left));
    let permille = done.saturating_mul(1000).checked_div(total.into())?;
    Some(format!("{}.{}", permille / 10, permille % 10))
}

/// Notes the size of the backing device, so that its metadata are found after it was resized.
pub fn check_resize(call: &Call<'_>) -> Outcome {
    let minor = call.minor()?;
    let message = status(call)?;
    let Some(disk) = message.settings::<DiskConf>() else {
        return Ok(());
    };
    let is_internal = [META_INDEX_INTERNAL, META_INDEX_FIXED_INTERNAL];
    if !is_internal.contains(&disk.meta_dev_idx) {
        return Ok(());
    }
    let path = disk.backing_dev.to_string();
    let size = File::open(&path).and_then(|mut file| file.seek(SeekFrom::End(0)));
    let size = size.map_err(|error| {
        let text = format!("Can not open device '{path}': {}", host::reason(&error));
        Failure::new(20, text)
    })?;
    let uuid = Note::read(minor).map_or(0, |note| note.uuid);
    Note { size, path, uuid }.write(minor);
    Ok(())
}
