//! Counts that own what they count: [`Owner`], [`Handle`], [`Weak`], [`Guard`], [`Dying`].
//!
//! The owner has the reference that a count starts with. Killing the owner, or dropping it, closes the count;
//! whoever gives the last reference back drops the value, and then tells those who wait for that.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `refcount.typed.put` | `Release` | `refcount.typed.free` | whoever still needed the memory has done with it |
//! | `refcount.typed.free` | `Acquire` fence | `refcount.typed.put` | before it is freed |
//!
//! The value itself is guarded by the [count](super#orderings), and the end of its release by a mutex.

mod handle;
mod inner;
mod owner;

pub use handle::{Guard, Handle, Weak};
pub use owner::{Dying, Owner, StillHeld};
