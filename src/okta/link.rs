//! The next page, as a `Link` header names it (RFC 8288). It is opaque: it is followed as it stands or not at all.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use crate::directory::ReasonCode;
use crate::scim::ReadError;

/// Bytes of one link; a cursor of Okta is a part of it.
const LINK_BYTES_MAX: usize = 8_192;

/// The page behind the one at `asked`, which has so many `rows`; `None` at the end of the list.
///
/// Okta links each page to itself, also the last one. A full page without any link has lost it on the way, and the rest
/// of the list with it.
///
/// # Errors
/// The link is lost or cannot be read. Or it leads to another host or to another list, where the credential must not go.
pub fn next(headers: &HeaderMap, asked: &Url, rows: usize) -> Result<Option<Url>, ReadError> {
    let mut found = Vec::new();
    for line in headers.get_all(LINK) {
        let line = line.to_str().map_err(|_| lost("is not text"))?;
        found.extend(links(line).ok_or_else(|| lost("is cut off"))?);
    }
    let limit = asked.query_pairs().find(|(name, _)| name == "limit").and_then(|(_, limit)| limit.parse().ok());
    if found.is_empty() && limit.is_some_and(|limit: usize| rows >= limit) {
        return Err(lost("is missing"));
    }
    let Some(target) = found.into_iter().find_map(|(target, is_next)| is_next.then_some(target)) else {
        return Ok(None);
    };
    let refused = |what: &str| {
        let text = format!("the link to the next page {what}, and scimtail does not follow it");
        ReadError::new(ReasonCode::Redirected, text)
            .with_remedy("base_url = the address that the organisation is reached by")
    };
    if target.len() > LINK_BYTES_MAX {
        return Err(refused("is longer than any"));
    }
    let url = asked.join(target).map_err(|_| refused("is not a URL"))?;
    if url.origin() != asked.origin() {
        return Err(refused("leads to another host"));
    }
    if url.path() != asked.path() {
        return Err(refused("leads to another list"));
    }
    Ok(Some(url))
}

/// The error of a page of which it is not known whether the list goes on.
pub fn lost(what: &str) -> ReadError {
    let text = format!("the header Link of a page {what}, so that it is not known whether the list goes on");
    ReadError::new(ReasonCode::NotAListResponse, text)
        .with_remedy("look for a proxy or gateway in between that changes headers")
}

/// The first page of a list again, with one row, if the page at `asked` is one and is full.
///
/// Such a page need not be the last one if it has no next one: Okta writes one header for each link, and a proxy may pass
/// one of them only. A page with one row of several has a next one in any case.
pub fn first_row(asked: &Url, rows: usize) -> Option<Url> {
    let query = |wanted: &str| asked.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let limit: usize = query("limit")?.parse().ok()?;
    if limit < 2 || rows < limit || query("after").is_some() {
        return None;
    }
    let others = asked.query_pairs().filter(|(name, _)| name != "limit");
    let mut url = asked.clone();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair("limit", "1");
    Some(url)
}

/// The targets of one header line, and whether their relation is `next`. A comma may be inside a target. `None`: the
/// line is cut off, as every link states a relation.
fn links(line: &str) -> Option<Vec<(&str, bool)>> {
    let mut links = Vec::new();
    let mut rest = line;
    while let Some((_, from)) = rest.split_once('<') {
        let (target, behind) = from.split_once('>')?;
        let (parameters, others) = parameters(behind)?;
        let relations = parameters.into_iter().find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("rel").then(|| value.trim().trim_matches('"'))
        })?;
        let is_next = relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"));
        links.push((target, is_next));
        rest = others;
    }
    Some(links)
}

/// The parameters of one link, and what follows the link. Signs in quotes are text (RFC 9110 §5.6.4). `None`: a quote
/// is not closed.
fn parameters(text: &str) -> Option<(Vec<&str>, &str)> {
    let (mut parameters, mut begin) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, sign) in text.char_indices() {
        match sign {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' | ',' | '<' if !quoted => {
                parameters.push(&text[begin..at]);
                begin = at + 1;
                if sign != ';' {
                    return Some((parameters, &text[at..]));
                }
            }
            _ => {}
        }
    }
    parameters.push(&text[begin..]);
    (!quoted).then_some((parameters, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(lines: &[&str]) -> Result<Option<String>, String> {
        let asked = Url::parse("https://acme.okta.com/api/v1/users?limit=200").unwrap();
        let headers = lines.iter().map(|line| (LINK, line.parse().unwrap())).collect();
        next(&headers, &asked, 200).map(|url| url.map(String::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_next_page_is_the_link_of_that_relation_as_it_stands() {
        let page = |url: &str| Ok(Some(url.to_owned()));
        let (own, other) =
            ("<https://acme.okta.com/api/v1/users?limit=200>", "https://acme.okta.com/api/v1/users?after=a,b%3E");
        assert_eq!(followed(&[&format!("{own}; rel=\"self\""), &format!("<{other}>; rel=\"next\"")]), page(other));
        assert_eq!(followed(&[&format!("{own}; rel=\"self\", <{other}>; rel=next")]), page(other));
        assert_eq!(
            followed(&["</api/v1/users?after=1>; title=\"x\"; Rel=\"next last\""]),
            page("https://acme.okta.com/api/v1/users?after=1")
        );
        let quoted = r#"title="a \", <b>; rel=next""#;
        assert_eq!(
            followed(&[&format!("{own}; {quoted}; rel=\"self\", <{other}>; {quoted}; rel=\"next\"")]),
            page(other)
        );
        assert_eq!(followed(&[&format!("{own}; rel=\"self\"")]), Ok(None));
        assert_eq!(followed(&["</x>; rel=\"self\"", "; rel=\"next\"", ""]), Ok(None));
    }

    #[test]
    fn a_full_page_whose_link_is_lost_is_not_the_end() {
        let own = "</x>; rel=\"self\"";
        let cut: [&[&str]; 7] = [
            &[],
            &["; rel=\"next\""],
            &["<x"],
            &["</x>; rel=\"self\", <https://acme"],
            &[own, "</y>"],
            &[own, "</y>; re"],
            &[own, "</y>; rel=\"nex"],
        ];
        for lines in cut {
            let refused = followed(lines).unwrap_err();
            assert!(refused.contains("so that it is not known whether the list goes on"), "{lines:?}: {refused}");
        }
        let asked = Url::parse("https://acme.okta.com/api/v1/users?limit=200").unwrap();
        assert_eq!(next(&HeaderMap::new(), &asked, 199).unwrap(), None, "a page with room left is the last one");
    }

    #[test]
    fn a_full_first_page_is_asked_for_again_with_one_row() {
        let again = |query: &str, rows: usize| {
            first_row(&Url::parse(&format!("https://acme.okta.com/api/v1/users?{query}")).unwrap(), rows)
                .map(String::from)
        };
        let filter = "filter=status+eq+%22DEPROVISIONED%22";
        let one = format!("https://acme.okta.com/api/v1/users?{filter}&limit=1");
        assert_eq!(again(&format!("limit=200&{filter}"), 200), Some(one));
        for (query, rows) in [("limit=200", 199), ("limit=200&after=1", 200), ("limit=1", 1), ("", 200)] {
            assert_eq!(again(query, rows), None, "{query}");
        }
    }

    #[test]
    fn a_link_to_another_host_or_list_is_not_followed() {
        for (target, words) in [
            ("https://evil.example/api/v1/users?after=1", "another host"),
            ("http://acme.okta.com/api/v1/users?after=1", "another host"),
            ("https://acme.okta.com:444/api/v1/users", "another host"),
            ("https://acme.okta.com/api/v1/logs", "another list"),
        ] {
            let error = followed(&[&format!("<{target}>; rel=\"next\"")]).unwrap_err();
            assert!(error.contains(words) && !error.contains("evil"), "{error}");
        }
    }
}
