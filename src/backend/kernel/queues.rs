//! Requests that are held back until the end of a batch: [`Queues`].

use crate::backend::held_back::HeldBack;
use crate::cpu;
use crate::percpu::PerCpu;
use crate::sync::{Mutex, MutexGuard};

/// How many requests are held back in a queue at most, and handed over at a time.
pub(super) const BATCH: usize = 128;

/// A queue for each CPU, of the requests' tags. Locked for some instructions. `enter`, wherever it is wanted, is what
/// hands over.
#[derive(Debug)]
pub(super) struct Queues {
    held_back: HeldBack,
    queues: PerCpu<Mutex<Vec<u32>>>,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self { held_back: HeldBack::new(), queues: PerCpu::new(|_| Mutex::default()) }
    }

    /// Holds one back until this thread [flushes](Self::flush), or somebody else does it.
    pub(super) fn hold_back(&self, tag: u32, enter: impl Fn(&[u32])) {
        let place = self.push(tag, &enter);
        if let Some(place) = self.held_back.hold(place) {
            self.hand_over(place, &enter);
        }
    }

    /// Puts one into this CPU's queue or, if somebody has that, into another, so that nobody waits for a thread that
    /// lost its CPU. Returns which.
    fn push(&self, tag: u32, enter: &impl Fn(&[u32])) -> usize {
        let queues = self.queues.all();
        let home = cpu::hint().0 as usize % queues.len();
        let mut free =
            (home..queues.len()).chain(0..home).filter_map(|at| Some((at, queues[at].try_lock()?)));
        let (place, mut queue) = free.next().unwrap_or_else(|| (home, queues[home].lock()));
        queue.push(tag);
        if queue.len() >= BATCH {
            hand_over_some(queue, enter);
        }
        place
    }

    /// Hands over what this thread has held back.
    pub(super) fn flush(&self, enter: impl Fn(&[u32])) {
        if let Some(place) = self.held_back.take() {
            self.hand_over(place, &enter);
        }
    }

    /// Hands over what anybody has held back.
    pub(super) fn flush_all(&self, enter: impl Fn(&[u32])) {
        (0..self.queues.len()).for_each(|place| self.hand_over(place, &enter));
    }

    /// [`flush_all`](Self::flush_all) but for what somebody is at, who hands it over as well.
    pub(super) fn try_flush_all(&self, enter: impl Fn(&[u32])) {
        for queue in self.queues.iter() {
            while let Some(queue) = queue.try_lock()
                && hand_over_some(queue, &enter)
            {}
        }
    }

    fn hand_over(&self, place: usize, enter: &impl Fn(&[u32])) {
        while hand_over_some(self.queues.all()[place].lock(), enter) {}
    }
}

/// Hands over the first of a queue; whether there are more.
fn hand_over_some(mut queue: MutexGuard<'_, Vec<u32>>, enter: &impl Fn(&[u32])) -> bool {
    let mut tags = [0; BATCH];
    let n = queue.len().min(BATCH);
    tags.iter_mut().zip(queue.drain(..n)).for_each(|(place, tag)| *place = tag);
    let more = !queue.is_empty();
    drop(queue);
    if n > 0 {
        enter(&tags[..n]);
    }
    more
}
