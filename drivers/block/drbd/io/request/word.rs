// SPDX-License-Identifier: GPL-2.0

//! The word that a request's progress is kept in, and the steps in which it is changed.
//!
//! Nothing here knows what a request is: `tests/model` runs this very file through the orders in
//! which several processors may take these steps.

use drbd_engine::request::{
    apply,
    enter,
    settle,
    Consequences,
    Context,
    Event,
    RequestState, //
};
use drbd_sys::bits::AtomicBits32;

/// The request that the word is of, as long as it lives.
pub(crate) trait Life {
    /// What the engine needs to know beside the word, at this moment.
    fn context(&self) -> Context;

    /// Does what a change of the word asked for, in the engine's order, up to the release.
    fn carry_out(&self, new: RequestState, todo: Consequences);

    /// Ends the life: the word may begin another one at once.
    fn release(&self);
}

/// The progress of one request.
pub(crate) struct Word(AtomicBits32);

impl Word {
    /// No request.
    pub(crate) fn new() -> Self {
        Self(AtomicBits32::new(RequestState::RELEASED.0))
    }

    /// A request begins. What it consists of is known to who finds it from here on.
    pub(crate) fn begin(&self, state: RequestState) {
        self.0.store(state.0);
    }

    /// Where it is. Any context.
    pub(crate) fn state(&self) -> RequestState {
        RequestState(self.0.load())
    }

    /// Moves the request along, by who has a part of it or its answer or has entered, and carries
    /// out what follows. Any context that `life` allows.
    ///
    /// Returns whether the peer may say so: `false` costs the connection.
    pub(crate) fn happens(&self, life: &impl Life, event: Event) -> bool {
        let (new, todo) = self.step(life, event);
        if todo.has(Consequences::SETTLE) {
            if new.is_held_back() && !life.context().suspended {
                // I/O went on between the look at it and the change of the word: who resumed it may
                // not have seen that this one is held back.
                let (_, more) = self.step(life, Event::Resumed);
                if more.has(Consequences::SETTLE) {
                    self.settle(life);
                }
            }
            self.settle(life);
        }
        !todo.has(Consequences::PROTOCOL_ERROR)
    }

    /// Keeps the request, if there is one, for who has no part of it: until [`Self::settle`].
    pub(crate) fn enter(&self) -> bool {
        let kept = |word| enter(RequestState(word)).map(|state| state.0);
        self.0.try_update(kept).is_ok()
    }

    /// Reports that what somebody had to do is done.
    pub(crate) fn settle(&self, life: &impl Life) {
        let mut is_last = false;
        self.0.update(|word| {
            let (new, releases) = settle(RequestState(word));
            is_last = releases;
            new.0
        });
        if is_last {
            life.release();
        }
    }

    fn step(&self, life: &impl Life, event: Event) -> (RequestState, Consequences) {
        let mut outcome = (RequestState::RELEASED, Consequences::NONE);
        self.0.update(|word| {
            outcome = apply(RequestState(word), event, life.context());
            outcome.0 .0
        });
        let (new, todo) = outcome;
        if !todo.is_none() {
            life.carry_out(new, todo);
        }
        if todo.has(Consequences::RELEASE) {
            life.release();
        }
        outcome
    }
}
