//! The life of a count: kill, revive, and the changes between slots and the word.
//!
//! One change at a time: whoever makes one sets [`SWITCHING`] in the word, and another who wants to waits.

use super::policy::{MAX_PATIENCE, Policy, Stats, Watch};
use super::slots::{Mode, Note, Slots};
use super::word::{DEAD, ONE, PER_CPU, PORTABLE, STICKY, SWITCHING};
use super::{PerCpuRef, Put};
use crate::sync::atomic::{self, AtomicU64, Ordering::Relaxed};
use crate::sync::hint::Backoff;
use crate::sync::time::{Duration, micros};
use crate::sync::{Tally, hint, mo, section_fence, thread};

/// A count was not revived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviveError {
    /// It was not killed, or has been revived already.
    Alive,
    /// Its last reference is gone, and with it what it guarded: [`reinit`](PerCpuRef::reinit) starts it anew.
    Zero,
    /// So many references are out: [`resurrect`](PerCpuRef::resurrect) revives it as it is.
    Held(u64),
}

impl std::fmt::Display for ReviveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alive => f.write_str("the count is alive; kill it first"),
            Self::Zero => f.write_str("the count is zero and was released; use reinit"),
            Self::Held(n) => write!(f, "{n} references are out; use resurrect, or wait until they are put"),
        }
    }
}

impl std::error::Error for ReviveError {}

/// How often a count has become per CPU because it was shared.
static UPGRADES: Tally = Tally::new();

/// How many counts of this process have become per CPU because they were shared.
#[cfg(feature = "stats")]
pub fn upgrades() -> u64 {
    UPGRADES.get()
}

/// What came of the attempt to begin a change.
enum Begun {
    /// It may be made. The word as it is now.
    Yes(u64),
    /// It is not to be made. The word as it was.
    No(u64),
    /// Somebody else is making one.
    Busy,
}

/// A count that is on its way from slots to the word: nobody begins to count in the slots any more.
struct Stopped<P: Policy> {
    count: *const PerCpuRef<P>,
    slots: Slots,
    sections: bool,
}

impl<P: Policy> PerCpuRef<P> {
    /// Begins a change, if `step` makes a new word of the one that is there. If that has [`SWITCHING`] set, the
    /// caller ends the change.
    fn try_begin(&self, step: impl Fn(u64) -> Option<u64>) -> Begun {
        // Acquire: pairs with the end of the change before, for who is told that there is none to make.
        let mut word = self.word.load(mo!("refcount.word.look", Acquire));
        loop {
            if word & SWITCHING != 0 {
                return Begun::Busy;
            }
            let Some(next) = step(word) else { return Begun::No(word) };
            // Acquire: pairs with the end of the change before, and, where the count is zero, with every put.
            // Relaxed: tried again.
            match self.word.compare_exchange_weak(word, next, mo!("refcount.word.begin", Acquire), Relaxed) {
                Ok(_) => return Begun::Yes(next),
                Err(now) => word = now,
            }
        }
    }

    /// [`try_begin`](Self::try_begin) that waits for whoever is making another change.
    fn begin(&self, step: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut backoff = Backoff::default();
        loop {
            match self.try_begin(&step) {
                Begun::Yes(word) => return Ok(word),
                Begun::No(word) => return Err(word),
                Begun::Busy if backoff.wait() => {}
                Begun::Busy => {
                    hint::contended();
                    thread::sleep(Duration::from_micros(50));
                }
            }
        }
    }

    /// Ends a change that leaves things as they were.
    fn end(&self, flags: u64) {
        // Release: pairs with the beginning of the next change.
        self.word.fetch_and(!(SWITCHING | flags), mo!("refcount.word.end", Release));
    }

    /// Makes everybody who begins from now on count in the word.
    ///
    /// The caller has begun a change of a count that is per CPU.
    fn stop(&self) -> Stopped<P> {
        // Relaxed: ordered by the beginning of the change.
        let stamp = if P::WATCH == Watch::Nothing { 0 } else { micros() };
        let (slots, sections, mode) = match Mode::of(self.mode.load(Relaxed)) {
            Mode::Sections(slots) => {
                // SAFETY: freed only when we end the change.
                let patience = unsafe { slots.note() }.patience;
                (slots, true, Mode::Word(Stats::new(stamp).with_patience(patience)).word())
            }
            Mode::Open(slots) => (slots, false, Mode::Closed(slots).word()),
            mode => unreachable!("per CPU, in the mode {mode:?}"),
        };
        // The fence orders it before every section that begins, or begins again, after it; locked instructions find
        // each slot closed. Release: pairs with whoever looks for statistics in the closed slots: they are made.
        self.mode.store(mode, mo!("refcount.mode.close", Release));
        Stopped { count: self, slots, sections }
    }

    /// Makes the count per CPU, if there is memory for it, and ends the change. Whoever counts in the word is
    /// right to, before and after.
    ///
    /// `patience` says how many rests it is to stay so; `None`, that it was told to.
    fn start(&self, patience: Option<u32>) {
        // Relaxed: ordered by the beginning of the change.
        let (slots, closed) = match Mode::of(self.mode.load(Relaxed)) {
            Mode::Closed(slots) => (Some(slots), true),
            Mode::Word(_) => (Slots::try_new(), false),
            mode => unreachable!("in one word, in the mode {mode:?}"),
        };
        let Some(slots) = slots else { return self.end(0) };
        if patience.is_some() {
            UPGRADES.one();
        }
        // Relaxed: the opening below comes after it. Before the flag is set nobody may count up in a slot what
        // might be put in the word: that could be found zero too early.
        let word = self.word.fetch_or(PER_CPU, Relaxed);
        // SAFETY: nobody frees them before the next change.
        unsafe {
            slots.set_note(
                patience.map_or(Note::FOR_EVER, |patience| Note { rests: 1 << patience, patience }),
            );
            if closed {
                slots.open();
            }
        }
        let mode = if word & PORTABLE != 0 { Mode::Open(slots) } else { Mode::Sections(slots) };
        // Release: pairs with whoever reads the mode in order to count in slots.
        atomic::store_over(&self.mode, mode.word(), mo!("refcount.mode.open", Release));
        self.end(0);
    }

    /// Ends the per-CPU life of the count and drops the reference it started with.
    ///
    /// Once it has returned, no [`try_get_live`](Self::try_get_live) succeeds on any CPU, and the count is
    /// exact. Blocking: a system call, where there are sections, and another change of mode if one is under way.
    ///
    /// # Panics
    ///
    /// In debug builds if the count was killed before; otherwise that does nothing and returns
    /// [`Put::Held`]. Where several may try there is [`try_kill`](Self::try_kill).
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away. The count is
    /// as it was then.
    #[track_caller]
    pub fn kill(&self) -> Put {
        self.try_kill().unwrap_or_else(|| {
            self.site.check_kill();
            Put::Held
        })
    }

    /// [`kill`](Self::kill), unless somebody else did it first: then it returns `None` once theirs has closed
    /// the count.
    ///
    /// # Panics
    ///
    /// As [`kill`](Self::kill), but for the second.
    #[track_caller]
    pub fn try_kill(&self) -> Option<Put> {
        self.kill_and_confirm(|| {})
    }

    /// [`try_kill`](Self::try_kill) that calls `confirm` when no [`try_get_live`](Self::try_get_live) can succeed
    /// any more, and before the first reference is dropped: what is released when the count is zero is still
    /// there.
    ///
    /// # Panics
    ///
    /// As there. If `confirm` panics, the first reference stays, and the count never reaches zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::refcount::{PerCpuRef, Put};
    /// let count = PerCpuRef::new();
    /// let put = count.kill_and_confirm(|| assert!(!count.try_get_live() && !count.is_zero()));
    /// assert_eq!(put, Some(Put::Zero));
    /// ```
    #[track_caller]
    pub fn kill_and_confirm(&self, confirm: impl FnOnce()) -> Option<Put> {
        // SAFETY: borrowed.
        unsafe { Self::kill_raw(self, confirm) }
    }

    /// [`kill_and_confirm`](Self::kill_and_confirm) for a count that may be freed, by somebody else, as soon as
    /// the reference that it started with is gone.
    ///
    /// # Safety
    ///
    /// 1. `this` is valid until that reference is given back, which it may itself ensure.
    ///
    /// # Panics
    ///
    /// As there.
    #[track_caller]
    pub unsafe fn kill_raw(this: *const Self, confirm: impl FnOnce()) -> Option<Put> {
        {
            // SAFETY: 1.: the first reference is not given back in this block.
            let this = unsafe { &*this };
            if this.begin(Self::dying).ok()? & SWITCHING != 0 {
                let stopped = [this.stop()];
                Self::fence(&stopped, || this.end(DEAD));
                Self::finish(stopped);
            }
            confirm();
        }
        // SAFETY: handed on; whoever kills owns the first reference.
        Some(unsafe { Self::put_in_word(this, 1) })
    }

    /// The step that kills.
    fn dying(word: u64) -> Option<u64> {
        (word & DEAD == 0).then_some(word | DEAD | if word & PER_CPU != 0 { SWITCHING } else { 0 })
    }

    /// [`try_kill`](Self::try_kill) for many counts, which share what costs most: one fence for all. Tells
    /// `found`, with the place in the list, what each found.
    ///
    /// # Panics
    ///
    /// As there. If `found` panics, counts that it was not told of are dying and never found zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::refcount::{PerCpuRef, Put};
    /// let counts = [PerCpuRef::new(), PerCpuRef::new()];
    /// counts[1].get();
    /// let mut found = Vec::new();
    /// PerCpuRef::kill_all(&counts, |_, put| found.push(put));
    /// assert_eq!(found, [Some(Put::Zero), Some(Put::Held)]);
    /// # let _ = counts[1].put();
    /// ```
    #[track_caller]
    pub fn kill_all<'a>(
        counts: impl IntoIterator<Item = &'a Self>,
        mut found: impl FnMut(usize, Option<Put>),
    ) {
        let counts: Vec<&Self> = counts.into_iter().collect();
        // What each is to be told, with the reference it started with still to be put, or `None` if it has to
        // wait: not here, where others might wait for those we have begun with.
        let mut mine = Vec::with_capacity(counts.len());
        let mut stopped = Vec::with_capacity(counts.len());
        for count in &counts {
            mine.push(match count.try_begin(Self::dying) {
                Begun::Yes(word) => {
                    if word & SWITCHING != 0 {
                        stopped.push(count.stop());
                    }
                    Some(true)
                }
                Begun::No(_) => Some(false),
                Begun::Busy => None,
            });
        }
        let counted = counts.iter().zip(&mine).filter(|(_, mine)| **mine == Some(true));
        Self::fence(&stopped, || counted.for_each(|(count, _)| count.end(DEAD)));
        Self::finish(stopped);
        for (place, (count, mine)) in counts.into_iter().zip(mine).enumerate() {
            let put = match mine {
                // SAFETY: borrowed.
                Some(true) => Some(unsafe { Self::put_in_word(count, 1) }),
                Some(false) => None,
                None => count.try_kill(),
            };
            found(place, put);
        }
    }

    /// Finishes all, and only then checks that none was put too often.
    #[track_caller]
    fn finish(stopped: impl IntoIterator<Item = Stopped<P>>) {
        let mut wrong = None;
        for stopped in stopped {
            // SAFETY: there is a reference, whose holder waits for us.
            let site = unsafe { (*stopped.count).site };
            let out = stopped.finish();
            // Those after it must not be left unfinished.
            if out < 1 {
                wrong = wrong.or(Some((site, out)));
            }
        }
        if let Some((site, out)) = wrong {
            site.check_sum(out);
        }
    }

    /// Between the stopping of counts and the summing of their slots.
    ///
    /// * A section that saw the mode word before it was changed has committed before the fence returns, or
    ///   is restarted by it and gives up. What it counted, and everything its thread did before, is ordered
    ///   before what follows.
    /// * One that comes later sees the change.
    ///
    /// # Panics
    ///
    /// If it cannot be had: going on would be unsound. Then the counts are per CPU again, and `undo` ends the change.
    fn fence(stopped: &[Stopped<P>], undo: impl FnOnce()) {
        if stopped.iter().all(|stopped| !stopped.sections) {
            return;
        }
        // SeqCst, for every thread of the process: pairs with every section.
        let fenced = section_fence!("refcount.mode.fence", SeqCst);
        if !fenced {
            stopped.iter().for_each(Stopped::undo);
            undo();
            panic!("membarrier was granted to this process and is now refused");
        }
    }

    /// Makes one word count, and keeps it so: neither [`Policy`] nor revival make the count per CPU again, only
    /// [`switch_to_percpu`](Self::switch_to_percpu). For a count whose exact value is wanted, or that is not
    /// shared for a while. The caller holds a reference. Blocking, as [`kill`](Self::kill).
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::refcount::PerCpuRef;
    /// let count = PerCpuRef::new();
    /// assert_eq!(count.count(), None);
    /// count.switch_to_atomic();
    /// assert_eq!(count.count(), Some(1));
    /// count.switch_to_percpu();
    /// assert_eq!(count.count(), None);
    /// ```
    #[track_caller]
    pub fn switch_to_atomic(&self) {
        let sticky = |word| Some(word | STICKY | if word & PER_CPU != 0 { SWITCHING } else { 0 });
        if self.begin(sticky).is_ok_and(|word| word & SWITCHING != 0) {
            self.gather();
        }
    }

    /// From slots to the word, which ends the change.
    #[track_caller]
    fn gather(&self) {
        let stopped = [self.stop()];
        Self::fence(&stopped, || self.end(0));
        Self::finish(stopped);
    }

    /// Counts per CPU from now on, unless the count is dying; then it is so once it is revived, if that is its policy
    /// ([`Always`](super::Always)). Takes [`switch_to_atomic`](Self::switch_to_atomic) back. Without memory for
    /// slots the count stays one word. The caller holds a reference. Blocking, if another change is under way.
    pub fn switch_to_percpu(&self) {
        let step = |word| {
            let switching = if word & (DEAD | PER_CPU) == 0 { SWITCHING } else { 0 };
            Some(word & !STICKY | switching)
        };
        if self.begin(step).is_ok_and(|word| word & SWITCHING != 0) {
            self.start(None);
        }
    }

    /// Takes a kill back while references are out: one more is, which belongs to whoever will kill the count
    /// again.
    ///
    /// Publishes nothing: who must see what was done before it needs a way of their own. Blocking, if another
    /// change is under way.
    ///
    /// # Errors
    ///
    /// [`ReviveError::Alive`], [`ReviveError::Zero`]. One of several who try succeeds, and either the last put
    /// finds zero or this succeeds.
    pub fn resurrect(&self) -> Result<(), ReviveError> {
        self.revive(|out| if out == 0 { Err(ReviveError::Zero) } else { Ok(()) })
    }

    /// Starts a count anew that was killed and has reached zero, for whoever was told so: with one reference,
    /// which belongs to whoever will kill it again.
    ///
    /// Publishes nothing: who must see what was done before it needs a way of their own. Blocking, if another
    /// change is under way.
    ///
    /// # Errors
    ///
    /// [`ReviveError::Alive`], [`ReviveError::Held`]. One of several who try succeeds.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::refcount::{PerCpuRef, Put};
    /// let count = PerCpuRef::new();
    /// assert_eq!(count.kill(), Put::Zero);
    /// count.reinit().unwrap();
    /// assert!(count.try_get_live());
    /// # let _ = count.put();
    /// ```
    pub fn reinit(&self) -> Result<(), ReviveError> {
        self.revive(|out| if out == 0 { Ok(()) } else { Err(ReviveError::Held(out)) })
    }

    fn revive(&self, may: impl Fn(u64) -> Result<(), ReviveError>) -> Result<(), ReviveError> {
        let check = |word| match word & DEAD {
            0 => Err(ReviveError::Alive),
            _ => may(Self::count_in(word) as u64),
        };
        let step = |word| {
            check(word).ok()?;
            let switching = if P::STARTS_PER_CPU && word & STICKY == 0 { SWITCHING } else { 0 };
            Some((word & !DEAD).wrapping_add(ONE) | switching)
        };
        match self.begin(step) {
            Ok(word) if word & SWITCHING != 0 => self.start(None),
            Ok(_) => {}
            Err(word) => return check(word),
        }
        Ok(())
    }

    /// Goes back to one word, if the count has been per CPU for long enough, and has not been told to be: for
    /// counts that may have been shared for a while only. Returns whether it did. To be called now and then, by
    /// who holds a reference; it is not told apart whether the count is used.
    ///
    /// How many calls are long enough doubles each time the count turns out to be shared still, up to 32768, and
    /// halves with each call that finds it in one word. So a count that is shared all the time is per CPU nearly
    /// all the time. Does nothing with [`Always`](super::Always) and [`Never`](super::Never), and where there are
    /// no sections: there the slots could not be freed. Blocking, as [`kill`](Self::kill).
    ///
    /// # Panics
    ///
    /// As [`switch_to_atomic`](Self::switch_to_atomic).
    #[track_caller]
    pub fn rest(&self) -> bool {
        if P::WATCH == Watch::Nothing {
            return false;
        }
        let per_cpu = |word| (word & (PER_CPU | PORTABLE | DEAD) == PER_CPU).then_some(word | SWITCHING);
        match self.try_begin(per_cpu) {
            Begun::Yes(_) => {}
            Begun::No(_) => {
                self.note(|stats| (stats.with_patience(stats.patience().saturating_sub(1)), false));
                return false;
            }
            Begun::Busy => return false,
        }
        // Relaxed: ordered by the beginning of the change.
        if let Mode::Sections(slots) = Mode::of(self.mode.load(Relaxed)) {
            // SAFETY: freed only by whoever changes the mode, who is us.
            unsafe {
                let Note { rests, patience } = slots.note();
                if rests != Note::FOR_EVER.rests {
                    slots.set_note(Note { rests: rests.saturating_sub(1), patience });
                }
                if rests > 1 {
                    self.end(0);
                    return false;
                }
            }
        }
        self.gather();
        true
    }

    /// Notes that the count was touched from another CPU than before, if that is so.
    #[inline(always)]
    pub(super) fn note_move(&self) {
        // Relaxed: statistics.
        if P::WATCH == Watch::Moves && !Stats::is_of(self.mode.load(Relaxed), crate::cpu::hint()) {
            self.moved();
        }
    }

    #[cold]
    fn moved(&self) {
        // Relaxed: as above.
        let moved = |word: &AtomicU64| !Stats::is_of(word.load(Relaxed), crate::cpu::hint());
        if self.statistics().is_some_and(moved) {
            self.note(|stats| stats.moved(micros()));
        }
    }

    /// Notes that 16384 references have been taken, or many at once, the last of them from `before`.
    #[cold]
    pub(super) fn ticked(&self, before: u64) {
        if before & PER_CPU == 0 {
            Self::check_total(Self::count_in(before));
        }
        if before.leading_ones() > P::TICK.leading_zeros() {
            self.note(|stats| stats.ticked(micros()));
        }
    }

    /// Counts of [`Gets`](super::Gets) have 45 bits, which leaked references could fill, unlike 59.
    fn check_total(out: i64) {
        if P::WATCH == Watch::Gets && out > 1 << 43 {
            std::process::abort();
        }
    }

    /// Where the statistics of a count in one word stand: in the mode word, or with the slots, if it keeps closed
    /// ones.
    fn statistics(&self) -> Option<&AtomicU64> {
        // Acquire: pairs with the closing of slots: they are made.
        match Mode::of(self.mode.load(mo!("refcount.mode.note", Acquire))) {
            Mode::Word(_) => Some(&self.mode),
            // SAFETY: closed slots stay until the count is dropped.
            Mode::Closed(slots) => Some(unsafe { slots.statistics() }),
            Mode::Sections(_) | Mode::Open(_) => None,
        }
    }

    /// Changes the statistics of a count in one word, and makes it per CPU if they say so. The caller holds a
    /// reference.
    #[cold]
    fn note(&self, change: impl FnOnce(Stats) -> (Stats, bool)) {
        let Some(word) = self.statistics() else { return };
        // Relaxed: statistics; if anything else has become of the mode, nothing is noted.
        let before = word.load(Relaxed);
        let Mode::Word(stats) = Mode::of(before) else { return };
        let (stats, enough) = change(stats);
        // Relaxed twice: as above.
        let noted = word.compare_exchange(before, stats.0, Relaxed, Relaxed).is_ok();
        let settled = |word| (word & (DEAD | PER_CPU | STICKY) == 0).then_some(word | SWITCHING);
        if noted && enough && matches!(self.try_begin(settled), Begun::Yes(_)) {
            self.start(Some((stats.patience() + 1).min(MAX_PATIENCE)));
        }
    }
}

impl<P: Policy> Stopped<P> {
    /// Brings the slots' sum into the word, which counts alone from then on, and ends the change. Returns how many
    /// references are out.
    ///
    /// If there were sections, [`PerCpuRef::fence`] came before.
    fn finish(self) -> i64 {
        // SAFETY: there is a reference, whose holder waits for us.
        let count = unsafe { &*self.count };
        // Sum first, add once: adding slot by slot could pass through zero.
        //
        // SAFETY: no section reaches them any more, and whoever else did finds them closed, or nothing; those
        // stay until the count is dropped.
        let sum = unsafe {
            if self.sections {
                let sum = self.slots.sum();
                self.slots.free();
                sum
            } else {
                self.slots.close()
            }
        };
        // Relaxed: what was counted in the word is only looked at.
        PerCpuRef::<P>::check_total(PerCpuRef::<P>::count_in(count.word.load(Relaxed)).saturating_add(sum));
        let change = (sum as u64).wrapping_mul(ONE).wrapping_sub(PER_CPU | SWITCHING);
        // Release: ends the change. What was collected from the slots we hand on with our reference.
        let before = count.word.fetch_add(change, mo!("refcount.word.sum", Release));
        PerCpuRef::<P>::count_in(before.wrapping_add(change))
    }

    /// Makes the slots count again, as if nobody had begun.
    fn undo(&self) {
        // SAFETY: as in `finish`.
        let count = unsafe { &*self.count };
        let mode = if self.sections { Mode::Sections(self.slots) } else { Mode::Open(self.slots) };
        // Release: as where they were opened.
        count.mode.store(mode.word(), mo!("refcount.mode.undo", Release));
    }
}
