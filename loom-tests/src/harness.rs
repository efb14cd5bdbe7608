//! Runs one model per process and says exactly how far it was explored.

use ioctx::sync::model::{Weaken, weaken};
use std::panic;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A small concurrent program, run under every schedule that the bound allows.
#[derive(Debug)]
pub struct Model {
    /// `part.what`.
    pub name: &'static str,
    /// The edge, or the race, that it checks.
    pub checks: &'static str,
    /// How many times a schedule may preempt a thread; `None` explores everything.
    pub bound: Option<usize>,
    /// The fewest iterations there may be: a model that shrinks has lost something.
    pub least: u64,
    /// One iteration.
    pub body: fn(),
    /// Looks at what all iterations together have seen.
    pub after: fn(),
}

/// For models whose every iteration speaks for itself.
pub(crate) fn nothing() {}

static ITERATIONS: AtomicU64 = AtomicU64::new(0);
static TRACED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Explores one model. Any failure ends the process.
///
/// The floor under the number of iterations holds only for orderings as they are: `weakened` ones may well
/// allow fewer.
fn model(model: &Model, bound: Option<usize>, weakened: bool) {
    // Every limit is set here: one that comes from the environment would end a model early, as a success.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.max_branches = 20_000;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.checkpoint_file = None;
    builder.log = false;
    let body = model.body;
    let begun = Instant::now();
    builder.check(move || {
        ITERATIONS.fetch_add(1, Relaxed);
        body();
    });
    (model.after)();
    let iterations = ITERATIONS.load(Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let depth = bound.map_or("all".into(), |bound| format!("<={bound}"));
    println!(
        "{:<28} {iterations:>9} iterations {seconds:>7.2} s  preemptions {depth:<4} complete",
        model.name
    );
    assert!(weakened || iterations >= model.least, "fewer iterations than the {} it once had", model.least);
}

/// Says in which iteration a model failed, so that this one can be run again with a trace.
fn report_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        eprintln!("failed in iteration {}", ITERATIONS.load(Relaxed));
        default(info);
    }));
}

/// Shows loom's events of one iteration.
fn trace(iteration: u64) {
    TRACED.store(iteration, Relaxed);
    let only_traced = dynamic_filter_fn(|_, _| ITERATIONS.load(Relaxed) == TRACED.load(Relaxed));
    let lines = tracing_subscriber::fmt::layer().without_time().with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(only_traced)).init();
}

fn usage() -> ! {
    eprintln!(
        "usage: models list | models run NAME [--deeper N] [--trace ITERATION] [--weaken SITE acquire|release|fence]"
    );
    exit(2)
}

/// `models list`, or `models run NAME …`.
pub fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut arguments = arguments.iter().map(String::as_str);
    match arguments.next() {
        Some("list") => {
            // The quick ones first: what looks for the first that fails is done sooner.
            let mut all = crate::models::all();
            all.sort_by_key(|model| model.least);
            for model in all {
                println!("{}\t{}", model.name, model.checks);
            }
        }
        Some("run") => {
            let name = arguments.next().unwrap_or_else(|| usage());
            let all = crate::models::all();
            let found = all.iter().find(|model| model.name == name).unwrap_or_else(|| {
                eprintln!("no model is called {name}; `models list` names them");
                exit(2)
            });
            let mut bound = found.bound;
            let mut weakened = false;
            while let Some(option) = arguments.next() {
                let mut value = || arguments.next().unwrap_or_else(|| usage());
                match option {
                    "--deeper" => {
                        let more: usize = value().parse().unwrap_or_else(|_| usage());
                        bound = bound.map(|bound| bound + more);
                    }
                    "--trace" => trace(value().parse().unwrap_or_else(|_| usage())),
                    "--weaken" => {
                        let site = value();
                        let how = match value() {
                            "acquire" => Weaken::Acquire,
                            "release" => Weaken::Release,
                            "fence" => Weaken::Fence,
                            _ => usage(),
                        };
                        weaken(Some((site, how)));
                        weakened = true;
                    }
                    _ => usage(),
                }
            }
            report_panics();
            model(found, bound, weakened);
        }
        _ => usage(),
    }
}
