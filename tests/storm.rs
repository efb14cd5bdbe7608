//! A backend that misbehaves as far as its contract allows, by a seed, under submitters, cancellers and readers until
//! its context is destroyed: nothing is lost, nothing comes twice. `IOCTX_STRESS_SECONDS` makes it run longer.

use ioctx::aio::{
    Backend, Cancellable, Completion, Context, DestroyError, Event, GetEventsError, Request, RequestId,
    Submitted,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The panics that are meant.
const ON_PURPOSE: &str = "on purpose";

/// SplitMix64, shared: which thread gets which number is the scheduler's to say.
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// What happens to a request at the desk.
enum Late {
    Aside(Cancellable),
    Running(Completion),
}

struct Desk {
    late: Mutex<(Vec<Late>, bool)>,
    filled: Condvar,
    dice: Dice,
    /// Neither begun nor dropped before the backend is.
    never: Mutex<Vec<Cancellable>>,
}

struct Faulty {
    desk: Arc<Desk>,
    workers: Vec<JoinHandle<()>>,
}

impl Desk {
    fn end(&self, work: Completion) {
        match self.dice.roll(4) {
            0 => work.complete(Err(std::io::ErrorKind::Other.into())),
            1 => drop(work),
            short => work.complete(Ok(short as usize)),
        }
    }

    fn work(&self) {
        let mut late = self.late.lock().unwrap();
        loop {
            if late.0.is_empty() {
                if late.1 {
                    return;
                }
                late = self.filled.wait(late).unwrap();
                continue;
            }
            let next = self.dice.roll(late.0.len() as u64) as usize;
            let next = late.0.swap_remove(next);
            drop(late);
            if self.dice.roll(50) == 0 {
                thread::sleep(Duration::from_micros(self.dice.roll(300)));
            }
            match next {
                Late::Aside(token) if self.dice.roll(8) == 0 => drop(token),
                // Put aside once more.
                Late::Aside(token) if self.dice.roll(8) == 0 => {
                    if let Some(work) = token.claim() {
                        self.late.lock().unwrap().0.push(Late::Aside(work.cancellable()));
                    }
                }
                Late::Aside(token) => token.claim().into_iter().for_each(|work| self.end(work)),
                Late::Running(work) => self.end(work),
            }
            late = self.late.lock().unwrap();
        }
    }
}

impl Faulty {
    fn new(seed: u64) -> Self {
        let desk = Arc::new(Desk {
            late: Mutex::default(),
            filled: Condvar::new(),
            dice: Dice(AtomicU64::new(seed)),
            never: Mutex::default(),
        });
        let workers = (0..2).map(|_| {
            let desk = Arc::clone(&desk);
            thread::spawn(move || desk.work())
        });
        Self { workers: workers.collect(), desk }
    }
}

impl Backend for Faulty {
    fn submit(&self, work: Completion) -> Submitted {
        let desk = &*self.desk;
        let late = match desk.dice.roll(40) {
            0 => std::panic::panic_any(ON_PURPOSE),
            1 => return Submitted::Refused(work, std::io::ErrorKind::WouldBlock.into()),
            2..8 => return Submitted::Done(work.finish(Ok(3))),
            8 => return Submitted::Done(work.finish(Err(std::io::ErrorKind::Other.into()))),
            9 => {
                desk.end(work);
                return Submitted::Queued;
            }
            10 => {
                desk.never.lock().unwrap().push(work.cancellable());
                return Submitted::Queued;
            }
            11..20 => Late::Running(work),
            _ => Late::Aside(work.cancellable()),
        };
        desk.late.lock().unwrap().0.push(late);
        Submitted::Queued
    }

    fn flush(&self) {
        self.desk.filled.notify_all();
        if self.desk.dice.roll(100) == 0 {
            std::panic::panic_any(ON_PURPOSE);
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.desk.late.lock().unwrap().1 = true;
        self.desk.filled.notify_all();
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
    }
}

/// Counts what went in and what came out, by number.
#[derive(Default)]
struct Books {
    next: AtomicU64,
    /// Accepted, or on the way when the backend panicked: then it was accepted, too.
    accepted: AtomicU64,
    sum_in: AtomicU64,
    read: AtomicU64,
    sum_out: AtomicU64,
    cancelled: AtomicU64,
    ids: Mutex<Vec<RequestId>>,
}

impl Books {
    fn submit(&self, context: &Context<Faulty>) -> bool {
        let number = self.next.fetch_add(1, Relaxed);
        match catch_unwind(AssertUnwindSafe(|| context.submit(Request::nop().with_user_data(number)))) {
            Ok(Ok(id)) => {
                let mut ids = self.ids.lock().unwrap();
                if ids.len() == 64 {
                    ids.clear();
                }
                ids.push(id);
            }
            // Accepted, and dropped or flushed by a backend that panicked.
            Err(panic) => assert_eq!(panic.downcast_ref(), Some(&ON_PURPOSE)),
            Ok(Err(refused)) => {
                assert_eq!(refused.request.user_data, number);
                thread::yield_now();
                return !matches!(refused.reason, ioctx::aio::Reason::Dying);
            }
        }
        self.accepted.fetch_add(1, Relaxed);
        self.sum_in.fetch_add(number, Relaxed);
        true
    }

    fn cancel(&self, context: &Context<Faulty>) {
        let ids = self.ids.lock().unwrap().clone();
        for id in ids {
            self.cancelled.fetch_add(context.cancel(id).is_ok().into(), Relaxed);
        }
        thread::sleep(Duration::from_micros(50));
    }

    fn took(&self, user_data: u64) {
        self.read.fetch_add(1, Relaxed);
        self.sum_out.fetch_add(user_data, Relaxed);
    }

    /// Until the end; visits or reads.
    fn read(&self, context: &Context<Faulty>, visit: bool) {
        loop {
            let read = if visit {
                context.visit(1, 64, None, |event| self.took(event.request().user_data))
            } else {
                let mut events = Vec::new();
                let read = context.get_events(2, 64, None, &mut events);
                events.drain(..).for_each(|event: Event| self.took(event.request.user_data));
                read
            };
            if read == Err(GetEventsError::Dying) {
                return;
            }
        }
    }
}

/// Two submitters, a canceller and two readers, until somebody destroys the context, or two at once.
fn storm(seed: u64, lasts: Duration) {
    let context = Context::new(1 << (seed % 8), Faulty::new(seed)).unwrap();
    let (books, stop) = (Books::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let (context, books, stop) = (&context, &books, &stop);
        for _ in 0..2 {
            scope.spawn(|| while books.submit(context) {});
        }
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                books.cancel(context);
            }
        });
        for visit in [true, false] {
            scope.spawn(move || books.read(context, visit));
        }
        thread::sleep(lasts);
        let destroy = || {
            let destroyed = catch_unwind(AssertUnwindSafe(|| context.destroy(Some(Instant::now()))));
            // What it says is stuck may have finished since. One that never begins is not: it was cancelled.
            let first = !matches!(destroyed, Ok(Err(DestroyError::Already)));
            context.wait_destroyed(None).unwrap();
            first
        };
        let other = scope.spawn(destroy);
        assert!(destroy() != other.join().unwrap(), "one destroyer");
        stop.store(true, Relaxed);
    });
    let [accepted, sum_in, read, sum_out] =
        [&books.accepted, &books.sum_in, &books.read, &books.sum_out].map(|count| count.load(Relaxed));
    assert_eq!((read, sum_out), (accepted, sum_in), "seed {seed}");
    assert_eq!(context.outstanding(), 0);
    assert!(context.backend().desk.never.lock().unwrap().iter().all(Cancellable::is_cancelled));
}

#[test]
fn nothing_is_lost_or_doubled_in_a_storm() {
    let seconds =
        std::env::var("IOCTX_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let end = Instant::now() + Duration::from_secs(seconds);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&ON_PURPOSE) {
            hook(info);
        }
    }));
    for seed in 1.. {
        storm(seed, Duration::from_millis(seed * 7 % 60));
        if Instant::now() >= end {
            break;
        }
    }
}
