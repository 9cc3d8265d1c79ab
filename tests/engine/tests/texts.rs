// SPDX-License-Identifier: GPL-2.0

//! What an admin reads when something is refused, and the numbers that scripts act upon (Spec §3.7,
//! §8). The C driver has most of these texts; monitoring knows them.

use drbd_engine::config::field::{Field, Kind, Reason, Refusal, Scale, Value};
use drbd_engine::config::info::NotificationKind;
use drbd_engine::config::RetCode;
use drbd_engine::epoch::WriteOrdering;
use drbd_engine::handshake::auth::{AuthError, AwaitChallenge};
use drbd_engine::handshake::sizes::SizesError;
use drbd_engine::handshake::split_brain::Remark;
use drbd_engine::handshake::sync_decision::LogLine;
use drbd_engine::meta::MetaError;
use drbd_engine::state::resync::Side;
use drbd_engine::state::{Fencing, OnNoData, StateError, Success, Warning};
use drbd_engine::types::Sector;
use drbd_engine::wire::{
    AlgorithmName, Features, HeaderError, PayloadError, RequestError, Version,
};

#[test]
fn metadata_that_cannot_be_used_are_told_with_what_was_found_and_their_code() {
    let cases = [
        (MetaError::Io, 118, "metadata super block cannot be read"),
        (
            MetaError::Version07,
            119,
            "found v07 metadata, please convert it with create-md first",
        ),
        (
            MetaError::Magic(0x1234),
            119,
            "metadata magic not found: 0x00001234, did you create-md?",
        ),
        (
            MetaError::Unclean,
            165,
            "found unclean metadata, did you apply-al? (drbdadm apply-al)",
        ),
        (
            MetaError::BytesPerBit(512),
            119,
            "unexpected bm_bytes_per_bit: 512, want 4096",
        ),
        (
            MetaError::Stripes {
                count: 0,
                blocks: 8,
            },
            119,
            "invalid activity log: 0 stripes of 8 blocks",
        ),
        (
            MetaError::ActivityLogOffset(-7),
            119,
            "unexpected al_offset: -7",
        ),
        (MetaError::BitmapOffset(9), 119, "unexpected bm_offset: 9"),
        (
            MetaError::AreaSize(3),
            119,
            "unexpected metadata size: 3 sectors",
        ),
        (
            MetaError::BitmapTooSmall { have: 1, need: 2 },
            119,
            "bitmap too small: 1 sectors, the data need 2",
        ),
        (
            MetaError::DeviceTooSmall { have: 8, need: 72 },
            112,
            "metadata device too small: 8 sectors, at least 72 needed",
        ),
        (
            MetaError::DeviceTooLarge(5),
            119,
            "device too large: 5 sectors",
        ),
    ];
    for (error, code, text) in cases {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.return_code(), code, "{text}");
    }
}

#[test]
fn a_peer_that_is_not_authentic_is_told_with_what_it_sent() {
    let cases = [
        (
            AuthError::NoChallenge { found: 0x0b },
            "expected AuthChallenge packet, received: ReportProtocol (0x000b)",
        ),
        (
            AuthError::NoResponse { found: 0x10 },
            "expected AuthResponse packet, received: AuthChallenge (0x0010)",
        ),
        (
            AuthError::ChallengeTooBig,
            "expected AuthChallenge payload too big.",
        ),
        (
            AuthError::ChallengeTooSmall,
            "AuthChallenge payload too small.",
        ),
        (AuthError::Reflected, "Peer presented the same challenge!"),
        (
            AuthError::ResponseSize,
            "expected AuthResponse payload of wrong size",
        ),
        (AuthError::Mismatch, "Authentication of peer failed"),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
    let random = core::array::from_fn(|index| index as u8);
    assert_eq!(AwaitChallenge::new(random).challenge(), &random);
}

#[test]
fn bytes_that_are_no_packet_are_told_with_what_was_found() {
    let header = HeaderError::Magic {
        found: 0xdead_beef,
        version: Version::MAX,
    };
    assert_eq!(
        header.to_string(),
        "Wrong magic value 0xdeadbeef in protocol version 101"
    );
    assert_eq!(
        HeaderError::Length { found: 3 }.to_string(),
        "Header of 3 bytes"
    );
    assert_eq!(HeaderError::Pad.to_string(), "Header padding is not zero");
    let length = PayloadError::Length {
        expected: 24,
        found: 15,
    };
    assert_eq!(
        length.to_string(),
        "unexpected packet size, expected:24 received:15"
    );
    assert_eq!(
        PayloadError::Name.to_string(),
        "algorithm name is not terminated"
    );
    assert_eq!(
        PayloadError::Encoding(0x41).to_string(),
        "unknown bitmap encoding 0x41"
    );
    let sector = Sector(100);
    assert_eq!(
        RequestError::Size { sector, size: 7 }.to_string(),
        "sector: 100s, size: 7"
    );
    let beyond = RequestError::BeyondEnd {
        capacity: Sector(96),
        sector,
        size: 4096,
    };
    assert_eq!(
        beyond.to_string(),
        "request from peer beyond end of local disk: capacity: 96s < sector: 100s + size: 4096"
    );
    let name = AlgorithmName::new(b"sha1\0").expect("a name");
    assert_eq!(format!("{name} {name:?}"), "sha1 \"sha1\"");
    assert!(AlgorithmName::default().is_empty() && !name.is_empty());
}

#[test]
fn sizes_that_do_not_fit_are_told_with_both() {
    let (size, device) = (Sector(8), Sector(16));
    assert_eq!(
        SizesError::DiskTooSmall { size, device }.to_string(),
        "The peer's disk size is too small! (8 < 16 sectors)"
    );
    assert_eq!(
        SizesError::DeviceTooSmall { peer: size, device }.to_string(),
        "The peer's device size is too small! (8 < 16 sectors); demote me first!"
    );
    assert_eq!(SizesError::Unknown.to_string(), "Both nodes diskless!");
}

#[test]
fn a_policy_that_does_not_decide_says_so() {
    assert_eq!(
        LogLine::Policy(Remark::ConfigurationError).to_string(),
        "Configuration error."
    );
    assert_eq!(
        LogLine::Policy(Remark::NoYoungerOrOlder).to_string(),
        "Discard younger/older primary did not find a decision\n\
         Using discard-least-changes instead"
    );
}

static NAMES: [Option<&str>; 3] = [Some("one"), None, Some("three")];

#[test]
fn an_option_that_is_refused_is_told_with_what_it_may_be() {
    static COUNT: Field = Field::u32("count", 1, 9);
    static LEVEL: Field = Field::i32("level", -3, 3);
    static SIZE: Field = Field::u64("size", 0, 1 << 40);
    static WAY: Field = Field::choice("way", &NAMES);
    static NAME: Field = Field::text("name", 63);
    static SECRET: Field = Field::bytes("secret", 64);
    static ON: Field = Field::flag("on");
    let cases = [
        (&COUNT, "count must be from 1 to 9"),
        (&LEVEL, "level must be from -3 to 3"),
        (&SIZE, "size must be from 0 to 1099511627776"),
        (&WAY, "way must be one of one three"),
        (&NAME, "name must be a string of at most 63 bytes"),
        (&SECRET, "secret must be at most 64 bytes"),
        (&ON, "on must be yes or no"),
    ];
    for (field, text) in cases {
        let refusal = |reason| Refusal { field, reason }.to_string();
        let name = field.name;
        assert_eq!(
            refusal(Reason::NotAllowed),
            format!("invalid attribute value: {text}")
        );
        assert_eq!(
            refusal(Reason::Malformed),
            format!("invalid attribute value: {name} is malformed")
        );
        assert_eq!(
            refusal(Reason::Missing),
            format!("required attribute missing: {name}")
        );
        assert_eq!(
            refusal(Reason::Invariant),
            format!("can not change invariant setting: {name}")
        );
    }
    // What is built at compile time is built here once by the test.
    let kibi = Field::any_u64("rate").unit("bytes/s").kibi().required();
    assert!(matches!(
        kibi.kind,
        Kind::U64 {
            scale: Scale::Kibi,
            ..
        }
    ));
    assert!(kibi.required && kibi.unit == "bytes/s");
    let sectors = Field::any_u32("window").sectors().invariant().argument();
    assert!(matches!(
        sectors.kind,
        Kind::U32 {
            scale: Scale::Sectors,
            ..
        }
    ));
    assert!(sectors.invariant && sectors.argument);
    assert!(SECRET.secret().secret);
    let row = Field::flag("on").row(7, "on_key", " Whether it is on. ");
    assert_eq!(
        (row.number, row.key, row.help),
        (7, "on_key", "Whether it is on.")
    );
}

#[test]
fn values_of_another_kind_are_refused() {
    let way = Field::choice("way", &NAMES);
    assert_eq!(way.choice_number("three"), Some(2));
    assert!(way.allows(Value::U32(2)) && !way.allows(Value::U32(1)) && !way.allows(Value::U32(3)));
    assert!(!way.allows(Value::Flag(true)));
    let on = Field::flag("on");
    assert_eq!((on.choice_name(0), on.choice_number("one")), (None, None));
    assert_eq!(Value::Bytes(b"ab").to_string(), "[97, 98]");
}

#[test]
fn numbers_of_the_configuration_stand_for_policies() {
    assert_eq!(
        [0, 1, 2, 3].map(Fencing::from_number),
        [
            Some(Fencing::DontCare),
            Some(Fencing::ResourceOnly),
            Some(Fencing::ResourceAndStonith),
            None
        ]
    );
    assert_eq!(
        [0, 1, 2].map(OnNoData::from_number),
        [Some(OnNoData::IoError), Some(OnNoData::SuspendIo), None]
    );
    let kinds = [0, 1, 2, 3, 4, 5].map(|kind| {
        NotificationKind::from_header(kind | NotificationKind::CONTINUES).map(|kind| kind.number())
    });
    assert_eq!(
        kinds,
        [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)]
    );
    assert_eq!(NotificationKind::from_header(6), None);
}

#[test]
fn what_replies_carry_has_a_number_and_a_text() {
    let codes = [
        Success::Done,
        Success::NothingToDo,
        Success::PeerAgreed,
        Success::PeerNotNeeded,
    ]
    .map(|success| RetCode::from(Ok(success)).0);
    assert_eq!(codes, [1, 2, 3, 4]);
    for error in StateError::ALL {
        let code = RetCode::from(Err(*error));
        assert_eq!(StateError::from_code(code.0), Some(*error));
        assert!(!error.text().is_empty());
    }
    assert_eq!(
        RetCode(118).to_string(),
        "IO error(s) occurred during initial access to meta-data."
    );
    assert_eq!(RetCode(9999).to_string(), "Unknown return code 9999");
}

#[test]
fn small_names_are_those_of_the_c_driver() {
    let orders = [
        WriteOrdering::None,
        WriteOrdering::Drain,
        WriteOrdering::Flush,
    ];
    assert_eq!(orders.map(WriteOrdering::name), ["none", "drain", "flush"]);
    assert_eq!(orders.map(WriteOrdering::letter), ['n', 'd', 'f']);
    assert_eq!(
        [Side::Source, Side::Target].map(Side::before_helper),
        ["before-resync-source", "before-resync-target"]
    );
    assert_eq!(
        Warning::ALL.map(Warning::text),
        [
            "Online-verify aborted.",
            "Resync aborted.",
            "Connection lost while negotiating, no data!",
            "Peer disk lost while negotiating, not attaching older data!",
            "Implicitly upgraded disk",
            "Implicitly upgraded pdsk",
        ]
    );
}

#[test]
fn write_zeroes_travel_only_where_both_know_them_and_no_digest_is_expected() {
    let common = Features::OURS.common(Features::NONE);
    assert!(!common.may_send_zeroes(false));
    assert!(Features::OURS.may_send_zeroes(false));
    assert!(!Features::OURS.may_send_zeroes(true));
}
