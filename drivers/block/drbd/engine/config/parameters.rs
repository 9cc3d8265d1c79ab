// SPDX-License-Identifier: GPL-2.0

//! The parameters of single commands (spec §3.3).

use super::field::{settings, Field};

settings! {
    /// Parameters of PRIMARY and SECONDARY.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    SetRole(6) {
        /// Become Primary even if the data may be outdated.
        1 force: bool = false, Field::flag("force");
    }
}

settings! {
    /// Parameters of RESIZE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    Resize(7) {
        /// The new size; 0 for as large as possible.
        1 size: u64 = 0, Field::u64("size", 0, 1 << 41).sectors().unit("bytes");
        /// Resize without the peer's consent.
        2 force: bool = false, Field::flag("assume-peer-has-space");
        /// Do not resync the new space.
        3 no_resync: bool = false, Field::flag("assume-clean");
        /// Stripes of the activity log on disk.
        4 al_stripes: u32 = 1, Field::u32("al-stripes", 1, 1024);
        /// Size of a stripe of the activity log on disk.
        5 al_stripe_size_kib: u32 = 32,
            Field::u32("al-stripe-size-kB", 4, 16_777_216).kibi().unit("bytes");
    }
}

settings! {
    /// Parameters of START_OV, the online verify.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    StartVerify(9) {
        /// Where to start; if absent, where the last verify stopped.
        1 start: u64 = 0, Field::u64("start", 0, u64::MAX).sectors().unit("bytes");
        /// Where to stop; if absent, at the end of the device.
        2 stop: u64 = u64::MAX, Field::u64("stop", 0, u64::MAX).sectors().unit("bytes");
    }
}

settings! {
    /// Parameters of NEW_C_UUID.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    NewCurrentUuid(10) {
        /// Clear the bitmap as well: declare both nodes' data to be the same.
        1 clear_bitmap: bool = false, Field::flag("clear-bitmap");
    }
}

settings! {
    /// Reply to GET_TIMEOUT_TYPE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    TimeoutParameters(11) {
        /// Which timeout applies to waiting for the connection: 0 default, 1 degraded, 2 peer
        /// outdated.
        1 kind: u32 = 0, Field::u32("timeout-type", 0, 2);
    }
}

settings! {
    /// Parameters of DISCONNECT.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    Disconnect(12) {
        /// Disconnect without the peer's consent.
        1 force: bool = false, Field::flag("force");
    }
}

settings! {
    /// Parameters of DETACH.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    Detach(13) {
        /// Do not wait for requests that the backing device does not complete.
        1 force: bool = false, Field::flag("force");
    }
}
