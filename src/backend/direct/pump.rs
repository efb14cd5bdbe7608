//! Requests that are handed out in pieces, as credits allow: [`Pump`].

use super::bounce::Bounces;
use super::piece::{Next, Piece, Plan, Route, cached};
use crate::aio::{Above, Backend, Below, Done, Ended, Finished, RequestId};
use crate::credits::Credits;
use crate::fanin::{FanIn, Part};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, SharedFile};
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::{io, mem};

/// What all requests of a layer share.
pub(super) struct Pump<B: Backend + 'static> {
    queue: Mutex<Queue<B>>,
    pub(super) credits: Arc<Credits>,
    /// The length of a part, at most; and of every aligned buffer, which is on a multiple of it.
    pub(super) part: usize,
    bounces: Bounces,
    parts: Level,
    buffers: Level,
}

/// How many there are, and were at most.
#[derive(Default)]
pub(super) struct Level {
    now: AtomicU32,
    peak: AtomicU32,
}

impl Level {
    // Relaxed, all of them: what is counted is ordered by credits, so that the count is never above theirs.
    fn rise(&self) {
        self.peak.fetch_max(self.now.fetch_add(1, Relaxed) + 1, Relaxed);
    }

    fn fall(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

/// Requests of which not every piece is handed out.
struct Queue<B: Backend + 'static> {
    waiting: VecDeque<Entry<B>>,
    /// The request whose pieces somebody is handing out.
    running: Option<RequestId>,
    /// Whether that one is to be ended.
    stop: bool,
    /// Whether there was something to do since the first of `waiting` was last looked at.
    again: bool,
}

/// A request that is being handed out.
pub(super) struct Entry<B: Backend + 'static> {
    pub(super) id: RequestId,
    pub(super) above: Above,
    /// Valid for as long as the request is in flight: its context keeps the backend, and with it what is below.
    pub(super) below: NonNull<Below<B, Carried<B>>>,
    pub(super) plan: Plan,
    /// Of the request, which keeps it open.
    pub(super) fd: RawFd,
    pub(super) cached: Option<SharedFile>,
    pub(super) parts: FanIn<()>,
}

// SAFETY: `below` is `Sync`; all else may be sent.
unsafe impl<B: Backend + 'static> Send for Entry<B> {}

/// What goes with the request of a piece, and comes back.
pub(super) struct Carried<B: Backend + 'static> {
    /// Dropped before the part, which gives the credit back that it is counted by.
    held: Held<B>,
    /// Keeps the request above in flight.
    part: Part<()>,
    above: Above,
    below: NonNull<Below<B, Self>>,
    fd: RawFd,
    cached: Option<SharedFile>,
}

// SAFETY: `below` is `Sync`; all else may be sent.
unsafe impl<B: Backend + 'static> Send for Carried<B> {}

/// A piece in flight, counted.
struct Held<B: Backend + 'static> {
    piece: Piece,
    pump: Arc<Pump<B>>,
}

impl<B: Backend + 'static> Drop for Held<B> {
    fn drop(&mut self) {
        if let Some(buffer) = self.piece.bounce.take() {
            self.pump.buffers.fall();
            self.pump.bounces.put(buffer);
        }
        self.pump.parts.fall();
    }
}

impl<B: Backend + 'static> Pump<B> {
    pub(super) fn new(parts: u32, part: usize) -> Arc<Self> {
        let queue = Queue { waiting: VecDeque::new(), running: None, stop: false, again: false };
        Arc::new(Self {
            queue: Mutex::new(queue),
            credits: Arc::new(Credits::new(parts)),
            part,
            bounces: Bounces::new(parts, part),
            parts: Level::default(),
            buffers: Level::default(),
        })
    }

    /// The most parts that were in flight at once, and aligned buffers in use.
    pub(super) fn peak(&self) -> (u32, u32) {
        // Relaxed: for reports.
        (self.parts.peak.load(Relaxed), self.buffers.peak.load(Relaxed))
    }

    /// Puts a request behind those that wait, and hands out what can be.
    pub(super) fn push(this: &Arc<Self>, entry: Entry<B>) {
        this.queue.lock().waiting.push_back(entry);
        Self::go_on(this);
    }

    /// Hands out pieces, of the first request that waits and those behind it, until there is no credit; or has whoever
    /// is at it look once more. Called when there is something new to hand out, and whenever a credit has come back.
    pub(super) fn go_on(this: &Arc<Self>) {
        /// Nobody is at it any more, after a panic.
        struct Turn<'a, B: Backend + 'static>(&'a Mutex<Queue<B>>);

        impl<B: Backend + 'static> Drop for Turn<'_, B> {
            fn drop(&mut self) {
                let mut queue = self.0.lock();
                (queue.running, queue.stop) = (None, false);
            }
        }

        loop {
            let mut entry = {
                let mut queue = this.queue.lock();
                queue.again = true;
                if queue.running.is_some() {
                    return;
                }
                let Some(entry) = queue.waiting.pop_front() else { return };
                (queue.running, queue.stop, queue.again) = (Some(entry.id), false, false);
                entry
            };
            let turn = Turn(&this.queue);
            let all = Self::hand_out(this, &mut entry);
            let (entry, again) = {
                let mut queue = this.queue.lock();
                // Not after the lock was let go: whoever finds us at it leaves it to us.
                mem::forget(turn);
                queue.running = None;
                match all || mem::take(&mut queue.stop) {
                    true => (Some((entry, all)), true),
                    false => {
                        queue.waiting.push_front(entry);
                        (None, queue.again)
                    }
                }
            };
            match entry {
                // Perhaps completes the request.
                Some((entry, true)) => entry.parts.finish_submitting(),
                // Ended: with what was handed out, and `ECANCELED` behind it.
                Some((entry, false)) => drop(entry),
                None if !again => return,
                None => {}
            }
        }
    }

    /// Hands out pieces of a request; returns whether that was all.
    fn hand_out(this: &Arc<Self>, entry: &mut Entry<B>) -> bool {
        // SAFETY: the request is in flight: it waits for its submitter, which `entry` is.
        let below = unsafe { entry.below.as_ref() };
        let mut handed = false;
        let all = loop {
            if below.is_dying() || this.queue.lock().stop {
                this.queue.lock().stop = true;
                break false;
            }
            if entry.plan.left.is_empty() {
                break true;
            }
            let plan = entry.plan.clone();
            let Some(piece) = entry.plan.next(this.part as u64) else { break true };
            let Ok(part) = entry.parts.try_part(piece.len(), || ()) else {
                entry.plan = plan;
                break false;
            };
            this.parts.rise();
            let mut held = Held { piece, pump: Arc::clone(this) };
            let prepared = this.prepare(&mut held.piece, entry);
            let carried = Carried {
                held,
                part,
                above: entry.above,
                below: entry.below,
                fd: entry.fd,
                cached: entry.cached.clone(),
            };
            match prepared {
                Ok(()) => carried.go_on(below),
                Err(error) => carried.end(Some(error)),
            }
            handed = true;
        };
        if handed {
            below.flush();
        }
        all
    }

    /// Gets what a piece needs.
    fn prepare(&self, piece: &mut Piece, entry: &mut Entry<B>) -> io::Result<()> {
        match piece.route {
            Route::Straight => {}
            Route::Bounced => {
                piece.bounce = Some(self.bounces.take().map_err(io::Error::other)?);
                self.buffers.rise();
            }
            Route::Cached if entry.cached.is_none() => {
                // SAFETY: open: the request keeps it so, and is in flight.
                entry.cached = Some(cached(unsafe { BorrowedFd::borrow_raw(entry.fd) })?);
            }
            Route::Cached => {}
        }
        Ok(())
    }

    /// Ends a request that is being handed out; returns whether there is one of this name.
    pub(super) fn stop(&self, id: RequestId) -> bool {
        let mut queue = self.queue.lock();
        if queue.running == Some(id) {
            queue.stop = true;
            return true;
        }
        let place = queue.waiting.iter().position(|entry| entry.id == id);
        let entry = place.and_then(|place| queue.waiting.remove(place));
        drop(queue);
        entry.is_some()
    }

    /// Ends all of them.
    pub(super) fn stop_all(&self) {
        let mut queue = self.queue.lock();
        queue.stop = true;
        let entries = mem::take(&mut queue.waiting);
        drop(queue);
        drop(entries);
    }
}

impl<B: Backend + 'static> Carried<B> {
    /// Has what is left of the piece carried out.
    fn go_on(mut self, below: &Below<B, Self>) {
        let cached = self.cached.as_ref().filter(|_| self.held.piece.route == Route::Cached);
        // SAFETY: 1. the part keeps the request above, and with it memory and file, until `end`; the buffer stays with
        // the piece. No other piece has these bytes.
        let request = unsafe { self.held.piece.request(self.fd, cached) };
        match below.submit(self.above, request, self) {
            // What `done` returns is nothing: the outcome is reported by the last part.
            Ok(finished) => drop(finished),
            Err(not) => not.done.end(Some(not.error)),
        }
    }

    /// Gives back what the piece has had, and tells of it.
    fn end(self, error: Option<io::Error>) {
        let Self { held, part, .. } = self;
        let (done, pump) = (held.piece.done, Arc::clone(&held.pump));
        drop(held);
        match error {
            None => part.finish(Ok(done)),
            Some(error) => part.finish_partly(done, error),
        }
        Pump::go_on(&pump);
    }
}

impl<B: Backend + 'static> Done for Carried<B> {
    fn done(mut self, ended: Ended) -> Option<Finished> {
        // SAFETY: 1. as in `go_on`; it has ended.
        match unsafe { self.held.piece.take(ended.bytes, ended.error) } {
            Next::End(error) => self.end(error),
            Next::Rest => {
                // SAFETY: the request above is in flight, since its part is not finished.
                let below = unsafe { self.below.as_ref() };
                self.go_on(below);
                below.flush();
            }
        }
        None
    }
}
