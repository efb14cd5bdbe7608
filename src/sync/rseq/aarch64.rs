//! What is written in aarch64 assembly, and nothing else. Assembled in every run of the tests, by
//! `.ci/aarch64`; never run there.

use std::arch::asm;
#[cfg(feature = "own-rseq")]
use std::arch::global_asm;

/// Precedes each abort address; the kernel was told it at registration. As the C library has it: an
/// instruction that traps, `brk #0x45e0`.
pub(super) const SIGNATURE: u32 = 0xd428_bc00;

// The area of our own has its offset fixed when the program is loaded; it stands here, and not in a
// `thread_local!`, because a section must reach it by that offset alone. Weak and hidden: if two versions
// of this crate are linked into one object, they share it.
#[cfg(feature = "own-rseq")]
global_asm!(
    ".pushsection .tdata.__ioctx_rseq_area, \"awT\", @progbits",
    ".balign 32",
    ".weak __ioctx_rseq_area",
    ".hidden __ioctx_rseq_area",
    ".type __ioctx_rseq_area, @object",
    ".size __ioctx_rseq_area, 32",
    "__ioctx_rseq_area:",
    // cpu_id_start, cpu_id (of a thread that is not registered), rseq_cs, flags, and what newer kernels fill.
    ".word 0, -1, 0, 0, 0, 0, 0, 0",
    ".popsection",
);

/// Where the area of our own lies from the thread pointer.
#[cfg(feature = "own-rseq")]
pub(super) fn own_offset() -> isize {
    let own: isize;
    // Not weak here: a weak reference would not make the linker look for the definition, which may be in another
    // object of this library.
    //
    // SAFETY: reads an entry of the global offset table, which the loader has filled.
    unsafe {
        asm!(
            ".hidden __ioctx_rseq_area",
            "adrp {0}, :gottprel:__ioctx_rseq_area",
            "ldr {0}, [{0}, :gottprel_lo12:__ioctx_rseq_area]",
            out(reg) own, options(nostack, preserves_flags, readonly, pure)
        );
    }
    own
}

/// Where the C library keeps the offset and the size of its area. Null if it is older than that.
pub(super) fn symbols() -> (*const isize, *const u32) {
    let (offset, size): (*const isize, *const u32);
    // Weak, said wherever this is compiled to: an older C library has no such symbols, and then their
    // addresses are null.
    //
    // SAFETY: reads two entries of the global offset table, which the loader has filled.
    unsafe {
        asm!(
            ".weak __rseq_offset",
            ".weak __rseq_size",
            "adrp {0}, :got:__rseq_offset",
            "ldr {0}, [{0}, :got_lo12:__rseq_offset]",
            "adrp {1}, :got:__rseq_size",
            "ldr {1}, [{1}, :got_lo12:__rseq_size]",
            out(reg) offset, out(reg) size,
            options(nostack, preserves_flags, readonly, pure)
        );
    }
    (offset, size)
}

/// The thread pointer.
#[inline(always)]
pub(super) fn thread_pointer() -> *mut u8 {
    let thread: *mut u8;
    // SAFETY: reads a register that every thread has.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) thread, options(nostack, preserves_flags, nomem, pure)) };
    thread
}

/// `cpu_id` of the area at `offset`.
///
/// # Safety
///
/// 1. There is an area at that offset in every thread.
#[inline(always)]
pub(super) unsafe fn cpu_id(offset: isize) -> i32 {
    let cpu: i32;
    // SAFETY: 1.; it is the second word. The kernel changes it at any time, which a load in assembly may see.
    unsafe {
        asm!(
            "mrs {1}, tpidr_el0",
            "add {1}, {1}, {2}",
            "ldr {0:w}, [{1}, #4]",
            out(reg) cpu, out(reg) _, in(reg) offset,
            options(nostack, preserves_flags, readonly)
        );
    }
    cpu
}

/// A section: what is between the load of the slot's address and the commit is `$body`, which finds the address
/// in `slot` and the CPU number in `value`, and whose last instruction is the commit.
///
/// Needs no barrier: the slot's address depends on the load of the mode word, and the stores on the
/// comparisons; everything else is ordered by the switch to another thread, or by the fence.
macro_rules! section {
    ($area:expr, $mode:expr, [$($body:literal),*], $($operand:tt)*) => {
        asm!(
            ".pushsection __rseq_cs, \"aw\", @progbits",
            ".balign 32",
            "33:",
            ".word 0, 0",
            ".quad 44f, 55f - 44f, 66f",
            ".popsection",
            "mrs {thread}, tpidr_el0",
            "add {thread}, {thread}, {area}",
            "adrp {slot}, 33b",
            "add {slot}, {slot}, :lo12:33b",
            "str {slot}, [{thread}, #8]",
            "44:",
            "ldr {slot}, [{mode}]",
            // The bit `GIVE_UP`. Not `tbnz`, which does not reach as far as a large function may need.
            "tst {slot}, #1",
            "b.ne {failed}",
            "ldr {value:w}, [{thread}, #4]",
            "cmp {value:w}, #0",
            "b.lt {failed}",
            "add {slot}, {slot}, {value}, lsl #7",
            $($body,)*
            "55:",
            ".pushsection __rseq_abort, \"ax\", @progbits",
            ".inst {signature}",
            "66:",
            "b {failed}",
            ".popsection",
            area = in(reg) $area,
            mode = in(reg) $mode,
            $($operand)*
            thread = out(reg) _,
            slot = out(reg) _,
            value = out(reg) _,
            signature = const SIGNATURE,
            failed = label { return false },
            options(nostack),
        )
    };
}

/// Adds `$delta`, an operand.
macro_rules! add {
    ($area:expr, $mode:expr, $($delta:tt)*) => {
        section!(
            $area,
            $mode,
            ["ldr {value}, [{slot}]", "add {value}, {value}, {delta}", "str {value}, [{slot}]"],
            delta = $($delta)*,
        )
    };
}

/// Takes `$n`, if the slot has as much.
macro_rules! take {
    ($area:expr, $mode:expr, $n:expr) => {
        section!(
            $area,
            $mode,
            ["ldr {value}, [{slot}]", "subs {value}, {value}, {n}", "b.lo {failed}", "str {value}, [{slot}]"],
            n = in(reg) $n,
        )
    };
}

/// Puts `$n`, unless the slot has more than `$most`.
macro_rules! put {
    ($area:expr, $mode:expr, $n:expr, $most:expr) => {
        section!(
            $area,
            $mode,
            [
                "ldr {value}, [{slot}]",
                "cmp {value}, {most}",
                "b.hi {failed}",
                "add {value}, {value}, {n}",
                "str {value}, [{slot}]"
            ],
            n = in(reg) $n,
            most = in(reg) $most,
        )
    };
}

/// Pops the last item of the slot's stack into `$item`.
macro_rules! pop {
    ($area:expr, $mode:expr, $item:expr) => {
        section!(
            $area,
            $mode,
            [
                "ldr {value}, [{slot}]",
                "subs {value}, {value}, #1",
                "b.lo {failed}",
                "ldr {items}, [{slot}, #8]",
                "ldr {items:w}, [{items}, {value}, lsl #2]",
                // Ours alone: whether it is written matters only if the section commits.
                "str {items:w}, [{item}]",
                "str {value}, [{slot}]"
            ],
            item = in(reg) $item,
            items = out(reg) _,
        )
    };
}

/// Pushes `$item` onto the slot's stack, if there is room.
macro_rules! push {
    ($area:expr, $mode:expr, $item:expr) => {
        section!(
            $area,
            $mode,
            [
                "ldr {value}, [{slot}]",
                "ldr {items}, [{slot}, #16]",
                "cmp {value}, {items}",
                "b.hs {failed}",
                "ldr {items}, [{slot}, #8]",
                // Above the top: nobody's before the section commits.
                "str {item:w}, [{items}, {value}, lsl #2]",
                "add {value}, {value}, #1",
                "str {value}, [{slot}]"
            ],
            item = in(reg) $item,
            items = out(reg) _,
        )
    };
}

/// Pops the last `$n` items, at least one, of the slot's stack into `$items`, if there are as many.
macro_rules! pop_many {
    ($area:expr, $mode:expr, $items:expr, $n:expr) => {
        section!(
            $area,
            $mode,
            [
                "ldr {value}, [{slot}]",
                "subs {value}, {value}, {n}",
                "b.lo {failed}",
                "ldr {from}, [{slot}, #8]",
                "add {from}, {from}, {value}, lsl #2",
                "77:",
                "sub {n}, {n}, #1",
                "ldr {item:w}, [{from}, {n}, lsl #2]",
                // Ours alone: whether it is written matters only if the section commits.
                "str {item:w}, [{items}, {n}, lsl #2]",
                "cbnz {n}, 77b",
                "str {value}, [{slot}]"
            ],
            items = in(reg) $items,
            n = inout(reg) $n => _,
            from = out(reg) _,
            item = out(reg) _,
        )
    };
}

/// Pushes the `$n` items, at least one, at `$items` onto the slot's stack, if there is room for all of them.
macro_rules! push_many {
    ($area:expr, $mode:expr, $items:expr, $n:expr) => {
        section!(
            $area,
            $mode,
            [
                "ldr {item}, [{slot}]",
                "ldr {to}, [{slot}, #16]",
                "add {value}, {item}, {n}",
                "cmp {value}, {to}",
                "b.hi {failed}",
                "ldr {to}, [{slot}, #8]",
                "add {to}, {to}, {item}, lsl #2",
                "77:",
                "sub {n}, {n}, #1",
                "ldr {item:w}, [{items}, {n}, lsl #2]",
                // Above the top: nobody's before the section commits.
                "str {item:w}, [{to}, {n}, lsl #2]",
                "cbnz {n}, 77b",
                "str {value}, [{slot}]"
            ],
            items = in(reg) $items,
            n = inout(reg) $n => _,
            to = out(reg) _,
            item = out(reg) _,
        )
    };
}

/// Appends the `$n` events, at least one, at `$events` to the slot's ring, if there is room for all of them.
macro_rules! append {
    ($area:expr, $mode:expr, $events:expr, $n:expr) => {
        section!(
            $area,
            $mode,
            [
                "ldr {value}, [{slot}]",
                "add {n}, {value}, {n}",
                "ldr {place}, [{slot}, #16]",
                "cmp {n}, {place}",
                "b.hi {failed}",
                "77:",
                "ldr {place}, [{slot}, #24]",
                "and {place}, {place}, {value}",
                "ldr {word}, [{slot}, #8]",
                "add {place}, {word}, {place}, lsl #5",
                // After the tail: nobody's before the section commits.
                "ldp {word}, {other}, [{events}]",
                "stp {word}, {other}, [{place}]",
                "ldp {word}, {other}, [{events}, #16]",
                "stp {word}, {other}, [{place}, #16]",
                "add {events}, {events}, #32",
                "add {value}, {value}, #1",
                "cmp {value}, {n}",
                "b.ne 77b",
                // Release: whoever reads the tail sees the events.
                "stlr {n}, [{slot}]"
            ],
            events = inout(reg) $events => _,
            n = inout(reg) $n => _,
            place = out(reg) _,
            word = out(reg) _,
            other = out(reg) _,
        )
    };
}
pub(super) use {add, append, pop, pop_many, push, push_many, put, section, take};
