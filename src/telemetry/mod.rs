//! Logs and metrics: ids and counts, never attributes of people.

mod accounts;
mod logs;
mod metric;

pub use accounts::{Carried, Kept, Owned, Refusal, begin, committed, configured, needs_person};
#[cfg(test)]
pub use logs::lines;
pub use logs::{LogFormat, start};
pub use metric::{Kind, Metric, OneMore, keep_metrics};
