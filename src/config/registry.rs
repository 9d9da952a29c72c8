//! `[registry]`: the schema registry, and what it is shown.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::network::{NetworkConfig, ProxyConfig, ProxyKeys, has_userinfo, plain_username, tls_files};
use super::secret::{Purpose, Secret};
use crate::scim::address::is_loopback;
use crate::transport::file::NamedFile;

/// The registry, checked.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// As it is configured. It holds no credential.
    pub url: String,
    pub login: RegistryLogin,
    pub network: NetworkConfig,
    /// Requests go over plain HTTP to another machine.
    pub is_plaintext: bool,
}

/// How the registry lets scimtail in.
#[derive(Clone)]
pub enum RegistryLogin {
    None,
    Basic { username: String, password: Secret },
    Bearer { token: Secret },
}

/// Without the user name, which may be a token by mistake.
impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryLogin::None => f.write_str("None"),
            RegistryLogin::Basic { password, .. } => write!(f, "Basic({password})"),
            RegistryLogin::Bearer { token } => write!(f, "Bearer({token})"),
        }
    }
}

/// Equal if both lead to the same requests.
impl PartialEq for RegistryConfig {
    fn eq(&self, other: &RegistryConfig) -> bool {
        let same_login = match (&self.login, &other.login) {
            (RegistryLogin::None, RegistryLogin::None) => true,
            (
                RegistryLogin::Basic { username, password },
                RegistryLogin::Basic { username: other_username, password: other_password },
            ) => username == other_username && password.is_at(other_password),
            (RegistryLogin::Bearer { token }, RegistryLogin::Bearer { token: other }) => token.is_at(other),
            _ => false,
        };
        same_login && self.url == other.url && self.network == other.network
    }
}

impl RegistryConfig {
    /// True if a secret would travel unencrypted to another machine.
    pub fn sends_secret_in_plain_text(&self) -> bool {
        self.is_plaintext && !matches!(self.login, RegistryLogin::None)
    }

    /// The proxy on the way: `host:port`, and what names it.
    pub fn proxy(&self) -> Option<String> {
        self.network.proxy_to(&Url::parse(&self.url).ok()?)
    }

    /// The files that its keys name.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        let secret = match &self.login {
            RegistryLogin::None => None,
            RegistryLogin::Basic { password: secret, .. } | RegistryLogin::Bearer { token: secret } => Some(secret),
        };
        secret.and_then(Secret::named_file).into_iter().chain(self.network.files())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySection {
    /// URL of the schema registry (Confluent's API), without credentials in it.
    url: String,
    /// `false`: schemas are only looked up.
    #[serde(default = "default_register")]
    pub register: bool,
    /// Permits plain HTTP to a registry off loopback.
    #[serde(default)]
    allow_plaintext: bool,
    /// User name (Basic authentication).
    username: Option<String>,
    /// Name of the variable that holds the password.
    /// Default: exactly one of the two with `username`
    password_env: Option<String>,
    /// Path of the file that holds the password.
    /// Default: exactly one of the two with `username`
    password_file: Option<PathBuf>,
    /// Name of the variable that holds a bearer token, in place of a user name and password.
    token_env: Option<String>,
    /// Path of the file that holds a bearer token, in place of a user name and password.
    token_file: Option<PathBuf>,
    /// Certificates (PEM) of CAs that are trusted too.
    ca_file: Option<PathBuf>,
    /// Client certificate (PEM), if the registry asks for one.
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

fn default_register() -> bool {
    true
}

impl RegistrySection {
    /// `proxy`: the one that it uses if it names none.
    ///
    /// # Errors
    /// The first wrong key, with the remedy. Never repeats a value that may hold a credential.
    pub fn check(self, proxy: Option<&ProxyConfig>) -> Result<RegistryConfig, String> {
        let url = Url::parse(&self.url).map_err(|_| "url is not a URL".to_owned())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("url must begin with http:// or https://".to_owned());
        }
        // Messages about the registry name its URL, so it must not hold a credential.
        if has_userinfo(&url) || url.query().is_some() || url.fragment().is_some() {
            return Err("url must not hold credentials, a query or a fragment; \
                        → username and password_file, or token_file"
                .to_owned());
        }
        let is_plaintext = url.scheme() == "http" && !is_loopback(&url);
        if is_plaintext && !self.allow_plaintext {
            return Err("url leads off this machine in plain text; → https://, or allow_plaintext = true".to_owned());
        }
        let tls = tls_files(self.ca_file, self.client_cert_file, self.client_key_file)?;
        let keys = ProxyKeys {
            proxy: self.proxy,
            username: self.proxy_username,
            password_env: self.proxy_password_env,
            password_file: self.proxy_password_file,
        };
        let network = NetworkConfig { tls, proxy: keys.check(proxy)? };
        let token = Secret::either(Purpose::Token, self.token_env, self.token_file)?;
        let password = Secret::either(Purpose::Password, self.password_env, self.password_file)?;
        let login = match (self.username, password, token) {
            (None, None, None) => RegistryLogin::None,
            (None, None, Some(token)) => RegistryLogin::Bearer { token },
            (Some(username), Some(password), None) => {
                RegistryLogin::Basic { username: plain_username("username", username)?, password }
            }
            (Some(_), None, None) => {
                return Err("username needs a password; → add either password_env or password_file".to_owned());
            }
            (None, Some(_), None) => return Err("username is missing; → username = \"…\"".to_owned()),
            (_, _, Some(_)) => {
                return Err("a token and a username or password are both given; → remove one of them".to_owned());
            }
        };
        Ok(RegistryConfig { url: self.url, login, network, is_plaintext })
    }
}
