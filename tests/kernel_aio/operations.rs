//! Every operation, on files of every kind, where it belongs.

use super::*;

fn every_operation(context: &Context<Kernel>) {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let file = || file.clone();
    assert_eq!(one(context, Request::nop()).result.unwrap(), 0);
    assert_eq!(one(context, Request::write(file(), b"0123456789".to_vec(), 5)).result.unwrap(), 10);
    let parts = [b"ab".to_vec(), Vec::new(), b"cde".to_vec()];
    assert_eq!(one(context, Request::writev(file(), parts, 0)).result.unwrap(), 5);
    assert_eq!(one(context, Request::fsync(file())).result.unwrap(), 0);
    assert_eq!(one(context, Request::fdatasync(file())).result.unwrap(), 0);
    let event = one(context, Request::read(file(), vec![0; 20], 3));
    assert_eq!(event.result.unwrap(), 12);
    assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..12], *b"de0123456789");
    let event = one(context, Request::readv(file(), [vec![0; 4], vec![0; 3]], 1));
    assert_eq!(event.result.unwrap(), 7);
    assert_eq!(event.request.into_buffers::<Vec<u8>>().unwrap(), [b"bcde".to_vec(), b"012".to_vec()]);
    let (reader, mut writer) = pipe();
    let polled = context.submit(Request::poll(reader, Readiness::READABLE)).unwrap();
    writer.write_all(b"x").unwrap();
    let event = read(context, 1).pop().unwrap();
    assert_eq!(event.id, polled);
    assert_eq!(Readiness::from_result(event.result.unwrap()), Readiness::READABLE);
    assert_eq!(one(context, Request::custom(|| Ok(7))).result.unwrap(), 7);
    // Closed for writing; no file for reading; one that cannot be flushed.
    let null = File::open("/dev/null").unwrap();
    assert_eq!(code(&one(context, Request::write(null, b"x".to_vec(), 0))), Some(libc::EBADF));
    let directory = File::open("/").unwrap();
    assert_eq!(code(&one(context, Request::read(directory, vec![0; 8], 0))), Some(libc::EISDIR));
    let (reader, _writer) = pipe();
    assert_eq!(code(&one(context, Request::fsync(reader))), Some(libc::EINVAL));

    let Some(file) = direct() else { return };
    let file = || file.clone();
    assert_eq!(one(context, Request::write(file(), block(7), 0)).result.unwrap(), BLOCK);
    assert_eq!(
        one(context, Request::writev(file(), [block(8), block(9)], BLOCK as u64)).result.unwrap(),
        2 * BLOCK
    );
    assert_eq!(one(context, Request::fsync(file())).result.unwrap(), 0);
    let event = one(context, Request::read(file(), block(0), 2 * BLOCK as u64));
    assert_eq!(event.result.unwrap(), BLOCK);
    assert_eq!(event.request.into_buffer::<AlignedBuffer>().unwrap()[..], block(9)[..]);
    let event = one(context, Request::readv(file(), [block(0), block(0)], 0));
    assert_eq!(event.result.unwrap(), 2 * BLOCK);
    for (n, buf) in event.request.into_buffers::<AlignedBuffer>().unwrap().iter().enumerate() {
        assert_eq!(buf[..], block(7 + n as u64)[..]);
    }
    assert_eq!(one(context, Request::read(file(), block(0), 3 * BLOCK as u64)).result.unwrap(), 0);
    // An address that no device takes, and few file systems.
    let event = one(context, Request::read(file(), vec![1; 7], 1));
    let expected = match code(&event) {
        Some(refused) => (refused, [1; 7]),
        None => (libc::EINVAL, [0; 7]),
    };
    assert_eq!(
        (libc::EINVAL, event.request.into_buffer::<Vec<u8>>().unwrap()),
        (expected.0, expected.1.to_vec())
    );
}

#[test]
fn every_operation_does_what_it_says() {
    for (inline, in_place) in [(false, false), (false, true), (true, false), (true, true)] {
        let Some(kernel) = kernel(8) else { return };
        let kernel = kernel.inline_cached(inline).reap_in_user_space(in_place);
        let context = Context::new(8, kernel).unwrap();
        let in_force = format!("{:?}", context.backend());
        assert!(in_force.contains(&format!("reads_in_place: Some({in_place})")), "{in_force}");
        every_operation(&context);
        assert_eq!(context.destroy(None), Ok(()));
    }
}

#[test]
fn files_that_cannot_seek_ignore_the_offset_and_hold_up_nobody() {
    for inline in [false, true] {
        let Some(context) = context(16, inline) else { return };
        // They hold no thread.
        let idle: Vec<_> = (0..12).map(|_| pipe()).collect();
        for (reader, _) in &idle {
            context.submit(endless_read(reader)).unwrap();
        }
        let (reader, mut writer) = pipe();
        let id = context.submit(Request::read(reader, vec![0; 8], 4096)).unwrap();
        writer.write_all(b"text").unwrap();
        let event = read(&context, 1).pop().unwrap();
        assert_eq!((event.id, event.result.unwrap()), (id, 4));
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..4], *b"text");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let event = one(&context, Request::write(OwnedFd::from(writer), b"more".to_vec(), 77));
        assert_eq!(event.result.as_ref().unwrap(), &4);
        drop(event);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"more");
        // A full pipe, too, is waited for by the kernel.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let full = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        (&writer).write_all(&vec![1; full]).unwrap();
        let writer = File::from(OwnedFd::from(writer));
        let id = context.submit(Request::write(writer, vec![2; 10], 0)).unwrap();
        assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
        reader.read_exact(&mut vec![0; full]).unwrap();
        let event = read(&context, 1).pop().unwrap();
        assert_eq!((event.id, event.result.unwrap()), (id, 10));
        assert_eq!(context.destroy(None), Ok(()));
        assert!(read(&context, idle.len()).iter().all(|event| code(event) == CANCELED));
    }
}

#[test]
fn many_threads_write_and_read_back_through_one_context() {
    const THREADS: u64 = 6;
    const BLOCKS: u64 = 80;
    for (inline, in_place) in [(false, true), (true, true), (true, false)] {
        let Some(kernel) = kernel(64) else { return };
        let kernel = kernel.inline_cached(inline).reap_in_user_space(in_place);
        let context = Context::new(64, kernel).unwrap();
        let mut files = vec![Arc::new(tempfile::tempfile().unwrap())];
        files.extend(direct());
        let file = |n: u64| files[n as usize % files.len()].clone();
        let verified = AtomicU64::new(0);
        // A write that is done becomes a read, and a read that is done is verified: by whoever sees it.
        let see = |event: Event| {
            let n = event.request.user_data;
            assert_eq!(event.result.unwrap(), BLOCK, "{n}");
            match event.request.op {
                Op::Write { .. } => {
                    Some(Request::read(file(n), block(0), n * BLOCK as u64).with_user_data(n))
                }
                _ => {
                    assert_eq!(event.request.into_buffer::<AlignedBuffer>().unwrap()[..], block(n)[..]);
                    verified.fetch_add(1, Relaxed);
                    None
                }
            }
        };
        let reap = |min| {
            let mut events = Vec::new();
            let soon = Some(Instant::now() + Duration::from_millis(5));
            context.get_events(min, 16, soon, &mut events).unwrap();
            events
        };
        let submit = |mut batch: Vec<Request>| {
            while !batch.is_empty() {
                if context.submit_batch(&mut batch).is_err() {
                    batch.extend(reap(1).into_iter().filter_map(see));
                }
            }
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (submit, reap, file, see) = (&submit, &reap, &file, &see);
                scope.spawn(move || {
                    for n in (0..BLOCKS).step_by(4) {
                        let write = |n| Request::write(file(n), block(n), n * BLOCK as u64).with_user_data(n);
                        submit((n..n + 4).map(|n| write(thread * BLOCKS + n)).collect());
                        submit(reap(0).into_iter().filter_map(see).collect());
                    }
                });
            }
        });
        while verified.load(Relaxed) < THREADS * BLOCKS {
            submit(reap(1).into_iter().filter_map(see).collect());
        }
        assert_eq!((verified.load(Relaxed), context.outstanding()), (THREADS * BLOCKS, 0));
        let mut last = block(0);
        let n = THREADS * BLOCKS - 1;
        file(n).read_exact_at(&mut last, n * BLOCK as u64).unwrap();
        assert_eq!(last[..], block(n)[..]);
    }
}

#[test]
fn a_hundred_thousand_requests_over_many_descriptors() {
    const REQUESTS: u64 = 100_000;
    const DESCRIPTORS: u64 = 64;
    const PLACES: u64 = 32;
    let Some(context) = context(256, true) else { return };
    // What each block holds by now: the number of the request that was written to it last.
    let mut content = vec![0_u64; (DESCRIPTORS * PLACES) as usize];
    let files: Vec<Arc<File>> = (0..DESCRIPTORS)
        .map(|n| {
            // Some of them direct: those are as quick as the disk.
            let file = (n % 16 == 0).then(direct).flatten();
            let file = file.unwrap_or_else(|| Arc::new(tempfile::tempfile().unwrap()));
            file.write_all_at(&AlignedBuffer::new(BLOCK * PLACES as usize, BLOCK).unwrap(), 0).unwrap();
            file
        })
        .collect();
    // One request at a time for each block. In an order that is the same in each run.
    let mut random = 1_u64;
    let mut busy = vec![false; content.len()];
    let mut seen = vec![false; REQUESTS as usize + 1];
    let (mut begun, mut done) = (0, 0);
    let mut events = Vec::new();
    let mut buffers = Vec::new();
    while done < REQUESTS {
        let mut batch = Vec::new();
        while batch.len() < 32 && begun < REQUESTS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (random >> 33) as usize % content.len();
            if std::mem::replace(&mut busy[place], true) {
                break;
            }
            begun += 1;
            let file = files[place / PLACES as usize].clone();
            let offset = (place as u64 % PLACES) * BLOCK as u64;
            let mut buffer: AlignedBuffer = buffers.pop().unwrap_or_else(|| block(0));
            let request = if random >> 32 & 3 == 0 {
                buffer[..8].copy_from_slice(&begun.to_le_bytes());
                buffer[BLOCK - 8..].copy_from_slice(&begun.to_le_bytes());
                Request::write(file, buffer, offset)
            } else {
                buffer.fill(0xff);
                Request::read(file, buffer, offset)
            };
            batch.push(request.with_user_data(begun << 32 | place as u64));
        }
        while !batch.is_empty() {
            match context.submit_batch(&mut batch) {
                Ok(_) => {}
                Err(refused) => {
                    assert!(matches!(refused.0, Reason::Full), "{refused}");
                    context.get_events(1, 256, None, &mut events).unwrap();
                }
            }
        }
        let least = usize::from(events.is_empty() && done < begun);
        context.get_events(least, 256, None, &mut events).unwrap();
        for event in events.drain(..) {
            let (number, place) = (event.request.user_data >> 32, event.request.user_data as u32 as usize);
            assert_eq!(event.result.unwrap(), BLOCK, "{number}");
            assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} came twice");
            assert!(std::mem::replace(&mut busy[place], false));
            done += 1;
            let writes = matches!(event.request.op, Op::Write { .. });
            let buffer = event.request.into_buffer::<AlignedBuffer>().unwrap();
            if writes {
                content[place] = number;
            } else {
                for word in [&buffer[..8], &buffer[BLOCK - 8..]] {
                    assert_eq!(word, content[place].to_le_bytes(), "{number}");
                }
            }
            buffers.push(buffer);
        }
    }
    assert_eq!((done, context.outstanding()), (REQUESTS, 0));
}

#[test]
fn submitters_do_what_takes_no_waiting_and_nothing_else() {
    let unread =
        |context: &Context<Kernel>| format!("{context:?}").split("unread: ").nth(1).unwrap().as_bytes()[0];
    for inline in [false, true] {
        let Some(context) = context(8, inline) else { return };
        let done = |request: Request, at_once: bool| {
            context.submit(request).unwrap();
            assert_eq!(unread(&context), if at_once { b'1' } else { b'0' });
            read(&context, 1).pop().unwrap().result.unwrap()
        };
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&[1; 64], 0).unwrap();
        assert_eq!(done(Request::read(file.clone(), vec![0; 64], 0), inline), 64);
        assert_eq!(done(Request::poll(file, Readiness::READABLE), inline), 1);
        let (reader, mut writer) = pipe();
        writer.write_all(&[0; 8]).unwrap();
        let at_once = inline && pipes_can_be_asked();
        assert_eq!(done(endless_read(&reader), at_once), 8);
        assert_eq!(done(Request::write(OwnedFd::from(writer), vec![0; 3], 0), at_once), 3);
        // It would wait for the disk.
        let Some(file) = direct() else { return };
        file.write_all_at(&block(1), 0).unwrap();
        assert_eq!(done(Request::read(file.clone(), block(0), 0), false), BLOCK);
        assert!(!inline || format!("{:?}", context.backend()).contains("pool: None"));
        // As this does, but where it was cached nevertheless.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file));
        let cold = File::open(path).unwrap();
        rustix::fs::fadvise(&cold, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(one(&context, Request::read(cold, vec![0; 64], 0)).result.unwrap(), 64);
    }
}

#[test]
fn synchronous_writes_are_on_the_device() {
    let Some(kernel) = kernel(4) else { return };
    let context = Context::new(4, kernel).unwrap();
    support::requests::writes_are_on_the_device_when_they_should_be(&context);
}
