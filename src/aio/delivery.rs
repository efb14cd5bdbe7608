//! How the event of one request gets from who completes it to the future that awaits it: [`Delivery`].

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::cell::UnsafeCell;
use crate::sync::{hint, mo};
use std::mem::MaybeUninit;
use std::task::{Poll, Waker};

/// The part of a slot that only requests with a future use.
///
/// One word decides between who completes and the future, which registers wakers, takes the result, or goes:
///
/// | state | the cell | the slot is | next |
/// |---|---|---|---|
/// | `IDLE` | is empty, the future's to fill | the completer's | `WAITING`, `GONE` (future), `DONE` (completer) |
/// | `WAITING` | has a waker, which both may look at | the completer's | `IDLE`, `GONE` (future), `WAKING` (completer) |
/// | `WAKING` | is being emptied by the completer | the completer's | `DONE` (completer), `GONE` (future) |
/// | `DONE` | is empty | the future's, with the result | |
/// | `GONE` | is empty | the completer's, who cleans up | |
///
/// Whoever takes the state out of `WAITING` has the waker. Both sides are lock-free: the completer repeats only if the
/// future has been polled with another waker meanwhile, and the future repeats once. Polled in `WAKING`, a few
/// instructions of the completer's, it has itself polled again.
pub(super) struct Delivery {
    state: AtomicU32,
    /// # Safety
    ///
    /// Written by the future in `IDLE`. Read by it in `WAITING`, and by the completer in `WAKING`; a read is a copy,
    /// and the waker is his who took the state out of `WAITING`.
    waker: UnsafeCell<MaybeUninit<Waker>>,
    /// # Safety
    ///
    /// Written by the completer before `DONE`, read by the future after it. While hooks are left that the reader of an
    /// event calls, whosever the request is has its result here.
    res: UnsafeCell<i64>,
}

const IDLE: u32 = 0;
const WAITING: u32 = 1;
const WAKING: u32 = 2;
const DONE: u32 = 3;
const GONE: u32 = 4;

/// Whose the slot is after a [`Delivery::deliver`].
pub(super) enum Delivered {
    /// The future's. This waker is to be called, if there is one.
    ToFuture(Option<Waker>),
    /// The completer's still: the future has gone. This waker is to be dropped, if there is one.
    ToNobody(Option<Waker>),
}

/// Whose the slot is after a [`Delivery::leave`].
pub(super) enum Left {
    /// The completer's. This waker is to be dropped, if there is one.
    ToCompleter(Option<Waker>),
    /// The future's still, which has this result.
    ToFuture(i64),
}

impl Delivery {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU32::new(IDLE),
            waker: UnsafeCell::new(MaybeUninit::uninit()),
            res: UnsafeCell::new(0),
        }
    }

    /// Makes it ready for the next request.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot, which is empty.
    pub(super) unsafe fn begin(&self) {
        // Relaxed: whoever used it last has handed the tag over, and the next one is handed a completion.
        self.state.store(IDLE, Relaxed);
    }

    /// Keeps the result of a request whose hooks were not all called.
    ///
    /// # Safety
    ///
    /// 1. The request is the caller's.
    pub(super) unsafe fn keep(&self, res: i64) {
        // SAFETY: by 1.
        self.res.with_mut(|place| unsafe { *place = res });
    }

    /// What was kept.
    ///
    /// # Safety
    ///
    /// As [`keep`](Self::keep).
    pub(super) unsafe fn kept(&self) -> i64 {
        // SAFETY: by 1.
        self.res.with(|place| unsafe { *place })
    }

    /// Settles the result.
    ///
    /// # Safety
    ///
    /// 1. The caller is the completer, and calls this once.
    pub(super) unsafe fn deliver(&self, res: i64) -> Delivered {
        // SAFETY: ours before `DONE`.
        self.res.with_mut(|place| unsafe { *place = res });
        let looked = loop {
            // Release: pairs with `look`; the result, and the request. Acquire: pairs with `leave`, of a future that
            // has used the cell and gone: its next user comes after us.
            let (done, gone) = (mo!("aio.delivery.done", Release), mo!("aio.delivery.see_gone", Acquire));
            match self.state.compare_exchange(IDLE, DONE, done, gone) {
                Ok(_) => return Delivered::ToFuture(None),
                Err(WAITING) => {
                    // Acquire: pairs with `wait`; the waker. Relaxed: nothing is done.
                    let seen = mo!("aio.delivery.take_waker", Acquire);
                    if self.state.compare_exchange(WAITING, WAKING, seen, Relaxed).is_ok() {
                        break self.waker.with(|waker| {
                            // SAFETY: written, since it was `WAITING`; ours, since we have ended that.
                            unsafe { (*waker).assume_init_read() }
                        });
                    }
                    hint::contended();
                }
                Err(_) => return Delivered::ToNobody(None),
            }
        };
        // Release: as `done`; also that we have read the cell. Acquire: as `see_gone`.
        match self.state.swap(DONE, mo!("aio.delivery.done_waking", AcqRel)) {
            GONE => Delivered::ToNobody(Some(looked)),
            _ => Delivered::ToFuture(Some(looked)),
        }
    }

    /// The result, if it is there; otherwise `waker` is called when it is, and no other any more.
    ///
    /// # Safety
    ///
    /// 1. The caller is the future, and was not told the result yet.
    pub(super) unsafe fn poll(&self, waker: &Waker) -> Poll<i64> {
        let mut before = None;
        loop {
            match self.look() {
                DONE => {
                    // SAFETY: by 1. nobody writes it.
                    return Poll::Ready(self.res.with(|res| unsafe { *res }));
                }
                WAITING => {
                    // SAFETY: written by us. The completer may be taking it: that leaves its words as they are, and
                    // no more than these are compared.
                    let same = self.waker.with(|old| unsafe { (*old).assume_init_ref().will_wake(waker) });
                    if same {
                        return Poll::Pending;
                    }
                    // Relaxed twice: the cell is ours as we wrote it; or `look` says what has become of it.
                    if self.state.compare_exchange(WAITING, IDLE, Relaxed, Relaxed).is_ok() {
                        // SAFETY: written; ours, since we have ended that. Dropped when another is in its place: that
                        // may call back.
                        before = Some(self.waker.with(|old| unsafe { (*old).assume_init_read() }));
                    }
                }
                WAKING => {
                    hint::contended();
                    waker.wake_by_ref();
                    return Poll::Pending;
                }
                _ => {
                    // Before the cell is touched: it may panic.
                    let new = waker.clone();
                    // SAFETY: ours while it is `IDLE`, which only we end but by `DONE`.
                    self.waker.with_mut(|place| unsafe { (*place).write(new) });
                    // Release: pairs with `take_waker`. Relaxed: `look` says what has become of it.
                    let written = mo!("aio.delivery.wait", Release);
                    if self.state.compare_exchange(IDLE, WAITING, written, Relaxed).is_ok() {
                        drop(before);
                        return Poll::Pending;
                    }
                    // SAFETY: just written, and nobody was told of it.
                    drop(self.waker.with(|place| unsafe { (*place).assume_init_read() }));
                }
            }
        }
    }

    /// The future goes.
    ///
    /// # Safety
    ///
    /// 1. As [`poll`](Self::poll). The caller is not the future any more unless it is told so.
    pub(super) unsafe fn leave(&self) -> Left {
        loop {
            let now = self.look();
            if now == DONE {
                // SAFETY: nobody writes it.
                return Left::ToFuture(self.res.with(|res| unsafe { *res }));
            }
            // Before we go: then nothing here is ours any more.
            let waker = (now == WAITING).then(|| {
                self.waker.with(|waker| {
                    // SAFETY: a copy of the words, which the completer may be taking, too.
                    unsafe { waker.read() }
                })
            });
            // Release: pairs with `see_gone` and `done_waking`. Relaxed: `look` says what has become of it.
            let left = mo!("aio.delivery.leave", Release);
            if self.state.compare_exchange(now, GONE, left, Relaxed).is_ok() {
                // SAFETY: written, since it was `WAITING`; ours, since we have ended that.
                return Left::ToCompleter(waker.map(|waker| unsafe { waker.assume_init() }));
            }
        }
    }

    fn look(&self) -> u32 {
        // Acquire: pairs with `done` and `done_waking`.
        self.state.load(mo!("aio.delivery.look", Acquire))
    }
}
