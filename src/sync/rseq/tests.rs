use super::*;
use crate::cpu::CpuId;
use crate::percpu::{Counter, PerCpu};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// A section that dawdles for microseconds between its load and its store, so that it is interrupted
/// often. Counts aborts, and does not protect itself unless `ARMED`.
unsafe fn long_section<const ARMED: bool>(mode: &AtomicU64, delta: i64, aborts: &AtomicU64) -> bool {
    // SAFETY: as in `add`; unarmed, it is wrong on purpose.
    unsafe {
        asm!(
            ".pushsection __rseq_cs, \"aw\", @progbits",
            ".balign 32",
            "33:",
            ".long 0, 0",
            ".quad 44f, 55f - 44f, 66f",
            ".popsection",
            "lea {slot}, [rip + 33b]",
            "test {armed:e}, {armed:e}",
            "jz 44f",
            "mov qword ptr fs:[{area} + 8], {slot}",
            "44:",
            "mov {slot}, qword ptr [{mode}]",
            "test {slot:l}, 1",
            "jnz {failed}",
            "mov {cpu:e}, dword ptr fs:[{area} + 4]",
            "test {cpu:e}, {cpu:e}",
            "js {failed}",
            "shl {cpu}, 7",
            "add {slot}, {cpu}",
            "mov {cpu}, qword ptr [{slot}]",
            "add {cpu}, {delta}",
            "mov {turns:e}, 500",
            "77:",
            "pause",
            "dec {turns:e}",
            "jnz 77b",
            "mov qword ptr [{slot}], {cpu}",
            "55:",
            ".pushsection __rseq_abort, \"ax\", @progbits",
            ".byte 0x0f, 0xb9, 0x3d",
            ".long {signature}",
            "66:",
            "lock inc qword ptr [{aborts}]",
            "jmp {failed}",
            ".popsection",
            armed = in(reg) u32::from(ARMED),
            area = in(reg) OFFSET.load(Relaxed),
            mode = in(reg) mode,
            delta = in(reg) delta,
            aborts = in(reg) aborts,
            slot = out(reg) _,
            cpu = out(reg) _,
            turns = out(reg) _,
            signature = const SIGNATURE,
            failed = label { return false },
            options(nostack),
        );
    }
    true
}

/// What comes between the order to give up and the summing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fence {
    Right,
    /// Orders memory, but restarts no section.
    OfTheOtherKind,
    None,
}

/// What several threads, more than there are CPUs, count together, and what the slots say they did.
fn count(
    add: impl Fn(&AtomicU64) -> bool + Sync,
    fence: Fence,
    enough: impl Fn() -> bool + Sync,
) -> (i64, i64) {
    let slots = PerCpu::new(|_| Counter::new());
    let mode = AtomicU64::new(std::ptr::from_ref(slots.get(CpuId(0))).expose_provenance() as u64);
    let (stop, counted) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut sum = 0;
    thread::scope(|scope| {
        for _ in 0..2 * crate::cpu::possible() + 2 {
            scope.spawn(|| {
                let mut mine = 0;
                while !stop.load(Relaxed) {
                    if add(&mode) {
                        mine += 1;
                    } else {
                        let _ = rejoin();
                    }
                }
                counted.fetch_add(mine, Relaxed);
            });
        }
        eventually(|| {
            thread::sleep(Duration::from_millis(5));
            enough()
        });
        mode.fetch_or(GIVE_UP, Relaxed);
        assert!(match fence {
            Fence::Right => super::fence(),
            Fence::OfTheOtherKind => membarrier(MembarrierCommand::PrivateExpedited).is_ok(),
            Fence::None => true,
        });
        sum = slots.iter().map(Counter::value).sum();
        stop.store(true, Relaxed);
    });
    (counted.into_inner() as i64, sum)
}

#[test]
fn sections_lose_nothing_and_unprotected_ones_do() {
    if matches!(kind(), Kind::Portable(_)) {
        println!("SKIPPED: {:?}", kind());
        return;
    }
    let no_slot = |_, _| -> &AtomicU64 { unreachable!("for model checkers") };
    let timer = Instant::now();
    let aborts = AtomicU64::new(0);
    // SAFETY: the slots are those of `count`, written by sections only.
    let shipped = |mode: &AtomicU64| unsafe { add(mode, ONE, no_slot) };
    let (done, sum) = count(shipped, Fence::Right, || timer.elapsed() > Duration::from_millis(300));
    assert_eq!(done, sum, "the section that ships");

    // SAFETY: as above.
    let armed = |mode: &AtomicU64| unsafe { long_section::<true>(mode, ONE, &aborts) };
    let (done, sum) = count(armed, Fence::Right, || aborts.load(Relaxed) >= 100);
    assert_eq!(done, sum, "a long section, aborted {} times", aborts.load(Relaxed));
    assert!(aborts.load(Relaxed) >= 100, "it was hardly ever aborted");

    // And the controls: what is asserted above does fail when the protection is missing, or the fence.
    let lost = eventually(|| {
        // SAFETY: it is wrong, but what it harms are counts that nothing depends on.
        let unarmed = |mode: &AtomicU64| unsafe { long_section::<false>(mode, ONE, &aborts) };
        let timer = Instant::now();
        let (done, sum) = count(unarmed, Fence::Right, || timer.elapsed() > Duration::from_millis(200));
        done != sum
    });
    assert!(lost, "unprotected sections of several threads on one CPU lost nothing");

    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        assert!(membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok());
        for fence in [Fence::None, Fence::OfTheOtherKind] {
            let late = eventually(|| {
                let (done, sum) = count(armed, fence, || true);
                done != sum
            });
            assert!(late, "no section was seen to count after the sum, with the fence {fence:?}");
        }
    }
}

/// Whether something comes true within two minutes, though others keep the CPUs busy.
pub(super) fn eventually(mut what: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(120);
    while !what() {
        if Instant::now() > end {
            return false;
        }
    }
    true
}

#[test]
fn the_cpu_number_agrees_with_the_system() {
    for _ in 0..100 {
        // The thread may be moved between the two, but not every time.
        // SAFETY: has no conditions.
        let (ours, theirs) = (cpu_id(), unsafe { libc::sched_getcpu() } as u32);
        if ours.is_none_or(|ours| ours == theirs) {
            return;
        }
        thread::yield_now();
    }
    panic!("the number is not that of this thread's CPU");
}

#[test]
fn a_thread_without_registration_is_told_so() {
    if kind() != Kind::OwnArea {
        println!("SKIPPED: the area is not ours");
        return;
    }
    thread::spawn(|| {
        assert_eq!(cpu(), UNREGISTERED);
        assert!(rejoin() && cpu() >= 0 && !rejoin());
    })
    .join()
    .unwrap();
}
