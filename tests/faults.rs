//! A kernel that refuses system calls: everything works without them, and what cannot go on says so.
//!
//! Each test runs itself once more as a child, under a filter (seccomp(2)) that makes one call fail from the
//! child's first instruction on; or, for the last, the child installs the filter later.
#![cfg(all(ioctx_linux, target_arch = "x86_64", target_pointer_width = "64"))]

mod support;

use ioctx::aio::{Context, Request};
use ioctx::backend::Null;
use ioctx::refcount::{PerCpuRef, Put};
use ioctx::wait::{EventCount, Outcome};
use ioctx::{barrier, cpu};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use support::seccomp::Refusal;
use support::{process, skip, use_and_kill};

/// Commands of membarrier(2).
const REGISTER_EXPEDITED: u32 = 1 << 4;
const REGISTER_RSEQ: u32 = 1 << 8;

/// Refuses one command of membarrier(2).
fn refusal_of_command(command: u32) -> Refusal {
    Refusal { command: Some(command), ..Refusal::of(libc::SYS_membarrier, libc::EPERM) }
}

/// What is in force: in the parent, without any filter, unless the machine has one of its own.
fn kinds() -> String {
    format!("{:?}\n{:?}", cpu::kind(), barrier::kind())
}

/// Whether a kind is one that works without the kernel's help.
fn is_fallback(kind: &str) -> bool {
    kind.starts_with("Portable") || kind.starts_with("Fence")
}

/// Runs `test` under a filter. There the kinds are as without it, but that those with a reason given are
/// degraded, for that reason; and everything works.
fn refused(test: &str, refusal: Refusal, cpu: Option<&str>, barrier: Option<&str>) {
    let Some(without) = process::role() else {
        let filter = refusal.filter();
        let mut child = process::again(test, &kinds());
        // SAFETY: async-signal-safe: two system calls, no allocation.
        unsafe { child.pre_exec(move || Refusal::install(&filter)) };
        return process::run(child).unwrap_or_else(|error| skip(format_args!("seccomp: {error}")));
    };
    let now = kinds();
    for ((without, now), reason) in without.lines().zip(now.lines()).zip([cpu, barrier]) {
        match reason {
            // A machine that refuses something by itself may have another reason.
            Some(reason) => {
                assert!(is_fallback(now) && (now.contains(reason) || is_fallback(without)), "{now}");
            }
            None => assert_eq!(now, without),
        }
    }
    everything_works();
}

fn everything_works() {
    for _ in 0..50 {
        use_and_kill(4, |_| (), || ());
    }
    barrier::light();
    barrier::heavy();
    let sleepers = EventCount::for_light_publishers();
    let key = sleepers.prepare_wait(1);
    sleepers.notify_light(|| 1);
    assert_eq!(key.wait(None), Outcome::Woken);
    let context = Context::new(4, Null).unwrap();
    for turn in 0..100 {
        context.submit(Request::nop().with_user_data(turn)).unwrap();
        let mut events = Vec::new();
        assert_eq!(context.get_events(1, 4, None, &mut events), Ok(1));
        assert_eq!(events[0].request.user_data, turn);
    }
    assert_eq!(context.destroy(None), Ok(()));
}

/// Why there are no sections where rseq(2) is refused.
fn no_area() -> Option<&'static str> {
    Some(if cfg!(feature = "own-rseq") {
        "the kernel has no restartable sequences, or they are forbidden here"
    } else {
        "the C library has registered no area"
    })
}

#[test]
fn membarrier_is_forbidden() {
    let refusal = Refusal::of(libc::SYS_membarrier, libc::EPERM);
    refused("membarrier_is_forbidden", refusal, Some("membarrier"), Some("membarrier"));
}

#[test]
fn membarrier_does_not_exist() {
    let refusal = Refusal::of(libc::SYS_membarrier, libc::ENOSYS);
    refused("membarrier_does_not_exist", refusal, Some("membarrier"), Some("membarrier"));
}

#[test]
fn rseq_is_forbidden() {
    refused("rseq_is_forbidden", Refusal::of(libc::SYS_rseq, libc::EPERM), no_area(), None);
}

#[test]
fn rseq_does_not_exist() {
    refused("rseq_does_not_exist", Refusal::of(libc::SYS_rseq, libc::ENOSYS), no_area(), None);
}

#[test]
fn membarrier_for_sections_is_forbidden() {
    let refusal = refusal_of_command(REGISTER_RSEQ);
    refused(
        "membarrier_for_sections_is_forbidden",
        refusal,
        Some("membarrier(PRIVATE_EXPEDITED_RSEQ)"),
        None,
    );
}

#[test]
fn membarrier_for_fences_is_forbidden() {
    let refusal = refusal_of_command(REGISTER_EXPEDITED);
    refused("membarrier_for_fences_is_forbidden", refusal, None, Some("membarrier(PRIVATE_EXPEDITED)"));
}

/// What `f` panics with.
fn panic_of(f: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}

#[test]
fn membarrier_is_taken_away_later() {
    if process::role().is_none() {
        return process::run(process::again("membarrier_is_taken_away_later", "any")).unwrap();
    }
    let kinds = kinds();
    let [sections, fences] = [0, 1].map(|line| !is_fallback(kinds.lines().nth(line).unwrap()));
    let counts = [PerCpuRef::new(), PerCpuRef::portable()];
    counts.iter().for_each(PerCpuRef::get);
    let sleepers = EventCount::for_light_publishers();
    everything_works();
    let filter = Refusal::of(libc::SYS_membarrier, libc::EPERM).filter();
    if let Err(error) = Refusal::install(&filter) {
        counts.iter().for_each(|count| _ = count.put());
        return skip(format_args!("seccomp: {error}"));
    }
    let refused = Some("membarrier was granted to this process and is now refused".to_owned());
    let expect = |granted: bool| refused.clone().filter(|_| granted);
    assert_eq!(panic_of(barrier::heavy), expect(fences));
    assert_eq!(panic_of(|| drop(sleepers.prepare_wait(1))), expect(fences));
    sleepers.notify(|| unreachable!("nobody is announced"));
    let [count, portable] = counts;
    assert_eq!(panic_of(|| _ = portable.kill()), None);
    assert_eq!(portable.put(), Put::Zero);
    assert_eq!(panic_of(|| _ = count.kill()), expect(sections));
    // A kill that has not gone on leaves a count that still counts, and is never told to be zero.
    if sections {
        count.get();
        assert_eq!(count.put_many(2), Put::Held);
        assert_eq!((count.count(), count.is_zero()), (None, false));
        std::mem::forget(count);
    } else {
        assert_eq!(count.put(), Put::Zero);
    }
}

#[test]
fn rseq_is_taken_away_later() {
    if cpu::kind() != cpu::Kind::OwnArea {
        return skip("the C library registers threads, and ends a process where it cannot");
    }
    if process::role().is_none() {
        return process::run(process::again("rseq_is_taken_away_later", "any")).unwrap();
    }
    if let Err(error) = Refusal::install(&Refusal::of(libc::SYS_rseq, libc::EPERM).filter()) {
        return skip(format_args!("seccomp: {error}"));
    }
    // This thread is registered, and none of those to come will be.
    everything_works();
}

#[test]
#[cfg(feature = "uring")]
fn io_uring_is_refused() {
    use ioctx::backend::{Uring, UringError};
    let cases = [
        (libc::ENOSYS, "Missing"),
        (libc::EPERM, "Forbidden"),
        (libc::ENOMEM, "Memory"),
        (libc::EMFILE, "Descriptors"),
    ];
    match process::role() {
        None => {
            for (errno, reason) in cases {
                let filter = Refusal::of(libc::SYS_io_uring_setup, errno).filter();
                let mut child = process::again("io_uring_is_refused", reason);
                // SAFETY: async-signal-safe: two system calls, no allocation.
                unsafe {
                    std::os::unix::process::CommandExt::pre_exec(&mut child, move || {
                        Refusal::install(&filter)
                    })
                };
                if let Err(error) = process::run(child) {
                    return skip(format_args!("seccomp: {error}"));
                }
            }
        }
        Some(reason) => {
            let error: UringError = Uring::new(8).expect_err("refused");
            assert_eq!(format!("{error:?}"), reason);
            assert!(error.to_string().contains("io_uring") || error.to_string().contains("rings"), "{error}");
        }
    }
}

/// Runs `test` once for each errno of a call that fails, which is told what role that is.
fn each_refusal(test: &str, call: libc::c_long, cases: &[(libc::c_int, &str)]) {
    for (errno, role) in cases {
        let filter = Refusal::of(call, *errno).filter();
        let mut child = process::again(test, role);
        // SAFETY: async-signal-safe: two system calls, no allocation.
        unsafe { child.pre_exec(move || Refusal::install(&filter)) };
        if let Err(error) = process::run(child) {
            return skip(format_args!("seccomp: {error}"));
        }
    }
}

#[test]
fn kernel_aio_is_refused() {
    use ioctx::backend::{Kernel, KernelError};
    let Some(reason) = process::role() else {
        let cases = [
            (libc::ENOSYS, "Missing"),
            (libc::EPERM, "Forbidden"),
            (libc::EACCES, "Forbidden"),
            (libc::ENOMEM, "Memory"),
            (libc::EAGAIN, "Exhausted { asked: 8, used: Some("),
            (libc::EINVAL, "System("),
        ];
        each_refusal("kernel_aio_is_refused", libc::SYS_io_setup, &cases);
        return each_refusal(
            "kernel_aio_is_refused",
            libc::SYS_eventfd2,
            &[(libc::EMFILE, "Descriptors"), (libc::ENFILE, "Descriptors")],
        );
    };
    let error: KernelError = Kernel::new(8).expect_err("refused");
    assert!(format!("{error:?}").starts_with(&reason), "{error:?}");
    let said = error.to_string();
    let names =
        |what: &[&str]| assert!(what.iter().all(|what| said.contains(what)), "{what:?} are not in {said}");
    match error {
        KernelError::Missing => names(&["AIO", "`Threads`"]),
        KernelError::Forbidden => names(&["io_setup", "filter"]),
        KernelError::Memory => names(&["memory", "fewer"]),
        KernelError::Exhausted { max, .. } => {
            names(&["fs.aio-max-nr", "fs.aio-nr", "raise", &max.unwrap().to_string()]);
        }
        KernelError::Descriptors => names(&["descriptor", "RLIMIT_NOFILE"]),
        KernelError::System(_) => names(&["io_setup"]),
        other => unreachable!("{other}"),
    }
}

#[test]
fn what_the_kernels_aio_refuses_is_done_by_a_pool() {
    use ioctx::backend::Kernel;
    use std::sync::Arc;
    if process::role().is_none() {
        let cases = [(libc::ENOSYS, "old"), (libc::EAGAIN, "no memory"), (libc::EPERM, "forbidden")];
        return each_refusal("what_the_kernels_aio_refuses_is_done_by_a_pool", libc::SYS_io_submit, &cases);
    }
    let kernel = match Kernel::new(64) {
        Ok(kernel) => kernel.inline_cached(false),
        Err(why) => return skip(why),
    };
    let context = Context::new(64, kernel).unwrap();
    let file = Arc::new(tempfile::tempfile().unwrap());
    let write = |n: u64| Request::write(file.clone(), vec![n as u8; 8], 8 * n);
    for _ in 0..4 {
        let mut batch: Vec<_> = (0..32).map(write).collect();
        assert_eq!(context.submit_batch(&mut batch).unwrap(), 32);
        let mut events = Vec::new();
        assert_eq!(context.get_events(32, 32, None, &mut events), Ok(32));
        assert!(events.iter().all(|event| matches!(event.result, Ok(8))));
    }
    let mut events = Vec::new();
    for n in 0..32 {
        context.submit(Request::read(file.clone(), vec![0; 8], 8 * n)).unwrap();
        assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
        let event = events.pop().unwrap();
        assert_eq!(event.result.unwrap(), 8);
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), [n as u8; 8]);
    }
    assert_eq!(context.destroy(None), Ok(()));
}
