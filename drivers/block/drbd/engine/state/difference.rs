// SPDX-License-Identifier: GPL-2.0

//! The log text of a state change: `role( Secondary -> Primary ) disk( Inconsistent -> UpToDate ) `
//! (spec §14).
//!
//! Scripts grep these lines, so the spaces count: there is one after each pair, the last one too.

use core::fmt;

use super::word::State;

/// Which fields a line tells about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    role: bool,
    peer: bool,
    conn: bool,
    disk: bool,
    pdsk: bool,
    pauses: bool,
    suspension: bool,
}

impl Fields {
    /// What a volume's line tells when the change concerns that volume alone.
    pub const VOLUME: Self = Self {
        role: true,
        peer: true,
        conn: true,
        disk: true,
        pdsk: true,
        pauses: true,
        suspension: false,
    };

    /// What a connection's line tells at most: pauses belong to volumes, the suspension to the
    /// resource.
    pub const CONNECTION: Self = Self {
        pauses: false,
        suspension: true,
        ..Self::VOLUME
    };

    /// Only those fields in which two states agree.
    #[must_use]
    pub fn where_equal(self, one: State, other: State) -> Self {
        Self {
            role: self.role && one.role == other.role,
            peer: self.peer && one.peer == other.peer,
            conn: self.conn && one.conn == other.conn,
            disk: self.disk && one.disk == other.disk,
            pdsk: self.pdsk && one.pdsk == other.pdsk,
            ..self
        }
    }

    /// What is left for the volumes' lines when the connection's line tells these fields.
    #[must_use]
    pub const fn remaining(self) -> Self {
        Self {
            role: !self.role,
            peer: !self.peer,
            conn: !self.conn,
            disk: !self.disk,
            pdsk: !self.pdsk,
            pauses: true,
            suspension: false,
        }
    }
}

/// The difference of two states, ready to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    old: State,
    new: State,
    fields: Fields,
}

impl Difference {
    /// The difference that a volume's line tells.
    pub const fn of_volume(old: State, new: State) -> Self {
        Self {
            old,
            new,
            fields: Fields::VOLUME,
        }
    }

    /// The difference in the chosen fields.
    pub const fn in_fields(old: State, new: State, fields: Fields) -> Self {
        Self { old, new, fields }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        let Self { old, new, fields } = *self;
        !((fields.role && old.role != new.role)
            || (fields.peer && old.peer != new.peer)
            || (fields.conn && old.conn != new.conn)
            || (fields.disk && old.disk != new.disk)
            || (fields.pdsk && old.pdsk != new.pdsk)
            || (fields.pauses && pauses(old) != pauses(new))
            || (fields.suspension && old.is_suspended() != new.is_suspended()))
    }
}

const fn pauses(state: State) -> (bool, bool, bool) {
    (state.aftr_isp, state.peer_isp, state.user_isp)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new, fields } = *self;
        pair(f, fields.role, "role", old.role, new.role)?;
        pair(f, fields.peer, "peer", old.peer, new.peer)?;
        pair(f, fields.conn, "conn", old.conn, new.conn)?;
        pair(f, fields.disk, "disk", old.disk, new.disk)?;
        pair(f, fields.pdsk, "pdsk", old.pdsk, new.pdsk)?;
        flag(f, fields.pauses, "aftr_isp", old.aftr_isp, new.aftr_isp)?;
        flag(f, fields.pauses, "peer_isp", old.peer_isp, new.peer_isp)?;
        flag(f, fields.pauses, "user_isp", old.user_isp, new.user_isp)?;
        flag(
            f,
            fields.suspension,
            "susp",
            old.is_suspended(),
            new.is_suspended(),
        )
    }
}

fn pair<T: PartialEq + fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    told: bool,
    name: &str,
    old: T,
    new: T,
) -> fmt::Result {
    if told && old != new {
        write!(f, "{name}( {old} -> {new} ) ")?;
    }
    Ok(())
}

fn flag(f: &mut fmt::Formatter<'_>, told: bool, name: &str, old: bool, new: bool) -> fmt::Result {
    pair(f, told, name, u8::from(old), u8::from(new))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::values::{ConnState, DiskState, Role};
    use super::*;

    #[test]
    fn pairs_stand_in_order_and_end_with_a_space() {
        let old = State {
            conn: ConnState::WFReportParams,
            ..State::NEW
        };
        let new = State {
            peer: Role::Secondary,
            conn: ConnState::Connected,
            pdsk: DiskState::UpToDate,
            ..old
        };
        assert_eq!(
            Difference::of_volume(old, new).to_string(),
            "peer( Unknown -> Secondary ) conn( WFReportParams -> Connected ) \
             pdsk( DUnknown -> UpToDate ) "
        );
    }

    #[test]
    fn a_pause_is_told_by_its_flag() {
        let new = State {
            user_isp: true,
            ..State::NEW
        };
        assert_eq!(
            Difference::of_volume(State::NEW, new).to_string(),
            "user_isp( 0 -> 1 ) "
        );
    }

    #[test]
    fn the_suspension_is_told_for_the_connection_only() {
        let new = State {
            susp_fen: true,
            ..State::NEW
        };
        let told = Difference::in_fields(State::NEW, new, Fields::CONNECTION);
        assert_eq!(told.to_string(), "susp( 0 -> 1 ) ");
        assert!(Difference::of_volume(State::NEW, new).is_empty());
    }

    #[test]
    fn a_field_that_the_connection_tells_is_not_told_again() {
        let new = State {
            conn: ConnState::Unconnected,
            role: Role::Primary,
            ..State::NEW
        };
        let other = State {
            role: Role::Secondary,
            ..new
        };
        let common = Fields::CONNECTION.where_equal(new, other);
        assert_eq!(
            Difference::in_fields(State::NEW, new, common).to_string(),
            "conn( StandAlone -> Unconnected ) "
        );
        assert_eq!(
            Difference::in_fields(State::NEW, new, common.remaining()).to_string(),
            "role( Secondary -> Primary ) "
        );
    }
}
