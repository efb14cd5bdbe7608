//! A harness for machines that are never quiet.
//!
//! * The contenders of a contest take turns, round by round, in one process: what disturbs one disturbs all.
//! * Loops that need no other thread to get on are timed in [slices](Case::slices) of 0.2 ms. A slice
//!   counts only if none of its threads was switched out and all began together.
//! * Loops whose threads feed each other are timed in [repetitions](Case::repetitions) of some 50 ms, from
//!   the first worker's start to the last one's end. Nothing is left out of those; the table shows how
//!   often threads were switched.
//! * What takes microseconds, or can be done only once, is timed in single [shots](Case::shots).
//! * A contender's ratio to ours is taken within each round; the table has the median of those. That is the
//!   figure to trust. Nanoseconds depend on the neighbours, and on how far apart the host has put the CPUs,
//!   which the ping-pong probe before and after each round shows. Where that changed, what several threads
//!   did is shown for each distance by itself, too.
//! * Where a process's memory lies can make a tight loop several times slower, for as long as the process
//!   lives. So all of this is done in several processes, one after the other (`--processes N`); the tables
//!   have the medians over processes, and the range of the ratios.

mod bench;
mod case;
mod contest;
mod os;
mod plan;
mod print;
mod probe;
mod processes;
mod results;
mod stats;
mod together;

pub use bench::{Bench, Target};
pub use case::{Case, undisturbed};
pub use contest::Contest;
pub use os::{cpus, thread_switches};
pub use plan::Plan;
pub use results::{Run, Which, times, times_switched};
pub use together::{Place, spin_until, together};

/// Contenders whose names begin like this are ours; the first of them is what the others are compared with.
const OURS: &str = "ioctx";
