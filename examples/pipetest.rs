//! Data passed round a ring of pipes, with a read and a write of each message in flight, as the benchmark of 2004 did
//! for which the kernel's AIO got its run list: `cargo run --release --features uring --example pipetest`.
//!
//! Prints hops per second, context switches per second, and the processor's time for each hop, for
//!
//! * a pool whose threads wait, one for each operation;
//! * a run list that only its worker runs, at once;
//! * the same with submitters and readers who help it;
//! * the same with a worker that leaves them time for that;
//! * the kernel's `io_uring`, as quick as one thread can have it (deferred task run), with the feature `uring`.
//!
//! Arguments: for how many seconds each, and what the names of the ways contain that are to be tried.

#[cfg(ioctx_linux)]
mod ring {
    use ioctx::aio::{Backend, Context, Op, Request};
    use ioctx::backend::{Nonblocking, Threads};
    use ioctx::runlist::Builder;
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// The length of a message.
    pub const LEN: usize = 8;

    /// How many pipes, and how many messages go round.
    pub type Shape = (usize, usize);

    /// The ends of a pipe.
    pub type Pipe = (Arc<File>, Arc<File>);

    pub fn pipes(n: usize) -> io::Result<Vec<Pipe>> {
        let file = |end: OwnedFd| Arc::new(File::from(end));
        (0..n)
            .map(|_| std::io::pipe().map(|(reader, writer)| (file(reader.into()), file(writer.into()))))
            .collect()
    }

    /// A message: what reads and writes it, in whatever order their events come, and where it is.
    struct Message {
        requests: Vec<Request>,
        pipe: usize,
    }

    /// Lets messages go round for this long; returns how many pipes they went through.
    pub fn run(context: &Context<impl Backend>, (pipes, messages): Shape, time: Duration) -> io::Result<u64> {
        let pipes = self::pipes(pipes)?;
        let mut all: Vec<_> = (0..messages)
            .map(|n| {
                let pipe = n % pipes.len();
                let (reader, writer) = &pipes[pipe];
                let read = Request::read(Arc::clone(reader), vec![0; LEN], 0).with_user_data(n as u64);
                let write = Request::write(Arc::clone(writer), vec![7; LEN], 0).with_user_data(n as u64);
                Message { requests: vec![read, write], pipe }
            })
            .collect();
        let mut batch: Vec<_> = all.iter_mut().flat_map(|message| message.requests.drain(..)).collect();
        let (mut hops, mut in_flight, mut events) = (0, 0, Vec::new());
        let end = Instant::now() + time;
        loop {
            in_flight += batch.len();
            while !batch.is_empty() {
                context.submit_batch(&mut batch).map_err(io::Error::other)?;
            }
            if in_flight == 0 {
                return Ok(hops);
            }
            in_flight -= context.get_events(1, 2 * messages, None, &mut events).map_err(io::Error::other)?;
            let over = Instant::now() >= end;
            for event in events.drain(..) {
                assert_eq!(event.result?, LEN);
                let message = &mut all[event.request.user_data as usize];
                message.requests.push(event.request);
                if message.requests.len() < 2 {
                    continue;
                }
                hops += 1;
                if over {
                    continue;
                }
                message.pipe = (message.pipe + 1) % pipes.len();
                // The read first: it waits for the write.
                message.requests.sort_by_key(|request| matches!(request.op, Op::Write { .. }));
                for mut request in message.requests.drain(..) {
                    match &mut request.op {
                        Op::Read { file, .. } => *file = Arc::clone(&pipes[message.pipe].0).into(),
                        Op::Write { file, .. } => *file = Arc::clone(&pipes[message.pipe].1).into(),
                        _ => {}
                    }
                    batch.push(request);
                }
            }
        }
    }

    pub const WAYS: [&str; 4] =
        ["a thread for each operation", "worker only", "helping", "helping, delayed worker"];

    /// Goes round by one of [`WAYS`].
    pub fn go(way: &str, shape: Shape, time: Duration) -> io::Result<u64> {
        let (capacity, now) = (2 * shape.1 as u32, Duration::ZERO);
        let helping = Builder::new();
        let eager = helping.worker_delay(now, now);
        let builder = match way {
            "a thread for each operation" => {
                // Every read may hold one until its message is written.
                let pool = Threads::new(capacity as usize + 1)?.inline_cached(false);
                return run(&Context::new(capacity, pool).map_err(io::Error::other)?, shape, time);
            }
            "worker only" => eager.help_on_submit(0).help_on_reap(false),
            "helping" => eager,
            _ => helping,
        };
        run(&Context::new(capacity, Nonblocking::with(builder)?).map_err(io::Error::other)?, shape, time)
    }
}

/// The same without a context, by a ring of the kernel's.
#[cfg(all(ioctx_linux, feature = "uring"))]
mod uring {
    use super::ring::{LEN, Pipe, Shape, pipes};
    use io_uring::squeue::Entry;
    use io_uring::{IoUring, opcode::Read, opcode::Write, types::Fd};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    struct Message {
        pipe: usize,
        input: Box<[u8; LEN]>,
        output: Box<[u8; LEN]>,
        in_flight: u32,
    }

    impl Message {
        fn entries(&mut self, name: u64, (reader, writer): &Pipe) -> [Entry; 2] {
            self.in_flight = 2;
            let (reader, writer) = (Fd(reader.as_raw_fd()), Fd(writer.as_raw_fd()));
            [
                Read::new(reader, self.input.as_mut_ptr(), LEN as u32)
                    .offset(u64::MAX)
                    .build()
                    .user_data(name),
                Write::new(writer, self.output.as_ptr(), LEN as u32).offset(u64::MAX).build().user_data(name),
            ]
        }
    }

    pub fn go((n, messages): Shape, time: Duration) -> io::Result<u64> {
        let pipes = pipes(n)?;
        let mut all: Vec<_> = (0..messages)
            .map(|m| Message { pipe: m % n, input: Box::default(), output: Box::default(), in_flight: 0 })
            .collect();
        let mut ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build((2 * messages).next_power_of_two() as u32)?;
        for (name, message) in all.iter_mut().enumerate() {
            let entries = message.entries(name as u64, &pipes[message.pipe]);
            // SAFETY: the buffers and the files outlive the requests, which are waited for.
            unsafe { ring.submission().push_multiple(&entries) }.map_err(io::Error::other)?;
        }
        let (mut hops, mut in_flight, end) = (0, 2 * messages, Instant::now() + time);
        while in_flight > 0 {
            ring.submit_and_wait(1)?;
            let over = Instant::now() >= end;
            let (_, mut entries, completions) = ring.split();
            for event in completions {
                in_flight -= 1;
                assert_eq!(event.result(), LEN as i32);
                let message = &mut all[event.user_data() as usize];
                message.in_flight -= 1;
                if message.in_flight > 0 {
                    continue;
                }
                hops += 1;
                if !over {
                    message.pipe = (message.pipe + 1) % n;
                    let both = message.entries(event.user_data(), &pipes[message.pipe]);
                    // SAFETY: as above.
                    unsafe { entries.push_multiple(&both) }.map_err(io::Error::other)?;
                    in_flight += 2;
                }
            }
        }
        Ok(hops)
    }
}

#[cfg(ioctx_linux)]
fn main() -> std::io::Result<()> {
    use std::time::{Duration, Instant};

    /// How often the process has lost or given up its CPUs, and how many seconds it had them.
    fn used() -> (f64, f64) {
        // SAFETY: zeros are a valid value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: valid for writing one.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        ((usage.ru_nvcsw + usage.ru_nivcsw) as f64, seconds(usage.ru_utime) + seconds(usage.ru_stime))
    }

    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    println!(
        "| pipes, messages | | hops/s | switches/s | switches/hop | CPU ns/hop |\n|---|---|---|---|---|---|"
    );
    for shape in [(1, 1), (8, 4), (8, 8), (64, 32)] {
        let only = std::env::args().nth(2).unwrap_or_default();
        let show = |way: &str, go: &dyn Fn() -> std::io::Result<u64>| {
            if !way.contains(&only) {
                return Ok(());
            }
            let (begun, before) = (Instant::now(), used());
            let hops = go()? as f64;
            let (after, took) = (used(), begun.elapsed().as_secs_f64());
            let (switches, cpu) = (after.0 - before.0, after.1 - before.1);
            println!(
                "| {}, {} | {way} | {:.0} | {:.1} | {:.2e} | {:.0} |",
                shape.0,
                shape.1,
                hops / took,
                switches / took,
                switches / hops,
                cpu / hops * 1e9
            );
            std::io::Result::Ok(())
        };
        for way in ring::WAYS {
            show(way, &|| ring::go(way, shape, time))?;
        }
        #[cfg(feature = "uring")]
        show("io_uring", &|| uring::go(shape, time)).unwrap_or_else(|why| println!("SKIPPED: {why}"));
    }
    Ok(())
}

#[cfg(not(ioctx_linux))]
fn main() {
    println!("SKIPPED: only Linux has calls that can be asked not to wait");
}
