// SPDX-License-Identifier: GPL-2.0

//! The thread `drbdN_worker`: sends what is queued, and does what other threads and interrupts
//! leave for it.

use drbd_engine::state::{
    ConnState,
    State, //
};
use drbd_sys::{
    bits::{
        AtomicBits32,
        AtomicBits64, //
    },
    kthread::{
        self,
        Thread, //
    },
    log,
    new_wait_queue,
    reclaim::NoIoScope,
    time::monotonic_ns,
    timer::Expire,
    wait::WaitQueue, //
};
use kernel::{
    alloc::KBox,
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::{
    after,
    device::Device,
    disk_timer,
    peer_request::PeerRequest,
    resource::Resource,
    resync,
    sender, //
};

/// What the worker looks after: bits of [`Resource::chore`] and [`Device::chores`].
///
/// A chore says that something may be due; looking finds out what. Setting one twice is setting it
/// once.
pub(crate) mod chore {
    /// Resource: state changes have deferred effects.
    pub(crate) const AFTER_STATE: u32 = 1 << 0;
    /// Resource: the transfer log has something to send.
    pub(crate) const SEND: u32 = 1 << 1;
    /// Resource: look at everything once.
    pub(crate) const LOOK: u32 = 1 << 12;
    /// Resource: a submitting task could not send; the connection is of no use any more.
    pub(crate) const SEND_FAILED: u32 = 1 << 13;
    /// Resource: the lost peer is not fenced, and nothing waits for that.
    pub(crate) const NOT_FENCED: u32 = 1 << 14;
    /// Device: the resync or verify may ask for more, or blocks that were in use may be read.
    pub(crate) const RESYNC_TURN: u32 = 1 << 2;
    /// Device: the resync or verify may be at its end.
    pub(crate) const RESYNC_DONE: u32 = 1 << 3;
    /// Device: start the resync as source.
    pub(crate) const START_SOURCE: u32 = 1 << 4;
    /// Device: start the resync as target.
    pub(crate) const START_TARGET: u32 = 1 << 5;
    /// Device: the failed disk is unused, let it go.
    pub(crate) const GO_DISKLESS: u32 = 1 << 6;
    /// Device: the backing device failed.
    pub(crate) const DISK_FAILED: u32 = 1 << 7;
    /// Device: the metadata changed.
    pub(crate) const SYNC_METADATA: u32 = 1 << 8;
    /// Device: the metadata device failed.
    pub(crate) const METADATA_FAILED: u32 = 1 << 9;
}

/// What the worker is woken by.
#[pin_data]
pub(crate) struct Bell {
    /// What it is to look after: a set of [`chore`].
    chores: AtomicBits32,
    /// When the epoch ended of which the barrier is not sent; 0 where there is none.
    barrier_since_ns: AtomicBits64,
    /// It waits here.
    #[pin]
    wait: WaitQueue,
}

impl Bell {
    /// A bell that nobody rang.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            chores: AtomicBits32::new(0),
            barrier_since_ns: AtomicBits64::new(0),
            wait <- new_wait_queue!("drbd_worker"),
        })
    }

    /// Tells the worker to look after something. Any context.
    pub(crate) fn ring(&self, chore: u32) {
        // Who set it first has woken the worker, or is about to.
        if self.chores.set(chore) & chore != chore {
            self.wait.wake_all();
        }
    }

    /// An epoch ended, its barrier is to be sent. Under the lock of the transfer log.
    pub(crate) fn note_barrier(&self, now_ns: u64) {
        self.barrier_since_ns.store(now_ns);
    }

    /// There is no barrier to be sent any more. Under the lock of the transfer log.
    pub(crate) fn forget_barrier(&self) {
        self.barrier_since_ns.store(0);
    }

    /// Makes the worker look at its queue. Any context.
    pub(crate) fn wake(&self) {
        self.wait.wake_all();
    }

    /// Whether there is something to look after. Any context.
    pub(crate) fn has_chores(&self) -> bool {
        self.chores.load() != 0
    }
}

impl Expire for Bell {
    /// Where no write came to take the barrier of the last epoch along, the worker sends it.
    fn expire(&self) -> Option<u32> {
        let (since_ns, _) = self.barrier_since_ns.update(|since_ns| since_ns);
        if since_ns == 0 {
            return None;
        }
        let age_ms = monotonic_ns().saturating_sub(since_ns) / 1_000_000;
        let left_ms = u64::from(BARRIER_MS).saturating_sub(age_ms);
        match u32::try_from(left_ms) {
            Ok(left_ms) if left_ms > 0 => Some(left_ms),
            _ => {
                self.ring(chore::SEND);
                None
            }
        }
    }
}

/// Something for the worker that belongs to one request.
pub(crate) enum Work {
    /// A read for the peer ended: answer it.
    Answer(KBox<PeerRequest>),
}

/// A change of a volume's state whose deferred effects are due.
pub(crate) struct After {
    /// The volume.
    pub(crate) device: Arc<Device>,
    /// The state before.
    pub(crate) old: State,
    /// The state after.
    pub(crate) new: State,
    /// New writes wait until the effects are carried out.
    pub(crate) holds_writes: bool,
    /// The peer is to be sent UUIDs and state first.
    pub(crate) resends: bool,
}

/// A change of the connection's state whose deferred effects are due.
pub(crate) struct AfterConnection {
    /// The state before.
    pub(crate) old: ConnState,
    /// The state after.
    pub(crate) new: ConnState,
}

/// How long the barrier of an epoch waits for a write that takes it along.
pub(crate) const BARRIER_MS: u32 = 10;
/// How long the worker sleeps when nothing has a deadline.
const IDLE_MS: u32 = 1000;
/// How long the worker goes on answering the peer before it looks after everything else.
const ANSWERS_NS: u64 = 10_000_000;
/// Longest single wait for the worker.
const FLUSH_NAP_MS: u32 = 60_000;

impl Resource {
    /// Starts the worker where it does not run. May sleep; the caller holds `admin`.
    pub(crate) fn ensure_worker(self: &Arc<Self>) -> Result {
        let mut threads = self.threads.lock();
        if threads.worker.is_some() {
            return Ok(());
        }
        let name = CString::try_from_fmt(fmt!("drbd{}_worker", self.lowest_minor().0))?;
        let resource = self.clone();
        let run = move |context: &kthread::Context| run(&resource, context);
        threads.worker = Some(Thread::spawn(self.environment.module, &name, run)?);
        log!(Info, self, "Starting worker thread");
        Ok(())
    }

    /// Stops the worker after it did what it was given. May sleep; the caller holds `admin`.
    pub(crate) fn stop_worker(&self) {
        let worker = self.threads.lock().worker.take();
        if let Some(worker) = worker {
            worker.request_stop();
            self.bell.wake();
            worker.stop();
            log!(Info, self, "Terminating worker thread");
        }
    }

    /// Waits until the worker has done what it was given before. May sleep; not from the worker.
    pub(crate) fn flush_worker(&self) {
        while !self.flush_worker_within(FLUSH_NAP_MS) {}
    }

    /// Waits for the worker as [`Self::flush_worker`] does, but for `timeout_ms` at most: metadata
    /// that a disk does not write keep it. Returns whether it is through. May sleep; not from the
    /// worker.
    pub(crate) fn flush_worker_within(&self, timeout_ms: u32) -> bool {
        if self.threads.lock().worker.is_none() {
            return true;
        }
        // Two turns: the one under way may have looked already.
        (0..2).all(|_| {
            let turns = self.worker_turns.load();
            self.chore(chore::LOOK);
            let is_through = || self.worker_turns.load() != turns || !self.has_worker();
            self.waiters.wait_until_timeout(is_through, timeout_ms / 2)
        })
    }

    fn has_worker(&self) -> bool {
        self.worker_runs.any(1)
    }
}

fn run(resource: &Arc<Resource>, context: &kthread::Context) {
    let _scope = NoIoScope::enter();
    resource.enter_cpu_mask(context);
    resource.worker_runs.set(1);
    loop {
        let stop = context.should_stop();
        let deadline_ms = turn(resource);
        resource.worker_turns.update(|turns| turns.wrapping_add(1));
        resource.waiters.wake_all();
        if stop && !resource.has_chores() && resource.work.is_empty() {
            break;
        }
        resource.bell.wait.wait_until_timeout(
            || {
                resource.has_chores()
                    || !resource.work.is_empty()
                    || (context.should_stop() && !stop)
            },
            deadline_ms,
        );
    }
    resource.worker_runs.clear(1);
    resource.waiters.wake_all();
}

impl Resource {
    fn has_chores(&self) -> bool {
        self.bell.has_chores() || self.any_device_chore()
    }
}

/// Does everything there is to do now; returns how long nothing is due by itself, in milliseconds.
fn turn(resource: &Arc<Resource>) -> u32 {
    let chores = resource.bell.chores.clear(u32::MAX);
    if chores & chore::SEND_FAILED != 0 {
        resource.lose_connection(ConnState::BrokenPipe);
    }
    if chores & chore::AFTER_STATE != 0 {
        after::carry_out(resource);
    }
    if chores & chore::NOT_FENCED != 0 {
        after::give_up_fencing(resource);
    }
    // The socket may take long for an answer: neither a state change nor a write of the application
    // waits for all that a resync asks for.
    let ends_ns = monotonic_ns().saturating_add(ANSWERS_NS);
    let mut answered = false;
    loop {
        let is_left = sender::send_some(resource);
        let work = resource.work.pop();
        let is_idle = work.is_none() && !is_left;
        if let Some(Work::Answer(request)) = work {
            sender::answer(resource, request);
            answered = true;
        }
        if is_left {
            // Or it would be waited for what has come already.
            resource.chore(chore::SEND);
        }
        if is_idle || resource.has_chores() || monotonic_ns() >= ends_ns {
            break;
        }
    }
    if answered {
        resource.push_data();
    }
    let now_ns = monotonic_ns();
    let mut sleep_ms = IDLE_MS;
    for device in resource.volumes() {
        let chores = device.chores.clear(u32::MAX);
        after::look_after(&device, chores);
        sleep_ms = sleep_ms.min(resync::turn(&device, chores, now_ns));
        sleep_ms = sleep_ms.min(after::sync_when_due(&device, now_ns));
        sleep_ms = sleep_ms.min(disk_timer::look(&device, now_ns));
    }
    sleep_ms.min(resync::retry_aside(resource))
}
