//! Memory that programs outside this crate read and write too: eight words and a run of 32-byte slots.
//!
//! Everything in it is an atomic, since nothing can be promised of what others do: whatever they write, a
//! load gives some value. Under loom a page is memory of the facade's own, no program outside can look at
//! it, and its slots are tracked cells, so that a race on them is found instead of read.

#[cfg(all(loom, feature = "loom"))]
pub use modelled::Slot;
#[cfg(all(loom, feature = "loom"))]
pub(crate) use modelled::{Page, slots_at, words_at};
#[cfg(not(all(loom, feature = "loom")))]
pub use real::Slot;
#[cfg(not(all(loom, feature = "loom")))]
pub(crate) use real::{Page, slots_at, words_at};

/// The words at the beginning of a page.
pub(crate) type Words = [super::atomic::AtomicU32; WORDS];

/// How many words a page begins with.
pub(crate) const WORDS: usize = 8;

#[cfg(not(all(loom, feature = "loom")))]
mod real {
    use super::{WORDS, Words};
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

    /// What memory is mapped in.
    const PAGE: usize = 4096;

    /// Pages of the process's own, given back when this is dropped; or somebody else's.
    #[derive(Debug)]
    pub(crate) struct Page {
        base: NonNull<u8>,
        /// Of our own.
        layout: Option<Layout>,
        slots: usize,
    }

    // SAFETY: reached through atomics only.
    unsafe impl Send for Page {}
    // SAFETY: as above.
    unsafe impl Sync for Page {}

    impl Page {
        /// Pages that begin with `words`, followed by `slots` slots of zeroes.
        pub(crate) fn new(words: [u32; WORDS], slots: usize) -> Self {
            // Where addresses have 32 bits, that many can be asked for.
            let layout = slots
                .checked_mul(size_of::<Slot>())
                .and_then(|size| size.checked_add(size_of::<Words>())?.checked_next_multiple_of(PAGE))
                .and_then(|size| Layout::from_size_align(size, PAGE).ok())
                .unwrap_or_else(|| panic!("{slots} slots of 32 bytes are more than the address space has"));
            // SAFETY: the size is not zero.
            let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
                handle_alloc_error(layout)
            };
            let page = Self { base, layout: Some(layout), slots };
            page.words().iter().zip(words).for_each(|(word, value)| word.store(value, Relaxed));
            page
        }

        /// Pages of somebody else's, as they are.
        ///
        /// # Safety
        ///
        /// 1. `base` is aligned to a page and leads to `32 + 32 * slots` bytes that may be read and written until this
        ///    is dropped.
        /// 2. They are initialised.
        /// 3. Whoever else writes them in this process does so by atomic accesses.
        #[cfg(ioctx_capi)]
        pub(crate) unsafe fn at(base: NonNull<u8>, slots: usize) -> Self {
            Self { base, layout: None, slots }
        }

        /// The address, for programs outside.
        pub(crate) fn as_ptr(&self) -> *mut u8 {
            self.base.as_ptr()
        }

        #[inline(always)]
        pub(crate) fn words(&self) -> &Words {
            // SAFETY: 1. to 3. the memory is ours, zeroed at the least, large enough and aligned to a page; or as `at`
            // was promised.
            unsafe { words_at(self.base.as_ptr()) }
        }

        #[inline(always)]
        pub(crate) fn slots(&self) -> &[Slot] {
            // SAFETY: 1. to 3. as in `words`; the size was computed from this number.
            unsafe { slots_at(self.base.as_ptr(), size_of::<Words>(), self.slots) }
        }
    }

    impl Drop for Page {
        fn drop(&mut self) {
            if let Some(layout) = self.layout {
                // SAFETY: allocated in `new` with this layout.
                unsafe { dealloc(self.base.as_ptr(), layout) }
            }
        }
    }

    /// The words at `base`.
    ///
    /// # Safety
    ///
    /// 1. `base` is aligned to 8 and leads to 32 bytes that may be read and written for `'a`.
    /// 2. They are initialised.
    /// 3. Whoever else writes them in this process does so by atomic accesses.
    #[inline(always)]
    pub(crate) unsafe fn words_at<'a>(base: *mut u8) -> &'a Words {
        // SAFETY: valid by 1. and 2.; atomics allow for any other writer that keeps 3.
        unsafe { &*base.cast::<[AtomicU32; WORDS]>() }
    }

    /// The `len` slots from `offset` bytes behind `base` on.
    ///
    /// # Safety
    ///
    /// 1. `base + offset` is aligned to 8 and leads to `32 * len` bytes that may be read and written for
    ///    `'a`.
    /// 2. They are initialised.
    /// 3. Whoever else writes them in this process does so by atomic accesses.
    #[inline(always)]
    pub(crate) unsafe fn slots_at<'a>(base: *mut u8, offset: usize, len: usize) -> &'a [Slot] {
        // SAFETY: as in `words_at`.
        unsafe { std::slice::from_raw_parts(base.add(offset).cast::<Slot>(), len) }
    }

    /// A place for an event that others may be writing: whatever they do, reading it gives some event.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct Slot([AtomicU64; 4]);

    impl Slot {
        #[inline(always)]
        pub(crate) fn words(&self) -> [u64; 4] {
            // Relaxed: ordered by the indices; without that, some value.
            self.0.each_ref().map(|word| word.load(Relaxed))
        }

        #[inline(always)]
        pub(crate) fn set(&self, words: [u64; 4]) {
            // Relaxed: published by the indices.
            self.0.iter().zip(words).for_each(|(word, value)| word.store(value, Relaxed));
        }
    }

    const _: () = assert!(size_of::<Slot>() == 32 && size_of::<Words>() == 32);

    #[cfg(test)]
    #[test]
    #[should_panic(expected = "more than the address space")]
    fn what_no_address_space_holds_is_not_made_smaller() {
        Page::new([0; WORDS], usize::MAX / size_of::<Slot>() + 2);
    }
}

#[cfg(all(loom, feature = "loom"))]
mod modelled {
    use super::{WORDS, Words};
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU32;

    /// Stands for a page. Boxed, so that its address stays.
    #[derive(Debug)]
    pub(crate) struct Page(Box<Memory>);

    #[derive(Debug)]
    struct Memory {
        words: Words,
        slots: Vec<Slot>,
    }

    impl Page {
        /// Begins with `words`, followed by `slots` slots of zeroes.
        pub(crate) fn new(words: [u32; WORDS], slots: usize) -> Self {
            let slots = (0..slots).map(|_| Slot(UnsafeCell::new([0; 4]))).collect();
            Self(Box::new(Memory { words: words.map(AtomicU32::new), slots }))
        }

        /// Stands for pages of somebody else's, which no model has.
        ///
        /// # Safety
        ///
        /// None: `base` is not looked at.
        #[cfg(ioctx_capi)]
        pub(crate) unsafe fn at(_base: std::ptr::NonNull<u8>, slots: usize) -> Self {
            Self::new([0; WORDS], slots)
        }

        /// The address of what stands for the page: good for [`words_at`] and [`slots_at`], nothing else.
        pub(crate) fn as_ptr(&self) -> *mut u8 {
            std::ptr::from_ref::<Memory>(&self.0).cast_mut().cast()
        }

        pub(crate) fn words(&self) -> &Words {
            &self.0.words
        }

        pub(crate) fn slots(&self) -> &[Slot] {
            &self.0.slots
        }
    }

    /// The words of a page.
    ///
    /// # Safety
    ///
    /// `base` is from [`Page::as_ptr`] of a page that lives for `'a`.
    pub(crate) unsafe fn words_at<'a>(base: *mut u8) -> &'a Words {
        // SAFETY: the caller's.
        unsafe { &(*base.cast::<Memory>()).words }
    }

    /// The first `len` slots of a page.
    ///
    /// # Safety
    ///
    /// As [`words_at`].
    pub(crate) unsafe fn slots_at<'a>(base: *mut u8, _offset: usize, len: usize) -> &'a [Slot] {
        // SAFETY: the caller's.
        unsafe { &(&(*base.cast::<Memory>()).slots)[..len] }
    }

    /// A place for an event.
    #[derive(Debug)]
    pub struct Slot(UnsafeCell<[u64; 4]>);

    // SAFETY: every access goes through loom, which fails the model if two are not ordered.
    unsafe impl Sync for Slot {}

    impl Slot {
        pub(crate) fn words(&self) -> [u64; 4] {
            // SAFETY: loom has just checked that every write is ordered before this read.
            self.0.with(|words| unsafe { *words })
        }

        pub(crate) fn set(&self, words: [u64; 4]) {
            // SAFETY: loom has just checked that every other access is ordered before this write.
            self.0.with_mut(|place| unsafe { *place = words });
        }
    }
}
