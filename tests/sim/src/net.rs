// SPDX-License-Identifier: GPL-2.0

//! The wire between the nodes: pairs of sockets that deliver in order, late, or not at all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use drbd_engine::types::VolumeNr;

use crate::packet::Packet;
use crate::sim::{Owner, Sim, MS, US};

/// Packets on their way over one socket in one direction, before a sender has to wait.
const WINDOW: usize = 64;

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Writes, requests, states.
    Data = 0,
    /// Acks and pings.
    Meta = 1,
}

#[derive(Default)]
struct Inbox {
    packets: RefCell<VecDeque<(VolumeNr, Packet)>>,
    on_the_way: Cell<usize>,
    last_arrival_ns: Cell<u64>,
    /// Until when nothing is taken out.
    held_until_ns: Cell<u64>,
}

/// One node's end of a session.
#[derive(Default)]
struct End {
    inboxes: [Inbox; 2],
    /// This node shut its sockets down.
    shut: Cell<bool>,
    /// The other node did, and this one has heard of it.
    closed: Cell<bool>,
}

/// A pair of sockets, from their being connected until both ends are gone.
pub struct Session {
    sim: Rc<Sim>,
    ends: [End; 2],
    /// Nothing goes from this node to the other any more.
    cut: [Cell<bool>; 2],
    latency_ns: u64,
    /// The node that decides when both want the same thing.
    pub resolver: usize,
}

/// The socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Session {
    /// Whether there is room for a packet of this node.
    pub fn has_room(&self, from: usize, socket: Socket) -> bool {
        let inbox = &self.ends[1 - from].inboxes[socket as usize];
        inbox.on_the_way.get() + inbox.packets.borrow().len() < WINDOW
    }

    /// Sends a packet about a volume, whether there is room or not; one about the connection has
    /// volume 0.
    pub fn send(
        self: &Rc<Self>,
        from: usize,
        socket: Socket,
        volume: VolumeNr,
        packet: Packet,
    ) -> Result<(), Gone> {
        if self.is_gone(from) {
            return Err(Gone);
        }
        let sim = &self.sim;
        let to = 1 - from;
        sim.tell(|| format!("  {from} -> {to} /{} {}", volume.0, packet.name()));
        if self.cut[from].get() {
            return Ok(());
        }
        let inbox = &self.ends[to].inboxes[socket as usize];
        let earliest_ns = sim.now_ns() + sim.between(self.latency_ns / 2, self.latency_ns);
        let arrival_ns = earliest_ns.max(inbox.last_arrival_ns.get() + 1);
        inbox.last_arrival_ns.set(arrival_ns);
        inbox.on_the_way.set(inbox.on_the_way.get() + 1);
        let session = self.clone();
        sim.after(Owner::World, arrival_ns - sim.now_ns(), move || {
            let end = &session.ends[to];
            let inbox = &end.inboxes[socket as usize];
            inbox.on_the_way.set(inbox.on_the_way.get() - 1);
            if !session.cut[from].get() && !end.shut.get() {
                inbox.packets.borrow_mut().push_back((volume, packet));
            }
        });
        Ok(())
    }

    /// Takes the next packet, if there is one.
    pub fn receive(&self, node: usize, socket: Socket) -> Option<(VolumeNr, Packet)> {
        let inbox = &self.ends[node].inboxes[socket as usize];
        if self.has_packet(node, socket) {
            inbox.packets.borrow_mut().pop_front()
        } else {
            None
        }
    }

    /// Whether a packet is there to be received.
    pub fn has_packet(&self, node: usize, socket: Socket) -> bool {
        let inbox = &self.ends[node].inboxes[socket as usize];
        let is_held = self.sim.now_ns() < inbox.held_until_ns.get();
        !is_held && !inbox.packets.borrow().is_empty()
    }

    /// Whether this end is of no use any more.
    pub fn is_gone(&self, node: usize) -> bool {
        self.ends[node].shut.get() || self.ends[node].closed.get()
    }

    /// This node shuts its sockets down; the other will hear of it unless the wire is cut.
    pub fn shut_down(self: &Rc<Self>, node: usize) {
        if self.ends[node].shut.replace(true) {
            return;
        }
        self.sim.touch();
        let to = 1 - node;
        let last_ns = [Socket::Data, Socket::Meta]
            .map(|socket| self.ends[to].inboxes[socket as usize].last_arrival_ns.get());
        let arrival_ns = last_ns[0].max(last_ns[1]).max(self.sim.now_ns()) + self.latency_ns;
        let session = self.clone();
        self.sim
            .after(Owner::World, arrival_ns - self.sim.now_ns(), move || {
                if !session.cut[node].get() {
                    session.ends[to].closed.set(true);
                }
            });
    }

    /// The node is gone without a word: its sockets answer nothing.
    pub fn vanish(&self, node: usize) {
        self.ends[node].shut.set(true);
        self.cut[node].set(true);
    }
}

/// Where a node that looks for its peer is told of the session.
type Offer = Rc<RefCell<Option<Rc<Session>>>>;

/// The wire.
pub struct Net {
    sim: Rc<Sim>,
    latency_ns: u64,
    up: [Cell<bool>; 2],
    /// Who looks for the peer, and where it is to be told.
    offers: RefCell<[Option<Offer>; 2]>,
    session: RefCell<Option<Rc<Session>>>,
}

impl Net {
    /// A wire that is up.
    pub fn new(sim: Rc<Sim>, latency_ns: u64) -> Rc<Self> {
        Rc::new(Self {
            sim,
            latency_ns,
            up: [Cell::new(true), Cell::new(true)],
            offers: RefCell::default(),
            session: RefCell::default(),
        })
    }

    /// Whether both directions work.
    pub fn is_up(&self) -> bool {
        self.up.iter().all(Cell::get)
    }

    /// Cuts one direction: packets from this node are lost from now on.
    pub fn cut(&self, from: usize) {
        self.up[from].set(false);
        if let Some(session) = &*self.session.borrow() {
            session.cut[from].set(true);
        }
    }

    /// The wire works again; what was lost stays lost, so a session over it is stuck.
    pub fn mend(self: &Rc<Self>) {
        for up in &self.up {
            up.set(true);
        }
        self.meet();
    }

    /// Resets the sockets of both ends.
    pub fn reset(&self) {
        if let Some(session) = &*self.session.borrow() {
            for end in &session.ends {
                end.closed.set(true);
            }
        }
        self.sim.touch();
    }

    /// Looks for the peer: the session appears in the cell that is returned.
    pub fn offer(self: &Rc<Self>, node: usize) -> Rc<RefCell<Option<Rc<Session>>>> {
        let cell = Rc::new(RefCell::new(None));
        self.offers.borrow_mut()[node] = Some(cell.clone());
        self.meet();
        cell
    }

    /// Looks no more.
    pub fn withdraw(&self, node: usize) {
        self.offers.borrow_mut()[node] = None;
    }

    /// The node is gone.
    pub fn vanish(&self, node: usize) {
        self.withdraw(node);
        if let Some(session) = &*self.session.borrow() {
            session.vanish(node);
        }
    }

    /// Nothing arrives for a while; then all of it does.
    pub fn stall(&self, time_ns: u64) {
        if let Some(session) = &*self.session.borrow() {
            let until_ns = self.sim.now_ns() + time_ns;
            for inbox in session.ends.iter().flat_map(|end| &end.inboxes) {
                let last_ns = inbox.last_arrival_ns.get();
                inbox.last_arrival_ns.set(last_ns.max(until_ns));
            }
        }
    }

    /// The same for what one node sends over one socket.
    pub fn stall_one(&self, from: usize, socket: Socket, time_ns: u64) {
        if let Some(session) = &*self.session.borrow() {
            let inbox = &session.ends[1 - from].inboxes[socket as usize];
            let last_ns = inbox.last_arrival_ns.get();
            inbox
                .last_arrival_ns
                .set(last_ns.max(self.sim.now_ns() + time_ns));
        }
    }

    /// The same, for what has arrived and was not taken, too.
    pub fn hold_one(&self, from: usize, socket: Socket, time_ns: u64) {
        if let Some(session) = &*self.session.borrow() {
            let inbox = &session.ends[1 - from].inboxes[socket as usize];
            inbox.held_until_ns.set(self.sim.now_ns() + time_ns);
            let sim = self.sim.clone();
            self.sim.after(Owner::World, time_ns, move || sim.touch());
        }
    }

    fn meet(self: &Rc<Self>) {
        let net = self.clone();
        let delay_ns = self.sim.between(self.latency_ns, self.latency_ns * 4 + MS);
        self.sim.after(Owner::World, delay_ns, move || {
            let mut offers = net.offers.borrow_mut();
            if !net.is_up() || offers.iter().any(Option::is_none) {
                return;
            }
            let session = Rc::new(Session {
                sim: net.sim.clone(),
                ends: Default::default(),
                cut: Default::default(),
                latency_ns: net.latency_ns.max(US),
                resolver: usize::from(net.sim.one_in(2)),
            });
            for offer in offers.iter_mut() {
                if let Some(cell) = offer.take() {
                    cell.replace(Some(session.clone()));
                }
            }
            net.session.replace(Some(session));
        });
    }
}
