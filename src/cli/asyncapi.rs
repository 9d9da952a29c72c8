//! The topics as an AsyncAPI 3 document, for generators of readers or catalogues. It is made of the definitions that
//! also create the topics and encode the records.

use serde_json::{Map, Value, json};

use crate::avro::schema;
use crate::config::Config;
use crate::directory::EventType;
use crate::kafka::topics::{durability, settings};
use crate::log::Topic;

const KAFKA_BINDING: &str = "0.5.0";
const AVRO: &str = "application/vnd.apache.avro+json;version=1.9.0";

/// Descriptions of a topic that its definition does not have.
struct Words {
    holds: &'static str,
    key: &'static str,
    example_key: &'static str,
    /// The meaning of a null value; `None` if the topic has no null values.
    null: Option<&'static str>,
}

fn words(topic: Topic) -> Words {
    match topic {
        Topic::Events => Words {
            holds: "Every change, once. `sequence` orders the events of an account without gaps. docs/events.md says when each type occurs.",
            key: "The principal: account/Users/<id> or account/Groups/<id>; for membership events the member.",
            example_key: "acme-stripe/Users/usr_7f3c9a52",
            null: None,
        },
        Topic::Users => Words {
            holds: "The present state of each user.",
            key: "account/Users/<id>",
            example_key: "acme-stripe/Users/usr_7f3c9a52",
            null: Some("The user was removed."),
        },
        Topic::Groups => Words {
            holds: "The present state of each group, without its members.",
            key: "account/Groups/<id>",
            example_key: "acme-stripe/Groups/grp_04",
            null: Some("The group was removed."),
        },
        Topic::Memberships => Words {
            holds: "Each present membership, with ids only: names are in users and groups.",
            key: "account/Users/<uid>/Groups/<gid>; for a group in a group account/Groups/<child>/Groups/<gid>.",
            example_key: "acme-stripe/Users/usr_7f3c9a52/Groups/grp_04",
            null: Some("The membership was removed."),
        },
        Topic::Syncs => Words {
            holds: "The status of syncs. The record with the key `account` says up to which positions the compacted topics are complete.",
            key: "account: the last completed sync; account/latest: the newest attempt.",
            example_key: "acme-stripe/latest",
            null: Some("The account was retired."),
        },
        Topic::Control => Words {
            holds: "Requests of people: release, pause, resume, poll; and records of actions that were carried out at once: reseed, retire.",
            key: "account",
            example_key: "acme-stripe",
            null: None,
        },
        Topic::EventsOcsf => Words {
            holds: "The events as JSON, OCSF 1.8.0, each in the transaction of its event.",
            ..words(Topic::Events)
        },
        Topic::EventsEcs => Words {
            holds: "The events as JSON, Elastic Common Schema, each in the transaction of its event.",
            ..words(Topic::Events)
        },
    }
}

/// The document for the topics of a configuration. The application is scimtail, which receives `control` and sends the
/// others.
pub fn document(config: &Config) -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for topic in config.kafka.topics() {
        let suffix = topic.suffix();
        let (name, definition) = match topic {
            Topic::EventsOcsf => ("ChangeEventOcsf".to_owned(), copy(topic, "ChangeEventOcsf")),
            Topic::EventsEcs => ("ChangeEventEcs".to_owned(), copy(topic, "ChangeEventEcs")),
            _ => {
                let schema: Value = serde_json::from_str(schema::text(topic)).unwrap_or_default();
                let name = schema["name"].as_str().unwrap_or_default().to_owned();
                (name.clone(), message(topic, &name, schema))
            }
        };
        let mut of_channel = vec![name.clone()];
        messages.insert(name, definition);
        if let Some(meaning) = words(topic).null {
            let name = format!("{}Tombstone", of_channel[0]);
            messages.insert(name.clone(), tombstone(topic, &name, meaning));
            of_channel.push(name);
        }
        let sends = topic != Topic::Control;
        let listed = of_channel.iter().map(|name| reference(&format!("channels/{suffix}/messages/{name}")));
        let operation = json!({
            "action": if sends { "send" } else { "receive" },
            "channel": reference(&format!("channels/{suffix}")),
            "summary": words(topic).holds,
            "messages": listed.collect::<Vec<_>>(),
        });
        operations.insert(format!("{}_{suffix}", if sends { "send" } else { "receive" }), operation);
        channels.insert(suffix.to_owned(), channel(config, topic, &of_channel));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "scimtail",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Changes and state of SCIM directories. The application is scimtail, so its `send` operations are those to read, with isolation.level=read_committed. Keys are plain UTF-8; values are Avro behind 0x00 and the schema id (4 bytes, big-endian). The partition of every record is (murmur2(account) & 0x7fffffff) % partitions, from the name of the account and not from the key.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "servers": servers(config),
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}

fn reference(path: &str) -> Value {
    json!({ "$ref": format!("#/{path}") })
}

fn servers(config: &Config) -> Value {
    let protocol = config.kafka.properties.get("security.protocol").map_or("plaintext", String::as_str);
    let protocol = if protocol.to_ascii_lowercase().contains("ssl") { "kafka-secure" } else { "kafka" };
    let brokers = config.kafka.brokers.split(',').enumerate().map(|(index, host)| {
        let registry = json!({ "schemaRegistryUrl": config.registry.url, "bindingVersion": KAFKA_BINDING });
        let server = json!({ "host": host, "protocol": protocol, "bindings": { "kafka": registry } });
        (format!("broker-{}", index + 1), server)
    });
    Value::Object(brokers.collect())
}

fn channel(config: &Config, topic: Topic, messages: &[String]) -> Value {
    let setting = |(key, text): (&str, String)| {
        let value = match key {
            "cleanup.policy" => json!([text]),
            _ => text
                .parse::<i64>()
                .map(Value::from)
                .or_else(|_| text.parse::<f64>().map(Value::from))
                .unwrap_or(json!(text)),
        };
        (key.to_owned(), value)
    };
    let configuration: Map<String, Value> =
        settings(topic, durability(config.replication, 0).1).into_iter().map(setting).collect();
    let address = config.kafka.topic(topic);
    let mut binding = json!({
        "topic": address,
        "partitions": config.kafka.partitions,
        "topicConfiguration": configuration,
        "bindingVersion": KAFKA_BINDING,
    });
    // -1 is the default of the brokers, which only they know.
    if config.replication > 0 {
        binding["replicas"] = json!(config.replication);
    }
    let messages: Map<String, Value> =
        messages.iter().map(|name| (name.clone(), reference(&format!("components/messages/{name}")))).collect();
    json!({
        "address": address,
        "description": words(topic).holds,
        "messages": messages,
        "bindings": { "kafka": binding },
    })
}

fn content_type(topic: Topic) -> &'static str {
    if Topic::OUTPUTS.contains(&topic) { "application/json" } else { "application/avro" }
}

/// The message of an event as JSON, in the form of the output format; see docs/events.md.
fn copy(topic: Topic, name: &str) -> Value {
    let mut message = json!({
        "name": name,
        "summary": words(topic).holds,
        "contentType": content_type(topic),
        "payload": { "type": "object" },
        "bindings": { "kafka": { "key": key(topic), "bindingVersion": KAFKA_BINDING } },
    });
    message["headers"] = headers(topic).unwrap_or_default();
    message
}

fn message(topic: Topic, name: &str, schema: Value) -> Value {
    let mut message = json!({
        "name": name,
        "summary": schema["doc"],
        "contentType": content_type(topic),
        "payload": { "schemaFormat": AVRO, "schema": schema },
        "bindings": { "kafka": {
            "key": key(topic),
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "4",
            "schemaLookupStrategy": "TopicNameStrategy",
            "bindingVersion": KAFKA_BINDING,
        } },
    });
    if let Some(headers) = headers(topic) {
        message["headers"] = headers;
    }
    message
}

fn tombstone(topic: Topic, name: &str, meaning: &str) -> Value {
    let mut message = json!({
        "name": name,
        "summary": meaning,
        "payload": { "type": "null" },
        "bindings": { "kafka": { "key": key(topic), "bindingVersion": KAFKA_BINDING } },
    });
    if let Some(headers) = headers(topic) {
        message["headers"] = headers;
    }
    message
}

fn key(topic: Topic) -> Value {
    let Words { key, example_key, .. } = words(topic);
    let description = format!("{key} In ids `%`, `/` and control characters are percent-encoded.");
    json!({ "type": "string", "description": description, "examples": [example_key] })
}

/// CloudEvents 1.0, binary mode; `None` for topics whose records have no headers.
fn headers(topic: Topic) -> Option<Value> {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let cause = "of the event that caused this record; absent on a silent rewrite";
    match topic {
        Topic::Events | Topic::EventsOcsf | Topic::EventsEcs => {
            let types: Vec<String> =
                EventType::ALL.iter().map(|event_type| format!("scimtail.{}", event_type.as_str())).collect();
            let properties = json!({
                "ce_specversion": { "type": "string", "const": "1.0" },
                "ce_id": text("event_id"),
                "ce_source": text("scimtail/<account>"),
                "ce_type": { "type": "string", "enum": types },
                "ce_time": text("observed_at, RFC 3339"),
                "ce_sequence": { "type": "string", "pattern": "^[0-9]{19}$", "description": "sequence, 19 digits" },
                "ce_privileges": text("privileges, separated by commas, if there are any"),
                "ce_correlationid": text("correlation_id, if there is one"),
                "content-type": { "type": "string", "const": content_type(topic) },
            });
            let required =
                ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_sequence", "content-type"];
            Some(json!({ "type": "object", "properties": properties, "required": required }))
        }
        Topic::Users | Topic::Groups | Topic::Memberships => {
            let properties = json!({ "ce_id": text(&format!("event_id {cause}")), "ce_sequence": text(&format!("sequence {cause}")) });
            Some(json!({ "type": "object", "properties": properties }))
        }
        Topic::Syncs | Topic::Control => None,
    }
}
