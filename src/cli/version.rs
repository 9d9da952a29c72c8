//! `--version`: what this program was made from, for a report of a failure.

use std::fmt::Write;
use std::sync::LazyLock;

use crate::avro::schema;
use crate::kafka::librdkafka_version;
use crate::log::Topic;

/// The commit that was checked out for the build, or `unknown`.
const COMMIT: &str = env!("SCIMTAIL_COMMIT");

/// The version, and below it the commit, librdkafka and the schemas, one in each line.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = format!("{}\ncommit {COMMIT}\nlibrdkafka {}", env!("CARGO_PKG_VERSION"), librdkafka_version());
        for topic in Topic::ALL {
            let (name, fingerprint) = (schema::name(topic), schema::fingerprint(topic));
            write!(text, "\nschema {name} {fingerprint}").expect("memory takes any text");
        }
        text
    });
    &TEXT
}
