//! What a recording says of an answer's headers. A header is written only as far as its form is known.

use std::collections::BTreeMap;

use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, LINK, RETRY_AFTER};

/// Values of one header.
const VALUES_MAX: usize = 4;
/// From this on a number is a time since 1970 (2001), and not a delay or a count.
const EPOCH_SECONDS_MIN: u64 = 1_000_000_000;

const MEDIA_TYPES: [&str; 7] = [
    "application/scim+json",
    "application/json",
    "application/problem+json",
    "application/xml",
    "text/html",
    "text/plain",
    "text/xml",
];
const RELATIONS: [&str; 6] = ["next", "prev", "previous", "first", "last", "self"];

/// Name → value. Every other header is left out, its name included.
pub(super) fn shown(headers: &HeaderMap) -> BTreeMap<&'static str, String> {
    let values = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().take(VALUES_MAX);
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned()).collect()
    };
    let mut shown = BTreeMap::new();
    let mut add = |name: &'static str, value: Option<String>| drop(value.map(|value| shown.insert(name, value)));
    add("content-type", values(CONTENT_TYPE.as_str()).first().map(|value| media_type(value)));
    add("retry-after", values(RETRY_AFTER.as_str()).first().map(|value| delay(value)));
    let etag = |value: &String| if value.starts_with("W/") { "weak" } else { "strong" }.to_owned();
    add("etag", values(ETAG.as_str()).first().map(etag));
    let links = values(LINK.as_str());
    add("link", (!links.is_empty()).then(|| relations(&links)));
    for name in ["ratelimit", "ratelimit-policy"] {
        let lines = values(name);
        add(name, (!lines.is_empty()).then(|| lines.iter().map(|line| limits(line)).collect::<Vec<_>>().join(", ")));
    }
    for name in [
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-rate-limit-limit",
        "x-rate-limit-remaining",
        "x-rate-limit-reset",
    ] {
        add(name, values(name).first().map(|value| delay(value)));
    }
    shown
}

fn media_type(value: &str) -> String {
    let mut parts = value.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let known = MEDIA_TYPES.iter().find(|known| **known == essence).map_or("another", |known| known);
    let charset = parts.find_map(|part| part.strip_prefix("charset=").map(|value| value.trim_matches('"').to_owned()));
    match charset.as_deref() {
        None => known.to_owned(),
        Some("utf-8") => format!("{known}; charset=utf-8"),
        Some(_) => format!("{known}; charset=another"),
    }
}

/// A number that is a delay or a count; of anything else its form only.
fn delay(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => match number as u64 {
            whole if whole >= EPOCH_SECONDS_MIN * 1_000 => "milliseconds since 1970".to_owned(),
            whole if whole >= EPOCH_SECONDS_MIN => "seconds since 1970".to_owned(),
            whole => whole.to_string(),
        },
        _ if httpdate::parse_http_date(value).is_ok() => "a date".to_owned(),
        _ => "another form".to_owned(),
    }
}

/// The numbers of a `RateLimit` header, without the names of its policies.
fn limits(line: &str) -> String {
    const PARAMETERS: [&str; 8] = ["r", "t", "q", "w", "limit", "remaining", "reset", "window"];
    let pairs = line.split([';', ',']).filter_map(|pair| pair.split_once('='));
    let known = pairs.filter_map(|(name, value)| {
        let name = PARAMETERS.iter().find(|known| **known == name.trim())?;
        Some(format!("{name}={}", delay(value.trim())))
    });
    known.take(PARAMETERS.len()).collect::<Vec<_>>().join(";")
}

/// The relations of `Link` (RFC 8288), without their targets.
fn relations(links: &[String]) -> String {
    let said = links.iter().flat_map(|line| line.split("rel=").skip(1));
    let words = said.map(|rest| rest.trim_start_matches('"').split(['"', ';', ',']).next().unwrap_or_default());
    let known =
        words.map(|word| RELATIONS.iter().find(|known| **known == word.trim()).map_or("another", |known| known));
    let known: Vec<String> = known.take(RELATIONS.len()).map(|relation| format!("rel={relation}")).collect();
    if known.is_empty() { "another form".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        shown(&map).into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn headers_keep_their_form_and_lose_what_they_name() {
        let shown = of(&[
            ("content-type", "application/scim+json;charset=UTF-8;tenant=canary"),
            ("retry-after", "30"),
            ("etag", "W/\"canary\""),
            ("link", "<https://canary.example/Users?cursor=canary>; rel=\"next\", </canary>; rel=canary"),
            ("ratelimit", "\"canary\";r=50;t=30;pk=:canary:"),
            ("x-ratelimit-reset", "1741064767"),
            ("x-ratelimit-remaining", "canary"),
            ("x-request-id", "canary"),
            ("set-cookie", "canary=canary"),
        ]);
        assert_eq!(
            shown,
            [
                "content-type: application/scim+json; charset=utf-8",
                "etag: weak",
                "link: rel=next, rel=another",
                "ratelimit: r=50;t=30",
                "retry-after: 30",
                "x-ratelimit-remaining: another form",
                "x-ratelimit-reset: seconds since 1970",
            ]
        );
        assert_eq!(
            of(&[("content-type", "canary/canary; charset=canary")]),
            ["content-type: another; charset=another"]
        );
        assert_eq!(of(&[("retry-after", "Tue, 04 Mar 2025 05:06:07 GMT")]), ["retry-after: a date"]);
    }
}
