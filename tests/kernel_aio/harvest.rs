//! Batches handed over, and completions found.

use super::*;

#[test]
fn sleeping_readers_are_woken() {
    const TURNS: u64 = 200;
    for in_place in [true, false] {
        let Some(kernel) = kernel(TURNS as u32) else { return };
        let kernel = kernel.inline_cached(false).reap_in_user_space(in_place);
        let context = Context::new(TURNS as u32, kernel).unwrap();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut events, mut data) = (Vec::new(), Vec::new());
                        while context.get_events(1, 4, None, &mut events).is_ok() {
                            data.extend(events.drain(..).map(|event| event.request.user_data));
                        }
                        data
                    })
                })
                .collect();
            // Each from a thread of its own, which ends before its request, and begun when readers sleep or are about
            // to.
            thread::scope(|scope| {
                for turn in 0..TURNS {
                    let context = &context;
                    scope.spawn(move || {
                        let (reader, mut writer) = pipe();
                        let request = match turn % 3 {
                            0 => endless_read(&reader),
                            1 => endless_poll(&reader),
                            _ => Request::custom(|| Ok(0)),
                        };
                        context.submit(request.with_user_data(turn)).unwrap();
                        if turn % 4 == 0 {
                            thread::sleep(Duration::from_millis(2));
                        }
                        writer.write_all(b"x").unwrap();
                    });
                    if turn % 16 == 0 {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
            while context.outstanding() > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(context.destroy(None), Ok(()));
            let mut data: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            data.sort_unstable();
            assert_eq!(data, Vec::from_iter(0..TURNS));
        });
    }
}

#[test]
fn the_thread_that_submitted_may_end_before_its_request() {
    let Some(context) = context(16, false) else { return };
    let pipes: Vec<(File, PipeWriter)> = (0..8).map(|_| pipe()).collect();
    for (n, (reader, _)) in pipes.iter().enumerate() {
        let request = endless_read(reader).with_user_data(n as u64);
        thread::scope(|scope| _ = scope.spawn(|| context.submit(request).unwrap()).join().unwrap());
    }
    for (n, (_, writer)) in pipes.iter().enumerate() {
        (&*writer).write_all(&[n as u8]).unwrap();
    }
    let mut events = read(&context, 8);
    events.sort_by_key(|event| event.request.user_data);
    for (n, event) in events.into_iter().enumerate() {
        assert_eq!(event.result.unwrap(), 1, "{n}");
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[0], n as u8);
    }
}

#[test]
fn two_backends_in_one_thread_do_not_hold_back_each_others_batches() {
    let (Some(outer), Some(inner)) = (context(8, false), context(8, false)) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let write = || Request::write(file.clone(), vec![0; 8], 0);
    let mut batch = vec![write(), write()];
    outer
        .submit_batch_with(&mut batch, |_| {
            inner.submit(write()).unwrap();
            assert_eq!(read(&inner, 1)[0].result.as_ref().unwrap(), &8);
        })
        .unwrap();
    // Handed over, before anybody waits.
    assert!(is_ready(&outer));
    assert_eq!(read(&outer, 2).len(), 2);
}

#[test]
fn who_waits_in_the_middle_of_a_batch_has_it_handed_over() {
    let Some(context) = context(8, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let mut batch: Vec<_> = (0..3).map(|_| Request::write(file.clone(), vec![0; 8], 0)).collect();
    context
        .submit_batch_with(&mut batch, |id| {
            assert!(!is_ready(&context));
            assert_eq!(read(&context, 1)[0].id, id);
            assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
        })
        .unwrap();
    // So has who destroys.
    let mut batch = vec![Request::write(file, vec![0; 8], 0)];
    let destroy = |_| {
        context.backend().cancel_all();
        assert!(is_ready(&context));
    };
    context.submit_batch_with(&mut batch, destroy).unwrap();
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &8);
}

#[test]
fn a_long_batch_is_begun_before_its_end() {
    // One of the queues is full by then, whichever CPUs the thread was on.
    let n = 128 * ioctx::cpu::possible();
    let Some(context) = context(n, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let mut batch: Vec<_> = (0..n).map(|_| Request::write(file.clone(), vec![0; 8], 0)).collect();
    let mut accepted = 0;
    let look = |_| {
        accepted += 1;
        assert!(accepted < n || is_ready(&context));
    };
    assert_eq!(context.submit_batch_with(&mut batch, look).unwrap(), n as usize);
    assert_eq!(read(&context, n as usize).len(), n as usize);
}

#[test]
fn a_descriptor_tells_who_watches_many() {
    for in_place in [true, false] {
        let Some(kernel) = kernel(128) else { return };
        let kernel = kernel.inline_cached(false).reap_in_user_space(in_place);
        let context = Context::new(128, kernel).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        // One, and as many as are harvested at a time, and more.
        for n in [1, 2, 63, 64, 65, 128] {
            assert!(!is_ready(&context));
            let mut batch: Vec<_> = (0..n).map(|_| Request::write(file.clone(), vec![0; 8], 0)).collect();
            assert_eq!(context.submit_batch(&mut batch).unwrap(), n);
            assert!(is_ready(&context));
            assert_eq!(context.get_events(0, n, None, &mut Vec::new()), Ok(n));
            // Until nothing was found.
            assert_eq!(context.get_events(0, n, None, &mut Vec::new()), Ok(0));
        }
        assert!(!is_ready(&context));
        // Somebody else writes to it, or reads it: events come nevertheless, and are waited for.
        for disturb in [true, false] {
            context.submit(Request::write(file.clone(), vec![0; 8], 0)).unwrap();
            let descriptor = context.backend().descriptor().unwrap();
            if disturb {
                rustix::io::write(descriptor, &1000_u64.to_ne_bytes()).unwrap();
            } else {
                rustix::io::read(descriptor, &mut [0; 8]).unwrap();
            }
            assert_eq!(read(&context, 1).len(), 1);
        }
        let (reader, mut writer) = pipe();
        context.submit(endless_poll(&reader)).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&context, 1).len());
            thread::sleep(Duration::from_millis(20));
            writer.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap(), 1);
        });
        assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
        assert!(!is_ready(&context));
    }
}

#[test]
fn who_watches_the_descriptor_alone_misses_nothing() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    const ROUNDS: u64 = 30_000;
    let Some(context) = context(8, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                // The second comes when the first is being harvested, now sooner, now later.
                for _ in 0..2 {
                    context.submit(Request::write(file.clone(), vec![0; 8], 0)).unwrap();
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                }
                while seen.load(Relaxed) < 2 * (round + 1) {
                    thread::yield_now();
                }
            }
        });
        let mut events = Vec::new();
        while events.len() < 2 * ROUNDS as usize {
            let watched = context.backend().descriptor().unwrap();
            let mut watched = [PollFd::from_borrowed_fd(watched, PollFlags::IN)];
            let long = Timespec { tv_sec: 20, tv_nsec: 0 };
            let ready = poll(&mut watched, Some(&long)).unwrap();
            if ready == 0 {
                // Lets the other thread end.
                seen.store(u64::MAX, Relaxed);
            }
            assert_eq!(ready, 1, "after {} events", events.len());
            context.get_events(0, 8, None, &mut events).unwrap();
            seen.store(events.len() as u64, Relaxed);
        }
    });
}

#[test]
fn a_future_is_completed_by_who_harvests() {
    let Some(context) = context(8, false) else { return };
    let (reader, mut writer) = pipe();
    let mut read = pin!(context.start(endless_read(&reader)).unwrap());
    let mut task = std::task::Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut task).is_pending());
    writer.write_all(b"ready").unwrap();
    let event = loop {
        assert_eq!(context.get_events(0, 8, None, &mut Vec::new()), Ok(0));
        match read.as_mut().poll(&mut task) {
            Poll::Ready(event) => break event,
            Poll::Pending => thread::yield_now(),
        }
    };
    assert_eq!(event.result.unwrap(), 5);
}

struct Panics;

impl std::task::Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("woken");
    }
}

#[test]
fn a_waker_that_panics_takes_nothing_from_others() {
    let Some(context) = context(8, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let write = |n| Request::write(file.clone(), vec![0; n], 0);
    for _ in 0..2 {
        let mut first = pin!(context.start(write(1)).unwrap());
        let waker = Waker::from(Arc::new(Panics));
        assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        (2..5).for_each(|n| _ = context.submit(write(n)).unwrap());
        let harvested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = context.get_events(0, 8, None, &mut Vec::new());
        }));
        assert_eq!(harvested.unwrap_err().downcast_ref(), Some(&"woken"));
        let mut written: Vec<_> = read(&context, 3).into_iter().map(|event| event.result.unwrap()).collect();
        written.sort_unstable();
        assert_eq!(written, [2, 3, 4]);
        let mut task = std::task::Context::from_waker(Waker::noop());
        let Poll::Ready(event) = first.poll(&mut task) else { panic!("its result was there") };
        assert_eq!(event.result.unwrap(), 1);
    }
}
