//! `scimtail state` on a million memberships, as a whole process against the real broker: `cargo bench --bench state`.
//!
//! Scimtail itself fills the topics from the directory of `benches/sync.rs`; output goes to /dev/null. Nothing is
//! asserted but the count of lines, because a figure about wrong data is void.

#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

#[path = "support/directory.rs"]
mod directory;
#[path = "../tests/it/services.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod services;

use std::process::{Command, Stdio};
use std::time::Instant;

use directory::BenchDirectory;

const TOKEN: &str = "bench-token";
const USERS: usize = 100_000;
const GROUPS: usize = 5_000;
const MEMBERSHIPS: usize = 1_000_000;
const PAGE: usize = 1_000;
const ROUNDS: usize = 3;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let directory = runtime.block_on(BenchDirectory::start(USERS, GROUPS, MEMBERSHIPS, PAGE, TOKEN));
    let services = services::services();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("scimtail.toml");
    let text = format!(
        "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{}\"\npartitions = 1\nreplication = 1\n[registry]\nurl = \"{}\"\n\
         [[account]]\nname = \"bench\"\nprovider = \"generic\"\nbase_url = \"{}\"\ntoken_env = \"BENCH_TOKEN\"\n\
         [account.profile]\npage_size = {PAGE}\n",
        services.bootstrap,
        services::unique_prefix("bench-state"),
        services.registry,
        directory.base_url(),
    );
    std::fs::write(&file, text).expect("a configuration file");
    let scimtail = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scimtail"));
        command.arg("--config").arg(&file).args(arguments).env("BENCH_TOKEN", TOKEN).stdin(Stdio::null());
        command
    };
    let loaded = scimtail(&["run", "--once"]).status().expect("the program runs");
    assert!(loaded.success(), "the first load");
    drop(directory);

    println!("{USERS} users, {GROUPS} groups, {MEMBERSHIPS} memberships; whole processes, medians of {ROUNDS}");
    println!("{:32} {:>8} {:>8}", "", "wall s", "CPU s");
    for arguments in [
        ["state", "memberships", "--format", "json"],
        ["state", "memberships", "--format", "csv"],
        ["state", "access", "--format", "json"],
        ["state", "access", "--format", "csv"],
        ["state", "access", "--format", "text"],
    ] {
        let counted = scimtail(&arguments).stderr(Stdio::null()).output().expect("the program runs");
        let lines = counted.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, MEMBERSHIPS + usize::from(arguments[3] != "json"), "{arguments:?}");
        let mut figures: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let (started, cpu) = (Instant::now(), children_cpu_seconds());
                let status = scimtail(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
                assert!(status.expect("the program runs").success());
                (started.elapsed().as_secs_f64(), children_cpu_seconds() - cpu)
            })
            .collect();
        figures.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (wall, cpu) = figures[ROUNDS / 2];
        println!("{:32} {wall:>8.2} {cpu:>8.2}", arguments.join(" "));
    }
}

/// User and system time of the processes that were waited for; 0 where /proc does not say.
fn children_cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after.split_whitespace().skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum::<f64>() / TICKS_PER_SECOND
}
