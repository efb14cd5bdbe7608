//! One request: checked as the kernel does, and then done or handed over.

use super::abi::{Errno, FLAG_IOPRIO, Iocb, check, command, errno};
use super::context::Slot;
use super::work::{Op, Parts, Work};
use super::world::World;
use super::{kind, memory};
use crate::ring::Event;
use kind::Kind;

/// The largest number of parts of a vector.
const MOST_PARTS: u32 = 1024;

/// What has become of a request.
pub(super) enum Step {
    Done(i64),
    /// It is under way.
    Sent,
    /// It is the kernel's.
    Down,
}

/// A request, and where it is.
pub(super) struct Request {
    pub(super) world: &'static World,
    pub(super) slot: &'static Slot,
    pub(super) request: Iocb,
    /// With everything but the result.
    pub(super) event: Event,
    pub(super) eventfd: Option<i32>,
    /// Whether direct I/O may be the kernel's.
    pub(super) down: bool,
}

impl Request {
    /// Does it, if it does not wait, or hands it over. It may have been `tried`.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    #[inline]
    pub(super) fn start(self, tried: Option<Result<usize, Errno>>) -> Result<Step, Errno> {
        if let Some(Ok(n)) = tried
            && (self.request.opcode, self.request.nbytes) == (command::PREAD, n as u64)
        {
            return Ok(Step::Done(n as i64));
        }
        match self.request.opcode {
            command::PREAD => self.transfer(Op::Read, false, tried),
            command::PWRITE => self.transfer(Op::Write, false, None),
            command::PREADV => self.transfer(Op::Read, true, None),
            command::PWRITEV => self.transfer(Op::Write, true, None),
            command::FSYNC => self.sync(Op::Fsync),
            command::FDSYNC => self.sync(Op::Fdatasync),
            command::POLL => self.poll(),
            command::NOOP => Ok(Step::Done(0)),
            _ => {
                kind::check_open(self.request.fildes)?;
                Err(libc::EINVAL)
            }
        }
    }

    /// Reads or writes.
    #[inline]
    fn transfer(&self, op: Op, vector: bool, tried: Option<Result<usize, Errno>>) -> Result<Step, Errno> {
        let Iocb { fildes: fd, offset, rw_flags: flags, flags: options, .. } = self.request;
        let writes = matches!(op, Op::Write);
        let refuse = |error| Err(self.refusal(writes, vector, error));
        let mut kind = kind::of(fd)?;
        if kind == Kind::Direct && self.down {
            return Ok(Step::Down);
        }
        let parts = if vector { self.parts() } else { self.part() };
        let Ok(parts) = parts else { return refuse(libc::EINVAL) };
        if is_all(0, &parts) {
            // Of no bytes the system does not say what the file is.
            kind = kind::look(fd)?;
        }
        if kind == Kind::Directory || (writes && kind == Kind::Special) {
            return refuse(libc::EINVAL);
        }
        let stream = matches!(kind, Kind::Stream | Kind::Special);
        if kind::are_unknown(flags) || options & FLAG_IOPRIO != 0 || offset < 0 {
            let refused = self.refusal(writes, vector, 0);
            if refused != 0 {
                return Err(refused);
            }
        }
        let priority = if options & FLAG_IOPRIO == 0 { 0 } else { self.request.reqprio };
        let offset = if stream { -1 } else { offset };
        let work = Work { slot: self.slot, event: self.event, op, parts, offset, flags, priority };
        if kind == Kind::Direct {
            return match kind::check_access(fd, writes) {
                Ok(()) => self.hand_over(work),
                Err(error) => refuse(error),
            };
        }
        let more = if writes { 0 } else { libc::RWF_NOWAIT };
        match tried.unwrap_or_else(|| attempt(&work, fd, flags | more)) {
            Ok(0) if kind == Kind::Special && is_all(0, &work.parts) => {
                Ok(Step::Done(-i64::from(libc::EINVAL)))
            }
            Ok(n) if writes || stream || is_all(n, &work.parts) => Ok(Step::Done(n as i64)),
            // As much as there is without waiting, as was asked for.
            Ok(n) if flags & libc::RWF_NOWAIT != 0 => Ok(Step::Done(n as i64)),
            Ok(n) if kind::ends_at(fd, offset as u64 + n as u64) => Ok(Step::Done(n as i64)),
            // No more is cached.
            Ok(_) => self.hand_over(work),
            Err(error @ libc::EBADF) => refuse(error),
            // It is another file by now.
            Err(libc::ESPIPE | libc::EISDIR | libc::EOPNOTSUPP) if kind::look(fd)? != kind => {
                kind::forget(fd);
                self.transfer(work.op, vector, None)
            }
            Err(libc::EOPNOTSUPP) if kind::refuses(fd, flags, offset) => refuse(libc::EOPNOTSUPP),
            // Asked for by its flags, and not by us.
            Err(error @ libc::EAGAIN) if stream && kind::is_nonblocking(fd) => {
                Ok(Step::Done(-i64::from(error)))
            }
            Err(libc::EAGAIN | libc::EOPNOTSUPP) if more & !flags != 0 => self.hand_over(work),
            Err(error) => Ok(Step::Done(-i64::from(error))),
        }
    }

    /// The first of the reasons to refuse it, in the kernel's order; `other` if there is none of them.
    #[cold]
    fn refusal(&self, writes: bool, vector: bool, other: Errno) -> Errno {
        let Iocb { fildes: fd, offset, rw_flags: flags, reqprio, flags: options, .. } = self.request;
        let first = || {
            let kind = kind::look(fd)?;
            if options & FLAG_IOPRIO != 0 {
                kind::check_priority(reqprio)?;
            }
            let elsewhere = kind == Kind::Directory && flags & kind::NOT_EVERYWHERE != 0;
            if kind::are_unknown(flags) || elsewhere || other == libc::EOPNOTSUPP {
                return Err(libc::EOPNOTSUPP);
            }
            kind::check_access(fd, writes)?;
            if kind == Kind::Directory || (writes && kind == Kind::Special) {
                return Err(libc::EINVAL);
            }
            if vector {
                self.parts()?
            } else {
                self.part()?
            };
            if offset < 0 { Err(libc::EINVAL) } else { Ok(()) }
        };
        first().err().unwrap_or(other)
    }

    /// The one part of a plain request.
    #[inline]
    fn part(&self) -> Result<Parts, Errno> {
        let Iocb { buf, nbytes, .. } = self.request;
        let part = libc::iovec { iov_base: buf as *mut _, iov_len: nbytes as usize };
        check_address(&part)?;
        Ok(Parts::One([part]))
    }

    /// The parts of a vector.
    fn parts(&self) -> Result<Parts, Errno> {
        let Iocb { buf, nbytes, .. } = self.request;
        // The kernel counts in 32 bits.
        let n = nbytes as u32;
        if n > MOST_PARTS {
            return Err(libc::EINVAL);
        }
        let mut parts = Vec::with_capacity(n as usize);
        let there =
            memory::read_some(buf as *const libc::iovec, &mut parts.spare_capacity_mut()[..n as usize]);
        // Looked at one by one.
        if there.iter().any(|part| isize::try_from(part.iov_len).is_err()) {
            return Err(libc::EINVAL);
        }
        if there.len() < n as usize {
            return Err(libc::EFAULT);
        }
        // SAFETY: as many were read.
        unsafe { parts.set_len(n as usize) };
        match parts.as_slice() {
            [part] => check_address(part)?,
            many => many.iter().try_for_each(|part| check_range(part.iov_base.addr(), part.iov_len))?,
        }
        Ok(Parts::Many(parts))
    }

    fn sync(self, op: Op) -> Result<Step, Errno> {
        let Iocb { fildes: fd, buf, nbytes, offset, rw_flags, .. } = self.request;
        kind::check_open(fd)?;
        if buf != 0 || nbytes != 0 || offset != 0 || rw_flags != 0 || !kind::can_sync(fd) {
            return Err(libc::EINVAL);
        }
        let (slot, event, parts) = (self.slot, self.event, Parts::Many(Vec::new()));
        self.hand_over(Work { slot, event, op, parts, offset: 0, flags: 0, priority: 0 })
    }

    fn poll(self) -> Result<Step, Errno> {
        let Iocb { fildes: fd, buf, nbytes, offset, rw_flags, .. } = self.request;
        kind::check_open(fd)?;
        let interest = u16::try_from(buf).map_err(|_| libc::EINVAL)? as i16;
        if nbytes != 0 || offset != 0 || rw_flags != 0 {
            return Err(libc::EINVAL);
        }
        let mut polled = [libc::pollfd { fd, events: interest, revents: 0 }];
        // SAFETY: ours.
        match check(unsafe { libc::poll(polled.as_mut_ptr(), 1, 0) } as isize) {
            Ok(1..) if polled[0].revents & libc::POLLNVAL != 0 => return Err(libc::EBADF),
            Ok(1..) => return Ok(Step::Done(i64::from(polled[0].revents as u16))),
            _ => {}
        }
        let pool = self.world.pool().ok_or(libc::EAGAIN)?;
        let waiting = pool.polls().register(self.slot, self.event.obj, interest);
        let (slot, event, op, parts) =
            (self.slot, self.event, Op::Poll(waiting.clone()), Parts::Many(Vec::new()));
        self.slot.stay();
        let work = Box::new(Work { slot, event, op, parts, offset: 0, flags: 0, priority: 0 });
        pool.send(work, fd, self.eventfd).map_err(|(_, error)| {
            pool.polls().unregister(&waiting);
            self.slot.leave();
            error
        })?;
        Ok(Step::Sent)
    }

    /// To the pool; or, where there is none, done here, however long it takes.
    fn hand_over(&self, work: Work) -> Result<Step, Errno> {
        let Some(pool) = self.world.pool() else { return Ok(Step::Done(work.run(self.request.fildes))) };
        // Put by `Work::finish`.
        self.slot.stay();
        match pool.send(Box::new(work), self.request.fildes, self.eventfd) {
            Ok(()) => Ok(Step::Sent),
            Err((_, error)) => {
                self.slot.leave();
                Err(error)
            }
        }
    }
}

/// Whether the address is the caller's to give: others are refused at once, and not by an event.
fn check_address(part: &libc::iovec) -> Result<(), Errno> {
    /// What the kernel transfers at most in one call.
    const MOST: usize = 0x7fff_f000;
    check_range(part.iov_base.addr(), part.iov_len.min(MOST))
}

pub(super) fn check_range(at: usize, len: usize) -> Result<(), Errno> {
    if at.checked_add(len).is_some_and(|end| end <= 0x7fff_ffff_f000) { Ok(()) } else { Err(libc::EFAULT) }
}

/// Does it in the calling thread.
#[inline]
fn attempt(work: &Work, fd: i32, flags: i32) -> Result<usize, Errno> {
    let parts = work.parts.as_slice();
    let (first, n) = (parts.as_ptr(), parts.len() as i32);
    // SAFETY: the kernel checks descriptors and addresses; the latter are the caller's until its event is there.
    let done = unsafe {
        match work.op {
            Op::Write => libc::pwritev2(fd, first, n, work.offset, flags),
            _ => libc::preadv2(fd, first, n, work.offset, flags),
        }
    };
    if done < 0 { Err(errno()) } else { Ok(done as usize) }
}

fn is_all(n: usize, parts: &Parts) -> bool {
    n == parts.as_slice().iter().map(|part| part.iov_len).sum::<usize>()
}
