//! The sections of a get and a put, as they ship, aborted at every instruction, and stepped through by a
//! debugger.
//!
//! The test runs itself once more as a child, one of whose threads it traces. A trap stops that thread at one
//! instruction, and the kernel has to restart a section that was stopped. No disassembler is asked where the
//! instructions begin: stepping through the section tells, once the kernel has been made to overlook it.
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]

mod support;

use ioctx::cpu::{self, Kind};
use ioctx::refcount::{PerCpuRef, Put};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use support::tracee::{Section, Tracee, be_traced};
use support::{process, skip};

/// Aborts at each instruction of a put, and twice as many at each of a get, lest errors cancel.
const ABORTS: u64 = 1000;

/// What a child may be.
const TRACED: &str = "traced";
const ALONE: &str = "alone";

// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_injected_get(count: &PerCpuRef) {
    count.get();
}

// Nothing else in this program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_injected_put(count: &PerCpuRef) -> bool {
    count.put() == Put::Zero
}

/// By which the tracer, who reads and writes the child's memory, speaks with it.
#[repr(C)]
struct Mailbox {
    /// Set by the tracer: the other thread may begin.
    go: AtomicU64,
    /// Set by the tracer: it is enough.
    stop: AtomicU64,
    /// How many turns the traced thread has made: each is two gets and a put.
    turns: AtomicU64,
    /// Set by the tracer: how many more references are counted than were taken, because of it.
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

/// The child: keeps one reference of each turn, and at the end has to find exactly those, and the
/// ones that its other thread has kept. Traced by the test, unless its `role` is to be on its own.
fn child(role: &str) {
    if let Kind::Portable(why) = cpu::kind() {
        return skip(why);
    }
    let count = PerCpuRef::new();
    let kept = thread::scope(|scope| {
        let other = scope.spawn(|| another_user(&count));
        let words = [
            ioctx_injected_get as *const () as u64,
            ioctx_injected_put as *const () as u64,
            &raw const IOCTX_MAILBOX as u64,
        ];
        if role == ALONE {
            IOCTX_MAILBOX.go.store(1, Relaxed);
        } else if let Err(error) = be_traced(&words) {
            skip(format_args!("ptrace: {error}"));
            IOCTX_MAILBOX.stop.store(1, Relaxed);
        }
        while IOCTX_MAILBOX.stop.load(Relaxed) == 0 {
            ioctx_injected_get(&count);
            ioctx_injected_get(&count);
            assert!(!ioctx_injected_put(&count));
            let turns = IOCTX_MAILBOX.turns.fetch_add(1, Relaxed);
            if role == ALONE && turns == 1000 {
                IOCTX_MAILBOX.stop.store(1, Relaxed);
            }
        }
        IOCTX_MAILBOX.turns.load(Relaxed) + IOCTX_MAILBOX.surplus.load(Relaxed) + other.join().unwrap()
    });
    assert_eq!(count.count(), None);
    let found = count.kill();
    assert_eq!(count.count(), Some(kept), "not what was taken and not put");
    let zeros = (0..kept).filter(|_| ioctx_injected_put(&count)).count();
    assert_eq!(zeros + usize::from(found == Put::Zero), 1);
}

/// Takes and puts references all the while, by sections of its own; returns how many it has kept.
fn another_user(count: &PerCpuRef) -> u64 {
    while IOCTX_MAILBOX.go.load(Relaxed) == 0 && IOCTX_MAILBOX.stop.load(Relaxed) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let mut kept = 0;
    for turn in 0_u64.. {
        if IOCTX_MAILBOX.stop.load(Relaxed) != 0 {
            break;
        }
        assert!(count.try_get_live());
        if turn % 1024 == 0 {
            kept += 1;
        } else {
            assert_eq!(count.put_many(1), Put::Held);
        }
    }
    kept
}

/// The child's thread, and what it told.
struct Traced {
    thread: Tracee,
    get: u64,
    put: u64,
    mailbox: u64,
}

impl Traced {
    /// `None` if it cannot be had, which was said.
    fn start(test: &str) -> Option<Self> {
        let (thread, words) = match Tracee::start(process::again(test, TRACED)) {
            Ok(started) => started,
            Err(output) => {
                process::passed(&output);
                return None;
            }
        };
        let traced = Self { thread, get: words[0], put: words[1], mailbox: words[2] };
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

    fn expect_surplus(&self) {
        self.write(std::mem::offset_of!(Mailbox, surplus), 1);
    }

    fn let_the_other_begin(&self) {
        self.write(std::mem::offset_of!(Mailbox, go), 1);
    }

    fn turns(&self) -> u64 {
        self.thread.peek(self.mailbox + std::mem::offset_of!(Mailbox, turns) as u64)
    }

    /// Lets the child count its references and end.
    fn finish(self) {
        self.write(std::mem::offset_of!(Mailbox, stop), 1);
        process::passed(&self.thread.finish());
    }

    /// Steps through the section of `function`, undisturbed; gives it and where its instructions begin.
    ///
    /// The section is not protected then: nobody else may count.
    fn instructions(&self, function: u64) -> (Section, Vec<u64>) {
        self.thread.run_to(function);
        // What was left by the section before.
        self.thread.disarm();
        let (section, first) = self.thread.step_until(|ip| Some((self.thread.section()?, ip)));
        assert_eq!(first, section.start, "what comes between is in no section");
        // Else the kernel would abort it because of the step itself.
        self.thread.disarm();
        let mut places = vec![first];
        self.thread.step_until(|ip| {
            (ip == section.end).then_some(()).or_else(|| {
                places.push(ip);
                None
            })
        });
        assert!(places.iter().all(|place| (section.start..section.end).contains(place)), "{places:x?}");
        (section, places)
    }

    /// Where an aborted section of the function goes on, in the first instruction after the abort address.
    fn landing(&self, section: &Section) -> u64 {
        self.thread.run_to(section.start);
        self.thread.run_to(section.abort);
        self.thread.step()
    }

    /// Makes one call go on as if its section had been aborted, when it has just ended. If its last
    /// instruction is the commit, as it has to be, the call counts twice.
    fn count_twice(&self, section: &Section, landing: u64) {
        self.thread.run_to(section.end);
        self.thread.jump(landing);
    }

    /// Stops the thread again and again at `place`; says whether each time it was then found at `landing`, or
    /// never. `calls` is how often a turn comes by.
    fn aborts(&self, place: u64, landing: u64, calls: u64) -> bool {
        let (stops, before) = (ABORTS * calls, self.turns());
        let mut aborted = 0;
        for _ in 0..stops {
            self.thread.run_to(place);
            aborted += u64::from(self.thread.step() == landing);
        }
        // Each stop was in another call: what was aborted is not tried again.
        assert!((self.turns() - before).abs_diff(ABORTS) <= 1, "a call came by more than once");
        assert!(aborted == 0 || aborted == stops, "{aborted} aborts of {stops} stops at {place:#x}");
        aborted > 0
    }
}

#[test]
fn aborts_at_every_instruction_lose_nothing() {
    const NAME: &str = "aborts_at_every_instruction_lose_nothing";
    if let Some(role) = process::role() {
        return child(&role);
    }
    let Some(traced) = Traced::start(NAME) else { return };
    let learnt = [(traced.get, 2), (traced.put, 1)].map(|(function, calls)| {
        let (section, places) = traced.instructions(function);
        let landing = traced.landing(&section);
        (section, places, landing, calls)
    });
    let [(get, _, after_get, _), (put, _, after_put, _)] = &learnt;
    traced.count_twice(get, *after_get);
    traced.count_twice(get, *after_get);
    traced.count_twice(put, *after_put);
    traced.expect_surplus();
    traced.let_the_other_begin();
    for (section, places, landing, calls) in &learnt {
        for place in places {
            assert!(traced.aborts(*place, *landing, *calls), "no abort at {place:#x} in {section:x?}");
        }
        // The control: what is committed is not aborted.
        assert!(!traced.aborts(section.end, *landing, *calls), "an abort behind {section:x?}");
        println!("{} instructions, {} aborts at each", places.len(), ABORTS * calls);
    }
    traced.finish();
}

#[test]
fn a_debugger_that_steps_arrives() {
    const NAME: &str = "a_debugger_that_steps_arrives";
    const STEPS: u64 = 20_000;
    if let Some(role) = process::role() {
        return child(&role);
    }
    let Some(traced) = Traced::start(NAME) else { return };
    traced.let_the_other_begin();
    let mut sections = 0;
    for _ in 0..STEPS {
        let ip = traced.thread.step();
        sections += u64::from(traced.thread.section().is_some_and(|section| section.start == ip));
    }
    let turns = traced.turns();
    assert!(turns >= STEPS / 5000, "{turns} turns in {STEPS} steps");
    assert!(sections >= turns * 3, "{sections} sections were stepped into in {turns} turns");
    println!("{STEPS} steps, {turns} turns");
    traced.finish();
}

/// The word of the mailbox that gdb shows behind `label`.
fn shown(printed: &str, label: &str) -> Option<u64> {
    let (_, word) = printed.split_once(label)?;
    word.split_whitespace().next()?.parse().ok()
}

#[test]
fn gdb_steps_and_arrives() {
    const NAME: &str = "gdb_steps_and_arrives";
    if let Some(role) = process::role() {
        return child(&role);
    }
    if let Kind::Portable(why) = cpu::kind() {
        return skip(why);
    }
    let child = process::again(NAME, ALONE);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", "set language c"]);
    for command in [
        "break ioctx_injected_get",
        "run",
        "delete",
        "stepi 4000",
        "printf \"turns: %lu\\n\", ((unsigned long *) &IOCTX_MAILBOX)[2]",
        "continue",
    ] {
        gdb.args(["-ex", command]);
    }
    gdb.arg("--args").arg(child.get_program()).args(child.get_args());
    gdb.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Ok(output) = gdb.output() else { return skip("there is no gdb") };
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if !printed.contains("Breakpoint 1, ") {
        return skip(format_args!("gdb cannot run programs here: {}", errors.lines().last().unwrap_or("")));
    }
    let turns = shown(&printed, "turns: ").expect("gdb has stepped");
    assert!((1..1000).contains(&turns), "{turns} turns: {printed}");
    assert!(printed.contains("exited normally"), "{printed}\n{errors}");
    println!("gdb: {turns} turns");
}
