//! What a thread is to hand over at the end of its batch: [`HeldBack`].

use crate::sync::unique;
use std::cell::Cell;

thread_local! {
    /// Into which place of which backend this thread has put requests since it last had them handed over.
    static HELD_BACK: Cell<Option<(u64, usize)>> = const { Cell::new(None) };
}

/// Where each thread has put requests that one backend holds back, in one of several places. Whoever learns of a place
/// here hands over what is there.
#[derive(Debug)]
pub(super) struct HeldBack {
    /// Of this one alone.
    name: u64,
}

impl HeldBack {
    pub(super) fn new() -> Self {
        Self { name: unique() }
    }

    /// The calling thread has put a request into this place. Returns the place that has to be handed over now.
    pub(super) fn hold(&self, place: usize) -> Option<usize> {
        let look = |held: &Cell<Option<(u64, usize)>>| match held.get() {
            // In the middle of a batch for another backend.
            Some((name, _)) if name != self.name => Some(place),
            before => {
                held.set(Some((self.name, place)));
                // Otherwise the thread was moved to another CPU.
                before.map(|(_, before)| before).filter(|before| *before != place)
            }
        };
        // At the end of the thread nobody may come to flush.
        HELD_BACK.try_with(look).unwrap_or(Some(place))
    }

    /// The end of the calling thread's batch. Returns the place where there may be something to hand over.
    pub(super) fn take(&self) -> Option<usize> {
        let mine = |held: &Cell<Option<(u64, usize)>>| {
            let (_, place) = held.get().filter(|(name, _)| *name == self.name)?;
            held.set(None);
            Some(place)
        };
        HELD_BACK.try_with(mine).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::HeldBack;

    #[test]
    fn a_thread_hands_over_one_place_of_one_backend_at_a_time() {
        let (first, second) = (HeldBack::new(), HeldBack::new());
        assert_eq!(first.take(), None);
        assert_eq!((first.hold(3), first.hold(3)), (None, None));
        assert_eq!(first.hold(4), Some(3), "moved to another CPU");
        assert_eq!(second.hold(5), Some(5), "in the middle of the other's batch");
        assert_eq!(second.take(), None);
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(first.take(), None)).join().unwrap());
        assert_eq!((first.take(), first.take()), (Some(4), None));
        assert_eq!((second.hold(5), second.take()), (None, Some(5)));
    }
}
