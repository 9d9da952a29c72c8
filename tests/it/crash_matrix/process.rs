//! A scimtail that may die at a fail point.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;

use crate::program::TOKEN_VARIABLE;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Exit codes of a scimtail that no fault killed: done, a service is unreachable, try later. Nothing that strikes here
/// is a matter of configuration (78), and nothing may make it panic (101).
const EXIT_CODES: [i32; 3] = [0, 69, 75];

pub struct Process {
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// The state of a process, as far as the test waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// By SIGKILL.
    Killed,
    /// By itself, with this code; -1 for any other signal.
    Exited(i32),
}

impl Process {
    /// Starts `scimtail ARGUMENTS` with the log in `log`; `failpoints` as `FAILPOINTS`.
    pub fn start(config: &str, token: &str, arguments: &[&str], failpoints: &str, log: PathBuf) -> Process {
        let output = File::create(&log).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_scimtail"));
        command
            .args(["--config", config, "--log-format", "json", "--log-level", "info"])
            .args(arguments)
            .env(TOKEN_VARIABLE, token)
            .env("FAILPOINTS", failpoints)
            .env("USER", "tester")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        Process { child: command.spawn().expect("the program starts"), log, status: None }
    }

    /// `None` while it still runs.
    pub fn end(&mut self) -> Option<End> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the child can be asked");
        }
        let status = self.status?;
        let killed = status.signal() == Some(9);
        Some(if killed { End::Killed } else { End::Exited(status.code().unwrap_or(-1)) })
    }

    /// Stopped by SIGSTOP, at a fail point.
    pub fn is_stopped(&self) -> bool {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the id of a process");
        // NOWAIT: the end of the process stays for `end` to hear of.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(id), options), Ok(Some(status)) if status.stopped())
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).stderr(Stdio::null()).status();
        sent.expect("kill runs");
    }

    /// Waits until `done`, or the process ended.
    ///
    /// # Errors
    /// Neither within `bound`.
    pub async fn until(
        &mut self,
        what: &str,
        bound: Duration,
        mut done: impl FnMut(&Process) -> bool,
    ) -> Result<Option<End>, String> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(end) = self.end() {
                return Ok(Some(end));
            }
            if done(self) {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {bound:?}; {}", self.tail()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// # Errors
    /// It does not end within `bound`.
    pub async fn ended(&mut self, bound: Duration) -> Result<End, String> {
        let end = self.until("the process ends", bound, |_| false).await?;
        Ok(end.expect("it waits for nothing else"))
    }

    /// As [`Process::ended`], for one that a fault may have killed.
    ///
    /// # Errors
    /// It ended by itself with a code that no fault excuses.
    pub async fn ended_as_it_may(&mut self, bound: Duration) -> Result<End, String> {
        match self.ended(bound).await? {
            End::Exited(code) if !EXIT_CODES.contains(&code) => {
                Err(format!("it ended with exit code {code}, not one of {EXIT_CODES:?}: {}", self.tail()))
            }
            end => Ok(end),
        }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whole lines of the log that say `message`.
    pub fn says(&self, message: &str) -> Vec<Value> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// How often a sync of `account` completed.
    pub fn completed(&self, account: &str) -> usize {
        self.says("sync completed").iter().filter(|line| line["account"] == account).count()
    }

    /// The shards that the group assigned to this service and that it has acquired since then.
    pub fn shards(&self) -> BTreeSet<i64> {
        let mut shards = BTreeSet::new();
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            match line["message"].as_str().unwrap_or_default() {
                "shard acquired" => shards.extend(line["partition"].as_i64()),
                // Assigned, given away, lost: in any case not acquired since then.
                message if message.starts_with("shards ") => {
                    let text = line["partitions"].as_str().unwrap_or_default();
                    let numbers = text.split(|character: char| !character.is_ascii_digit());
                    for number in numbers.filter_map(|number| number.parse().ok()) {
                        shards.remove(&number);
                    }
                }
                _ => {}
            }
        }
        shards
    }

    /// The end of the log.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
