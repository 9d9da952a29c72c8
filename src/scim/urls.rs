//! The addresses of one SCIM endpoint.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::profile::{Operation, Profile};
use crate::directory::Kind;

/// Everything but the unreserved characters of RFC 3986 §2.3: ids hold slashes, percent signs and worse.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URLs of one endpoint: they are only ever built from the configured base, never from bodies.
#[derive(Clone, Debug)]
pub struct Urls {
    base: Url,
    /// The paths of the lists of users and groups, the base's own included. Made once: each request needs both.
    paths: [String; 2],
    /// Query parameters of lists and of GET by id, which the vendor asks for.
    params: BTreeMap<String, String>,
}

impl Urls {
    pub fn new(base: Url, profile: &Profile) -> Urls {
        let paths = Kind::BOTH.map(|kind| {
            // `base/Users/` if the profile says so: some servers redirect from the one to the other.
            below(&base, profile.path(kind).split('/')).path().to_owned()
        });
        Urls { base, paths, params: profile.list_params.clone() }
    }

    pub fn base(&self) -> &Url {
        &self.base
    }

    /// `base/Users/…`
    pub fn of(&self, parts: &[&str], query: &[(&str, String)]) -> Url {
        asked(below(&self.base, parts.iter().copied()), query)
    }

    /// `base/Users`
    pub fn list(&self, kind: Kind, query: &[(&str, String)]) -> Url {
        self.with_params(asked(self.list_of(kind), query))
    }

    /// `base/Users/ID`
    pub fn resource(&self, kind: Kind, id: &str, query: &[(&str, String)]) -> Url {
        self.with_params(asked(below(&self.list_of(kind), [id]), query))
    }

    /// `base/groups/ID/users`
    pub fn members(&self, group: &str, query: &[(&str, String)]) -> Url {
        asked(below(&self.list_of(Kind::Group), [group, "users"]), query)
    }

    fn list_of(&self, kind: Kind) -> Url {
        let mut url = self.base.clone();
        url.set_path(&self.paths[kind as usize]);
        url
    }

    fn with_params(&self, mut url: Url) -> Url {
        if !self.params.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.params);
        }
        url
    }

    /// What one of these URLs asks for, as rate limits tell requests apart.
    pub fn operation(&self, url: &Url) -> Option<Operation> {
        Kind::BOTH.into_iter().find_map(|kind| {
            let below = url.path().strip_prefix(self.paths[kind as usize].trim_end_matches('/'))?;
            let (lists, gets) = match kind {
                Kind::User => (Operation::ListUsers, Operation::GetUser),
                Kind::Group => (Operation::ListGroups, Operation::GetGroup),
            };
            match below {
                // POST /.search (RFC 7644 §3.4.3).
                "" | "/" | "/.search" => Some(lists),
                // Ids are encoded, so that another slash is another resource.
                _ if kind == Kind::Group && below.matches('/').count() > 1 => Some(Operation::ListMembers),
                _ => below.starts_with('/').then_some(gets),
            }
        })
    }
}

/// The resource at these parts of a path below `url`'s own.
fn below<'p>(url: &Url, parts: impl IntoIterator<Item = &'p str>) -> Url {
    let mut path = url.path().trim_end_matches('/').to_owned();
    for part in parts {
        path.push('/');
        path.extend(utf8_percent_encode(part, RESERVED));
    }
    let mut url = url.clone();
    url.set_path(&path);
    url
}

fn asked(mut url: Url, query: &[(&str, String)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_gets_carry_the_parameters_of_the_vendor_and_nothing_else_does() {
        let list_params = BTreeMap::from([("includeMembers".to_owned(), "a b&c".to_owned())]);
        let profile = Profile { list_params, ..Profile::named("generic").unwrap() };
        let urls = Urls::new(Url::parse("https://acme.example/scim/v2").unwrap(), &profile);
        let count = [("count", "1".to_owned())];
        for (url, query) in [
            (urls.list(Kind::Group, &count), Some("count=1&includeMembers=a+b%26c")),
            (urls.list(Kind::User, &[]), Some("includeMembers=a+b%26c")),
            (urls.resource(Kind::User, "1", &[]), Some("includeMembers=a+b%26c")),
            (urls.of(&["ServiceProviderConfig"], &[]), None),
        ] {
            assert_eq!(url.query(), query, "{url}");
        }
        assert_eq!(urls.operation(&urls.list(Kind::Group, &count)), Some(Operation::ListGroups));
    }

    #[test]
    fn a_url_tells_which_rate_limit_counts_it() {
        let profile = Profile { groups_path: "Roles".to_owned(), ..Profile::named("generic").unwrap() };
        let urls = Urls::new(Url::parse("https://acme.example/scim/v2").unwrap(), &profile);
        for (parts, expected) in [
            (["Users"].as_slice(), Some(Operation::ListUsers)),
            (&["Users", ".search"], Some(Operation::ListUsers)),
            (&["Users", "a/b c"], Some(Operation::GetUser)),
            (&["Roles"], Some(Operation::ListGroups)),
            (&["Roles", "1"], Some(Operation::GetGroup)),
            (&["Roles", "a/b c", "users"], Some(Operation::ListMembers)),
            (&["Groups"], None),
            (&["UsersToo"], None),
            (&["ServiceProviderConfig"], None),
        ] {
            let url = urls.of(parts, &[("filter", "userName eq \"Roles\"".to_owned())]);
            assert_eq!(urls.operation(&url), expected, "{url}");
        }
    }
}
