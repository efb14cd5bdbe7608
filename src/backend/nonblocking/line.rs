//! The requests that wait for one direction of a file: [`Line`].

use crate::aio::{Cancellable, Completion, RequestId};
use std::collections::VecDeque;

/// First in, first served: one request at a time is tried, and those behind it wait.
#[derive(Debug)]
pub(super) struct Line {
    /// With those that were cancelled since it last grew, or was looked through.
    waiting: VecDeque<Parked>,
    /// The one that is being tried, by whoever took it.
    trying: Option<RequestId>,
    /// Whether that one is to be given up if it would wait.
    asked: bool,
    /// Whether a try may succeed, as far as anybody has said.
    open: bool,
    /// Whether readiness said so, and not a transfer of ours: until a try finds the end of it.
    ready: bool,
    /// Whether somebody has said so since the try began.
    news: bool,
    /// How many bytes of ours are at the other end of the pipe, or have been read there: what no try of this line has
    /// answered yet.
    level: usize,
    /// `level` when the try began.
    begun: usize,
    /// How many bytes make a try worth while.
    unit: usize,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) token: Cancellable,
    /// How many bytes it is to move.
    pub(super) length: usize,
}

impl Parked {
    fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Line {
    /// `unit`: how many bytes at the other end of a pipe make a try worth while.
    pub(super) fn new(unit: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            trying: None,
            asked: false,
            open: true,
            ready: false,
            news: false,
            level: 0,
            begun: 0,
            unit,
        }
    }

    /// Another file has got the number: nothing is known of it.
    pub(super) fn forget(&mut self) {
        (self.open, self.ready, self.level) = (true, false, 0);
    }

    /// Whether requests wait, and nobody is at it, and a try may succeed.
    pub(super) fn wants_a_run(&self) -> bool {
        self.open && self.trying.is_none() && !self.waiting.is_empty()
    }

    /// Whether nothing is in it, cancelled or not.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether requests wait, leaving out those that were cancelled.
    pub(super) fn is_waiting(&mut self) -> bool {
        while self.waiting.front().is_some_and(Parked::is_cancelled) {
            self.waiting.pop_front();
        }
        !self.waiting.is_empty()
    }

    /// Whether a request that has just come is to be tried at once; then it is the caller's turn. `hopeful`: also if
    /// nobody has said that it may succeed.
    pub(super) fn begin(&mut self, id: RequestId, hopeful: bool) -> bool {
        let begins = self.trying.is_none() && (self.open || hopeful) && !self.is_waiting();
        if begins {
            self.took(id);
        }
        begins
    }

    /// The next request to be tried, and the turn.
    pub(super) fn next(&mut self) -> Option<Completion> {
        while self.wants_a_run() {
            if let Some(work) = self.waiting.pop_front().and_then(|parked| parked.token.claim()) {
                self.took(work.id());
                return Some(work);
            }
        }
        None
    }

    /// The next request, and the turn, for who has `n` bytes for it: if it would wait, as far as anybody has said, and
    /// they do not exceed it.
    pub(super) fn next_for(&mut self, n: usize) -> Option<Completion> {
        while !self.open && self.level == 0 && self.trying.is_none() && self.is_waiting() {
            if self.waiting.front()?.length < n {
                break;
            }
            if let Some(work) = self.waiting.pop_front().and_then(|parked| parked.token.claim()) {
                self.took(work.id());
                return Some(work);
            }
        }
        None
    }

    fn took(&mut self, id: RequestId) {
        (self.trying, self.asked, self.news, self.begun) = (Some(id), false, false, self.level);
    }

    /// Waits behind the others.
    pub(super) fn push(&mut self, parked: Parked) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|parked| !parked.is_cancelled());
            self.waiting.reserve(self.waiting.len() + 1);
        }
        self.waiting.push_back(parked);
    }

    /// The end of a turn whose request would have waited: it is the first again, and comes back if it is to be given
    /// up.
    pub(super) fn would_wait(&mut self, parked: Parked) -> Option<Cancellable> {
        self.found_nothing();
        if self.asked {
            return Some(parked.token);
        }
        self.waiting.push_front(parked);
        None
    }

    /// The end of a turn that has found nothing, and whose request is done in spite of that.
    pub(super) fn found_nothing(&mut self) {
        self.trying = None;
        self.level = self.level.saturating_sub(self.begun);
        if !self.news {
            (self.open, self.ready) = (self.level >= self.unit, false);
        }
    }

    /// The end of a turn that has transferred `n` bytes, `whole` as many as were wanted. `stays_open`: another may
    /// succeed as well.
    pub(super) fn done(&mut self, n: usize, whole: bool, stays_open: bool) {
        self.trying = None;
        self.level = self.level.saturating_sub(if whole { n } else { self.begun });
        if !whole && !self.news {
            self.ready = false;
        }
        self.open = stays_open || self.ready || self.level >= self.unit;
    }

    /// The end of a turn of which nothing is known.
    pub(super) fn left(&mut self) {
        self.trying = None;
        self.open = true;
    }

    /// Readiness says that a try may succeed.
    pub(super) fn is_ready(&mut self) {
        (self.open, self.ready, self.news) = (true, true, true);
    }

    /// A transfer of ours at the other end has moved `n` bytes. Says that a try may succeed if it is enough, or
    /// `surely`.
    pub(super) fn is_fed(&mut self, n: usize, surely: bool) {
        self.level = self.level.saturating_add(n);
        if surely || self.level >= self.unit {
            (self.open, self.news) = (true, true);
        }
    }

    pub(super) fn level(&self) -> usize {
        self.level
    }

    /// Asks for the end of the request that is being tried, if it is this one.
    pub(super) fn ask(&mut self, id: RequestId) -> bool {
        let is_it = self.trying == Some(id);
        self.asked |= is_it;
        is_it
    }

    /// Those that wait, from now on not here.
    pub(super) fn take(&mut self) -> VecDeque<Parked> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Parked};
    use crate::aio::{Backend, Completion, Context, Request, Submitted};
    use crate::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Completion>>);

    impl Backend for Kept {
        fn submit(&self, work: Completion) -> Submitted {
            self.0.lock().push(work);
            Submitted::Queued
        }
    }

    #[test]
    fn what_is_asked_for_while_it_is_tried_does_not_wait_again() {
        let context = Context::new(4, Kept::default()).unwrap();
        for asked in [false, true] {
            let id = context.submit(Request::nop()).unwrap();
            let work = context.backend().0.lock().pop().unwrap();
            let mut line = Line::new(1);
            assert!(!line.ask(id), "it is not tried");
            assert!(line.begin(id, false));
            assert!(!asked || line.ask(id));
            let comes_back = line.would_wait(Parked { token: work.cancellable(), length: 1 });
            assert_eq!((comes_back.is_some(), line.is_waiting()), (asked, !asked));
        }
    }

    #[test]
    fn what_is_fed_while_a_try_goes_wrong_is_tried_again() {
        let context = Context::new(4, Kept::default()).unwrap();
        for (before, meanwhile) in [(0, 0), (1, 0), (0, 1), (5, 1)] {
            let id = context.submit(Request::nop()).unwrap();
            let work = context.backend().0.lock().pop().unwrap();
            let mut line = Line::new(1);
            line.is_fed(before, false);
            assert!(line.begin(id, false));
            if meanwhile > 0 {
                line.is_fed(meanwhile, false);
            }
            assert!(line.would_wait(Parked { token: work.cancellable(), length: 1 }).is_none());
            assert_eq!((line.wants_a_run(), line.level()), (meanwhile > 0, meanwhile));
        }
    }
}
