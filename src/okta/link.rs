//! The next page, as a `Link` header names it (RFC 8288). It is opaque: it is followed as it stands or not at all.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use crate::directory::ReasonCode;
use crate::scim::ReadError;

/// Bytes of one link; a cursor of Okta is a part of it.
const LINK_BYTES_MAX: usize = 8_192;

/// The page behind the one at `asked`; `None` at the end of the list.
///
/// # Errors
/// The link leads to another host or to another list, where the credential must not go.
pub fn next(headers: &HeaderMap, asked: &Url) -> Result<Option<Url>, ReadError> {
    let lines = headers.get_all(LINK).iter().filter_map(|line| line.to_str().ok());
    let Some(target) = lines.flat_map(links).find_map(|(target, is_next)| is_next.then_some(target)) else {
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

/// The targets of one header line, and whether their relation is `next`. A comma may be inside a target.
fn links(line: &str) -> Vec<(&str, bool)> {
    let mut links = Vec::new();
    let mut rest = line;
    while let Some((_, from)) = rest.split_once('<') {
        let Some((target, behind)) = from.split_once('>') else { break };
        let parameters = behind.split('<').next().unwrap_or_default();
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return false };
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        links.push((target, is_next));
        rest = behind;
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(lines: &[&str]) -> Result<Option<String>, String> {
        let asked = Url::parse("https://acme.okta.com/api/v1/users?limit=200").unwrap();
        let headers = lines.iter().map(|line| (LINK, line.parse().unwrap())).collect();
        next(&headers, &asked).map(|url| url.map(String::from)).map_err(|error| error.to_string())
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
        assert_eq!(followed(&[&format!("{own}; rel=\"self\"")]), Ok(None));
        assert_eq!(followed(&["<x", "; rel=\"next\"", ""]), Ok(None));
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
