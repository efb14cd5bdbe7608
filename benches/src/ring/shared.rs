//! Queues that all threads use through one reference: [`Shared`].

use super::{Event, Publish, Queue, Read, SLOTS};
use concurrent_queue::ConcurrentQueue;
use crossbeam_queue::ArrayQueue;
use ioctx::percpu::CachePadded;
use std::collections::VecDeque;
use std::iter;
use std::sync::{Arc, Mutex};
use thingbuf::ThingBuf;

/// A bounded queue with any number of publishers and readers.
pub trait Shared: Send + Sync + 'static {
    /// One with room for [`SLOTS`] events.
    fn new() -> Self;

    /// As [`Publish::publish`].
    fn publish(&self, events: &[Event]) -> usize;

    /// As [`Read::read`].
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize;
}

/// Either end of a [`Shared`] queue.
#[derive(Debug)]
pub struct One<S>(Arc<CachePadded<S>>);

impl<S: Shared> Queue for S {
    type Publisher = One<S>;
    type Reader = One<S>;
    const SEVERAL: [bool; 2] = [true; 2];

    fn ends(publishers: usize, readers: usize) -> (Vec<One<S>>, Vec<One<S>>) {
        let queue = Arc::new(CachePadded::new(S::new()));
        let ends = |count| iter::repeat_with(|| One(Arc::clone(&queue))).take(count).collect();
        (ends(publishers), ends(readers))
    }
}

impl<S: Shared> Publish for One<S> {
    #[inline]
    fn publish(&mut self, events: &[Event]) -> usize {
        S::publish(&self.0, events)
    }
}

impl<S: Shared> Read for One<S> {
    #[inline]
    fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize {
        S::read(&self.0, max, each)
    }
}

/// Publishes one by one, for queues that cannot do better.
#[inline]
pub(super) fn one_by_one(events: &[Event], mut publish: impl FnMut(Event) -> bool) -> usize {
    events.iter().take_while(|event| publish(**event)).count()
}

/// Reads one by one.
#[inline]
pub(super) fn each_of(
    max: usize,
    read: impl FnMut() -> Option<Event>,
    mut each: impl FnMut(&Event),
) -> usize {
    iter::from_fn(read).take(max).inspect(|event| each(event)).count()
}

impl Shared for ArrayQueue<Event> {
    fn new() -> Self {
        Self::new(SLOTS as usize)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.push(event).is_ok())
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        each_of(max, || self.pop(), each)
    }
}

impl Shared for ConcurrentQueue<Event> {
    fn new() -> Self {
        Self::bounded(SLOTS as usize)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.push(event).is_ok())
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        each_of(max, || self.pop().ok(), each)
    }
}

impl Shared for ThingBuf<Event> {
    fn new() -> Self {
        Self::new(SLOTS as usize)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.push(event).is_ok())
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        each_of(max, || self.pop(), each)
    }
}

/// A deque behind a mutex, which is taken once per batch, by either side.
#[derive(Debug)]
pub struct Locked(Mutex<VecDeque<Event>>);

const POISONED: &str = "nobody panics while holding the mutex";

impl Shared for Locked {
    fn new() -> Self {
        Self(Mutex::new(VecDeque::with_capacity(SLOTS as usize)))
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        let mut deque = self.0.lock().expect(POISONED);
        let n = events.len().min(SLOTS as usize - deque.len());
        deque.extend(&events[..n]);
        n
    }

    #[inline]
    fn read(&self, max: usize, mut each: impl FnMut(&Event)) -> usize {
        let mut deque = self.0.lock().expect(POISONED);
        let n = max.min(deque.len());
        deque.drain(..n).for_each(|event| each(&event));
        n
    }
}
