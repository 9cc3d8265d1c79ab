// SPDX-License-Identifier: GPL-2.0

//! The activity log against a naive model, and its life on a simulated disk.
