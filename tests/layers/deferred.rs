//! Hooks that are left to the run list of a context: who calls them, how many at a time, and that nobody waits for them
//! in vain.

use crate::hooks::{Calls, Noted, elsewhere};
use crate::support::{executor::block_on, never_hang};
use crate::transparent::Transparent;
use crate::{Held, code, one};
use ioctx::aio::{Backend, Builder, By, Completion, Context, Request, Submitted};
use ioctx::backend::Null;
use ioctx::runlist;
use rustix::event::{PollFd, PollFlags, poll};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// Nobody but those who help.
fn alone() -> runlist::Builder {
    runlist::Builder::new().worker(false)
}

/// A worker that comes at once if somebody waits, and never if nobody does.
fn attentive() -> runlist::Builder {
    runlist::Builder::new().worker_delay(Duration::ZERO, NEVER)
}

fn noted(held: &Held, by: By, list: runlist::Builder) -> (Context<Noted<Held>>, Calls) {
    never_hang();
    let calls = Calls::default();
    let layer = Noted { below: held.clone(), number: 1, by, calls: calls.clone() };
    (Builder::new(64).run_list(list).build(layer).unwrap(), calls)
}

fn threads(calls: &Calls) -> Vec<ThreadId> {
    calls.lock().unwrap().iter().map(|call| call.1).collect()
}

fn me() -> ThreadId {
    thread::current().id()
}

#[test]
fn a_submitter_calls_no_more_than_it_was_told() {
    for most in [0, 1, 3] {
        let held = Held::default();
        let (context, calls) = noted(&held, By::RunList, alone().help_on_submit(most));
        for _ in 0..20 {
            context.submit(Request::nop()).unwrap();
        }
        elsewhere(&held, |work| work.complete(Ok(5)));
        assert!(calls.lock().unwrap().is_empty(), "somebody else has run them");
        let mut called = 0;
        for _ in 0..10 {
            context.submit(Request::nop()).unwrap();
            let now = calls.lock().unwrap().len();
            assert!(now - called <= most && (now - called == most || now == 20), "{called} {now}");
            called = now;
        }
        assert!(threads(&calls).iter().all(|thread| *thread == me()));
        // The whole batch counts as one submit.
        let mut batch: Vec<_> = (0..5).map(|_| Request::nop()).collect();
        context.submit_batch(&mut batch).unwrap();
        assert!(calls.lock().unwrap().len() - called <= most);
        let before = calls.lock().unwrap().len();
        let _future = context.start(Request::nop()).unwrap();
        assert!(calls.lock().unwrap().len() - before <= most);
        // Who would sleep does all that is left.
        let read = context.get_events(20, 64, None, &mut Vec::new()).unwrap();
        assert_eq!((read, calls.lock().unwrap().len()), (20, 20));
        drop(held.take());
    }
}

#[test]
fn each_hook_is_called_where_it_belongs() {
    never_hang();
    for (by, place) in [
        // From the top: what follows a later one is done there as well.
        ([By::Completer, By::RunList, By::Completer], [1, 1, 0]),
        ([By::Reader, By::RunList, By::Completer], [2, 1, 0]),
        ([By::RunList, By::Reader, By::RunList], [2, 2, 1]),
    ] {
        let (held, calls) = (Held::default(), Calls::default());
        let layer = |below: Box<dyn Backend>, layer: usize| -> Box<dyn Backend> {
            Box::new(Noted { below, number: layer as u32, by: by[layer], calls: calls.clone() })
        };
        let backend = [2, 1, 0].into_iter().fold(Box::new(held.clone()) as Box<dyn Backend>, layer);
        let context = Builder::new(8).run_list(alone().help_on_submit(1)).build(backend).unwrap();
        for _ in 0..2 {
            context.submit(Request::nop()).unwrap();
            let completer = elsewhere(&held, |work| work.complete(Ok(4)));
            let submitter = thread::scope(|scope| {
                let submit = || {
                    context.submit(Request::nop()).unwrap();
                    me()
                };
                scope.spawn(submit).join().unwrap()
            });
            assert_eq!(one(&context).result.unwrap(), 7);
            let place = place.map(|place| [completer, submitter, me()][place]);
            let called: Vec<_> = calls.lock().unwrap().drain(..).map(|call| (call.0, call.1)).collect();
            assert_eq!(called, [(2, place[2]), (1, place[1]), (0, place[0])]);
            drop(held.take());
            // The one that has made the submitter come by.
            one(&context);
            calls.lock().unwrap().clear();
        }
    }
}

#[test]
fn a_worker_comes_by_for_readers_that_do_not_help() {
    let held = Held::default();
    let (context, calls) = noted(&held, By::RunList, attentive().help_on_reap(false));
    for _ in 0..3 {
        context.submit(Request::nop()).unwrap();
        elsewhere(&held, |work| work.complete(Ok(5)));
        assert_eq!(one(&context).result.unwrap(), 6);
    }
    assert!(!threads(&calls).contains(&me()));
}

#[test]
fn who_sleeps_already_is_woken() {
    let held = Held::default();
    let (context, calls) = noted(&held, By::RunList, attentive());
    for _ in 0..3 {
        context.submit(Request::nop()).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| one(&context).result.unwrap());
            // Asleep, most of the time.
            thread::sleep(Duration::from_millis(5));
            held.take().into_iter().for_each(|work| work.complete(Ok(5)));
            assert_eq!(reader.join().unwrap(), 6);
        });
    }
    assert_eq!(calls.lock().unwrap().len(), 3);
}

#[test]
fn futures_streams_and_eventfds_that_nobody_drives_become_ready() {
    let held = Held::default();
    let (context, calls) = noted(&held, By::RunList, attentive().help_on_submit(0));
    // Nobody waits for this one.
    context.submit(Request::nop()).unwrap();
    elsewhere(&held, |work| work.complete(Ok(5)));
    thread::sleep(Duration::from_millis(20));
    assert!(calls.lock().unwrap().is_empty());
    // The worker, which comes for the future, runs both.
    let future = context.start(Request::nop()).unwrap();
    elsewhere(&held, |work| work.complete(Ok(5)));
    assert_eq!(block_on(future).result.unwrap(), 6);
    assert_eq!(one(&context).result.unwrap(), 6);
    // One that sleeps when its request ends, and one that is awaited only later.
    let future = context.start(Request::nop()).unwrap();
    let complete = || {
        thread::sleep(Duration::from_millis(5));
        held.take().into_iter().for_each(|work| work.complete(Ok(5)));
    };
    thread::scope(|scope| {
        scope.spawn(complete);
        assert_eq!(block_on(future).result.unwrap(), 6);
    });

    let mut events = context.events();
    context.submit(Request::nop()).unwrap();
    thread::scope(|scope| {
        scope.spawn(complete);
        assert_eq!(block_on(events.next()).unwrap().result.unwrap(), 6);
    });
    drop(events);

    let mut ready = context.eventfd().unwrap();
    for armed_first in [true, false] {
        context.submit(Request::nop()).unwrap();
        assert!(!armed_first || ready.arm(1));
        elsewhere(&held, |work| work.complete(Ok(5)));
        if armed_first || ready.arm(1) {
            poll(&mut [PollFd::new(&ready, PollFlags::IN)], None).unwrap();
            ready.clear();
        }
        assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(1));
    }
}

#[test]
fn the_end_of_a_context_waits_for_nobody_else() {
    type End = fn(Context<Noted<Held>>) -> Option<Context<Noted<Held>>>;
    let ends: [End; 4] = [
        |context| {
            context.destroy(None).unwrap();
            Some(context)
        },
        |context| {
            block_on(context.destroy_async()).unwrap();
            Some(context)
        },
        |context| {
            let ended = Context::destroy_all([&context], Some(Instant::now() + NEVER));
            assert_eq!(ended, [Ok(())]);
            Some(context)
        },
        |context| {
            drop(context);
            None
        },
    ];
    let lazy = runlist::Builder::new().worker_delay(NEVER, NEVER);
    for list in [alone(), lazy, lazy.help_on_reap(false).worker_delay(Duration::ZERO, NEVER)] {
        for end in ends {
            let held = Held::default();
            let (context, calls) = noted(&held, By::RunList, list);
            for _ in 0..3 {
                context.submit(Request::nop()).unwrap();
            }
            let future = context.start(Request::nop()).unwrap();
            elsewhere(&held, |work| work.complete(Ok(5)));
            if let Some(context) = end(context) {
                assert_eq!(context.get_events(3, 3, None, &mut Vec::new()), Ok(3));
            }
            assert_eq!(calls.lock().unwrap().len(), 4);
            assert_eq!(block_on(future).result.unwrap(), 6);
        }
    }
    // What ends only later, while the destroyer sleeps, is not left to anybody.
    let held = Held::default();
    let (context, calls) = noted(&held, By::RunList, alone());
    context.submit(Request::nop()).unwrap();
    thread::scope(|scope| {
        let destroyer = scope.spawn(|| context.destroy(None));
        while !held.0.lock().unwrap()[0].is_dying() {
            thread::yield_now();
        }
        let completer = elsewhere(&held, |work| work.complete(Ok(5)));
        destroyer.join().unwrap().unwrap();
        assert_eq!(threads(&calls), [completer]);
    });
}

/// Whose requests, once ended, have another submitted.
struct Endless(Arc<Mutex<Vec<Completion>>>, Arc<AtomicU32>, Arc<AtomicBool>);

impl Backend for Endless {
    fn submit(&self, mut work: Completion) -> Submitted {
        let Self(kept, calls, goes_on) = self;
        let (kept, calls, goes_on) = (kept.clone(), calls.clone(), goes_on.clone());
        work.on_end(By::RunList, move |_, outcome| {
            calls.fetch_add(1, Relaxed);
            if goes_on.load(Relaxed) {
                // Ends at once, and is left to the list again.
                let next = kept.lock().unwrap().pop();
                drop(next);
            }
            outcome
        });
        match work.request().user_data {
            0 => {
                self.0.lock().unwrap().push(work);
                Submitted::Queued
            }
            _ => Submitted::Done(work.finish(Ok(1))),
        }
    }
}

#[test]
fn a_list_that_refills_itself_keeps_nobody() {
    never_hang();
    const MOST: usize = 2;
    let (calls, goes_on) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
    let backend = Endless(Arc::default(), calls.clone(), goes_on.clone());
    let kept = backend.0.clone();
    let context = Builder::new(1024).run_list(alone().help_on_submit(MOST)).build(backend).unwrap();
    for _ in 0..1000 {
        context.submit(Request::nop()).unwrap();
    }
    assert_eq!(calls.load(Relaxed), 0);
    // One begins, and each has the next one follow.
    for _ in 0..3 {
        let before = calls.load(Relaxed);
        context.submit(Request::nop().with_user_data(1)).unwrap();
        assert!(calls.load(Relaxed) - before <= MOST as u32, "a submitter was kept");
        let _ = context.get_events(0, 64, None, &mut Vec::new());
    }
    // A reader goes on with what is there, long before the list is empty.
    let before = calls.load(Relaxed);
    assert!(context.get_events(1, 1, None, &mut Vec::new()).unwrap() == 1);
    assert!(calls.load(Relaxed) - before <= 10, "a reader was kept");
    assert!(kept.lock().unwrap().len() > 900);
    goes_on.store(false, Relaxed);
    kept.lock().unwrap().clear();
}

/// Panics when it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

#[test]
fn what_panics_in_the_list_does_not_reach_who_helps() {
    let held = Held::default();
    let (context, calls) = noted(&held, By::RunList, alone());
    context.submit(Request::nop()).unwrap();
    let mut future = context.start(Request::nop()).unwrap();
    let waker = Waker::from(Arc::new(Panics));
    let polled = Pin::new(&mut future).poll(&mut std::task::Context::from_waker(&waker));
    assert!(polled.is_pending());
    elsewhere(&held, |mut work| {
        work.on_end(By::RunList, |_, _| panic!("on purpose"));
        work.complete(Ok(5));
    });
    context.submit(Request::nop()).unwrap();
    assert_eq!(calls.lock().unwrap().iter().map(|call| call.3).collect::<Vec<_>>(), [Some(libc::EIO); 2]);
    assert_eq!(block_on(future).result.unwrap(), 1);
    assert_eq!(one(&context).result.unwrap(), 1);
    drop(held.take());
}

#[test]
fn what_is_cancelled_is_left_to_the_list_too() {
    let held = Held::default();
    let (context, calls) = noted(&held, By::RunList, alone());
    let id = context.submit(Request::nop()).unwrap();
    let token = held.take().pop().unwrap().cancellable();
    context.cancel(id).unwrap();
    assert!(token.is_cancelled() && calls.lock().unwrap().is_empty());
    // Finished already, and so out of reach.
    context.cancel(id).unwrap_err();
    assert_eq!(code(&one(&context)), None, "one byte of the hook's");
    assert_eq!(calls.lock().unwrap()[0].3, Some(libc::ECANCELED));
}

#[test]
fn requests_of_layers_go_to_the_list_of_the_context_above() {
    never_hang();
    let (held, calls) = (Held::default(), Calls::default());
    let below = Noted { below: held.clone(), number: 1, by: By::RunList, calls: calls.clone() };
    let layers = Transparent::new(4, Transparent::new(4, below));
    let context = Builder::new(4).run_list(alone()).build(layers).unwrap();
    for _ in 0..3 {
        context.submit(Request::nop()).unwrap();
        elsewhere(&held, |work| work.complete(Ok(5)));
        assert!(calls.lock().unwrap().is_empty());
        assert_eq!(one(&context).result.unwrap(), 6);
        assert_eq!(calls.lock().unwrap().drain(..).map(|call| call.1).collect::<Vec<_>>(), [me()]);
    }
    // Nor is it in the way of the end.
    context.submit(Request::nop()).unwrap();
    elsewhere(&held, |work| work.complete(Ok(5)));
    drop(context);
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[test]
fn all_at_once() {
    never_hang();
    const EACH: u64 = 5000;
    let calls = Arc::new(AtomicU32::new(0));
    struct Counts(Null, Arc<AtomicU32>);
    impl Backend for Counts {
        fn submit(&self, mut work: Completion) -> Submitted {
            let calls = self.1.clone();
            work.on_end(By::RunList, move |request, outcome| {
                calls.fetch_add(1, Relaxed);
                request.user_data += 1;
                outcome
            });
            self.0.submit(work)
        }
    }
    let list =
        runlist::Builder::new().help_on_submit(2).worker_delay(Duration::ZERO, Duration::from_millis(1));
    let context = Builder::new(32).run_list(list).build(Counts(Null, calls.clone())).unwrap();
    thread::scope(|scope| {
        let submit = || {
            for i in 0..EACH {
                while context.submit(Request::nop().with_user_data(i)).is_err() {
                    thread::yield_now();
                }
            }
        };
        scope.spawn(submit);
        scope.spawn(submit);
        let (mut left, mut sum) = (2 * EACH, 0);
        while left > 0 {
            left -= context.visit(1, 16, None, |event| sum += event.request().user_data).unwrap() as u64;
        }
        assert_eq!(sum, EACH * (EACH + 1));
    });
    assert_eq!(u64::from(calls.load(Relaxed)), 2 * EACH);
}
