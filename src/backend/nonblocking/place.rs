//! What is known of a descriptor, and who waits for it: [`Place`].

use super::hub::Hub;
use super::line::Line;
use crate::aio::{Cancellable, Completion, FileRef, Finished, Op, Readiness, Request, RequestId};
use crate::backend::now::{Now, try_now};
use crate::runlist::{Run, Task};
use crate::sync::{Arc, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use rustix::io::Errno;
use std::fs::File;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
// The standard library's in models too: see `SharedFile`.
use std::sync::Weak;

/// How many requests one run of a file's task tries.
const BUDGET: usize = 16;
/// What has to be read of a full pipe before it has room again: a page, one of its slots.
const SLOT: usize = 4096;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One that can be ready or not. Whether it is one that cannot seek for certain.
    Waits { stream: bool },
    /// A disk's, or one that cannot be asked not to wait.
    Threads,
}

/// What tells a pipe from others.
pub(super) type Inode = (u32, u32, u64);

/// A file as it was last seen under this number.
#[derive(Debug)]
struct Known {
    /// `None`: not ours, and so looked at each time.
    identity: Option<Weak<File>>,
    kind: Kind,
    inode: Inode,
}

impl Known {
    /// Whether it is this file, for certain.
    fn is(&self, file: &FileRef) -> bool {
        self.identity.as_ref().is_some_and(|identity| file.is(identity))
    }
}

/// The requests that wait for one descriptor. What they wait for keeps it open, and the same file.
#[derive(Debug)]
pub(super) struct Place {
    number: RawFd,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Option<Known>,
    input: Line,
    output: Line,
    polls: Vec<Polling>,
    /// Whether something has happened since they were last looked at.
    look: bool,
    /// What the system is to tell, once.
    armed: epoll::EventFlags,
    /// Whether the hub has this among those to be armed.
    listed: bool,
    /// The other end of the pipe, as far as it was seen. A hint: it may have come to be another file.
    peer: Option<Arc<Seat>>,
}

#[derive(Debug)]
struct Polling {
    token: Cancellable,
    interest: Readiness,
}

impl State {
    fn line(&mut self, direction: Direction) -> &mut Line {
        match direction {
            Direction::In => &mut self.input,
            Direction::Out => &mut self.output,
        }
    }

    /// What those who wait wait for.
    fn wanted(&mut self) -> epoll::EventFlags {
        self.polls.retain(|polling| !polling.token.is_cancelled());
        let bits = self.polls.iter().fold(Readiness::default(), |all, polling| all | polling.interest);
        let mut wanted = epoll::EventFlags::from_bits_truncate(bits.bits().into());
        wanted.set(epoll::EventFlags::IN, wanted.contains(epoll::EventFlags::IN) | self.input.is_waiting());
        wanted
            .set(epoll::EventFlags::OUT, wanted.contains(epoll::EventFlags::OUT) | self.output.is_waiting());
        // Errors and hang-ups are told in any case.
        if !self.polls.is_empty() {
            wanted |= epoll::EventFlags::HUP;
        }
        wanted
    }

    fn is_stream(&self) -> bool {
        matches!(self.known, Some(Known { kind: Kind::Waits { stream: true }, .. }))
    }

    /// Whether anybody waits, as far as is known.
    fn is_busy(&self) -> bool {
        !self.input.is_idle() || !self.output.is_idle() || !self.polls.is_empty()
    }

    fn wants_a_run(&self) -> bool {
        self.input.wants_a_run() || self.output.wants_a_run() || (self.look && !self.polls.is_empty())
    }
}

/// A place, and the task that tries what waits there.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) place: Arc<Place>,
    pub(super) task: Task<Retry>,
}

/// What came of a request that was tried.
pub(super) enum Tried {
    Done(Finished),
    /// It waits.
    Waits,
    /// Threads have to.
    Threads(Completion),
    /// It is not known what file that is.
    Unknown(Completion),
}

/// Ends a turn if a waker panics meanwhile.
struct Turn<'a>(&'a Place, Direction);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().line(self.1).left();
    }
}

impl Place {
    pub(super) fn new(number: RawFd, hub: Arc<Hub>) -> Self {
        let state = State {
            known: None,
            input: Line::new(1),
            output: Line::new(SLOT),
            polls: Vec::new(),
            look: false,
            armed: epoll::EventFlags::empty(),
            listed: false,
            peer: None,
        };
        Self { number, hub, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether this is the file it is known as.
    pub(super) fn knows(&self, file: &FileRef) -> bool {
        self.lock().known.as_ref().is_some_and(|known| known.is(file))
    }

    /// Finds out what file this is, which is not the one it is known as. Returns which pipe, if it is one that was not
    /// here before.
    pub(super) fn learn(&self, file: &FileRef) -> Option<Inode> {
        let (kind, inode) = ask(file);
        let known = Known { identity: file.identity(), kind, inode };
        let state = &mut *self.lock();
        // Requests that wait keep the file open: with any, the number has meant nothing else.
        let idle = state.wanted().is_empty();
        if idle {
            state.armed = epoll::EventFlags::empty();
        }
        // What is not ours may still be the same.
        let is_same = |before: &Known| before.identity.is_none() && before.inode == inode;
        if known.identity.is_none() && state.known.as_ref().is_some_and(is_same) {
            return None;
        }
        state.known = Some(known);
        if idle {
            state.input.forget();
            state.output.forget();
        }
        state.peer = None;
        matches!(kind, Kind::Waits { stream: true }).then_some(inode)
    }

    /// The other end of the pipe is this one; `None` if it is nowhere any more.
    pub(super) fn meet(&self, peer: Option<Arc<Seat>>) {
        let _before = mem::replace(&mut self.lock().peer, peer);
    }

    /// Tries a request at once, unless it has to wait for its turn or nothing says that it would succeed. `learnt`:
    /// what is known is known of its file for certain.
    pub(super) fn submit(
        &self,
        work: Completion,
        direction: Direction,
        task: &Task<Retry>,
        learnt: bool,
    ) -> Tried {
        let mut state = self.lock();
        let stream = match state
            .known
            .as_ref()
            .filter(|known| learnt || file(work.request()).is_some_and(|file| known.is(file)))
        {
            None => return Tried::Unknown(work),
            Some(Known { kind: Kind::Threads, .. }) => return Tried::Threads(work),
            Some(Known { kind: Kind::Waits { stream }, .. }) => *stream,
        };
        let hopeful = state.peer.is_none();
        let begins = state.line(direction).begin(work.id(), hopeful);
        drop(state);
        if begins {
            return self.attempt(work, direction, stream, Some(task));
        }
        let token = work.cancellable();
        let mut state = self.lock();
        state.line(direction).push(token);
        self.settle(state, task);
        Tried::Waits
    }

    /// Has a poll wait.
    pub(super) fn submit_poll(&self, work: Completion, interest: Readiness, task: &Task<Retry>) {
        let token = work.cancellable();
        let mut state = self.lock();
        state.polls.push(Polling { token, interest });
        self.settle(state, task);
    }

    /// Sees to it that those who wait are not forgotten.
    fn settle(&self, mut state: MutexGuard<'_, State>, task: &Task<Retry>) {
        let kick = state.wants_a_run();
        self.list(&mut state);
        drop(state);
        if kick {
            // Fails only while the backend is dropped.
            let _ = task.kick();
        }
    }

    /// Has the hub arm it, unless it is.
    fn list(&self, state: &mut State) {
        let wanted = state.wanted();
        if !state.listed && !state.armed.contains(wanted) {
            state.listed = true;
            self.hub.list(self.number);
        }
    }

    /// Tries a request whose turn it is. `task`: to be kicked for those behind it, if the caller does not go on with
    /// them.
    fn attempt(
        &self,
        mut work: Completion,
        direction: Direction,
        stream: bool,
        task: Option<&Task<Retry>>,
    ) -> Tried {
        let wanted = length(work.request());
        match try_now(work.request_mut(), stream) {
            Now::Done(result) => {
                self.transferred(direction, result.as_ref().ok().copied(), wanted, task);
                Tried::Done(work.finish(result))
            }
            Now::Waits => {
                let turn = Turn(self, direction);
                let token = work.cancellable();
                mem::forget(turn);
                let mut state = self.lock();
                let given_up = state.line(direction).would_wait(token);
                match task {
                    Some(task) => self.settle(state, task),
                    None => drop(state),
                }
                match given_up.and_then(Cancellable::claim) {
                    Some(work) => Tried::Done(work.finish(Err(Errno::CANCELED.into()))),
                    None => Tried::Waits,
                }
            }
            Now::Unknown => {
                let mut state = self.lock();
                if let Some(known) = &mut state.known {
                    known.kind = Kind::Threads;
                }
                state.line(direction).left();
                if let Some(task) = task {
                    self.settle(state, task);
                }
                Tried::Threads(work)
            }
        }
    }

    /// A try has moved so many bytes of those `wanted`, or has failed. Tells the other end, which may go on now.
    fn transferred(&self, direction: Direction, n: Option<usize>, wanted: usize, task: Option<&Task<Retry>>) {
        let mut state = self.lock();
        let line = state.line(direction);
        match n {
            // A write that has found room says nothing of an end of it.
            Some(n) => line.done(n, n == wanted, direction == Direction::Out && n == wanted),
            None => line.left(),
        }
        let n = n.unwrap_or(0);
        let empty = direction == Direction::In && state.input.level() == 0;
        let peer = state.peer.clone().filter(|_| n > 0);
        match task {
            Some(task) if state.is_busy() => self.settle(state, task),
            _ => drop(state),
        }
        if let Some(peer) = peer {
            match direction {
                Direction::Out => peer.fed(Direction::In, n, true),
                Direction::In => peer.fed(Direction::Out, n, empty),
            }
        }
    }

    /// The next request to be tried, its turn, and whether the file is one that cannot seek.
    fn next(&self, direction: Direction) -> Option<(Completion, bool)> {
        let mut state = self.lock();
        let work = state.line(direction).next()?;
        Some((work, state.is_stream()))
    }

    /// Looks whether polls have found what they wait for.
    fn look(&self, finished: &mut Vec<Finished>) {
        let mut state = self.lock();
        if !mem::take(&mut state.look) {
            return;
        }
        let polls = mem::take(&mut state.polls);
        drop(state);
        let mut waiting = Vec::new();
        for polling in polls {
            match look(self.number, polling.interest) {
                0 => waiting.push(polling),
                // It was open all the time if the request was there.
                bits => finished.extend(polling.token.claim().map(|work| work.finish(Ok(bits.into())))),
            }
        }
        self.lock().polls.append(&mut waiting);
    }

    /// Has the system tell when one of those that wait may go on. Returns whether it does not know the file: then
    /// threads have to wait for it.
    pub(super) fn arm(&self, epoll: BorrowedFd<'_>) -> bool {
        let mut state = self.lock();
        state.listed = false;
        let wanted = state.wanted();
        if state.armed.contains(wanted) {
            return false;
        }
        let flags = state.armed | wanted;
        let data = epoll::EventData::new_u64(self.number as u64);
        // SAFETY: whoever waits keeps it open; if all were cancelled just now it is a number that nobody waits for, and
        // what it says is passed over.
        let file = unsafe { BorrowedFd::borrow_raw(self.number) };
        let armed = flags | epoll::EventFlags::ONESHOT;
        let told = match epoll::modify(epoll, file, data, armed) {
            Err(Errno::NOENT) => epoll::add(epoll, file, data, armed),
            told => told,
        };
        match told {
            Ok(()) => state.armed = flags,
            // Closed: nobody waits.
            Err(Errno::BADF) => {}
            Err(_) => return true,
        }
        false
    }

    /// All that wait.
    pub(super) fn evict(&self) -> Vec<Cancellable> {
        let mut state = self.lock();
        let mut all: Vec<_> = state.input.take().into();
        all.extend(state.output.take());
        all.extend(mem::take(&mut state.polls).into_iter().map(|polling| polling.token));
        all
    }

    /// Asks for the early end of a request that is being tried.
    pub(super) fn ask(&self, id: RequestId) -> bool {
        let mut state = self.lock();
        state.input.ask(id) || state.output.ask(id)
    }
}

impl Seat {
    /// A transfer of ours at the other end of the pipe has moved `n` bytes, after which there is data, or as much room.
    fn fed(&self, direction: Direction, n: usize, surely: bool) {
        let mut state = self.place.lock();
        state.line(direction).is_fed(n, surely);
        state.look = true;
        let kick = state.wants_a_run();
        drop(state);
        if kick {
            // Fails only while the backend is dropped.
            let _ = self.task.kick();
        }
    }

    /// The system says that the file is ready for this.
    pub(super) fn is_ready(&self, flags: epoll::EventFlags) {
        use epoll::EventFlags as F;
        let mut state = self.place.lock();
        state.armed = F::empty();
        if flags.intersects(F::IN | F::RDHUP | F::HUP | F::ERR) {
            state.input.is_ready();
        }
        if flags.intersects(F::OUT | F::HUP | F::ERR) {
            state.output.is_ready();
        }
        state.look = true;
        self.place.settle(state, &self.task);
    }
}

/// What a file's task does: tries what waits, as far as something says that it may succeed.
#[derive(Debug)]
pub(super) struct Retry {
    place: Arc<Place>,
    /// Those that are done in one run: published when nobody's turn depends on it.
    finished: Vec<Finished>,
}

impl Retry {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, finished: Vec::new() }
    }
}

impl Run for Retry {
    fn run(&mut self, task: &Task<Self>) {
        let mut left = BUDGET;
        for direction in [Direction::Out, Direction::In] {
            while left > 0
                && let Some((work, stream)) = self.place.next(direction)
            {
                left -= 1;
                match self.place.attempt(work, direction, stream, None) {
                    Tried::Done(finished) => self.finished.push(finished),
                    Tried::Waits => {}
                    Tried::Threads(work) | Tried::Unknown(work) => {
                        self.finished.extend(self.place.hub.leave_to_pool(work));
                    }
                }
            }
        }
        self.place.look(&mut self.finished);
        self.place.settle(self.place.lock(), task);
        if !self.place.hub.is_alone() {
            // Those who sleep do not know of it.
            self.place.hub.arm_one(&self.place);
        }
        if !self.finished.is_empty() {
            self.place.hub.has_moved();
        }
        // If one panics the others are dropped, which publishes them as well.
        self.finished.drain(..).for_each(drop);
    }
}

/// What kind of file it is, and which.
fn ask(file: &FileRef) -> (Kind, Inode) {
    // Without asking a server that the file may be on.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(stat) = statx(file, "", flags, StatxFlags::TYPE | StatxFlags::INO) else {
        return (Kind::Waits { stream: false }, (0, 0, 0));
    };
    let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile | FileType::BlockDevice | FileType::Directory => Kind::Threads,
        FileType::Fifo | FileType::Socket => Kind::Waits { stream: true },
        _ => Kind::Waits { stream: false },
    };
    (kind, (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// What a file is ready for, of `interest`; nothing if that cannot be said.
fn look(number: RawFd, interest: Readiness) -> u16 {
    // SAFETY: as in `arm`.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::from_bits_retain(interest.bits() as _))];
    let _ = poll(&mut fds, Some(&Timespec::default()));
    let ready = fds[0].revents();
    if ready.contains(PollFlags::NVAL) { 0 } else { ready.bits() }
}

/// The file that a request reads or writes.
pub(super) fn file(request: &Request) -> Option<&FileRef> {
    match &request.op {
        Op::Read { file, .. } | Op::ReadV { file, .. } => Some(file),
        Op::Write { file, .. } | Op::WriteDsync { file, .. } | Op::WriteV { file, .. } => Some(file),
        Op::Poll { file, .. } => Some(file),
        _ => None,
    }
}

/// How many bytes a request is to move.
fn length(request: &Request) -> usize {
    match &request.op {
        Op::Read { buf, .. } => buf.len(),
        Op::Write { buf, .. } | Op::WriteDsync { buf, .. } => buf.len(),
        Op::ReadV { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
        Op::WriteV { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
        _ => 0,
    }
}
