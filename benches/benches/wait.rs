//! Waking and sleeping: the event count beside what one would use instead.

use event_listener::Event;
use ioctx::wait::EventCount;
use ioctx_benches::harness::{Bench, Case, Contest, Place, cpus};
use ioctx_benches::wait::{AfterRmw, Always, Bell, IfAsleep, Nothing, Park, check, rings, round_trips, used};

fn ring<B: Bell + 'static>(name: &str, bell: B, threads: usize) -> Case<'static> {
    Case::slices(name, threads, 1, move |n| rings(&bell, n))
}

fn round_trip<B: Bell>(name: &str, places: [Place; 2]) -> Case<'static> {
    Case::repetitions(name, move |n| (n, round_trips::<B>(n, places)))
}

fn round_trips_at(places: [Place; 2]) -> Vec<Case<'static>> {
    vec![
        round_trip::<EventCount>("ioctx EventCount", places),
        round_trip::<Event>("event_listener", places),
        round_trip::<Always>("Mutex+Condvar", places),
        round_trip::<Park>("thread::park (floor)", places),
    ]
}

fn main() {
    let mut bench = Bench::start("wait", env!("CARGO_TARGET_TMPDIR"));
    check::<EventCount>();
    check::<AfterRmw>();
    check::<Event>();
    check::<Always>();
    check::<IfAsleep>();
    check::<Park>();

    let mut nobody = Contest::new("notify while nobody sleeps");
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cpus().len()) {
        let cases = vec![
            ring("ioctx notify", used::<EventCount>(), threads),
            ring("ioctx notify_after_rmw, with the RMW", used::<AfterRmw>(), threads),
            ring("event_listener notify", used::<Event>(), threads),
            ring("Condvar notify_one", used::<Always>(), threads),
            ring("Condvar notify_one if anybody sleeps", used::<IfAsleep>(), threads),
            ring("nothing (floor)", Nothing, threads),
        ];
        nobody = nobody.group(threads, 1, cases);
    }
    bench.run(nobody);

    if let [first, .., last] = *cpus() {
        let apart = round_trips_at([Place::On(first), Place::On(last)]);
        bench.run(Contest::new("sleep and wake round trip between two CPUs").group(2, 1, apart));
    }
    let on = Place::On(cpus()[0]);
    bench.run(Contest::new("sleep and wake round trip on one CPU").group(2, 1, round_trips_at([on; 2])));
    bench.finish();
}
