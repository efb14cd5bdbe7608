//! What a layer costs: a request goes down through layers and its end comes up again, beside a chain of boxed closures,
//! each of which calls the next. Layers of one kind pass the request down with a hook, those of the other have requests
//! of their own by [`Below`].
//!
//! Only the way up is timed, from the backend's call to the event in the context's queue, 64 at a time; and both ways
//! together. A layer's share is the difference of two rows, divided by the layers that one has more.

use ioctx::aio::{Backend, Below, By, Completion, Context, Done, Ended, Finished, Request, Submitted};
use ioctx_benches::harness::{Bench, Case, Contest};
use std::hint::black_box;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BATCH: u32 = 64;

/// Keeps what it is given, and completes it when it is told to.
#[derive(Clone, Default)]
struct Bottom(Arc<Mutex<Vec<Completion>>>);

impl Backend for Bottom {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.lock().expect("one thread").push(work);
        Submitted::Queued
    }
}

/// Has a request of its own for each.
struct Layer(Below<Box<dyn Backend>, Above>);

struct Above(Completion);

impl Done for Above {
    fn done(self, mut ended: Ended) -> Option<Finished> {
        Some(self.0.finish(ended.result()))
    }
}

impl Backend for Layer {
    fn submit(&self, work: Completion) -> Submitted {
        let above = self.0.above(&work).expect("one context");
        let submitted = self.0.submit(above, Request::nop(), Above(work));
        submitted.expect("there is room").map_or(Submitted::Queued, Submitted::Done)
    }
}

/// Passes each on, with a function and a word to call it with.
struct Hooked(Box<dyn Backend>, usize);

impl Backend for Hooked {
    fn submit(&self, mut work: Completion) -> Submitted {
        let layer = self.1;
        work.on_end(By::Completer, move |_, mut outcome| {
            outcome.bytes += black_box(layer);
            outcome
        });
        self.0.submit(work)
    }
}

/// Puts a layer over a backend: the how-many-eth it is.
type Over = fn(Box<dyn Backend>, usize) -> Box<dyn Backend>;

const BELOW: Over = |backend, _| Box::new(Layer(Below::new(BATCH, backend).expect("within bounds")));
const HOOKED: Over = |backend, layer| Box::new(Hooked(backend, layer));
/// A layer that does nothing: what a call of a backend costs.
const PASSED_ON: Over = |backend, _| Box::new(PassedOn(backend));

struct PassedOn(Box<dyn Backend>);

impl Backend for PassedOn {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.submit(black_box(work))
    }
}

fn context(over: Over, layers: usize) -> (Context<Box<dyn Backend>>, Bottom) {
    let bottom = Bottom::default();
    let backend = (0..layers).fold(Box::new(bottom.clone()) as Box<dyn Backend>, over);
    (Context::new(BATCH, backend).expect("within bounds"), bottom)
}

/// So many requests; how many that were, and how long it took to complete them, or all of it.
fn through(over: Over, layers: usize, n: u64, both_ways: bool) -> (u64, Duration) {
    let (context, bottom) = context(over, layers);
    let mut took = Duration::ZERO;
    let rounds = n.div_ceil(BATCH.into());
    for _ in 0..rounds {
        let down = Instant::now();
        for _ in 0..BATCH {
            context.submit(Request::nop()).expect("there is room");
        }
        let held = std::mem::take(&mut *bottom.0.lock().expect("one thread"));
        let up = Instant::now();
        held.into_iter().for_each(|work| work.complete(Ok(1)));
        took += if both_ways { down } else { up }.elapsed();
        let read =
            context.visit(BATCH as usize, BATCH as usize, None, |event| drop(event)).expect("they are there");
        assert_eq!(read, BATCH as usize);
    }
    (rounds * u64::from(BATCH), took)
}

type Next = Box<dyn FnOnce(io::Result<usize>) -> io::Result<usize>>;

fn boxed(layers: usize, n: u64) -> (u64, Duration) {
    let chain = || {
        let last: Next = Box::new(black_box);
        (0..layers)
            .fold(last, |next, layer| Box::new(move |result| next(result.map(|n| n + black_box(layer)))))
    };
    let mut took = Duration::ZERO;
    let rounds = n.div_ceil(BATCH.into());
    for _ in 0..rounds {
        let chains: Vec<Next> = (0..BATCH).map(|_| chain()).collect();
        let up = Instant::now();
        for chain in chains {
            let _ = black_box(chain(Ok(1)));
        }
        took += up.elapsed();
    }
    (rounds * u64::from(BATCH), took)
}

fn main() {
    let mut bench = Bench::start("layers", env!("CARGO_TARGET_TMPDIR"));
    fn rows(what: &str, run: impl Fn(usize, u64) -> (u64, Duration) + Copy + 'static) -> Vec<Case<'static>> {
        let row = |layers| Case::repetitions(format!("{what}, layers: {layers}"), move |n| run(layers, n));
        [0, 1, 2, 4].map(row).into()
    }
    let kinds = [("ioctx on_end", HOOKED), ("ioctx Below", BELOW), ("ioctx, passed on", PASSED_ON)];
    let layered = |kinds: &[(&str, Over)], both_ways| -> Vec<Case<'static>> {
        let rows =
            |&(what, over): &(&str, Over)| rows(what, move |layers, n| through(over, layers, n, both_ways));
        kinds.iter().flat_map(rows).collect()
    };
    let mut up = layered(&kinds[..2], false);
    up.extend(rows("Box<dyn FnOnce>", boxed));
    bench.run(Contest::new("completing through layers").group(1, BATCH as usize, up));
    let both = layered(&kinds, true);
    bench.run(Contest::new("down and up through layers").group(1, BATCH as usize, both));
    bench.finish();
}
