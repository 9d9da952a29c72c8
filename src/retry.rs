//! The one place that knows the back-off crate: exponential waits with jitter, bounded in count.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Waits between attempts.
pub struct Waits {
    backoff: ExponentialBackoff,
    left: Option<u32>,
}

impl Waits {
    /// `attempts` counts the first one too; waits grow from `first` to `longest`, each with jitter.
    pub fn bounded(attempts: u32, first: Duration, longest: Duration) -> Waits {
        Waits { left: Some(attempts.saturating_sub(1)), ..Waits::endless(first, longest) }
    }

    /// For loops that go on until shutdown.
    pub fn endless(first: Duration, longest: Duration) -> Waits {
        let backoff = ExponentialBackoff {
            initial_interval: first,
            current_interval: first,
            max_interval: longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Waits { backoff, left: None }
    }

    /// How long to wait before the next attempt; `None` if there is none.
    pub fn next_wait(&mut self) -> Option<Duration> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        self.backoff.next_backoff()
    }

    /// After a success the next wait is short again.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_retry_waits_once_less_than_it_tries() {
        let mut waits = Waits::bounded(3, Duration::from_millis(10), Duration::from_secs(1));
        assert!(waits.next_wait().is_some());
        assert!(waits.next_wait().is_some());
        assert_eq!(waits.next_wait(), None);
    }
}
