//! The loops that all of them run.

use super::file::{BLOCKS, Look, Numbered, Random, expect};
use super::{Block, IN_FLIGHT, Reader, Reads, Ticket};
use crate::context::{READ, Shape};
use crate::harness::{Place, together};
use crossbeam_utils::CachePadded;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;
use std::{fmt, io, thread};

/// A context, and the blocks that go round. Stays from one repetition to the next.
pub struct Rig<C: Reads> {
    shape: Shape,
    /// How many blocks each submitter has.
    in_flight: usize,
    sides: Vec<CachePadded<Mutex<Side<C>>>>,
    /// Of the reaper: to each submitter.
    back: Mutex<Vec<Producer<C::Block>>>,
    context: C,
}

/// What a submitter has.
struct Side<C: Reads> {
    /// Blocks that can be used; what was in them has been looked at.
    free: Vec<C::Block>,
    back: Consumer<C::Block>,
    random: Random,
}

const OWN: &str = "each worker has its own";

impl<C: Reads> fmt::Debug for Rig<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<C: Reads> Side<C> {
    /// Takes back what the reaper has returned.
    fn take_back(&mut self, context: &C, look: Look) {
        let returned = self.back.read_chunk(self.back.slots()).expect("at least so many are there");
        for block in returned {
            expect(block.ticket().number, context.bytes(&block), look);
            self.free.push(block);
        }
    }

    /// The loop of a submitter. Returns the sum of the blocks' numbers.
    #[inline]
    fn submit(&mut self, context: &C, owner: usize, count: u64, batch: usize, look: Look) -> u64 {
        let mut submitter = C::Submitter::default();
        let mut next = Vec::with_capacity(batch);
        let (mut submitted, mut sum) = (0, 0_u64);
        while submitted < count {
            while next.len() < batch {
                let Some(mut block) = self.free.pop() else {
                    self.take_back(context, look);
                    if self.free.is_empty() {
                        thread::yield_now();
                    }
                    continue;
                };
                let number = self.random.block();
                sum += u64::from(number);
                block.aim(Ticket { owner: owner as u16, number });
                next.push(block);
            }
            while !next.is_empty() {
                if context.submit(&mut submitter, &mut next) == 0 {
                    thread::yield_now();
                }
            }
            submitted += batch as u64;
        }
        sum
    }
}

/// The loop of the reaper. Returns the sum of the blocks' numbers.
#[inline]
fn reap<C: Reads>(context: &C, back: &mut [Producer<C::Block>], count: u64, min: usize) -> u64 {
    let mut reaper = C::Reaper::default();
    let (mut reaped, mut sum) = (0, 0_u64);
    while reaped < count {
        let min = (min as u64).min(count - reaped) as usize;
        reaped += context.reap(&mut reaper, min, |block| {
            let Ticket { owner, number } = block.ticket();
            sum += u64::from(number);
            assert!(
                back[usize::from(owner)].push(block).is_ok(),
                "a submitter has no more blocks than these"
            );
        }) as u64;
    }
    assert_eq!(reaped, count, "no event came twice");
    sum
}

impl<C: Reads> Rig<C> {
    /// One that reads this file, with [`IN_FLIGHT`] blocks for each submitter.
    ///
    /// # Errors
    ///
    /// If the context cannot be had.
    pub fn open(file: &Numbered, shape: Shape) -> io::Result<Self> {
        Self::of_depth(file, shape, IN_FLIGHT)
    }

    /// One with so many blocks for each submitter.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn of_depth(file: &Numbered, shape: Shape, in_flight: usize) -> io::Result<Self> {
        // Whoever gathers a batch must not keep from the reaper what it waits for.
        assert!(shape.batch <= in_flight.div_ceil(2) && shape.min <= READ.min(in_flight.div_ceil(2)));
        let (context, mut blocks) = C::open(file.file(), shape.submitters * in_flight)?;
        let side = |submitter| {
            let (producer, back) = RingBuffer::new(in_flight);
            let free = blocks.split_off(blocks.len() - in_flight);
            (CachePadded::new(Mutex::new(Side { free, back, random: Random::new(submitter) })), producer)
        };
        let (sides, back) = (0..shape.submitters).map(side).unzip();
        Ok(Self { shape, in_flight, sides, back: Mutex::new(back), context })
    }

    /// Reads at least `n` blocks, and returns how many it were and the time it took.
    ///
    /// # Panics
    ///
    /// If a block was not the right one, or was lost.
    pub fn pass(&mut self, file: &Numbered, n: u64, look: Look) -> (u64, Duration) {
        file.warm();
        let Self { shape: Shape { submitters, batch, min }, in_flight, sides, back, context } = self;
        // As many for each submitter, in whole batches.
        let each = n.div_ceil((*submitters * *batch) as u64) * *batch as u64;
        let total = each * *submitters as u64;
        let (submitted, reaped) = (AtomicU64::new(0), AtomicU64::new(0));
        let elapsed =
            together(&vec![Place::Anywhere; *submitters + 1], |worker| match worker.checked_sub(1) {
                None => reaped.store(reap(context, &mut back.try_lock().expect(OWN), total, *min), Relaxed),
                Some(owner) => {
                    let mut side = sides[owner].try_lock().expect(OWN);
                    submitted.fetch_add(side.submit(context, owner, each, *batch, look), Relaxed);
                }
            });
        for side in sides {
            let side = side.get_mut().expect("nobody has panicked");
            side.take_back(context, look);
            assert_eq!(side.free.len(), *in_flight, "every block has come back");
        }
        assert_eq!(submitted.into_inner(), reaped.into_inner(), "every read was reaped once");
        (total, elapsed)
    }
}

/// As [`Rig::pass`], by as many threads as there are submitters there, each of which reads for itself.
///
/// # Panics
///
/// If a block was not the right one, or the contenders cannot be opened.
pub fn apart<R: Reader>(
    file: &Numbered,
    n: u64,
    Shape { submitters, batch, .. }: Shape,
    look: Look,
) -> (u64, Duration) {
    file.warm();
    let reader = || R::open(file.file(), batch).expect("it could be opened before");
    let readers: Vec<_> = (0..submitters).map(|_| CachePadded::new(Mutex::new(reader()))).collect();
    let turns = n.div_ceil((submitters * batch) as u64);
    let (wanted, got) = (AtomicU64::new(0), AtomicU64::new(0));
    let elapsed = together(&vec![Place::Anywhere; submitters], |worker| {
        let mut reader = readers[worker].try_lock().expect(OWN);
        let mut random = Random::new(worker);
        let (mut numbers, mut before, mut after) = (vec![0; batch], 0_u64, 0_u64);
        reader.start();
        for _ in 0..turns {
            for number in &mut numbers {
                *number = random.block();
                before += u64::from(*number);
            }
            reader.read(&numbers, |number, bytes| {
                expect(number, bytes, look);
                after += u64::from(number);
            });
        }
        wanted.fetch_add(before, Relaxed);
        got.fetch_add(after, Relaxed);
    });
    assert_eq!(wanted.into_inner(), got.into_inner(), "every block was read once");
    (turns * (submitters * batch) as u64, elapsed)
}

/// How many reads a check takes: each block several times.
const CHECKED: u64 = 4 * BLOCKS as u64;
const SHAPES: [Shape; 2] =
    [Shape { submitters: 4, batch: 1, min: 1 }, Shape { submitters: 4, batch: 16, min: 16 }];

/// Checks that a contender can be had, and that it reads what it is asked for.
///
/// # Errors
///
/// If it cannot be had.
///
/// # Panics
///
/// If it reads something else, or loses a block. Hangs if it loses all of something.
pub fn check<C: Reads>(file: &Numbered, look: Look) -> io::Result<()> {
    for shape in SHAPES {
        let mut rig = Rig::<C>::open(file, shape)?;
        for _ in 0..2 {
            rig.pass(file, CHECKED, look);
        }
    }
    Ok(())
}

/// The same of those who read for themselves.
///
/// # Errors
///
/// If it cannot be had.
///
/// # Panics
///
/// If it reads something else.
pub fn check_apart<R: Reader>(file: &Numbered) -> io::Result<()> {
    R::open(file.file(), 1)?;
    for shape in SHAPES {
        apart::<R>(file, CHECKED, shape, Look::All);
    }
    Ok(())
}
