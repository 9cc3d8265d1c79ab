// SPDX-License-Identifier: GPL-2.0

//! Tests over all tables: round trips, totality, and messages of the C driver byte by byte.

use super::attr::{Attributes, Writer};
use super::field::{Kind, Present, Reason, Secrets, Settings, Value};
use super::info::*;
use super::*;
use proptest::prelude::*;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

fn encoded<S: Settings>(settings: &S, secrets: Secrets) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let mut writer = Writer::new(&mut buffer);
    settings.encode(&mut writer, secrets);
    writer.finish().unwrap().to_vec()
}

fn set_of<S: Settings>(message: &[u8]) -> Attributes<'_> {
    Attributes::new(message)
        .find(S::ATTRIBUTE)
        .unwrap()
        .nested()
}

fn check_table<S: Settings + PartialEq + core::fmt::Debug>() {
    let mut last = 0;
    for field in S::FIELDS {
        assert!(
            field.number > last && field.number < 64,
            "{} is out of order",
            field.key
        );
        last = field.number;
        assert!(!field.help.is_empty() && !field.name.is_empty());
        let default = S::DEFAULT;
        let value = default.value(field.number).unwrap();
        let derived = matches!(field.name, "meta-dev-idx" | "uuids");
        assert!(
            field.allows(value) || derived,
            "default of {} is not allowed",
            field.name
        );
        assert_eq!(
            S::field_named(field.name),
            Some(field),
            "name {} is double",
            field.name
        );
    }
    let mut copy = S::DEFAULT;
    let present = copy
        .update(set_of::<S>(&encoded(&S::DEFAULT, Secrets::Show)))
        .unwrap();
    assert_eq!(copy, S::DEFAULT);
    assert!(S::FIELDS.iter().all(|field| present.has(field.number)));
}

#[test]
fn every_table_is_ordered_named_documented_and_has_allowed_defaults() {
    check_table::<ResourceOptions>();
    check_table::<DiskConf>();
    check_table::<NetConf>();
    check_table::<SetRole>();
    check_table::<Resize>();
    check_table::<StartVerify>();
    check_table::<NewCurrentUuid>();
    check_table::<TimeoutParameters>();
    check_table::<Disconnect>();
    check_table::<Detach>();
    check_table::<StateInfo>();
    check_table::<ResourceInfo>();
    check_table::<DeviceInfo>();
    check_table::<ConnectionInfo>();
    check_table::<PeerDeviceInfo>();
    check_table::<ResourceStatistics>();
    check_table::<DeviceStatistics>();
    check_table::<ConnectionStatistics>();
    check_table::<PeerDeviceStatistics>();
    check_table::<NotificationHeader>();
    check_table::<HelperInfo>();
}

#[test]
fn a_value_out_of_range_is_refused_with_its_range() {
    let mut buffer = [0; 16];
    let mut writer = Writer::new(&mut buffer);
    writer.put_u32(8, 601);
    let refusal = NetConf::DEFAULT
        .clone()
        .update(Attributes::new(writer.finish().unwrap()))
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "invalid attribute value: timeout must be from 1 to 600"
    );
}

#[test]
fn a_policy_that_another_option_allows_is_refused_where_it_makes_no_sense() {
    let mut buffer = [0; 16];
    let mut writer = Writer::new(&mut buffer);
    writer.put_u32(18, AfterSplitBrain::DiscardLocal.number());
    let refusal = NetConf::DEFAULT
        .clone()
        .update(Attributes::new(writer.finish().unwrap()))
        .unwrap_err();
    assert_eq!(
        (refusal.field.name, refusal.reason),
        ("after-sb-1pri", Reason::NotAllowed)
    );
}

#[test]
fn attach_needs_both_devices_and_the_index() {
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer);
    writer.put_text(1, b"/dev/vda");
    writer.put_text(2, b"/dev/vda");
    let mut disk = DiskConf::DEFAULT;
    let present = disk
        .update(Attributes::new(writer.finish().unwrap()))
        .unwrap();
    let refusal = DiskConf::require(present).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "required attribute missing: meta-dev-idx"
    );
    assert_eq!(
        DiskConf::refuse_invariants(present).unwrap_err().reason,
        Reason::Invariant
    );
    assert_eq!(DiskConf::refuse_invariants(Present::default()), Ok(()));
}

#[test]
fn defaults_leave_what_cannot_change_alone() {
    let mut disk = DiskConf::DEFAULT;
    disk.backing_dev.set(b"/dev/vda").unwrap();
    disk.resync_rate = 1;
    disk.reset_changeable();
    assert_eq!(disk.backing_dev.as_bytes(), b"/dev/vda");
    assert_eq!(disk.resync_rate, DiskConf::DEFAULT.resync_rate);
}

#[test]
fn a_secret_is_blank_for_those_who_may_not_see_it() {
    let mut net = NetConf::DEFAULT;
    net.shared_secret.set(b"geheim").unwrap();
    let contains = |message: &[u8]| message.windows(6).any(|window| window == b"geheim");
    assert!(contains(&encoded(&net, Secrets::Show)));
    assert!(!contains(&encoded(&net, Secrets::Blank)));
}

#[test]
fn names_of_policies_lead_to_their_numbers() {
    let field = NetConf::field_named("rr-conflict").unwrap();
    assert_eq!(
        field.choice_number("violently"),
        Some(AfterSplitBrain::Violently.number())
    );
    assert_eq!(field.choice_name(9), Some("call-pri-lost"));
    assert_eq!(field.choice_number("consensus"), None);
}

/// The GET_STATUS message of the C driver for one connected volume, from the user header on.
const STATUS: &[u8] = include_bytes!("../../../../../tests/engine/data/netlink-status.bin");

#[test]
#[cfg(target_endian = "little")]
fn the_status_of_the_c_driver_is_written_byte_for_byte() {
    let (header, rest) = UserHeader::split(STATUS).unwrap();
    assert_eq!((header.minor, header.ret_code()), (2, RetCode::NO_ERROR.0));
    let attributes = Attributes::new(rest);
    let context = Context::find(attributes).unwrap();
    assert_eq!(context.resource_name, Some(&b"r0"[..]));
    let mut resource = ResourceOptions::DEFAULT;
    resource.update(set_of::<ResourceOptions>(rest)).unwrap();
    let mut disk = DiskConf::DEFAULT;
    DiskConf::require(disk.update(set_of::<DiskConf>(rest)).unwrap()).unwrap();
    assert_eq!((disk.resync_rate, disk.c_plan_ahead), (20480, 0));
    let mut net = NetConf::DEFAULT;
    net.update(set_of::<NetConf>(rest)).unwrap();
    assert!(!net.use_rle);
    let mut state = StateInfo::DEFAULT;
    let present = state.update(set_of::<StateInfo>(rest)).unwrap();
    assert!(present.has(7) && !present.has(11));
    assert_eq!(state.current_state, 0x0001_10aa);

    let mut buffer = vec![0; 1024];
    let mut writer = Writer::new(&mut buffer);
    header.encode(&mut writer);
    context.encode(&mut writer);
    resource.encode(&mut writer, Secrets::Show);
    disk.encode(&mut writer, Secrets::Show);
    net.encode(&mut writer, Secrets::Show);
    let nest = writer.begin(StateInfo::ATTRIBUTE, 0);
    state.encode_only(&mut writer, StateInfo::ALWAYS);
    state.encode_only(&mut writer, StateInfo::ATTACHED);
    writer.end(nest);
    assert_eq!(writer.finish().unwrap(), STATUS);
}

fn value(kind: Kind) -> BoxedStrategy<Option<Vec<u8>>> {
    match kind {
        Kind::Flag => any::<bool>()
            .prop_map(|flag| Some(vec![u8::from(flag)]))
            .boxed(),
        Kind::U32 { min, max, .. } => (min..=max)
            .prop_map(|number| Some(number.to_ne_bytes().to_vec()))
            .boxed(),
        Kind::I32 { min, max } => (min..=max)
            .prop_map(|number| Some(number.to_ne_bytes().to_vec()))
            .boxed(),
        Kind::U64 { min, max, .. } => (min..=max)
            .prop_map(|number| Some(number.to_ne_bytes().to_vec()))
            .boxed(),
        Kind::Choice(names) => (0..names.len())
            .prop_map(move |index| {
                names[index].map(|_| u32::try_from(index).unwrap().to_ne_bytes().to_vec())
            })
            .boxed(),
        Kind::Text { max } => prop::collection::vec(1u8.., 0..=max)
            .prop_map(|mut text| {
                text.push(0);
                Some(text)
            })
            .boxed(),
        Kind::Bytes { max } => prop::collection::vec(any::<u8>(), 0..=max)
            .prop_map(Some)
            .boxed(),
    }
}

fn message<S: Settings>() -> impl Strategy<Value = Vec<u8>> {
    let fields: Vec<_> = S::FIELDS.iter().map(|field| value(field.kind)).collect();
    fields.prop_map(|values| {
        let mut buffer = vec![0; 2048];
        let mut writer = Writer::new(&mut buffer);
        for (field, value) in S::FIELDS.iter().zip(&values) {
            if let Some(value) = value {
                writer.put_bytes(field.number, value);
            }
        }
        writer.finish().unwrap().to_vec()
    })
}

fn check_round_trip<S: Settings + PartialEq>(message: &[u8]) {
    let mut first = S::DEFAULT;
    first.update(Attributes::new(message)).unwrap();
    let mut second = S::DEFAULT;
    second
        .update(set_of::<S>(&encoded(&first, Secrets::Show)))
        .unwrap();
    assert!(first == second);
}

fn check_totality<S: Settings>(bytes: &[u8]) {
    let mut settings = S::DEFAULT;
    if settings.update(Attributes::new(bytes)).is_ok() {
        for field in S::FIELDS
            .iter()
            .filter(|field| !field.name.starts_with("meta-dev"))
        {
            assert!(field.allows(settings.value(field.number).unwrap()));
        }
    }
}

proptest! {
    #[test]
    fn allowed_values_survive_the_way_there_and_back(
        disk in message::<DiskConf>(),
        net in message::<NetConf>(),
        resource in message::<ResourceOptions>(),
        device in message::<DeviceStatistics>(),
    ) {
        check_round_trip::<DiskConf>(&disk);
        check_round_trip::<NetConf>(&net);
        check_round_trip::<ResourceOptions>(&resource);
        check_round_trip::<DeviceStatistics>(&device);
    }

    #[test]
    fn arbitrary_bytes_give_allowed_values_or_a_refusal(
        bytes in prop::collection::vec(any::<u8>(), 0..512),
        numbers in prop::collection::vec((0u16..40, any::<u64>()), 0..20),
    ) {
        check_totality::<DiskConf>(&bytes);
        check_totality::<NetConf>(&bytes);
        let mut buffer = vec![0; 512];
        let mut writer = Writer::new(&mut buffer);
        for (number, value) in numbers {
            writer.put_value(number, Value::U64(value));
        }
        check_totality::<DiskConf>(writer.finish().unwrap());
        check_totality::<NetConf>(writer.finish().unwrap());
        check_totality::<Resize>(writer.finish().unwrap());
    }
}
