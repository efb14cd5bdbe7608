//! What is known of a descriptor, and who waits for it: [`Place`].

use super::handover::{MOST, Pair, can_be_handed};
use super::hub::Hub;
use super::known::{Direction, Inode, Kind, Known, ask, file, length, look};
use super::line::{Line, Parked};
use super::retry::Retry;
use crate::aio::{Cancellable, Completion, FileRef, Finished, Readiness, RequestId};
use crate::backend::now::{Now, try_now};
use crate::runlist::Task;
use crate::sync::{Arc, Mutex, MutexGuard};
use rustix::event::epoll;
use rustix::io::Errno;
use std::mem;
use std::os::fd::{BorrowedFd, RawFd};

/// What has to be read of a full pipe before it has room again: a page, one of its slots.
const SLOT: usize = 4096;

/// The requests that wait for one descriptor. What they wait for keeps it open, and the same file.
#[derive(Debug)]
pub(super) struct Place {
    number: RawFd,
    pub(super) hub: Arc<Hub>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
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
    /// Whether a write has succeeded, as far as is known.
    written: bool,
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
        self.known.as_ref().is_some_and(|known| known.kind.is_stream())
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
            written: false,
        };
        Self { number, hub, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
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
        (state.peer, state.written) = (None, false);
        (kind == Kind::Pipe).then_some(inode)
    }

    /// The other end of the pipe is this one; `None` if it is nowhere any more.
    pub(super) fn meet(&self, peer: Option<Arc<Seat>>) {
        let _before = mem::replace(&mut self.lock().peer, peer);
    }

    /// Tries a request at once, unless it has to wait for its turn or nothing says that it would succeed. `learnt`:
    /// what is known is known of its file for certain. `hands_over`: a write may be left to be handed to a read.
    pub(super) fn submit(
        &self,
        work: Completion,
        direction: Direction,
        task: &Task<Retry>,
        learnt: bool,
        hands_over: bool,
    ) -> Tried {
        let mut state = self.lock();
        let known = state
            .known
            .as_ref()
            .filter(|known| learnt || file(work.request()).is_some_and(|file| known.is(file)));
        let (stream, pipe) = match known {
            None => return Tried::Unknown(work),
            Some(Known { kind: Kind::Threads, .. }) => return Tried::Threads(work),
            Some(known) => (known.kind.is_stream(), known.pipe()),
        };
        let hopeful = state.peer.is_none();
        if state.line(direction).begin(work.id(), hopeful) {
            let hands_over = hands_over && direction == Direction::Out && state.written;
            let peer = if hands_over { state.peer.clone() } else { None };
            drop(state);
            return match peer.zip(pipe) {
                Some((peer, pipe)) => match peer.place.pair(pipe, work, self.number) {
                    Ok(()) => Tried::Waits,
                    Err(work) => self.attempt(work, direction, stream, Some(task)),
                },
                None => self.attempt(work, direction, stream, Some(task)),
            };
        }
        drop(state);
        let length = length(work.request());
        let token = work.cancellable();
        let mut state = self.lock();
        state.line(direction).push(Parked { token, length });
        self.settle(state, task);
        Tried::Waits
    }

    /// Leaves a write into this pipe, whose turn it is at `output`, to be handed over to a read that waits here. It
    /// comes back if there is none that would take it as a whole.
    fn pair(&self, pipe: Inode, write: Completion, output: RawFd) -> Result<(), Completion> {
        let length = length(write.request());
        if !(1..=MOST).contains(&length) || !can_be_handed(write.request()) {
            return Err(write);
        }
        let mut state = self.lock();
        // What waits keeps its file open, so that the number means what it meant when it came.
        if state.known.as_ref().and_then(Known::pipe) != Some(pipe) {
            return Err(write);
        }
        let Some(read) = state.input.next_for(length) else { return Err(write) };
        drop(state);
        self.hub.pairs.leave([Pair { write, output, read, input: self.number }]);
        Ok(())
    }

    /// The end of the turn of a read that was handed what was written at the other end: this pipe was empty.
    pub(super) fn was_handed(&self, task: &Task<Retry>) {
        let mut state = self.lock();
        state.input.found_nothing();
        self.settle_if_busy(state, task);
    }

    /// The end of the turn of a write of which all was handed over.
    pub(super) fn has_handed(&self, n: usize, task: &Task<Retry>) {
        let mut state = self.lock();
        state.output.done(n, true, true);
        self.settle_if_busy(state, task);
    }

    /// The end of the turn of a read that was to be handed something, but its pipe is not empty: it waits, and is tried
    /// when its task runs. Done if it is to be given up.
    pub(super) fn was_not_handed(&self, read: Completion, task: &Task<Retry>) -> Option<Finished> {
        let length = length(read.request());
        let turn = Turn(self, Direction::In);
        let token = read.cancellable();
        mem::forget(turn);
        let mut state = self.lock();
        state.input.is_ready();
        let given_up = state.input.would_wait(Parked { token, length });
        self.settle(state, task);
        let given_up = given_up.and_then(Cancellable::claim)?;
        Some(given_up.finish(Err(Errno::CANCELED.into())))
    }

    /// Has a poll wait.
    pub(super) fn submit_poll(&self, work: Completion, interest: Readiness, task: &Task<Retry>) {
        let token = work.cancellable();
        let mut state = self.lock();
        state.polls.push(Polling { token, interest });
        self.settle(state, task);
    }

    /// Sees to it that those who wait are not forgotten.
    pub(super) fn settle(&self, mut state: MutexGuard<'_, State>, task: &Task<Retry>) {
        let kick = state.wants_a_run();
        self.list(&mut state);
        drop(state);
        if kick {
            // Fails only while the backend is dropped.
            let _ = task.kick();
        }
    }

    /// The same, at less cost if nobody waits.
    fn settle_if_busy(&self, state: MutexGuard<'_, State>, task: &Task<Retry>) {
        if state.is_busy() {
            self.settle(state, task);
        }
    }

    /// Has the hub arm it, unless it is.
    fn list(&self, state: &mut State) {
        let wanted = state.wanted();
        if !state.listed && !state.armed.contains(wanted) {
            state.listed = true;
            self.hub.unarmed.leave([self.number]);
        }
    }

    /// Tries a request whose turn it is. `task`: to be kicked for those behind it, if the caller does not go on with
    /// them.
    pub(super) fn attempt(
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
                let given_up = state.line(direction).would_wait(Parked { token, length: wanted });
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
        state.written |= direction == Direction::Out && n > 0;
        let empty = direction == Direction::In && state.input.level() == 0;
        let peer = state.peer.clone().filter(|_| n > 0);
        match task {
            Some(task) => self.settle_if_busy(state, task),
            None => drop(state),
        }
        if let Some(peer) = peer {
            match direction {
                Direction::Out => peer.fed(Direction::In, n, true),
                Direction::In => peer.fed(Direction::Out, n, empty),
            }
        }
    }

    /// The next request to be tried, its turn, and whether the file is one that cannot seek.
    pub(super) fn next(&self, direction: Direction) -> Option<(Completion, bool)> {
        let mut state = self.lock();
        let work = state.line(direction).next()?;
        Some((work, state.is_stream()))
    }

    /// Looks whether polls have found what they wait for.
    pub(super) fn look(&self, finished: &mut Vec<Finished>) {
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
        let lines = state.input.take().into_iter().chain(state.output.take());
        let mut all: Vec<_> = lines.map(|parked| parked.token).collect();
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
