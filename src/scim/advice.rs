//! What an answer's headers say about the pace: Retry-After, and the remaining requests of a rate limit.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Longest pause that an answer can ask for.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
/// From this on a number is a time in seconds since 1970-01-01 UTC (2001), not a delay (32 years).
const EPOCH_SECONDS_MIN: f64 = 1e9;
/// From this on it is one in milliseconds (2001), not in seconds (the year 33658).
const EPOCH_MILLIS_MIN: f64 = 1e12;

/// Headers that state a limit, what remains of it, and when it is reset.
const FAMILIES: [[&str; 3]; 3] = [
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"],
];

/// What the headers of one answer ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The status is 429.
    pub throttled: bool,
    /// Before the next request, of a 429 or 5xx; above zero, at most [`PAUSE_MAX`].
    pub wait: Option<Duration>,
    /// How many requests are left, if the answer says so.
    pub left: Option<Left>,
}

/// How many requests a rate limit leaves, and how long that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub requests: u64,
    /// Until the limit is reset; above zero, at most [`PAUSE_MAX`].
    pub reset: Duration,
}

/// One rate limit as the headers state it; a text is empty where they state nothing.
struct Stated<'h> {
    limit: &'h str,
    remaining: &'h str,
    reset: &'h str,
}

impl Stated<'_> {
    /// The requests left of this share of the limit. Where the limit is not stated, all that remain.
    fn left(&self, share: f64) -> Option<u64> {
        let remaining = count(self.remaining)?;
        let others = count(self.limit).map_or(0.0, |limit| (limit as f64 * (1.0 - share)).ceil());
        Some(remaining.saturating_sub(others as u64))
    }
}

impl Advice {
    /// No wait is longer than `longest`, whatever the server asks for.
    pub fn at_most(self, longest: Duration) -> Advice {
        let left = self.left.map(|left| Left { reset: left.reset.min(longest), ..left });
        Advice { wait: self.wait.map(|wait| wait.min(longest)), left, ..self }
    }

    /// Reads Retry-After (RFC 9110 §10.2.3) and what vendors send of RateLimit (draft-ietf-httpapi-ratelimit-headers,
    /// old and new), X-RateLimit-* and X-Rate-Limit-*. What cannot be understood is ignored. `now`: milliseconds since
    /// 1970-01-01 UTC; the server's `Date` is preferred, because its other times are of the same clock. `share`: the
    /// part of a stated limit that may be used, above 0 and at most 1; the rest is left to others.
    pub fn read(status: StatusCode, headers: &HeaderMap, now: i64, share: f64) -> Advice {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let now = text(DATE.as_str()).and_then(date_millis).unwrap_or(now);
        let mut stated: Vec<Stated<'_>> = Vec::new();
        for line in headers.get_all("ratelimit").iter().filter_map(|value| value.to_str().ok()) {
            stated.extend(items(line));
        }
        for names in FAMILIES {
            let [limit, remaining, reset] = names.map(|name| text(name).unwrap_or_default());
            stated.push(Stated { limit, remaining, reset });
        }
        let throttled = status == StatusCode::TOO_MANY_REQUESTS;
        let reset = stated.iter().filter_map(|limit| delay(limit.reset, now)).max();
        let wait = text(RETRY_AFTER.as_str()).and_then(|text| delay(text, now)).or(reset.filter(|_| throttled));
        let left = stated
            .iter()
            .filter_map(|limit| Some(Left { requests: limit.left(share)?, reset: delay(limit.reset, now)? }));
        Advice {
            throttled,
            wait: wait.filter(|_| throttled || status.is_server_error()),
            // Of several limits the one that is used up first.
            left: left.min_by_key(|left| (left.requests, Reverse(left.reset))),
        }
    }
}

/// The limits of one `RateLimit` header: `"default";r=50;t=30` (a list), or, in older drafts, all of it
/// `limit=100, remaining=50, reset=30`.
fn items(line: &str) -> Vec<Stated<'_>> {
    fn value<'a>(parameters: &'a str, names: &[&str]) -> &'a str {
        let mut pairs = parameters.split([';', ',']).filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| names.contains(&name.trim())).map_or("", |(_, value)| value.trim())
    }
    if line.contains("remaining") {
        let (limit, remaining, reset) = (value(line, &["limit"]), value(line, &["remaining"]), value(line, &["reset"]));
        return vec![Stated { limit, remaining, reset }];
    }
    let stated = |item| Stated { limit: "", remaining: value(item, &["r"]), reset: value(item, &["t"]) };
    line.split(',').map(stated).collect()
}

fn count(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

/// Seconds to wait, seconds or milliseconds since 1970, told apart by magnitude, or a date. `None`: not above zero.
fn delay(text: &str, now: i64) -> Option<Duration> {
    let millis = match text.parse::<f64>() {
        Ok(number) if !number.is_finite() => return None,
        Ok(number) if number >= EPOCH_MILLIS_MIN => number - now as f64,
        Ok(number) if number >= EPOCH_SECONDS_MIN => number * 1000.0 - now as f64,
        Ok(number) => number * 1000.0,
        Err(_) => (date_millis(text)? - now) as f64,
    };
    let bounded = millis.min(PAUSE_MAX.as_millis() as f64);
    (bounded >= 1.0).then(|| Duration::from_millis(bounded as u64))
}

/// An HTTP-date (RFC 9110 §5.6.7) or RFC 3339, in milliseconds since 1970-01-01 UTC.
fn date_millis(text: &str) -> Option<i64> {
    if let Ok(time) = httpdate::parse_http_date(text) {
        return i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok();
    }
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// 2026-01-01T00:00:00Z.
    const EPOCH: i64 = 1_767_225_600_000;

    fn headers(fields: &[(&'static str, String)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_understood_in_every_form_and_bounded() {
        let wait = |fields: &[(&'static str, &str)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Advice::read(StatusCode::SERVICE_UNAVAILABLE, &headers(&fields), EPOCH, 1.0)
                .wait
                .map(|wait| wait.as_millis())
        };
        for (text, expected) in [
            ("120", Some(120_000)),
            ("1.5", Some(1_500)),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90_000)),
            ("2026-01-01T00:01:30Z", Some(90_000)),
            // An hour; ten years, in seconds and as a date; more than any clock holds.
            ("3600", Some(300_000)),
            ("315360000", Some(300_000)),
            ("Tue, 01 Jan 2036 00:00:00 GMT", Some(300_000)),
            ("99999999999999999999999", Some(300_000)),
            // Not above zero, or no time at all.
            ("0", None),
            ("-5", None),
            ("Wed, 31 Dec 2025 00:00:00 GMT", None),
            ("inf", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(&[("retry-after", text)]), expected, "{text}");
        }
        // The server's own clock counts: here it is an hour behind ours.
        let date = ("date", "Wed, 31 Dec 2025 23:00:00 GMT");
        assert_eq!(wait(&[("retry-after", "Wed, 31 Dec 2025 23:00:20 GMT"), date]), Some(20_000));
    }

    #[test]
    fn resets_are_told_apart_by_magnitude_and_garbage_is_ignored() {
        let read = |fields: &[(&'static str, &str)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Advice::read(StatusCode::OK, &headers(&fields), EPOCH, 1.0)
        };
        for (reset, seconds) in [
            ("30", 30),
            ("1767225630", 30),
            ("1767225630000", 30),
            ("2026-01-01T00:00:30Z", 30),
            ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
            ("2082585600", 300),
        ] {
            for family in [["x-ratelimit-remaining", "x-ratelimit-reset"], ["ratelimit-remaining", "ratelimit-reset"]] {
                let advice = read(&[(family[0], "0"), (family[1], reset)]);
                assert_eq!(advice.left, Some(Left { requests: 0, reset: seconds * SECOND }), "{reset}");
                assert_eq!(advice.wait, None, "an accepted request was not throttled");
            }
        }
        for (remaining, reset) in
            [("0", "-1"), ("0", "1000000000"), ("-1", "30"), ("many", "30"), ("0", ""), ("", "30")]
        {
            let advice = read(&[("x-rate-limit-remaining", remaining), ("x-rate-limit-reset", reset)]);
            assert_eq!(advice, Advice::default(), "{remaining}, {reset}");
        }
        for (line, expected) in [
            ("\"default\";r=50;t=30", Some((50, 30))),
            ("\"a\";r=50;t=30, \"b\";r=2;t=7", Some((2, 7))),
            ("limit=100, remaining=0, reset=5", Some((0, 5))),
            ("default;r=0", None),
            (";;,,==", None),
        ] {
            let expected = expected.map(|(requests, t)| Left { requests, reset: t * SECOND });
            assert_eq!(read(&[("ratelimit", line)]).left, expected, "{line}");
        }
    }

    #[test]
    fn a_429_without_retry_after_waits_until_the_reset() {
        let fields = [("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", "12".to_owned())];
        let advice = Advice::read(StatusCode::TOO_MANY_REQUESTS, &headers(&fields), EPOCH, 1.0);
        assert_eq!((advice.throttled, advice.wait), (true, Some(12 * SECOND)));
    }
    #[test]
    fn a_share_of_a_stated_limit_leaves_the_rest_to_others() {
        let left = |limit: &str, remaining: &str, share: f64| {
            let fields = [
                ("x-rate-limit-limit", limit.to_owned()),
                ("x-rate-limit-remaining", remaining.to_owned()),
                ("x-rate-limit-reset", "30".to_owned()),
            ];
            Advice::read(StatusCode::OK, &headers(&fields), EPOCH, share).left.map(|left| left.requests)
        };
        assert_eq!(left("600", "599", 1.0), Some(599));
        assert_eq!(left("600", "599", 0.5), Some(299));
        assert_eq!(left("600", "300", 0.5), Some(0));
        assert_eq!(left("5", "3", 0.5), Some(0), "halves are rounded in favour of the others");
        assert_eq!(left("", "7", 0.5), Some(7));
    }
}
