// SPDX-License-Identifier: GPL-2.0

//! What the whole module shares: its handle, the bio reserve and the queue for delayed bios.

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

/// Facilities that every resource uses.
pub(crate) struct Environment {
    /// The module, which threads and open devices keep loaded.
    pub(crate) module: &'static ThisModule,
    /// Runs application bios that had to wait, one item a device.
    pub(crate) submit_queue: OwnQueue,
    /// Where all bios come from.
    pub(crate) bios: BioSet,
}

impl Environment {
    /// Whether pages are copied to the socket instead of lent: the parameter `disable_sendpage`. Any context.
    pub(crate) fn copies_pages(&self) -> bool {
        params::disable_sendpage()
    }

    /// Sets the facilities up. May sleep.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        let environment = Self {
            module,
            submit_queue: OwnQueue::new(c"drbd_submit", Order::Concurrent)?,
            bios: BioSet::new(BIO_RESERVE)?,
        };
        Ok(Arc::new(environment, GFP_KERNEL)?)
    }
}
