// SPDX-License-Identifier: GPL-2.0

//! Limits on the pages that one user's buffers may hold.

use super::{
    Buffer,
    Pool, //
};
use kernel::{
    new_condvar,
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        CondVarTimeoutResult,
        SpinLockIrq, //
    },
    time::msecs_to_jiffies, //
};

/// How long an allocation waits for pages to be given back before it goes beyond the limit, and how
/// many times the limit may be in use then.
const PATIENCE_MS: u32 = 100;
const EXCESS: usize = 4;

/// A limit on the pages that the buffers of one user (a connection) may hold.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct Account(Arc<AccountInner>);

#[pin_data]
struct AccountInner {
    #[pin]
    ledger: SpinLockIrq<Ledger>,
    #[pin]
    room: CondVar,
}

struct Ledger {
    used_pages: usize,
    limit_pages: usize,
    closed: bool,
}

/// Pages on an account, for as long as a buffer lives.
pub(super) struct Charge {
    account: Arc<AccountInner>,
    pages: usize,
}

impl Account {
    /// Creates an account of at most `limit_pages` pages.
    ///
    /// Errors: `ENOMEM`. Context: may sleep.
    pub fn new(limit_pages: usize) -> Result<Self> {
        Ok(Self(Arc::pin_init(
            try_pin_init!(AccountInner {
                ledger <- new_spinlock_irq!(Ledger {
                    used_pages: 0,
                    limit_pages,
                    closed: false,
                }),
                room <- new_condvar!(),
            }),
            GFP_KERNEL,
        )?))
    }

    /// Allocates a buffer on this account as [`Pool::alloc`] does, and waits for room first.
    ///
    /// Where nothing is given back for a while it goes beyond the limit: two nodes that are each
    /// the source of some volumes and the target of others may hold all their pages until the
    /// other has some.
    ///
    /// An empty account takes any buffer, so one that exceeds the limit by itself does not wait
    /// forever. Errors: `EINVAL` for the length, `ESHUTDOWN` once closed, `EINTR` on a signal.
    pub fn alloc(&self, pool: &Pool, len_bytes: usize) -> Result<Buffer> {
        let charge = self.charge(len_bytes.div_ceil(PAGE_SIZE), true)?;
        self.alloc_charged(pool, len_bytes, charge)
    }

    /// As [`Account::alloc`], but answers `EAGAIN` instead of waiting for room.
    pub fn try_alloc(&self, pool: &Pool, len_bytes: usize) -> Result<Buffer> {
        let charge = self.charge(len_bytes.div_ceil(PAGE_SIZE), false)?;
        self.alloc_charged(pool, len_bytes, charge)
    }

    fn alloc_charged(&self, pool: &Pool, len_bytes: usize, charge: Charge) -> Result<Buffer> {
        let mut buffer = pool.alloc(len_bytes)?;
        buffer.set_charge(charge);
        Ok(buffer)
    }

    fn charge(&self, pages: usize, wait: bool) -> Result<Charge> {
        let mut ledger = self.0.ledger.lock();
        let mut is_stretched = false;
        loop {
            if ledger.closed {
                return Err(ESHUTDOWN);
            }
            let used_pages = ledger.used_pages.saturating_add(pages);
            let fits = used_pages <= ledger.limit_pages || is_stretched;
            if ledger.used_pages == 0 || fits {
                ledger.used_pages = used_pages;
                return Ok(Charge {
                    account: self.0.clone(),
                    pages,
                });
            }
            if !wait {
                return Err(EAGAIN);
            }
            let patience = msecs_to_jiffies(PATIENCE_MS);
            match self
                .0
                .room
                .wait_interruptible_timeout(&mut ledger, patience)
            {
                CondVarTimeoutResult::Woken { .. } => {}
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
                CondVarTimeoutResult::Timeout => {
                    let limit_pages = ledger.limit_pages.saturating_mul(EXCESS);
                    is_stretched = ledger.used_pages < limit_pages;
                }
            }
        }
    }

    /// Changes the limit. Context: any.
    pub fn set_limit(&self, limit_pages: usize) {
        self.0.ledger.lock().limit_pages = limit_pages;
        self.0.room.notify_all();
    }

    /// The pages in use. Context: any.
    pub fn used_pages(&self) -> usize {
        self.0.ledger.lock().used_pages
    }

    /// Makes allocations on the account fail and those that wait return. Context: any.
    pub fn close(&self) {
        self.0.ledger.lock().closed = true;
        self.0.room.notify_all();
    }

    /// Allows allocations again. Context: any.
    pub fn reopen(&self) {
        self.0.ledger.lock().closed = false;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut ledger = self.account.ledger.lock();
        ledger.used_pages = ledger.used_pages.saturating_sub(self.pages);
        drop(ledger);
        self.account.room.notify_all();
    }
}
