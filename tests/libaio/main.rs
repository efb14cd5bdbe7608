//! libaio's C interface: what the kernel's answers are, ours are, too.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod api;
mod differential;
mod life;
