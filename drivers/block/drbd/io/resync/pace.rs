// SPDX-License-Identifier: GPL-2.0

//! The pace that the options ask for.

use drbd_engine::{
    config::{
        DiskConf,
        Settings, //
    },
    resync::{
        Pace,
        Window, //
    },
    timer::TENTH_NS, //
};

/// The pace that the options ask for. Nobody who left them alone wants the narrow window of old
/// defaults.
pub(super) fn pace_of(conf: &DiskConf) -> Pace {
    let default = DiskConf::DEFAULT;
    if conf.c_plan_ahead == 0 {
        return Pace::Fixed {
            rate_kib: conf.resync_rate,
        };
    }
    let untouched = conf.c_plan_ahead == default.c_plan_ahead
        && conf.c_delay_target == default.c_delay_target
        && conf.c_fill_target == default.c_fill_target
        && conf.c_max_rate == default.c_max_rate
        && conf.resync_rate == default.resync_rate;
    if untouched {
        return Pace::Auto { max_rate_kib: None };
    }
    let window = match conf.c_fill_target {
        0 => Window::Delay {
            ns: u64::from(conf.c_delay_target).saturating_mul(TENTH_NS),
        },
        sectors => Window::Fill(sectors),
    };
    Pace::Dynamic {
        plan_ahead_ns: u64::from(conf.c_plan_ahead).saturating_mul(TENTH_NS),
        window,
        start_rate_kib: conf.resync_rate,
        max_rate_kib: conf.c_max_rate,
    }
}
