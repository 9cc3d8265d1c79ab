// SPDX-License-Identifier: GPL-2.0

//! The commands: options, checks and the call into the data path (spec §3.5).

use super::backend::{
    Backend, DeviceSummary, InfoText, ResizeRequest, ResourceId, ResourceSummary,
};
use super::event::{Event, Events, Object};
use super::message::{self, Occasion};
use super::net_rules;
use super::request::{Parsed, Request, Target, Unanswerable};
use super::{Control, Scratch};
use drbd_engine::config::attr::Writer;
use drbd_engine::config::command::{Command, Usage};
use drbd_engine::config::context::{encode_info_text, RESOURCE_NAME_LENGTH_MAX};
use drbd_engine::config::field::Secrets;
use drbd_engine::config::options::{MINOR_MAX, VOLUME_MAX};
use drbd_engine::config::{
    Detach, Disconnect, DiskConf, NetConf, NewCurrentUuid, Present, Refusal, Resize,
    ResourceOptions, RetCode, SetRole, Settings, StartVerify, TimeoutParameters,
};
use drbd_engine::state::{ConnState, DiskState, Role};
use drbd_engine::types::{Minor, VolumeNr};

/// The outcome of a command whose check failed, or that is done.
type Outcome = Result<RetCode, RetCode>;

/// From this protocol version on a resize without resync is known to the peer.
const RESIZE_WITHOUT_RESYNC: u32 = 93;
/// Bounds of the activity log's area on disk.
const AL_AREA_KIB_MIN: u64 = 32;
const AL_AREA_KIB_MAX: u64 = 16 << 20;

impl<B: Backend, E: Events> Control<B, E> {
    /// Answers a request that is no dump: writes the reply's user header and attributes.
    pub(crate) fn answer(
        &self,
        request: &Request<'_>,
        scratch: &mut Scratch,
        reply: &mut Writer<'_>,
    ) -> Result<(), Unanswerable> {
        let parsed = Parsed::new(request)?;
        if !matches!(parsed.command.usage(), Usage::Do | Usage::DoOrDump) {
            return Err(Unanswerable::UnknownCommand);
        }
        scratch.info.clear();
        let outcome = match Target::find_permitted(&self.backend, request, &parsed, scratch) {
            Ok(target) => self
                .run(request, &parsed, &target, scratch)
                .map(|code| (code, target)),
            Err(code) => Err(code),
        };
        let (code, target) = match outcome {
            Ok((code, target)) => (code, target),
            Err(code) => (code, Target::default()),
        };
        message::head(reply, Some(parsed.header.minor), code);
        if let Some(context) = parsed.raw_context {
            reply.put_raw(context);
        }
        if !scratch.info.as_bytes().is_empty() {
            encode_info_text(reply, scratch.info.as_bytes());
        }
        if code.is_success() {
            self.append_result(request, &parsed, &target, scratch, reply);
        }
        reply
            .finish()
            .map(|_| ())
            .map_err(|_| Unanswerable::TooLarge)
    }

    /// Appends what a command returns beside its code.
    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn append_result(
        &self,
        request: &Request<'_>,
        parsed: &Parsed<'_>,
        target: &Target,
        scratch: &mut Scratch,
        reply: &mut Writer<'_>,
    ) {
        let Some((minor, _)) = target.device else {
            return;
        };
        match parsed.command {
            Command::GetStatus => {
                let secrets = secrets_for(request);
                message::status(reply, &mut scratch.objects, Occasion::Asked, secrets);
            }
            Command::GetTimeoutType => {
                let kind = self.backend.timeout_type(minor);
                TimeoutParameters { kind }.encode(reply, Secrets::Show);
            }
            _ => {}
        }
    }

    fn run(
        &self,
        request: &Request<'_>,
        parsed: &Parsed<'_>,
        target: &Target,
        scratch: &mut Scratch,
    ) -> Outcome {
        match parsed.command {
            Command::NewResource => self.new_resource(request, parsed, target, scratch),
            Command::NewMinor => self.new_minor(request, parsed, target, scratch),
            Command::DelResource => self.delete_resource(target.resource()?, scratch),
            Command::ResourceOptions => self.resource_options(parsed, target.resource()?, scratch),
            Command::Connect => self.connect(parsed, target.resource()?, scratch),
            Command::Disconnect => self.disconnect(parsed, target.resource()?, scratch),
            Command::ChangeNetOptions => self.net_options(parsed, target.resource()?, scratch),
            Command::Down => self.down(target.resource()?, scratch),
            _ => {
                let (minor, device) = target.minor()?;
                self.run_on_device(parsed, minor, &device, scratch)
            }
        }
    }

    fn run_on_device(
        &self,
        parsed: &Parsed<'_>,
        minor: Minor,
        device: &DeviceSummary,
        scratch: &mut Scratch,
    ) -> Outcome {
        let backend = &self.backend;
        let info = &mut scratch.info;
        match parsed.command {
            Command::GetStatus => match scratch.objects.describe_device(backend, minor) {
                true => Ok(RetCode::NO_ERROR),
                false => Err(RetCode::MINOR_INVALID),
            },
            Command::GetTimeoutType => Ok(RetCode::NO_ERROR),
            Command::DelMinor => self.delete_minor(minor, device, scratch),
            Command::Attach => self.attach(parsed, minor, device, scratch),
            Command::ChangeDiskOptions => self.disk_options(parsed, minor, device, scratch),
            Command::Detach => {
                let (parameters, _) = read::<Detach>(parsed, scratch)?;
                // A disk that is gone already is what was asked for.
                match backend.detach(minor, parameters.force, &mut scratch.info) {
                    RetCode::IS_DISKLESS => Ok(RetCode::NOTHING_TO_DO),
                    code => Ok(code),
                }
            }
            Command::Primary => {
                let (parameters, _) = read::<SetRole>(parsed, scratch)?;
                Ok(backend.primary(minor, parameters.force, &mut scratch.info))
            }
            Command::Secondary => Ok(backend.secondary(minor, info)),
            Command::Resize => self.resize(parsed, minor, device, scratch),
            Command::Invalidate => Ok(backend.invalidate(minor, info)),
            Command::InvalidatePeer => Ok(backend.invalidate_peer(minor, info)),
            Command::PauseSync => pause_sync(backend.pause_sync(minor, true, info)),
            Command::ResumeSync => self.resume_sync(minor, backend.pause_sync(minor, false, info)),
            Command::SuspendIo => Ok(backend.suspend_io(minor, info)),
            Command::ResumeIo => Ok(backend.resume_io(minor, info)),
            Command::Outdate => Ok(backend.outdate(minor, info)),
            Command::StartVerify => {
                let (parameters, present) = read::<StartVerify>(parsed, scratch)?;
                let start = present.has(1).then_some(parameters.start);
                Ok(backend.start_verify(minor, start, parameters.stop, &mut scratch.info))
            }
            Command::NewCurrentUuid => {
                let (parameters, _) = read::<NewCurrentUuid>(parsed, scratch)?;
                require_disk(device)?;
                let clear = parameters.clear_bitmap;
                Ok(backend.new_current_uuid(minor, clear, &mut scratch.info))
            }
            _ => Err(RetCode::PACKET_NUMBER),
        }
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn new_resource(
        &self,
        request: &Request<'_>,
        parsed: &Parsed<'_>,
        target: &Target,
        scratch: &mut Scratch,
    ) -> Outcome {
        let (options, _) = read::<ResourceOptions>(parsed, scratch)?;
        let info = &mut scratch.info;
        let name = parsed.context.resource_name.unwrap_or_default();
        if name.is_empty() {
            return Err(info.say(
                RetCode::MANDATORY_TAG,
                format_args!("resource name missing"),
            ));
        }
        if name.contains(&b'/') || name.len() > RESOURCE_NAME_LENGTH_MAX {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("invalid resource name"),
            ));
        }
        if target.resource.is_some() {
            return match request.exclusive {
                true => Err(info.say(RetCode::INVALID_REQUEST, format_args!("resource exists"))),
                false => Ok(RetCode::NO_ERROR),
            };
        }
        let code = self.backend.new_resource(name, &options, info);
        if code.is_success() {
            if let Some(resource) = self.backend.resource(name) {
                self.send(Event::Created(Object::Resource(resource)));
            }
        }
        Ok(code)
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn new_minor(
        &self,
        request: &Request<'_>,
        parsed: &Parsed<'_>,
        target: &Target,
        scratch: &mut Scratch,
    ) -> Outcome {
        let info = &mut scratch.info;
        let resource = target.resource()?;
        if parsed.header.minor > MINOR_MAX {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("requested minor out of range"),
            ));
        }
        let minor = Minor(parsed.header.minor);
        let volume = parsed
            .context
            .volume
            .and_then(|volume| u16::try_from(volume).ok());
        let Some(volume) = volume.filter(|volume| *volume <= VOLUME_MAX) else {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("requested volume id out of range"),
            ));
        };
        if target.device.is_some() {
            return match request.exclusive {
                true => Err(RetCode::MINOR_OR_VOLUME_EXISTS),
                false => Ok(RetCode::NO_ERROR),
            };
        }
        let same = self.backend.next_volume(resource, u32::from(volume));
        if same.is_some_and(|(found, _)| found == VolumeNr(volume)) {
            return Err(RetCode::MINOR_OR_VOLUME_EXISTS);
        }
        let code = self
            .backend
            .new_device(resource, VolumeNr(volume), minor, info);
        if code.is_success() {
            self.send(Event::Created(Object::Device(minor)));
        }
        Ok(code)
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn delete_minor(&self, minor: Minor, device: &DeviceSummary, scratch: &mut Scratch) -> Outcome {
        if device.has_disk
            || device.state.disk != DiskState::Diskless
            || device.state.role != Role::Secondary
        {
            return Err(RetCode::MINOR_CONFIGURED);
        }
        let described = scratch.objects.describe_device(&self.backend, minor);
        let code = self.backend.delete_device(minor, &mut scratch.info);
        if code.is_success() && described {
            self.send(Event::DeviceGone(&scratch.objects));
        }
        Ok(code)
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn delete_resource(&self, resource: ResourceId, scratch: &mut Scratch) -> Outcome {
        if self.summary(resource)?.connection_state != ConnState::StandAlone {
            return Err(RetCode::NET_CONFIGURED);
        }
        if self.backend.next_volume(resource, 0).is_some() {
            return Err(RetCode::RESOURCE_IN_USE);
        }
        let described = scratch.objects.describe_resource(&self.backend, resource);
        let code = self.backend.delete_resource(resource, &mut scratch.info);
        if code.is_success() && described {
            self.send(Event::ResourceGone(&scratch.objects));
        }
        Ok(code)
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn resource_options(
        &self,
        parsed: &Parsed<'_>,
        resource: ResourceId,
        scratch: &mut Scratch,
    ) -> Outcome {
        if !scratch.objects.describe_resource(&self.backend, resource) {
            return Err(RetCode::RESOURCE_NOT_KNOWN);
        }
        let options = &mut scratch.objects.resource.options;
        if parsed.sets_defaults() {
            options.reset_changeable();
        }
        if let Some(attributes) = parsed.options::<ResourceOptions>() {
            options
                .update(attributes)
                .map_err(|refusal| refuse(refusal, &mut scratch.info))?;
        }
        Ok(self
            .backend
            .resource_options(resource, options, &mut scratch.info))
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn attach(
        &self,
        parsed: &Parsed<'_>,
        minor: Minor,
        device: &DeviceSummary,
        scratch: &mut Scratch,
    ) -> Outcome {
        if device.has_disk || device.state.disk != DiskState::Diskless {
            return Err(RetCode::DISK_CONFIGURED);
        }
        let Scratch {
            disk,
            info,
            objects,
            ..
        } = scratch;
        disk.copy_from(&Settings::DEFAULT);
        let present = match parsed.options::<DiskConf>() {
            Some(attributes) => {
                disk.update(attributes)
                    .map_err(|refusal| match refusal.field.key {
                        "meta_dev_idx" => RetCode::META_INDEX_INVALID,
                        _ => refuse(refusal, info),
                    })?
            }
            None => Present::default(),
        };
        DiskConf::require(present).map_err(|refusal| refuse(refusal, info))?;
        objects.describe_resource(&self.backend, device.resource);
        let net = objects.connection().map(|connection| &connection.net);
        net_rules::check_fencing(disk.fencing, net)?;
        Ok(self.backend.attach(minor, disk, info))
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn disk_options(
        &self,
        parsed: &Parsed<'_>,
        minor: Minor,
        device: &DeviceSummary,
        scratch: &mut Scratch,
    ) -> Outcome {
        require_disk(device)?;
        let Scratch { objects, info, .. } = scratch;
        if !objects.describe_device(&self.backend, minor) || !objects.device.attached {
            return Err(RetCode::NO_DISK);
        }
        let disk = &mut objects.device.disk;
        if parsed.sets_defaults() {
            disk.reset_changeable();
        }
        change(disk, parsed).map_err(|refusal| refuse(refusal, info))?;
        let net = objects.has_connection.then_some(&objects.connection.net);
        net_rules::check_fencing(disk.fencing, net)?;
        Ok(self.backend.disk_options(minor, disk, info))
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn connect(&self, parsed: &Parsed<'_>, resource: ResourceId, scratch: &mut Scratch) -> Outcome {
        let Scratch { net, info, .. } = scratch;
        let context = &parsed.context;
        let (Some(my_address), Some(peer_address)) = (context.my_address, context.peer_address)
        else {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("connection endpoint(s) missing"),
            ));
        };
        if self.backend.local_address_in_use(my_address) {
            return Err(RetCode::LOCAL_ADDRESS);
        }
        if self.backend.peer_address_in_use(peer_address) {
            return Err(RetCode::PEER_ADDRESS);
        }
        let summary = self.summary(resource)?;
        if summary.has_net || summary.connection_state != ConnState::StandAlone {
            return Err(RetCode::NET_CONFIGURED);
        }
        net.copy_from(&Settings::DEFAULT);
        if let Some(attributes) = parsed.options::<NetConf>() {
            net.update(attributes)
                .map_err(|refusal| refuse(refusal, info))?;
        }
        net_rules::check(&summary, None, net, info)?;
        Ok(self
            .backend
            .connect(resource, my_address, peer_address, net, info))
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn net_options(
        &self,
        parsed: &Parsed<'_>,
        resource: ResourceId,
        scratch: &mut Scratch,
    ) -> Outcome {
        let Scratch {
            net, info, objects, ..
        } = scratch;
        let summary = self.summary(resource)?;
        if !objects.describe_resource(&self.backend, resource) || !objects.has_connection {
            return Err(info.say(
                RetCode::INVALID_REQUEST,
                format_args!("net conf missing, try connect"),
            ));
        }
        let old = &objects.connection.net;
        net.copy_from(old);
        if parsed.sets_defaults() {
            net.reset_changeable();
        }
        change(net, parsed).map_err(|refusal| refuse(refusal, info))?;
        net_rules::check(&summary, Some(old), net, info)?;
        Ok(self.backend.net_options(resource, net, info))
    }

    fn disconnect(
        &self,
        parsed: &Parsed<'_>,
        resource: ResourceId,
        scratch: &mut Scratch,
    ) -> Outcome {
        let (parameters, _) = read::<Disconnect>(parsed, scratch)?;
        let code = self
            .backend
            .disconnect(resource, parameters.force, &mut scratch.info);
        Ok(done(code))
    }

    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn resize(
        &self,
        parsed: &Parsed<'_>,
        minor: Minor,
        device: &DeviceSummary,
        scratch: &mut Scratch,
    ) -> Outcome {
        let (parameters, present) = read::<Resize>(parsed, scratch)?;
        require_disk(device)?;
        let state = device.state;
        if state.conn > ConnState::Connected {
            return Err(RetCode::RESIZE_RESYNC);
        }
        if state.role == Role::Secondary && state.peer == Role::Secondary {
            return Err(RetCode::NO_PRIMARY);
        }
        let summary = self.summary(device.resource)?;
        if parameters.no_resync && summary.agreed_protocol < RESIZE_WITHOUT_RESYNC {
            return Err(RetCode::NEED_PROTOCOL_93);
        }
        let request = ResizeRequest {
            size: parameters.size,
            force: parameters.force,
            no_resync: parameters.no_resync,
            al_stripes: present.has(4).then_some(parameters.al_stripes),
            al_stripe_size_kib: present.has(5).then_some(parameters.al_stripe_size_kib),
        };
        if present.has(4) || present.has(5) {
            check_layout(&parameters, state.conn)?;
        }
        Ok(self.backend.resize(minor, &request, &mut scratch.info))
    }

    /// Nothing to resume: says who else pauses the resync, if anyone does.
    fn resume_sync(&self, minor: Minor, code: RetCode) -> Outcome {
        if code != RetCode::NOTHING_TO_DO {
            return Ok(done(code));
        }
        let state = self
            .backend
            .device(minor)
            .ok_or(RetCode::MINOR_INVALID)?
            .state;
        let paused = matches!(state.conn, ConnState::PausedSyncS | ConnState::PausedSyncT);
        Err(match (paused, state.aftr_isp, state.peer_isp) {
            (true, true, _) => RetCode::PAUSED_BY_DEPENDENCY,
            (true, false, true) => RetCode::PAUSED_BY_PEER,
            _ => RetCode::PAUSE_IS_CLEAR,
        })
    }

    /// Demotes, disconnects, detaches and removes a whole resource.
    #[inline(never)] // Keeps its frame off the stack of the other commands.
    fn down(&self, resource: ResourceId, scratch: &mut Scratch) -> Outcome {
        self.for_each_device(resource, |minor| {
            let code = self.backend.secondary(minor, &mut scratch.info);
            step(code, "failed to demote", scratch)
        })?;
        let code = self.backend.disconnect(resource, false, &mut scratch.info);
        step(code, "failed to disconnect", scratch)?;
        self.for_each_device(resource, |minor| {
            let code = match self.backend.detach(minor, false, &mut scratch.info) {
                RetCode::IS_DISKLESS => RetCode::NOTHING_TO_DO,
                code => code,
            };
            step(code, "failed to detach", scratch)
        })?;
        self.for_each_device(resource, |minor| {
            let device = self.backend.device(minor).ok_or(RetCode::MINOR_INVALID)?;
            let code = self.delete_minor(minor, &device, scratch)?;
            step(code, "failed to delete minor", scratch)
        })?;
        self.delete_resource(resource, scratch)
    }

    fn for_each_device(
        &self,
        resource: ResourceId,
        mut act: impl FnMut(Minor) -> Result<(), RetCode>,
    ) -> Result<(), RetCode> {
        let mut from = 0;
        while let Some((volume, minor)) = self.backend.next_volume(resource, from) {
            act(minor)?;
            from = u32::from(volume.0).saturating_add(1);
        }
        Ok(())
    }

    fn summary(&self, resource: ResourceId) -> Result<ResourceSummary, RetCode> {
        self.backend
            .summary(resource)
            .ok_or(RetCode::RESOURCE_NOT_KNOWN)
    }

    fn send(&self, event: Event<'_>) {
        self.events.send(&self.backend, event);
    }
}

impl Target {
    /// Finds the objects of a request if its sender may send it at all.
    fn find_permitted<B: Backend>(
        backend: &B,
        request: &Request<'_>,
        parsed: &Parsed<'_>,
        scratch: &mut Scratch,
    ) -> Result<Self, RetCode> {
        if parsed.command != Command::GetStatus && !request.net_admin {
            return Err(RetCode::PERMISSION);
        }
        Self::find(backend, parsed, &mut scratch.info)
    }
}

/// Whether the sender may see secrets.
pub(crate) fn secrets_for(request: &Request<'_>) -> Secrets {
    match request.sys_admin {
        true => Secrets::Show,
        false => Secrets::Blank,
    }
}

/// A command's parameters over their defaults, and which the request had.
#[inline(never)] // Keeps its frame off the stack of what the command then does.
fn read<S: Settings>(parsed: &Parsed<'_>, scratch: &mut Scratch) -> Result<(S, Present), RetCode> {
    let mut settings = S::DEFAULT;
    let present = match parsed.options::<S>() {
        Some(attributes) => settings
            .update(attributes)
            .map_err(|refusal| refuse(refusal, &mut scratch.info))?,
        None => Present::default(),
    };
    Ok((settings, present))
}

/// Changes options in use; the request must have some.
fn change<S: Settings>(settings: &mut S, parsed: &Parsed<'_>) -> Result<(), Refusal> {
    let Some(attributes) = parsed.options::<S>() else {
        return Ok(());
    };
    let present = settings.update(attributes)?;
    S::refuse_invariants(present)
}

fn refuse(refusal: Refusal, info: &mut InfoText) -> RetCode {
    info.say(RetCode::MANDATORY_TAG, format_args!("{refusal}"))
}

fn require_disk(device: &DeviceSummary) -> Result<(), RetCode> {
    match device.has_disk {
        true => Ok(()),
        false => Err(RetCode::NO_DISK),
    }
}

fn check_layout(parameters: &Resize, conn: ConnState) -> Result<(), RetCode> {
    let stripes = u64::from(parameters.al_stripes);
    let area_kib = stripes.saturating_mul(u64::from(parameters.al_stripe_size_kib));
    if area_kib > AL_AREA_KIB_MAX {
        return Err(RetCode::META_LAYOUT_TOO_BIG);
    }
    if area_kib < AL_AREA_KIB_MIN {
        return Err(RetCode::META_LAYOUT_TOO_SMALL);
    }
    if conn != ConnState::Connected && !parameters.force {
        return Err(RetCode::META_LAYOUT_CONNECTED);
    }
    Ok(())
}

fn pause_sync(code: RetCode) -> Outcome {
    match code {
        RetCode::NOTHING_TO_DO => Err(RetCode::PAUSE_IS_SET),
        code => Ok(done(code)),
    }
}

/// Commands that are not about a state answer "no error", whatever the state change was called.
fn done(code: RetCode) -> RetCode {
    match code.is_success() {
        true => RetCode::NO_ERROR,
        false => code,
    }
}

/// One step of several: says which one failed.
fn step(code: RetCode, failure: &str, scratch: &mut Scratch) -> Result<(), RetCode> {
    match code.is_success() {
        true => Ok(()),
        false => Err(scratch.info.say(code, format_args!("{failure}"))),
    }
}
