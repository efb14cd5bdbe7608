//! What `io_submit` does: checks a request as the kernel does, does at once what does not wait, and hands over the
//! rest.
//!
//! What is done at once: reads that the page cache serves (`RWF_NOWAIT`), [together](super::ahead) where several follow
//! each other; writes to files that are not opened with `O_DIRECT`, and writes to pipes, sockets and the like, as in
//! the kernel, where they block the caller if they have to; polls of what is ready. Direct I/O is passed
//! [down](super::below) to the kernel, as many requests at a time as follow each other. Everything else goes to the
//! [pool](super::pool).

use super::abi::{Errno, FLAG_RESFD, Iocb, command};
use super::ahead::Ahead;
use super::context::{Entered, Slot};
use super::list::List;
use super::request::{Request, Step};
use super::work::signal;
use super::world::World;
use super::{kind, memory};
use crate::credits::Credit;
use crate::ring::Event;
use kind::Kind;
use std::mem::{self, MaybeUninit};

/// How many events of one call are published together.
const TOGETHER: usize = 32;

/// Events that are due, and the eventfds to signal when they are published.
struct Due<'a> {
    slot: &'a Slot,
    events: [MaybeUninit<Event>; TOGETHER],
    eventfds: [i32; TOGETHER],
    n: usize,
}

impl Due<'_> {
    #[inline]
    fn push(&mut self, event: Event, eventfd: Option<i32>) {
        if self.n == TOGETHER {
            self.publish();
        }
        self.events[self.n].write(event);
        self.eventfds[self.n] = eventfd.unwrap_or(-1);
        self.n += 1;
    }

    /// Whether eventfds are to be signalled.
    #[inline]
    fn signals(&self) -> bool {
        self.eventfds[..self.n].iter().any(|fd| *fd >= 0)
    }

    #[inline]
    fn publish(&mut self) {
        let n = mem::take(&mut self.n);
        if n == 0 {
            return;
        }
        // SAFETY: the first `n` were written; `MaybeUninit<T>` has the layout of `T`.
        self.slot.publish(unsafe { std::slice::from_raw_parts(self.events.as_ptr().cast(), n) });
        for fd in self.eventfds[..n].iter().filter(|fd| **fd >= 0) {
            signal(*fd);
        }
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        self.publish();
    }
}

/// Submits the requests that `requests` points to, in order, up to the first that is refused; returns how many.
///
/// # Errors
///
/// Why the first was refused.
pub(super) fn submit(
    world: &'static World,
    entered: &Entered<'static>,
    n: usize,
    requests: *const *mut Iocb,
) -> Result<usize, Errno> {
    let slot = entered.0;
    let n = n.min(slot.capacity() as usize);
    let mut due =
        Due { slot, events: [const { MaybeUninit::uninit() }; TOGETHER], eventfds: [0; TOGETHER], n: 0 };
    let (list, due, ahead) = (&mut List::new(requests, n), &mut due, &mut Ahead::new());
    let mut call = Call { world, slot, requests, list, n, due, ahead, room: None, down: true };
    let mut i = 0;
    while i < n {
        match call.submit_some(i) {
            Ok(some) => i += some,
            Err(_) if i > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(i)
}

/// One `io_submit`.
struct Call<'a> {
    world: &'static World,
    slot: &'static Slot,
    requests: *const *mut Iocb,
    /// Not moved, nor are the next two: they are large.
    list: &'a mut List,
    n: usize,
    due: &'a mut Due<'static>,
    ahead: &'a mut Ahead,
    /// For some of the next.
    room: Option<Credit<'static>>,
    /// Whether the next may be passed down.
    down: bool,
}

impl Call<'_> {
    /// Submits the `i`th, and as many of the next as go the same way; returns how many. None if it has to be tried once
    /// more.
    ///
    /// # Errors
    ///
    /// Why the `i`th was refused.
    #[inline(always)]
    fn submit_some(&mut self, i: usize) -> Result<usize, Errno> {
        let (world, slot) = (self.world, self.slot);
        let (address, request) = self.list.get(i)?;
        if request.reserved2 != 0 || (request.nbytes as i64) < 0 {
            return Err(libc::EINVAL);
        }
        let credit = match &mut self.room {
            Some(credit) => credit,
            none => {
                // What was taken before comes back first.
                self.due.publish();
                none.insert(slot.room((self.n - i) as u32)?)
            }
        };
        let eventfd = eventfd(&request)?;
        if request.key != 0 {
            memory::write(address.wrapping_byte_add(mem::offset_of!(Iocb, key)).cast(), 0_u32)?;
        }
        if self.due.signals() && kind::of(request.fildes) == Ok(Kind::Special) {
            // It may be the one that is to be signalled.
            self.due.publish();
        }
        let event = Event { data: request.data, obj: address.addr() as u64, res: 0, res2: 0 };
        // The kernel would signal when its event is there, and not when ours is.
        let down = mem::replace(&mut self.down, true) && eventfd.is_none();
        let tried = self.ahead.get(self.list, i, credit.len() as usize);
        let step = Request { world, slot, request, event, eventfd, down }.start(tried)?;
        if let Step::Down = step {
            return self.pass_down(i, request.fildes);
        }
        let _ = credit.split_off(1).into_raw();
        if credit.len() == 0 {
            self.room = None;
        }
        if let Step::Done(res) = step {
            self.due.push(Event { res, ..event }, eventfd);
        }
        Ok(1)
    }

    /// Passes the `i`th down, whose descriptor is `fd`, and those of the next that go the same way.
    #[inline(never)]
    fn pass_down(&mut self, i: usize, fd: i32) -> Result<usize, Errno> {
        // It may wait for room at the device.
        self.due.publish();
        let Some(mut credit) = self.room.take() else { return Err(libc::EAGAIN) };
        let most = credit.len() as usize;
        let n = 1 + (1..most).take_while(|next| self.goes_down(i + next, fd)).count() as u32;
        let _ = credit.split_off(n).into_raw();
        if credit.len() > 0 {
            self.room = Some(credit);
        }
        let first = self.requests.wrapping_add(i);
        let passed = self.slot.below.submit(self.world, self.slot, n, first);
        self.slot.give_back(n - passed.unwrap_or(0));
        match passed {
            Ok(passed) => Ok(passed as usize),
            // No room there.
            Err(libc::EAGAIN) => {
                self.down = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the `i`th does, after one that has the descriptor `fd`.
    fn goes_down(&mut self, i: usize, fd: i32) -> bool {
        use command::{PREAD, PREADV, PWRITE, PWRITEV};
        self.list.get(i).is_ok_and(|(_, request)| {
            matches!(request.opcode, PREAD | PWRITE | PREADV | PWRITEV)
                && request.flags & FLAG_RESFD == 0
                && (request.fildes == fd || kind::of(request.fildes) == Ok(Kind::Direct))
        })
    }
}

/// The eventfd to signal.
#[inline]
fn eventfd(request: &Iocb) -> Result<Option<i32>, Errno> {
    if request.flags & FLAG_RESFD == 0 {
        return Ok(None);
    }
    kind::check_open(request.fildes)?;
    kind::check_eventfd(request.resfd)?;
    Ok(Some(request.resfd))
}
