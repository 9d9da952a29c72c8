//! `[http]`: the listener for monitoring and for people.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::secret::{Purpose, Secret};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSection {
    /// IP address and port of the status page and of the page for Prometheus, e.g. `"127.0.0.1:9464"`.
    listen: String,
    /// File with the token that requests have to show, except for `/healthz` and `/readyz`. It is required if `listen` is not on loopback.
    token_file: Option<PathBuf>,
}

/// The HTTP listener.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// What requests have to show.
    pub token: Option<Secret>,
}

impl PartialEq for HttpConfig {
    fn eq(&self, other: &HttpConfig) -> bool {
        let same_token = match (&self.token, &other.token) {
            (Some(one), Some(other)) => one.is_at(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.listen == other.listen && same_token
    }
}

impl HttpSection {
    /// # Errors
    /// What is wrong, and the remedy.
    pub fn check(self) -> Result<HttpConfig, String> {
        let HttpSection { listen, token_file } = self;
        let address: SocketAddr = listen.parse().map_err(|_| {
            format!("[http] listen = {listen:?} is not an IP address with a port; → listen = \"127.0.0.1:9464\"")
        })?;
        let token = token_file.map(|path| Secret::file(Purpose::Token, path));
        // The page has names of people.
        if token.is_none() && !address.ip().is_loopback() {
            return Err(format!(
                "[http] listen = \"{address}\" can be reached from other machines, and there is no token; \
                 → token_file, or listen = \"127.0.0.1:{}\"",
                address.port()
            ));
        }
        Ok(HttpConfig { listen: address, token })
    }
}
