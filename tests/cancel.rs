//! Cancelling, visiting in place, and the end of contexts whose requests do not end.

use ioctx::aio::{
    Backend, CancelError, Cancellable, Completion, Context, DestroyError, Event, GetEventsError, Reason,
    Request, RequestId, Submitted,
};
use ioctx::backend::{Null, Threads};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Puts requests aside; keeps those with user data from 100 on as if they ran.
#[derive(Clone, Default)]
struct Desk {
    aside: Arc<Mutex<Vec<Cancellable>>>,
    runs: Arc<Mutex<Vec<Completion>>>,
}

impl Backend for Desk {
    fn submit(&self, work: Completion) -> Submitted {
        if work.request().user_data < 100 {
            self.aside.lock().unwrap().push(work.cancellable());
        } else {
            self.runs.lock().unwrap().push(work);
        }
        Submitted::Queued
    }
}

/// The test's side of a desk. Dropped, it clears the desk, so that a test that fails ends.
struct Ours(Desk);

impl std::ops::Deref for Ours {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.0
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        }
    }
}

fn desk(capacity: u32) -> (Context<Desk>, Ours) {
    let desk = Desk::default();
    (Context::new(capacity, desk.clone()).unwrap(), Ours(desk))
}

fn nop(user_data: u64) -> Request {
    Request::nop().with_user_data(user_data)
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(30))
}

fn read<B: Backend>(context: &Context<B>, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    assert_eq!(context.get_events(n, n, None, &mut events), Ok(n));
    events
}

/// Name, user data and error number, the first alone where there is no error.
fn said(event: &Event) -> (RequestId, u64, Option<i32>) {
    (event.id, event.request.user_data, event.result.as_ref().err().and_then(std::io::Error::raw_os_error))
}

const CANCELED: Option<i32> = Some(libc::ECANCELED);

#[test]
fn what_is_put_aside_can_be_cancelled_and_what_runs_cannot() {
    let (context, desk) = desk(4);
    let [aside, runs] = [1, 100].map(|user_data| context.submit(nop(user_data)).unwrap());
    assert_eq!(context.cancel(runs), Err(CancelError::Running));
    assert_eq!(context.cancel(aside), Ok(()));
    assert_eq!(said(&read(&context, 1)[0]), (aside, 1, CANCELED));
    assert_eq!(context.cancel(aside), Err(CancelError::Unknown));
    let token = desk.aside.lock().unwrap().pop().unwrap();
    assert!(token.is_cancelled() && token.id() == aside && token.claim().is_none());
    desk.runs.lock().unwrap().pop().unwrap().complete(Ok(5));
    assert_eq!(context.cancel(runs), Err(CancelError::Unknown), "finished, though nobody has read it");
    assert_eq!(said(&read(&context, 1)[0]), (runs, 100, None));
}

#[test]
fn a_request_can_be_put_aside_again() {
    let (context, desk) = desk(1);
    let id = context.submit(nop(1)).unwrap();
    let begun = desk.aside.lock().unwrap().pop().unwrap().claim().unwrap();
    assert_eq!((begun.id(), context.cancel(id)), (id, Err(CancelError::Running)));
    let again = begun.cancellable();
    assert!(!again.is_cancelled());
    assert_eq!(context.cancel(id), Ok(()));
    assert!(again.claim().is_none());
    assert_eq!(said(&read(&context, 1)[0]), (id, 1, CANCELED));
}

#[test]
fn a_dropped_token_completes_and_a_forgotten_one_can_be_cancelled() {
    let (context, desk) = desk(2);
    let dropped = context.submit(nop(1)).unwrap();
    desk.aside.lock().unwrap().clear();
    assert_eq!(said(&read(&context, 1)[0]), (dropped, 1, CANCELED));
    let forgotten = context.submit(nop(2)).unwrap();
    std::mem::forget(desk.aside.lock().unwrap().pop());
    assert_eq!(context.cancel(forgotten), Ok(()));
    context.submit(nop(3)).unwrap();
    std::mem::forget(desk.aside.lock().unwrap().pop());
    assert_eq!(context.destroy(None), Ok(()), "whom nobody can begin does not keep the context");
}

#[test]
fn a_name_is_good_for_one_request_of_one_context() {
    let (context, desk) = desk(1);
    let (other, _) = self::desk(1);
    let theirs = other.submit(nop(1)).unwrap();
    let mut old = Vec::new();
    for user_data in 0..50 {
        let id = context.submit(nop(user_data)).unwrap();
        old.push(theirs);
        old.extend([id.into_raw() + 1, id.into_raw() ^ (1 << 60), 0, u64::MAX].map(RequestId::from_raw));
        for stale in &old {
            assert_eq!(context.cancel(*stale), Err(CancelError::Unknown), "{stale:?}");
        }
        let begun = desk.aside.lock().unwrap().pop().unwrap().claim().unwrap();
        begun.complete(Ok(user_data as usize));
        assert_eq!(said(&read(&context, 1)[0]), (id, user_data, None));
        old.push(id);
    }
    assert_eq!(other.cancel(theirs), Ok(()));
}

#[test]
fn a_batch_says_by_which_names() {
    let (context, _desk) = desk(3);
    let mut batch: Vec<_> = (0..5).map(nop).collect();
    let mut ids = Vec::new();
    assert_eq!(context.submit_batch_with(&mut batch, |id| ids.push(id)).unwrap(), 3);
    assert_eq!(batch.len(), 2);
    for (user_data, id) in (0..).zip(ids) {
        assert_eq!(context.cancel(id), Ok(()));
        assert_eq!(said(&read(&context, 1)[0]), (id, user_data, CANCELED));
    }
}

#[test]
fn a_refused_request_leaves_no_name_behind() {
    struct Refuses(Mutex<Vec<RequestId>>);
    impl Backend for Refuses {
        fn submit(&self, work: Completion) -> Submitted {
            self.0.lock().unwrap().push(work.id());
            let work = work.cancellable().claim().unwrap();
            Submitted::Refused(work, std::io::ErrorKind::Unsupported.into())
        }
    }
    let context = Context::new(1, Refuses(Mutex::default())).unwrap();
    let refused = context.submit(nop(6)).unwrap_err();
    assert_eq!(refused.request.user_data, 6);
    let id = context.backend().0.lock().unwrap()[0];
    assert_eq!(context.cancel(id), Err(CancelError::Unknown));
    assert_eq!(context.wait_destroyed(soon()), Err(DestroyError::TimedOut { in_flight: 0, named: vec![] }));
}

#[test]
fn tokens_outlive_their_context() {
    for cancel_first in [true, false] {
        let (context, desk) = desk(2);
        let ids = [1, 2].map(|user_data| context.submit(nop(user_data)).unwrap());
        if cancel_first {
            context.cancel(ids[1]).unwrap();
        }
        drop(context);
        for token in desk.aside.lock().unwrap().drain(..) {
            assert!(token.is_cancelled() && token.claim().is_none());
        }
    }
}

#[test]
fn destroying_cancels_what_it_can_and_names_the_rest() {
    let (context, desk) = desk(32);
    for user_data in [1, 2, 100, 3].into_iter().chain(101..112) {
        context.submit(nop(user_data)).unwrap();
    }
    let Err(DestroyError::TimedOut { in_flight, named }) = context.destroy(soon()) else { panic!() };
    assert_eq!((in_flight, named.len()), (12, 8));
    for request in &named {
        assert!((100..112).contains(&request.user_data));
        assert_eq!(context.cancel(request.id), Err(CancelError::Running));
    }
    let message = DestroyError::TimedOut { in_flight, named }.to_string();
    assert!(
        message.starts_with("12 requests are still in flight, among them those with user data 1"),
        "{message}"
    );
    let mut cancelled: Vec<_> = read(&context, 3).iter().map(|event| event.request.user_data).collect();
    cancelled.sort_unstable();
    assert_eq!(cancelled, [1, 2, 3]);
    // What comes after is cancelled on its way into the queue.
    let late = desk.runs.lock().unwrap().pop().unwrap().cancellable();
    assert!(late.is_cancelled());
    desk.runs.lock().unwrap().clear();
    assert_eq!(context.wait_destroyed(None), Ok(()));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(Mutex<u32>);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn destroying_is_a_future_as_well() {
    let (context, desk) = desk(4);
    context.submit(nop(100)).unwrap();
    let woken = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut task = std::task::Context::from_waker(&waker);
    let mut end = pin!(context.destroy_async());
    assert!(matches!(context.submit(nop(1)).unwrap_err().reason, Reason::Dying), "polled or not");
    assert!(end.as_mut().poll(&mut task).is_pending());
    assert_eq!(pin!(context.destroy_async()).poll(&mut task), Poll::Ready(Err(DestroyError::Already)));
    assert_eq!(*woken.0.lock().unwrap(), 0);
    desk.runs.lock().unwrap().clear();
    assert_eq!(*woken.0.lock().unwrap(), 1);
    assert_eq!(end.as_mut().poll(&mut task), Poll::Ready(Ok(())));
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_the_end() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }
    let (context, desk) = desk(4);
    context.submit(nop(100)).unwrap();
    let mut end = Box::pin(context.destroy_async());
    let waker = Waker::from(Arc::new(Panics));
    assert!(end.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| desk.runs.lock().unwrap().clear())).is_err());
    drop(end);
    assert_eq!(context.wait_destroyed(Some(Instant::now() + Duration::from_secs(20))), Ok(()));
}

#[test]
fn many_are_destroyed_at_once() {
    let (contexts, desks): (Vec<_>, Vec<_>) = (0..20).map(|_| desk(4)).unzip();
    for (place, context) in (0..).zip(&contexts) {
        context.submit(nop(place % 2 * 100)).unwrap();
    }
    assert!(contexts[3].destroy(Some(Instant::now())).is_err());
    // One twice.
    let ends = Context::destroy_all(contexts.iter().chain([&contexts[0]]), soon());
    for (place, end) in ends.iter().enumerate() {
        match (place, place % 2) {
            (3 | 20, _) => assert_eq!(*end, Err(DestroyError::Already)),
            (_, 0) => assert_eq!(*end, Ok(())),
            _ => assert!(matches!(end, Err(DestroyError::TimedOut { in_flight: 1, .. }))),
        }
    }
    desks.iter().for_each(|desk| desk.runs.lock().unwrap().clear());
}

#[test]
fn a_visitor_takes_what_it_likes_and_may_submit() {
    let context = Context::new(2, Null).unwrap();
    let mut ids = [1, 2].map(|user_data| context.submit(nop(user_data)).unwrap());
    let mut shown = Vec::new();
    let visited = context.visit(2, 9, None, |mut event| {
        shown.push(event.id());
        event.request_mut().user_data += 10;
        if event.request().user_data == 11 {
            let Event { request, result, .. } = event.into_event();
            assert_eq!(result.unwrap(), 0);
            context.submit(request).expect("its place is free");
        }
    });
    shown.sort_unstable_by_key(|id| id.into_raw());
    ids.sort_unstable_by_key(|id| id.into_raw());
    assert_eq!((visited, shown.as_slice()), (Ok(2), ids.as_slice()));
    assert_eq!((read(&context, 1)[0].request.user_data, context.outstanding()), (11, 0));
    assert_eq!(
        (0..3).map(nop).filter_map(|request| context.submit(request).ok()).count(),
        2,
        "each tag once"
    );
    assert_eq!(context.visit(2, 1, None, |_| ()), Err(GetEventsError::Range { min: 2, max: 1 }));
}

#[test]
fn a_visited_request_gives_its_buffers_up_at_once() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let context = Context::new(2, Null).unwrap();
    context.submit(Request::read(Arc::clone(&file), vec![0; 8], 0)).unwrap();
    context.visit(1, 1, None, |event| assert!(event.result().is_ok())).unwrap();
    assert_eq!((Arc::strong_count(&file), context.outstanding()), (1, 0));
}

#[test]
fn a_visitor_that_panics_loses_no_other_event() {
    let context = Context::new(200, Null).unwrap();
    for user_data in 0..200 {
        context.submit(nop(user_data)).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            context.visit(1, 200, None, |event| {
                seen.push(event.request().user_data);
                assert!(!event.request().user_data.is_multiple_of(17), "on purpose");
            })
        }));
    }
    seen.sort_unstable();
    assert_eq!((seen, context.outstanding()), ((0..200).collect(), 0));
    assert_eq!(
        (0..201).map(nop).filter_map(|request| context.submit(request).ok()).count(),
        200,
        "each tag once"
    );
}

#[test]
fn a_pool_whose_threads_are_stuck_can_be_cancelled_and_says_what_is() {
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = Arc::new(std::fs::File::from(std::os::fd::OwnedFd::from(reader)));
    let request = |user_data| Request::read(Arc::clone(&reader), vec![0; 1], 0).with_user_data(user_data);
    let context = Context::new(8, Threads::new(1).unwrap()).unwrap();
    let first = context.submit(request(1)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Before the thread has begun it is cancelled; then there is another.
    let mut running = first;
    while context.cancel(running) != Err(CancelError::Running) {
        assert!(Instant::now() < deadline);
        running = context.submit(request(1)).unwrap();
        thread::sleep(Duration::from_millis(1));
        context.visit(0, 8, None, drop_event).unwrap();
    }
    // Again and again, and the queue does not grow.
    for _ in 0..10_000 {
        let queued = context.submit(request(2)).unwrap();
        context.cancel(queued).unwrap();
        assert_eq!(read(&context, 1)[0].id, queued);
    }
    let queued = format!("{:?}", context.backend()).matches("Cancellable").count();
    context.submit(request(3)).unwrap();
    let Err(DestroyError::TimedOut { in_flight: 1, named }) = context.destroy(soon()) else { panic!() };
    assert_eq!((named[0].id, named[0].user_data), (running, 1));
    assert_eq!(said(&read(&context, 1)[0]).1, 3, "cancelled by the destroyer");
    drop(writer);
    assert_eq!(context.wait_destroyed(None), Ok(()));
    assert!(queued < 50, "{queued} tokens in the queue");
}

fn drop_event(event: ioctx::aio::Visited<'_>) {
    drop(event);
}
