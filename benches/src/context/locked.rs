//! What one writes without a crate: a deque behind a mutex, and a condition variable.

use super::{CAPACITY, Context, READ};
use ioctx::aio::RequestId;
use ioctx::{Event, Request};
use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex};

/// A deque of completed requests. The mutex is taken once per call; the condition variable is notified only
/// if the reaper sleeps and has enough, which saves a system call.
#[derive(Debug)]
pub struct Locked<T> {
    state: Mutex<State<T>>,
    enough: Condvar,
}

#[derive(Debug)]
struct State<T> {
    done: VecDeque<T>,
    /// How many the sleeping reaper waits for; more than there can be, while it does not sleep.
    wanted: usize,
}

/// What is in the deque.
pub trait Done: Send {
    /// The request with this number, carried out.
    fn new(number: u64) -> Self;

    /// Its number.
    fn number(self) -> u64;
}

/// The request comes back whole, with its file and buffers, as from our context.
impl Done for Event {
    #[inline]
    fn new(number: u64) -> Self {
        Self { id: RequestId::from_raw(0), request: Request::nop().with_user_data(number), result: Ok(0) }
    }

    #[inline]
    fn number(self) -> u64 {
        assert!(self.result.is_ok(), "nothing cannot fail");
        self.request.user_data
    }
}

/// A word and a result come back, as from the kernel: whose buffers they are is the user's business.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    user_data: u64,
    result: i64,
}

impl Done for Word {
    #[inline]
    fn new(number: u64) -> Self {
        Self { user_data: number, result: 0 }
    }

    #[inline]
    fn number(self) -> u64 {
        assert!(self.result == 0, "nothing cannot fail");
        self.user_data
    }
}

const POISONED: &str = "nobody panics while holding the mutex";

impl<T: Done> Context for Locked<T> {
    type Submitter = Vec<T>;
    type Reaper = Vec<T>;

    fn open() -> io::Result<Self> {
        let done = VecDeque::with_capacity(CAPACITY as usize);
        Ok(Self { state: Mutex::new(State { done, wanted: usize::MAX }), enough: Condvar::new() })
    }

    #[inline]
    fn submit(&self, batch: &mut Vec<T>, first: u64, count: usize) -> usize {
        // Carried out before the mutex is taken. What found no room the last time is still there.
        batch.extend((first + batch.len() as u64..first + count as u64).map(T::new));
        let mut state = self.state.lock().expect(POISONED);
        let room = count.min(CAPACITY as usize - state.done.len());
        state.done.extend(batch.drain(..room));
        let enough = state.done.len() >= state.wanted;
        if enough {
            state.wanted = usize::MAX;
        }
        drop(state);
        if enough {
            self.enough.notify_one();
        }
        room
    }

    #[inline]
    fn reap(&self, events: &mut Vec<T>, min: usize, mut each: impl FnMut(u64)) -> usize {
        let mut state = self.state.lock().expect(POISONED);
        while state.done.len() < min {
            state.wanted = min;
            state = self.enough.wait(state).expect(POISONED);
        }
        state.wanted = usize::MAX;
        let read = state.done.len().min(READ);
        events.extend(state.done.drain(..read));
        drop(state);
        events.drain(..).for_each(|event| each(event.number()));
        read
    }
}
