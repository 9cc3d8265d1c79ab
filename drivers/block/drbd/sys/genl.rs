// SPDX-License-Identifier: GPL-2.0

//! A generic netlink family: requests with one reply, dumps, and one multicast group.
//!
//! The content of messages is the handler's business: it gets the bytes after the generic netlink
//! header (the user header and the attributes) and fills a lent buffer with the same of its reply.
//! Attributes are not checked by the core (no policy), requests run concurrently (no lock of the
//! family).
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)

use core::{
    ops::Deref,
    pin::Pin,
    ptr::{
        self,
        NonNull, //
    },
    slice,
};
use drbd_bindings as shim;
use kernel::{
    bindings, container_of,
    error::{
        from_result,
        to_result, //
    },
    ffi::c_int,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    types::Opaque,
};

/// Bytes of the buffer that a handler may fill with one message.
pub const MESSAGE_SIZE_MAX: usize = 4096;

/// Bytes of the netlink and generic netlink headers in front of the user header.
const HEADERS_SIZE: usize = 20;

/// A command of a family.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its number.
    pub command: u8,
    /// It may be requested with one reply.
    pub request: bool,
    /// It may be requested as a dump.
    pub dump: bool,
    /// A request with one reply needs `CAP_NET_ADMIN`.
    pub admin: bool,
}

/// What a family is.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name, at most 15 bytes.
    pub name: &'static CStr,
    /// Its version.
    pub version: u8,
    /// Bytes of the user header.
    pub header_size: u8,
    /// The first command number that gets the core's strict checks.
    pub first_strict_command: u8,
    /// The name of its multicast group, at most 15 bytes.
    pub group: &'static CStr,
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The command's number.
    pub command: u8,
    /// The user header and the attributes; at least as long as the user header.
    pub message: &'a [u8],
    /// Whether sender and current task have `CAP_NET_ADMIN`.
    pub net_admin: bool,
    /// Whether sender and current task have `CAP_SYS_ADMIN`.
    pub sys_admin: bool,
    /// Whether the request carries `NLM_F_EXCL`.
    pub exclusive: bool,
}

/// Where a dump stands; zero at its start. Its meaning is the handler's.
pub type Cursor = [u64; 6];

/// A message that a dump put into the buffer.
#[derive(Clone, Copy, Debug)]
pub struct DumpMessage {
    /// The command number of the message.
    pub command: u8,
    /// How many bytes of the buffer it takes.
    pub length: usize,
    /// Whether it is addressed as part of a dump (`NLM_F_MULTI`, the requester's port).
    pub addressed: bool,
}

/// What a family does. Called in process context, may sleep, concurrently.
pub trait Handler: Send + Sync + 'static {
    /// The family.
    const DESCRIPTION: Description;
    /// Its commands.
    const OPERATIONS: &'static [Operation];

    /// Answers a request: fills `reply` and returns how much of it. An error goes to the sender as
    /// a netlink error.
    fn request(&self, request: &Request<'_>, reply: &mut [u8]) -> Result<usize>;

    /// Looks at the request for a dump. An error goes to the sender as a netlink error instead of
    /// the dump.
    fn begin_dump(&self, request: &Request<'_>) -> Result;

    /// Fills `message` with the next message of a dump and moves the cursor on; `None` ends the
    /// dump. Called again with the old cursor if the message did not fit.
    fn dump(
        &self,
        request: &Request<'_>,
        cursor: &mut Cursor,
        message: &mut [u8],
    ) -> Result<Option<DumpMessage>>;
}

/// A registered family, while [`Group`] needs it.
struct FamilyPointer(NonNull<bindings::genl_family>);

// SAFETY: It is only used to send, under the lock that holds it; sending is thread safe.
unsafe impl Send for FamilyPointer {}

/// The sending end of a family's multicast group.
///
/// It exists before the family is registered and after it is gone; what is sent then goes nowhere.
#[pin_data]
pub struct Group {
    #[pin]
    family: Mutex<Option<FamilyPointer>>,
}

impl Group {
    /// Creates the sending end; the family is told of it when it is registered.
    pub fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { family <- new_mutex!(None, "genl_group") }),
            GFP_KERNEL,
        )
    }

    /// Sends a message (user header and attributes) to everyone who listens in the initial network
    /// namespace. May sleep, does no I/O to reclaim memory. Nobody listening is no error.
    pub fn multicast(&self, command: u8, sequence: u32, message: &[u8]) -> Result {
        let family = self.family.lock();
        let Some(FamilyPointer(family)) = family.as_ref() else {
            return Ok(());
        };
        // SAFETY: The family is registered while its pointer is here.
        if unsafe { bindings::genl_has_listeners(family.as_ptr(), &raw mut bindings::init_net, 0) }
            == 0
        {
            return Ok(());
        }
        let mut skb = MessageBuffer::new(message.len(), shim::DRBD_CONST_GFP_NOIO)?;
        // SAFETY: As above.
        unsafe { skb.append(family.as_ptr(), 0, sequence, 0, command, message)? };
        // SAFETY: As above; the call takes over the buffer in any case.
        let sent = unsafe {
            bindings::genlmsg_multicast(
                family.as_ptr(),
                skb.into_raw(),
                0,
                0,
                shim::DRBD_CONST_GFP_NOIO,
            )
        };
        match to_result(sent) {
            // The last listener went away meanwhile.
            Err(error) if error == ESRCH => Ok(()),
            other => other,
        }
    }
}

/// A socket buffer that is ours.
struct MessageBuffer(NonNull<bindings::sk_buff>);

impl MessageBuffer {
    fn new(size: usize, flags: bindings::gfp_t) -> Result<Self> {
        // SAFETY: It takes plain numbers.
        let skb = unsafe { bindings::genlmsg_new(size, flags) };
        Ok(Self(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    fn into_raw(self) -> *mut bindings::sk_buff {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    ///
    /// As [`append`], for the family.
    unsafe fn append(
        &mut self,
        family: *const bindings::genl_family,
        port: u32,
        sequence: u32,
        flags: c_int,
        command: u8,
        message: &[u8],
    ) -> Result {
        // SAFETY: The buffer is ours; the family is the caller's promise.
        unsafe {
            append(
                self.0.as_ptr(),
                family,
                port,
                sequence,
                flags,
                command,
                message,
            )
        }
    }
}

impl Drop for MessageBuffer {
    fn drop(&mut self) {
        // SAFETY: The buffer is ours.
        unsafe { bindings::nlmsg_free(self.0.as_ptr()) };
    }
}

/// Appends one message to a socket buffer; `EMSGSIZE` if there is no room for it.
///
/// # Safety
///
/// `skb` and `family` must be valid, and nobody else may use `skb`.
unsafe fn append(
    skb: *mut bindings::sk_buff,
    family: *const bindings::genl_family,
    port: u32,
    sequence: u32,
    flags: c_int,
    command: u8,
    message: &[u8],
) -> Result {
    // SAFETY: `family` is valid.
    let header_size = usize::try_from(unsafe { (*family).hdrsize })?;
    let (header, attributes) = message.split_at_checked(header_size).ok_or(EINVAL)?;
    let size = HEADERS_SIZE.checked_add(message.len()).ok_or(EMSGSIZE)?;
    // SAFETY: `skb` is valid.
    let room = usize::try_from(unsafe { shim::drbd_shim_skb_tailroom(skb) })?;
    if room < size.next_multiple_of(4) {
        return Err(EMSGSIZE);
    }
    // SAFETY: Both are valid; C only reads the family.
    let user_header = unsafe { bindings::genlmsg_put(skb, port, sequence, family, flags, command) };
    let user_header = NonNull::new(user_header).ok_or(EMSGSIZE)?;
    // SAFETY: C has reserved `hdrsize` bytes there, which is the length of `header`.
    unsafe {
        ptr::copy_nonoverlapping(header.as_ptr(), user_header.as_ptr().cast(), header.len());
    }
    let length = u32::try_from(attributes.len())?;
    // SAFETY: The buffer has room, and `skb_put` returns that much new space.
    unsafe {
        let space = bindings::skb_put(skb, length);
        ptr::copy_nonoverlapping(attributes.as_ptr(), space.cast(), attributes.len());
        bindings::genlmsg_end(skb, user_header.as_ptr());
    }
    Ok(())
}

/// A registered family. Dropping it unregisters, after the requests that run have ended.
///
/// Dumps that a reader has not finished hold a reference to the module, so a family must not be
/// dropped before the module is unloaded: register it as the last step of loading.
pub struct Registration<H: Handler> {
    family: Pin<KBox<Family<H>>>,
    group: Arc<Group>,
}

/// # Invariants
///
/// `inner` is initialised, its pointers lead into `operations` and `groups`.
#[pin_data]
struct Family<H: Handler> {
    #[pin]
    inner: Opaque<bindings::genl_family>,
    operations: KVec<bindings::genl_ops>,
    groups: KVec<bindings::genl_multicast_group>,
    handler: H,
}

// SAFETY: C does the locking of `inner`, the vectors do not change, and `H` is `Send`.
unsafe impl<H: Handler> Send for Family<H> {}
// SAFETY: As above, and `H` is `Sync`.
unsafe impl<H: Handler> Sync for Family<H> {}

impl<H: Handler> Registration<H> {
    /// Registers the family. `EEXIST`: the name is taken, by another module of the same kind.
    pub fn new(module: &'static ThisModule, handler: H, group: Arc<Group>) -> Result<Self> {
        let family = KBox::try_pin_init(Family::new(module, handler), GFP_KERNEL)?;
        // SAFETY: By its invariant the family is complete; it is unregistered before it is dropped.
        to_result(unsafe { bindings::genl_register_family(family.inner.get()) })?;
        *group.family.lock() = NonNull::new(family.inner.get()).map(FamilyPointer);
        Ok(Self { family, group })
    }
}

impl<H: Handler> Deref for Registration<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.family.handler
    }
}

impl<H: Handler> Drop for Registration<H> {
    fn drop(&mut self) {
        *self.group.family.lock() = None;
        // SAFETY: It was registered by `new`. The only error is "not registered".
        unsafe { bindings::genl_unregister_family(self.family.inner.get()) };
    }
}

impl<H: Handler> Family<H> {
    fn new(module: &'static ThisModule, handler: H) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let operations = operations::<H>()?;
            let mut groups = KVec::new();
            let group = bindings::genl_multicast_group {
                name: fixed_name(H::DESCRIPTION.group),
                flags: 0,
            };
            groups.push(group, GFP_KERNEL)?;
            let operations_pointer = operations.as_ptr();
            let groups_pointer = groups.as_ptr();
            let count = u8::try_from(operations.len())?;
            Ok(try_pin_init!(Self {
                // INVARIANT: The pointers lead to the vectors' heap memory, which stays where it
                // is.
                inner <- Opaque::ffi_init(move |slot: *mut bindings::genl_family| {
                    let description = H::DESCRIPTION;
                    // SAFETY: `slot` is ours to initialise; all zero is a valid `genl_family`.
                    let family = unsafe {
                        slot.write_bytes(0, 1);
                        &mut *slot
                    };
                    family.hdrsize = u32::from(description.header_size);
                    family.name = fixed_name(description.name);
                    family.version = u32::from(description.version);
                    family.set_netnsok(1);
                    family.set_parallel_ops(1);
                    family.resv_start_op = description.first_strict_command;
                    family.ops = operations_pointer;
                    family.n_ops = count;
                    family.mcgrps = groups_pointer;
                    family.n_mcgrps = 1;
                    family.module = module.as_ptr();
                }),
                operations,
                groups,
                handler,
            }? Error))
        })
    }

    /// # Safety
    ///
    /// `inner` must be the `inner` of a `Family<H>` that outlives `'a`.
    unsafe fn from_raw<'a>(inner: *const bindings::genl_family) -> &'a Self {
        let inner: *const Opaque<bindings::genl_family> = inner.cast();
        // SAFETY: By the function's contract.
        unsafe { &*container_of!(inner, Self, inner) }
    }

    /// # Safety
    ///
    /// `skb` and `info` must be what the core gives to `doit`.
    unsafe fn answer(
        &self,
        skb: *const bindings::sk_buff,
        info: *mut bindings::genl_info,
    ) -> Result<c_int> {
        // SAFETY: The core has validated the message; it lives as long as this call.
        let request = unsafe { request(skb, (*info).nlhdr)? };
        let mut buffer = message_buffer()?;
        let length = self.handler.request(&request, &mut buffer)?;
        let reply = buffer.get(..length).ok_or(EMSGSIZE)?;
        let mut skb = MessageBuffer::new(reply.len(), bindings::GFP_KERNEL)?;
        // SAFETY: `info` is valid, and the family is this one. The reply takes over the buffer.
        unsafe {
            let (port, sequence) = ((*info).snd_portid, (*info).snd_seq);
            skb.append(self.inner.get(), port, sequence, 0, request.command, reply)?;
            to_result(shim::drbd_shim_genlmsg_reply(skb.into_raw(), info))?;
        }
        Ok(0)
    }

    /// # Safety
    ///
    /// `skb` and `callback` must be what the core gives to `dumpit`.
    unsafe fn continue_dump(
        &self,
        skb: *mut bindings::sk_buff,
        callback: *mut bindings::netlink_callback,
    ) -> Result<c_int> {
        // SAFETY: The core has validated the message; it lives as long as the dump.
        let request = unsafe { request((*callback).skb, (*callback).nlh)? };
        // SAFETY: The core keeps the callback's context for us, zeroed and aligned as `long`s, and
        // calls one at a time.
        let cursor = unsafe { &mut *(&raw mut (*callback).__bindgen_anon_1.args).cast::<Cursor>() };
        // SAFETY: `callback` and the headers it leads to are valid.
        let (port, sequence) =
            unsafe { ((*(*callback).nlh).nlmsg_pid, (*(*callback).nlh).nlmsg_seq) };
        let mut buffer = message_buffer()?;
        loop {
            let here = *cursor;
            let Some(message) = self.handler.dump(&request, cursor, &mut buffer)? else {
                break;
            };
            let bytes = buffer.get(..message.length).ok_or(EMSGSIZE)?;
            let (port, flags) = match message.addressed {
                true => (port, c_int::try_from(bindings::NLM_F_MULTI)?),
                false => (0, 0),
            };
            let family = self.inner.get();
            // SAFETY: The core lends us the buffer for this call; the family is this one.
            let put = unsafe { append(skb, family, port, sequence, flags, message.command, bytes) };
            if let Err(error) = put {
                *cursor = here;
                // SAFETY: The buffer is valid.
                if unsafe { (*skb).len } == 0 {
                    return Err(error);
                }
                break;
            }
        }
        // SAFETY: The buffer is valid.
        Ok(c_int::try_from(unsafe { (*skb).len })?)
    }
}

/// A zeroed buffer for one message.
fn message_buffer() -> Result<KVec<u8>> {
    Ok(KVec::from_elem(0, MESSAGE_SIZE_MAX, GFP_KERNEL)?)
}

/// The table of commands as C wants it.
fn operations<H: Handler>() -> Result<KVec<bindings::genl_ops>> {
    let mut table = KVec::with_capacity(H::OPERATIONS.len(), GFP_KERNEL)?;
    let liberal = bindings::genl_validate_flags_GENL_DONT_VALIDATE_STRICT
        | bindings::genl_validate_flags_GENL_DONT_VALIDATE_DUMP;
    for operation in H::OPERATIONS {
        let mut entry: bindings::genl_ops = pin_init::zeroed();
        entry.cmd = operation.command;
        entry.validate = u8::try_from(liberal)?;
        if operation.request {
            entry.doit = Some(doit::<H>);
        }
        if operation.dump {
            entry.start = Some(start::<H>);
            entry.dumpit = Some(dumpit::<H>);
        }
        if operation.admin {
            entry.flags = u8::try_from(bindings::GENL_ADMIN_PERM)?;
        }
        table.push(entry, GFP_KERNEL)?;
    }
    Ok(table)
}

/// A name in a C array, cut to leave room for its NUL.
fn fixed_name(name: &CStr) -> [u8; 16] {
    let mut fixed = [0; 16];
    for (to, from) in fixed.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    fixed
}

/// # Safety
///
/// Both must be valid for `'a`, and the core must have checked the message's length against the
/// family's headers.
unsafe fn request<'a>(
    skb: *const bindings::sk_buff,
    header: *const bindings::nlmsghdr,
) -> Result<Request<'a>> {
    // SAFETY: `header` is valid for the length it says.
    let message = unsafe {
        slice::from_raw_parts(header.cast::<u8>(), usize::try_from((*header).nlmsg_len)?)
    };
    let (headers, message) = message.split_at_checked(HEADERS_SIZE).ok_or(EINVAL)?;
    let command = headers.get(HEADERS_SIZE - 4).copied().ok_or(EINVAL)?;
    // SAFETY: `skb` is valid.
    let capable = |capability| unsafe { bindings::netlink_capable(skb, capability) };
    Ok(Request {
        command,
        message,
        net_admin: capable(c_int::try_from(bindings::CAP_NET_ADMIN)?),
        sys_admin: capable(c_int::try_from(bindings::CAP_SYS_ADMIN)?),
        // SAFETY: `header` is valid.
        exclusive: u32::from(unsafe { (*header).nlmsg_flags }) & bindings::NLM_F_EXCL != 0,
    })
}

/// # Safety
///
/// Called by the core for a family that [`Family::new`] has made.
unsafe extern "C" fn doit<H: Handler>(
    skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    from_result(|| {
        // SAFETY: By the function's contract; a family outlives its requests.
        unsafe { Family::<H>::from_raw((*info).family).answer(skb, info) }
    })
}

/// # Safety
///
/// Called by the core for a family that [`Family::new`] has made.
unsafe extern "C" fn start<H: Handler>(callback: *mut bindings::netlink_callback) -> c_int {
    from_result(|| {
        // SAFETY: By the function's contract; a family outlives its dumps, and the core has
        // validated the message, which lives as long as the dump.
        let (family, request) = unsafe {
            let family = shim::drbd_shim_dump_family(callback);
            let request = request((*callback).skb, (*callback).nlh)?;
            (Family::<H>::from_raw(family), request)
        };
        family.handler.begin_dump(&request).map(|()| 0)
    })
}

/// # Safety
///
/// Called by the core for a family that [`Family::new`] has made.
unsafe extern "C" fn dumpit<H: Handler>(
    skb: *mut bindings::sk_buff,
    callback: *mut bindings::netlink_callback,
) -> c_int {
    from_result(|| {
        // SAFETY: By the function's contract; a family outlives its dumps.
        unsafe {
            let family = shim::drbd_shim_dump_family(callback);
            Family::<H>::from_raw(family).continue_dump(skb, callback)
        }
    })
}
