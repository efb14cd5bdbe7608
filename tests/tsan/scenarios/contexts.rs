//! Contexts: payloads go with their requests.

use super::raw::{Lock, Payload, run, touch_all, until};
use ioctx::aio::{
    Backend, BufferMut, Cancellable, Completion, Context, FileRef, GetEventsError, Op, Reason, Request,
    RequestId, Submitted,
};
use ioctx::backend::Null;
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{self, Poll, Waker};
use std::time::Instant;
use std::{mem, thread};

const REQUESTS: usize = 1500;

/// A read into the payload of this number, and into memory of its own.
fn request(words: &[Payload], word: usize) -> Request {
    // SAFETY: never closed. A number only, since files are shared by `Arc`.
    let file = unsafe { FileRef::borrowed(BorrowedFd::borrow_raw(0)) };
    // SAFETY: 1. eight bytes of it. 2. until its event is there nobody else uses them.
    let theirs = unsafe { BufferMut::from_raw_parts(words[word].as_ptr(), 8) };
    Request::readv(file, [theirs, BufferMut::from(vec![0; 8])], 0).with_user_data(word as u64)
}

/// Writes to all memory that a request has.
fn fill(request: &mut Request) {
    let Op::ReadV { bufs, .. } = &mut request.op else { unreachable!("all are such") };
    for buf in bufs {
        buf[0] = buf[0].wrapping_add(1);
    }
}

/// Submits the words from the one of this number on, two apart, until the context is being destroyed or there are no
/// more; `meanwhile` is told the name of each, and what to do when there is no room. Returns how many.
fn submit<B: Backend>(
    context: &Context<B>,
    words: &[Payload],
    from: usize,
    meanwhile: impl Fn(Option<RequestId>),
) -> usize {
    for (n, word) in (from..words.len()).step_by(2).enumerate() {
        // SAFETY: 1. ours until it is submitted.
        unsafe { words[word].touch() };
        let mut request = request(words, word);
        loop {
            match context.submit(request) {
                Ok(id) => break meanwhile(Some(id)),
                Err(refused) if matches!(refused.reason, Reason::Full) => request = refused.request,
                Err(refused) if matches!(refused.reason, Reason::Dying) => return n,
                Err(refused) => panic!("{refused}"),
            }
            meanwhile(None);
            thread::yield_now();
        }
    }
    (words.len() - from).div_ceil(2)
}

/// Reads what there is, in both ways; returns how many, and whether that was the end.
fn read<B: Backend>(context: &Context<B>, words: &[Payload]) -> (usize, bool) {
    // SAFETY: 1. the event has handed it over.
    let touch = |request: &Request| unsafe { words[request.user_data as usize].touch() };
    let visited = context.visit(0, 2, None, |mut event| {
        fill(event.request_mut());
        touch(event.request());
    });
    let mut events = Vec::new();
    let read = context.get_events(0, 2, None, &mut events);
    for event in &mut events {
        fill(&mut event.request);
        touch(&event.request);
    }
    (visited.unwrap_or(0) + read.unwrap_or(0), read == Err(GetEventsError::Dying))
}

/// Submits in two threads, which read what keeps others out, destroys in the third, and reads to the end in all.
fn to_the_end<B: Backend>(
    planted: bool,
    context: &Context<B>,
    meanwhile: impl Fn(Option<RequestId>) + Sync,
    third: impl Fn() + Sync,
) {
    let words = Payload::many(REQUESTS);
    let [accepted, got] = [(); 2].map(|()| AtomicUsize::new(0));
    let read_some = || {
        let (n, ended) = read(context, &words);
        got.fetch_add(n, Relaxed);
        ended.then_some(())
    };
    run(&|place| {
        if place < 2 {
            let n = submit(context, &words, place, |id| {
                meanwhile(id);
                if id.is_none() {
                    read_some();
                }
            });
            accepted.fetch_add(n, Relaxed);
        } else {
            until(|| {
                third();
                read_some();
                (got.load(Relaxed) > REQUESTS / 2).then_some(())
            });
            // Without waiting: condition variables are not seen.
            drop(context.destroy(Some(Instant::now())));
        }
        until(|| {
            if place == 2 {
                third();
            }
            read_some()
        });
        if place == 2 {
            assert_eq!(context.wait_destroyed(Some(Instant::now())), Ok(()));
        }
        if planted {
            // SAFETY: 1. to be found out.
            unsafe { touch_all(&words) };
        }
    });
    assert_eq!((got.into_inner(), context.outstanding()), (accepted.into_inner(), 0));
}

pub fn inline(planted: bool) {
    let context = Context::new(4, Null).unwrap();
    to_the_end(planted, &context, |_| (), || ());
}

/// Puts requests aside for a thread to begin, and some of them not.
struct Desk<'a>(&'a Lock<Vec<Aside>>);

enum Aside {
    Offered(Cancellable),
    Begun(Completion),
}

impl Backend for Desk<'_> {
    fn submit(&self, work: Completion) -> Submitted {
        let aside = match work.request().user_data % 3 {
            0 => Aside::Begun(work),
            _ => Aside::Offered(work.cancellable()),
        };
        self.0.with(|desk| desk.push(aside));
        Submitted::Queued
    }
}

/// Begins a request, unless it was cancelled, and completes it.
fn carry_out(aside: Aside) {
    let work = match aside {
        Aside::Begun(work) => Some(work),
        Aside::Offered(token) => token.claim(),
    };
    let Some(mut work) = work else { return };
    fill(work.request_mut());
    work.complete(Ok(1));
}

pub fn elsewhere(planted: bool) {
    let desk = Lock::new(Vec::new());
    let context = Context::new(4, Desk(&desk)).unwrap();
    // Says which was submitted last, by whichever thread, and orders nothing.
    let last = AtomicU64::new(0);
    let cancel = |id: Option<RequestId>| {
        if let Some(id) = id {
            // Or it has begun, or is finished.
            let _ = context.cancel(RequestId::from_raw(last.swap(id.into_raw(), Relaxed)));
        }
    };
    to_the_end(planted, &context, cancel, || desk.with(mem::take).into_iter().for_each(carry_out));
}

pub fn outlived(planted: bool) {
    for round in 0..60 {
        let words = Payload::many(2);
        let desk = Lock::new(Vec::new());
        let context = Lock::new(Some(Context::new(2, Desk(&desk)).unwrap()));
        run(&|place| {
            if place == 0 {
                let context = context.with(Option::take).unwrap();
                for word in 0..2 {
                    // 1 and 2 of 3: those that can be cancelled.
                    context.submit(request(&words, word).with_user_data(word as u64 + 1)).unwrap();
                }
                if round % 2 == 0 {
                    let mut end = pin!(context.destroy_async());
                    let polled = end.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
                    assert_eq!(polled, Poll::Ready(Ok(())));
                } else {
                    assert_eq!(context.destroy(Some(Instant::now())), Ok(()));
                }
                drop(context);
                // SAFETY: 1. the requests are finished, and were dropped.
                unsafe { touch_all(&words) };
            } else {
                let token = until(|| desk.with(Vec::pop));
                let Aside::Offered(token) = token else { unreachable!("all are offered") };
                // Not before: dropped, it completes its request.
                until(|| token.is_cancelled().then_some(()));
                // Whichever comes last, the tokens or the context's owner, frees what they share.
                (0..round).for_each(|_| thread::yield_now());
                drop(token);
                if planted {
                    // SAFETY: 1. to be found out.
                    unsafe { touch_all(&words) };
                }
            }
        });
    }
}
