#![doc = include_str!("../README.md")]

pub mod aio;
pub mod backend;
pub mod barrier;
#[cfg(ioctx_capi)]
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
