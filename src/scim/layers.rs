//! The TOML layers of provider profiles: those that ship with the binary, those of files, and overrides of an account.
//!
//! A profile states only what differs from `generic`, and where each fact comes from: `[sources]` names a public
//! source for every field, or says `unverified`. Fields that no vendor documents keep generic's safe default.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// Profiles that ship with the binary, by name.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("airtable", include_str!("providers/airtable.toml")),
    ("asana", include_str!("providers/asana.toml")),
    ("atlassian", include_str!("providers/atlassian.toml")),
    ("aws-identity-center", include_str!("providers/aws-identity-center.toml")),
    ("chargebee", include_str!("providers/chargebee.toml")),
    ("claude", include_str!("providers/claude.toml")),
    ("databricks", include_str!("providers/databricks.toml")),
    ("datadog", include_str!("providers/datadog.toml")),
    ("entra", include_str!("providers/entra.toml")),
    ("figma", include_str!("providers/figma.toml")),
    ("generic", include_str!("providers/generic.toml")),
    ("genesys", include_str!("providers/genesys.toml")),
    ("github", include_str!("providers/github.toml")),
    ("github-org", include_str!("providers/github-org.toml")),
    ("gitlab", include_str!("providers/gitlab.toml")),
    ("google-workspace", include_str!("providers/google-workspace.toml")),
    ("govslack", include_str!("providers/govslack.toml")),
    ("grafana", include_str!("providers/grafana.toml")),
    ("hcp-terraform", include_str!("providers/hcp-terraform.toml")),
    ("keycloak", include_str!("providers/keycloak.toml")),
    ("miro", include_str!("providers/miro.toml")),
    ("netskope", include_str!("providers/netskope.toml")),
    ("new-relic", include_str!("providers/new-relic.toml")),
    ("notion", include_str!("providers/notion.toml")),
    ("okta", include_str!("providers/okta.toml")),
    ("oracle-identity-domains", include_str!("providers/oracle-identity-domains.toml")),
    ("postman", include_str!("providers/postman.toml")),
    ("salesforce", include_str!("providers/salesforce.toml")),
    ("sap-cloud-identity", include_str!("providers/sap-cloud-identity.toml")),
    ("sentry", include_str!("providers/sentry.toml")),
    ("servicenow", include_str!("providers/servicenow.toml")),
    ("slack", include_str!("providers/slack.toml")),
    ("snowflake", include_str!("providers/snowflake.toml")),
    ("stripe", include_str!("providers/stripe.toml")),
    ("webex", include_str!("providers/webex.toml")),
    ("workos", include_str!("providers/workos.toml")),
    ("wso2", include_str!("providers/wso2.toml")),
    ("zoom", include_str!("providers/zoom.toml")),
];

/// The profile that every other one completes itself from.
pub const BASE: &str = "generic";

/// Layers of one profile; a chain of `extends` that is longer goes round.
const EXTENDS_MAX: usize = 8;

/// Every field but `notes` and `sources`, in the order in which they are shown.
const FIELDS: &[&str] = &[
    "title",
    "base_url",
    "api",
    "auth",
    "oauth2_too",
    "auth_header",
    "auth_prefix",
    "token_url",
    "scope",
    "token_params",
    "token_remedies",
    "token_hint",
    "accept",
    "users_path",
    "groups_path",
    "interval",
    "price_per_request",
    "rate_limits",
    "rate_share",
    "limits_per_endpoint",
    "limits_per_host",
    "concurrent_requests",
    "list_params",
    "paging",
    "page_size",
    "pages_in_flight",
    "trust_total",
    "absent_active",
    "email",
    "inactive",
    "groups",
    "memberships",
    "empty_members",
    "member_cap",
    "filter_is_direct",
    "unlisted_members",
    "removal_proof",
    "removal_means",
    "group_pattern",
    "attributes",
    "privileges",
    "request_attributes",
    "list_etags",
    "full_walk_every",
    "full_members_every",
    "no_list_hint",
    "recorded",
    "unreadable",
    "not_read",
];

/// One field of a profile and where it comes from, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub field: &'static str,
    /// As TOML writes it, text without quotes; `None`: no layer sets it.
    pub value: Option<String>,
    pub source: Option<String>,
    /// Only `generic` sets it: no source documents another value.
    pub default: bool,
}

/// Names of all profiles, those of `files` included, sorted.
pub fn names(files: &BTreeMap<String, String>) -> Vec<&str> {
    let mut names: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).chain(files.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Every field of a profile with its source.
///
/// # Errors
/// Unknown name, a text that is not TOML, or an `extends` that goes round.
pub fn facts(name: &str, files: &BTreeMap<String, String>) -> Result<Vec<Fact>, String> {
    let mut layers = stack(name, files, Table::new())?;
    let base = layers.pop().unwrap_or_default();
    let own = |field: &str| layers.iter().any(|layer| layer.contains_key(field));
    let mut merged = base;
    for layer in layers.iter().rev() {
        overlay(&mut merged, layer.clone());
    }
    let sources = merged.get("sources").and_then(Value::as_table);
    let source = |field: &str| sources?.get(field)?.as_str().map(str::to_owned);
    let shown = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    };
    Ok(FIELDS
        .iter()
        .map(|&field| Fact {
            field,
            value: merged.get(field).map(shown),
            source: source(field),
            default: merged.contains_key(field) && !own(field),
        })
        .collect())
}

/// The layers of a profile, the account's overrides first and `generic` last.
pub(super) fn stack(name: &str, files: &BTreeMap<String, String>, overrides: Table) -> Result<Vec<Table>, String> {
    let mut layers = vec![overrides];
    let mut current = name.to_owned();
    // A file may extend the shipped profile that it replaces.
    let mut replaced = false;
    loop {
        if layers.len() > EXTENDS_MAX {
            return Err(format!("profile {name}: `extends` goes round"));
        }
        let file = files.get(&current).filter(|_| !replaced);
        let text = file.map(String::as_str).or_else(|| embedded(&current));
        let text = text.ok_or_else(|| unknown(&current, files))?;
        let mut layer: Table =
            toml::from_str(text).map_err(|error| format!("profile {current}: {}", complaint(&error)))?;
        let extends = layer.remove("extends");
        layers.push(layer);
        let parent = match extends {
            Some(Value::String(parent)) => parent,
            Some(_) => return Err(format!("profile {current}: `extends` is the name of a profile")),
            None if current == BASE && file.is_none() => break,
            None => BASE.to_owned(),
        };
        replaced = parent == current;
        current = parent;
    }
    Ok(layers)
}

/// What is wrong, on one line; begins with the field if the message does not name it.
pub(super) fn complaint(error: &toml::de::Error) -> String {
    let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
    if message.starts_with("unknown field") {
        return message;
    }
    // Only the whole error, which is of several lines, names it.
    let told = error.to_string();
    let field = told.lines().find_map(|line| line.trim().strip_prefix("in `")?.strip_suffix('`'));
    field.map_or(message.clone(), |field| format!("{field}: {message}"))
}

fn embedded(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

fn unknown(name: &str, files: &BTreeMap<String, String>) -> String {
    format!("unknown provider `{name}`; there are {}", names(files).join(", "))
}

/// Fields of the upper layer replace those below; sources are kept field by field.
pub(super) fn overlay(below: &mut Table, above: Table) {
    // A fact replaced without a source of its own has none.
    if let Some(Value::Table(sources)) = below.get_mut("sources") {
        for field in above.keys().filter(|field| *field != "sources") {
            sources.remove(field);
        }
    }
    for (field, value) in above {
        match (below.get_mut(&field), value) {
            (Some(Value::Table(below)), Value::Table(above)) if field == "sources" => below.extend(above),
            (_, value) => drop(below.insert(field, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scim::Profile;

    #[test]
    fn facts_tell_every_field_its_source_and_whether_it_is_the_safe_default() {
        // serde lists all fields of the struct when it refuses one.
        let error = toml::from_str::<Profile>("no_such_field = 1").unwrap_err();
        let known: BTreeSet<&str> = error.message().split('`').skip(3).step_by(2).collect();
        let told: BTreeSet<&str> = FIELDS.iter().copied().chain(["notes", "sources"]).collect();
        assert_eq!(told, known);

        let facts = facts("slack", &BTreeMap::new()).unwrap();
        let fact = |field: &str| facts.iter().find(|fact| fact.field == field).unwrap();
        assert_eq!((fact("page_size").value.as_deref(), fact("page_size").default), (Some("1000"), false));
        assert!(fact("page_size").source.as_ref().unwrap().contains("api.slack.com"));
        assert_eq!((fact("auth").value.as_deref(), fact("auth").default), (Some("bearer"), true));
        assert_eq!((fact("auth_prefix").value.as_deref(), fact("member_cap").value.as_deref()), (Some("\"\""), None));
    }
}
