//! [`Builder`].

use super::PerCpuRef;
use super::policy::{Always, Policy, Stats, Watch};
use super::site::Site;
use super::slots::{Mode, Slots};
use super::word::{DEAD, ONE, PER_CPU, PORTABLE, STICKY};
use crate::sync::atomic::AtomicU64;
use crate::sync::rseq;
use crate::sync::time::micros;
use std::marker::PhantomData;

/// How a new [`PerCpuRef`] counts, and what it starts with. From [`PerCpuRef::builder`].
///
/// # Examples
///
/// ```
/// use ioctx::refcount::{Gets, PerCpuRef, Put};
/// let count = PerCpuRef::builder().policy(Gets).portable().build();
/// assert_eq!((count.is_per_cpu(), count.kill()), (false, Put::Zero));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is built before `build`"]
pub struct Builder<P: Policy = Always> {
    atomic: bool,
    dead: bool,
    portable: bool,
    policy: PhantomData<P>,
}

/// Sections were asked for and cannot be had, for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSections(pub &'static str);

impl std::fmt::Display for NoSections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no restartable sequences: {}; leave the choice to `build`", self.0)
    }
}

impl std::error::Error for NoSections {}

impl Builder {
    pub(super) fn new() -> Self {
        Self { atomic: false, dead: false, portable: false, policy: PhantomData }
    }
}

impl<P: Policy> Builder<P> {
    /// When the count goes per CPU by itself. [`Always`], unless said.
    pub fn policy<Q: Policy>(self, _: Q) -> Builder<Q> {
        Builder { atomic: self.atomic, dead: self.dead, portable: self.portable, policy: PhantomData }
    }

    /// Slots are counted in by locked instructions, even where the system has restartable sequences.
    pub fn portable(mut self) -> Self {
        self.portable = true;
        self
    }

    /// Starts in one word, as after [`switch_to_atomic`](PerCpuRef::switch_to_atomic).
    pub fn atomic(mut self) -> Self {
        self.atomic = true;
        self
    }

    /// Starts killed, with no reference: to be [`reinit`](PerCpuRef::reinit)ed.
    pub fn dead(mut self) -> Self {
        self.dead = true;
        self
    }

    /// The count.
    #[track_caller]
    pub fn build(self) -> PerCpuRef<P> {
        // Asked in any case: registering with the kernel takes long once there are threads.
        let portable = matches!(rseq::kind(), rseq::Kind::Portable(_)) || self.portable;
        let per_cpu = P::STARTS_PER_CPU && !self.atomic && !self.dead;
        let mode = match (per_cpu, portable) {
            (true, true) => Mode::Open(Slots::new()).word(),
            (true, false) => Mode::Sections(Slots::new()).word(),
            _ => Mode::Word(Stats::new(if P::WATCH == Watch::Gets { micros() } else { 0 })).word(),
        };
        let flag = |set, flag| if set { flag } else { 0 };
        let start = if self.dead { DEAD } else { ONE } | flag(self.atomic, STICKY);
        PerCpuRef {
            mode: AtomicU64::new(mode),
            word: AtomicU64::new(start | flag(per_cpu, PER_CPU) | flag(portable, PORTABLE)),
            site: Site::here(),
            policy: PhantomData,
        }
    }

    /// The count, if its slots can be counted in by restartable sequences.
    ///
    /// # Errors
    ///
    /// [`NoSections`], if not, or if [`portable`](Self::portable) was said.
    #[track_caller]
    pub fn build_with_sections(self) -> Result<PerCpuRef<P>, NoSections> {
        match rseq::kind() {
            rseq::Kind::Portable(why) => Err(NoSections(why)),
            _ if self.portable => Err(NoSections("the builder was told to do without")),
            _ => Ok(self.build()),
        }
    }
}
