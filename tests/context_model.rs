//! Arbitrary sequences of operations on a context against a plain model of what they mean.

use ioctx::aio::{
    Backend, CancelError, Cancellable, Completion, Context, DestroyError, GetEventsError, Reason, Request,
    RequestId, Submitted,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How far a request is, by the number that is its user data.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Aside,
    Running,
    /// Its result.
    Unread(Option<usize>),
    Read,
}
use State::*;

/// What it is given with odd user data is put aside, the rest runs.
#[derive(Clone, Default)]
struct Desk {
    aside: Arc<Mutex<VecDeque<Cancellable>>>,
    runs: Arc<Mutex<VecDeque<Completion>>>,
}

impl Backend for Desk {
    fn submit(&self, work: Completion) -> Submitted {
        if work.request().user_data % 2 == 1 {
            self.aside.lock().unwrap().push_back(work.cancellable());
        } else {
            self.runs.lock().unwrap().push_back(work);
        }
        Submitted::Queued
    }
}

struct Walk {
    context: Context<Desk>,
    desk: Desk,
    states: Vec<State>,
    ids: Vec<RequestId>,
    destroyed: bool,
}

impl Drop for Walk {
    /// Nothing that runs is left to hold the context up; what is aside is cancelled by its drop, if all is well.
    fn drop(&mut self) {
        self.desk.runs.lock().unwrap().clear();
        if std::thread::panicking() {
            self.desk.aside.lock().unwrap().clear();
        }
    }
}

impl Walk {
    fn count(&self, which: impl Fn(State) -> bool) -> usize {
        self.states.iter().filter(|state| which(**state)).count()
    }

    fn place(&self, id: RequestId) -> usize {
        self.ids.iter().position(|known| *known == id).expect("a name that was given out")
    }

    /// Submits so many, at once or one by one.
    fn submit(&mut self, n: usize, at_once: bool) -> Result<(), TestCaseError> {
        let room = self.context.capacity() as usize - self.count(|state| state != Read);
        let first = self.states.len();
        let want = if self.destroyed { 0 } else { n.min(room) };
        let mut batch: Vec<_> = (first..first + n).map(|i| Request::nop().with_user_data(i as u64)).collect();
        let (ids, before) = (&mut self.ids, first);
        if at_once {
            let accepted = self.context.submit_batch_with(&mut batch, |id| ids.push(id));
            prop_assert_eq!(accepted.unwrap_or(0), want);
            prop_assert_eq!(batch.len(), n - want);
        } else {
            for request in batch {
                match self.context.submit(request) {
                    Ok(id) => ids.push(id),
                    Err(refused) => match refused.reason {
                        Reason::Dying => prop_assert!(self.destroyed),
                        Reason::Full => prop_assert!(!self.destroyed),
                        reason => prop_assert!(false, "{reason}"),
                    },
                }
            }
        }
        prop_assert_eq!(ids.len(), before + want);
        self.states.extend((first..first + want).map(|i| if i % 2 == 1 { Aside } else { Running }));
        Ok(())
    }

    /// Begins the request that has waited longest, or drops its token.
    fn begin(&mut self, really: bool) -> Result<(), TestCaseError> {
        let Some(token) = self.desk.aside.lock().unwrap().pop_front() else { return Ok(()) };
        let place = self.place(token.id());
        let waits = self.states[place] == Aside;
        prop_assert_eq!(token.is_cancelled(), !waits);
        if really {
            let begun = token.claim();
            prop_assert_eq!(begun.is_some(), waits);
            self.desk.runs.lock().unwrap().extend(begun);
        }
        if waits {
            self.states[place] = if really { Running } else { Unread(None) };
        }
        Ok(())
    }

    /// Finishes the request that has run longest, or puts it aside again.
    fn run(&mut self, finish: bool) {
        let Some(work) = self.desk.runs.lock().unwrap().pop_front() else { return };
        let place = self.place(work.id());
        if finish {
            work.complete(Ok(place));
            self.states[place] = Unread(Some(place));
        } else {
            self.desk.aside.lock().unwrap().push_back(work.cancellable());
            self.states[place] = if self.destroyed { Unread(None) } else { Aside };
        }
    }

    fn cancel(&mut self, which: usize) -> Result<(), TestCaseError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let place = which % self.ids.len();
        let want = match self.states[place] {
            Aside => Ok(()),
            Running => Err(CancelError::Running),
            Unread(_) | Read => Err(CancelError::Unknown),
        };
        prop_assert_eq!(self.context.cancel(self.ids[place]), want);
        if want.is_ok() {
            self.states[place] = Unread(None);
        }
        Ok(())
    }

    /// Reads up to `max` events, or visits them and takes every other.
    fn read(&mut self, max: usize, visit: bool) -> Result<(), TestCaseError> {
        let there = self.count(|state| matches!(state, Unread(_)));
        let got = RefCell::new(Vec::new());
        let read = if visit {
            let mut taken = false;
            self.context.visit(0, max, None, |event| {
                got.borrow_mut().push((event.id(), event.request().user_data, event.result().ok()));
                taken = !taken;
                drop(taken.then(|| event.into_event()));
            })
        } else {
            let mut events = Vec::new();
            let read = self.context.get_events(0, max, None, &mut events);
            let seen = events.into_iter().map(|event| (event.id, event.request.user_data, event.result.ok()));
            got.borrow_mut().extend(seen);
            read
        };
        let none_left = self.destroyed && self.count(|state| state != Read) == 0;
        let want = if none_left { Err(GetEventsError::Dying) } else { Ok(there.min(max)) };
        prop_assert_eq!((read, got.borrow().len()), (want, there.min(max)));
        for (id, user_data, result) in got.into_inner() {
            let place = self.place(id);
            prop_assert_eq!((user_data, self.states[place]), (place as u64, Unread(result)));
            self.states[place] = Read;
        }
        Ok(())
    }

    fn destroy(&mut self) -> Result<(), TestCaseError> {
        let destroyed = self.context.destroy(Some(Instant::now()));
        if std::mem::replace(&mut self.destroyed, true) {
            prop_assert_eq!(destroyed, Err(DestroyError::Already));
            return Ok(());
        }
        for state in self.states.iter_mut().filter(|state| **state == Aside) {
            *state = Unread(None);
        }
        let running = self.count(|state| state == Running);
        match destroyed {
            Ok(()) => prop_assert_eq!(running, 0),
            Err(DestroyError::TimedOut { in_flight, named }) => {
                prop_assert_eq!((in_flight as usize, named.len()), (running, running.min(8)));
                for request in named {
                    let place = self.place(request.id);
                    prop_assert_eq!((request.user_data as usize, self.states[place]), (place, Running));
                }
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every accepted request yields one event, whatever is done to it and to its context.
    #[test]
    fn context(capacity in 1_u32..20, lanes in 0_u32..4, steps in vec((0_u8..22, 0_usize..12), 0..120)) {
        let desk = Desk::default();
        let context = match lanes {
            0 => Context::new(capacity, desk.clone()),
            _ => Context::with_lanes(capacity, lanes, desk.clone()),
        };
        let mut walk =
            Walk { context: context.unwrap(), desk, states: Vec::new(), ids: Vec::new(), destroyed: false };
        for (step, n) in steps {
            match step {
                0..4 => walk.submit(n % 4, false),
                4..7 => walk.submit(n, true),
                7..9 => walk.begin(true),
                9 => walk.begin(false),
                10..13 => { walk.run(true); Ok(()) },
                13 => { walk.run(false); Ok(()) },
                14..17 => walk.cancel(n.wrapping_mul(0x9E37_79B9)),
                17..19 => walk.read(n, false),
                19..21 => walk.read(n, true),
                _ if n == 0 => walk.destroy(),
                _ => Ok(()),
            }?;
            prop_assert_eq!(walk.context.outstanding() as usize, walk.count(|state| state != Read));
        }
    }
}
