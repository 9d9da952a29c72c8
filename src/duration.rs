//! Durations as people write them, the same in the configuration, in profiles and on the command line.

use std::time::Duration;

/// A longer text is not repeated in a message: it is whatever stood there by mistake.
const REPEATED_MAX: usize = 24;

/// A duration with its unit: `90s`, `5m`, `1h 30m`, `7d`; a day has 24 hours here.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| wrong(text))?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong(text))?;
    Duration::try_from(duration).map_err(|_| wrong(text))
}

/// A duration in its largest unit, rounded down: `45 s`, `12 min`, `3 h`, `2 d`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn wrong(text: &str) -> String {
    let is_repeated = text.len() <= REPEATED_MAX && !text.contains(char::is_control);
    let what = if is_repeated { format!("`{text}`") } else { "the value".to_owned() };
    format!("{what} is not a duration; → a number with its unit, e.g. \"90s\", \"5m\", \"1h\", \"7d\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_up_to_weeks_and_are_not_negative() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs()).ok();
        assert_eq!(["90s", "5m", "1h 30m", "7d", "1w"].map(seconds), [90, 300, 5_400, 604_800, 604_800].map(Some));
        // A month is not a number of hours.
        assert_eq!(["90", "1mo", "-5m", "soon", ""].map(seconds), [None; 5]);
    }

    #[test]
    fn a_duration_is_told_in_its_largest_unit() {
        let told = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 900_000].map(told),
            ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "10 d"]
        );
    }

    #[test]
    fn what_is_not_a_duration_is_named_with_the_remedy_in_one_short_line() {
        let remedy = "is not a duration; → a number with its unit, e.g. \"90s\", \"5m\", \"1h\", \"7d\"";
        assert_eq!(parse_duration("60"), Err(format!("`60` {remedy}")));
        for text in ["5\nminutes", &"5m ".repeat(20), "sk_live_4f9a0b1c2d3e4f5a6b7c8d9e"] {
            assert_eq!(parse_duration(&format!("{text}?")), Err(format!("the value {remedy}")));
        }
    }
}
