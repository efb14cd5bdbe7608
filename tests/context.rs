//! The context's rules, on backends that do what a test says.

use ioctx::aio::{
    Backend, BatchError, Completion, Context, CreateError, DestroyError, Event, GetEventsError, MAX_CAPACITY,
    MAX_LANES, Reason, Request, Submitted, Table,
};
use ioctx::backend::{Null, Threads, Zero};
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

fn nop(user_data: u64) -> Request {
    Request::nop().with_user_data(user_data)
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(30))
}

fn user_data(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.request.user_data).collect()
}

/// How many requests, and the user data of which, keep the context from being destroyed.
fn stuck(destroyed: Result<(), DestroyError>) -> (u64, Vec<u64>) {
    match destroyed {
        Err(DestroyError::TimedOut { in_flight, named }) => {
            let mut named: Vec<_> = named.iter().map(|request| request.user_data).collect();
            named.sort_unstable();
            (in_flight, named)
        }
        other => panic!("{other:?}"),
    }
}

/// Keeps requests until the test completes them; refuses those with user data 13.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<Completion>>>);

impl Held {
    fn complete(&self, result: fn() -> io::Result<usize>) {
        self.0.lock().unwrap().drain(..).for_each(|work| work.complete(result()));
    }
}

impl Backend for Held {
    fn submit(&self, work: Completion) -> Submitted {
        if work.request().user_data == 13 {
            return Submitted::Refused(work, io::Error::from_raw_os_error(1));
        }
        self.0.lock().unwrap().push(work);
        Submitted::Queued
    }
}

#[test]
fn capacity_bounds_what_is_in_flight_or_unread() {
    let held = Held::default();
    let context = Context::new(3, held.clone()).unwrap();
    let mut events = Vec::new();
    for _ in 0..50 {
        for i in 0..3 {
            context.submit(nop(i)).unwrap();
        }
        let refused = context.submit(nop(77)).unwrap_err();
        assert!(matches!(refused.reason, Reason::Full));
        assert_eq!(refused.request.user_data, 77);
        held.complete(|| Ok(5));
        assert!(matches!(context.submit(nop(77)).unwrap_err().reason, Reason::Full), "unread events count");
        assert_eq!(context.get_events(3, 9, None, &mut events), Ok(3));
        assert_eq!(context.outstanding(), 0);
    }
    assert_eq!(events.len(), 150);
}

#[test]
fn a_refused_request_comes_back_and_frees_its_place() {
    let context = Context::new(1, Held::default()).unwrap();
    for _ in 0..5 {
        let refused = context.submit(nop(13)).unwrap_err();
        assert!(matches!(&refused.reason, Reason::Refused(error) if error.raw_os_error() == Some(1)));
        assert_eq!(refused.request.user_data, 13);
    }
    assert_eq!((context.outstanding(), context.destroy(soon())), (0, Ok(())));
}

#[test]
fn a_batch_is_taken_up_to_the_first_that_is_not() {
    let context = Context::new(4, Held::default()).unwrap();
    let mut batch = vec![nop(1), nop(2), nop(13), nop(3)];
    assert_eq!(context.submit_batch(&mut batch).unwrap(), 2);
    assert_eq!(batch.iter().map(|request| request.user_data).collect::<Vec<_>>(), [13, 3]);
    assert!(matches!(context.submit_batch(&mut batch), Err(BatchError(Reason::Refused(_)))));
    batch.remove(0);
    batch.extend([nop(4), nop(5)]);
    assert_eq!(context.submit_batch(&mut batch).unwrap(), 2);
    assert!(matches!(context.submit_batch(&mut batch), Err(BatchError(Reason::Full))));
    assert_eq!((batch.len(), context.submit_batch(&mut Vec::new()).unwrap()), (1, 0));
    context.backend().complete(|| Ok(0));
}

#[test]
fn large_batches_go_through_inline_backends_whole() {
    let context = Context::with_lanes(1000, 1, Null).unwrap();
    let mut batch: Vec<_> = (0..1200).map(nop).collect();
    assert_eq!(context.submit_batch(&mut batch).unwrap(), 1000);
    assert_eq!((batch.len(), batch[0].user_data), (200, 1000));
    let mut events = Vec::new();
    assert_eq!(context.get_events(1000, 1000, None, &mut events), Ok(1000));
    assert_eq!(user_data(&events), (0..1000).collect::<Vec<_>>(), "one lane keeps one order");
}

#[test]
fn get_events_keeps_its_word() {
    let held = Held::default();
    let context = Context::new(8, held.clone()).unwrap();
    let mut events = Vec::new();
    assert_eq!(context.get_events(2, 1, None, &mut events), Err(GetEventsError::Range { min: 2, max: 1 }));
    assert_eq!(context.get_events(0, 0, None, &mut events), Ok(0));
    assert_eq!(context.get_events(0, 8, None, &mut events), Ok(0), "min 0 does not wait");
    let begun = Instant::now();
    assert_eq!(context.get_events(1, 8, soon(), &mut events), Ok(0), "a deadline is no error");
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(context.get_events(1, 8, Some(begun), &mut events), Ok(0), "a passed one does not wait");
    for i in 0..4 {
        context.submit(nop(i)).unwrap();
    }
    held.complete(|| Ok(0));
    assert_eq!(context.get_events(1, 3, None, &mut events), Ok(3), "at most max");
    assert_eq!(context.get_events(2, 8, soon(), &mut events), Ok(1), "some are better than none");
    assert_eq!(events.len(), 4);
}

#[test]
fn more_than_the_capacity_can_be_waited_for() {
    let context = Arc::new(Context::new(4, Null).unwrap());
    let theirs = Arc::clone(&context);
    let submitter = thread::spawn(move || {
        for i in 0..100 {
            while theirs.submit(nop(i)).is_err() {
                thread::yield_now();
            }
        }
    });
    let mut events = Vec::new();
    assert_eq!(context.get_events(100, 100, None, &mut events), Ok(100));
    submitter.join().unwrap();
    assert_eq!(user_data(&events).into_iter().collect::<HashSet<_>>().len(), 100);
}

#[test]
fn dropped_completions_complete() {
    let held = Held::default();
    let context = Context::new(2, held.clone()).unwrap();
    context.submit(nop(4)).unwrap();
    held.0.lock().unwrap().clear();
    let mut events = Vec::new();
    assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
    #[cfg(unix)]
    assert_eq!(events[0].result.as_ref().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert!(events[0].result.is_err());
}

/// Panics at user data 13, in `submit`; does the others at once or keeps them; panics in `flush` if told so.
#[derive(Default)]
struct Panics {
    held: Held,
    keep: bool,
    in_flush: bool,
}

impl Backend for Panics {
    fn submit(&self, work: Completion) -> Submitted {
        match work.request().user_data {
            13 => panic!("on purpose"),
            _ if self.keep => self.held.submit(work),
            _ => Submitted::Done(work.finish(Ok(0))),
        }
    }

    fn flush(&self) {
        assert!(!self.in_flush, "on purpose");
    }
}

fn catch<R>(f: impl FnOnce() -> R) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(f()))).is_err()
}

#[test]
fn a_panicking_backend_loses_nothing() {
    for keep in [false, true] {
        let backend = Panics { keep, ..Panics::default() };
        let held = backend.held.clone();
        let context = Context::new(9, backend).unwrap();
        assert!(catch(|| context.submit(nop(13))));
        let mut batch: Vec<_> = [1, 2, 13, 4, 5].map(nop).into();
        assert!(catch(|| context.submit_batch(&mut batch)));
        assert_eq!(batch.iter().map(|request| request.user_data).collect::<Vec<_>>(), [4, 5]);
        held.complete(|| Ok(0));
        let mut events = Vec::new();
        assert_eq!(context.get_events(4, 9, None, &mut events), Ok(4));
        let mut got = user_data(&events);
        got.sort_unstable();
        assert_eq!((got, context.outstanding()), (vec![1, 2, 13, 13], 0));
    }
}

#[test]
fn a_batch_that_a_panic_cuts_short_is_flushed_once() {
    /// Panics on request when it takes the third request, and when it is flushed.
    struct Counts {
        flushed: Arc<AtomicU32>,
        taken: AtomicU32,
        in_submit: bool,
        in_flush: bool,
    }

    impl Backend for Counts {
        fn submit(&self, work: Completion) -> Submitted {
            let third = self.taken.fetch_add(1, Relaxed) == 2;
            assert!(!(self.in_submit && third), "while submitting");
            Submitted::Done(work.finish(Ok(0)))
        }

        fn flush(&self) {
            self.flushed.fetch_add(1, Relaxed);
            assert!(!self.in_flush, "while flushing");
        }
    }

    for (in_submit, in_flush) in [(false, false), (true, false), (false, true), (true, true)] {
        let flushed = Arc::new(AtomicU32::new(0));
        let backend = Counts { flushed: flushed.clone(), taken: AtomicU32::new(0), in_submit, in_flush };
        let context = Context::new(9, backend).unwrap();
        let mut batch: Vec<_> = (0..5).map(nop).collect();
        let mut told = 0;
        let cut = || {
            context.submit_batch_with(&mut batch, |_| {
                told += 1;
                assert!(told < 4, "while told");
            })
        };
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut)).unwrap_err();
        let first = if in_submit { "while submitting" } else { "while told" };
        assert_eq!(panic.downcast_ref::<&str>(), Some(&first));
        assert_eq!(flushed.load(Relaxed), 1);
        let accepted = if in_submit { 3 } else { 4 };
        assert_eq!((batch.len(), context.outstanding()), (5 - accepted, accepted as u32));
        assert!(!catch(|| drop(context)), "everything had completed");
    }
}

#[test]
fn a_table_survives_a_backend_that_panics_during_removal() {
    let table = Table::new(1).unwrap();
    let backend = Panics { keep: true, in_flush: true, ..Panics::default() };
    let held = backend.held.clone();
    let handle = table.insert(Context::new(4, backend).unwrap()).unwrap();
    thread::scope(|scope| {
        let (entered, has_entered) = std::sync::mpsc::channel();
        let table = &table;
        let user = scope.spawn(move || {
            let context = table.get(handle).unwrap();
            assert!(catch(|| context.submit(nop(1))));
            entered.send(()).unwrap();
            thread::sleep(Duration::from_millis(50));
            held.complete(|| Ok(0));
            context.capacity()
        });
        has_entered.recv().unwrap();
        assert!(catch(|| table.remove(handle)));
        assert_eq!(user.join().unwrap(), 4, "the entry outlives its users");
    });
    assert!(table.get(handle).is_none());
    let next = table.insert(Context::new(5, Panics::default()).unwrap()).expect("its place is free again");
    assert_eq!(table.get(next).unwrap().capacity(), 5);
}

#[test]
fn absurd_results_come_out_as_they_can() {
    struct Says(fn() -> io::Result<usize>);
    impl Backend for Says {
        fn submit(&self, work: Completion) -> Submitted {
            Submitted::Done(work.finish(self.0()))
        }
    }
    let outcome = |says: fn() -> io::Result<usize>| {
        let context = Context::new(1, Says(says)).unwrap();
        context.submit(nop(0)).unwrap();
        let mut events = Vec::new();
        assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
        events.pop().unwrap().result.map_err(|error| error.raw_os_error())
    };
    assert_eq!(outcome(|| Ok(usize::MAX)), Ok(i64::MAX as usize));
    assert_eq!(outcome(|| Ok(1 << 31)), Ok(1 << 31));
    #[cfg(unix)]
    {
        assert_eq!(outcome(|| Err(io::Error::other("no number"))), Err(Some(libc::EIO)));
        assert_eq!(outcome(|| Err(io::Error::from_raw_os_error(-7))), Err(Some(libc::EIO)));
        assert_eq!(outcome(|| Err(io::Error::from_raw_os_error(i32::MAX))), Err(Some(i32::MAX)));
    }
}

#[test]
fn a_reader_that_wants_more_than_there_is_room_for_makes_room() {
    let held = Held::default();
    let context = Context::new(4, held.clone()).unwrap();
    let stuck = {
        context.submit(nop(100)).unwrap();
        held.0.lock().unwrap().pop().unwrap()
    };
    thread::scope(|scope| {
        let (context, held) = (&context, &held);
        scope.spawn(move || {
            for i in 0..10 {
                while context.submit(nop(i)).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
                held.complete(|| Ok(0));
            }
        });
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        assert_eq!(context.get_events(10, 10, deadline, &mut Vec::new()), Ok(10));
    });
    drop(stuck);
}

#[test]
fn what_one_call_returns_is_bounded() {
    let context = Context::new(256, Null).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = context.submit(nop(1));
            }
        });
        for _ in 0..50 {
            let mut events = Vec::new();
            context.get_events(1, usize::MAX, Some(Instant::now()), &mut events).unwrap();
            assert!(events.len() <= 256);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_end_can_be_waited_for_again() {
    let held = Held::default();
    let context = Context::new(4, held.clone()).unwrap();
    context.submit(nop(1)).unwrap();
    assert_eq!(stuck(context.wait_destroyed(soon())), (1, vec![1]), "not begun");
    assert!(context.destroy(soon()).is_err());
    assert_eq!(stuck(context.wait_destroyed(soon())), (1, vec![1]));
    held.complete(|| Ok(0));
    assert_eq!(context.wait_destroyed(None), Ok(()));
}

#[test]
fn completions_of_others_are_not_mistaken_for_ones_own() {
    /// Refuses, or finishes, the request before the one it is given.
    #[derive(Default)]
    struct Confused(Mutex<Option<Completion>>);
    impl Backend for Confused {
        fn submit(&self, work: Completion) -> Submitted {
            let refuse = work.request().user_data.is_multiple_of(2);
            match self.0.lock().unwrap().replace(work) {
                None => Submitted::Queued,
                Some(earlier) if refuse => Submitted::Refused(earlier, io::ErrorKind::Other.into()),
                Some(earlier) => Submitted::Done(earlier.finish(Ok(1))),
            }
        }
    }
    let [first, second] = [8, 8].map(|n| Context::new(n, Confused::default()).unwrap());
    let mut batch: Vec<_> = (0..6).map(nop).collect();
    assert_eq!(first.submit_batch(&mut batch).unwrap(), 6);
    // And one of another context.
    let stray = first.backend().0.lock().unwrap().take();
    *second.backend().0.lock().unwrap() = stray;
    second.submit(nop(7)).unwrap();
    second.submit(nop(8)).unwrap();
    drop(second.backend().0.lock().unwrap().take());
    for (context, want) in [(&first, vec![0, 1, 2, 3, 4, 5]), (&second, vec![7, 8])] {
        let mut events = Vec::new();
        context.get_events(want.len(), 9, None, &mut events).unwrap();
        let mut got = user_data(&events);
        got.sort_unstable();
        assert_eq!((got, context.outstanding()), (want, 0));
    }
}

#[test]
fn destroying_waits_and_leaves_the_events() {
    let held = Held::default();
    let context = Context::new(4, held.clone()).unwrap();
    context.submit(nop(1)).unwrap();
    context.submit(nop(2)).unwrap();
    assert_eq!(stuck(context.destroy(soon())), (2, vec![1, 2]));
    assert_eq!(context.destroy(None), Err(DestroyError::Already));
    let refused = context.submit(nop(9)).unwrap_err();
    assert!(matches!(refused.reason, Reason::Dying) && refused.request.user_data == 9);
    assert!(matches!(context.submit_batch(&mut vec![nop(9)]), Err(BatchError(Reason::Dying))));
    held.complete(|| Ok(0));
    let mut events = Vec::new();
    assert_eq!(context.get_events(5, 9, None, &mut events), Ok(2), "what there is, rather than an error");
    assert_eq!(context.get_events(0, 9, None, &mut events), Err(GetEventsError::Dying));
    assert_eq!(user_data(&events), [1, 2]);
}

#[test]
fn sleeping_readers_are_told_of_the_end() {
    let held = Held::default();
    let context = Arc::new(Context::new(4, held.clone()).unwrap());
    context.submit(nop(1)).unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let context = Arc::clone(&context);
            thread::spawn(move || context.get_events(2, 2, None, &mut Vec::new()))
        })
        .collect();
    thread::sleep(Duration::from_millis(20));
    held.complete(|| Ok(0));
    assert_eq!(context.destroy(None), Ok(()));
    let mut ends: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    ends.sort_by_key(Result::is_err);
    assert_eq!(ends, [Ok(1), Err(GetEventsError::Dying), Err(GetEventsError::Dying)]);
}

#[test]
fn dropping_waits_for_what_is_in_flight() {
    let held = Held::default();
    let context = Context::new(4, held.clone()).unwrap();
    context.submit(nop(1)).unwrap();
    let completer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        held.complete(|| Ok(0));
    });
    let begun = Instant::now();
    drop(context);
    assert!(begun.elapsed() >= Duration::from_millis(25));
    completer.join().unwrap();
}

#[test]
fn requests_nobody_reads_give_their_buffers_up() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let context = Context::new(4, Zero).unwrap();
    context.submit(Request::read(Arc::clone(&file), vec![1; 100], 0)).unwrap();
    assert_eq!(Arc::strong_count(&file), 2);
    drop(context);
    assert_eq!(Arc::strong_count(&file), 1);
}

#[test]
fn bad_capacities_are_named() {
    for capacity in [0, MAX_CAPACITY + 1, u32::MAX] {
        assert_eq!(Context::new(capacity, Null).unwrap_err(), CreateError::Capacity(capacity));
    }
    for lanes in [0, MAX_LANES + 1, u32::MAX] {
        assert_eq!(Context::with_lanes(1, lanes, Null).unwrap_err(), CreateError::Lanes(lanes));
    }
    for capacity in [0, u32::MAX] {
        assert_eq!(Table::<Null>::new(capacity).unwrap_err(), CreateError::Capacity(capacity));
    }
}

#[test]
fn no_thread_is_left_behind() {
    for _ in 0..20 {
        let context = Context::new(8, Threads::new(3).unwrap()).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        for i in 0..8 {
            context.submit(Request::write(Arc::clone(&file), vec![0; 64], i * 64)).unwrap();
        }
        drop(context);
        // Workers are joined by the drop, so that nobody else holds the file.
        assert_eq!(Arc::strong_count(&file), 1);
    }
}

#[test]
fn a_table_finds_only_what_it_holds() {
    let table = Table::new(2).unwrap();
    let a = table.insert(Context::new(1, Null).unwrap()).unwrap();
    let b = table.insert(Context::new(2, Null).unwrap()).unwrap();
    let full = table.insert(Context::new(3, Null).unwrap()).unwrap_err();
    assert_eq!(full.0.capacity(), 3);
    assert_eq!((table.get(a).unwrap().capacity(), table.get(b).unwrap().capacity()), (1, 2));
    assert_eq!(table.remove(a).unwrap().capacity(), 1);
    assert!(table.get(a).is_none() && table.remove(a).is_none());
    let c = table.insert(full.0).unwrap();
    assert_ne!(a, c);
    assert!(table.get(a).is_none() && table.get(c).unwrap().capacity() == 3);
    for forged in [0, 1, u64::MAX, b.into_raw() + 1, c.into_raw() + (1 << 32)] {
        assert!(table.get(ioctx::aio::Handle::from_raw(forged)).is_none(), "{forged:#x}");
    }
}

#[test]
fn removal_waits_for_users_and_wakes_sleepers() {
    let table = Arc::new(Table::new(1).unwrap());
    let handle = table.insert(Context::new(4, Null).unwrap()).unwrap();
    let sleepers: Vec<_> = (0..3)
        .map(|_| {
            let table = Arc::clone(&table);
            thread::spawn(move || match table.get(handle) {
                Some(context) => context.get_events(1, 1, None, &mut Vec::new()),
                None => Err(GetEventsError::Dying),
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(table.remove(handle).unwrap().outstanding(), 0);
    for sleeper in sleepers {
        assert_eq!(sleeper.join().unwrap(), Err(GetEventsError::Dying));
    }
}
