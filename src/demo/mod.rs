//! Everything that `demo` embeds so that nothing has to be installed: two simulated directories, a registry,
//! and librdkafka's mock cluster as Kafka. The pipeline between them is the real one.

pub mod directory;
pub mod registry;
mod server;

use std::time::SystemTime;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::avro::{Codec, Registry};
use crate::config::{AccountConfig, Config, Secret};
use crate::schedule::{now_millis, wall_clock};
use crate::shards::Services;
use directory::{SimulatedDirectory, Vendor};
use registry::EmbeddedRegistry;

/// The mock cluster keeps at most 5 MiB a partition; more partitions would only hold less each.
const PARTITIONS: i32 = 4;
const PREFIX: &str = "demo";
const TOKEN: &str = "demo-token";

/// One account and the truth behind it.
pub struct Simulated {
    pub config: AccountConfig,
    pub directory: SimulatedDirectory,
    /// How much changes between two syncs; its own, so that accounts do not depend on each other's pace.
    pub random: fastrand::Rng,
}

/// The embedded world; it ends when this is dropped.
pub struct World {
    pub services: Services,
    pub accounts: Vec<Simulated>,
    _registry: EmbeddedRegistry,
    _cluster: MockCluster<'static, DefaultProducerContext>,
}

impl World {
    /// Starts everything; the same seed gives the same directories and changes.
    ///
    /// # Errors
    /// In words; a loopback port or the mock cluster is not to be had.
    pub async fn start(seed: u64, interval: &str) -> Result<World, String> {
        let words = |error: std::io::Error| format!("no loopback port: {error}");
        let cluster = MockCluster::new(1).map_err(|error| format!("the mock cluster does not start: {error}"))?;
        for topic in crate::log::Topic::ALL {
            let created = cluster.create_topic(&topic.name(PREFIX), PARTITIONS, 1);
            created.map_err(|error| format!("the mock cluster has no topic: {error}"))?;
        }
        let registry = EmbeddedRegistry::start().await.map_err(words)?;
        let clock: fn() -> SystemTime = wall_clock;
        let stripe = SimulatedDirectory::start(Vendor::Stripe, TOKEN, seed, clock).await.map_err(words)?;
        let chargebee = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, seed, clock).await.map_err(words)?;
        let text = format!(
            r#"
[kafka]
brokers = ["{brokers}"]
topic_prefix = "{PREFIX}"
partitions = {PARTITIONS}
[registry]
url = "{registry}"
[defaults]
interval = "{interval}"
[[account]]
name = "acme-stripe"
provider = "stripe"
base_url = "{stripe}"
token_env = "GIVEN_BELOW"
[[account]]
name = "acme-chargebee"
provider = "chargebee"
base_url = "{chargebee}"
token_env = "GIVEN_BELOW"
"#,
            brokers = cluster.bootstrap_servers(),
            registry = registry.url(),
            stripe = stripe.base_url(),
            chargebee = chargebee.base_url(),
        );
        let config = Config::parse("demo", &text).map_err(|error| error.0)?;
        let client = Registry::new(&config.registry_url).map_err(|error| error.to_string())?;
        let ids = client.ids(PREFIX, true).await.map_err(|error| error.to_string())?;
        let services =
            Services { kafka: config.kafka.clone(), registry: client, codec: Codec { ids }, clock: now_millis };
        let simulated = |(mut config, directory): (AccountConfig, SimulatedDirectory)| {
            config.secret = Secret::Given(TOKEN.to_owned().into());
            Simulated { config, directory, random: fastrand::Rng::with_seed(seed) }
        };
        let accounts = config.accounts.into_iter().zip([stripe, chargebee]).map(simulated).collect();
        Ok(World { services, accounts, _registry: registry, _cluster: cluster })
    }
}
