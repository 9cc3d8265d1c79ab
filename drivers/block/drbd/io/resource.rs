// SPDX-License-Identifier: GPL-2.0

//! A resource: a name, options, one connection, and the volumes that are replicated over it.

use core::fmt;

use drbd_engine::{
    config::{
        text::{
            Lossy,
            Text, //
        },
        OnNoData,
        ResourceOptions, //
    },
    state::ConnState,
    types::{
        Minor,
        VolumeNr, //
    },
};
use drbd_sys::{
    bits::AtomicBits32,
    kthread::Thread,
    log,
    new_timer,
    new_wait_queue,
    timer::Timer,
    wait::WaitQueue, //
};
use kernel::{
    new_mutex, new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};

use super::{
    connection::Connection,
    device::{
        Device,
        Gauge, //
    },
    environment::Environment,
    fifo::Fifo,
    limits::{
        PEER_REQUESTS_MAX,
        REQUESTS_MAX, //
    },
    request::RequestTable,
    state::{
        Control,
        Phase, //
    },
    worker::{
        Bell,
        Work,
        BARRIER_MS, //
    },
};

/// A resource's name, at most 127 bytes.
pub(crate) type Name = Text<127>;

/// The kernel threads of a resource.
#[derive(Default)]
pub(crate) struct Threads {
    /// Sends, and carries out what state changes ask for.
    pub(crate) worker: Option<Thread>,
    /// Connects and receives.
    pub(crate) receiver: Option<Thread>,
    /// Waits for the helper that fences a lost peer.
    pub(crate) fencer: Option<Thread>,
    /// The fencer has not decided to end yet.
    pub(crate) fencer_runs: bool,
    /// A peer was lost that the fencer does not know of.
    pub(crate) fencer_wanted: bool,
}

/// A resource. Shared by the registry, its devices and its threads.
#[pin_data]
pub(crate) struct Resource {
    name: Name,
    /// What the whole module shares.
    pub(crate) environment: Arc<Environment>,
    /// One command at a time.
    #[pin]
    pub(crate) admin: Mutex<()>,
    /// The state of the connection and what the rules read beside the state words; serialises
    /// changes.
    #[pin]
    pub(crate) control: Mutex<Control>,
    /// The volumes, in the order of their numbers; copies of `control`'s list for readers in any
    /// context.
    #[pin]
    volumes: SpinLockIrq<KVec<Arc<Device>>>,
    /// The connection to the peer.
    #[pin]
    pub(crate) connection: Connection,
    /// Slots for application requests.
    #[pin]
    pub(crate) requests: RequestTable,
    /// The option on-no-data-accessible, for any context: whether requests without data wait.
    suspends_without_data: AtomicBits32,
    /// Application bios of all volumes that wait.
    pub(crate) delayed: Gauge,
    /// What the worker is to do, from any context.
    #[pin]
    pub(crate) work: Fifo<Work>,
    /// Wakes the worker.
    pub(crate) bell: Arc<Bell>,
    /// Rings it for the barrier of an epoch that no write followed.
    #[pin]
    barrier_timer: Timer<Arc<Bell>>,
    /// 1 from before a state is published until the worker has sent what the peer is to know of it.
    unsent_changes: AtomicBits32,
    /// How often the worker looked at everything.
    pub(crate) worker_turns: AtomicBits32,
    /// 1 while the worker runs.
    pub(crate) worker_runs: AtomicBits32,
    /// Whoever waits for a state, an answer or the end of something waits here.
    #[pin]
    pub(crate) waiters: WaitQueue,
    #[pin]
    pub(crate) threads: Mutex<Threads>,
    /// How often `cpu-mask` was set.
    pub(super) cpu_mask_changes: AtomicBits32,
}

impl Resource {
    /// Makes a resource without volumes that is StandAlone. May sleep.
    pub(crate) fn new(
        name: Name,
        options: ResourceOptions,
        environment: Arc<Environment>,
    ) -> Result<Arc<Self>> {
        let bell = Arc::pin_init(Bell::new(), GFP_KERNEL)?;
        let rings = bell.clone();
        Arc::pin_init(
            try_pin_init!(Self {
                name,
                environment,
                admin <- new_mutex!((), "drbd_admin"),
                control <- new_mutex!(Control::new(options), "drbd_control"),
                volumes <- new_spinlock_irq!(KVec::new(), "drbd_volumes"),
                connection <- Connection::new(),
                requests <- RequestTable::new(),
                suspends_without_data: AtomicBits32::new(0),
                delayed: Gauge::default(),
                work <- Fifo::new(REQUESTS_MAX + PEER_REQUESTS_MAX),
                bell,
                barrier_timer <- new_timer!(rings, "drbd_barrier"),
                unsent_changes: AtomicBits32::new(0),
                worker_turns: AtomicBits32::new(0),
                worker_runs: AtomicBits32::new(0),
                waiters <- new_wait_queue!("drbd_waiters"),
                threads <- new_mutex!(Threads::default(), "drbd_threads"),
                cpu_mask_changes: AtomicBits32::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// The resource's name.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// The volume with this number. Any context.
    pub(crate) fn volume(&self, number: VolumeNr) -> Option<Arc<Device>> {
        let volumes = self.volumes.lock();
        volumes
            .iter()
            .find(|device| device.volume == number)
            .cloned()
    }

    /// All volumes, in the order of their numbers. Each is looked up when it is its turn, so the
    /// caller may sleep in between, and others may come and go.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = Arc<Device>> + '_ {
        let mut last = None;
        core::iter::from_fn(move || {
            let volumes = self.volumes.lock();
            let next = volumes.iter().find(|device| Some(device.volume) > last)?;
            last = Some(next.volume);
            Some(next.clone())
        })
    }

    /// The lowest minor, which the threads are named after; 0 without volumes.
    pub(crate) fn lowest_minor(&self) -> Minor {
        let volumes = self.volumes.lock();
        volumes
            .iter()
            .map(|device| device.minor)
            .min()
            .unwrap_or_default()
    }

    /// Adds a volume. May sleep; the caller holds `admin`.
    pub(crate) fn add_volume(&self, device: Arc<Device>) -> Result {
        self.control.lock().add_volume(device.clone())?;
        loop {
            let wanted = self.volumes.lock().len().saturating_add(1);
            let mut fresh = KVec::with_capacity(wanted, GFP_KERNEL)?;
            let mut volumes = self.volumes.lock();
            if volumes.len() >= wanted {
                continue;
            }
            while let Ok(next) = volumes.remove(0) {
                if fresh.push_within_capacity(next).is_err() {
                    break;
                }
            }
            let at = fresh
                .iter()
                .position(|other: &Arc<Device>| other.volume > device.volume)
                .unwrap_or(fresh.len());
            if fresh.insert_within_capacity(at, device).is_err() {
                return Err(ENOMEM);
            }
            core::mem::swap(&mut *volumes, &mut fresh);
            drop(volumes);
            return Ok(());
        }
    }

    /// Takes a volume out. May sleep; the caller holds `admin`.
    pub(crate) fn remove_volume(&self, device: &Device) {
        self.control.lock().remove_volume(device);
        let mut volumes = self.volumes.lock();
        let at = volumes
            .iter()
            .position(|other| core::ptr::eq(&**other, device));
        let removed = at.and_then(|at| volumes.remove(at).ok());
        drop(volumes);
        drop(removed);
    }

    /// What to do with requests that no copy of the data can serve. Any context.
    pub(crate) fn on_no_data(&self) -> OnNoData {
        match self.suspends_without_data.load() {
            0 => OnNoData::IoError,
            _ => OnNoData::SuspendIo,
        }
    }

    /// Changes the options. May sleep.
    pub(crate) fn set_options(&self, options: &ResourceOptions) {
        self.control.lock().options = *options;
        let suspends = options.on_no_data == OnNoData::SuspendIo;
        self.suspends_without_data.store(u32::from(suspends));
    }

    /// The options. May sleep.
    pub(crate) fn options(&self) -> ResourceOptions {
        self.control.lock().options
    }

    /// Whether a device has a chore.
    pub(crate) fn any_device_chore(&self) -> bool {
        self.volumes
            .lock()
            .iter()
            .any(|device| device.chores.load() != 0)
    }

    /// Whether the peer is yet to be told of a change of state. Any context; exact for whoever
    /// holds the log's lock, under which states are published.
    pub(crate) fn has_unsent_changes(&self) -> bool {
        self.unsent_changes.any(1)
    }

    /// A change is about to be published, or all were told. The caller holds `control`.
    pub(super) fn set_unsent_changes(&self, unsent: bool) {
        self.unsent_changes.store(u32::from(unsent));
    }

    /// Tells the worker to look after something. Any context.
    pub(crate) fn chore(&self, chore: u32) {
        self.bell.ring(chore);
    }

    /// A barrier was noted ([`Bell::note_barrier`]): it goes with the next write, or by itself
    /// soon. Any context.
    pub(crate) fn await_barrier(&self) {
        self.barrier_timer.ensure_started_ms(BARRIER_MS);
    }

    /// Gives the worker something to do. Any context.
    ///
    /// The queue has room for every request there can be, so a refusal is a defect of this module,
    /// and said so in the log.
    pub(crate) fn give_work(&self, work: Work) {
        match self.work.push(work) {
            Ok(true) => self.bell.wake(),
            Ok(false) => {}
            Err(_) => log!(Error, self, "work queue overflow"),
        }
    }

    /// How far the connection is. May sleep.
    pub(crate) fn phase(&self) -> Phase {
        self.control.lock().phase()
    }

    /// The connection's own state. May sleep.
    pub(crate) fn cstate(&self) -> ConnState {
        self.control.lock().conn()
    }
}

impl Resource {
    /// What stands in front of log lines.
    pub(crate) fn log_name(&self) -> &Self {
        self
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drbd {}", Lossy(self.name.as_bytes()))
    }
}
