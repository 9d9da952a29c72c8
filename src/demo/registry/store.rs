//! What a schema registry holds, in memory.

use std::collections::BTreeMap;

use serde_json::Value;

/// The registered schemas, their subjects and compatibility levels.
#[derive(Default)]
pub struct Registry {
    /// Every distinct schema; the id is the position plus 1.
    schemas: Vec<Schema>,
    /// The ids of a subject's versions; the version is the position plus 1.
    pub subjects: BTreeMap<String, Vec<usize>>,
    /// The level of subjects that have none of their own.
    pub compatibility: Option<&'static str>,
    pub subject_compatibility: BTreeMap<String, &'static str>,
}

pub struct Schema {
    /// As first registered.
    pub text: String,
    /// Two texts are one schema if they are the same JSON, so white space does not matter.
    pub json: Value,
}

/// One schema under one subject, as the API shows it.
pub struct Version {
    pub id: usize,
    pub version: usize,
}

impl Registry {
    fn id_of(&self, json: &Value) -> Option<usize> {
        let position = self.schemas.iter().position(|schema| schema.json == *json);
        position.map(|position| position + 1)
    }

    pub fn schema(&self, id: usize) -> Result<&Schema, Refusal> {
        id.checked_sub(1).and_then(|position| self.schemas.get(position)).ok_or(Refusal::SchemaUnknown)
    }

    pub fn register(&mut self, subject: &str, schema: Schema) -> usize {
        let id = self.id_of(&schema.json).unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len()
        });
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&id) {
            versions.push(id);
        }
        id
    }

    pub fn versions(&self, subject: &str) -> Result<&[usize], Refusal> {
        match self.subjects.get(subject) {
            Some(ids) => Ok(ids),
            None => Err(Refusal::SubjectUnknown(subject.to_owned())),
        }
    }

    pub fn look_up(&self, subject: &str, json: &Value) -> Result<Version, Refusal> {
        let ids = self.versions(subject)?;
        let id = self.id_of(json).ok_or(Refusal::SchemaUnknown)?;
        let position = ids.iter().position(|&known| known == id);
        let version = position.ok_or(Refusal::SchemaUnknown)? + 1;
        Ok(Version { id, version })
    }

    /// `version` is a number from 1, `latest`, or -1 for the same.
    pub fn version(&self, subject: &str, version: &str) -> Result<Version, Refusal> {
        let ids = self.versions(subject)?;
        let version = match version {
            "latest" | "-1" => ids.len(),
            number => match number.parse() {
                Ok(number) if number > 0 => number,
                _ => return Err(Refusal::VersionInvalid(number.to_owned())),
            },
        };
        match ids.get(version - 1) {
            Some(&id) => Ok(Version { id, version }),
            None => Err(Refusal::VersionUnknown(version)),
        }
    }
}

/// Why a request is refused. Decides status and error code of the response.
pub enum Refusal {
    BodyInvalid(String),
    SubjectUnknown(String),
    VersionUnknown(usize),
    SchemaUnknown,
    SubjectLevelUnset(String),
    SchemaInvalid(String),
    VersionInvalid(String),
    LevelInvalid,
    EndpointUnknown,
    MethodNotAllowed,
}
