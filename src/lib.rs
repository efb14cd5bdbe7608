#![doc = include_str!("../README.md")]

pub mod aio;
pub mod backend;
pub mod barrier;
// Not with the feature `loom`: what is in it is for processes, which models have none of.
#[cfg(all(feature = "libaio", target_os = "linux", target_pointer_width = "64", not(feature = "loom")))]
pub mod capi;
pub mod cpu;
pub mod credits;
pub mod fanin;
pub mod percpu;
pub mod refcount;
pub mod ring;
pub mod runlist;
pub mod sync;
pub mod wait;

pub use aio::{Context, Event, Request};
