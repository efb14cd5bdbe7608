//! Messages that go round a ring of pipes by the requests of a context.

use ioctx::aio::{Backend, Context, Op, Request};
use ioctx::backend::{Nonblocking, Threads};
use ioctx::runlist::Builder;
use std::fs::File;
use std::io::{self, Read, Write};
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

/// How operations are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By threads that wait, one for each operation.
    Pool,
    /// By the worker of a run list alone, woken for each.
    Worker,
    /// By submitters and readers as well.
    Helping,
    /// By them, and the worker leaves them time for it.
    Delayed,
    /// The same, and data that both ends of a pipe are here for does not go through it.
    HandedOver,
}

/// Goes round by one of the ways.
pub fn go(way: Way, shape: Shape, time: Duration) -> io::Result<u64> {
    // A read and a write of each message.
    let (capacity, now) = (2 * shape.1 as u32, Duration::ZERO);
    let helping = Builder::new();
    let eager = helping.worker_delay(now, now);
    let builder = match way {
        Way::Pool => {
            // Every read may hold one until its message is written.
            let pool = Threads::new(capacity as usize + 1)?.inline_cached(false);
            return run(&Context::new(capacity, pool).map_err(io::Error::other)?, shape, time);
        }
        Way::Worker => eager.help_on_submit(0).help_on_reap(false),
        Way::Helping => eager,
        Way::Delayed | Way::HandedOver => helping,
    };
    let backend = Nonblocking::with(builder)?.hand_over(way == Way::HandedOver);
    run(&Context::new(capacity, backend).map_err(io::Error::other)?, shape, time)
}

/// The floor: the calls that move the data, one after the other, by one thread and nothing else.
pub fn bare((pipes, messages): Shape, time: Duration) -> io::Result<u64> {
    let pipes = self::pipes(pipes)?;
    let mut at: Vec<_> = (0..messages).map(|n| n % pipes.len()).collect();
    let (mut hops, end, mut buf) = (0, Instant::now() + time, [7; LEN]);
    while Instant::now() < end {
        for pipe in &mut at {
            let (reader, writer) = &pipes[*pipe];
            (&**writer).write_all(&buf)?;
            (&**reader).read_exact(&mut buf)?;
            *pipe = (*pipe + 1) % pipes.len();
            hops += 1;
        }
    }
    Ok(hops)
}
