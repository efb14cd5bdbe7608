//! Requests of many parts: what is reported, that it is reported once, and that parts and their memory stay within
//! their bound.

mod support;

use ioctx::credits::{Credits, Exhausted, WaitError};
use ioctx::fanin::{FanIn, Outcome, Part};
use ioctx::runlist::RunList;
use proptest::prelude::*;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::*};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::never_hang;

#[cfg(unix)]
const CANCELED: i32 = rustix::io::Errno::CANCELED.raw_os_error();
#[cfg(not(unix))]
const CANCELED: i32 = 995;

/// A request, and where its outcome comes.
fn request<P>(credits: &Arc<Credits>) -> (FanIn<P>, Receiver<Outcome>) {
    let (outcomes, outcome) = channel();
    (FanIn::new(credits, move |outcome| outcomes.send(outcome).unwrap()), outcome)
}

/// Bytes and error of the only outcome.
fn the_only_one(outcome: &Receiver<Outcome>) -> (usize, Option<i32>) {
    let Outcome { bytes, error } = outcome.try_recv().expect("nobody completed it");
    assert!(outcome.try_recv().is_err(), "completed twice");
    (bytes, error.map(|error| error.raw_os_error().unwrap()))
}

/// Memory that knows how much of it there is, and how much there ever was at once.
#[derive(Default)]
struct Memory {
    live: AtomicU32,
    peak: AtomicU32,
}

struct Page(Arc<Memory>);

impl Page {
    fn new(memory: &Arc<Memory>) -> Self {
        let live = memory.live.fetch_add(1, SeqCst) + 1;
        memory.peak.fetch_max(live, SeqCst);
        Self(Arc::clone(memory))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, SeqCst);
    }
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[test]
fn nothing_completes_before_the_submitter_has_finished() {
    let credits = Arc::new(Credits::new(4));
    let (mut request, outcome) = request::<()>(&credits);
    for _ in 0..3 {
        request.try_part(10, || ()).unwrap().finish(Ok(10));
    }
    assert!(outcome.try_recv().is_err());
    request.finish_submitting();
    assert_eq!(the_only_one(&outcome), (30, None));
    assert_eq!(credits.available(), 4);
}

#[test]
fn a_request_of_no_parts_is_complete() {
    let (request, outcome) = request::<()>(&Arc::new(Credits::new(0)));
    request.finish_submitting();
    assert_eq!(the_only_one(&outcome), (0, None));
}

#[test]
fn what_is_dropped_was_cancelled() {
    let credits = Arc::new(Credits::new(4));
    let (mut request, outcome) = request::<()>(&credits);
    let [first, second, third] = [10, 20, 30].map(|len| request.try_part(len, || ()).unwrap());
    assert_eq!((second.index(), second.offset(), second.len()), (1, 10, 20));
    drop(second);
    third.finish(Ok(30));
    first.finish(Ok(10));
    assert!(outcome.try_recv().is_err());
    request.finish_submitting();
    assert_eq!(the_only_one(&outcome), (10, Some(CANCELED)));

    let (mut request, outcome) = self::request::<()>(&credits);
    let part = request.try_part(10, || ()).unwrap();
    drop(request);
    part.finish(Ok(10));
    assert_eq!(the_only_one(&outcome), (10, Some(CANCELED)), "who submitted did not come to its end");

    let (mut request, outcome) = self::request::<()>(&credits);
    request.try_part(10, || ()).unwrap().finish(Ok(3));
    drop(request);
    assert_eq!(the_only_one(&outcome), (3, None), "it was short before that");
    assert_eq!(credits.available(), 4);
}

#[test]
fn bytes_and_error_are_apart_or_as_a_system_call_says_them() {
    let result = |bytes, code: Option<i32>| Outcome { bytes, error: code.map(error) }.into_result();
    assert_eq!(result(7, Some(5)).unwrap(), 7);
    assert_eq!(result(0, None).unwrap(), 0);
    assert_eq!(result(0, Some(5)).unwrap_err().raw_os_error(), Some(5));
}

/// What a part of 100 bytes ends with.
#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    TooMany,
    Short(usize),
    Failed(usize, i32),
    Dropped,
}

impl End {
    fn of(self, part: Part<()>) {
        match self {
            Self::Whole => part.finish(Ok(100)),
            Self::TooMany => part.finish(Ok(1000)),
            Self::Short(bytes) => part.finish(Ok(bytes)),
            Self::Failed(0, code) => part.finish(Err(error(code))),
            Self::Failed(bytes, code) => part.finish_partly(bytes, error(code)),
            Self::Dropped => drop(part),
        }
    }

    /// What a loop that stops here has got from this part, and why it stops, if it does.
    fn alone(self) -> (usize, Option<Option<i32>>) {
        match self {
            Self::Whole | Self::TooMany => (100, None),
            Self::Short(bytes) => (bytes, Some(None)),
            Self::Failed(bytes, code) => (bytes.min(100), Some(Some(code))),
            Self::Dropped => (0, Some(Some(CANCELED))),
        }
    }
}

fn ends() -> impl Strategy<Value = Vec<(End, u32)>> {
    let end = prop_oneof![
        8 => Just(End::Whole),
        1 => Just(End::TooMany),
        1 => (0_usize..100).prop_map(End::Short),
        1 => (0_usize..=130, 1..30).prop_map(|(bytes, code)| End::Failed(bytes, code)),
        1 => Just(End::Dropped),
    ];
    prop::collection::vec((end, any::<u32>()), 0..12)
}

proptest! {
    /// Whatever order the parts end in, and whenever the submitter does: as a loop over them would have said.
    #[test]
    fn the_outcome_is_that_of_a_loop(ends in ends(), submitter in any::<u32>()) {
        let credits = Arc::new(Credits::new(12));
        let (mut request, outcome) = request(&credits);
        let mut wanted = (0, None);
        for (end, _) in &ends {
            let (bytes, stop) = end.alone();
            wanted.0 += bytes;
            if let Some(error) = stop {
                wanted.1 = error;
                break;
            }
        }
        type Step = Box<dyn FnOnce()>;
        let mut steps: Vec<(u32, Step)> = Vec::new();
        for (end, when) in ends {
            let part = request.try_part(100, || ()).unwrap();
            steps.push((when, Box::new(move || end.of(part))));
        }
        steps.push((submitter, Box::new(move || request.finish_submitting())));
        steps.sort_by_key(|step| step.0);
        let last = steps.pop().unwrap();
        steps.into_iter().for_each(|step| step.1());
        prop_assert!(outcome.try_recv().is_err(), "too early");
        last.1();
        prop_assert_eq!(the_only_one(&outcome), wanted);
        prop_assert_eq!(credits.available(), 12);
    }
}

/// What is done to one of several requests.
#[derive(Clone, Copy, Debug)]
enum Step {
    Part,
    Finish(usize),
    Reap,
    Submitted,
}

/// A request of parts of one byte, and those that are not finished.
struct Several {
    request: Option<FanIn<Page>>,
    out: Vec<Part<Page>>,
    handed: usize,
    outcome: Receiver<Outcome>,
    over: bool,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        8 => Just(Step::Part),
        8 => any::<usize>().prop_map(Step::Finish),
        1 => Just(Step::Reap),
        1 => Just(Step::Submitted),
    ];
    (0..3_usize, step)
}

proptest! {
    /// However requests that share credits take turns: a part is refused only if as many are there as there may be, and
    /// for no longer than until the next one of its request is finished; a request is complete as soon as its last
    /// part is.
    #[test]
    fn a_part_waits_for_one_that_is_finished_and_no_longer(
        bound in 1_u32..6,
        every in 1_u32..80,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let (credits, memory) = (Arc::new(Credits::new(bound)), Arc::new(Memory::default()));
        let mut all: Vec<Several> = (0..3).map(|_| {
            let (request, outcome) = request(&credits);
            let request = Some(request.reap_every(every));
            Several { request, out: Vec::new(), handed: 0, outcome, over: false }
        }).collect();
        let ends = (0..3).map(|which| (which, Step::Submitted));
        // More than enough: those that find no part do nothing.
        let drain = (0..3 * bound as usize).map(|n| (n % 3, Step::Finish(n)));
        for (which, step) in steps.into_iter().chain(ends).chain(drain) {
            let Several { request, out, handed, outcome, over } = &mut all[which];
            let mut part = |request: &mut FanIn<Page>, out: &mut Vec<Part<Page>>| {
                let part = request.try_part(1, || Page::new(&memory)).ok()?;
                out.push(part);
                *handed += 1;
                Some(())
            };
            match (step, request.as_mut()) {
                (Step::Part, Some(request)) => {
                    let refused = part(request, out).is_none();
                    if refused {
                        prop_assert_eq!(memory.live.load(SeqCst), bound, "refused, and there was room");
                        if let Some(first) = out.pop() {
                            first.finish(Ok(1));
                            prop_assert!(part(request, out).is_some(), "one was finished");
                        }
                    }
                }
                (Step::Finish(which), _) if !out.is_empty() => {
                    out.swap_remove(which % out.len()).finish(Ok(1));
                }
                (Step::Reap, Some(request)) => _ = request.reap(drop),
                (Step::Submitted, Some(_)) => request.take().unwrap().finish_submitting(),
                _ => {}
            }
            if request.is_none() && out.is_empty() && !*over {
                prop_assert_eq!(the_only_one(outcome), (*handed, None));
                *over = true;
            } else {
                prop_assert!(outcome.try_recv().is_err(), "too early, or twice");
            }
            prop_assert!(memory.live.load(SeqCst) <= bound);
        }
        prop_assert!(all.iter().all(|request| request.over));
        prop_assert!(memory.peak.load(SeqCst) <= bound);
        prop_assert_eq!((memory.live.load(SeqCst), credits.available()), (0, bound));
    }
}

#[test]
fn a_refused_part_makes_no_memory() {
    let (credits, memory) = (Arc::new(Credits::new(2)), Arc::new(Memory::default()));
    let (mut request, outcome) = request(&credits);
    let parts = [(); 2].map(|()| request.try_part(1, || Page::new(&memory)).unwrap());
    let refused = request.try_part(1, || unreachable!("there is no credit")).unwrap_err();
    assert_eq!(refused, Exhausted);
    let soon = Instant::now() + Duration::from_millis(5);
    let refused = request.part(1, Some(soon), || unreachable!("there is no credit")).unwrap_err();
    assert_eq!(refused, WaitError::TimedOut);
    parts.into_iter().for_each(|part| part.finish(Ok(1)));
    assert_eq!(memory.live.load(SeqCst), 2, "nobody has reaped");
    request.try_part(1, || Page::new(&memory)).unwrap().finish(Ok(1));
    assert_eq!(memory.live.load(SeqCst), 1, "reaped before it was refused");
    request.finish_submitting();
    assert_eq!(the_only_one(&outcome), (3, None));
    assert_eq!((memory.live.load(SeqCst), memory.peak.load(SeqCst)), (0, 2));
}

#[test]
fn credits_that_are_none_are_not_waited_for() {
    let mut request = FanIn::<()>::new(&Arc::new(Credits::new(0)), drop);
    assert_eq!(request.part(1, None, || ()).unwrap_err(), WaitError::Never { total: 0 });
}

#[test]
fn parts_are_reaped_while_submitting() {
    for (every, peak) in [(None, 64), (Some(1), 1), (Some(10), 10)] {
        let (credits, memory) = (Arc::new(Credits::new(1000)), Arc::new(Memory::default()));
        let (request, outcome) = request(&credits);
        let mut request = match every {
            Some(every) => request.reap_every(every),
            None => request,
        };
        for _ in 0..500 {
            request.try_part(1, || Page::new(&memory)).unwrap().finish(Ok(1));
        }
        request.finish_submitting();
        assert_eq!(the_only_one(&outcome), (500, None));
        assert_eq!((memory.live.load(SeqCst), memory.peak.load(SeqCst)), (0, peak));
    }
}

#[test]
fn memory_can_be_used_again() {
    let credits = Arc::new(Credits::new(4));
    let (mut request, outcome) = request::<Box<[u8]>>(&credits);
    let (mut spare, mut made) = (Vec::new(), 0);
    for _ in 0..100 {
        if spare.is_empty() {
            request.reap(|page| spare.push(page));
        }
        let page = || {
            spare.pop().unwrap_or_else(|| {
                made += 1;
                vec![0; 512].into_boxed_slice()
            })
        };
        request.try_part(512, page).unwrap().finish(Ok(512));
    }
    request.finish_submitting();
    assert_eq!((the_only_one(&outcome), made), ((51_200, None), 1));
}

#[test]
fn panics_lose_neither_credits_nor_the_completion() {
    struct Bad(Arc<AtomicU32>);

    impl Drop for Bad {
        fn drop(&mut self) {
            assert!(self.0.fetch_add(1, SeqCst) != 1, "as meant");
        }
    }

    fn fails(f: impl FnOnce()) {
        assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
    }

    let (credits, drops) = (Arc::new(Credits::new(4)), Arc::new(AtomicU32::new(0)));
    let (mut request, outcome) = request::<Bad>(&credits);
    let bad = || Bad(drops.clone());
    fails(|| _ = request.try_part(1, || panic!("as meant")));
    assert_eq!(credits.available(), 4);
    for _ in 0..4 {
        request.try_part(1, bad).unwrap().finish(Ok(1));
    }
    fails(|| _ = request.reap(drop));
    assert_eq!((drops.load(SeqCst), credits.available()), (4, 4), "the others were reaped");
    drops.store(1, SeqCst);
    // Nothing is out: this waits for others, and not for parts of its own, of which there are none.
    never_hang();
    let held = credits.try_take(4).unwrap();
    let part = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(5));
            drop(held);
        });
        request.part(1, None, bad).unwrap()
    });
    request.finish_submitting();
    fails(|| part.finish(Ok(1)));
    assert_eq!((the_only_one(&outcome), credits.available()), ((5, None), 4));

    let mut request = FanIn::<()>::new(&credits, |_| panic!("as meant"));
    let part = request.try_part(1, || ()).unwrap();
    request.finish_submitting();
    fails(|| drop(part));
    assert_eq!((Arc::strong_count(&credits), credits.available()), (1, 4));
}

#[test]
fn a_request_is_completed_in_one_who_waits() {
    never_hang();
    let credits = Arc::new(Credits::new(1));
    let (mut request, waiter) = FanIn::waited(&credits);
    let part = request.try_part(3, || ()).unwrap();
    request.finish_submitting();
    let waiter = waiter.wait(Some(Instant::now())).unwrap_err();
    let thread = thread::spawn(move || part.finish(Ok(2)));
    assert_eq!(waiter.wait(None).unwrap().bytes, 2);
    thread.join().unwrap();
}

#[test]
fn a_request_is_completed_in_a_run_list() {
    let (list, ran) = (RunList::new(), Arc::new(AtomicUsize::new(0)));
    let (outcomes, outcome) = sync_channel::<Outcome>(1);
    let told = ran.clone();
    let task = list.task(move || told.store(outcome.try_recv().unwrap().bytes, SeqCst));
    let mut request = FanIn::<()>::new(&Arc::new(Credits::new(1)), move |outcome| {
        outcomes.send(outcome).unwrap();
        task.kick().unwrap();
    });
    let part = request.try_part(3, || ()).unwrap();
    request.finish_submitting();
    thread::spawn(move || part.finish(Ok(3))).join().unwrap();
    assert_eq!(ran.load(SeqCst), 0, "not in the completer");
    assert_eq!(list.help_on_submit(), 1);
    assert_eq!(ran.load(SeqCst), 3);
}

#[test]
fn requests_that_share_credits_stay_within_them_and_all_complete() {
    const BOUND: u32 = 7;
    const PARTS: usize = 2000;
    never_hang();
    let (credits, memory) = (Arc::new(Credits::new(BOUND)), Arc::new(Memory::default()));
    let (queue, work) = channel::<Part<Page>>();
    let work = Arc::new(Mutex::new(work));
    thread::scope(|scope| {
        for finisher in 0..2 {
            let work = Arc::clone(&work);
            scope.spawn(move || {
                loop {
                    let next = work.lock().unwrap().recv();
                    let Ok(part) = next else { return };
                    if finisher == 0 && part.index() % 16 == 0 {
                        thread::yield_now();
                    }
                    let len = part.len();
                    part.finish(Ok(len));
                }
            });
        }
        for submitter in 0..3 {
            let (queue, credits, memory) = (queue.clone(), &credits, &memory);
            scope.spawn(move || {
                for round in 0..3 {
                    let (request, waiter) = FanIn::waited(credits);
                    let mut request = request.reap_every(1 + submitter + round);
                    for _ in 0..PARTS / 3 {
                        let part = request.part(10, None, || Page::new(memory)).unwrap();
                        queue.send(part).unwrap();
                    }
                    request.finish_submitting();
                    assert_eq!(waiter.wait(None).unwrap().into_result().unwrap(), PARTS / 3 * 10);
                }
            });
        }
        drop(queue);
    });
    let peak = memory.peak.load(SeqCst);
    assert!((1..=BOUND).contains(&peak), "{peak} parts at once");
    assert_eq!((memory.live.load(SeqCst), credits.available()), (0, BOUND));
}
