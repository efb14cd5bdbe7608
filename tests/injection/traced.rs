//! A thread of a child, traced: what it does in turns, and what is done to it.

use super::support::tracee::{Section, Tracee, be_traced};
use super::support::{process, skip};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// What a child may be.
pub const TRACED: &str = "traced";
pub const ALONE: &str = "alone";

/// By which the tracer, who reads and writes the child's memory, speaks with it.
#[repr(C)]
struct Mailbox {
    /// Set by the tracer: the other thread may begin.
    go: AtomicU64,
    /// Set by the tracer: it is enough.
    stop: AtomicU64,
    /// How many turns the traced thread has made.
    turns: AtomicU64,
    /// Set by the tracer: how much is wrong at the end, because of it.
    surplus: AtomicU64,
}

// Nothing else in this program has this name, by which a debugger finds it.
#[unsafe(no_mangle)]
static IOCTX_MAILBOX: Mailbox = Mailbox {
    go: AtomicU64::new(0),
    stop: AtomicU64::new(0),
    turns: AtomicU64::new(0),
    surplus: AtomicU64::new(0),
};

/// In the child: makes turns until it is enough, and returns how many. Traced by the test, unless the `role` is to be
/// on its own. What is traced is in `functions`.
pub fn take_turns(role: &str, functions: &[*const ()], mut turn: impl FnMut(u64)) -> u64 {
    let mut words: Vec<u64> = functions.iter().map(|function| *function as u64).collect();
    words.push(&raw const IOCTX_MAILBOX as u64);
    if role == ALONE {
        IOCTX_MAILBOX.go.store(1, Relaxed);
    } else if let Err(error) = be_traced(&words) {
        skip(format_args!("ptrace: {error}"));
        IOCTX_MAILBOX.stop.store(1, Relaxed);
    }
    while !enough() {
        let turns = IOCTX_MAILBOX.turns.load(Relaxed);
        turn(turns);
        IOCTX_MAILBOX.turns.store(turns + 1, Relaxed);
        if role == ALONE && turns == 1000 {
            IOCTX_MAILBOX.stop.store(1, Relaxed);
        }
    }
    IOCTX_MAILBOX.turns.load(Relaxed)
}

/// In the child: waits until the other thread may begin, or it is enough already.
pub fn wait_to_begin() {
    while IOCTX_MAILBOX.go.load(Relaxed) == 0 && !enough() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// In the child: whether it is enough.
pub fn enough() -> bool {
    IOCTX_MAILBOX.stop.load(Relaxed) != 0
}

/// In the child: how much is to be wrong at the end.
pub fn surplus() -> u64 {
    IOCTX_MAILBOX.surplus.load(Relaxed)
}

/// The child's thread, and what it told.
pub struct Traced<const N: usize> {
    thread: Tracee,
    pub functions: [u64; N],
    mailbox: u64,
}

/// A function's section, as it was seen to run.
pub struct Known {
    function: u64,
    pub section: Section,
    /// Where its instructions begin.
    pub places: Vec<u64>,
    /// Where it goes on if it is aborted: the first instruction after the abort address.
    pub landing: u64,
    /// How often it runs in a turn, if that is known.
    pub calls: Option<u64>,
}

impl<const N: usize> Traced<N> {
    /// `None` if it cannot be had, which was said.
    pub fn start(test: &str) -> Option<Self> {
        let (thread, words) = match Tracee::start(process::again(test, TRACED)) {
            Ok(started) => started,
            Err(output) => {
                process::passed(&output);
                return None;
            }
        };
        let (functions, mailbox) = words.split_at(N);
        let traced = Self { thread, functions: functions.try_into().unwrap(), mailbox: mailbox[0] };
        if !traced.thread.has_area() {
            skip("ptrace(GET_RSEQ_CONFIGURATION) is not known here");
            traced.finish();
            return None;
        }
        Some(traced)
    }

    fn write(&self, offset: usize, value: u64) {
        self.thread.poke(self.mailbox + offset as u64, value);
    }

    pub fn expect_surplus(&self, surplus: u64) {
        self.write(std::mem::offset_of!(Mailbox, surplus), surplus);
    }

    pub fn let_the_other_begin(&self) {
        self.write(std::mem::offset_of!(Mailbox, go), 1);
    }

    pub fn turns(&self) -> u64 {
        self.thread.peek(self.mailbox + std::mem::offset_of!(Mailbox, turns) as u64)
    }

    /// Lets the child see what came of it, and end.
    pub fn finish(self) {
        self.write(std::mem::offset_of!(Mailbox, stop), 1);
        process::passed(&self.thread.finish());
    }

    /// Executes one instruction; says whether a section begins at the next.
    pub fn step_into_section(&self) -> bool {
        let ip = self.thread.step();
        self.thread.section().is_some_and(|section| section.start == ip)
    }

    /// Steps through the first section of `function` that commits, undisturbed, and then aborts it once.
    ///
    /// The section is not protected meanwhile: nobody else may use what it uses.
    pub fn know(&self, function: u64, calls: Option<u64>) -> Known {
        let (section, places) = loop {
            if let Some(known) = self.instructions(function) {
                break known;
            }
        };
        self.thread.run_to(section.start);
        self.thread.run_to(section.abort);
        let landing = self.thread.step();
        Known { function, section, places, landing, calls }
    }

    /// The first section of the next call of `function`, and where its instructions begin; `None` if it gives up.
    fn instructions(&self, function: u64) -> Option<(Section, Vec<u64>)> {
        self.thread.run_to(function);
        // What was left by the section before.
        self.thread.disarm();
        let (section, first) = self.thread.step_until(|ip| Some((self.thread.section()?, ip)));
        assert_eq!(first, section.start, "what comes between is in no section");
        // Else the kernel would abort it because of the step itself.
        self.thread.disarm();
        let mut places = vec![first];
        let end = self.thread.step_until(|ip| {
            (!(section.start..section.end).contains(&ip)).then_some(ip).or_else(|| {
                places.push(ip);
                None
            })
        });
        // Those of a loop came by more than once.
        places.sort_unstable();
        places.dedup();
        (end == section.end).then_some((section, places))
    }

    /// Makes one call go on as if its section had been aborted, when it has just ended. If its last
    /// instruction is the commit, as it has to be, what the section did is done twice.
    pub fn do_twice(&self, known: &Known) {
        self.thread.run_to(known.function);
        self.thread.run_to(known.section.end);
        self.thread.jump(known.landing);
    }

    /// Makes one call go on as if its section had ended, without the last instruction. If that is the commit, what
    /// the section did is not done at all.
    pub fn do_not(&self, known: &Known) {
        self.thread.run_to(known.function);
        self.thread.run_to(*known.places.last().unwrap());
        self.thread.jump(known.section.end);
    }

    /// Stops the thread `times` times, or as often as it calls in so many turns, at each instruction of a section, and
    /// sees that it goes on where an aborted section does, but not if stopped behind the last.
    pub fn abort_everywhere(&self, known: &Known, times: u64) {
        for place in &known.places {
            assert!(self.aborts(*place, known, times), "no abort at {place:#x} in {:x?}", known.section);
        }
        // The control: what is committed is not aborted.
        assert!(!self.aborts(known.section.end, known, times), "an abort behind {:x?}", known.section);
        println!("{} instructions, {} aborts at each", known.places.len(), times * known.calls.unwrap_or(1));
    }

    /// Stops the thread again and again at `place`; says whether each time it was then found at the landing, or never.
    fn aborts(&self, place: u64, known: &Known, times: u64) -> bool {
        let (stops, before) = (times * known.calls.unwrap_or(1), self.turns());
        let mut aborted = 0;
        for _ in 0..stops {
            self.thread.run_to(place);
            aborted += u64::from(self.thread.step() == known.landing);
        }
        // Each stop was in another call: what was aborted is not tried again.
        assert!(
            known.calls.is_none() || (self.turns() - before).abs_diff(times) <= 1,
            "a call came by more than once"
        );
        assert!(aborted == 0 || aborted == stops, "{aborted} aborts of {stops} stops at {place:#x}");
        aborted > 0
    }
}
