//! What commands need of Kafka and the schema registry before they start.

use super::failure::Failure;
use crate::avro::{Codec, Registry};
use crate::config::Config;
use crate::connect;
use crate::kafka::{KafkaClient, topics};
use crate::memory;
use crate::progress::Board;
use crate::schedule::now_millis;
use crate::shards::Services;

/// Everything that a sync needs except its directory. Verifies the topics, and registers the schemas or looks them up.
///
/// # Errors
/// 69 if Kafka or the registry is unreachable, 78 if one of them refuses.
pub async fn services(config: &Config) -> Result<Services, Failure> {
    memory::set_budget(config.memory);
    let registry = connect::registry(&config.registry)?;
    // At the same time, because neither needs the other, and each waits for answers.
    let (ids, differences) = tokio::try_join!(
        async { Ok::<_, Failure>(registry.ids(&config.kafka.topic_prefix, config.register).await?) },
        async {
            if config.create_topics {
                topics::create(&config.kafka, config.replication).await?;
            }
            Ok(topics::verify(&config.kafka, config.create_topics).await?)
        }
    )?;
    for difference in differences {
        let topics::Difference { topic, setting, found, expected } = difference;
        tracing::warn!(topic, setting, found, expected, "topic differs from what readers are promised");
    }
    let progress = Board::default();
    Ok(Services { kafka: config.kafka.clone(), registry, codec: Codec { ids }, clock: now_millis, progress })
}

/// Checks that reading makes sense: the registry answers, and the topics have the configured number of partitions.
/// With another number, accounts would be looked for in the wrong partitions.
///
/// # Errors
/// 69 if Kafka or the registry is unreachable, 78 if it is another service or the number of partitions differs.
pub async fn readable(kafka: &KafkaClient, registry: &Registry) -> Result<(), Failure> {
    registry.probe().await?;
    Ok(topics::verify_counts(kafka).await?)
}
