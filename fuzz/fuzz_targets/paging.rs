//! The bodies of one walk, over a real connection.
#![no_main]

use std::sync::LazyLock;

#[path = "../../tests/it/hostile/checks.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod checks;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
});

libfuzzer_sys::fuzz_target!(|bodies: &[u8]| RUNTIME.block_on(checks::paging(bodies)));
