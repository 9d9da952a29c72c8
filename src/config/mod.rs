//! The configuration: parsed and checked once, before the first connection. Unknown keys are errors with their line.
//! Secrets are in the environment or in files, never in the configuration. Only this module reads the environment, except
//! that clap reads `SCIMTAIL_CONFIG`, `SCIMTAIL_LOG` and `USER` as defaults of arguments.

mod account;
mod account_files;
mod explain;
mod file;
pub mod follow;
mod http;
mod kafka;
mod limits;
#[cfg(feature = "msk-iam")]
mod msk_iam;
mod name;
mod network;
mod oauth;
mod providers;
mod registry;
mod secret;

pub use account::AccountConfig;
pub use explain::ConfigError;
pub use file::Config;
pub use http::HttpConfig;
pub use kafka::secrets_in_plain_sight;
pub use network::NetworkConfig;
pub use providers::{ProviderTexts, provider};
pub use registry::{RegistryConfig, RegistryLogin};
pub use secret::{Purpose, Secret};

#[cfg(test)]
mod tests;
