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
    fn what_is_not_a_duration_is_named_with_the_remedy_in_one_short_line() {
        let remedy = "is not a duration; → a number with its unit, e.g. \"90s\", \"5m\", \"1h\", \"7d\"";
        assert_eq!(parse_duration("60"), Err(format!("`60` {remedy}")));
        for text in ["5\nminutes", &"5m ".repeat(20), "sk_live_4f9a0b1c2d3e4f5a6b7c8d9e"] {
            assert_eq!(parse_duration(&format!("{text}?")), Err(format!("the value {remedy}")));
        }
    }
}
