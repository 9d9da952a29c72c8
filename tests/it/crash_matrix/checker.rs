//! The other end of `check_topics.py`, which reads the topics after a run and judges them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::python::python;

pub struct Checker {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The checker's judgement of the records since the one before.
#[derive(Debug, Default, Deserialize)]
pub struct Judgement {
    pub complaints: Vec<String>,
    pub records: u64,
    pub events: u64,
    pub transactions: u64,
    pub completed: u64,
}

impl std::ops::AddAssign<&Judgement> for Judgement {
    fn add_assign(&mut self, other: &Judgement) {
        self.records += other.records;
        self.events += other.events;
        self.transactions += other.transactions;
        self.completed += other.completed;
    }
}

#[derive(Deserialize)]
struct Doctored {
    unnoticed: Vec<String>,
}

impl Checker {
    pub fn start(bootstrap: &str, registry: &str) -> Checker {
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
        let mut process = Command::new(python())
            .arg(format!("{tests}/crash_matrix/check_topics.py"))
            .args(["--bootstrap", bootstrap, "--registry", registry])
            .env("PYTHONPATH", tests)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter that `python` returned can be run");
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Checker { process, orders, answers }
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("the checker listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the checker answers");
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("the checker broke down at {order}: {answer}"))
    }

    /// A new world; `accounts` and their baselines.
    pub fn begin(&mut self, prefix: &str, partitions: i32, accounts: &[(String, &'static str)]) {
        let accounts: serde_json::Map<String, Value> =
            accounts.iter().map(|(name, baseline)| (name.clone(), json!({ "baseline": baseline }))).collect();
        self.order(&json!({ "begin": { "prefix": prefix, "partitions": partitions, "accounts": accounts } }));
    }

    pub fn version(&mut self, account: &str, mut version: Value) {
        version["account"] = json!(account);
        self.order(&json!({ "version": version }));
    }

    /// From now on there is no record of the account, or none but its `syncs` records.
    pub fn untouched(&mut self, account: &str, from: &str) {
        self.order(&json!({ "untouched": { "account": account, "from": from } }));
    }

    /// `denied`: by account, the principals for which a GET said 404 since the check before.
    pub fn check(&mut self, denied: &Value, converged: bool) -> Judgement {
        let answer = self.order(&json!({ "check": { "denied": denied, "converged": converged } }));
        serde_json::from_value(answer).expect("a judgement")
    }

    /// Keeps everything that was ordered and read in `file`.
    pub fn keep(&mut self, file: &std::path::Path) {
        self.order(&json!({ "keep": { "file": file } }));
    }

    /// Names the doctorings of the records that go unnoticed.
    pub fn unnoticed(&mut self) -> Vec<String> {
        let answer = self.order(&json!({ "doctor": {} }));
        serde_json::from_value::<Doctored>(answer).expect("a list").unnoticed
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
