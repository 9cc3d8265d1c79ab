// SPDX-License-Identifier: GPL-2.0

//! What the whole module shares: its handle, the bio reserve, the queues for delayed bios and for
//! blocks to be erased, and where events go.

use drbd_sys::{
    bio::BioSet,
    params,
    workqueue::{
        Order,
        OwnQueue, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::limits::BIO_RESERVE;
use crate::notify::Notifier;

/// Facilities that every resource uses.
pub(crate) struct Environment {
    /// The module, which threads and open devices keep loaded.
    pub(crate) module: &'static ThisModule,
    /// Runs application bios that had to wait, one item a device.
    pub(crate) submit_queue: OwnQueue,
    /// Erases blocks, one item a device. A disk that does not answer keeps such an item, and no
    /// other.
    pub(crate) erase_queue: OwnQueue,
    /// Where all bios come from.
    pub(crate) bios: BioSet,
    /// Where events go.
    pub(crate) notifier: Arc<Notifier>,
}

impl Environment {
    /// Whether pages are copied to the socket instead of lent: the parameter `disable_sendpage`.
    /// Any context.
    pub(crate) fn copies_pages(&self) -> bool {
        params::disable_sendpage()
    }

    /// Sets the facilities up. May sleep.
    pub(crate) fn new(module: &'static ThisModule, notifier: Arc<Notifier>) -> Result<Arc<Self>> {
        let environment = Self {
            module,
            submit_queue: OwnQueue::new(c"drbd_submit", Order::Concurrent)?,
            erase_queue: OwnQueue::new(c"drbd_erase", Order::Concurrent)?,
            bios: BioSet::new(BIO_RESERVE)?,
            notifier,
        };
        Ok(Arc::new(environment, GFP_KERNEL)?)
    }
}
