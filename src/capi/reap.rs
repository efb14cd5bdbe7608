//! What `io_getevents` does.

use super::abi::Errno;
use super::context::Slot;
use super::place::Waiter;
use super::{masked, memory};
use crate::ring::Event;
use crate::sync::time::{Duration, Instant, expired};
use crate::sync::{hint, thread};
use crate::wait::Outcome;

/// For those who wait without a timeout: a deadline all the same, since the system goes on with a sleep that has none
/// after a signal whose handler was installed with `SA_RESTART`, and this interface says `EINTR`.
const FOR_EVER: Duration = Duration::from_secs(10 << 30);

impl Slot {
    /// Copies up to `max` events of the ring to `out`.
    #[inline]
    fn read(&self, max: usize, out: *mut Event) -> Result<usize, Errno> {
        let mut backoff = hint::Backoff::default();
        let mut reader = loop {
            match self.ring().try_reader() {
                Some(reader) => break reader,
                None if backoff.wait() => {}
                None => thread::yield_now(),
            }
        };
        let mut read = 0;
        // Two runs at most: to the edge, and from the start.
        for _ in 0..2 {
            let run = reader.peek(max - read, |run| {
                memory::write_each(out.wrapping_add(read), run.len(), |i| run[i].get()).map(|()| run.len())
            });
            match run {
                Ok(0) => break,
                Ok(n) => {
                    reader.commit(n);
                    read += n;
                }
                Err(error) if read == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(read)
    }

    /// [`read`](Self::read), and then what the kernel has.
    #[inline]
    fn take(&self, max: usize, out: *mut Event) -> Result<usize, Errno> {
        let read = self.read(max, out)?;
        if self.below.is_active() && read < max { self.take_below(read, max, out) } else { Ok(read) }
    }

    #[inline(never)]
    fn take_below(&self, read: usize, max: usize, out: *mut Event) -> Result<usize, Errno> {
        match self.below.harvest(max - read, out.wrapping_add(read)) {
            Ok(n) => {
                self.give_back(n as u32);
                Ok(read + n)
            }
            Err(_) if read > 0 => Ok(read),
            Err(error) => Err(error),
        }
    }

    /// Copies at least `min` and up to `max` events to `out`, waiting until `deadline`, with the signal mask `mask` in
    /// force while asleep.
    ///
    /// # Errors
    ///
    /// `EFAULT`; and where no event was there: `EINTR`, and `EINVAL` if the context was destroyed meanwhile.
    pub(super) fn get_events(
        &'static self,
        min: usize,
        max: usize,
        out: *mut Event,
        deadline: Option<Option<Instant>>,
        mask: Option<&libc::sigset_t>,
    ) -> Result<usize, Errno> {
        let mut got = 0;
        let mut backoff = hint::Backoff::default();
        let mut interrupted = false;
        let mut mixed = false;
        if self.below.is_active() {
            self.below.count_call();
        }
        loop {
            match self.take(max - got, out.wrapping_add(got)) {
                Ok(n) => got += n,
                Err(error) if got == 0 => return Err(error),
                Err(_) => return Ok(got),
            }
            let why_not = match () {
                () if got >= min => return Ok(got),
                () if self.is_dying() => Err(libc::EINVAL),
                () if interrupted => Err(libc::EINTR),
                () if deadline.is_none_or(expired) => Ok(0),
                () if !self.below.is_active() && backoff.wait() => continue,
                () => {
                    // What had no room is not in sight of who looks.
                    self.look_after_held();
                    // Never more than there can be before some are read.
                    let wanted = (min - got).min(self.capacity() as usize / 2) as u32;
                    let (max, out) = (max - got, Some(out.wrapping_add(got)));
                    let (deadline, mixed) = (deadline.flatten(), &mut mixed);
                    match self.sleep(Waiter { wanted, max, out, deadline, mask, mixed }) {
                        Ok(n) => got += n,
                        Err(libc::EINTR) => interrupted = true,
                        Err(error) if got == 0 => return Err(error),
                        Err(_) => return Ok(got),
                    }
                    if got < min {
                        continue;
                    }
                    Ok(got)
                }
            };
            return if got > 0 { Ok(got) } else { why_not };
        }
    }

    /// Sleeps until there may be something; returns how many events were copied meanwhile.
    ///
    /// # Errors
    ///
    /// `EINTR`, `EFAULT`.
    #[cold]
    fn sleep(&'static self, mut waiter: Waiter) -> Result<usize, Errno> {
        if !self.below.is_active() {
            return self.sleep_announced(&waiter, || !self.below.is_active());
        }
        match self.below.sleep(self, &mut waiter) {
            // The kernel knows no masks.
            Some(Err(libc::ENOSYS)) => {
                let at = waiter.deadline.unwrap_or_else(|| Instant::now() + FOR_EVER);
                let outcome = waiter.mask.map(|mask| masked::doze(at, mask));
                if outcome == Some(Outcome::Interrupted) { Err(libc::EINTR) } else { Ok(0) }
            }
            Some(Ok(n)) => {
                self.give_back(n as u32);
                Ok(n)
            }
            Some(Err(error)) => Err(error),
            None => {
                let other = self.below.join_others();
                self.sleep_announced(&waiter, || other.place_is_taken())
            }
        }
    }

    /// Sleeps until others publish, if `goes_on` says so afterwards, too.
    fn sleep_announced(&'static self, waiter: &Waiter, goes_on: impl Fn() -> bool) -> Result<usize, Errno> {
        let at = waiter.deadline.unwrap_or_else(|| Instant::now() + FOR_EVER);
        let outcome = if let Some(mask) = waiter.mask {
            masked::sleep(self, waiter.wanted, at, mask, || self.has(waiter.wanted) || !goes_on())
        } else {
            let key = self.prepare_wait(waiter.wanted);
            if self.has(waiter.wanted) || !goes_on() {
                return Ok(0);
            }
            key.wait(Some(at))
        };
        if outcome == Outcome::Interrupted { Err(libc::EINTR) } else { Ok(0) }
    }
}
