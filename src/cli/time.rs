//! Times on the command line and in the output.

use crate::duration::parse_duration;
use crate::schedule::now_millis;

/// Parses a time with its offset (2026-11-21T12:00:00Z), or a duration before now (2h, 7d). Returns milliseconds since
/// 1970-01-01 UTC.
///
/// # Errors
/// Says which forms are accepted.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let ago = parse_duration(text.strip_suffix(" ago").unwrap_or(text))
        .map_err(|_| "neither a time with its offset (2026-11-21T12:00:00Z) nor a duration (2h, 7d)".to_owned())?;
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(now_millis().saturating_sub(ago).max(0))
}

/// A time as [`parse_time`] accepts it, to the millisecond: `2026-11-21T12:00:00.000Z`. `millis` since 1970-01-01 UTC.
pub fn exactly(millis: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(millis).unwrap_or_default())
}
