//! One body of a list: split into rows, and each row read.
#![no_main]

#[path = "../../tests/it/hostile/checks.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod checks;

libfuzzer_sys::fuzz_target!(|body: &[u8]| checks::list_response(body));
