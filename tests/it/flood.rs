//! G11 on the program as it ships: directories that flood it beside a healthy one, and the cost of that.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use serde_json::Value;

use crate::hostile::flood::{Flood, flooding};
use crate::program::{AccountText, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "flood-test-token";
/// Accounts whose directories flood the program.
const FLOODS: [&str; 3] = ["bodies", "answers", "rows"];
/// How long they do so at least, and until each of them has reached its bound at most.
const FLOOD: Duration = Duration::from_secs(30);
const FLOOD_MAX: Duration = Duration::from_secs(240);
/// Most memory that the process may ever have had.
const RESIDENT_MAX: u64 = 512 << 20;
/// Bound on the interval of the healthy account: its second, and a share of the machine for other tests. Alone, it was
/// 1.33 s on two cores, unoptimised. A directory that held up the others would hold them up for minutes.
const BETWEEN_SYNCS_MAX: Duration = Duration::from_secs(15);

/// Most memory that the process ever had, in bytes.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("Linux says what it takes");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line for the peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Bodies of 64 MiB that are 92 KB on the wire, configurations and errors as large, and rows without end, each from a
/// separate account. The process stays small, and the account beside them misses no interval.
#[tokio::test(flavor = "multi_thread")]
async fn g11_directories_that_flood_the_process_take_neither_its_memory_nor_the_time_of_the_others() {
    let good =
        SimulatedDirectory::start(Vendor::Stripe, TOKEN, 1, std::time::SystemTime::now).await.expect("a directory");
    let floods = [flooding(Flood::Bodies).await, flooding(Flood::Answers).await, flooding(Flood::Rows).await];
    let url = |flood: usize| floods[flood].base_url().to_string();
    let account = |name, base_url| AccountText { name, provider: "generic", base_url, more: "" };
    let program = Program::new(
        services(),
        &unique_prefix("flood"),
        crate::hostile::TOKEN,
        "1s",
        &[
            AccountText {
                name: "good",
                provider: "stripe",
                base_url: good.base_url(),
                more: "token_env = \"GOOD_TOKEN\"",
            },
            account("bodies", url(0)),
            account("answers", url(1)),
            account("rows", url(2)),
        ],
    );
    // As on a small machine; the default is a quarter of the memory of the machine or the cgroup.
    let text = std::fs::read_to_string(program.file()).expect("the configuration");
    std::fs::write(program.file(), format!("{text}\n[limits]\nmemory = \"192MiB\"\n")).expect("it is written");
    assert_eq!(program.run(&["topics", "--create"]).await.code, 0);
    let mut command: Command = program.command(&["run", "--log-format", "json"]);
    let mut service = command.env("GOOD_TOKEN", TOKEN).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let log = BufReader::new(service.stderr.take().expect("standard error is piped"));
    let (sender, lines) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Ok(line) = serde_json::from_str::<Value>(&line) {
                drop(sender.send((Instant::now(), line)));
            }
        }
    });
    let watched = tokio::task::spawn_blocking(move || {
        let (mut completed, mut failed) = (Vec::new(), Vec::<String>::new());
        let begun = Instant::now();
        let mut deadline = begun + FLOOD;
        while let Ok((at, line)) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            match line["message"].as_str() {
                Some("sync completed") if line["account"] == "good" => completed.push(at),
                Some(text) if text.starts_with("sync failed") => failed.push(line["account"].to_string()),
                _ => {}
            }
            // Each flood has to reach its bound, however slow this build and this machine are.
            let all = FLOODS.iter().all(|name| failed.iter().any(|account| account.contains(name)));
            deadline = begun + if all { FLOOD } else { FLOOD_MAX };
        }
        (completed, failed)
    });
    let (completed, failed) = watched.await.expect("the log was read");
    let resident = peak(&service);
    service.kill().expect("it runs until it is told to end");
    service.wait().expect("it ended");
    reading.join().expect("the log was read to its end");
    let longest = completed.windows(2).map(|two| two[1] - two[0]).max().expect("it synced more than once");
    println!("{} MiB at most, {} syncs, {longest:?} between two, failed: {failed:?}", resident >> 20, completed.len());
    assert!(resident <= RESIDENT_MAX, "{} MiB", resident >> 20);
    assert!(longest <= BETWEEN_SYNCS_MAX, "{longest:?} between two syncs of the account that is well");
    for name in FLOODS {
        assert!(failed.iter().any(|account| account.contains(name)), "{name} does not fail: {failed:?}");
    }
}
