//! The physical limits that figures of scimtail are compared with. Each command measures one of them, and prints its
//! figures as JSON. Time before the first request or transaction does not count.

mod kafka;
mod walk;

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage:
  limits walk BASE_URL TOKEN PAGE download|typed|raw|hash|places
  limits fleet BASE_URL TOKEN PAGE ACCOUNTS
  limits produce BROKERS FROM_PREFIX TO_PREFIX state|events
  limits consume BROKERS PREFIX
  limits commit BROKERS PREFIX RECORDS TRANSACTIONS";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let figures = match arguments[..] {
        ["walk", base_url, token, page, how] => walk::measure(base_url, token, number(page), how),
        ["fleet", base_url, token, page, accounts] => walk::fleet(base_url, token, number(page), number(accounts)),
        ["produce", brokers, from, to, what] => kafka::produce(brokers, from, to, what == "events"),
        ["consume", brokers, prefix] => kafka::consume(brokers, prefix),
        ["commit", brokers, prefix, records, transactions] => {
            kafka::commit(brokers, prefix, number(records), number(transactions))
        }
        _ => panic!("{USAGE}"),
    };
    println!("{figures}");
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a whole number; → {USAGE}"))
}

/// A measurement under way.
pub struct Stopwatch {
    started: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu() }
    }

    /// Seconds by the clock and of CPU, user and system, with further figures.
    pub fn stop(&self, further: Value) -> Value {
        let mut figures = further;
        figures["wall"] = json!(self.started.elapsed().as_secs_f64());
        figures["cpu"] = json!((cpu() - self.cpu).as_secs_f64());
        figures
    }
}

/// User and system time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("not negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("below a second"))
}
