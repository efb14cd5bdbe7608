//! Ours: a [`Context`](ioctx::Context) whose backend completes everything at once, shared by all or one for each
//! thread.

use super::{CAPACITY, Context, Own, READ};
use ioctx::aio::{BatchError, Reason};
use ioctx::backend::Null;
use ioctx::{Event, Request};
use std::io;

impl Context for ioctx::Context<Null> {
    type Submitter = Vec<Request>;
    type Reaper = Vec<Event>;

    fn open() -> io::Result<Self> {
        Self::new(CAPACITY, Null).map_err(io::Error::other)
    }

    #[inline]
    fn submit(&self, batch: &mut Vec<Request>, first: u64, count: usize) -> usize {
        if count == 1 && batch.is_empty() {
            return match self.submit(Request::nop().with_user_data(first)) {
                Ok(_) => 1,
                Err(refused) => full(&refused.reason),
            };
        }
        // What was not accepted the last time is still there.
        let next = first + batch.len() as u64..first + count as u64;
        batch.extend(next.map(|number| Request::nop().with_user_data(number)));
        self.submit_batch(batch).unwrap_or_else(|BatchError(reason)| full(&reason))
    }

    #[inline]
    fn reap(&self, events: &mut Vec<Event>, min: usize, mut each: impl FnMut(u64)) -> usize {
        let read = self.get_events(min, READ, None, events).expect("nobody interrupts or destroys");
        for event in events.drain(..) {
            assert!(event.result.is_ok(), "nothing cannot fail");
            each(event.request.user_data);
        }
        read
    }
}

/// A context of a thread's own: the same as the shared one.
#[derive(Debug)]
pub struct OwnContext {
    context: ioctx::Context<Null>,
    batch: Vec<Request>,
    events: Vec<Event>,
}

impl Own for OwnContext {
    fn open() -> io::Result<Self> {
        Ok(Self { context: Context::open()?, batch: Vec::new(), events: Vec::new() })
    }

    #[inline]
    fn submit(&mut self, first: u64, count: usize) {
        let accepted = Context::submit(&self.context, &mut self.batch, first, count);
        assert_eq!(accepted, count, "there is room");
    }

    #[inline]
    fn reap(&mut self, min: usize, each: impl FnMut(u64)) -> usize {
        Context::reap(&self.context, &mut self.events, min, each)
    }
}

/// The one reason to try again.
pub(super) fn full(reason: &Reason) -> usize {
    assert!(matches!(reason, Reason::Full), "{reason}");
    0
}
