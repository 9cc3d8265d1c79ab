// SPDX-License-Identifier: GPL-2.0

//! Bytes of any kind give a value or an error; values survive the wire in every version.

use drbd_engine::handshake::sockets::{Alive, Event, FirstPacket, Newcomer, Next, SocketSetup};
use drbd_engine::handshake::{features, sizes};
use drbd_engine::state::{ConnState, DiskState, Role};
use drbd_engine::types::{Sector, VolumeNr};
use drbd_engine::wire::{
    check_request, header, AlgorithmName, Command, ConnectionFeatures, ConnectionFlags, Controller,
    Features, Header, Protocol, QueueLimits, RequestKind, ResizeFlags, Sizes, Socket, SyncParam,
    Version,
};
use proptest::collection::vec;
use proptest::prelude::*;
use wire_tests::packet::payload_again;

const MAGICS: &[&[u8]] = &[
    &[],
    &[0x83, 0x74, 0x02, 0x67],
    &[0x83, 0x5a],
    &[0x86, 0x20, 0xec, 0x20],
];

fn version() -> impl Strategy<Value = Version> {
    (86u32..=101).prop_map(|number| Version::new(number).unwrap())
}

fn command() -> impl Strategy<Value = Command> {
    proptest::sample::select(Command::ALL)
}

fn name() -> impl Strategy<Value = AlgorithmName> {
    vec(1u8..=255, 0..=63).prop_map(|bytes| AlgorithmName::new(&bytes).unwrap())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    (any::<[u32; 6]>(), name()).prop_map(|(numbers, integrity_algorithm)| {
        let [protocol, after_sb_0p, after_sb_1p, after_sb_2p, flags, two_primaries] = numbers;
        Protocol {
            protocol,
            after_sb_0p,
            after_sb_1p,
            after_sb_2p,
            flags: ConnectionFlags(flags),
            two_primaries,
            integrity_algorithm,
        }
    })
}

fn sync_param() -> impl Strategy<Value = SyncParam> {
    (any::<[u32; 5]>(), name(), name()).prop_map(|(numbers, verify_algorithm, csums_algorithm)| {
        let [resync_rate_kib, plan_ahead_ds, delay_target_ds, fill_target_sectors, max_rate_kib] =
            numbers;
        SyncParam {
            resync_rate_kib,
            verify_algorithm,
            csums_algorithm,
            controller: Some(Controller {
                plan_ahead_ds,
                delay_target_ds,
                fill_target_sectors,
                max_rate_kib,
            }),
        }
    })
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let limits = any::<([u32; 5], [u8; 3])>().prop_map(|(numbers, flags)| {
        let [physical_block_size, logical_block_size, alignment_offset, io_min, io_opt] = numbers;
        let [discard_enabled, discard_zeroes_data, write_same_capable] = flags;
        QueueLimits {
            physical_block_size,
            logical_block_size,
            alignment_offset,
            io_min,
            io_opt,
            discard_enabled,
            discard_zeroes_data,
            write_same_capable,
        }
    });
    let numbers = any::<([u64; 3], u32, u16, u16)>();
    (numbers, proptest::option::of(limits)).prop_map(|(numbers, queue_limits)| {
        let ([disk, user, current], max_bio_size, queue_order_type, flags) = numbers;
        Sizes {
            disk: Sector(disk),
            user: Sector(user),
            current: Sector(current),
            max_bio_size,
            queue_order_type,
            flags: ResizeFlags(flags),
            queue_limits,
        }
    })
}

fn local() -> impl Strategy<Value = sizes::Local> {
    let disk = (proptest::sample::select(DiskState::ALL), any::<[u64; 3]>()).prop_map(
        |(state, [max_capacity, last_agreed, user])| sizes::LocalDisk {
            state,
            max_capacity: Sector(max_capacity),
            last_agreed: Sector(last_agreed),
            user: Sector(user),
        },
    );
    (
        proptest::option::of(disk),
        any::<u64>(),
        proptest::sample::select(ConnState::ALL),
        proptest::sample::select(Role::ALL),
        proptest::sample::select(DiskState::ALL),
    )
        .prop_map(|(disk, device, conn, role, peer_disk)| sizes::Local {
            disk,
            device: Sector(device),
            conn,
            role,
            peer_disk,
        })
}

proptest! {
    #[test]
    fn headers_survive_every_version(
        version in version(),
        volume: u16,
        command in command(),
        length: u32,
    ) {
        let mut out = [0xaa; header::MAX_SIZE];
        let size = header::encode(version, VolumeNr(volume), command, length, &mut out);
        prop_assert_eq!(size, header::size(version));
        let volume = VolumeNr(if version.has_volumes() { volume } else { 0 });
        let expected = Header { volume, command: command.number(), length };
        prop_assert_eq!(header::decode(version, &out[..size]), Ok(expected));
    }

    #[test]
    fn headers_of_any_bytes_are_read_or_refused(
        version in version(),
        bytes in vec(any::<u8>(), 0..32),
        magic in proptest::sample::select(MAGICS),
        features: u32,
    ) {
        let bytes = [magic, &bytes].concat();
        let size = header::size(version).min(bytes.len());
        if let Ok(header) = header::decode(version, &bytes[..size]) {
            for socket in [Socket::Data, Socket::Meta] {
                if let Ok((command, rule)) =
                    header.admit(socket, version, Features::from_bits(features))
                {
                    prop_assert!(command.travels_on(socket));
                    prop_assert!(rule.fixed <= header.length && header.length <= rule.max);
                }
            }
        }
    }

    #[test]
    fn a_payload_of_any_bytes_is_refused_or_comes_back_stable(
        version in version(),
        command in command(),
        bytes in vec(any::<u8>(), 0..160),
    ) {
        if let Some(again) = payload_again(version, command, &bytes) {
            prop_assert_eq!(payload_again(version, command, &again), Some(again));
        }
    }

    #[test]
    fn a_payload_of_an_admitted_length_is_never_refused_for_its_length(
        version in version(),
        command in command(),
        features in (0u32..16).prop_map(Features::from_bits),
        more in 0u32..64,
    ) {
        for socket in [Socket::Data, Socket::Meta] {
            let Ok(rule) = command.payload(socket, version, features) else {
                continue;
            };
            let length = rule.max.min(rule.fixed + more);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if command == Command::CompressedBitmap {
                payload[0] = 2;
            }
            prop_assert!(payload_again(version, command, &payload).is_some(), "{command:?}");
            prop_assert!(rule.check(socket, command, rule.max + 1).is_err());
            if let Some(less) = rule.fixed.checked_sub(1) {
                prop_assert!(rule.check(socket, command, less).is_err());
            }
        }
    }

    #[test]
    fn protocols_survive_every_version(version in version(), sent in protocol()) {
        let mut out = [0; Protocol::MAX_SIZE];
        let length = sent.encode(version, &mut out);
        let mut expected = sent;
        if !version.names_integrity_algorithm() {
            expected.integrity_algorithm = AlgorithmName::NONE;
        }
        prop_assert_eq!(Protocol::decode(version, &out[..length]), Ok(expected));
    }

    #[test]
    fn resync_parameters_survive_what_a_version_can_carry(
        version in version(),
        sent in sync_param(),
    ) {
        let mut out = [0; SyncParam::MAX_SIZE];
        let length = sent.encode(version, &mut out);
        let received = SyncParam::decode(version, &out[..length]).unwrap();
        prop_assert_eq!(received.resync_rate_kib, sent.resync_rate_kib);
        if version.is_at_least(88) {
            prop_assert_eq!(received.verify_algorithm, sent.verify_algorithm);
        }
        if version.is_at_least(89) {
            prop_assert_eq!(received.csums_algorithm, sent.csums_algorithm);
        }
        if version.is_at_least(95) {
            prop_assert_eq!(received, sent);
        }
    }

    #[test]
    fn sizes_survive(sent in sizes()) {
        let mut out = [0; Sizes::MAX_SIZE];
        let length = sent.encode(&mut out);
        prop_assert_eq!(Sizes::decode(&out[..length]), Ok(sent));
    }

    #[test]
    fn an_admitted_range_lies_within_the_device(
        sector: u64,
        size: u32,
        capacity: u64,
        features: u32,
        is_near: bool,
        is_discard: bool,
    ) {
        // Mostly whole sectors around the end, sometimes anything.
        let (sector, size) = if is_near {
            (capacity.wrapping_sub(sector % 4096), (size % (1 << 21)) & !511)
        } else {
            (sector, size)
        };
        let kind = if is_discard {
            RequestKind::Discard(Features::from_bits(features))
        } else {
            RequestKind::Data
        };
        if check_request(Sector(sector), size, Sector(capacity), kind).is_ok() {
            let end = u128::from(sector) * 512 + u128::from(size);
            prop_assert!(size > 0 && size % 512 == 0);
            prop_assert!(end <= u128::from(capacity) * 512);
            let max = if is_discard { 128 << 20 } else { 1 << 20 };
            prop_assert!(size <= max);
        }
    }

    #[test]
    fn an_agreed_version_is_one_that_both_speak(min: u32, max: u32, near in 80u32..110) {
        for (min, max) in [(min, max), (86, near), (near, near + 5), (near, 0)] {
            let offer =
                ConnectionFeatures { protocol_min: min, protocol_max: max, feature_flags: 0 };
            let highest = if max == 0 { min } else { max };
            match features::negotiate(&offer) {
                Ok(agreed) => {
                    prop_assert!(agreed.version.number() <= highest);
                    prop_assert!(agreed.version >= Version::MIN && agreed.version <= Version::MAX);
                }
                Err(_) => prop_assert!(min > 101 || highest < 86),
            }
        }
    }

    #[test]
    fn usable_data_never_shrinks_while_connecting(ours in local(), theirs in sizes()) {
        let Ok(reception) = sizes::receive(&ours, &theirs) else {
            return Ok(());
        };
        let is_usable = ours.disk.is_some_and(|disk| disk.state >= DiskState::Outdated);
        if let sizes::Device::Resize(size) = reception.device {
            prop_assert!(size.0 != 0);
            if is_usable && ours.conn < ConnState::Connected {
                prop_assert!(size >= ours.device);
            }
        }
    }

    /// Whatever calls come through or fail, and however the coins fall.
    #[test]
    fn a_pair_of_sockets_is_done_only_when_both_live(
        events in vec((0u8..8, any::<bool>(), any::<[bool; 2]>()), 1..200),
    ) {
        let (mut setup, mut next) = SocketSetup::new();
        let mut alive = Alive { data: false, meta: false };
        let mut accepted_meta = false;
        for (kind, coin, survives) in events {
            let event = match next {
                Next::Connect if kind < 4 => Event::Connected,
                Next::Connect => Event::NotConnected,
                Next::Accept if kind == 7 => Event::NotAccepted,
                Next::Accept => {
                    alive.data &= survives[0] || kind < 4;
                    alive.meta &= survives[1] || kind < 4;
                    let first = match kind % 3 {
                        0 => FirstPacket::Data,
                        1 => FirstPacket::Meta,
                        _ => FirstPacket::Garbage,
                    };
                    Event::Accepted { first, alive, coin }
                }
                Next::Check => {
                    alive.data &= survives[0];
                    alive.meta &= survives[1];
                    Event::Checked(alive)
                }
                Next::Done { resolve_conflicts } => {
                    prop_assert!(alive.data && alive.meta);
                    prop_assert_eq!(resolve_conflicts, accepted_meta);
                    break;
                }
            };
            let step = setup.handle(event);
            match step.newcomer {
                Newcomer::CallData => prop_assert!(!std::mem::replace(&mut alive.data, true)),
                Newcomer::CallMeta => {
                    prop_assert!(!std::mem::replace(&mut alive.meta, true));
                    accepted_meta = false;
                }
                Newcomer::TakeData { crossed } => {
                    prop_assert_eq!(crossed, std::mem::replace(&mut alive.data, true));
                }
                Newcomer::TakeMeta { crossed } => {
                    prop_assert_eq!(crossed, std::mem::replace(&mut alive.meta, true));
                    accepted_meta = true;
                }
                Newcomer::None | Newcomer::Release => {}
            }
            next = step.next;
        }
    }
}
