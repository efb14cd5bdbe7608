//! Sleeping with a signal mask: [`sleep`].
//!
//! The mask has to change and the sleep to begin in one, or a signal in between would be slept over. System calls on
//! descriptors do that (`ppoll`), and a futex does not: so who sleeps with a mask is woken by a [`Bell`], a pair of
//! sockets. The sleeper waits for one end; whoever publishes writes to the other, which the pool's table of descriptors
//! has as well as the program's. Bells are used again: there are as many as ever slept at a time.

use super::abi::{Errno, check, errno};
use super::context::Slot;
use super::pool::{Pool, inode};
use super::work::{Descriptor, Op, Parts, Work};
use super::world::World;
use crate::ring::Event;
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Mutex};
use crate::wait::Outcome;
use std::pin::pin;
use std::task::{Context, Wake, Waker};

/// After how long a sleeper looks by itself, if it can be woken: a program may close descriptors that it knows nothing
/// of. And if there is no bell to be had.
const LOOK: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_micros(500);

/// Wakes a thread that waits for a descriptor.
pub(super) struct Bell {
    /// Descriptors of the program's table: where it is heard, and where it is rung; and which sockets they are.
    ends: [i32; 2],
    inodes: [u64; 2],
    pool: &'static Pool,
    rope: Mutex<Rope>,
}

/// Where it is rung by the pool.
enum Rope {
    /// On its way there. Whether somebody would have rung.
    Sent(bool),
    /// A descriptor of the pool's table, for good.
    There(i32),
}

impl Bell {
    /// One that nobody else uses.
    ///
    /// # Errors
    ///
    /// What the system says if it gives no more sockets, or no threads to ring it.
    fn take(slot: &'static Slot) -> Result<Arc<Self>, Errno> {
        let world = World::get();
        let pool = world.pool().ok_or(libc::EAGAIN)?;
        while let Some(bell) = { world.bells.lock().pop() } {
            if std::ptr::eq(bell.pool, pool) && bell.is_whole() {
                bell.hush();
                return Ok(bell);
            }
        }
        let mut ends = [0; 2];
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: room for two.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } as isize)?;
        let new = || {
            let inodes = [inode(ends[0])?, inode(ends[1])?];
            let bell = Arc::new(Self { ends, inodes, pool, rope: Mutex::new(Rope::Sent(false)) });
            let (op, parts) = (Op::Bell(Arc::clone(&bell)), Parts::Many(Vec::new()));
            let event = Event::default();
            let work = Work { slot, event, op, parts, offset: 0, flags: 0, priority: 0 };
            pool.send(Box::new(work), ends[1], None).map_err(|(_, error)| error)?;
            Ok(bell)
        };
        new().inspect_err(|_| ends.map(Descriptor).into_iter().for_each(drop))
    }

    /// Whether its descriptors are still its own.
    fn is_whole(&self) -> bool {
        self.ends.map(inode) == self.inodes.map(Ok)
    }

    /// What was rung for others is not heard any more.
    fn hush(&self) {
        let mut byte = 0_u8;
        // SAFETY: a byte of ours.
        while unsafe { libc::recv(self.ends[0], (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) } == 1 {}
    }

    /// Comes to the pool, in one of whose threads this is called.
    pub(super) fn hang(&self, end: Descriptor) {
        let before = std::mem::replace(&mut *self.rope.lock(), Rope::There(end.0));
        if let Rope::Sent(true) = before {
            pull(end.0);
        }
        std::mem::forget(end);
    }
}

/// Writes a byte, if there is room: else there are enough.
fn pull(end: i32) {
    // SAFETY: a byte of ours.
    unsafe { libc::send(end, [0_u8].as_ptr().cast(), 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if self.pool.is_here() {
            match &mut *self.rope.lock() {
                Rope::Sent(rung) => *rung = true,
                Rope::There(end) => pull(*end),
            }
        } else if inode(self.ends[1]) == Ok(self.inodes[1]) {
            pull(self.ends[1]);
        }
    }
}

/// Sleeps until `wanted` events of `slot` are there, until `at`, or for a while, with that mask, unless `there` says
/// that there is no need to.
pub(super) fn sleep(
    slot: &'static Slot,
    wanted: u32,
    at: Instant,
    mask: &libc::sigset_t,
    there: impl Fn() -> bool,
) -> Outcome {
    let Ok(bell) = Bell::take(slot) else {
        return if there() { Outcome::Woken } else { doze(at, mask) };
    };
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    let mut listen = pin!(slot.listen(wanted));
    let mut heard = [libc::pollfd { fd: bell.ends[0], events: libc::POLLIN, revents: 0 }];
    let outcome = match listen.as_mut().poll(&mut context).is_ready() || there() {
        true => Outcome::Woken,
        false => poll(&mut heard, at, LOOK, mask),
    };
    // If it was rung for us, we take what is there, whatever ended the sleep.
    let _ = listen.as_mut().poll(&mut context);
    World::get().bells.lock().push(bell);
    outcome
}

/// Sleeps for a moment with that mask, for those whom nobody can wake.
pub(super) fn doze(at: Instant, mask: &libc::sigset_t) -> Outcome {
    poll(&mut [], at, MOMENT, mask)
}

fn poll(fds: &mut [libc::pollfd], at: Instant, most: Duration, mask: &libc::sigset_t) -> Outcome {
    let left = at.saturating_duration_since(Instant::now()).min(most);
    let left = libc::timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    // SAFETY: all of it ours.
    match unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as u64, &left, mask) } {
        0.. => Outcome::Woken,
        _ if errno() == libc::EINTR => Outcome::Interrupted,
        _ => Outcome::Woken,
    }
}
