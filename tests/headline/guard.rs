//! A page guard: memory that all CPUs share is made read-only, and whoever writes it is written down.
//!
//! Whoever is caught goes on as if nothing had happened, and the memory stays read-only for all others meanwhile:
//! the address in the instruction's base register is exchanged for the one by which the same memory is writable, for
//! one single step. A locked instruction remains one, whatever it does, and even if it changes nothing.

use super::arena::{Arena, PAGE};
use super::regions::Region;
use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};
use std::cell::Cell;
use std::io::Error;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The most regions that are guarded at a time, and the most threads that are told apart.
const REGIONS: usize = 64;
pub const THREADS: usize = 8;

/// What there is of one thread's stores to one region.
struct Record {
    /// How many there were.
    stores: AtomicU64,
    /// In how many calls.
    calls: AtomicU64,
    /// The last one of these.
    call: AtomicU64,
    /// Where in the region the last one was, and by which instruction.
    offset: AtomicUsize,
    ip: AtomicUsize,
}

impl Record {
    const fn new() -> Self {
        let [stores, calls, call] = [const { AtomicU64::new(0) }; 3];
        Self { stores, calls, call, offset: AtomicUsize::new(0), ip: AtomicUsize::new(0) }
    }
}

static RECORDS: [[Record; REGIONS]; THREADS] = [const { [const { Record::new() }; REGIONS] }; THREADS];
/// The regions that are guarded.
static GUARDED: AtomicPtr<Vec<Region>> = AtomicPtr::new(null_mut());

thread_local! {
    /// Which record is this thread's.
    static ME: Cell<usize> = const { Cell::new(THREADS - 1) };
    /// The call whose stores count, or 0.
    static CALL: Cell<u64> = const { Cell::new(0) };
    /// The register that holds another address for one step, and which.
    static EXCHANGED: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// What one thread has stored to one region, in those of its calls that count.
#[derive(Debug)]
pub struct Stores {
    pub name: &'static str,
    pub range: Range<usize>,
    pub stores: u64,
    pub calls: u64,
    pub offset: usize,
    pub ip: usize,
}

/// The memory is guarded while this lives.
pub struct Guard(&'static Vec<Region>);

impl Guard {
    /// Guards `regions`, from all threads. One at a time.
    pub fn new(regions: Vec<Region>) -> Self {
        install();
        assert!(regions.len() <= REGIONS, "{} regions", regions.len());
        for record in RECORDS.iter().flatten() {
            for word in [&record.stores, &record.calls, &record.call] {
                word.store(0, Relaxed);
            }
        }
        let regions: &'static mut Vec<Region> = Box::leak(Box::new(regions));
        GUARDED.store(regions, Relaxed);
        let guard = Self(regions);
        guard.protect(libc::PROT_READ);
        guard
    }

    fn protect(&self, protection: libc::c_int) {
        for Region { range, .. } in self.0 {
            let page = range.start / PAGE * PAGE;
            // SAFETY: pages of the arena, of which nothing is borrowed exclusively; whoever stores to them is seen to.
            let done = unsafe { libc::mprotect(page as *mut _, range.end - page, protection) };
            assert_eq!(done, 0, "{}", Error::last_os_error());
        }
    }

    /// What thread `thread` has stored in calls that count.
    pub fn stores(&self, thread: usize) -> impl Iterator<Item = Stores> {
        let stores = self.0.iter().zip(&RECORDS[thread]).map(|(region, record)| Stores {
            name: region.name,
            range: region.range.clone(),
            stores: record.stores.load(Relaxed),
            calls: record.calls.load(Relaxed),
            offset: record.offset.load(Relaxed),
            ip: record.ip.load(Relaxed),
        });
        stores.filter(|found| found.stores > 0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.protect(libc::PROT_READ | libc::PROT_WRITE);
    }
}

/// What this thread stores is written down as thread `thread`'s.
pub fn i_am(thread: usize) {
    ME.set(thread);
}

/// How often this thread was caught, in calls that count.
pub fn times() -> u64 {
    RECORDS[ME.get()].iter().map(|record| record.stores.load(Relaxed)).sum()
}

/// One call that counts, by the number `call`, from 1 on, and different from that before.
#[inline(always)]
pub fn counted<T>(call: u64, f: impl FnOnce() -> T) -> T {
    CALL.set(call);
    let done = f();
    CALL.set(0);
    done
}

/// Sees to it that this program is told when it writes what is read-only.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        Arena::get();
        // The tables of the decoder are made when they are first used, which must not be in a handler.
        decode(install as *const () as usize);
        handle(libc::SIGSEGV, caught as *const () as usize);
        handle(libc::SIGTRAP, stepped as *const () as usize);
    });
}

fn handle(signal: libc::c_int, handler: usize) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is an action; ours takes three arguments, as the flag says.
    let done = unsafe {
        (*action.as_mut_ptr()).sa_sigaction = handler;
        (*action.as_mut_ptr()).sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, action.as_ptr(), null_mut())
    };
    assert_eq!(done, 0, "{}", Error::last_os_error());
}

/// Nobody's business here: when the instruction is tried again, it ends the process.
fn give_up(signal: libc::c_int) {
    // SAFETY: has no conditions, and may be called in a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn decode(ip: usize) -> Instruction {
    // SAFETY: code, and what follows it in the program, which is never written.
    let code = unsafe { std::slice::from_raw_parts(ip as *const u8, 15) };
    Decoder::with_ip(64, code, ip as u64, DecoderOptions::NONE).decode()
}

/// The handler of SIGSEGV.
extern "C" fn caught(signal: libc::c_int, info: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: what the kernel hands a handler of this signal.
    let (address, registers) = unsafe { ((*info).si_addr() as usize, &mut (*context).uc_mcontext.gregs) };
    let arena = Arena::get();
    if !arena.contains(address) || !write_down(address, registers[libc::REG_RIP as usize] as usize) {
        return give_up(signal);
    }
    let instruction = decode(registers[libc::REG_RIP as usize] as usize);
    let Some(base) = base(&instruction) else {
        // If the store was in a restartable sequence, that has been aborted, and this is where it goes on. A store that
        // cannot be stepped over is tried again until the test's alarm ends it.
        return;
    };
    let exchanged = (registers[base] as usize).wrapping_add(arena.distance());
    registers[base] = exchanged as i64;
    registers[libc::REG_EFL as usize] |= TRAP;
    EXCHANGED.set(Some((base, exchanged)));
}

/// The flag by which the processor stops after one instruction.
const TRAP: i64 = 1 << 8;

/// The handler of SIGTRAP.
extern "C" fn stepped(signal: libc::c_int, _: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    let Some((base, exchanged)) = EXCHANGED.take() else { return give_up(signal) };
    // SAFETY: what the kernel hands a handler.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    // Unless the instruction has written it; one that works on strings moves it on.
    if (registers[base] as usize).wrapping_sub(exchanged) < PAGE {
        registers[base] = (registers[base] as usize).wrapping_sub(Arena::get().distance()) as i64;
    }
    registers[libc::REG_EFL as usize] &= !TRAP;
}

/// Returns whether the address is guarded at all.
fn write_down(address: usize, ip: usize) -> bool {
    // SAFETY: null, or leaked by `Guard::new`.
    let Some(regions) = (unsafe { GUARDED.load(Relaxed).as_ref() }) else { return false };
    let Some(index) = regions.iter().position(|region| region.range.contains(&address)) else { return false };
    let call = CALL.get();
    if call == 0 {
        return true;
    }
    let record = &RECORDS[ME.get()][index];
    record.stores.fetch_add(1, Relaxed);
    if record.call.swap(call, Relaxed) != call {
        record.calls.fetch_add(1, Relaxed);
    }
    record.offset.store(address - regions[index].range.start, Relaxed);
    record.ip.store(ip, Relaxed);
    true
}

/// Which of the saved registers an instruction has the address of what it stores in.
fn base(instruction: &Instruction) -> Option<usize> {
    let operands = 0..instruction.op_count();
    let register = if operands.clone().any(|n| instruction.op_kind(n) == OpKind::MemoryESRDI) {
        Register::RDI
    } else if operands.into_iter().any(|n| instruction.op_kind(n) == OpKind::Memory) {
        instruction.memory_base()
    } else {
        Register::None
    };
    let saved = match register {
        Register::RAX => libc::REG_RAX,
        Register::RBX => libc::REG_RBX,
        Register::RCX => libc::REG_RCX,
        Register::RDX => libc::REG_RDX,
        Register::RSI => libc::REG_RSI,
        Register::RDI => libc::REG_RDI,
        Register::RBP => libc::REG_RBP,
        Register::R8 => libc::REG_R8,
        Register::R9 => libc::REG_R9,
        Register::R10 => libc::REG_R10,
        Register::R11 => libc::REG_R11,
        Register::R12 => libc::REG_R12,
        Register::R13 => libc::REG_R13,
        Register::R14 => libc::REG_R14,
        Register::R15 => libc::REG_R15,
        _ => return None,
    };
    Some(saved as usize)
}
