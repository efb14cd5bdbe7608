//! Views of rings over any bytes, whose memory anybody writes. A property test in `tests/ring_view.rs` does the same.
#![no_main]

#[path = "../../tests/support/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::anything(input));
