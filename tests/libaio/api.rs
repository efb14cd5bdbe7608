//! The interface twice: the kernel's system calls, and the crate's.

use ioctx::capi::{self, Handle, Iocb};
use ioctx::ring::Event;
use std::ffi::{c_int, c_long};

/// One side. Every function returns what C would be given by libaio: a negated error number, or a result.
pub trait Api {
    const NAME: &str;
    fn setup(n: c_int, out: *mut Handle) -> c_long;
    fn destroy(context: Handle) -> c_long;
    fn submit(context: Handle, n: c_long, requests: *const *mut Iocb) -> c_long;
    fn cancel(context: Handle, request: *mut Iocb, event: *mut Event) -> c_long;
    fn get_events(
        context: Handle,
        min: c_long,
        max: c_long,
        out: *mut Event,
        timeout: *const libc::timespec,
    ) -> c_long;
    fn masked_get_events(
        context: Handle,
        min: c_long,
        max: c_long,
        out: *mut Event,
        timeout: *const libc::timespec,
        mask: *const libc::sigset_t,
    ) -> c_long;
}

pub struct Kernel;
pub struct Ours;

fn syscall(number: c_long, args: [usize; 6]) -> c_long {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel checks what it is given.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => -c_long::from(std::io::Error::last_os_error().raw_os_error().unwrap()),
        done => done,
    }
}

impl Api for Kernel {
    const NAME: &str = "kernel";
    fn setup(n: c_int, out: *mut Handle) -> c_long {
        syscall(libc::SYS_io_setup, [n as usize, out.addr(), 0, 0, 0, 0])
    }
    fn destroy(context: Handle) -> c_long {
        syscall(libc::SYS_io_destroy, [context.addr(), 0, 0, 0, 0, 0])
    }
    fn submit(context: Handle, n: c_long, requests: *const *mut Iocb) -> c_long {
        syscall(libc::SYS_io_submit, [context.addr(), n as usize, requests.addr(), 0, 0, 0])
    }
    fn cancel(context: Handle, request: *mut Iocb, event: *mut Event) -> c_long {
        syscall(libc::SYS_io_cancel, [context.addr(), request.addr(), event.addr(), 0, 0, 0])
    }
    fn get_events(
        context: Handle,
        min: c_long,
        max: c_long,
        out: *mut Event,
        timeout: *const libc::timespec,
    ) -> c_long {
        let args = [context.addr(), min as usize, max as usize, out.addr(), timeout.addr(), 0];
        syscall(libc::SYS_io_getevents, args)
    }
    fn masked_get_events(
        context: Handle,
        min: c_long,
        max: c_long,
        out: *mut Event,
        timeout: *const libc::timespec,
        mask: *const libc::sigset_t,
    ) -> c_long {
        let set = [mask.addr(), 8];
        let args =
            [context.addr(), min as usize, max as usize, out.addr(), timeout.addr(), set.as_ptr().addr()];
        // On x86-64 and aarch64.
        syscall(if cfg!(target_arch = "x86_64") { 333 } else { 292 }, args)
    }
}

impl Api for Ours {
    const NAME: &str = "ours";
    fn setup(n: c_int, out: *mut Handle) -> c_long {
        // SAFETY: bad pointers are allowed.
        unsafe { capi::ioctx_io_setup(n, out) }.into()
    }
    fn destroy(context: Handle) -> c_long {
        // SAFETY: as above.
        unsafe { capi::ioctx_io_destroy(context) }.into()
    }
    fn submit(context: Handle, n: c_long, requests: *const *mut Iocb) -> c_long {
        // SAFETY: as above; buffers stay until the events are there.
        unsafe { capi::ioctx_io_submit(context, n, requests) }.into()
    }
    fn cancel(context: Handle, request: *mut Iocb, event: *mut Event) -> c_long {
        // SAFETY: as above.
        unsafe { capi::ioctx_io_cancel(context, request, event) }.into()
    }
    fn get_events(
        context: Handle,
        min: c_long,
        max: c_long,
        out: *mut Event,
        timeout: *const libc::timespec,
    ) -> c_long {
        // SAFETY: as above.
        unsafe { capi::ioctx_io_getevents(context, min, max, out, timeout) }.into()
    }
    fn masked_get_events(
        context: Handle,
        min: c_long,
        max: c_long,
        out: *mut Event,
        timeout: *const libc::timespec,
        mask: *const libc::sigset_t,
    ) -> c_long {
        // SAFETY: as above.
        unsafe { capi::ioctx_io_pgetevents(context, min, max, out, timeout, mask) }.into()
    }
}

/// A context for `n` requests.
pub fn context<A: Api>(n: c_int) -> Handle {
    let mut handle = std::ptr::null_mut();
    assert_eq!(A::setup(n, &mut handle), 0, "{}", A::NAME);
    handle
}

/// A request with a number.
pub fn request(opcode: u16, fd: i32, data: u64) -> Iocb {
    Iocb { opcode, fildes: fd, data, ..Iocb::default() }
}

/// Reads or writes all of `buf`.
pub fn transfer(opcode: u16, fd: i32, buf: &mut [u8], offset: i64) -> Iocb {
    let (buf, nbytes) = (buf.as_mut_ptr().addr() as u64, buf.len() as u64);
    Iocb { buf, nbytes, offset, ..request(opcode, fd, buf) }
}

pub fn submit_one<A: Api>(context: Handle, request: &mut Iocb) -> c_long {
    let request = &raw mut *request;
    A::submit(context, 1, &request)
}

/// Waits ten seconds at most for `min` events, which is longer than anything takes.
pub fn reap<A: Api>(context: Handle, min: usize) -> Result<Vec<Event>, c_long> {
    let mut events = vec![Event::default(); 256];
    let timeout = libc::timespec { tv_sec: 10, tv_nsec: 0 };
    let got = A::get_events(context, min as c_long, 256, events.as_mut_ptr(), &timeout);
    events.truncate(usize::try_from(got).map_err(|_| got)?);
    Ok(events)
}
