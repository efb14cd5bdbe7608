//! How much memory queues and event counts take: as much as their documentation says.

use ioctx::cpu::{self, Kind};
use ioctx::percpu::CachePadded;
use ioctx::ring::CompletionQueue;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what each thread has.
struct Counting;

thread_local!(static HAS: Cell<isize> = const { Cell::new(0) });

fn count(bytes: isize) {
    // A thread that is ending counts no more.
    let _ = HAS.try_with(|has| has.set(has.get() + bytes));
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How much more memory this thread has after `make`, on and off the heap.
fn taken<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = HAS.get();
    let made = make();
    ((HAS.get() - before) as usize + size_of::<T>(), made)
}

/// Sees that a queue takes between one and two times `per_event` for each event of capacity, exactly one time where
/// nothing is rounded up, and two to four padded lines per lane.
fn expect(queue: impl FnOnce() -> CompletionQueue, per_event: usize, capacity: usize, exact: bool) {
    let (bytes, queue) = taken(queue);
    let line = size_of::<CachePadded<u8>>();
    let events = per_event * capacity;
    let at_most = if exact { events } else { 2 * events };
    // What there is once, beside the lanes.
    let lines = 2 * queue.lanes()..=4 * queue.lanes() + 2;
    assert!(
        (events + lines.start() * line..=at_most + lines.end() * line).contains(&bytes),
        "{bytes} bytes for {capacity} events in {} lanes, {per_event} each",
        queue.lanes()
    );
}

#[test]
fn a_queue_takes_what_its_documentation_says() {
    // What is allocated once for all.
    drop(CompletionQueue::new(1));
    let cpus = cpu::possible() as usize;
    let sections = !matches!(cpu::kind(), Kind::Portable(_));
    for capacity in [1_usize, 3, 64, 100, 1000, 1024, 5000, 1 << 16] {
        let events = capacity as u32;
        let round = capacity.is_power_of_two();
        let per_event = match (sections, cpus) {
            (true, _) => 96,
            (false, 1) => 32,
            (false, _) => 64,
        };
        if capacity >= cpus {
            let exact = round && cpus.is_power_of_two();
            expect(|| CompletionQueue::new(events), per_event, capacity, exact);
            expect(|| CompletionQueue::with_lanes(events, 4), 64, capacity.max(4), round && capacity >= 4);
        }
        expect(|| CompletionQueue::with_lanes(events, 1), 32, capacity, round);
    }
}

#[cfg(ioctx_linux)]
#[test]
fn an_event_count_takes_what_its_documentation_says() {
    use ioctx::wait::EventCount;

    let (idle, events) = taken(EventCount::new);
    assert_eq!(idle, 256);
    let mut kept = 0;
    for n in [1, 2, 5, 100, 1000, 1000] {
        let mut keys = Vec::with_capacity(n);
        let (sleeping, ()) = taken(|| keys.extend((0..n).map(|_| events.prepare_wait(1))));
        assert!(kept + sleeping <= 128 + 88 * n, "{} bytes for {n} sleepers", kept + sleeping);
        let (left, ()) = taken(|| keys.clear());
        kept = kept.wrapping_add(sleeping).wrapping_add(left);
        assert!((32 * n..=128 + 64 * n).contains(&kept), "{kept} bytes kept for {n} sleepers");
    }
    let (sleeping, key) = taken(|| Box::new(events.prepare_wait(1)));
    assert_eq!(sleeping - size_of_val(&key) - size_of_val(&*key), 24, "there is place left");
}
