//! `Credits` and `Tags`.

use super::{Pool, TOTAL, TagPool};
use ioctx::credits::{Builder, Credit, Credits, Tag, Tags};

impl Pool for Credits {
    type One<'a> = Credit<'a>;

    fn new() -> Self {
        Self::new(TOTAL)
    }

    #[inline]
    fn try_take(&self) -> Option<Credit<'_>> {
        self.try_take(1).ok()
    }
}

/// [`Credits`], portable: a locked instruction on this CPU's line, for systems without restartable sequences.
#[derive(Debug)]
pub struct PortableCredits(Credits);

impl Pool for PortableCredits {
    type One<'a> = Credit<'a>;

    fn new() -> Self {
        Self(Builder::new(TOTAL).portable().credits().expect("few enough"))
    }

    #[inline]
    fn try_take(&self) -> Option<Credit<'_>> {
        self.0.try_take(1).ok()
    }
}

impl Pool for Tags {
    type One<'a> = Tag<'a>;

    fn new() -> Self {
        Self::new(TOTAL)
    }

    #[inline]
    fn try_take(&self) -> Option<Tag<'_>> {
        self.try_take().ok()
    }
}

impl TagPool for Tags {
    fn index(tag: &Tag<'_>) -> usize {
        tag.index() as usize
    }
}

/// [`Tags`], portable.
#[derive(Debug)]
pub struct PortableTags(Tags);

impl Pool for PortableTags {
    type One<'a> = Tag<'a>;

    fn new() -> Self {
        Self(Builder::new(TOTAL).portable().tags().expect("few enough"))
    }

    #[inline]
    fn try_take(&self) -> Option<Tag<'_>> {
        self.0.try_take().ok()
    }
}

impl TagPool for PortableTags {
    fn index(tag: &Tag<'_>) -> usize {
        tag.index() as usize
    }
}
