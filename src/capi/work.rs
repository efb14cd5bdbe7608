//! A request on its way through the [pool](super::pool): [`Work`].

use super::abi::check;
use super::context::Slot;
use super::masked::Bell;
use super::poll::Waiting;
use crate::ring::Event;
use crate::sync::Arc;
use std::ptr;

/// What is done with a descriptor.
pub(super) enum Op {
    Read,
    Write,
    Fsync,
    Fdatasync,
    Poll(Arc<Waiting>),
    /// Nothing: has the poller look at what was cancelled.
    Look,
    /// Nothing: comes to the pool to be rung there.
    Bell(Arc<Bell>),
}

/// A request on its way through the pool. Its context stays until [`finish`](Self::finish).
pub(super) struct Work {
    pub(super) slot: &'static Slot,
    /// With everything but the result.
    pub(super) event: Event,
    pub(super) op: Op,
    pub(super) parts: Parts,
    pub(super) offset: i64,
    pub(super) flags: i32,
    /// 0 is the process's own.
    pub(super) priority: i16,
}

/// Where to read to or write from.
pub(super) enum Parts {
    One([libc::iovec; 1]),
    Many(Vec<libc::iovec>),
}

// SAFETY: addresses, which only the kernel follows.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Parts {
    pub(super) fn as_slice(&self) -> &[libc::iovec] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl Work {
    /// Publishes the event, signals the eventfd, and lets the context go.
    pub(super) fn finish(self, result: i64, eventfd: Option<Descriptor>) {
        self.slot.publish(&[Event { res: result, ..self.event }]);
        if let Some(Descriptor(fd)) = eventfd {
            signal(fd);
        }
        self.slot.leave();
    }

    pub(super) fn run(&self, fd: i32) -> i64 {
        let (parts, n) = (self.parts.as_slice().as_ptr(), self.parts.as_slice().len() as i32);
        loop {
            // SAFETY: the kernel checks descriptors and addresses; the latter are the caller's until its event is
            // there.
            let done = unsafe {
                match self.op {
                    Op::Read => libc::preadv2(fd, parts, n, self.offset, self.flags),
                    Op::Write => libc::pwritev2(fd, parts, n, self.offset, self.flags),
                    Op::Fsync => libc::fsync(fd) as isize,
                    Op::Fdatasync => libc::fdatasync(fd) as isize,
                    Op::Poll(_) | Op::Look | Op::Bell(_) => return 0,
                }
            };
            match check(done) {
                Ok(n) => return n as i64,
                Err(libc::EINTR) => {}
                Err(error) => return -i64::from(error),
            }
        }
    }
}

/// Signals an eventfd.
pub(super) fn signal(fd: i32) {
    // SAFETY: eight bytes of ours. If it is not one, or full, there is nobody to tell.
    unsafe { libc::write(fd, ptr::from_ref(&1_u64).cast(), 8) };
}

/// A descriptor of the pool's table.
pub(super) struct Descriptor(pub(super) i32);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the pool's own.
        unsafe { libc::close(self.0) };
    }
}
