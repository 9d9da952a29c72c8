//! `schemas`: compare them with the registry, register them, or print them.

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::{print, print_json};
use crate::avro::lint::evolution;
use crate::avro::registry::{COMPATIBILITY, Version};
use crate::avro::schema;
use crate::config::Config;
use crate::connect;
use crate::log::Topic;
use crate::mapping::text::clean;

#[derive(Debug, Args)]
pub struct Options {
    /// Compare the registry with what this version needs; writes nothing [the default]
    #[arg(long, conflicts_with_all = ["register", "print"])]
    check: bool,
    /// Register the missing schemas
    #[arg(long, conflicts_with = "print")]
    register: bool,
    /// Print subjects and schemas as JSON lines
    #[arg(long)]
    print: bool,
}

pub async fn schemas(config: &Config, options: Options) -> Result<Exit, Failure> {
    let prefix = &config.kafka.topic_prefix;
    if options.print {
        for topic in Topic::ALL {
            let line = serde_json::json!({ "subject": schema::subject(prefix, topic), "schema": schema::text(topic), "compatibility": COMPATIBILITY });
            print_json(&line.to_string())?;
        }
        return Ok(Exit::Done);
    }
    let registry = connect::registry(&config.registry)?;
    registry.probe().await?;
    if options.register {
        registry.ids(prefix, true).await?;
    }
    let mut code = Exit::Done;
    for topic in Topic::ALL {
        let subject = schema::subject(prefix, topic);
        let versions = registry.versions(&subject).await?;
        let own = registry.look_up(&subject, schema::text(topic)).await?;
        let found = Found {
            level: registry.compatibility(&subject).await?,
            accepted: own.is_some() || versions.is_empty() || registry.accepts(&subject, schema::text(topic)).await?,
            versions,
            own,
        };
        for finding in found.judged(schema::text(topic), config.register) {
            let (label, text) = match &finding {
                Finding::Ok(text) => ("ok  ", text),
                Finding::Note(text) => ("note", text),
                Finding::Fail(text) => ("FAIL", text),
            };
            if matches!(finding, Finding::Fail(_)) {
                code = Exit::Configuration;
            }
            print(&format!("{label}  {subject}  {text}"))?;
        }
    }
    Ok(code)
}

/// What the registry holds of a subject.
struct Found {
    versions: Vec<Version>,
    level: Option<String>,
    /// The id of our schema there.
    own: Option<u32>,
    /// Our schema is registered, or the registry would accept it.
    accepted: bool,
}

/// One line about a subject, with its remedy.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Ok(String),
    Note(String),
    Fail(String),
}

impl Found {
    /// `register`: the service registers a missing schema when it starts.
    fn judged(&self, ours: &str, register: bool) -> Vec<Finding> {
        let count = self.versions.len();
        if count == 0 {
            return vec![if register {
                Finding::Note("not registered yet; → `run` does it, or scimtail schemas --register".to_owned())
            } else {
                let remedy = "→ scimtail schemas --print shows what to register";
                Finding::Fail(format!("not registered, and registry.register = false; {remedy}"))
            }];
        }
        let mut findings = Vec::new();
        let level = self.level.as_deref().unwrap_or("not set");
        let own = self.versions.iter().find(|version| Some(version.id) == self.own);
        match own {
            Some(Version { number, id, .. }) if level == COMPATIBILITY => {
                findings.push(Finding::Ok(format!("id {id}, version {number} of {count}, {level}")));
            }
            Some(_) => {}
            None if !self.accepted => findings.push(Finding::Fail(format!(
                "refuses this version's schema: incompatible with the {count} registered versions; \
                 → use another kafka.topic_prefix, or ask who registered them"
            ))),
            None if register => findings.push(Finding::Note(format!(
                "{count} versions, none of them is this one's; it would be accepted; → `run` registers it"
            ))),
            None => findings.push(Finding::Fail(format!(
                "{count} versions, none of them is this one's; it would be accepted, but registry.register = false; \
                 → scimtail schemas --print shows what to register"
            ))),
        }
        if level != COMPATIBILITY {
            findings.push(Finding::Fail(format!(
                "compatibility {} lets incompatible schemas in; → scimtail schemas --register sets {COMPATIBILITY}",
                clean(level)
            )));
        }
        findings.extend(self.versions.iter().filter_map(|version| self.other(ours, own, version)));
        findings
    }

    /// A finding about one registered version: our schema in other words, a newer one, or one that misleads readers.
    fn other(&self, ours: &str, own: Option<&Version>, version: &Version) -> Option<Finding> {
        let Version { number, id, text } = version;
        // Some registries give a schema back with other white space (Apicurio 3 does).
        if json(ours).is_some() && json(ours) == json(text) {
            return None;
        }
        let newer = own.is_some_and(|own| own.number < *number);
        let broken = if newer { evolution(ours, text) } else { evolution(text, ours) };
        if own == Some(version) {
            return (!broken.is_empty())
                .then(|| Finding::Note(format!("version {number} (id {id}) is the same schema in another text")));
        }
        if let Some(complaint) = broken.first() {
            return Some(Finding::Fail(format!(
                "version {number} (id {id}) misleads readers that decode by position: {}; → ask who registered it",
                clean(complaint)
            )));
        }
        newer.then(|| {
            Finding::Note(format!(
                "version {number} (id {id}) is newer and appends fields, so a later scimtail was here; → update this one"
            ))
        })
    }
}

fn json(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i64, text: &str) -> Version {
        Version { number, id: 10 + number as u32, text: text.to_owned() }
    }

    fn found(versions: Vec<Version>, own: Option<i64>) -> Found {
        let own = own.map(|number| 10 + number as u32);
        Found { versions, level: Some(COMPATIBILITY.to_owned()), own, accepted: true }
    }

    /// Our schema with a field more, at the end or in the middle.
    fn grown(at_the_end: bool) -> String {
        let mut schema: serde_json::Value = serde_json::from_str(schema::text(Topic::Control)).expect("JSON");
        let fields = schema["fields"].as_array_mut().expect("fields");
        let place = if at_the_end { fields.len() } else { 1 };
        fields.insert(place, serde_json::json!({ "name": "more", "type": ["null", "string"], "default": null }));
        schema.to_string()
    }

    fn lines(found: &Found, register: bool) -> Vec<String> {
        let judged = found.judged(schema::text(Topic::Control), register);
        judged.iter().map(|finding| format!("{finding:?}")).collect()
    }

    #[test]
    fn each_finding_names_its_remedy() {
        let ours = || version(1, schema::text(Topic::Control));
        let (newer, older) = (version(2, &grown(true)), version(2, &grown(false)));
        let other_level =
            |level: Option<&str>| Found { level: level.map(str::to_owned), ..found(vec![ours()], Some(1)) };
        let refused = Found { accepted: false, ..found(vec![older.clone()], None) };
        let indented = format!("{:#}", json(schema::text(Topic::Control)).expect("JSON"));
        let foreign = found(vec![version(1, "{\"type\": \"record\", \"name\": \"Other\", \"fields\": []}")], None);
        for (found, register, words) in [
            (found(vec![ours()], Some(1)), true, vec!["Ok(\"id 11, version 1 of 1, FULL_TRANSITIVE\")"]),
            (found(vec![version(1, &indented)], Some(1)), true, vec!["Ok(\"id 11, version 1 of 1"]),
            (found(vec![], None), true, vec!["Note(\"not registered yet; → `run`"]),
            (found(vec![], None), false, vec!["Fail(\"not registered, and registry.register = false; →"]),
            (other_level(None), true, vec!["Fail(\"compatibility not set lets"]),
            (other_level(Some("BACKWARD")), true, vec!["Fail(\"compatibility BACKWARD lets"]),
            (found(vec![ours(), newer.clone()], Some(1)), true, vec!["Ok(", "Note(\"version 2 (id 12) is newer"]),
            (found(vec![ours(), older.clone()], Some(1)), true, vec!["Ok(", "Fail(\"version 2 (id 12) misleads"]),
            (refused, true, vec!["Fail(\"refuses this version's schema", "Fail(\"version 2 (id 12) misleads"]),
            (foreign, true, vec!["Note(\"1 versions, none of them is this one's", "Fail(\"version 1 (id 11) misleads"]),
        ] {
            let lines = lines(&found, register);
            assert_eq!(lines.len(), words.len(), "{lines:?}");
            for (line, word) in lines.iter().zip(words) {
                assert!(line.starts_with(word), "{line} does not begin with {word}");
                assert!(line.starts_with("Ok(") || line.contains('→'), "{line} has no remedy");
            }
        }
    }
}
