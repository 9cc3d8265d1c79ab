// SPDX-License-Identifier: GPL-2.0

//! Policies that have names in `drbd.conf` and numbers in netlink messages (spec §1.15, §3.3).

/// Declares an enum with its numbers; the names are in the option tables, because two options may
/// share a policy under different names.
macro_rules! choice {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)+
        }

        impl $name {
            /// The policy with this number, if there is one.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The policy's number.
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)+
                }
            }
        }
    };
}

choice! {
    /// What an error of the backing device does.
    OnIoError {
        /// Report the error to the application (and, on the secondary, to the peer).
        PassOn = 0,
        /// Call the handler `local-io-error`, then detach.
        CallLocalIoError = 1,
        /// Detach and go on with the peer's data.
        Detach = 2,
    }
}

choice! {
    /// Whether a Primary that lost its peer fences it.
    Fencing {
        /// No fencing.
        DontCare = 0,
        /// Call the handler `fence-peer`.
        ResourceOnly = 1,
        /// Freeze I/O until the handler `fence-peer` succeeded.
        ResourceAndStonith = 2,
    }
}

choice! {
    /// When a write is reported as done.
    Protocol {
        /// On the local disk and in the send buffer.
        A = 1,
        /// On the local disk and in the peer's memory.
        B = 2,
        /// On both disks.
        C = 3,
    }
}

choice! {
    /// How a split brain, or conflicting roles after a resync decision, are solved.
    AfterSplitBrain {
        /// Not at all: stay disconnected.
        Disconnect = 0,
        /// Take the data of the node that was Primary before.
        DiscardYoungerPrimary = 1,
        /// Take the data of the node that became Primary last.
        DiscardOlderPrimary = 2,
        /// Take the data of the node that changed anything, if one changed nothing.
        DiscardZeroChanges = 3,
        /// Take the data of the node that changed more.
        DiscardLeastChanges = 4,
        /// Give up this node's changes.
        DiscardLocal = 5,
        /// Give up the peer's changes.
        DiscardRemote = 6,
        /// Follow the policy for no Primary if the Secondary is its victim.
        Consensus = 7,
        /// Give up the Secondary's changes.
        DiscardSecondary = 8,
        /// Call the handler if the Primary would be the victim.
        CallHelper = 9,
        /// Follow the policy for no Primary whoever the victim is.
        Violently = 10,
    }
}

choice! {
    /// What a node does when it has no access to current data.
    OnNoData {
        /// Fail the request.
        IoError = 0,
        /// Freeze I/O until there is data again.
        SuspendIo = 1,
    }
}

choice! {
    /// What a full send queue does under protocol A.
    OnCongestion {
        /// Writers wait.
        Block = 0,
        /// Stop mirroring and resync later (Ahead/Behind).
        PullAhead = 1,
        /// Disconnect.
        Disconnect = 2,
    }
}

choice! {
    /// Which node serves a read.
    ReadBalancing {
        /// This node.
        PreferLocal = 0,
        /// The peer.
        PreferRemote = 1,
        /// In turns.
        RoundRobin = 2,
        /// The one with fewer requests in flight.
        LeastPending = 3,
        /// The peer if the local backing device is congested.
        WhenCongestedRemote = 4,
        /// In turns by the offset, stripes of 32 KiB.
        Striping32K = 5,
        /// In turns by the offset, stripes of 64 KiB.
        Striping64K = 6,
        /// In turns by the offset, stripes of 128 KiB.
        Striping128K = 7,
        /// In turns by the offset, stripes of 256 KiB.
        Striping256K = 8,
        /// In turns by the offset, stripes of 512 KiB.
        Striping512K = 9,
        /// In turns by the offset, stripes of 1 MiB.
        Striping1M = 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_back_to_itself_and_no_other_is_known() {
        for number in 0..=10 {
            assert_eq!(
                AfterSplitBrain::from_number(number).unwrap().number(),
                number
            );
            assert_eq!(ReadBalancing::from_number(number).unwrap().number(), number);
        }
        assert_eq!(AfterSplitBrain::from_number(11), None);
        assert_eq!(Protocol::from_number(0), None);
        assert_eq!(Protocol::from_number(1), Some(Protocol::A));
    }
}
