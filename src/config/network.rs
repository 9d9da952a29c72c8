//! `[network]`, and the keys of `[registry]` and `[[account]]` that say how a server is reached: certificates and proxy.

use std::path::PathBuf;
use std::{env, fmt};

use serde::Deserialize;
use url::Url;

use super::secret::{Purpose, Secret};
use crate::directory::Problem;
use crate::scim::address::is_loopback;
use crate::transport::Transport;
use crate::transport::file::{Content, NamedFile};
use crate::transport::proxy::{self, Proxy, proxy_url};
use crate::transport::tls::{ClientFiles, TlsFiles};

/// The variables that name a proxy, and those that name hosts without one. The first that is set counts.
const PROXY_VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The value of `proxy` that means none.
const NO_PROXY: &str = "none";
/// A proxy in the remedy of a message.
const EXAMPLE: &str = "proxy = \"http://proxy.example:3128\"";

/// `[network]`: for all accounts and the registry.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSection {
    /// `http://host:port`, the proxy for https to directories, token endpoints and the registry. `"none"`: no proxy.
    /// Default: `HTTPS_PROXY` and `NO_PROXY` of the environment
    proxy: Option<String>,
    /// User name at the proxy (Basic authentication).
    proxy_username: Option<String>,
    /// Name of the variable that holds the password at the proxy.
    /// Default: exactly one of the two with `proxy_username`
    proxy_password_env: Option<String>,
    /// Path of the file that holds the password at the proxy.
    /// Default: exactly one of the two with `proxy_username`
    proxy_password_file: Option<PathBuf>,
}

impl NetworkSection {
    /// The proxy of everything that does not name another: this one, else that of the environment.
    ///
    /// # Errors
    /// The first wrong key or variable, with the remedy and without the value.
    pub fn proxy(self, variable: impl Fn(&str) -> Option<String>) -> Result<Option<ProxyConfig>, String> {
        let keys = ProxyKeys {
            proxy: self.proxy,
            username: self.proxy_username,
            password_env: self.proxy_password_env,
            password_file: self.proxy_password_file,
        };
        // A proxy of the environment that nothing would use must not be a reason to refuse.
        let inherited = if keys.proxy.is_none() { from_environment(variable)? } else { None };
        keys.check(inherited.as_ref()).map_err(|complaint| format!("[network] {complaint}"))
    }
}

/// The keys of a proxy in one section.
#[derive(Debug, Default)]
pub struct ProxyKeys {
    pub proxy: Option<String>,
    pub username: Option<String>,
    pub password_env: Option<String>,
    pub password_file: Option<PathBuf>,
}

impl ProxyKeys {
    /// The proxy that the keys name; without them the inherited one.
    ///
    /// # Errors
    /// The first wrong key, with the remedy and without its value.
    pub fn check(self, inherited: Option<&ProxyConfig>) -> Result<Option<ProxyConfig>, String> {
        let login = [
            ("proxy_username", self.username.is_some()),
            ("proxy_password_env", self.password_env.is_some()),
            ("proxy_password_file", self.password_file.is_some()),
        ];
        let stray = login.iter().find(|(_, given)| *given);
        let url = match (self.proxy.as_deref(), stray) {
            (None | Some(NO_PROXY), Some((key, _))) => {
                return Err(format!("{key} has no use without a proxy; → {EXAMPLE}, or remove it"));
            }
            (None, None) => return Ok(inherited.cloned()),
            (Some(NO_PROXY), None) => return Ok(None),
            (Some(text), _) => proxy_url(text).map_err(|complaint| match complaint {
                "must not hold credentials" => {
                    format!("proxy {complaint}; → proxy_username and proxy_password_file")
                }
                _ => format!("proxy {complaint}; → {EXAMPLE}, or \"{NO_PROXY}\""),
            })?,
        };
        let password = Secret::either(Purpose::ProxyPassword, self.password_env, self.password_file)?;
        let login = match (self.username, password) {
            (None, None) => None,
            (Some(username), Some(password)) => Some((plain_username("proxy_username", username)?, password)),
            (Some(_), None) => {
                return Err("proxy_username needs a password; → add either proxy_password_env or proxy_password_file"
                    .to_owned());
            }
            (None, Some(_)) => return Err("proxy_username is missing; → proxy_username = \"…\"".to_owned()),
        };
        Ok(Some(ProxyConfig::Named { url, login }))
    }
}

/// A user name that Basic authentication can carry (RFC 7617 §2).
///
/// # Errors
/// It cannot; the message does not repeat it, because it may be a token.
pub fn plain_username(key: &str, text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("{key} is empty; → {key} = \"…\""));
    }
    if text.contains(|c: char| c == ':' || c.is_control()) {
        return Err(format!("{key} must not hold a colon or control characters (RFC 7617)"));
    }
    Ok(text)
}

/// A proxy of the configuration, or of the environment.
#[derive(Clone)]
pub enum ProxyConfig {
    Named { url: Url, login: Option<(String, Secret)> },
    OfEnvironment(Proxy),
}

impl ProxyConfig {
    /// The proxy with the password as it is now.
    fn read(&self) -> Result<Proxy, Problem> {
        match self {
            ProxyConfig::OfEnvironment(proxy) => Ok(proxy.clone()),
            ProxyConfig::Named { url, login: None } => Ok(Proxy::new(url.clone(), None)),
            ProxyConfig::Named { url, login: Some((username, password)) } => {
                Ok(Proxy::new(url.clone(), Some((username.clone(), password.read()?))))
            }
        }
    }

    /// `host:port`, and what names it.
    pub fn told(&self) -> String {
        match self {
            ProxyConfig::OfEnvironment(proxy) => format!("{}, from the environment", proxy.address()),
            ProxyConfig::Named { url, .. } => proxy::address(url),
        }
    }

    /// The user name, and the place of the password.
    pub fn login(&self) -> Option<(&str, &Secret)> {
        match self {
            ProxyConfig::Named { login: Some((username, password)), .. } => Some((username, password)),
            ProxyConfig::Named { login: None, .. } | ProxyConfig::OfEnvironment(_) => None,
        }
    }
}

/// Without the user name, which may be a token by mistake.
impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyConfig({})", self.told())
    }
}

/// Equal if both name the same proxy, and the same place of the password.
impl PartialEq for ProxyConfig {
    fn eq(&self, other: &ProxyConfig) -> bool {
        match (self, other) {
            (ProxyConfig::OfEnvironment(one), ProxyConfig::OfEnvironment(other)) => one == other,
            (ProxyConfig::Named { url, login }, ProxyConfig::Named { url: other_url, login: other_login }) => {
                let same_login = match (login, other_login) {
                    (Some((name, password)), Some((other_name, other_password))) => {
                        name == other_name && password.is_at(other_password)
                    }
                    (one, other) => one.is_none() && other.is_none(),
                };
                url == other_url && same_login
            }
            _ => false,
        }
    }
}

/// How one server is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkConfig {
    pub tls: TlsFiles,
    pub proxy: Option<ProxyConfig>,
}

impl NetworkConfig {
    /// Everything as it is now in files and variables.
    ///
    /// # Errors
    /// A file or a variable cannot be read, or does not hold what its key says; never with any of its content.
    pub fn read(&self) -> Result<Transport, Problem> {
        let proxy = self.proxy.as_ref().map(ProxyConfig::read).transpose()?;
        Ok(Transport { trust: self.tls.read()?, proxy })
    }

    /// The proxy on the way to this URL: `host:port`, and what names it.
    pub fn proxy_to(&self, url: &Url) -> Option<String> {
        self.proxy
            .as_ref()
            .filter(|proxy| match proxy {
                ProxyConfig::OfEnvironment(proxy) => proxy.is_for(url),
                ProxyConfig::Named { url: own, .. } => Proxy::new(own.clone(), None).is_for(url),
            })
            .map(ProxyConfig::told)
    }

    /// The files that the keys of the section name.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        self.tls
            .files()
            .chain(self.proxy.as_ref().and_then(ProxyConfig::login).and_then(|(_, password)| password.named_file()))
    }
}

/// The files of `ca_file`, `client_cert_file` and `client_key_file`.
///
/// # Errors
/// Only one of the two keys of a client certificate is there.
pub fn tls_files(
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
) -> Result<TlsFiles, String> {
    let client = match (client_cert, client_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(ClientFiles {
            certificate: NamedFile::new("client_cert_file", certificate, Content::Certificates),
            key: NamedFile::new("client_key_file", key, Content::PrivateKey),
        }),
        (Some(_), None) => {
            return Err("client_cert_file has no use without its key; → client_key_file = \"…\"".to_owned());
        }
        (None, Some(_)) => {
            return Err("client_key_file has no use without its certificate; → client_cert_file = \"…\"".to_owned());
        }
    };
    Ok(TlsFiles { ca: ca.map(|path| NamedFile::new("ca_file", path, Content::Certificates)), client })
}

/// # Errors
/// A URL that would carry a secret in plain text to another machine.
pub fn encrypted(key: &str, url: &Url) -> Result<(), String> {
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)) {
        return Ok(());
    }
    Err(format!("{key} must begin with https:// (http:// only for loopback)"))
}

/// True if a URL holds a user name or a password.
pub fn has_userinfo(url: &Url) -> bool {
    url.username() != "" || url.password().is_some()
}

/// A variable of the environment; `None` if it is not set or not text.
#[expect(clippy::disallowed_methods, reason = "the variables of a proxy are part of the configuration")]
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// The proxy of the environment.
fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<ProxyConfig>, String> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, variable(name).filter(|value| !value.trim().is_empty())?)))
    };
    let Some((name, value)) = first(PROXY_VARIABLES) else { return Ok(None) };
    let no_proxy = first(NO_PROXY_VARIABLES).map(|(_, value)| value).unwrap_or_default();
    let proxy = Proxy::from_variable(&value, &no_proxy).map_err(|complaint| {
        format!(
            "the environment variable {name} {complaint}; → {name}=http://host:port, or proxy = \"{NO_PROXY}\" in [network]"
        )
    })?;
    Ok(Some(ProxyConfig::OfEnvironment(proxy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str, variables: &[(&str, &str)]) -> Result<Option<ProxyConfig>, String> {
        let section: NetworkSection = toml::from_str(text).unwrap();
        section.proxy(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn told(text: &str, variables: &[(&str, &str)]) -> Option<String> {
        network(text, variables).unwrap().map(|proxy| proxy.told())
    }

    #[test]
    fn the_configuration_comes_before_the_environment() {
        let variables = [("HTTPS_PROXY", "http://u:4ca9ary@env.example:1"), ("https_proxy", "http://lower.example:2")];
        let named = "proxy = \"http://named.example:3128\"";
        assert_eq!(told("", &[]), None);
        assert_eq!(told("", &variables).as_deref(), Some("env.example:1, from the environment"));
        assert_eq!(told("", &variables[1..]).as_deref(), Some("lower.example:2, from the environment"));
        assert_eq!(
            told("", &[("HTTPS_PROXY", ""), variables[1]]).as_deref(),
            Some("lower.example:2, from the environment")
        );
        assert_eq!(told(named, &variables).as_deref(), Some("named.example:3128"));
        assert_eq!(told("proxy = \"none\"", &variables), None);
        // What is not used may be anything.
        assert_eq!(told("proxy = \"none\"", &[("HTTPS_PROXY", "socks5://4ca9ary")]), None);
        let error = network("", &[("HTTPS_PROXY", "socks5://4ca9ary")]).unwrap_err();
        let expected = "the environment variable HTTPS_PROXY is not http://host:port; \
                        → HTTPS_PROXY=http://host:port, or proxy = \"none\" in [network]";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_proxy_is_used_for_https_and_not_for_the_hosts_of_no_proxy() {
        let variables = [("HTTPS_PROXY", "env.example:1"), ("NO_PROXY", "registry.example")];
        let reached = |text: &str, url: &str| {
            let proxy = network(text, &variables).unwrap();
            NetworkConfig { proxy, ..NetworkConfig::default() }.proxy_to(&Url::parse(url).unwrap())
        };
        assert_eq!(reached("", "https://vendor.example").as_deref(), Some("env.example:1, from the environment"));
        assert_eq!(reached("", "https://registry.example:8443"), None);
        assert_eq!(reached("", "http://localhost:8081"), None);
        let named = "proxy = \"http://named.example:3128\"";
        assert_eq!(reached(named, "https://registry.example:8443").as_deref(), Some("named.example:3128"));
        assert_eq!(reached(named, "http://localhost:8081"), None);
    }

    #[test]
    fn a_section_takes_its_own_proxy_or_none_or_the_inherited_one() {
        let inherited = network("proxy = \"http://named.example:3128\"", &[]).unwrap();
        let check = |proxy: Option<&str>| {
            let keys = ProxyKeys { proxy: proxy.map(str::to_owned), ..ProxyKeys::default() };
            keys.check(inherited.as_ref()).unwrap().map(|proxy| proxy.told())
        };
        assert_eq!(check(None).as_deref(), Some("named.example:3128"));
        assert_eq!(check(Some("none")), None);
        assert_eq!(check(Some("http://10.0.0.1:8080")).as_deref(), Some("10.0.0.1:8080"));
    }

    #[test]
    fn proxies_with_the_same_place_of_the_password_are_the_same() {
        let with =
            |lines: &str| network(&format!("proxy = \"http://p:1\"\nproxy_username = \"u\"\n{lines}"), &[]).unwrap();
        let file = "proxy_password_file = \"a\"";
        assert_eq!(with(file), with(file));
        assert_ne!(with(file), with("proxy_password_env = \"A\""));
        assert_ne!(with(file), network("proxy = \"http://p:1\"", &[]).unwrap());
        let variable = [("https_proxy", "http://u:p@env:1")];
        assert_eq!(network("", &variable).unwrap(), network("", &variable).unwrap());
    }
}
