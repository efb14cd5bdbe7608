//! A harness for machines that are never quiet.
//!
//! * The contenders of a contest take turns, round by round, in one process: what disturbs one disturbs all.
//! * Loops that need no other thread to get on are timed in [slices](Case::slices) of 0.2 ms. A slice
//!   counts only if none of its threads was switched out and all began together.
//! * Loops whose threads feed each other are timed in [repetitions](Case::repetitions) of some 50 ms, from
//!   the first worker's start to the last one's end. Nothing is left out of those; the table shows how
//!   often threads were switched.
//! * A contender's ratio to ours is taken within each round; the table has the median of those. That is the
//!   figure to trust. Nanoseconds depend on the neighbours, and on how far apart the host has put the CPUs,
//!   which the ping-pong probe printed with every table shows.

mod case;
mod os;
mod plan;
mod probe;
mod report;
mod stats;
mod together;

pub use case::Case;
pub use os::cpus;
pub use plan::Plan;
pub use report::{Bench, Contest};
pub use together::{Place, together};
