//! [`Builder`].

use super::{Credits, Handles, Tags};
use crate::cpu;
use std::fmt;

/// The most units one allocator can have.
pub const MAX: u32 = (1 << 30) - 1;

/// When a take is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// When at one moment too few units were free, wherever they were. So `n` can always all be out.
    #[default]
    Exact,
    /// When this CPU's stock has too few and the pool less than a batch, as in 2012: what lies in the stocks of other
    /// CPUs is not looked for. Lest that refuse who has been promised `n`, there are `2 * max(n, 4 * CPUs)`.
    ///
    /// A refusal costs two loads and never a system call, and proves nothing. Who waits, drains or resizes is served
    /// as exactly as by the other policy.
    Aio2012,
}

/// How new [`Credits`], [`Tags`] or [`Handles`] share out what they have.
///
/// # Examples
///
/// ```
/// use ioctx::credits::{Builder, MAX, Policy, TooMany};
/// let tags = Builder::new(64).most(256).batch(4).tags()?;
/// assert_eq!(tags.resize(256), Ok(64));
/// let old = Builder::new(8).policy(Policy::Aio2012).credits()?;
/// assert!(old.total() >= 16);
/// assert_eq!(Builder::new(MAX + 1).credits().unwrap_err(), TooMany { most: MAX });
/// # Ok::<(), TooMany>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is built before `credits`, `tags` or `handles`"]
pub struct Builder {
    pub(super) total: u32,
    most: Option<u32>,
    batch: Option<u32>,
    pub(super) portable: bool,
    pub(super) policy: Policy,
    pub(super) fair: bool,
}

/// More units were asked for than there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// How many there can be.
    pub most: u32,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there can be {} at most; ask for fewer, or build tags with `most`", self.most)
    }
}

impl std::error::Error for TooMany {}

impl Builder {
    /// `total` units, at most [`MAX`].
    pub fn new(total: u32) -> Self {
        Self { total, most: None, batch: None, portable: false, policy: Policy::Exact, fair: true }
    }

    /// How many tags there can be after a [`resize`](Tags::resize). They are paid for from the beginning: 3 bytes
    /// each, or what a larger [`batch`](Self::batch) takes: 8 for each of it, per possible CPU. As many as at first,
    /// unless said. Credits need no such bound.
    pub fn most(mut self, most: u32) -> Self {
        self.most = Some(most);
        self
    }

    /// How many units are moved between the pool and a stock at a time: at least 1, at most all. Unless said,
    /// `max(1, n / (4 * possible CPUs))`, so that all stocks together hold at most half of the units, but not more
    /// than 256, which is moved quickly.
    pub fn batch(mut self, batch: u32) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Stocks are changed by locked instructions, even where the system has restartable sequences: they need not be
    /// closed by a system call, which is better if units run out often.
    pub fn portable(mut self) -> Self {
        self.portable = true;
        self
    }

    /// When a take is refused.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Units that come back go to whoever happens to ask first; one who waits is told, and asks again. More is done
    /// in the same time, but waiting may last for ever. Otherwise they go to whoever has waited longest, and nobody is
    /// served before.
    pub fn unfair(mut self) -> Self {
        self.fair = false;
        self
    }

    /// # Errors
    ///
    /// [`TooMany`], with the policy's surplus: more than [`MAX`].
    pub fn credits(self) -> Result<Credits, TooMany> {
        self.check(MAX).map(Credits::build)
    }

    /// # Errors
    ///
    /// [`TooMany`], with the policy's surplus: more than [`MAX`], or than [`most`](Self::most).
    pub fn tags(self) -> Result<Tags, TooMany> {
        self.check(self.bound()).map(Tags::build)
    }

    /// # Errors
    ///
    /// As [`tags`](Self::tags).
    pub fn handles(self) -> Result<Handles, TooMany> {
        self.tags().map(Handles::build)
    }

    /// How many tags there can be.
    pub(super) fn bound(&self) -> u32 {
        self.capacity(self.most.unwrap_or(self.total)).min(MAX)
    }

    /// How many units there are if `n` are asked for.
    pub(super) fn capacity(&self, n: u32) -> u32 {
        match self.policy {
            Policy::Exact => n,
            Policy::Aio2012 => capacity_2012(n, cpu::possible()),
        }
    }

    pub(super) fn check(self, most: u32) -> Result<Self, TooMany> {
        if self.capacity(self.total) <= most { Ok(self) } else { Err(TooMany { most }) }
    }

    /// How many of `total` units are moved at a time.
    pub(super) fn batch_of(&self, total: u32) -> u32 {
        let batch = self.batch.unwrap_or_else(|| match self.policy {
            Policy::Exact => default_batch(total, cpu::possible()).min(256),
            Policy::Aio2012 => default_batch(total, cpu::possible()),
        });
        batch.clamp(1, total.max(1))
    }
}

/// `max(1, total / (4 * cpus))`.
fn default_batch(total: u32, cpus: u32) -> u32 {
    (total / cpus.saturating_mul(4)).max(1)
}

/// `2 * max(n, 4 * cpus)`: half of it can be out whatever lies in the stocks of other CPUs. None if none was asked
/// for.
fn capacity_2012(n: u32, cpus: u32) -> u32 {
    if n == 0 { 0 } else { n.max(cpus.saturating_mul(4)).saturating_mul(2) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The sizing law of 2012: a CPU whose stock is empty gets `n` units, though every other CPU's stock is as
        /// full as can be and the last of the pool is less than a batch.
        #[test]
        fn what_was_promised_in_2012_is_there(n in 1_u32..100_000, cpus in 1_u32..1024) {
            let total = capacity_2012(n, cpus);
            let batch = default_batch(total, cpus);
            prop_assert!(batch >= 2, "a batch is never less than two, since there are eight for each CPU");
            let mut pool = total;
            for _ in 1..cpus {
                // Filled by puts of what was taken elsewhere, up to two batches.
                pool -= (2 * batch).min(pool);
            }
            let (mut stock, mut out) = (0, 0);
            while stock > 0 || pool >= batch {
                if stock == 0 {
                    pool -= batch;
                    stock = batch;
                }
                stock -= 1;
                out += 1;
            }
            prop_assert!(out >= n, "{} of {} by {}: only {}", n, total, batch, out);
        }
    }

    #[test]
    fn batches() {
        let of = |builder: Builder, total| builder.batch_of(total);
        assert_eq!(of(Builder::new(8).batch(0), 8), 1);
        assert_eq!(of(Builder::new(8).batch(100), 8), 8);
        assert_eq!(of(Builder::new(0), 0), 1);
        assert_eq!([default_batch(1, 512), default_batch(1024, 2)], [1, 128]);
        assert_eq!(Builder::new(MAX).policy(Policy::Aio2012).credits().unwrap_err(), TooMany { most: MAX });
        assert_eq!(Builder::new(9).most(8).tags().unwrap_err(), TooMany { most: 8 });
    }
}
