//! [`Handles`]: tags that can be told from their predecessors.

use super::tags::{Tag, Tags};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed, give_back};
use crate::sync::mo;
use std::fmt;

/// [`Tags`] that may be left in numbers: each number is good for one use of its tag.
///
/// A tag's holder [leaves](Self::leave) it in a [`Handle`], which is plain data: it may be copied, sent to a device or
/// another process, and come back late, twice, or forged. Whoever [claims](Self::claim) it first has the tag again;
/// nobody else does. Both are wait-free.
///
/// # Costs
///
/// As [`Tags`], and 4 bytes for each. A store to leave a tag, a locked instruction to claim it. A tag's generations
/// begin again after 2³¹ uses: a handle that is kept for longer is taken for a new one.
///
/// # Examples
///
/// ```
/// use ioctx::credits::{Handle, Handles, Stale};
/// let handles = Handles::new(8);
/// let handle = handles.leave(handles.tags().try_take().unwrap()).unwrap();
/// let number: u64 = handle.to_bits();
/// // The number is told to somebody, who says it when the work is done.
/// let tag = handles.claim(Handle::from_bits(number))?;
/// assert_eq!(handles.claim(handle).unwrap_err(), Stale(handle));
/// # Ok::<(), Stale>(())
/// ```
#[derive(Debug)]
pub struct Handles {
    tags: Tags,
    /// Odd while the tag is left in a handle, which has the same number.
    generations: Box<[AtomicU32]>,
}

/// A tag and which use of it is meant. Plain data: it proves nothing before it is [claimed](Handles::claim).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

/// Nobody has left a tag in this handle, or it was claimed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale(pub Handle);

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle { index, generation } = self.0;
        write!(
            f,
            "tag {index} is not left in its use {generation}: claimed before, or never left; drop the handle"
        )
    }
}

impl std::error::Error for Stale {}

impl Handle {
    /// Which tag.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Generation and index, as one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// From what [`to_bits`](Self::to_bits) returned, or anything else.
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl Handles {
    /// For the tags `0..n`, shared out as [`Builder::new`](super::Builder::new) does.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX`](super::MAX); [`Builder::handles`](super::Builder::handles) returns an
    /// error instead.
    pub fn new(n: u32) -> Self {
        Self::build(Tags::new(n))
    }

    pub(super) fn build(tags: Tags) -> Self {
        let generations = (0..tags.bound()).map(|_| AtomicU32::new(0)).collect();
        Self { tags, generations }
    }

    /// The tags, to be taken and put in any way.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// Leaves a tag, to be claimed by the handle. As long as nobody does it stays handed out.
    ///
    /// # Errors
    ///
    /// The tag comes back if it is not one of [`tags`](Self::tags).
    pub fn leave<'a>(&self, tag: Tag<'a>) -> Result<Handle, Tag<'a>> {
        if !tag.is_of(&self.tags) {
            return Err(tag);
        }
        let index = tag.into_raw();
        let word = &self.generations[index as usize];
        // Relaxed: nobody else changes it until the handle is known, and whoever did last handed it over with the tag.
        let generation = word.load(Relaxed).wrapping_add(1);
        // Release: pairs with the claim: what the holder did, however the handle gets there.
        give_back(word, generation, mo!("credits.handles.leave", Release));
        Ok(Handle { index, generation })
    }

    /// Takes back the tag that was left in `handle`, and sees what its holder did before.
    ///
    /// # Errors
    ///
    /// [`Stale`]: it was claimed already, or never left.
    pub fn claim(&self, handle: Handle) -> Result<Tag<'_>, Stale> {
        let Handle { index, generation } = handle;
        let word = self.generations.get(index as usize).ok_or(Stale(handle))?;
        let claim = |now| {
            // Acquire: pairs with `leave`. Relaxed: there is nothing to see.
            word.compare_exchange(
                now,
                generation.wrapping_add(1),
                mo!("credits.handles.claim", Acquire),
                Relaxed,
            )
        };
        if generation.is_multiple_of(2) || claim(generation).is_err() {
            return Err(Stale(handle));
        }
        // SAFETY: its holder has forgotten it in `leave`, and only we have got it out.
        Ok(unsafe { self.tags.from_raw(index) })
    }

    /// Whether the tag is left in `handle`.
    ///
    /// # Staleness
    ///
    /// It may be claimed before the caller looks at the result. That it is not left stays true.
    pub fn is_left(&self, handle: Handle) -> bool {
        // Relaxed: out of date anyway.
        let left = self.generations.get(handle.index as usize).map(|word| word.load(Relaxed));
        handle.generation % 2 == 1 && left == Some(handle.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::*;

    #[test]
    fn a_handle_is_good_once() {
        let handles = Builder::new(2).handles().unwrap();
        let [a, b] = [(); 2].map(|()| handles.leave(handles.tags().try_take().unwrap()).unwrap());
        assert!(handles.is_left(a) && handles.is_left(b) && handles.tags().try_take().is_err());
        let tag = handles.claim(a).unwrap();
        assert_eq!(handles.claim(a).unwrap_err(), Stale(a));
        // Forged: an even one, one of the future, one of no tag.
        let Handle { index, generation } = a;
        for handle in [
            Handle { index, generation: generation + 1 },
            Handle { index, generation: generation + 2 },
            Handle { index: 2, generation },
            Handle::from_bits(0),
        ] {
            assert!(!handles.is_left(handle) && handles.claim(handle).is_err());
        }
        let again = handles.leave(tag).unwrap();
        assert!(again != a && !handles.is_left(a) && handles.claim(a).is_err());
        assert_eq!(Handle::from_bits(again.to_bits()), again);
        drop(handles.claim(again));
        assert_eq!(handles.tags().available(), 1);
    }

    #[test]
    fn tags_of_others_come_back() {
        let (handles, others) = (Handles::new(1), Tags::new(1));
        let tag = handles.leave(others.try_take().unwrap()).unwrap_err();
        drop(tag);
        assert_eq!(others.available(), 1);
    }
}
