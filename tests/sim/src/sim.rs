// SPDX-License-Identifier: GPL-2.0

//! Virtual time, threads and interrupts of both nodes: one random but reproducible order.
//!
//! A kernel thread of the module is a future here, so it reads as in the module and can be stopped
//! at any place where it waits. A completion in interrupt context is an event with a time. While
//! some thread can go on time stands still; which goes on is drawn.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::rng::Rng;
use crate::story::Story;

/// Nanoseconds in a microsecond.
pub const US: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const S: u64 = 1_000_000_000;

/// Who a thread or an event belongs to: it dies with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The world: applications, admins, fate.
    World,
    /// One node, in one of its lives.
    Node {
        /// Which node.
        node: usize,
        /// The how many-th life.
        life: u32,
    },
}

struct Task {
    owner: Owner,
    future: Pin<Box<dyn Future<Output = ()>>>,
    /// The activity up to which its wait is known to be in vain.
    seen: u64,
}

struct Event {
    owner: Owner,
    run: Box<dyn FnOnce()>,
}

/// Something after which a power cut shows whether it was true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An application or a peer was told that something is done.
    Told,
    /// Metadata was written, or a disk was flushed.
    Stored,
    /// A command of the admin has ended.
    Obeyed,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A thread went on, or an event happened.
    Moved,
    /// Nothing can ever happen any more.
    Dead,
}

/// The machine that all of it runs on.
pub struct Sim {
    now_ns: Cell<u64>,
    activity: Cell<u64>,
    yielded: Cell<bool>,
    sequence: Cell<u64>,
    /// How often a thread was let go on.
    pub polls: Cell<u64>,
    rng: RefCell<Rng>,
    tasks: RefCell<Vec<Task>>,
    spawned: RefCell<Vec<Task>>,
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    /// What happened just now, for who aims.
    pub moment: Cell<Option<Moment>>,
    /// What happened, to be told when something goes wrong.
    pub story: Story,
}

impl Sim {
    /// An empty machine.
    pub fn new(seed: u64, story: Story) -> Rc<Self> {
        Rc::new(Self {
            now_ns: Cell::new(S),
            activity: Cell::new(1),
            yielded: Cell::new(false),
            sequence: Cell::new(0),
            polls: Cell::new(0),
            rng: RefCell::new(Rng::new(seed)),
            tasks: RefCell::default(),
            spawned: RefCell::default(),
            events: RefCell::default(),
            moment: Cell::default(),
            story,
        })
    }

    /// The time.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// A random number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.rng.borrow_mut().below(end)
    }

    /// A random number from `low` to `high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        self.rng.borrow_mut().between(low, high)
    }

    /// True once in `n` times.
    pub fn one_in(&self, n: u64) -> bool {
        self.rng.borrow_mut().one_in(n)
    }

    /// A random number of 64 bits.
    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().draw()
    }

    /// Adds a line to the story.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.story.tell(self.now_ns(), line);
    }

    /// Something changed that a thread may wait for.
    pub fn touch(&self) {
        self.activity.set(self.activity.get() + 1);
    }

    /// Starts a thread.
    pub fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Task {
            owner,
            future: Box::pin(future),
            seen: 0,
        });
        self.touch();
    }

    /// Has something happen later.
    pub fn after(&self, owner: Owner, delay_ns: u64, run: impl FnOnce() + 'static) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        let event = Event {
            owner,
            run: Box::new(run),
        };
        self.events
            .borrow_mut()
            .insert((self.now_ns() + delay_ns, sequence), event);
    }

    /// Ends all threads and events of an owner, wherever they are.
    pub fn kill(&self, owner: Owner) {
        // What a thread holds may look at this machine when it is dropped, so no borrow lasts until
        // then.
        for list in [&self.tasks, &self.spawned] {
            let (dead, alive): (Vec<Task>, Vec<Task>) = list
                .take()
                .into_iter()
                .partition(|task| task.owner == owner);
            list.replace(alive);
            drop(dead);
        }
        let (dead, alive): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .events
            .take()
            .into_iter()
            .partition(|(_, event)| event.owner == owner);
        self.events.replace(alive);
        drop(dead);
        self.touch();
    }

    /// Lets one thread go on, or the time, to the next event.
    pub fn step(&self) -> Step {
        let activity = self.activity.get();
        let mut tasks = self.tasks.borrow_mut();
        tasks.append(&mut self.spawned.borrow_mut());
        let is_ready = |task: &Task| task.seen < activity;
        let ready = tasks.iter().filter(|&task| is_ready(task)).count();
        if ready == 0 {
            drop(tasks);
            return self.next_event();
        }
        let chosen = usize::try_from(self.below(ready as u64)).unwrap_or(0);
        let index = (0..tasks.len())
            .filter(|&index| is_ready(&tasks[index]))
            .nth(chosen)
            .unwrap_or(0);
        let mut task = tasks.swap_remove(index);
        drop(tasks);
        self.polls.set(self.polls.get() + 1);
        self.yielded.set(false);
        let mut context = Context::from_waker(Waker::noop());
        if task.future.as_mut().poll(&mut context).is_ready() {
            self.touch();
            return Step::Moved;
        }
        task.seen = if self.yielded.get() {
            0
        } else {
            self.activity.get()
        };
        self.tasks.borrow_mut().push(task);
        Step::Moved
    }

    fn next_event(&self) -> Step {
        let Some(((time_ns, _), event)) = self.events.borrow_mut().pop_first() else {
            return Step::Dead;
        };
        self.now_ns.set(time_ns);
        (event.run)();
        self.touch();
        Step::Moved
    }

    /// Waits for a condition, which is looked at again whenever something changed.
    pub async fn until(&self, mut condition: impl FnMut() -> bool) {
        std::future::poll_fn(|_| {
            if condition() {
                self.touch();
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Waits for a condition, but no longer than a time; whether it came true.
    pub async fn until_timeout(
        &self,
        owner: Owner,
        timeout_ns: u64,
        mut condition: impl FnMut() -> bool,
    ) -> bool {
        let deadline_ns = self.now_ns() + timeout_ns;
        self.after(owner, timeout_ns, || {});
        let mut met = false;
        self.until(|| {
            met = condition();
            met || self.now_ns() >= deadline_ns
        })
        .await;
        met
    }

    /// Sleeps.
    pub async fn sleep(&self, owner: Owner, time_ns: u64) {
        self.until_timeout(owner, time_ns, || false).await;
    }

    /// Lets others go first, if they are drawn.
    pub async fn pause(&self) {
        let mut first = true;
        std::future::poll_fn(|_| {
            if std::mem::take(&mut first) {
                self.yielded.set(true);
                Poll::Pending
            } else {
                self.touch();
                Poll::Ready(())
            }
        })
        .await;
    }
}
