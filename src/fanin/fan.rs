//! [`FanIn`]: the submitter's side.

use super::outcome::{Outcome, Waited, Waiter, canceled};
use super::part::{Part, Put, Shared};
use crate::credits::{Credit, Credits, Exhausted, WaitError};
use crate::sync::Arc;
use crate::sync::time::{Instant, expired};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A request that is being cut into parts: see the [module](super).
///
/// Dropped instead of [finished](Self::finish_submitting), it completes as if the next part had been cancelled: with
/// what was handed out, and `ECANCELED` behind it. Forgetting it leaks the request, which never completes.
///
/// Handing out is lock-free while there are credits; finishing a part is, too, unless it is not whole, which takes a
/// mutex, or wakes a sleeping submitter, or completes the request.
///
/// # Costs
///
/// 1 KiB and one or two allocations for a request; an allocation, three locked instructions and a credit for a part, 40
/// ns in all. Not for requests that mostly have one part, which need none of this, nor where nothing has to be bounded
/// and any error will do: an `Arc` is a quarter of that.
///
/// # Examples
///
/// ```
/// use ioctx::credits::Credits;
/// use ioctx::fanin::{FanIn, Part};
/// use std::sync::Arc;
/// use std::sync::mpsc::channel;
/// // At most 4 parts at once, of this request and all others that share the credits.
/// let credits = Arc::new(Credits::new(4));
/// let (mut request, waiter) = FanIn::waited(&credits);
/// let (queue, work) = channel();
/// let worker = std::thread::spawn(move || {
///     let carry_out = |mut part: Part<Vec<u8>>| {
///         part.payload_mut().fill(1);
///         let len = part.len();
///         part.finish(Ok(len));
///     };
///     work.into_iter().for_each(carry_out);
/// });
/// for _ in 0..100 {
///     let part = request.part(4096, None, || vec![0; 4096])?;
///     queue.send(part).unwrap();
/// }
/// request.finish_submitting();
/// let outcome = waiter.wait(None).unwrap();
/// assert_eq!((outcome.bytes, outcome.error.is_none()), (100 * 4096, true));
/// # drop(queue);
/// # worker.join().unwrap();
/// # Ok::<(), ioctx::credits::WaitError>(())
/// ```
///
/// Completed in a [run list](crate::runlist):
///
/// ```
/// use ioctx::credits::Credits;
/// use ioctx::fanin::FanIn;
/// use ioctx::runlist::RunList;
/// use std::sync::{Arc, mpsc::channel};
/// let (list, (outcomes, outcome)) = (RunList::new(), channel());
/// let task = list.task(move || assert_eq!(outcome.recv().unwrap(), 512));
/// let mut request: FanIn<()> = FanIn::new(&Arc::new(Credits::new(64)), move |outcome| {
///     outcomes.send(outcome.bytes).unwrap();
///     task.kick().unwrap();
/// });
/// request.part(512, None, || ())?.finish(Ok(512));
/// request.finish_submitting();
/// assert_eq!(list.help_on_submit(), 1);
/// # Ok::<(), ioctx::credits::WaitError>(())
/// ```
pub struct FanIn<P> {
    /// Valid until our count is put.
    shared: NonNull<Shared<P>>,
    index: u64,
    offset: usize,
    /// Parts that were handed out and not reaped.
    out: u32,
    /// Parts that were handed out since it was last reaped.
    since: u32,
    every: u32,
}

// SAFETY: what is shared is `Sync`, and takes payloads from thread to thread.
unsafe impl<P: Send> Send for FanIn<P> {}

impl<P> FanIn<P> {
    /// A request without parts. `on_complete` is called once, by whoever is the last to finish. Each part has one of
    /// `credits`, which may be shared with other requests: then they are bounded together.
    pub fn new(credits: &Arc<Credits>, on_complete: impl FnOnce(Outcome) + Send + 'static) -> Self {
        let shared = Shared::new(Arc::clone(credits), Box::new(on_complete));
        Self { shared, index: 0, offset: 0, out: 0, since: 0, every: 64 }
    }

    /// A request without parts, and somebody who waits for it.
    pub fn waited(credits: &Arc<Credits>) -> (Self, Waiter) {
        let waited = Arc::new(Waited::default());
        let theirs = Arc::clone(&waited);
        (Self::new(credits, move |outcome| theirs.set(outcome)), Waiter(waited))
    }

    /// Reaps after so many parts that were handed out, at least 1. Unless said, 64.
    pub fn reap_every(mut self, parts: u32) -> Self {
        self.every = parts.max(1);
        self
    }

    fn shared(&self) -> &Shared<P> {
        // SAFETY: our count is put only when this goes.
        unsafe { self.shared.as_ref() }
    }

    /// The next part, of `len` bytes, with what `payload` makes, if there is a credit.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: there was none, after all parts of this request that are finished were reaped. `payload` was not
    /// called.
    pub fn try_part(&mut self, len: usize, payload: impl FnOnce() -> P) -> Result<Part<P>, Exhausted> {
        // SAFETY: used up within this call.
        let credit = unsafe { self.admit() }?;
        Ok(self.hand_out(credit, len, payload))
    }

    /// As [`try_part`](Self::try_part), as soon as there is a credit. Blocking: sleeps until a part of this request is
    /// finished, or, if all of them are, until others put credits back. So parts have to be finished by somebody else;
    /// one who has to see to that himself calls `try_part`.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: `deadline` has passed, or there are no credits in all. `payload` was not called.
    pub fn part(
        &mut self,
        len: usize,
        deadline: Option<Instant>,
        payload: impl FnOnce() -> P,
    ) -> Result<Part<P>, WaitError> {
        let credit = loop {
            // SAFETY: used up within this call.
            match unsafe { self.admit() } {
                Ok(credit) => break credit,
                Err(Exhausted) if self.out == 0 => {
                    // SAFETY: as above.
                    let credits = unsafe { self.credits() };
                    break match deadline {
                        None => credits.take(1)?,
                        Some(at) => credits.take_until(1, at)?,
                    };
                }
                // What is out comes to be reaped, since it was handed out while there was somebody to reap it.
                Err(Exhausted) => {
                    let key = self.shared().submitter.prepare_wait(1);
                    if self.shared().has_done() {
                        continue;
                    }
                    if expired(deadline) {
                        return Err(WaitError::TimedOut);
                    }
                    // However it ended, we look again.
                    let _ = key.wait(deadline);
                }
            }
        };
        Ok(self.hand_out(credit, len, payload))
    }

    /// Reaps the parts that are finished: shows their payloads to `each`, and puts each one's credit back when that has
    /// returned. Returns how many there were. One load if there are none.
    ///
    /// [`try_part`](Self::try_part) and [`part`](Self::part) do so by themselves and drop the payloads. Who uses them
    /// again calls this more often than every 64 parts, and whenever there is no credit.
    pub fn reap(&mut self, mut each: impl FnMut(P)) -> usize {
        self.since = 0;
        let before = self.out;
        // SAFETY: our count is put only when this goes. We are the submitter, and have not gone.
        let mut done = unsafe { self.shared.as_ref().take_done(&mut self.out) };
        while done.reap_one(&mut each) {}
        drop(done);
        (before - self.out) as usize
    }

    /// Says that there will be no more parts. The request completes when all are finished: perhaps in this call.
    pub fn finish_submitting(self) {
        // SAFETY: forgotten here.
        unsafe { ManuallyDrop::new(self).end_once() };
    }

    /// # Safety
    ///
    /// 1. The result is not used when our count has been put.
    unsafe fn credits<'a>(&self) -> &'a Credits
    where
        P: 'a,
    {
        // SAFETY: by 1.
        &unsafe { self.shared.as_ref() }.credits
    }

    /// A credit for the next part; reaps if it is time to, or there is none.
    ///
    /// # Safety
    ///
    /// 1. As [`credits`](Self::credits).
    unsafe fn admit<'a>(&mut self) -> Result<Credit<'a>, Exhausted>
    where
        P: 'a,
    {
        if self.since >= self.every {
            self.reap(drop);
        }
        // SAFETY: by 1.
        let credits = unsafe { self.credits() };
        match credits.try_take(1) {
            Err(Exhausted) if self.reap(drop) > 0 => credits.try_take(1),
            taken => taken,
        }
    }

    fn hand_out(&mut self, credit: Credit<'_>, len: usize, payload: impl FnOnce() -> P) -> Part<P> {
        // First: if it panics, the credit goes back, and nothing was handed out.
        let payload = payload();
        // For the part, which makes a credit of it again when it is reaped.
        credit.into_raw();
        self.shared().get();
        let part = Part::new(self.shared, (self.index, self.offset, len), payload);
        (self.index, self.offset) = (self.index + 1, self.offset.saturating_add(len));
        (self.out, self.since) = (self.out + 1, self.since + 1);
        part
    }

    /// # Safety
    ///
    /// 1. The request is not used any more.
    unsafe fn end_once(&mut self) {
        // SAFETY: ours, and given up by 1. Put last, also if a payload panics.
        let put = unsafe { Put::new(self.shared) };
        // SAFETY: we are the submitter.
        unsafe { put.shared().set_total(self.offset) };
        // SAFETY: as above, and this is the last time. What is there is reaped at once.
        drop(unsafe { put.shared().close(&mut self.out) });
    }
}

impl<P> Drop for FanIn<P> {
    fn drop(&mut self) {
        self.shared().cut(self.index, Outcome { bytes: self.offset, error: Some(canceled()) });
        // SAFETY: dropped, and used by nobody any more.
        unsafe { self.end_once() };
    }
}

impl<P> fmt::Debug for FanIn<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, offset, out, .. } = self;
        f.debug_struct("FanIn").field("parts", index).field("bytes", offset).field("not_reaped", out).finish()
    }
}
