//! Stores that a comparison of memory before and after does not see, planted where there must be none.

use ioctx::aio::{Backend, Completion, Submitted};
use std::arch::asm;

/// How to write to a word without changing it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Stores what is there.
    Silent,
    /// A compare-exchange that fails.
    Failing,
    /// Counts up and down again.
    UpAndDown,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Silent, Self::Failing, Self::UpAndDown];

    /// How many stores it is.
    pub fn stores(self) -> u64 {
        if matches!(self, Self::UpAndDown) { 2 } else { 1 }
    }

    /// Writes to the word at `address`.
    ///
    /// # Safety
    ///
    /// 1. It is aligned, and one that may be read and written, unless whoever writes there is caught and seen to.
    #[inline(never)]
    pub unsafe fn plant(self, address: usize) {
        // SAFETY: 1.; it is left as it was. In assembly, since the compiler would see that it is for nothing.
        unsafe {
            match self {
                Self::Silent => asm!("mov {word}, [{address}]", "mov [{address}], {word}",
                    address = in(reg) address, word = out(reg) _),
                Self::Failing => {
                    asm!("mov rax, [{address}]", "not rax", "lock cmpxchg [{address}], {address}",
                    address = in(reg) address, out("rax") _)
                }
                Self::UpAndDown => asm!("lock inc qword ptr [{address}]", "lock dec qword ptr [{address}]",
                    address = in(reg) address),
            }
        }
    }
}

/// Does nothing with a request but to write to a word that all CPUs share.
pub struct Planted {
    pub fault: Fault,
    /// Of a word that lives as long as the program.
    pub address: usize,
}

impl Backend for Planted {
    fn submit(&self, work: Completion) -> Submitted {
        // SAFETY: 1. as the field says.
        unsafe { self.fault.plant(self.address) };
        Submitted::Done(work.finish(Ok(0)))
    }
}
