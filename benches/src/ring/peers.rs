//! The queues one would use instead. Most pass one event at a time.

use super::{Queue, SLOTS};
use ioctx::ring::Event;
use std::collections::VecDeque;
use std::iter;
use std::sync::Mutex;
use thingbuf::ThingBuf;
use thingbuf::mpsc::blocking as thing;

/// Publishes one by one, for queues that cannot do better.
#[inline]
fn one_by_one(events: &[Event], mut publish: impl FnMut(Event) -> bool) -> usize {
    events.iter().take_while(|event| publish(**event)).count()
}

/// Reads one by one.
#[inline]
fn each_of(max: usize, read: impl FnMut() -> Option<Event>, mut each: impl FnMut(&Event)) -> usize {
    iter::from_fn(read).take(max).inspect(|event| each(event)).count()
}

impl Queue for crossbeam_queue::ArrayQueue<Event> {
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

/// `crossbeam_channel::bounded`.
#[derive(Debug)]
pub struct Channel(crossbeam_channel::Sender<Event>, crossbeam_channel::Receiver<Event>);

impl Queue for Channel {
    fn new() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(SLOTS as usize);
        Self(sender, receiver)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.0.try_send(event).is_ok())
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        each_of(max, || self.1.try_recv().ok(), each)
    }
}

impl Queue for ThingBuf<Event> {
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

/// `thingbuf::mpsc`, which is for one reader.
#[derive(Debug)]
pub struct ThingMpsc(thing::Sender<Event>, thing::Receiver<Event>);

impl Queue for ThingMpsc {
    fn new() -> Self {
        let (sender, receiver) = thing::channel(SLOTS as usize);
        Self(sender, receiver)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.0.try_send(event).is_ok())
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        each_of(max, || self.1.try_recv().ok(), each)
    }
}

/// `flume::bounded`.
#[derive(Debug)]
pub struct Flume(flume::Sender<Event>, flume::Receiver<Event>);

impl Queue for Flume {
    fn new() -> Self {
        let (sender, receiver) = flume::bounded(SLOTS as usize);
        Self(sender, receiver)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.0.try_send(event).is_ok())
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        each_of(max, || self.1.try_recv().ok(), each)
    }
}

/// A deque behind a mutex, which is taken once per batch, by either side.
#[derive(Debug)]
pub struct Locked(Mutex<VecDeque<Event>>);

impl Queue for Locked {
    fn new() -> Self {
        Self(Mutex::new(VecDeque::with_capacity(SLOTS as usize)))
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        let mut deque = self.0.lock().expect("nobody panics while holding it");
        let n = events.len().min(SLOTS as usize - deque.len());
        deque.extend(&events[..n]);
        n
    }

    #[inline]
    fn read(&self, max: usize, mut each: impl FnMut(&Event)) -> usize {
        let mut deque = self.0.lock().expect("nobody panics while holding it");
        let n = max.min(deque.len());
        deque.drain(..n).for_each(|event| each(&event));
        n
    }
}
