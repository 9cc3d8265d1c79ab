// SPDX-License-Identifier: GPL-2.0

//! Configuration, commands and status as the generic netlink family `drbd` carries them (spec §3).
//!
//! One table for each set of options says everything about an option: its attribute number, its
//! name in `drbd.conf`, its type, range, default and unit, and what may be done to it. The kernel
//! takes the decoder and the range checks from the table, the admin tools take option parsing,
//! `show` and help from the same table, so the two cannot disagree.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`attr`] | netlink attributes: a total reader and a bounded writer |
//! | [`text`] | strings and byte strings of bounded length, stored inline |
//! | [`field`] | the description of one option, its value, and [`field::Settings`] |
//! | [`choice`] | policies that have names |
//! | [`options`] | what an admin configures: disk, net and resource options |
//! | [`parameters`] | the parameters of single commands |
//! | [`info`] | status, statistics and notifications |
//! | [`context`] | the user header and the object that a message is about |
//! | [`shape`] | whether a request's attributes are such as its command takes |
//! | [`command`] | command numbers and the constants of the family |
//! | [`ret_code`] | return codes and their texts |

pub mod attr;
pub mod choice;
pub mod command;
pub mod context;
pub mod field;
pub mod info;
pub mod options;
pub mod parameters;
pub mod ret_code;
pub mod shape;
pub mod text;

#[cfg(test)]
mod tests;

pub use choice::{
    AfterSplitBrain, Fencing, OnCongestion, OnIoError, OnNoData, Protocol, ReadBalancing,
};
pub use context::{Context, UserHeader};
pub use field::{Field, Present, Refusal, Settings, Value};
pub use options::{DiskConf, NetConf, ResourceOptions};
pub use parameters::{
    Detach, Disconnect, NewCurrentUuid, Resize, SetRole, StartVerify, TimeoutParameters,
};
pub use ret_code::RetCode;
pub use text::{Bytes, Lossy, Text};
