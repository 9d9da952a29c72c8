//! How each account stands, from the topics alone: what `status` and the status page show.
//!
//! ```text
//! syncs ─► Seen ─┐
//! group ─► Owner ┴► standing ─► Standing: label, times, counts, reason, what to do
//! ```

mod following;
mod json;
mod recent;
mod seen;
mod standing;

pub use following::{Facts, Following};
pub use json::json;
pub use recent::{HOURS, Line, Recent};
pub use seen::{AllSeen, Seen, read_all};
pub use standing::{Counts, Label, Owner, Standing, Step, is_doubtful, standing};

use std::sync::Arc;

use crate::config::AccountConfig;
use crate::kafka::group::Group;

/// `30 accounts: 1 held, 29 connected; 1 needs a person`.
pub fn summary(standings: &[Standing]) -> String {
    let count = |label| standings.iter().filter(|standing| standing.label == label).count();
    let labels = Label::ALL.into_iter().map(|label| (count(label), label)).filter(|(count, _)| *count > 0);
    let labels: Vec<String> =
        labels.map(|(count, label)| format!("{count} {}", label.as_str().to_lowercase())).collect();
    let people = match standings.iter().filter(|standing| standing.needs_person).count() {
        0 => "none needs a person".to_owned(),
        1 => "1 needs a person".to_owned(),
        count => format!("{count} need a person"),
    };
    let accounts = if standings.len() == 1 { "1 account".to_owned() } else { format!("{} accounts", standings.len()) };
    format!("{accounts}: {}; {people}", labels.join(", "))
}

/// How the accounts stand, the gravest first, each group in the order of `accounts`. `group`: `None` if the members of
/// the consumer group may not be seen. `now`: milliseconds since 1970-01-01 UTC.
pub fn overview(accounts: &[Arc<AccountConfig>], seen: &AllSeen, group: Option<&Group>, now: i64) -> Vec<Standing> {
    let mut standings: Vec<Standing> = accounts
        .iter()
        .map(|config| {
            let owner = Owner::of(config.account.partition, group);
            standing(config, seen.get(&config.account.name).unwrap_or(&Seen::default()), owner, now)
        })
        .collect();
    standings.sort_by_key(|standing| (!standing.needs_person, standing.label));
    standings
}
