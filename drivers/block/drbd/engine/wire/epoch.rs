// SPDX-License-Identifier: GPL-2.0

//! Payloads of epochs, p_barrier and p_barrier_ack, and the delay probe that nobody sends
//! (Spec §1.8, §1.17).

use zerocopy::big_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// Names an epoch: four bytes that only their sender understands, echoed verbatim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct BarrierCookie(pub [u8; 4]);

/// p_barrier: closes an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The epoch that ends here.
    pub cookie: BarrierCookie,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct BarrierLayout {
    cookie: BarrierCookie,
    /// The C driver leaves stale bytes here.
    pad: U32,
}

impl From<BarrierLayout> for Barrier {
    fn from(layout: BarrierLayout) -> Self {
        Self {
            cookie: layout.cookie,
        }
    }
}

impl From<Barrier> for BarrierLayout {
    fn from(barrier: Barrier) -> Self {
        Self {
            cookie: barrier.cookie,
            pad: U32::ZERO,
        }
    }
}

fixed_payload!(Barrier, BarrierLayout, 8);

/// p_barrier_ack: all writes of an epoch are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierAck {
    /// The epoch, echoed.
    pub cookie: BarrierCookie,
    /// Number of writes that were received in it.
    pub set_size: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct BarrierAckLayout {
    cookie: BarrierCookie,
    set_size: U32,
}

impl From<BarrierAckLayout> for BarrierAck {
    fn from(layout: BarrierAckLayout) -> Self {
        Self {
            cookie: layout.cookie,
            set_size: layout.set_size.get(),
        }
    }
}

impl From<BarrierAck> for BarrierAckLayout {
    fn from(ack: BarrierAck) -> Self {
        Self {
            cookie: ack.cookie,
            set_size: ack.set_size.into(),
        }
    }
}

fixed_payload!(BarrierAck, BarrierAckLayout, 8);

/// p_delay_probe93: received and ignored on both sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayProbe {
    /// The number that pairs the probes of the two sockets.
    pub seq_num: u32,
    /// When it was sent, in microseconds.
    pub offset_us: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DelayProbeLayout {
    seq_num: U32,
    offset_us: U32,
}

impl From<DelayProbeLayout> for DelayProbe {
    fn from(layout: DelayProbeLayout) -> Self {
        Self {
            seq_num: layout.seq_num.get(),
            offset_us: layout.offset_us.get(),
        }
    }
}

impl From<DelayProbe> for DelayProbeLayout {
    fn from(probe: DelayProbe) -> Self {
        Self {
            seq_num: probe.seq_num.into(),
            offset_us: probe.offset_us.into(),
        }
    }
}

fixed_payload!(DelayProbe, DelayProbeLayout, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epochs_cookie_is_echoed_byte_for_byte() {
        let barrier = Barrier::decode(&[0x12, 0x34, 0, 0xff, 9, 9, 9, 9]).unwrap();
        let ack = BarrierAck {
            cookie: barrier.cookie,
            set_size: 37,
        };
        assert_eq!(ack.encode(), [0x12, 0x34, 0, 0xff, 0, 0, 0, 37]);
        assert_eq!(barrier.encode(), [0x12, 0x34, 0, 0xff, 0, 0, 0, 0]);
    }
}
