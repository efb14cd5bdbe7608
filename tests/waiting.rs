//! Waiting for credits and tags: who is served, when, and what becomes of those who leave.

use ioctx::credits::{Builder, Credits, Exhausted, Tag, Tags, WaitError};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

fn late() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Each kind of credits there is: fair or not, by sections or not.
fn kinds(n: u32) -> [(bool, Credits); 4] {
    [(true, false), (false, false), (true, true), (false, true)].map(|(fair, portable)| {
        let mut builder = Builder::new(n).batch(1);
        if !fair {
            builder = builder.unfair();
        }
        if portable {
            builder = builder.portable();
        }
        (fair, builder.credits().unwrap())
    })
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Bell {
    fn rung(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

fn poll<F: Future>(future: Pin<&mut F>, bell: &Arc<Bell>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(bell))))
}

#[test]
fn a_deadline_ends_it_and_leaves_no_trace() {
    for (_, credits) in kinds(2) {
        let all = credits.try_take(2).unwrap();
        assert_eq!(credits.take_until(1, soon()).unwrap_err(), WaitError::TimedOut);
        assert_eq!(credits.take(3).unwrap_err(), WaitError::Never { total: 2 });
        drop(all);
        assert_eq!(credits.take(2).unwrap().len(), 2);
        assert_eq!((credits.available(), credits.drain().len()), (2, 2));
    }
}

#[test]
fn whoever_waits_gets_what_is_put() {
    for (_, credits) in kinds(3) {
        let mut all = credits.try_take(3).unwrap();
        thread::scope(|scope| {
            let waiting = [1, 2].map(|n| {
                let credits = &credits;
                scope.spawn(move || credits.take_until(n, late()).unwrap().len())
            });
            while all.len() > 0 {
                thread::sleep(Duration::from_millis(5));
                drop(all.split_off(1));
            }
            assert_eq!(waiting.map(|thread| thread.join().unwrap()), [1, 2]);
        });
        assert_eq!(credits.available(), 3);
    }
}

#[test]
fn fair_is_first_come_first_served() {
    let credits = Credits::new(4);
    let mut held = credits.try_take(4).unwrap();
    let bells = [(); 3].map(|()| Arc::new(Bell::default()));
    let (mut three, mut one, mut two) =
        (pin!(credits.take_async(3)), pin!(credits.take_async(1)), pin!(credits.take_async(2)));
    assert!(poll(three.as_mut(), &bells[0]).is_pending());
    assert!(poll(one.as_mut(), &bells[1]).is_pending());
    assert!(poll(two.as_mut(), &bells[2]).is_pending());
    drop(held.split_off(2));
    assert_eq!([0, 1, 2].map(|i| bells[i].rung()), [0, 0, 0], "who wants little does not pass");
    assert_eq!(credits.try_take(1).unwrap_err(), Exhausted, "nor who does not wait");
    assert_eq!(credits.available(), 2);
    drop(held.split_off(1));
    assert_eq!([0, 1, 2].map(|i| bells[i].rung()), [1, 0, 0]);
    drop(held);
    assert_eq!([0, 1, 2].map(|i| bells[i].rung()), [1, 1, 0]);
    let Poll::Ready(Ok(three)) = poll(three.as_mut(), &bells[0]) else { panic!("it was woken") };
    drop(three);
    assert_eq!(bells[2].rung(), 1);
    let Poll::Ready(Ok(two)) = poll(two.as_mut(), &bells[2]) else { panic!("it was woken") };
    let Poll::Ready(Ok(one)) = poll(one.as_mut(), &bells[1]) else { panic!("it was woken") };
    assert_eq!((one.len(), two.len(), credits.available()), (1, 2, 1));
    assert!(credits.try_take(1).is_ok(), "nobody waits any more");
}

#[test]
fn unfair_is_whoever_asks() {
    let credits = Builder::new(2).unfair().credits().unwrap();
    let mut held = credits.try_take(2).unwrap();
    let bells = [(); 2].map(|()| Arc::new(Bell::default()));
    let (mut two, mut one) = (pin!(credits.take_async(2)), pin!(credits.take_async(1)));
    assert!(poll(two.as_mut(), &bells[0]).is_pending());
    assert!(poll(one.as_mut(), &bells[1]).is_pending());
    drop(held.split_off(1));
    assert_eq!([0, 1].map(|i| bells[i].rung()), [0, 1], "the one for whom there is enough");
    let quicker = credits.try_take(1).unwrap();
    assert!(poll(one.as_mut(), &bells[1]).is_pending(), "too late");
    drop(quicker);
    assert_eq!([0, 1].map(|i| bells[i].rung()), [0, 2]);
    assert!(poll(one.as_mut(), &bells[1]).is_ready());
}

#[test]
fn who_asks_again_in_vain_hands_on() {
    for (_, credits) in kinds(2).into_iter().filter(|(fair, _)| !fair) {
        let held = credits.try_take(2).unwrap();
        let bells = [(); 2].map(|()| Arc::new(Bell::default()));
        let (mut two, mut one) = (pin!(credits.take_async(2)), pin!(credits.take_async(1)));
        assert!(poll(two.as_mut(), &bells[0]).is_pending());
        assert!(poll(one.as_mut(), &bells[1]).is_pending());
        drop(held);
        assert_eq!([0, 1].map(|i| bells[i].rung()), [1, 0], "there are two for the one, and then none");
        let quicker = credits.try_take(1).unwrap();
        assert!(poll(two.as_mut(), &bells[0]).is_pending(), "too late");
        assert_eq!([0, 1].map(|i| bells[i].rung()), [1, 1], "one is free, and wanted");
        assert!(poll(one.as_mut(), &bells[1]).is_ready());
        drop(quicker);
    }
}

#[test]
fn a_thread_that_asks_again_in_vain_hands_on() {
    for (_, credits) in kinds(2).into_iter().filter(|(fair, _)| !fair) {
        for _ in 0..10 {
            let held = credits.try_take(2).unwrap();
            thread::scope(|scope| {
                let two = scope.spawn(|| credits.take_until(2, late()).map(drop));
                thread::sleep(Duration::from_millis(2));
                let one = scope.spawn(|| credits.take_until(1, late()).map(drop));
                thread::sleep(Duration::from_millis(2));
                drop(held);
                // Usually quicker than a thread that is woken.
                let quicker = credits.try_take(1);
                assert_eq!(one.join().unwrap(), Ok(()), "one is free, and wanted");
                drop(quicker);
                assert_eq!(two.join().unwrap(), Ok(()));
            });
        }
    }
}

#[test]
fn who_leaves_hands_on() {
    for (fair, credits) in kinds(2) {
        let mut held = credits.try_take(2).unwrap();
        let bells = [(); 3].map(|()| Arc::new(Bell::default()));
        let mut two = Box::pin(credits.take_async(2));
        let mut one = Box::pin(credits.take_async(1));
        let mut last = Box::pin(credits.take_async(1));
        assert!(poll(two.as_mut(), &bells[0]).is_pending());
        assert!(poll(one.as_mut(), &bells[1]).is_pending());
        assert!(poll(last.as_mut(), &bells[2]).is_pending());
        drop(held.split_off(1));
        assert_eq!(bells[1].rung(), if fair { 0 } else { 1 });
        // Whose turn it was has enough of waiting.
        drop(two);
        assert_eq!((bells[1].rung(), bells[2].rung()), (1, 0));
        // So has the next one, though it was picked.
        drop(one);
        assert_eq!(bells[2].rung(), 1);
        let Poll::Ready(Ok(last)) = poll(last.as_mut(), &bells[2]) else { panic!("it was woken") };
        drop((held, last));
        assert_eq!((credits.available(), credits.drain().len()), (2, 2));
    }
}

#[test]
fn the_last_waker_counts() {
    let credits = Credits::new(1);
    let held = credits.try_take(1).unwrap();
    let bells = [(); 2].map(|()| Arc::new(Bell::default()));
    let mut one = pin!(credits.take_async(1));
    assert!(poll(one.as_mut(), &bells[0]).is_pending());
    assert!(poll(one.as_mut(), &bells[1]).is_pending());
    drop(held);
    assert_eq!([0, 1].map(|i| bells[i].rung()), [0, 1]);
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a bad waker");
        }
    }
    let credits = Credits::new(2);
    let held = credits.try_take(2).unwrap();
    let mut bad = pin!(credits.take_async(1));
    assert!(bad.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Bad)))).is_pending());
    let bell = Arc::new(Bell::default());
    let mut good = pin!(credits.take_async(1));
    assert!(poll(good.as_mut(), &bell).is_pending());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(held))).is_err());
    assert_eq!(bell.rung(), 1);
    assert!(poll(good.as_mut(), &bell).is_ready() && poll(bad.as_mut(), &bell).is_ready());
    assert_eq!(credits.available(), 2);
}

#[test]
fn a_waker_may_call_back() {
    struct Taker(Arc<Tags>);
    impl Wake for Taker {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.resize(1), Ok(1));
            assert!(self.0.try_take().is_err());
        }
    }
    let tags = Arc::new(Tags::new(1));
    let held = tags.try_take().unwrap();
    let mut waiting = pin!(tags.take_async());
    let waker = Waker::from(Arc::new(Taker(Arc::clone(&tags))));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn more_units_serve_those_who_wait() {
    for (_, credits) in kinds(1) {
        let held = credits.try_take(1).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| credits.take_until(1, late()).unwrap().len());
            thread::sleep(Duration::from_millis(5));
            assert_eq!(credits.resize(2), Ok(1));
            assert_eq!(waiting.join().unwrap(), 1);
        });
        drop(held);
        assert_eq!(credits.resize(0), Ok(2));
        assert_eq!(credits.take(1).unwrap_err(), WaitError::Never { total: 0 });
    }
}

#[test]
fn who_waits_does_not_get_what_a_smaller_size_has_not() {
    let credits = Credits::new(3);
    let mut held = credits.try_take(3).unwrap();
    let bell = Arc::new(Bell::default());
    let mut one = pin!(credits.take_async(1));
    assert!(poll(one.as_mut(), &bell).is_pending());
    assert_eq!(credits.resize(1), Ok(3));
    drop(held.split_off(2));
    assert!(poll(one.as_mut(), &bell).is_pending());
    drop(held);
    assert!(poll(one.as_mut(), &bell).is_ready());
    assert_eq!(credits.drain().len(), 1);
}

#[test]
fn a_tag_that_was_withdrawn_serves_nobody() {
    let tags = Tags::new(2);
    let mut all: Vec<Tag<'_>> = [(); 2].map(|()| tags.try_take().unwrap()).into();
    all.sort_by_key(Tag::index);
    let bell = Arc::new(Bell::default());
    let mut one = pin!(tags.take_async());
    assert!(poll(one.as_mut(), &bell).is_pending());
    assert_eq!(tags.resize(1), Ok(2));
    drop(all.pop());
    assert!(poll(one.as_mut(), &bell).is_pending());
    drop(all);
    let Poll::Ready(Ok(tag)) = poll(one.as_mut(), &bell) else { panic!("a tag is free") };
    assert_eq!((tag.index(), tags.available()), (0, 0));
}

/// More threads than processors wait, time out, drop what they wait for and take without waiting: whoever waits is
/// served, and in the end everything is there.
#[test]
fn a_crowd() {
    const THREADS: u32 = 8;
    for (fair, credits) in kinds(3) {
        let tags = Builder::new(2).batch(1);
        let tags = if fair { tags } else { tags.unfair() }.tags().unwrap();
        let out = AtomicU32::new(0);
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for i in 0..THREADS {
                let (credits, tags, out, start) = (&credits, &tags, &out, &start);
                scope.spawn(move || {
                    start.wait();
                    let bell = Arc::new(Bell::default());
                    for round in 0..300 {
                        let n = 1 + (i + round) % 3;
                        let credit = match round % 4 {
                            0 => credits.take(n).ok(),
                            1 => credits.take_until(n, Instant::now() + Duration::from_micros(50)).ok(),
                            2 => {
                                let mut future = pin!(credits.take_async(n));
                                let mut got = poll(future.as_mut(), &bell);
                                for _ in 0..3 {
                                    if got.is_pending() {
                                        thread::yield_now();
                                        got = poll(future.as_mut(), &bell);
                                    }
                                }
                                match got {
                                    Poll::Ready(credit) => credit.ok(),
                                    Poll::Pending => None,
                                }
                            }
                            _ => credits.try_take_up_to(n).ok(),
                        };
                        if let Some(credit) = credit {
                            let n = credit.len();
                            assert!(out.fetch_add(n, AcqRel) + n <= 3, "more out than there are");
                            if round % 8 == 0 {
                                thread::yield_now();
                            }
                            out.fetch_sub(n, AcqRel);
                        }
                        let tag = tags.take_until(late()).expect("it comes back");
                        assert!(tag.index() < 2);
                    }
                });
            }
        });
        assert_eq!((credits.available(), tags.available()), (3, 2));
        assert_eq!((credits.drain().len(), tags.drain().len()), (3, 2));
    }
}
