//! The pool: what is not for its threads, how many these are, that each request wakes one, and that none is left.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{AlignedBuffer, Context, Request};
use ioctx::backend::Threads;
use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use support::process;

/// A pipe that nobody has written to.
fn pipe() -> (Arc<File>, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Arc::new(File::from(OwnedFd::from(reader))), File::from(OwnedFd::from(writer)))
}

#[test]
fn reads_past_the_page_cache_are_left_to_the_pool() {
    support::never_hang();
    const BLOCK: usize = 4096;
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
    std::fs::write(&path, [7; BLOCK]).unwrap();
    let direct = match File::options().read(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => Arc::new(file),
        Err(error) => return support::skip(format_args!("O_DIRECT: {error}")),
    };
    let cached = Arc::new(File::open(&path).unwrap());
    let read =
        |file: &Arc<File>| Request::read(Arc::clone(file), AlignedBuffer::new(BLOCK, BLOCK).unwrap(), 0);
    let context = Context::new(128, Threads::new(1).unwrap()).unwrap();
    // Closed before the context waits for who reads it.
    let (reader, mut writer) = pipe();
    // The only thread is busy.
    context.submit(Request::read(reader, vec![0; 1], 0)).unwrap();
    let mut events = Vec::new();
    for file in [&direct, &cached, &direct, &cached] {
        for _ in 0..20 {
            context.submit(read(file)).unwrap();
            let done = usize::from(Arc::ptr_eq(file, &cached));
            assert_eq!(context.get_events(0, 8, None, &mut events), Ok(done));
        }
    }
    assert_eq!(events.len(), 40);
    writer.write_all(b"x").unwrap();
    assert_eq!(context.get_events(41, 41, None, &mut events), Ok(41));
    let whole = |event: &&ioctx::Event| event.result.as_ref().unwrap() == &BLOCK;
    assert_eq!(events.iter().filter(whole).count(), 80);
}

/// Waits until it holds, for as long as a loaded machine may take.
fn soon(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
}

/// A pool of up to `threads`, which give up after a millisecond.
fn hasty(threads: usize) -> Context<Threads> {
    Context::new(64, Threads::new(threads).unwrap().keep_idle(Duration::from_millis(1))).unwrap()
}

#[test]
fn threads_come_as_they_are_busy_and_go_as_they_are_not() {
    support::never_hang();
    let context = hasty(6);
    let threads = || context.backend().threads();
    soon(|| threads() == 1);
    for round in 1..=3 {
        let (reader, mut writer) = pipe();
        for busy in 1..=10 {
            context.submit(Request::read(Arc::clone(&reader), vec![0; 1], 0)).unwrap();
            // One to spare, up to the number.
            soon(|| threads() == (busy + 1).min(6));
            if busy < 6 {
                // What comes behind those that are stuck is carried out.
                context.submit(Request::custom(|| Ok(1)).with_user_data(1)).unwrap();
                let mut events = Vec::new();
                assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
                assert_eq!(events[0].request.user_data, 1);
            }
        }
        // Nobody leaves while the others are stuck, but for time to spare.
        thread::sleep(Duration::from_millis(20));
        assert_eq!(threads(), 6, "round {round}");
        writer.write_all(&[0; 10]).unwrap();
        assert_eq!(context.get_events(10, 10, None, &mut Vec::new()), Ok(10));
        soon(|| threads() == 1);
    }
}

#[test]
fn one_to_spare_stays_while_others_are_stuck() {
    support::never_hang();
    let context = hasty(2);
    let (reader, _writer) = pipe();
    context.submit(Request::read(reader, vec![0; 1], 0)).unwrap();
    soon(|| context.backend().threads() == 2);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(context.backend().threads(), 2);
    context.submit(Request::custom(|| Ok(1))).unwrap();
    assert_eq!(context.get_events(1, 1, None, &mut Vec::new()), Ok(1));
}

#[test]
fn some_stay_if_told_so() {
    support::never_hang();
    let threads = Threads::new(8).unwrap().min_threads(3).keep_idle(Duration::from_millis(1));
    let context = Context::new(64, threads).unwrap();
    let (reader, mut writer) = pipe();
    for _ in 0..7 {
        context.submit(Request::read(Arc::clone(&reader), vec![0; 1], 0)).unwrap();
    }
    soon(|| context.backend().threads() == 8);
    writer.write_all(&[0; 7]).unwrap();
    assert_eq!(context.get_events(7, 7, None, &mut Vec::new()), Ok(7));
    soon(|| context.backend().threads() == 3);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(context.backend().threads(), 3);
}

#[test]
fn threads_without_work_wait_for_as_long_as_they_are_told_to() {
    support::never_hang();
    for threads in [Threads::new(4).unwrap(), Threads::new(4).unwrap().keep_idle(Duration::MAX)] {
        let context = Context::new(64, threads).unwrap();
        let (reader, mut writer) = pipe();
        for _ in 0..3 {
            context.submit(Request::read(Arc::clone(&reader), vec![0; 1], 0)).unwrap();
        }
        soon(|| context.backend().threads() == 4);
        writer.write_all(&[0; 3]).unwrap();
        assert_eq!(context.get_events(3, 3, None, &mut Vec::new()), Ok(3));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(context.backend().threads(), 4);
    }
}

/// Counts a thread from when it has done something until it has ended, which it is slow to do.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(5));
        self.0.fetch_sub(1, Relaxed);
    }
}

thread_local!(static ALIVE: RefCell<Option<Alive>> = const { RefCell::new(None) });

#[test]
fn no_thread_is_left() {
    support::never_hang();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut most = 0;
    for round in 0..60 {
        let context = hasty(8);
        for _ in 0..round % 20 {
            let alive = Arc::clone(&alive);
            let work = move || {
                ALIVE.with_borrow_mut(|mine| {
                    mine.get_or_insert_with(|| {
                        alive.fetch_add(1, Relaxed);
                        Alive(Arc::clone(&alive))
                    });
                });
                thread::sleep(Duration::from_micros(200));
                Ok(1)
            };
            context.submit(Request::custom(work)).unwrap();
        }
        if round % 3 > 0 {
            context.get_events(round % 20, 64, None, &mut Vec::new()).unwrap();
        }
        // Some end by themselves at the same time.
        thread::sleep(Duration::from_millis(round as u64 % 4));
        most = most.max(alive.load(Relaxed));
        drop(context);
        assert_eq!(alive.load(Relaxed), 0, "round {round}");
    }
    assert!(most > 1);
}

#[test]
fn no_thread_is_listed_by_the_system() {
    const NAME: &str = "no_thread_is_listed_by_the_system";
    // Other tests have threads as well.
    if process::role().is_none() {
        return process::run(process::again(NAME, "alone")).unwrap();
    }
    let listed = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = listed();
    for _ in 0..20 {
        let context = hasty(4);
        together(&context, 3);
        assert!(listed() > before);
        drop(context);
        // For a moment the system lists what has ended.
        soon(|| listed() == before);
    }
}

/// Has the pool carry out so many at once, in one batch.
fn together(context: &Context<Threads>, n: usize) {
    let barrier = Arc::new(Barrier::new(n));
    let wait = || {
        let barrier = Arc::clone(&barrier);
        Request::custom(move || {
            barrier.wait();
            Ok(1)
        })
    };
    let mut batch: Vec<_> = (0..n).map(|_| wait()).collect();
    assert_eq!(context.submit_batch(&mut batch).unwrap(), n);
    assert_eq!(context.get_events(n, n, None, &mut Vec::new()), Ok(n));
}

#[test]
fn a_batch_has_as_many_threads_as_it_takes() {
    support::never_hang();
    let context = Context::new(64, Threads::new(6).unwrap()).unwrap();
    for n in [2, 6, 1, 3, 6, 6] {
        // All asleep, if the machine allows; whoever is not finds what there is by itself.
        thread::sleep(Duration::from_millis(5));
        together(&context, n);
    }
}

#[test]
fn every_request_is_begun_whoever_pushes_and_whoever_sleeps() {
    support::never_hang();
    const TURNS: usize = 3_000;
    let context = Context::new(64, Threads::new(3).unwrap().keep_idle(Duration::from_micros(50))).unwrap();
    thread::scope(|scope| {
        for thread in 0..3 {
            let context = &context;
            scope.spawn(move || {
                for turn in 0..TURNS {
                    // One after the other: each is waited for, while everybody falls asleep.
                    let mut batch: Vec<_> =
                        (0..1 + (turn + thread) % 3).map(|_| Request::custom(|| Ok(1))).collect();
                    let n = batch.len();
                    while !batch.is_empty() {
                        let _ = context.submit_batch(&mut batch);
                    }
                    context.get_events(n, n, None, &mut Vec::new()).unwrap();
                }
            });
        }
    });
    assert_eq!(context.outstanding(), 0);
}

#[test]
fn a_batch_that_a_panic_has_cut_short_is_begun_by_who_waits() {
    support::never_hang();
    let context = Context::new(64, Threads::new(2).unwrap()).unwrap();
    // A thread sleeps.
    context.submit(Request::custom(|| Ok(1))).unwrap();
    context.get_events(1, 1, None, &mut Vec::new()).unwrap();
    thread::sleep(Duration::from_millis(20));
    let mut batch = vec![Request::custom(|| Ok(1))];
    let cut = || context.submit_batch_with(&mut batch, |_| panic!("on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(cut)).is_err());
    let deadline = Some(Instant::now() + Duration::from_secs(20));
    assert_eq!(context.get_events(1, 1, deadline, &mut Vec::new()), Ok(1));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_system_that_gives_no_more_threads_is_lived_with() {
    use support::seccomp::Refusal;
    const NAME: &str = "a_system_that_gives_no_more_threads_is_lived_with";
    if process::role().is_none() {
        return process::run(process::again(NAME, "any")).unwrap();
    }
    let context = hasty(4);
    // The C library takes the older call where the newer does not exist.
    let filters = [Refusal::of(libc::SYS_clone3, libc::ENOSYS), Refusal::of(libc::SYS_clone, libc::EAGAIN)];
    for filter in filters.map(Refusal::filter) {
        if let Err(error) = Refusal::install_for_all(&filter) {
            return support::skip(format_args!("seccomp: {error}"));
        }
    }
    assert!(Threads::new(1).is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN)));
    // Those that there are do everything, in turn.
    for _ in 0..100 {
        let mut batch: Vec<_> = (0..20).map(|_| Request::custom(|| Ok(1))).collect();
        assert_eq!(context.submit_batch(&mut batch).unwrap(), 20);
        let mut events = Vec::new();
        assert_eq!(context.get_events(20, 20, None, &mut events), Ok(20));
        assert!(events.iter().all(|event| event.result.is_ok()));
    }
    assert_eq!(context.backend().threads(), 1);
}
