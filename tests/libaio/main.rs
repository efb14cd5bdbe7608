//! libaio's C interface: what the kernel's answers are, ours are, too.
#![cfg(ioctx_capi)]

mod ahead;
mod api;
mod differential;
mod direct;
mod life;
mod masks;
mod memory;
#[path = "../support/mod.rs"]
mod support;
