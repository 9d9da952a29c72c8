//! Logs and metrics: ids and counts, never attributes of people.

mod accounts;
mod logs;
mod metric;
mod page;
mod process;
mod requests;

pub use accounts::{Carried, Held, Kept, Owned, Refusal, begin, committed, configured, holds, needs_person};
#[cfg(test)]
pub use logs::lines;
pub use logs::{LogFormat, start};
pub use metric::{Kind, Metric, OneMore};
pub use page::{Page, built_from, keep_metrics};
pub use requests::{Answer, Waited, requested};
