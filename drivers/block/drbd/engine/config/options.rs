// SPDX-License-Identifier: GPL-2.0

//! What an admin configures: resource, disk and net options (spec §3.3).

use super::choice::{
    AfterSplitBrain, Fencing, OnCongestion, OnIoError, OnNoData, Protocol, ReadBalancing,
};
use super::field::{settings, Field};
use super::text::Text;

/// Longest path of a device, without NUL.
pub const PATH_LENGTH_MAX: usize = 127;
/// Longest name of an algorithm and longest shared secret, without NUL.
pub const NAME_LENGTH_MAX: usize = 63;
/// Longest cpu mask, without NUL.
pub const CPU_MASK_LENGTH_MAX: usize = 31;
/// `meta-disk internal` in the format of DRBD 8.4.
pub const META_INDEX_INTERNAL: i32 = -3;
/// `meta-disk flexible`: the whole of an external device.
pub const META_INDEX_FLEX_EXTERNAL: i32 = -2;
/// `meta-disk internal` in the fixed format of DRBD 0.7.
pub const META_INDEX_FIXED_INTERNAL: i32 = -1;
/// Largest minor number.
pub const MINOR_MAX: u32 = (1 << 20) - 1;
/// Largest volume number.
pub const VOLUME_MAX: u16 = 65534;
/// Smallest activity log, in extents.
pub const ACTIVITY_LOG_EXTENTS_MIN: u32 = 67;
/// Largest activity log, in extents.
pub const ACTIVITY_LOG_EXTENTS_MAX: u32 = 65534;

const RATE_MAX: u32 = 4 << 20;
const SECONDS_MAX: u32 = 120;
const DECISECONDS: &str = "1/10 seconds";

settings! {
    /// Options of a resource as a whole.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    ResourceOptions(4) {
        /// CPUs the resource's threads may run on, a hexadecimal mask; empty for no restriction.
        1 cpu_mask: Text<CPU_MASK_LENGTH_MAX> = Text::EMPTY,
            Field::text("cpu-mask", CPU_MASK_LENGTH_MAX);
        /// What a Primary without access to current data does with requests.
        2 on_no_data: OnNoData = OnNoData::IoError,
            Field::choice("on-no-data-accessible", &[Some("io-error"), Some("suspend-io")]);
    }
}

settings! {
    /// Options of one volume's backing device.
    #[derive(Clone, Debug, PartialEq, Eq)]
    DiskConf(3) {
        /// The backing device that holds the data.
        1 backing_dev: Text<PATH_LENGTH_MAX> = Text::EMPTY,
            Field::text("backing-dev", PATH_LENGTH_MAX).required().invariant().argument();
        /// The device that holds the metadata.
        2 meta_dev: Text<PATH_LENGTH_MAX> = Text::EMPTY,
            Field::text("meta-dev", PATH_LENGTH_MAX).required().invariant().argument();
        /// Where on it: an index, or internal, or flexible.
        3 meta_dev_idx: i32 = 0,
            Field::i32("meta-dev-idx", META_INDEX_INTERNAL, i32::MAX)
                .required().invariant().argument();
        /// Size of the device if it shall be smaller than the backing device allows.
        4 disk_size: u64 = 0,
            Field::u64("size", 0, 1 << 41).sectors().unit("bytes").invariant();
        /// Most segments in a request to the backing device; kept for old configurations.
        5 max_bio_bvecs: u32 = 0, Field::u32("max-bio-bvecs", 0, 128).invariant();
        /// What an error of the backing device does.
        6 on_io_error: OnIoError = OnIoError::Detach,
            Field::choice("on-io-error",
                &[Some("pass_on"), Some("call-local-io-error"), Some("detach")]);
        /// Whether a Primary that lost its peer fences it.
        7 fencing: Fencing = Fencing::DontCare,
            Field::choice("fencing",
                &[Some("dont-care"), Some("resource-only"), Some("resource-and-stonith")]);
        /// Fixed resync speed if c-plan-ahead is 0, and the speed to start with otherwise.
        8 resync_rate: u32 = 250,
            Field::u32("resync-rate", 1, RATE_MAX).kibi().unit("bytes/second");
        /// Resync only after the resync of this minor; -1 for no dependency.
        9 resync_after: i32 = -1, Field::i32("resync-after", -1, 1_048_575);
        /// Size of the activity log: how many 4 MiB extents may be written to at a time.
        10 al_extents: u32 = 1237,
            Field::u32("al-extents", ACTIVITY_LOG_EXTENTS_MIN, ACTIVITY_LOG_EXTENTS_MAX);
        /// How far the resync speed controller plans ahead; 0 for a fixed speed.
        11 c_plan_ahead: u32 = 20, Field::u32("c-plan-ahead", 0, 300).unit(DECISECONDS);
        /// Delay that the controller aims for if c-fill-target is 0.
        12 c_delay_target: u32 = 10, Field::u32("c-delay-target", 1, 100).unit(DECISECONDS);
        /// Resync data in flight that the controller aims for.
        13 c_fill_target: u32 = 100,
            Field::u32("c-fill-target", 0, 1 << 20).sectors().unit("bytes");
        /// Highest resync speed.
        14 c_max_rate: u32 = 102_400,
            Field::u32("c-max-rate", 250, RATE_MAX).kibi().unit("bytes/second");
        /// Resync speed that is kept up while applications do I/O.
        15 c_min_rate: u32 = 250, Field::u32("c-min-rate", 0, RATE_MAX).kibi().unit("bytes/second");
        /// Order writes with barriers; kept for old configurations.
        16 disk_barrier: bool = false, Field::flag("disk-barrier");
        /// Order writes with flushes.
        17 disk_flushes: bool = true, Field::flag("disk-flushes");
        /// Order writes by waiting for those before.
        18 disk_drain: bool = true, Field::flag("disk-drain");
        /// Flush the metadata device after metadata writes.
        19 md_flushes: bool = true, Field::flag("md-flushes");
        /// Detach if the backing device does not complete a request in this time; 0 for never.
        20 disk_timeout: u32 = 0, Field::u32("disk-timeout", 0, 6000).unit(DECISECONDS);
        /// Which node serves reads.
        21 read_balancing: ReadBalancing = ReadBalancing::PreferLocal,
            Field::choice("read-balancing", &[
                Some("prefer-local"), Some("prefer-remote"), Some("round-robin"),
                Some("least-pending"), Some("when-congested-remote"), Some("32K-striping"),
                Some("64K-striping"), Some("128K-striping"), Some("256K-striping"),
                Some("512K-striping"), Some("1M-striping"),
            ]);
        /// Whether the activity log is kept; without it a crashed Primary resyncs in full.
        23 al_updates: bool = true, Field::flag("al-updates");
        /// Whether discards of aligned ranges are taken to read back as zeroes.
        24 discard_zeroes_if_aligned: bool = true, Field::flag("discard-zeroes-if-aligned");
        /// Discard instead of copying runs of zeroes of this size in a resync; 0 for never.
        25 rs_discard_granularity: u32 = 0,
            Field::u32("rs-discard-granularity", 0, 1 << 20);
        /// Never pass on write-same; kept for old configurations.
        26 disable_write_same: bool = false, Field::flag("disable-write-same");
    }
}

settings! {
    /// Options of a connection.
    #[derive(Clone, Debug, PartialEq, Eq)]
    NetConf(5) {
        /// Secret that both nodes prove to know, if cram-hmac-alg is set.
        1 shared_secret: Text<NAME_LENGTH_MAX> = Text::EMPTY,
            Field::text("shared-secret", NAME_LENGTH_MAX).secret();
        /// Digest for peer authentication; empty for none.
        2 cram_hmac_alg: Text<NAME_LENGTH_MAX> = Text::EMPTY,
            Field::text("cram-hmac-alg", NAME_LENGTH_MAX);
        /// Digest sent with every data block; empty for none.
        3 integrity_alg: Text<NAME_LENGTH_MAX> = Text::EMPTY,
            Field::text("data-integrity-alg", NAME_LENGTH_MAX);
        /// Digest for online verify; empty for no online verify.
        4 verify_alg: Text<NAME_LENGTH_MAX> = Text::EMPTY,
            Field::text("verify-alg", NAME_LENGTH_MAX);
        /// Digest for resyncs that send only what differs; empty for none.
        5 csums_alg: Text<NAME_LENGTH_MAX> = Text::EMPTY, Field::text("csums-alg", NAME_LENGTH_MAX);
        /// When a write is reported as done.
        6 wire_protocol: Protocol = Protocol::C,
            Field::choice("protocol", &[None, Some("A"), Some("B"), Some("C")]);
        /// Pause between attempts to connect.
        7 connect_int: u32 = 10, Field::u32("connect-int", 1, SECONDS_MAX).unit("seconds");
        /// How long the peer may take for an answer, times ko-count for a write.
        8 timeout: u32 = 60, Field::u32("timeout", 1, 600).unit(DECISECONDS);
        /// Pause between pings on an idle connection.
        9 ping_int: u32 = 10, Field::u32("ping-int", 1, SECONDS_MAX).unit("seconds");
        /// How long the answer to a ping may take.
        10 ping_timeo: u32 = 5, Field::u32("ping-timeout", 1, 300).unit(DECISECONDS);
        /// Size of the socket's send buffer; 0 for the kernel's choice.
        11 sndbuf_size: u32 = 0, Field::u32("sndbuf-size", 0, 10 << 20).unit("bytes");
        /// Size of the socket's receive buffer; 0 for the kernel's choice.
        12 rcvbuf_size: u32 = 0, Field::u32("rcvbuf-size", 0, 10 << 20).unit("bytes");
        /// How many timeouts a write may take before the peer is given up; 0 for never.
        13 ko_count: u32 = 7, Field::u32("ko-count", 0, 200);
        /// Most pages for data received from the peer.
        14 max_buffers: u32 = 2048, Field::u32("max-buffers", 32, 131_072);
        /// Most writes between two write barriers.
        15 max_epoch_size: u32 = 2048, Field::u32("max-epoch-size", 1, 20_000);
        /// Pending requests at which the backing device is told to start; kept for old
        /// configurations.
        16 unplug_watermark: u32 = 128, Field::u32("unplug-watermark", 1, 131_072);
        /// How a split brain is solved if no node is Primary.
        17 after_sb_0p: AfterSplitBrain = AfterSplitBrain::Disconnect,
            Field::choice("after-sb-0pri", &[
                Some("disconnect"), Some("discard-younger-primary"), Some("discard-older-primary"),
                Some("discard-zero-changes"), Some("discard-least-changes"), Some("discard-local"),
                Some("discard-remote"),
            ]);
        /// How a split brain is solved if one node is Primary.
        18 after_sb_1p: AfterSplitBrain = AfterSplitBrain::Disconnect,
            Field::choice("after-sb-1pri", &[
                Some("disconnect"), None, None, None, None, None, None, Some("consensus"),
                Some("discard-secondary"), Some("call-pri-lost-after-sb"), Some("violently-as0p"),
            ]);
        /// How a split brain is solved if both nodes are Primary.
        19 after_sb_2p: AfterSplitBrain = AfterSplitBrain::Disconnect,
            Field::choice("after-sb-2pri", &[
                Some("disconnect"), None, None, None, None, None, None, None, None,
                Some("call-pri-lost-after-sb"), Some("violently-as0p"),
            ]);
        /// What happens if a Primary would have to become the target of a resync.
        20 rr_conflict: AfterSplitBrain = AfterSplitBrain::Disconnect,
            Field::choice("rr-conflict", &[
                Some("disconnect"), None, None, None, None, None, None, None, None,
                Some("call-pri-lost"), Some("violently"),
            ]);
        /// What a full send queue does under protocol A.
        21 on_congestion: OnCongestion = OnCongestion::Block,
            Field::choice("on-congestion",
                &[Some("block"), Some("pull-ahead"), Some("disconnect")]);
        /// Data in flight that counts as congestion; 0 for no limit.
        22 cong_fill: u32 = 0, Field::u32("congestion-fill", 0, 20_971_520).sectors().unit("bytes");
        /// Active extents that count as congestion.
        23 cong_extents: u32 = 1237,
            Field::u32("congestion-extents", ACTIVITY_LOG_EXTENTS_MIN, ACTIVITY_LOG_EXTENTS_MAX);
        /// Whether both nodes may be Primary at a time; needs protocol C.
        24 two_primaries: bool = false, Field::flag("allow-two-primaries");
        /// Give up this node's changes if the next handshake finds a split brain.
        25 discard_my_data: bool = false, Field::flag("discard-my-data").invariant().argument();
        /// Hold small packets back until there is more to send.
        26 tcp_cork: bool = true, Field::flag("tcp-cork");
        /// Apply the after-split-brain policies also if the nodes' data are unrelated.
        27 always_asbp: bool = false, Field::flag("always-asbp");
        /// Only find out what a connection would do, then disconnect.
        28 tentative: bool = false, Field::flag("tentative").invariant().argument();
        /// Compress the bitmap when it is exchanged.
        29 use_rle: bool = true, Field::flag("use-rle");
        /// Use csums-alg only for the resync after a crash of the Primary.
        33 csums_after_crash_only: bool = false, Field::flag("csums-after-crash-only");
        /// How long the check for a stale connection waits for its ping; 0 for ping-timeout.
        34 sock_check_timeo: u32 = 0, Field::u32("socket-check-timeout", 0, 300);
    }
}
