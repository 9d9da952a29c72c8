//! The schema registry: register or look up, compatibility FULL_TRANSITIVE on every subject.
//!
//! Registering goes through schema_registry_converter. Compatibility settings, look-ups and fetching are calls of our
//! own: the library has none of the first two (it would compare texts without `normalize=true`), and it does not tell
//! an unknown schema apart from an outage.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Method, Response, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, post_schema};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::schema::{self, SchemaIds};
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;
use crate::transport::failure::{Failed, Received, looked_into};
use crate::transport::{Proxy, Transport};

const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Tries to register one schema, or to set its compatibility level, the first included.
const REGISTER_TRIES: u32 = 4;
/// Between two of these tries: as long as another instance may take for the same.
const REGISTER_WAIT: Duration = Duration::from_millis(250);
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// Clones share connections and what they have learnt of the credentials.
#[derive(Clone)]
pub struct Registry {
    url: String,
    read: ReadAccess,
    session: Arc<Mutex<Arc<Session>>>,
}

/// How the registry lets a client in.
#[derive(Clone, Default)]
pub struct Access {
    pub login: Login,
    pub transport: Transport,
}

/// What each request is signed with.
#[derive(Clone, Default)]
pub enum Login {
    #[default]
    None,
    /// RFC 7617.
    Basic { username: String, password: SecretString },
    /// RFC 6750 §2.1.
    Bearer(SecretString),
}

/// Reads secrets, keys and certificates as they are now. `Err`: why they cannot be read, without any of them.
pub type ReadAccess = Arc<dyn Fn() -> Result<Access, Problem> + Send + Sync>;

impl Login {
    /// User name and secret, to tell two logins apart.
    fn parts(&self) -> (&str, &str) {
        match self {
            Login::None => ("", ""),
            Login::Basic { username, password } => (username, password.expose_secret()),
            Login::Bearer(token) => ("", token.expose_secret()),
        }
    }

    /// The keys of the configuration that a refused login comes from.
    fn keys(&self) -> &'static str {
        match self {
            Login::None => "registry.username with registry.password_file, or registry.token_file",
            Login::Basic { .. } => "registry.username, and registry.password_env or registry.password_file",
            Login::Bearer(_) => "registry.token_env or registry.token_file",
        }
    }
}

impl Access {
    fn equals(&self, other: &Access) -> bool {
        self.login.parts() == other.login.parts() && self.transport == other.transport
    }
}

/// Clients that were made with one access.
struct Session {
    access: Access,
    http: reqwest::Client,
    /// The library's client.
    settings: SrSettings,
    url: Url,
    through: Option<Proxy>,
}

impl Session {
    fn new(text: &str, access: Access) -> Result<Session, Problem> {
        let unusable = || Problem::new("the URL cannot be used");
        let url = Url::parse(text).map_err(|_| unusable())?;
        let http = access.transport.builder(&url)?.timeout(REQUEST_WAIT).build().map_err(|_| unusable())?;
        let mut settings = SrSettings::new_builder(text.to_owned());
        match &access.login {
            Login::None => {}
            Login::Basic { username, password } => {
                settings.set_basic_authorization(username, Some(password.expose_secret()));
            }
            Login::Bearer(token) => {
                HeaderValue::from_str(token.expose_secret()).map_err(|_| {
                    Problem::new("the token holds characters that no header can carry")
                        .with_remedy("only the token itself in one line, in registry.token_env or registry.token_file")
                })?;
                settings.set_token_authorization(token.expose_secret());
            }
        }
        // The proxy, if there is one, comes with the builder.
        settings.set_timeout(REQUEST_WAIT);
        let settings = settings.build_with(access.transport.builder(&url)?).map_err(|_| unusable())?;
        let through = access.transport.proxy_to(&url).cloned();
        Ok(Session { access, http, settings, url, through })
    }

    async fn send(&self, request: &Request<'_>) -> Result<Response, reqwest::Error> {
        let sending = self.http.request(request.method.clone(), &request.url);
        let sending = match &self.access.login {
            Login::None => sending,
            Login::Basic { username, password } => sending.basic_auth(username, Some(password.expose_secret())),
            Login::Bearer(token) => sending.bearer_auth(token.expose_secret()),
        };
        match request.body {
            None => sending.send().await,
            Some(body) => sending.json(body).send().await,
        }
    }
}

/// A request that may be repeated.
struct Request<'a> {
    method: Method,
    url: String,
    body: Option<&'a Value>,
}

/// One version of a subject, as the registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    pub id: u32,
    pub text: String,
}

impl Registry {
    /// A registry that asks for no credentials, reached directly.
    ///
    /// # Errors
    /// A URL that cannot be used.
    pub fn new(url: &str) -> Result<Registry, ServiceError> {
        Registry::with_access(url, Arc::new(|| Ok(Access::default())))
    }

    /// Reads the access for the first time. It is read once more when the registry refuses it, so that rotated secrets
    /// and certificates take effect.
    ///
    /// # Errors
    /// The access cannot be read, or TLS cannot be set up, or the URL cannot be used.
    pub fn with_access(url: &str, read: ReadAccess) -> Result<Registry, ServiceError> {
        let url = url.trim_end_matches('/').to_owned();
        let session = read().and_then(|access| Session::new(&url, access));
        let session = session.map_err(|problem| ServiceError::refused(problem.of(&format!("registry {url}"))))?;
        Ok(Registry { url, read, session: Arc::new(Mutex::new(Arc::new(session))) })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    fn session(&self) -> Arc<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session after the refused one; `None` if a new one would be refused too.
    fn renewed(&self, refused: &Arc<Session>) -> Option<Arc<Session>> {
        let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, refused) {
            return Some(current.clone());
        }
        // An access that cannot be read counts as unchanged: the refusal says what has to be done.
        let access = (self.read)().ok().filter(|access| !access.equals(&refused.access))?;
        *current = Arc::new(Session::new(&self.url, access).ok()?);
        Some(current.clone())
    }

    /// Checks that the service at the URL is a registry of the Confluent API. Another service at a wrong URL answers
    /// 404 to every question, which would mean that nothing is registered.
    ///
    /// # Errors
    /// The service is unreachable, is not a registry, or asks for credentials.
    pub async fn probe(&self) -> Result<(), ServiceError> {
        let (status, body) = self.get("/subjects").await?;
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
        // All at once, because a registry far away would make a start wait a dozen times.
        let asked = Topic::ALL.map(|topic| async move { (topic, self.id(prefix, topic, register).await) });
        for (topic, id) in futures::future::join_all(asked).await {
            ids[topic as usize] = id?;
        }
        Ok(SchemaIds(ids))
    }

    async fn id(&self, prefix: &str, topic: Topic, register: bool) -> Result<u32, ServiceError> {
        let subject = schema::subject(prefix, topic);
        match self.look_up(&subject, schema::text(topic)).await? {
            Some(id) => {
                if register && self.compatibility(&subject).await?.as_deref() != Some(COMPATIBILITY) {
                    self.set_compatibility(&subject).await?;
                }
                Ok(id)
            }
            None if register => self.register_or_find(&subject, schema::text(topic)).await,
            None => {
                let what =
                    format!("registry {}: {subject} does not have this schema and registry.register = false", self.url);
                let remedy = "scimtail schemas --print shows what to register";
                Err(ServiceError::Refused(Problem::new(what).with_remedy(remedy)))
            }
        }
    }

    /// The id of exactly this schema under the subject.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn look_up(&self, subject: &str, text: &str) -> Result<Option<u32>, ServiceError> {
        let path = format!("/subjects/{subject}?normalize=true");
        let (status, body) = self.call(Method::POST, &path, Some(&json!({ "schema": text }))).await?;
        match (status, body["id"].as_u64().and_then(|id| u32::try_from(id).ok())) {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, Some(id)) if status.is_success() => Ok(Some(id)),
            (status, _) => Err(self.refused(&format!("look-up of {subject}"), status)),
        }
    }

    /// Of instances that set the level at the same moment, a registry may refuse all but one with 409 (Apicurio does).
    async fn set_compatibility(&self, subject: &str) -> Result<(), ServiceError> {
        let level = json!({ "compatibility": COMPATIBILITY });
        let mut tries = 1;
        loop {
            let (status, _) = self.call(Method::PUT, &format!("/config/{subject}"), Some(&level)).await?;
            if status.is_success() {
                return Ok(());
            }
            if status != StatusCode::CONFLICT || tries == REGISTER_TRIES {
                return Err(self.refused(&format!("setting {COMPATIBILITY} on {subject}"), status));
            }
            if self.compatibility(subject).await?.as_deref() == Some(COMPATIBILITY) {
                return Ok(());
            }
            tries += 1;
            tokio::time::sleep(REGISTER_WAIT).await;
        }
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
        let registered = post_schema(&self.session().settings, subject.to_owned(), supplied).await;
        match registered {
            Ok(registered) => Ok(registered.id),
            Err(error) => Err(self.library(subject, &error).await),
        }
    }

    /// Compatibility level of a subject; `None` if it is not set.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn compatibility(&self, subject: &str) -> Result<Option<String>, ServiceError> {
        let (status, body) = self.get(&format!("/config/{subject}")).await?;
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
        let mut versions = Vec::new();
        for number in self.numbers(subject).await? {
            let (status, body) = self.get(&format!("/subjects/{subject}/versions/{number}")).await?;
            let (id, text) = (body["id"].as_u64().and_then(|id| u32::try_from(id).ok()), body["schema"].as_str());
            match (status, id, text) {
                // Deleted meanwhile.
                (StatusCode::NOT_FOUND, _, _) => {}
                (_, Some(id), Some(text)) => versions.push(Version { number, id, text: text.to_owned() }),
                _ => return Err(self.refused(&format!("version {number} of {subject}"), status)),
            }
        }
        Ok(versions)
    }

    /// The numbers of a subject's versions, in their order.
    async fn numbers(&self, subject: &str) -> Result<Vec<i64>, ServiceError> {
        let (status, body) = self.get(&format!("/subjects/{subject}/versions")).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let listed = body.as_array().filter(|_| status.is_success());
        let listed = listed.ok_or_else(|| self.refused(&format!("versions of {subject}"), status))?;
        let mut numbers: Vec<i64> = listed.iter().filter_map(Value::as_i64).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// True if the registry would take this schema beside the registered versions, by the subject's level.
    ///
    /// # Errors
    /// Unreachable, or refused.
    pub async fn accepts(&self, subject: &str, text: &str) -> Result<bool, ServiceError> {
        let path = format!("/compatibility/subjects/{subject}/versions");
        let schema = json!({ "schema": text });
        let (status, body) = self.call(Method::POST, &path, Some(&schema)).await?;
        let refused = |status| self.refused(&format!("compatibility check of {subject}"), status);
        if !is_no_path(status, &body) {
            return body["is_compatible"].as_bool().ok_or_else(|| refused(status));
        }
        // Karapace and Redpanda compare with one version at a time.
        for number in self.numbers(subject).await? {
            let (status, body) = self.call(Method::POST, &format!("{path}/{number}"), Some(&schema)).await?;
            match body["is_compatible"].as_bool() {
                Some(true) => {}
                Some(false) => return Ok(false),
                // Deleted meanwhile.
                None if status == StatusCode::NOT_FOUND && !is_no_path(status, &body) => {}
                None => return Err(refused(status)),
            }
        }
        Ok(true)
    }

    /// # Errors
    /// Unreachable, or the registry does not know the id.
    pub async fn schema_text(&self, id: u32) -> Result<String, ServiceError> {
        // Not through the library, which takes a passing HTTP 500 for an unknown id. A refusal would say that the
        // record is wrong. Without an answer nothing is known of it, even if a person has to end that.
        let answered = self.get(&format!("/schemas/ids/{id}")).await;
        let (status, body) = answered.map_err(|error| ServiceError::Unreachable(error.problem().clone()))?;
        match (status, body["schema"].as_str()) {
            (StatusCode::NOT_FOUND, _) => {
                Err(ServiceError::refused(format!("registry {} does not know schema {id}", self.url)))
            }
            (status, Some(schema)) if status.is_success() => Ok(schema.to_owned()),
            // Nothing is wrong with the records. It counts as an outage until the registry permits the request.
            (status, _) => {
                let what = format!("registry {} answers HTTP {} for schema {id}", self.url, status.as_u16());
                Err(ServiceError::Unreachable(self.with_permission(what, status)))
            }
        }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Value), ServiceError> {
        self.call(Method::GET, path, None).await
    }

    /// Sends a request, and once more if the access has changed since it was read.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), ServiceError> {
        let request = Request { method, url: format!("{}{path}", self.url), body };
        let mut session = self.session();
        let mut answered = session.send(&request).await;
        // Whatever keeps the answer away may be a certificate or a password that is new by now.
        let is_refused = answered.as_ref().map_or(true, |response| response.status() == StatusCode::UNAUTHORIZED);
        if is_refused && let Some(renewed) = self.renewed(&session) {
            session = renewed;
            answered = session.send(&request).await;
        }
        let response = match answered {
            Ok(response) => response,
            Err(error) => return Err(no_answer(&self.url, &session, &error).await),
        };
        let status = response.status();
        if status.is_server_error() {
            return Err(ServiceError::unreachable(format!("registry {} answers HTTP {}", self.url, status.as_u16())));
        }
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    fn refused(&self, what: &str, status: StatusCode) -> ServiceError {
        let what = format!("registry {}: {what} is refused (HTTP {})", self.url, status.as_u16());
        ServiceError::Refused(self.with_permission(what, status))
    }

    async fn library(&self, subject: &str, error: &SRCError) -> ServiceError {
        if let Some(error) = error.source().and_then(|source| source.downcast_ref::<reqwest::Error>()) {
            return no_answer(&self.url, &self.session(), error).await;
        }
        if error.retriable {
            return ServiceError::unreachable(format!("registry {} cannot be reached", self.url));
        }
        // The library's text names the status but may hold the registry's own words: not repeated.
        if let Some(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) = status_of(error) {
            return self.refused(&format!("registering {subject}"), status);
        }
        let what = format!(
            "registry {} refuses the schema of {subject}: the schema is incompatible with a registered version, or may not be written",
            self.url
        );
        let remedy = "use another kafka.topic_prefix, or ask the owner of the subject";
        ServiceError::Refused(Problem::new(what).with_remedy(remedy))
    }

    /// The problem, with what to do if the registry refuses this client rather than the request.
    fn with_permission(&self, what: String, status: StatusCode) -> Problem {
        let session = self.session();
        let login = &session.access.login;
        match (status, login) {
            (StatusCode::UNAUTHORIZED, Login::None) => {
                Problem::new(format!("{what}: the registry asks for credentials, and none are configured"))
                    .with_remedy(login.keys())
            }
            (StatusCode::UNAUTHORIZED, _) => Problem::new(format!("{what}: the registry refuses the credentials"))
                .with_remedy(format!("check {}", login.keys())),
            (StatusCode::FORBIDDEN, Login::None) => {
                let remedy = format!("ask the registry's operator to permit it, or configure {}", login.keys());
                Problem::new(what).with_remedy(remedy)
            }
            (StatusCode::FORBIDDEN, _) => {
                let remedy = format!("ask the registry's operator to permit it to the credentials in {}", login.keys());
                Problem::new(what).with_remedy(remedy)
            }
            _ => Problem::new(what),
        }
    }
}

/// The registry does not answer: refused if a person has to act.
async fn no_answer(url: &str, session: &Session, error: &reqwest::Error) -> ServiceError {
    let Failed { problem: Problem { what, remedy }, needs_person } =
        looked_into(error, Received::Nothing, session.through.as_ref(), &session.url).await;
    let remedy = remedy.unwrap_or_else(|| {
        "check registry.url (Apicurio: http://host:port/apis/ccompat/v7) and that it runs".to_owned()
    });
    let problem = Problem::new(format!("registry {url} cannot be reached: {what}")).with_remedy(remedy);
    if needs_person { ServiceError::Refused(problem) } else { ServiceError::Unreachable(problem) }
}

/// The registry does not have this path. If the path is there and the subject or the version is not, the answer has an
/// error code of five digits, e.g. 40401.
fn is_no_path(status: StatusCode, body: &Value) -> bool {
    const DETAILED: i64 = 10_000;
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
        && body["error_code"].as_i64().is_none_or(|code| code < DETAILED)
}

/// The HTTP status that the library's own text of an error ends with.
fn status_of(error: &SRCError) -> Option<StatusCode> {
    let (_, status) = error.error.rsplit_once("failed with status ")?;
    status.get(..3)?.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok())
}
