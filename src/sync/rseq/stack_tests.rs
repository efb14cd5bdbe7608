//! The sections of stacks, aborted while they copy.

use super::tests::eventually;
use super::*;
use crate::cpu::CpuId;
use crate::percpu::PerCpu;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How many items a CPU's stack has room for: copying them takes long enough to be interrupted.
const LIMIT: usize = 1024;

/// No item.
const NOTHING: u32 = u32::MAX;

/// A CPU's stack, as sections know it.
#[repr(C)]
struct Stack {
    len: AtomicU64,
    address: AtomicPtr<AtomicU32>,
    limit: u64,
    /// One more than the limit, which stays [`NOTHING`].
    items: Box<[AtomicU32]>,
}

impl Stack {
    fn new() -> Self {
        let items: Box<[_]> = (0..=LIMIT).map(|_| AtomicU32::new(NOTHING)).collect();
        let address = AtomicPtr::new(items.as_ptr().cast_mut());
        Self { len: AtomicU64::new(0), address, limit: LIMIT as u64, items }
    }

    fn content(&self) -> Vec<u32> {
        assert_eq!(self.items[LIMIT].load(Relaxed), NOTHING, "written past the limit");
        self.items[..self.len.load(Relaxed) as usize].iter().map(|item| item.load(Relaxed)).collect()
    }
}

/// The stacks of all CPUs, and the mode word of sections that use them.
struct Stacks {
    stacks: PerCpu<Stack>,
    mode: AtomicU64,
}

impl Stacks {
    fn new() -> Self {
        let stacks = PerCpu::new(|_| Stack::new());
        let mode = AtomicU64::new(stacks.first().expose_provenance() as u64);
        Self { stacks, mode }
    }

    fn content(&self) -> Vec<u32> {
        self.stacks.iter().flat_map(Stack::content).collect()
    }

    /// The section that ships. Whether it has filled `items`.
    fn pop_many(&self, items: &mut [u32]) -> bool {
        // SAFETY: nothing but numbers is written to them.
        let items = unsafe { &mut *(std::ptr::from_mut(items) as *mut [MaybeUninit<u32>]) };
        // SAFETY: the kind was asked. The mode word is the address of the stacks, which are 128 bytes each,
        // are written by sections only, and have their items where they say. No test asks for no items.
        unsafe { pop_many(&self.mode, items, |_, _, _| unreachable!("for model checkers")) }.is_some()
    }

    /// The section that ships.
    fn push_many(&self, items: &[u32]) -> bool {
        // SAFETY: as above.
        unsafe { push_many(&self.mode, items, |_, _| unreachable!("for model checkers")) }
    }
}

/// An area of the thread that made it which the kernel does not know: it restarts no section there.
#[repr(C, align(32))]
struct UnknownArea([AtomicU32; 8]);

impl UnknownArea {
    /// Says that the thread runs on `cpu`.
    fn new(cpu: i32) -> Self {
        Self([0, cpu as u32, 0, 0, 0, 0, 0, 0].map(AtomicU32::new))
    }

    fn offset(&self) -> isize {
        std::ptr::from_ref(self).expose_provenance().wrapping_sub(arch::thread_pointer().addr()) as isize
    }

    /// Whether a section has begun here.
    fn used(&self) -> bool {
        self.0[2].load(Relaxed) != 0
    }

    /// The instructions that ship.
    fn pop_many(&self, stacks: &Stacks, items: &mut [u32]) -> bool {
        let (mode, first, n) = (&raw const stacks.mode, items.as_mut_ptr(), items.len() as u64);
        // SAFETY: as in `Stacks`, but wrong on purpose: the length of a stack may become a stale one. That,
        // too, is within the limit.
        unsafe { arch::pop_many!(self.offset(), mode, first, n) };
        true
    }

    /// The instructions that ship.
    fn push_many(&self, stacks: &Stacks, items: &[u32]) -> bool {
        let (mode, first, n) = (&raw const stacks.mode, items.as_ptr(), items.len() as u64);
        // SAFETY: as above.
        unsafe { arch::push_many!(self.offset(), mode, first, n) };
        true
    }
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % end
    }

    /// How many items to move.
    fn size(&mut self) -> usize {
        match self.below(4) {
            0 => 1,
            1 => LIMIT,
            _ => 1 + self.below(LIMIT),
        }
    }
}

/// Keeps a thread on one CPU.
fn pin(thread: Option<Pid>, cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(thread, &set)
}

/// What the threads of [`exchange`] share.
struct Exchange {
    stacks: Stacks,
    stop: AtomicBool,
    /// How many pops had copied something when they were aborted.
    cut_short: AtomicU64,
}

impl Exchange {
    /// Pushes and pops items until told to stop. Has `mine` at first, and what it returns in the end.
    fn trade<const ARMED: bool>(&self, mine: Range<u32>) -> Vec<u32> {
        let mut random = Random(mine.start.into());
        let mut have = mine.len();
        let mut items: Vec<u32> = mine.collect();
        items.resize(2 * LIMIT, NOTHING);
        while !self.stop.load(Relaxed) {
            let n = random.size();
            let unknown = UnknownArea::new(crate::sync::cpu::raw() as i32);
            let pushes = random.below(2) == 0;
            if pushes && n <= have {
                let pushed = &items[have - n..have];
                let done = match ARMED {
                    true => self.stacks.push_many(pushed),
                    false => unknown.push_many(&self.stacks, pushed),
                };
                have -= if done { n } else { 0 };
            } else if !pushes && n <= items.len() - have {
                let popped = &mut items[have..have + n];
                popped[n - 1] = NOTHING;
                let done = match ARMED {
                    true => self.stacks.pop_many(popped),
                    false => unknown.pop_many(&self.stacks, popped),
                };
                // The last one is copied first.
                let copied = popped[n - 1] != NOTHING;
                assert!(copied || !done);
                if done {
                    have += n;
                } else {
                    self.cut_short.fetch_add(copied.into(), Relaxed);
                    let _ = rejoin();
                }
            }
        }
        items.truncate(have);
        items
    }
}

/// Has several threads, more than there are CPUs, push and pop distinct items, and moves the threads about.
/// Whether each item was in one place in the end, and the stacks were as right after the fence.
fn exchange<const ARMED: bool>(enough: impl Fn(&Exchange) -> bool) -> bool {
    let threads = 2 * crate::cpu::possible() + 2;
    // All in all a bit more than there is room for.
    let each = LIMIT as u32 / 2;
    let shared =
        Exchange { stacks: Stacks::new(), stop: AtomicBool::new(false), cut_short: AtomicU64::new(0) };
    let (in_stacks, mut all) = thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let traders: Vec<_> = (0..threads)
            .map(|thread| {
                let (shared, tell) = (&shared, tell.clone());
                scope.spawn(move || {
                    tell.send(gettid()).unwrap();
                    shared.trade::<ARMED>(thread * each..(thread + 1) * each)
                })
            })
            .collect();
        let ids: Vec<_> = told.iter().take(traders.len()).collect();
        let allowed = sched_getaffinity(None).unwrap();
        let cpus: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let mut random = Random(1);
        eventually(|| {
            // If that is forbidden, they are preempted all the same.
            for id in &ids {
                let _ = pin(Some(*id), cpus[random.below(cpus.len())]);
            }
            enough(&shared)
        });
        shared.stacks.mode.fetch_or(GIVE_UP, Relaxed);
        assert!(super::fence());
        let in_stacks = shared.stacks.content();
        shared.stop.store(true, Relaxed);
        (in_stacks, traders.into_iter().flat_map(|trader| trader.join().unwrap()).collect::<Vec<_>>())
    });
    let late = shared.stacks.content() != in_stacks;
    all.extend(in_stacks);
    all.sort_unstable();
    all.into_iter().eq(0..threads * each) && !late
}

#[test]
fn many_items_are_neither_lost_nor_had_twice_and_unprotected_they_are() {
    if matches!(kind(), Kind::Portable(_)) {
        println!("SKIPPED: {:?}", kind());
        return;
    }
    let cut_short = AtomicU64::new(0);
    let whole = exchange::<true>(|shared| {
        cut_short.store(shared.cut_short.load(Relaxed), Relaxed);
        cut_short.load(Relaxed) >= 30
    });
    assert!(whole, "an item was lost, or had twice, or moved after the fence");
    assert!(cut_short.into_inner() >= 30, "pops were hardly ever aborted while they copied");

    // The control: the same instructions, but nobody restarts them.
    let broken = eventually(|| {
        let timer = Instant::now();
        !exchange::<false>(|_| timer.elapsed() > Duration::from_millis(100))
    });
    assert!(broken, "unprotected sections of several threads on one CPU lost nothing");
}

/// Runs `what` in a thread that stays on one CPU, whose stack it is given, while another thread has sections
/// restarted all the time. Not if it may not stay there.
fn disturbed(what: impl FnOnce(&Stacks, &Stack) + Send) {
    if matches!(kind(), Kind::Portable(_)) {
        println!("SKIPPED: {:?}", kind());
        return;
    }
    let stay = || {
        let _ = rejoin();
        let cpu = cpu_id().expect("registered");
        if let Err(error) = pin(None, cpu as usize) {
            println!("SKIPPED: sched_setaffinity: {error}");
            return;
        }
        let stacks = Stacks::new();
        what(&stacks, stacks.stacks.get(CpuId(cpu)));
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                assert!(super::fence());
            }
        });
        let done = scope.spawn(stay).join();
        stop.store(true, Relaxed);
        done.unwrap();
    });
}

#[test]
fn many_items_are_moved_in_order_or_not_at_all() {
    disturbed(|stacks, stack| {
        // What can be done is done, though not always at once.
        let push = |items: &[u32]| assert!(eventually(|| stacks.push_many(items)));
        let pop = |n: usize| {
            let mut items = vec![NOTHING; n + 2];
            assert!(eventually(|| stacks.pop_many(&mut items[1..=n])));
            assert!(items[0] == NOTHING && items[n + 1] == NOTHING, "written beside the buffer");
            items[1..=n].to_vec()
        };
        // What cannot be done is never done, not even in part.
        let refuses = |what: &dyn Fn() -> bool| {
            let before = stack.content();
            (0..100).for_each(|_| assert!(!what()));
            assert_eq!(stack.content(), before);
        };
        let refuses_to_push = |n: usize| refuses(&|| stacks.push_many(&vec![7; n]));
        let refuses_to_pop = |n: usize| refuses(&|| stacks.pop_many(&mut vec![7; n]));

        refuses_to_pop(1);
        refuses_to_push(LIMIT + 1);
        push(&[1]);
        push(&[2, 3, 4]);
        assert_eq!(stack.content(), [1, 2, 3, 4]);
        refuses_to_pop(5);
        refuses_to_push(LIMIT - 3);
        assert_eq!(pop(2), [3, 4]);
        assert_eq!(pop(1), [2]);
        let rest: Vec<u32> = (10..).take(LIMIT - 1).collect();
        push(&rest);
        refuses_to_push(1);
        refuses_to_pop(LIMIT + 1);
        let all = pop(LIMIT);
        assert_eq!(all, [&[1], &rest[..]].concat());
        push(&all);

        // Nor by a thread that is not registered, nor when all are told to give up.
        let unregistered = UnknownArea::new(UNREGISTERED);
        refuses(&|| unregistered.pop_many(stacks, &mut [7]));
        assert!(unregistered.used());
        stacks.mode.fetch_or(GIVE_UP, Relaxed);
        refuses_to_pop(1);
        let unknown = UnknownArea::new(crate::sync::cpu::raw() as i32);
        refuses(&|| unknown.pop_many(stacks, &mut [7]));
        assert!(unknown.used());
    });
}

#[test]
fn what_is_aborted_while_it_copies_has_done_nothing() {
    disturbed(|stacks, stack| {
        let (mut pops, mut pushes) = (0, 0);
        let mut batches = [1, 2].map(|item| vec![item; LIMIT - 1]);
        let mut popped = vec![NOTHING; LIMIT - 1];
        assert!(eventually(|| stacks.push_many(&[7])));
        // The last one is copied first.
        let (last_pushed, last) = (&stack.items[LIMIT - 1], LIMIT - 2);
        let enough = eventually(|| {
            // Not those that lie there still.
            batches.reverse();
            last_pushed.store(NOTHING, Relaxed);
            while !stacks.push_many(&batches[0]) {
                assert_eq!(stack.content(), [7]);
                pushes += u32::from(last_pushed.swap(NOTHING, Relaxed) != NOTHING);
            }
            popped[last] = NOTHING;
            while !stacks.pop_many(&mut popped) {
                assert_eq!(stack.content(), [&[7], &batches[0][..]].concat());
                pops += u32::from(popped[last] != NOTHING);
                popped[last] = NOTHING;
            }
            assert_eq!(popped, batches[0]);
            pops >= 100 && pushes >= 100
        });
        assert!(enough, "{pops} pops and {pushes} pushes were aborted while they copied");
    });
}
