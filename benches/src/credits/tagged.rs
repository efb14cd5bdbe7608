//! What hands out distinct numbers, whatever else it is for.

use super::{Pool, TOTAL, TagPool};
use crossbeam_queue::ArrayQueue;
use sharded_slab::Slab;

/// A tag of an [`ArrayQueue`].
#[derive(Debug)]
pub struct QueueTag<'a>(&'a ArrayQueue<u32>, u32);

impl Drop for QueueTag<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.push(self.1).expect("there is a slot for every tag");
    }
}

/// The tags that are free. The one given back longest ago is the next.
impl Pool for ArrayQueue<u32> {
    type One<'a> = QueueTag<'a>;

    fn new() -> Self {
        let queue = Self::new(TOTAL as usize);
        (0..TOTAL).for_each(|tag| queue.push(tag).expect("there is a slot for every tag"));
        queue
    }

    #[inline]
    fn try_take(&self) -> Option<QueueTag<'_>> {
        self.pop().map(|tag| QueueTag(self, tag))
    }
}

impl TagPool for ArrayQueue<u32> {
    fn index(tag: &QueueTag<'_>) -> usize {
        tag.1 as usize
    }
}

/// A key of a [`Slab`].
#[derive(Debug)]
pub struct Key<'a>(&'a Slab<()>, usize);

impl Drop for Key<'_> {
    #[inline]
    fn drop(&mut self) {
        assert!(self.0.remove(self.1), "it was inserted");
    }
}

/// A shard per thread. It grows for as long as anybody inserts: it has no bound of its own, and so refuses
/// nobody. Its keys are distinct, but do not number a table: they have a thread and a generation in them.
impl Pool for Slab<()> {
    type One<'a> = Key<'a>;

    fn new() -> Self {
        Self::new()
    }

    #[inline]
    fn try_take(&self) -> Option<Key<'_>> {
        self.insert(()).map(|key| Key(self, key))
    }
}

impl TagPool for Slab<()> {
    fn index(tag: &Key<'_>) -> usize {
        tag.1
    }
}
