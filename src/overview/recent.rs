//! The changes of the last day: how many in each hour, and the newest ones.

use std::collections::HashMap;

use crate::avro::wire::ChangeEvent;
use crate::mapping::text;

/// Hours that the chart of an account shows.
pub const HOURS: usize = 24;
/// Milliseconds of one of them.
pub const HOUR_MS: i64 = 3_600_000;
/// Changes that are shown one by one.
pub const LAST_MAX: usize = 20;
/// Characters of a text that are shown.
const SHOWN_MAX: usize = 120;

/// An event for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    pub account: String,
    pub event_type: String,
    pub who: String,
    pub details: String,
}

impl Line {
    pub fn of(event: &ChangeEvent) -> Line {
        Line {
            at: event.observed_at,
            account: event.account.clone(),
            event_type: event.event_type.clone(),
            who: cut(&text::who(event)),
            details: cut(&text::rest(event).join("   ")),
        }
    }
}

fn cut(shown: &str) -> String {
    match shown.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.to_owned(),
    }
}

/// Events of each account by the hour in which Kafka received them, and the newest of all.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// By account: hours since 1970-01-01 UTC, and the events of each.
    counts: HashMap<String, HashMap<i64, u64>>,
    /// The newest last.
    last: Vec<Line>,
}

impl Recent {
    /// Counts one event. `at`: milliseconds since 1970-01-01 UTC.
    pub fn count(&mut self, account: &str, at: i64) {
        let hour = at.div_euclid(HOUR_MS);
        let counts = match self.counts.get_mut(account) {
            Some(counts) => counts,
            None => self.counts.entry(account.to_owned()).or_default(),
        };
        *counts.entry(hour).or_default() += 1;
        // A record with a time of its own in the past or future must not make this grow.
        if counts.len() > 2 * HOURS {
            let newest = counts.keys().copied().max().unwrap_or(hour);
            counts.retain(|kept, _| newest - kept < HOURS as i64);
        }
    }

    /// Keeps an event if it is among the newest.
    pub fn show(&mut self, line: Line) {
        let place = self.last.partition_point(|kept| kept.at <= line.at);
        self.last.insert(place, line);
        if self.last.len() > LAST_MAX {
            self.last.remove(0);
        }
    }

    /// Events of the account in each of the last hours, the present one last. `now`: milliseconds since 1970-01-01 UTC.
    pub fn hours(&self, account: &str, now: i64) -> [u64; HOURS] {
        let first = now.div_euclid(HOUR_MS) - HOURS as i64 + 1;
        let counts = self.counts.get(account);
        std::array::from_fn(|index| counts.and_then(|counts| counts.get(&(first + index as i64))).copied().unwrap_or(0))
    }

    /// The newest events, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Line> {
        self.last.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_the_hour_and_old_hours_are_forgotten() {
        let now = 1_000 * HOUR_MS + 5;
        let mut recent = Recent::default();
        for (account, hours_ago) in [("a", 0), ("a", 0), ("a", 23), ("a", 24), ("b", 1)] {
            recent.count(account, now - hours_ago * HOUR_MS);
        }
        let of = |account| recent.hours(account, now);
        assert_eq!((of("a")[23], of("a")[0], of("a").iter().sum()), (2, 1, 3));
        assert_eq!((of("b")[22], of("b").iter().sum::<u64>()), (1, 1));
        assert_eq!(of("c"), [0; HOURS]);
        for hour in 0..1_000 {
            recent.count("a", hour * HOUR_MS);
        }
        assert!(recent.counts["a"].len() <= 2 * HOURS);
    }

    #[test]
    fn the_newest_events_are_kept_in_order_whatever_the_order_in_which_they_come() {
        let mut recent = Recent::default();
        let line = |at| Line { at, ..Line::of(&ChangeEvent::default()) };
        for at in (0..100).map(|number| (number * 37) % 100) {
            recent.show(line(at));
        }
        let kept: Vec<i64> = recent.newest().map(|line| line.at).collect();
        assert_eq!(kept, (80..100).rev().collect::<Vec<i64>>());
    }
}
