//! One ring of the kernel's, and what is in flight in it: [`Ring`].

use super::UringError;
use super::entry::{Segments, result};
use super::flights::{Flight, Flights};
use crate::aio::{Completion, Finished};
use crate::percpu::CachePadded;
use crate::sync::time::Duration;
use crate::sync::{Mutex, MutexGuard, thread};
use crate::wait::Outcome;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, mem};

/// Entries for requests that are not yet handed to the kernel; it takes them when there are so many.
const BATCH: u32 = 128;

/// How many completions are taken out under the lock at a time.
const CHUNK: usize = 64;

/// The user data of entries that cancel: no request's, whose names are more than a tag.
const CANCEL: u64 = 0;

/// The user data of entries that only complete, to wake who sleeps in the ring.
const WAKE: u64 = 1;

/// How many completions somebody may sleep for, and so how many entries have to wake him.
const WAKES: usize = 64;

/// Why a request was not taken.
pub(super) enum NotPushed {
    /// Somebody else has the ring at the moment.
    Busy,
    /// The kernel has to take the entries that are there first: [`Ring::enter`].
    Unsent,
    /// As many are in flight as there is room for completions.
    Full,
    /// Its context is being destroyed.
    Dying,
}

/// What one look at the completions brought.
#[derive(Default)]
pub(super) struct Harvested {
    pub(super) finished: Vec<Finished>,
    /// To be begun again.
    pub(super) orphans: Vec<Flight>,
    /// Whether there is more.
    pub(super) more: bool,
}

impl Harvested {
    /// As `finished.push`, for which it would lie in memory first, in pieces: that is waited for when they are copied.
    #[inline(always)]
    fn push(&mut self, work: Completion, result: io::Result<usize>) {
        self.finished.reserve(1);
        let n = self.finished.len();
        let [place, ..] = self.finished.spare_capacity_mut() else { unreachable!("reserved") };
        place.write(work.finish(result));
        // SAFETY: there is room for one more, which is written.
        unsafe { self.finished.set_len(n + 1) };
    }
}

pub(super) struct Ring {
    io: IoUring,
    /// Requests in flight at most: half of the completions there is room for, less [`WAKES`], the rest being for those
    /// of entries that cancel.
    limit: usize,
    /// Also the right to touch either queue of `io`. Held for some instructions, never during a system call.
    state: CachePadded<Mutex<State>>,
}

struct State {
    flights: Flights,
    /// How many of them go to futures.
    awaited: usize,
    /// Entries that cancel and whose completion is to come.
    cancels: usize,
    /// Entries that wake and whose completion is to come, or was not taken out yet. At most [`WAKES`].
    wakes: usize,
    /// Somebody sleeps in this ring, or is about to.
    parked: Option<Parked>,
    /// Whether the next request has to wake who sleeps in another ring, if somebody does.
    tells: bool,
}

/// One who sleeps in a ring.
struct Parked {
    /// Until so many have completed.
    least: usize,
    /// Whether he is to be woken at once. Then the completions are left to him: they are what wakes him.
    woken: bool,
}

impl Ring {
    /// With room for so many requests in flight. If `cooperative`, the kernel does not interrupt threads for it.
    pub(super) fn new(capacity: u32, cooperative: bool) -> Result<Self, UringError> {
        let room = capacity.saturating_mul(2).saturating_add(WAKES as u32);
        let completions = room.clamp(2, 1 << 16).next_power_of_two();
        let build = |all| {
            let mut builder = IoUring::builder();
            // The kernel's own wish for completions is at least one for each entry. A child would share the queues.
            builder.setup_cqsize(completions).setup_clamp().dontfork();
            if all {
                // An entry that is wrong does not hold up those behind it.
                builder.setup_submit_all();
            }
            if all && cooperative {
                builder.setup_coop_taskrun();
            }
            builder.build(BATCH.min(completions / 2))
        };
        let io = match build(true) {
            // Older than Linux 5.18, or 5.19.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false),
            built => built,
        }?;
        let params = io.params();
        for (has, what) in [
            (params.is_feature_nodrop(), "guarantee that completions are kept"),
            (params.is_feature_submit_stable(), "guarantee that arguments are copied"),
            (params.is_feature_fast_poll(), "internal polling"),
            (params.is_feature_native_workers(), "workers that belong to the process"),
        ] {
            if !has {
                return Err(UringError::TooOld(what));
            }
        }
        let limit = (params.cq_entries() as usize).saturating_sub(WAKES).max(2) / 2;
        // Somebody may sleep who did not know that there would be this ring.
        let flights = Flights::new(limit.min(capacity as usize));
        let state = State { flights, awaited: 0, cancels: 0, wakes: 0, parked: None, tells: true };
        Ok(Self { io, limit, state: CachePadded::new(Mutex::new(state)) })
    }

    pub(super) fn io(&self) -> &IoUring {
        &self.io
    }

    /// Readable while there are completions.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as `io` is.
        unsafe { BorrowedFd::borrow_raw(self.io.as_raw_fd()) }
    }

    /// The queue of entries, of a ring whose lock is held.
    fn entries(&self, _: &MutexGuard<'_, State>) -> squeue::SubmissionQueue<'_> {
        // SAFETY: there is no other: each is made here, and gone before the lock is, since no caller keeps it.
        unsafe { self.io.submission_shared() }
    }

    /// The queue of completions, of a ring whose lock is held.
    fn completions(&self, _: &MutexGuard<'_, State>) -> cqueue::CompletionQueue<'_> {
        // SAFETY: as in `entries`.
        unsafe { self.io.completion_shared() }
    }

    /// Takes a request; the kernel has it after the next [`enter`](Self::enter). Returns whether who sleeps in any ring
    /// has to be woken for it.
    ///
    /// # Safety
    ///
    /// 1. `entry` is what was [prepared](super::entry::Known::prepare) of this request, with these segments.
    // In two registers each, and so they stay: a `Flight` made by the caller would be copied through memory.
    #[inline(always)]
    pub(super) unsafe fn push(
        &self,
        (work, segments): (Completion, Segments),
        again: u8,
        entry: &squeue::Entry,
        wait: bool,
    ) -> Result<bool, ((Completion, Segments), NotPushed)> {
        let mut state = match self.state.try_lock() {
            Some(state) => state,
            None if wait => self.state.lock(),
            None => return Err(((work, segments), NotPushed::Busy)),
        };
        // Under the lock: whoever destroys has it after the context is known to die, and finds what is in flight.
        if work.is_dying() {
            return Err(((work, segments), NotPushed::Dying));
        }
        // The same name can be another context's, if one ring serves two.
        if state.flights.len() >= self.limit || state.flights.has(work.id().into_raw()) {
            return Err(((work, segments), NotPushed::Full));
        }
        // SAFETY: what it points to stays by 1.: the request in its slot until its completion is used, and the
        // segments, on the heap; both until the kernel has completed it.
        if unsafe { self.entries(&state).push(entry) }.is_err() {
            return Err(((work, segments), NotPushed::Unsent));
        }
        let is_awaited = work.id().is_awaited();
        state.awaited += usize::from(is_awaited);
        state.flights.insert(work, segments, again);
        Ok(mem::take(&mut state.tells) || (is_awaited && state.parked.is_some()))
    }

    /// Hands the entries to the kernel. Some of them may complete, and even wait for a busy file system, in here.
    ///
    /// # Panics
    ///
    /// If the kernel refuses the call, which it granted when the ring was made.
    pub(super) fn enter(&self) {
        loop {
            match self.io.submitter().submit() {
                Ok(_) => {}
                // Interrupted, or out of memory for the moment.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) =>
                {
                    thread::yield_now();
                }
                Err(error) => {
                    panic!("io_uring_enter was granted to this process and is now refused: {error}")
                }
            }
            // Some may be left if memory was short. Whoever has the lock now finds them, or hands its own over later.
            if self.state.try_lock().is_none_or(|state| self.entries(&state).is_empty()) {
                return;
            }
        }
    }

    /// Takes up to [`CHUNK`] completions out, and has the kernel take what is held back. Nothing if somebody else is
    /// about to.
    pub(super) fn harvest(&self) -> Harvested {
        let mut harvested = Harvested::default();
        let Some(mut state) = self.state.try_lock() else { return harvested };
        // Nothing of the queues is looked at while nothing is in flight: a child of the process has none.
        if state.flights.is_empty() && state.cancels == 0 && state.wakes == 0 {
            return harvested;
        }
        if state.parked.as_ref().is_some_and(|parked| parked.woken) {
            return harvested;
        }
        let mut queue = self.completions(&state);
        // No more than are there now.
        harvested.finished.reserve_exact(queue.len().min(CHUNK));
        for completion in queue.by_ref().take(CHUNK) {
            state.settle(&completion, &mut harvested);
        }
        harvested.more = !queue.is_empty();
        drop(queue);
        let unsent = !self.entries(&state).is_empty();
        drop(state);
        if unsent {
            self.enter();
        }
        harvested
    }

    /// Asks the kernel to cancel a request; returns whether it is here.
    pub(super) fn cancel(&self, id: u64) -> bool {
        let state = self.state.lock();
        let here = state.flights.has(id);
        if here {
            self.ask(state, &[id]);
        }
        here
    }

    /// Has the kernel begin what is held back, and asks it to cancel those that are `wanted`. Returns how many are in
    /// flight.
    pub(super) fn cancel_if(&self, wanted: impl Fn(&Flight) -> bool) -> usize {
        let state = self.state.lock();
        let n = state.flights.len();
        if n > 0 {
            let ids: Vec<u64> =
                state.flights.iter().filter(|flight| wanted(flight)).map(Flight::name).collect();
            self.ask(state, &ids);
        }
        n
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.state.lock().flights.len()
    }

    /// How many are in flight. The next one wakes who sleeps in another ring.
    pub(super) fn tell(&self) -> usize {
        let mut state = self.state.lock();
        state.tells = true;
        state.flights.len()
    }

    /// Prepares to sleep until `wanted` have completed, here or elsewhere. Returns how many elsewhere, and how many
    /// here: fewer of both are fewer than `wanted`. `None` if it should not be slept in this ring.
    pub(super) fn park(&self, wanted: u32) -> Option<(u32, usize)> {
        let mut state = self.state.lock();
        // Without any, nothing completes here; a future must not wait for what a reader waits for.
        if state.flights.is_empty() || state.awaited > 0 {
            return None;
        }
        // All that can complete here, if that is enough. If not, at least the rest comes from elsewhere.
        let elsewhere = wanted.saturating_sub(state.flights.len() as u32).max(1);
        let least = ((wanted.max(1) - elsewhere) as usize + 1).min(WAKES);
        state.parked = Some(Parked { least, woken: false });
        Some((elsewhere, least))
    }

    /// Nobody sleeps here any more.
    pub(super) fn unpark(&self) {
        self.state.lock().parked = None;
    }

    /// Sleeps until `least` have completed since the last were taken out. After [`park`](Self::park), and before
    /// [`unpark`](Self::unpark).
    pub(super) fn sleep(&self, least: usize, left: Option<Duration>) -> Outcome {
        let time = left.map(Timespec::from);
        let args = time.iter().fold(SubmitArgs::new(), |args, time| args.timespec(time));
        let slept = self.io.submitter().submit_with_args(least, &args);
        match slept.map_err(|error| error.raw_os_error()) {
            Err(Some(libc::ETIME)) => Outcome::TimedOut,
            Err(Some(libc::EINTR)) => Outcome::Interrupted,
            // Or something else that the sleeper sees to when it looks.
            _ => Outcome::Woken,
        }
    }

    /// Wakes who sleeps here, or is about to: by as many completions as he waits for. They count from where the queue
    /// was taken out to when his sleep began; so that they do, nobody else takes any out until he is gone.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        match &mut state.parked {
            Some(parked) if !parked.woken => parked.woken = true,
            _ => return,
        }
        while let Some(Parked { least, woken: true }) = state.parked
            && state.wakes < least
        {
            let entry = opcode::Nop::new().build().user_data(WAKE);
            // SAFETY: it points to nothing.
            if unsafe { self.entries(&state).push(&entry) }.is_ok() {
                state.wakes += 1;
            } else {
                drop(state);
                self.enter();
                state = self.state.lock();
            }
        }
        drop(state);
        self.enter();
    }

    fn ask<'a>(&'a self, mut state: MutexGuard<'a, State>, ids: &[u64]) {
        for id in ids {
            // Gone meanwhile, or there is no room for one more completion: who destroys asks again.
            while state.flights.has(*id) && state.cancels < self.limit {
                let entry = opcode::AsyncCancel::new(*id).build().user_data(CANCEL);
                // SAFETY: it points to nothing.
                if unsafe { self.entries(&state).push(&entry) }.is_ok() {
                    state.cancels += 1;
                    if let Some(flight) = state.flights.get_mut(*id) {
                        flight.asked = true;
                    }
                    break;
                }
                drop(state);
                self.enter();
                state = self.state.lock();
            }
        }
        drop(state);
        self.enter();
    }
}

impl State {
    fn settle(&mut self, completion: &cqueue::Entry, harvested: &mut Harvested) {
        let (id, res) = (completion.user_data(), completion.result());
        if id == CANCEL {
            // Whether it was found does not matter: it completes in any case.
            self.cancels -= 1;
            return;
        }
        if id == WAKE {
            self.wakes -= 1;
            return;
        }
        let Some(mut flight) = self.flights.remove(id) else { return };
        self.awaited -= usize::from(flight.work.id().is_awaited());
        if flight.is_orphaned(res) {
            flight.again += 1;
            harvested.orphans.push(flight);
        } else {
            let result = result(&flight.work.request().op, res);
            harvested.push(flight.work, result);
        }
    }
}
