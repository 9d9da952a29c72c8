//! A schema registry inside the process, for `scimtail demo`.
//!
//! Records carry the id of their schema, so the demo needs a registry that assigns ids and returns the schema of an id.
//! This one implements the part of the Confluent API that producers and consumers of Avro use. It keeps everything in
//! memory and forgets it on drop.
//!
//! It differs from a real registry on purpose. Compatibility levels are stored and returned, but not enforced. `normalize`
//! is ignored. References, and schema types other than Avro, are refused. Nothing can be deleted.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::server::Server;
use store::{Refusal, Registry, Schema, Version};

mod store;

/// Bytes of a request body; the largest schema has a few kB.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The level before one is set, as in Confluent's registry.
const COMPATIBILITY_DEFAULT: &str = "BACKWARD";

const COMPATIBILITY_LEVELS: [&str; 7] =
    ["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"];

/// A running registry; dropping it stops its server and forgets its schemas.
pub struct EmbeddedRegistry {
    url: String,
    _server: Server,
}

impl EmbeddedRegistry {
    /// Serves an empty registry on a free loopback port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = Server::start(listener, router(Arc::default()));
        Ok(Self { url, _server: server })
    }

    /// The base URL, `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // The HTTP status is the first three digits of the code.
        let (error_code, message) = match self {
            Self::BodyInvalid(problem) => (400, format!("Unreadable request body: {problem}")),
            Self::EndpointUnknown => (404, "HTTP 404 Not Found".to_owned()),
            Self::MethodNotAllowed => (405, "HTTP 405 Method Not Allowed".to_owned()),
            Self::SubjectUnknown(subject) => (40401, format!("Subject '{subject}' not found.")),
            Self::VersionUnknown(version) => (40402, format!("Version {version} not found.")),
            Self::SchemaUnknown => (40403, "Schema not found".to_owned()),
            Self::SubjectLevelUnset(subject) => {
                (40408, format!("Subject '{subject}' does not have subject-level compatibility configured"))
            }
            Self::SchemaInvalid(problem) => (42201, format!("Invalid schema: {problem}")),
            Self::VersionInvalid(version) => (
                42202,
                format!(
                    "The specified version '{version}' is not a valid version id. \
                     Allowed values are between [1, 2^31-1] and the string \"latest\""
                ),
            ),
            Self::LevelInvalid => {
                (42203, format!("Invalid compatibility level. Valid values are {}", COMPATIBILITY_LEVELS.join(", ")))
            }
        };
        let status = if error_code < 1000 { error_code } else { error_code / 100 };
        answer(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            &json!({"error_code": error_code, "message": message}),
        )
    }
}

type Answer = Result<Response, Refusal>;
type Shared = State<Arc<Mutex<Registry>>>;

fn router(registry: Arc<Mutex<Registry>>) -> Router {
    Router::new()
        .route("/", get(async || ok(&json!({}))))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/schemas/ids/{id}", get(schema))
        .route("/config", get(global_level).put(set_global_level))
        .route("/config/{subject}", get(subject_level).put(set_subject_level))
        .fallback(async || Refusal::EndpointUnknown)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(registry)
}

async fn subjects(State(registry): Shared) -> Response {
    let registry = lock(&registry);
    ok(&json!(registry.subjects.keys().collect::<Vec<_>>()))
}

async fn look_up(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Answer {
    let schema = posted_schema(&body)?;
    let registry = lock(&registry);
    let found = registry.look_up(&subject, &schema.json)?;
    described(&registry, &subject, &found)
}

async fn register(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Answer {
    let schema = posted_schema(&body)?;
    let id = lock(&registry).register(&subject, schema);
    Ok(ok(&json!({"id": id})))
}

async fn versions(State(registry): Shared, Path(subject): Path<String>) -> Answer {
    let registry = lock(&registry);
    let versions: Vec<usize> = (1..=registry.versions(&subject)?.len()).collect();
    Ok(ok(&json!(versions)))
}

async fn version(State(registry): Shared, Path((subject, version)): Path<(String, String)>) -> Answer {
    let registry = lock(&registry);
    let found = registry.version(&subject, &version)?;
    described(&registry, &subject, &found)
}

async fn schema(State(registry): Shared, Path(id): Path<String>) -> Answer {
    let id = id.parse().map_err(|_| Refusal::SchemaUnknown)?;
    let registry = lock(&registry);
    // No schemaType: its absence means Avro.
    Ok(ok(&json!({"schema": registry.schema(id)?.text})))
}

async fn global_level(State(registry): Shared) -> Response {
    let level = lock(&registry).compatibility;
    ok(&json!({"compatibilityLevel": level.unwrap_or(COMPATIBILITY_DEFAULT)}))
}

async fn set_global_level(State(registry): Shared, body: Bytes) -> Answer {
    let level = posted_level(&body)?;
    lock(&registry).compatibility = Some(level);
    Ok(ok(&json!({"compatibility": level})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LevelQuery {
    #[serde(default)]
    default_to_global: bool,
}

async fn subject_level(
    State(registry): Shared,
    Path(subject): Path<String>,
    Query(query): Query<LevelQuery>,
) -> Answer {
    let registry = lock(&registry);
    let level = match registry.subject_compatibility.get(&subject) {
        Some(level) => level,
        None if query.default_to_global => registry.compatibility.unwrap_or(COMPATIBILITY_DEFAULT),
        None => return Err(Refusal::SubjectLevelUnset(subject)),
    };
    Ok(ok(&json!({"compatibilityLevel": level})))
}

async fn set_subject_level(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Answer {
    let level = posted_level(&body)?;
    lock(&registry).subject_compatibility.insert(subject, level);
    Ok(ok(&json!({"compatibility": level})))
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    // A panic while it was locked left plain data behind, at worst without one registration.
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedSchema {
    schema: String,
    #[serde(default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Value>,
}

fn posted_schema(body: &[u8]) -> Result<Schema, Refusal> {
    let posted: PostedSchema = posted(body)?;
    let refused = |problem: &str| Err(Refusal::SchemaInvalid(problem.to_owned()));
    if posted.schema_type.is_some_and(|kind| kind != "AVRO") {
        return refused("the embedded registry accepts Avro only");
    }
    if !posted.references.is_empty() {
        return refused("the embedded registry does not accept references");
    }
    match serde_json::from_str(&posted.schema) {
        Ok(json @ (Value::String(_) | Value::Array(_) | Value::Object(_))) => Ok(Schema { text: posted.schema, json }),
        Ok(_) => refused("an Avro schema is a JSON string, array or object"),
        Err(error) => refused(&error.to_string()),
    }
}

#[derive(Deserialize)]
struct PostedLevel {
    compatibility: String,
}

fn posted_level(body: &[u8]) -> Result<&'static str, Refusal> {
    let posted: PostedLevel = posted(body)?;
    COMPATIBILITY_LEVELS.into_iter().find(|level| *level == posted.compatibility).ok_or(Refusal::LevelInvalid)
}

/// Reads JSON of any media type, because clients disagree on which one to send.
fn posted<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BodyInvalid(error.to_string()))
}

fn described(registry: &Registry, subject: &str, found: &Version) -> Answer {
    Ok(ok(&json!({
        "subject": subject,
        "id": found.id,
        "version": found.version,
        "schema": registry.schema(found.id)?.text,
    })))
}

fn ok(body: &Value) -> Response {
    answer(StatusCode::OK, body)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let media_type = [(CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")];
    (status, media_type, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use schema_registry_converter::async_impl::avro::{AvroDecoder, AvroEncoder};
    use schema_registry_converter::async_impl::schema_registry::{
        SrSettings, get_schema_by_id, get_schema_by_subject_and_version, post_schema,
    };
    use schema_registry_converter::avro_common::get_supplied_schema;
    use schema_registry_converter::schema_registry_common::{SubjectNameStrategy, SuppliedSchema};

    use super::*;

    const USER: &str = r#"{"type":"record","name":"User","fields":[{"name":"id","type":"string"}]}"#;
    const USER_WITH_TITLE: &str = r#"{"type":"record","name":"User","fields":[{"name":"id","type":"string"},{"name":"title","type":["null","string"],"default":null}]}"#;

    fn settings(registry: &EmbeddedRegistry) -> SrSettings {
        let mut builder = SrSettings::new_builder(registry.url());
        builder.no_proxy().build().unwrap()
    }

    fn supplied(text: &str) -> SuppliedSchema {
        get_supplied_schema(&apache_avro::Schema::parse_str(text).unwrap())
    }

    async fn ask(
        registry: &EmbeddedRegistry,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.request(method, format!("{}{path}", registry.url()));
        if let Some(body) = body {
            let media_type = "application/vnd.schemaregistry.v1+json";
            request = request.header(CONTENT_TYPE, media_type).body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/vnd.schemaregistry.v1+json");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(registry: &EmbeddedRegistry, path: &str) -> (u16, Value) {
        ask(registry, reqwest::Method::GET, path, None).await
    }

    async fn post(registry: &EmbeddedRegistry, path: &str, body: Value) -> (u16, Value) {
        ask(registry, reqwest::Method::POST, path, Some(body)).await
    }

    async fn put(registry: &EmbeddedRegistry, path: &str, body: Value) -> (u16, Value) {
        ask(registry, reqwest::Method::PUT, path, Some(body)).await
    }

    #[tokio::test]
    async fn the_converter_registers_looks_up_encodes_and_decodes() {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let settings = settings(&registry);

        let schema = supplied(USER);
        let subject = "scim.users-value".to_owned();
        let first = post_schema(&settings, subject.clone(), schema.clone()).await.unwrap();
        let again = post_schema(&settings, subject.clone(), schema.clone()).await.unwrap();
        assert_eq!((first.id, again.id), (1, 1));
        let by_id = get_schema_by_id(first.id, &settings).await.unwrap();
        assert_eq!(by_id.schema, schema.schema);
        let latest = get_schema_by_subject_and_version(&settings, &subject, None).await.unwrap();
        assert_eq!((latest.id, latest.version), (1, Some(1)));

        let encoder = AvroEncoder::new(settings.clone());
        let strategy = SubjectNameStrategy::TopicNameStrategyWithSchema("scim.users".to_owned(), false, supplied(USER));
        let value = apache_avro::types::Value::String("u-1".to_owned());
        let fields = vec![("id", value.clone())];
        let bytes = encoder.encode(fields, strategy).await.unwrap();
        assert_eq!(bytes[..5], [0, 0, 0, 0, 1]);
        let decoded = AvroDecoder::new(settings).decode(Some(&bytes)).await.unwrap();
        let expected = vec![("id".to_owned(), value)];
        assert_eq!(decoded.value, apache_avro::types::Value::Record(expected));
    }

    #[tokio::test]
    async fn a_second_schema_is_version_2_and_ids_are_shared_across_subjects() {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let body = |schema: &str| json!({"schema": schema, "schemaType": "AVRO"});
        for (subject, schema, id) in [
            ("a-value", USER, 1),
            ("a-value", USER_WITH_TITLE, 2),
            ("b-value", USER_WITH_TITLE, 2),
            ("a-value", USER, 1),
        ] {
            let path = format!("/subjects/{subject}/versions?normalize=true");
            assert_eq!(post(&registry, &path, body(schema)).await, (200, json!({"id": id})));
        }
        assert_eq!(get(&registry, "/subjects").await, (200, json!(["a-value", "b-value"])));
        assert_eq!(get(&registry, "/subjects/a-value/versions").await, (200, json!([1, 2])));
        let described =
            |subject, version, schema| json!({"subject": subject, "id": 2, "version": version, "schema": schema});
        let newest = described("a-value", 2, USER_WITH_TITLE);
        for version in ["2", "latest", "-1"] {
            let path = format!("/subjects/a-value/versions/{version}");
            assert_eq!(get(&registry, &path).await, (200, newest.clone()));
        }
        let spaced = USER_WITH_TITLE.replace(',', ", ");
        assert_eq!(
            post(&registry, "/subjects/b-value?normalize=true", body(&spaced)).await,
            (200, described("b-value", 1, USER_WITH_TITLE))
        );
    }

    #[tokio::test]
    async fn a_subject_may_hold_a_slash() {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let subject = "team/users-value".to_owned();
        let settings = settings(&registry);
        post_schema(&settings, subject.clone(), supplied(USER)).await.unwrap();
        assert_eq!(get(&registry, "/subjects").await, (200, json!([subject])));
    }

    #[tokio::test]
    async fn what_is_unknown_or_invalid_has_the_code_of_confluent() {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let known = json!({"schema": USER});
        post(&registry, "/subjects/known/versions", known.clone()).await;

        for (path, status, code) in [
            ("/subjects/unknown/versions", 404, 40401),
            ("/subjects/unknown/versions/latest", 404, 40401),
            ("/subjects/known/versions/2", 404, 40402),
            ("/subjects/known/versions/0", 422, 42202),
            ("/subjects/known/versions/newest", 422, 42202),
            ("/schemas/ids/0", 404, 40403),
            ("/schemas/ids/2", 404, 40403),
            ("/schemas/ids/one", 404, 40403),
            ("/config/known", 404, 40408),
            ("/mode", 404, 404),
            ("/subjects/known", 405, 405),
        ] {
            let (answered, error) = get(&registry, path).await;
            assert_eq!((answered, &error["error_code"]), (status, &json!(code)), "{path}");
            assert!(error["message"].is_string(), "{path}");
        }
        for (path, body, status, code) in [
            ("/subjects/unknown", known.clone(), 404, 40401),
            ("/subjects/known", json!({"schema": USER_WITH_TITLE}), 404, 40403),
            ("/subjects/known", json!({"schema": "{"}), 422, 42201),
            ("/subjects/known/versions", json!({"schema": "1"}), 422, 42201),
            ("/subjects/known/versions", json!({"schema": USER, "schemaType": "JSON"}), 422, 42201),
            ("/subjects/known/versions", json!({"text": USER}), 400, 400),
        ] {
            let (answered, error) = post(&registry, path, body.clone()).await;
            assert_eq!((answered, &error["error_code"]), (status, &json!(code)), "{path} {body}");
        }
        let settings = settings(&registry);
        let error = get_schema_by_id(9, &settings).await.unwrap_err();
        assert!(error.to_string().contains("40403"), "{error}");
    }

    #[tokio::test]
    async fn compatibility_levels_are_kept_by_subject_over_the_global_one() {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let level = |level: &str| json!({"compatibilityLevel": level});
        let full = json!({"compatibility": "FULL_TRANSITIVE"});
        assert_eq!(get(&registry, "/config").await, (200, level("BACKWARD")));
        assert_eq!(put(&registry, "/config/a", full.clone()).await, (200, full));
        let none = json!({"compatibility": "NONE"});
        assert_eq!(put(&registry, "/config", none.clone()).await, (200, none));
        for (path, expected) in
            [("/config", "NONE"), ("/config/a", "FULL_TRANSITIVE"), ("/config/b?defaultToGlobal=true", "NONE")]
        {
            assert_eq!(get(&registry, path).await, (200, level(expected)), "{path}");
        }
        let odd = json!({"compatibility": "SOMEWHAT"});
        assert_eq!(put(&registry, "/config/a", odd).await.1["error_code"], 42203);
    }

    #[tokio::test]
    async fn dropping_the_registry_closes_its_connections() {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/subjects", registry.url());
        assert!(client.get(&url).send().await.unwrap().status().is_success());
        drop(registry);
        // The client would reuse its connection, so this succeeds only if that is closed as well.
        for _ in 0..1_000 {
            if client.get(&url).send().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a kept-alive connection is still served");
    }
}
