//! What lies where: names for the memory of a context and of its parts.

use super::arena::{self, Place};
use ioctx::aio::Backend;
use ioctx::backend::Null;
use ioctx::credits::{Credits, Tags};
use ioctx::refcount::PerCpuRef;
use ioctx::ring::{CompletionQueue, Ring};
use ioctx::wait::EventCount;
use ioctx::{Context, Request, cpu};
use std::ops::Range;
use std::sync::Once;

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Of all CPUs: what must not be written.
    Shared,
    /// Of one CPU after the other, so many bytes each.
    EachCpu(usize),
    /// Of this CPU.
    Cpu(usize),
    /// Of whoever reads a lane.
    Reader,
    /// A request's own.
    Request,
    /// Of who calls.
    Caller,
}

/// Memory with a name.
#[derive(Clone, Debug)]
pub struct Region {
    pub name: &'static str,
    pub owner: Owner,
    pub range: Range<usize>,
}

/// The line that a CPU has in what the library calls `PerCpu`.
const LINE: usize = 128;

/// Whether CPUs have what is theirs written by restartable sequences.
pub fn by_sections() -> bool {
    !matches!(cpu::kind(), cpu::Kind::Portable(_))
}

/// Names to allocations, in the order in which they are made, with their size if it is known.
#[derive(Default)]
struct Names(Vec<(&'static str, Owner, Option<usize>)>);

impl Names {
    fn one(&mut self, name: &'static str, owner: Owner, size: impl Into<Option<usize>>) {
        self.0.push((name, owner, size.into()));
    }

    fn lines(&mut self, name: &'static str, owner: Owner) {
        self.one(name, owner, cpus() * LINE);
    }

    fn of_each_cpu(&mut self, name: &'static str) {
        (0..cpus()).for_each(|cpu| self.one(name, Owner::Cpu(cpu), None));
    }

    fn queue(&mut self) {
        let ring = size_of::<Ring>();
        if by_sections() {
            self.lines("queue.lanes", Owner::EachCpu(LINE));
            self.of_each_cpu("queue.lanes.events");
            self.lines("queue.readers", Owner::Reader);
            self.one("queue.shared", Owner::Shared, ring);
            self.one("queue.shared.events", Owner::Shared, None);
        } else {
            self.one("queue.lanes", Owner::EachCpu(ring), cpus() * ring);
            self.of_each_cpu("queue.lanes.events");
        }
    }

    fn tags(&mut self) {
        self.one("tags.ids", Owner::Shared, None);
        self.lines("tags.stocks", Owner::EachCpu(LINE));
        self.of_each_cpu("tags.stocks.tags");
        self.one("tags.withdrawn", Owner::Shared, None);
    }

    fn context(&mut self, capacity: u32, shared: usize) {
        self.queue();
        self.lines("memory.slots", Owner::EachCpu(LINE));
        self.lines("reqs.slots", Owner::EachCpu(LINE));
        self.tags();
        self.one("gate", Owner::Shared, None);
        self.one("requests", Owner::Request, capacity as usize * LINE);
        self.one("shared", Owner::Shared, shared);
    }

    /// Puts the names to what was allocated.
    fn of(self, places: &[Place]) -> Vec<Region> {
        let fits = places.len() == self.0.len()
            && places
                .iter()
                .zip(&self.0)
                .all(|(place, (.., size))| size.is_none_or(|size| size == place.size));
        let names: Vec<_> = self.0.iter().map(|(name, ..)| name).collect();
        assert!(fits, "allocated otherwise than this test knows; tell `Names`:\n{names:?}\n{places:?}");
        let region = |(name, owner, _), place: &Place| Region {
            name,
            owner,
            range: place.start..place.start + place.size,
        };
        self.0.into_iter().zip(places).map(|(name, place)| region(name, place)).collect()
    }
}

fn cpus() -> usize {
    cpu::possible() as usize
}

/// Has the library find out first what it finds out once.
fn warm() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let context = Context::new(1, Null).unwrap();
        context.submit(Request::nop()).unwrap();
        drop(EventCount::for_light_publishers());
    });
}

/// A context in the arena, and what lies where in it.
pub fn context<B: Backend>(capacity: u32, backend: B) -> (&'static Context<B>, Vec<Region>) {
    warm();
    let (context, places) = arena::build(|| Context::new(capacity, backend).unwrap());
    let mut names = Names::default();
    names.context(capacity, places.last().unwrap().size);
    let mut regions = names.of(&places);
    let shared = regions.pop().unwrap().range;
    regions.extend(shared.clone().step_by(LINE).map(|line| Region {
        name: group::<B>(line - shared.start),
        owner: Owner::Shared,
        range: line..line + LINE,
    }));
    // It is dropped by nobody, as its memory is freed by nobody.
    (Box::leak(Box::new(context)), regions)
}

/// The group of shared fields at `offset`, where a line begins: what is written there, or else the part it belongs to.
fn group<B: Backend>(offset: usize) -> &'static str {
    let groups = Context::<B>::layout();
    let written = groups.iter().find(|(name, start)| name.contains('.') && *start == offset);
    let parts = groups.iter().filter(|(name, start)| !name.contains('.') && *start <= offset);
    written.or(parts.max_by_key(|(_, start)| *start)).unwrap().0
}

/// The parts of a context, each on its own.
#[derive(Debug)]
pub struct Parts {
    pub count: &'static PerCpuRef,
    pub tags: &'static Tags,
    pub credits: &'static Credits,
    pub queue: &'static CompletionQueue,
    pub sleepers: [&'static EventCount; 2],
}

/// Parts in the arena, and what lies where in them.
pub fn parts(capacity: u32) -> (Parts, Vec<Region>) {
    warm();
    let build = || Parts {
        count: Box::leak(Box::new(PerCpuRef::new())),
        tags: Box::leak(Box::new(Tags::new(capacity))),
        credits: Box::leak(Box::new(Credits::new(capacity))),
        queue: Box::leak(Box::new(CompletionQueue::new(capacity))),
        sleepers: [EventCount::new(), EventCount::for_light_publishers()]
            .map(|sleepers| &*Box::leak(Box::new(sleepers))),
    };
    let (parts, places) = arena::build(build);
    let mut names = Names::default();
    names.lines("reqs.slots", Owner::EachCpu(LINE));
    names.one("reqs", Owner::Shared, size_of::<PerCpuRef>());
    names.tags();
    names.one("tags", Owner::Shared, size_of::<Tags>());
    names.lines("credits.stocks", Owner::EachCpu(LINE));
    names.one("credits", Owner::Shared, size_of::<Credits>());
    names.queue();
    names.one("queue", Owner::Shared, size_of::<CompletionQueue>());
    names.one("wait", Owner::Shared, size_of::<EventCount>());
    names.one("wait", Owner::Shared, size_of::<EventCount>());
    (parts, names.of(&places))
}
