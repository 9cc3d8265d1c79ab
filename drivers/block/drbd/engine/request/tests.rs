// SPDX-License-Identifier: GPL-2.0

//! Tests of the request's life, route and disk errors.

mod interleavings;
mod life;
mod route;
