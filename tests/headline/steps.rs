//! Steps through operations, and lists what they store.

use super::operations::{Kind, OPERATIONS, World};
use super::regions::{Owner, Region, by_sections};
use super::{TRACED, found};
use crate::support::tracee::Tracee;
use crate::support::{process, skip};
use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess, Register};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// By which this is called.
pub const TEST: &str = "checked::every_store_of_every_operation_is_listed";
/// Set by who has looked at the new lists and found them right.
const BLESS: &str = "IOCTX_BLESS";
/// Bytes beside the stack pointer that are stack.
const STACK: u64 = 1 << 18;
/// Bytes beside the thread pointer that are the thread's own.
const THREAD: u64 = 1 << 12;
/// No operation takes as many steps.
const MOST: usize = 20_000;

/// The offset of `rseq_cs` in an area, which is the one field that may be written, and the size of an area.
const RSEQ_CS: u64 = 8;
const AREA: u64 = 32;

/// What one call stores.
#[derive(Debug, Default)]
struct Listing {
    /// How often, by what it is stored to.
    stores: BTreeMap<String, usize>,
    /// How many instructions were locked.
    locked: usize,
    steps: usize,
}

/// Who stores, and what lies where in its memory.
struct Stepped {
    thread: Tracee,
    mark: u64,
    cpu: usize,
    regions: Vec<Region>,
}

/// Compares what each operation stores with the list.
pub fn compare() {
    let Some(stepped) = Stepped::start() else { return };
    let listings: Vec<_> = OPERATIONS.iter().map(|operation| (operation, stepped.list())).collect();
    process::passed(&stepped.thread.finish());
    let mut text = String::new();
    for (operation, listing) in &listings {
        let name = operation.name;
        writeln!(text, "{name}: {}", listing.text()).unwrap();
        let shared: Vec<_> = listing.stores.keys().filter(|name| is_shared(name)).collect();
        match operation.kind {
            Kind::Hot | Kind::Fenced => assert!(shared.is_empty(), "{name} writes {shared:?}"),
            Kind::Planted => assert!(!shared.is_empty(), "{name} is not seen: {listing:?}"),
            Kind::Reader => {}
        }
        let sections = operation.kind == Kind::Hot && by_sections();
        assert!(!sections || listing.locked == 0, "{name} is not done by sections: {listing:?}");
    }
    let steps: usize = listings.iter().map(|(_, listing)| listing.steps).sum();
    found(format_args!("{} operations in {steps} instructions", listings.len()));
    agree(&text);
}

/// Whether others have what it is, too, and it is not for submitters to write.
fn is_shared(name: &str) -> bool {
    ["SHARED", "ANOTHER", "the reader's"].iter().any(|mark| name.contains(mark))
}

/// Sees that `text` is what is listed, or makes it so if that is wished.
fn agree(text: &str) {
    let file = if by_sections() { "sections.txt" } else { "locked.txt" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/headline").join(file);
    if std::env::var_os(BLESS).is_some() {
        return fs::write(path, text).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let missing =
        listed.lines().filter(|line| !text.lines().any(|new| new == *line)).map(|line| format!("- {line}"));
    let new =
        text.lines().filter(|line| !listed.lines().any(|old| old == *line)).map(|line| format!("+ {line}"));
    let difference: Vec<_> = missing.chain(new).collect();
    assert!(
        listed == text,
        "operations store something else than {} says; if that is right, run this once with {BLESS}=1:\n{}",
        path.display(),
        difference.join("\n")
    );
}

impl Stepped {
    /// `None` if it cannot be had, which was said.
    fn start() -> Option<Self> {
        let (thread, words) = match Tracee::start(process::again(TEST, TRACED)) {
            Ok(started) => started,
            Err(output) => {
                process::passed(&output);
                return None;
            }
        };
        let mut regions = World::new().regions();
        assert_eq!(words.len(), 2 + 2 * regions.len(), "its world is another");
        for (region, ends) in regions.iter_mut().zip(words[2..].chunks(2)) {
            region.range = ends[0] as usize..ends[1] as usize;
        }
        let stepped = Self { thread, mark: words[0], cpu: words[1] as usize, regions };
        if by_sections() && !stepped.thread.has_area() {
            skip("ptrace(GET_RSEQ_CONFIGURATION) is not known here");
            process::passed(&stepped.thread.finish());
            return None;
        }
        Some(stepped)
    }

    /// What is stored between the next two marks.
    fn list(&self) -> Listing {
        self.thread.run_to(self.mark);
        let stack = self.thread.registers().rsp;
        let mut listing = Listing::default();
        let mut infos = InstructionInfoFactory::new();
        loop {
            let registers = self.thread.registers();
            let mut code = [0; 15];
            let read = self.thread.read(registers.rip, &mut code);
            let instruction =
                Decoder::with_ip(64, &code[..read], registers.rip, DecoderOptions::NONE).decode();
            assert!(!instruction.is_invalid(), "not to be decoded: {code:x?}");
            assert_ne!(instruction.mnemonic(), Mnemonic::Syscall, "the kernel may store anything");
            let mut disarm = false;
            // A fence is as dear, and which of them it is made of is the compiler's business.
            let mut exchanges = instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Mfence;
            for memory in infos.info(&instruction).used_memory() {
                if !stores(memory.access()) || memory.memory_size() == MemorySize::Unknown {
                    continue;
                }
                let address = memory.virtual_address(0, |register, _, _| Some(value(&registers, register)));
                let address = address.expect("no vectors of addresses");
                let name = self.name(address, stack, registers.fs_base);
                exchanges |= instruction.mnemonic() == Mnemonic::Xchg;
                disarm |= name == "rseq_cs";
                *listing.stores.entry(name).or_default() += 1;
            }
            listing.locked += usize::from(exchanges);
            let ip = self.thread.step();
            listing.steps += 1;
            if disarm {
                // Else the kernel would abort the section because of the step itself.
                self.thread.disarm();
            }
            if ip == self.mark {
                // Beyond where the next one is waited for.
                self.thread.step();
                return listing;
            }
            assert!(listing.steps < MOST, "endless");
        }
    }

    /// What lies at an address.
    fn name(&self, address: u64, stack: u64, thread: u64) -> String {
        let area = self.thread.place_of_area();
        if by_sections() && (area..area + AREA).contains(&address) {
            return if address == area + RSEQ_CS {
                "rseq_cs".into()
            } else {
                "a read-only field of rseq, SHARED".into()
            };
        }
        let place = address as usize;
        // The innermost one first: what callers own lies on the stack or in the heap.
        if let Some(region) = self.regions.iter().find(|region| region.range.contains(&place)) {
            let offset = place - region.range.start;
            let of_cpu = |cpu| if cpu == self.cpu { "own" } else { "ANOTHER CPU's" };
            let whose = match region.owner {
                Owner::Shared => "SHARED",
                Owner::EachCpu(size) => of_cpu(offset / size),
                Owner::Cpu(cpu) => of_cpu(cpu),
                Owner::Reader => "the reader's",
                Owner::Request => "the request's own",
                Owner::Caller => return region.name.into(),
            };
            return format!("{}, {whose}", region.name);
        }
        if address.abs_diff(stack) < STACK {
            "stack".into()
        } else if address.abs_diff(thread) < THREAD {
            "thread-local".into()
        } else {
            "elsewhere, SHARED".into()
        }
    }
}

impl Listing {
    /// On one line. How many stores it takes to copy something, or to save registers, is the compiler's business.
    fn text(&self) -> String {
        let copied = |name: &str| match name {
            "the caller's" | "requests, the request's own" => true,
            "queue.lanes.events, own" => !by_sections(),
            _ => false,
        };
        let stores = self
            .stores
            .iter()
            .filter(|(name, _)| *name != "stack")
            .map(|(name, times)| if copied(name) { name.clone() } else { format!("{times} x {name}") });
        let stores: Vec<_> = stores.collect();
        let stores = if stores.is_empty() { "nothing".into() } else { stores.join("; ") };
        format!("{stores}; {} locked", self.locked)
    }
}

fn stores(access: OpAccess) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
}

fn value(registers: &libc::user_regs_struct, register: Register) -> u64 {
    match register {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        // Narrower ones do not address memory here.
        other => panic!("{other:?} addresses memory"),
    }
}
