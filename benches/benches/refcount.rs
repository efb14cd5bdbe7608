//! Getting and putting references: per-CPU counts beside what one would use instead.

use ioctx_benches::harness::{Bench, Case, Contest, cpus};
use ioctx_benches::refcount::{
    Count, Epoch, Ours, OursLive, SharedAtomic, ThreadLocal, all_at_once, check, pairs,
};
use std::array;
use std::sync::Arc;

/// How many objects in the second contest.
const OBJECTS: usize = 8;

fn one<C: Count + 'static>(name: &str, threads: usize) -> Case<'static> {
    let count = C::default();
    Case::slices(name, threads, 1, move |n| pairs(&count, n))
}

fn eight<C: Count + 'static>(name: &str, threads: usize) -> Case<'static> {
    let counts: [C; OBJECTS] = array::from_fn(|_| C::default());
    Case::slices(name, threads, OBJECTS as u32, move |n| all_at_once(&counts, n))
}

fn main() {
    let mut bench = Bench::start("refcount", env!("CARGO_TARGET_TMPDIR"));
    check::<Ours>();
    check::<OursLive>();
    check::<Arc<()>>();
    check::<SharedAtomic>();
    check::<Epoch>();
    check::<ThreadLocal>();

    let mut shared = Contest::new("get+put on one shared object");
    let mut many = Contest::new("get all, then put all, of 8 shared objects");
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cpus().len()) {
        let cases = vec![
            one::<Ours>("ioctx PerCpuRef get", threads),
            one::<OursLive>("ioctx PerCpuRef try_get_live", threads),
            one::<Arc<()>>("Arc clone+drop", threads),
            one::<SharedAtomic>("one shared atomic", threads),
            one::<Epoch>("crossbeam_epoch::pin", threads),
            one::<ThreadLocal>("thread-local cell (floor)", threads),
        ];
        shared = shared.group(threads, 1, cases);
        // Without `pin`: it holds all objects by one word, so that the other seven cost it nothing.
        let cases = vec![
            eight::<Ours>("ioctx PerCpuRef get", threads),
            eight::<Arc<()>>("Arc clone+drop", threads),
            eight::<SharedAtomic>("one shared atomic each", threads),
            eight::<ThreadLocal>("thread-local cell (floor)", threads),
        ];
        many = many.group(threads, OBJECTS, cases);
    }
    bench.run(shared);
    bench.run(many);
    bench.finish();
}
