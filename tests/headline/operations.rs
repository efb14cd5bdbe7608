//! One call of each operation, to be stepped through.

use super::faults::Fault;
use super::load::pin;
use super::regions::{self, Owner, Parts, Region};
use crate::support::{skip, tracee};
use ioctx::backend::Null;
use ioctx::credits::{Credit, Tag};
use ioctx::{Context, Event, Request, cpu, ring};
use std::arch::asm;
use std::hint::black_box;
use std::ops::Range;

use Kind::{Fenced, Hot, Planted, Reader};

/// What operations are done to.
pub struct World {
    context: &'static Context<Null>,
    parts: Parts,
    out: Vec<Event>,
    batch: Vec<Request>,
    got: [ring::Event; 4],
    tag: Option<Tag<'static>>,
    credit: Option<Credit<'static>>,
    planted: usize,
    regions: Vec<Region>,
}

/// What an operation may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Write nothing that all share, and have no locked instruction where there are sections.
    Hot,
    /// Write nothing that all share.
    Fenced,
    /// Write what readers share.
    Reader,
    /// A control: it is to be found that it writes what all share.
    Planted,
}

/// One of them.
pub struct Operation {
    pub name: &'static str,
    pub kind: Kind,
    /// What is to be done before, and is not looked at.
    before: fn(&mut World),
    call: fn(&mut World),
}

const fn operation(
    kind: Kind,
    name: &'static str,
    before: fn(&mut World),
    call: fn(&mut World),
) -> Operation {
    Operation { name, kind, before, call }
}

pub const OPERATIONS: [Operation; 21] = [
    operation(Hot, "Context::submit", World::drain, |world| {
        world.context.submit(Request::nop()).unwrap();
    }),
    operation(Hot, "Context::submit_batch of 4", World::fill_batch, |world| {
        world.context.submit_batch(&mut world.batch).unwrap();
    }),
    operation(Reader, "Context::get_events of 1", World::submit, |world| {
        world.context.get_events(1, 1, None, &mut world.out).unwrap();
    }),
    operation(Hot, "Context::get_events of 0", World::drain, |world| {
        world.context.get_events(0, 64, None, &mut world.out).unwrap();
    }),
    operation(Hot, "Tags::try_take", World::nothing, |world| world.tag = world.parts.tags.try_take().ok()),
    operation(Hot, "Tag::put", World::nothing, |world| world.tag.take().unwrap().put()),
    operation(Hot, "Credits::try_take", World::nothing, |world| {
        world.credit = world.parts.credits.try_take(1).ok();
    }),
    operation(Hot, "Credit::drop", World::nothing, |world| drop(world.credit.take().unwrap())),
    operation(Hot, "PerCpuRef::get", World::nothing, |world| world.parts.count.get()),
    operation(Hot, "PerCpuRef::put", World::nothing, |world| _ = black_box(world.parts.count.put())),
    operation(Hot, "PerCpuRef::try_get_live", World::nothing, |world| {
        black_box(world.parts.count.try_get_live());
    }),
    operation(Hot, "CompletionQueue::publish_one", World::nothing, |world| {
        world.parts.queue.publish_one(ring::Event::default());
    }),
    operation(Hot, "CompletionQueue::publish of 4", World::nothing, |world| {
        world.parts.queue.publish(&world.got);
    }),
    operation(Hot, "CompletionQueue::len", World::nothing, |world| _ = black_box(world.parts.queue.len())),
    operation(Reader, "CompletionQueue::read", World::nothing, |world| {
        let got = &mut world.got;
        world.parts.queue.read(4, |run| got[..run.len()].copy_from_slice(run));
    }),
    operation(Hot, "CompletionQueue::is_empty", World::drain, |world| {
        black_box(world.parts.queue.is_empty());
    }),
    operation(Fenced, "EventCount::notify", World::nothing, |world| world.parts.sleepers[0].notify(|| 1)),
    operation(Hot, "EventCount::notify_light", World::nothing, |world| {
        world.parts.sleepers[1].notify_light(|| 1);
    }),
    // The controls.
    operation(Planted, "a silent store", World::nothing, |world| world.plant(Fault::Silent)),
    operation(Planted, "a failing exchange", World::nothing, |world| world.plant(Fault::Failing)),
    operation(Planted, "up and down", World::nothing, |world| world.plant(Fault::UpAndDown)),
];

impl World {
    pub fn new() -> Self {
        // A batch is 64, wherever it is.
        let capacity = 256 * cpu::possible();
        let (context, mut regions) = regions::context(capacity, Null);
        let (parts, of_parts) = regions::parts(capacity);
        let (_, planted) = super::shared_word();
        let address = planted.range.start;
        regions.extend(of_parts);
        regions.push(planted);
        Self {
            context,
            parts,
            out: Vec::with_capacity(64),
            batch: Vec::with_capacity(4),
            got: Default::default(),
            tag: None,
            credit: None,
            planted: address,
            regions,
        }
    }

    fn nothing(&mut self) {}

    fn submit(&mut self) {
        self.drain();
        self.context.submit(Request::nop()).unwrap();
    }

    fn fill_batch(&mut self) {
        self.drain();
        self.batch.extend((0..4).map(|_| Request::nop()));
    }

    fn drain(&mut self) {
        self.context.get_events(0, 64, None, &mut self.out).unwrap();
        self.out.clear();
        self.parts.queue.read(usize::MAX, |_| {});
    }

    fn plant(&mut self, fault: Fault) {
        // SAFETY: 1. a word of its own.
        unsafe { fault.plant(self.planted) };
    }

    /// What lies where. Names and their order are the same in each process.
    pub fn regions(&self) -> Vec<Region> {
        fn caller(range: Range<usize>) -> Region {
            Region { name: "the caller's", owner: Owner::Caller, range }
        }
        let out = self.out.as_ptr_range();
        let batch = self.batch.as_ptr() as usize;
        let world = (&raw const *self) as usize;
        let mut regions = self.regions.clone();
        regions
            .push(caller(out.start as usize..out.start as usize + self.out.capacity() * size_of::<Event>()));
        regions.push(caller(batch..batch + self.batch.capacity() * size_of::<Request>()));
        regions.push(caller(world..world + size_of::<Self>()));
        regions
    }
}

/// Called before and after what is to be stepped through.
// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_headline_mark() {
    // SAFETY: does nothing; so that this is a function like no other.
    unsafe { asm!("nop", "nop", options(nomem, nostack)) };
}

/// What a stepper is told: where the mark is, which CPU this is, and where each region begins and ends.
fn words(world: &World) -> Vec<u64> {
    let regions = world.regions();
    let ends = regions.iter().flat_map(|region| [region.range.start as u64, region.range.end as u64]);
    [ioctx_headline_mark as *const () as u64, cpu::hint().0.into()].into_iter().chain(ends).collect()
}

/// Does everything thrice to get warm, and once to be stepped through.
pub fn be_stepped() {
    if let Err(error) = pin(0) {
        return skip(format_args!("sched_setaffinity: {error}"));
    }
    let mut world = Box::new(World::new());
    for turn in 0..4 {
        if turn == 3
            && let Err(error) = tracee::be_traced(&words(&world))
        {
            return skip(format_args!("ptrace: {error}"));
        }
        for operation in &OPERATIONS {
            (operation.before)(&mut world);
            ioctx_headline_mark();
            black_box(operation.call)(&mut world);
            ioctx_headline_mark();
        }
    }
}
