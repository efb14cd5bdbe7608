//! A context shared by submitters and a reaper, on a device that does nothing.

use ioctx::Event;
use ioctx::backend::Null;
use ioctx_benches::context::{Context, Locked, Shape, Word, alone, check, pass, polls};
#[cfg(target_os = "linux")]
use ioctx_benches::context::{KernelAio, SharedRing};
use ioctx_benches::harness::{Bench, Case, Contest};

/// One contender, by its type.
struct Contender {
    name: &'static str,
    pass: fn(&str, Shape) -> Case<'static>,
    alone: fn(&str, usize) -> Case<'static>,
    poll: fn(&str) -> Case<'static>,
}

impl Contender {
    /// `None`, and a word why, if it cannot be had here.
    fn new<C: Context + 'static>(name: &'static str) -> Option<Self> {
        if let Err(error) = check::<C>() {
            println!("\n{name} is left out: {error}.");
            return None;
        }
        fn open<C: Context>() -> C {
            C::open().expect("it could be opened before")
        }
        Some(Self {
            name,
            pass: |name, shape| Case::repetitions(name, move |n| pass::<C>(n, shape)),
            alone: |name, batch| {
                let context = open::<C>();
                Case::slices(name, 1, batch as u32, move |n| alone(&context, batch, n))
            },
            poll: |name| {
                let context = open::<C>();
                Case::slices(name, 1, 1, move |n| polls(&context, n))
            },
        })
    }
}

fn main() {
    let mut bench = Bench::start("context", env!("CARGO_TARGET_TMPDIR"));
    let contenders: Vec<Contender> = [
        Contender::new::<ioctx::Context<Null>>("ioctx Context"),
        #[cfg(target_os = "linux")]
        Contender::new::<KernelAio>("kernel AIO"),
        #[cfg(target_os = "linux")]
        Contender::new::<SharedRing>("io_uring behind a mutex"),
        Contender::new::<Locked<Event>>("Mutex<VecDeque> of requests"),
        Contender::new::<Locked<Word>>("Mutex<VecDeque> of words"),
    ]
    .into_iter()
    .flatten()
    .collect();

    for (min, title) in [
        (1, "4 submitters, 1 reaper that waits for 1 event"),
        (16, "4 submitters, 1 reaper that waits for 16 events"),
    ] {
        let mut contest = Contest::new(title);
        for batch in [1, 16] {
            let shape = Shape { submitters: 4, batch, min };
            let cases = contenders.iter().map(|contender| (contender.pass)(contender.name, shape));
            contest = contest.group(5, batch, cases.collect());
        }
        bench.run(contest);
    }
    let mut contest = Contest::new("one thread submits and reaps");
    for batch in [1, 16] {
        let cases = contenders.iter().map(|contender| (contender.alone)(contender.name, batch));
        contest = contest.group(1, batch, cases.collect());
    }
    bench.run(contest);
    let cases = contenders.iter().map(|contender| (contender.poll)(contender.name));
    bench.run(Contest::new("nothing to reap, and no wish to wait").group(1, 1, cases.collect()));
    bench.finish();
}
