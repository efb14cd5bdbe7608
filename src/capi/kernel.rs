//! The kernel's own AIO, by its system calls: [`Aio`], and [`Poke`]s, by which who sleeps in it is woken.

use super::abi::{Errno, Iocb, check};
use super::pool::is_in_pool;
use crate::ring::Event;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::time::Instant;
use std::mem::offset_of;
use std::ptr;

/// The name of a context of the kernel's, which is the address of its ring.
#[derive(Clone, Copy)]
pub(super) struct Aio(pub(super) u64);

/// The number of `io_pgetevents`. Where it is not known here, one that no call has.
const IO_PGETEVENTS: libc::c_long = match () {
    () if cfg!(target_arch = "x86_64") => 333,
    () if cfg!(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64")) => 292,
    () => -1,
};

/// The most pokes at a time: for so many events at most somebody sleeps in the kernel.
pub(super) const MOST_POKES: u32 = 16;

impl Aio {
    /// For so many requests at once, of which some may be refused all the same.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the system's limit is reached, and what else the system says.
    pub(super) fn setup(requests: u32) -> Result<Self, Errno> {
        let mut name = 0_u64;
        // SAFETY: `name` may be written, and is 0 as it has to be.
        check(unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut name) } as isize)?;
        Ok(Self(name))
    }

    /// Waits for all requests. Nobody uses the context any more.
    pub(super) fn destroy(self) {
        // SAFETY: the kernel checks the name, which is ours.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }

    /// As `io_submit`.
    ///
    /// # Errors
    ///
    /// Why the first was refused. `EAGAIN` if the context is full.
    pub(super) fn submit(self, n: usize, requests: *const *mut Iocb) -> Result<usize, Errno> {
        // SAFETY: the kernel checks addresses; what they lead to is the caller's until its events are there.
        check(unsafe { libc::syscall(libc::SYS_io_submit, self.0, n, requests) } as isize)
    }

    /// As `io_pgetevents`, with a deadline.
    ///
    /// # Errors
    ///
    /// `EFAULT`; and where no event was there, `EINTR`. `ENOSYS` where the kernel knows no masks.
    pub(super) fn get_events(
        self,
        min: usize,
        max: usize,
        out: *mut Event,
        deadline: Option<Instant>,
        mask: Option<&libc::sigset_t>,
    ) -> Result<usize, Errno> {
        let left = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            libc::timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() }
        });
        let left = left.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the kernel checks addresses; the time and the mask are ours, the latter larger than it is read.
        let got = unsafe {
            match mask {
                None => libc::syscall(libc::SYS_io_getevents, self.0, min, max, out, left),
                Some(mask) => {
                    let mask = [ptr::from_ref(mask).addr(), 8];
                    libc::syscall(IO_PGETEVENTS, self.0, min, max, out, left, mask.as_ptr())
                }
            }
        };
        check(got as isize)
    }
}

/// A request that the kernel completes at once, and that means nothing but that its event is there: a read of no bytes.
/// Made of words: the kernel writes one of them, and we another.
#[repr(C, align(8))]
struct Poke([AtomicU32; size_of::<Iocb>() / 4]);

/// Zeroes are a read of no bytes from descriptor 0. That is an eventfd in the pool's table, of whose threads the second
/// one is.
static POKES: [Poke; 2] = [const { Poke([const { AtomicU32::new(0) }; 16]) }; 2];

/// The descriptor that the program's threads read no bytes of.
fn descriptor() -> &'static AtomicU32 {
    const { assert!(offset_of!(Iocb, fildes) == 20) };
    &POKES[0].0[5]
}

/// Makes sure that the program's threads have something to poke by.
///
/// # Errors
///
/// What the system says if it gives no descriptor.
pub(super) fn prepare_pokes() -> Result<(), Errno> {
    // Relaxed: whose number it is, is found out by its use.
    if descriptor().load(Relaxed) == 0 { renew() } else { Ok(()) }
}

/// The program may have closed the last one.
#[cold]
fn renew() -> Result<(), Errno> {
    // SAFETY: has no conditions.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } as isize)?;
    // Relaxed: as in `prepare_pokes`.
    descriptor().store(fd as u32, Relaxed);
    Ok(())
}

/// Wakes who sleeps in the kernel until there are `n` events of that context, by so many pokes. Where the context is
/// too full for them, so many others are under way that they wake it.
#[cold]
pub(super) fn poke(aio: Aio, n: u32) {
    let place = usize::from(is_in_pool());
    let list = [ptr::from_ref(&POKES[place]).cast_mut().cast(); MOST_POKES as usize];
    let mut other = 0;
    loop {
        match aio.submit(n.min(MOST_POKES) as usize, list.as_ptr()) {
            Ok(_) | Err(libc::EAGAIN) => return,
            // It is not readable, or not there: then whatever else is, since reading no bytes does nothing to it.
            Err(_) if place == 0 && other < 1 << 10 => {
                if renew().is_err() {
                    other += 1;
                    // Relaxed: as in `prepare_pokes`.
                    descriptor().store(other, Relaxed);
                }
            }
            Err(_) => return,
        }
    }
}

/// Whether it is of a poke, and nobody's.
#[inline]
pub(super) fn is_poke(event: &Event) -> bool {
    POKES.iter().any(|poke| ptr::from_ref(poke).addr() as u64 == event.obj)
}
