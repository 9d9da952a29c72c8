//! From the configuration to an account's directory and to the registry. Secrets, keys and certificates are read again
//! for each sync, and when the registry refuses them.

use std::sync::Arc;

use futures::Stream;
use futures::future::Either;

use crate::avro::Registry;
use crate::avro::registry::{Access, Login};
use crate::config::{AccountConfig, RegistryConfig, RegistryLogin, Secret};
use crate::directory::{Id, Kind, Problem, ReasonCode};
use crate::okta::OktaDirectory;
use crate::scim::profile::Api;
use crate::scim::tape::Tape;
use crate::scim::{Client, Credential, Patience, Reach, ReadError, ScimDirectory, Sources};
use crate::service::ServiceError;
use crate::source::{Answer, Directory, Page, Parsed, RawRow};
use crate::transport::Transport;

/// The connection of an account to its directory. It keeps the HTTP client, and with it open connections and access
/// tokens.
pub struct Connection {
    config: Arc<AccountConfig>,
    clock: fn() -> i64,
    /// The directory, and what its HTTP client was made with.
    directory: Option<(Transport, AnyDirectory)>,
}

impl Connection {
    pub fn new(config: &Arc<AccountConfig>, clock: fn() -> i64) -> Connection {
        Connection { config: config.clone(), clock, directory: None }
    }

    /// The directory with the secret as it is now. Another certificate, or another password of the proxy, takes another
    /// client.
    ///
    /// # Errors
    /// A secret, a key or a certificate cannot be read, or a URL must not be asked.
    pub fn directory(&mut self) -> Result<AnyDirectory, ReadError> {
        let transport = self.config.network.read();
        let transport = transport.map_err(|problem| ReadError::new(ReasonCode::CredentialUnreadable, problem))?;
        if let Some((made_with, directory)) = &mut self.directory
            && *made_with == transport
        {
            directory.reread_secret()?;
            return Ok(directory.clone());
        }
        let AccountConfig { account, profile, base_url, scheme, secret, refresh_token, groups, allow_private, .. } =
            &*self.config;
        let secret = secret.clone();
        let reach = Reach { allow_private: *allow_private, transport: transport.clone() };
        let sources = Sources { now: self.clock, random: || fastrand::u128(..) };
        let credential = Credential::new(scheme.clone(), Arc::new(move || secret.read()), &reach, sources)?;
        let credential = credential.with_token_remedies(profile.token_remedies.clone());
        let credential = match refresh_token.clone() {
            Some(token) => credential.with_refresh_token(Arc::new(move || token.read()))?,
            None => credential,
        };
        let patience = Patience { rows: account.max_principals, ..Patience::default() };
        let client =
            Client::with_patience(base_url.clone(), credential, profile.clone(), &reach, self.clock, patience)?
                .for_account(&account.name);
        let attributes = account.attributes.clone();
        let directory = match profile.api {
            Api::Scim => AnyDirectory::Scim(ScimDirectory::new(client, attributes)),
            Api::Okta => AnyDirectory::Okta(OktaDirectory::new(client, attributes, groups.clone())),
        };
        Ok(self.directory.insert((transport, directory)).1.clone())
    }
}

/// The directory of an account, by what it speaks. Nothing behind the trait knows which one it is.
#[derive(Clone)]
pub enum AnyDirectory {
    Scim(ScimDirectory),
    Okta(OktaDirectory),
}

impl AnyDirectory {
    /// The requests of the directory.
    pub fn client(&self) -> &Client {
        match self {
            AnyDirectory::Scim(directory) => &directory.client,
            AnyDirectory::Okta(directory) => &directory.client,
        }
    }

    /// The same with its requests and answers written down.
    #[must_use]
    pub fn on_tape(mut self, tape: &Tape) -> AnyDirectory {
        let client = self.client().clone().on_tape(tape.clone());
        match &mut self {
            AnyDirectory::Scim(directory) => directory.client = client,
            AnyDirectory::Okta(directory) => directory.client = client,
        }
        self
    }

    fn reread_secret(&mut self) -> Result<(), ReadError> {
        match self {
            AnyDirectory::Scim(directory) => directory.reread_secret(),
            AnyDirectory::Okta(directory) => directory.reread_secret(),
        }
    }
}

impl Directory for AnyDirectory {
    type Error = ReadError;

    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        match self {
            AnyDirectory::Scim(directory) => Either::Left(directory.list(kind, since)),
            AnyDirectory::Okta(directory) => Either::Right(directory.list(kind, since)),
        }
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        match self {
            AnyDirectory::Scim(directory) => directory.read(kind, page, row),
            AnyDirectory::Okta(directory) => directory.read(kind, page, row),
        }
    }

    async fn get(&self, kind: Kind, id: &Id) -> Answer {
        match self {
            AnyDirectory::Scim(directory) => directory.get(kind, id).await,
            AnyDirectory::Okta(directory) => directory.get(kind, id).await,
        }
    }

    async fn in_one_page(&self, kind: Kind, count: u64) -> Option<Vec<RawRow>> {
        match self {
            AnyDirectory::Scim(directory) => directory.in_one_page(kind, count).await,
            AnyDirectory::Okta(directory) => directory.in_one_page(kind, count).await,
        }
    }

    async fn matching(&self, kind: Kind, attribute: &'static str, id: &Id) -> Result<Vec<Id>, ReadError> {
        match self {
            AnyDirectory::Scim(directory) => directory.matching(kind, attribute, id).await,
            AnyDirectory::Okta(directory) => directory.matching(kind, attribute, id).await,
        }
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
