//! What is done for a file once something says that it is worth while: [`Retry`].

use super::known::Direction;
use super::place::{Place, Tried};
use crate::aio::Finished;
use crate::runlist::{Run, Task};
use crate::sync::Arc;

/// How many requests one run of a file's task tries.
const BUDGET: usize = 16;

/// What a file's task does: tries what waits, as far as something says that it may succeed.
#[derive(Debug)]
pub(super) struct Retry {
    place: Arc<Place>,
    /// Those that are done in one run: published when nobody's turn depends on it.
    finished: Vec<Finished>,
}

impl Retry {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, finished: Vec::new() }
    }
}

impl Run for Retry {
    fn run(&mut self, task: &Task<Self>) {
        let mut left = BUDGET;
        for direction in [Direction::Out, Direction::In] {
            while left > 0
                && let Some((work, stream)) = self.place.next(direction)
            {
                left -= 1;
                match self.place.attempt(work, direction, stream, None) {
                    Tried::Done(finished) => self.finished.push(finished),
                    Tried::Waits => {}
                    Tried::Threads(work) | Tried::Unknown(work) => {
                        self.finished.extend(self.place.hub.leave_to_pool(work));
                    }
                }
            }
        }
        self.place.look(&mut self.finished);
        self.place.settle(self.place.lock(), task);
        if !self.place.hub.watch.is_alone() {
            // Those who sleep do not know of it.
            self.place.hub.arm_one(&self.place);
        }
        if !self.finished.is_empty() {
            self.place.hub.has_moved();
        }
        // If one panics the others are dropped, which publishes them as well.
        self.finished.drain(..).for_each(drop);
    }
}
