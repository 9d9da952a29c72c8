//! Provider profiles: everything vendor-specific, as data.

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::directory::GroupPattern;

/// Profiles that ship with the binary, by name.
const EMBEDDED: &[(&str, &str)] = &[
    ("chargebee", include_str!("providers/chargebee.toml")),
    ("generic", include_str!("providers/generic.toml")),
    ("stripe", include_str!("providers/stripe.toml")),
];

/// How a vendor's directory is read. Facts and sources stand in the TOML files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What people call the vendor.
    pub title: String,
    /// Where the vendor's directory is; `None`: the account has to say.
    pub base_url: Option<String>,
    /// Sent as `Accept`.
    pub accept: String,
    /// Rows asked for in one page (`count`, RFC 7644 §3.4.2.4).
    pub page_size: u32,
    /// False where `totalResults` means something else than the number of matching rows.
    pub trust_total: bool,
    /// A resource without `active`.
    pub absent_active: AbsentActive,
    /// A group without `members`.
    pub empty_members: EmptyMembers,
    /// What it means at this vendor that a user disappears; `deactivated` or nothing.
    pub removal_means: Option<String>,
    /// How entitlements are read from group names.
    pub group_pattern: Option<String>,
    /// Where a person finds the token.
    pub token_hint: String,
    /// What `check` tells about this vendor.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// What to do where the directory refuses to list (405, 501, 404).
    pub no_list_hint: Option<String>,
    /// Set by [`Profile::named`]; not part of the file.
    #[serde(skip)]
    pub name: String,
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
pub enum AbsentActive {
    /// Nobody documented it: neither true nor false.
    Unknown,
    /// The vendor lists active users only, or says that absent means active.
    True,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyMembers {
    /// The vendor shows members in the list: none shown is none.
    None,
    /// Nobody documented it: where no group shows a member, memberships are unknown.
    Unknown,
}

impl Profile {
    /// # Errors
    /// Unknown name (says which exist), or an embedded file that does not parse.
    pub fn named(name: &str) -> Result<Profile, String> {
        let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
            return Err(format!("unknown provider `{name}`; there are {}", names.join(", ")));
        };
        Profile::parse(name, text)
    }

    fn parse(name: &str, text: &str) -> Result<Profile, String> {
        let mut profile: Profile = toml::from_str(text).map_err(|error| format!("profile {name}: {error}"))?;
        profile.pattern()?;
        profile.name = name.to_owned();
        profile.fingerprint = format!("{:032x}", xxh3_128(text.as_bytes()));
        Ok(profile)
    }

    /// # Errors
    /// Says what in `group_pattern` is not understood.
    pub fn pattern(&self) -> Result<Option<GroupPattern>, String> {
        self.group_pattern.as_deref().map(GroupPattern::parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_profile_parses() {
        for (name, _) in EMBEDDED {
            let profile = Profile::named(name).unwrap();
            assert!(profile.page_size > 0, "{name}");
            assert_eq!(profile.fingerprint.len(), 32, "{name}");
        }
    }

    #[test]
    fn an_unknown_provider_is_refused_with_the_names_there_are() {
        let error = Profile::named("strpe").unwrap_err();
        assert!(error.contains("strpe") && error.contains("chargebee, generic, stripe"), "{error}");
    }
}
