//! `CompletionQueue` and `Ring`.

use super::shared::Shared;
use super::{Event, SLOTS};
use ioctx::credits::Credits;
use ioctx::ring::{CompletionQueue, Ring};

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
    credits: Credits,
}

impl WithCredits {
    /// Puts `n` credits back that publishers took.
    #[inline]
    fn put(&self, n: usize) {
        // SAFETY: publishers let go of one for each event.
        drop(unsafe { self.credits.from_raw(n as u32) });
    }
}

impl Shared for WithCredits {
    fn new() -> Self {
        Self { queue: CompletionQueue::new(SLOTS), credits: Credits::new(SLOTS) }
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        let Ok(credit) = self.credits.try_take_up_to(events.len() as u32) else { return 0 };
        // Whoever reads the events puts it back.
        let n = credit.into_raw() as usize;
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
