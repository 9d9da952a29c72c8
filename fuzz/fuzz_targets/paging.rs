//! The bodies of one walk, over a real connection.
#![no_main]

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

#[path = "../../tests/it/hostile/checks.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod checks;

static STARTED: LazyLock<(Runtime, checks::Pager)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let pager = runtime.block_on(checks::Pager::start());
    (runtime, pager)
});

libfuzzer_sys::fuzz_target!(|bodies: &[u8]| {
    let (runtime, pager) = &*STARTED;
    runtime.block_on(pager.paging(bodies));
});
