//! `CompletionQueue` and `Ring`.

use super::shared::Shared;
use super::{Event, SLOTS};
use ioctx::credits::{Credit, Credits};
use ioctx::ring::{CompletionQueue, Ring};
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::OnceLock;

/// Ours, a ring per CPU, and nobody counts what is outstanding. Made for half of [`SLOTS`], since it has twice the
/// slots: so all contenders have as many. When all are taken it waits by itself.
impl Shared for CompletionQueue {
    fn new() -> Self {
        Self::new(SLOTS / 2)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        match events {
            [event] => self.publish_one(*event),
            _ => self.publish(events),
        }
        events.len()
    }

    #[inline]
    fn read(&self, max: usize, mut each: impl FnMut(&Event)) -> usize {
        self.read(max, |run| run.iter().for_each(&mut each))
    }
}

/// Ours as it is meant to be used: made for [`SLOTS`] outstanding events, and a credit is taken for each of them when
/// it is published and put back when it has been read. So publishing never waits.
#[derive(Debug)]
pub struct WithCredits {
    queue: CompletionQueue,
    credits: &'static Credits,
    /// All credits, once more. Only ever copied from, as many as publishers have forgotten.
    all: ManuallyDrop<Credit<'static>>,
}

impl WithCredits {
    /// Puts `n` credits back that publishers took.
    #[inline]
    fn put(&self, n: usize) {
        // SAFETY: 1. valid for reads. 2. A credit is a reference and a number, neither of which cares about being
        // copied; what is dropped of the copy are `n` credits that a publisher has forgotten, the rest is forgotten
        // here.
        let mut all = ManuallyDrop::new(unsafe { ptr::read(&*self.all) });
        drop(all.split_off(n as u32));
    }
}

impl Shared for WithCredits {
    /// All use the same credits, one after the other: each gives all of them back.
    fn new() -> Self {
        static CREDITS: OnceLock<Credits> = OnceLock::new();
        let credits = CREDITS.get_or_init(|| Credits::new(SLOTS));
        let all = credits.try_take(SLOTS).expect("whoever had some gave them back");
        // SAFETY: 1. valid for reads. 2. As in `put`.
        let copy = ManuallyDrop::new(unsafe { ptr::read(&raw const all) });
        drop(all);
        Self { queue: CompletionQueue::new(SLOTS), credits, all: copy }
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        let Ok(credit) = self.credits.try_take_up_to(events.len() as u32) else { return 0 };
        let n = credit.len() as usize;
        // Whoever reads the events puts it back.
        mem::forget(credit);
        Shared::publish(&self.queue, &events[..n])
    }

    #[inline]
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize {
        let n = Shared::read(&self.queue, max, each);
        if n > 0 {
            self.put(n);
        }
        n
    }
}

/// Ours, one ring, and so one order over all events.
impl Shared for Ring {
    fn new() -> Self {
        Self::new(SLOTS)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        // Busy or full, the loop tries again.
        match events {
            [event] => self.try_publish(*event).map_or(0, |()| 1),
            _ => self.try_publish_batch(events).unwrap_or(0),
        }
    }

    #[inline]
    fn read(&self, max: usize, mut each: impl FnMut(&Event)) -> usize {
        let Some(mut reader) = self.try_reader() else { return 0 };
        let read = reader.peek(max, |run| {
            run.iter().for_each(&mut each);
            run.len()
        });
        reader.commit(read);
        read
    }
}
