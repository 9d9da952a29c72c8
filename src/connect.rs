//! From the configuration to an account's directory and to the registry. Secrets, keys and certificates are read again
//! for each sync, and when the registry refuses them.

use std::sync::Arc;

use crate::avro::Registry;
use crate::avro::registry::{Access, Login};
use crate::config::{AccountConfig, RegistryConfig, RegistryLogin, Secret};
use crate::directory::{Problem, ReasonCode};
use crate::scim::{Client, Credential, Patience, Reach, ReadError, ScimDirectory, Sources};
use crate::service::ServiceError;
use crate::transport::Transport;

/// The connection of an account to its directory. It keeps the HTTP client, and with it open connections and access
/// tokens.
pub struct Connection {
    config: AccountConfig,
    clock: fn() -> i64,
    /// The directory, and what its HTTP client was made with.
    directory: Option<(Transport, ScimDirectory)>,
}

impl Connection {
    pub fn new(config: &AccountConfig, clock: fn() -> i64) -> Connection {
        Connection { config: config.clone(), clock, directory: None }
    }

    /// The directory with the secret as it is now. Another certificate, or another password of the proxy, takes another
    /// client.
    ///
    /// # Errors
    /// A secret, a key or a certificate cannot be read, or a URL must not be asked.
    pub fn directory(&mut self) -> Result<ScimDirectory, ReadError> {
        let transport = self.config.network.read();
        let transport = transport.map_err(|problem| ReadError::new(ReasonCode::CredentialUnreadable, problem))?;
        if let Some((made_with, directory)) = &mut self.directory
            && *made_with == transport
        {
            directory.reread_secret()?;
            return Ok(directory.clone());
        }
        let AccountConfig { account, profile, base_url, scheme, secret, refresh_token, allow_private, .. } =
            &self.config;
        let secret = secret.clone();
        let reach = Reach { allow_private: *allow_private, transport: transport.clone() };
        let sources = Sources { now: self.clock, random: || fastrand::u128(..) };
        let credential = Credential::new(scheme.clone(), Arc::new(move || secret.read()), &reach, sources)?;
        let credential = match refresh_token.clone() {
            Some(token) => credential.with_refresh_token(Arc::new(move || token.read()))?,
            None => credential,
        };
        let patience = Patience { rows: account.max_principals, ..Patience::default() };
        let client =
            Client::with_patience(base_url.clone(), credential, profile.clone(), &reach, self.clock, patience)?
                .for_account(&account.name);
        let directory = ScimDirectory::new(client, account.attributes.clone());
        Ok(self.directory.insert((transport, directory)).1.clone())
    }
}

/// A client of the configured registry.
///
/// # Errors
/// A secret, a key or a certificate cannot be read, or TLS cannot be set up.
pub fn registry(config: &RegistryConfig) -> Result<Registry, ServiceError> {
    let url = config.url.clone();
    let config = config.clone();
    Registry::with_access(&url, Arc::new(move || access(&config)))
}

fn access(config: &RegistryConfig) -> Result<Access, Problem> {
    let read = |secret: &Secret| secret.read().map_err(Problem::new);
    let login = match &config.login {
        RegistryLogin::None => Login::None,
        RegistryLogin::Basic { username, password } => {
            Login::Basic { username: username.clone(), password: read(password)? }
        }
        RegistryLogin::Bearer { token } => Login::Bearer(read(token)?),
    };
    Ok(Access { login, transport: config.network.read()? })
}
