//! From an account's configuration to its directory: the credential is read anew for each sync.

use secrecy::{ExposeSecret, SecretString};

use crate::config::AccountConfig;
use crate::scim::{Client, ReadError, ScimDirectory};

/// Code under which a credential that cannot be read is recorded.
const NO_CREDENTIAL: &str = "credential_unreadable";

/// Keeps the HTTP client, and with it open connections, while the credential stays the same.
pub struct Connection {
    config: AccountConfig,
    clock: fn() -> i64,
    current: Option<(SecretString, ScimDirectory)>,
}

impl Connection {
    pub fn new(config: &AccountConfig, clock: fn() -> i64) -> Connection {
        Connection { config: config.clone(), clock, current: None }
    }

    /// The directory with the credential as it is now.
    ///
    /// # Errors
    /// The credential cannot be read, or the URL must not be asked.
    pub fn directory(&mut self) -> Result<ScimDirectory, ReadError> {
        let token = self.config.token.read().map_err(|text| ReadError::new(NO_CREDENTIAL, text))?;
        if let Some((current, directory)) = &self.current
            && current.expose_secret() == token.expose_secret()
        {
            return Ok(directory.clone());
        }
        let AccountConfig { account, profile, base_url, allow_private, .. } = &self.config;
        let client = Client::new(base_url.clone(), token.clone(), profile.clone(), *allow_private, self.clock)?;
        let directory = ScimDirectory::new(client, account.attributes.clone());
        self.current = Some((token, directory.clone()));
        Ok(directory)
    }
}
