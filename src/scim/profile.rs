//! Provider profiles: everything vendor-specific, as data. Their texts are in `layers.rs` and `providers/*.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Table;
use xxhash_rust::xxh3::xxh3_128;

use super::layers::{complaint, overlay, stack};
use crate::account::Habits;
use crate::directory::privileges::PRIVILEGES_MAX;
use crate::directory::{AttributeList, GroupPattern, Kind, Strategy};
use crate::duration::parse_duration;

/// More of them would be a burst that no server has permitted.
const PAGES_IN_FLIGHT_MAX: u32 = 16;
/// Rows of a page of Okta's API (developer.okta.com/docs/api, List all users). A larger page would not look full.
const OKTA_PAGE_SIZE_MAX: u32 = 200;

/// Fields that only tell people something, or, as `interval`, do not decide how a directory is read.
const WORDS: [&str; 11] = [
    "title",
    "token_remedies",
    "interval",
    "price_per_request",
    "token_hint",
    "no_list_hint",
    "recorded",
    "unreadable",
    "not_read",
    "notes",
    "sources",
];

/// Bytes of the path of a privilege.
const PATH_BYTES_MAX: usize = 512;
/// Query parameters that decide about pages and rows.
const OWN_PARAMS: [&str; 5] = ["startIndex", "count", "cursor", "filter", "attributes"];
/// Bytes of all `list_params`: they are in each URL.
const LIST_PARAMS_BYTES_MAX: usize = 1_024;

/// How a vendor's directory is read. Facts and sources are in the TOML files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What people call the vendor.
    pub title: String,
    /// Address of the vendor's directory. Without it, the account has to state it.
    pub base_url: Option<String>,

    /// What the directory speaks.
    pub api: Api,

    /// How requests carry the credential.
    pub auth: Auth,
    /// True if an account may also have OAuth2 client credentials: those that state `client_id` do.
    pub oauth2_too: bool,
    /// Header of an API key.
    pub auth_header: String,
    /// Written before an API key in its header, with a space between; empty: the key alone.
    pub auth_prefix: String,
    /// Address that issues OAuth2 tokens; one that begins with `/` is below `base_url`. Without it, the account has to
    /// state it.
    pub token_url: Option<String>,
    /// OAuth2 scope asked for.
    pub scope: Option<String>,
    /// Further parameters of requests for a token. `grant_type` replaces `client_credentials`. An account has to state
    /// those that are empty here.
    pub token_params: BTreeMap<String, String>,
    /// What to do at this vendor if the token endpoint answers with an `error` (RFC 6749 §5.2) of that name.
    pub token_remedies: BTreeMap<String, String>,
    /// Sent as `Accept`.
    pub accept: String,
    /// What the path of the list of users ends in.
    pub users_path: String,
    /// What the path of the list of groups ends in.
    pub groups_path: String,
    /// Time between two syncs of an account that sets none, e.g. `24h`.
    pub interval: Option<String>,
    /// What the vendor bills for each request, in USD.
    pub price_per_request: Option<f64>,
    /// What the vendor allows; requests are paced to stay within all of these.
    pub rate_limits: Vec<RateLimit>,
    /// The part of each limit that scimtail uses, of stated ones and of those that answers state.
    pub rate_share: f64,
    /// True if what an answer says is left holds for its endpoint alone.
    pub limits_per_endpoint: bool,
    /// True if all credentials at one host use the same limits, because these belong to the organisation.
    pub limits_per_host: bool,
    /// What the vendor allows at the same time, for each organisation.
    pub concurrent_requests: Option<u32>,

    /// Further query parameters of lists and of GET by id.
    pub list_params: BTreeMap<String, String>,
    /// How lists are paged.
    pub paging: Paging,
    /// Rows asked for in one page (`count`, RFC 7644 §3.4.2.4).
    pub page_size: u32,
    /// Pages asked for at the same time where their places are known beforehand; within the rate limits.
    pub pages_in_flight: u32,
    /// False if `totalResults` means something else than the number of matching rows.
    pub trust_total: bool,

    /// A resource without `active`.
    pub absent_active: AbsentActive,
    /// Where the main e-mail address is if `emails` has none.
    pub email: Email,
    /// Where users are who are no longer active.
    pub inactive: Inactive,
    /// False if the vendor serves no groups at all.
    pub groups: bool,
    /// How memberships are read.
    pub memberships: Memberships,
    /// A group without `members`.
    pub empty_members: EmptyMembers,
    /// A member list exactly this long may be cut off: unknown.
    pub member_cap: Option<u32>,
    /// True if a filter for members finds direct members only.
    pub filter_is_direct: bool,
    /// Members that no list shows, if GET by id is impossible.
    pub unlisted_members: UnlistedMembers,

    /// What proves that a user or group is gone.
    pub removal_proof: RemovalProof,
    /// What it means at this vendor that a user disappears: `deactivated`, or it is left out.
    pub removal_means: Option<String>,
    /// How entitlements are read from group names.
    pub group_pattern: Option<String>,

    /// Paths that are added to the default list of attributes, because they decide about access or identity here.
    pub attributes: Vec<String>,
    /// Attributes whose change is a change of privilege. They replace those of the profile that this one extends.
    pub privileges: Vec<String>,
    /// Ask lists for the account's attributes only (`attributes=`, RFC 7644 §3.9).
    pub request_attributes: bool,
    /// Lists carry ETags of their content (RFC 7644 §3.14): an unchanged first page need not be sent again.
    pub list_etags: bool,
    /// `meta.lastModified` can be filtered by; full walks come at this interval then (e.g. `1h`).
    pub full_walk_every: Option<String>,
    /// Where groups state when their members changed: those that did not change are read again at this interval.
    pub full_members_every: Option<String>,

    /// Where a person finds the credential.
    pub token_hint: String,
    /// What to do if the directory refuses to list (405, 501, 404), or lists no user.
    pub no_list_hint: Option<String>,
    /// Public place of answers that others recorded of this vendor.
    pub recorded: Option<String>,
    /// Why this directory cannot be read, and what to read in its place. An account of such a profile is refused.
    pub unreadable: Option<String>,
    /// What the vendor's SCIM does not show: noun phrases that go on after "not included:".
    pub not_read: Vec<String>,
    /// What `check` tells about this vendor. The topics `base_url` and `token_url` hold a template for an account's
    /// key of that name.
    pub notes: Vec<Note>,
    /// Field → public source, or `unverified`.
    pub sources: BTreeMap<String, String>,

    /// Not part of the file.
    #[serde(skip)]
    pub name: String,
    /// Of all layers, words for people aside: recorded with every sync.
    #[serde(skip)]
    pub fingerprint: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    pub topic: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// `Authorization: Bearer <token>` (RFC 6750).
    Bearer,
    /// `Authorization: Basic …` (RFC 7617).
    Basic,
    /// A key in a header, behind a prefix.
    ApiKey,
    /// Client credentials (RFC 6749 §4.4), refreshed before they expire.
    Oauth2,
}

impl Auth {
    /// What a person calls the credential.
    pub fn noun(self) -> &'static str {
        match self {
            Auth::Bearer => "token",
            Auth::Basic => "username or password",
            Auth::ApiKey => "API key",
            Auth::Oauth2 => "access token",
        }
    }
}

/// At most `requests` in any `per`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// What is counted; absent: every request.
    pub of: Option<Operation>,
    pub requests: u32,
    /// With its unit, e.g. `30s`.
    #[serde(deserialize_with = "duration")]
    pub per: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    ListUsers,
    ListGroups,
    GetUser,
    GetGroup,
    /// The list of a group's members, where it has an address of its own.
    ListMembers,
}

/// How often a credential of a profile may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    pub limits: Vec<RateLimit>,
    /// What an answer says is left holds for its operation alone.
    pub per_endpoint: bool,
    /// Requests under way at the same time.
    pub at_once: Option<u32>,
}

/// What a directory speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// SCIM 2.0 (RFC 7644).
    Scim,
    /// The Users and Groups APIs of Okta.
    Okta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// `startIndex`, unless the server advertises cursors or offers one unasked (RFC 9865 §2.3).
    Auto,
    /// `startIndex` and `count` (RFC 7644 §3.4.2.4).
    Index,
    /// `cursor` (RFC 9865), falling back to `startIndex` if the first page offers none.
    Cursor,
    /// `cursor` always: this server pages in no other way.
    CursorForced,
    /// `Link: rel="next"` (RFC 8288): of Okta only.
    Link,
    /// One answer holds everything.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbsentActive {
    /// The vendor does not document it: neither true nor false.
    Unknown,
    /// The vendor lists active users only, or says that absent means active.
    True,
    /// Users who were deactivated lose the attribute.
    False,
}

impl AbsentActive {
    /// `active` of a user who is shown without it.
    pub fn meaning(self) -> Option<bool> {
        match self {
            AbsentActive::Unknown => None,
            AbsentActive::True => Some(true),
            AbsentActive::False => Some(false),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Email {
    /// Nowhere else.
    Emails,
    /// The vendor documents that `userName` is the e-mail address.
    UserName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inactive {
    /// They stay listed, with `active` false.
    Listed,
    /// Lists leave them out; GET by id still finds them.
    Hidden,
    /// They are gone, as if they had been deleted.
    Removed,
}

/// The five ways to read memberships, finding out, and none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memberships {
    /// `members` in the list if it shows any, else in GET of each group.
    Auto,
    /// `members` in the list of groups.
    List,
    /// GET of each group.
    Get,
    /// `/Users?filter=groups.value eq "…"` for each group.
    GroupsFilter,
    /// `/Groups?filter=members.value eq "…"` for each user.
    MembersFilter,
    /// `groups` on the user.
    User,
    /// This vendor shows no memberships.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyMembers {
    /// The vendor is known to show members: none shown is none.
    None,
    /// The vendor does not document it: if nothing shows a member, memberships are unknown.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnlistedMembers {
    /// Deleted users that their groups kept: counted, not published.
    Dangling,
    /// The directory does not list everyone: published all the same.
    Publish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalProof {
    /// GET by id if it works, else absence.
    Get,
    /// GET by id says nothing here: absence from several complete walks.
    Absence,
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

impl Profile {
    /// A profile that ships with the binary.
    ///
    /// # Errors
    /// Unknown name (says which exist), or an embedded file that does not parse.
    pub fn named(name: &str) -> Result<Profile, String> {
        Profile::layered(name, &BTreeMap::new(), Table::new())
    }

    /// A profile from its layers: `generic`, then what it `extends`, then its own text, then `overrides` of one
    /// account. `files` (name → text) add profiles and replace shipped ones.
    ///
    /// # Errors
    /// Names the profile and the field.
    pub fn layered(name: &str, files: &BTreeMap<String, String>, overrides: Table) -> Result<Profile, String> {
        let mut merged = Table::new();
        for layer in stack(name, files, overrides)?.into_iter().rev() {
            overlay(&mut merged, layer);
        }
        let mut behaviour = merged.clone();
        behaviour.retain(|field, _| !WORDS.contains(&field));
        let mut profile: Profile =
            merged.try_into().map_err(|error: toml::de::Error| format!("profile {name}: {}", complaint(&error)))?;
        profile.validate().map_err(|complaint| format!("profile {name}: {complaint}"))?;
        profile.name = name.to_owned();
        profile.fingerprint = format!("{:032x}", xxh3_128(behaviour.to_string().as_bytes()));
        Ok(profile)
    }

    fn validate(&self) -> Result<(), String> {
        self.pattern().map_err(|complaint| format!("group_pattern: {complaint}"))?;
        if self.page_size == 0 {
            return Err("page_size must be at least 1".to_owned());
        }
        if self.api == Api::Okta && self.page_size > OKTA_PAGE_SIZE_MAX {
            return Err(format!("page_size must be at most {OKTA_PAGE_SIZE_MAX} with api = \"okta\""));
        }
        if !(1..=PAGES_IN_FLIGHT_MAX).contains(&self.pages_in_flight) {
            return Err(format!("pages_in_flight must be between 1 and {PAGES_IN_FLIGHT_MAX}"));
        }
        if self.rate_limits.iter().any(|limit| limit.requests == 0 || limit.per.is_zero()) {
            return Err("rate_limits: a rate limit allows at least one request in a time above zero".to_owned());
        }
        if let Some(own) = OWN_PARAMS.iter().find(|own| self.list_params.keys().any(|name| name == *own)) {
            return Err(format!("list_params has {own}, which scimtail sets itself"));
        }
        let length: usize = self.list_params.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.list_params.contains_key("") || length > LIST_PARAMS_BYTES_MAX {
            return Err(format!("list_params has an empty name, or more than {LIST_PARAMS_BYTES_MAX} bytes"));
        }
        if self.attributes.iter().any(|path| path.trim().is_empty()) {
            return Err("attributes has an empty name".to_owned());
        }
        if (self.api == Api::Okta) != (self.paging == Paging::Link) {
            return Err("paging = \"link\" and api = \"okta\" belong together".to_owned());
        }
        if self.api == Api::Okta && self.memberships != Memberships::List {
            return Err("memberships must be \"list\" with api = \"okta\"".to_owned());
        }
        if !(self.rate_share > 0.0 && self.rate_share <= 1.0) {
            return Err("rate_share must be above 0 and at most 1".to_owned());
        }
        if self.concurrent_requests == Some(0) {
            return Err("concurrent_requests must be at least 1".to_owned());
        }
        self.full_walk_every()?;
        self.full_members_every()?;
        self.interval
            .as_deref()
            .map(parse_duration)
            .transpose()
            .map_err(|complaint| format!("interval: {complaint}"))?;
        let is_path = |path: &String| {
            !path.is_empty() && path.len() <= PATH_BYTES_MAX && path.chars().all(|c| c.is_ascii_graphic() && c != ',')
        };
        if self.privileges.len() > PRIVILEGES_MAX || !self.privileges.iter().all(is_path) {
            return Err(format!("privileges takes at most {PRIVILEGES_MAX} paths of attributes"));
        }
        if self.not_read.iter().any(|what| what.trim().is_empty() || what.contains(char::is_control)) {
            return Err("not_read has an empty or an unprintable text".to_owned());
        }
        if self.price_per_request.is_some_and(|price| !(price.is_finite() && price > 0.0)) {
            return Err("price_per_request must be above 0; → leave it out if requests cost nothing".to_owned());
        }
        Ok(())
    }

    /// # Errors
    /// Says what in `group_pattern` is not understood.
    pub fn pattern(&self) -> Result<Option<GroupPattern>, String> {
        self.group_pattern.as_deref().map(GroupPattern::parse).transpose()
    }

    /// # Errors
    /// `full_walk_every` is not a duration.
    pub fn full_walk_every(&self) -> Result<Option<Duration>, String> {
        let parse = |text: &str| parse_duration(text).map_err(|complaint| format!("full_walk_every: {complaint}"));
        self.full_walk_every.as_deref().map(parse).transpose()
    }

    /// # Errors
    /// `full_members_every` is not a duration.
    pub fn full_members_every(&self) -> Result<Option<Duration>, String> {
        let parse = |text: &str| parse_duration(text).map_err(|complaint| format!("full_members_every: {complaint}"));
        self.full_members_every.as_deref().map(parse).transpose()
    }

    /// How often a credential of this profile may be used.
    pub fn allowance(&self) -> Allowance {
        let share = |count: u32| ((f64::from(count) * self.rate_share) as u32).max(1);
        let limits = self.rate_limits.iter().cloned();
        Allowance {
            limits: limits.map(|limit| RateLimit { requests: share(limit.requests), ..limit }).collect(),
            per_endpoint: self.limits_per_endpoint,
            at_once: self.concurrent_requests.map(share),
        }
    }

    /// What the answers of this directory prove.
    pub fn habits(&self) -> Habits {
        Habits {
            trust_total: self.trust_total,
            paging_is_fixed: self.paging == Paging::Link,
            groups: self.groups,
            memberships: self.strategy(),
            empty_members_are_none: self.empty_members == EmptyMembers::None,
            // The members of each group of Okta are a list of their own, which is read to its end.
            get_shows_members: self.api == Api::Okta,
            member_cap: self.member_cap.map(|cap| cap as usize),
            publish_unlisted: self.unlisted_members == UnlistedMembers::Publish,
            filter_is_direct: self.filter_is_direct,
            hides_inactive: self.inactive == Inactive::Hidden,
            absence_only: self.removal_proof == RemovalProof::Absence,
            removal_means: self.removal_means.clone(),
            no_list_hint: self.no_list_hint.clone(),
            full_walk_every: self
                .full_walk_every()
                .ok()
                .flatten()
                .and_then(|every| i64::try_from(every.as_millis()).ok()),
        }
    }

    /// How memberships are read; `None`: by list or GET, by what shows members.
    fn strategy(&self) -> Option<Strategy> {
        match self.memberships {
            // Without groups there is nothing to be a member of, and nothing was read.
            _ if !self.groups => Some(Strategy::Never),
            Memberships::Auto => None,
            Memberships::List => Some(Strategy::List),
            Memberships::Get => Some(Strategy::Get),
            Memberships::GroupsFilter => Some(Strategy::GroupsFilter),
            Memberships::MembersFilter => Some(Strategy::MembersFilter),
            Memberships::User => Some(Strategy::User),
            Memberships::Never => Some(Strategy::Never),
        }
    }

    /// What `base_url` or `token_url` of an account looks like: the URL in the note that is named after the key.
    pub fn template(&self, key: &str) -> Option<&str> {
        let note = self.notes.iter().find(|note| note.topic == key)?;
        note.text.split([' ', ';']).find(|word| word.starts_with("https://"))
    }

    /// What an account publishes that sets no `attributes`.
    pub fn default_attributes(&self) -> AttributeList {
        AttributeList::default().and(&self.attributes)
    }

    /// What the path of a list ends in.
    pub fn path(&self, kind: Kind) -> &str {
        match kind {
            Kind::User => &self.users_path,
            Kind::Group => &self.groups_path,
        }
    }
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;
    use crate::scim::layers::{BASE, EMBEDDED};

    #[test]
    fn a_profile_without_groups_reads_no_memberships_whatever_it_says_of_them() {
        for (name, _) in EMBEDDED {
            let mut profile = Profile::named(name).unwrap();
            profile.groups = false;
            assert_eq!(profile.habits().memberships, Some(Strategy::Never), "{name}");
        }
    }

    #[test]
    fn every_embedded_profile_parses_and_names_a_source_for_every_field_it_sets() {
        for (name, text) in EMBEDDED {
            let profile = Profile::named(name).unwrap();
            assert_eq!(profile.fingerprint.len(), 32, "{name}");
            let own: Table = toml::from_str(text).unwrap();
            let sources = own.get("sources").and_then(Value::as_table).cloned().unwrap_or_default();
            for field in
                own.keys().filter(|field| !["sources", "extends", "title", "recorded"].contains(&field.as_str()))
            {
                assert!(sources.contains_key(field), "{name}: `{field}` has no source");
            }
            for field in sources.keys() {
                assert!(own.contains_key(field), "{name}: a source for `{field}`, which it does not set");
            }
        }
    }

    #[test]
    fn every_privilege_of_a_profile_is_published_without_a_setting() {
        for (name, _) in EMBEDDED {
            let profile = Profile::named(name).unwrap();
            let list = profile.default_attributes();
            assert!(profile.privileges.iter().all(|path| list.covers(path)), "{name}: {:?}", profile.privileges);
        }
    }

    #[test]
    fn embedded_profiles_are_sorted_and_name_themselves() {
        let names: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for name in names {
            let title = Profile::named(name).unwrap().title;
            assert!(name == BASE || title != Profile::named(BASE).unwrap().title, "{name} has no title of its own");
        }
    }

    #[test]
    fn an_unknown_provider_is_refused_with_the_names_there_are() {
        let error = Profile::named("strpe").unwrap_err();
        assert!(error.contains("strpe") && error.contains("generic") && error.contains("stripe"), "{error}");
    }

    #[test]
    fn a_file_adds_a_profile_and_an_account_overrides_fields_of_it() {
        let files = BTreeMap::from([
            (
                "acme".to_owned(),
                "extends = \"stripe\"\npage_size = 7\n[sources]\npage_size = \"https://acme.example\"".to_owned(),
            ),
            ("stripe".to_owned(), "extends = \"stripe\"\ntitle = \"Stripe, ours\"".to_owned()),
        ]);
        let overrides: Table = toml::from_str("paging = \"cursor\"").unwrap();
        let profile = Profile::layered("acme", &files, overrides).unwrap();
        assert_eq!((profile.title.as_str(), profile.page_size, profile.paging), ("Stripe, ours", 7, Paging::Cursor));
        assert_eq!(profile.base_url, Profile::named("stripe").unwrap().base_url);
        assert_eq!(profile.sources["page_size"], "https://acme.example");
        assert_ne!(profile.fingerprint, Profile::layered("acme", &files, Table::new()).unwrap().fingerprint);
    }

    #[test]
    fn durations_of_a_profile_have_the_units_that_an_interval_has() {
        let overrides = "full_walk_every = \"1d\"\nrate_limits = [{ requests = 5, per = \"1w\" }]";
        let profile = Profile::layered("generic", &BTreeMap::new(), toml::from_str(overrides).unwrap()).unwrap();
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!((profile.full_walk_every(), profile.rate_limits[0].per), (Ok(Some(day)), 7 * day));
        assert_eq!(profile.habits().full_walk_every, Some(86_400_000));
    }

    #[test]
    fn mistakes_in_a_profile_name_it_and_the_field() {
        let refused = |text: &str| {
            let files = BTreeMap::from([("acme".to_owned(), text.to_owned())]);
            Profile::layered("acme", &files, Table::new()).unwrap_err()
        };
        assert!(refused("pagesize = 3").contains("acme: unknown field `pagesize`"), "{}", refused("pagesize = 3"));
        assert!(refused("page_size = 0").contains("page_size"));
        assert!(
            refused("paging = \"magic\"").contains("paging: unknown variant `magic`"),
            "{}",
            refused("paging = \"magic\"")
        );
        assert!(
            refused("page_size = \"many\"").contains("page_size: invalid type"),
            "{}",
            refused("page_size = \"many\"")
        );
        assert!(refused("extends = \"acme2\"").contains("acme2"));
        for (text, field) in [
            ("rate_limits = [{ requests = 5, per = \"fast\" }]", "rate_limits.per"),
            ("full_walk_every = \"fast\"", "full_walk_every"),
        ] {
            let expected = format!("{field}: {}", parse_duration("fast").unwrap_err());
            assert!(refused(text).ends_with(&expected), "{}", refused(text));
        }
        let round = BTreeMap::from([
            ("a".to_owned(), "extends = \"b\"".to_owned()),
            ("b".to_owned(), "extends = \"a\"".to_owned()),
        ]);
        assert!(Profile::layered("a", &round, Table::new()).unwrap_err().contains("goes round"));
    }
}
