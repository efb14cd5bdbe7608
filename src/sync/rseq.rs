//! The CPU number from the area that the kernel shares with each thread for restartable sequences (rseq(2)).
//!
//! The C library registers the area, at one offset from the thread pointer in every thread: glibc 2.35 and
//! later, unless told not to by `glibc.pthread.rseq=0`. Reading the number takes one load where the
//! system's `getcpu` takes 2 ns. Only read here, never written.

#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(miri)))]
pub(super) use x86_64::cpu_id;

/// Not known on this system.
#[cfg(not(all(target_arch = "x86_64", target_env = "gnu", not(miri))))]
#[inline(always)]
pub(super) fn cpu_id() -> Option<u32> {
    None
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(miri)))]
mod x86_64 {
    use std::arch::{asm, global_asm};
    use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

    /// Where the area lies from the thread pointer, or one of the following.
    static OFFSET: AtomicIsize = AtomicIsize::new(UNKNOWN);
    const UNKNOWN: isize = isize::MAX;
    const ABSENT: isize = isize::MIN;

    /// The CPU this thread runs on, or just did. `None` if the area is not registered.
    #[inline(always)]
    pub(in super::super) fn cpu_id() -> Option<u32> {
        // Relaxed: every thread would compute the same.
        let mut offset = OFFSET.load(Relaxed);
        if offset == UNKNOWN {
            offset = look_up();
        }
        if offset == ABSENT {
            return None;
        }
        let cpu: i32;
        // SAFETY: the C library keeps a `struct rseq` at this offset in every thread; `cpu_id` is its
        // second word. The kernel changes it at any time, which a load in assembly may see.
        unsafe {
            asm!("mov {0:e}, dword ptr fs:[{1} + 4]", out(reg) cpu, in(reg) offset,
                options(nostack, preserves_flags, readonly));
        }
        // Negative: this thread is not registered (a sandbox, valgrind, a process made by other means than
        // the C library's).
        u32::try_from(cpu).ok()
    }

    // Weak: an older C library has no such symbols, and then their addresses are null.
    global_asm!(".weak __rseq_offset", ".weak __rseq_size");

    #[cold]
    fn look_up() -> isize {
        let (offset, size): (*const isize, *const u32);
        // SAFETY: reads two entries of the global offset table, which the loader has filled.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + __rseq_offset@GOTPCREL]",
                "mov {1}, qword ptr [rip + __rseq_size@GOTPCREL]",
                out(reg) offset, out(reg) size, options(nostack, preserves_flags, readonly, pure)
            );
        }
        // SAFETY: null, or the C library's constants.
        let (offset, size) = unsafe { (offset.as_ref(), size.as_ref()) };
        let found = match (offset, size) {
            // A size of 0 says that it did not register.
            (Some(offset), Some(size)) if *size > 0 => *offset,
            _ => ABSENT,
        };
        // Relaxed: as above.
        OFFSET.store(found, Relaxed);
        found
    }

    #[cfg(test)]
    mod tests {
        use std::thread;

        #[test]
        fn agrees_with_the_system() {
            for _ in 0..100 {
                // The thread may be moved between the two, but not every time.
                let (ours, theirs) = (super::cpu_id(), rustix::thread::sched_getcpu() as u32);
                if ours.is_none_or(|ours| ours == theirs) {
                    return;
                }
                thread::yield_now();
            }
            panic!("the number is not that of this thread's CPU");
        }
    }
}
