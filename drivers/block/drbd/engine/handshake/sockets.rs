// SPDX-License-Identifier: GPL-2.0

//! How two nodes that call each other at once end up with one pair of sockets (Spec §1.3).
//!
//! Both nodes listen and both call. The first packet of a socket says what it is for. When calls
//! cross, each side drops its own and takes the incoming one, and a coin keeps them from crossing
//! for ever. Whoever accepted the meta socket resolves conflicts of concurrent writes.
//!
//! The shell owns the sockets: two slots, data and meta, and the newcomer an event is about. It
//! does what [`Step`] says and comes back with the next event.

use crate::wire::{Command, Header};

/// What the first packet of an accepted socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// P_INITIAL_DATA.
    Data,
    /// P_INITIAL_META.
    Meta,
    /// Something else, or nothing in time.
    Garbage,
}

impl FirstPacket {
    /// What the header that was received says, `None` where none was.
    pub fn of(header: Option<Header>) -> Self {
        match header.and_then(|header| Command::from_u16(header.command)) {
            Some(Command::InitialData) => Self::Data,
            Some(Command::InitialMeta) => Self::Meta,
            _ => Self::Garbage,
        }
    }
}

/// Which of the two slots hold a socket that lives.
///
/// The shell peeks at each socket without waiting: data or nothing yet is life, anything else is
/// death. It releases dead sockets before it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// The data socket is there and lives.
    pub data: bool,
    /// The meta socket is there and lives.
    pub meta: bool,
}

/// What happened to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// [`Next::Connect`] gave a socket.
    Connected,
    /// [`Next::Connect`] did not.
    NotConnected,
    /// [`Next::Accept`] gave a socket.
    Accepted {
        /// What it is for.
        first: FirstPacket,
        /// Which slots live, looked at after the packet came.
        alive: Alive,
        /// A random bit.
        coin: bool,
    },
    /// [`Next::Accept`] ended without one.
    NotAccepted,
    /// [`Next::Check`] is done.
    Checked(Alive),
}

/// What to do with the newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// There is none.
    None,
    /// Put it into the data slot and send P_INITIAL_DATA.
    CallData,
    /// Put it into the meta slot and send P_INITIAL_META.
    CallMeta,
    /// Put it into the data slot. A socket that is there is released: "initial packet S crossed".
    TakeData {
        /// Whether there is one.
        crossed: bool,
    },
    /// Put it into the meta slot. A socket that is there is released: "initial packet M crossed".
    TakeMeta {
        /// Whether there is one.
        crossed: bool,
    },
    /// Release it: "Error receiving initial packet" where it was accepted.
    Release,
}

/// What to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call the peer, for connect-int at most.
    Connect,
    /// Wait for the peer's call and its first packet, see [`accept_timeout_ms`].
    Accept,
    /// Let sock-check-timeo (or ping-timeo) pass, look whether both sockets live, and report.
    Check,
    /// Both sockets are there and live.
    Done {
        /// Whether this node resolves conflicts: it accepted the meta socket.
        resolve_conflicts: bool,
    },
}

/// What the shell does about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// First, about the newcomer.
    pub newcomer: Newcomer,
    /// Then.
    pub next: Next,
}

/// The search for a pair of sockets, one attempt to connect long.
///
/// Needs no lock: only the receiver thread runs it.
#[derive(Clone, Copy, Debug)]
pub struct SocketSetup {
    alive: Alive,
    resolve_conflicts: bool,
    /// Whether the peer's call is still to be waited for in this round.
    awaits_peer: bool,
}

impl SocketSetup {
    /// Begins without any socket.
    pub const fn new() -> (Self, Next) {
        let setup = Self {
            alive: Alive {
                data: false,
                meta: false,
            },
            resolve_conflicts: false,
            awaits_peer: true,
        };
        (setup, Next::Connect)
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event) -> Step {
        match event {
            Event::Connected => self.connected(),
            Event::NotConnected => self.called(Newcomer::None),
            Event::Accepted { first, alive, coin } => {
                self.alive = alive;
                self.accepted(first, coin)
            }
            Event::NotAccepted => self.waited(Newcomer::None),
            Event::Checked(alive) => {
                self.alive = alive;
                self.checked()
            }
        }
    }

    /// Our call came through: it is what is missing.
    fn connected(&mut self) -> Step {
        let newcomer = if !self.alive.data {
            self.alive.data = true;
            Newcomer::CallData
        } else if !self.alive.meta {
            self.alive.meta = true;
            self.resolve_conflicts = false;
            Newcomer::CallMeta
        } else {
            Newcomer::Release
        };
        self.called(newcomer)
    }

    /// The peer's call came through: it is what it says.
    fn accepted(&mut self, first: FirstPacket, coin: bool) -> Step {
        let (newcomer, is_fresh) = match first {
            FirstPacket::Data => {
                let crossed = core::mem::replace(&mut self.alive.data, true);
                (Newcomer::TakeData { crossed }, !crossed)
            }
            FirstPacket::Meta => {
                self.resolve_conflicts = true;
                let crossed = core::mem::replace(&mut self.alive.meta, true);
                (Newcomer::TakeMeta { crossed }, !crossed)
            }
            FirstPacket::Garbage => (Newcomer::Release, false),
        };
        if is_fresh || coin {
            self.waited(newcomer)
        } else {
            // Do not call this time, so that the calls do not cross again.
            Step {
                newcomer,
                next: Next::Accept,
            }
        }
    }

    /// Our call is over, well or not; the peer's is next.
    fn called(&mut self, newcomer: Newcomer) -> Step {
        self.awaits_peer = true;
        let next = if self.is_pair() {
            Next::Check
        } else {
            Next::Accept
        };
        Step { newcomer, next }
    }

    /// The wait for the peer's call is over, well or not; ours is next.
    fn waited(&mut self, newcomer: Newcomer) -> Step {
        self.awaits_peer = false;
        let next = if self.is_pair() {
            Next::Check
        } else {
            Next::Connect
        };
        Step { newcomer, next }
    }

    fn checked(&self) -> Step {
        let next = if self.is_pair() {
            Next::Done {
                resolve_conflicts: self.resolve_conflicts,
            }
        } else if self.awaits_peer {
            Next::Accept
        } else {
            Next::Connect
        };
        Step {
            newcomer: Newcomer::None,
            next,
        }
    }

    const fn is_pair(&self) -> bool {
        self.alive.data && self.alive.meta
    }
}

/// How long to wait for the peer's call: connect-int, a seventh more or less by a random bit, so
/// that two nodes fall out of step.
pub const fn accept_timeout_ms(connect_int_s: u32, coin: bool) -> u64 {
    // Lossless.
    let timeout_ms = (connect_int_s as u64).saturating_mul(1000);
    if coin {
        timeout_ms.saturating_add(timeout_ms / 7)
    } else {
        timeout_ms.saturating_sub(timeout_ms / 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Alive = Alive {
        data: false,
        meta: false,
    };
    const DATA: Alive = Alive {
        data: true,
        meta: false,
    };
    const BOTH: Alive = Alive {
        data: true,
        meta: true,
    };

    fn step(newcomer: Newcomer, next: Next) -> Step {
        Step { newcomer, next }
    }

    fn accepted(first: FirstPacket, alive: Alive, coin: bool) -> Event {
        Event::Accepted { first, alive, coin }
    }

    #[test]
    fn the_caller_of_the_data_socket_that_accepts_the_meta_socket_resolves_conflicts() {
        let (mut setup, next) = SocketSetup::new();
        assert_eq!(next, Next::Connect);
        assert_eq!(
            setup.handle(Event::Connected),
            step(Newcomer::CallData, Next::Accept)
        );
        assert_eq!(
            setup.handle(accepted(FirstPacket::Meta, DATA, true)),
            step(Newcomer::TakeMeta { crossed: false }, Next::Check)
        );
        assert_eq!(
            setup.handle(Event::Checked(BOTH)),
            step(
                Newcomer::None,
                Next::Done {
                    resolve_conflicts: true
                }
            )
        );
    }

    #[test]
    fn the_caller_of_the_meta_socket_does_not_resolve_conflicts() {
        let (mut setup, _) = SocketSetup::new();
        assert_eq!(
            setup.handle(Event::NotConnected),
            step(Newcomer::None, Next::Accept)
        );
        assert_eq!(
            setup.handle(accepted(FirstPacket::Data, NONE, false)),
            step(Newcomer::TakeData { crossed: false }, Next::Connect)
        );
        assert_eq!(
            setup.handle(Event::Connected),
            step(Newcomer::CallMeta, Next::Check)
        );
        assert_eq!(
            setup.handle(Event::Checked(BOTH)),
            step(
                Newcomer::None,
                Next::Done {
                    resolve_conflicts: false
                }
            )
        );
    }

    #[test]
    fn crossed_data_sockets_are_replaced_and_the_coin_decides_who_calls() {
        for (coin, next) in [(false, Next::Accept), (true, Next::Connect)] {
            let (mut setup, _) = SocketSetup::new();
            setup.handle(Event::Connected);
            assert_eq!(
                setup.handle(accepted(FirstPacket::Data, DATA, coin)),
                step(Newcomer::TakeData { crossed: true }, next)
            );
        }
    }

    #[test]
    fn a_socket_that_died_meanwhile_is_not_crossed() {
        let (mut setup, _) = SocketSetup::new();
        setup.handle(Event::Connected);
        assert_eq!(
            setup.handle(accepted(FirstPacket::Data, NONE, false)),
            step(Newcomer::TakeData { crossed: false }, Next::Connect)
        );
    }

    #[test]
    fn a_pair_of_which_one_died_is_completed_again() {
        let (mut setup, _) = SocketSetup::new();
        setup.handle(Event::NotConnected);
        setup.handle(accepted(FirstPacket::Data, NONE, true));
        setup.handle(Event::Connected);
        // After a call of ours the peer's is next.
        assert_eq!(
            setup.handle(Event::Checked(DATA)),
            step(Newcomer::None, Next::Accept)
        );
        assert_eq!(
            setup.handle(accepted(FirstPacket::Meta, DATA, true)),
            step(Newcomer::TakeMeta { crossed: false }, Next::Check)
        );
        // After a call of the peer's ours is next.
        assert_eq!(
            setup.handle(Event::Checked(NONE)),
            step(Newcomer::None, Next::Connect)
        );
    }

    #[test]
    fn garbage_is_released_and_the_sockets_that_live_are_kept() {
        let (mut setup, _) = SocketSetup::new();
        setup.handle(Event::Connected);
        assert_eq!(
            setup.handle(accepted(FirstPacket::Garbage, DATA, true)),
            step(Newcomer::Release, Next::Connect)
        );
        assert_eq!(
            setup.handle(Event::Connected),
            step(Newcomer::CallMeta, Next::Check)
        );
    }

    #[test]
    fn the_first_packet_is_known_by_its_command() {
        let header = |command| {
            Some(Header {
                volume: crate::types::VolumeNr(0),
                command,
                length: 0,
            })
        };
        assert_eq!(FirstPacket::of(header(0xfff2)), FirstPacket::Data);
        assert_eq!(FirstPacket::of(header(0xfff1)), FirstPacket::Meta);
        assert_eq!(FirstPacket::of(header(0x13)), FirstPacket::Garbage);
        assert_eq!(FirstPacket::of(None), FirstPacket::Garbage);
    }

    #[test]
    fn the_wait_for_a_call_varies_by_a_seventh() {
        assert_eq!(accept_timeout_ms(7, false), 6000);
        assert_eq!(accept_timeout_ms(7, true), 8000);
        assert_eq!(accept_timeout_ms(0, true), 0);
    }
}
