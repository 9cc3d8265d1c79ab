// SPDX-License-Identifier: GPL-2.0

//! What packets do.

use super::Node;
use crate::link::{nonsense, Packet};
use drbd_engine::handshake::uuid_compare::{uuid_compare, Facts, UuidSet};
use drbd_engine::state::{Change, ConnState, DiskState, Role, State};
use drbd_engine::types::Sector;
use drbd_engine::wire::{
    Barrier, BarrierAck, BlockAck, BlockRequest, Command, Data, DataFlags, Features, Sizes, Socket,
    StateReply, StateRequest, StateWord, SyncUuid, Trim, UuidFlags, Uuids,
};
use std::io;

fn decoded<T>(result: Result<T, drbd_engine::wire::PayloadError>) -> io::Result<T> {
    result.map_err(|error| nonsense(&error.to_string()))
}

impl Node {
    pub(super) fn receive(&mut self, socket: Socket, packet: Packet) -> io::Result<()> {
        let command = packet
            .command
            .ok_or_else(|| nonsense("a command that nobody knows"))?;
        match socket {
            Socket::Data => self.receive_data(command, &packet.payload),
            Socket::Meta => self.receive_meta(command, &packet.payload),
        }
    }

    fn receive_data(&mut self, command: Command, payload: &[u8]) -> io::Result<()> {
        match command {
            Command::Protocol
            | Command::ProtocolUpdate
            | Command::SyncParam
            | Command::SyncParam89
            | Command::UnplugRemote
            | Command::DelayProbe => Ok(()),
            Command::Sizes => self.sizes(&decoded(Sizes::decode(payload))?),
            Command::Uuids => {
                self.peer_uuids = Some(decoded(Uuids::decode(payload))?);
                Ok(())
            }
            Command::State => self.peer_state(decoded(StateWord::decode(payload))?),
            Command::StateChangeRequest => self.change_request(Command::StateChangeReply, payload),
            Command::ConnStateChangeRequest => {
                self.change_request(Command::ConnStateChangeReply, payload)
            }
            Command::Bitmap => self.bitmap(false, payload),
            Command::CompressedBitmap => self.bitmap(true, payload),
            Command::SyncUuid => self.sync_uuid(decoded(SyncUuid::decode(payload))?.0),
            Command::Data => {
                let (front, bytes) = split(payload, Data::SIZE)?;
                self.write(decoded(Data::decode(front))?, bytes)
            }
            Command::Trim | Command::Zeroes => {
                let trim = decoded(Trim::decode(payload))?;
                self.write(trim.data, &vec![0; trim.size as usize])
            }
            Command::Barrier => {
                let ack = BarrierAck {
                    cookie: decoded(Barrier::decode(payload))?.cookie,
                    set_size: std::mem::take(&mut self.epoch),
                };
                self.send(Socket::Meta, Command::BarrierAck, &[&ack.encode()])
            }
            Command::DataRequest => {
                self.read(Command::DataReply, decoded(BlockRequest::decode(payload))?)
            }
            Command::RsDataRequest | Command::RsThinRequest => self.read(
                Command::RsDataReply,
                decoded(BlockRequest::decode(payload))?,
            ),
            Command::RsDataReply => {
                let (front, bytes) = split(payload, Data::SIZE)?;
                self.resync_data(decoded(Data::decode(front))?, bytes)
            }
            Command::OutOfSync => {
                let blocks = decoded(drbd_engine::wire::BlockDescriptor::decode(payload))?;
                self.disk.bitmap().set_range(blocks.sector, blocks.size);
                Ok(())
            }
            other => Err(nonsense(&format!("{} on data", other.name()))),
        }
    }

    fn receive_meta(&mut self, command: Command, payload: &[u8]) -> io::Result<()> {
        match command {
            Command::Ping => self.send(Socket::Meta, Command::PingAck, &[]),
            Command::PingAck => self.ping_acked(),
            Command::DelayProbe => Ok(()),
            Command::StateChangeReply | Command::ConnStateChangeReply => {
                self.answer = Some(decoded(StateReply::decode(payload))?.code);
                Ok(())
            }
            Command::BarrierAck => {
                let ack = decoded(BarrierAck::decode(payload))?;
                if ack.cookie != self.cookie() || ack.set_size != self.written {
                    return Err(nonsense(&format!(
                        "BarrierAck {:?} of {} writes, expected {} of {}",
                        ack.cookie, ack.set_size, self.barrier, self.written
                    )));
                }
                self.barrier = self.barrier.wrapping_add(1);
                self.written = 0;
                self.barrier_pending = false;
                Ok(())
            }
            Command::RecvAck | Command::WriteAck | Command::RsWriteAck | Command::NegAck => {
                self.acked(command, decoded(BlockAck::decode(payload))?)
            }
            other => Err(nonsense(&format!("{} on meta", other.name()))),
        }
    }

    fn sizes(&mut self, sizes: &Sizes) -> io::Result<()> {
        if sizes.disk.0 != 0 {
            let agreed = Sector(self.disk.max.0.min(sizes.disk.0));
            if agreed != self.disk.size {
                self.disk.resize(agreed);
                if self.conn > ConnState::WFReportParams {
                    return self.send_sizes();
                }
            }
        }
        Ok(())
    }

    /// A write of the peer.
    fn write(&mut self, data: Data, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(data.sector, bytes)?;
        self.epoch += 1;
        let size = bytes.len() as u32;
        let resyncs = matches!(self.conn, ConnState::SyncSource | ConnState::SyncTarget);
        let version = self.version();
        let (receive_ack, write_ack) = if version.has_volumes() {
            (
                data.flags.contains(DataFlags::SEND_RECEIVE_ACK),
                data.flags.contains(DataFlags::SEND_WRITE_ACK),
            )
        } else {
            (self.protocol == 2, self.protocol == 3)
        };
        if receive_ack {
            self.send_ack(Command::RecvAck, data.sector, size, data.block_id)?;
        }
        if write_ack {
            let in_sync = resyncs && data.flags.contains(DataFlags::MAY_SET_IN_SYNC);
            if in_sync {
                self.disk.bitmap().clear_range(data.sector, size);
            }
            let command = if in_sync {
                Command::RsWriteAck
            } else {
                Command::WriteAck
            };
            self.send_ack(command, data.sector, size, data.block_id)?;
        }
        Ok(())
    }

    /// A read of the peer.
    fn read(&mut self, answer: Command, request: BlockRequest) -> io::Result<()> {
        let reply = Data {
            sector: request.sector,
            block_id: request.block_id,
            seq_num: 0,
            flags: DataFlags::NONE,
        };
        let bytes = self.disk.read(request.sector, request.size)?;
        self.send(Socket::Data, answer, &[&reply.encode(), &bytes])
    }

    /// The peer says how it is.
    fn peer_state(&mut self, word: StateWord) -> io::Result<()> {
        let peer = State::from_word(word.0).map_err(|_| nonsense("a state that is none"))?;
        let uuids = self.peer_uuids;
        let before = (self.peer_role, self.peer_disk);
        self.peer_role = peer.role;
        // A state may be older than the acks on the other socket: the resync is over since then.
        let is_stale = self.conn == ConnState::Connected
            && self.peer_disk == DiskState::UpToDate
            && peer.conn > ConnState::SyncSource;
        self.peer_disk = match peer.disk {
            DiskState::Negotiating => DiskState::Consistent,
            DiskState::Inconsistent if is_stale => DiskState::UpToDate,
            other => other,
        };
        let first = self.conn == ConnState::WFReportParams;
        if first {
            self.conn = ConnState::Connected;
        }
        if self.conn == ConnState::SyncSource && peer.conn == ConnState::Connected {
            return self.finish_as_source();
        }
        let differ = (self.disk.state == DiskState::Inconsistent)
            != (self.peer_disk == DiskState::Inconsistent);
        let begins = (ConnState::StartingSyncS..=ConnState::WFBitMapT).contains(&peer.conn);
        let idle = self.conn == ConnState::Connected;
        if idle && (first || differ || begins) && self.peer_disk >= DiskState::Negotiating {
            if let Some(uuids) = uuids {
                self.handshake(&uuids)?;
            }
        }
        let has_changed = before != (self.peer_role, self.peer_disk);
        if first || idle && has_changed && self.conn != ConnState::Connected {
            self.send_state()?;
        }
        self.save();
        Ok(())
    }

    /// Compares generations, and begins what follows.
    fn handshake(&mut self, peer: &Uuids) -> io::Result<()> {
        let version = self.version();
        let own = self.disk.uuids;
        let comparison = uuid_compare(&Facts {
            own: UuidSet {
                current: own.current,
                bitmap: own.bitmap,
                history: own.history,
            },
            peer: UuidSet {
                current: peer.current,
                bitmap: peer.bitmap,
                history: peer.history,
            },
            apv: version.number(),
            crashed_primary: self.disk.was_primary,
            peer_crashed_primary: peer.flags.contains(UuidFlags::CRASHED_PRIMARY),
            is_primary: self.role.is_primary(),
            peer_is_primary: self.peer_role.is_primary(),
            has_write_same: self.features().contains(Features::WRITE_SAME),
            resolves_conflicts: self
                .link
                .as_ref()
                .is_some_and(|link| link.resolves_conflicts),
            // The C driver decides without.
            own_bits: 0,
            peer_bits: 0,
        });
        let mut verdict = comparison.verdict.code();
        let inconsistent = DiskState::Inconsistent;
        let full = if verdict.abs() == 2 || verdict == -100 {
            2
        } else {
            1
        };
        if self.disk.state == inconsistent && self.peer_disk > inconsistent {
            verdict = -full;
        } else if self.peer_disk == inconsistent && self.disk.state > inconsistent {
            verdict = full;
        }
        println!(
            "note uuid_compare()={} by rule {}: {verdict}",
            comparison.verdict.code(),
            comparison.rule
        );
        match verdict {
            0 => {
                self.disk.was_primary = false;
                Ok(())
            }
            1 | 2 => self.become_source(verdict == 2),
            -1 | -2 => self.become_target(verdict == -2),
            _ => Err(nonsense("these disks do not go together")),
        }
    }

    /// The peer asks whether it may change.
    fn change_request(&mut self, answer: Command, payload: &[u8]) -> io::Result<()> {
        let request = decoded(StateRequest::decode(payload))?;
        let change = Change {
            mask: request.mask.0,
            val: request.value.0,
        }
        .convert_peer();
        let wanted = change
            .apply(self.state())
            .map_err(|_| nonsense("a change to no state"))?;
        let ends = matches!(wanted.conn, ConnState::TearDown | ConnState::Disconnecting);
        let both = wanted.peer == Role::Primary && self.role.is_primary();
        let code = if both { -1 } else { 1 };
        let syncs = [ConnState::StartingSyncS, ConnState::StartingSyncT].contains(&wanted.conn);
        let late = self.consents_late.take_if(|_| syncs);
        if let Some(late) = late {
            self.begin_full_sync(wanted.conn)?;
            std::thread::sleep(late);
        }
        self.send(Socket::Meta, answer, &[&StateReply { code }.encode()])?;
        if both || late.is_some() {
            return Ok(());
        }
        if wanted.disk == DiskState::Outdated && ends {
            self.disk.state = DiskState::Outdated;
        }
        self.peer_role = wanted.peer;
        if syncs {
            return self.full_sync(wanted.conn);
        }
        if ends {
            // The peer closes.
            self.conn = ConnState::TearDown;
        }
        Ok(())
    }

    /// An ack about blocks.
    fn acked(&mut self, command: Command, ack: BlockAck) -> io::Result<()> {
        if ack.block_id == drbd_engine::types::BlockId::SYNCER {
            if command == Command::NegAck {
                return Err(nonsense("the target cannot write"));
            }
            self.disk.bitmap().clear_range(ack.sector, ack.size);
            return self.source_may_be_done();
        }
        let found = self.writes.remove(&ack.block_id.0);
        let Some((sector, size)) = found else {
            return Err(nonsense("an ack for nothing"));
        };
        if (sector, size) != (ack.sector, ack.size) {
            return Err(nonsense("an ack for other blocks"));
        }
        match command {
            Command::NegAck => {
                self.disk.bitmap().set_range(sector, size);
            }
            Command::RsWriteAck => {
                self.disk.bitmap().clear_range(sector, size);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The front of a payload, and the rest.
fn split(payload: &[u8], size: usize) -> io::Result<(&[u8], &[u8])> {
    payload
        .split_at_checked(size)
        .ok_or_else(|| nonsense("a payload that is too short"))
}
