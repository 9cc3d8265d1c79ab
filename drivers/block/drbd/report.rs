// SPDX-License-Identifier: GPL-2.0

//! What the module shows of itself in file systems of the kernel.

pub(crate) mod proc;
