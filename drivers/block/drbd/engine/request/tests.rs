// SPDX-License-Identifier: GPL-2.0

//! Tests of the request's life, route and disk errors.

mod interleavings;
mod life;
mod route;

use super::{Consequences, Context, Event, RequestState};

/// What happens where nobody else has anything to carry out at the same time.
fn apply(state: RequestState, event: Event, context: Context) -> (RequestState, Consequences) {
    let (state, todo) = super::apply(state, event, context);
    if !todo.has(Consequences::SETTLE) {
        return (state, todo);
    }
    let (state, is_last) = super::settle(state);
    assert!(!is_last, "it could have been released at once");
    (state, todo)
}
