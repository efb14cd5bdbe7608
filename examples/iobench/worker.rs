//! One thread of a measurement: it submits, it reads events, or both.

use crate::backends::Reads;
use crate::content::Claim;
use crate::job::{AnyContext, Moved, Phase, Run};
use crate::options::{Options, Rw};
use crate::tally::Tally;
use ioctx::aio::{AlignedBuffer, Buffer, Event, GetEventsError, Op, Reason, Request};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Finished requests on their way back to one job, if others read the events.
#[derive(Default)]
pub struct Spare {
    requests: Mutex<Vec<Request>>,
    came: Condvar,
}

/// How many events are read at a time, at the most.
const AT_MOST: usize = 256;
/// After how long those who wait look whether it is over.
const A_WHILE: Duration = Duration::from_millis(10);
/// What `O_DIRECT` asks of addresses, on any device.
const PAGE: usize = 4096;

/// Bits of the user data that say when a request was submitted, in nanoseconds: three days. The others say by whom.
const TIME: u32 = 48;

pub struct Worker<'a> {
    run: &'a Run<'a>,
    context: &'a AnyContext,
    moved: &'a Moved,
    number: usize,
    random: u64,
    /// The block that comes next, in order.
    next: u32,
    /// Writes since the last fsync.
    unsynced: u32,
    batch: Vec<Request>,
    events: Vec<Event>,
    tally: Tally,
}

/// What a job has in flight: reads of nothing yet, each with its buffer.
pub fn first_requests(options: &Options, file: &Arc<File>, depth: u32) -> io::Result<Vec<Request>> {
    let request = |_| {
        let mut buf = AlignedBuffer::new(options.bs as usize, PAGE).map_err(io::Error::other)?;
        // Its pages come now rather than in the first reads.
        buf.fill(0x5a);
        Ok(Request::read(Arc::clone(file), buf, 0))
    };
    (0..depth).map(request).collect()
}

impl<'a> Worker<'a> {
    pub fn new(run: &'a Run<'a>, context: &'a AnyContext, moved: &'a Moved, number: usize) -> Self {
        let share = run.target.blocks / run.options.numjobs.max(1);
        Self {
            run,
            context,
            moved,
            number,
            random: 0x2545_f491_4f6c_dd1d_u64.wrapping_mul(number as u64 + 1),
            next: share.wrapping_mul(number as u32) % run.target.blocks,
            unsynced: 0,
            batch: Vec::new(),
            events: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// The life of a job. Without `own`, which is where others leave what they have read, it reads events itself: any
    /// job's, if they share a context, and uses their requests again.
    pub fn submit_all(&mut self, mut ready: Vec<Request>, file: &Arc<File>, own: Option<&Spare>) -> Tally {
        let batch = self.run.options.iodepth_batch as usize;
        while self.run.phase() != Phase::Drain {
            if let Some(spare) = own.filter(|_| ready.is_empty()) {
                spare.wait(&mut ready);
            }
            while let Some(mut request) = ready.pop() {
                if !self.prepare(&mut request) {
                    break;
                }
                self.unsynced += u32::from(matches!(request.op, Op::Write { .. }));
                self.batch.push(request);
                if self.run.options.fsync > 0 && self.unsynced >= self.run.options.fsync {
                    self.unsynced = 0;
                    self.batch.push(Request::fsync(Arc::clone(file)));
                }
                if self.batch.len() >= batch && !self.submit() {
                    break;
                }
            }
            self.submit();
            if own.is_none() {
                self.read(batch, |request| ready.push(request));
            }
        }
        self.give_up_batch();
        self.run.stopped();
        if own.is_none() {
            while !self.run.drained() {
                self.read(1, drop);
            }
        }
        std::mem::take(&mut self.tally)
    }

    /// The life of a thread that only reads events.
    pub fn read_all(&mut self, spares: &[Spare]) -> Tally {
        let mut back: Vec<Vec<Request>> = spares.iter().map(|_| Vec::new()).collect();
        while !self.run.drained() {
            self.read(self.run.options.iodepth_batch as usize, |request| {
                back[(request.user_data >> TIME) as usize].push(request);
            });
            for (spare, requests) in spares.iter().zip(&mut back).filter(|(_, back)| !back.is_empty()) {
                spare.requests.lock().unwrap().append(requests);
                spare.came.notify_one();
            }
        }
        std::mem::take(&mut self.tally)
    }

    /// Submits what is in the batch; returns whether that was all of it.
    fn submit(&mut self) -> bool {
        let stamp = (self.number as u64) << TIME | self.now();
        self.batch.iter_mut().for_each(|request| request.user_data = stamp);
        while !self.batch.is_empty() {
            // Counted before it can be read.
            let many = self.batch.len() as u64;
            add(&self.moved.submitted, many);
            let accepted = self.context.submit_batch(&mut self.batch);
            let refused = match accepted {
                Ok(accepted) => {
                    sub(&self.moved.submitted, many - accepted as u64);
                    continue;
                }
                Err(refused) => refused.0,
            };
            sub(&self.moved.submitted, many);
            match refused {
                Reason::Full => {}
                Reason::Refused(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                reason => self.run.fail(io::Error::other(reason.to_string())),
            }
            return false;
        }
        true
    }

    /// What was prepared and never submitted: others may use its blocks again.
    fn give_up_batch(&mut self) {
        let Some(content) = self.run.target.content.as_ref().filter(|_| self.run.options.rw.writes()) else {
            return;
        };
        for request in self.batch.drain(..) {
            if let Op::Read { offset, .. } | Op::Write { offset, .. } = request.op {
                let block = (offset / self.run.options.bs) as u32;
                content.release(Claim { block, version: content.version(block) }, 0);
            }
        }
    }

    /// Reads events, and gives the requests that read or wrote to `back`.
    fn read(&mut self, min: usize, mut back: impl FnMut(Request)) {
        let mut events = std::mem::take(&mut self.events);
        let deadline = Some(Instant::now() + A_WHILE);
        match self.context.get_events(min.min(AT_MOST), AT_MOST, deadline, &mut events) {
            Ok(_) | Err(GetEventsError::Interrupted) => {}
            Err(error) => self.run.fail(io::Error::other(error)),
        }
        let (now, measured) = (self.now(), self.run.phase() == Phase::Measured);
        let read = events.len() as u64;
        for event in events.drain(..) {
            match self.check(&event) {
                Ok(bytes) if measured => {
                    let submitted = event.request.user_data & ((1 << TIME) - 1);
                    let side = match event.request.op {
                        Op::Read { .. } => &mut self.tally.read,
                        Op::Write { .. } => &mut self.tally.write,
                        _ => &mut self.tally.sync,
                    };
                    side.count(bytes, now.saturating_sub(submitted));
                }
                Ok(_) => {}
                Err(error) => self.run.fail(error),
            }
            if !matches!(event.request.op, Op::Fsync { .. }) {
                back(event.request);
            }
        }
        // After the last use of what was read.
        add(&self.moved.reaped, read);
        self.events = events;
    }

    /// Makes the next read or write of a used request; `false` if it is over before a block was free.
    fn prepare(&mut self, request: &mut Request) -> bool {
        let rw = self.run.options.rw;
        let content = self.run.target.content.as_ref();
        let claim = loop {
            let block = self.choose(rw);
            match content.filter(|_| rw.writes()).map(|content| content.claim(block)) {
                None => break Claim { block, version: 0 },
                Some(Some(claim)) => break claim,
                Some(None) if self.run.phase() == Phase::Drain => return false,
                Some(None) => {}
            }
        };
        let write = match rw {
            Rw::Read | Rw::RandRead => false,
            Rw::Write | Rw::RandWrite => true,
            Rw::RandMixed => next(&mut self.random) % 100 >= u64::from(self.run.options.mix),
        };
        let offset = u64::from(claim.block) * self.run.options.bs;
        let op = match std::mem::replace(&mut request.op, Op::Nop) {
            Op::Read { file, buf, .. } if !write => Op::Read { file, buf, offset },
            Op::Read { file, buf, .. } => Op::Write { file, buf: buf.into(), offset },
            Op::Write { file, buf, .. } if write => Op::Write { file, buf, offset },
            Op::Write { file, buf, .. } => Op::Read { file, buf: owned(buf).into(), offset },
            _ => unreachable!("requests that come back read or write"),
        };
        request.op = match (op, content) {
            (Op::Write { file, buf, offset }, Some(content)) => {
                let mut buf = owned(buf);
                content.fill_next(claim, &mut buf);
                Op::Write { file, buf: buf.into(), offset }
            }
            (op, _) => op,
        };
        true
    }

    fn choose(&mut self, rw: Rw) -> u32 {
        let blocks = self.run.target.blocks;
        if rw.random() {
            return (next(&mut self.random) % u64::from(blocks)) as u32;
        }
        let block = self.next;
        self.next = (block + 1) % blocks;
        block
    }

    /// Whether it did what it was to do; returns how many bytes that was.
    fn check(&mut self, event: &Event) -> io::Result<usize> {
        let Options { bs, backend, rw, .. } = *self.run.options;
        let (write, offset, expected) = match event.request.op {
            Op::Read { offset, .. } => (false, offset, if backend.reads == Reads::Nothing { 0 } else { bs }),
            Op::Write { offset, .. } => (true, offset, bs),
            _ => (false, 0, 0),
        };
        let what = || format!("{} at {offset}", if write { "a write" } else { "a read or fsync" });
        let done = match &event.result {
            Ok(done) => *done,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", what()))),
        };
        if done as u64 != expected {
            return Err(io::Error::other(format!("{} came short: {done} bytes of {expected}", what())));
        }
        let Some(content) = &self.run.target.content else { return Ok(done) };
        let block = (offset / bs) as u32;
        let claim = Claim { block, version: content.version(block) };
        let right = match &event.request.op {
            Op::Read { buf, .. } => {
                self.tally.verified += 1;
                content.check(claim, buf)
            }
            Op::Write { .. } => true,
            _ => return Ok(done),
        };
        if rw.writes() {
            content.release(claim, u32::from(write));
        }
        if right {
            return Ok(done);
        }
        Err(io::Error::other(format!("block {block}, at {offset}, holds something else than it must")))
    }

    fn now(&self) -> u64 {
        self.run.begun.elapsed().as_nanos() as u64
    }
}

impl Spare {
    /// Takes all there is, waiting a while for the first.
    fn wait(&self, ready: &mut Vec<Request>) {
        let requests = self.requests.lock().unwrap();
        let waited = self.came.wait_timeout_while(requests, A_WHILE, |requests| requests.is_empty());
        ready.append(&mut waited.unwrap().0);
    }
}

/// The buffer, which all requests here have of one type.
fn owned(buf: Buffer) -> AlignedBuffer {
    buf.downcast().expect("all buffers here are aligned ones")
}

/// Adds to a count that only this thread changes.
fn add(count: &AtomicU64, n: u64) {
    // Release: whoever sees it sees what was counted.
    count.store(count.load(Relaxed) + n, Release);
}

fn sub(count: &AtomicU64, n: u64) {
    count.store(count.load(Relaxed) - n, Release);
}

/// xorshift: fast, and random enough to choose blocks.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
