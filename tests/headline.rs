//! The promise that the whole design serves: a submit, and the completion of a request that is done at once, write no
//! cache line that another CPU writes, but for the moves of whole batches of tags, at most one per batch.
//!
//! Shown in two ways, each with restartable sequences and with locked instructions. Four threads submit ten million
//! requests while what they share is read-only, and whoever writes to it is caught. And one call of each operation is
//! stepped through, and every store it makes is found in a list that is part of this test.
//!
//! Only optimised builds are looked at: what is promised is promised of them.
//! `cargo test --release --test headline -- --nocapture`.

mod support;

#[cfg(all(ioctx_linux, target_arch = "x86_64", not(debug_assertions)))]
#[path = "headline/mod.rs"]
mod checked;

#[cfg(not(all(ioctx_linux, target_arch = "x86_64", not(debug_assertions))))]
#[test]
fn nothing_is_looked_at() {
    support::skip("the instructions of optimised builds for Linux on x86-64 are looked at, and this is none");
}
