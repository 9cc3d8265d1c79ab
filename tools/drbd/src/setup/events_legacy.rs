// SPDX-License-Identifier: GPL-2.0

//! `events`: state changes in the form of DRBD 8.4 before `events2` (Spec §3.4 a).

use super::state::{resynced_percent, state_of};
use super::{driver_if_loaded, Call, Filter};
use crate::failure::Outcome;
use crate::netlink::message::Received;
use crate::netlink::{Message, Request};
use drbd_engine::config::command::Command;
use drbd_engine::config::info::{StateInfo, StateInfoReason};
use drbd_engine::state::State;
use std::io::{self, Write};

/// Prints the state of the devices, and what happens to them from then on.
pub fn run(call: &Call<'_>) -> Outcome {
    let filter = call.filter();
    let Some(mut driver) = driver_if_loaded()? else {
        return Ok(());
    };
    driver.subscribe()?;
    driver.send(&Request::new(Command::GetStatus).as_dump())?;
    let mut out = io::stdout().lock();
    while let Some(received) = driver.next(None)? {
        let Received::Message(message) = received else {
            continue;
        };
        if admits(&filter, &message) {
            out.write_all(lines(&message).as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

fn admits(filter: &Filter, message: &Message) -> bool {
    match filter {
        Filter::Minor(minor) => *minor == message.header().minor,
        other => other.admits_resource(&message.resource_name()),
    }
}

fn lines(message: &Message) -> String {
    let sequence = message.sequence;
    let name = message.resource_name();
    let Some(info) = message.settings::<StateInfo>() else {
        return format!("{sequence} R - {name}\n");
    };
    let volume = message.context().volume.unwrap_or(0);
    let object = format!("{},{name}[{volume}]", message.header().minor);
    let state = |word: u32| {
        State::from_word(word)
            .ok()
            .map(state_text)
            .unwrap_or_default()
    };
    let current = state_of(message).map(state_text).unwrap_or_default();
    let reason = |reason: StateInfoReason| info.reason == reason.number();
    if reason(StateInfoReason::StateChange) {
        format!(
            "{sequence} ST-prev {object} {}\n{sequence} ST-new {object} {}\n\
             {sequence} ST {object} {current}\n",
            state(info.previous_state),
            state(info.new_state)
        )
    } else if reason(StateInfoReason::HelperBefore) {
        format!("{sequence} UH {object} {}\n", info.helper)
    } else if reason(StateInfoReason::HelperAfter) {
        let exit = info.helper_exit_code;
        format!("{sequence} UH-post {object} {} 0x{exit:04x}\n", info.helper)
    } else if reason(StateInfoReason::SyncProgress) {
        let percent = resynced_percent(message).unwrap_or_default();
        format!("{sequence} SP {object} {percent}\n")
    } else {
        format!("{sequence} ST {object} {current}\n")
    }
}

fn state_text(state: State) -> String {
    let letter = |set: bool, letter: char| if set { letter } else { '-' };
    format!(
        "{{ cs:{} ro:{}/{} ds:{}/{} {}{}{}{} }}",
        state.conn,
        state.role,
        state.peer,
        state.disk,
        state.pdsk,
        if state.is_suspended() { 's' } else { 'r' },
        letter(state.aftr_isp, 'a'),
        letter(state.peer_isp, 'p'),
        letter(state.user_isp, 'u')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_in_one_line() {
        let state = State {
            user_isp: true,
            ..State::NEW
        };
        assert_eq!(
            state_text(state),
            "{ cs:StandAlone ro:Secondary/Unknown ds:Diskless/DUnknown r--u }"
        );
    }
}
