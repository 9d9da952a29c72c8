//! The schema registry: register or look up, compatibility FULL_TRANSITIVE on every subject.
//!
//! Registering goes through schema_registry_converter. Compatibility settings, look-ups and fetching are calls of our
//! own: the library has none of the first two (it would compare texts without `normalize=true`), and it does not tell
//! an unknown schema apart from an outage.

use std::time::Duration;

use reqwest::StatusCode;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, post_schema};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use serde_json::{Value, json};

use super::schema::{self, SchemaIds};
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Tries to register one schema, the first included.
const REGISTER_TRIES: u32 = 4;
/// Between two of these tries: as long as another instance may take to register it.
const REGISTER_WAIT: Duration = Duration::from_millis(250);
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

#[derive(Clone)]
pub struct Registry {
    url: String,
    http: reqwest::Client,
    settings: SrSettings,
}

/// One version of a subject, as the registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    pub id: u32,
    pub text: String,
}

impl Registry {
    /// # Errors
    /// A URL that cannot be used.
    pub fn new(url: &str) -> Result<Registry, ServiceError> {
        let unusable = |url: &str| ServiceError::refused(format!("registry {url}: the URL cannot be used"));
        let url = url.trim_end_matches('/').to_owned();
        let builder = || {
            let builder = reqwest::Client::builder().timeout(REQUEST_WAIT).redirect(reqwest::redirect::Policy::none());
            builder.no_proxy()
        };
        let http = builder().build().map_err(|_| unusable(&url))?;
        let settings = SrSettings::new_builder(url.clone()).build_with(builder()).map_err(|_| unusable(&url))?;
        Ok(Registry { url, http, settings })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Checks that the service at the URL is a registry of the Confluent API. Another service at a wrong URL answers
    /// 404 to every question, which would mean that nothing is registered.
    ///
    /// # Errors
    /// The service is unreachable, is not a registry, or asks for credentials.
    pub async fn probe(&self) -> Result<(), ServiceError> {
        let (status, body) = self.call(self.http.get(format!("{}/subjects", self.url))).await?;
        match status {
            status if status.is_success() && body.is_array() => Ok(()),
            // To list all subjects is a permission of its own (Confluent's GLOBAL_SUBJECTS_READ) that nothing here
            // needs.
            StatusCode::FORBIDDEN => Ok(()),
            StatusCode::UNAUTHORIZED => Err(self.refused("listing subjects", status)),
            status => {
                let what = format!(
                    "registry {}: this is not a registry of the Confluent API (GET /subjects: HTTP {})",
                    self.url,
                    status.as_u16()
                );
                let remedy = "check registry.url; for Apicurio it ends in /apis/ccompat/v7";
                Err(ServiceError::Refused(Problem::new(what).with_remedy(remedy)))
            }
        }
    }

    /// Ids of all six schemas; with `register`, those that are missing are registered first.
    ///
    /// # Errors
    /// Unreachable, or the registry refuses a schema or does not have it.
    pub async fn ids(&self, prefix: &str, register: bool) -> Result<SchemaIds, ServiceError> {
        self.probe().await?;
        let mut ids = [0; Topic::ALL.len()];
        for topic in Topic::ALL {
            let subject = schema::subject(prefix, topic);
            ids[topic as usize] = match self.look_up(&subject, schema::text(topic)).await? {
                Some(id) => {
                    if register && self.compatibility(&subject).await?.as_deref() != Some(COMPATIBILITY) {
                        self.set_compatibility(&subject).await?;
                    }
                    id
                }
                None if register => self.register_or_find(&subject, schema::text(topic)).await?,
                None => {
                    let what = format!(
                        "registry {}: {subject} does not have this schema and registry.register = false",
                        self.url
                    );
                    let remedy = "scimtail schemas --print shows what to register";
                    return Err(ServiceError::Refused(Problem::new(what).with_remedy(remedy)));
                }
            };
        }
        Ok(SchemaIds(ids))
    }

    /// The id of exactly this schema under the subject.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn look_up(&self, subject: &str, text: &str) -> Result<Option<u32>, ServiceError> {
        let url = format!("{}/subjects/{subject}?normalize=true", self.url);
        let (status, body) = self.call(self.http.post(url).json(&json!({ "schema": text }))).await?;
        match (status, body["id"].as_u64().and_then(|id| u32::try_from(id).ok())) {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, Some(id)) if status.is_success() => Ok(Some(id)),
            (status, _) => Err(self.refused(&format!("look-up of {subject}"), status)),
        }
    }

    async fn set_compatibility(&self, subject: &str) -> Result<(), ServiceError> {
        let url = format!("{}/config/{subject}", self.url);
        let (status, _) = self.call(self.http.put(url).json(&json!({ "compatibility": COMPATIBILITY }))).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(self.refused(&format!("setting {COMPATIBILITY} on {subject}"), status))
    }

    /// Instances that start together register the same schemas at the same moment, and a registry may refuse all but
    /// one of them (Apicurio does). No matter which instance wins, the schema is registered afterwards.
    async fn register_or_find(&self, subject: &str, text: &str) -> Result<u32, ServiceError> {
        let mut tries = 1;
        loop {
            let error = match self.register(subject, text).await {
                Ok(id) => return Ok(id),
                Err(error) => error,
            };
            match self.look_up(subject, text).await? {
                Some(id) => return Ok(id),
                None if tries < REGISTER_TRIES => {
                    tries += 1;
                    tokio::time::sleep(REGISTER_WAIT).await;
                }
                None => return Err(error),
            }
        }
    }

    /// The compatibility level goes first: it lasts from before the first version on.
    async fn register(&self, subject: &str, text: &str) -> Result<u32, ServiceError> {
        self.set_compatibility(subject).await?;
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, text.to_owned());
        let registered = post_schema(&self.settings, subject.to_owned(), supplied).await;
        registered.map(|registered| registered.id).map_err(|error| self.library(subject, &error))
    }

    /// Compatibility level of a subject; `None` if it is not set.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn compatibility(&self, subject: &str) -> Result<Option<String>, ServiceError> {
        let (status, body) = self.call(self.http.get(format!("{}/config/{subject}", self.url))).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(body["compatibilityLevel"].as_str().map(str::to_owned)),
            status => Err(self.refused(&format!("compatibility of {subject}"), status)),
        }
    }

    /// All versions of a subject, oldest first; none if the subject does not exist.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn versions(&self, subject: &str) -> Result<Vec<Version>, ServiceError> {
        let url = format!("{}/subjects/{subject}/versions", self.url);
        let (status, body) = self.call(self.http.get(&url)).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let mut versions = Vec::new();
        for number in body.as_array().into_iter().flatten().filter_map(Value::as_i64) {
            let (status, body) = self.call(self.http.get(format!("{url}/{number}"))).await?;
            let (id, text) = (body["id"].as_u64().and_then(|id| u32::try_from(id).ok()), body["schema"].as_str());
            match (status, id, text) {
                // Deleted meanwhile.
                (StatusCode::NOT_FOUND, _, _) => {}
                (_, Some(id), Some(text)) => versions.push(Version { number, id, text: text.to_owned() }),
                _ => return Err(self.refused(&format!("version {number} of {subject}"), status)),
            }
        }
        versions.sort_by_key(|version| version.number);
        if status.is_success() { Ok(versions) } else { Err(self.refused(&format!("versions of {subject}"), status)) }
    }

    /// True if the registry would take this schema beside the registered versions, by the subject's level.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn accepts(&self, subject: &str, text: &str) -> Result<bool, ServiceError> {
        let url = format!("{}/compatibility/subjects/{subject}/versions", self.url);
        let (status, body) = self.call(self.http.post(url).json(&json!({ "schema": text }))).await?;
        body["is_compatible"]
            .as_bool()
            .ok_or_else(|| self.refused(&format!("compatibility check of {subject}"), status))
    }

    /// # Errors
    /// Unreachable, or the registry does not know the id.
    pub async fn schema_text(&self, id: u32) -> Result<String, ServiceError> {
        // Not through the library, which takes a passing HTTP 500 for an unknown id.
        let (status, body) = self.call(self.http.get(format!("{}/schemas/ids/{id}", self.url))).await?;
        match (status, body["schema"].as_str()) {
            (StatusCode::NOT_FOUND, _) => {
                Err(ServiceError::refused(format!("registry {} does not know schema {id}", self.url)))
            }
            (status, Some(schema)) if status.is_success() => Ok(schema.to_owned()),
            // Nothing is wrong with the records. It counts as an outage until the registry permits the request.
            (status, _) => {
                let what = format!("registry {} answers HTTP {} for schema {id}", self.url, status.as_u16());
                Err(ServiceError::Unreachable(with_permission(what, status)))
            }
        }
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, Value), ServiceError> {
        let unreachable = |_| {
            let remedy = "check registry.url (Apicurio: http://host:port/apis/ccompat/v7) and that it runs";
            let problem = Problem::new(format!("registry {} cannot be reached", self.url));
            ServiceError::Unreachable(problem.with_remedy(remedy))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_server_error() {
            return Err(ServiceError::unreachable(format!("registry {} answers HTTP {}", self.url, status.as_u16())));
        }
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    fn refused(&self, what: &str, status: StatusCode) -> ServiceError {
        let what = format!("registry {}: {what} is refused (HTTP {})", self.url, status.as_u16());
        ServiceError::Refused(with_permission(what, status))
    }

    fn library(&self, subject: &str, error: &SRCError) -> ServiceError {
        if error.retriable {
            return ServiceError::unreachable(format!("registry {} cannot be reached", self.url));
        }
        // The library's text names the status but may hold the registry's own words: not repeated.
        let what = format!(
            "registry {} refuses the schema of {subject}: the schema is incompatible with a registered version, or may not be written",
            self.url
        );
        let remedy = "use another kafka.topic_prefix, or ask the owner of the subject";
        ServiceError::Refused(Problem::new(what).with_remedy(remedy))
    }
}

/// The problem, with what to do if the registry refuses this client rather than the request.
fn with_permission(what: String, status: StatusCode) -> Problem {
    match status {
        StatusCode::UNAUTHORIZED => {
            Problem::new(format!("{what}: the registry asks for credentials, and scimtail has none"))
                .with_remedy("let scimtail in without credentials, or through a proxy that adds them")
        }
        StatusCode::FORBIDDEN => Problem::new(what).with_remedy("ask the registry's operator to permit it"),
        _ => Problem::new(what),
    }
}
