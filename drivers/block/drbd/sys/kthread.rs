// SPDX-License-Identifier: GPL-2.0

//! Kernel threads.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    cpu::nr_cpu_ids,
    cpumask::CpumaskVar,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_long,
        c_uint,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc, //
    },
    task::Task,
    types::NotThreadSafe, //
};

use crate::{
    new_wait_queue,
    wait::WaitQueue, //
};

/// What a thread and the owner of its handle share.
#[pin_data]
struct Shared {
    stop: Atomic<bool>,
    finished: Atomic<bool>,
    #[pin]
    finish: WaitQueue,
}

/// What a thread's function knows of its thread.
pub struct Context {
    shared: Arc<Shared>,
    _thread: NotThreadSafe,
}

impl Context {
    /// Whether the owner asked the thread to end. Any context.
    pub fn should_stop(&self) -> bool {
        self.shared.stop.load(Acquire)
    }

    /// Gives the thread the lowest real-time priority: it runs before any ordinary thread.
    pub fn set_fifo_low(&self) {
        // SAFETY: The current task is valid. `Context` does not leave its thread.
        unsafe { bindings::sched_set_fifo_low(Task::current_raw()) };
    }

    /// Lets the thread run on the processors of `mask` only. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` where none of them is online.
    pub fn set_cpus(&self, mask: &CpuMask) -> Result {
        // SAFETY: The current task and the mask are valid. `Context` does not leave its thread.
        to_result(unsafe { bindings::set_cpus_allowed_ptr(Task::current_raw(), mask.0.as_raw()) })
    }

    /// Sets the thread's niceness, -20 (runs first) to 19.
    pub fn set_nice(&self, nice: i8) {
        // SAFETY: The current task is valid. Values out of range are ignored by C.
        unsafe { bindings::set_user_nice(Task::current_raw(), c_long::from(nice)) };
    }
}

/// The function and context that travel to the new thread.
struct Start<F> {
    run: F,
    context: Context,
}

/// A kernel thread, owned.
///
/// Its function always runs, exactly once, and is gone before the handle is: dropping the handle
/// asks the thread to stop and waits for its end. The handle keeps the module loaded, so
/// that it cannot be unloaded under a thread.
///
/// The function must end soon after [`Context::should_stop`] begins to hold. Stopping wakes the
/// thread when it waits on a [`WaitQueue`] whose condition includes `should_stop`; what else the
/// thread may block in (a socket) the owner ends by its own means before it stops the thread.
pub struct Thread {
    task: ARef<Task>,
    shared: Arc<Shared>,
    module: &'static ThisModule,
}

impl Thread {
    /// Starts a thread that runs `run`. May sleep.
    ///
    /// Of `name` the first 15 bytes are shown by tools.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` where the calling process is being killed; `ENODEV` where the module is
    /// being unloaded.
    pub fn spawn<F>(module: &'static ThisModule, name: &CStr, run: F) -> Result<Self>
    where
        F: FnOnce(&Context) + Send + 'static,
    {
        let shared = Arc::pin_init(
            pin_init!(Shared {
                stop: Atomic::new(false),
                finished: Atomic::new(false),
                finish <- new_wait_queue!("drbd_sys_kthread"),
            }),
            GFP_KERNEL,
        )?;
        let start = KBox::new(
            Start {
                run,
                context: Context {
                    shared: shared.clone(),
                    _thread: NotThreadSafe,
                },
            },
            GFP_KERNEL,
        )?;

        // SAFETY: `module` is a valid module, the one whose code is running.
        if !unsafe { bindings::try_module_get(module.as_ptr()) } {
            return Err(ENODEV);
        }
        let data = KBox::into_raw(start);
        // SAFETY: `entry::<F>` matches `data`, which is handed over. The format takes one string,
        // which C copies.
        let created = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(entry::<F>),
                data.cast(),
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        let task = match created {
            Ok(task) => task,
            Err(error) => {
                // SAFETY: No thread took the box.
                drop(unsafe { KBox::from_raw(data) });
                // SAFETY: Taken above.
                unsafe { bindings::module_put(module.as_ptr()) };
                return Err(error);
            }
        };
        // SAFETY: A thread that was created but not woken cannot have ended, so the task is
        // valid; the reference keeps it so after the thread has ended.
        let task = unsafe {
            bindings::get_task_struct(task);
            ARef::from_raw(NonNull::new_unchecked(task.cast::<Task>()))
        };
        task.wake_up();
        Ok(Self {
            task,
            shared,
            module,
        })
    }

    /// Asks the thread to stop, without waiting. Any context.
    pub fn request_stop(&self) {
        self.shared.stop.store(true, Release);
        self.task.wake_up();
    }

    /// Wakes the thread where it sleeps, so that it looks at its condition again. Any context.
    pub fn wake(&self) {
        self.task.wake_up();
    }

    /// Lets the thread run on the processors of `mask` only. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` where none of them is online.
    pub fn set_cpus(&self, mask: &CpuMask) -> Result {
        // SAFETY: The task and the mask are valid.
        to_result(unsafe { bindings::set_cpus_allowed_ptr(self.task.as_ptr(), mask.0.as_raw()) })
    }

    /// Whether the thread's function has returned. Any context.
    pub fn is_finished(&self) -> bool {
        self.shared.finished.load(Acquire)
    }

    /// Whether the calling thread is this one. Any context.
    pub fn is_current(&self) -> bool {
        ptr::eq(self.task.as_ptr(), Task::current_raw())
    }

    /// Asks the thread to stop and waits until it has ended. May sleep.
    pub fn stop(self) {
        drop(self);
    }

    /// Waits until the thread's function has returned, or `timeout_ms` have passed; returns
    /// whether it has. Dropping the handle does not wait for long afterwards. May sleep.
    pub fn wait_finished(&self, timeout_ms: u32) -> bool {
        self.shared
            .finish
            .wait_until_timeout(|| self.is_finished(), timeout_ms)
    }

    /// Waits until the thread has ended by itself. May sleep.
    pub fn join(self) {
        self.shared.finish.wait_until(|| self.is_finished());
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.request_stop();
        if self.is_current() {
            // A thread cannot wait for itself. The module's count is kept, which is safe: the
            // module stays loaded for good.
            pr_err!("a kernel thread dropped its own handle\n");
            return;
        }
        // C's `kthread_stop` would keep a thread that did not run yet from running at all; so it
        // is called only once the function is through, to wait for the way out of our code.
        self.shared.finish.wait_until(|| self.is_finished());
        // SAFETY: We hold a reference to the task, also where the thread has ended by itself.
        unsafe { bindings::kthread_stop(self.task.as_ptr()) };
        // SAFETY: Taken in `spawn`; the thread is out of the module's code.
        unsafe { bindings::module_put(self.module.as_ptr()) };
    }
}

/// Processors that a thread may run on.
pub struct CpuMask(CpumaskVar);

impl CpuMask {
    /// All processors. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn all() -> Result<Self> {
        let mut mask = CpumaskVar::new_zero(GFP_KERNEL)?;
        mask.setall();
        Ok(Self(mask))
    }

    /// Reads hexadecimal digits, the lowest processor last, with commas between groups of eight.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` where `digits` is something else, `EOVERFLOW` where it names a processor that this
    /// machine cannot have, `ENOMEM`.
    pub fn parse(digits: &CStr) -> Result<Self> {
        let mask = CpumaskVar::new_zero(GFP_KERNEL)?;
        let len = c_uint::try_from(digits.to_bytes().len()).map_err(|_| EINVAL)?;
        // SAFETY: `digits` has `len` bytes, and a mask has room for `nr_cpu_ids` bits, which does
        // not change once the machine is up.
        to_result(unsafe {
            let count = c_int::try_from(nr_cpu_ids())?;
            let bits = (&raw mut (*mask.as_raw()).bits).cast::<c_ulong>();
            bindings::bitmap_parse(digits.as_char_ptr(), len, bits, count)
        })?;
        Ok(Self(mask))
    }

    /// Whether it names no processor at all.
    pub fn is_empty(&self) -> bool {
        self.0.empty()
    }
}

/// The new thread's entry.
extern "C" fn entry<F: FnOnce(&Context)>(data: *mut c_void) -> c_int {
    // SAFETY: `spawn::<F>` handed over this box.
    let start = unsafe { KBox::from_raw(data.cast::<Start<F>>()) };
    let Start { run, context } = KBox::into_inner(start);
    run(&context);
    context.shared.finished.store(true, Release);
    context.shared.finish.wake_all();
    0
}
