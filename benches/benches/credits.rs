//! Admission to a bounded resource: credits per CPU beside counters that everybody shares.

use ioctx::credits::Credits;
use ioctx_benches::credits::{
    Locked, Pool, SharedCas, SharedUndo, ThreadLocal, bursts, check, exhausted, pairs, refusals,
};
use ioctx_benches::harness::{Bench, Case, Contest, cpus};
use tokio::sync::Semaphore;

/// How many credits a thread of the second contest holds at the most. Two threads together leave some over.
const BURST: usize = 256;

fn pair<P: Pool + 'static>(name: &str, threads: usize) -> Case<'static> {
    let pool = P::new();
    Case::slices(name, threads, 1, move |n| pairs(&pool, n))
}

fn burst<P: Pool + 'static>(name: &str, threads: usize) -> Case<'static> {
    let pool = P::new();
    Case::slices(name, threads, BURST as u32, move |n| bursts(&pool, BURST, n))
}

fn refusal<P: Pool + 'static>(name: &str, threads: usize) -> Case<'static> {
    let pool = exhausted::<P>();
    Case::slices(name, threads, 1, move |n| refusals(&pool, n))
}

/// All contenders of a contest.
macro_rules! contenders {
    ($case:ident, $threads:expr) => {
        vec![
            $case::<Credits>("ioctx Credits", $threads),
            $case::<SharedCas>("one shared atomic, compare-and-swap", $threads),
            $case::<SharedUndo>("one shared atomic, fetch_sub and undo", $threads),
            $case::<Locked>("Mutex<u32>", $threads),
            $case::<Semaphore>("tokio Semaphore", $threads),
        ]
    };
}

fn main() {
    let mut bench = Bench::start("credits", env!("CARGO_TARGET_TMPDIR"));
    check::<Credits>();
    check::<SharedCas>();
    check::<SharedUndo>();
    check::<Locked>();
    check::<Semaphore>();
    check::<ThreadLocal>();

    let mut single = Contest::new("take+put of one credit");
    let mut many = Contest::new("256 credits taken one by one, then put one by one");
    let mut refused = Contest::new("refused, since all 1024 are out");
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cpus().len()) {
        let floor = "thread-local cell (floor)";
        let mut cases = contenders!(pair, threads);
        cases.push(pair::<ThreadLocal>(floor, threads));
        single = single.group(threads, 1, cases);
        let mut cases = contenders!(burst, threads);
        cases.push(burst::<ThreadLocal>(floor, threads));
        many = many.group(threads, BURST, cases);
        refused = refused.group(threads, 1, contenders!(refusal, threads));
    }
    bench.run(single);
    bench.run(many);
    bench.run(refused);
    bench.finish();
}
