//! Waking and sleeping: the event count beside what one would use instead.
//!
//! # What is compared
//!
//! | contender | sleepers | each sleeps until so many events are there | what a notifier pays while nobody sleeps |
//! |---|---|---|---|
//! | `EventCount` | any | yes | a load, and a fence unless the change ended with one |
//! | the same, for light publishers | any | yes | a load |
//! | `event_listener` | any | no | a load and a fence |
//! | `Mutex` and `Condvar` | any | yes, but each looks for itself | the mutex, and a system call |
//! | the same, sleepers counted | any | yes, but each looks for itself | the mutex |
//! | a word that the system sleeps on (futex) | one | no | a load and a fence |
//! | `thread::park` | one, known to the waker | no | a fence and a swap |
//!
//! The last two are what sleeping costs by itself: floors.

use event_listener::Event;
use ioctx::wait::EventCount;
use ioctx_benches::harness::{Bench, Case, Contest, Place, cpus};
#[cfg(target_os = "linux")]
use ioctx_benches::wait::Futex;
use ioctx_benches::wait::{
    AfterRmw, Always, Bell, IfAsleep, Light, Nothing, Park, Wake, check, rings, round_trips, used, wakes,
};
use std::time::Duration;

const OURS: &str = "ioctx EventCount";

fn ring<B: Bell + 'static>(name: &str, bell: B, threads: usize) -> Case<'static> {
    Case::slices(name, threads, 1, move |n| rings(&bell, n))
}

fn round_trip<B: Bell>(name: &str, places: [Place; 2]) -> Case<'static> {
    Case::repetitions(name, move |n| (n, round_trips::<B>(n, places)))
}

fn woken<B: Bell>(name: &str, places: [Place; 2], figure: fn(&Wake) -> Duration) -> Case<'static> {
    Case::shots(name, 1, move |n| wakes::<B>(n, places).iter().map(figure).collect())
}

/// All who can sleep.
macro_rules! sleepers {
    ($case:ident, $places:expr $(, $argument:expr)*) => {
        vec![
            $case::<EventCount>(OURS, $places $(, $argument)*),
            $case::<Light>("ioctx EventCount, for light publishers", $places $(, $argument)*),
            $case::<Event>("event_listener", $places $(, $argument)*),
            $case::<Always>("Mutex+Condvar", $places $(, $argument)*),
            $case::<IfAsleep>("Mutex+Condvar, sleepers counted", $places $(, $argument)*),
            #[cfg(target_os = "linux")]
            $case::<Futex>("futex (floor)", $places $(, $argument)*),
            $case::<Park>("thread::park (floor)", $places $(, $argument)*),
        ]
    };
}

fn main() {
    let mut bench = Bench::start("wait", env!("CARGO_TARGET_TMPDIR"));
    check::<EventCount>();
    check::<AfterRmw>();
    check::<Light>();
    check::<Event>();
    check::<Always>();
    check::<IfAsleep>();
    check::<Park>();
    #[cfg(target_os = "linux")]
    check::<Futex>();

    let mut nobody = Contest::new("notify while nobody sleeps");
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cpus().len()) {
        let cases = vec![
            ring("ioctx notify", used::<EventCount>(), threads),
            ring("ioctx notify_after_rmw, with the RMW", used::<AfterRmw>(), threads),
            ring("ioctx notify_light", used::<Light>(), threads),
            ring("event_listener notify", used::<Event>(), threads),
            ring("Condvar notify_one", used::<Always>(), threads),
            ring("Condvar notify_one if anybody sleeps", used::<IfAsleep>(), threads),
            #[cfg(target_os = "linux")]
            ring("futex, if anybody sleeps", used::<Futex>(), threads),
            ring("nothing (floor)", Nothing, threads),
        ];
        nobody = nobody.group(threads, 1, cases);
    }
    bench.run(nobody);

    let one = Place::On(cpus()[0]);
    if let [first, .., last] = *cpus() {
        let two = [Place::On(first), Place::On(last)];
        let latency = sleepers!(woken, two, |wake| wake.latency);
        bench.run(
            Contest::in_microseconds("from the change until a sleeper on another CPU runs")
                .group(2, 1, latency),
        );
        let cost = sleepers!(woken, two, |wake| wake.cost);
        bench.run(
            Contest::in_microseconds("what it costs to wake a sleeper on another CPU").group(2, 1, cost),
        );
        let apart = sleepers!(round_trip, two);
        bench.run(Contest::new("sleep and wake round trip between two CPUs").group(2, 1, apart));
    }
    let latency = sleepers!(woken, [one; 2], |wake| wake.latency);
    bench.run(
        Contest::in_microseconds("from the change until a sleeper on the same CPU runs").group(2, 1, latency),
    );
    let together = sleepers!(round_trip, [one; 2]);
    bench.run(Contest::new("sleep and wake round trip on one CPU").group(2, 1, together));
    bench.finish();
}
