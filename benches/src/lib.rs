//! What `ioctx` costs beside what one would use instead.
//!
//! ```text
//! cargo bench -p ioctx-benches --bench ring              # one part in full
//! cargo bench -p ioctx-benches --bench ring -- --quick   # within a minute
//! cargo bench -p ioctx-benches --bench ring -- --processes 9   # instead of 5
//! ```
//!
//! Each part has a module here: a trait that says what the contest is about, one small implementation per
//! contender, and the one loop that all of them run. The bench target of the same name checks that every
//! contender does the work, measures all of them interleaved, in several processes one after the other (in
//! one with `--quick`), prints a Markdown table per contest and writes `target/bench/NAME.json`. The target
//! `headline` runs the same loops on one thread under criterion.
//!
//! Only ratios within one run mean anything: see [`harness`] for why, and for what is done about noise.

#[cfg(target_os = "linux")]
pub mod backends;
pub mod context;
pub mod credits;
#[cfg(target_os = "linux")]
pub mod direct;
pub mod harness;
pub mod refcount;
pub mod ring;
pub mod runlist;
pub mod wait;
