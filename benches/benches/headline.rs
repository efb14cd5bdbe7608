//! The headline figures by criterion: what one thread pays for each part, and for the usual choice beside it.
//!
//! `--quick` is criterion's own.

use criterion::{Criterion, Throughput};
use crossbeam_queue::ArrayQueue;
use ioctx::backend::Null;
use ioctx::ring::{Event, Ring};
use ioctx_benches::context::{self, Context};
use ioctx_benches::refcount::{self, Count, counted::Object, ours};
use ioctx_benches::ring::{self, Both, Queue};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many events go through a ring or a context at a time.
const BATCHES: [usize; 2] = [1, 16];

fn get_put<C: Count>(criterion: &mut Criterion, name: &str) {
    refcount::check::<C>();
    let count = C::default();
    criterion.benchmark_group("get+put").bench_function(name, |bencher| {
        bencher.iter_custom(|n| timed(|| refcount::pairs(&count, n)));
    });
}

fn publish_read<Q: Queue>(criterion: &mut Criterion, name: &str) {
    ring::check::<Q>();
    let mut ends = Both::<Q>::new();
    let mut group = criterion.benchmark_group("publish+read");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("{name}/{batch}"), |bencher| {
            bencher.iter_custom(|n| timed(|| ring::alone(&mut ends, batch, 64, n)));
        });
    }
}

fn submit_reap<C: Context>(criterion: &mut Criterion, name: &str) {
    if let Err(error) = context::check::<C>() {
        println!("{name} is left out: {error}");
        return;
    }
    let context = C::open().expect("it could be opened before");
    let mut group = criterion.benchmark_group("submit+reap");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("{name}/{batch}"), |bencher| {
            bencher.iter_custom(|n| timed(|| context::alone(&context, batch, n)));
        });
    }
}

fn timed(body: impl FnOnce()) -> Duration {
    let start = Instant::now();
    body();
    start.elapsed()
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();

    get_put::<ours::Get>(&mut criterion, "ioctx PerCpuRef");
    get_put::<Arc<Object>>(&mut criterion, "Arc");
    publish_read::<Ring>(&mut criterion, "ioctx Ring");
    publish_read::<ArrayQueue<Event>>(&mut criterion, "crossbeam_queue::ArrayQueue");
    submit_reap::<ioctx::Context<Null>>(&mut criterion, "ioctx Context");
    #[cfg(target_os = "linux")]
    submit_reap::<context::KernelAio>(&mut criterion, "kernel AIO");
    submit_reap::<context::Locked<ioctx::Event>>(&mut criterion, "Mutex<VecDeque> of requests");
    criterion.final_summary();
}
