//! OAuth2 client credentials: the keys that accounts and `[kafka.oauth]` share, and the tokens that Kafka takes.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::explain::secret_key;
use super::network::{NetworkConfig, ProxyConfig, ProxyKeys, encrypted, has_userinfo, tls_files};
use super::secret::{Purpose, Secret};
use crate::directory::{Class, Problem};
use crate::kafka::oauth::{BearerToken, TokenSource, Tokens};
use crate::schedule::now_millis;
use crate::scim::token::{Grant, issue};
use crate::scim::{ClientProof, Reach, ReadError, Sources, Timeouts, TokenParams};
use crate::service::ServiceError;
use crate::transport::file::NamedFile;

/// For a token of Kafka: a person waits for the command.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(4), silence: Duration::from_secs(8), request: Duration::from_secs(10) };
/// The life of a token whose endpoint does not say it (RFC 6749 §5.1 permits that).
const LIFE_UNSAID: Duration = Duration::from_secs(300);
/// A longer life is cut: the number of its milliseconds goes through C.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Characters of all extensions. The first message of a client is one line of text.
const EXTENSIONS_MAX: usize = 4_096;
/// Bytes of all `token_params`. A request for a token is one short form.
const TOKEN_PARAMS_BYTES_MAX: usize = 4_096;

/// `[kafka.oauth]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthSection {
    /// URL that issues the tokens.
    /// Default: required
    token_url: Option<String>,
    /// Client id at the OAuth2 server.
    /// Default: required
    client_id: Option<String>,
    /// Name of the variable that holds the client secret.
    /// Default: exactly one of the three
    client_secret_env: Option<String>,
    /// Path of the file that holds the client secret.
    /// Default: exactly one of the three
    client_secret_file: Option<PathBuf>,
    /// Path of a private key (PEM) that signs `private_key_jwt` assertions in place of a secret.
    /// Default: exactly one of the three
    private_key_file: Option<PathBuf>,
    /// The `kid` of the private key.
    key_id: Option<String>,
    /// Scope of the tokens.
    scope: Option<String>,
    /// SASL extensions, as some services ask for them.
    #[serde(default)]
    extensions: BTreeMap<String, String>,
    /// Certificates (PEM) of CAs that are trusted too.
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
    /// User name at this proxy.
    proxy_username: Option<String>,
    /// Name of the variable that holds the password at this proxy.
    /// Default: exactly one of the two with `proxy_username`
    proxy_password_env: Option<String>,
    /// Path of the file that holds the password at this proxy.
    /// Default: exactly one of the two with `proxy_username`
    proxy_password_file: Option<PathBuf>,
}

/// The section, checked.
pub struct OauthConfig {
    token_url: Url,
    client_id: String,
    scope: Option<String>,
    proof: ClientProof,
    secret: Secret,
    extensions: Vec<(String, String)>,
    network: NetworkConfig,
}

impl OauthSection {
    /// `proxy`: the one that it uses if it names none.
    ///
    /// # Errors
    /// The first wrong key, with the remedy. Never repeats a value that may hold a credential.
    pub fn check(self, proxy: Option<&ProxyConfig>) -> Result<OauthConfig, String> {
        const URL: &str = "token_url = \"https://…/token\"";
        let text = self.token_url.ok_or_else(|| format!("token_url is missing; → {URL}"))?;
        let token_url = token_url(&text, URL)?;
        let client_id = self.client_id.filter(|id| !id.trim().is_empty());
        let client_id = client_id.ok_or("client_id is missing; → client_id = \"…\"")?;
        if client_id.contains(char::is_control) {
            return Err("client_id holds control characters; → the id alone".to_owned());
        }
        let secret = Secret::either(Purpose::ClientSecret, self.client_secret_env, self.client_secret_file)?;
        let (proof, secret) = client_proof(secret, self.private_key_file, self.key_id, "[kafka.oauth] needs a secret")?;
        for (key, value) in &self.extensions {
            extension(key, value)?;
        }
        if self.extensions.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > EXTENSIONS_MAX {
            return Err(format!("extensions has more than {EXTENSIONS_MAX} characters"));
        }
        let tls = tls_files(self.ca_file, self.client_cert_file, self.client_key_file)?;
        let keys = ProxyKeys {
            proxy: self.proxy,
            username: self.proxy_username,
            password_env: self.proxy_password_env,
            password_file: self.proxy_password_file,
        };
        Ok(OauthConfig {
            token_url,
            client_id,
            scope: self.scope.filter(|scope| !scope.trim().is_empty()),
            proof,
            secret,
            extensions: self.extensions.into_iter().collect(),
            network: NetworkConfig { tls, proxy: keys.check(proxy)? },
        })
    }
}

/// An extension of SASL OAUTHBEARER (RFC 7628 §3.1): a name of letters, a value of what can be seen and of spaces.
fn extension(key: &str, value: &str) -> Result<(), String> {
    // Neither is repeated: a secret may be there by mistake.
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphabetic()) || key.eq_ignore_ascii_case("auth") {
        return Err("extensions has a name that is not one; → letters only, e.g. logicalCluster = \"lkc-…\"".to_owned());
    }
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(format!("the value of {key} in extensions is empty or holds characters that SASL does not take"));
    }
    Ok(())
}

impl OauthConfig {
    /// The files that its keys name.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        self.secret.named_file().into_iter().chain(self.network.files())
    }

    /// The tokens of all clients of Kafka. Secrets and certificates are read again for each token.
    pub fn tokens(self) -> Tokens {
        let (principal, extensions) = (self.client_id.clone(), self.extensions.clone());
        let place = self.token_url.host_str().unwrap_or_default().to_owned();
        let identity = self.identity();
        let config = Arc::new(self);
        let issue = Box::new(move || {
            let config = config.clone();
            on_a_runtime_of_its_own(async move { config.issue().await })
        });
        Tokens::new(TokenSource { place, identity, principal, extensions, issue, clock: now_millis })
    }

    /// Two with the same one lead to the same tokens. Texts for people leave out what may be a secret by mistake, so
    /// that they do not tell two places apart.
    fn identity(&self) -> u128 {
        let OauthConfig { token_url, client_id, scope, proof, secret, extensions, network } = self;
        let files: Vec<_> = self.files().map(|file| (file.key, &file.path)).collect();
        let proxy = network.proxy.as_ref();
        let proxy_login = proxy.and_then(ProxyConfig::login).map(|(name, password)| (name, variable_of(password)));
        let proxy = (proxy.map(ProxyConfig::told), proxy_login);
        let all = (token_url.as_str(), client_id, scope, proof, variable_of(secret), extensions, files, proxy);
        xxhash_rust::xxh3::xxh3_128(format!("{all:?}").as_bytes())
    }

    async fn issue(&self) -> Result<BearerToken, ServiceError> {
        let at = |problem: Problem| problem.of("[kafka.oauth]");
        let secret = self.secret.read().map_err(|text| ServiceError::Refused(at(Problem::new(text))))?;
        let transport = self.network.read().map_err(|problem| ServiceError::Refused(at(problem)))?;
        // The operator of scimtail names this endpoint, and it is often inside the company.
        let reach = Reach { allow_private: true, transport };
        let sources = Sources { now: now_millis, random: || fastrand::u128(..) };
        let grant = Grant {
            client_id: &self.client_id,
            token_url: &self.token_url,
            scope: self.scope.as_deref(),
            params: &TokenParams::new(),
            secret: &secret,
            refresh_token: None,
            proof: &self.proof,
            remedies: &BTreeMap::new(),
        };
        let asked_at = now_millis();
        let granted =
            issue(&grant, &reach, TIMEOUTS, sources).await.map_err(|error: ReadError| match error.code.class() {
                Class::Retry => ServiceError::Unreachable(at(error.problem)),
                Class::Person | Class::Configuration => ServiceError::Refused(at(error.problem)),
            })?;
        let life = granted.lifetime.unwrap_or(LIFE_UNSAID).min(LIFE_MAX).as_millis();
        Ok(BearerToken { secret: granted.secret, expires_at: asked_at + i64::try_from(life).unwrap_or_default() })
    }
}

/// The variable that a secret is in, as it is.
fn variable_of(secret: &Secret) -> Option<&str> {
    match secret {
        Secret::Env { variable, .. } => Some(variable),
        Secret::File { .. } | Secret::Given(_) => None,
    }
}

/// Runs what is asynchronous for a caller that blocks, on any thread, also on one of a runtime. A client of HTTP lives
/// as long as its runtime, and a token is fetched once an hour.
pub fn on_a_runtime_of_its_own<T: Send>(
    work: impl Future<Output = Result<T, ServiceError>> + Send,
) -> Result<T, ServiceError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| ServiceError::unreachable(format!("no token for Kafka: no runtime ({error})")))?;
        let done = runtime.block_on(work);
        // A look-up of a name may still be under way, longer than anything waits here.
        runtime.shutdown_background();
        done
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The URL that issues OAuth2 tokens. No message repeats it, because it may hold a secret. `remedy`: a right one.
pub fn token_url(text: &str, remedy: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("token_url is not a URL; → {remedy}"))?;
    encrypted("token_url", &url)?;
    // A query is allowed, because some vendors expect the tenant there.
    let has_secret = url.query_pairs().any(|(name, _)| secret_key(&name).is_some());
    if has_userinfo(&url) || has_secret || url.fragment().is_some() {
        return Err("token_url must not hold credentials or a fragment; \
                    → client_id and client_secret_env or client_secret_file"
            .to_owned());
    }
    Ok(url)
}

/// The parameters of a request for a token: those of the profile, and those of the account, which win.
///
/// # Errors
/// One is missing, has another key or may be a secret. The message does not repeat a value.
pub fn token_params(profile: &TokenParams, own: Option<&TokenParams>) -> Result<TokenParams, String> {
    let params: TokenParams =
        profile.iter().chain(own.into_iter().flatten()).map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in &params {
        if let Some(belongs) = secret_key(name) {
            return Err(format!("token_params holds a secret; → {belongs}_env or {belongs}_file"));
        }
        if let Some(key) = ["client_id", "scope"].into_iter().find(|key| *key == name) {
            return Err(format!("token_params has {key}, which is a key of the account; → {key} = \"…\""));
        }
        if name.starts_with("client_assertion") {
            return Err("token_params holds an assertion; → private_key_file, with which scimtail signs one".to_owned());
        }
        if name.is_empty() || name.chars().chain(value.chars()).any(|c| c.is_control() || c.is_whitespace()) {
            return Err("token_params has an empty name, or white space in a name or value; → remove it".to_owned());
        }
        if value.is_empty() {
            return Err(format!("token_params has no {name}; → token_params = {{ {name} = \"…\" }}"));
        }
    }
    let length: usize = params.iter().map(|(name, value)| name.len() + value.len()).sum();
    if length > TOKEN_PARAMS_BYTES_MAX {
        return Err(format!("token_params has more than {TOKEN_PARAMS_BYTES_MAX} bytes; → remove some"));
    }
    Ok(params)
}

/// How an OAuth2 client proves itself: with its secret, or with its private key. `taken`: what needs it.
///
/// # Errors
/// The keys do not fit together.
pub fn client_proof(
    secret: Option<Secret>,
    private_key_file: Option<PathBuf>,
    key_id: Option<String>,
    taken: &str,
) -> Result<(ClientProof, Secret), String> {
    match (secret, private_key_file, key_id) {
        (_, None, Some(_)) => Err("key_id has no use without private_key_file; → remove it".to_owned()),
        (_, _, Some(id)) if id.trim().is_empty() => Err("key_id is empty; → remove it".to_owned()),
        (Some(secret), None, None) => Ok((ClientProof::Secret, secret)),
        (None, Some(path), id) => Ok((ClientProof::Key { id }, Secret::file(Purpose::PrivateKey, path))),
        (Some(_), Some(_), _) => {
            Err("a client secret and private_key_file are both given; → remove one of them".to_owned())
        }
        (None, None, None) => {
            Err(format!("{taken}; → add either client_secret_env or client_secret_file, or private_key_file"))
        }
    }
}
