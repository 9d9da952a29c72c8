//! How an HTTP client gets to its server: the certificates that it trusts and shows, the proxy in between, and what a
//! failure on the way is called. SCIM servers, token endpoints and the schema registry share it.

pub mod file;
pub mod tls;
pub mod proxy;
pub mod failure;

use std::time::Duration;

use reqwest::redirect;
use url::Url;

use crate::directory::Problem;
pub use proxy::Proxy;
pub use tls::Trust;

/// What clients are made with: read from files and the environment once, valid until that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    pub trust: Trust,
    /// `None`: servers are reached directly.
    pub proxy: Option<Proxy>,
}

impl Transport {
    /// The proxy on the way to this URL; `None` if it is reached directly. The URL decides for a whole client, because
    /// clients follow no redirects.
    pub fn proxy_to(&self, url: &Url) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.is_for(url))
    }

    /// A client of the server at `url`, except its DNS resolver and its limits of time.
    ///
    /// # Errors
    /// TLS is needed and cannot be set up, or the proxy cannot be used for this URL. The problem has a remedy.
    pub fn builder(&self, url: &Url) -> Result<reqwest::ClientBuilder, Problem> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.trust.config_for(url)?)
            .user_agent(concat!("scimtail/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry the credential to another host.
            .redirect(redirect::Policy::none())
            // Of the environment, only what the configuration has read counts.
            .no_proxy();
        match self.proxy_to(url) {
            None => Ok(builder),
            Some(proxy) => Ok(builder.proxy(proxy.to_reqwest_for(url)?)),
        }
    }
}

/// How long one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until there is a connection.
    pub connect: Duration,
    /// Longest silence, before the first byte of an answer and inside its body.
    pub silence: Duration,
    /// The whole request, from connect to the last byte: also of a server that is slow but never silent.
    pub request: Duration,
}

/// A connection without a request for so long is closed. It keeps a buffer for its largest answers: 250 kB for an account
/// of 100 users, twice as much as all else that the account takes while it waits for its next poll. Within a sync
/// requests follow each other sooner, unless the vendor permits only a few a minute.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

impl Timeouts {
    pub fn of(self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let builder = builder.connect_timeout(self.connect).read_timeout(self.silence).timeout(self.request);
        builder.pool_idle_timeout(IDLE_CONNECTION)
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            request: Duration::from_secs(180),
        }
    }
}
