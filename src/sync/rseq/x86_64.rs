//! What is written in x86-64 assembly, and nothing else.

use std::arch::asm;
#[cfg(feature = "own-rseq")]
use std::arch::global_asm;

/// Precedes each abort address; the kernel was told it at registration. As the C library has it.
pub(super) const SIGNATURE: u32 = 0x5305_3053;

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
    ".long 0, -1, 0, 0, 0, 0, 0, 0",
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
            "mov {0}, qword ptr [rip + __ioctx_rseq_area@GOTTPOFF]",
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
            "mov {0}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {1}, qword ptr [rip + __rseq_size@GOTPCREL]",
            out(reg) offset, out(reg) size,
            options(nostack, preserves_flags, readonly, pure)
        );
    }
    (offset, size)
}

/// The thread pointer.
pub(super) fn thread_pointer() -> *mut u8 {
    let thread: *mut u8;
    // SAFETY: the first word at the thread pointer is the thread pointer itself.
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) thread, options(nostack, preserves_flags, readonly, pure))
    };
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
        asm!("mov {0:e}, dword ptr fs:[{1} + 4]", out(reg) cpu, in(reg) offset,
            options(nostack, preserves_flags, readonly));
    }
    cpu
}

/// A section: what is between the load of the slot's address and the commit is `$body`, which finds the address
/// in `slot` and 128 times the CPU number in `cpu`, and whose last instruction is the commit.
macro_rules! section {
    ($area:expr, $mode:expr, [$($body:literal),*], $($operand:tt)*) => {
        asm!(
            ".pushsection __rseq_cs, \"aw\", @progbits",
            ".balign 32",
            "33:",
            ".long 0, 0",
            ".quad 44f, 55f - 44f, 66f",
            ".popsection",
            "lea {slot}, [rip + 33b]",
            "mov qword ptr fs:[{area} + 8], {slot}",
            "44:",
            "mov {slot}, qword ptr [{mode}]",
            "test {slot:l}, {give_up}",
            "jnz {failed}",
            "mov {cpu:e}, dword ptr fs:[{area} + 4]",
            "test {cpu:e}, {cpu:e}",
            "js {failed}",
            "shl {cpu}, 7",
            $($body,)*
            "55:",
            ".pushsection __rseq_abort, \"ax\", @progbits",
            // An undefined instruction whose last four bytes are the signature.
            ".byte 0x0f, 0xb9, 0x3d",
            ".long {signature}",
            "66:",
            "jmp {failed}",
            ".popsection",
            area = in(reg) $area,
            mode = in(reg) $mode,
            $($operand)*
            slot = out(reg) _,
            cpu = out(reg) _,
            give_up = const GIVE_UP,
            signature = const SIGNATURE,
            failed = label { return false },
            options(nostack),
        )
    };
}

/// Adds `$delta`, an operand.
macro_rules! add {
    ($area:expr, $mode:expr, $($delta:tt)*) => {
        section!($area, $mode, ["add qword ptr [{slot} + {cpu}], {delta}"], delta = $($delta)*,)
    };
}

/// Takes `$n`, if the slot has as much.
macro_rules! take {
    ($area:expr, $mode:expr, $n:expr) => {
        section!(
            $area,
            $mode,
            [
                "mov {value}, qword ptr [{slot} + {cpu}]",
                "sub {value}, {n}",
                "jb {failed}",
                "mov qword ptr [{slot} + {cpu}], {value}"
            ],
            n = in(reg) $n,
            value = out(reg) _,
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
                "mov {value}, qword ptr [{slot} + {cpu}]",
                "cmp {value}, {most}",
                "ja {failed}",
                "add {value}, {n}",
                "mov qword ptr [{slot} + {cpu}], {value}"
            ],
            value = out(reg) _,
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
                "mov {len}, qword ptr [{slot} + {cpu}]",
                "test {len}, {len}",
                "jz {failed}",
                "mov {items}, qword ptr [{slot} + {cpu} + 8]",
                "mov {items:e}, dword ptr [{items} + 4 * {len} - 4]",
                // Ours alone: whether it is written matters only if the section commits.
                "mov dword ptr [{item}], {items:e}",
                "dec {len}",
                "mov qword ptr [{slot} + {cpu}], {len}"
            ],
            item = in(reg) $item,
            items = out(reg) _,
            len = out(reg) _,
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
                "mov {len}, qword ptr [{slot} + {cpu}]",
                "cmp {len}, qword ptr [{slot} + {cpu} + 16]",
                "jae {failed}",
                "mov {items}, qword ptr [{slot} + {cpu} + 8]",
                // Above the top: nobody's before the section commits.
                "mov dword ptr [{items} + 4 * {len}], {item:e}",
                "inc {len}",
                "mov qword ptr [{slot} + {cpu}], {len}"
            ],
            item = in(reg) $item,
            items = out(reg) _,
            len = out(reg) _,
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
                "mov {len}, qword ptr [{slot} + {cpu}]",
                "sub {len}, {n}",
                "jb {failed}",
                "mov {from}, qword ptr [{slot} + {cpu} + 8]",
                "lea {from}, [{from} + 4 * {len}]",
                "77:",
                "mov {item:e}, dword ptr [{from} + 4 * {n} - 4]",
                // Ours alone: whether it is written matters only if the section commits.
                "mov dword ptr [{items} + 4 * {n} - 4], {item:e}",
                "dec {n}",
                "jnz 77b",
                "mov qword ptr [{slot} + {cpu}], {len}"
            ],
            items = in(reg) $items,
            n = inout(reg) $n => _,
            from = out(reg) _,
            item = out(reg) _,
            len = out(reg) _,
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
                "mov {item}, qword ptr [{slot} + {cpu}]",
                "lea {len}, [{item} + {n}]",
                "cmp {len}, qword ptr [{slot} + {cpu} + 16]",
                "ja {failed}",
                "mov {to}, qword ptr [{slot} + {cpu} + 8]",
                "lea {to}, [{to} + 4 * {item}]",
                "77:",
                "mov {item:e}, dword ptr [{items} + 4 * {n} - 4]",
                // Above the top: nobody's before the section commits.
                "mov dword ptr [{to} + 4 * {n} - 4], {item:e}",
                "dec {n}",
                "jnz 77b",
                "mov qword ptr [{slot} + {cpu}], {len}"
            ],
            items = in(reg) $items,
            n = inout(reg) $n => _,
            to = out(reg) _,
            item = out(reg) _,
            len = out(reg) _,
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
                "mov {tail}, qword ptr [{slot} + {cpu}]",
                "add {n}, {tail}",
                "cmp {n}, qword ptr [{slot} + {cpu} + 16]",
                "ja {failed}",
                "77:",
                "mov {place}, {tail}",
                "and {place}, qword ptr [{slot} + {cpu} + 24]",
                "shl {place}, 5",
                "add {place}, qword ptr [{slot} + {cpu} + 8]",
                // After the tail: nobody's before the section commits. A word at a time, as events are written just
                // before: a wider load would wait for those stores.
                "mov {word}, qword ptr [{events}]",
                "mov qword ptr [{place}], {word}",
                "mov {word}, qword ptr [{events} + 8]",
                "mov qword ptr [{place} + 8], {word}",
                "mov {word}, qword ptr [{events} + 16]",
                "mov qword ptr [{place} + 16], {word}",
                "mov {word}, qword ptr [{events} + 24]",
                "mov qword ptr [{place} + 24], {word}",
                "add {events}, 32",
                "inc {tail}",
                "cmp {tail}, {n}",
                "jne 77b",
                // Every store is a release on this processor.
                "mov qword ptr [{slot} + {cpu}], {n}"
            ],
            events = inout(reg) $events => _,
            n = inout(reg) $n => _,
            tail = out(reg) _,
            place = out(reg) _,
            word = out(reg) _,
        )
    };
}
pub(super) use {add, append, pop, pop_many, push, push_many, put, section, take};
