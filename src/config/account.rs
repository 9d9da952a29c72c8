//! `[[account]]`: one directory, its credential, and its differences from the defaults and from the profile.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::explain::in_profile;
use super::limits::AccountLimits;
use super::network::{NetworkConfig, ProxyConfig, ProxyKeys, encrypted, has_userinfo, tls_files};
use super::oauth::{client_proof, token_params, token_url};
use super::providers::{ProviderTexts, provider};
use super::secret::{Purpose, Secret};
use crate::account::{Account, BatchBounds};
use crate::directory::{AttributeList, Baseline, GroupPattern, Limits};
use crate::duration::parse_duration;
use crate::failpoint;
use crate::kafka::KafkaClient;
use crate::okta::{self, GroupNames};
use crate::scim::Scheme;
use crate::scim::profile::{Api, Auth, Profile};
use crate::scim::token::{REFRESH_TOKEN, grant_type};

/// The shortest interval between two syncs.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The interval if neither the account, `[defaults]` nor the profile sets one.
const INTERVAL: &str = "5m";

/// One account, checked: what a sync needs, and how its directory is reached.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    pub account: Arc<Account>,
    /// Accounts share it if they override the same of it, and if its `token_url` is the same for both.
    pub profile: Arc<Profile>,
    pub base_url: Url,
    pub scheme: Scheme,
    pub secret: Secret,
    /// A second secret: of the OAuth2 grant that takes a refresh token.
    pub refresh_token: Option<Secret>,
    /// Which groups are read; `None`: all that the directory has.
    pub groups: Option<GroupNames>,
    pub allow_private: bool,
    pub network: NetworkConfig,
    pub interval: Duration,
}

/// Equal if both lead to the same syncs. Profiles are compared by the fingerprint in the account, which covers what
/// affects behaviour.
impl PartialEq for AccountConfig {
    fn eq(&self, other: &AccountConfig) -> bool {
        let both = self.refresh_token.as_ref().zip(other.refresh_token.as_ref());
        self.secret.is_at(&other.secret)
            && self.refresh_token.is_some() == other.refresh_token.is_some()
            && both.is_none_or(|(one, other)| one.is_at(other))
            && self.scheme == other.scheme
            && self.groups == other.groups
            && self.account == other.account
            && self.base_url == other.base_url
            && self.allow_private == other.allow_private
            && self.network == other.network
            && self.interval == other.interval
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSection {
    /// Share of a kind that one sync may lose. A larger loss is held.
    /// Default: `0.2`
    max_ratio: Option<f64>,
    /// Fewer losses never count against `max_ratio`.
    /// Default: `5`
    min_losses: Option<u64>,
    /// More losses are always held.
    /// Default: `500`
    max_absolute: Option<u64>,
    /// A sync that adds more users, groups and memberships than this is held.
    /// Default: no limit
    max_added: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineName {
    State,
    Events,
}

/// `[defaults]`: for accounts that do not set the key themselves.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// As in `[[account]]`.
    /// Default: that of the profile, else `"5m"`
    interval: Option<String>,
    /// As in `[[account]]`.
    /// Default: `"state"`
    baseline: Option<BaselineName>,
    /// As in `[[account]]`.
    /// Default: the paths above, and those of the profile
    attributes: Option<Vec<String>>,
    /// As in `[[account]]`, for accounts that set neither of the two keys.
    /// Default: none
    attributes_add: Option<Vec<String>>,
    #[serde(default)]
    guard: GuardSection,
    #[serde(default)]
    limits: AccountLimits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSection {
    /// Name of the account: `[a-z0-9][a-z0-9._-]{0,62}`. It is part of every key and never changes.
    pub name: String,
    /// Profile by which the directory is read: one of `scimtail providers`, or of `[providers]`.
    provider: String,
    /// URL of the directory: https, plain http only on loopback.
    /// Default: that of the profile; required if the profile has none
    base_url: Option<String>,
    /// Name of the variable that holds the token or key.
    /// Default: exactly one of the two, if `auth` of the profile is `bearer` or `api_key`
    token_env: Option<String>,
    /// Path of the file that holds the token or key.
    /// Default: exactly one of the two, if `auth` of the profile is `bearer` or `api_key`
    token_file: Option<PathBuf>,
    /// User name (Basic authentication).
    /// Default: required, if `auth` of the profile is `basic`
    username: Option<String>,
    /// Name of the variable that holds the password.
    /// Default: exactly one of the two, if `auth` of the profile is `basic`
    password_env: Option<String>,
    /// Path of the file that holds the password.
    /// Default: exactly one of the two, if `auth` of the profile is `basic`
    password_file: Option<PathBuf>,
    /// Client id (OAuth2 client credentials).
    /// Default: required, if `auth` of the profile is `oauth2`
    client_id: Option<String>,
    /// Name of the variable that holds the client secret.
    /// Default: exactly one of the three, if `auth` of the profile is `oauth2`
    client_secret_env: Option<String>,
    /// Path of the file that holds the client secret.
    /// Default: exactly one of the three, if `auth` of the profile is `oauth2`
    client_secret_file: Option<PathBuf>,
    /// Path of a private key (PEM) that signs `private_key_jwt` assertions in place of a secret.
    /// Default: exactly one of the three, if `auth` of the profile is `oauth2`
    private_key_file: Option<PathBuf>,
    /// The `kid` of the private key.
    key_id: Option<String>,
    /// URL that issues the OAuth2 access tokens: https as for `base_url`.
    /// Default: that of the profile
    token_url: Option<String>,
    /// Scope of the OAuth2 access tokens.
    /// Default: that of the profile
    scope: Option<String>,
    /// Further parameters of requests for a token, e.g. `{ audience = "…" }`, beside those of the profile. `grant_type`
    /// replaces `client_credentials`.
    /// Default: those of the profile
    token_params: Option<BTreeMap<String, String>>,
    /// Name of the variable that holds the refresh token.
    /// Default: exactly one of the two, if `grant_type` is `refresh_token`
    refresh_token_env: Option<String>,
    /// Path of the file that holds the refresh token.
    /// Default: exactly one of the two, if `grant_type` is `refresh_token`
    refresh_token_file: Option<PathBuf>,
    /// Time between two syncs, give or take a tenth: at least `"1s"`, with its unit.
    /// Default: that of `[defaults]`
    interval: Option<String>,
    /// `"state"`: the first sync publishes state and no events. `"events"`: it publishes events too, marked `snapshot`.
    /// Default: that of `[defaults]`
    baseline: Option<BaselineName>,
    /// SCIM paths that may leave the process. This replaces the whole list; `id` and `active` are always read.
    /// Default: that of `[defaults]`
    attributes: Option<Vec<String>>,
    /// SCIM paths that may leave the process too, beside those of `attributes` or of what holds without it.
    /// Default: that of `[defaults]`
    attributes_add: Option<Vec<String>>,
    /// How entitlements are read from group names.
    /// Default: that of the profile
    group_pattern: Option<String>,
    /// Names of the groups that are read, e.g. `["CB/*"]`, where `*` stands for any text. Only for a provider that reads
    /// members group by group (`okta`).
    /// Default: all but Okta's group Everyone
    groups: Option<Vec<String>>,
    #[serde(default)]
    guard: GuardSection,
    #[serde(default)]
    limits: AccountLimits,
    /// Permits private address ranges. Link-local and metadata addresses are never permitted.
    #[serde(default)]
    allow_private: bool,
    /// Certificates (PEM) of CAs that are trusted too, for the directory and `token_url`.
    ca_file: Option<PathBuf>,
    /// Client certificate (PEM), if the server asks for one.
    /// Default: none; both or neither
    client_cert_file: Option<PathBuf>,
    /// Private key (PEM) of the client certificate.
    /// Default: none; both or neither
    client_key_file: Option<PathBuf>,
    /// `http://host:port`, or `"none"`.
    /// Default: that of `[network]`
    proxy: Option<String>,
    /// User name at the account's own proxy.
    proxy_username: Option<String>,
    /// Name of the variable that holds the password at this proxy.
    /// Default: exactly one of the two with `proxy_username`
    proxy_password_env: Option<String>,
    /// Path of the file that holds the password at this proxy.
    /// Default: exactly one of the two with `proxy_username`
    proxy_password_file: Option<PathBuf>,
    /// Single fields of the profile, for this account.
    #[serde(default)]
    profile: toml::Table,
}

/// How an account is let in.
struct Login {
    scheme: Scheme,
    secret: Secret,
    refresh_token: Option<Secret>,
}

impl Login {
    fn new(scheme: Scheme, secret: Secret) -> Login {
        Login { scheme, secret, refresh_token: None }
    }
}

/// What accounts have in common with those that were checked before: a thousand of them hold it once.
#[derive(Default)]
pub struct Shared {
    /// By the name of the provider, and what the account overrides of its profile.
    profiles: HashMap<(String, String), Arc<Profile>>,
    /// Of the account before.
    attributes: Option<AttributeList>,
}

impl Shared {
    fn profile(
        &mut self,
        provider: &str,
        overrides: String,
        read: impl FnOnce() -> Result<Profile, String>,
    ) -> Result<Arc<Profile>, String> {
        Ok(match self.profiles.entry((provider.to_owned(), overrides)) {
            Occupied(profile) => Arc::clone(profile.get()),
            Vacant(place) => Arc::clone(place.insert(Arc::new(read()?))),
        })
    }
}

impl AccountSection {
    /// `proxy`: the one that the account uses if it names none.
    ///
    /// # Errors
    /// What is wrong with the account, and the remedy; without the name of the account.
    pub fn check(
        self,
        kafka: &KafkaClient,
        defaults: &Defaults,
        providers: &ProviderTexts,
        proxy: Option<&ProxyConfig>,
        before: &mut Shared,
    ) -> Result<AccountConfig, String> {
        let profile = self.layered_profile(providers, before)?;
        if let Some(unreadable) = &profile.unreadable {
            return Err(unreadable.clone());
        }
        let base_url = base_url(self.base_url.as_deref(), &profile)?;
        let profile = completed(profile, &base_url, self.client_id.is_some());
        let Login { scheme, secret, refresh_token } = self.credential(&profile)?;
        let groups = group_names(self.groups.as_deref(), &profile)?;
        let proxy = ProxyKeys {
            proxy: self.proxy,
            username: self.proxy_username,
            password_env: self.proxy_password_env,
            password_file: self.proxy_password_file,
        }
        .check(proxy)?;
        let network =
            NetworkConfig { tls: tls_files(self.ca_file, self.client_cert_file, self.client_key_file)?, proxy };
        let allow_private = self.allow_private;
        let interval = self.interval.as_deref().or(defaults.interval.as_deref()).or(profile.interval.as_deref());
        let interval = interval.unwrap_or(INTERVAL);
        let interval = parse_duration(interval).map_err(|complaint| format!("interval: {complaint}"))?;
        if interval < INTERVAL_MIN {
            return Err("interval must be at least 1s".to_owned());
        }
        let baseline = match self.baseline.or(defaults.baseline) {
            Some(BaselineName::Events) => Baseline::Events,
            Some(BaselineName::State) | None => Baseline::State,
        };
        let pattern = self.group_pattern.as_deref().or(profile.group_pattern.as_deref());
        let pattern = pattern.map(GroupPattern::parse).transpose()?;
        let attributes = attribute_list(self.attributes, self.attributes_add, defaults, &profile)?;
        let attributes = before.attributes.take().filter(|before| *before == attributes).unwrap_or(attributes);
        before.attributes = Some(attributes.clone());
        let account = Arc::new(Account {
            partition: kafka.partition_of(&self.name),
            topic_prefix: kafka.topic_prefix.clone(),
            provider: self.provider,
            attributes,
            privileges: profile.privileges.clone(),
            not_read: profile.not_read.clone(),
            pattern,
            profile_fingerprint: profile.fingerprint.clone(),
            habits: profile.habits(),
            baseline,
            batch: bounds(),
            outputs: kafka.outputs.clone(),
            max_principals: self.limits.max_principals(defaults.limits)?,
            limits: limits(self.guard, defaults.guard)?,
            name: self.name,
        });
        Ok(AccountConfig {
            account,
            profile,
            base_url,
            scheme,
            secret,
            refresh_token,
            groups,
            allow_private,
            network,
            interval,
        })
    }

    /// The credential. The `auth` of the profile decides which keys it needs.
    fn credential(&self, profile: &Profile) -> Result<Login, String> {
        let (how, keys) = match profile.auth {
            Auth::Bearer => ("a bearer token", ["token_env", "token_file"].as_slice()),
            Auth::ApiKey => ("an API key", ["token_env", "token_file"].as_slice()),
            Auth::Basic => ("a username and password", ["username", "password_env", "password_file"].as_slice()),
            Auth::Oauth2 => (
                "OAuth2 client credentials",
                [
                    "client_id",
                    "client_secret_env",
                    "client_secret_file",
                    "private_key_file",
                    "key_id",
                    "token_url",
                    "scope",
                    "token_params",
                    "refresh_token_env",
                    "refresh_token_file",
                ]
                .as_slice(),
            ),
        };
        let taken = format!("{} takes {how}", profile.title);
        let given = [
            ("token_env", self.token_env.is_some()),
            ("token_file", self.token_file.is_some()),
            ("username", self.username.is_some()),
            ("password_env", self.password_env.is_some()),
            ("password_file", self.password_file.is_some()),
            ("client_id", self.client_id.is_some()),
            ("client_secret_env", self.client_secret_env.is_some()),
            ("client_secret_file", self.client_secret_file.is_some()),
            ("private_key_file", self.private_key_file.is_some()),
            ("key_id", self.key_id.is_some()),
            ("token_url", self.token_url.is_some()),
            ("scope", self.scope.is_some()),
            ("token_params", self.token_params.is_some()),
            ("refresh_token_env", self.refresh_token_env.is_some()),
            ("refresh_token_file", self.refresh_token_file.is_some()),
        ];
        // Either credential has keys of its own.
        let either = if profile.oauth2_too {
            "; → either token_env or token_file, or client_id and private_key_file"
        } else {
            ""
        };
        if let Some((stray, _)) = given.iter().find(|(key, given)| *given && !keys.contains(key)) {
            let keys = keys.join(", ");
            return Err(match either {
                "" => format!("{taken}: `{stray}` has no use here; → remove it, the keys are {keys}"),
                either => format!("{taken}: `{stray}` has no use beside it{either}"),
            });
        }
        let needed = |key: &'static str, value: Option<&str>| {
            let value = value.filter(|value| !value.trim().is_empty()).map(str::to_owned);
            value.ok_or_else(|| format!("{taken}: {key} is missing; → {key} = \"…\""))
        };
        let secret = |purpose: Purpose, variable: &Option<String>, file: &Option<PathBuf>| {
            let name = purpose.key();
            let secret = Secret::either(purpose, variable.clone(), file.clone())?;
            secret.ok_or_else(|| format!("{taken}; → add either {name}_env or {name}_file"))
        };
        match profile.auth {
            Auth::Bearer => Ok(Login::new(Scheme::Bearer, secret(Purpose::Token, &self.token_env, &self.token_file)?)),
            Auth::ApiKey => {
                let scheme = Scheme::api_key(&profile.auth_header, &profile.auth_prefix)?;
                Ok(Login::new(scheme, secret(Purpose::Token, &self.token_env, &self.token_file)?))
            }
            Auth::Basic => {
                let scheme = Scheme::basic(&needed("username", self.username.as_deref())?)?;
                Ok(Login::new(scheme, secret(Purpose::Password, &self.password_env, &self.password_file)?))
            }
            Auth::Oauth2 => {
                let client_id = needed("client_id", self.client_id.as_deref())?;
                let token_url = token_endpoint(self.token_url.as_deref(), profile, &taken)?;
                // An empty scope overrides that of the profile.
                let scope = self.scope.clone().or_else(|| profile.scope.clone()).filter(|scope| !scope.is_empty());
                let params = token_params(&profile.token_params, self.token_params.as_ref())?;
                let refresh_token = match (grant_type(&params), &self.refresh_token_env, &self.refresh_token_file) {
                    (REFRESH_TOKEN, variable, file) => Some(secret(Purpose::RefreshToken, variable, file)?),
                    (_, None, None) => None,
                    _ => {
                        let remedy = "remove it, or token_params = { grant_type = \"refresh_token\" }";
                        return Err(format!("a refresh token has no use with this grant; → {remedy}"));
                    }
                };
                let secret = Secret::either(
                    Purpose::ClientSecret,
                    self.client_secret_env.clone(),
                    self.client_secret_file.clone(),
                )?;
                let (proof, secret) = client_proof(secret, self.private_key_file.clone(), self.key_id.clone(), &taken)?;
                Ok(Login {
                    scheme: Scheme::Oauth2 { client_id, token_url, scope, params, proof },
                    secret,
                    refresh_token,
                })
            }
        }
    }

    /// The provider's profile with what this account overrides.
    fn layered_profile(&self, providers: &ProviderTexts, before: &mut Shared) -> Result<Arc<Profile>, String> {
        let alone = before.profile(&self.provider, String::new(), || provider(&self.provider, providers))?;
        if self.profile.is_empty() {
            return Ok(alone);
        }
        before.profile(&self.provider, self.profile.to_string(), || {
            // The provider's profile alone is right, so the mistake is in the account.
            Profile::layered(&self.provider, providers, self.profile.clone())
                .map_err(|complaint| format!("[account.profile] {}", in_profile(&self.provider, &complaint)))
        })
    }
}

/// What may leave the process. A list of the account's own is all of it: `attributes_add` of `[defaults]` adds nothing.
fn attribute_list(
    own: Option<Vec<String>>,
    added: Option<Vec<String>>,
    defaults: &Defaults,
    profile: &Profile,
) -> Result<AttributeList, String> {
    let added = added.as_ref().or_else(|| defaults.attributes_add.as_ref().filter(|_| own.is_none()));
    for (key, paths) in [("attributes", own.as_ref().or(defaults.attributes.as_ref())), ("attributes_add", added)] {
        if paths.is_some_and(|paths| paths.iter().any(|path| path.trim().is_empty())) {
            return Err(format!("{key} has an empty name; → remove it"));
        }
    }
    let list = match own.or_else(|| defaults.attributes.clone()) {
        Some(paths) => AttributeList::new(paths),
        None => profile.default_attributes(),
    };
    Ok(list.and(added.map_or(&[], Vec::as_slice)))
}

/// The URL of the directory. No message repeats it, because it may hold a password.
fn base_url(own: Option<&str>, profile: &Profile) -> Result<Url, String> {
    let template = profile.template("base_url").unwrap_or("https://…/scim/v2");
    let text = own.or(profile.base_url.as_deref());
    let text = text.ok_or_else(|| format!("base_url is missing; → base_url = \"{template}\""))?;
    let url = Url::parse(text).map_err(|_| format!("base_url is not a URL; → base_url = \"{template}\""))?;
    encrypted("base_url", &url)?;
    if profile.api == Api::Okta {
        okta::address::check(&url)?;
    }
    if has_userinfo(&url) || url.query().is_some() || url.fragment().is_some() {
        return Err("base_url must not hold credentials, a query or a fragment; → token_env or token_file".to_owned());
    }
    Ok(url)
}

/// The profile as this account has it: an account that states `client_id` may choose OAuth2 by that, and the `token_url`
/// of OAuth2 may be below the directory's own address. Other accounts share the profile as it is.
fn completed(profile: Arc<Profile>, base_url: &Url, has_client: bool) -> Arc<Profile> {
    let auth = if profile.oauth2_too && has_client { Auth::Oauth2 } else { profile.auth };
    let path = profile.token_url.as_deref().filter(|path| auth == Auth::Oauth2 && path.starts_with('/'));
    let below = path.map(|path| format!("{}{path}", base_url.as_str().trim_end_matches('/')));
    if auth == profile.auth && below.is_none() {
        return profile;
    }
    let token_url = below.or_else(|| profile.token_url.clone());
    Arc::new(Profile { auth, token_url, ..Profile::clone(&profile) })
}

fn group_names(patterns: Option<&[String]>, profile: &Profile) -> Result<Option<GroupNames>, String> {
    match patterns {
        Some(_) if profile.api != Api::Okta => {
            Err(format!("{} cannot be read group by group; → remove `groups`", profile.title))
        }
        Some(patterns) => GroupNames::new(patterns).map(Some),
        None => Ok(None),
    }
}

/// The URL that issues OAuth2 tokens. As with [`base_url`], no message repeats it.
fn token_endpoint(own: Option<&str>, profile: &Profile, taken: &str) -> Result<Url, String> {
    let remedy = format!("token_url = \"{}\"", profile.template("token_url").unwrap_or("https://…/token"));
    let text = own.or(profile.token_url.as_deref());
    token_url(text.ok_or_else(|| format!("{taken}: token_url is missing; → {remedy}"))?, &remedy)
}

/// Bounds of one transaction. A fail point makes them small, so that a sync of few changes takes several.
fn bounds() -> BatchBounds {
    let bounds = BatchBounds::default();
    BatchBounds { units: failpoint::number("batch.units").unwrap_or(bounds.units), ..bounds }
}

fn limits(own: GuardSection, defaults: GuardSection) -> Result<Limits, String> {
    let fallback = Limits::default();
    let max_ratio = own.max_ratio.or(defaults.max_ratio).unwrap_or(fallback.max_ratio);
    if !(0.0..=1.0).contains(&max_ratio) {
        return Err("guard.max_ratio must be between 0 and 1; → e.g. 0.2 for 20 %".to_owned());
    }
    Ok(Limits {
        max_ratio,
        min_losses: own.min_losses.or(defaults.min_losses).unwrap_or(fallback.min_losses),
        max_absolute: own.max_absolute.or(defaults.max_absolute).unwrap_or(fallback.max_absolute),
        max_added: max_added(own, defaults)?,
    })
}

fn max_added(own: GuardSection, defaults: GuardSection) -> Result<Option<u64>, String> {
    match own.max_added.or(defaults.max_added) {
        Some(0) => Err("guard.max_added must be at least 1; → leave it out to allow any number".to_owned()),
        max_added => Ok(max_added),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scim::{ClientProof, TokenParams};

    /// An account of a profile with this `auth`, and lines of its own.
    fn credential(auth: &str, lines: &str) -> Result<Login, String> {
        let text = format!("name = \"acme\"\nprovider = \"generic\"\n{lines}");
        let section: AccountSection = toml::from_str(&text).unwrap();
        section.credential(&Profile::layered("generic", &BTreeMap::new(), toml::from_str(auth).unwrap()).unwrap())
    }

    #[test]
    fn the_keys_of_a_credential_follow_from_the_profile() {
        let api_key = "auth = \"api_key\"\nauth_header = \"X-Key\"\nauth_prefix = \"Key\"";
        let oauth2 = "auth = \"oauth2\"\ntoken_url = \"https://vendor.example/token\"\nscope = \"scim\"";
        let oauth2_keys = "client_id = \"a\"\nclient_secret_env = \"B\"\n";
        let token_url = |url: &str| Url::parse(url).unwrap();
        let scheme = |auth: &str, lines: &str| credential(auth, lines).unwrap().scheme;
        assert_eq!(scheme("auth = \"bearer\"", "token_env = \"A\""), Scheme::Bearer);
        assert_eq!(scheme(api_key, "token_file = \"a\""), Scheme::api_key("X-Key", "Key").unwrap());
        assert_eq!(scheme("auth = \"basic\"", "username = \"a\"\npassword_env = \"B\""), Scheme::basic("a").unwrap());
        let issued_at = |url: &str, scope: Option<&str>| Scheme::Oauth2 {
            client_id: "a".to_owned(),
            token_url: token_url(url),
            scope: scope.map(str::to_owned),
            params: TokenParams::new(),
            proof: ClientProof::Secret,
        };
        assert_eq!(scheme(oauth2, oauth2_keys), issued_at("https://vendor.example/token", Some("scim")));
        let own = format!("{oauth2_keys}token_url = \"https://acme.example/token?x=1\"\nscope = \"\"");
        assert_eq!(scheme(oauth2, &own), issued_at("https://acme.example/token?x=1", None));
        assert!(
            matches!(credential(oauth2, oauth2_keys).unwrap().secret, Secret::Env { variable, .. } if variable == "B")
        );
        let proof = |lines: &str| match scheme(oauth2, lines) {
            Scheme::Oauth2 { proof, .. } => proof,
            other => panic!("{other:?}"),
        };
        let key = "client_id = \"a\"\nprivate_key_file = \"key.pem\"\n";
        assert_eq!(proof(oauth2_keys), ClientProof::Secret);
        assert_eq!(proof(key), ClientProof::Key { id: None });
        assert_eq!(proof(&format!("{key}key_id = \"k\"")), ClientProof::Key { id: Some("k".to_owned()) });
        let zoom = format!("{oauth2}\ntoken_params = {{ grant_type = \"account_credentials\", account_id = \"\" }}");
        let params = |auth: &str, lines: &str| match scheme(auth, &format!("{oauth2_keys}{lines}")) {
            Scheme::Oauth2 { params, .. } => params.into_iter().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let param = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [param("account_id", "b"), param("grant_type", "account_credentials")];
        assert_eq!(params(&zoom, "token_params = { account_id = \"b\" }"), expected);
        assert_eq!(params(oauth2, "token_params = { audience = \"c\" }"), [param("audience", "c")]);
        let refresh = "token_params = { grant_type = \"refresh_token\" }\nrefresh_token_env = \"C\"";
        let login = credential(oauth2, &format!("{oauth2_keys}{refresh}")).unwrap();
        assert!(matches!(login.refresh_token.unwrap(), Secret::Env { variable, .. } if variable == "C"));
    }

    #[test]
    fn parameters_of_a_token_request_hold_no_secret_and_no_key_of_the_account() {
        for (given, words) in [
            ("account_id = \"\"", "token_params has no account_id; → token_params = { account_id = \"…\" }"),
            ("client_secret = \"4ca9ary\"", "holds a secret; → client_secret_env or client_secret_file"),
            ("refresh_token = \"4ca9ary\"", "holds a secret; → refresh_token_env or refresh_token_file"),
            ("client_id = \"4ca9ary\"", "has client_id, which is a key of the account; → client_id = \"…\""),
            ("scope = \"4ca9ary\"", "has scope, which is a key of the account"),
            ("client_assertion = \"4ca9ary\"", "holds an assertion; → private_key_file"),
            ("audience = \"4ca9 ary\"", "white space in a name or value"),
            (&format!("audience = \"{}\"", "4ca9ary".repeat(600)), "has more than 4096 bytes"),
        ] {
            let lines = format!(
                "client_id = \"a\"\nclient_secret_env = \"A\"\ntoken_url = \"https://a.example\"\n\
                                 token_params = {{ {given} }}"
            );
            let error = credential("auth = \"oauth2\"", &lines).err().expect("it is refused");
            assert!(error.contains(words) && !error.contains("4ca9"), "{given}: {error}");
        }
    }

    #[test]
    fn a_wrong_combination_of_credentials_says_what_to_add_or_remove() {
        for (auth, lines, words) in [
            ("bearer", "", "takes a bearer token; → add either token_env or token_file"),
            ("bearer", "token_env = \"A\"\ntoken_file = \"b\"", "both given; → remove one"),
            (
                "bearer",
                "token_env = \"A\"\nusername = \"b\"",
                "`username` has no use here; → remove it, the keys are token_env, token_file",
            ),
            ("api_key", "client_id = \"a\"", "takes an API key: `client_id` has no use here"),
            (
                "basic",
                "token_env = \"A\"",
                "`token_env` has no use here; → remove it, the keys are username, password_env",
            ),
            ("basic", "password_env = \"A\"", "username is missing; → username = "),
            ("basic", "username = \"a\"", "→ add either password_env or password_file"),
            ("basic", "username = \"a:b\"\npassword_env = \"C\"", "colon"),
            ("oauth2", "client_secret_env = \"A\"\ntoken_url = \"https://a.example\"", "client_id is missing"),
            (
                "oauth2",
                "client_id = \"a\"\nclient_secret_env = \"B\"",
                "token_url is missing; → token_url = \"https://",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"",
                "either client_secret_env or client_secret_file",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"\nclient_secret_env = \"A\"\nprivate_key_file = \"b\"",
                "a client secret and private_key_file are both given; → remove one",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"\nclient_secret_env = \"A\"\nkey_id = \"b\"",
                "key_id has no use without private_key_file; → remove it",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"\nprivate_key_file = \"b\"\nkey_id = \" \"",
                "key_id is empty",
            ),
            (
                "bearer",
                "token_env = \"A\"\nprivate_key_file = \"b\"",
                "`private_key_file` has no use here; → remove it",
            ),
            ("oauth2", "client_id = \"a\"\ntoken_url = \"http://a.example\"", "token_url must begin with https://"),
            ("oauth2", "client_id = \"a\"\ntoken_url = \"https://a:b@a.example\"", "must not hold credentials"),
            ("oauth2", "client_id = \"a\"\ntoken_url = \"https://a.example?client_secret=b\"", "not hold credentials"),
            (
                "bearer",
                "token_env = \"A\"\ntoken_params = { audience = \"b\" }",
                "`token_params` has no use here; → remove it",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"\nclient_secret_env = \"A\"\nrefresh_token_env = \"B\"",
                "a refresh token has no use with this grant; → remove it, or token_params = { grant_type",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"\nclient_secret_env = \"A\"\n\
                 token_params = { grant_type = \"refresh_token\" }",
                "→ add either refresh_token_env or refresh_token_file",
            ),
            ("bearer", "token_env = \"a-b\"", "token_env takes the NAME of a variable, not the token"),
        ] {
            let error = credential(&format!("auth = \"{auth}\""), lines).err().expect("it is refused");
            assert!(error.contains(words) && error.lines().count() == 1, "{auth}, {lines}: {error}");
        }
    }
}
