// SPDX-License-Identifier: GPL-2.0

//! What the shell asks of a node.

use super::{Node, PATIENCE};
use drbd_engine::state::{Change, ConnState, DiskState, Role};
use drbd_engine::types::{BlockId, Sector};
use drbd_engine::wire::{Barrier, Command, Data, DataFlags, Socket, StateRequest, StateWord};
use std::io;

impl Node {
    /// Asks the peer for its consent to a change.
    fn agree(&mut self, change: Change) -> Result<(), String> {
        let of_connection = change.wanted_conn() == Some(ConnState::Disconnecting);
        let command = if of_connection && self.version().has_volumes() {
            Command::ConnStateChangeRequest
        } else {
            Command::StateChangeRequest
        };
        let request = StateRequest {
            mask: StateWord(change.mask),
            value: StateWord(change.val),
        };
        self.answer = None;
        self.send(Socket::Data, command, &[&request.encode()])
            .map_err(|error| error.to_string())?;
        let gone = |node: &Self| node.answer.is_some() || node.link.is_none();
        self.run_until(gone, PATIENCE);
        match self.answer.take() {
            Some(code) if code >= 1 => Ok(()),
            Some(code) => Err(format!("refused: {code}")),
            // Who agrees to part closes at once, and that may be seen before the answer.
            None if of_connection && self.link.is_none() => Ok(()),
            None => Err("no answer".to_owned()),
        }
    }

    /// Becomes Primary, `force` whatever the data is worth.
    pub(crate) fn promote(&mut self, force: bool) -> Result<(), String> {
        if self.disk.state != DiskState::UpToDate && !force {
            return Err("need an up to date disk".to_owned());
        }
        if self.link.is_some() {
            self.agree(Change::role(Role::Primary))?;
        }
        self.role = Role::Primary;
        if force {
            self.disk.state = DiskState::UpToDate;
        }
        if force || self.link.is_none() {
            self.begin_generation();
        }
        self.disk.uuids.enter_primary();
        self.save();
        self.tell(force)
    }

    /// Becomes Secondary.
    pub(crate) fn demote(&mut self) -> Result<(), String> {
        self.role = Role::Secondary;
        self.disk.uuids.enter_secondary();
        self.save();
        self.tell(false)
    }

    fn tell(&mut self, uuids: bool) -> Result<(), String> {
        if self.link.is_none() {
            return Ok(());
        }
        let mut send = || -> io::Result<()> {
            if uuids {
                self.send_uuids()?;
            }
            self.send_state()
        };
        send().map_err(|error| error.to_string())
    }

    /// Disconnects in good order.
    pub(crate) fn disconnect(&mut self) -> Result<(), String> {
        self.wanted = false;
        let agreed = match self.link {
            Some(_) => self.agree(Change::conn(ConnState::Disconnecting)),
            None => Ok(()),
        };
        self.lose("disconnected");
        self.conn = ConnState::StandAlone;
        agreed
    }

    /// Writes `word`, repeated, and waits until it is stable everywhere.
    pub(crate) fn fill(&mut self, word: &str, at_kib: u64, kib: u64) -> Result<(), String> {
        if !self.role.is_primary() {
            return Err("not Primary".to_owned());
        }
        let line = format!("{word}\n");
        let bytes: Vec<u8> = line.bytes().cycle().take((kib * 1024) as usize).collect();
        let chunk = self.version().max_request_size().min(32 * 1024) as usize;
        for (index, part) in bytes.chunks(chunk).enumerate() {
            let sector = Sector(at_kib * 2 + (index * chunk / 512) as u64);
            self.disk
                .write(sector, part)
                .map_err(|error| error.to_string())?;
            if self.replicates() {
                self.send_write(sector, part)
                    .map_err(|error| error.to_string())?;
            } else {
                self.disk.bitmap().set_range(sector, part.len() as u32);
            }
        }
        if self.protocol != 3 {
            self.writes.clear();
        }
        let acked = |node: &Self| node.writes.is_empty();
        if !self.run_until(acked, PATIENCE) {
            return Err("writes without acks".to_owned());
        }
        self.close_epoch()
    }

    fn replicates(&self) -> bool {
        self.link.is_some()
            && self.peer_disk >= DiskState::Inconsistent
            && (self.conn == ConnState::Connected || self.conn >= ConnState::WFBitMapT)
    }

    fn send_write(&mut self, sector: Sector, bytes: &[u8]) -> io::Result<()> {
        let id = self.next_write;
        self.next_write += 0x40;
        let mut flags = DataFlags::RW_SYNC;
        if self.version().has_volumes() {
            flags = match self.protocol {
                2 => flags.with(DataFlags::SEND_RECEIVE_ACK),
                3 => flags.with(DataFlags::SEND_WRITE_ACK),
                _ => flags,
            };
        }
        if self.conn.is_resync() {
            flags = flags.with(DataFlags::MAY_SET_IN_SYNC);
        }
        let data = Data {
            sector,
            block_id: BlockId(id),
            seq_num: self.next_sequence(),
            flags,
        };
        self.writes.insert(id, (sector, bytes.len() as u32));
        self.written += 1;
        self.send(Socket::Data, Command::Data, &[&data.encode(), bytes])
    }

    fn close_epoch(&mut self) -> Result<(), String> {
        if self.written == 0 {
            return Ok(());
        }
        let barrier = Barrier {
            cookie: self.cookie(),
        };
        self.barrier_pending = true;
        self.send(Socket::Data, Command::Barrier, &[&barrier.encode()])
            .map_err(|error| error.to_string())?;
        if self.run_until(|node| !node.barrier_pending, PATIENCE) {
            Ok(())
        } else {
            Err("a barrier without its ack".to_owned())
        }
    }

    /// Whether the disk has what [`Self::fill`] would write.
    pub(crate) fn holds(&self, word: &str, at_kib: u64, kib: u64) -> Result<(), String> {
        let bytes = self
            .disk
            .read(Sector(at_kib * 2), (kib * 1024) as u32)
            .map_err(|error| error.to_string())?;
        let line = format!("{word}\n");
        if bytes
            .iter()
            .copied()
            .eq(line.bytes().cycle().take(bytes.len()))
        {
            Ok(())
        } else {
            Err(format!(
                "other data: {:?}",
                String::from_utf8_lossy(&bytes[..16])
            ))
        }
    }
}
