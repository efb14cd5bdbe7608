//! Requests as futures: each event comes to its future, whoever polls, drops, cancels or destroys meanwhile.

mod support;

use ioctx::aio::{
    Backend, CancelError, Cancellable, Completion, Context, Event, EventStream, GetEventsError, Reason,
    Request, Started, Submitted,
};
use ioctx::backend::{Null, Threads};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use support::executor::block_on;

fn nop(user_data: u64) -> Request {
    Request::nop().with_user_data(user_data)
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(30))
}

/// Counts how often it is called.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counter() -> (Arc<Counter>, Waker) {
    let counter = Arc::<Counter>::default();
    (Arc::clone(&counter), counter.into())
}

fn poll(started: &mut Started, waker: &Waker) -> Option<Event> {
    match Pin::new(started).poll(&mut std::task::Context::from_waker(waker)) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

/// Puts requests aside until the test completes them; refuses those with user data 13, and panics at 66.
#[derive(Clone, Default)]
struct Aside(Arc<Mutex<Vec<Cancellable>>>);

impl Aside {
    fn begin(&self) -> Vec<Completion> {
        let waiting: Vec<_> = self.0.lock().unwrap().drain(..).collect();
        waiting.into_iter().filter_map(Cancellable::claim).collect()
    }
}

impl Backend for Aside {
    fn submit(&self, work: Completion) -> Submitted {
        match work.request().user_data {
            13 => return Submitted::Refused(work, io::Error::from_raw_os_error(1)),
            66 => panic!("as told"),
            _ => {}
        }
        self.0.lock().unwrap().push(work.cancellable());
        Submitted::Queued
    }
}

#[test]
fn what_is_done_at_once_is_ready_at_once() {
    let context = Context::new(1, Null).unwrap();
    let (counter, waker) = counter();
    for i in 0..100 {
        let mut started = context.start(nop(i)).unwrap();
        assert!(
            matches!(context.start(nop(0)).unwrap_err().reason, Reason::Full),
            "it has a place until it is taken"
        );
        let id = started.id();
        let event = poll(&mut started, &waker).unwrap();
        assert_eq!((event.id, event.request.user_data, event.result.unwrap()), (id, i, 0));
        assert_eq!(context.outstanding(), 0);
    }
    assert_eq!(counter.0.load(SeqCst), 0);
    assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0), "readers have nothing of it");
}

#[test]
fn the_waker_of_the_last_poll_is_called_once() {
    let aside = Aside::default();
    let context = Context::new(2, aside.clone()).unwrap();
    let (first, second) = (counter(), counter());
    let mut started = context.start(nop(1)).unwrap();
    for (_, waker) in [&first, &first, &second, &first, &second, &second] {
        assert!(poll(&mut started, waker).is_none());
    }
    assert_eq!(Arc::strong_count(&first.0), 2, "one that was replaced is dropped");
    assert_eq!(Arc::strong_count(&second.0), 3);
    aside.begin().pop().unwrap().complete(Ok(9));
    assert_eq!((first.0.0.load(SeqCst), second.0.0.load(SeqCst)), (0, 1));
    assert_eq!(Arc::strong_count(&second.0), 2);
    assert_eq!(poll(&mut started, &first.1).unwrap().result.unwrap(), 9);
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut started, &first.1))).is_err(), "it is ready once");
    drop(started);
    assert_eq!(context.outstanding(), 0);
}

#[test]
fn what_is_refused_comes_back() {
    let aside = Aside::default();
    let context = Context::new(1, aside.clone()).unwrap();
    for _ in 0..3 {
        let refused = context.start(nop(13)).unwrap_err();
        assert!(matches!(refused.reason, Reason::Refused(_)));
        assert_eq!(refused.request.user_data, 13);
        let refused = context.start(Request::read(tempfile(), vec![0; 8], u64::MAX)).unwrap_err();
        assert!(matches!(refused.reason, Reason::Invalid(_)));
        assert_eq!(refused.request.into_buffer::<Vec<u8>>().unwrap().len(), 8);
    }
    assert!(catch_unwind(AssertUnwindSafe(|| context.start(nop(66)))).is_err());
    assert_eq!(context.outstanding(), 0, "nor does a backend that panics take its place along");
    assert_eq!(context.destroy(soon()), Ok(()));
    assert!(matches!(context.start(nop(1)).unwrap_err().reason, Reason::Dying));
}

fn tempfile() -> std::fs::File {
    tempfile::tempfile().unwrap()
}

#[test]
fn a_dropped_future_cancels_what_nobody_has_begun() {
    let aside = Aside::default();
    let context = Context::new(1, aside.clone()).unwrap();
    let file = Arc::new(tempfile());
    let (counter, waker) = counter();
    let mut started = context.start(Request::read(Arc::clone(&file), vec![0; 1], 0)).unwrap();
    assert!(poll(&mut started, &waker).is_none());
    drop(started);
    assert_eq!((context.outstanding(), Arc::strong_count(&file)), (0, 1));
    assert_eq!(
        (counter.0.load(SeqCst), Arc::strong_count(&counter)),
        (0, 2),
        "its waker is not called any more"
    );
    assert!(aside.begin().is_empty());
}

#[test]
fn a_dropped_future_leaves_what_runs_to_its_completer() {
    let aside = Aside::default();
    let context = Context::new(1, aside.clone()).unwrap();
    let file = Arc::new(tempfile());
    let (counter, waker) = counter();
    let mut started = context.start(Request::read(Arc::clone(&file), vec![0; 4], 0)).unwrap();
    let mut running = aside.begin().pop().unwrap();
    assert!(poll(&mut started, &waker).is_none());
    assert_eq!(started.cancel(), Err(CancelError::Running));
    drop(started);
    assert_eq!(Arc::strong_count(&counter), 2);
    assert_eq!((context.outstanding(), Arc::strong_count(&file)), (1, 2), "buffer and file stay");
    assert!(matches!(&mut running.request_mut().op, ioctx::aio::Op::Read { buf, .. } if buf.len() == 4));
    running.complete(Ok(4));
    assert_eq!((context.outstanding(), Arc::strong_count(&file)), (0, 1));
    assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
    assert_eq!(counter.0.load(SeqCst), 0);
}

#[test]
fn a_future_dropped_when_it_was_ready_gives_its_place_back() {
    let context = Context::new(1, Null).unwrap();
    let file = Arc::new(tempfile());
    for _ in 0..10 {
        drop(context.start(Request::write(Arc::clone(&file), vec![1], 0)).unwrap());
        assert_eq!((context.outstanding(), Arc::strong_count(&file)), (0, 1));
    }
}

#[test]
fn a_cancelled_one_yields_its_request() {
    let context = Context::new(1, Aside::default()).unwrap();
    let (counter, waker) = counter();
    let mut started = context.start(Request::write(tempfile(), vec![5; 3], 0)).unwrap();
    assert!(poll(&mut started, &waker).is_none());
    assert_eq!(context.cancel(started.id()), Ok(()));
    assert_eq!(started.cancel(), Err(CancelError::Unknown));
    assert_eq!(counter.0.load(SeqCst), 1);
    let event = block_on(&mut started);
    assert!(event.result.is_err());
    assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), [5; 3]);
}

#[test]
fn destroying_ends_futures_and_they_outlive_the_context() {
    let aside = Aside::default();
    let context = Context::new(4, aside.clone()).unwrap();
    let mut waiting: Vec<_> = (0..3).map(|i| context.start(nop(i)).unwrap()).collect();
    let (counter, waker) = counter();
    assert!(waiting.iter_mut().all(|started| poll(started, &waker).is_none()));
    let running = aside.0.lock().unwrap().pop().unwrap().claim().unwrap();
    assert!(context.destroy(soon()).is_err(), "one runs");
    assert_eq!(counter.0.load(SeqCst), 2);
    let file = Arc::new(tempfile());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(5));
            running.complete(Ok(2));
        });
        drop(context);
    });
    assert_eq!(counter.0.load(SeqCst), 3);
    let results = waiting.iter_mut().map(|started| block_on(started).result.ok());
    assert_eq!(results.collect::<Vec<_>>(), [None, None, Some(2)]);
    drop(file);
}

#[test]
fn a_forgotten_future_keeps_nothing_from_its_end() {
    let aside = Aside::default();
    let context = Context::new(2, aside.clone()).unwrap();
    std::mem::forget(context.start(nop(1)).unwrap());
    std::mem::forget(context.start(nop(2)).unwrap());
    aside.begin().pop().unwrap().complete(Ok(0));
    assert_eq!(context.outstanding(), 2, "its place is leaked");
    assert_eq!(context.destroy(None), Ok(()));
}

#[test]
fn readers_and_futures_do_not_take_from_each_other() {
    let context = Context::new(64, Threads::new(2).unwrap().inline_cached(false)).unwrap();
    let file = Arc::new(tempfile());
    let read = AtomicUsize::new(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut events = Vec::new();
            while context.get_events(1, 8, None, &mut events) != Err(GetEventsError::Dying) {}
            assert!(events.iter().all(|event| event.request.user_data == 1));
            read.fetch_add(events.len(), SeqCst);
        });
        let submitters: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for i in 0..200 {
                        context
                            .submit(Request::write(Arc::clone(&file), vec![1; 8], 0).with_user_data(1))
                            .unwrap();
                        let write = Request::write(Arc::clone(&file), vec![2; 8], 8 * i).with_user_data(i);
                        let event = block_on(context.start(write).unwrap());
                        assert_eq!((event.request.user_data, event.result.unwrap()), (i, 8));
                        while context.outstanding() > 32 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        context.destroy(None).unwrap();
        reader.join().unwrap();
    });
    assert_eq!(read.load(SeqCst), 400);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("as told");
    }
}

#[test]
fn a_waker_that_panics_does_so_where_the_request_is_completed_and_harms_nothing() {
    let aside = Aside::default();
    let context = Context::new(1, aside.clone()).unwrap();
    let mut started = context.start(nop(1)).unwrap();
    assert!(poll(&mut started, &Arc::new(Panics).into()).is_none());
    let work = aside.begin().pop().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| work.complete(Ok(4)))).is_err());
    assert_eq!(block_on(&mut started).result.unwrap(), 4);
    // And while the completer unwinds anyway.
    let mut started = context.start(nop(2)).unwrap();
    assert!(poll(&mut started, &Arc::new(Panics).into()).is_none());
    let work = aside.begin().pop().unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _work = work;
        panic!("as told");
    }));
    assert!(unwound.is_err());
    assert!(block_on(&mut started).result.is_err());
    assert_eq!(context.destroy(soon()), Ok(()));
}

#[test]
fn workers_survive_wakers_that_panic() {
    let context = Context::new(4, Threads::new(1).unwrap()).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    let mut started = context.start(Request::read(reader.try_clone().unwrap(), vec![0; 1], 0)).unwrap();
    assert!(poll(&mut started, &Arc::new(Panics).into()).is_none());
    let after = context.start(Request::read(reader, vec![0; 1], 0)).unwrap();
    io::Write::write_all(&mut &writer, b"ab").unwrap();
    assert_eq!(block_on(after).result.unwrap(), 1);
    assert_eq!(block_on(started).result.unwrap(), 1);
}

/// A task whose last owner is its own waker, as in an executor that has gone.
struct Orphan(Mutex<Option<Owned>>);

type Owned = (Started, Arc<Context<Threads>>, Tells);

/// Tells whether all that was dropped before went well.
struct Tells(mpsc::Sender<bool>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.send(!thread::panicking()).unwrap();
    }
}

impl Wake for Orphan {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_be_the_last_to_use_the_context() {
    let context = Arc::new(Context::new(4, Threads::new(2).unwrap()).unwrap());
    let (reader, writer) = io::pipe().unwrap();
    let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    let (dropped, is_dropped) = mpsc::channel();
    let mut started = context.start(Request::read(reader, vec![0; 1], 0)).unwrap();
    let orphan = Arc::new(Orphan(Mutex::default()));
    assert!(poll(&mut started, &Arc::clone(&orphan).into()).is_none());
    *orphan.0.lock().unwrap() = Some((started, context, Tells(dropped)));
    drop(orphan);
    // The worker that completes the request ends the task, with it the context, and with that all workers.
    io::Write::write_all(&mut &writer, b"a").unwrap();
    assert_eq!(is_dropped.recv_timeout(Duration::from_secs(60)), Ok(true));
}

/// Completes what was put aside, or puts it aside again, by chance.
fn work(aside: &Aside, closed: &AtomicBool) {
    let mut random = 7_u64;
    while !closed.load(SeqCst) {
        let waiting: Vec<_> = aside.0.lock().unwrap().drain(..).collect();
        for waiting in waiting {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if random >> 62 == 0 {
                aside.0.lock().unwrap().push(waiting);
            } else if let Some(mut work) = waiting.claim() {
                work.request_mut().user_data += 1;
                work.complete(Ok(1));
            }
        }
        thread::yield_now();
    }
}

#[test]
fn a_storm_of_futures_polled_dropped_and_cancelled_at_random() {
    let aside = Aside::default();
    let context = Context::new(16, aside.clone()).unwrap();
    let closed = AtomicBool::new(false);
    let file = Arc::new(tempfile());
    thread::scope(|scope| {
        let workers = [0, 1].map(|_| scope.spawn(|| work(&aside, &closed)));
        let users: Vec<_> = (0..3_u64)
            .map(|seed| {
                let (context, file) = (&context, &file);
                scope.spawn(move || {
                    let random = Cell::new(seed + 1);
                    let next = |below: u64| {
                        random.set(random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99));
                        (random.get() >> 33) % below
                    };
                    let wakers = [counter().1, counter().1];
                    let mut mine: Vec<(Started, u64)> = Vec::new();
                    for i in 0..4000_u64 {
                        let user_data = seed << 32 | i << 1;
                        let request = Request::fsync(Arc::clone(file)).with_user_data(user_data | 1 << 60);
                        match context.start(request) {
                            Ok(started) => mine.push((started, user_data | 1 << 60)),
                            Err(error) => assert!(matches!(error.reason, Reason::Full)),
                        }
                        while !mine.is_empty() && next(3) > 0 {
                            let place = next(mine.len() as u64) as usize;
                            match next(4) {
                                0 => drop(mine.swap_remove(place)),
                                1 => drop(mine[place].0.cancel()),
                                which => {
                                    let (started, user_data) = &mut mine[place];
                                    if let Some(event) = poll(started, &wakers[which as usize - 2]) {
                                        let done = u64::from(event.result.is_ok());
                                        assert_eq!(event.request.user_data, *user_data + done);
                                        drop(mine.swap_remove(place));
                                    }
                                }
                            }
                        }
                    }
                    for (started, user_data) in mine {
                        let event = block_on(started);
                        let done = u64::from(event.result.is_ok());
                        assert_eq!(event.request.user_data, user_data + done);
                    }
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.join().unwrap());
        closed.store(true, SeqCst);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        aside.0.lock().unwrap().clear();
    });
    assert_eq!((context.outstanding(), Arc::strong_count(&file)), (0, 1));
    assert_eq!(context.destroy(None), Ok(()));
}

#[test]
fn a_stream_ends_with_its_context() {
    let aside = Aside::default();
    let context = Arc::new(Context::new(8, aside.clone()).unwrap());
    let reader = thread::spawn({
        let context = Arc::clone(&context);
        move || {
            block_on(async {
                let mut seen = Vec::new();
                let mut events = context.events();
                while let Some(event) = events.next().await {
                    seen.push(event.request.user_data);
                }
                assert!(events.next().await.is_none());
                seen
            })
        }
    });
    for i in 0..500 {
        while let Err(error) = context.submit(nop(100 + i)) {
            assert!(matches!(error.reason, Reason::Full));
            thread::yield_now();
        }
        if i % 3 == 0 {
            aside.begin().into_iter().for_each(|work| work.complete(Ok(0)));
        }
    }
    context.destroy(None).unwrap();
    let mut seen = reader.join().unwrap();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(100..600));
}

#[test]
fn streams_share_events_and_hand_wake_ups_on() {
    let context = Context::new(8, Null).unwrap();
    let wakers = [counter(), counter(), counter()];
    let woken = || wakers.each_ref().map(|(counter, _)| counter.0.load(SeqCst));
    let next = |stream: &mut EventStream<'_>, which: usize| {
        Pin::new(stream).poll_next(&mut std::task::Context::from_waker(&wakers[which].1))
    };
    let [mut first, mut second, mut third] = [context.events(), context.events(), context.events()];
    assert!(next(&mut first, 0).is_pending() && next(&mut second, 1).is_pending());
    context.submit(nop(1)).unwrap();
    assert_eq!(woken(), [1, 0, 0], "one event, one reader");
    drop(first);
    assert_eq!(woken(), [1, 1, 0], "who goes without it tells the next");
    assert!(next(&mut second, 1).is_ready());
    assert!(next(&mut second, 1).is_pending() && next(&mut third, 2).is_pending());
    context.submit_batch(&mut vec![nop(2), nop(3)]).unwrap();
    assert_eq!(woken(), [1, 2, 1], "two events, two readers");
    assert!(next(&mut third, 2).is_ready() && next(&mut third, 2).is_ready());
    assert!(next(&mut second, 1).is_pending(), "another was quicker");
    context.submit(nop(4)).unwrap();
    assert_eq!(woken(), [1, 3, 1]);
    assert!(next(&mut second, 1).is_ready());
}

#[cfg(ioctx_linux)]
mod eventfd {
    use super::*;
    use ioctx::aio::EventFd;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(fd: &impl std::os::fd::AsFd) -> bool {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn becomes_readable_when_enough_is_there() {
        let context = Context::new(4, Null).unwrap();
        let mut ready = context.eventfd().unwrap();
        let mut events = Vec::new();
        context.submit(nop(1)).unwrap();
        assert!(!ready.arm(1), "it is there");
        assert!(!ready.arm(0));
        assert!(!readable(&ready), "not armed, nobody writes");
        assert!(ready.arm(3));
        context.submit(nop(2)).unwrap();
        assert!(!readable(&ready));
        context.submit(nop(3)).unwrap();
        assert!(readable(&ready));
        ready.clear();
        assert!(!readable(&ready));
        assert_eq!(context.get_events(0, 8, None, &mut events), Ok(3));
        context.submit(nop(4)).unwrap();
        assert!(!readable(&ready), "once");
        assert_eq!(context.get_events(0, 8, None, &mut events), Ok(1));
        assert!(ready.arm(usize::MAX), "as many as there can be");
        context.submit_batch(&mut (0..4).map(nop).collect()).unwrap();
        assert!(readable(&ready));
        ready.clear();
        assert_eq!(context.get_events(0, 8, None, &mut events), Ok(4));
        assert!(ready.arm(1));
        context.destroy(None).unwrap();
        assert!(readable(&ready), "nothing more will come");
        assert!(!ready.arm(1));
    }

    #[test]
    fn what_it_leaves_is_handed_on() {
        let leaves: [fn(EventFd<'_>); 4] = [
            |mut ready| ready.disarm(),
            |ready| drop(ready),
            |mut ready| {
                ready.clear();
                ready.disarm();
            },
            |mut ready| {
                ready.clear();
                assert!(!ready.arm(1));
            },
        ];
        for leave in leaves {
            let context = Context::new(4, Null).unwrap();
            let mut ready = context.eventfd().unwrap();
            assert!(ready.arm(1));
            let (counter, waker) = counter();
            let mut stream = context.events();
            let mut task = std::task::Context::from_waker(&waker);
            assert!(Pin::new(&mut stream).poll_next(&mut task).is_pending());
            context.submit(nop(1)).unwrap();
            assert_eq!((readable(&ready), counter.0.load(SeqCst)), (true, 0));
            leave(ready);
            assert_eq!(counter.0.load(SeqCst), 1);
        }
    }
}
