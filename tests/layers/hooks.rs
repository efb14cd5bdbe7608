//! What layers have called when a request has ended: in which order, by whom, once, and what is told of it.

use crate::transparent::Transparent;
use crate::{Held, code, one, stacked, support::never_hang};
use ioctx::aio::{Backend, By, Completion, Context, Outcome, Request, Submitted};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

/// What was called: which hook, on which thread, with which bytes and error.
pub(crate) type Calls = Arc<Mutex<Vec<(u32, ThreadId, usize, Option<i32>)>>>;

/// Passes requests on with a hook that adds its number to the bytes.
pub(crate) struct Noted<B> {
    pub(crate) below: B,
    pub(crate) number: u32,
    pub(crate) by: By,
    pub(crate) calls: Calls,
}

/// Without a run list, who completes a request does what was left to one.
const ALL: [By; 3] = [By::Completer, By::RunList, By::Reader];

/// Counts what was dropped.
struct Counted(Arc<Mutex<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

fn errno(outcome: &Outcome) -> Option<i32> {
    outcome.error.as_ref().and_then(io::Error::raw_os_error)
}

fn note(calls: &Calls, number: u32, outcome: &Outcome) {
    calls.lock().unwrap().push((number, thread::current().id(), outcome.bytes, errno(outcome)));
}

impl<B: Backend> Backend for Noted<B> {
    fn submit(&self, mut work: Completion) -> Submitted {
        let (calls, number) = (self.calls.clone(), self.number);
        work.on_end(self.by, move |_, mut outcome| {
            note(&calls, number, &outcome);
            outcome.bytes += number as usize;
            outcome
        });
        self.below.submit(work)
    }

    fn cancel_all(&self) {
        self.below.cancel_all();
    }
}

/// Three layers over what is held, from the top.
fn three(by: [By; 3], held: &Held) -> (Context<impl Backend>, Calls) {
    never_hang();
    let calls = Calls::default();
    let [first, second, third] = by;
    let layer = |number, by| (number, by, calls.clone());
    fn over<B: Backend>(below: B, (number, by, calls): (u32, By, Calls)) -> Noted<B> {
        Noted { below, number, by, calls }
    }
    let backend = over(over(over(held.clone(), layer(300, third)), layer(20, second)), layer(1, first));
    (Context::new(4, backend).unwrap(), calls)
}

/// Completes what is held on another thread, and says which that was.
pub(crate) fn elsewhere(held: &Held, end: impl Fn(Completion) + Sync) -> ThreadId {
    let complete = || {
        held.take().into_iter().for_each(&end);
        thread::current().id()
    };
    thread::scope(|scope| scope.spawn(complete).join().unwrap())
}

#[test]
fn hooks_are_called_from_the_innermost_outwards_each_where_it_belongs() {
    use By::{Completer, Reader};
    for by in [[Completer; 3], [Reader, Completer, Completer], [Completer, Reader, Completer], [Reader; 3]] {
        let held = Held::default();
        let (context, calls) = three(by, &held);
        for _ in 0..2 {
            context.submit(Request::nop()).unwrap();
            let completer = elsewhere(&held, |work| work.complete(Ok(4000)));
            let reader = thread::current().id();
            assert_eq!(one(&context).result.unwrap(), 4321);
            // From the first one on that is left to the reader, all are.
            let left = by.iter().rposition(|by| *by == Reader);
            let place = |layer| if left.is_some_and(|left| layer <= left) { reader } else { completer };
            let expected = [(300, place(2), 4000), (20, place(1), 4300), (1, place(0), 4320)];
            let called = std::mem::take(&mut *calls.lock().unwrap());
            assert_eq!(called, expected.map(|(number, thread, bytes)| (number, thread, bytes, None)));
        }
    }
}

#[test]
fn hooks_are_told_bytes_and_error_apart() {
    let held = Held::default();
    for by in ALL {
        let (context, calls) = three([by; 3], &held);
        context.submit(Request::nop()).unwrap();
        let error = io::Error::from_raw_os_error(libc::EIO);
        drop(held.take().pop().unwrap().finish_partly(4000, error));
        assert_eq!(one(&context).result.unwrap(), 4321);
        let told = calls.lock().unwrap().iter().map(|call| (call.2, call.3)).collect::<Vec<_>>();
        assert_eq!(told, [4000, 4300, 4320].map(|bytes| (bytes, Some(libc::EIO))));
    }
}

#[test]
fn what_is_dropped_or_cancelled_calls_its_hooks_too() {
    type End = fn(&Context<Noted<Held>>, &Held);
    let ends: [End; 4] = [
        |_, held| drop(held.take()),
        |_, held| drop(held.take().pop().unwrap().cancellable()),
        |context, held| {
            let token = held.take().pop().unwrap().cancellable();
            context.cancel(token.id()).unwrap();
        },
        |context, held| {
            let _token = held.take().pop().unwrap().cancellable();
            context.destroy(None).unwrap();
        },
    ];
    for by in ALL {
        for end in ends {
            let (held, calls) = (Held::default(), Calls::default());
            let layer = Noted { below: held.clone(), number: 0, by, calls: calls.clone() };
            let context = Context::new(4, layer).unwrap();
            context.submit(Request::nop()).unwrap();
            end(&context, &held);
            assert_eq!(code(&one(&context)), Some(libc::ECANCELED));
            let calls = calls.lock().unwrap();
            assert_eq!(calls.iter().map(|call| call.3).collect::<Vec<_>>(), [Some(libc::ECANCELED)]);
        }
    }
}

#[test]
fn what_nobody_reads_calls_its_hooks_too() {
    let held = Held::default();
    for by in ALL {
        let (context, calls) = three([by; 3], &held);
        context.submit(Request::nop()).unwrap();
        held.take().into_iter().for_each(|work| work.complete(Ok(1)));
        let unpolled = context.start(Request::nop()).unwrap();
        held.take().into_iter().for_each(|work| work.complete(Ok(1)));
        let left = context.start(Request::nop()).unwrap();
        drop(left);
        held.take().into_iter().for_each(|work| work.complete(Ok(1)));
        drop(context);
        drop(unpolled);
        assert_eq!(calls.lock().unwrap().len(), 9);
    }
}

#[test]
fn a_future_and_a_layer_are_readers() {
    let held = Held::default();
    for by in ALL {
        let (context, _) = three([by; 3], &held);
        let mut future = context.start(Request::nop()).unwrap();
        held.take().into_iter().for_each(|work| work.complete(Ok(4000)));
        let mut task = std::task::Context::from_waker(Waker::noop());
        let Poll::Ready(event) = Pin::new(&mut future).poll(&mut task) else { panic!("it has ended") };
        assert_eq!(event.result.unwrap(), 4321);

        // Requests of a layer, with hooks of one that is below it.
        let calls = Calls::default();
        let below = Noted { below: held.clone(), number: 21, by, calls: calls.clone() };
        let context = Context::new(4, Transparent::new(4, below)).unwrap();
        context.submit(Request::nop()).unwrap();
        held.take().into_iter().for_each(|work| work.complete(Ok(4000)));
        assert_eq!(context.backend().last(), (4021, None));
        assert_eq!(one(&context).result.unwrap(), 4021);
        assert_eq!(calls.lock().unwrap().len(), 1);
    }
}

/// Passes requests on as reads of its own buffer, and gives them theirs back.
struct Swapped(Held, By);

impl Backend for Swapped {
    fn submit(&self, mut work: Completion) -> Submitted {
        let own = std::mem::replace(work.request_mut(), Request::nop());
        work.on_end(self.1, move |request, outcome| {
            *request = own;
            outcome
        });
        self.0.submit(work)
    }
}

#[test]
fn what_is_refused_comes_back_as_its_hooks_leave_it() {
    let held = Held::default();
    for by in ALL {
        let context = Context::new(2, Swapped(held.clone(), by)).unwrap();
        held.refuse(true);
        let request = || Request::write(tempfile::tempfile().unwrap(), vec![7; 5], 3);
        let refused = context.submit(request()).unwrap_err();
        assert!(refused.to_string().contains("not permitted"), "{refused}");
        assert_eq!(refused.request.into_buffer::<Vec<u8>>().unwrap(), [7; 5]);
        let mut batch = vec![request()];
        context.submit_batch(&mut batch).unwrap_err();
        assert_eq!(batch.remove(0).into_buffer::<Vec<u8>>().unwrap(), [7; 5]);
        held.refuse(false);
        for _ in 0..3 {
            context.submit(request()).unwrap();
            held.take().into_iter().for_each(|work| work.complete(Ok(1)));
            assert_eq!(one(&context).request.into_buffer::<Vec<u8>>().unwrap(), [7; 5]);
        }
    }
}

#[test]
fn a_hook_that_panics_is_an_error_and_the_others_are_called() {
    let held = Held::default();
    for by in ALL {
        let (context, calls) = three([by; 3], &held);
        context.submit(Request::nop()).unwrap();
        let mut work = held.take().pop().unwrap();
        work.on_end(by, |_, _| panic!("on purpose"));
        let counted = Counted(Arc::default());
        let dropped = counted.0.clone();
        work.on_end(by, move |_, _| {
            let _counted = &counted;
            std::panic::panic_any(PanicsAgain);
        });
        let ended = catch_unwind(AssertUnwindSafe(|| {
            work.complete(Ok(4000));
            one(&context)
        }));
        assert_eq!(ended.unwrap().result.unwrap(), 321, "what the others make of it");
        assert_eq!(*dropped.lock().unwrap(), 1);
        let told: Vec<_> = calls.lock().unwrap().iter().map(|call| (call.2, call.3)).collect();
        assert_eq!(told, [0, 300, 320].map(|bytes| (bytes, Some(libc::EIO))));
    }
}

/// Thrown, and panics when it is dropped.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        // Nothing that needs memory: it is leaked.
        std::panic::panic_any(());
    }
}

#[test]
fn cookies_of_any_size_are_dropped_once() {
    fn with<const N: usize>(by: By, held: &Held, context: &Context<Held>) {
        #[repr(align(16))]
        struct Aligned;
        let dropped = Arc::new(Mutex::new(0));
        // A word, which lies inline; more, which are boxed; and what is aligned more strictly than a word.
        let (one, many) = (Counted(dropped.clone()), [(); N].map(|()| Counted(dropped.clone())));
        let aligned = (Aligned, Counted(dropped.clone()));
        context.submit(Request::nop()).unwrap();
        let mut work = held.take().pop().unwrap();
        work.on_end(by, move |_, outcome| {
            let _one = &one;
            outcome
        });
        work.on_end(by, move |_, outcome| {
            let _many = &many;
            outcome
        });
        work.on_end(by, move |_, outcome| {
            let aligned = &aligned;
            assert!((&raw const aligned.0).addr().is_multiple_of(16));
            outcome
        });
        assert_eq!(*dropped.lock().unwrap(), 0);
        work.complete(Ok(5));
        assert_eq!(*dropped.lock().unwrap(), if by == By::Reader { 0 } else { N + 2 } as u32);
        assert_eq!(super::one(context).result.unwrap(), 5);
        assert_eq!(*dropped.lock().unwrap(), N as u32 + 2);
    }
    let held = Held::default();
    let context = Context::new(1, held.clone()).unwrap();
    for by in ALL {
        with::<0>(by, &held, &context);
        with::<1>(by, &held, &context);
        with::<2>(by, &held, &context);
        with::<9>(by, &held, &context);
    }
}

#[test]
fn a_hook_may_submit_and_one_of_many_layers_forgets_none() {
    let held = Held::default();
    let context = Arc::new(Context::new(4, held.clone()).unwrap());
    context.submit(Request::nop()).unwrap();
    let mut work = held.take().pop().unwrap();
    for layer in 0..1000 {
        let again = context.clone();
        work.on_end(By::Completer, move |request, mut outcome| {
            assert_eq!(outcome.bytes, 999 - layer);
            outcome.bytes += 1;
            request.user_data += 1;
            if layer == 500 {
                again.submit(Request::nop().with_user_data(1)).unwrap();
            }
            outcome
        });
    }
    work.complete(Ok(0));
    let event = one(&context);
    assert_eq!((event.result.unwrap(), event.request.user_data), (1000, 1000));
    held.take().into_iter().for_each(|work| work.complete(Ok(7)));
    assert_eq!(one(&context).result.unwrap(), 7);
}

#[test]
fn readers_of_all_kinds_call_what_was_left_to_them() {
    let held = Held::default();
    let plain = Context::new(4, held.clone()).unwrap();
    type Look = fn(&Context<Held>) -> (u64, usize);
    let read: [Look; 3] = [
        |context| {
            let event = one(context);
            (event.request.user_data, event.result.unwrap())
        },
        |context| {
            let mut seen = None;
            let look = |event: ioctx::aio::Visited<'_>| {
                seen = Some((event.request().user_data, event.result().unwrap()));
            };
            context.visit(1, 1, None, look).unwrap();
            seen.unwrap()
        },
        |context| {
            let mut task = std::task::Context::from_waker(Waker::noop());
            let Poll::Ready(event) = Pin::new(&mut context.events()).poll_next(&mut task) else { panic!() };
            let event = event.unwrap();
            (event.request.user_data, event.result.unwrap())
        },
    ];
    for read in read {
        plain.submit(Request::nop().with_user_data(1)).unwrap();
        let reader = thread::current().id();
        elsewhere(&held, |mut work| {
            work.on_end(By::Reader, move |request, mut outcome| {
                assert_eq!(thread::current().id(), reader);
                request.user_data += 1;
                outcome.bytes *= 2;
                outcome
            });
            work.complete(Ok(4));
        });
        assert_eq!(read(&plain), (2, 8));
    }
    // Both layers are readers of the requests that they have submitted.
    let context = stacked(&held);
    context.submit(Request::nop()).unwrap();
    let mut work = held.take().pop().unwrap();
    work.on_end(By::Reader, |_, outcome| outcome.into_result().map(|n| n + 1).into());
    work.complete(Ok(4));
    assert_eq!(one(&context).result.unwrap(), 5);
}
