//! The surroundings of `demo`, so that nothing has to be installed: two simulated directories, a schema registry, and the
//! mock cluster of librdkafka as Kafka. The pipeline between them is the real one.

pub mod directory;
pub mod kafka;
pub mod registry;
mod server;

use std::time::SystemTime;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::avro::{Codec, Registry};
use crate::config::{AccountConfig, Config, Secret};
use crate::log::Topic;
use crate::schedule::{now_millis, wall_clock};
use crate::shards::Services;
use directory::{SimulatedDirectory, Vendor};
use registry::EmbeddedRegistry;

/// The mock cluster keeps at most 5 MiB a partition.
const PARTITIONS: i32 = 4;
const PREFIX: &str = "demo";
const TOKEN: &str = "demo-token";

/// One account, and the directory behind it.
pub struct Simulated {
    pub config: AccountConfig,
    pub directory: SimulatedDirectory,
    /// Decides how many changes happen between two syncs. Each account has its own, so that the pace of one does not
    /// affect the changes of another.
    pub random: fastrand::Rng,
}

/// The embedded services and directories; dropping this stops them.
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
    /// There is no free loopback port, or the mock cluster does not start.
    pub async fn start(seed: u64, interval: &str) -> Result<World, String> {
        let words = |error: std::io::Error| format!("no loopback port: {error}");
        let cluster = MockCluster::new(1).map_err(|error| format!("the mock cluster does not start: {error}"))?;
        for topic in Topic::ALL {
            let created = cluster.create_topic(&topic.name(PREFIX), PARTITIONS, 1);
            created.map_err(|error| format!("the mock cluster does not create a topic: {error}"))?;
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
[network]
proxy = "none"
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
        let client = Registry::new(&config.registry.url).map_err(|error| error.to_string())?;
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
