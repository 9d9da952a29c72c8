//! From an account's configuration to its directory. The secret is read again for each sync.

use std::sync::Arc;

use crate::config::AccountConfig;
use crate::scim::{Client, Credential, Patience, ReadError, ScimDirectory};

/// The connection of an account to its directory. It keeps the HTTP client, and with it open connections and access
/// tokens.
pub struct Connection {
    config: AccountConfig,
    clock: fn() -> i64,
    directory: Option<ScimDirectory>,
}

impl Connection {
    pub fn new(config: &AccountConfig, clock: fn() -> i64) -> Connection {
        Connection { config: config.clone(), clock, directory: None }
    }

    /// The directory with the secret as it is now.
    ///
    /// # Errors
    /// The secret cannot be read, or a URL must not be asked.
    pub fn directory(&mut self) -> Result<ScimDirectory, ReadError> {
        if let Some(directory) = &mut self.directory {
            directory.reread_secret()?;
            return Ok(directory.clone());
        }
        let AccountConfig { account, profile, base_url, scheme, secret, allow_private, .. } = &self.config;
        let secret = secret.clone();
        let credential = Credential::new(scheme.clone(), Arc::new(move || secret.read()), *allow_private)?;
        let patience = Patience { rows: account.max_principals, ..Patience::default() };
        let client =
            Client::with_patience(base_url.clone(), credential, profile.clone(), *allow_private, self.clock, patience)?
                .for_account(&account.name);
        let directory = ScimDirectory::new(client, account.attributes.clone());
        Ok(self.directory.insert(directory).clone())
    }
}
