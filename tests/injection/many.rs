//! Sections that move several things at once: events to a lane, tags from and to a stock.

use super::support::{process, skip};
use super::traced::{Traced, enough, surplus, take_turns, wait_to_begin};
use ioctx::cpu::{self, Kind};
use ioctx::credits::{Batch, Tags};
use ioctx::ring::{CompletionQueue, Event};
use std::thread;

/// Aborts at each instruction.
const ABORTS: u64 = 250;

/// Several, but few.
const SEVERAL: usize = 3;

// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_injected_append(queue: &CompletionQueue, event: &Event) {
    queue.publish_one(*event);
}

// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_injected_append_several(queue: &CompletionQueue, events: &[Event; SEVERAL]) {
    queue.publish(events);
}

// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn ioctx_injected_take_several(tags: &Tags) -> Batch<'_> {
    tags.try_take_many(SEVERAL as u32).expect("there are enough")
}

// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn ioctx_injected_put_several(batch: Batch<'_>) {
    drop(batch);
}

/// An event of one publisher, by its number. Each word says so, in case of one that is torn.
fn event(publisher: u64, number: u64) -> Event {
    let word = publisher << 56 | number;
    Event { data: word, obj: !word, res: word as i64, res2: !word as i64 }
}

/// How often each event came, by its number.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Seen {
    fn add(&mut self, number: u64) {
        let number = number as usize;
        if number >= self.0.len() {
            self.0.resize(number + 1, 0);
        }
        self.0[number] += 1;
    }

    /// How many came once too often, if all others of `0..end` came once.
    fn doubled(&self, end: u64) -> u64 {
        assert_eq!(self.0.len() as u64, end, "more, or fewer");
        assert!(self.0.iter().all(|times| (1..=2).contains(times)), "an event was lost, or tripled");
        self.0.iter().filter(|times| **times == 2).count() as u64
    }
}

/// The child: publishes numbered events, one or several in a turn. Its other thread reads all of them, and publishes as
/// well, if it would not run into the traps: the section for one event is elsewhere, and stays there.
fn publish_in_turns<const N: usize>(
    role: &str,
    function: *const (),
    publish: impl Fn(&CompletionQueue, [Event; N]),
) {
    if let Kind::Portable(why) = cpu::kind() {
        return skip(why);
    }
    let queue = CompletionQueue::new(4096);
    let mut seen = [Seen::default(), Seen::default()];
    let read = |seen: &mut [Seen; 2]| {
        queue.read(usize::MAX, |run| {
            for got in run {
                let (publisher, number) = (got.data >> 56, got.data & (u64::MAX >> 8));
                assert_eq!(*got, event(publisher, number), "torn");
                seen[publisher as usize].add(number);
            }
        })
    };
    let (turns, published) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            wait_to_begin();
            let mut published = 0;
            while !enough() {
                let more = if N == 1 { 100 } else { 0 };
                (0..more).for_each(|i| queue.publish(&[event(1, published + i)]));
                published += more;
                while read(&mut seen) > 0 {}
                thread::yield_now();
            }
            published
        });
        let turns = take_turns(role, &[function], |turn| {
            publish(&queue, std::array::from_fn(|i| event(0, turn * N as u64 + i as u64)));
        });
        (turns, other.join().unwrap())
    });
    while read(&mut seen) > 0 {}
    assert_eq!(seen[0].doubled(turns * N as u64), surplus());
    assert_eq!(seen[1].doubled(published), 0);
}

/// Aborts the appends of a child, of `n` events each.
fn abort_appends(test: &str, n: u64, calls: Option<u64>) {
    let Some(traced) = Traced::start(test) else { return };
    let [function] = traced.functions;
    let known = traced.know(function, calls);
    traced.do_twice(&known);
    traced.do_twice(&known);
    traced.expect_surplus(2 * n);
    traced.let_the_other_begin();
    traced.abort_everywhere(&known, ABORTS);
    traced.finish();
}

#[test]
fn an_append_aborted_anywhere_loses_and_doubles_nothing() {
    if let Some(role) = process::role() {
        let publish = |queue: &CompletionQueue, [event]: [Event; 1]| ioctx_injected_append(queue, &event);
        return publish_in_turns(&role, ioctx_injected_append as *const (), publish);
    }
    abort_appends("many::an_append_aborted_anywhere_loses_and_doubles_nothing", 1, Some(1));
}

#[test]
fn an_append_of_several_aborted_anywhere_loses_and_doubles_nothing() {
    if let Some(role) = process::role() {
        let publish = |queue: &CompletionQueue, events| ioctx_injected_append_several(queue, &events);
        return publish_in_turns(&role, ioctx_injected_append_several as *const (), publish);
    }
    // What is aborted may be tried again once, by the same instructions.
    let name = "many::an_append_of_several_aborted_anywhere_loses_and_doubles_nothing";
    abort_appends(name, SEVERAL as u64, None);
}

/// The child: takes several tags and puts them back. There is no other thread: it would run into the traps, since there
/// is one copy of these sections. Those of the crate's own tests are interrupted by others.
fn take_and_put_in_turns(role: &str) {
    const TAGS: u32 = 4096;
    if let Kind::Portable(why) = cpu::kind() {
        return skip(why);
    }
    let tags = Tags::new(TAGS);
    let functions = [ioctx_injected_take_several as *const (), ioctx_injected_put_several as *const ()];
    take_turns(role, &functions, |_| {
        let batch = ioctx_injected_take_several(&tags);
        assert_eq!(batch.len(), SEVERAL);
        ioctx_injected_put_several(batch);
    });
    let all = tags.drain();
    let mut left = all.to_vec();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len(), all.len(), "a tag was doubled");
    assert_eq!(u64::from(TAGS) - all.len() as u64, surplus(), "not what was lost on purpose");
}

#[test]
fn moves_of_tags_aborted_anywhere_lose_and_double_nothing() {
    const NAME: &str = "many::moves_of_tags_aborted_anywhere_lose_and_double_nothing";
    if let Some(role) = process::role() {
        return take_and_put_in_turns(&role);
    }
    let Some(traced) = Traced::start(NAME) else { return };
    let [take, put] = traced.functions;
    // What is taken twice is lost, and what is not put. What is aborted refills or spills by the same instructions.
    let taking = traced.know(take, None);
    traced.do_twice(&taking);
    let putting = traced.know(put, None);
    traced.do_not(&putting);
    traced.expect_surplus(2 * SEVERAL as u64);
    traced.abort_everywhere(&taking, ABORTS);
    traced.abort_everywhere(&putting, ABORTS);
    traced.finish();
}
