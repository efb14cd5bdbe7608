//! Sections for Linux: where the area is, who registers it, and what is asked of the kernel.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;

use super::{GIVE_UP, Kind, ONE};
use arch::{SIGNATURE, section};
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use std::arch::asm;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::Relaxed};

/// Where the area lies from the thread pointer, in every thread; `UNKNOWN` until looked up.
static OFFSET: AtomicIsize = AtomicIsize::new(UNKNOWN);
const UNKNOWN: isize = isize::MAX;
/// There is no area: sections must not even begin.
const ABSENT: isize = isize::MIN;

const _: () = assert!(GIVE_UP == 1 && std::mem::size_of::<AtomicU64>() == 8, "as the assembly has it");

/// Whether each thread has an area in any case, registered or not, so that a section that has to give up may begin
/// all the same.
pub(crate) const ALWAYS_AN_AREA: bool = cfg!(feature = "own-rseq");

/// `cpu_id` of a thread that has not tried to register, and of one that tried in vain or is ending.
const UNREGISTERED: i32 = -1;
const NEVER: i32 = -2;

/// The offset of the area, for whoever may come before [`kind`] has been asked.
#[inline(always)]
fn offset() -> isize {
    // Relaxed: every thread would compute the same.
    match OFFSET.load(Relaxed) {
        UNKNOWN => look_up().0,
        offset => offset,
    }
}

/// Finds the area: its offset, and whether it is the C library's.
#[cold]
#[inline(never)]
fn look_up() -> (isize, bool) {
    let (offset, size) = arch::symbols();
    // SAFETY: null, or the C library's constants.
    let (offset, size) = unsafe { (offset.as_ref(), size.as_ref()) };
    let found = match (offset, size) {
        // A size of 0 says that it did not register.
        (Some(offset), Some(size)) if *size > 0 => (*offset, true),
        _ => (own_offset(), false),
    };
    // Relaxed: as above.
    OFFSET.store(found.0, Relaxed);
    found
}

/// Where the area of our own lies.
fn own_offset() -> isize {
    #[cfg(feature = "own-rseq")]
    {
        arch::own_offset()
    }
    #[cfg(not(feature = "own-rseq"))]
    ABSENT
}

/// `cpu_id` as the kernel last left it; negative if there is no area, or the thread is not registered.
#[inline(always)]
fn cpu() -> i32 {
    let offset = offset();
    if offset == ABSENT {
        return NEVER;
    }
    // SAFETY: at this offset each thread has a `struct rseq`, the C library's or ours.
    unsafe { arch::cpu_id(offset) }
}

/// The CPU this thread runs on, or just did. `None` if this thread is not registered.
#[inline(always)]
pub(in crate::sync) fn cpu_id() -> Option<u32> {
    u32::try_from(cpu()).ok()
}

/// [`cpu_id`] that does not look the area up.
#[inline(always)]
pub(in crate::sync) fn quick_cpu_id() -> Option<u32> {
    // Relaxed: every thread would compute the same.
    match OFFSET.load(Relaxed) {
        UNKNOWN | ABSENT => None,
        // SAFETY: as in `cpu`.
        offset => u32::try_from(unsafe { arch::cpu_id(offset) }).ok(),
    }
}

/// Sees to it that this code is never unloaded: a thread's `rseq_cs` may point to its last section long
/// after, and the kernel kills a thread whose section it cannot read. Returns whether that is so.
fn stays_loaded() -> bool {
    unsafe extern "C" fn is_main(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        address: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader's description of an object, valid during this call.
        let (object, headers) = unsafe {
            (&*object, std::slice::from_raw_parts((*object).dlpi_phdr, (*object).dlpi_phnum.into()))
        };
        let inside = headers.iter().any(|header| {
            let start = object.dlpi_addr.wrapping_add(header.p_vaddr);
            header.p_type == libc::PT_LOAD && (address as u64).wrapping_sub(start) < header.p_memsz
        });
        // Ends the walk at the first object, which is the program itself.
        if inside { 1 } else { 2 }
    }

    let here = (&raw const OFFSET).cast_mut().cast::<libc::c_void>();
    // SAFETY: the function fits, and `here` is only compared.
    if unsafe { libc::dl_iterate_phdr(Some(is_main), here) } == 1 {
        return true;
    }
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `found` may be all zeros, and is filled if the result is not 0. The name is that of an object
    // that is loaded, so that nothing is run; it is marked as one to keep.
    unsafe {
        libc::dladdr(here, found.as_mut_ptr()) != 0
            && !libc::dlopen(
                found.assume_init().dli_fname,
                libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
            )
            .is_null()
    }
}

/// Whether sections can be used. Decided once; the first call registers with the kernel, which takes some
/// 10 ms in a process that already has threads.
pub(crate) fn kind() -> Kind {
    static KIND: OnceLock<Kind> = OnceLock::new();
    *KIND.get_or_init(|| {
        let (offset, libc) = look_up();
        // Before anything else is decided: counts may begin sections in order to find out that they must not count.
        let stays = stays_loaded();
        #[cfg(feature = "own-rseq")]
        if !stays {
            // In an area that the kernel does not know, and that goes with this code. Relaxed: nobody has begun a
            // section yet.
            OFFSET.store(own_offset(), Relaxed);
        }
        match std::env::var("IOCTX_PERCPU").as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("" | "auto") => {}
            Ok("portable") => return Kind::Portable("IOCTX_PERCPU says so"),
            Ok("libc") if libc => {}
            Ok("libc") => return Kind::Portable("IOCTX_PERCPU wants the C library's area, and it has none"),
            Ok("own") if !libc => {}
            Ok("own") => {
                return Kind::Portable("IOCTX_PERCPU wants an area of our own, but the C library has one");
            }
            _ => return Kind::Portable("IOCTX_PERCPU is none of auto, libc, own, portable"),
        }
        if !crate::sync::cpu::possible_is_certain() {
            // A section would write to the slot of a CPU that there is none for.
            return Kind::Portable("the system does not say how many CPUs it can have");
        }
        if offset == ABSENT {
            return Kind::Portable("the C library has registered no area, and the feature own-rseq is off");
        }
        if !stays {
            return Kind::Portable("this code may be unloaded");
        }
        if cpu() < 0 && (libc || !register()) {
            return Kind::Portable("the kernel has no restartable sequences, or they are forbidden here");
        }
        if !membarrier_query().contains_command(MembarrierCommand::RegisterPrivateExpeditedRseq)
            || membarrier(MembarrierCommand::RegisterPrivateExpeditedRseq).is_err()
        {
            return Kind::Portable(
                "the kernel has no membarrier(PRIVATE_EXPEDITED_RSEQ), or forbids it here",
            );
        }
        if libc { Kind::LibcArea } else { Kind::OwnArea }
    })
}

/// The address of this thread's area, which is ours.
fn own_area() -> *mut u8 {
    arch::thread_pointer().wrapping_offset(offset())
}

/// Registers this thread's own area with the kernel, or unregisters it.
fn tell_kernel(area: *mut u8, flags: libc::c_int) -> bool {
    // SAFETY: the area is 32 bytes, aligned so, and lives as long as the thread, which unregisters it
    // before it ends.
    unsafe { libc::syscall(libc::SYS_rseq, area, 32_u32, flags, SIGNATURE) == 0 }
}

/// Registers this thread's own area. Tried once per thread.
fn register() -> bool {
    struct Registered;

    impl Drop for Registered {
        fn drop(&mut self) {
            const UNREGISTER: libc::c_int = 1;
            let area = own_area();
            tell_kernel(area, UNREGISTER);
            // SAFETY: our area, which the kernel no longer writes. Later sections of this thread give up,
            // and it does not register again.
            unsafe { area.add(4).cast::<i32>().write_volatile(NEVER) };
        }
    }

    std::thread_local!(static REGISTERED: Registered = const { Registered });

    let area = own_area();
    // Not in a thread that is ending: nobody would unregister.
    if cpu() == UNREGISTERED && REGISTERED.try_with(|_| ()).is_ok() && tell_kernel(area, 0) {
        return true;
    }
    // SAFETY: our area, which the kernel does not know.
    unsafe { area.add(4).cast::<i32>().write_volatile(NEVER) };
    false
}

/// After a section has failed: whether it is worth another try, since this thread was not registered and is
/// now.
#[cold]
pub(crate) fn rejoin() -> bool {
    cpu() == UNREGISTERED && kind() == Kind::OwnArea && register()
}

/// Adds `delta` to this CPU's slot, unless the mode word says to give up, or the thread is disturbed in the
/// middle, or is not registered; returns whether it did. Orders nothing; the compiler moves no access to
/// memory across.
///
/// The slots are those that the mode word gives the address of; the last argument is for model checkers.
///
/// # Safety
///
/// 1. [`kind`] was asked before; if it is portable, the word never lacks `GIVE_UP`.
/// 2. `mode` is valid until the section has committed or given up. Unless `GIVE_UP` is set, the word is the
///    address of as many slots as there are possible CPUs, 128 bytes apart, 8 bytes each, which are written
///    by sections only.
/// 3. If not [`ALWAYS_AN_AREA`], the word was just seen without `GIVE_UP`.
#[inline(always)]
pub(crate) unsafe fn add<'a>(
    mode: *const AtomicU64,
    delta: i64,
    _: impl Fn(u64, u32) -> &'a AtomicU64,
) -> bool {
    // SAFETY: 1. descriptor and abort address are in sections of the program; the signature precedes the
    // latter. 2. no call, no stack; the last instruction is the one store to memory that others see. 3. the
    // CPU number is tested. The area that is written to is there, by 3.
    // 4. and the slot's validity are the caller's promises. The only other store is to `rseq_cs`.
    unsafe {
        let area = OFFSET.load(Relaxed);
        arch::add!(area, mode, in(reg) delta);
    }
    true
}

/// [`add`] of one unit, one instruction shorter.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn add_one<'a, const UP: bool>(
    mode: *const AtomicU64,
    _: impl Fn(u64, u32) -> &'a AtomicU64,
) -> bool {
    // SAFETY: as in `add`.
    unsafe {
        let area = OFFSET.load(Relaxed);
        arch::add!(area, mode, const if UP { ONE } else { -ONE });
    }
    true
}

/// Takes `n` from this CPU's slot, if it has as much; otherwise as [`add`].
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn take(mode: *const AtomicU64, n: u64, _: impl FnOnce(u64, u32) -> bool) -> bool {
    // SAFETY: as in `add`.
    unsafe { arch::take!(OFFSET.load(Relaxed), mode, n) };
    true
}

/// Puts `n` into this CPU's slot, unless it has more than `most`; otherwise as [`add`].
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn put(
    mode: *const AtomicU64,
    n: u64,
    most: u64,
    _: impl FnOnce(u64, u32) -> bool,
) -> bool {
    // SAFETY: as in `add`.
    unsafe { arch::put!(OFFSET.load(Relaxed), mode, n, most) };
    true
}

/// Pops the last item of this CPU's stack, if there is one; otherwise as [`add`].
///
/// A stack is a slot of three words: how many items there are, where they are, and how many there can be.
///
/// # Safety
///
/// 1. As there.
/// 2. The second word of every slot is the address of as many `u32`s as the third says. Both never change.
#[inline(always)]
pub(crate) unsafe fn pop(mode: *const AtomicU64, _: impl FnOnce(u64, u32) -> Option<u32>) -> Option<u32> {
    /// # Safety
    ///
    /// As outside; and `item` is valid for writing.
    #[inline(always)]
    unsafe fn pop_into(mode: *const AtomicU64, item: *mut u32) -> bool {
        // SAFETY: as in `add`, with 2.
        unsafe { arch::pop!(OFFSET.load(Relaxed), mode, item) };
        true
    }

    let mut item = 0;
    // SAFETY: handed on; the item is ours.
    unsafe { pop_into(mode, &raw mut item) }.then_some(item)
}

/// Pushes an item onto this CPU's stack, if there is room; otherwise as [`pop`].
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn push(mode: *const AtomicU64, item: u32, _: impl FnOnce(u64, u32) -> bool) -> bool {
    // SAFETY: as in `pop`.
    unsafe { arch::push!(OFFSET.load(Relaxed), mode, item) };
    true
}

/// Pops the last items of this CPU's stack into `items`, the very last one to its end, if there are as many;
/// otherwise as [`pop`]. All or nothing: if it fails, the stack is as it was, and `items` holds anything.
///
/// # Costs
///
/// Four instructions per item, and all of them in vain if the section is aborted, which happens the more
/// often the longer it is. Many items are better moved some 64 at a time.
///
/// # Safety
///
/// 1. As there.
/// 2. `items` is not empty.
#[inline(always)]
pub(crate) unsafe fn pop_many(
    mode: *const AtomicU64,
    items: &mut [MaybeUninit<u32>],
    _: impl FnOnce(u64, u32, &mut [MaybeUninit<u32>]) -> bool,
) -> Option<&mut [u32]> {
    /// # Safety
    ///
    /// As outside; and `items` is valid for writing `n` of them.
    #[inline(always)]
    unsafe fn pop_into(mode: *const AtomicU64, items: *mut u32, n: u64) -> bool {
        // SAFETY: as in `pop`; the loop ends, since there is an item.
        unsafe { arch::pop_many!(OFFSET.load(Relaxed), mode, items, n) };
        true
    }

    debug_assert!(!items.is_empty(), "a loop that counts down from there would not end");
    let items = std::ptr::from_mut(items) as *mut [u32];
    // SAFETY: handed on; the items are ours, and have all been written if it says so.
    unsafe { pop_into(mode, items.cast(), items.len() as u64).then(|| &mut *items) }
}

/// Pushes `items` onto this CPU's stack, the first one first, if there is room for all of them; otherwise as
/// [`push`]. All or nothing.
///
/// # Costs
///
/// As [`pop_many`].
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn push_many(
    mode: *const AtomicU64,
    items: &[u32],
    _: impl FnOnce(u64, u32) -> bool,
) -> bool {
    debug_assert!(!items.is_empty(), "as in `pop_many`");
    // SAFETY: as in `pop`; the loop ends, since there is an item.
    unsafe { arch::push_many!(OFFSET.load(Relaxed), mode, items.as_ptr(), items.len() as u64) };
    true
}

/// Appends `events` to this CPU's ring, if there is room for all of them; otherwise as [`add`]. All or nothing.
///
/// A ring is a slot of four words: the tail, which counts on for ever; where the events are; how far the tail may go;
/// and the number of places less one, all ones in binary. What was done before is visible to whoever reads the tail
/// (Acquire) afterwards.
///
/// # Costs
///
/// Some fifteen instructions per event; otherwise as [`pop_many`].
///
/// # Safety
///
/// 1. As [`add`].
/// 2. `events` is not empty.
/// 3. The second word of every slot is the address of as many events as the fourth word says, and one. Both never
///    change. Places from the tail to the third word are nobody's but the sections'.
#[inline(always)]
pub(crate) unsafe fn append(
    mode: *const AtomicU64,
    events: &[[u64; 4]],
    _: impl FnOnce(u64, u32) -> bool,
) -> bool {
    debug_assert!(!events.is_empty(), "as in `pop_many`");
    // SAFETY: as in `add`, with 3.; the loop ends, since there is an event.
    unsafe { arch::append!(OFFSET.load(Relaxed), mode, events.as_ptr(), events.len() as u64) };
    true
}

/// Restarts every section of this process that is under way, and orders everything that threads did before
/// against everything after. What the caller stored before is seen by every section that begins, or begins
/// again, afterwards. Returns whether it could: a filter installed after [`kind`] was asked may forbid it.
#[must_use]
pub(crate) fn fence() -> bool {
    membarrier(MembarrierCommand::PrivateExpeditedRseq).is_ok()
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "stack_tests.rs"]
mod stack_tests;
#[cfg(all(test, target_arch = "x86_64"))]
#[path = "tests.rs"]
mod tests;
