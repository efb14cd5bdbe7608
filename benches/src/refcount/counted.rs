//! One count per object, in one word that all threads share.

use super::{Apart, Count};
use arc_swap::ArcSwap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};

/// What the `Arc`s hold. It keeps their counts on lines of their own: an allocator packs small objects, and
/// then the count of one is on the line of another.
pub type Object = Apart<()>;

impl Count for Arc<Object> {
    type Ref<'a> = Self;

    #[inline]
    fn get(&self) -> Self {
        Self::clone(self)
    }

    fn held(&self) -> u64 {
        Self::strong_count(self) as u64 - 1
    }
}

/// Without weak references.
impl Count for triomphe::Arc<Object> {
    type Ref<'a> = Self;

    #[inline]
    fn get(&self) -> Self {
        Self::clone(self)
    }

    fn held(&self) -> u64 {
        Self::strong_count(self) as u64 - 1
    }
}

/// One word, as `Arc` has it, without what `Arc` does about overflow and memory.
#[derive(Debug)]
pub struct SharedAtomic(AtomicU64);

impl Default for SharedAtomic {
    /// With the owner's reference.
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

/// A reference counted in one word.
#[derive(Debug)]
pub struct AtomicRef<'a>(&'a AtomicU64);

impl Drop for AtomicRef<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release, and Acquire for the last one: what giving a reference back needs.
        if self.0.fetch_sub(1, Release) == 1 {
            fence(Acquire);
        }
    }
}

impl Count for SharedAtomic {
    type Ref<'a> = AtomicRef<'a>;

    #[inline]
    fn get(&self) -> AtomicRef<'_> {
        // The result looked at, as `Arc` does for overflow.
        black_box(self.0.fetch_add(1, Relaxed));
        AtomicRef(&self.0)
    }

    fn held(&self) -> u64 {
        self.0.load(Acquire) - 1
    }
}

/// `ArcSwap::load`: notes in one of the thread's few slots that it is looking; whoever replaces the object
/// counts those in. Also finds out which object it is, which counts do not.
#[derive(Debug)]
pub struct Loaded(ArcSwap<Object>);

/// `ArcSwap::load_full`: as [`Loaded`], and a reference counted in the `Arc` besides.
#[derive(Debug)]
pub struct LoadedFull(ArcSwap<Object>);

impl Default for Loaded {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Object::default()))
    }
}

impl Default for LoadedFull {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Object::default()))
    }
}

/// Replacing the object turns all notes into counts.
fn held(object: &ArcSwap<Object>) -> u64 {
    Arc::strong_count(&object.swap(Arc::default())) as u64 - 1
}

impl Count for Loaded {
    type Ref<'a> = arc_swap::Guard<Arc<Object>>;

    #[inline]
    fn get(&self) -> Self::Ref<'_> {
        self.0.load()
    }

    fn held(&self) -> u64 {
        held(&self.0)
    }
}

impl Count for LoadedFull {
    type Ref<'a> = Arc<Object>;

    #[inline]
    fn get(&self) -> Arc<Object> {
        self.0.load_full()
    }

    fn held(&self) -> u64 {
        held(&self.0)
    }
}
