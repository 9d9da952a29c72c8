//! Kafka: whether it can be reached, whether its topics are as readers are promised, and each right that `run` needs.

use super::report::Report;
use crate::cli::failure::Exit;
use crate::config::{Config, secrets_in_plain_sight};
use crate::kafka::rights::{self, Right, Tried};
use crate::kafka::topics::{Cluster, Difference, Found, may_create, verify};
use crate::service::ServiceError;
use crate::transport::file::NamedFile;

/// `cluster`: what Kafka shows.
pub(super) async fn check(config: &Config, cluster: Result<Cluster, ServiceError>, report: &mut Report) {
    for exposure in config.kafka_files.iter().filter_map(NamedFile::exposure) {
        report.note("files", &exposure);
    }
    for name in secrets_in_plain_sight(&config.kafka) {
        let text =
            format!("\"{name}\" is in the configuration file; → \"{name}\" = {{ file = \"…\" }} in [kafka.secrets]");
        report.note("secrets", &text);
    }
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => return fail(config, "reach", &error, report),
    };
    let brokers = cluster.brokers.len();
    report.ok("reach", &format!("{brokers} {}", if brokers == 1 { "broker" } else { "brokers" }));
    let missing = cluster.topics.iter().filter(|topic| **topic == Found::Missing).count();
    if missing > 0 && config.create_topics {
        if let Err(error) = may_create(&config.kafka, config.replication).await {
            return fail(config, "topics", &error, report);
        }
        let all = cluster.topics.len();
        let which = if missing == all {
            format!("none of the {all} topics exists")
        } else {
            format!("{missing} of {all} topics do not exist")
        };
        let text = format!("{which} yet: `run` creates them");
        report.note("topics", &text);
    } else {
        match verify(&config.kafka, false).await {
            Ok(differences) => say_topics(config, &differences, report),
            Err(error) => fail(config, "topics", &error, report),
        }
    }
    match rights::probe(&config.kafka, &cluster, fastrand::u32(..)).await {
        Ok(rights) => say_rights(&rights, report),
        Err(error) => fail(config, "rights", &error, report),
    }
}

fn say_topics(config: &Config, differences: &[Difference], report: &mut Report) {
    let (count, partitions) = (config.kafka.topics().len(), config.kafka.partitions);
    report.ok("topics", &format!("{count} of {count}, {partitions} partitions, policies as expected"));
    for Difference { topic, setting, found, expected } in differences {
        report.note("topics", &format!("{topic}: {setting}={found}, readers are promised {expected}"));
    }
}

fn say_rights(rights: &[Right], report: &mut Report) {
    let mut granted = Vec::new();
    for Right { name, tried } in rights {
        match tried {
            Tried::Granted => granted.push(name.as_str()),
            Tried::Missing(problem) => report.fail("rights", problem, Exit::Configuration),
            Tried::Unclear(problem) => report.note("rights", &format!("{name}: could not be tried: {problem}")),
        }
    }
    if !granted.is_empty() {
        report.ok("rights", &granted.join(", "));
    }
}

fn fail(config: &Config, topic: &str, error: &ServiceError, report: &mut Report) {
    let topic = if error.is_refused() { topic } else { "reach" };
    let problem = error.problem().clone().without(&format!("kafka {}", config.kafka.brokers));
    report.fail(topic, &problem, Exit::from(error));
}
