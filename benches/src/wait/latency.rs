//! How long until a sleeper runs again: [`wakes`].

use super::Bell;
use crate::harness::{Place, thread_switches, together};
use ioctx::percpu::CachePadded;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

/// How long somebody who is about to sleep takes to fall asleep, at the most. Mostly: see [`wakes`].
const DOZE: Duration = Duration::from_micros(200);

/// How long one wake took.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// From the change to the sleeper's next step.
    pub latency: Duration,
    /// The waker, from before the change until it can do something else. If it lost its CPU to the sleeper, that is in
    /// it.
    pub cost: Duration,
}

/// Has one thread wake another, which sleeps each time, `n` times, and says how long it took where the other was
/// asleep indeed. The first of `places` is the sleeper's.
pub fn wakes<B: Bell>(n: usize, places: [Place; 2]) -> Vec<Wake> {
    let bell = CachePadded::new(B::default());
    let origin = Instant::now();
    let now = || origin.elapsed().as_nanos() as u64;
    // What is waited for: when it was, in nanoseconds. The sleeper takes it away.
    let changed = CachePadded::new(AtomicU64::new(0));
    let falls_asleep = CachePadded::new(AtomicU64::new(0));
    let (latencies, costs) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let sleep = |turn: u64| {
        let before = thread_switches();
        falls_asleep.store(turn, Release);
        bell.sleep_until(|| changed.load(Acquire) > 0);
        let awake = now();
        let latency = Duration::from_nanos(awake - changed.swap(0, Relaxed));
        // Elsewhere nobody knows.
        let asleep = thread_switches() > before || !cfg!(target_os = "linux");
        latencies.lock().expect("the waker does not use it").push(asleep.then_some(latency));
    };
    let wake = |turn: u64| {
        // The one who wakes sleeps, too: it may have the sleeper's CPU.
        while falls_asleep.load(Acquire) < turn {
            thread::sleep(DOZE);
        }
        thread::sleep(DOZE);
        let start = Instant::now();
        bell.ring(|| changed.store(now(), Release));
        let cost = start.elapsed();
        costs.lock().expect("the sleeper does not use it").push(cost);
    };
    together(&places, |side| {
        (1..=n as u64).for_each(|turn| if side == 0 { sleep(turn) } else { wake(turn) })
    });
    let latencies = latencies.into_inner().expect("the sleeper has not failed");
    let costs = costs.into_inner().expect("the waker has not failed");
    let both = latencies.into_iter().zip(costs);
    both.filter_map(|(latency, cost)| Some(Wake { latency: latency?, cost })).collect()
}
