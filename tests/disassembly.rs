//! What a get and a put come down to, read off the machine code. Only optimised builds are looked at:
//! `cargo test --release --test disassembly`.
#![cfg(all(ioctx_linux, target_arch = "x86_64", not(debug_assertions)))]

use ioctx::refcount::{PerCpuRef, Put};
use std::process::Command;

// SAFETY: nothing else in this program has these names.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_disassembled_get(count: &PerCpuRef) {
    count.get();
}

// SAFETY: nothing else in this program has these names.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ioctx_disassembled_put(count: &PerCpuRef) -> bool {
    count.put() == Put::Zero
}

/// The instructions of a function from its start to its first return: what runs if nothing disturbs it.
fn straight_line(function: &str) -> Option<Vec<String>> {
    let exe = std::env::current_exe().unwrap();
    let printed = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", &format!("--disassemble={function}")])
        .arg(exe)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    let (_, body) = text.split_once(&format!("<{function}>:"))?;
    let instructions =
        body.lines().filter_map(|line| line.split_once(":\t")).map(|(_, rest)| rest.trim().to_owned());
    Some(instructions.take_while(|instruction| !instruction.starts_with("ret")).collect())
}

/// What a caller would have inlined: from the load of the area's place to the commit, without the register
/// shuffling of a function of its own.
fn inlined(instructions: &[String]) -> usize {
    let descriptor = instructions.iter().position(|instruction| instruction.starts_with("lea")).unwrap();
    let commit = instructions.iter().rposition(|instruction| instruction.starts_with("add")).unwrap();
    let loads = instructions[..descriptor].iter().filter(|instruction| instruction.contains('(')).count();
    let jumps = instructions[..descriptor].iter().filter(|instruction| instruction.starts_with('j')).count();
    loads + jumps + commit + 1 - descriptor
}

#[test]
fn a_get_or_put_is_some_dozen_instructions_and_none_is_locked() {
    let count = PerCpuRef::new();
    ioctx_disassembled_get(&count);
    assert!(!ioctx_disassembled_put(&count));
    for function in ["ioctx_disassembled_get", "ioctx_disassembled_put"] {
        let Some(instructions) = straight_line(function) else {
            println!("SKIPPED: there is no objdump");
            return;
        };
        let listing = instructions.join("\n");
        assert!(listing.contains("%fs:"), "the search finds something else:\n{listing}");
        // Eleven with link-time optimisation; without it the place of the area is looked up in a table first. And two
        // more where it is asked first whether there is an area at all.
        let most = if cfg!(feature = "own-rseq") { 12 } else { 14 };
        assert!(inlined(&instructions) <= most, "{} instructions:\n{listing}", inlined(&instructions));
        assert!(!listing.contains("lock"), "a locked instruction:\n{listing}");
        println!("{function}: {} instructions", inlined(&instructions));
    }
}
