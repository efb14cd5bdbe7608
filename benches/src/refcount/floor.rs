//! What no other thread can learn of, and so no count: the floor.

use super::Count;
use std::cell::Cell;
use std::hint::black_box;
use std::marker::PhantomData;

thread_local! {
    static HELD: Cell<u64> = const { Cell::new(0) };
}

/// A word per thread, the same for all objects, changed as Rust would.
#[derive(Debug, Default)]
pub struct ThreadLocal;

/// A reference counted in the thread's word.
#[derive(Debug)]
pub struct LocalRef(PhantomData<*const ()>);

fn add_local(n: u64) {
    // Through `black_box`, or the compiler would see that it comes to nothing.
    HELD.with(|held| black_box(held).set(held.get().wrapping_add(n)));
}

impl Drop for LocalRef {
    #[inline]
    fn drop(&mut self) {
        add_local(u64::MAX);
    }
}

impl Count for ThreadLocal {
    type Ref<'a> = LocalRef;

    #[inline]
    fn get(&self) -> LocalRef {
        add_local(1);
        LocalRef(PhantomData)
    }

    fn held(&self) -> u64 {
        HELD.get()
    }
}

/// The same word, changed by one instruction.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Default)]
pub struct Assembly;

/// A reference counted in the thread's word by one instruction.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub struct AssemblyRef(PhantomData<*const ()>);

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn add_in_place<const N: i32>() {
    HELD.with(|held| {
        // SAFETY: changes the thread's own word and the flags.
        unsafe {
            std::arch::asm!(
                "add qword ptr [{held}], {n}",
                held = in(reg) held.as_ptr(),
                n = const N,
                options(nostack),
            );
        }
    });
}

#[cfg(target_arch = "x86_64")]
impl Drop for AssemblyRef {
    #[inline]
    fn drop(&mut self) {
        add_in_place::<-1>();
    }
}

#[cfg(target_arch = "x86_64")]
impl Count for Assembly {
    type Ref<'a> = AssemblyRef;

    #[inline]
    fn get(&self) -> AssemblyRef {
        add_in_place::<1>();
        AssemblyRef(PhantomData)
    }

    fn held(&self) -> u64 {
        HELD.get()
    }
}

/// Takes no reference at all: what the loop costs, and whatever else is done in it. Not to be checked.
#[derive(Debug, Default)]
pub struct Nothing;

impl Count for Nothing {
    type Ref<'a> = ();

    #[inline]
    fn get(&self) {}

    fn held(&self) -> u64 {
        0
    }
}
