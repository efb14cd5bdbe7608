//! Memory that is there twice: at one address as the library sees it, where it can be made read-only, and at another,
//! where a store that was caught is carried out all the same.
//!
//! What is built by [`build`] lies in it, each allocation on pages of its own. Nothing of it is ever freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Error;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

pub const PAGE: usize = 4096;
/// Of address space: memory is taken when it is touched.
const SIZE: usize = 1 << 28;
/// The most allocations.
const MOST: usize = 1 << 14;

/// Where the arena is, as the library sees it, and where it is once more.
#[derive(Clone, Copy)]
pub struct Arena {
    pub base: usize,
    again: usize,
}

/// One allocation.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub start: usize,
    pub size: usize,
}

static ARENA: OnceLock<Arena> = OnceLock::new();
static USED: AtomicUsize = AtomicUsize::new(0);
/// Starts and sizes of what was allocated, in order.
static PLACES: [[AtomicUsize; 2]; MOST] = [const { [const { AtomicUsize::new(0) }; 2] }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static BUILDING: Cell<bool> = const { Cell::new(false) };
}

impl Arena {
    /// The one there is. The first call, which is not to be from an allocation, makes it.
    pub fn get() -> Self {
        *ARENA.get_or_init(|| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: new mappings; an old size of 0 maps shared memory once more.
            let (base, again) = unsafe {
                let base = libc::mmap(null_mut(), SIZE, prot, flags, -1, 0);
                assert_ne!(base, libc::MAP_FAILED, "{}", Error::last_os_error());
                (base, libc::mremap(base, 0, SIZE, libc::MREMAP_MAYMOVE))
            };
            assert_ne!(again, libc::MAP_FAILED, "{}", Error::last_os_error());
            Self { base: base as usize, again: again as usize }
        })
    }

    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < SIZE
    }

    /// What is to be added to an address to come to the same memory, which is writable there.
    pub fn distance(&self) -> usize {
        self.again.wrapping_sub(self.base)
    }
}

/// Runs `build`, all of whose allocations are made in the arena; returns also which they were, in order.
pub fn build<T>(build: impl FnOnce() -> T) -> (T, Vec<Place>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    Arena::get();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let first = COUNT.load(Relaxed);
    BUILDING.set(true);
    let built = build();
    BUILDING.set(false);
    let places = PLACES[first..COUNT.load(Relaxed)].iter();
    (
        built,
        places.map(|[start, size]| Place { start: start.load(Relaxed), size: size.load(Relaxed) }).collect(),
    )
}

/// The allocator of this program.
pub struct Allocator;

impl Allocator {
    fn place(layout: Layout) -> *mut u8 {
        let (Some(arena), index) = (ARENA.get(), COUNT.fetch_add(1, Relaxed)) else { return null_mut() };
        let offset = USED.fetch_add(layout.size().next_multiple_of(PAGE), Relaxed);
        if offset + layout.size() > SIZE || index >= MOST || layout.align() > PAGE {
            return null_mut();
        }
        let start = arena.base + offset;
        let [place, size] = &PLACES[index];
        place.store(start, Relaxed);
        size.store(layout.size(), Relaxed);
        start as *mut u8
    }
}

// SAFETY: in the arena memory is handed out once, in whole pages; all else is the system allocator's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if BUILDING.get() {
            return Self::place(layout);
        }
        // SAFETY: handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !ARENA.get().is_some_and(|arena| arena.contains(pointer as usize)) {
            // SAFETY: handed on; from the system, since it is not from here.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}
