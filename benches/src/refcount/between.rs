//! What a program does between two operations on a count: [`Between`].

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something else to do in the loop.
pub trait Between {
    /// What comes before a get.
    fn before(&mut self);

    /// What comes between get and put.
    fn while_held(&mut self) {}
}

/// A store that misses the caches: to a random word of 32 MiB. Before each get only, so that it is still in
/// the store buffer when the count is changed.
#[derive(Debug)]
pub struct Scatter {
    random: u64,
    words: Box<[u64]>,
}

/// Those that no thread uses at the moment.
static IDLE: Mutex<Vec<Scatter>> = Mutex::new(Vec::new());

impl Scatter {
    const WORDS: usize = (32 << 20) / size_of::<u64>();

    /// One that no other thread has. Comes to nothing beside a slice, after the first few.
    pub fn take() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Written to, so that the memory is there.
        idle.unwrap_or_else(|| Self { random: 0x9e37_79b9_7f4a_7c15, words: vec![1; Self::WORDS].into() })
    }

    /// For the next thread that wants one.
    pub fn give_back(self) {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}

impl Between for Scatter {
    #[inline(always)]
    fn before(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.words[self.random as usize % Self::WORDS] = self.random;
    }
}

/// Arithmetic, each step of which waits for the one before, and none for the count.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    turns: u32,
    result: u64,
}

impl Work {
    /// So much that it takes about `length`.
    pub fn lasting(length: Duration) -> Self {
        const TURNS: u32 = 1000;
        const TIMES: u32 = 20;
        let time = |_| {
            let start = Instant::now();
            let mut work = black_box(Self { turns: TURNS, result: 1 });
            work.work();
            black_box(work);
            start.elapsed()
        };
        // The fastest is the one that was not disturbed.
        let fastest = (0..TIMES).map(time).min().expect("it was done at least once");
        let turns = length.as_secs_f64() / fastest.as_secs_f64() * f64::from(TURNS);
        Self { turns: turns.round() as u32, result: 1 }
    }

    #[inline(always)]
    fn work(&mut self) {
        for _ in 0..self.turns {
            // Two instructions each that the compiler cannot merge: 16 cycles, give or take.
            for _ in 0..8 {
                self.result = self.result.rotate_left(7).wrapping_add(0x9e37_79b9_7f4a_7c15);
            }
        }
    }
}

impl Between for Work {
    #[inline(always)]
    fn before(&mut self) {
        self.work();
    }

    #[inline(always)]
    fn while_held(&mut self) {
        self.work();
    }
}
