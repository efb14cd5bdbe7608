//! libaio's C interface: unmodified programs run on this crate's parts. Feature `libaio`, 64-bit Linux.
//!
//! `libaio/build` makes the shared library: `libaio.so.1` with the symbols and versions of libaio 0.3.113, for
//! `LD_LIBRARY_PATH` or `LD_PRELOAD`.
//!
//! ```sh
//! libaio/build
//! LD_LIBRARY_PATH=target/libaio fio --ioengine=libaio …
//! ```
//!
//! # What a context is
//!
//! [`ioctx_io_setup`] gives out the address of a ring in the kernel's layout, an [`AioRing`](crate::ring::AioRing),
//! which programs may read in place and whose head they may move, as with the kernel's. Its credits are
//! [`Credits`](crate::credits::Credits), its sleepers those of an [`EventCount`](crate::wait::EventCount), and who is
//! inside, or in flight, is counted by a [`PerCpuRef`](crate::refcount::PerCpuRef). The generic
//! [`Context`](crate::aio::Context) is not used: it owns buffers and files, which here are the caller's, and its
//! events name slots, where these name the caller's addresses.
//!
//! Contexts are never freed, but used again by the next of the same size: so an old handle finds one that is dead, or,
//! as with the kernel's, another one that has its address by now. Rings are mapped twice, and the library does not
//! follow the program's addresses: whatever a program does to its ring, it does to itself.
//!
//! # What is done where
//!
//! | request | by whom |
//! |---|---|
//! | read of what is in the page cache | the caller, in `io_submit`; several that follow each other by one system call |
//! | write without `O_DIRECT`; to pipes and sockets, in order | the caller, as in the kernel |
//! | poll of what is ready | the caller |
//! | any other poll | one thread for all |
//! | direct read and write, without an eventfd | the kernel's own AIO |
//! | everything else | a pool of threads |
//!
//! Four reads and more that follow each other (`IO_CMD_PREAD`, up to 64 KiB, without flags) are tried together, on a ring of
//! io_uring's that a thread gets for itself when it has had use for one several times. Nothing is left there when the
//! call is over; the ring has no descriptor, goes with its thread, and is done without where the system gives none.
//!
//! Threads are started when the first request needs one, and their descriptors are a table of their own. Requests
//! keep their files open by being sent there, so that the caller may close its descriptor, and closing it here gives
//! up no `fcntl` lock.
//!
//! # Direct I/O
//!
//! At its first direct request a context gets one of the kernel's AIO below it, of the same size, until it is
//! destroyed. Requests that follow each other go there by one system call, as the program laid them out, and what the
//! kernel answers is the answer. Who calls [`ioctx_io_getevents`] sleeps in the kernel's and gets events straight from
//! there: a request costs the system calls that it costs without us, and one that asks whether the file is still
//! direct.
//!
//! Programs that read the ring in place see the kernel's events as well, since a thread brings them there: that notices
//! within some milliseconds that nobody calls, 64 if somebody did before, and from then on waits for each event. It
//! ends when somebody calls again. Reading in place costs a wake-up of that thread for each event, therefore, or for
//! some of them; calling is faster.
//!
//! The kernel's contexts count against `fs.aio-max-nr`, by half the room that there is in ours. Where the kernel gives
//! none, the pool does all; what the kernel's context has no room for, the pool does, too. An eventfd has to be
//! signalled when the event is in our ring, and not when it is in the kernel's: so the pool does these.
//!
//! # Errors
//!
//! Every function returns a negated error number, as libaio's do, and leaves `errno` alone. The numbers are the
//! kernel's, in the kernel's order. Memory that is not there is `EFAULT`, but for one
//! case: what another thread unmaps while a call looks at it, in a process that has given no bad address before.
//!
//! # What differs
//!
//! | what | the kernel, and libaio | here |
//! |---|---|---|
//! | [`ioctx_io_setup`] for more than `fs.aio-max-nr` | `EAGAIN` | there is no such limit; nor is `/proc/sys/fs/aio-nr` counted |
//! | how many requests a context takes | from as many as asked for to more than twice that | what fits in its pages, never fewer than asked for |
//! | a ring that the program has unmapped | its context is not found any more | it is |
//! | a ring is moved (`mremap`) | the handle moves | so it does; found when the new address is used |
//! | requests in memory that can only be read | `EFAULT` | done, if their `key` is 0 |
//! | requests in memory of devices, or of `memfd_secret` | done | `EFAULT` |
//! | a request that another one of the same [`ioctx_io_submit`] changes | as changed, if that was done in time | may be as it was |
//! | two mistakes in one request with `O_DIRECT`, and others that only the file system finds | whichever it finds first, in the event or at once, as the file lies on the disk | alignment and addresses are found in the event |
//! | flags that a file system refuses, and no bytes | `EOPNOTSUPP` | 0 |
//! | a read that has to wait, without `O_DIRECT` | waits in [`ioctx_io_submit`] | waits in another thread |
//! | as many requests as the pool's queue takes | the device is waited for | `EAGAIN`; reads that come after may have been made |
//! | `IO_CMD_NOOP` | `EINVAL` | 0 |
//! | result of a poll | may have bits that were not asked for | has what was asked for, `POLLERR` and `POLLHUP` |
//! | [`ioctx_io_cancel`] | finds polls, and some requests of USB gadgets | finds polls |
//! | events with room for the first only, where the ring begins anew | `EFAULT`, and none is taken | the first are taken |
//! | [`ioctx_io_getevents`] with a zero timeout while nothing is there | libaio says 0, whatever else is wrong | looks at the arguments, as the kernel does |
//! | a handle that is none | fatal in libaio's look at the ring | `EINVAL` |
//! | [`ioctx_io_queue_run`] and an event without a callback | fatal | nothing is called |
//! | `LIBAIO_0.1`'s timeouts at a bad address | fatal | `EFAULT` |
//! | a child of `fork` | has none of its parent's contexts | so it has, and one made by `clone` alone may not use any |
//! | programs that make the system calls themselves, as MariaDB's InnoDB does one | | are not reached; `libaio/database` leads it here |
//!
//! # Costs
//!
//! Arguments on the caller's own stack and on the heap below the break are read and written as they are. Elsewhere, as
//! in memory that was mapped or that a thread's arena has, each page of them is looked at by a system call of its own,
//! of 0.1 to 0.4 µs, in every call that uses it. After the first bad address of a process the kernel copies them: two
//! system calls per 32 requests of [`ioctx_io_submit`], and one per 32 events of [`ioctx_io_getevents`], of 1 to 2 µs
//! each. [`ioctx_io_pgetevents`] with a mask, where it has to sleep, makes eight system calls more.
//!
//! Source: libaio 0.3.113, its manual pages and its tests; `fs/aio.c`.

mod abi;
mod ahead;
mod below;
mod context;
mod kernel;
mod kind;
mod list;
mod masked;
mod memory;
mod place;
mod poll;
mod pool;
mod reap;
mod region;
mod request;
mod ring;
mod submit;
mod watch;
mod work;
mod world;

pub use abi::{FLAG_IOPRIO, FLAG_RESFD, Iocb, command};

use crate::ring::Event;
use crate::sync::time::{Duration, Instant};
use abi::{Errno, keeping_errno};
use std::ffi::{c_int, c_long, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// `io_context_t`: the address of a ring, or nonsense.
pub type Handle = *mut c_void;

/// Returns what `call` does as C likes it.
#[inline]
fn answer(call: impl FnOnce() -> Result<usize, Errno>) -> c_int {
    keeping_errno(|| match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(n)) => n as c_int,
        Ok(Err(error)) => -error,
        // A defect of ours, or no memory: in either case the host lives on.
        Err(_) => -libc::ENOMEM,
    })
}

/// Exports a function under a version of libaio's, or, where the library is built without versions, under its name.
macro_rules! export {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $of:ty),*) as $exported:literal, $version:literal = $body:expr;) => {
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// 1. As for libaio's: what requests refer to stays until their events are there. Pointers may be bad
        ///    otherwise, but for what the [module](self) says.
        #[cfg_attr(ioctx_libaio_versions, unsafe(no_mangle))]
        #[cfg_attr(not(ioctx_libaio_versions), unsafe(export_name = $exported))]
        pub unsafe extern "C" fn $name($($arg: $of),*) -> c_int {
            answer(|| $body)
        }
        #[cfg(ioctx_libaio_versions)]
        std::arch::global_asm!(concat!(".symver ", stringify!($name), ",", $exported, $version));
    };
}

fn setup(events: c_int, out: *mut Handle) -> Result<usize, Errno> {
    let before = memory::read(out)?;
    if !before.is_null() {
        return Err(libc::EINVAL);
    }
    let handle = World::get().create(events as u32)?;
    memory::write(out, std::ptr::with_exposed_provenance_mut(handle)).inspect_err(|_| {
        // Nobody was told.
        let _ = World::get().destroy(handle);
    })?;
    Ok(0)
}

/// Kernel's `timespec`: `None` is no timeout; `Some(None)` one that has no end that could be told.
fn deadline(timeout: *const libc::timespec) -> Result<Option<Option<Instant>>, Errno> {
    if timeout.is_null() {
        return Ok(Some(None));
    }
    let timeout = memory::read(timeout)?;
    let nanos = i128::from(timeout.tv_sec) * 1_000_000_000 + i128::from(timeout.tv_nsec);
    Ok(match u64::try_from(nanos) {
        Ok(0) => None,
        Ok(nanos) => Some(Instant::now().checked_add(Duration::from_nanos(nanos))),
        // Less than nothing is for ever, as well as what the kernel's clock does not reach.
        Err(_) => Some(None),
    })
}

#[inline]
fn get_events(
    context: Handle,
    min: c_long,
    max: c_long,
    out: *mut Event,
    timeout: *const libc::timespec,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let deadline = deadline(timeout)?;
    let entered = World::get().enter(context.addr()).ok_or(libc::EINVAL)?;
    let (Ok(min), Ok(max)) = (usize::try_from(min), usize::try_from(max)) else { return Err(libc::EINVAL) };
    if min > max {
        return Err(libc::EINVAL);
    }
    entered.0.get_events(min, max, out, deadline, mask)
}

fn masked_get_events(
    context: Handle,
    min: c_long,
    max: c_long,
    out: *mut Event,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> Result<usize, Errno> {
    if mask.is_null() {
        return get_events(context, min, max, out, timeout, None);
    }
    // The system's set is eight bytes; the C library's larger.
    // SAFETY: made of numbers.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    let bits = memory::read(mask.cast::<u64>())?;
    // SAFETY: large enough.
    unsafe { (&raw mut set).cast::<u64>().write(bits) };
    let got = get_events(context, min, max, out, timeout, Some(&set));
    // What the mask lets through is delivered, as on the way out of the kernel, also where nobody slept.
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: all of it ours.
    let delivered = unsafe { libc::ppoll(std::ptr::null_mut(), 0, &now, &set) } < 0;
    if delivered && got == Ok(0) { Err(libc::EINTR) } else { got }
}

fn run(context: Handle) -> Result<usize, Errno> {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut event = Event::default();
        let got = get_events(context, 0, 1, &mut event, &now, None)?;
        if got == 0 {
            return Ok(0);
        }
        // SAFETY: what the caller has put there, by `io_set_callback`, is a function of this type, or nothing.
        let callback: Option<extern "C" fn(Handle, *mut Iocb, c_long, c_long)> =
            unsafe { std::mem::transmute(event.data as *const c_void) };
        if let Some(callback) = callback {
            callback(context, event.obj as *mut Iocb, event.res as c_long, event.res2 as c_long);
        }
    }
}

export! {
    /// Creates a context for at least `events` requests, and writes its handle to `out`, where a null handle has to be.
    ///
    /// `EFAULT`, `EINVAL` if it is not null or `events` makes no sense, `EAGAIN` for some numbers below zero, `ENOMEM`.
    fn ioctx_io_setup(events: c_int, out: *mut Handle) as "io_setup", "@@LIBAIO_0.4" = setup(events, out);
}

export! {
    /// Destroys a context: cancels polls, and waits for everything else. `EINVAL` if there is none.
    fn ioctx_io_destroy(context: Handle) as "io_destroy", "@@LIBAIO_0.4" =
        World::get().destroy(context.addr()).map(|()| 0);
}

export! {
    /// Submits up to `n` requests; returns how many, or why not the first.
    ///
    /// `EINVAL`, `EFAULT`, `EAGAIN` if the context is full, `EBADF`, `EOPNOTSUPP` for flags.
    fn ioctx_io_submit(
        context: Handle, n: c_long, requests: *const *mut Iocb
    ) as "io_submit", "@@LIBAIO_0.1" = {
        let world = World::get();
        let entered = world.enter(context.addr()).ok_or(libc::EINVAL)?;
        let n = usize::try_from(n).map_err(|_| libc::EINVAL)?;
        submit::submit(world, &entered, n, requests)
    };
}

export! {
    /// Has a poll complete at once: `EINPROGRESS` then, since its event comes as any other's. `EINVAL` for all else.
    fn ioctx_io_cancel(
        context: Handle, request: *mut Iocb, _event: *mut Event
    ) as "io_cancel", "@@LIBAIO_0.4" = {
        let key = memory::read(request.wrapping_byte_add(std::mem::offset_of!(Iocb, key)).cast::<u32>())?;
        if key != 0 {
            return Err(libc::EINVAL);
        }
        let world = World::get();
        let entered = world.enter(context.addr()).ok_or(libc::EINVAL)?;
        Err(world.cancel(entered.0, request.addr() as u64).err().unwrap_or(libc::EINPROGRESS))
    };
}

export! {
    /// Copies at least `min` and up to `max` events to `out`, waiting for them until the timeout is over.
    ///
    /// `EFAULT`, `EINVAL`; and where no event was there, `EINTR`.
    fn ioctx_io_getevents(
        context: Handle, min: c_long, max: c_long, out: *mut Event, timeout: *const libc::timespec
    ) as "io_getevents", "@@LIBAIO_0.4" = get_events(context, min, max, out, timeout, None);
}

export! {
    /// [`ioctx_io_getevents`], with a signal mask of its own while it waits.
    fn ioctx_io_pgetevents(
        context: Handle, min: c_long, max: c_long, out: *mut Event, timeout: *const libc::timespec,
        mask: *const libc::sigset_t
    ) as "io_pgetevents", "@@LIBAIO_0.5" = masked_get_events(context, min, max, out, timeout, mask);
}

export! {
    /// [`ioctx_io_setup`], whatever there is at `out`.
    fn ioctx_io_queue_init(events: c_int, out: *mut Handle) as "io_queue_init", "@@LIBAIO_0.1" = {
        if events <= 0 {
            return Err(libc::EINVAL);
        }
        memory::write(out, std::ptr::null_mut())?;
        setup(events, out)
    };
}

export! {
    /// [`ioctx_io_destroy`].
    fn ioctx_io_queue_release(context: Handle) as "io_queue_release", "@@LIBAIO_0.1" =
        World::get().destroy(context.addr()).map(|()| 0);
}

export! {
    /// Calls the callback of each event that is there, if it has one.
    fn ioctx_io_queue_run(context: Handle) as "io_queue_run", "@@LIBAIO_0.1" = run(context);
}

export! {
    /// Says whether there is such a context, as the kernel's does in spite of its name.
    fn ioctx_io_queue_wait(
        context: Handle, timeout: *const libc::timespec
    ) as "io_queue_wait", "@@LIBAIO_0.4" =
        get_events(context, 0, 0, std::ptr::null_mut(), timeout, None);
}

/// What old programs were linked with.
#[cfg(ioctx_libaio_versions)]
mod old {
    use super::*;

    export! {
        /// [`ioctx_io_getevents`] of at least one event.
        fn ioctx_io_getevents_0_1(
            context: Handle, max: c_long, out: *mut Event, timeout: *const libc::timespec
        ) as "io_getevents", "@LIBAIO_0.1" = get_events(context, 1, max, out, timeout, None);
    }

    export! {
        /// [`ioctx_io_cancel`] that writes no event.
        fn ioctx_io_cancel_0_1(context: Handle, request: *mut Iocb) as "io_cancel", "@LIBAIO_0.1" = {
            // SAFETY: handed on.
            Err(-unsafe { ioctx_io_cancel(context, request, std::ptr::null_mut()) })
        };
    }

    export! {
        /// [`ioctx_io_queue_wait`].
        fn ioctx_io_queue_wait_0_1(context: Handle, timeout: *const libc::timespec) as "io_queue_wait", "@LIBAIO_0.1" =
            get_events(context, 0, 0, std::ptr::null_mut(), timeout, None);
    }
}
