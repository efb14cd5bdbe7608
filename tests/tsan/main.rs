//! The parts under ThreadSanitizer: what is handed over by them, and they themselves, without a race that it can see.
//!
//! An ordinary test as well, but made for a build that `.ci/run` makes: by a nightly compiler, with
//! `-Zsanitizer=thread` and `--cfg ioctx_tsan`, and run with `IOCTX_PERCPU=portable`. Then each scenario runs once
//! more, in a process of its own, where words are used after the right to them was given back: a report has to come.
//!
//! The standard library is not built for the sanitizer. So threads are started and joined by the C library, whose calls
//! the sanitizer knows, share by reference, and wait by yielding; and there is no test harness, whose threads would be
//! reported.
//!
//! # What cannot be shown so
//!
//! * Restartable sequences and `membarrier`: the sanitizer sees neither.
//! * Fences: it takes none into account. The two that publish are loads of the same word in that build. Those between a
//!   store and a load order what no race detector looks for; they are the models' affair.
//! * Threads that sleep, and the pool of threads: their parkers and queues are shared by `Arc`, which ends with a
//!   fence, and condition variables lock out of line.
//! * A context that is freed by one thread just when another has completed its last request: the gate that the latter
//!   opens is shared by `Arc`. Contexts here are freed after all threads were joined, or by a thread that has found the
//!   last request itself.
//! * The table of contexts: `crossbeam-epoch` is made of fences.

#[cfg(target_os = "linux")]
mod scenarios;
#[path = "../support/mod.rs"]
mod support;

fn main() {
    #[cfg(target_os = "linux")]
    scenarios::run();
    #[cfg(not(target_os = "linux"))]
    support::skip("ThreadSanitizer is used on Linux only");
}
