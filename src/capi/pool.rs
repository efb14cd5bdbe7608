//! Threads for what may block: [`Pool`].
//!
//! A request keeps its file open until it is finished, though its caller may close the descriptor as soon as
//! `io_submit` has returned. A duplicate would do that, but closing one gives up the locks that the process has on the
//! file (`fcntl`). So the pool has a table of descriptors of its own, and what goes to it is sent through a socket:
//! the descriptor arrives as another one of the same file, in the pool's table. The socket is the queue as well, and
//! the bell: there is nothing else to lock or to signal.
//!
//! Its threads are not the standard library's, which cannot always be started in the child of a fork.
//!
//! One of the workers always waits at the socket, as far as there are threads to be had: who takes a message and leaves
//! nobody behind starts another one first.

use super::abi::{Errno, check, errno};
use super::context::Slot;
use super::poll::Polls;
use super::watch::Watch;
use super::work::{Descriptor, Op, Parts, Work};
use crate::ring::Event;
use crate::sync::process::start_thread;
use crate::sync::{Arc, Condvar, Mutex, caught};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;

/// The most workers: so many requests can block for ever before the others wait for them.
const MOST: usize = 512;
/// How many of them wait for work rather than end.
const IDLE: usize = 32;
/// Enough for system calls, and for the program's thread-local storage.
const STACK: usize = 256 << 10;

/// See the [module](self). Never freed: its threads may be anywhere.
pub(super) struct Pool {
    /// The end that messages are sent to, in the program's table, and which socket that is: a program that closes
    /// descriptors it knows nothing of takes it away.
    to: i32,
    inode: u64,
    /// The other end, in the pool's table.
    from: i32,
    workers: Mutex<Workers>,
    polls: Polls,
    watch: Watch,
}

thread_local! {
    /// Whose thread this is.
    static HERE: Cell<Option<&'static Pool>> = const { Cell::new(None) };
}

/// Whether this is a thread of a pool, and has its table.
pub(super) fn is_in_pool() -> bool {
    HERE.get().is_some()
}

#[derive(Default)]
struct Workers {
    all: usize,
    idle: usize,
}

impl Pool {
    /// # Errors
    ///
    /// What the system says if it gives no sockets, threads or tables.
    pub(super) fn start() -> Result<&'static Self, Errno> {
        let mut ends = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: room for two.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } as isize)?;
        let [to, from] = ends;
        let large = 4_i32 << 20;
        // SAFETY: four bytes of ours. As much as is allowed.
        unsafe { libc::setsockopt(to, libc::SOL_SOCKET, libc::SO_SNDBUF, ptr::from_ref(&large).cast(), 4) };
        let mut every = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: written by the first call, and read by the second: no signal is for these threads, nor for their
        // children.
        unsafe {
            libc::sigfillset(every.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, every.as_ptr(), before.as_mut_ptr());
        }
        let seed = Arc::new((Mutex::new(None), Condvar::new()));
        let told = Arc::clone(&seed);
        let started = start_thread(STACK, move || {
            *told.0.lock() = Some(caught(|| Self::seed(to, from)).unwrap_or(Err(libc::EAGAIN)));
            told.1.notify_all();
        });
        let started = started.map_err(|_| libc::EAGAIN).and_then(|()| {
            let mut result = seed.0.lock();
            loop {
                match result.take() {
                    Some(result) => break result,
                    None => result = seed.1.wait_until(result, None),
                }
            }
        });
        // SAFETY: written above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
        drop(Descriptor(from));
        if started.is_err() {
            drop(Descriptor(to));
        }
        started
    }

    /// Runs in a thread of its own, which leaves the program's table for a new one that its children share.
    fn seed(to: i32, from: i32) -> Result<&'static Self, Errno> {
        let inode = inode(to)?;
        let close = |first: u32, last: u32, flags: u32| {
            // SAFETY: what is closed is in a table that nobody else uses, since the first call.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } as isize)
        };
        close(u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE)?;
        // SAFETY: a descriptor of ours. Above those that the library itself may write to.
        let kept = check(unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 3) } as isize)? as u32;
        close(0, kept - 1, 0)?;
        close(kept + 1, u32::MAX, 0)?;
        for _ in 0..3 {
            // SAFETY: has no conditions. Takes the lowest numbers, so that what panics is not told to a file.
            check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) } as isize)?;
        }
        let polls = Polls::new()?;
        let workers = Mutex::new(Workers { all: 1, idle: 0 });
        let (from, watch) = (kept as i32, Watch::new());
        let pool: &'static Self = Box::leak(Box::new(Self { to, inode, from, workers, polls, watch }));
        pool.spawn(|pool| pool.polls.run())?;
        pool.spawn(|pool| pool.watch.run(pool))?;
        pool.spawn(Self::work)?;
        Ok(pool)
    }

    /// Starts a thread of the pool's. By one of those, or it would have another table.
    ///
    /// # Errors
    ///
    /// `EAGAIN`.
    pub(super) fn spawn(
        &'static self,
        life: impl FnOnce(&'static Self) + Send + 'static,
    ) -> Result<(), Errno> {
        let life = move || {
            HERE.set(Some(self));
            life(self);
        };
        start_thread(STACK, life).map_err(|_| libc::EAGAIN)
    }

    /// Whether this is one of its threads.
    pub(super) fn is_here(&self) -> bool {
        HERE.get().is_some_and(|here| ptr::eq(here, self))
    }

    /// Whether messages still reach it.
    pub(super) fn is_open(&self) -> bool {
        inode(self.to) == Ok(self.inode)
    }

    pub(super) fn polls(&self) -> &Polls {
        &self.polls
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Hands `work` over, to be done with `fd`, and then `eventfd` signalled.
    ///
    /// # Errors
    ///
    /// With the work: `EBADF` for a descriptor that is not open; `EAGAIN` if the queue is full.
    pub(super) fn send(
        &self,
        work: Box<Work>,
        fd: i32,
        eventfd: Option<i32>,
    ) -> Result<(), (Box<Work>, Errno)> {
        let fds = [fd, eventfd.unwrap_or(-1)];
        let n = 1 + usize::from(eventfd.is_some());
        self.send_fds(work, &fds[..n], libc::MSG_DONTWAIT)
    }

    /// Has the poller look at what was cancelled.
    pub(super) fn look(&self, slot: &'static Slot) {
        let parts = Parts::Many(Vec::new());
        let look =
            Work { slot, event: Event::default(), op: Op::Look, parts, offset: 0, flags: 0, priority: 0 };
        // Waits if the queue is full. If nobody is there, nobody polls.
        let _ = self.send_fds(Box::new(look), &[], 0);
    }

    fn send_fds(&self, work: Box<Work>, fds: &[i32], flags: i32) -> Result<(), (Box<Work>, Errno)> {
        let address = Box::into_raw(work);
        let mut part =
            libc::iovec { iov_base: ptr::from_ref(&address).cast_mut().cast(), iov_len: size_of::<usize>() };
        let mut control = [0_u64; 4];
        // SAFETY: zeroes are a message without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let bytes = size_of_val(fds) as u32;
            message.msg_control = control.as_mut_ptr().cast();
            // SAFETY: arithmetic; then a header and two descriptors, for which `control` has room.
            unsafe {
                message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
                let header = libc::CMSG_FIRSTHDR(&message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
                ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(header).cast(), fds.len());
            }
        }
        loop {
            // SAFETY: a message as just made. Who receives the address owns the work.
            match check(unsafe { libc::sendmsg(self.to, &message, flags | libc::MSG_NOSIGNAL) }) {
                Ok(_) => return Ok(()),
                Err(libc::EINTR) => {}
                Err(error) => {
                    let error = if error == libc::EBADF { error } else { libc::EAGAIN };
                    // SAFETY: from `into_raw`, and not sent.
                    return Err((unsafe { Box::from_raw(address) }, error));
                }
            }
        }
    }

    /// A worker's life.
    fn work(&'static self) {
        let mut priority = 0;
        loop {
            {
                let mut workers = self.workers.lock();
                if workers.idle >= IDLE {
                    workers.all -= 1;
                    return;
                }
                workers.idle += 1;
            }
            let received = self.receive();
            let another = {
                let mut workers = self.workers.lock();
                workers.idle -= 1;
                let another = workers.idle == 0 && workers.all < MOST;
                workers.all += usize::from(another);
                another
            };
            let Some((work, fds)) = received else { return };
            if another && self.spawn(Self::work).is_err() {
                self.workers.lock().all -= 1;
            }
            self.carry_out(*work, fds, &mut priority);
        }
    }

    fn carry_out(&self, work: Work, fds: [Option<Descriptor>; 2], priority: &mut i16) {
        let [fd, eventfd] = fds;
        let Some(fd) = fd else { return self.polls.look() };
        if let Op::Bell(bell) = &work.op {
            return bell.hang(fd);
        }
        if matches!(work.op, Op::Poll(_)) {
            return self.polls.add(work, fd, eventfd);
        }
        if work.priority != *priority {
            // IOPRIO_WHO_PROCESS, this thread. What is not allowed was refused when the request came.
            // SAFETY: has no conditions.
            unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, i32::from(work.priority)) };
            *priority = work.priority;
        }
        let result = work.run(fd.0);
        drop(fd);
        work.finish(result, eventfd);
    }

    /// The next message. `None` if there will be none any more.
    fn receive(&self) -> Option<(Box<Work>, [Option<Descriptor>; 2])> {
        let mut address: *mut Work = ptr::null_mut();
        let mut part = libc::iovec { iov_base: (&raw mut address).cast(), iov_len: size_of::<usize>() };
        let mut control = [0_u64; 4];
        // SAFETY: zeroes are a message without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        loop {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            // SAFETY: all of it ours.
            match check(unsafe { libc::recvmsg(self.from, &mut message, libc::MSG_CMSG_CLOEXEC) }) {
                Ok(n) if n == size_of::<usize>() => break,
                Err(libc::EINTR) => {}
                _ => return None,
            }
        }
        let mut fds = [None, None];
        // SAFETY: as received; as many descriptors as its length says.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
                let n = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / 4;
                for (i, fd) in fds.iter_mut().enumerate().take(n) {
                    let number = libc::CMSG_DATA(header).cast::<i32>().add(i).read_unaligned();
                    *fd = Some(Descriptor(number));
                }
            }
        }
        // SAFETY: sent by `send_fds`, once.
        Some((unsafe { Box::from_raw(address) }, fds))
    }
}

/// Which file it is, of its kind.
pub(super) fn inode(fd: i32) -> Result<u64, Errno> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: room for one.
    match unsafe { libc::fstat(fd, stat.as_mut_ptr()) } {
        // SAFETY: written.
        0 => Ok(unsafe { stat.assume_init() }.st_ino),
        _ => Err(errno()),
    }
}
