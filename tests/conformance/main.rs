//! Every backend passes the suite for backends, also where the kernel refuses what others need; one that is broken does
//! not. And what no check inside a process can see: what is left of one that was killed.

#[cfg(all(ioctx_linux, target_arch = "x86_64"))]
mod forbidden;
#[cfg(ioctx_linux)]
mod killed;
#[cfg(ioctx_linux)]
mod mutants;
#[cfg(ioctx_linux)]
mod others;
#[path = "../support/mod.rs"]
mod support;
#[cfg(ioctx_linux)]
#[path = "../layers/transparent.rs"]
mod transparent;

use ioctx::aio::Backend;
use ioctx::backend::conformance::{self, Capability, Outcome, Suite};
use ioctx::backend::{Auto, Nonblocking, Null, Threads, Zero};
use ioctx::runlist::Builder;
use std::time::{Duration, Instant};

const NOW: Duration = Duration::ZERO;

/// Leaves it to suites to end, as they do however slow the machine is, and takes the alarm back that others have set.
fn take_your_time() {
    #[cfg(unix)]
    // SAFETY: has no conditions.
    unsafe {
        libc::alarm(0)
    };
}

/// What this process is to do, if it is another test's child.
#[cfg(ioctx_linux)]
fn role() -> Option<String> {
    let role = support::process::role();
    if role.is_none() {
        take_your_time();
    }
    role
}

/// Runs all that applies, with files on a real disk.
fn pass(suite: Suite) {
    take_your_time();
    let begun = Instant::now();
    let report = suite.dir(env!("CARGO_TARGET_TMPDIR")).run();
    println!("{report}, {:?}", begun.elapsed());
    report.assert();
}

/// A backend that does real I/O, each operation of it: a line for each such.
fn does_all<B: Backend + 'static>(make: impl Fn() -> B + Send + Sync + 'static) {
    pass(Suite::new(make));
}

#[test]
fn threads() {
    does_all(|| Threads::new(2).unwrap().inline_cached(false));
}

#[test]
fn threads_that_leave_what_is_cached_to_submitters() {
    does_all(|| Threads::new(2).unwrap());
}

#[test]
fn one_thread() {
    pass(Suite::new(|| Threads::new(1).unwrap()).requests(10_000));
}

#[test]
#[cfg(all(ioctx_linux, feature = "uring"))]
fn uring() {
    use ioctx::backend::Uring;
    if let Err(why) = Uring::new(8) {
        return support::skip(why);
    }
    does_all(|| Uring::new(conformance::CAPACITY).unwrap().inline_cached(false));
    does_all(|| Uring::new(conformance::CAPACITY).unwrap());
}

#[test]
#[cfg(ioctx_linux)]
fn kernel_aio() {
    use ioctx::backend::Kernel;
    if let Err(why) = Kernel::new(8) {
        return support::skip(why);
    }
    does_all(|| Kernel::new(conformance::CAPACITY).unwrap().reap_in_user_space(false));
    does_all(|| Kernel::new(conformance::CAPACITY).unwrap());
}

#[test]
fn nonblocking() {
    does_all(|| Nonblocking::new().unwrap());
    // Left to the worker.
    let lazy = || Builder::new().help_on_submit(0).help_on_reap(false).worker_delay(NOW, NOW);
    pass(Suite::new(move || Nonblocking::with(lazy()).unwrap()).requests(5_000));
}

#[test]
fn the_best_there_is() {
    let backend = Auto::new(8).unwrap();
    let tried = backend.tried();
    let taken = tried.iter().position(|tried| tried.why_not.is_none());
    assert_eq!(taken, Some(tried.len() - 1), "{backend}");
    assert_eq!(backend.to_string().lines().count(), tried.len());
    pass(Suite::new(|| Auto::new(conformance::CAPACITY).unwrap()).requests(10_000));
}

#[test]
#[cfg(ioctx_linux)]
fn in_parts() {
    use ioctx::backend::Direct;
    let below = || Auto::new(2 * conformance::CAPACITY).unwrap();
    let suite = |suite: Suite| suite.requests(10_000).skip("unaligned_direct", "it is carried out");
    pass(suite(Suite::new(move || Direct::new(8, below()).unwrap())));
    pass(suite(Suite::new(|| Direct::new(8, Threads::new(2).unwrap()).unwrap())));
}

#[test]
#[cfg(ioctx_linux)]
fn a_layer_that_does_nothing() {
    use transparent::Transparent;
    const ALL: u32 = conformance::CAPACITY;
    let threads = || Threads::new(2).unwrap().inline_cached(false);
    pass(Suite::new(move || Transparent::new(ALL, threads())).requests(10_000));
    let one = || Transparent::new(ALL, Auto::new(ALL).unwrap());
    pass(Suite::new(move || Transparent::new(ALL, one())).requests(10_000));
}

/// A backend that transfers nothing.
fn does_nothing<B: Backend + 'static>(make: impl Fn() -> B + Send + Sync + 'static) {
    let without = [Capability::Files, Capability::Pipes, Capability::Poll, Capability::Custom];
    pass(without.into_iter().fold(Suite::new(make), Suite::without));
}

#[test]
fn null_devices() {
    does_nothing(|| Null);
    does_nothing(|| Zero);
}

/// One check that passes.
fn nop() -> Suite {
    Suite::new(|| Null).only(["nop"])
}

#[test]
fn reports_say_what_was_tried_and_what_was_not() {
    let report = nop().run();
    assert!(report.is_passed());
    assert_eq!(report.to_string(), "passed   nop\n1 passed, 0 failed, 0 skipped");
    assert_eq!((report.outcome("nop"), report.outcome("load")), (Some(&Outcome::Passed), None));

    let report = nop().only(["load"]).without(Capability::Files).run();
    assert!(report.is_passed());
    let why = "the backend is without Files".to_owned();
    assert_eq!(report.outcome("load"), Some(&Outcome::Skipped(why)));

    let report = nop().skip("nop", "why not").run();
    assert!(!report.is_passed(), "nothing was tried");
    assert_eq!(report.to_string(), "skipped  nop: why not\n0 passed, 0 failed, 1 skipped");

    let report = nop().only(["nope"]).skip("pon", "").run();
    assert!(!report.is_passed(), "names that are none");
    assert_eq!(Vec::from_iter(report.unknown()), ["pon", "nope"]);
    assert!(report.to_string().contains("UNKNOWN  nope: no check is called so"));
}

#[test]
fn backends_that_cannot_be_made_have_failed() {
    let report = Suite::new(|| -> Null { panic!("on purpose: there is none") }).only(["nop"]).run();
    let Some(Outcome::Failed(how)) = report.outcome("nop") else { panic!("{report}") };
    assert!(how.to_string().ends_with("panicked: on purpose: there is none"), "{how}");
    let panic = std::panic::catch_unwind(|| report.assert()).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.contains("FAILED   nop") && text.contains("0 passed, 1 failed, 0 skipped"), "{text}");
}

#[test]
fn checks_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let suite = || Suite::new(|| Threads::new(1).unwrap()).dir(dir.path()).only(["sync", "load"]);
    suite().requests(200).run().assert();
    suite().requests(0).run().assert();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn checks_have_names_of_their_own() {
    let mut names: Vec<_> = conformance::checks().map(|check| check.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
