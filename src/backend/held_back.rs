//! What a thread is to hand over at the end of its batch: [`HeldBack`].

use crate::sync::unique;
use std::cell::Cell;

thread_local! {
    /// For which backend this thread is in the middle of a batch, and into which of its places it has put requests that
    /// it has not had handed over.
    static HELD_BACK: Cell<Option<(u64, Option<usize>)>> = const { Cell::new(None) };
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

    /// Whether this is the first time that the calling thread asks, or puts a request into a place, since the end of
    /// its last batch.
    #[cfg(any(feature = "uring", test))]
    #[inline]
    pub(super) fn begins(&self) -> bool {
        let look = |held: &Cell<Option<(u64, Option<usize>)>>| match held.get() {
            Some((name, _)) if name == self.name => false,
            // In the middle of a batch for another backend.
            Some((_, Some(_))) => true,
            _ => {
                held.set(Some((self.name, None)));
                true
            }
        };
        HELD_BACK.try_with(look).unwrap_or(true)
    }

    /// The calling thread has put a request into this place. Returns the place that has to be handed over now.
    #[inline]
    pub(super) fn hold(&self, place: usize) -> Option<usize> {
        let look = |held: &Cell<Option<(u64, Option<usize>)>>| match held.get() {
            // In the middle of a batch for another backend.
            Some((name, Some(_))) if name != self.name => Some(place),
            before => {
                held.set(Some((self.name, Some(place))));
                // Otherwise the thread was moved to another CPU.
                before.and_then(|(_, before)| before).filter(|before| *before != place)
            }
        };
        // At the end of the thread nobody may come to flush.
        HELD_BACK.try_with(look).unwrap_or(Some(place))
    }

    /// The end of the calling thread's batch. Returns the place where there may be something to hand over.
    #[inline]
    pub(super) fn take(&self) -> Option<usize> {
        let mine = |held: &Cell<Option<(u64, Option<usize>)>>| {
            let (_, place) = held.get().filter(|(name, _)| *name == self.name)?;
            held.set(None);
            place
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
        assert!(!first.begins());
        assert_eq!((first.take(), first.take()), (Some(4), None));
        assert_eq!((second.hold(5), second.take()), (None, Some(5)));
    }

    #[test]
    fn a_batch_begins_once() {
        let (first, second) = (HeldBack::new(), HeldBack::new());
        assert_eq!((first.begins(), first.begins()), (true, false));
        assert!(second.begins(), "the other's batch");
        assert_eq!((second.hold(5), second.begins()), (None, false), "nothing of the first is lost by that");
        assert_eq!((first.take(), second.take()), (None, Some(5)));
        assert_eq!((first.begins(), first.take(), first.begins(), first.take()), (true, None, true, None));
    }
}
