//! The surroundings of `demo`, so that nothing has to be installed: two simulated directories, a schema registry, a
//! Kafka, and the configuration with which any process of this machine finds them. The pipeline between them is the
//! real one.

pub mod directory;
pub mod kafka;
pub mod registry;
mod server;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tempfile::TempDir;

use crate::config::{AccountConfig, Config};
use crate::schedule::{now_millis, wall_clock};
use directory::{SimulatedDirectory, Vendor};
use kafka::EmbeddedKafka;
use registry::EmbeddedRegistry;

/// Few, because nothing here needs many.
const PARTITIONS: i32 = 4;
const PREFIX: &str = "demo";
const TOKEN: &str = "demo-token";
/// How long the consumer group waits for a process that was killed. With the default, a demo would wait for 15 s.
pub const SESSION_MS: u64 = 4_000;

/// One account, and the directory behind it.
pub struct Simulated {
    pub config: Arc<AccountConfig>,
    pub directory: SimulatedDirectory,
    /// Decides how many changes happen between two syncs. Each account has its own, so that the pace of one does not
    /// affect the changes of another.
    pub random: fastrand::Rng,
    /// When it was last changed at random, milliseconds since 1970-01-01 UTC.
    pub changed_at: i64,
}

impl Simulated {
    pub fn name(&self) -> &str {
        &self.config.account.name
    }
}

/// The embedded services and directories; dropping this stops them, and deletes the folder.
pub struct World {
    pub config: Config,
    /// In a folder of its own.
    pub file: PathBuf,
    /// The address of the pages of `run`.
    pub pages: SocketAddr,
    pub kafka: EmbeddedKafka,
    pub accounts: Vec<Simulated>,
    _registry: EmbeddedRegistry,
    folder: TempDir,
}

impl World {
    /// Starts everything; the same seed gives the same directories and changes.
    ///
    /// # Errors
    /// There is no free loopback port, or no folder for the configuration.
    pub async fn start(seed: u64, interval: &str) -> Result<World, String> {
        let words = |error: std::io::Error| format!("no loopback port: {error}");
        let kafka = EmbeddedKafka::start(now_millis).await.map_err(words)?;
        let registry = EmbeddedRegistry::start().await.map_err(words)?;
        let clock: fn() -> SystemTime = wall_clock;
        let mut directories = Vec::new();
        for vendor in Vendor::ALL {
            directories.push(SimulatedDirectory::start(vendor, TOKEN, seed, clock).await.map_err(words)?);
        }
        let pages = free_address().map_err(words)?;
        let words = |error: std::io::Error| format!("no temporary folder for the configuration: {error}");
        let folder = tempfile::Builder::new().prefix("scimtail-demo-").tempdir().map_err(words)?;
        let token = folder.path().join("token");
        write(&token, TOKEN).map_err(words)?;
        let mut text = format!(
            r#"# The configuration of a `scimtail demo` that is running. It goes with the demo.
[kafka]
brokers = ["{brokers}"]
topic_prefix = "{PREFIX}"
partitions = {PARTITIONS}
replication = 1

[kafka.properties]
"session.timeout.ms" = "{SESSION_MS}"
"heartbeat.interval.ms" = "1000"

[registry]
url = "{registry}"

[network]
proxy = "none"

[http]
listen = "{pages}"

[defaults]
interval = "{interval}"
"#,
            brokers = kafka.address(),
            registry = registry.url(),
        );
        for (vendor, directory) in Vendor::ALL.into_iter().zip(&directories) {
            text.push_str(&account(
                vendor,
                &directory.base_url(),
                &format!("token_file = {:?}", token.display().to_string()),
            ));
        }
        let file = folder.path().join("scimtail.toml");
        write(&file, &text).map_err(words)?;
        let config = Config::load(&file).map_err(|error| error.0)?;
        let simulated = |(config, directory): (&Arc<AccountConfig>, SimulatedDirectory)| Simulated {
            config: config.clone(),
            directory,
            random: fastrand::Rng::with_seed(seed),
            changed_at: 0,
        };
        let accounts = config.accounts.iter().zip(directories).map(simulated).collect();
        Ok(World { config, file, pages, kafka, accounts, _registry: registry, folder })
    }

    /// The folder of the configuration, which goes when this is dropped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The account of a simulated directory, as the configuration has it. `token`: the key of its token, with its value.
pub fn account(vendor: Vendor, base_url: &str, token: &str) -> String {
    let name = vendor.name();
    format!("\n[[account]]\nname = \"acme-{name}\"\nprovider = \"{name}\"\nbase_url = \"{base_url}\"\n{token}\n")
}

/// A loopback address that is free now.
fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
