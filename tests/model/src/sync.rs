// SPDX-License-Identifier: GPL-2.0

//! What `kernel::sync` has, as far as it is used.

pub mod atomic;
