//! Arbitrary sequences of everything that credits and tags can do, against plain models of what it means.

use ioctx::credits::{Batch, Builder, Credit, Credits, Handle, Handles, Policy, Tag, Take, WaitError};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeSet, HashSet};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::task::{Context, Poll, Wake, Waker};

/// Whether it was rung since it was last asked.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// One who waits.
struct Waiter<'a> {
    want: u32,
    future: Pin<Box<Take<'a>>>,
    bell: Arc<Bell>,
}

impl<'a> Waiter<'a> {
    fn poll(&mut self) -> Poll<Result<Credit<'a>, WaitError>> {
        self.bell.0.store(false, Relaxed);
        self.future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.bell))))
    }
}

/// What credits are, written plainly: so many in all, so many out, and a line of those who wait.
struct Plain<'a> {
    credits: &'a Credits,
    exact: bool,
    fair: bool,
    total: u32,
    held: Vec<Credit<'a>>,
    waiting: Vec<Waiter<'a>>,
}

impl<'a> Plain<'a> {
    fn out(&self) -> u32 {
        self.held.iter().map(Credit::len).sum()
    }

    fn free(&self) -> u32 {
        self.total.saturating_sub(self.out())
    }

    /// What a take that does not wait may have, at most.
    fn to_be_had(&self) -> u32 {
        if self.fair && !self.waiting.is_empty() { 0 } else { self.free() }
    }

    fn take(&mut self, n: u32, up_to: bool) -> Result<(), TestCaseError> {
        let (there, waiting) = (self.to_be_had(), !self.waiting.is_empty());
        let taken = if up_to { self.credits.try_take_up_to(n) } else { self.credits.try_take(n) };
        match taken {
            Ok(credit) => {
                let all = credit.len() == n || up_to && credit.len() == there;
                // By the old policy it may not have looked everywhere.
                prop_assert!(
                    credit.len() <= there && (all || !self.exact),
                    "{} of {n}, {there}",
                    credit.len()
                );
                self.held.push(credit);
            }
            // Where anybody waits without being fair, what is free may be in the hands of nobody, but not closed off.
            Err(_) if self.exact || waiting => {
                let least = if up_to { 1 } else { n };
                prop_assert!(there < least, "{} were free", there);
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn wait(&mut self, want: u32) -> Result<(), TestCaseError> {
        let mut waiter =
            Waiter { want, future: Box::pin(self.credits.take_async(want)), bell: Arc::default() };
        let there = self.to_be_had();
        match waiter.poll() {
            Poll::Ready(Ok(credit)) => {
                prop_assert!(credit.len() == want && want <= there);
                self.held.push(credit);
            }
            Poll::Ready(Err(error)) => {
                prop_assert_eq!(error, WaitError::Never { total: self.total });
                prop_assert!(want > self.total);
            }
            Poll::Pending => {
                prop_assert!(want > there && want <= self.total);
                self.waiting.push(waiter);
            }
        }
        Ok(())
    }

    /// Those who were woken look; if it is fair they have what they want.
    fn wake(&mut self) -> Result<(), TestCaseError> {
        while let Some(at) = self.waiting.iter().position(|waiter| waiter.bell.0.load(Relaxed)) {
            prop_assert!(!self.fair || at == 0, "passed");
            let want = self.waiting[at].want;
            let there = self.free();
            match self.waiting[at].poll() {
                Poll::Ready(Ok(credit)) => {
                    prop_assert!(credit.len() == want && want <= there);
                    drop(self.waiting.remove(at));
                    self.held.push(credit);
                }
                Poll::Ready(Err(_)) => {
                    prop_assert!(!self.fair && want > self.total);
                    drop(self.waiting.remove(at));
                }
                Poll::Pending => prop_assert!(!self.fair && want > there, "woken for nothing"),
            }
        }
        // Nobody who could be served sleeps.
        let free = self.free();
        let mut asleep = self.waiting.iter().take(if self.fair { 1 } else { usize::MAX });
        prop_assert!(asleep.all(|waiter| waiter.want > free), "a wake-up is lost");
        Ok(())
    }

    fn step(&mut self, step: u8, n: u32, which: Index) -> Result<(), TestCaseError> {
        match step {
            0..3 => self.take(n, step == 2)?,
            3 => self.wait(n)?,
            4 if !self.held.is_empty() => {
                let at = which.index(self.held.len());
                let split = self.held[at].split_off(n);
                self.held.push(split);
            }
            5 => {
                let there = self.to_be_had();
                let all = self.credits.drain();
                prop_assert_eq!(all.len(), there);
                self.held.push(all);
            }
            6 => {
                let before = self.credits.resize(n).unwrap();
                prop_assert_eq!(before, self.total);
                self.total = self.credits.total();
            }
            7 if !self.waiting.is_empty() => drop(self.waiting.remove(which.index(self.waiting.len()))),
            _ if !self.held.is_empty() => drop(self.held.swap_remove(which.index(self.held.len()))),
            _ => {}
        }
        self.wake()?;
        prop_assert_eq!(self.credits.available(), self.free());
        Ok(())
    }
}

/// What tags are: a set of those that are free.
struct PlainTags<'a> {
    handles: &'a Handles,
    exact: bool,
    total: u32,
    one: Vec<Tag<'a>>,
    many: Vec<Batch<'a>>,
    left: Vec<Handle>,
    stale: Vec<Handle>,
}

impl<'a> PlainTags<'a> {
    fn free(&self) -> BTreeSet<u32> {
        let out: HashSet<u32> = self.out().collect();
        (0..self.total).filter(|tag| !out.contains(tag)).collect()
    }

    fn out(&self) -> impl Iterator<Item = u32> {
        let many = self.many.iter().flat_map(|batch| batch.iter().copied());
        self.one.iter().map(Tag::index).chain(many).chain(self.left.iter().map(|handle| handle.index()))
    }

    fn step(&mut self, step: u8, n: u32, which: Index) -> Result<(), TestCaseError> {
        let (tags, free) = (self.handles.tags(), self.free());
        match step {
            0..2 => match tags.try_take() {
                Ok(tag) => {
                    prop_assert!(free.contains(&tag.index()));
                    self.one.push(tag);
                }
                Err(_) => prop_assert!(!self.exact || free.is_empty()),
            },
            2..4 => {
                let up_to = step == 3;
                match if up_to { tags.try_take_up_to(n) } else { tags.try_take_many(n) } {
                    Ok(batch) => {
                        prop_assert!(batch.iter().all(|tag| free.contains(tag)));
                        let all = batch.len() == n as usize || up_to && batch.len() == free.len();
                        prop_assert!(all || !self.exact && up_to);
                        self.many.push(batch);
                    }
                    Err(_) => {
                        let least = if up_to { 1 } else { n as usize };
                        prop_assert!(!self.exact || free.len() < least);
                    }
                }
            }
            4 if !self.many.is_empty() => {
                let at = which.index(self.many.len());
                self.one.extend(self.many[at].pop());
            }
            5 => {
                let all = tags.drain();
                prop_assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), free);
                self.many.push(all);
            }
            6 => {
                let bound = 40 * if self.exact { 1 } else { 2 };
                match tags.resize(n) {
                    Ok(before) => prop_assert_eq!(before, self.total),
                    Err(error) => prop_assert!(error.most >= bound.min(error.most)),
                }
                self.total = tags.total();
            }
            7 if !self.one.is_empty() => {
                let tag = self.one.swap_remove(which.index(self.one.len()));
                self.left.push(self.handles.leave(tag).unwrap());
            }
            8 if !self.left.is_empty() => {
                let handle = self.left.swap_remove(which.index(self.left.len()));
                self.one.push(self.handles.claim(handle).unwrap());
                self.stale.push(handle);
            }
            9 if !self.many.is_empty() => drop(self.many.swap_remove(which.index(self.many.len()))),
            _ if !self.one.is_empty() => drop(self.one.swap_remove(which.index(self.one.len()))),
            _ => {}
        }
        let out: Vec<u32> = self.out().collect();
        prop_assert_eq!(out.iter().collect::<HashSet<_>>().len(), out.len(), "one tag in two hands");
        prop_assert!(self.left.iter().all(|handle| self.handles.is_left(*handle)));
        prop_assert!(self.stale.iter().all(|handle| self.handles.claim(*handle).is_err()));
        // Those that were withdrawn count until they are noticed.
        prop_assert!(tags.available() as usize >= self.free().len());
        Ok(())
    }
}

fn builder(n: u32, batch: Option<u32>, kind: u8) -> Builder {
    let mut builder = Builder::new(n);
    if let Some(batch) = batch {
        builder = builder.batch(batch);
    }
    if kind & 1 != 0 {
        builder = builder.portable();
    }
    if kind & 2 != 0 {
        builder = builder.unfair();
    }
    if kind & 4 != 0 {
        builder = builder.policy(Policy::Aio2012);
    }
    builder
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn credits(
        (n, batch, kind) in (0_u32..40, proptest::option::of(0_u32..12), 0_u8..8),
        steps in vec((0_u8..12, 0_u32..50, any::<Index>()), 0..200),
    ) {
        let credits = builder(n, batch, kind).credits().unwrap();
        let mut plain = Plain {
            credits: &credits,
            exact: kind & 4 == 0,
            fair: kind & 2 == 0,
            total: credits.total(),
            held: Vec::new(),
            waiting: Vec::new(),
        };
        for (step, n, which) in steps {
            plain.step(step, n, which)?;
        }
        plain.held.clear();
        plain.waiting.clear();
        prop_assert_eq!(credits.drain().len(), plain.total);
    }

    #[test]
    fn tags(
        (n, batch, kind) in (0_u32..40, proptest::option::of(0_u32..12), 0_u8..8),
        steps in vec((0_u8..12, 0_u32..50, any::<Index>()), 0..200),
    ) {
        let handles = builder(n, batch, kind).most(40).handles().unwrap();
        let mut plain = PlainTags {
            handles: &handles,
            exact: kind & 4 == 0,
            total: handles.tags().total(),
            one: Vec::new(),
            many: Vec::new(),
            left: Vec::new(),
            stale: Vec::new(),
        };
        for (step, n, which) in steps {
            plain.step(step, n, which)?;
        }
        let left = mem::take(&mut plain.left);
        plain.one.extend(left.into_iter().map(|handle| handles.claim(handle).unwrap()));
        plain.one.clear();
        plain.many.clear();
        prop_assert_eq!(handles.tags().drain().len() as u32, plain.total);
    }
}
