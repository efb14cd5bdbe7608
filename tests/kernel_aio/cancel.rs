//! Requests that end early, or would not end.

use super::*;

#[test]
fn what_waits_is_cancelled() {
    for inline in [false, true] {
        let Some(context) = context(8, inline) else { return };
        let (reader, mut writer) = pipe();
        for request in [endless_poll, endless_read] {
            let ids: Vec<_> = (0..4).map(|_| context.submit(request(&reader)).unwrap()).collect();
            for id in ids {
                assert_eq!(context.cancel(id), Ok(()));
                let event = read(&context, 1).pop().unwrap();
                assert_eq!((event.id, code(&event)), (id, CANCELED));
                assert_eq!(context.cancel(id), Err(CancelError::Unknown));
            }
        }
        // By another thread.
        let id = context.submit(endless_poll(&reader)).unwrap();
        thread::scope(|scope| _ = scope.spawn(|| assert_eq!(context.cancel(id), Ok(()))));
        assert_eq!(code(&read(&context, 1)[0]), CANCELED);
        // In the middle of a batch: the kernel has not got them yet. Also what it could not cancel any more.
        let file = tempfile::tempfile().unwrap();
        let mut batch =
            vec![endless_read(&reader), Request::write(file, vec![1; 8], 0), endless_poll(&reader)];
        let mut cancelled = 0;
        context
            .submit_batch_with(&mut batch, |id| cancelled += u32::from(context.cancel(id).is_ok()))
            .unwrap();
        assert_eq!(cancelled, 3);
        assert!(read(&context, 3).iter().all(|event| code(event) == CANCELED));
        // Nothing was taken out of the pipe.
        writer.write_all(b"x").unwrap();
        assert_eq!(one(&context, endless_read(&reader)).result.unwrap(), 1);
    }
}

#[test]
fn what_was_ready_and_is_not_any_more_waits_again_or_is_cancelled() {
    let Some(context) = context(8, false) else { return };
    if !pipes_can_be_asked() {
        return skip("pipes cannot be asked not to wait");
    }
    let (reader, mut writer) = pipe();
    for cancel in [false, true] {
        let id = context.submit(endless_read(&reader)).unwrap();
        // The kernel has said that it is ready, and nobody has looked.
        writer.write_all(b"x").unwrap();
        assert!(is_ready(&context));
        (&reader).read_exact(&mut [0]).unwrap();
        if cancel {
            assert_eq!(context.cancel(id), Ok(()));
        } else {
            assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
            writer.write_all(b"more").unwrap();
        }
        let event = read(&context, 1).pop().unwrap();
        assert_eq!((event.id, code(&event)), (id, if cancel { CANCELED } else { None }));
    }
}

#[test]
fn what_runs_or_is_done_is_not_cancelled() {
    let Some(context) = context(8, false) else { return };
    assert_eq!(context.cancel(RequestId::from_raw(u64::MAX)), Err(CancelError::Unknown));
    // Done within the system call, but nobody has looked.
    let file = tempfile::tempfile().unwrap();
    let done = context.submit(Request::write(file, vec![1; 8], 0)).unwrap();
    assert_eq!(context.cancel(done), Err(CancelError::Running));
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &8);
    // On the pool.
    let (begun, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (begun.clone(), end.clone());
    let custom = Request::custom(move || {
        barriers.0.wait();
        barriers.1.wait();
        Ok(3)
    });
    let id = context.submit(custom).unwrap();
    begun.wait();
    assert_eq!(context.cancel(id), Err(CancelError::Running));
    end.wait();
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &3);
}

#[test]
fn cancels_race_with_completions_and_with_submitters() {
    let Some(context) = context(32, false) else { return };
    let (reader, mut writer) = pipe();
    for round in 0..200 {
        let polls = round % 2 == 0;
        let request = || if polls { endless_poll(&reader) } else { endless_read(&reader) };
        let (told, ids) = std::sync::mpsc::channel();
        let mut written = 0;
        thread::scope(|scope| {
            let context = &context;
            scope.spawn(move || {
                for (n, id) in ids.iter().enumerate() {
                    if n % 4 != round % 4 {
                        let _ = context.cancel(id);
                    }
                }
            });
            let mut batch: Vec<_> = (0..8).map(|_| request()).collect();
            context.submit_batch_with(&mut batch, |id| told.send(id).unwrap()).unwrap();
            drop(told);
            // Also those that are cancelled may read.
            for _ in 0..8 {
                writer.write_all(&[0; 8]).unwrap();
                written += 8;
            }
        });
        let mut taken = 0;
        for event in read(&context, 8) {
            match event.result {
                Ok(n) if polls => assert_eq!(Readiness::from_result(n), Readiness::READABLE),
                Ok(n) => taken += n,
                Err(_) => assert_eq!(code(&event), CANCELED),
            }
        }
        let mut rest = vec![0; written - taken];
        (&reader).read_exact(&mut rest).unwrap();
    }
    assert_eq!(context.outstanding(), 0);
}

#[test]
fn what_cancelling_succeeded_for_ends() {
    const N: usize = 64;
    let Some(context) = context(N as u32, false) else { return };
    let (reader, _writer) = pipe();
    for _ in 0..300 {
        let (told, ids) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            // Held back, on their way into the kernel, or there: asked once.
            scope.spawn(|| ids.into_iter().for_each(|id| assert_eq!(context.cancel(id), Ok(()))));
            let mut batch: Vec<_> = (0..N).map(|_| endless_poll(&reader)).collect();
            let tell = |id| told.send(id).unwrap();
            assert_eq!(context.submit_batch_with(&mut batch, tell).unwrap(), N);
            drop(told);
        });
        let mut events = Vec::new();
        let long = Some(Instant::now() + Duration::from_secs(20));
        assert_eq!(context.get_events(N, N, long, &mut events), Ok(N));
        assert!(events.iter().all(|event| code(event) == CANCELED));
    }
}

/// Lets a context end in each way, with requests that do not end by themselves.
fn ends(end: impl FnOnce(&Context<Kernel>)) {
    let Some(context) = context(64, false) else { return };
    let (reader, _writer) = pipe();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..8 {
                    let request = if turn % 2 == 0 { endless_poll(&reader) } else { endless_read(&reader) };
                    context.submit(request).unwrap();
                }
            });
        }
    });
    end(&context);
    let mut events = Vec::new();
    assert_eq!(context.get_events(32, 64, None, &mut events), Ok(32));
    assert!(events.iter().all(|event| code(event) == CANCELED));
    assert_eq!(context.get_events(1, 64, None, &mut events), Err(GetEventsError::Dying));
}

fn poll_until_ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::yield_now(),
        }
    }
}

#[test]
fn destroying_cancels_what_waits() {
    ends(|context| assert_eq!(context.destroy(None), Ok(())));
    ends(|context| {
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        assert_eq!(context.destroy(deadline), Ok(()));
    });
    ends(|context| assert_eq!(Context::destroy_all([context], None), [Ok(())]));
    ends(|context| {
        assert_eq!(poll_until_ready(context.destroy_async()), Ok(()));
        assert_eq!(poll_until_ready(context.destroy_async()), Err(DestroyError::Already));
    });
}

#[test]
fn dropping_cancels_what_waits_and_waits_for_the_disk() {
    let Some(context) = context(32, false) else { return };
    let (reader, writer) = pipe();
    (0..16).for_each(|_| _ = context.submit(endless_read(&reader)).unwrap());
    let file = direct();
    if let Some(file) = &file {
        let mut batch: Vec<_> =
            (0..16).map(|n| Request::write(file.clone(), block(n), n * BLOCK as u64)).collect();
        assert_eq!(context.submit_batch(&mut batch).unwrap(), 16);
    }
    drop(context);
    drop(reader);
    // Their files are closed with them.
    assert_eq!((&writer).write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    for n in 0..16 {
        let Some(file) = &file else { return };
        let mut found = block(99);
        file.read_exact_at(&mut found, n * BLOCK as u64).unwrap();
        assert_eq!(found[..], block(n)[..]);
    }
}

#[test]
fn destroying_meets_submitters() {
    for round in 0..60 {
        let Some(context) = context(64, false) else { return };
        let (reader, _writer) = pipe();
        let begin = Barrier::new(3);
        let accepted = AtomicU64::new(0);
        thread::scope(|scope| {
            for request in [endless_read, endless_poll] {
                let (context, reader, begin, accepted) = (&context, &reader, &begin, &accepted);
                scope.spawn(move || {
                    begin.wait();
                    loop {
                        match context.submit(request(reader)) {
                            Ok(_) => _ = accepted.fetch_add(1, Relaxed),
                            Err(refused) if matches!(refused.reason, Reason::Full) => thread::yield_now(),
                            Err(_) => break,
                        }
                    }
                });
            }
            begin.wait();
            if round % 2 == 0 {
                assert_eq!(context.destroy(None), Ok(()));
            } else {
                assert_eq!(poll_until_ready(context.destroy_async()), Ok(()));
            }
        });
        let mut events = Vec::new();
        let _ = context.get_events(64, 64, None, &mut events);
        assert_eq!(events.len() as u64, accepted.into_inner());
        assert!(events.iter().all(|event| code(event) == CANCELED));
    }
}

/// A backend within one that can lose it.
struct Within(std::sync::RwLock<Option<Kernel>>);

impl Backend for Within {
    fn submit(&self, work: Completion) -> Submitted {
        let kernel = self.0.read().unwrap();
        let submitted = kernel.as_ref().unwrap().submit(work);
        kernel.as_ref().unwrap().flush();
        submitted
    }
}

#[test]
fn a_backend_that_is_dropped_early_waits_for_what_the_kernel_has() {
    let Some(kernel) = kernel(8) else { return };
    let context = Context::new(8, Within(Some(kernel.inline_cached(false)).into())).unwrap();
    let (reader, _writer) = pipe();
    (0..7).for_each(|_| _ = context.submit(endless_poll(&reader)).unwrap());
    let done = context.submit(Request::write(tempfile::tempfile().unwrap(), vec![0; 8], 0)).unwrap();
    drop(context.backend().0.write().unwrap().take());
    for event in read(&context, 8) {
        assert_eq!(code(&event), if event.id == done { None } else { CANCELED });
    }
}
