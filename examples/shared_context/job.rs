//! The work, the same for every way of doing it.

use crate::content::{Claim, Content};
use crate::engines::Engine;
use crate::{Arguments, Backend};
use indicatif::ProgressBar;
use ioctx::aio::{Buffer, Event, Op, Request};
use std::error::Error;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

/// One measurement to make.
pub struct Run<'a> {
    pub arguments: &'a Arguments,
    pub backend: Backend,
    pub file: &'a File,
    pub content: &'a Content,
    /// Writes among a hundred requests.
    pub writes: u32,
    pub duration: Duration,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    pub operations: u64,
    pub reads: u64,
    pub bytes_checked: u64,
    seconds: f64,
    cpu_seconds: f64,
    switches: u64,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    pub fn cpu_ns(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.operations as f64
    }

    pub fn switches_each(&self) -> f64 {
        self.switches as f64 / self.operations as f64
    }
}

/// Finished requests on their way back to one submitter, who uses their memory again.
#[derive(Default)]
struct Spare {
    requests: Mutex<Vec<Request>>,
    came: Condvar,
}

/// What one reader has seen. On lines of its own, since the progress bar looks at it.
#[derive(Default)]
#[repr(align(128))]
struct Seen {
    operations: AtomicU64,
    reads: AtomicU64,
    bytes: AtomicU64,
}

/// How many events a reader takes at a time, and waits for while work goes on.
const AT_MOST: usize = 256;
const AT_LEAST: usize = 16;

impl Run<'_> {
    /// Runs submitters and reapers for the duration, lets everything finish, and checks that nothing is
    /// missing.
    pub fn measure<E: Engine>(&self, bar: ProgressBar) -> Result<Measured, Box<dyn Error>> {
        let each = self.arguments.depth.div_ceil(self.arguments.threads);
        let engine = E::new(self.arguments, self.backend)?;
        let spares: Vec<Spare> = (0..self.arguments.threads).map(|_| Spare::default()).collect();
        for spare in &spares {
            // A descriptor each: submitters share the file, not a counter in front of it.
            let file = Arc::new(self.file.try_clone()?);
            let buf = || vec![0; self.arguments.block as usize];
            let requests = (0..each).map(|_| Request::read(Arc::clone(&file), buf(), 0));
            spare.requests.lock().unwrap().extend(requests);
        }
        let seen: Vec<Seen> = (0..self.arguments.reapers).map(|_| Seen::default()).collect();
        let stop = AtomicBool::new(false);
        let submitted_all = AtomicU64::new(u64::MAX);
        let (cpu, switches) = usage();
        let begun = Instant::now();
        let (engine, spares, stop, all) = (&engine, &spares[..], &stop, &submitted_all);
        let total = || seen.iter().map(|seen| seen.operations.load(Acquire)).sum::<u64>();
        thread::scope(|scope| -> Result<(), Box<dyn Error>> {
            let reapers: Vec<_> = seen
                .iter()
                .map(|seen| {
                    scope.spawn(move || {
                        let done = self.reap(engine, spares, seen, all, total);
                        // Nobody waits for a reader that has given up.
                        stop.store(true, Release);
                        spares.iter().for_each(|spare| spare.came.notify_all());
                        done
                    })
                })
                .collect();
            let submitters: Vec<_> = (0..spares.len())
                .map(|thread| scope.spawn(move || self.submit(engine, &spares[thread], thread, stop)))
                .collect();
            while begun.elapsed() < self.duration && !stop.load(Acquire) {
                thread::sleep(Duration::from_millis(50).min(self.duration));
                bar.set_position(
                    (begun.elapsed().as_secs_f64() / self.duration.as_secs_f64() * 1000.0) as u64,
                );
            }
            stop.store(true, Release);
            spares.iter().for_each(|spare| spare.came.notify_all());
            let submitted: Option<u64> = submitters.into_iter().map(|thread| thread.join().ok()).sum();
            // If a submitter panicked, readers stop at what they have.
            all.store(submitted.unwrap_or(0), Release);
            for reaper in reapers {
                reaper.join().map_err(|_| "a reader panicked")??;
            }
            submitted.map(drop).ok_or_else(|| "a submitter panicked".into())
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let (cpu_after, switches_after) = usage();
        bar.finish();

        let back: usize = spares.iter().map(|spare| spare.requests.lock().unwrap().len()).sum();
        if back != each as usize * spares.len() {
            return Err(format!("{back} requests came back of {}", each as usize * spares.len()).into());
        }
        engine.finish()?;
        Ok(Measured {
            operations: total(),
            reads: seen.iter().map(|seen| seen.reads.load(Acquire)).sum(),
            bytes_checked: seen.iter().map(|seen| seen.bytes.load(Acquire)).sum(),
            seconds,
            cpu_seconds: cpu_after - cpu,
            switches: switches_after - switches,
        })
    }

    /// One submitter: takes finished requests, makes new ones of them, submits. Returns how many.
    fn submit<E: Engine>(&self, engine: &E, spare: &Spare, thread: usize, stop: &AtomicBool) -> u64 {
        let mut random = 0x2545_f491_4f6c_dd1d_u64.wrapping_mul(thread as u64 + 1);
        let mut ready: Vec<Request> = Vec::new();
        let mut submitted = 0;
        while !stop.load(Relaxed) {
            let Some(mut request) = ready.pop() else {
                let mut requests = spare.requests.lock().unwrap();
                while requests.is_empty() && !stop.load(Acquire) {
                    // Looks again now and then: whoever stops us does not hold this lock.
                    requests = spare.came.wait_timeout(requests, Duration::from_millis(20)).unwrap().0;
                }
                std::mem::swap(&mut *requests, &mut ready);
                continue;
            };
            if !self.prepare(&mut request, thread, &mut random, stop) {
                ready.push(request);
                continue;
            }
            while let Err(refused) = engine.submit(thread, request) {
                request = refused;
                thread::yield_now();
            }
            submitted += 1;
        }
        spare.requests.lock().unwrap().append(&mut ready);
        submitted
    }

    /// Makes a random read or write of a used request; `false` if it was stopped before it found a block.
    fn prepare(&self, request: &mut Request, thread: usize, random: &mut u64, stop: &AtomicBool) -> bool {
        let claim = loop {
            if stop.load(Relaxed) {
                return false;
            }
            let block = (next(random) % u64::from(self.content.count())) as u32;
            if self.writes == 0 {
                break Claim { block, version: 0 };
            }
            if let Some(claim) = self.content.claim(block) {
                break claim;
            }
        };
        let write = next(random) % 100 < u64::from(self.writes);
        request.user_data = pack(thread, claim.block);
        let op = std::mem::replace(&mut request.op, Op::Nop);
        let (file, buf) = match op {
            Op::Read { file, buf, .. } => (file, buf.into()),
            Op::Write { file, buf, .. } => (file, buf),
            _ => unreachable!("requests here read or write"),
        };
        let mut buf: Vec<u8> = Buffer::downcast(buf).expect("all buffers here are vectors");
        let offset = self.content.offset(claim.block);
        request.op = if write {
            self.content.fill_next(claim, &mut buf);
            Op::Write { file, buf: buf.into(), offset }
        } else {
            Op::Read { file, buf: buf.into(), offset }
        };
        true
    }

    /// One reader: checks every event and sends its request back, until all that were submitted have been
    /// seen.
    fn reap<E: Engine>(
        &self,
        engine: &E,
        spares: &[Spare],
        seen: &Seen,
        all: &AtomicU64,
        total: impl Fn() -> u64,
    ) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::new();
        let mut back: Vec<Vec<Request>> = spares.iter().map(|_| Vec::new()).collect();
        let at_least = AT_LEAST.min((self.arguments.depth as usize / 4).max(1));
        while total() < all.load(Acquire) {
            engine.reap(at_least, AT_MOST, Duration::from_millis(5), &mut events);
            let (mut reads, mut bytes, count) = (0, 0, events.len() as u64);
            for event in events.drain(..) {
                let (thread, block) = unpack(event.request.user_data);
                let checked = self.check(&event, block)?;
                reads += u64::from(matches!(event.request.op, Op::Read { .. }));
                bytes += checked as u64;
                back[thread].push(event.request);
            }
            for (spare, requests) in spares.iter().zip(&mut back).filter(|(_, back)| !back.is_empty()) {
                spare.requests.lock().unwrap().append(requests);
                spare.came.notify_one();
            }
            seen.reads.fetch_add(reads, Release);
            seen.bytes.fetch_add(bytes, Release);
            // Last: whoever sees that all are done sees the rest too.
            seen.operations.fetch_add(count, Release);
        }
        Ok(())
    }

    /// Compares what was read with what must be there; returns how many bytes.
    fn check(&self, event: &Event, block: u32) -> io::Result<usize> {
        let done = event.result.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let version = self.content.version(block);
        let claim = Claim { block, version };
        let (checked, written, right) = match (&event.request.op, self.backend) {
            (Op::Read { .. }, Backend::Null) => (0, 0, *done == 0),
            (Op::Read { buf, .. }, Backend::Zero) => {
                (buf.len(), 0, *done == buf.len() && buf.iter().all(|byte| *byte == 0))
            }
            (Op::Read { buf, .. }, Backend::Threads) => {
                (buf.len(), 0, *done == buf.len() && self.content.check(claim, buf))
            }
            (Op::Write { buf, .. }, backend) => {
                (0, u32::from(backend == Backend::Threads), *done == buf.len())
            }
            _ => (0, 0, false),
        };
        if self.writes > 0 {
            self.content.release(claim, written);
        }
        if right {
            return Ok(checked);
        }
        Err(io::Error::other(format!(
            "block {block} holds something else than it must, or came short: {done} bytes"
        )))
    }
}

fn pack(thread: usize, block: u32) -> u64 {
    (thread as u64) << 32 | u64::from(block)
}

fn unpack(user_data: u64) -> (usize, u32) {
    ((user_data >> 32) as usize, user_data as u32)
}

/// xorshift: fast, and random enough to choose blocks.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Processor seconds and context switches of this process so far.
fn usage() -> (f64, u64) {
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is valid for a `rusage`, which may be all zeros.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
        (seconds(usage.ru_utime) + seconds(usage.ru_stime), (usage.ru_nvcsw + usage.ru_nivcsw) as u64)
    }
    #[cfg(not(unix))]
    {
        (f64::NAN, 0)
    }
}
