//! Views of rings in memory that others write: by the rules, against them, and by the kernel.

mod support;

use ioctx::ring::{AioRing, Event, EventCell, NotShown, RingView, Unusable};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

const GOOD: [u32; 8] = [0, 4, 0, 0, 0xa10a_10a1, 1, 0, 32];

fn event(data: u64) -> Event {
    Event { data, obj: !data, res: data as i64, res2: -1 }
}

fn touch(cell: &EventCell) {
    std::hint::black_box(cell.get());
}

/// A view of `header` followed by four slots, or why there is none.
fn view_of(header: [u32; 8], len: usize) -> Result<(), Unusable> {
    let mut memory = [[0u64; 4]; 5];
    let base = memory.as_mut_ptr().cast::<u8>();
    // SAFETY: the header fits, and the array is aligned to 8.
    unsafe { base.cast::<[u32; 8]>().write(header) };
    assert!(len <= size_of_val(&memory));
    // SAFETY: 1. to 3. the memory is ours, initialised, and nobody else writes.
    unsafe { RingView::new(base, len) }.map(drop)
}

#[test]
fn a_header_is_refused_for_what_is_wrong_with_it() {
    let with = |at: usize, value: u32| {
        let mut header = GOOD;
        header[at] = value;
        header
    };
    assert_eq!(view_of(GOOD, 160), Ok(()));
    assert_eq!(view_of(with(5, u32::MAX), 160), Ok(()), "unknown compatible features do not matter");
    assert_eq!(view_of(with(2, 99), 160), Ok(()), "indices are clamped when used");
    assert_eq!(view_of(with(1, 3), 160), Ok(()));
    assert_eq!(view_of(GOOD, 31), Err(Unusable::TooShort(31)));
    assert_eq!(view_of(GOOD, 159), Err(Unusable::Slots(4)));
    assert_eq!(view_of(with(4, 7), 160), Err(Unusable::Magic(7)));
    assert_eq!(view_of(with(6, 2), 160), Err(Unusable::Incompatible(2)));
    for length in [0, 24, 31, 36, u32::MAX] {
        assert_eq!(view_of(with(7, length), 160), Err(Unusable::HeaderLength(length)));
    }
    assert_eq!(view_of(with(7, 64), 160), Err(Unusable::Slots(4)), "moved by a longer header");
    for nr in [0, 1, 5, 1 << 27, u32::MAX] {
        assert_eq!(view_of(with(1, nr), 160), Err(Unusable::Slots(nr)));
    }
    // SAFETY: nothing is read at addresses that are refused.
    let addresses = unsafe {
        let odd = std::ptr::without_provenance_mut(4097);
        [RingView::new(std::ptr::null_mut(), 160), RingView::new(odd, 160)]
    };
    assert!(addresses.into_iter().all(|view| matches!(view, Err(Unusable::Address))));
}

#[test]
fn a_view_reads_our_ring_and_frees_its_slots() {
    let ring = AioRing::with_capacity(3);
    // SAFETY: 1. to 3. the ring outlives the view, and nobody else writes.
    let mut view = unsafe { RingView::new(ring.as_ptr(), ring.size()) }.unwrap();
    assert_eq!(view.capacity(), 3);
    assert_eq!(view.pop(), None);
    assert_eq!(view.commit(1), Err(NotShown(0)));
    for round in 0..9 {
        assert_eq!(ring.try_publish_batch(&[0, 1, 2, 3].map(|i| event(4 * round + i))), Ok(3));
        let first = view.peek(1, |run| run[0].get());
        assert_eq!(first, event(4 * round));
        assert_eq!(view.commit(4), Err(NotShown(3)), "no more than there were");
        assert_eq!(view.commit(1), Ok(()));
        assert_eq!(view.pop(), Some(event(4 * round + 1)));
        let mut rest = Vec::new();
        assert_eq!((view.pop_into(&mut rest, 9), rest), (1, vec![event(4 * round + 2)]));
    }
}

/// A step of whoever uses a ring, or abuses it.
#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Peek(usize),
    Commit(usize),
    PopInto(usize),
    Claim(usize),
    SetHead(u32),
    SetTail(u32),
}

fn index() -> impl Strategy<Value = u32> {
    prop_oneof![0..12u32, any::<u32>(), Just(u32::MAX), Just(1 << 31)]
}

fn step(hostile: bool) -> impl Strategy<Value = Step> {
    let weight = u32::from(hostile);
    prop_oneof![
        3 => (0..9usize).prop_map(Step::Publish),
        2 => (0..9usize).prop_map(Step::Peek),
        2 => (0..9usize).prop_map(Step::Commit),
        2 => (0..9usize).prop_map(Step::PopInto),
        1 => (0..9usize).prop_map(Step::Claim),
        2 * weight => index().prop_map(Step::SetHead),
        weight => index().prop_map(Step::SetTail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // The fuzz target does the same.
    #[cfg(unix)]
    #[test]
    fn whatever_is_in_memory_leads_nowhere_else(input in prop::collection::vec(any::<u8>(), 0..400)) {
        support::hostile::anything(&input);
    }

    #[test]
    fn hostile_readers_free_nothing_that_was_not_published(
        capacity in 1..9u32,
        steps in prop::collection::vec(step(true), 0..60),
    ) {
        let ring = AioRing::with_capacity(capacity);
        // SAFETY: the header of a ring that lives; everybody uses atomics.
        let words = unsafe { &*ring.as_ptr().cast::<[AtomicU32; 8]>() };
        // SAFETY: 1. to 3. the ring outlives the view, and everybody uses atomics.
        let mut view = unsafe { RingView::new(ring.as_ptr(), ring.size()) }.unwrap();
        let (mut sent, mut heads) = (0, 0);
        for step in steps {
            match step {
                Step::SetHead(to) => {
                    heads += 1;
                    words[2].store(to, Relaxed);
                }
                Step::SetTail(to) => words[3].store(to, Relaxed),
                Step::Publish(n) => {
                    let events: Vec<_> = (0..n as u64).map(event).collect();
                    if let Ok(n @ 1..) = ring.try_publish_batch(&events) {
                        sent += n;
                        prop_assert!(words[3].load(Relaxed) <= capacity, "the public tail is a plain index");
                    }
                }
                Step::Peek(max) => view.peek(max, |run| run.iter().for_each(touch)),
                Step::Commit(n) => {
                    heads += usize::from(view.commit(n.min(1)).is_ok());
                }
                Step::PopInto(max) => heads += ring.pop_into(&mut Vec::new(), max),
                Step::Claim(max) => {
                    heads += 1;
                    if let Some(mut reader) = ring.try_reader() {
                        let n = reader.peek(max, <[_]>::len);
                        reader.commit(n);
                    }
                }
            }
            prop_assert!(ring.len() <= capacity);
        }
        // Each change of the head can free what was published, once.
        prop_assert!(sent <= capacity as usize * (1 + heads));
    }

    #[test]
    fn by_the_rules_a_view_and_a_reader_see_what_a_queue_would(
        capacity in 1..9u32,
        steps in prop::collection::vec(step(false), 0..60),
    ) {
        let ring = AioRing::with_capacity(capacity);
        // SAFETY: 1. to 3. the ring outlives the view, and nobody else writes.
        let mut view = unsafe { RingView::new(ring.as_ptr(), ring.size()) }.unwrap();
        let (mut queue, mut next, mut shown) = (VecDeque::new(), 0, 0);
        for step in steps {
            match step {
                Step::Publish(n) => {
                    let events: Vec<_> = (next..next + n as u64).map(event).collect();
                    let sent = ring.try_publish_batch(&events).unwrap_or(0);
                    prop_assert_eq!(sent, n.min(capacity as usize - queue.len()));
                    next += sent as u64;
                    queue.extend(&events[..sent]);
                }
                Step::Peek(max) => {
                    let run: Vec<_> = view.peek(max, |run| run.iter().map(|cell| cell.get()).collect());
                    prop_assert!(run.iter().eq(queue.iter().take(run.len())));
                    prop_assert_eq!(run.is_empty(), queue.is_empty() || max == 0);
                    shown = queue.len();
                }
                Step::Commit(n) => {
                    let want = if n <= shown { Ok(()) } else { Err(NotShown(shown)) };
                    prop_assert_eq!(view.commit(n), want);
                    if n <= shown {
                        queue.drain(..n);
                        shown -= n;
                    }
                }
                Step::PopInto(max) => {
                    let mut out = Vec::new();
                    let n = view.pop_into(&mut out, max);
                    prop_assert_eq!(n, max.min(queue.len()));
                    prop_assert!(out.into_iter().eq(queue.drain(..n)));
                    let _ = view.peek(0, <[_]>::len);
                    shown = queue.len();
                }
                Step::Claim(max) => {
                    let mut out = Vec::new();
                    let n = ring.pop_into(&mut out, max);
                    prop_assert!(out.into_iter().eq(queue.drain(..n)));
                    let _ = view.peek(0, <[_]>::len);
                    shown = queue.len();
                }
                Step::SetHead(_) | Step::SetTail(_) => unreachable!("by the rules"),
            }
            prop_assert_eq!(ring.len() as usize, queue.len());
        }
    }
}

#[test]
fn threads_publish_and_a_view_reads_in_another() {
    const EACH: u64 = 20_000;
    let ring = AioRing::with_capacity(5);
    // SAFETY: 1. to 3. the ring outlives the view, and nobody else writes.
    let mut view = unsafe { RingView::new(ring.as_ptr(), ring.size()) }.unwrap();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for publisher in 0..2 {
            let (ring, failed) = (&ring, &failed);
            scope.spawn(move || {
                for i in 0..EACH {
                    while ring.try_publish(event(publisher << 32 | i)).is_err() && !failed.load(Relaxed) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let _failed = support::SetAtEnd(&failed);
        let mut next = [0; 2];
        while next != [EACH; 2] {
            let n = view.peek(usize::MAX, |run| {
                for got in run.iter().map(|cell| cell.get()) {
                    assert_eq!(got, event(got.data), "torn");
                    let (publisher, i) = ((got.data >> 32) as usize, got.data & 0xffff_ffff);
                    assert_eq!(i, next[publisher], "lost, doubled or out of order");
                    next[publisher] += 1;
                }
                run.len()
            });
            view.commit(n).unwrap();
            if n == 0 {
                std::thread::yield_now();
            }
        }
    });
}

#[cfg(unix)]
#[test]
fn while_others_write_all_the_time_a_view_stays_where_it_is() {
    const SLOTS: u32 = 100;
    let memory = support::hostile::Guarded::new();
    let len = 32 * (SLOTS as usize + 1);
    // At the end of what may be touched.
    let words = &memory.words()[memory.words().len() - len / 4..];
    words
        .iter()
        .zip([0, SLOTS, 0, 0, 0xa10a_10a1, 1, 0, 32])
        .for_each(|(word, value)| word.store(value, Relaxed));
    // SAFETY: 1. and 2. the words outlive the view. 3. everybody uses atomics.
    let mut view = unsafe { RingView::new(words.as_ptr().cast_mut().cast(), len) }.unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1u32;
            while !done.load(Relaxed) {
                random = random.wrapping_mul(0x9e37_79b9).wrapping_add(1);
                // All of the header, the number of slots too.
                words[random as usize >> 16 & 7].store(random.rotate_left(16), Relaxed);
            }
        });
        let _done = support::SetAtEnd(&done);
        for turn in 0..300_000 {
            let shown = view.peek(turn % 200, |run| {
                run.iter().for_each(touch);
                run.len()
            });
            assert!(shown < SLOTS as usize);
            // What there was at the peek is still known, though the indices are others by now.
            assert_eq!(view.commit(shown), Ok(()));
            assert!(matches!(view.commit(SLOTS as usize), Err(NotShown(seen)) if seen < SLOTS as usize));
            if turn % 64 == 0 {
                let mut out = Vec::new();
                // Two runs, each of what there was when it was looked at.
                assert!(view.pop_into(&mut out, usize::MAX) <= 2 * SLOTS as usize);
            }
        }
    });
}

#[cfg(ioctx_linux)]
mod kernel {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;

    /// `struct iocb`, little-endian.
    #[repr(C)]
    #[derive(Default)]
    struct Iocb {
        data: u64,
        key: u32,
        rw_flags: i32,
        opcode: u16,
        reqprio: i16,
        fildes: u32,
        buf: u64,
        nbytes: u64,
        offset: i64,
        reserved: u64,
        flags: u32,
        resfd: u32,
    }

    const PREAD: u16 = 0;
    const PWRITE: u16 = 1;

    /// A context of the kernel's, destroyed when dropped.
    struct Context(u64);

    impl Context {
        fn new(nr: u32) -> std::io::Result<Self> {
            let mut context = 0u64;
            // SAFETY: the kernel writes one word.
            match unsafe { libc::syscall(libc::SYS_io_setup, nr, &raw mut context) } {
                0 => Ok(Self(context)),
                _ => Err(std::io::Error::last_os_error()),
            }
        }

        fn submit(&self, iocbs: &mut [Iocb]) -> i64 {
            let pointers: Vec<*mut Iocb> = iocbs.iter_mut().map(|iocb| &raw mut *iocb).collect();
            // SAFETY: as many pointers as said; the buffers live until the events have come.
            unsafe { libc::syscall(libc::SYS_io_submit, self.0, pointers.len(), pointers.as_ptr()) }
        }

        fn wait(&self, min: i64, events: &mut [Event]) -> i64 {
            let (len, none) = (events.len(), std::ptr::null_mut::<libc::timespec>());
            // SAFETY: room for as many events as said.
            unsafe { libc::syscall(libc::SYS_io_getevents, self.0, min, len, events.as_mut_ptr(), none) }
        }
    }

    impl Drop for Context {
        fn drop(&mut self) {
            // SAFETY: no view is used any more.
            assert_eq!(unsafe { libc::syscall(libc::SYS_io_destroy, self.0) }, 0);
        }
    }

    fn pop_exactly(view: &mut RingView, n: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < n {
            if view.pop_into(&mut events, n) == 0 {
                std::thread::yield_now();
            }
        }
        events
    }

    #[test]
    fn a_view_reaps_what_the_kernel_completes() {
        let context = match Context::new(8) {
            Ok(context) => context,
            Err(error) => return println!("SKIPPED: io_setup is refused: {error}"),
        };
        // SAFETY: 1. from io_setup, destroyed after the view. 2. nobody else writes.
        let mut view = unsafe { RingView::of_kernel(context.0) }.unwrap();
        assert!(view.capacity() >= 8);
        let mut file = tempfile::tempfile().unwrap();
        let fildes = file.as_raw_fd() as u32;
        // More than once round the ring: slots that the view has freed are used again.
        let rounds = u64::from(view.capacity()) / 8 * 3;
        for round in 0..rounds {
            let mut blocks: Vec<[u8; 16]> = (0..8u8).map(|i| [i ^ round as u8; 16]).collect();
            for opcode in [PWRITE, PREAD] {
                let mut iocbs: Vec<Iocb> = blocks
                    .iter_mut()
                    .enumerate()
                    .map(|(i, block)| Iocb {
                        data: round << 8 | i as u64,
                        opcode,
                        fildes,
                        buf: block.as_mut_ptr().expose_provenance() as u64,
                        nbytes: 16,
                        offset: 16 * i as i64,
                        ..Iocb::default()
                    })
                    .collect();
                assert_eq!(context.submit(&mut iocbs), 8);
                let mut events = pop_exactly(&mut view, 8);
                events.sort_unstable_by_key(|event| event.data);
                for (i, got) in events.iter().enumerate() {
                    assert_eq!((got.data, got.res, got.res2), (round << 8 | i as u64, 16, 0));
                    assert_eq!(got.obj, &raw const iocbs[i] as u64);
                }
                if opcode == PWRITE {
                    blocks.iter_mut().for_each(|block| *block = [0xee; 16]);
                }
            }
            assert!(blocks.iter().enumerate().all(|(i, block)| *block == [i as u8 ^ round as u8; 16]));
        }
        file.rewind().unwrap();
        let mut first = [0; 16];
        file.read_exact(&mut first).unwrap();
        assert_eq!(first, [(rounds - 1) as u8; 16]);

        // What the view did not take, io_getevents does, and the other way round.
        file.write_all(b"x").unwrap();
        let mut block = [0u8; 16];
        let buf = block.as_mut_ptr().expose_provenance() as u64;
        let read = || Iocb { opcode: PREAD, fildes, buf, nbytes: 16, ..Iocb::default() };
        assert_eq!(context.submit(&mut [read(), read()]), 2);
        let mut events = [Event::default(); 1];
        assert_eq!(context.wait(1, &mut events), 1);
        assert_eq!(events[0].res, 16);
        assert_eq!(pop_exactly(&mut view, 1)[0].res, 16);
        assert_eq!(view.pop(), None);
    }
}
