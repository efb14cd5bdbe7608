//! [`Bitmap`]: which tags are in the pool.

use crate::cpu;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::mo;

/// A set of small integers, a bit for each. How many there are in it is somebody else's business: whoever takes some
/// out has made sure before that there are as many.
///
/// On a line of its own: what is written beside the words must not be where every taker looks.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Bitmap {
    words: Box<[AtomicU64]>,
    /// The word that was last put into: where something is, if there is little.
    last: AtomicU32,
}

impl Bitmap {
    /// `0..n`, with room for `0..bound`.
    pub(super) fn full(n: u32, bound: u32) -> Self {
        let word = |first: u32| match n.saturating_sub(first) {
            64.. => u64::MAX,
            some => (1 << some) - 1,
        };
        let words = (0..bound).step_by(64).map(|first| AtomicU64::new(word(first))).collect();
        Self { words, last: AtomicU32::new(0) }
    }

    /// Takes `n` out, one after the other. Lock-free.
    pub(super) fn take(&self, n: u32, mut each: impl FnMut(u32)) {
        let words = self.words.len();
        // Each CPU begins elsewhere, so that they meet as late as can be; then where something must be, if it is the
        // last there is. Relaxed: a hint.
        let first = cpu::hint().0 as usize % cpu::possible() as usize * words / cpu::possible() as usize;
        let last = self.last.load(Relaxed) as usize;
        let mut left = n;
        for index in [first, last].into_iter().chain((0..words).cycle().skip(first)) {
            if left == 0 {
                return;
            }
            let word = &self.words[index];
            // Relaxed: what it shows to be there may be gone, which the next access tells. That it shows what must
            // be there follows from the pool's word.
            let mut wanted = lowest(word.load(Relaxed), left);
            if wanted == 0 {
                continue;
            }
            // Acquire: pairs with `put`: what the former holders did.
            wanted &= word.fetch_and(!wanted, mo!("credits.ids.take", Acquire));
            left -= wanted.count_ones();
            while wanted != 0 {
                each(index as u32 * 64 + wanted.trailing_zeros());
                wanted &= wanted - 1;
            }
        }
    }

    /// Puts `tags` in, those of one word together, as far as a few words can be kept in mind.
    pub(super) fn put_all(&self, tags: impl IntoIterator<Item = u32>) {
        let mut words = [(0, 0); 8];
        for tag in tags {
            let index = tag as usize / 64;
            let kept = &mut words[index % 8];
            if kept.0 != index {
                self.put_bits(kept.0, kept.1);
                *kept = (index, 0);
            }
            kept.1 |= 1 << (tag % 64);
        }
        for (index, bits) in words {
            self.put_bits(index, bits);
        }
    }

    fn put_bits(&self, index: usize, bits: u64) {
        if bits != 0 {
            // Release: pairs with `take`.
            self.words[index].fetch_or(bits, mo!("credits.ids.put", Release));
            // Relaxed, both: a hint, not written more often than need be.
            if self.last.load(Relaxed) != index as u32 {
                self.last.store(index as u32, Relaxed);
            }
        }
    }
}

/// The lowest `n` bits that are set in `word`, or all that are.
fn lowest(word: u64, n: u32) -> u64 {
    if word.count_ones() <= n {
        return word;
    }
    let mut rest = word;
    for _ in 0..n {
        rest &= rest - 1;
    }
    word & !rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_bits() {
        assert_eq!(
            [lowest(0b1011_0100, 2), lowest(0b11, 5), lowest(0, 1), lowest(u64::MAX, 64)],
            [0b1_0100, 0b11, 0, u64::MAX]
        );
    }

    #[test]
    fn what_goes_in_comes_out() {
        for n in [1, 63, 64, 65, 200] {
            let map = Bitmap::full(n, n + 70);
            let mut all = Vec::new();
            map.take(n, |tag| all.push(tag));
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
            map.put_all([n - 1, 0]);
            map.take(n.min(2), |tag| all.push(tag));
            assert_eq!(all.len() as u32, n + n.min(2));
        }
        Bitmap::full(0, 0).take(0, |_| unreachable!());
    }
}
