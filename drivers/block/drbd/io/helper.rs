// SPDX-License-Identifier: GPL-2.0

//! Helpers: programs in user space that are told of events, and asked for decisions (spec §5.8).

use core::fmt;

use drbd_engine::config::text::Lossy;
use drbd_sys::{
    log,
    params::{
        self,
        HELPER_PATH_SIZE, //
    },
    socket::SocketAddr,
    umh, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::{
    device::Device,
    resource::Resource, //
};

/// Runs a helper for a device and waits for its end. May sleep, for as long as the helper takes.
///
/// Returns the raw wait status (exit code times 256), or a negative errno where it could not run; 0
/// where helpers are switched off. The helper may use drbdsetup, so no lock may be held that a
/// command takes, but for the resource's `admin`.
pub(crate) fn run(device: &Arc<Device>, name: &str) -> i32 {
    let subject = Subject {
        resource: &device.resource,
        device: Some(device),
    };
    subject.run(name)
}

/// Runs a helper for a resource; as [`run`] otherwise.
pub(crate) fn run_for_resource(resource: &Resource, name: &str) -> i32 {
    let subject = Subject {
        resource,
        device: None,
    };
    subject.run(name)
}

/// What a helper runs for.
struct Subject<'a> {
    resource: &'a Resource,
    device: Option<&'a Arc<Device>>,
}

impl Subject<'_> {
    fn log_name(&self) -> &Self {
        self
    }

    fn run(&self, name: &str) -> i32 {
        self.sync_metadata();
        let Ok(argument) = self.argument() else {
            return ENOMEM.to_errno();
        };
        let Some(path) = configured_path() else {
            return 0;
        };
        let device = self.device.map(|device| &**device);
        let command = Command {
            path: &path,
            name,
            argument: &argument,
        };
        log!(Info, self, "helper command: {}", command);
        crate::notify::helper(self.resource, device, name, None);
        let status = match self.call(&path, name, &argument) {
            Ok(status) => i32::try_from(status).unwrap_or(i32::MAX),
            Err(error) => error.to_errno(),
        };
        // CAST: The same bits; an errno shows an exit code of 255 then.
        let raw = status as u32;
        let code = (raw >> 8) & 0xff;
        if status == 0 {
            log!(
                Info,
                self,
                "helper command: {} exit code {} (0x{:x})",
                command,
                code,
                raw
            );
        } else {
            log!(
                Warning,
                self,
                "helper command: {} exit code {} (0x{:x})",
                command,
                code,
                raw
            );
        }
        crate::notify::helper(self.resource, device, name, Some(raw));
        status
    }

    /// The helper may take its time: what changed is written before.
    fn sync_metadata(&self) {
        for device in self.resource.volumes() {
            let is_meant = self.device.is_none_or(|meant| Arc::ptr_eq(meant, &device));
            if let Some(local) = device.local().filter(|_| is_meant) {
                // An error has cost the disk already.
                let _ = local.sync(&device);
            }
        }
    }

    fn argument(&self) -> Result<CString> {
        Ok(match self.device {
            Some(device) => CString::try_from_fmt(format_args!("minor-{}", device.minor))?,
            None => {
                let name = Lossy(self.resource.name().as_bytes());
                CString::try_from_fmt(format_args!("{name}"))?
            }
        })
    }

    fn call(&self, path: &CStr, name: &str, argument: &CStr) -> Result<u32> {
        let name = CString::try_from_fmt(format_args!("{name}"))?;
        let config = self.resource.connection.config();
        let peer = config
            .map(|config| peer_variables(&config.remote))
            .transpose()?;
        let mut environment = KVec::with_capacity(5, GFP_KERNEL)?;
        environment.push(c"HOME=/", GFP_KERNEL)?;
        environment.push(c"TERM=linux", GFP_KERNEL)?;
        environment.push(c"PATH=/sbin:/usr/sbin:/bin:/usr/bin", GFP_KERNEL)?;
        if let Some((family, address)) = &peer {
            environment.push(family, GFP_KERNEL)?;
            environment.push(address, GFP_KERNEL)?;
        }
        umh::call(path, &[path, &name, argument], &environment)
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(device) => device.fmt(f),
            None => self.resource.fmt(f),
        }
    }
}

/// A helper with its arguments, for the log.
struct Command<'a> {
    path: &'a CStr,
    name: &'a str,
    argument: &'a CStr,
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, argument) = (Lossy(self.path.to_bytes()), Lossy(self.argument.to_bytes()));
        write!(f, "{path} {} {argument}", self.name)
    }
}

/// What the parameter `usermode_helper` names; `None` if it is empty or "disabled".
fn configured_path() -> Option<CString> {
    let mut buffer = [0; HELPER_PATH_SIZE];
    let path = params::usermode_helper(&mut buffer);
    if matches!(path, b"" | b"disabled") {
        return None;
    }
    CString::try_from_fmt(format_args!("{}", Lossy(path))).ok()
}

/// DRBD_PEER_AF and DRBD_PEER_ADDRESS.
fn peer_variables(peer: &SocketAddr) -> Result<(&'static CStr, CString)> {
    const VARIABLE: &str = "DRBD_PEER_ADDRESS";
    Ok(match peer {
        SocketAddr::V4 { ip, .. } => {
            let ip = core::net::Ipv4Addr::from(*ip);
            let address = CString::try_from_fmt(format_args!("{VARIABLE}={ip}"))?;
            (c"DRBD_PEER_AF=ipv4", address)
        }
        SocketAddr::V6 { ip, .. } => {
            let ip = core::net::Ipv6Addr::from(*ip);
            let address = CString::try_from_fmt(format_args!("{VARIABLE}={ip}"))?;
            (c"DRBD_PEER_AF=ipv6", address)
        }
    })
}
