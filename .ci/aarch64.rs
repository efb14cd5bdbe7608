//! Just enough of a language to assemble `src/sync/rseq/aarch64.rs` where there is no standard library for that
//! processor. Compiled by `.ci/aarch64`, never run.
#![feature(no_core, lang_items, rustc_attrs, decl_macro, auto_traits, arbitrary_self_types, intrinsics)]
#![allow(internal_features, dead_code, unused_imports)]
#![no_core]
#![crate_type = "lib"]

extern crate self as std;

#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}
#[lang = "freeze"]
pub unsafe auto trait Freeze {}
#[lang = "copy"]
pub trait Copy {}
impl<T: PointeeSized> Copy for *const T {}
impl<T: PointeeSized> Copy for *mut T {}
impl Copy for i32 {}
impl Copy for i64 {}
impl Copy for isize {}
impl Copy for u32 {}
impl Copy for u64 {}

pub mod arch {
    #[rustc_builtin_macro]
    pub macro asm("assembly template", $(operands,)* $(options($(option),*))?) {
        /* compiler built-in */
    }
    #[rustc_builtin_macro]
    pub macro global_asm("assembly template", $(operands,)* $(options($(option),*))?) {
        /* compiler built-in */
    }
}

const ONE: i64 = 2;

mod aarch64;

use aarch64::{SIGNATURE, add, append, pop, pop_many, push, push_many, put, section, take};
use arch::asm;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn get(mode: *const u64, area: isize) -> bool {
    unsafe { add!(area, mode, const ONE) };
    true
}

/// A section that is far from where it gives up to: as in a function that has much to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_far(mode: *const u64, area: isize) -> bool {
    unsafe {
        add!(area, mode, const ONE);
        asm!(".rept 9000", "nop", ".endr");
    }
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn put_many(mode: *const u64, area: isize, step: i64) -> bool {
    unsafe { add!(area, mode, in(reg) step) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn take_credits(mode: *const u64, area: isize, n: u64) -> bool {
    unsafe { take!(area, mode, n) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn put_credits(mode: *const u64, area: isize, n: u64, limit: u64) -> bool {
    unsafe { put!(area, mode, n, limit) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pop_tag(mode: *const u64, area: isize, tag: *mut u32) -> bool {
    unsafe { pop!(area, mode, tag) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn push_tag(mode: *const u64, area: isize, tag: u32) -> bool {
    unsafe { push!(area, mode, tag) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pop_tags(mode: *const u64, area: isize, tags: *mut u32, n: u64) -> bool {
    unsafe { pop_many!(area, mode, tags, n) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn push_tags(mode: *const u64, area: isize, tags: *const u32, n: u64) -> bool {
    unsafe { push_many!(area, mode, tags, n) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn append_events(mode: *const u64, area: isize, events: *const [u64; 4], n: u64) -> bool {
    unsafe { append!(area, mode, events, n) };
    true
}

#[unsafe(no_mangle)]
pub extern "C" fn cpu_id(offset: isize) -> i32 {
    unsafe { aarch64::cpu_id(offset) }
}

#[unsafe(no_mangle)]
pub extern "C" fn libc_offset() -> *const isize {
    aarch64::symbols().0
}

#[unsafe(no_mangle)]
pub extern "C" fn own_area() -> *mut u8 {
    aarch64::thread_pointer()
}

#[unsafe(no_mangle)]
pub extern "C" fn own_offset() -> isize {
    aarch64::own_offset()
}
