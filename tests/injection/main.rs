//! Sections as they ship, aborted at every instruction, and stepped through by a debugger.
//!
//! The test runs itself once more as a child, one of whose threads it traces. A trap stops that thread at one
//! instruction, and the kernel has to restart a section that was stopped. No disassembler is asked where the
//! instructions begin: stepping through the section tells, once the kernel has been made to overlook it.
#![cfg(all(ioctx_linux, target_arch = "x86_64", target_pointer_width = "64"))]

mod many;
#[path = "../support/mod.rs"]
mod support;
mod traced;

use ioctx::cpu::{self, Kind};
use ioctx::refcount::{PerCpuRef, Put};
use std::process::Command;
use std::thread;
use support::{process, skip};
use traced::{ALONE, Traced, enough, surplus, take_turns, wait_to_begin};

/// Aborts at each instruction of a put, and twice as many at each of a get, lest errors cancel.
const ABORTS: u64 = 1000;

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

/// The child: keeps one reference of each turn, and at the end has to find exactly those, and the
/// ones that its other thread has kept. Traced by the test, unless its `role` is to be on its own.
fn child(role: &str) {
    if let Kind::Portable(why) = cpu::kind() {
        return skip(why);
    }
    let count = PerCpuRef::new();
    let kept = thread::scope(|scope| {
        let other = scope.spawn(|| another_user(&count));
        let functions = [ioctx_injected_get as *const (), ioctx_injected_put as *const ()];
        // Each turn is two gets and a put.
        let turns = take_turns(role, &functions, |_| {
            ioctx_injected_get(&count);
            ioctx_injected_get(&count);
            assert!(!ioctx_injected_put(&count));
        });
        turns + surplus() + other.join().unwrap()
    });
    assert_eq!(count.count(), None);
    let found = count.kill();
    assert_eq!(count.count(), Some(kept), "not what was taken and not put");
    let zeros = (0..kept).filter(|_| ioctx_injected_put(&count)).count();
    assert_eq!(zeros + usize::from(found == Put::Zero), 1);
}

/// Takes and puts references all the while, by sections of its own; returns how many it has kept.
fn another_user(count: &PerCpuRef) -> u64 {
    wait_to_begin();
    let mut kept = 0;
    for turn in 0_u64.. {
        if enough() {
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

#[test]
fn aborts_at_every_instruction_lose_nothing() {
    const NAME: &str = "aborts_at_every_instruction_lose_nothing";
    if let Some(role) = process::role() {
        return child(&role);
    }
    let Some(traced) = Traced::start(NAME) else { return };
    let [get, put] = traced.functions;
    let known = [traced.know(get, Some(2)), traced.know(put, Some(1))];
    traced.do_twice(&known[0]);
    traced.do_twice(&known[0]);
    traced.do_twice(&known[1]);
    traced.expect_surplus(1);
    traced.let_the_other_begin();
    known.iter().for_each(|known| traced.abort_everywhere(known, ABORTS));
    traced.finish();
}

#[test]
fn a_debugger_that_steps_arrives() {
    const NAME: &str = "a_debugger_that_steps_arrives";
    const STEPS: u64 = 20_000;
    if let Some(role) = process::role() {
        return child(&role);
    }
    let Some(traced) = Traced::<2>::start(NAME) else { return };
    traced.let_the_other_begin();
    let sections = (0..STEPS).filter(|_| traced.step_into_section()).count() as u64;
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
