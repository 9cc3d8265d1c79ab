// SPDX-License-Identifier: GPL-2.0

//! The bitmap against a vector of booleans, and its transfer between two nodes.
