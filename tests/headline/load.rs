//! Threads that submit to one context all the while, and what they were caught at.

use super::guard::{Guard, Stores, counted, i_am, times};
use super::regions::{Owner, Region, by_sections};
use ioctx::aio::{Backend, Context, Request};
use ioctx::cpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// How many requests a thread submits before it looks how many there are. Few enough that readers seldom find as many
/// as the library reads in one go: whoever does leaves a note for the next reader, which is a store to be caught.
const CHUNK: u64 = 32;

/// A thread that is caught so often has shown enough, and gives up: each time takes some 10 µs.
const ENOUGH: u64 = 100_000;

/// Who reads the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Those who submit, in turn with that.
    Themselves,
    /// A thread beside them.
    Another,
}

/// What was found.
pub struct Report {
    threads: usize,
    readers: Readers,
    /// Whether each thread had a CPU to itself, as far as this program goes.
    apart: bool,
    /// How many were to be.
    wanted: u64,
    submits: u64,
    /// How many tags a batch has.
    batch: u64,
    /// How often the submitters were taken off their CPUs.
    switches: u64,
    stores: Vec<Stores>,
}

/// So many requests that stocks and lanes are the same wherever there are up to 32 CPUs.
pub fn capacity() -> u32 {
    (4096 * cpu::possible()).min(1 << 17)
}

/// How many requests may be on their way: then no lane is full, and the pool has tags.
fn most<B: Backend>(context: &Context<B>) -> u32 {
    context.capacity() / cpu::possible().max(4)
}

/// Has `threads` threads submit `each`, while what nobody but readers and movers of batches may write is guarded.
pub fn run<B: Backend>(
    context: &Context<B>,
    regions: &[Region],
    threads: usize,
    each: u64,
    readers: Readers,
) -> Report {
    // Submitters that read as well write the readers' lines at each turn: catching that would be all they do.
    let guards = |owner| owner == Owner::Shared || owner == Owner::Reader && readers == Readers::Another;
    let stock = regions.iter().find(|region| region.name == "tags.stocks.tags").unwrap().range.len();
    let regions: Vec<_> = regions.iter().filter(|region| guards(region.owner)).cloned().collect();
    let each = each.next_multiple_of(CHUNK);
    let ready = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..threads)
            .map(|thread| {
                let ready = &ready;
                scope.spawn(move || {
                    i_am(thread);
                    let pinned = pin(thread).is_ok();
                    let (submits, switches) = submitter(context, each, readers, ready);
                    (pinned, submits, switches)
                })
            })
            .collect();
        // They are warm: each has submitted, and knows its area.
        ready.wait();
        let guard = Guard::new(regions);
        ready.wait();
        i_am(threads);
        let mut events = Vec::new();
        while readers == Readers::Another && !submitters.iter().all(ScopedJoinHandle::is_finished) {
            if context.get_events(0, 1024, None, &mut events) == Ok(0) {
                thread::yield_now();
            }
            events.clear();
        }
        let ended: Vec<_> = submitters.into_iter().map(|thread| thread.join().unwrap()).collect();
        let stores = (0..threads).flat_map(|thread| guard.stores(thread)).collect();
        drop(guard);
        drain(context);
        let pinned = ended.iter().all(|(pinned, ..)| *pinned);
        Report {
            threads,
            readers,
            apart: pinned && threads <= cpus().len() && readers == Readers::Themselves,
            wanted: each * threads as u64,
            submits: ended.iter().map(|(_, submits, _)| submits).sum(),
            // A stock has room for two.
            batch: (stock / (2 * size_of::<u32>())) as u64,
            switches: ended.iter().map(|(.., switches)| switches).sum(),
            stores,
        }
    })
}

/// What one of them does. Returns how many requests it has submitted, and how often it was taken off its CPU.
fn submitter<B: Backend>(context: &Context<B>, each: u64, readers: Readers, ready: &Barrier) -> (u64, u64) {
    let mut events = Vec::with_capacity(1024);
    let mut read = || {
        let read = context.get_events(0, 1024, None, &mut events);
        events.clear();
        read == Ok(0)
    };
    for _ in 0..CHUNK {
        context.submit(Request::nop()).unwrap();
    }
    while !read() {}
    ready.wait();
    ready.wait();
    let before = switches();
    let mut call = 0;
    while call < each && times() < ENOUGH {
        for _ in 0..CHUNK {
            call += 1;
            counted(call, || context.submit(Request::nop())).unwrap();
        }
        if readers == Readers::Themselves {
            read();
        }
        while context.outstanding() > most(context) {
            if readers == Readers::Another || read() {
                // Not a yield, which would count as a preemption.
                thread::sleep(Duration::from_micros(50));
            }
        }
    }
    (call, switches() - before)
}

fn drain<B: Backend>(context: &Context<B>) {
    let mut events = Vec::new();
    while context.outstanding() > 0 {
        context.get_events(0, 1024, None, &mut events).unwrap();
        events.clear();
    }
}

/// The CPUs this program may use.
pub fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
}

/// Keeps this thread to one of these CPUs, those of other numbers to others.
pub fn pin(thread: usize) -> rustix::io::Result<()> {
    let cpus = cpus();
    let mut one = CpuSet::new();
    one.set(cpus[thread % cpus.len()]);
    sched_setaffinity(None, &one)
}

/// How often this thread was taken off its CPU, unasked.
fn switches() -> u64 {
    // SAFETY: all zeros are such numbers, and the kernel fills in others.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage
    };
    usage.ru_nivcsw as u64
}

impl Report {
    /// In how many calls a region was written.
    fn calls(&self, name: &str) -> u64 {
        self.stores.iter().filter(|stores| stores.name == name).map(|stores| stores.calls).sum()
    }

    /// How many calls moved tags: each of them writes the pool's word.
    pub fn moves(&self) -> u64 {
        self.calls("tags.pool")
    }

    /// Whether nobody wrote what is shared but to move a batch of tags, once per batch; or because a section was
    /// aborted, which takes that its thread is taken off its CPU.
    pub fn verdict(&self) -> Result<(), String> {
        let batches = self.submits / self.batch + u64::from(cpu::possible());
        let (aborts, moves) = if by_sections() {
            (self.switches, batches + self.switches)
        } else if self.apart {
            (0, batches)
        } else {
            // As long as a thread is off its CPU in the middle of its turn with a stock, others go to the pool.
            (0, self.submits)
        };
        let mut most: BTreeMap<&str, u64> = BTreeMap::new();
        most.insert("tags.pool", moves);
        for ids in ["tags.ids", "tags.last"] {
            most.insert(ids, self.moves());
        }
        for global in ["reqs", "queue.shared", "queue.shared.events"] {
            most.insert(global, aborts);
        }
        let excess: Vec<_> = self
            .stores
            .iter()
            .filter(|stores| self.calls(stores.name) > most.get(stores.name).copied().unwrap_or(0))
            .map(|stores| {
                let Stores { name, stores, calls, offset, ip, .. } = stores;
                format!("{name}+{offset}: {stores} stores in {calls} submits, last by {ip:#x}")
            })
            .collect();
        // Where it is allowed to be caught that often, so it may be.
        let given_up = self.submits < self.wanted && moves < self.submits;
        if excess.is_empty() && !given_up { Ok(()) } else { Err(format!("{self}\n{}", excess.join("\n"))) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, readers, submits, batch, switches, .. } = self;
        let (moves, batches) = (self.moves(), submits / batch);
        write!(f, "{submits} submits by {threads} threads, read by {readers:?}: {moves} moves of tags")?;
        write!(f, " where {batches} batches were used; {} references and", self.calls("reqs"))?;
        write!(f, " {} events by the global side; {switches} preemptions", self.calls("queue.shared"))
    }
}
