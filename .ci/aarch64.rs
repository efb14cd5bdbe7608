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

use aarch64::{SIGNATURE, section};
use arch::asm;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn get(mode: *const u64, area: isize) -> bool {
    unsafe { section!(area, mode, const ONE) };
    true
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn put_many(mode: *const u64, area: isize, step: i64) -> bool {
    unsafe { section!(area, mode, in(reg) step) };
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
