//! Loom models of `ioctx`: `cargo loom` runs them all, `cargo weaken` shows that they have teeth.
//!
//! Everything here exists only under `--cfg loom`; the command that builds and runs it is the binary `check`.

#![cfg_attr(not(loom), allow(unused))]

#[cfg(loom)]
mod harness;
#[cfg(loom)]
mod models;

#[cfg(loom)]
pub use harness::{Model, main};
